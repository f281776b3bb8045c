"""Videos whose objects enter after the first frame: reader, tracking, evaluation."""

import numpy as np
import pytest
import torch
from helpers.tiny_towers import tiny_tower
from PIL import Image

from pe_dense.datasets.davis import write_mask
from pe_dense.datasets.video_objects import VideoObjectsDataset
from pe_dense.tracking import DavisMetric, LabelPropagator, LoadVideo
from pe_dense.tracking.davis_eval import measure
from pe_dense.tracking.label_propagation import PropagationContext
from pe_dense.utils.errors import InputError


def square(left, number, size=32):
    mask = np.zeros((size, size), np.uint8)
    mask[8:20, left : left + 12] = number
    return mask


# Object 3 enters in the second frame with a mask, object 5 in the fourth one, object 9 too late to be evaluated.
MASKS = {
    1: np.zeros((32, 32), np.uint8),
    2: square(0, 3),
    4: square(1, 3),
    5: square(2, 3),
    6: square(3, 3) | square(18, 5),
    7: square(4, 3) | square(18, 5),
    8: square(5, 3) | square(18, 5),
    9: square(6, 3) | square(20, 9),
}


@pytest.fixture
def root(tmp_path):
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / folder / "video").mkdir(parents=True)
    background = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for frame in range(10):
        pixels = np.asarray(Image.fromarray(background).resize((32, 32))).copy()
        mask = MASKS.get(frame, np.zeros((32, 32), np.uint8))
        pixels[mask == 3], pixels[mask == 5] = (255, 0, 0), (0, 0, 255)
        Image.fromarray(pixels).save(tmp_path / f"JPEGImages/video/{frame:05d}.jpg", quality=95)
        if frame in MASKS:
            write_mask(tmp_path / f"Annotations/video/{frame:05d}.png", mask)
    return tmp_path


def test_objects_and_the_frames_they_enter_in(root):
    (item,) = VideoObjectsDataset(data_root=str(root))
    assert [path[-9:-4] for path in item["frames"]] == ["00002", "00004", "00005", "00006", "00007", "00008", "00009"]
    assert item["entries"] == {3: 0, 5: 3} and item["object_ids"] == (3, 5)
    sample = LoadVideo(short_side=32, divisor=4, round_up=True)(item)["data_samples"]
    assert np.array_equal(sample.first_mask, square(0, 3))
    assert list(sample.later_masks) == [3] and np.array_equal(sample.later_masks[3], square(18, 5))


def test_listed_videos_and_invalid_ones(root):
    (root / "list.txt").write_text("video\n")
    assert len(VideoObjectsDataset(data_root=str(root), ann_file="list.txt")) == 1
    for frame in (7, 8, 9):
        (root / f"Annotations/video/{frame:05d}.png").unlink()
    (root / "Annotations/video/00002.png").unlink()
    assert len(VideoObjectsDataset(data_root=str(root))[0]["frames"]) == 3
    (root / "Annotations/video/00004.png").unlink()
    with pytest.raises(InputError, match="video has 2 frames with masks from the first object on"):
        VideoObjectsDataset(data_root=str(root))
    with pytest.raises(InputError, match="lists no video"):
        VideoObjectsDataset(data_root=str(root / "JPEGImages"))


def test_tracking_and_evaluation(root):
    pipeline = [dict(type="pe_dense.LoadVideo", short_side=32, divisor=4, round_up=True)]
    (video,) = VideoObjectsDataset(data_root=str(root), pipeline=pipeline)
    model = LabelPropagator(tiny_tower(out_indices=(0,)), neighborhood="circle", upsampling="nearest", norm=True)
    (sample,) = model([video["inputs"]], [video["data_samples"]])
    (labels,) = sample.labels.values()
    assert labels.shape == (7, 32, 32) and not (labels[:3] == 5).any()
    assert np.array_equal(labels[3] == 5, square(18, 5) == 5)  # as given
    assert set(np.unique(labels[4:])) == {0, 3, 5}
    metric = DavisMetric()
    metric.process(None, [sample.to_dict()])
    metric.compute_metrics(metric.results)
    assert {(row["object"], row["J_mean"] > 0.5) for row in metric.by_object} == {(3, True), (5, True)}


def test_frames_up_to_the_entry_are_not_evaluated():
    truth = np.stack([MASKS[frame] for frame in (2, 4, 5, 6, 7, 8, 9)])
    labels = np.where(truth == 5, 0, truth)
    labels[:4] = 5  # does not count for object 5
    first, second = measure(labels, truth, {3: 0, 5: 3})
    assert first.shape == (2, 5) and second.shape == (2, 2)
    assert second.tolist() == [[0, 0], [0, 0]] and first[0].tolist() == [0, 0, 0, 1, 1]


def test_a_frame_in_which_an_object_enters_stays_in_the_context():
    """Six frames later only that frame has the object's features."""
    generator = torch.Generator().manual_seed(0)
    first, second, other = torch.randn(3, 2, 2, 8, generator=generator)
    labels = torch.stack([torch.ones(2, 2), torch.zeros(2, 2)])
    context = PropagationContext(first, labels, num_last_frames=2, radius=0, topk=1)
    context.propagate(other)
    entering = torch.tensor([[[1.0, 0.0], [0.0, 0.5]]])
    soft = context.propagate(second, entering)
    assert soft.shape == (3, 2, 2) and torch.equal(soft[2], entering[0])
    torch.testing.assert_close(soft.sum(0), torch.ones(2, 2))
    for _ in range(6):
        context.propagate(other)
    torch.testing.assert_close(context.propagate(second)[2], entering[0])
    assert len(context._features) == 4

"""Read videos in DAVIS's layout, and check them before a run."""

import numpy as np
import pytest
from helpers.video_folder import mask_path, squares, write_videos
from PIL import Image

from pe_dense.datasets import DavisDataset
from pe_dense.datasets.davis import palette, read_mask, write_mask
from pe_dense.tracking import LoadVideo


def test_videos_and_their_files(tmp_path):
    dataset = DavisDataset(data_root=str(write_videos(tmp_path)))
    assert len(dataset) == 2
    assert dataset.metainfo["videos"] == ("cat", "dog")
    video = dataset.get_data_info(1)
    assert (video["video"], video["size"], video["num_objects"]) == ("dog", (32, 48), 2)
    assert [path.removeprefix(f"{tmp_path}/") for path in video["frames"][:2]] == [
        "JPEGImages/480p/dog/00000.jpg",
        "JPEGImages/480p/dog/00001.jpg",
    ]
    assert video["masks"] == [str(mask_path(tmp_path, "dog", frame)) for frame in range(4)]


def test_loading_resizes_the_frames_but_not_the_mask(tmp_path):
    root = write_videos(tmp_path)
    item = DavisDataset(data_root=str(root), pipeline=[dict(type="pe_dense.LoadVideo", short_side=16, divisor=8)])[0]
    assert item["inputs"].shape == (4, 3, 16, 24)
    assert str(item["inputs"].dtype) == "torch.uint8"
    np.testing.assert_array_equal(item["data_samples"].first_mask, squares(0))
    assert item["data_samples"].video == "cat"


def test_frames_are_rgb(tmp_path):
    root = write_videos(tmp_path)
    for path in root.glob("JPEGImages/480p/cat/*"):
        Image.fromarray(np.full((32, 48, 3), (250, 120, 10), np.uint8)).save(path)
    item = DavisDataset(data_root=str(root), pipeline=[dict(type="pe_dense.LoadVideo", short_side=32, divisor=16)])[0]
    assert item["inputs"][0, :, 5, 5].tolist() == pytest.approx([250, 120, 10], abs=3)


@pytest.mark.parametrize(
    ("settings", "size", "resized"),
    [
        (dict(), (480, 854), (480, 832)),  # 13 x 64
        (dict(), (854, 480), (832, 480)),
        (dict(), (480, 910), (480, 896)),
        (dict(), (1080, 1920), (480, 832)),  # 853.3
        (dict(short_side=476, divisor=14), (480, 854), (476, 840)),  # 846.9
        (dict(), (480, 480), (480, 448)),
        (dict(short_side=420, divisor=14, round_up=True), (480, 854), (420, 756)),  # 747.25
        (dict(short_side=1260, divisor=16, round_up=True), (854, 480), (2256, 1264)),  # 1264, 2248.9
    ],
)
def test_sizes_of_the_protocol(settings, size, resized):
    assert LoadVideo(**settings).size_of(size) == resized


@pytest.mark.parametrize("settings", [dict(short_side=63), dict(divisor=0)])
def test_sizes_that_can_not_be(settings):
    with pytest.raises(ValueError, match="1 <= divisor <= short_side is required"):
        LoadVideo(**settings)


def test_palette_is_davis():
    assert palette()[[0, 1, 2, 3, 4, 5, 8, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
        [128, 0, 128],
        [64, 0, 0],
        [224, 224, 192],
    ]


def test_masks_are_written_with_colors_and_never_over_others(tmp_path):
    path = tmp_path / "mask.png"
    write_mask(path, squares(0))
    np.testing.assert_array_equal(read_mask(path), squares(0))
    assert Image.open(path).mode == "P"
    assert Image.open(path).convert("RGB").getpixel((5, 5)) == (128, 0, 0)
    with pytest.raises(FileExistsError):
        write_mask(path, squares(1))


def test_void_is_background(tmp_path):
    labels = squares(0)
    labels[0] = 255
    write_mask(tmp_path / "mask.png", labels)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), squares(0))


def change_mask(root, frame, labels):
    path = mask_path(root, "cat", frame)
    path.unlink()
    write_mask(path, labels)


def drop(root, pattern):
    for path in root.glob(pattern):
        path.unlink()


SPOILT = {
    "no videos": (lambda root: (root / "ImageSets/2017/val.txt").write_text("\n"), "val.txt lists no video"),
    "twice": (lambda root: (root / "ImageSets/2017/val.txt").write_text("cat\ncat\n"), "more than once: cat"),
    "no folder": (lambda root: (root / "ImageSets/2017/val.txt").write_text("cow\n"), "video cow: folder .* not exist"),
    "no frames": (lambda root: drop(root, "JPEGImages/480p/cat/*"), "video cat: folder .* contains no image"),
    "few frames": (lambda root: drop(root, "*/480p/cat/0000[23]*"), "cat has 2 frames, at least 3 are needed"),
    "other size": (
        lambda root: Image.new("RGB", (40, 32)).save(root / "JPEGImages/480p/cat/00002.jpg"),
        "cat has frames of 2 sizes: 32 x 48 from frame 00000 on, 32 x 40 from frame 00002 on",
    ),
    "broken frame": (
        lambda root: (root / "JPEGImages/480p/cat/00001.jpg").write_text("x"),
        "cat: frame .*00001.jpg can't be read",
    ),
    "no first mask": (lambda root: mask_path(root, "cat", 0).unlink(), "the first frame, 00000, has no mask"),
    "no mask": (lambda root: mask_path(root, "cat", 2).unlink(), "1 of 4 frames have no mask, the first is 00002"),
    "no frame": (lambda root: drop(root, "JPEGImages/480p/cat/00003*"), "mask 00003 has no frame"),
    "mask of other size": (
        lambda root: change_mask(root, 1, squares(1, (32, 40))),
        r"mask .*00001.png has size \(32, 40\), the frames have \(32, 48\)",
    ),
    "new object": (
        lambda root: change_mask(root, 3, squares(3) + 1),
        "mask .*00003.png has object 3, the first mask has objects 1, 2 only",
    ),
    "no object": (lambda root: change_mask(root, 0, 0 * squares(0)), "first mask, .*00000.png, has no object"),
    "colors": (
        lambda root: Image.new("RGB", (48, 32)).save(mask_path(root, "cat", 1)),
        "00001.png is an image of mode RGB; it must have a palette",
    ),
    "broken mask": (lambda root: mask_path(root, "cat", 1).write_text("x"), "mask .*00001.png can't be read"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_invalid_videos_are_refused_at_once(tmp_path, kind):
    spoil, message = SPOILT[kind]
    spoil(write_videos(tmp_path))
    with pytest.raises(ValueError, match=message):
        DavisDataset(data_root=str(tmp_path))


def test_without_truth_the_first_mask_is_enough(tmp_path):
    root = write_videos(tmp_path)
    drop(root, "Annotations/480p/*/0000[123]*")
    dataset = DavisDataset(data_root=str(root), with_truth=False)
    assert dataset.get_data_info(0)["masks"] == [str(mask_path(root, "cat", 0))]
    assert len(dataset.get_data_info(0)["frames"]) == 4


# --- object numbers, void pixels, frame numbers ---


def renumber(root, change):
    for path in root.glob("Annotations/480p/cat/*"):
        labels = change(np.array(Image.open(path)))
        path.unlink()
        write_mask(path, labels)


@pytest.mark.parametrize("numbers", [(1, 2), (1, 40), (40, 1), (7, 254), (2, 3)])
def test_numbers_with_gaps_give_the_same_result(tmp_path, numbers):
    """Objects that do not exist would score 1: 0.58 became 0.98 with 38 of them."""
    from pe_dense.tracking import DavisMetric

    values = {}
    for folder, pair in (("plain", (1, 2)), ("gaps", numbers)):
        lut = np.zeros(256, np.uint8)
        lut[[1, 2]] = pair
        root = write_videos(tmp_path / folder)
        renumber(root, lambda labels, lut=lut: lut[labels])
        item = DavisDataset(data_root=str(root), pipeline=[dict(type="pe_dense.LoadVideo", short_side=32, divisor=16)])[
            0
        ]
        sample = item["data_samples"]
        assert sample.object_ids == tuple(sorted(pair))
        metric = DavisMetric()
        copied = np.stack([sample.first_mask] * 4)
        metric.process(None, [dict(sample.to_dict(), labels={0: copied})])
        values[folder] = metric.evaluate(1)
        assert {row["object"] for row in metric.by_object} == set(pair)
    assert values["gaps"] == pytest.approx(values["plain"])


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    root = write_videos(tmp_path, frames=12)
    for kind in ("JPEGImages", "Annotations"):
        for path in (root / kind / "480p/cat").iterdir():
            path.rename(path.with_stem(f"{int(path.stem)}"))
    frames = DavisDataset(data_root=str(root)).get_data_info(0)["frames"]
    assert [frame.rpartition("/")[2] for frame in frames] == [f"{number}.jpg" for number in range(12)]


def test_void_is_said(tmp_path, monkeypatch):
    from pe_dense.datasets import davis

    said = []
    monkeypatch.setattr(davis, "print_log", lambda line, *_: said.append(line))
    root = write_videos(tmp_path)
    renumber(root, lambda labels: np.where(labels == 2, 255, labels).astype(np.uint8))
    assert DavisDataset(data_root=str(root)).get_data_info(0)["object_ids"] == (1,)
    assert said[0].startswith("4 masks have pixels of value 255, which is void and counts as background; first:")


def test_one_object_that_is_marked_255(tmp_path):
    root = write_videos(tmp_path)
    renumber(root, lambda labels: np.where(labels > 0, 255, 0).astype(np.uint8))
    with pytest.raises(
        ValueError, match=r"no object to track: its only value apart from 0 is 255, which is void; number"
    ):
        DavisDataset(data_root=str(root))


def test_a_frame_that_is_cut_short_is_named(tmp_path):
    root = write_videos(tmp_path)
    path = root / "JPEGImages/480p/cat/00002.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    pipeline = [dict(type="pe_dense.LoadVideo", short_side=32, divisor=16)]
    with pytest.raises(ValueError, match=r"frame .*00002\.jpg can't be read: .*(?i:truncated)"):
        DavisDataset(data_root=str(root), pipeline=pipeline)[0]


def test_two_files_of_one_frame(tmp_path):
    root = write_videos(tmp_path)
    Image.new("RGB", (48, 32)).save(root / "JPEGImages/480p/cat/00001.png")
    with pytest.raises(ValueError, match=r"00001\.jpg and 00001\.png have the same frame name"):
        DavisDataset(data_root=str(root))

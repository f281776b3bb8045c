"""Use a trained detector as a function."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tool_runs import CONFIG
from PIL import Image

from pe_dense.detection import load_detector
from pe_dense.utils import CheckpointError
from pe_dense.utils.output_folder import output_names


@pytest.fixture(scope="module")
def detector(trained):
    return load_detector(CONFIG, trained.work_dir, device="cpu", options={"model.test_cfg.rcnn.score_thr": 0.01})


@pytest.fixture
def images(trained):
    return sorted((trained.folder / "shapes" / "val").iterdir())[:3]


def test_paths_arrays_and_batches_give_the_same(detector, images):
    single = [detector(path)[0].pred_instances for path in images]
    arrays = detector([np.asarray(Image.open(path).convert("RGB")) for path in images])
    batched = detector(images, batch_size=2)
    assert any(len(found) for found in single)
    for a, b, c in zip(single, arrays, batched, strict=True):
        assert torch.equal(a.bboxes, b.pred_instances.bboxes)
        assert torch.equal(a.masks, b.pred_instances.masks)
        torch.testing.assert_close(a.scores, c.pred_instances.scores, atol=1e-5, rtol=0)
    assert detector.classes[:3] == ("circle", "square", "triangle")


def test_boxes_are_in_the_images_own_pixels(detector, images):
    large = np.asarray(Image.open(images[0]).convert("RGB").resize((512, 256)))
    found = detector(large)[0].pred_instances
    assert found.masks.shape[1:] == (256, 512)
    assert found.bboxes[:, 2].max() > 128


def test_other_arrays_are_refused(detector):
    with pytest.raises(ValueError, match=r"float64 of shape \(8, 8\); expected uint8 \(H, W, 3\) in RGB"):
        detector(np.zeros((8, 8)))


def test_checkpoint_of_another_head_names_both_shapes(trained):
    options = {"model.roi_head.bbox_head.fc_out_channels": 128}
    with pytest.raises(CheckpointError, match=r"fc_cls\.weight \(9, 256\) for \(9, 128\)"):
        load_detector(CONFIG, trained.work_dir, options=options)


def test_names_of_outputs_do_not_collide(tmp_path):
    paths = [tmp_path / "a" / "1.jpg", tmp_path / "b" / "1.jpg", tmp_path / "2.jpg"]
    assert output_names(paths) == ["1", "1_2", "2"]
    assert output_names([Path("a.jpg"), Path("a_2.png"), Path("a.png")]) == ["a", "a_2", "a_3"]
    assert output_names([Path("a.jpg"), Path("a.png"), Path("a_2.png")]) == ["a", "a_3", "a_2"]

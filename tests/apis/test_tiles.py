"""Files and arrays predicted in tiles."""

import json

import numpy as np
import pytest
from helpers.run_folder import write_run
from helpers.tool_runs import call_tool
from PIL import Image

import pe_dense
from pe_dense.visualization import results as drawing

PIXELS = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    """The run of a segmentation probe."""
    return write_run(tmp_path_factory.mktemp("segmenter"), "shapes_linear_pe_tiny", classes=())


def test_one_tile_is_the_image(detector, photos):
    (whole,) = detector.predict(photos[0], score_thr=0)
    (found,) = detector.predict(photos[0], score_thr=0, tile=256)
    assert np.abs(found.scores - whole.scores).max() < 1e-5
    assert (np.asarray(found.masks) == np.asarray(whole.masks)).mean() > 0.999


def test_objects_are_in_pixels_of_the_image(detector):
    (found,) = detector.predict(PIXELS, score_thr=0.1, tile=128, batch_size=4)
    assert found.size == (200, 300) and found.masks.shape == (len(found), 200, 300)
    assert (found.boxes >= 0).all() and (found.boxes <= [300, 200, 300, 200]).all()
    assert found.boxes[:, 2].max() > 200
    boxes = found.mask_boxes()
    filled = np.array([crop.any() for crop, _ in found.masks.crops()])
    assert np.abs(boxes - found.boxes)[filled].max() < 130  # masks lie at their boxes


def test_maps_and_their_files(segmenter, tmp_path, monkeypatch):
    """Written by the command: the same labels, and a picture of the reduced image."""
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    (found,) = pe_dense.load(segmenter, device="cpu").predict(PIXELS, tile=128)
    assert found.labels.dtype == np.uint8 and found.labels.shape == (200, 300)
    monkeypatch.setattr(drawing, "DRAWN_SIDE", 150)
    monkeypatch.setattr("pe_dense.apis.tiles.DRAWN_SIDE", 150)
    arguments = (segmenter, tmp_path / "a.png", "--device", "cpu", "--tile", "128")
    done = call_tool("predict", *arguments, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (np.asarray(Image.open(tmp_path / "out/a_labels.png")) == found.labels).all()
    content = json.loads((tmp_path / "out/a.json").read_text())
    assert (content["width"], content["height"]) == (300, 200)
    assert Image.open(tmp_path / "out/a.png").width < 4 * 2 * 150 + 10  # enlarged by 4, beside the image
    done = call_tool("predict", *arguments, "--out", tmp_path / "masks", "--format", "masks")
    assert (np.asarray(Image.open(tmp_path / "masks/masks/a.png")) == found.labels).all()
    refused = call_tool("predict", segmenter, tmp_path / "a.png", "--out", tmp_path / "x", "--overlap", "0.5")
    assert "error: --overlap is that of tiles: add --tile PX" in refused.stderr


def test_large_results_are_drawn_reduced(detector, monkeypatch):
    (found,) = detector.predict(PIXELS, score_thr=0.1, tile=128)
    monkeypatch.setattr(drawing, "_LARGE", 1000)
    monkeypatch.setattr(drawing, "DRAWN_SIDE", 100)
    small = drawing.reduced(found, np.zeros((67, 100, 3), np.uint8))
    assert np.abs(small.boxes * 3 - found.boxes).max() < 1e-3
    index = int(np.argmax([crop.sum() for crop, _ in found.masks.crops()]))
    assert (small.masks[index] == found.masks[index][::3, ::3]).all() and small.masks[index].any()
    assert found.draw().shape[:2] == (5 * 67, 5 * 100)

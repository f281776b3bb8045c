"""Run exported files without PyTorch, and compare with the package's inferencers."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from helpers.exported import CLASSES, own_predictions, tiny_detector
from helpers.tool_runs import ROOT
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from PIL import Image

from pe_dense.export import export_graph, graph_of
from pe_dense.runtime import Detections, OnnxModel
from pe_dense.runtime.image import interpolate, paste_masks, place, resized

HIDDEN = ("torch", "torchvision", "mmengine", "mmcv", "mmdet", "mmseg", "cv2", "onnx", "scipy", "pycocotools", "timm")
SCRIPT = f"""
import sys
for name in {HIDDEN}:
    sys.modules[name] = None  # an import of it raises
from pe_dense.runtime import OnnxModel
model = OnnxModel(sys.argv[1], threads=1)
(found,) = model.predict(sys.argv[2])
print(found.scores.sum(), len(found), found.masks.shape, found.names[0])
"""


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """An exported Mask R-CNN, and the model."""
    model = tiny_detector("shapes_maskrcnn_pe_tiny")
    path = export_graph(graph_of(model, classes=CLASSES), tmp_path_factory.mktemp("onnx") / "detector.onnx")
    return path, model


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A file of 96 x 128 px: no resizing, but padding."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)).save(path)
    return path


def test_results_are_those_of_the_model(detector, photo):
    """Boxes, scores, labels and pasted masks, as mmdet predicts them for the same image."""
    path, model = detector
    onnx_model = OnnxModel(path, threads=1)
    (found,) = onnx_model.predict(photo)
    assert isinstance(found, Detections)
    pixels = torch.from_numpy(np.asarray(Image.open(photo)))
    batch = torch.zeros(1, 3, 128, 128)
    batch[0, :, :96] = (pixels.permute(2, 0, 1) - 127.5) / 127.5
    (expected,) = own_predictions(model, batch, torch.tensor([[96, 128]]), rescale=True)
    assert len(found) == len(expected) == len(found.names) > 5
    order = expected.scores.sort(descending=True, stable=True).indices
    assert np.abs(found.scores - expected.scores[order].numpy()).max() < 1e-3
    assert np.abs(found.boxes - expected.bboxes[order].numpy()).max() < 0.05
    assert (found.labels == expected.labels[order].numpy()).all()
    assert found.names[0] == CLASSES[found.labels[0]]
    masks = expected.masks[order].numpy()
    assert found.masks.shape == masks.shape == (len(found), 96, 128)
    assert (found.masks == masks).mean() > 0.999
    assert 0.001 < masks.mean() < 0.9


def test_without_pytorch(detector, photo):
    """The script of a deployment, in a process where PyTorch and the MM libraries cannot be imported."""
    path, _ = detector
    command = [sys.executable, "-c", SCRIPT, str(path), str(photo)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    total, count, shape = done.stdout.split(maxsplit=2)
    (found,) = OnnxModel(path, threads=1).predict(photo)
    assert float(total) == pytest.approx(found.scores.sum(), rel=1e-5)
    assert int(count) == len(found)
    assert shape.strip() == f"{found.masks.shape} {found.names[0]}"


def test_invalid_files_and_images(detector, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        OnnxModel(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="cannot be loaded"):
        OnnxModel(tmp_path / "broken.onnx")
    model = OnnxModel(detector[0], threads=1)
    with pytest.raises(ValueError, match="got float64 of shape"):
        model.predict(np.zeros((4, 4, 3)))
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        model.predict(tmp_path / "text.png")
    with pytest.raises(ValueError, match="not a text tower"):
        model.embed_tokens(np.zeros((1, 8)))
    assert json.loads(model.session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)


def test_pasted_masks_are_mmdets():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(6, 28, 28, generator=generator)
    corners = 60 * torch.rand(6, 2, generator=generator) - 8
    boxes = torch.cat([corners, corners + 3 + 40 * torch.rand(6, 2, generator=generator)], 1)
    expected, _ = _do_paste_mask(masks[:, None], boxes, 50, 70, skip_empty=False)
    found = paste_masks(masks.numpy(), boxes.numpy(), 50, 70)
    near = (expected - 0.5).abs() < 1e-4
    assert ((expected >= 0.5).numpy() == found)[~near.numpy()].all()
    assert 0.02 < found.mean() < 0.5


def test_resizing_is_opencvs():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    found = resized(pixels, 20, 64, antialias=False).astype(int)
    expected = cv2.resize(pixels, (64, 20), interpolation=cv2.INTER_LINEAR)
    assert np.abs(found - expected).max() <= 1  # OpenCV rounds weights to 11 bits
    values = np.random.default_rng(0).random((5, 7)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], (9, 4), mode="bilinear")[0, 0]
    assert np.abs(interpolate(values, 9, 4) - expected.numpy()).max() < 1e-5


def test_places():
    where, size = place(50, 100, (64, 64), "letterbox", 1)
    assert (where.rows, where.columns, size) == (32, 64, (64, 64))
    where, size = place(50, 100, (64, 64), "multiple", 16)
    assert (where.rows, where.columns, size) == (48, 96, (48, 96))
    where, size = place(50, 100, (64, 32), "squash", 1)
    assert (where.rows, where.columns, size) == (64, 32, (64, 32))

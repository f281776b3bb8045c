"""Run exported files without PyTorch, and compare with the package's inferencers."""

import json
import re
import runpy
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
import torch
from helpers.exported import CLASSES, own_predictions, tiny_detector
from helpers.tool_runs import ROOT
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from PIL import Image

from pe_dense.export import export_graph, graph_of
from pe_dense.runtime import Detections, OnnxModel
from pe_dense.runtime.image import interpolate, paste_masks, place, read_picture, resized
from pe_dense.utils.errors import UserError
from pe_dense.utils.image import read_image

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


def test_example_of_the_documentation(detector, photo, tmp_path, monkeypatch, capsys):
    """It runs as it stands and finds the same objects."""
    (example,) = re.findall(r"```python\n(import json\n.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)
    assert example.count("\n") <= 40
    (tmp_path / "example.py").write_text(example.replace("score > 0.5", "score > 0"))
    monkeypatch.setattr(sys, "argv", ["example.py", str(detector[0]), str(photo)])
    runpy.run_path(str(tmp_path / "example.py"))
    lines = capsys.readouterr().out.splitlines()
    (found,) = OnnxModel(detector[0], threads=1).predict(photo)
    assert lines[0].startswith("task: detection - classes: ['class 0'")
    assert len(lines) == 1 + len(found)
    box = [round(float(side), 1) for side in found.boxes[0]]
    assert lines[1] == f"{found.names[0]} {round(float(found.scores[0]), 3)} {box}"


def test_invalid_files_and_images(detector, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        OnnxModel(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="cannot be loaded"):
        OnnxModel(tmp_path / "broken.onnx")
    with pytest.raises(ValueError, match="is a folder"):
        OnnxModel(tmp_path)
    with pytest.raises(ValueError, match="provider NoneProvider is not available"):
        OnnxModel(detector[0], ["NoneProvider"])
    model = OnnxModel(detector[0], threads=1)
    with pytest.raises(ValueError, match="got float64 of shape"):
        model.predict(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="got NoneType"):
        model.predict(None)
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(ValueError, match="is not a readable image"):
        model.predict(tmp_path / "text.png")
    with pytest.raises(ValueError, match="not a text tower"):
        model.embed_tokens(np.zeros((1, 8)))
    assert json.loads(model.session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)


def handmade(path, shape=("batch", 3, "rows", "columns"), **metadata):
    """Write a file with one operator, whose output is its input.

    Args:
        path: the file.
        shape: of the input; names are dynamic dimensions.
        metadata: entries of the file, beyond those of an export with images of dynamic sizes.
    """
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n in ("images", "features_0")]
    node = onnx.helper.make_node("Identity", ["images"], ["features_0"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "graph", values[:1], values[1:]),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=10,
    )
    entries = dict(task="features", size=[32, 32], mean=[0] * 3, std=[1] * 3, resize="multiple", stride=16)
    entries |= dict(antialias=False, with_preprocessing=False) | metadata
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in entries.items()}
    onnx.helper.set_model_props(model, {key: text for key, text in texts.items() if text != "null"})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", [1, 2, "batch"])
def test_images_of_different_sizes(tmp_path, batch):
    """Every image gets its own result, also if the file has a fixed batch, which images of one size fill."""
    model = OnnxModel(handmade(tmp_path / "model.onnx", (batch, 3, "rows", "columns")), threads=1)
    pictures = [np.full((*size, 3), value, np.uint8) for value, size in enumerate([(32, 48), (32, 50), (70, 20)])]
    found = model.predict(pictures)
    assert [result.maps[0].shape for result in found] == [(3, 32, 48), (3, 32, 48), (3, 64, 16)]
    assert [result.maps[0].max() for result in found] == [0, 1, 2]
    assert model.predict([]) == []


@pytest.mark.parametrize("missing", ["task", "mean", "with_preprocessing", "resize"])
def test_files_of_other_programs(tmp_path, missing):
    """Also those that have some of the metadata."""
    with pytest.raises(ValueError, match="has no metadata of pe_dense"):
        OnnxModel(handmade(tmp_path / "model.onnx", **{missing: None}))


def test_failures_of_onnxruntime(tmp_path, capfd):
    """One line, without onnxruntime's own output."""
    model = OnnxModel(handmade(tmp_path / "model.onnx", (1, 3, 16, 16)), threads=1)
    with pytest.raises(UserError, match=r"model.onnx failed on images \(1, 3, 32, 32\): .*\S"):
        model.predict(np.zeros((32, 32, 3), np.uint8))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["upright", "deep", "transparent", "gray"])
def test_images_are_read_as_in_training(tmp_path, kind):
    """EXIF orientation, 16 bits and transparency. Pixels of a Pillow image stay where they are."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 4), np.uint8)
    path, options = tmp_path / "photo.png", {}
    image = Image.fromarray(pixels)
    if kind == "upright":
        image, options = image.convert("RGB"), dict(exif=Image.Exif())
        options["exif"][0x0112] = 6  # turned by 90 degrees
    elif kind == "deep":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif kind == "gray":
        image = image.convert("L")
    image.save(path, **options)
    expected = np.asarray(read_image(path))
    assert expected.shape == ((12, 8, 3) if kind == "upright" else (8, 12, 3))
    assert np.array_equal(read_picture(path), expected)
    with Image.open(path) as opened:
        turned = opened if kind != "upright" else opened.transpose(Image.Transpose.ROTATE_270)
        assert np.array_equal(read_picture(turned), expected)
        assert read_picture(opened).shape == (8, 12, 3)


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
    where, size = place(50, 100, (64, 32), "letterbox", 1)
    assert (where.rows, where.columns, size) == (16, 32, (64, 32))
    where, size = place(2, 1000, (64, 64), "letterbox", 1)
    assert (where.rows, where.columns, size) == (1, 64, (64, 64))

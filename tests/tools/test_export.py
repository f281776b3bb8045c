"""tools/export.py and tools/push.py on a training run."""

import json
from unittest import mock

import pytest
from helpers.tool_runs import CONFIG, call_tool

from pe_dense.detection import MaskRCNN
from pe_dense.export.publish import describe
from pe_dense.export.source import open_model
from pe_dense.runtime import OnnxModel


def test_tower_of_a_run(trained, tmp_path):
    """The exported file has the sizes and the normalization of the run's tower."""
    out = tmp_path / "tower.onnx"
    done = call_tool("export", trained.work_dir, out, "--part", "tower", "--size", 64, 128, "--layers", 1, -1)
    assert done.returncode == 0, done.stderr
    assert f"Model for features: {out}, " in done.stdout
    model = OnnxModel(out, threads=1)
    assert model.metadata["size"] == [64, 128] and model.metadata["layers"] == [1, 5]
    assert model.session.get_outputs()[0].shape == [1, 128, 8, 16]
    done = call_tool("export", trained.work_dir, out, "--part", "tower")
    assert done.returncode == 2 and "--overwrite" in done.stderr


def test_model_of_a_run(trained):
    """Its own config is used, and the class names of its data."""
    model, classes = open_model(str(trained.work_dir))
    assert isinstance(model, MaskRCNN) and not model.training
    assert len(classes) == 8
    with pytest.raises(ValueError, match="is a config: name a checkpoint"):
        open_model(str(CONFIG))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PE-Spatial-T16-512", "random", "out.onnx", "--opset", "15"], "opset 15 is not from 17 to 24"),
        (["PE-Spatial-T16-512", "random", "out.onnx", "--size", "65"], "65 x 65 px is not a multiple of 16"),
        (["PE-Spatial-T16-512", "random", "out.engine"], "must end in .onnx or .pt2"),
        (["none", "out.safetensors"], "none does not exist"),  # as tools/export_tower.py
        (["work_dirs/none", "out.onnx"], "work_dirs/none does not exist: name a config and a checkpoint"),
        (["PE-Spatial-B16", "out.onnx"], "there is no published model PE-Spatial-B16, only PE-Core-"),
        (["shapes_maskrcnn_pe_tine", "out.onnx"], "did you mean shapes_maskrcnn_pe_tiny"),
        (["PE-Mini-Core", "out.onnx", "--cfg-options", "a=1"], "which PE-Mini-Core with part 'model' does not use"),
        (["PE-Mini-Core", "--size", "64", "--part", "text", "out.onnx"], "size is of images"),  # between the names
    ],
)
def test_invalid_arguments(arguments, message):
    done = call_tool("export", *arguments)
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "step"),
    [
        (["export", "PE-Mini-Core", "out.onnx"], "pe_dense.export.source.open_model"),
        (["push", "PE-Mini-Core", "owner/model"], "pe_dense.export.publish.open_publishable"),
    ],
)
def test_ctrl_c(arguments, step):
    with mock.patch(step, side_effect=KeyboardInterrupt):
        done = call_tool(*arguments)
    assert done.returncode == 130 and done.stderr.startswith("interrupted")


def test_push_to_a_folder(trained, tmp_path):
    """The card has the metrics of the run's validation and its data."""
    done = call_tool("push", trained.work_dir, "--folder", tmp_path / "hub", "--license", "apache-2.0")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "| coco/bbox_mAP |" in card and "license: apache-2.0" in card and "`ShapesDataset`" in card
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert config["type"] == "pe_dense.MaskRCNN" and len(config["classes"]) == 8
    loaded = MaskRCNN.from_pretrained(tmp_path / "hub")
    assert loaded.class_names == tuple(config["classes"])
    assert "| -1" not in card  # COCO's metrics of sizes that the data do not have
    assert str(trained.folder) not in card and "base_model" not in card  # trained from scratch


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name either a repository"),
        (["a/b/c"], "a/b/c is not the name <owner>/<repo>"),
        (["detector"], "it has no owner"),
        (["owner/model", "--license", "my license"], "is not an identifier"),
        (["--folder", "hub", "--private"], "--private is for a repository"),
        (["--folder", CONFIG], "is a file: name a folder"),
    ],
)
def test_invalid_arguments_of_push(arguments, message):
    """They are found before the model is opened."""
    done = call_tool("push", "no_run", *arguments)
    assert done.returncode == 2 and message in done.stderr


def test_card_of_a_published_model():
    """Only a repository of the hub is a base model."""
    assert describe("PE-Spatial-B16-512") == dict(base_model="facebook/PE-Spatial-B16-512")
    assert describe("PE-Mini-Core") == {}

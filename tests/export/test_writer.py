"""Options, formats and refusals of the export."""

import json

import numpy as np
import onnx
import pytest
import torch
from helpers.tiny_probe import build
from helpers.tiny_towers import ARCH, tiny_tower

from pe_dense.export import export_graph, graph_of, writer
from pe_dense.runtime import OnnxModel

TWO_BLOCKS = dict(ARCH, layers=2)


def tower_graph(**options):
    return graph_of(tiny_tower(arch=TWO_BLOCKS, **options), size=(16, 24))


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)


def expected_map(picture):
    with torch.no_grad():
        image = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
        return tiny_tower(arch=TWO_BLOCKS)(image)[0][0].numpy()


def test_metadata_and_external_weights(tmp_path, monkeypatch, picture):
    """Weights beyond the limit are in a second file."""
    monkeypatch.setattr(writer, "_ONE_FILE", 1000)
    path = export_graph(tower_graph(), tmp_path / "new" / "tower.onnx", opset=17, metadata=dict(source="PE"))
    assert sorted(file.name for file in path.parent.iterdir()) == ["tower.onnx", "tower.onnx.data"]
    assert path.stat().st_size < (tmp_path / "new" / "tower.onnx.data").stat().st_size
    assert onnx.load(path, load_external_data=False).opset_import[0].version == 17
    model = OnnxModel(path)
    assert model.task == "features"
    expected = dict(size=[16, 24], mean=[127.5] * 3, std=[127.5] * 3, precision="float32", source="PE", layers=[1])
    assert expected.items() <= model.metadata.items()
    (found,) = model.predict(picture)
    assert np.abs(found.maps[1] - expected_map(picture)).max() < 1e-5
    with pytest.raises(FileExistsError, match="--overwrite"):
        export_graph(tower_graph(), path)


@pytest.mark.parametrize(("option", "tolerance"), [("half", 0.01), ("int8", 0.2)])
def test_reduced_precision(tmp_path, option, tolerance, picture):
    """The file becomes smaller and results change a little."""
    path = export_graph(tower_graph(), tmp_path / "tower.onnx", **{option: True})
    types = {tensor.data_type for tensor in onnx.load(path).graph.initializer if np.prod(tensor.dims) > 1000}
    assert {"half": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[option] in types
    assert onnx.TensorProto.FLOAT not in types or option == "int8"
    model = OnnxModel(path)
    assert model.metadata["precision"] == dict(half="float16", int8="int8")[option]
    expected = expected_map(picture)
    difference = np.abs(model.predict(picture)[0].maps[1] - expected).max() / np.abs(expected).max()
    assert 1e-6 < difference < tolerance


def test_pt2(tmp_path, picture):
    path = export_graph(tower_graph(), tmp_path / "tower.pt2")
    extra = {writer.PT2_METADATA: ""}
    program = torch.export.load(path, extra_files=extra)
    assert json.loads(extra[writer.PT2_METADATA])["task"] == "features"
    image = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    assert np.abs(program.module()(image)[0][0].detach().numpy() - expected_map(picture)).max() < 1e-5


def test_preprocessing_in_the_graph(tmp_path):
    """An image of another size and shape than the input; labels as with preprocessing outside."""
    model = build("segmentation", "Probe", (1,)).eval()
    paths = [
        export_graph(graph_of(model, size=(32, 32)), tmp_path / f"{inside}.onnx", with_preprocessing=inside)
        for inside in (False, True)
    ]
    coarse = np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8)
    picture = np.kron(coarse, np.ones((10, 10, 1), np.uint8))
    outside, inside = (OnnxModel(path).predict(picture)[0].labels for path in paths)
    assert outside.shape == inside.shape == (50, 80)
    assert (outside == inside).mean() > 0.95
    assert len(np.unique(outside)) > 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(opset=15), "opset 15 is not from 16 to 24"),
        (dict(dynamic=("depth",)), "neither 'batch' nor 'size'"),
        (dict(half=True, int8=True), "choose one"),
        (dict(batch=0), "must be at least 1"),
        (dict(with_preprocessing=True, dynamic=("batch",)), "leave out dynamic"),
    ],
)
def test_invalid_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export_graph(tower_graph(), tmp_path / "tower.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_refusals(tmp_path):
    """They say what is not possible and why."""
    with pytest.raises(ValueError, match="must end in .onnx or .pt2"):
        export_graph(tower_graph(), tmp_path / "tower.engine")
    with pytest.raises(ValueError, match="layers and norm are of feature maps"):
        graph_of(build("segmentation", "Probe", (1,)), layers=[1])
    with pytest.raises(ValueError, match="has no text tower"):
        graph_of(tiny_tower(), "text")
    with pytest.raises(ValueError, match="Linear cannot be exported as a whole"):
        graph_of(torch.nn.Linear(1, 1))

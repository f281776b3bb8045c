"""Options, formats and refusals of the export."""

import json
import logging
import resource

import numpy as np
import onnx
import pytest
import torch
from helpers.tiny_clip import tiny_clip
from helpers.tiny_probe import build
from helpers.tiny_towers import ARCH, tiny_tower

from pe_dense.export import export_graph, graph_of, writer
from pe_dense.runtime import OnnxModel
from pe_dense.utils.atomic_write import WriteError

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
    path.unlink()
    with pytest.raises(FileExistsError, match="tower.onnx.data exists"):  # it may be of another model
        export_graph(tower_graph(), path)
    monkeypatch.setattr(writer, "_ONE_FILE", 10**9)
    export_graph(tower_graph(), path, overwrite=True)
    assert [file.name for file in path.parent.iterdir()] == ["tower.onnx"]


@pytest.mark.parametrize(("suffix", "limit"), [("onnx", 10**9), ("onnx", 1000), ("pt2", 10**9)])
def test_full_disk(tmp_path, monkeypatch, suffix, limit):
    """One line, and no part of a file; numpy, which writes the second file, has no number of the error."""
    monkeypatch.setattr(writer, "_ONE_FILE", limit)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    graph = tower_graph()
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        with pytest.raises(WriteError, match=f"Cannot write .*tower.{suffix}"):
            export_graph(graph, tmp_path / f"tower.{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not list(tmp_path.iterdir())


def test_interrupted_while_writing(tmp_path):
    def write(file):
        file.write_bytes(b"a part")
        raise KeyboardInterrupt

    (tmp_path / "tower.onnx").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        writer._write_files(tmp_path / "tower.onnx", True, write)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    """Said before the export, which takes minutes."""
    monkeypatch.setattr(torch.onnx, "export", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file, which is a file"):
        export_graph(tower_graph(), tmp_path / "file" / "tower.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        export_graph(tower_graph(), tmp_path / "folder.onnx", overwrite=True)
    monkeypatch.setattr(writer.os, "access", lambda *_: False)
    with pytest.raises(WriteError, match="is not writable"):
        export_graph(tower_graph(), tmp_path / "new" / "tower.onnx")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("option", "tolerance"), [("half", 0.01), ("int8", 0.2)])
def test_reduced_precision(tmp_path, option, tolerance, picture, caplog):
    """The file becomes smaller and results change a little; the libraries' advice is left out."""
    path = export_graph(tower_graph(), tmp_path / "tower.onnx", **{option: True})
    types = {tensor.data_type for tensor in onnx.load(path).graph.initializer if np.prod(tensor.dims) > 1000}
    assert {"half": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[option] in types
    assert onnx.TensorProto.FLOAT not in types or option == "int8"
    model = OnnxModel(path)
    assert model.metadata["precision"] == dict(half="float16", int8="int8")[option]
    expected = expected_map(picture)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
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
        (dict(opset=16), "opset 16 is not from 17 to 24: LayerNormalization begins with 17"),
        (dict(batch=2, dynamic=("batch",)), "either dynamic or fixed to 2"),
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
    with pytest.raises(ValueError, match="this graph takes token ids"):
        export_graph(graph_of(tiny_clip(), "text"), tmp_path / "text.onnx", with_preprocessing=True)
    with pytest.raises(ValueError, match="has no text tower"):
        graph_of(tiny_tower(), "text")
    with pytest.raises(ValueError, match="Linear cannot be exported as a whole"):
        graph_of(torch.nn.Linear(1, 1))

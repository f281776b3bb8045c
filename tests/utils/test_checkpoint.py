"""External checkpoints: lookup, safe loading, damage."""

import argparse
import logging
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner.checkpoint import CheckpointLoader

from pe_dense.utils import CheckpointError, read_checkpoint
from pe_dense.utils.checkpoint import DamagedCheckpointError, safe_checkpoint_loader


class Malicious:
    def __reduce__(self):
        return os.system, ("echo owned > owned.txt",)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.pth does not exist \(looked for /"):
        read_checkpoint(tmp_path / "a.pth")
    for name, weights in (("PE-Mini-Core", "pe-mini://core"), ("PE-Core-B16-224", "hf://facebook/PE-Core-B16-224")):
        with pytest.raises(FileNotFoundError, match=f"weights of a published model of this name are {weights}$"):
            read_checkpoint(name)
    with pytest.raises(CheckpointError, match="has no file last_checkpoint, and the folder contains no undamaged"):
        read_checkpoint(tmp_path)


def test_run_folder_means_its_last_checkpoint(tmp_path):
    torch.save({"x": 1}, tmp_path / "iter_5.pth")
    (tmp_path / "last_checkpoint").write_text("/moved/since/iter_5.pth")
    assert read_checkpoint(tmp_path) == {"x": 1}


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_never_run(tmp_path, monkeypatch, legacy):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Malicious()}, "bad.pth", _use_new_zipfile_serialization=not legacy)
    for read in (read_checkpoint, CheckpointLoader.load_checkpoint):
        with pytest.raises(CheckpointError, match=r"bad\.pth .*never loaded.*posix\.system"), safe_checkpoint_loader():
            read("bad.pth")
    assert not os.path.exists("owned.txt")


@pytest.mark.parametrize("scheme", ["https", "http", "torchvision", "open-mmlab", "s3"])
def test_other_addresses_are_not_fetched(scheme, monkeypatch):
    """MMEngine would unpickle any file from there."""
    monkeypatch.setattr(torch, "load", None)
    for read in (read_checkpoint, CheckpointLoader.load_checkpoint):
        match = rf"^{scheme}://a/b\.pth is not fetched: only hf://"
        with pytest.raises(CheckpointError, match=match), safe_checkpoint_loader():
            read(f"{scheme}://a/b.pth")


def test_attributes_are_not_reached(tmp_path):
    """Checkpoints of runs refer to a few functions through getattr; all others are refused."""

    class Getattr:
        def __reduce__(self):
            return getattr, (HistoryBuffer, "__init__")

    torch.save({"x": Getattr()}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="never loaded"):
        read_checkpoint(tmp_path / "bad.pth")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_cut_short(tmp_path, keep, suffix):
    from safetensors.torch import save_file

    path = tmp_path / f"cut{suffix}"
    state = {"a": torch.randn(100, 100)}
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(CheckpointError, match=f"cut{suffix} .*(damaged|cut short)"):
        read_checkpoint(path)


def test_not_a_checkpoint(tmp_path):
    (tmp_path / "page.pth").write_text("<html>404 not found</html>")
    with pytest.raises(CheckpointError, match="page.pth"):
        read_checkpoint(tmp_path / "page.pth")


def test_a_runs_own_state_loads(tmp_path, caplog):
    hub = MessageHub.get_instance("test_a_runs_own_state_loads")
    for value in (1.0, 3.0):
        hub.update_scalar("loss", value)
    hub.update_scalar("np", np.float64(2.0))
    content = {"message_hub": hub.state_dict(), "meta": {"rng": np.random.RandomState(0).get_state()}}
    torch.save(content, tmp_path / "run.pth")
    caplog.set_level(logging.ERROR, "mmengine")  # until the end of this test
    with safe_checkpoint_loader():
        loaded = CheckpointLoader.load_checkpoint(str(tmp_path / "run.pth"))
    assert loaded["message_hub"]["log_scalars"]["loss"].mean() == 2.0
    assert np.array_equal(loaded["meta"]["rng"][1], content["meta"]["rng"][1])


def test_a_detrs_arguments_load(tmp_path):
    """Released DETR-like files contain command-line arguments in addition to the weights."""
    arguments = argparse.Namespace(lr=2e-4, output_dir="out", num_queries=900)
    torch.save(dict(model={"x": torch.ones(2)}, args=arguments), tmp_path / "deta.pth")
    assert read_checkpoint(tmp_path / "deta.pth")["args"] == arguments


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A cache as the hub's client keeps it, with two revisions, and no connection."""
    repo = tmp_path / "models--facebook--PE-Tiny"
    for revision, commit, value in (("main", "a" * 40, 1.0), ("v2", "b" * 40, 2.0)):
        (snapshot := repo / "snapshots" / commit).mkdir(parents=True)
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / revision).write_text(commit)
        torch.save({"x": torch.tensor(value)}, snapshot / "PE-Tiny.pt")
        torch.save({"x": torch.tensor(value + 10)}, snapshot / "other.pth")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hf://facebook/PE-Tiny", 1.0),
        ("hf://facebook/PE-Tiny@v2", 2.0),
        ("hf://facebook/PE-Tiny/other.pth", 11.0),
        ("hf://facebook/PE-Tiny@v2/other.pth", 12.0),
    ],
)
def test_hub_names(name, value):
    assert read_checkpoint(name)["x"].item() == value
    assert CheckpointLoader.load_checkpoint(name)["x"].item() == value


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("name", ["hf://facebook/PE-Tiny/absent.pt", "hf://facebook/PE-Absent"])
def test_hub_file_that_is_not_cached(name):
    with pytest.raises(FileNotFoundError, match="not in the local cache.*give the path"):
        read_checkpoint(name)


@pytest.mark.parametrize("name", ["hf://facebook", "hf://", "hf://a/b@/c"])
def test_malformed_hub_name(name):
    with pytest.raises(ValueError, match="not of the form hf://<owner>/<repo>"):
        read_checkpoint(name)


def test_plain_pickles_are_refused(tmp_path):
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "plain.pkl")


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(4).numpy().tobytes()) + 403] ^= 64
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=r"a\.pth .*is damaged: the CRC of its record a/data/0 does not"):
        read_checkpoint(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_compressed_records_are_not_mapped(tmp_path, method):
    """Mapped as if they were stored, their tensors would be garbage."""
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(tmp_path / "b.pth", "w", method) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    try:
        assert torch.equal(read_checkpoint(tmp_path / "b.pth")["a"], torch.arange(1000.0))
    except CheckpointError:
        assert method == zipfile.ZIP_BZIP2  # PyTorch has no such method


def test_archives_that_grow_without_bound_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("a/data.pkl", b"")
        with target.open("a/data/0", "w") as record:
            for _ in range(1100):
                record.write(bytes(1 << 20))
    with pytest.raises(CheckpointError, match=r"a\.pth .*declares 1,153,433,600 bytes of records and is not loaded"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.usefixtures("bounded")
def test_what_is_no_file(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo.pth")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_checkpoint(tmp_path / "fifo.pth")
    torch.save({}, tmp_path / "a.pth")

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(CheckpointError, match=r"a\.pth cannot be opened: Permission denied"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("note", [None, b"", b"\x00\xff\xfe", b"\x80abc", b"iter_9.pth", b"\n", b"x" * 100_000])
def test_an_unusable_note_of_the_last_checkpoint(tmp_path, note):
    for step in (2, 10):
        torch.save({"step": step}, tmp_path / f"iter_{step}.pth")
    torch.save({"step": 99}, tmp_path / "best_iter_99.pth")
    (tmp_path / "iter_30.pth").write_bytes(b"half a checkpoint")
    if note is not None:
        (tmp_path / "last_checkpoint").write_bytes(note)
    assert read_checkpoint(tmp_path) == {"step": 10}
    for path in tmp_path.glob("*.pth"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"last_checkpoint.*contains no undamaged iter_<n>\.pth"):
        read_checkpoint(tmp_path)


def test_importing_leaves_other_projects_alone():
    """MMEngine's own schemes stay for whoever shares the process."""
    loader = CheckpointLoader._get_checkpoint_loader("torchvision://resnet50")
    assert loader.__module__ == "mmengine.runner.checkpoint"
    with safe_checkpoint_loader():
        assert CheckpointLoader._get_checkpoint_loader("torchvision://resnet50") is not loader
    assert CheckpointLoader._get_checkpoint_loader("torchvision://resnet50") is loader
    assert CheckpointLoader._get_checkpoint_loader("a.pth").__module__ == "mmengine.runner.checkpoint"


def test_records_shorter_than_their_tensors(tmp_path):
    """PyTorch reads beyond their end, into the next record."""
    torch.save({"a": torch.arange(1000.0), "b": torch.arange(9)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(tmp_path / "b.pth", "w") as target:
        for name in source.namelist():
            record = source.read(name)
            target.writestr(name, record[:2000] if name == "a/data/0" else record)
    with pytest.raises(DamagedCheckpointError, match="its record a/data/0 has 2,000 bytes of 4,000"):
        read_checkpoint(tmp_path / "b.pth")

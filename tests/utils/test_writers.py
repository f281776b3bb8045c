"""Every writer of the project on a full disk and in a killed process: the old file stays, and nothing else is left."""

import errno
import os
import resource
import signal
import traceback

import numpy as np
import pytest
import torch
from helpers.full_disk import fail_writes_after
from helpers.linear_run import make_runner

from pe_dense.apis.convert import convert_checkpoint
from pe_dense.backbones import PETower, save_weights
from pe_dense.backbones.build import export_tower
from pe_dense.datasets.davis import write_mask
from pe_dense.datasets.synthetic import write_shapes, write_shapes_video
from pe_dense.distillation.feature_cache import FeatureCache
from pe_dense.engine.build_runner import LocalVisBackend
from pe_dense.engine.hooks.checkpoint import CheckpointHook
from pe_dense.engine.layer_report import write_layer_report
from pe_dense.probing.probe import save_probe
from pe_dense.utils import atomic_write as module
from pe_dense.utils.atomic_write import WriteError, write_json
from pe_dense.utils.image import write_picture, write_png
from pe_dense.utils.video import write_video

TINY = dict(patch_size=14, width=64, layers=2, heads=2, mlp_ratio=2.0, image_size=56, use_cls_token=True, output_dim=8)
RUNNERS = {}  # by folder: those of tests that are over are not used again
NOISE = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
ROWS = [dict(layer=layer, miou=float(layer)) for layer in range(3)]


def tower():
    torch.manual_seed(0)
    return PETower(TINY)


def source(folder, state=None):
    """A checkpoint to convert, outside of the folder that is written to."""
    path = folder.parent / "source.pth"
    torch.save(tower().state_dict() if state is None else state, path)
    return path


def convert(folder):
    from mmengine.config import Config

    class_name = "LinearForTests"
    weights = {"linear.weight": torch.zeros(4000, 4), "linear.bias": torch.zeros(4000)}
    (folder / "a.pth").unlink(missing_ok=True)  # it never replaces a file
    config = Config(dict(default_scope="mmengine", model=dict(type=class_name, outputs=4000)))
    convert_checkpoint(config, weights, "weights", folder / "a.pth")


def checkpoint_hook(folder):
    if folder.parent not in RUNNERS:
        runner = RUNNERS[folder.parent] = make_runner(folder.parent, max_iters=2)
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.param_schedulers = None
    runner = RUNNERS[folder.parent]
    runner._work_dir = str(folder)
    hook = CheckpointHook(interval=1, by_epoch=False)
    hook.before_train(runner)
    hook._save_checkpoint_with_step(runner, 1, {})


def probe(folder):
    state = {"backbone.x": torch.zeros(4000), "probes.0-0.conv_seg.weight": torch.zeros(4000)}
    save_probe(source(folder, dict(state_dict=state)), folder / "a.pth", layer=0, overwrite=True)


# Writers that replace an old file. Each is called with the folder that it writes to.
REPLACING = {
    "weights.pt": lambda folder: save_weights(tower(), folder / "a.pt", overwrite=True),
    "weights.safetensors": lambda folder: save_weights(tower(), folder / "a.safetensors", overwrite=True),
    "export": lambda folder: export_tower(source(folder), folder / "a.pt", overwrite=True),
    "checkpoint": checkpoint_hook,
    "probe": probe,
    "picture.png": lambda folder: write_png(folder / "a.png", NOISE),
    "video": lambda folder: write_video(folder / "a.mp4", [NOISE] * 3, 10, overwrite=True),
    "json": lambda folder: write_json(folder / "a.json", list(range(20_000))),
    "run picture": lambda folder: LocalVisBackend(str(folder), img_save_dir=".").add_image("a", NOISE),
}
# Writers of new files.
NEW = {
    "convert": convert,
    "mask": lambda folder: write_mask(folder / "a.png", NOISE[..., 0]),
    "picture.jpg": lambda folder: write_picture(folder / "a.jpg", NOISE),
    "layer report": lambda folder: write_layer_report(folder, ROWS, metric="miou", higher_is_better=True, title="a"),
    "features": lambda folder: FeatureCache(folder).get(torch.zeros(1, 3), "", lambda x: torch.zeros(1, 9000)),
}
# Writers of a folder at once, by any means.
FOLDERS = {
    "shapes": lambda folder: write_shapes(folder / "a", num_train=2, num_val=1, image_size=128),
    "shapes video": lambda folder: write_shapes_video(folder / "a", num_videos=1, num_frames=3, image_size=128),
}
ALL = REPLACING | NEW | FOLDERS


@pytest.fixture
def folder(tmp_path):
    module._last_cleaned.clear()
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_old(name, folder):
    """Let there be files of an earlier time where the writer replaces them."""
    if name in REPLACING:
        ALL[name](folder)
        for path in contents(folder):
            (folder / path).write_bytes(b"old")
    return contents(folder)


@pytest.mark.parametrize("name", ALL)
def test_files_are_written(folder, name):
    write_old(name, folder)
    ALL[name](folder)
    found = contents(folder)
    assert found
    assert all(content not in (b"", b"old") for content in found.values())
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in folder.rglob("*") if path.is_file())
    assert not list(folder.rglob(".*"))


@pytest.mark.parametrize("limit", [0, 1500])
@pytest.mark.parametrize("name", ALL)
def test_full_disk(folder, name, limit):
    """The kernel refuses to make a file longer than a limit, also to native libraries that write by themselves."""
    old = write_old(name, folder)
    ALL[name](folder.parent / "elsewhere") if name not in FOLDERS else None  # caches, sources and modules are there
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    write, source_file = ALL[name], folder.parent / "source.pth"
    kept = torch.save
    if source_file.exists():  # it is not what is to be written
        torch.save = lambda content, file: None if str(file) == str(source_file) else kept(content, file)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(
            WriteError, match=r"^Cannot write [^\n]*larger than allowed on the disk mounted at /[^\n]*$"
        ):
            write(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        torch.save = kept
    left = contents(folder)
    assert {path: left[path] for path in old} == old
    assert set(left) - set(old) == set() or name == "layer report"  # a table that fits is written before the plot
    assert not list(folder.rglob(".*"))


@pytest.mark.parametrize("name", [*REPLACING, *NEW])
def test_no_space_left(folder, name, monkeypatch):
    old = write_old(name, folder)
    ALL[name](folder.parent / "elsewhere")
    fail_writes_after(monkeypatch, 50, errno.ENOSPC)
    with pytest.raises(WriteError, match=r"^Cannot write .*no space left on the disk mounted at /.*$"):
        ALL[name](folder)
    left = contents(folder)
    assert {path: left[path] for path in old} == old
    assert set(left) - set(old) == set() or name == "layer report"
    assert not list(folder.rglob(".*"))


@pytest.mark.parametrize("name", [*REPLACING, *NEW])
def test_kill(folder, name, monkeypatch):
    """A process that is killed in the middle of its file leaves the old file and nothing else."""
    old = write_old(name, folder)
    ALL[name](folder.parent / "elsewhere")
    # A forked process has none of OpenMP's threads, for which a parallel loop of PyTorch would wait forever.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    child = os.fork()
    if not child:
        signal.alarm(120)
        try:
            monkeypatch.setattr(module._RawFile, "write", lambda self, content: kill_after(self, content))
            ALL[name](folder)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    torch.set_num_threads(threads)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert contents(folder) == old


def kill_after(raw, content):
    os.write(raw.fileno(), bytes(content)[:50])
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_tower_replaces_the_file_that_it_is_mapped_from(tmp_path):
    """Truncating a mapped file kills the process with SIGBUS and destroys the weights."""
    from pe_dense.backbones import load_tower

    for name in ("a.pt", "a.safetensors"):
        path = save_weights(tower(), tmp_path / name)
        before = path.read_bytes()
        save_weights(load_tower(TINY, path), path, overwrite=True)
        assert path.read_bytes() == before
        export_tower(path, path, overwrite=True)
        assert path.read_bytes() == before

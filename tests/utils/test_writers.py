"""Every writer of the project on a full disk and in a killed process: the old file stays, and nothing else is left.

A log grows by lines instead: the old lines stay. The part of a line that a kill leaves is removed before the next one.
"""

import errno
import functools
import logging
import os
import resource
import signal
import traceback
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers.full_disk import fail_writes_after
from helpers.linear_run import make_runner
from mmengine.config import Config

from pe_dense.apis.convert import convert_checkpoint
from pe_dense.backbones import PETower, save_weights
from pe_dense.backbones.build import export_tower
from pe_dense.datasets.davis import write_mask
from pe_dense.datasets.synthetic import write_shapes, write_shapes_video
from pe_dense.depth import DepthMetric
from pe_dense.distillation.feature_cache import FeatureCache
from pe_dense.engine import work_dir_lock
from pe_dense.engine.hooks.checkpoint import CheckpointHook
from pe_dense.engine.hooks.logger import LocalVisBackend, LogFileHandler, LoggerHook
from pe_dense.engine.hooks.nan_loss import NaNLossHook, NonFiniteLossError
from pe_dense.engine.layer_report import write_layer_report
from pe_dense.engine.runner import Runner
from pe_dense.probing.probe import save_probe
from pe_dense.segmentation import IoUMetric
from pe_dense.tracking.results_hook import VideoResultsHook
from pe_dense.utils import atomic_write as module
from pe_dense.utils.atomic_write import WriteError, cut_part_of_line, write_json
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
    class_name = "LinearForTests"
    weights = {"linear.weight": torch.zeros(4000, 4), "linear.bias": torch.zeros(4000)}
    (folder / "a.pth").unlink(missing_ok=True)  # it never replaces a file
    config = Config(dict(default_scope="mmengine", model=dict(type=class_name, outputs=4000)))
    convert_checkpoint(config, weights, "weights", folder / "a.pth")


def runner_in(folder):
    """A runner that writes to a folder, built once for each test."""
    if folder.parent not in RUNNERS:
        runner = RUNNERS[folder.parent] = make_runner(folder.parent, max_iters=2)
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.param_schedulers = None
    runner = RUNNERS[folder.parent]
    runner._work_dir = str(folder)
    return runner


def checkpoint_hook(folder, **options):
    hook = CheckpointHook(interval=1, by_epoch=False, **options)
    hook.before_train(runner_in(folder))
    return hook


def best(folder):
    """Save a better checkpoint than the best so far, which is a file of the folder."""
    runner = runner_in(folder)
    hook = checkpoint_hook(folder, save_best="a", rule="greater")
    hook.best_ckpt_path = next(map(str, folder.glob("best_*")), None)
    runner.message_hub.runtime_info.pop("best_score", None)
    runner._train_loop._iter += 1
    hook.after_val_epoch(runner, dict(a=1.0))


def nan_note(folder):
    hook = NaNLossHook()
    hook._runner = SimpleNamespace(iter=1, rank=0, work_dir=folder)
    hook._batch = dict(path=[f"{number}.jpg" for number in range(400)])
    with pytest.raises(NonFiniteLossError):
        hook._check_losses(dict(loss=torch.tensor(torch.nan)))


def results(folder):
    hook = LoggerHook()
    hook.json_log_path = "a.json"
    processor = SimpleNamespace(get_log_after_epoch=lambda *_, **__: ({"a": [0.5] * 1000}, ""))
    log = logging.getLogger("silent")
    hook.after_test_epoch(SimpleNamespace(log_processor=processor, test_dataloader=[0], logger=log, log_dir=folder))


def copies_of_logs(folder):
    logs = folder.parent / "logs"
    logs.mkdir(exist_ok=True)
    if not (logs / "a.json").exists():
        (logs / "a.json").write_text("a" * 4000)
    hook = LoggerHook(out_dir=folder.parent)
    runner = SimpleNamespace(
        work_dir=str(folder),
        timestamp="a",
        _log_dir=logs,
        logger=logging.getLogger("silent"),
        visualizer=SimpleNamespace(close=lambda: None),
    )
    hook.before_run(runner)
    hook.after_run(runner)


def run_config(folder):
    Runner.dump_config(SimpleNamespace(cfg=Config(dict(a="a" * 4000)), work_dir=folder, timestamp="a"))


def table(folder):
    rows = [dict(layer=0, video="a" * 4000, object=1)]
    VideoResultsHook()._report(folder, SimpleNamespace(by_object=rows, by_layer=[]))


def label_map(folder):
    """The output of a test: labels of more than 256 classes."""
    metric = IoUMetric(output_dir=str(folder), format_only=True)
    metric.dataset_meta = dict(classes=["a"] * 300)
    labels = torch.from_numpy(NOISE[..., 0]).long() + 44
    metric.process({}, [dict(img_path="a.jpg", pred_sem_seg=dict(data=labels[None]))])
    assert np.array_equal(cv2.imread(str(folder / "a.png"), cv2.IMREAD_UNCHANGED), labels)


def depth_map(folder):
    metric = DepthMetric(output_dir=str(folder), format_only=True, depth_scale_factor=100.0)
    depth = torch.from_numpy(NOISE[..., 0]) / 64
    metric.process({}, [dict(img_path="a.jpg", pred_depth_map=dict(data=depth[None]))])
    assert np.array_equal(cv2.imread(str(folder / "a.png"), cv2.IMREAD_UNCHANGED), (depth * 100).int())


def lock(folder):
    """Lock the folder, and let the lock go without the end of a run."""
    lock_file = os.path.realpath(folder / ".run.lock")
    work_dir_lock.lock_work_dir(folder)
    os.close(work_dir_lock._HELD.pop(lock_file))
    assert os.path.getsize(lock_file) == 0


def log(folder):
    LogFileHandler(folder / "a.log").handle(logging.makeLogRecord(dict(msg="a" * 4000)))


def probe(folder):
    state = {"backbone.x": torch.zeros(4000), "probes.0-0.conv_seg.weight": torch.zeros(4000)}
    save_probe(source(folder, dict(state_dict=state)), folder / "a.pth", layer=0, overwrite=True)


# Writers that replace an old file. Each is called with the folder that it writes to.
REPLACING = {
    "weights.pt": lambda folder: save_weights(tower(), folder / "a.pt", overwrite=True),
    "weights.safetensors": lambda folder: save_weights(tower(), folder / "a.safetensors", overwrite=True),
    "export": lambda folder: export_tower(source(folder), folder / "a.pt", overwrite=True),
    "checkpoint": lambda folder: checkpoint_hook(folder)._save_checkpoint_with_step(runner_in(folder), 1, {}),
    "best checkpoint": best,
    "probe": probe,
    "picture.png": lambda folder: write_png(folder / "a.png", NOISE),
    "video": lambda folder: write_video(folder / "a.mp4", [NOISE] * 3, 10, overwrite=True),
    "json": lambda folder: write_json(folder / "a.json", list(range(20_000))),
    "run config": run_config,
    "run config beside logs": lambda folder: LocalVisBackend(str(folder)).add_config(Config(dict(a="a" * 4000))),
    "test results": results,
    "copies of logs": copies_of_logs,
    "batch of a NaN loss": nan_note,
    "label map": label_map,
    "depth map": depth_map,
    "lock": lock,
    "run picture": lambda folder: LocalVisBackend(str(folder), img_save_dir=".").add_image("a", NOISE),
}
# Writers of new files.
NEW = {
    "convert": convert,
    "mask": lambda folder: write_mask(folder / "a.png", NOISE[..., 0]),
    "picture.jpg": lambda folder: write_picture(folder / "a.jpg", NOISE),
    "layer report": lambda folder: write_layer_report(folder, ROWS, metric="miou", higher_is_better=True, title="a"),
    "table of objects": table,
    "features": lambda folder: FeatureCache(folder).get(torch.zeros(1, 3), "", lambda x: torch.zeros(1, 9000)),
}
# Writers of a folder at once, by any means.
FOLDERS = {
    "shapes": lambda folder: write_shapes(folder / "a", num_train=2, num_val=1, image_size=128),
    "shapes video": lambda folder: write_shapes_video(folder / "a", num_videos=1, num_frames=3, image_size=128),
}
# Writers that append a line.
LOGS = {
    "scalars": lambda folder: LocalVisBackend(str(folder)).add_scalar("a" * 4000, 1.0, 1),
    "log": log,
}
ALL = REPLACING | NEW | FOLDERS | LOGS
OLD = b"old\n"


@pytest.fixture
def folder(tmp_path):
    module._last_cleaned.clear()
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".run.lock"]  # that has no content
    return {path.relative_to(folder): path.read_bytes() for path in files}


def write_old(name, folder):
    """Let there be files of an earlier time where the writer replaces or extends them."""
    if name in REPLACING | LOGS:
        ALL[name](folder)
        for path in contents(folder):
            (folder / path).write_bytes(OLD)
    return contents(folder)


@pytest.mark.parametrize("name", ALL)
def test_files_are_written(folder, name):
    write_old(name, folder)
    ALL[name](folder)
    found = contents(folder)
    assert found
    assert all(content not in (b"", OLD) for content in found.values())
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in folder.rglob("*") if path.is_file())
    assert not list(folder.rglob(".pe_dense-*"))


@pytest.mark.parametrize(
    ("name", "limit"), [(name, limit) for name in ALL for limit in (0, 1500) if name != "lock" or not limit]
)
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
    assert not list(folder.rglob(".pe_dense-*"))


@pytest.mark.parametrize("name", [*REPLACING, *NEW, *LOGS])
def test_no_space_left(folder, name, monkeypatch):
    old = write_old(name, folder)
    ALL[name](folder.parent / "elsewhere")
    fail_writes_after(monkeypatch, 50, errno.ENOSPC)
    with pytest.raises(WriteError, match=r"^Cannot write .*no space left on the disk mounted at /.*$"):
        ALL[name](folder)
    left = contents(folder)
    assert {path: left[path] for path in old} == old
    assert set(left) - set(old) == set() or name == "layer report"
    assert not list(folder.rglob(".pe_dense-*"))


@pytest.mark.parametrize("name", [*REPLACING, *NEW, *LOGS])
def test_kill(folder, name, monkeypatch):
    """A process that is killed in the middle of its file leaves the old file and nothing else."""
    old = write_old(name, folder)
    ALL[name](folder.parent / "elsewhere")

    def write_and_die():
        monkeypatch.setattr(os, "write", functools.partial(kill_after, os.write))
        ALL[name](folder)

    status = status_of_fork(write_and_die)
    assert os.WIFSIGNALED(status), status
    assert os.WTERMSIG(status) == signal.SIGKILL
    if name in LOGS:
        (path,) = old
        part = (folder / path).read_bytes().removeprefix(OLD)
        assert len(part) == 50
        assert b"\n" not in part
        cut_part_of_line(folder / path)
    assert contents(folder) == old


@pytest.mark.parametrize("name", LOGS)
def test_a_part_of_a_line_is_removed_before_the_next(folder, name):
    write_old(name, folder)
    (path,) = contents(folder)
    for start in (b"", OLD, OLD + b"a" * 10_000 + b"\n"):
        (folder / path).write_bytes(start + b"b" * 9000)
        ALL[name](folder)
        content = (folder / path).read_bytes()
        assert content.startswith(start)
        assert b"b" * 100 not in content
        assert content.count(b"\n") == start.count(b"\n") + 1
        assert content.endswith(b"\n")


def test_resuming_removes_parts_of_lines(tmp_path):
    make_runner(tmp_path, max_iters=2).train()
    logs = [tmp_path / "run" / "1" / "1.log", tmp_path / "run" / "1" / "vis_data" / "scalars.json"]
    logs[1].parent.mkdir(parents=True)
    for path in logs:
        path.write_text('{"a": 1}\n{"b"')
    runner = make_runner(tmp_path, resume="auto")
    assert [path.read_text() for path in logs] == ['{"a": 1}\n'] * 2
    assert [type(handler) for handler in runner.logger.handlers] == [logging.StreamHandler, LogFileHandler]
    assert LoggerHook in map(type, runner.hooks)
    runner.logger.error("a\nb")
    (path,) = (tmp_path / "run").glob(f"{runner.timestamp}/*.log")
    assert path.read_text().endswith("a\nb\n")


def kill_after(write, fileno, content):
    write(fileno, bytes(content)[:50])
    os.kill(os.getpid(), signal.SIGKILL)


def status_of_fork(function):
    """Run a function in a forked process and return its wait status."""
    # A forked process has none of OpenMP's threads, for which a parallel loop of PyTorch would wait forever.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    child = os.fork()
    if not child:
        signal.alarm(120)
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    torch.set_num_threads(threads)
    return os.waitpid(child, 0)[1]


def test_a_tower_replaces_the_file_that_it_is_mapped_from(tmp_path):
    """Truncating a mapped file kills the process with SIGBUS and destroys the weights."""
    from pe_dense.backbones import load_tower

    for name in ("a.pt", "a.safetensors"):
        path = save_weights(tower(), tmp_path / name)
        before = path.read_bytes()
        assert status_of_fork(lambda: save_weights(load_tower(TINY, path), path, overwrite=True)) == 0  # noqa: B023
        assert path.read_bytes() == before
        assert status_of_fork(lambda: export_tower(path, path, overwrite=True)) == 0  # noqa: B023
        assert path.read_bytes() == before

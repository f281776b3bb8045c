#!/usr/bin/env python
"""Kill training runs at several moments, resume them, and compare them with runs that were not killed.

tests/kill_and_resume.py --tasks maskrcnn deta probe sweep alignment --kills 5
tests/kill_and_resume.py --tasks maskrcnn alignment --processes 2

Images are augmented and loaded by two data workers. Losses of all iterations, weights and optimizer states must be
equal, bit for bit. Exit status 1 if they are not.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from helpers.shapes_probe import small_config
from helpers.tiny_run import write_config
from helpers.warm_process import ROOT, WarmProcess, session_processes
from mmengine.config import Config

from pe_dense.engine.config import load_config

TASKS = ("maskrcnn", "deta", "probe", "sweep", "alignment", "shards")
FLIPS = dict(type="RandomFlip", prob=[0.25, 0.25], direction=["horizontal", "vertical"])


def main(arguments: list[str] | None = None) -> bool:
    """Run the comparisons; return whether any task differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--kills", type=int, default=5, choices=range(1, 6))
    parser.add_argument("--iterations", type=int, default=24, help="a checkpoint is written after every sixth part")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="data workers of the killed run; the other one has 2")
    parser.add_argument("--signal", choices=["KILL", "TERM", "INT"], default="KILL")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--warm",
        action="store_true",
        help="fork runs of one process from one that has imported everything, except for the last, whose hash seed is "
        "then another one",
    )
    parser.add_argument("--folder", type=Path, help="for data and runs; a temporary one by default")
    args = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        differing = [task for task in args.tasks if not check(task, folder, args)]
    print("DIFFER: " + ", ".join(differing) if differing else "all equal")
    return bool(differing)


def check(task: str, folder: Path, args) -> bool:
    """Train a task without and with interruptions; print and return whether the results are equal."""
    folder = folder / task
    folder.mkdir(parents=True, exist_ok=True)
    config = make_config(task, folder, args.iterations)
    whole, pieces = folder / f"{task}_whole", folder / f"{task}_pieces"
    start = time.monotonic()
    run = Run(config, whole, args.processes, warm=args.warm)
    assert run.process.wait() == 0, run.output()
    moments = kill_moments(args.kills, args.iterations, random.Random(args.seed))
    done = []
    for name, condition, delay in moments:
        run = Run(config, pieces, args.processes, f"train_dataloader.num_workers={args.workers}", warm=args.warm)
        reached = run.wait_for(condition)
        time.sleep(delay)
        status = run.end(getattr(signal, f"SIG{args.signal}"))
        expected = dict(KILL=-9, TERM=143, INT=130)[args.signal]
        # torchrun has an exit status of its own.
        assert args.processes > 1 or status in (expected, 0), f"exit status {status}\n{run.output()}"
        left = run.processes_left()
        assert not left, f"processes are left: {left}"
        done.append(f"{name} (iteration {max(losses(pieces), default=0)}{'' if reached else ', missed'})")
    run = Run(config, pieces, args.processes)
    assert run.process.wait() == 0, run.output()
    differences = compare(whole, pieces, args.iterations)
    print(
        f"{task}, {args.processes} process(es), ended by SIG{args.signal} at {'; '.join(done)}: "
        f"{len(losses(pieces))} losses, {'; '.join(differences) or 'all equal'}, {time.monotonic() - start:.0f} s",
        flush=True,
    )
    return not differences


class Run:
    """Training run in its own process group; resumed if the folder has a checkpoint."""

    def __init__(self, config: Path, work_dir: Path, processes: int, *options: str, warm: bool = False):
        self.work_dir = work_dir
        self.before = max(losses(work_dir), default=0)
        self.log = work_dir.with_suffix(".txt")
        command = [sys.executable]
        if processes > 1:
            command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        train = ["tools/train.py", str(config), "--work-dir", str(work_dir)]
        if processes > 1:
            train += ["--launcher", "pytorch"]
        if any(work_dir.glob("iter_*.pth")):
            train.append("--resume")
        if options:
            train += ["--cfg-options", *options]
        with self.log.open("a") as file:
            self.start = file.tell()
            if warm and processes == 1:
                self.process = WarmProcess(*train, output=self.log)
                return
            self.process = subprocess.Popen(
                [*command, *train], cwd=ROOT, stdout=file, stderr=file, start_new_session=True
            )

    def output(self) -> str:
        return self.log.read_text()[self.start :]

    def reached(self, number: int) -> bool:
        return max(losses(self.work_dir), default=0) >= number

    def writing(self) -> bool:
        """Return whether a checkpoint is being written: an unnamed file in the work dir."""
        descriptors = Path(f"/proc/{self.process.pid}/fd")
        with contextlib.suppress(OSError):
            targets = [os.readlink(descriptor) for descriptor in descriptors.iterdir()]
            return any(name.startswith(f"{self.work_dir}/#") or name.endswith(".part") for name in targets)
        return False

    def wait_for(self, condition, seconds: float = 300) -> bool:
        """Wait until a condition is true; return whether it was before the run ended by itself."""
        end = time.monotonic() + seconds
        while not condition(self):
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < end, self.output()
            time.sleep(0.002)
        return True

    def end(self, number: int) -> int:
        """Send a signal (to all at once where it can't be refused) and wait for the exit status."""
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
                for pid, _ in self.processes_left():  # torchrun's processes have groups of their own
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            else:
                self.process.send_signal(number)
        return self.process.wait(120)

    def processes_left(self, seconds: float = 10) -> list[tuple[int, str]]:
        """Return processes of this run that still exist after some time."""
        end = time.monotonic() + (seconds if self.process.poll() is not None else 0)
        while True:
            left = []
            session = session_processes(self.process.pid)
            for entry in Path("/proc").iterdir():
                with contextlib.suppress(OSError, ValueError):
                    pid = int(entry.name)
                    if pid in session or str(self.work_dir).encode() in (entry / "cmdline").read_bytes():
                        left.append((pid, (entry / "stat").read_text().split()[2]))
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.1)


def kill_moments(count: int, iterations: int, rng: random.Random) -> list:
    """(name, condition on a run, seconds to wait after it)."""

    def iteration(number):
        return f"iteration {number}", lambda run: run.reached(number), rng.random() * 0.2

    all_moments = [
        iteration(rng.randint(iterations // 5 + 1, iterations // 3 - 1)),
        ("checkpoint", lambda run: run.writing() or run.reached(iterations // 2 - 1), 0.0),
        ("validation", lambda run: "Iter(val)" in run.output() or run.reached(iterations * 5 // 8), 0.0),
        ("data loading", lambda run: "Advance dataloader" in run.output(), rng.random() * 0.5),
        iteration(rng.randint(iterations * 3 // 4, iterations - 2)),
    ]
    return all_moments[:count]


def make_config(task: str, folder: Path, iterations: int) -> Path:
    """Return the small config of a task, with augmentation that uses all RNGs."""
    if task == "maskrcnn":
        path = write_config(folder, name=task, validate=True)
        config = load_config(path)
        augment(config, after="LoadAnnotations")
    elif task == "deta":
        config = load_config(ROOT / "configs/shapes_deta_pe_tiny.py", {"data_root": str(folder / "shapes")})
        augment(config, after="LoadAnnotations")
    elif task in ("probe", "sweep"):
        name = dict(probe="shapes_linear_pe_tiny", sweep="shapes_sweep_pe_tiny")[task]
        config = small_config(name, folder)
        config.log_level = "INFO"
    else:
        config = load_config(ROOT / "configs/shapes_align_pe_tiny.py", {"data_root": str(folder / "shapes")})
        write_images(folder / "shapes" / "train")
        if task == "shards":
            read_shards(config, folder)
        config.model.locality_weight = 0.0  # SAM 2 is not installed everywhere
        config.custom_hooks = [hook for hook in config.custom_hooks if hook.type != "pe_dense.FeaturePictureHook"]
    for split in ("train", "val", "test"):
        loader = config.get(f"{split}_dataloader")
        if loader is None:
            continue
        loader.update(batch_size=2, num_workers=2 if split == "train" else 1, persistent_workers=True)
        if "generator" in loader.dataset and task not in ("probe", "sweep"):
            loader.dataset.generator = dict(num_train=8, num_val=4)
    config.train_cfg.update(max_iters=iterations, val_interval=iterations // 2)
    config.default_hooks.logger.interval = 1
    config.default_hooks.checkpoint.update(interval=iterations // 6, max_keep_ckpts=-1)
    config.default_hooks.checkpoint.pop("save_best", None)
    config.log_processor.window_size = 1
    path = folder / f"{task}.py"
    config.dump(path)
    return path


def augment(config: Config, after: str) -> None:
    """Large scale jitter, flips and color: NumPy's and Python's RNG."""
    steps = [step for step in config.train_dataloader.dataset.pipeline if step["type"] != "RandomFlip"]
    place = next(i for i, step in enumerate(steps) if step["type"].endswith(after)) + 1
    size = (config.image_size, config.image_size) if "image_size" in config else (128, 128)
    steps[place:place] = [
        dict(type="RandomResize", scale=size, ratio_range=(0.5, 1.5), keep_ratio=True),
        dict(type="RandomCrop", crop_type="absolute", crop_size=size, allow_negative_crop=True),
        FLIPS,
        dict(type="PhotoMetricDistortion"),
    ]
    config.train_dataloader.dataset.pipeline = steps


def write_images(folder: Path) -> None:
    """Some images without annotations."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(8):
        pixels = np.kron(rng.integers(0, 256, (16, 16, 3)), np.ones((10, 10, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"photo_{number}.png")


def read_shards(config: Config, folder: Path) -> None:
    """Read the images as the config of web shards does, three times in two shards."""
    import tarfile

    for number in range(2):
        with tarfile.open(folder / f"shard-{number:06}.tar", "w") as shard:
            for copy in range(3):
                for path in sorted((folder / "shapes" / "train").glob("*.png")):
                    shard.add(path, f"{copy}_{number}_{path.name}")
    loader = load_config(ROOT / "configs/shards_align_pe_g14.py").train_dataloader
    loader.dataset.update(urls=f"{folder}/shard-{{000000..000001}}.tar", visit=5)
    loader.dataset.pipeline = config.train_dataloader.dataset.pipeline
    for part in ("dataset", "sampler"):  # `update` would merge them
        config.train_dataloader[part] = loader[part]


def losses(work_dir: Path) -> dict[int, dict]:
    """Return the logged values of each iteration; those of a resumed run replace earlier ones."""
    import json

    steps = {}
    for path in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):  # a line that a kill cut off
                record = json.loads(line)
                if "loss" in record:
                    steps[record["step"]] = {key: value for key, value in record.items() if "loss" in key}
    return steps


def compare(whole: Path, pieces: Path, iterations: int) -> list[str]:
    """Return the differences."""
    differences = []
    expected, found = losses(whole), losses(pieces)
    bad = [step for step in expected if expected[step] != found.get(step)]
    if bad or len(expected) != iterations:
        differences.append(f"{len(bad)} of {len(expected)} losses differ, the first at iteration {min(bad, default=0)}")
    name = f"iter_{iterations}.pth"
    states = [torch.load(path / name, map_location="cpu", weights_only=False) for path in (whole, pieces)]
    for part in ("state_dict", "optimizer"):
        a, b = (dict(tensors(state[part])) for state in states)
        bad = [key for key in a if key not in b or not torch.equal(a[key], b[key])]
        if bad or set(a) != set(b):
            differences.append(f"{len(bad)} of {len(a)} tensors of {part} differ")
    return differences


def tensors(item, name=""):
    """(name, tensor) of all tensors at any depth."""
    if isinstance(item, torch.Tensor):
        yield name, item
    elif isinstance(item, dict | list | tuple):
        for key, value in item.items() if isinstance(item, dict) else enumerate(item):
            yield from tensors(value, f"{name}.{key}")


if __name__ == "__main__":
    sys.exit(main())

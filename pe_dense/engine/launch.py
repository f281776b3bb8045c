"""From a config file to a runner: what `tools/train.py` and `tools/test.py` share."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import RUNNERS

from pe_dense.engine.data import check_files
from pe_dense.engine.errors import ConfigError


def training_runner(config: Config, *, work_dir: str | None, resume: str | None, amp: bool, launcher: str):
    """Set up a training run.

    Args:
        config: a whole config.
        work_dir: where logs and checkpoints go; ``work_dirs/<config name>`` by default.
        resume: 'auto' goes on from the work dir's last checkpoint, a path from that one, None starts anew.
        amp: train in mixed precision (bfloat16).
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        the runner; its ``train`` starts.

    Raises:
        ConfigError: for missing data, a work dir that already holds a run, or precision without a GPU.
    """
    check_files(config, ("train", "val"))
    _place(config, work_dir, launcher)
    _set_resume(config, resume)
    _set_precision(config, amp)
    return RUNNERS.build(config)


def testing_runner(config: Config, checkpoint: str, *, work_dir: str | None, launcher: str):
    """Set up a test of a checkpoint.

    Args:
        config: a whole config.
        checkpoint: path or ``hf://`` name.
        work_dir: where results go; ``work_dirs/<config name>`` by default.
        launcher: as for training.

    Returns:
        the runner; its ``test`` starts.

    Raises:
        ConfigError: for missing data.
    """
    check_files(config, ("test",))
    _place(config, work_dir, launcher)
    # The checkpoint brings all weights; loading the tower's first would only cost time and perhaps a download.
    config.model.get("backbone", {}).pop("init_cfg", None)
    for name in ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"):
        config.pop(name, None)
    for name in ("val_dataloader", "val_cfg", "val_evaluator"):
        config.pop(name, None)
    config.load_from = checkpoint
    config.resume = False
    return RUNNERS.build(config)


def _place(config: Config, work_dir: str | None, launcher: str) -> None:
    """Set the work dir and, for several processes without a GPU, what MMEngine assumes of GPUs."""
    config.work_dir = work_dir or config.get("work_dir") or f"work_dirs/{Path(config.filename).stem}"
    config.launcher = launcher
    if launcher == "pytorch" and not torch.cuda.is_available():
        missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR") if name not in os.environ]
        if missing:
            raise ConfigError(
                f"--launcher pytorch found no {', '.join(missing)}: start with "
                "`torchrun --nproc_per_node=N tools/train.py CONFIG --launcher pytorch`"
            )
        # The runner leaves a process group alone that is there already; its own set-up asks for a CUDA device.
        torch.distributed.init_process_group("gloo")
        config.model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None)


def _set_resume(config: Config, resume: str | None) -> None:
    work_dir = Path(config.work_dir)
    last = work_dir / "last_checkpoint"
    if resume is None:
        if last.exists() or any(work_dir.glob("*.pth")):
            raise ConfigError(
                f"{work_dir} already holds a run: go on with --resume, or start a new one with --work-dir FOLDER"
            )
    elif resume == "auto":
        if not last.exists():
            print_log(f"Nothing to resume in {work_dir}: starting anew", "current", logging.WARNING)
        config.resume, config.load_from = True, None
    else:
        config.resume, config.load_from = True, resume


def _set_precision(config: Config, amp: bool) -> None:
    wrapper = config.optim_wrapper
    if not torch.cuda.is_available():
        if amp:
            raise ConfigError("--amp needs a GPU, and PyTorch finds none here")
        if wrapper.type == "AmpOptimWrapper":
            print_log("No GPU: training in float32 instead of mixed precision", "current", logging.WARNING)
            wrapper.type = "OptimWrapper"
            wrapper.pop("dtype", None)
            wrapper.pop("loss_scale", None)
    elif amp and wrapper.type == "OptimWrapper":
        wrapper.type, wrapper.dtype = "AmpOptimWrapper", "bfloat16"

"""Build the runner of a config for `tools/train.py` and `tools/test.py`."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import RUNNERS, init_default_scope

from pe_dense.backbones.base import TIMM_PREFIX
from pe_dense.backbones.lora import describe_trainable
from pe_dense.engine.config import load_config
from pe_dense.engine.config_check import check_config
from pe_dense.engine.config_parts import walk_dicts
from pe_dense.engine.distributed import check_launcher, init_distributed, is_main_process
from pe_dense.engine.hooks.logger import heal_logs
from pe_dense.engine.inferencer import drop_pretrained, use_test_time_augmentation
from pe_dense.engine.optimizers.cpu_amp import bfloat16_instructions
from pe_dense.engine.preflight import check_files, check_pictures, check_weights
from pe_dense.engine.resume import set_resume
from pe_dense.engine.work_dir_lock import lock_work_dir
from pe_dense.utils.errors import ConfigError, library_errors
from pe_dense.utils.output_folder import check_output_folder


def training_runner(
    config: Config,
    *,
    work_dir: str | None,
    resume: str | None,
    amp: bool,
    launcher: str,
    fsdp: bool = False,
    ema: float | None = None,
):
    """Build the runner of a training run.

    Args:
        config: complete config.
        work_dir: folder for logs and checkpoints; by default ``work_dirs/<config name>``, followed by ``_<tower>`` if
            the option ``tower`` is set.
        resume: 'auto' resumes from the work dir's last checkpoint, a path from that file; None starts from scratch.
        amp: enable bfloat16 mixed precision; on a CPU only if it has AMX or AVX512-BF16, otherwise training is in
            float32 and a warning says so.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
        fsdp: shard parameters, gradients and optimizer state across GPUs, see :mod:`pe_dense.engine.fsdp`.
        ema: momentum of the exponential moving average (EMA) of the weights that is evaluated and saved; None disables
            EMA.

    Returns:
        the runner; call its ``train``.

    Raises:
        ConfigError: for missing data, a work dir that already contains a run, conflicting settings, or a method without
            training.
    """
    if "train_dataloader" not in config:
        raise ConfigError(f"{config.filename} has nothing to train: run it by tools/test.py")
    check_config(config)
    config.work_dir = work_dir_of(config, work_dir)
    check_files(config, ("train", "val"))
    check_pictures(config)
    check_weights(config)
    if fsdp:
        _set_sharding(config, launcher, ema)
    if ema is not None:
        _set_average(config, ema)
    _launch(config, launcher)
    if is_main_process(launcher):
        lock_work_dir(config.work_dir)
        heal_logs(config.work_dir)
    set_resume(config, resume)
    _set_precision(config, amp)
    runner = _build(config, "run")
    if trained := describe_trainable(runner.model):
        runner.logger.info(trained)
    return runner


def testing_runner(config: Config, checkpoint: str | None, *, work_dir: str | None, launcher: str, tta: bool = False):
    """Build the runner that tests a checkpoint.

    Args:
        config: complete config.
        checkpoint: path or ``hf://`` name; None, for training-free methods only, for the weights given by the config.
        work_dir: output folder; the default is that of :func:`training_runner`.
        launcher: see :func:`training_runner`.
        tta: test-time augmentation with the config's ``tta_model`` and ``tta_pipeline``.

    Returns:
        the runner; call its ``test``.

    Raises:
        ConfigError: for missing data, a config without test-time augmentation, or a missing checkpoint.
    """
    if checkpoint is None:
        checkpoint = own_weights(config)
    if tta:
        use_test_time_augmentation(config)
    check_config(config)
    config.work_dir = work_dir_of(config, work_dir)
    check_files(config, ("test",))
    _launch(config, launcher)
    drop_pretrained(config.model)
    check_weights(config)
    for name in ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"):
        config.pop(name, None)
    for name in ("val_dataloader", "val_cfg", "val_evaluator"):
        config.pop(name, None)
    config.load_from = checkpoint
    config.resume = False
    return _build(config, "test")


def _build(config: Config, kind: str):
    # MMEngine takes up the scope of an earlier runner of the same name and second, but not as the current one.
    init_default_scope(config.get("default_scope") or "mmengine")
    with library_errors(f"{config.filename}: the {kind} cannot be set up with these values"):
        return RUNNERS.build(config)


def own_weights(config: Config) -> str | None:
    """Return the weights of model or backbone that the config of a training-free method names.

    Returns:
        a path or ``hf://`` name; None if ``model.clip`` is the name of a file, which the model loads itself.

    Raises:
        ConfigError: if it names none, they do not exist, or the method is trained.
    """
    if "train_dataloader" in config:
        raise ConfigError(f"the model of {config.filename} needs training: name the CHECKPOINT to test")
    if isinstance(config.model.get("clip"), str):
        return None
    owners = (config.model, config.model.get("backbone") or {})
    named = [(owner.get("init_cfg") or {}).get("checkpoint") for owner in owners]
    weights = next((source for source in named if source is not None), None)
    if weights is None:
        raise ConfigError(f"the tower of {config.filename} has no pretrained weights: name a CHECKPOINT with a tower")
    check_weights(config)
    return weights


def work_dir_of(config: Config, work_dir: str | None) -> str:
    """Return the folder of a run's outputs; nothing is created.

    Args:
        config: complete config.
        work_dir: folder given by the user; None for the config's, or else the default of :func:`training_runner`.

    Raises:
        ConfigError: if it cannot be written to.
    """
    folder = work_dir or config.get("work_dir")
    if not folder:
        folder = f"work_dirs/{Path(config.filename).stem}"
        tower = config.get("tower")
        if tower and tower != load_config(config.filename).get("tower"):  # set by an option
            folder += f"_{tower.removeprefix(TIMM_PREFIX)}"
    check_output_folder(folder, "the work dir")
    return str(folder)


def _launch(config: Config, launcher: str) -> None:
    config.launcher = launcher
    check_launcher(launcher)
    if launcher != "none":
        init_distributed(config, launcher)


def _set_sharding(config: Config, launcher: str, ema: float | None) -> None:
    if launcher == "none":
        raise ConfigError(
            "--fsdp shards a model across processes: start with "
            "`torchrun --nproc_per_node=N tools/train.py CONFIG --launcher pytorch --fsdp`"
        )
    if ema is not None:
        raise ConfigError("--ema is not supported with --fsdp: remove one of them")
    dtype = config.optim_wrapper.get("dtype", "bfloat16")
    if dtype != "bfloat16":
        raise ConfigError(f"--fsdp supports float32 and bfloat16 mixed precision; optim_wrapper.dtype is {dtype}")
    config.fsdp = True


def _set_average(config: Config, momentum: float) -> None:
    if not 0.0 < momentum < 1.0:
        raise ConfigError(f"--ema {momentum:g}: the momentum must be between 0 and 1")
    average = dict(type="pe_dense.EMAHook", momentum=momentum)
    config.custom_hooks = [*(config.get("custom_hooks") or []), average]


def _set_precision(config: Config, amp: bool) -> None:
    wrapper = config.optim_wrapper
    if amp and wrapper.type == "OptimWrapper":
        wrapper.type, wrapper.dtype = "AmpOptimWrapper", "bfloat16"
    if wrapper.type != "AmpOptimWrapper":
        return
    for part in walk_dicts(config.get("model")):
        if part.get("type") in ("SingleRoIExtractor", "mmdet.SingleRoIExtractor"):
            part["type"] = "pe_dense.SingleRoIExtractor"  # mmdet's rounds boxes to half precision
    if not torch.cuda.is_available():
        _set_precision_of_cpu(wrapper)
    elif wrapper.get("dtype") == "bfloat16":
        # Scaling the loss keeps gradients in float16's range; bfloat16 has float32's.
        wrapper.setdefault("loss_scale", dict(enabled=False))


def _set_precision_of_cpu(wrapper: ConfigDict) -> None:
    """Train in bfloat16 if the CPU has instructions for it, otherwise in float32."""
    dtype, instructions = wrapper.get("dtype") or "float16", bfloat16_instructions()
    wrapper.pop("loss_scale", None)
    if instructions and dtype in ("bfloat16", "float16"):
        instead = "" if dtype == "bfloat16" else f" instead of {dtype}"
        print_log(f"CPU with {instructions}: training in bfloat16 mixed precision{instead}", "current")
        wrapper.dtype = "bfloat16"
        return
    if dtype in ("bfloat16", "float16"):
        reason = "No GPU, and this CPU has neither AMX nor AVX512-BF16"
        print_log(f"{reason}: training in float32 instead of mixed precision", "current", logging.WARNING)
    wrapper.type = "OptimWrapper"
    wrapper.pop("dtype", None)

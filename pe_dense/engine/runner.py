"""MMEngine's runner, with strict and safe checkpoint loading, atomic saving, FSDP and preflight checks of data."""

from __future__ import annotations

import os
import time
from pathlib import Path

import mmengine
import torch
from mmengine.config import ConfigDict
from mmengine.dist import get_dist_info, master_only
from mmengine.hooks import EMAHook as _EMAHook
from mmengine.logging import MMLogger, print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner import Runner as _Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader as _DataLoader

from pe_dense.engine import fsdp
from pe_dense.engine.config_check import CheckedBuilding
from pe_dense.engine.data_loading import DataLoader, check_shared_memory
from pe_dense.engine.hooks.checkpoint import CheckpointHook, StopHook, after_update
from pe_dense.engine.hooks.ema import EMAHook
from pe_dense.engine.hooks.logger import LocalVisBackend, LogFileHandler, LoggerHook, is_local
from pe_dense.engine.hooks.nan_loss import NaNLossHook
from pe_dense.engine.optimizers.cpu_amp import CPUAmpOptimWrapper, fused
from pe_dense.engine.preflight import check_images, check_learnable, empty_error, is_empty
from pe_dense.engine.resume import ConfiguredSchedule, check_optimizer, check_progress, check_training_state
from pe_dense.engine.seeded_sampling import SeededBatchSampler, TrainBatches
from pe_dense.engine.work_dir_lock import unlock_work_dir
from pe_dense.registry import RUNNERS
from pe_dense.utils import CheckpointError, match_state_dict, read_checkpoint
from pe_dense.utils.atomic_write import write_text
from pe_dense.utils.checkpoint import (
    DamagedCheckpointError,
    last_checkpoint,
    newest_undamaged,
    safe_checkpoint_loader,
    write_checkpoint,
)
from pe_dense.utils.errors import ConfigError, UserError, first_line
from pe_dense.utils.lora_state import match_lora
from pe_dense.utils.rng import StepSeedHook
from pe_dense.utils.signals import STOP, StopRun
from pe_dense.utils.state_dict import strip_wrappers

_OF_WORKERS = ("persistent_workers", "prefetch_factor", "timeout", "multiprocessing_context")


def model_state(model, checkpoint, source: str, *, resume: bool = False) -> dict[str, Tensor]:
    """Find the state dict of a complete model in a checkpoint and convert it to the model's names; keys must match.

    A model may have a method ``from_published(state, source)`` that maps the layouts of released files to its own.

    Args:
        model: a model.
        checkpoint, source: see :func:`~pe_dense.utils.state_dict.strip_wrappers`.
        resume: see :func:`~pe_dense.utils.lora_state.match_lora`, which merges or adds LoRA adapters.

    Returns:
        a state dict with exactly the model's keys and shapes.

    Raises:
        CheckpointError: if the file contains no state dict, or keys do not match (both sides are listed).
    """
    state = strip_wrappers(checkpoint, source)
    if hasattr(model, "from_published"):
        state = model.from_published(state, source)
    if not getattr(getattr(model, "roi_head", None), "with_mask", True):
        state = _without_mask_head(state, source)
    own = model.state_dict()
    state = match_lora(state, own, source, resume=resume)
    match_state_dict(own, state, source, f"this config's {type(model).__name__}")
    return state


def _without_mask_head(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Leave out the mask head, for a detector that learns boxes alone."""
    kept = {key: value for key, value in state.items() if not key.startswith("roi_head.mask_")}
    if len(kept) < len(state):
        print_log(f"{source}: the weights of the mask head are left out, since this config has none", "current")
    return kept


def load_model_state(model, checkpoint, source: str, **options) -> None:
    """Load the result of :func:`model_state` into a model, which may be wrapped or sharded for distributed training."""
    model = model.module if is_model_wrapper(model) else model
    model = model.module if isinstance(model, BaseTTAModel) else model  # the model has no weights of its own
    model.load_state_dict(fsdp.distribute_state_dict(model_state(model, checkpoint, source, **options), model))


@RUNNERS.register_module()
class Runner(CheckedBuilding):
    """MMEngine's ``Runner``, with strict and safe checkpoint loading, atomic saving and checks for missing images.

    A config with ``fsdp=True`` trains sharded, see :mod:`pe_dense.engine.fsdp`; its checkpoints are not sharded.
    """

    def __init__(self, *args, **kwargs):
        with safe_checkpoint_loader():
            super().__init__(*args, **kwargs)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model as MMEngine does, or shard it after initializing its weights."""
        if not self.cfg.get("fsdp"):
            return super().wrap_model(model_wrapper_cfg, model)
        model.init_weights()
        model = fsdp.shard(model)
        here, total = fsdp.local_numel(model)
        self.logger.info(f"Sharded across {self.world_size} processes: {here:,} of {total:,} parameters in this one")
        return model

    def _init_model_weights(self) -> None:
        if not fsdp.is_sharded(self.model):
            super()._init_model_weights()

    def build_optim_wrapper(self, optim_wrapper) -> OptimWrapper:
        """Build the optimizer wrapper; on a CPU with :class:`CPUAmpOptimWrapper` and :func:`fused` optimizers."""
        given = optim_wrapper
        if isinstance(given, dict) and not torch.cuda.is_available():
            optim_wrapper = ConfigDict(given)
            if given.get("type") == "AmpOptimWrapper":
                optim_wrapper.type = CPUAmpOptimWrapper
            if isinstance(given.get("optimizer"), dict):
                optim_wrapper.optimizer = fused(given["optimizer"])
        built = super().build_optim_wrapper(optim_wrapper)
        if built is not optim_wrapper and fsdp.is_sharded(self.model):
            fsdp.accept_full_optimizer_state(built.optimizer)
        return built

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        """Register MMEngine's default hooks, with this project's :class:`CheckpointHook` and :class:`LoggerHook`, and
        the hooks of every run: :class:`StepSeedHook`, :class:`NaNLossHook` and :class:`StopHook`.
        """
        own = dict(step_seed=StepSeedHook(), nan_loss=NaNLossHook(), stop=StopHook())
        usual = dict(logger=dict(type="LoggerHook"), checkpoint=dict(type="CheckpointHook", interval=1))
        hooks = usual | own | dict(hooks or {})
        for name, kind in dict(logger=LoggerHook, checkpoint=CheckpointHook).items():
            if isinstance(hooks[name], dict) and hooks[name].get("type") == kind.__name__:
                hooks[name] = dict(hooks[name], type=kind)
        super().register_default_hooks(hooks)

    def register_custom_hooks(self, hooks: list) -> None:
        """Register custom hooks, with this project's :class:`EMAHook` and without a second hook for NaN losses."""
        for hook in hooks:
            kind = hook.get("type") if isinstance(hook, dict) else type(hook)
            if kind == "EMAHook":
                hook = dict(hook, type=EMAHook)
            if kind not in (NaNLossHook, "pe_dense.FiniteLossHook", "pe_dense.NaNLossHook"):
                self.register_hook(hook)

    def build_train_loop(self, loop):
        """Build the training loop; its data can start at any iteration, and signals interrupt waiting for data.

        Raises:
            MapError: if the label or depth maps contain nothing to learn.
        """
        loop = super().build_train_loop(loop)
        check_learnable(loop.dataloader.dataset)
        batches = getattr(loop.dataloader, "batch_sampler", None)
        if isinstance(batches, SeededBatchSampler):
            batches.continues = True
        if isinstance(loop.dataloader, DataLoader):
            loop.dataloader.interruptible = lambda: self.world_size == 1 and after_update(self)
        if isinstance(loop, IterBasedTrainLoop):
            loop.dataloader_iterator = TrainBatches(loop.dataloader)
        return loop

    def train(self) -> nn.Module:
        """Train the model; SIGTERM and SIGINT end training with a checkpoint of the last iteration.

        Raises:
            StopRun: after a signal, when the checkpoint is written.
        """
        with STOP.handled(), safe_checkpoint_loader():
            try:
                model = super().train()
                STOP.check()
                return model
            except StopRun as stop:
                STOP.deferred = True  # a checkpoint that is being written is finished
                self._save_where_stopped()
                if self.world_size > 1 and not stop.agreed:
                    self._end_workers()
                    os._exit(stop.code)  # the other processes have not stopped, so a regular shutdown would hang
                raise
            finally:
                self._end_workers()
                unlock_work_dir(self.work_dir)

    def _save_where_stopped(self) -> None:
        """Write a checkpoint of the last iteration unless it exists."""
        loop = self._train_loop
        began = any(isinstance(hook, StopHook) and hook.began for hook in self.hooks)
        hook = next((hook for hook in self.hooks if isinstance(hook, CheckpointHook)), None)
        if not began or hook is None or hook.by_epoch or not isinstance(loop, IterBasedTrainLoop) or loop.iter == 0:
            return
        if not after_update(self):
            return
        for average in (hook for hook in self.hooks if isinstance(hook, EMAHook)):
            average.restore(self)
        if not (Path(hook.out_dir) / hook.filename_tmpl.format(loop.iter)).exists():
            hook._save_checkpoint_with_step(self, loop.iter, meta=dict(epoch=loop.epoch, iter=loop.iter))
            self.logger.info(f"Stopped after iteration {loop.iter}; resume from {hook.last_ckpt} with --resume")

    def _end_workers(self) -> None:
        for loop in (self._train_loop, self._val_loop, self._test_loop):
            loader = getattr(loop, "dataloader", None)
            if isinstance(loader, DataLoader):
                loader.end_workers(final=True)

    def load_checkpoint(self, filename: str, map_location="cpu") -> dict:
        """Load a model's checkpoint; see :func:`load_model_state` for its checks.

        Args:
            filename: path or ``hf://`` name.
            map_location: as in :func:`torch.load`.

        Returns:
            the file's content.

        Raises:
            CheckpointError: if the file is damaged or does not match.
            ConfigError: when a run with EMA or LoRA is resumed without it.
        """
        checkpoint = self._read_to_resume(filename) if self._resume else read_checkpoint(filename, map_location)
        averaged = isinstance(checkpoint, dict) and "ema_state_dict" in checkpoint
        if averaged and self._resume and not any(isinstance(hook, _EMAHook) for hook in self.hooks):
            raise ConfigError(f"{filename} was saved by a run with EMA weights: resume it with --ema")
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        load_model_state(self.model, checkpoint, str(filename), resume=self._resume)
        self._has_loaded = True
        self.logger.info(f"Loaded {filename}")
        return checkpoint

    def resume(
        self, filename: str, resume_optimizer: bool = True, resume_param_scheduler: bool = True, map_location="cpu"
    ) -> None:
        """Resume training; the checkpoint is read on the CPU, since a second model may not fit into GPU memory.

        Learning rates and schedule follow the config where it differs from the checkpoint's run.

        Raises:
            ConfigError: if the run would end before the checkpoint's iteration.
            CheckpointError: if the file is damaged or its training state does not fit; the message states the
                newest undamaged checkpoint in the same folder.
        """
        seed = self.seed
        schedule = ConfiguredSchedule(self)
        try:
            super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
        except (UserError, OSError):
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError, AssertionError) as error:
            raise CheckpointError(
                f"{filename} cannot be resumed: its training state does not fit this run "
                f"({type(error).__name__}: {first_line(error)})"
            ) from error
        if not fsdp.is_sharded(self.model):
            check_optimizer(self.optim_wrapper, str(filename))
        check_progress(self, str(filename))
        if changes := schedule.changes():
            self.logger.warning(
                f"The config differs from the checkpoint's run in {', '.join(changes)}: from iteration {self.iter} on, "
                "learning rates and schedule are those of an uninterrupted run of this config"
            )
            schedule.follow()
        batches = self.train_loop.dataloader.batch_sampler
        if self.seed != seed and isinstance(batches, SeededBatchSampler):
            batches.restart(self.seed)  # the loader was built with this run's seed, not with the resumed one's
        if isinstance(batches, SeededBatchSampler) and not isinstance(self.train_loop, IterBasedTrainLoop):
            batches.begin_at(self.train_loop.iter)

    def _read_to_resume(self, filename: str) -> dict:
        """Read the state of a training run; if the file is damaged, name the command that resumes an earlier one."""
        path = Path(filename).expanduser()
        try:
            checkpoint = read_checkpoint(filename)
        except DamagedCheckpointError as error:
            folder = path if path.is_dir() else path.parent
            damaged = last_checkpoint(path) if path.is_dir() else path
            earlier = newest_undamaged(folder, skip=damaged)
            if earlier is None:
                raise
            raise DamagedCheckpointError(
                f"{error} {earlier} is not damaged; continue from it with: "
                f"python tools/train.py {self.cfg.filename or 'CONFIG'} --work-dir {self.work_dir} --resume {earlier}"
            ) from error
        check_training_state(self, checkpoint, str(filename))
        # MMEngine would execute this text to compare the numbers of GPUs.
        checkpoint["meta"].pop("config", None)
        return checkpoint

    def val(self) -> dict:
        """See MMEngine's ``Runner``; checkpoints are read safely (``weights_only=True``)."""
        with safe_checkpoint_loader():
            return super().val()

    def test(self) -> dict:
        """See MMEngine's ``Runner``; checkpoints are read safely (``weights_only=True``)."""
        with safe_checkpoint_loader():
            return super().test()

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Write a checkpoint atomically. All processes must call this method.

        Args:
            out_dir, filename: output path; an existing file is replaced.
            save_optimizer, save_param_scheduler: whether to save their states, for resuming.
            meta: further information, such as 'epoch' and 'iter' to resume from.
            by_epoch: whether 'epoch' (or else 'iter'), if not in ``meta``, counts the current one as completed.
            file_client_args, backend_args: must be None; MMEngine's settings of remote storage.

        Raises:
            ConfigError: for remote storage.
        """
        if file_client_args or backend_args:
            raise ConfigError(f"Checkpoints go to a local folder, not to one with {file_client_args or backend_args}")
        if self.rank != 0 and not fsdp.is_sharded(self.model):
            return
        model = self.model.module if is_model_wrapper(self.model) else self.model
        state = dict(state_dict=model.state_dict(), message_hub=self.message_hub.state_dict())
        if save_optimizer:
            state["optimizer"] = self.optim_wrapper.state_dict()
        state = fsdp.full_state_dict(state, keep=self.rank == 0)
        if self.rank != 0:
            return
        now = dict(epoch=self.epoch + int(by_epoch), iter=self.iter + int(not by_epoch))
        about = dict(
            cfg=self.cfg.pretty_text,
            seed=self.seed,
            experiment_name=self.experiment_name,
            time=time.strftime("%Y%m%d_%H%M%S"),
            mmengine_version=mmengine.__version__,
            dataset_meta=getattr(self.train_dataloader.dataset, "metainfo", None),
        )
        checkpoint = dict(state, meta=now | (meta or {}) | about)
        if save_param_scheduler and self.param_schedulers is not None:
            checkpoint["param_schedulers"] = [scheduler.state_dict() for scheduler in self.param_schedulers]
        self.call_hook("before_save_checkpoint", checkpoint=checkpoint)
        write_checkpoint(Path(out_dir) / filename, checkpoint)

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **options) -> MMLogger:
        """Build the logger as MMEngine does, with :class:`LogFileHandler`."""
        logger = super().build_logger(log_level, log_file, **options)
        LogFileHandler.replace_in(logger)
        return logger

    def build_visualizer(self, visualizer=None):
        """Build the visualizer with this project's :class:`LocalVisBackend`."""
        visualizer = visualizer or dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])
        if isinstance(visualizer, dict) and visualizer.get("vis_backends"):
            backends = [
                dict(backend, type=LocalVisBackend) if is_local(backend) else backend
                for backend in visualizer["vis_backends"]
            ]
            visualizer = dict(visualizer, vis_backends=backends)
        return super().build_visualizer(visualizer)

    @master_only
    def dump_config(self) -> None:
        """Write the config to the work dir, under its file name."""
        name = Path(self.cfg.filename).name if self.cfg.filename else f"{self.timestamp}.py"
        write_text(Path(self.work_dir) / name, self.cfg.pretty_text)

    @staticmethod
    def build_dataloader(dataloader, seed: int | None = None, diff_rank_seed: bool = False) -> _DataLoader:
        """Build a data loader; check that images exist, and make samples independent of the number of data workers.

        Raises:
            ConfigError: see :mod:`pe_dense.engine.preflight` and :func:`check_shared_memory`.
        """
        if isinstance(dataloader, _DataLoader):
            return dataloader
        if dataloader.get("num_workers") == 0:  # these settings of workers would be refused
            dataloader = {key: value for key, value in dataloader.items() if key not in _OF_WORKERS}
        try:
            loader = _Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        except ValueError as error:  # MMEngine's data sets fail on an empty list of images
            if is_empty(dataloader["dataset"]):
                raise empty_error(dataloader["dataset"]) from error
            raise
        check_images(loader.dataset)
        loader = DataLoader.seeded(loader, seed or 0, *get_dist_info())
        check_shared_memory(loader)
        return loader

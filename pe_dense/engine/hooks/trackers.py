"""Backends of the visualizer for Weights & Biases and MLflow: MMEngine's, with the steps of the run."""

from __future__ import annotations

import re

import numpy as np
from mmengine.config import Config
from mmengine.visualization import MLflowVisBackend as _MLflowVisBackend
from mmengine.visualization import WandbVisBackend as _WandbVisBackend
from mmengine.visualization.vis_backend import force_init_env

from pe_dense.registry import VISBACKENDS

_STEP = "iteration"
_MAX_PARAMETER = 500  # characters of a value that MLflow's servers accept


@VISBACKENDS.register_module()
class WandbVisBackend(_WandbVisBackend):
    """MMEngine's ``WandbVisBackend`` that records the iteration of each value.

    MMEngine's class ignores it, so that curves are over the number of calls. Weights & Biases drops values whose step
    is below that of an earlier one, as after resuming; the iteration is therefore a value of its own and the x-axis of
    all others.
    """

    def _init_env(self):
        super()._init_env()
        self._wandb.define_metric(_STEP)
        self._wandb.define_metric("*", step_metric=_STEP)

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs) -> None:
        """Record an RGB image (H, W, 3) uint8."""
        self._wandb.log({name: self._wandb.Image(image), _STEP: step}, commit=self._commit)

    @force_init_env
    def add_scalar(self, name: str, value, step: int = 0, **kwargs) -> None:
        """Record a number."""
        self._wandb.log({name: value, _STEP: step}, commit=self._commit)

    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs) -> None:
        """Record numbers by name."""
        self._wandb.log({**scalar_dict, _STEP: step}, commit=self._commit)

    def close(self) -> None:
        """Finish the run."""
        if hasattr(self, "_wandb"):
            self._wandb.finish()  # MMEngine calls `join`, which newer versions do not have


@VISBACKENDS.register_module()
class MLflowVisBackend(_MLflowVisBackend):
    """MMEngine's ``MLflowVisBackend`` that keeps the pictures of all steps and does not open log files.

    MMEngine's class replaces a picture by the next one of its name and expects log handlers with a stream. MLflow
    refuses all values of a call if one of their names contains ``@`` or ``&``, as ``AR@100``: they become ``_``.
    """

    def _init_env(self):
        import mlflow

        self._mlflow = mlflow
        if self._tracking_uri is not None:
            mlflow.set_tracking_uri(self._tracking_uri)
        if self._exp_name is not None:  # otherwise that of MLFLOW_EXPERIMENT_NAME
            mlflow.set_experiment(self._exp_name)
        if mlflow.active_run() is None:
            mlflow.start_run(run_name=self._run_name)
        if self._tags is not None:
            mlflow.set_tags(self._tags)
        if self._params is not None:
            mlflow.log_params(self._params)

    @force_init_env
    def add_config(self, config: Config, **kwargs) -> None:
        """Record the config as a file, and its top-level numbers and texts as parameters."""
        self.cfg = config
        keys = self._tracked_config_keys or [
            key for key, value in config.items() if isinstance(value, str | int | float)
        ]
        values = self._flatten({key: config[key] for key in keys})
        self._mlflow.log_params({key: str(value)[:_MAX_PARAMETER] for key, value in values.items()})
        self._mlflow.log_text(config.pretty_text, "config.py")

    @force_init_env
    def add_scalar(self, name: str, value, step: int = 0, **kwargs) -> None:
        """Record a number."""
        self._mlflow.log_metric(_mlflow_name(name), value, step)

    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs) -> None:
        """Record numbers by name."""
        self._mlflow.log_metrics({_mlflow_name(name): value for name, value in scalar_dict.items()}, step)

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs) -> None:
        """Record an RGB image (H, W, 3) uint8 as ``<name>_<step>.png``."""
        self._mlflow.log_image(image, f"{name}_{step}.png")


def _mlflow_name(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", name)

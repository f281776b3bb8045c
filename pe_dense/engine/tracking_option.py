"""Send metrics, learning rates and pictures of a run to a tracker: the option ``--track`` of the tools."""

from __future__ import annotations

from importlib.util import find_spec

from mmengine.config import Config

from pe_dense.utils.errors import ConfigError

# The package of each tracker, and the type of its backend.
TRACKERS = {
    "tensorboard": ("tensorboard", "TensorboardVisBackend"),
    "wandb": ("wandb", "pe_dense.WandbVisBackend"),
    "mlflow": ("mlflow", "pe_dense.MLflowVisBackend"),
}
NUM_PICTURES = 4


def use_tracker(config: Config, tracker: str) -> None:
    """Add a tracker's backend to the visualizer of a config, and pictures of predictions after each validation.

    Args:
        config: a whole config, changed in place. A backend of the same type in ``visualizer.vis_backends`` keeps its
            settings.
        tracker: one of :data:`TRACKERS`.

    Raises:
        ConfigError: if the tracker's package is not installed.
    """
    package, kind = TRACKERS[tracker]
    if find_spec(package) is None:
        raise ConfigError(f"--track {tracker}: the package {package} is not installed: pip install {package}")
    visualizer = config.get("visualizer") or dict(type="Visualizer")
    backends = list(visualizer.get("vis_backends") or [dict(type="LocalVisBackend")])
    if all(backend.get("type") != kind for backend in backends):
        backends.append(dict(type=kind))
    config.visualizer = dict(visualizer, vis_backends=backends)
    if config.get("val_dataloader"):
        pictures = dict(type="pe_dense.ValidationPictureHook", num_images=NUM_PICTURES)
        config.custom_hooks = [*(config.get("custom_hooks") or []), pictures]

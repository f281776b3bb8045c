"""Hook that draws feature maps during training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor, nn

from pe_dense.registry import HOOKS
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.image import find_images, read_image
from pe_dense.visualization.colors import feature_rgb
from pe_dense.visualization.drawing import draw_sheet, enlarge, fit_image
from pe_dense.visualization.features import crop_square, to_input

READABLE_SIDE = 240  # px; smaller squares are enlarged


@HOOKS.register_module()
class FeaturePictureHook(Hook):
    """Draw PCA colors of features of fixed images before training, every ``interval`` steps, and after training.

    A figure has one row per image and one column per feature map. A model provides feature maps by a method
    ``feature_maps(images) -> dict[str, Tensor]``: images are (N, 3, S, S), RGB, ``(x / 255 - 0.5) / 0.5``, on the
    device of the model. Each value is (N, C, H, W); maps may differ in C, H and W, and their names are used as titles.
    For a model without this method, the last map of its ``backbone`` is drawn. Principal components are fitted to each
    feature map separately, over all images together.

    Figures are passed to the runner's visualizer as ``name``, which writes them to the log folder
    (``vis_data/vis_image``) and to its other backends.

    Args:
        images: image files or folders; their center square is drawn.
        interval: number of training steps between figures.
        size: side S of the squares in pixels, a multiple of the patch size.
        name: name of the figures in the visualizer.

    Raises:
        ConfigError: before training, if images are missing or unreadable, or the model has no features to draw.
    """

    priority = "LOW"

    def __init__(self, images: str | Sequence[str], interval: int, size: int = 448, name: str = "features"):
        if interval < 1 or size < 1:
            raise ConfigError(f"interval and size must be at least 1, got interval={interval}, size={size}")
        try:
            files = find_images([images] if isinstance(images, str | Path) else images)
            self.crops = [crop_square(read_image(file), size) for file in files]
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError(f"FeaturePictureHook: {error}") from error
        if not self.crops:
            raise ConfigError("FeaturePictureHook: images contains no image")
        self.interval = interval
        self.name = name

    def before_train(self, runner: Runner) -> None:
        """Draw the initial features, so that errors are raised before the first step."""
        self._draw(runner, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Draw every ``interval`` steps and after the last step."""
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self._draw(runner, runner.iter + 1)

    def _draw(self, runner: Runner, step: int) -> None:
        # All processes run the model, because a sharded model (FSDP) requires all of them.
        maps = named_maps(runner.model, torch.cat([to_input(crop) for crop in self.crops]))
        if is_main_process():
            runner.visualizer.add_image(self.name, np.asarray(self._picture(maps, step)), step)

    def _picture(self, maps: dict[str, Tensor], step: int) -> Image.Image:
        shown = [fit_image(crop, max(crop.width, READABLE_SIDE)) for crop in self.crops]
        sources = {f"step {step:,}": shown}
        for name, features in maps.items():
            sources[name] = [enlarge(rgb, shown[0].size) for rgb in feature_rgb(features)]
        rows = [
            [("" if number else name, pictures[number]) for name, pictures in sources.items()]
            for number in range(len(self.crops))
        ]
        return draw_sheet(rows)


@torch.no_grad()
def named_maps(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Compute the feature maps of a model in evaluation mode.

    Args:
        model: a model with a method ``feature_maps``, or with a ``backbone`` that returns a tuple of maps; optionally
            wrapped for distributed training.
        images: (N, 3, H, W).

    Returns:
        maps (N, C, H, W) by name.

    Raises:
        ConfigError: if the model has neither, or its maps have another shape.
    """
    model = model.module if is_model_wrapper(model) else model
    training = model.training
    model.eval()
    images = images.to(next(model.parameters()).device)
    if hasattr(model, "feature_maps"):
        maps = dict(model.feature_maps(images))
    elif hasattr(model, "backbone"):
        maps = {"backbone": model.backbone(images)[-1]}
    else:
        raise ConfigError(
            f"{type(model).__name__} has no features to draw: it has neither feature_maps(images) nor a backbone"
        )
    model.train(training)
    for name, features in maps.items():
        if not isinstance(features, Tensor) or features.dim() != 4 or len(features) != len(images):
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ConfigError(f"feature map {name!r} is {shape}, expected a tensor ({len(images)}, C, H, W)")
    return maps

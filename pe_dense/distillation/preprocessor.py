"""Data preprocessor of distillation, and resizing and normalization for student and teachers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from pe_dense.backbones.base import Backbone
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError

# Mean and standard deviation of SAM's input normalization, for RGB values in [0, 1].
SAM_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@MODELS.register_module()
class ImagePreprocessor(BaseDataPreprocessor):
    """Data preprocessor that moves images to the device of the model and scales RGB values to [0, 1].

    Student and teachers use the same images, each with its own size and normalization, see :func:`resize`.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Preprocess a batch.

        Args:
            data: dict with ``image``: B tensors (3, H, W), RGB, uint8. Other entries are ignored.
            training: not used.

        Returns:
            ``dict(images=...)``: (B, 3, H, W).

        Raises:
            ValueError: if the images differ in size.
        """
        images = data["image"]
        if len(shapes := {tuple(image.shape) for image in images}) > 1:
            raise InputError(f"images of a batch differ in size: {sorted(shapes)}; crop or resize them in the pipeline")
        return dict(images=self.cast_data(torch.stack(list(images))).float() / 255)


def resize(images: Tensor, side: int, colors: Sequence[Sequence[float]]) -> Tensor:
    """Resize and normalize images for a model.

    Args:
        images: (B, 3, H, W), RGB in [0, 1].
        side: output side S in pixels; downsampling uses antialiasing.
        colors: mean and standard deviation of R, G and B, in [0, 1].

    Returns:
        (B, 3, S, S).
    """
    if images.shape[-2:] != (side, side):
        images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in colors)
    return (images - mean) / std


def colors_of(backbone: Backbone) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and standard deviation of a backbone for RGB values in [0, 1], as used by :func:`resize`."""
    return tuple(tuple(value / 255 for value in values) for values in (backbone.mean, backbone.std))

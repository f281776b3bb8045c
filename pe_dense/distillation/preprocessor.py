"""Images on their way to the towers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from pe_dense.backbones.base import Backbone
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError

# By which (x - mean) / std a source sees colors between 0 and 1.
SAM_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@MODELS.register_module()
class ImagePreprocessor(BaseDataPreprocessor):
    """Bring a batch of images to the model's device, colors between 0 and 1.

    Student and teachers see the same image, each in its own size and by its own colors: see :func:`resize`.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Args:
            data: with ``image``: B tensors (3, H, W), RGB, uint8. Other entries are left out.
            training: makes no difference.

        Returns:
            ``dict(images=...)``: (B, 3, H, W).

        Raises:
            ValueError: if the images differ in size.
        """
        images = data["image"]
        if len(shapes := {tuple(image.shape) for image in images}) > 1:
            raise InputError(
                f"Images of a batch differ in size: {sorted(shapes)}; let the pipeline crop or resize them"
            )
        return dict(images=self.cast_data(torch.stack(list(images))).float() / 255)


def resize(images: Tensor, side: int, colors: Sequence[Sequence[float]]) -> Tensor:
    """Bring images to a source's size and colors.

    Args:
        images: (B, 3, H, W), RGB between 0 and 1.
        side: S in pixels; images are smoothed on shrinking.
        colors: mean and standard deviation of R, G and B.

    Returns:
        (B, 3, S, S).
    """
    if images.shape[-2:] != (side, side):
        images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in colors)
    return (images - mean) / std


def colors_of(backbone: Backbone) -> tuple[Sequence[float], Sequence[float]]:
    """A backbone's mean and standard deviation of colors between 0 and 1, as :func:`resize` takes them."""
    return tuple(tuple(value / 255 for value in values) for values in (backbone.mean, backbone.std))

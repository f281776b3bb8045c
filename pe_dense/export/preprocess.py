"""Preprocessing of an exported model: described in the file, or part of its graph."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from pe_dense.utils.errors import InputError

RESIZES = ("letterbox", "squash", "multiple")


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of a model.

    Args:
        size: height and width of the input in pixels.
        mean, std: normalization of RGB values between 0 and 255.
        resize: 'letterbox' keeps the aspect ratio and fills the right and bottom with zeros after normalization, as
            the detectors' pipelines do; 'squash' resizes to ``size``, as CLIP's transform does; 'multiple' rounds the
            image's own size down to a multiple of ``stride`` in graphs with dynamic sizes.
        antialias: average over source pixels when an image is made smaller, as Pillow does; OpenCV, which the
            detectors' pipelines use, does not.
        stride: divisor of the sides of an input.

    Raises:
        InputError: if the size is not a multiple of the stride, or ``resize`` is unknown.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: str = "letterbox"
    antialias: bool = False
    stride: int = 1

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise InputError(f"resize {self.resize!r} is not one of {', '.join(RESIZES)}")
        if any(side < 1 or side % self.stride for side in self.size):
            raise InputError(
                f"size {self.size[0]} x {self.size[1]} px is not a multiple of {self.stride}, the patch size of the "
                "backbone"
            )

    def as_dict(self) -> dict:
        """Return the fields as JSON types."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


class PreprocessedGraph(nn.Module):
    """A graph whose input is one image of any size, uint8, with resizing, padding and normalization inside.

    Resizing is a product with two matrices of linear weights, so that the output has a fixed size and padding needs no
    operator of its own. It equals OpenCV's and Pillow's up to their rounding to integers between the passes.

    Args:
        graph: a :class:`~pe_dense.export.graphs.Graph` with batch size 1 and a fixed size.
    """

    def __init__(self, graph: nn.Module):
        super().__init__()
        self.inner = graph
        settings: Preprocessing = graph.preprocessing
        self.settings = settings
        self.register_buffer("mean", torch.tensor(settings.mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings.std, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor):
        """Run the model on an image (H, W, 3), uint8, RGB."""
        height, width = (torch.scalar_tensor(side, dtype=torch.float32) for side in image.shape[:2])
        canvas = torch.tensor(self.settings.size, dtype=torch.float32)
        if self.settings.resize == "letterbox":
            scale = torch.minimum(canvas[0] / height, canvas[1] / width)
            scaled = [
                torch.floor(side * scale + 0.5).clamp(1, limit)  # a thin image keeps a row of pixels
                for side, limit in zip((height, width), self.settings.size, strict=True)
            ]
        else:
            scaled = [canvas[0], canvas[1]]
        pixels = image.permute(2, 0, 1).float()
        for axis, (old, new) in enumerate(zip((height, width), scaled, strict=True)):
            weights = _resize_weights(
                image.shape[axis], self.settings.size[axis], old, new, antialias=self.settings.antialias
            )
            pixels = weights @ pixels if axis == 0 else pixels @ weights.T
        inside = [torch.arange(side) < length for side, length in zip(self.settings.size, scaled, strict=True)]
        normalized = (pixels.round() - self.mean) / self.std
        normalized = torch.where(inside[0][:, None] & inside[1], normalized, 0.0)
        sizes = torch.stack(scaled)[None].to(torch.int64)
        outputs = self.inner(*((normalized[None], sizes) if self.inner.uses_sizes else (normalized[None],)))
        if "boxes" not in self.inner.output_names:
            return outputs
        ratio = torch.stack([width / scaled[1], height / scaled[0]]).repeat(2)
        return tuple(
            value * ratio if name == "boxes" else value
            for name, value in zip(self.inner.output_names, outputs, strict=True)
        )


def _resize_weights(length: int, size: int, old: Tensor, new: Tensor, *, antialias: bool) -> Tensor:
    """Compute linear interpolation weights (size, length) of output pixels; those from ``new`` on are padding.

    Args:
        length: number of source pixels, possibly symbolic.
        size: number of output pixels.
        old, new: number of source pixels, and of output pixels that show them, as scalars.
        antialias: widen the kernel by the factor of reduction.
    """
    step = old / new
    centers = (torch.arange(size, dtype=torch.float32) + 0.5) * step - 0.5  # in source pixels
    if not antialias:
        centers = torch.minimum(centers.clamp(min=0), old - 1)
    width = step.clamp(min=1.0) if antialias else torch.ones(())
    places = torch.arange(length, dtype=torch.float32)
    weights = (1 - (centers[:, None] - places).abs() / width).clamp(min=0)
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-6)

"""Sliding window inference: window positions, cutting of images and merging of outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mmengine.config import ConfigDict
from torch import Tensor

from pe_dense.utils.errors import InputError


@dataclass(frozen=True)
class SlidingWindows:
    """Overlapping sliding windows that cover an image, at the same positions as in mmseg.

    The last window of a row or column is shifted back into the image; an image smaller than a window is one window.

    Args:
        height, width: size of the image in pixels.
        crop: (height, width) of a window; None for one window that covers the image.
        stride: (vertical, horizontal) step between windows in pixels.
    """

    height: int
    width: int
    crop: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)

    @property
    def boxes(self) -> list[tuple[slice, slice]]:
        """Row and column slices of each window."""
        if self.crop is None:
            return [(slice(0, self.height), slice(0, self.width))]
        rows, columns = (
            _spans(length, crop, stride)
            for length, crop, stride in zip((self.height, self.width), self.crop, self.stride, strict=True)
        )
        return [(row, column) for row in rows for column in columns]

    def cut(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the windows (B, C, h, w) of images (B, C, H, W)."""
        for rows, columns in self.boxes:
            yield images[..., rows, columns]

    def merge(self, maps: Iterable[Tensor]) -> Tensor:
        """Merge maps of the windows, averaging overlaps.

        Args:
            maps: (B, K, h, w) of each window, at the size of the window; each is released before the next is requested.

        Returns:
            (B, K, H, W).
        """
        total = count = None
        for (rows, columns), values in zip(self.boxes, maps, strict=True):
            if total is None:
                total = values.new_zeros(*values.shape[:2], self.height, self.width)
                count = values.new_zeros(self.height, self.width)
            total[..., rows, columns] += values
            count[rows, columns] += 1
        return total.div_(count)


def windows_of(images: Tensor, test_cfg: dict) -> SlidingWindows:
    """Create the sliding windows of images (B, C, H, W) from mmseg's ``test_cfg`` (``mode``, ``crop_size``, "
    "``stride``)."""
    height, width = images.shape[-2:]
    if test_cfg["mode"] == "whole":
        return SlidingWindows(height, width)
    return SlidingWindows(height, width, tuple(test_cfg["crop_size"]), tuple(test_cfg["stride"]))


def complete_windows(test_cfg: dict | None, modes: Sequence[str]) -> dict:
    """Fill in defaults of a ``test_cfg``: mode 'whole', and a stride of two thirds of the window (as DINOv2).

    Raises:
        ValueError: for another mode, or a stride that leaves gaps between windows.
    """
    test_cfg = ConfigDict(dict(mode="whole") | dict(test_cfg or {}))
    if test_cfg.mode not in modes:
        raise InputError(f"test_cfg.mode {test_cfg.mode!r} is not one of {', '.join(modes)}")
    if test_cfg.mode == "whole":
        return test_cfg
    test_cfg.setdefault("stride", tuple(side * 2 // 3 for side in test_cfg.crop_size))
    if any(step > side for step, side in zip(test_cfg.stride, test_cfg.crop_size, strict=True)):
        raise InputError(
            f"test_cfg.stride {tuple(test_cfg.stride)} is larger than the window {tuple(test_cfg.crop_size)}, which "
            "would leave gaps: use a stride of at most the window size"
        )
    return test_cfg


def _spans(length: int, crop: int, stride: int) -> list[slice]:
    count = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(i * stride + crop, length) for i in range(count)]
    return [slice(max(end - crop, 0), end) for end in ends]

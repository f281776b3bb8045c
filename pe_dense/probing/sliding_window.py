"""Sliding windows over images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mmengine.config import ConfigDict
from torch import Tensor

from pe_dense.utils.errors import InputError


@dataclass(frozen=True)
class SlidingWindows:
    """Overlapping windows that cover an image, as mmseg's sliding inference lays them.

    The last window of a row or column is moved back into the image; an image that is smaller than a window is one.

    Args:
        height, width: of the image, in pixels.
        crop: (height, width) of a window; None for one window that is the image.
        stride: (down, right) from a window to the next.
    """

    height: int
    width: int
    crop: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)

    @property
    def boxes(self) -> list[tuple[slice, slice]]:
        """Rows and columns of each window."""
        if self.crop is None:
            return [(slice(0, self.height), slice(0, self.width))]
        rows, columns = (
            _spans(length, crop, stride)
            for length, crop, stride in zip((self.height, self.width), self.crop, self.stride, strict=True)
        )
        return [(row, column) for row in rows for column in columns]

    def cut(self, images: Tensor) -> Iterator[Tensor]:
        """(B, C, H, W) -> each window, (B, C, h, w)."""
        for rows, columns in self.boxes:
            yield images[..., rows, columns]

    def merge(self, maps: Iterable[Tensor]) -> Tensor:
        """Put maps of the windows together, averaged where windows overlap.

        Args:
            maps: (B, K, h, w) of each window, at the window's own size; each is dropped before the next is asked for.

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
    """Windows of a batch (B, C, H, W) by mmseg's ``test_cfg`` (``mode``, ``crop_size`` and ``stride``)."""
    height, width = images.shape[-2:]
    if test_cfg["mode"] == "whole":
        return SlidingWindows(height, width)
    return SlidingWindows(height, width, tuple(test_cfg["crop_size"]), tuple(test_cfg["stride"]))


def complete_windows(test_cfg: dict | None, modes: Sequence[str]) -> dict:
    """A ``test_cfg`` with what it leaves out: the whole image, or two thirds of a window for the stride (DINOv2's).

    Raises:
        ValueError: for another mode, or windows with gaps between them; with what is given and allowed.
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
            "would leave gaps: make it at most as large"
        )
    return test_cfg


def _spans(length: int, crop: int, stride: int) -> list[slice]:
    count = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(i * stride + crop, length) for i in range(count)]
    return [slice(max(end - crop, 0), end) for end in ends]

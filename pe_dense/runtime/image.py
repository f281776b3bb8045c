"""Preprocess images and paste results with numpy and Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pe_dense.utils.errors import InputError
from pe_dense.utils.image import as_rgb, read_image

Picture = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True)
class Placed:
    """Where an image lies in the input of a model.

    Attributes:
        height, width: size of the image in pixels.
        rows, columns: size in pixels at which the image lies in the top left corner of the input.
    """

    height: int
    width: int
    rows: int
    columns: int


def read_picture(image: Picture) -> np.ndarray:
    """Return the pixels of an image, (H, W, 3) uint8, RGB, as the package reads images: 16 bits are scaled to 8 and
    transparent pixels composed on white.

    Args:
        image: a path, whose EXIF orientation is applied; a Pillow image, whose pixels are taken as they are; or an
            array (H, W, 3) uint8 in RGB.

    Raises:
        InputError: for an array of another shape or dtype, something else, or a file that is not an image.
        FileNotFoundError: if there is no such file.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(f"an image is (H, W, 3) uint8 in RGB, got {image.dtype} of shape {image.shape}")
        return image
    if isinstance(image, Image.Image):
        if not image.width * image.height:
            raise InputError(f"the image has {image.width} x {image.height} px")
        return np.asarray(as_rgb(image))
    if not isinstance(image, str | Path):
        raise InputError(f"an image is a path, a Pillow image or an array, got {type(image).__name__}")
    return np.asarray(read_image(image))


def place(height: int, width: int, size: tuple[int, int], resize: str, stride: int) -> tuple[Placed, tuple[int, int]]:
    """Compute where an image goes and the size of the input.

    Args:
        height, width: size of the image in pixels.
        size, resize, stride: see :class:`pe_dense.export.Preprocessing`.

    Returns:
        the place, and height and width of the input.
    """
    if resize == "multiple":
        size = tuple(max(side // stride, 1) * stride for side in (height, width))
    if resize != "letterbox":
        return Placed(height, width, *size), size
    scale = min(size[0] / height, size[1] / width)
    rows, columns = (
        min(max(int(side * scale + 0.5), 1), limit) for side, limit in zip((height, width), size, strict=True)
    )
    return Placed(height, width, rows, columns), size


def resized(pixels: np.ndarray, rows: int, columns: int, *, antialias: bool) -> np.ndarray:
    """Resize an image (H, W, 3) uint8 bilinearly, as Pillow with ``antialias`` and as OpenCV without."""
    if pixels.shape[:2] == (rows, columns):
        return pixels
    if antialias:
        return np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR))
    return np.rint(interpolate(pixels.astype(np.float32), rows, columns)).astype(np.uint8)


def interpolate(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Resize the first two axes of a floating-point array bilinearly, with pixel centers at half pixels."""
    for axis, length in enumerate((rows, columns)):
        old = values.shape[axis]
        places = np.clip((np.arange(length) + 0.5) * (old / length) - 0.5, 0, old - 1)
        low = places.astype(int)
        share = (places - low).astype(values.dtype).reshape((-1,) + (1,) * (values.ndim - 1 - axis))
        high = np.minimum(low + 1, old - 1)
        values = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    return values


def normalized(
    pixels: np.ndarray, where: Placed, size: tuple[int, int], mean: list, std: list, *, antialias: bool
) -> np.ndarray:
    """Resize, normalize and pad an image: (3, H, W) float32."""
    small = resized(pixels, where.rows, where.columns, antialias=antialias).astype(np.float32)
    canvas = np.zeros((3, *size), np.float32)
    canvas[:, : where.rows, : where.columns] = (
        (small - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    ).transpose(2, 0, 1)
    return canvas


def paste_masks(masks: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: float = 0.5) -> np.ndarray:
    """Paste mask probabilities inside of their boxes into images of bool.

    As in mmdet, a mask is sampled bilinearly at the centers of pixels, with zeros around it.

    Args:
        masks: (N, m, m) probabilities.
        boxes: (N, 4), x1, y1, x2, y2 in pixels of the image.
        height, width: size of the image.
        threshold: probability from which a pixel belongs to an object.

    Returns:
        (N, height, width) bool.
    """
    pasted = np.zeros((len(masks), height, width), bool)
    for number, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        left, top = (max(int(np.floor(value) - 1), 0) for value in box[:2])
        right, bottom = (
            min(int(np.ceil(value) + 1), side) for value, side in zip(box[2:], (width, height), strict=True)
        )
        if right <= left or bottom <= top or box[2] <= box[0] or box[3] <= box[1]:
            continue
        padded = np.pad(mask, 1)
        for axis, (first, last, low, high) in enumerate(((top, bottom, box[1], box[3]), (left, right, box[0], box[2]))):
            places = (np.arange(first, last) + 0.5 - low) / (high - low) * mask.shape[axis] + 0.5
            places = np.clip(places, 0, padded.shape[axis] - 1)
            lower = np.minimum(places.astype(int), padded.shape[axis] - 2)
            share = (places - lower).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
            padded = np.take(padded, lower, axis) * (1 - share) + np.take(padded, lower + 1, axis) * share
        pasted[number, top:bottom, left:right] = padded >= threshold
    return pasted

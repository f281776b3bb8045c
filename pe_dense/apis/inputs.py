"""Images to predict: files, folders, videos, Pillow images, arrays and tensors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from PIL import Image

from pe_dense.runtime.source import Source
from pe_dense.utils import video
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import as_rgb, find_images
from pe_dense.utils.paths import check_path

Picture = str | os.PathLike | Image.Image | np.ndarray | torch.Tensor
_KINDS = "a path, a Pillow image, an array (H, W, 3) uint8 in RGB or a tensor (3, H, W)"


def read_inputs(images: Picture | Iterable[Picture]) -> Iterator[Source]:
    """Yield the images of all inputs, in order; those of a folder are sorted by path, and a video yields its frames.

    Args:
        images: one or several paths of images, folders and videos, Pillow images, arrays (H, W, 3) uint8 in RGB, and
            tensors (3, H, W) or (N, 3, H, W), uint8 from 0 to 255 or floating point from 0 to 1, in RGB.

    Yields:
        sources with ``path``, or ``pixels`` for images that are not files. Frames are decoded one by one.

    Raises:
        FileNotFoundError: if a path does not exist, or a folder contains no image.
        InputError: for a URL, or anything else that is not an image.
    """
    for one in [images] if isinstance(images, Picture) else images:
        yield from _read(one)


def _read(image: Picture) -> Iterator[Source]:
    if isinstance(image, str | os.PathLike):
        path = check_path(image)
        if path.is_dir() or not video.is_video(path):
            yield from (Source(file) for file in find_images([path]))
        else:
            yield from (Source(path, number, frame) for number, frame in enumerate(video.read_video(path)))
    elif isinstance(image, Image.Image):
        yield Source(pixels=np.asarray(as_rgb(image)))
    elif isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(f"an array is (H, W, 3) uint8 in RGB, got {image.dtype} of shape {image.shape}")
        yield Source(pixels=image)
    elif isinstance(image, torch.Tensor):
        yield from (Source(pixels=pixels) for pixels in _tensor_pixels(image))
    else:
        raise InputError(f"an image is {_KINDS}, got {type(image).__name__}")


def _tensor_pixels(images: torch.Tensor) -> Iterator[np.ndarray]:
    if images.ndim not in (3, 4) or images.shape[-3] != 3 or not images.numel():
        raise InputError(f"a tensor is (3, H, W) or (N, 3, H, W) in RGB, got {tuple(images.shape)}")
    if images.is_floating_point():
        low, high = float(images.min()), float(images.max())
        if not 0 <= low <= high <= 1:
            raise InputError(f"a floating-point tensor has values from 0 to 1, got {low:g} to {high:g}")
        images = (images * 255).round().to(torch.uint8)
    elif images.dtype != torch.uint8:
        raise InputError(f"a tensor is uint8 or floating point, got {images.dtype}")
    for image in images.reshape(-1, *images.shape[-3:]):
        yield np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())

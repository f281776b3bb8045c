"""Tracked objects drawn over their frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pe_dense.video.jf import contour
from pe_dense.video.mask_file import palette

READABLE_SIDE = 480  # px; smaller frames are enlarged before drawing
_OPACITY = 0.45
_GAP = 8  # px between the frames of a strip


def overlay(frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Draw objects over a frame, in the colours of their numbers.

    Args:
        frame: RGB (H, W, 3) uint8.
        labels: (H, W) uint8, 0 is not drawn.

    Returns:
        RGB (h, w, 3) uint8; frames whose shorter side is below 480 px are enlarged by a whole number.
    """
    scale = -(-READABLE_SIDE // min(labels.shape))
    if scale > 1:
        frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        labels = labels.repeat(scale, 0).repeat(scale, 1)
    covered = cv2.addWeighted(frame, 1 - _OPACITY, palette()[labels], _OPACITY, 0)
    drawn = np.where(labels[..., None] > 0, covered, frame)
    for number in np.unique(labels[labels > 0]):
        edge = cv2.dilate(contour(labels == number).astype(np.uint8), np.ones((3, 3)))
        drawn[edge > 0] = 255
    return drawn


def strip(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Put pictures (H, W, 3) of one size into rows, white between them."""
    padded = [np.pad(picture, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255) for picture in pictures]
    padded += [np.full_like(padded[0], 255)] * (-len(padded) % columns)
    rows = [np.concatenate(padded[start : start + columns], axis=1) for start in range(0, len(padded), columns)]
    return np.concatenate(rows)[:-_GAP, :-_GAP]


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write RGB (H, W, 3) uint8 as JPEG.

    Raises:
        FileExistsError: if the file is there.
    """
    written, code = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not written:
        raise ValueError(f"cannot encode {picture.shape} {picture.dtype} as {path}")
    with open(path, "xb") as file:
        file.write(code.tobytes())

"""Masks as files: PNG images whose values are object numbers, with DAVIS's colours as their palette."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

VOID = 255  # pixels of no known object; DAVIS's evaluation of tracking from a first mask takes them for background


def palette() -> np.ndarray:
    """Colours (256, 3) uint8 by object number, as in PASCAL VOC and DAVIS: 0 is black."""
    numbers = np.arange(256, dtype=np.uint8)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):  # bits 0, 1, 2, 3, ... of a number go to red, green, blue, red, ..., highest first
            source = 3 * bit + channel
            if source < 8:
                colours[:, channel] |= (numbers >> source & 1) << (7 - bit)
    return colours


def read_mask(path: str | Path) -> np.ndarray:
    """Object numbers (H, W) uint8; void pixels are background.

    Raises:
        ValueError: if the image has colours of its own instead of numbers, or can't be read.
    """
    try:
        with Image.open(path) as image:
            mode, numbers = image.mode, np.array(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"mask {path} can't be read: {error}") from error
    if mode not in ("P", "L"):
        raise ValueError(
            f"mask {path} is an image of mode {mode}; it must have a palette (P) or be grey (L), its values the objects"
        )
    numbers[numbers == VOID] = 0
    return numbers


def write_mask(path: Path, numbers: np.ndarray) -> None:
    """Write object numbers (H, W) uint8 with DAVIS's palette.

    Raises:
        FileExistsError: if the file is there.
    """
    image = Image.fromarray(numbers)
    image.putpalette(palette().tobytes())
    with open(path, "xb") as file:
        image.save(file, format="PNG")

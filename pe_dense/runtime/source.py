"""The image that a result belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Source:
    """The image that a result belongs to.

    Attributes:
        path: file of the image or video; None for an image in memory.
        frame: number of the frame of a video, from 0; None for an image.
        pixels: (H, W, 3) uint8, RGB; None if they were not kept, as for files.
    """

    path: Path | None = None
    frame: int | None = None
    pixels: np.ndarray | None = field(default=None, repr=False)

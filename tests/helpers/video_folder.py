"""Tiny videos in DAVIS's layout."""

import numpy as np
from PIL import Image

from pe_dense.datasets.davis import write_mask


def write_videos(root, *, names=("cat", "dog"), frames=4, size=(32, 48)):
    """Write videos of noise with two objects: squares that move right by 4 px a frame. Sizes are (H, W)."""
    rng = np.random.default_rng(0)
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("\n".join(names) + "\n")
    for name in names:
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "480p" / name).mkdir(parents=True)
        for frame in range(frames):
            image = rng.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(image).save(root / "JPEGImages/480p" / name / f"{frame:05d}.jpg")
            write_mask(mask_path(root, name, frame), squares(frame, size))
    return root


def mask_path(root, name, frame):
    return root / "Annotations/480p" / name / f"{frame:05d}.png"


def squares(frame, size=(32, 48)):
    labels = np.zeros(size, np.uint8)
    labels[4:12, 4 + 4 * frame : 12 + 4 * frame] = 1
    labels[20:28, 8 + 4 * frame : 24 + 4 * frame] = 2
    return labels

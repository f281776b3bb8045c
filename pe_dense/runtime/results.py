"""Typed results of exported models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Detections:
    """Objects of an image, best first.

    Attributes:
        boxes: (N, 4) float32, x1, y1, x2, y2 in pixels of the image.
        scores: (N,) float32, from 0 to 1.
        labels: (N,) int64.
        names: (N,) class names; empty if the file has no class names.
        masks: (N, H, W) bool at the size of the image; None without a mask head.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class LabelMap:
    """Semantic segmentation of an image.

    Attributes:
        labels: (H, W) int64, the class of each pixel of the image.
        classes: class names by label; empty if the file has none.
    """

    labels: np.ndarray
    classes: tuple[str, ...]


@dataclass(frozen=True)
class DepthMap:
    """Depth of an image.

    Attributes:
        depth: (H, W) float32, meters for each pixel of the image.
    """

    depth: np.ndarray


@dataclass(frozen=True)
class FeatureMaps:
    """Feature maps of an image.

    Attributes:
        maps: (C, h, w) float32 for each exported block, by block number.
    """

    maps: dict[int, np.ndarray]


@dataclass(frozen=True)
class Embeddings:
    """Embedding of an image or a text.

    Attributes:
        vector: (D,) float32, of unit length.
    """

    vector: np.ndarray


Result = Detections | LabelMap | DepthMap | FeatureMaps | Embeddings

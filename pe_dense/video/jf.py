"""DAVIS's measures of a tracked object (Perazzi et al., CVPR 2016; arXiv 1704.00675): region J and contour F."""

from __future__ import annotations

import math

import cv2
import numpy as np

CONTOUR_TOLERANCE = 0.008  # of the image's diagonal


def region_similarity(predicted: np.ndarray, truth: np.ndarray) -> float:
    """J, the intersection over union of two masks.

    Args:
        predicted, truth: (H, W) bool.

    Returns:
        0 to 1; 1 where both are empty.
    """
    union = np.count_nonzero(predicted | truth)
    return np.count_nonzero(predicted & truth) / union if union else 1.0


def contour_accuracy(predicted: np.ndarray, truth: np.ndarray) -> float:
    """F, the harmonic mean of precision and recall of a mask's contour.

    A contour's pixel is matched if one of the other's is within :data:`CONTOUR_TOLERANCE` of the image's diagonal,
    rounded up to whole pixels.

    Args:
        predicted, truth: (H, W) bool.

    Returns:
        0 to 1; 1 where neither mask has a contour, 0 where one has none.
    """
    reach = math.ceil(CONTOUR_TOLERANCE * math.hypot(*truth.shape))
    ours, theirs = (contour(mask) for mask in _cropped(predicted, truth))
    found, wanted = np.count_nonzero(ours), np.count_nonzero(theirs)
    if not found or not wanted:
        return float(found == wanted)
    precision = np.count_nonzero(ours & _within(theirs, reach)) / found
    recall = np.count_nonzero(theirs & _within(ours, reach)) / wanted
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def contour(mask: np.ndarray) -> np.ndarray:
    """Pixels (H, W) bool that differ from their right, lower, or lower right neighbour.

    Pixels of the last row and column have but one of these, and the corner has none.
    """
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def _cropped(*masks: np.ndarray) -> list[np.ndarray]:
    """Masks without the part of the image in which none has a contour."""
    x, y, width, height = cv2.boundingRect(np.logical_or(*masks).astype(np.uint8))
    window = slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)
    return [mask[window] for mask in masks]


def _within(edge: np.ndarray, reach: int) -> np.ndarray:
    """Pixels whose distance to an edge is at most ``reach``."""
    offsets = np.arange(-reach, reach + 1)
    disk = offsets**2 + offsets[:, None] ** 2 <= reach**2
    return cv2.dilate(edge.astype(np.uint8), disk.astype(np.uint8)).astype(bool)


def summarize(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, recall and decay of a measure over a video's frames.

    Args:
        values: (T), of the frames that count, in order.

    Returns:
        the mean, the share of frames above 0.5, and how much higher the mean of the first quarter is than the last's;
        neighbouring quarters share a frame.
    """
    # 0.25, 0.5, ... of the way, rounded half up.
    ends = np.floor(np.linspace(1, len(values), 5) + 0.5 + 1e-10).astype(int) - 1
    first, last = values[: ends[1] + 1], values[ends[3] :]
    return float(values.mean()), float((values > 0.5).mean()), float(first.mean() - last.mean())

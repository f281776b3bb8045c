"""DAVIS evaluation of semi-supervised video object segmentation: region similarity J and contour accuracy F."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from pe_dense.datasets.davis import read_mask
from pe_dense.registry import METRICS

CONTOUR_TOLERANCE = 0.008  # fraction of the image diagonal


def region_similarity(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Compute the region similarity J, the intersection over union of two masks.

    Args:
        predicted, truth: (H, W) bool.

    Returns:
        value from 0 to 1; 1 if both masks are empty.
    """
    union = np.count_nonzero(predicted | truth)
    return np.count_nonzero(predicted & truth) / union if union else 1.0


def contour_accuracy(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Compute the contour accuracy F, the harmonic mean of precision and recall of the contour of a mask.

    A contour pixel is matched if a pixel of the other contour is within :data:`CONTOUR_TOLERANCE` times the image
    diagonal, rounded up to whole pixels.

    Args:
        predicted, truth: (H, W) bool.

    Returns:
        value from 0 to 1; 1 if neither mask has a contour, 0 if only one has none.
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
    """Compute contour pixels (H, W) bool, which differ from their right, lower, or lower right neighbor.

    Pixels of the last row and column have only one of these neighbors, and the corner pixel has none.
    """
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def _cropped(*masks: np.ndarray) -> list[np.ndarray]:
    """Crop masks to the part of the image that contains their contours."""
    x, y, width, height = cv2.boundingRect(np.logical_or(*masks).astype(np.uint8))
    window = slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)
    return [mask[window] for mask in masks]


def _within(edge: np.ndarray, reach: int) -> np.ndarray:
    """Return pixels whose distance to a contour is at most ``reach`` pixels."""
    offsets = np.arange(-reach, reach + 1)
    disk = offsets**2 + offsets[:, None] ** 2 <= reach**2
    return cv2.dilate(edge.astype(np.uint8), disk.astype(np.uint8)).astype(bool)


def summarize(values: np.ndarray) -> tuple[float, float, float]:
    """Compute mean, recall and decay of a measure over the frames of a video.

    Args:
        values: (T,), values of the evaluated frames, in order.

    Returns:
        the mean, the share of frames above 0.5, and the mean of the first quarter minus that of the last quarter;
        neighboring quarters share a frame.
    """
    # 0.25, 0.5, ... of the way, rounded half up.
    ends = np.floor(np.linspace(1, len(values), 5) + 0.5 + 1e-10).astype(int) - 1
    first, last = values[: ends[1] + 1], values[ends[3] :]
    return float(values.mean()), float((values > 0.5).mean()), float(first.mean() - last.mean())


NAMES = ("J&F", "J_mean", "J_recall", "J_decay", "F_mean", "F_recall", "F_decay")


@METRICS.register_module()
class DavisMetric(BaseMetric):
    """DAVIS metric: mean, recall and decay of J and F, averaged over all objects of all videos.

    The first and last frame of a video are not evaluated; neither are frames of an object up to the one that it enters
    in (YouTube-VOS, MOSE). Reports ``davis/J&F`` (the mean of ``J_mean`` and ``F_mean``), ``davis/J_mean``,
    ``davis/J_recall`` (share of frames above 0.5), ``davis/J_decay`` (first minus last quarter of the frames) and the
    same for F, from 0 to 1. ``davis/copy_J&F`` etc. are the values of a baseline that copies the first mask to all
    frames. If several layers of a backbone are evaluated, these names refer to the best layer by J&F, ``davis/layer``
    is its number, and ``davis/layer_<number>_J&F`` is reported for each layer.

    Attributes:
        by_layer: after an evaluation, one row per layer: ``layer`` and the values.
        by_object: after an evaluation, one row per layer and object: ``layer``, ``video``, ``object`` and the values.

    Args:
        **kwargs: arguments of ``BaseMetric``.

    Raises:
        ValueError: in ``process``, if the ground-truth masks of a video are missing.
    """

    default_prefix = "davis"

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.by_layer: list[dict] = []
        self.by_object: list[dict] = []

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Evaluate complete videos; only the resulting values are stored.

        Args:
            data_batch: not used.
            data_samples: each with ``video``, ``masks`` (paths, of all frames), ``object_ids`` (or ``num_objects``, for
                1 to that number), ``labels``, a dict of (T, H, W) arrays by layer, and optionally ``entries``, the
                frame that each object enters in.
        """
        for sample in data_samples:
            frames = len(next(iter(sample["labels"].values())))
            if len(sample["masks"]) != frames:
                raise ValueError(
                    f"video {sample['video']} has {len(sample['masks'])} ground-truth masks for {frames} frames; "
                    "evaluation requires a data set with with_truth=True"
                )
            truth = np.stack([read_mask(path) for path in sample["masks"]])
            ids = sample.get("object_ids") or range(1, sample["num_objects"] + 1)
            entries = sample.get("entries") or dict.fromkeys(ids, 0)
            copied = _copied(truth, entries)
            self.results.append(
                dict(
                    video=sample["video"],
                    ids=tuple(ids),
                    layers={layer: measure(labels, truth, entries) for layer, labels in sample["labels"].items()},
                    copied=measure(copied, truth, entries),
                )
            )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the values over all videos."""
        # Deduplicate and sort videos, so that rounding of sums does not depend on the number of processes.
        videos = {result["video"]: result for result in sorted(results, key=lambda result: result["video"])}
        self._warn_of_missing(videos)
        layers = next(iter(videos.values()))["layers"]
        self.by_object = [
            dict(layer=layer, video=name, object=number, **_values(*measures))
            for layer in layers
            for name, video in videos.items()
            for number, measures in zip(video["ids"], video["layers"][layer], strict=True)
        ]
        self.by_layer = [
            dict(layer=layer, **_mean([row for row in self.by_object if row["layer"] == layer])) for layer in layers
        ]
        copied = _mean([_values(*measures) for video in videos.values() for measures in video["copied"]])
        best = max(self.by_layer, key=lambda row: row["J&F"])
        rows = [[f"layer {row['layer']}", *_percent(row)] for row in self.by_layer]
        table = [["%", *NAMES], *rows, ["first mask copied", *_percent(copied)]]
        MMLogger.get_current_instance().info("\n" + AsciiTable(table).table)
        metrics = {name: best[name] for name in NAMES} | {f"copy_{name}": copied[name] for name in NAMES}
        if len(self.by_layer) > 1:
            metrics["layer"] = best["layer"]
            metrics |= {f"layer_{row['layer']}_J&F": row["J&F"] for row in self.by_layer}
        return metrics

    def _warn_of_missing(self, videos: dict) -> None:
        missing = [name for name in (self.dataset_meta or {}).get("videos", ()) if name not in videos]
        if missing:
            MMLogger.get_current_instance().warning(
                f"{len(missing)} videos have no results and are not evaluated: {', '.join(missing[:8])}"
            )


def measure(labels: np.ndarray, truth: np.ndarray, entries: Mapping[int, int]) -> list[np.ndarray]:
    """Compute J and F of each object in each evaluated frame.

    Args:
        labels, truth: (T, H, W) object numbers.
        entries: number of each object, and of the frame that it enters in.

    Returns:
        for each object (2, E), J and F of the frames between the one that it enters in and the last one.
    """
    values = []
    for number, first in entries.items():
        frames = range(first + 1, len(truth) - 1)
        masks = ((labels[frame] == number, truth[frame] == number) for frame in frames)
        values.append(np.array([(region_similarity(*pair), contour_accuracy(*pair)) for pair in masks]).T)
    return values


def _copied(truth: np.ndarray, entries: Mapping[int, int]) -> np.ndarray:
    """Copy the first mask of each object to all frames from there on."""
    copied = np.zeros_like(truth)
    for number, first in entries.items():
        copied[first:][:, truth[first] == number] = number
    return copied


def _values(regions: np.ndarray, contours: np.ndarray) -> dict[str, float]:
    """Compute the values of one object from its J and F by frame."""
    j, f = summarize(regions), summarize(contours)
    return dict(zip(NAMES, ((j[0] + f[0]) / 2, *j, *f), strict=True))


def _mean(rows: list[dict]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in NAMES}


def _percent(row: dict) -> list[str]:
    return [f"{100 * row[name]:.1f}" for name in NAMES]

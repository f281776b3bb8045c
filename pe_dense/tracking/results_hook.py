"""Hook that writes tracking results: masks, videos, images and tables."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pe_dense.datasets.davis import palette, write_mask
from pe_dense.engine.layer_report import write_layer_report
from pe_dense.registry import HOOKS
from pe_dense.tracking.davis_eval import NAMES, DavisMetric, contour
from pe_dense.tracking.tracker import read_frame
from pe_dense.utils.atomic_write import atomic_write
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import write_picture
from pe_dense.utils.video import write_video

READABLE_SIDE = 480  # px; smaller frames are enlarged before drawing
_OPACITY = 0.45
_GAP = 8  # px between the frames of a strip


def overlay(frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Draw object masks over a frame, in the palette colors of their numbers.

    Args:
        frame: RGB (H, W, 3) uint8.
        labels: (H, W) uint8 object numbers; 0 is background.

    Returns:
        RGB (h, w, 3) uint8; frames whose shorter side is below 480 px are enlarged by an integer factor.
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
    """Arrange images (H, W, 3) of the same size in rows, with white gaps between them."""
    padded = [np.pad(picture, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255) for picture in pictures]
    padded += [np.full_like(padded[0], 255)] * (-len(padded) % columns)
    rows = [np.concatenate(padded[start : start + columns], axis=1) for start in range(0, len(padded), columns)]
    return np.concatenate(rows)[:-_GAP, :-_GAP]


_STRIP_COLUMNS = 3


@HOOKS.register_module()
class VideoResultsHook(Hook):
    """Write tracking results to the log folder of a test run.

    ``masks/<video>/<frame>.png`` have the layout of a DAVIS submission; ``overlays/<video>.mp4`` shows the objects over
    all frames and ``overlays/<video>.jpg`` over some of them; ``objects.csv`` contains the values of every object. If
    several layers are evaluated, masks and overlays are not written, and ``layers.png``, ``.csv`` and ``.json`` compare
    the layers.

    Args:
        masks: write masks.
        video: write MP4 files.
        pictures: number of evenly spaced frames in the overlay image of a video; 0 for no image.
        fps: frames per second of MP4 files.

    Raises:
        ValueError: for negative ``pictures``, or ``fps`` that is not above 0.
        FileExistsError: if an output file already exists.
    """

    def __init__(self, *, masks: bool = True, video: bool = True, pictures: int = 6, fps: float = 24.0):
        if pictures < 0 or not fps > 0:
            raise InputError(f"pictures must be at least 0 and fps above 0, got pictures={pictures}, fps={fps}")
        self.masks, self.video, self.pictures, self.fps = masks, video, pictures, fps

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Write the masks and overlays of a batch of videos."""
        for sample in outputs:
            if len(sample.labels) == 1:
                (labels,) = sample.labels.values()
                self._write(Path(runner.log_dir), sample.video, sample.frames, labels)

    def _write(self, folder: Path, video: str, frames: list[str], labels: np.ndarray) -> None:
        if self.masks:
            target = folder / "masks" / video
            target.mkdir(parents=True, exist_ok=True)
            for path, numbers in zip(frames, labels, strict=True):
                write_mask(target / f"{Path(path).stem}.png", numbers)
        target = folder / "overlays" / video
        if self.video:
            target.parent.mkdir(parents=True, exist_ok=True)
            drawn = (overlay(read_frame(path), numbers) for path, numbers in zip(frames, labels, strict=True))
            write_video(target.with_name(f"{target.name}.mp4"), drawn, self.fps)
        if self.pictures:
            target.parent.mkdir(parents=True, exist_ok=True)
            chosen = np.linspace(0, len(frames) - 1, self.pictures).round().astype(int)
            drawn = [overlay(read_frame(frames[index]), labels[index]) for index in chosen]
            write_picture(target.with_name(f"{target.name}.jpg"), strip(drawn, _STRIP_COLUMNS))

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Write the tables, in the process that has collected all values."""
        for metric in runner.test_loop.evaluator.metrics:
            if isinstance(metric, DavisMetric) and metric.by_layer:
                self._report(Path(runner.log_dir), metric)

    def _report(self, folder: Path, metric: DavisMetric) -> None:
        with atomic_write(folder / "objects.csv", "w", overwrite=False, newline="") as file:
            table = csv.DictWriter(file, ["layer", "video", "object", *NAMES])
            table.writeheader()
            table.writerows(metric.by_object)
        if len(metric.by_layer) > 1:
            write_layer_report(
                folder, metric.by_layer, metric="J&F", higher_is_better=True, title="Label propagation by layer"
            )

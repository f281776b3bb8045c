"""What a test of tracking leaves behind: masks, drawings and tables."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pe_dense.engine.layer_report import write_layer_report
from pe_dense.io.videos import write_video
from pe_dense.registry import HOOKS
from pe_dense.video.davis_metric import NAMES, DavisMetric
from pe_dense.video.drawing import overlay, strip, write_picture
from pe_dense.video.load_video import read_frame
from pe_dense.video.mask_file import write_mask

_STRIP_COLUMNS = 3


@HOOKS.register_module()
class VideoResultsHook(Hook):
    """Write results into the log folder of a test, which every run has for itself.

    ``masks/<video>/<frame>.png`` have the layout of a submission to DAVIS; ``overlays/<video>.mp4`` shows the objects
    over the frames, ``overlays/<video>.jpg`` some of them; ``objects.csv`` holds the values of every object. Where
    several taps were tracked with, masks and drawings are left out, and ``layers.png``, ``.csv`` and ``.json`` compare
    the taps.

    Args:
        masks: write masks.
        video: write MP4 files.
        pictures: frames of a video in its picture, evenly spread; 0 for no picture.
        fps: frames per second of MP4 files.

    Raises:
        ValueError: for negative ``pictures``, or ``fps`` that is not above 0.
        FileExistsError: if a file that is to be written is there.
    """

    def __init__(self, *, masks: bool = True, video: bool = True, pictures: int = 6, fps: float = 24.0):
        if pictures < 0 or not fps > 0:
            raise ValueError(f"pictures is {pictures} and fps {fps}, must be at least 0 and above 0")
        self.masks, self.video, self.pictures, self.fps = masks, video, pictures, fps

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Write the masks and drawings of a batch of videos."""
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
        """Write the tables, of the process that has all values."""
        for metric in runner.test_loop.evaluator.metrics:
            if isinstance(metric, DavisMetric) and metric.by_layer:
                self._report(Path(runner.log_dir), metric)

    def _report(self, folder: Path, metric: DavisMetric) -> None:
        with open(folder / "objects.csv", "x", newline="") as file:
            table = csv.DictWriter(file, ["layer", "video", "object", *NAMES])
            table.writeheader()
            table.writerows(metric.by_object)
        if len(metric.by_layer) > 1:
            write_layer_report(
                folder, metric.by_layer, metric="J&F", higher_is_better=True, title="Label propagation by layer"
            )

"""Predict on videos: track objects, draw the frames, write them and the results of each frame."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pe_dense.engine.inferencer import Predictor, predict_batches
from pe_dense.runtime.results import Detections, LabelMap, Result, Segments
from pe_dense.runtime.source import Source
from pe_dense.runtime.thresholds import Thresholds
from pe_dense.tracking.object_tracker import ObjectTracker
from pe_dense.utils.atomic_write import atomic_write
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import find_images, read_image
from pe_dense.utils.video import frame_count, frame_rate, read_video, write_video


@dataclass(frozen=True)
class Video:
    """A video file, or a folder with a file for each frame.

    Attributes:
        path: the file or folder.
        fps: frames per second.
        count: number of frames; None if the file does not declare it.
        files: files of the frames, sorted by path; None for a video file.
    """

    path: Path
    fps: float
    count: int | None
    files: tuple[Path, ...] | None = None

    @classmethod
    def open(cls, path: str | Path, fps: float | None = None) -> Video:
        """Find the frames of a video.

        Args:
            path: a video file, or a folder of images.
            fps: frames per second; that of the file, or 25, by default.

        Raises:
            FileNotFoundError: if there is no such path, or no image in the folder.
            InputError: if the file is not a readable video.
        """
        path = Path(path)
        if path.is_dir():
            files = tuple(find_images([path], skip_outputs=True))
            return cls(path, fps or 25.0, len(files), files)
        next(read_video(path))  # errors of missing and unreadable files
        return cls(path, fps or frame_rate(path), frame_count(path))

    def frames(self) -> Iterator[np.ndarray]:
        """Yield the frames, (H, W, 3) uint8, RGB, one by one.

        Raises:
            InputError: for a damaged file, or frames of several sizes.
        """
        if self.files is None:
            yield from read_video(self.path)
            return
        size = None
        for file in self.files:
            pixels = np.asarray(read_image(file))
            size = size or pixels.shape
            if pixels.shape != size:
                raise InputError(
                    f"{file} has {pixels.shape[1]} x {pixels.shape[0]} px, the frames before it {size[1]} x {size[0]}: "
                    "predict on the folder as images, without --fps"
                )
            yield pixels


def track_video(
    predictor: Predictor,
    video: Video,
    batch_size: int = 1,
    *,
    track_thr: float = 0.5,
) -> Iterator[Result]:
    """Yield the results of the frames of a video, with the frame in ``source.pixels``.

    Args:
        predictor: inferencer of a model; objects get ``ids`` that are the same in all frames.
        video: the video.
        batch_size: number of frames per batch.
        track_thr: score of objects that start or lead a track, see
            :class:`~pe_dense.tracking.object_tracker.ObjectTracker`.

    Raises:
        InputError: if the video cannot be read to its end.
    """
    tracker = ObjectTracker(track_thr, video.fps)
    prepared = (
        ((number, pixels), predictor.prepare(pixels, number)[0]) for number, pixels in enumerate(video.frames())
    )
    for (number, pixels), sample in predict_batches(predictor, prepared, batch_size):
        result = predictor.result(sample.cpu())
        if isinstance(result, Detections):
            result = tracker.update(result)
        yield replace(result, source=Source(video.path, number, pixels))


def write_predictions(
    predictor: Predictor,
    video: Video,
    stem: Path,
    batch_size: int = 1,
    *,
    score_thr: Thresholds = 0.3,
    track_thr: float = 0.5,
    overwrite: bool = False,
    on_frame: Callable[[int], None] | None = None,
) -> int:
    """Write ``<stem>.mp4``, the drawn frames, and ``<stem>.jsonl``, a line with the result of each frame.

    Frames are decoded, predicted, drawn and written one batch at a time. After an interruption by Ctrl-C, both files
    are complete up to the last frame.

    Args:
        predictor, video, batch_size, track_thr: see :func:`track_video`.
        stem: output path without suffix.
        score_thr: lowest score of the objects to draw; the lines list all.
        overwrite: replace existing files.
        on_frame: called after each frame with the number of frames so far.

    Returns:
        the number of frames.

    Raises:
        FileExistsError: if an output exists and ``overwrite`` is not set.
        InputError: if the video cannot be read.
        KeyboardInterrupt: after an interruption.
    """
    paths = [Path(f"{stem}.mp4"), Path(f"{stem}.jsonl")]
    if not overwrite and (existing := [path for path in paths if path.exists()]):
        raise FileExistsError(f"{existing[0]} exists; choose another name or allow overwriting")
    done, interrupted = 0, False
    with atomic_write(paths[1], "w", overwrite=overwrite) as lines:

        def pictures() -> Iterator[np.ndarray]:
            nonlocal done, interrupted
            results = track_video(predictor, video, batch_size, track_thr=track_thr)
            while True:
                try:
                    result = next(results, None)
                    if result is None:
                        return
                    picture = _drawn(result, score_thr)
                except KeyboardInterrupt:
                    interrupted = True
                    if not done:
                        raise
                    return
                line = dict(frame=done, time=round(done / video.fps, 4), **result.to_json())
                lines.write(json.dumps(line) + "\n")
                done += 1
                yield picture
                if on_frame is not None:
                    on_frame(done)

        write_video(paths[0], pictures(), video.fps, overwrite=overwrite)
    if interrupted:
        raise KeyboardInterrupt
    return done


def _drawn(result: Result, score_thr: Thresholds) -> np.ndarray:
    """Draw a frame; all frames have one size, so that there are no legends of what a frame shows."""
    if isinstance(result, Detections):
        return result.draw(score_thr=score_thr)
    return result.draw(legend=False) if isinstance(result, LabelMap | Segments) else result.draw()

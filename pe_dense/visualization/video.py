"""Features of a video: the same colors for like parts from the first frame to the last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from pe_dense.backbones.base import Backbone
from pe_dense.utils.video import frame_rate, read_video, write_video
from pe_dense.visualization.colors import feature_rgb
from pe_dense.visualization.drawing import draw_sheet, enlarge, fit_photo
from pe_dense.visualization.features import iter_maps, prepare
from pe_dense.visualization.pca import fit_basis

SAMPLES = 16  # frames that the components are found from
SIDE = 480  # px


def count_frames(path: Path) -> int:
    """Frames of a video.

    Raises:
        FileNotFoundError, ValueError: as :func:`~pe_dense.utils.video.read_video`.
    """
    return sum(1 for _ in read_video(path))


def draw_feature_video(
    tower: Backbone, video: Path, out: Path, *, block: int, long_side: int, frames: int, advance: Callable[[int], None]
) -> Path:
    """Write a video with each frame beside the colors of its features.

    Principal components are found once, from 16 frames spread evenly over the video.

    Args:
        tower: a tower.
        video: a file.
        out: the MP4 to write; replaced if it exists.
        block: block number.
        long_side: as of :class:`~pe_dense.visualization.features.FigureInputs`.
        frames: of the video, see :func:`count_frames`.
        advance: called with the number of frames that went through the tower.
    """

    def features(frame: np.ndarray):
        advance(1)
        ((_, maps),) = iter_maps(tower, prepare(Image.fromarray(frame), tower, long_side), [block])
        return maps

    chosen = sample_numbers(frames)
    basis = fit_basis([features(frame) for number, frame in enumerate(read_video(video)) if number in chosen])

    def sheets():
        for frame in read_video(video):
            photo = fit_photo(Image.fromarray(frame), SIDE)
            colors = enlarge(feature_rgb(features(frame), basis=basis)[0], photo.size)
            yield np.asarray(draw_sheet([[("", photo), ("", colors)]]))

    write_video(out, sheets(), frame_rate(video), overwrite=True)
    return out


def sample_numbers(frames: int) -> set[int]:
    """Numbers of at most 16 frames, spread evenly."""
    return {round(number) for number in np.linspace(0, frames - 1, min(frames, SAMPLES))}

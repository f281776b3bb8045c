"""Read and write video files."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from pe_dense.utils.atomic_write import atomic_write
from pe_dense.utils.errors import InputError

EXTENSIONS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
_SHORT = 0.9  # share of the declared duration; sound may be longer than the picture
_CODECS = ("libx264", "mpeg4")  # the first one that FFmpeg was built with is used


def read_video(path: str | Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video, RGB (H, W, 3) uint8, as a player shows them.

    A file that ends before the frames or seconds that it declares is logged, with both numbers.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read to its end, or contains no frame.
    """
    import av

    if not Path(path).is_file():
        raise FileNotFoundError(f"video {path} does not exist")
    count, last, declared = 0, None, None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} contains no video stream")
            declared = container.streams.video[0].frames or None  # some formats declare a duration alone
            duration = None if container.duration is None else container.duration / av.time_base
            for count, frame in enumerate(container.decode(video=0), start=1):  # noqa: B007 - counted for the end
                last = frame.time
                pixels = frame.to_ndarray(format="rgb24")
                yield np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
    except av.FFmpegError as error:
        if not count:
            raise InputError(f"{path} is not a readable video ({error.strerror})") from error
        read = f"{count} of {declared} frames" if declared else f"{count} frames"
        raise InputError(
            f"{path} is damaged or cut short: only {read} can be read ({error.strerror}). Copy it again, or keep the "
            "readable part with `ffmpeg -i FILE OUT.mp4`"
        ) from error
    if not count:
        raise InputError(f"{path} contains no frame")
    if declared and count < declared:
        _warn_short(str(path), f"{count} of {declared} declared frames")
    elif not declared and duration and last is not None and last < _SHORT * duration - 1:
        _warn_short(str(path), f"{count} frames, up to {last:.1f} of {duration:.1f} declared seconds,")


@functools.cache
def _warn_short(path: str, read: str) -> None:
    """Log that a video is shorter than declared; once, although most videos are read several times."""
    print_log(
        f"Only {read} of {path} can be read: the file is cut short (or was trimmed without encoding it anew). Results "
        "are those of the frames that were read",
        "current",
        logging.WARNING,
    )


def frame_rate(path: str | Path) -> float:
    """Return the frames per second of a readable video; 25 if the file does not state it."""
    import av

    with av.open(str(path)) as container:
        return float(container.streams.video[0].average_rate or 25)


def frame_count(path: str | Path) -> int | None:
    """Return the number of frames that a readable video declares; None if it does not."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if stream.frames or container.duration is None or not stream.average_rate:
            return stream.frames or None
        return round(container.duration / av.time_base * float(stream.average_rate))


def is_video(path: str | Path) -> bool:
    """Return whether a path has the suffix of a video file."""
    return Path(path).suffix.lower() in EXTENSIONS


def write_video(path: str | Path, pictures: Iterable[np.ndarray], fps: float, *, overwrite: bool = False) -> None:
    """Write RGB images (H, W, 3) uint8 of one size as MP4, in H.264 if FFmpeg supports it.

    The file is written atomically.

    Args:
        path: path of the file, ending in ``.mp4``.
        pictures: one image per frame.
        fps: frames per second.
        overwrite: replace an existing file.

    Raises:
        FileExistsError: if the file exists and ``overwrite`` is not set.
        ValueError: if there are no images.
    """
    import av

    path = Path(path)
    codec = next(name for name in _CODECS if name in av.codecs_available)
    with atomic_write(path, overwrite=overwrite) as file, av.open(file, "w", format="mp4") as container:
        stream = None
        for picture in pictures:
            height, width = picture.shape[:2]
            # Colors are stored for 2 x 2 pixels, so sides are even.
            even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if stream is None:
                options = dict(crf="18") if codec == "libx264" else dict(qscale="3")
                stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000), options=options)
                stream.height, stream.width = even.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))
        if stream is None:
            raise InputError(f"no pictures for {path}")
        container.mux(stream.encode(None))

"""Read and write image files. Checks, training, prediction, figures and exported models all use this reader.

Reading needs numpy and Pillow only, so that exported models run without the other libraries.
"""

from __future__ import annotations

import logging
import math
import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from pe_dense.utils.atomic_write import write_bytes
from pe_dense.utils.errors import InputError, first_line
from pe_dense.utils.output_folder import is_output

# Pillow supports many more, including EPS, for which it runs Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
# Each scan of a progressive JPEG takes about as long as a baseline file, and a file may have thousands. Encoders write
# about 10; 20 scans of the largest image are allowed.
MAX_SCANS, MAX_SCANNED_PIXELS = 500, 2_000_000_000
_ORIENTATION = 0x0112  # the EXIF field
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_INVERSE = {6: 8, 8: 6}  # other orientations are their own inverse
_TIFF_SIZE = (256, 257)  # EXIF tags of the stored width and height
_STRIP = 1 << 20  # pixels converted at a time
_WHITE_LEVELS = (1, 255, 65535)  # defaults; the first one for floating-point images only
_NEARLY_BLACK = 4095  # of 65535: 15 of 255
_MAX_WARNINGS = 100  # files named per process
_warned: set[str] = set()


class ImageError(InputError):
    """An image file cannot be read, or does not match its annotation.

    PyTorch prepends the traceback of a data worker to the message; only the last line is kept.
    """

    def __init__(self, message: str):
        super().__init__(re.sub(r"^(\w+\.)+\w*Error: ", "", message.strip().splitlines()[-1]))


def read_image(
    path: str | Path | BinaryIO,
    name: str | None = None,
    *,
    ignore_orientation: bool = False,
    white_level: float | None = None,
) -> Image.Image:
    """Read an image file as 8-bit RGB, as an image viewer shows it.

    Args:
        path: a file, or its open content.
        name: the name used in errors; the path by default.
        ignore_orientation: keep the pixels as stored instead of applying the EXIF orientation.
        white_level: see :func:`as_rgb`.

    Raises:
        FileNotFoundError, ImageError: as :func:`decode`.
    """
    image = decode(path, name, ignore_orientation=ignore_orientation)
    return as_rgb(image, name or str(path), white_level=white_level)


def decode(
    path: str | Path | BinaryIO,
    name: str | None = None,
    formats: Sequence[str] = FORMATS,
    *,
    ignore_orientation: bool = False,
) -> Image.Image:
    """Decode an image file in its own mode, with the EXIF orientation applied.

    JPEG, PNG, WebP, BMP, TIFF and GIF (first frame) are read; the format is recognized by content, not by name.

    Args:
        path: a file, or its open content.
        name: the name used in errors; the path by default.
        formats: Pillow's names of the allowed formats.
        ignore_orientation: keep the pixels as stored.

    Raises:
        FileNotFoundError: if the file does not exist.
        ImageError: if the file is not a regular one, cannot be decoded, has more pixels than
            ``PIL.Image.MAX_IMAGE_PIXELS`` (89 million), or is a JPEG with too many scans.
    """
    name = name or str(path)
    with _open(path, name) as file, _errors_of(name, formats), Image.open(file, formats=formats) as image:
        _check_cost(image, file)
        deep = image.mode == "RGB" and any(";16" in str(tile[3]) for tile in image.tile)
        orientation = _orientation(image)
        image.load()
        if deep and max(high for _, high in image.getextrema()) <= _NEARLY_BLACK >> 8:
            _warn(name, "has 16 bits per channel, of which only the lowest 12 are used: it is nearly black in 8 bits")
        if orientation == 1:  # in PNG files, EXIF data may come after the pixels
            orientation = _orientation(image)
            applied = False
        else:
            applied = _orientation(image) == 1  # Pillow applies the orientation of TIFF files while loading
        if applied == (not ignore_orientation) or orientation == 1:
            return image
        return image.transpose(_TRANSPOSE[_INVERSE.get(orientation, orientation) if applied else orientation])


def image_size(path: str | Path, *, ignore_orientation: bool = False) -> tuple[int, int]:
    """Return the width and height that :func:`decode` would return, read from the header.

    Raises:
        FileNotFoundError, ImageError: as :func:`decode`, as far as the header shows it.
    """
    with _open(path, str(path)) as file, _errors_of(str(path), FORMATS), Image.open(file, formats=FORMATS) as image:
        _check_cost(image, file)
        stored = tuple(image.tag_v2[tag] for tag in _TIFF_SIZE) if image.format == "TIFF" else image.size
        turned = not ignore_orientation and _orientation(image) >= 5
        return stored[::-1] if turned else stored


def is_upright(path: str | Path) -> bool:
    """Return whether an image file of any size is stored as it is shown, without an EXIF orientation.

    Raises:
        FileNotFoundError, ImageError: as :func:`decode`, except for large images.
    """
    with (
        pixel_limit(math.inf),
        _open(path, str(path)) as file,
        _errors_of(str(path), FORMATS),
        Image.open(file, formats=FORMATS) as image,
    ):
        return _orientation(image) == 1


def as_rgb(image: Image.Image, name: str = "image", *, white_level: float | None = None) -> Image.Image:
    """Convert any mode of Pillow to 8-bit RGB. Transparent images are composed on white.

    Args:
        image: image of any mode. Grayscale images of 16 or 32 bits or floating point are scaled so that ``white_level``
            becomes 255, and clipped; NaN becomes 0.
        name: the name used in the warning about an image that becomes nearly black.
        white_level: white level of grayscale images of more than 8 bits, such as 4095 for a 12-bit camera. By default
            the first of 1 (floating point only), 255 and 65535 that is not below the image's maximum.
    """
    if image.mode.startswith("I") or image.mode == "F":
        image = _gray_to_8_bits(image, name, white_level)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _gray_to_8_bits(image: Image.Image, name: str, white_level: float | None) -> Image.Image:
    """Convert strip by strip, without a floating-point copy of the image."""
    gray = np.asarray(image)
    rows = max(1, _STRIP // max(gray.shape[1], 1))
    strips = [slice(start, start + rows) for start in range(0, len(gray), rows)]
    if white_level is None:
        white_level = find_white_level((gray[strip] for strip in strips), name, floating=image.mode == "F")
    small = np.empty(gray.shape, np.uint8)
    for strip in strips:
        small[strip] = to_8_bits(gray[strip], white_level)
    return Image.fromarray(small)


def find_white_level(parts: Iterable[np.ndarray], name: str, *, floating: bool = False) -> float:
    """Return the default white level of a grayscale image, see :func:`as_rgb`; warn if it becomes nearly black.

    Args:
        parts: the image in parts; those that cannot change the result are not requested.
        name: the name used in the warning.
        floating: whether the values are floating-point numbers.
    """
    highest, levels = 0.0, _WHITE_LEVELS if floating else _WHITE_LEVELS[1:]
    for part in parts:
        highest = max(highest, float(np.nan_to_num(part).max(initial=0)))
        if highest > _NEARLY_BLACK:
            return _WHITE_LEVELS[-1]
    white_level = next(level for level in levels if highest <= level)
    if white_level == _WHITE_LEVELS[-1]:
        _warn(
            name,
            f"has 16 bits but no value above {highest:g}: it is nearly black in 8 bits. If white has fewer bits "
            "(4095 for 12), set white_level of pe_dense.LoadImage, or convert the file",
        )
    return white_level


def to_8_bits(values: np.ndarray, white_level: float) -> np.ndarray:
    """Scale values so that ``white_level`` becomes 255, as uint8, see :func:`as_rgb`."""
    values = np.nan_to_num(values.astype(np.float64)).clip(0, white_level)
    scaled = values * (255 / white_level) if white_level != _WHITE_LEVELS[-1] else values / white_level * 255
    return np.rint(scaled).astype(np.uint8)


@contextmanager
def pixel_limit(pixels: float) -> Iterator[None]:
    """Let Pillow open images of up to this number of pixels; a limit that is higher already is kept."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None:
        Image.MAX_IMAGE_PIXELS = max(limit, pixels)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _errors_of(name: str, formats: Sequence[str]) -> Iterator[None]:
    """Convert exceptions of a decoder, which may be of any class, to an ImageError that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # important ones are raised as errors
            yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a readable image (not one of {', '.join(formats)})") from error
    except Exception as error:  # damaged files raise struct.error, SyntaxError, ...
        raise ImageError(f"{name} is not a readable image ({first_line(error)})") from error


@contextmanager
def _open(path: str | Path | BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Open a regular file; opening a FIFO would block forever. Open content stays open."""
    if not isinstance(path, str | Path):
        yield path
        return
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a FIFO" if stat.S_ISFIFO(mode) else "a special file"
            raise ImageError(f"image {name} is {kind}, not a regular file")
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError as error:
        raise FileNotFoundError(f"image {name} does not exist") from error
    except OSError as error:
        raise ImageError(f"image {name} cannot be read ({error.strerror})") from error
    with file:
        yield file


def _check_cost(image: Image.Image, file: BinaryIO) -> None:
    pixels = image.width * image.height
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{image.width} x {image.height} px, more than {Image.MAX_IMAGE_PIXELS / 1e6:.0f} million")
    if image.format in ("JPEG", "MPO"):
        position = file.tell()
        file.seek(0)
        scans = file.read().count(b"\xff\xda")  # this marker does not occur in compressed data
        file.seek(position)
        if scans > MAX_SCANS or scans * pixels > MAX_SCANNED_PIXELS:
            raise ValueError(f"a JPEG of {pixels / 1e6:.1f} million pixels with {scans} scans")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF data cannot be parsed: viewers show the image as stored
        return 1
    return value if value in _TRANSPOSE else 1


def _warn(name: str, text: str) -> None:
    if name not in _warned and len(_warned) < _MAX_WARNINGS:
        _warned.add(name)
        try:
            from mmengine.logging import print_log
        except ImportError:
            logging.getLogger("pe_dense").warning("%s %s", name, text)
        else:
            print_log(f"{name} {text}", "current", logging.WARNING)


EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def find_images(
    sources: Iterable[str | Path], exclude: Iterable[str | Path] = (), *, skip_outputs: bool = False
) -> list[Path]:
    """List image files, including those in folders and their subfolders, sorted by path.

    Args:
        sources: files and folders. Duplicates are listed once.
        exclude: subfolders to skip, such as the output folder.
        skip_outputs: skip images in folders that ``tools/predict.py`` wrote.

    Raises:
        FileNotFoundError: if a source does not exist, or a folder contains no image.
    """
    images: dict[str, Path] = {}
    excluded = [Path(folder).resolve() for folder in exclude]
    for source in map(Path, sources):
        if source.is_dir():
            inside = [folder for folder in excluded if folder.is_relative_to(source.resolve())]
            found = sorted(
                file
                for file in source.rglob("*")
                if file.suffix.lower() in EXTENSIONS
                and not file.is_dir()
                and not (inside and any(file.resolve().is_relative_to(folder) for folder in inside))
                and not (skip_outputs and is_output(file))
            )
            if not found:
                raise FileNotFoundError(f"folder {source} contains no image ({', '.join(EXTENSIONS)})")
        elif source.exists():
            found = [source]
        else:
            raise FileNotFoundError(f"image {source} does not exist ({source.absolute()})")
        for file in found:
            images.setdefault(os.path.abspath(file), file)
    return list(images.values())


def write_png(path: str | Path, picture: Image.Image | np.ndarray, *, reuse: bool = False) -> None:
    """Write an image as PNG, with fast compression. An existing file is replaced.

    Args:
        path: path of the file.
        picture: an image, or pixels: (H, W, 3) RGB or (H, W), uint8 or uint16.
        reuse: whether the memory of the pixels may be overwritten, which saves a copy.

    Raises:
        WriteError: if it cannot be written.
    """
    import cv2

    picture = stored = np.asarray(picture)
    if picture.ndim == 3:
        stored = picture if reuse and picture.flags.writeable else picture.copy()
        for start in range(0, len(stored), 64):
            stored[start : start + 64] = stored[start : start + 64, :, ::-1]  # OpenCV expects BGR
    written, code = cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not written:
        raise InputError(f"cannot encode {picture.shape} {picture.dtype} as {path}")
    write_bytes(path, code)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write RGB (H, W, 3) uint8 as JPEG.

    Raises:
        FileExistsError: if the file exists.
    """
    import cv2

    written, code = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not written:
        raise InputError(f"cannot encode {picture.shape} {picture.dtype} as {path}")
    write_bytes(path, code, overwrite=False)

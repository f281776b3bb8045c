"""Image files as pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pe_dense.utils.errors import InputError


def read_photo(path: str | Path) -> Image.Image:
    """Read an image file as RGB, the way a viewer shows it.

    A photo's EXIF orientation is applied, transparency lies on white, grey of 16 bits is scaled to 8.

    Raises:
        FileNotFoundError, ValueError: as :func:`decode`.
    """
    return as_rgb(decode(path))


def decode(path: str | Path | BinaryIO, name: str | None = None, formats: Sequence[str] | None = None) -> Image.Image:
    """Decode an image file in its own mode, EXIF orientation applied.

    Args:
        path: a file, or its open content.
        name: how errors name it; the path by default.
        formats: of Pillow's that are allowed; all by default.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it can't be decoded, or says that it has more than 89 million pixels.
    """
    name = name or str(path)
    if isinstance(path, str | Path) and not Path(path).is_file():
        raise FileNotFoundError(f"image {name} does not exist")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with a file is told by one error, or does not matter
            with Image.open(path, formats=formats) as image:
                if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                    raise InputError(
                        f"{image.width} x {image.height} px, more than {Image.MAX_IMAGE_PIXELS / 1e6:.0f} million"
                    )
                image.load()
                return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not a readable image (no format that is known)") from error
    except Exception as error:  # damaged files break decoders in ways of their own: struct.error, SyntaxError, ...
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{name} is not a readable image ({reason})") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow's as RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.nan_to_num(np.asarray(image, dtype=np.float64))
        white = (1, 255, 65535) if image.mode == "F" else (255, 65535)  # floats may run to 1
        scale = next((level for level in white if grey.max(initial=0) <= level), white[-1])
        image = Image.fromarray(np.rint(grey.clip(0, scale) / scale * 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """List image files; of a folder, all in it and below, in order of their paths.

    Raises:
        FileNotFoundError: if a source does not exist, or a folder holds no image.
    """
    images: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            found = sorted(file for file in source.rglob("*") if file.suffix.lower() in EXTENSIONS)
            if not found:
                raise FileNotFoundError(f"folder {source} holds no image ({', '.join(EXTENSIONS)})")
            images += found
        elif source.is_file():
            images.append(source)
        else:
            raise FileNotFoundError(f"image {source} does not exist ({source.absolute()})")
    return images


def split_readable(images: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Tell files that decode as images from those that do not."""
    from PIL import Image

    good: list[Path] = []
    bad: list[Path] = []
    for path in images:
        try:
            with Image.open(path) as image:
                image.draft("RGB", (16, 16))
                image.load()
            good.append(path)
        except Exception:  # damaged files break decoders in ways of their own
            bad.append(path)
    return good, bad


def output_names(images: Sequence[Path]) -> list[str]:
    """Distinct names for the outputs: stems, numbered where they repeat."""
    names: list[str] = []
    taken = {image.stem for image in images}
    given = set()
    for image in images:
        name, count = image.stem, 1
        while name in given or (count > 1 and name in taken):
            count += 1
            name = f"{image.stem}_{count}"
        given.add(name)
        names.append(name)
    return names


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write RGB (H, W, 3) uint8 as JPEG.

    Raises:
        FileExistsError: if the file is there.
    """
    written, code = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not written:
        raise InputError(f"cannot encode {picture.shape} {picture.dtype} as {path}")
    with open(path, "xb") as file:
        file.write(code.tobytes())

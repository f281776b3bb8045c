"""Finding image files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

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

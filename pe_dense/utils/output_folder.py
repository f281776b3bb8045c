"""Folders of outputs: checks before a run, unique names, and telling outputs from other images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pe_dense.utils.errors import ConfigError

# Outputs of ``tools/predict.py`` for an image: PNG files with these suffixes, and a JSON file with this prefix.
OUTPUT_ENDINGS = ("", "_labels", "_depth")
OUTPUT_START = b'{"image": '
_LEAST_SPACE = 100_000  # bytes; too little for an image if less is free


def check_output_folder(path: str | Path, option: str) -> None:
    """Check that files can be written to a folder, which need not exist. Nothing is created.

    Args:
        path: the folder.
        option: name of the option, for errors.

    Raises:
        ConfigError: if the path or a parent is a file, or the folder is not writable, or its disk is full.
        OSError: if the file system does not accept the path (too long, ...).
    """
    path = Path(path)
    if not str(path).strip():
        raise ConfigError(f"{option} is empty: name a folder")
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        what = "is a file" if existing == path else f"cannot be a folder, because {existing} is a file"
        raise ConfigError(f"{option} {path} {what}: name a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{option} {path}: no permission to write to {existing.absolute()}; name another folder, or change the "
            "permissions of that one"
        )
    if shutil.disk_usage(existing).free < _LEAST_SPACE:
        raise ConfigError(
            f"{option} {path}: no space left on the disk of {existing.absolute()}; free some, or name a folder on "
            "another disk"
        )


def is_output(file: Path) -> bool:
    """Return whether a PNG file was written by ``tools/predict.py``, by its JSON file in the same folder."""
    if file.suffix != ".png":
        return False
    stems = {file.stem, *(file.stem.removesuffix(ending) for ending in OUTPUT_ENDINGS)}
    for path in (file.with_name(f"{stem}.json") for stem in stems):
        try:
            with path.open("rb") as content:
                if path.is_file() and content.read(len(OUTPUT_START)) == OUTPUT_START:
                    return True
        except OSError:
            continue
    return False


def output_names(images: Sequence[Path], endings: Sequence[str] = ("",), folder: str | Path | None = None) -> list[str]:
    """Return unique output names for images: their stems, numbered where several outputs would have the same name.

    Args:
        images: paths.
        endings: suffixes of an image's outputs, such as ``_labels``.
        folder: folder of the outputs, which are PNG and JSON files; names that would overwrite one of the images are
            not used.

    Returns:
        a name for each image; no two outputs have the same name or names that differ only by case.
    """
    names: list[str] = []
    stems = {image.stem.casefold() for image in images}
    inputs = {os.path.abspath(image) for image in images} if folder is not None else set()
    taken: set[str] = set()
    for image in images:
        name, count = image.stem, 1
        while (
            taken & (files := {f"{name}{ending}".casefold() for ending in endings})
            or (count > 1 and name.casefold() in stems)
            or (inputs and any(os.path.abspath(Path(folder, f"{name}{ending}.png")) in inputs for ending in endings))
        ):
            count += 1
            name = f"{image.stem}_{count}"
        taken |= files
        names.append(name)
    return names

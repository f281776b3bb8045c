"""Read annotation files in COCO's format, including LVIS's, and compare their classes."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.logging import print_log

from pe_dense.datasets.annotation_check import check_content, remove_masks
from pe_dense.utils.errors import ConfigError, InputError

# Fields with the file name of an image; the first one present is used. COCO's files have `coco_url`, too, but their
# images are in one folder; LVIS's files only have `coco_url`, whose last folder is part of the name.
COCO_NAMES = ("file_name",)
LVIS_NAMES = ("coco_url", "file_name")


class AnnotationError(ConfigError):
    """An annotation file is invalid."""


def read_json(path: str | Path):
    """Read a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        AnnotationError: if it cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise AnnotationError(f"{path} is not a valid annotation file: it is nested too deeply") from None
    except ValueError as error:
        raise AnnotationError(f"{path} is not valid JSON: {error}") from error


def read_annotations(path: str | Path, *, masks: bool | None = None, quiet: bool = False) -> dict:
    """Read an annotation file in COCO's or LVIS's format, check it and repair unambiguous errors.

    See :func:`pe_dense.datasets.annotation_check.check_content` for what is repaired; repairs are logged in a warning.
    A file without any is not checked again in the same process, unless it changed.

    Args:
        path: a JSON file with ``images``, ``annotations`` and ``categories``.
        masks: True if each annotation must have a mask, None to check masks where present, False to remove them
            unchecked.
        quiet: do not log repairs, for a file that is also read elsewhere.

    Returns:
        the content.

    Raises:
        AnnotationError: listing all problems: fields that are missing or of the wrong type, duplicate ids or class
            names, annotations of unknown images or categories, invalid masks, boxes in another format. Each names the
            field, the number of entries and the first ids.
    """
    content, repairs = read_checked(path, masks=masks)
    if repairs and not quiet:
        print_log(f"{path}: repaired on reading: {'; '.join(repairs)}", "current", logging.WARNING)
    return content


def read_checked(path: str | Path, *, masks: bool | None) -> tuple[dict, list[str]]:
    """Read an annotation file as :func:`read_annotations`; return its content and descriptions of the repairs."""
    version = file_version(path)
    content = read_json(path)
    if not isinstance(content, dict):
        raise AnnotationError(
            f"{path} is not a valid annotation file: it contains a {type(content).__name__}, not a dict"
        )
    if version in _checked and _checked[version] >= _STRICTNESS[masks]:
        if masks is False:
            remove_masks(content["annotations"])
        return content, []
    findings = check_content(content, masks=masks)
    if version is not None and not findings.problems and not findings.repairs:
        _checked[version] = _STRICTNESS[masks]
    if findings.problems:
        raise AnnotationError(f"{path} is not a valid annotation file: {'; '.join(findings.problems)}")
    return content, findings.repairs


# Versions of files that were checked in this process and needed no repair, with the strictness of the check. The checks
# of data set, metric and losses would take as long as reading the file each.
_checked: dict[tuple, int] = {}
_STRICTNESS = {False: 0, None: 1, True: 2}
_SETTLED = 0.1  # seconds; file systems may not tell two changes within a few milliseconds apart


def file_version(path: str | Path) -> tuple | None:
    """Return a key of a file with its present content; None if it was changed just now or does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if time.time() - status.st_mtime < _SETTLED:
        return None
    return os.path.realpath(path), status.st_ino, status.st_size, status.st_mtime_ns


def missing_fields(content: dict, wanted: Mapping[str, Sequence[str]]) -> list[str]:
    """Find fields that some entries lack.

    Args:
        content: content of an annotation file.
        wanted: required fields by part.
    """
    counts = {
        (part, field): sum(field not in entry for entry in content[part])
        for part, fields in wanted.items()
        for field in fields
    }
    return [
        f"'{field}' is missing in {count} of {len(content[part])} {part}"
        for (part, field), count in counts.items()
        if count
    ]


def class_names(content: dict) -> tuple[str, ...]:
    """Return the names of the categories in the order of the file, which is the order of the labels."""
    return tuple(category["name"] for category in content["categories"])


def image_name(image: dict, fields: Sequence[str]) -> str:
    """Return the path of an image; of a URL, the part after the server.

    Args:
        image: an entry of ``images``.
        fields: ``COCO_NAMES`` or ``LVIS_NAMES``.

    Raises:
        InputError: if the image has none of the fields.
    """
    name = next((image[field] for field in fields if image.get(field)), None)
    if name is None:
        raise InputError(f"image {image['id']} has no {' or '.join(fields)}")
    return re.sub(r"^https?://[^/]+/", "", name)


def check_classes(classes: Sequence[str], names: Sequence[str], source: str | Path) -> None:
    """Check that the classes of a data set are those of a file, or some of them, in the same order.

    Args:
        classes: classes of the data set.
        names: class names of the file.
        source: name of the file in errors.

    Raises:
        InputError: with both sides.
    """
    missing = [name for name in classes if name not in set(names)]
    if missing:
        unused = [name for name in names if name not in set(classes)]
        raise InputError(
            f"{len(missing)} of the data set's {len(classes)} classes are not in {source}: {some(missing)}; "
            f"of the file's {len(names)} categories, {len(unused)} are not among the classes: {some(unused)}"
        )
    ordered = [name for name in names if name in set(classes)]
    if list(classes) != ordered:
        # Labels are indices of the file's categories, so names in another order would be assigned to the wrong ones.
        raise InputError(
            f"the order of the data set's classes differs from {source}: {some(classes)}; in the file {some(ordered)}"
        )


def _trained_classes(checkpoint) -> tuple[str, ...] | None:
    """Return the class names of the data that a checkpoint was trained on, or None if it has none.

    Args:
        checkpoint: content of a file; MMEngine's runs write the names to ``meta.dataset_meta.classes``.
    """
    for key in ("meta", "dataset_meta", "classes"):
        checkpoint = checkpoint.get(key) if isinstance(checkpoint, Mapping) else None
    if not isinstance(checkpoint, list | tuple) or not all(isinstance(name, str) for name in checkpoint):
        return None
    return tuple(checkpoint)


def compare_with_checkpoint(checkpoint, classes: Sequence[str] | None, source: str | Path, data: str) -> None:
    """Check that a data set has the classes that a checkpoint was trained on, in the same order.

    Args:
        checkpoint: content of the file.
        classes: classes of the data set; None if it has none.
        source: name of the checkpoint in errors.
        data: name of the data set in errors.

    Raises:
        InputError: with both sides.
    """
    trained = _trained_classes(checkpoint)
    if trained is None or classes is None or trained == tuple(classes):
        return
    if sorted(trained) == sorted(classes):
        what = f"the same names in another order: {some(trained)} and {some(classes)}"
    else:
        only = [name for name in trained if name not in set(classes)]
        new = [name for name in classes if name not in set(trained)]
        what = f"only in the checkpoint: {some(only)}; only in the data: {some(new)}"
    raise InputError(
        f"{source} was trained on {len(trained)} classes, {data} has {len(classes)}, and they differ: {what}. "
        "Use data with the checkpoint's classes, in its order"
    )


def some(names: Sequence[str]) -> str:
    """Format the first of many names for a message."""
    return ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "") if names else "none"

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

# Fields with the name of an image's file; the first one present is used. COCO's files have `coco_url`, too, but their
# images are in one folder; LVIS's files have no other, and the last folder of the address is a part of the name.
COCO_NAMES = ("file_name",)
LVIS_NAMES = ("coco_url", "file_name")


class AnnotationError(ConfigError):
    """An annotation file cannot be used."""


def read_json(path: str | Path):
    """Read a JSON file in UTF-8, with a byte order mark or without.

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
    """Read an annotation file in COCO's or LVIS's format, check it and repair what has one meaning.

    See :func:`pe_dense.datasets.annotation_check.check_content` for what is repaired; repairs are logged in a warning.
    A file without any is not checked again in the same process, unless it changed.

    Args:
        path: a JSON file with ``images``, ``annotations`` and ``categories``.
        masks: True if each annotation must have a mask, None to check masks where there are some, False to remove them
            unread.
        quiet: log no repairs, for a file that is read elsewhere, too.

    Returns:
        the content.

    Raises:
        AnnotationError: with all problems that were found: fields that are missing or of another type, ids or class
            names that occur more than once, annotations of images or categories that the file does not list, masks
            that cannot be read, boxes in another convention. Each comes with the field, the number of entries and the
            first ids.
    """
    version = _version(path)
    content = read_json(path)
    if not isinstance(content, dict):
        raise AnnotationError(
            f"{path} is not a valid annotation file: it contains a {type(content).__name__}, not a dict"
        )
    if version in _checked and _checked[version] >= _STRICTNESS[masks]:
        if masks is False:
            remove_masks(content["annotations"])
        return content
    findings = check_content(content, masks=masks)
    if version is not None and not findings.problems and not findings.repairs:
        _checked[version] = _STRICTNESS[masks]
    if findings.problems:
        raise AnnotationError(f"{path} is not a valid annotation file: {'; '.join(findings.problems)}")
    if findings.repairs and not quiet:
        print_log(f"{path}: repaired on reading: {'; '.join(findings.repairs)}", "current", logging.WARNING)
    return content


# Versions of files that were checked in this process and needed no repair, with the strictness of the check. The checks
# of data set, metric and losses would take as long as reading the file each.
_checked: dict[tuple, int] = {}
_STRICTNESS = {False: 0, None: 1, True: 2}
_SETTLED = 0.1  # seconds; file systems may not tell two changes within a few milliseconds apart


def _version(path: str | Path) -> tuple | None:
    """Key of a file with its present content; None if it was changed just now or does not exist."""
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
        content: of an annotation file.
        wanted: fields by part.
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
    """Names of the categories, in the file's order: that of the labels."""
    return tuple(category["name"] for category in content["categories"])


def image_name(image: dict, fields: Sequence[str]) -> str:
    """Path of an image, without the server where it is given as an address.

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
    """Make sure that a data set's classes are a file's, or some of them, in its order.

    Args:
        classes: of the data set.
        names: of the file.
        source: how errors call the file.

    Raises:
        InputError: with both sides.
    """
    missing = [name for name in classes if name not in set(names)]
    if missing:
        unused = [name for name in names if name not in set(classes)]
        raise InputError(
            f"{len(missing)} of the data set's {len(classes)} classes are not in {source}: {some(missing)}; "
            f"of the file's {len(names)} categories, {len(unused)} are no class: {some(unused)}"
        )
    ordered = [name for name in names if name in set(classes)]
    if list(classes) != ordered:
        # Labels count the file's categories, so names in another order would be given to the wrong ones.
        raise InputError(
            f"the data set's classes are in another order than in {source}: {some(classes)}; "
            f"in the file {some(ordered)}"
        )


def _trained_classes(checkpoint) -> tuple[str, ...] | None:
    """Class names of the data that a checkpoint was trained on, or None if it does not say.

    Args:
        checkpoint: content of a file; MMEngine's runs write the names to ``meta.dataset_meta.classes``.
    """
    for key in ("meta", "dataset_meta", "classes"):
        checkpoint = checkpoint.get(key) if isinstance(checkpoint, Mapping) else None
    if not isinstance(checkpoint, list | tuple) or not all(isinstance(name, str) for name in checkpoint):
        return None
    return tuple(checkpoint)


def compare_with_checkpoint(checkpoint, classes: Sequence[str] | None, source: str | Path, data: str) -> None:
    """Make sure that a data set has the classes that a checkpoint was trained on, in the same order.

    Args:
        checkpoint: content of a file.
        classes: of the data set; None for one without.
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
    """The first names of many, for a message."""
    return ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "") if names else "none"

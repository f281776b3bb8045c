"""Annotation files of COCO's form, LVIS's among them: reading them, and what they must hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pe_dense.utils.errors import InputError

# Fields that tell an image's file, the first that is there. COCO's files have the second one, too, but their images
# lie in one folder; LVIS's have no other, and its last folder is a part of the name.
COCO_NAMES = ("file_name",)
LVIS_NAMES = ("coco_url", "file_name")

_FIELDS = {
    "images": ("id", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
    "categories": ("id", "name"),
}


def read_json(path: str | Path):
    """Read a JSON file in UTF-8, with a byte order mark or without.

    Raises:
        ValueError: if it is none.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON file: {error}") from error


def read_annotations(path: str | Path) -> dict:
    """Read an annotation file and look through it.

    Args:
        path: a JSON file with ``images``, ``annotations`` and ``categories``.

    Returns:
        the content.

    Raises:
        ValueError: if it is no such file, misses fields, repeats an id or a class name, or has annotations of images
            or categories that it does not list; all of it is told at once.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} is not in COCO's form: it holds a {type(content).__name__}, not a dict")
    problems = [f"there are no '{part}'" for part in _FIELDS if not isinstance(content.get(part), list)]
    problems = problems or _missing(content) or list(_contradictions(content))
    if problems:
        raise InputError(f"{path} is not in COCO's form: {'; '.join(problems)}")
    return content


def missing_fields(content: dict, wanted: Mapping[str, Sequence[str]]) -> list[str]:
    """Tell which fields are not in all entries.

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


def _missing(content: dict) -> list[str]:
    problems = [] if content["categories"] else ["'categories' is empty"]
    problems += missing_fields(content, _FIELDS)
    nameless = sum(not any(image.get(field) for field in LVIS_NAMES) for image in content["images"])
    if nameless:
        problems.append(f"{nameless} of {len(content['images'])} images have neither 'file_name' nor 'coco_url'")
    return problems


def _contradictions(content: dict) -> Iterator[str]:
    for part, field in (("images", "id"), ("annotations", "id"), ("categories", "id"), ("categories", "name")):
        values = [entry[field] for entry in content[part]]
        if len(set(values)) < len(values):
            seen: set = set()
            repeated = next(value for value in values if value in seen or seen.add(value))
            yield f"{len(values)} {part} share {len(set(values))} {field}s ({repeated!r} is there twice)"
    for part, field in (("images", "image_id"), ("categories", "category_id")):
        known = {entry["id"] for entry in content[part]}
        unknown = sum(entry[field] not in known for entry in content["annotations"])
        if unknown:
            yield f"{unknown} annotations have a '{field}' that none of the {part} has"


def class_names(content: dict) -> tuple[str, ...]:
    """Names of the categories, in the file's order: that of the labels."""
    return tuple(category["name"] for category in content["categories"])


def image_name(image: dict, fields: Sequence[str]) -> str:
    """Path of an image, without the server where it is given as an address.

    Args:
        image: an entry of ``images``.
        fields: ``COCO_NAMES`` or ``LVIS_NAMES``.

    Raises:
        ValueError: if the image has none of the fields.
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
        ValueError: with both sides.
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


def some(names: Sequence[str]) -> str:
    """The first names of many, for a message."""
    return ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "") if names else "none"

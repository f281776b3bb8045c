"""Check and repair the content of an annotation file in COCO's or LVIS's format."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np

from pe_dense.datasets.annotation_fields import (
    MAX_ID,
    MISSING,
    FieldError,
    Findings,
    kind,
    read_column,
    read_flag,
    read_integer,
    read_number,
    read_text,
    short,
    wrong_convention,
)
from pe_dense.datasets.segmentation_check import Masks, check_masks

PARTS = ("images", "annotations", "categories")
# pycocotools counts an image's pixels in 32 bits.
MAX_SIDE, MAX_PIXELS = 1_000_000, 2**31 - 1
MAX_COORDINATE = 1e7  # of boxes, in pixels


def check_content(content: dict, *, masks: bool | None) -> Findings:
    """Check every field that is used, and repair unambiguous errors in place.

    Repaired are: numbers given as text or with a decimal point; true, false, text or null for ``iscrowd`` and
    ``ignore``; names that are numbers; ``area`` that is missing, null or NaN, from the mask or else the box; references
    to categories that the file does not list in LVIS's ``neg_category_ids`` and ``not_exhaustive_category_ids``; and
    the forms of masks of :func:`pe_dense.datasets.segmentation_check.check_masks`.

    Args:
        content: parsed content of the file, changed in place.
        masks: True if each annotation must have a mask, None to check masks where present, False to remove them
            unchecked.

    Returns:
        problems and repairs; if there are problems, do not use the content.
    """
    findings = Findings()
    for part in PARTS:
        if not isinstance(content.get(part), list):
            findings.problems.append(f"'{part}' is missing or not a list")
    if findings.problems:
        return findings
    if not content["categories"]:
        findings.problems.append("'categories' is empty")
    for part in PARTS:
        entries = content[part]
        wrong = [row for row, entry in enumerate(entries) if not isinstance(entry, dict)]
        findings.problem(part, entries, wrong, "an entry is not an object", "an object with fields")
    if findings.problems:
        return findings
    _check_images(findings, content)
    _check_categories(findings, content)
    sizes = _check_links(findings, content)
    _check_objects(findings, content["annotations"], sizes, masks)
    return findings


def _integers(findings, part, entries, field, low, high, expected, *, optional=False) -> list:
    return read_column(
        findings,
        part,
        entries,
        field,
        lambda value: read_integer(value, low, high),
        expected,
        plain=(int, type(MISSING)) if optional else (int,),
        optional=optional,
        check=lambda values: all(low <= value <= high for value in values if value is not MISSING),
    )


def _texts(findings, part, entries, field, *, optional=False) -> list:
    return read_column(
        findings, part, entries, field, read_text, "text", plain=(), optional=optional, check=lambda _: False
    )


def _check_images(findings: Findings, content: dict) -> None:
    images = content["images"]
    for field in ("width", "height"):
        _integers(findings, "images", images, field, 1, MAX_SIDE, "a positive number of pixels")
    large = [
        row
        for row, image in enumerate(images)
        if type(image.get("width")) is int
        and type(image.get("height")) is int
        and image["width"] * image["height"] > MAX_PIXELS
    ]
    findings.problem("images", images, large, f"'width' x 'height' is more than {MAX_PIXELS} pixels")
    names = ("file_name", "coco_url")
    nameless = [row for row, image in enumerate(images) if all(image.get(name) in (None, "") for name in names)]
    if nameless:
        findings.problems.append(f"{len(nameless)} of {len(images)} images have neither 'file_name' nor 'coco_url'")
    for name in names:
        named = [image for image in images if image.get(name) not in (None, "")]
        _texts(findings, "images", named, name)
    if any("neg_category_ids" in image for image in images):
        _check_federated(findings, content)


def _check_federated(findings: Findings, content: dict) -> None:
    """Check LVIS's lists of categories per image."""
    images = content["images"]
    known = {category.get("id") for category in content["categories"] if type(category.get("id")) is int}
    for field in ("neg_category_ids", "not_exhaustive_category_ids"):
        listed = [row for row, image in enumerate(images) if field in image]
        faults: dict[str, list[int]] = {}
        dangling = repaired = 0
        for row in listed:
            ids = images[row][field]
            if type(ids) is list and set(map(type, ids)) <= {int} and known.issuperset(ids):
                continue
            try:
                if type(ids) is not list:
                    raise FieldError(kind(ids))
                integers = [read_integer(value) for value in ids]
            except FieldError as error:
                faults.setdefault(f"'{field}' is or has {error}", []).append(row)
                continue
            repaired += any(type(value) is not int for value in ids)
            images[row][field] = [value for value in integers if value in known]
            dangling += len(images[row][field]) < len(integers)
        for fault, rows in faults.items():
            findings.problem("images", images, rows, fault, "a list of category ids")
        findings.repair("images", repaired, f"'{field}' with ids as text or with a decimal point, read as integers")
        findings.repair("images", dangling, f"'{field}' with ids of unknown categories, which were removed")
    categories = content["categories"]
    wrong = [row for row, c in enumerate(categories) if "frequency" in c and c["frequency"] not in ("r", "c", "f")]
    values = sorted({short(categories[row]["frequency"]) for row in wrong})
    findings.problem("categories", categories, wrong, f"'frequency' is {', '.join(values[:3])}", "'r', 'c' or 'f'")


def _check_categories(findings: Findings, content: dict) -> None:
    categories = content["categories"]
    _texts(findings, "categories", categories, "name")
    _integers(findings, "categories", categories, "image_count", 0, MAX_ID, "a number of images", optional=True)


def _check_links(findings: Findings, content: dict) -> np.ndarray:
    """Check ids and references; width and height of each annotation's image (N, 2), NaN where unknown."""
    ids = {}
    for part in PARTS:
        ids[part] = _integers(findings, part, content[part], "id", -MAX_ID, MAX_ID, "an integer")
    for part, values in ids.items():
        if repeated := _repeated(findings, part, content[part], "id", values):
            findings.problems.append(repeated)
    names = [category.get("name", MISSING) for category in content["categories"]]
    if all(isinstance(name, str) for name in names) and (
        repeated := _repeated(findings, "categories", content["categories"], "name", names)
    ):
        findings.problems.append(repeated)
    annotations = content["annotations"]
    for part, field in (("images", "image_id"), ("categories", "category_id")):
        values = _integers(findings, "annotations", annotations, field, -MAX_ID, MAX_ID, "an integer")
        known = set(ids[part])
        if not known.issuperset(values):
            unknown = [row for row, value in enumerate(values) if value is not MISSING and value not in known]
            if unknown:
                findings.problems.append(
                    f"{len(unknown)} annotations have a '{field}' that none of the {part} has "
                    f"({', '.join(short(values[row]) for row in unknown[:3])}{', ...' if len(unknown) > 3 else ''})"
                )
    sides = {
        image["id"]: (image["width"], image["height"])
        for image in content["images"]
        if type(image.get("id")) is int
        and all(type(image.get(side)) is int and 0 < image[side] <= MAX_SIDE for side in ("width", "height"))
    }
    unknown_size = (math.nan, math.nan)
    found = [
        sides.get(image, unknown_size) if type(image) is int else unknown_size
        for image in (annotation.get("image_id") for annotation in annotations)
    ]
    return np.fromiter(chain.from_iterable(found), np.float64, 2 * len(found)).reshape(-1, 2)


def _repeated(findings, part, entries, field, values) -> str | None:
    values = [value for value in values if value is not MISSING]
    if len(set(values)) == len(values):
        return None
    first = next(value for value, count in Counter(values).items() if count > 1)
    return f"{len(values)} {part} share {len(set(values))} {field}s ({short(first)} occurs more than once)"


def _check_objects(findings: Findings, annotations: list[dict], sizes: np.ndarray, masks: bool | None) -> None:
    for field in ("iscrowd", "ignore"):
        read_column(
            findings,
            "annotations",
            annotations,
            field,
            read_flag,
            "0 or 1",
            plain=(int, type(MISSING)),
            optional=True,
            check=lambda values: values - {MISSING} <= {0, 1},
        )
    boxes = _read_boxes(findings, annotations)
    if masks is False:
        found = Masks(len(annotations))
        remove_masks(annotations)
    else:
        found = check_masks(findings, annotations, sizes, required=bool(masks))
    areas = _read_areas(findings, annotations, boxes, found.area)
    if findings.problems or not len(annotations):
        return
    crowds = np.fromiter((bool(annotation.get("iscrowd")) for annotation in annotations), bool, len(annotations))
    convention = wrong_convention(boxes, areas, sizes, without_crowds(found.extent, crowds))
    if convention:
        findings.problems.append(
            f"the boxes look {convention}; COCO's 'bbox' is [left, top, width, height] in pixels. For example "
            f"{annotations[0]['bbox']} in an image of {sizes[0, 0]:.0f} x {sizes[0, 1]:.0f} (width x height)"
        )
    elif masks is not False:
        compare_masks(findings, annotations, boxes, areas, sizes, found)


def remove_masks(annotations: list[dict]) -> None:
    """Remove the masks of annotations in place."""
    for annotation in annotations:
        annotation.pop("segmentation", None)


def without_crowds(extent: np.ndarray, crowds: np.ndarray) -> np.ndarray:
    """Return the extents of masks (N, 4) with NaN for crowds (N, bool), whose masks need not match their boxes."""
    return np.where(crowds[:, None], np.nan, extent)


def _read_boxes(findings: Findings, annotations: list[dict]) -> np.ndarray:
    """Read boxes (N, 4); NaN where there is a problem."""
    values = [annotation.get("bbox", MISSING) for annotation in annotations]
    if set(map(type, values)) <= {list} and set(map(len, values)) <= {4}:
        flat = list(chain.from_iterable(values))
        if set(map(type, flat)) <= {int, float}:
            try:
                boxes = np.array(flat, np.float64).reshape(-1, 4)
            except OverflowError:
                boxes = np.full((1, 4), np.nan)
            if (np.abs(boxes) <= MAX_COORDINATE).all():
                return boxes
    boxes = np.full((len(values), 4), np.nan)
    faults: dict[str, list[int]] = {}
    repaired = []
    for row, value in enumerate(values):
        try:
            box = _read_box(value)
        except FieldError as error:
            faults.setdefault(str(error), []).append(row)
            continue
        boxes[row] = box
        if set(map(type, value)) - {int, float}:
            annotations[row]["bbox"] = box
            repaired.append(value)
    for fault, rows in faults.items():
        expected = "" if fault == "missing" else "four numbers [left, top, width, height] in pixels"
        findings.problem("annotations", annotations, rows, f"'bbox' is {fault}", expected)
    if repaired:
        findings.repair("annotations", len(repaired), f"'bbox' {short(repaired[0])} read as numbers")
    return boxes


def _read_box(value) -> list:
    if value is MISSING:
        raise FieldError("missing")
    if not isinstance(value, list):
        raise FieldError(kind(value))
    if len(value) != 4:
        raise FieldError("not four numbers")
    try:
        box = [read_number(number) for number in value]
    except FieldError as error:
        raise FieldError(f"not four numbers (one is {error})") from None
    if max(map(abs, box)) > MAX_COORDINATE:
        raise FieldError(f"beyond {MAX_COORDINATE:.0e} pixels")
    return box


def _read_areas(findings: Findings, annotations: list[dict], boxes: np.ndarray, of_masks: np.ndarray) -> np.ndarray:
    """Read areas (N), NaN where missing; missing areas are filled in in the annotations."""
    values = [annotation.get("area", MISSING) for annotation in annotations]
    if set(map(type, values)) <= {int, float}:
        try:
            areas = np.array(values, np.float64)
        except OverflowError:
            areas = np.full(len(values), np.nan)
        if np.isfinite(areas).all():
            return areas
    areas = np.full(len(values), np.nan)
    faults: dict[str, list[int]] = {}
    texts = filled = 0
    for row, value in enumerate(values):
        if value is MISSING or value is None or (isinstance(value, float) and math.isnan(value)):
            area = of_masks[row] if np.isfinite(of_masks[row]) else boxes[row, 2] * boxes[row, 3]
            annotations[row]["area"] = float(area)
            filled += 1
            continue
        try:
            areas[row] = annotations[row]["area"] = read_number(value)
        except FieldError as error:
            faults.setdefault(str(error), []).append(row)
            continue
        texts += isinstance(value, str)
    for fault, rows in faults.items():
        findings.problem("annotations", annotations, rows, f"'area' is {fault}", "a number of pixels")
    findings.repair("annotations", texts, "'area' as text read as a number")
    findings.repair("annotations", filled, "'area' that was missing computed from the mask or the box")
    return areas


def compare_masks(findings: Findings, annotations: Sequence, boxes, areas, sizes, masks: Masks) -> None:
    """Report masks of usable objects that are empty, outside of the image or outside of their box.

    Args:
        findings: receives the problems.
        annotations: N entries, for the ids in messages.
        boxes: (N, 4) left, top, width and height.
        areas: (N,), NaN where missing.
        sizes: width and height of the images (N, 2).
        masks: extents and areas of the masks.
    """
    with np.errstate(invalid="ignore"):
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        inside = np.minimum(corners[:, 2:], sizes) - np.maximum(corners[:, :2], 0)
        usable = (boxes[:, 2:] > 0).all(axis=1) & (inside >= 1).all(axis=1) & ~(areas <= 0)
        extent = masks.extent
        known = np.isfinite(extent).all(axis=1)
        outside = usable & known & ((extent[:, 2:] <= 0).any(axis=1) | (extent[:, :2] >= sizes).any(axis=1))
        apart = np.minimum(extent[:, 2:], corners[:, 2:]) - np.maximum(extent[:, :2], corners[:, :2]) < -1
        apart = usable & known & ~outside & apart.any(axis=1)
        empty = usable & (masks.area == 0)
        tiny = (
            usable & known & ~outside & ~apart & ~empty & (extent[:, 2:] <= 1).all(axis=1) & (corners[:, 2:] > 4).all(1)
        )
    for which, what in (
        (outside, "'segmentation' is outside of its image"),
        (tiny, "'segmentation' is normalized to the image's size, must be in pixels"),
        (apart, "'segmentation' is outside of its 'bbox'"),
        (empty, "'segmentation' has no area"),
    ):
        findings.problem("annotations", annotations, np.flatnonzero(which).tolist(), what)

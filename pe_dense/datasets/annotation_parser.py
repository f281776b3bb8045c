"""Parse annotation files into columns, checking them on the way.

A file without any problem or repair is decoded into typed fields, which takes a fraction of the time and memory of
Python's parser and of dicts. Any other file is read as dicts by :func:`pe_dense.datasets.annotations.read_annotations`,
whose findings name the entries; so both ways accept the same files, with the same content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from pe_dense.datasets.annotation_check import (
    MAX_COORDINATE,
    MAX_PIXELS,
    MAX_SIDE,
    check_content,
    compare_masks,
    without_crowds,
)
from pe_dense.datasets.annotation_fields import MAX_ID, Findings, wrong_convention
from pe_dense.datasets.annotation_table import (
    CROWD,
    NO_MASK,
    Annotation,
    AnnotationColumns,
    AnnotationTable,
    Image,
    MaskedAnnotation,
    PackedMasks,
    image_columns,
    order_by_image,
    pack_masks,
)
from pe_dense.datasets.segmentation_check import Masks, check_masks, measure_polygons

CHUNK = 2000  # annotations that are decoded at once, which bounds the memory
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class _Content(msgspec.Struct, gc=False):
    images: list[Image]
    annotations: list[msgspec.Raw]
    categories: list[dict]


class _NotPlainError(Exception):
    """The file has a problem or needs a repair."""


def parse_table(data: bytes, *, masks: bool | None) -> AnnotationTable | None:
    """Parse and check the content of a file that needs no repair.

    Args:
        data: the file.
        masks: as in :func:`pe_dense.datasets.annotations.read_annotations`.

    Returns:
        the table; None if the file has a problem or needs a repair, or may have one.
    """
    try:
        if not data.isascii():
            data.decode()  # the parser skips strings of unused fields
        content = msgspec.json.decode(data, type=_Content)
        categories = content.categories
        images = _checked_images(content.images, categories)
        columns = AnnotationColumns(images["image_ids"], categories)
        found = Masks(len(content.annotations))
        start = 0
        for annotations in _decoded(content.annotations, masks):
            packed = pack_masks([getattr(item, "segmentation", None) for item in annotations])
            sizes = images["sizes"][columns.image_rows(annotations)].astype(np.float64)
            if masks is not False:
                _check_masks(packed, annotations, sizes, found, start, required=bool(masks))
            _require({item.iscrowd for item in annotations} | {item.ignore for item in annotations} <= {0, 1})
            columns.add(annotations, packed)
            start += len(annotations)
        objects, rows = columns.finish()
        _check_objects(objects, images["sizes"][rows].astype(np.float64), found, masks)
    except (msgspec.MsgspecError, _NotPlainError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return AnnotationTable(images | order_by_image(objects, rows, len(images["image_ids"])), categories)


def table_of(content: dict, repairs: Sequence[str] = ()) -> AnnotationTable:
    """Convert checked content of a file to columns.

    Args:
        content: as returned by :func:`pe_dense.datasets.annotations.read_annotations`.
        repairs: descriptions of values that were corrected.
    """
    federated = any("neg_category_ids" in image for image in content["images"])
    unchecked = () if federated else ("not_exhaustive_category_ids",)
    images = [{key: value for key, value in image.items() if key not in unchecked} for image in content["images"]]
    arrays = image_columns(msgspec.convert(images, list[Image]))
    columns = AnnotationColumns(arrays["image_ids"], content["categories"])
    for start in range(0, len(content["annotations"]), CHUNK):
        chunk = msgspec.convert(content["annotations"][start : start + CHUNK], list[MaskedAnnotation])
        columns.add(chunk, pack_masks([item.segmentation for item in chunk]))
    objects, rows = columns.finish()
    objects = order_by_image(objects, rows, len(images))
    return AnnotationTable(arrays | objects, content["categories"], repairs)


def _decoded(raw: list[msgspec.Raw], masks: bool | None) -> Iterator[list[Annotation]]:
    """Decode annotations in chunks, which bounds the memory."""
    decode = msgspec.json.Decoder(Annotation if masks is False else MaskedAnnotation).decode
    for start in range(0, len(raw), CHUNK):
        yield [decode(item) for item in raw[start : start + CHUNK]]


def _checked_images(images: list[Image], categories: list[dict]) -> dict[str, np.ndarray]:
    """Check images and categories; return the columns of the images."""
    columns = image_columns(images)
    federated = bool(columns["listed"].any())
    example = dict(id=0, width=1, height=1, file_name="a") | (dict(neg_category_ids=[]) if federated else {})
    findings = check_content(dict(images=[example], annotations=[], categories=categories), masks=False)
    _require(not findings.problems and not findings.repairs)
    sizes = columns["sizes"].astype(np.int64)
    _require((sizes >= 1).all() and (sizes <= MAX_SIDE).all() and (sizes.prod(axis=1) <= MAX_PIXELS).all())
    _require(_are_ids(columns["image_ids"]))
    _require(all(image.file_name or image.coco_url for image in images))
    for names in ([image.file_name for image in images], [image.coco_url for image in images]):
        named = [name for name in names if name]
        _require(all(map(str.strip, named)) and not _UNPRINTABLE.search("".join(named)))
    known = [category["id"] for category in categories]
    _require(np.isin(columns["negative"], known).all() and np.isin(columns["partial"], known).all())
    return columns


def _require(condition) -> None:
    if not condition:
        raise _NotPlainError


def _are_ids(values: np.ndarray) -> bool:
    return bool((np.abs(values) <= MAX_ID).all()) and len(np.unique(values)) == len(values)


def _check_masks(packed: PackedMasks, annotations, sizes, found: Masks, start: int, *, required: bool) -> None:
    """Check the masks of a chunk, and write their extents and areas to ``found``."""
    _require(not required or (packed.parts != NO_MASK).all())
    _require((packed.lengths >= 6).all() and (packed.lengths % 2 == 0).all())
    if len(packed.lengths):
        owner = np.repeat(np.arange(len(annotations)), np.maximum(packed.parts, 0))
        measure_polygons(packed.values, packed.lengths, owner, start, sizes, found, _Refuse())
    codes = np.flatnonzero(packed.parts < 0)
    if len(codes):
        findings = Findings()
        coded = [dict(segmentation=annotations[row].segmentation) for row in codes.tolist()]
        measured = check_masks(findings, coded, sizes[codes], required=True)
        _require(not findings.problems and not findings.repairs)
        found.extent[start + codes], found.area[start + codes] = measured.extent, measured.area


class _Refuse(dict):
    """Faults of masks: the first one refuses the file."""

    def __missing__(self, fault: str):
        raise _NotPlainError(fault)


def _check_objects(objects: dict[str, np.ndarray], sizes: np.ndarray, found: Masks, masks: bool | None) -> None:
    boxes, areas = objects["boxes"], objects["areas"]
    _require(_are_ids(objects["ids"]))
    _require((np.abs(boxes) <= MAX_COORDINATE).all() and np.isfinite(areas).all())
    if not len(boxes):
        return
    extents = without_crowds(found.extent, (objects["flags"] & CROWD) > 0)
    _require(wrong_convention(boxes, areas, sizes, extents) is None)
    if masks is not False:
        findings = Findings()
        compare_masks(findings, range(len(boxes)), boxes, areas, sizes, found)
        _require(not findings.problems)

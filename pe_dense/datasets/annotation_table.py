"""Annotation files as columns: NumPy arrays that processes share, instead of a dict per object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import msgspec
import numpy as np

CROWD, IGNORE = 1, 2  # bits of `flags`
NEGATIVE, PARTIAL = 1, 2  # bits of `listed`: which of LVIS's lists an image has
# Kinds of masks other than polygons, in place of their number of parts.
NO_MASK, COMPRESSED, AS_JSON = 0, -1, -2
_SCALE = 100.0  # COCO's and LVIS's coordinates have two decimals


class Image(msgspec.Struct, gc=False):
    """Fields of an image that are used; other fields are skipped."""

    id: int
    width: int
    height: int
    file_name: str | None = None
    coco_url: str | None = None
    neg_category_ids: list[int] | msgspec.UnsetType = msgspec.UNSET
    not_exhaustive_category_ids: list[int] | msgspec.UnsetType = msgspec.UNSET


class Annotation(msgspec.Struct, gc=False):
    """Fields of an annotation that are used, except its mask."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int = 0
    ignore: int = 0


class MaskedAnnotation(Annotation, gc=False):
    """Fields of an annotation that are used: a mask is a list of polygons or a run-length code."""

    segmentation: list[list[float]] | dict | None = None


class AnnotationTable:
    """Checked content of an annotation file in COCO's or LVIS's format.

    There are M images in the file's order, and N annotations ordered by image and, within an image, as in the file.

    Attributes:
        arrays: the columns by name, read-only; they may be memory-mapped:

            - images: ``image_ids`` (M), ``sizes`` (M, 2) width and height, ``file_name`` and ``coco_url`` as bytes with
              ``file_name_ends`` and ``coco_url_ends`` (M), ``image_ends`` (M) of the annotations;
              LVIS's lists ``negative`` and ``partial`` with ``negative_ends`` and ``partial_ends`` (M), ``listed`` (M)
            - annotations: ``ids``, ``categories`` (N) as indices, ``boxes`` (N, 4) left, top, width and height,
              ``areas``, ``flags`` (N), ``rank`` (N) in the file, or (0) if that is the same order
            - masks: ``parts`` (N) number of polygons or kind, ``first`` (N) index of the first polygon, or first byte
              in ``codes``; ``part_ends`` of the polygons in ``coordinates``, ``code_ends`` (N) in ``codes``
        categories: entries of ``categories`` with all their fields.
        repairs: descriptions of values that were corrected on reading.
        source: path of the cache file that the arrays are mapped from, None if they are in memory.
    """

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        categories: list[dict],
        repairs: Sequence[str] = (),
        source: str | None = None,
    ) -> None:
        self.arrays = arrays
        self.categories = categories
        self.repairs = list(repairs)
        self.source = source

    def __copy__(self) -> AnnotationTable:
        return self

    def __deepcopy__(self, memo) -> AnnotationTable:
        return self  # the arrays are read-only

    @property
    def num_images(self) -> int:
        """Number of images M."""
        return len(self.arrays["image_ids"])

    @property
    def num_annotations(self) -> int:
        """Number of annotations N."""
        return len(self.arrays["ids"])

    @property
    def federated(self) -> bool:
        """Whether any image has LVIS's ``neg_category_ids``."""
        return bool((self.arrays["listed"] & NEGATIVE).any())

    @property
    def num_masks(self) -> int:
        """Number of annotations with a mask."""
        return int((self.arrays["parts"] != NO_MASK).sum())

    @cached_property
    def category_ids(self) -> np.ndarray:
        """Ids of the categories (K), in the order of the file."""
        return np.array([category["id"] for category in self.categories], np.int64)

    @cached_property
    def image_rows(self) -> np.ndarray:
        """Index of each annotation's image (N)."""
        counts = np.diff(self.arrays["image_ends"], prepend=0)
        return np.repeat(np.arange(self.num_images, dtype=np.int32), counts)

    def without_masks(self) -> AnnotationTable:
        """Return the table without the masks."""
        arrays = {**self.arrays, "parts": np.zeros(self.num_annotations, np.int32)}
        return AnnotationTable(arrays, self.categories, self.repairs)

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the categories in the order of the file, which is the order of the labels."""
        return tuple(category["name"] for category in self.categories)

    def images_without(self, fields: Sequence[str]) -> list[int]:
        """Return the indices of the images that have none of some names, ``file_name`` or ``coco_url``."""
        named = np.zeros(self.num_images, bool)
        for field in fields:
            named |= np.diff(self.arrays[f"{field}_ends"], prepend=0) > 0
        return np.flatnonzero(~named).tolist()

    def annotations_of(self, image: int) -> slice:
        """Return the range of the annotations of an image, given by its index."""
        ends = self.arrays["image_ends"]
        return slice(int(ends[image - 1]) if image else 0, int(ends[image]))

    def images(self) -> list[dict]:
        """Return the used fields of all images, see :meth:`image`."""
        return [self.image(image) for image in range(self.num_images)]

    def image(self, image: int) -> dict:
        """Return ``id``, ``width``, ``height``, names and LVIS's lists of an image, given by its index."""
        width, height = self.arrays["sizes"][image].tolist()
        entry: dict[str, Any] = dict(id=int(self.arrays["image_ids"][image]), width=width, height=height)
        for field in ("file_name", "coco_url"):
            if text := bytes(_item(self.arrays[field], self.arrays[f"{field}_ends"], image)).decode():
                entry[field] = text
        listed = int(self.arrays["listed"][image])
        for bit, column, field in (
            (NEGATIVE, "negative", "neg_category_ids"),
            (PARTIAL, "partial", "not_exhaustive_category_ids"),
        ):
            if listed & bit:
                entry[field] = _item(self.arrays[column], self.arrays[f"{column}_ends"], image).tolist()
        return entry

    def mask(self, row: int, size: Sequence[int]) -> list | dict | None:
        """Return the mask of an annotation: a list of polygons or a run-length code; None if it has no mask.

        Args:
            row: index of the annotation.
            size: width and height of its image.
        """
        arrays = self.arrays
        parts, first = int(arrays["parts"][row]), int(arrays["first"][row])
        if parts == NO_MASK:
            return None
        if parts < 0:
            code = bytes(arrays["codes"][first : int(arrays["code_ends"][row])])
            return json.loads(code) if parts == AS_JSON else dict(size=[size[1], size[0]], counts=code.decode())
        ends = arrays["part_ends"][max(first - 1, 0) : first + parts].tolist()
        starts = ends if first else [0, *ends]
        values = arrays["coordinates"][starts[0] : starts[-1]]
        if values.dtype != np.float64:
            values = values / _SCALE
        numbers = values.tolist()
        return [numbers[start - starts[0] : end - starts[0]] for start, end in zip(starts, starts[1:], strict=False)]

    def annotation(self, row: int, image: dict) -> dict:
        """Return the used fields of an annotation.

        Args:
            row: index of the annotation.
            image: entry of its image.
        """
        arrays = self.arrays
        flags = int(arrays["flags"][row])
        entry = dict(
            id=int(arrays["ids"][row]),
            image_id=image["id"],
            category_id=int(self.category_ids[arrays["categories"][row]]),
            bbox=arrays["boxes"][row].tolist(),
            area=float(arrays["areas"][row]),
            iscrowd=int(bool(flags & CROWD)),
        )
        if flags & IGNORE:
            entry["ignore"] = 1
        mask = self.mask(row, (image["width"], image["height"]))
        return entry if mask is None else {**entry, "segmentation": mask}

    def annotations(self) -> Iterator[dict]:
        """Iterate over all annotations in the order of the file."""
        rank, rows, images = self.arrays["rank"], self.image_rows, self.images()
        for row in np.argsort(rank).tolist() if len(rank) else range(self.num_annotations):
            yield self.annotation(row, images[rows[row]])

    def content(self) -> dict:
        """Return the used fields as in the file: ``images``, ``annotations`` and ``categories``."""
        return dict(images=self.images(), annotations=list(self.annotations()), categories=list(self.categories))


def _item(values: np.ndarray, ends: np.ndarray, index: int) -> np.ndarray:
    return values[int(ends[index - 1]) if index else 0 : int(ends[index])]


def image_columns(images: Sequence[Image]) -> dict[str, np.ndarray]:
    """Convert M images to columns, see :class:`AnnotationTable`.

    Raises:
        OverflowError: if a number is out of range.
    """
    columns = dict(
        image_ids=np.array([image.id for image in images], np.int64),
        sizes=np.array([(image.width, image.height) for image in images], np.int32).reshape(-1, 2),
    )
    for field in ("file_name", "coco_url"):
        texts = [(getattr(image, field) or "").encode() for image in images]
        columns[field] = np.frombuffer(b"".join(texts), np.uint8)
        columns[f"{field}_ends"] = ends_of(texts)
    listed = np.zeros(len(images), np.uint8)
    for bit, column, field in (
        (NEGATIVE, "negative", "neg_category_ids"),
        (PARTIAL, "partial", "not_exhaustive_category_ids"),
    ):
        lists = [getattr(image, field) for image in images]
        listed |= np.array([bit * (ids is not msgspec.UNSET) for ids in lists], np.uint8)
        lists = [() if ids is msgspec.UNSET else ids for ids in lists]
        columns[column] = np.fromiter(chain.from_iterable(lists), np.int64)
        columns[f"{column}_ends"] = ends_of(lists)
    return columns | dict(listed=listed)


def ends_of(items: Iterable) -> np.ndarray:
    """Return the ends of consecutive sequences, which are the cumulated lengths."""
    return np.cumsum(np.fromiter(map(len, items), np.int64))


class AnnotationColumns:
    """Collect annotations in chunks and convert them to columns, see :class:`AnnotationTable`.

    Args:
        image_ids: ids of the images (M).
        categories: entries of ``categories``.
    """

    def __init__(self, image_ids: np.ndarray, categories: Sequence[dict]) -> None:
        self._images = {image: row for row, image in enumerate(image_ids.tolist())}
        self._categories = {category["id"]: row for row, category in enumerate(categories)}
        self._chunks: dict[str, list[np.ndarray]] = {}
        self._num_parts = self._num_coordinates = self._num_bytes = 0

    def image_rows(self, annotations: Sequence[Annotation]) -> np.ndarray:
        """Return the indices of the images of some annotations.

        Raises:
            KeyError: for an id that no image has.
        """
        images = self._images
        return np.array([images[annotation.image_id] for annotation in annotations], np.int32)

    def add(self, annotations: Sequence[Annotation], masks: PackedMasks) -> None:
        """Append annotations.

        Raises:
            KeyError: for an id that no image or category has.
            OverflowError: if an id is out of range.
        """
        categories = self._categories
        flags = [CROWD * bool(item.iscrowd) + IGNORE * bool(item.ignore) for item in annotations]
        columns = dict(
            ids=np.array([item.id for item in annotations], np.int64),
            images=self.image_rows(annotations),
            categories=np.array([categories[item.category_id] for item in annotations], np.int32),
            boxes=np.array([item.bbox for item in annotations], np.float64).reshape(-1, 4),
            areas=np.array([item.area for item in annotations], np.float64),
            flags=np.array(flags, np.uint8),
            parts=masks.parts,
            first=masks.first + np.where(masks.parts < 0, self._num_bytes, self._num_parts),
            part_ends=np.cumsum(masks.lengths) + self._num_coordinates,
            code_ends=masks.code_ends + self._num_bytes,
            coordinates=_shortened(masks.values),
            codes=masks.codes,
        )
        self._num_parts += len(masks.lengths)
        self._num_coordinates += len(masks.values)
        self._num_bytes += len(masks.codes)
        for name, values in columns.items():
            self._chunks.setdefault(name, []).append(values)

    def finish(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the columns in the order of the file, and the index of each annotation's image (N)."""
        if not self._chunks:
            self.add([], pack_masks([]))
        if len({values.dtype for values in self._chunks["coordinates"]}) > 1:
            chunks = self._chunks["coordinates"]
            self._chunks["coordinates"] = [v if v.dtype == np.float64 else v / _SCALE for v in chunks]
        columns = {name: np.concatenate(self._chunks.pop(name)) for name in list(self._chunks)}
        return columns, columns.pop("images")


def _shortened(values: np.ndarray) -> np.ndarray:
    """Store coordinates as hundredths of a pixel (int32) if that is exact, which halves the file."""
    hundredths = np.rint(values * _SCALE)
    exact = (np.abs(hundredths) < 2**31) & (hundredths / _SCALE == values)
    return hundredths.astype(np.int32) if exact.all() and not np.signbit(values[values == 0]).any() else values


def order_by_image(columns: dict[str, np.ndarray], images: np.ndarray, num_images: int) -> dict[str, np.ndarray]:
    """Sort the annotations by the index of their image (N), keeping the order within an image."""
    columns["image_ends"] = np.cumsum(np.bincount(images, minlength=num_images))
    columns["rank"] = np.zeros(0, np.int64)
    if (np.diff(images) < 0).any():
        order = np.argsort(images, kind="stable")
        for name in ("ids", "categories", "boxes", "areas", "flags", "parts", "first", "code_ends"):
            columns[name] = columns[name][order]
        columns["rank"] = order
    return columns


class PackedMasks:
    """Masks of n annotations: polygons as numbers, run-length codes as bytes.

    Attributes:
        parts, first, code_ends: as in :class:`AnnotationTable`, relative to these masks (n).
        values: coordinates of all polygons.
        lengths: number of coordinates of each polygon.
        codes: bytes of all run-length codes.
    """

    def __init__(self, parts, first, code_ends, values, lengths, codes) -> None:
        self.parts, self.first, self.code_ends = parts, first, code_ends
        self.values, self.lengths, self.codes = values, lengths, codes


def pack_masks(masks: Sequence[list[list[float]] | dict | None]) -> PackedMasks:
    """Pack masks in COCO's format."""
    polygons: list[list[float]] = []
    codes: list[bytes] = []
    parts, first, code_ends, num_bytes = [], [], [], 0
    for mask in masks:
        if isinstance(mask, dict):
            plain = mask.keys() == {"size", "counts"} and isinstance(mask["counts"], str)
            parts.append(COMPRESSED if plain else AS_JSON)
            first.append(num_bytes)
            codes.append((mask["counts"] if plain else json.dumps(mask)).encode())
            num_bytes += len(codes[-1])
        else:
            parts.append(len(mask or ()))
            first.append(len(polygons))
            polygons.extend(mask or ())
        code_ends.append(num_bytes)
    return PackedMasks(
        np.array(parts, np.int32),
        np.array(first, np.int64),
        np.array(code_ends, np.int64),
        np.fromiter(chain.from_iterable(polygons), np.float64),
        np.fromiter(map(len, polygons), np.int64, len(polygons)),
        np.frombuffer(b"".join(codes), np.uint8),
    )

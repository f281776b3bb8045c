"""Images with their instances in mmdet's format, made from the columns of an annotation file on access."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pe_dense.datasets.annotation_table import CROWD, IGNORE, AnnotationTable
from pe_dense.datasets.boxes import clip_box

# Reasons to leave a box out, in the order in which they apply.
_REASONS = ("marked 'ignore'", "of zero area", "outside of the image", "less than a pixel wide or high")


@dataclass(frozen=True)
class Usable:
    """Annotations of a table that a data set uses, and counts of the others.

    Attributes:
        kept: whether each annotation is used (N, bool).
        total: number of annotations N.
        left_out: number of boxes that cannot be used, by reason.
        crowds: number of used crowds.
        other_classes: number of annotations of categories without a label.
        clipped: number of used boxes that extend more than a pixel beyond their image.
    """

    kept: np.ndarray
    total: int
    left_out: Counter
    crowds: int
    other_classes: int
    clipped: int


def usable_annotations(table: AnnotationTable, labels: np.ndarray) -> Usable:
    """Select annotations as :func:`pe_dense.datasets.boxes.box_fault` does, all at once.

    Args:
        table: the annotations.
        labels: label of each category of the table, -1 for none (K).
    """
    boxes, areas, flags = (table.arrays[name] for name in ("boxes", "areas", "flags"))
    sizes = table.arrays["sizes"][table.image_rows]
    others = labels[table.arrays["categories"]] < 0
    corners = boxes[:, :2] + boxes[:, 2:]
    inside = (boxes[:, :2] >= 0).all(axis=1) & (corners <= sizes).all(axis=1)
    clipped = np.minimum(corners, sizes) - np.maximum(boxes[:, :2], 0)
    inner = np.where(inside[:, None], boxes[:, 2:], clipped)
    faults = np.select(
        [
            (flags & IGNORE) > 0,
            (boxes[:, 2:] <= 0).any(axis=1) | (areas <= 0),
            (inner <= 0).any(axis=1),
            (inner < 1).any(axis=1),
        ],
        range(len(_REASONS)),
        default=-1,
    )
    kept = ~others & (faults < 0)
    found, first, counts = np.unique(faults[~others & ~kept], return_index=True, return_counts=True)
    order = np.argsort(first)  # equal counts are logged in the order of their first occurrence
    return Usable(
        kept=kept,
        total=len(boxes),
        left_out=Counter({_REASONS[found[i]]: int(counts[i]) for i in order}),
        crowds=int(((flags & CROWD) > 0)[kept].sum()),
        other_classes=int(others.sum()),
        clipped=int((inner < boxes[:, 2:] - 1).any(axis=1)[kept].sum()),
    )


@dataclass(frozen=True)
class InstanceList(Sequence):
    """Images with their instances; an item is what mmdet's ``parse_data_info`` returns.

    Attributes:
        table: the annotations.
        rows: indices of the images in the table.
        kept: whether each annotation is used (N, bool).
        labels: label of each category of the table (K).
        name_of: returns the file name of an image.
        prefix: folder of the images.
        seg_prefix: folder of the segmentation maps, None for no maps.
        seg_suffix: ending of their names.
        extra: further fields of each item.
    """

    table: AnnotationTable
    rows: np.ndarray
    kept: np.ndarray
    labels: np.ndarray
    name_of: Callable[[dict], str]
    prefix: str
    seg_prefix: str | None = None
    seg_suffix: str = ".png"
    extra: Mapping = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __deepcopy__(self, memo) -> InstanceList:
        return self  # immutable

    def __getitem__(self, index: int | slice) -> dict | InstanceList:
        """Return an image with its instances, made anew; or some images for a slice."""
        if isinstance(index, slice):
            return self.select(self.rows[index])
        row = int(self.rows[index])
        image = self.table.image(row)
        name, size = self.name_of(image), (image["width"], image["height"])
        seg_map = os.path.join(self.seg_prefix, name.rsplit(".", 1)[0] + self.seg_suffix) if self.seg_prefix else None
        return dict(
            img_path=os.path.join(self.prefix, name),
            img_id=image["id"],
            seg_map_path=seg_map,
            height=image["height"],
            width=image["width"],
            **self.extra,
            instances=self._instances(row, size),
        )

    def _instances(self, row: int, size: tuple[int, int]) -> list[dict]:
        arrays, where = self.table.arrays, self.table.annotations_of(row)
        labels = self.labels[arrays["categories"][where]].tolist()
        crowds = (arrays["flags"][where] & CROWD).tolist()
        boxes = arrays["boxes"][where].tolist()
        instances = []
        for offset in np.flatnonzero(self.kept[where]).tolist():
            left, top, width, height = clip_box(boxes[offset], *size)
            instance = dict(
                ignore_flag=crowds[offset], bbox=[left, top, left + width, top + height], bbox_label=labels[offset]
            )
            mask = self.table.mask(where.start + offset, size)
            if mask is not None:
                instance["mask"] = mask
            instances.append(instance)
        return instances

    def select(self, rows: np.ndarray) -> InstanceList:
        """Return the images with the given indices in the table."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return InstanceList(**{**fields, "rows": rows})

    def labels_of(self, index: int) -> list[int]:
        """Return the labels of the instances of an image."""
        where = self.table.annotations_of(int(self.rows[index]))
        return self.labels[self.table.arrays["categories"][where]][self.kept[where]].tolist()

    def sizes(self) -> np.ndarray:
        """Return width and height of the images (len, 2)."""
        return self.table.arrays["sizes"][self.rows]

    def counts(self) -> np.ndarray:
        """Return the number of instances of each image (len)."""
        images = self.table.image_rows[self.kept]
        return np.bincount(images, minlength=self.table.num_images)[self.rows]

    def has_coded_objects(self) -> bool:
        """Return whether an instance that is not a crowd has a run-length code."""
        arrays = self.table.arrays
        return bool((self.kept & (arrays["parts"] < 0) & ((arrays["flags"] & CROWD) == 0)).any())

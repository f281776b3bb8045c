"""COCO's panoptic format: a data set that checks its annotation file, and ids that are visible colors.

A PNG file has the id of the segment of each pixel as a color (R + 256 G + 65536 B; 0 for none), and a JSON file lists
the segments of each image. Source: https://cocodataset.org/#format-data, "Panoptic Segmentation".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from mmdet.datasets import CocoPanopticDataset as _CocoPanopticDataset
from mmdet.datasets.api_wrappers import COCOPanoptic

from pe_dense.datasets.annotations import AnnotationError, check_classes, class_names, read_json, some
from pe_dense.ops.panopticapi import OFFSET, VOID, rgb2id
from pe_dense.registry import DATASETS

_JITTER = 40  # of 255, between the colors of one class's objects


def segment_ids(labels: Sequence[int], palette: Sequence[tuple[int, int, int]]) -> list[int]:
    """Choose an id for each segment of an image, so that the PNG file shows the colors of the classes.

    The first segment of a class has the class's color, further ones have similar colors; the same labels give the same
    ids.

    Args:
        labels: classes of N segments.
        palette: RGB color of each class.

    Returns:
        N different ids.
    """
    ids: list[int] = []
    rng = np.random.default_rng(0)
    for label in labels:
        color = np.asarray(palette[label])
        while (new := int(rgb2id(color))) in (VOID, *ids):
            color = np.clip(palette[label] + rng.integers(-_JITTER, _JITTER + 1, 3), 0, 255)
        ids.append(new)
    return ids


@DATASETS.register_module()
class CocoPanopticDataset(_CocoPanopticDataset):
    """mmdet's ``CocoPanopticDataset``, with validation of the annotation file; it takes the same arguments.

    Raises:
        AnnotationError: if the file is not valid; the message lists the problems.
        InputError: if the classes are not the file's, or some of them, in its order.
    """

    def COCOAPI(self, path: str) -> COCOPanoptic:
        """Read the annotation file (called by mmdet's class)."""
        content = read_json(path)
        if problems := list(panoptic_problems(content)):
            raise AnnotationError(f"{path} is not a valid file of panoptic annotations: {'; '.join(problems)}")
        check_classes(self.metainfo["classes"], class_names(content), self.ann_file)
        self._check_things(content["categories"])
        index = COCOPanoptic()
        index.dataset = content
        index.createIndex()
        index.img_ann_map, index.cat_img_map = index.imgToAnns, index.catToImgs
        return index

    def _check_things(self, categories: Sequence[dict]) -> None:
        """Labels of things come first, because heads know them by their number."""
        classes = self.metainfo["classes"]
        things = [one["name"] for one in categories if one["isthing"] and one["name"] in classes]
        if things != list(self.metainfo["thing_classes"]) or things != list(classes[: len(things)]):
            raise AnnotationError(
                f"{self.ann_file}: the categories of things (isthing 1) are {some(things)}; they must be the data "
                f"set's thing_classes, {some(self.metainfo['thing_classes'])}, and the first of its classes"
            )


def panoptic_problems(content) -> Iterator[str]:
    """Yield what is wrong with the content of an annotation file."""
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
        yield f"it must be a dict with the lists {', '.join(lists)}"
        return
    fields = (
        ("images", dict(id=int, file_name=str, width=int, height=int)),
        ("categories", dict(id=int, name=str, isthing=int)),
        ("annotations", dict(image_id=int, file_name=str, segments_info=list)),
    )
    for name, types in fields:
        if found := list(_faults(name, content[name], types)):
            yield from found
            return
    segments = [segment for entry in content["annotations"] for segment in entry["segments_info"]]
    if found := list(_faults("segments_info", segments, dict(id=int, category_id=int, area=(int, float), bbox=list))):
        yield from found
        return
    categories = {entry["id"] for entry in content["categories"]}
    maps = {entry["id"]: entry["file_name"].replace(".jpg", ".png") for entry in content["images"]}
    for entry in content["annotations"]:
        where = f"annotation of image {entry['image_id']}"
        if entry["image_id"] not in maps:
            yield f"{where}: no image has this id"
        elif entry["file_name"] != maps[entry["image_id"]]:
            # mmdet derives the name from the image's.
            yield f"{where}: file_name is {entry['file_name']!r}, must be {maps[entry['image_id']]!r} as its image's"
        ids = [segment["id"] for segment in entry["segments_info"]]
        if len(set(ids)) < len(ids) or not all(VOID < number < OFFSET for number in ids):
            yield f"{where}: the ids of its segments must differ and be from 1 to {OFFSET - 1}"
        if unknown := {segment["category_id"] for segment in entry["segments_info"]} - categories:
            yield f"{where}: no category has the id {min(unknown)}"
        if any(len(segment["bbox"]) != 4 for segment in entry["segments_info"]):
            yield f"{where}: a bbox must have four numbers (left, top, width, height)"


def _faults(name: str, entries: list, types: dict) -> Iterator[str]:
    """Yield the first entry of a list that lacks a field, or has it of another type."""
    for number, entry in enumerate(entries):
        for field, kind in types.items():
            if not isinstance(entry, dict) or not isinstance(entry.get(field), kind):
                shown = getattr(kind, "__name__", "number")
                yield f"{name}: entry {number} has no field {field} of type {shown}"
                return

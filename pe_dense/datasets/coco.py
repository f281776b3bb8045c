"""COCO-format data set of instances."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Sequence

from mmdet.datasets import CocoDataset as _CocoDataset
from mmdet.datasets import Objects365V2Dataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.datasets.transforms import LoadAnnotations
from mmengine.logging import print_log

from pe_dense.datasets.annotations import (
    COCO_NAMES,
    AnnotationError,
    check_classes,
    class_names,
    image_name,
    read_annotations,
)
from pe_dense.registry import DATASETS


def box_fault(box: Sequence[float], area: float, width: int, height: int) -> str | None:
    """Explain why a box cannot be used for training.

    Args:
        box: left, top, width and height in pixels.
        area: area of the object in pixels.
        width: width of the image in pixels.
        height: height of the image in pixels.

    Returns:
        the reason, or None if the box is usable.
    """
    if len(box) != 4 or not all(isinstance(value, int | float) and math.isfinite(value) for value in box):
        return "not four numbers"
    if box[2] <= 0 or box[3] <= 0 or area <= 0:
        return "of zero area"
    *_, inner_width, inner_height = clip_box(box, width, height)
    if inner_width <= 0 or inner_height <= 0:
        return "outside of the image"
    return "less than a pixel wide or high" if min(inner_width, inner_height) < 1 else None


def clip_box(box: Sequence[float], width: int, height: int) -> list[float]:
    """Clip a box to its image; width or height is zero or negative if it is outside.

    Args:
        box: left, top, width and height in pixels.
        width: width of the image in pixels.
        height: height of the image in pixels.
    """
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    if min(left, top) >= 0 and right <= width and bottom <= height:
        return list(box)  # to the last bit
    left, top = max(left, 0), max(top, 0)
    return [left, top, min(right, width) - left, min(bottom, height) - top]


@DATASETS.register_module()
class CocoDataset(_CocoDataset):
    """mmdet's ``CocoDataset``, with validation of the annotation file and a log line for everything that is dropped.

    Boxes are clipped to their image. Boxes of zero area, outside of the image or less than a pixel in it, and objects
    with ``ignore`` set are left out, as in mmdet, and counted in a warning. mmdet accepts classes that the file does
    not have, and shifts the labels of all further ones; here they raise an error. Masks are read if the
    pipeline loads masks, or has no ``LoadAnnotations``.

    Images without objects are dropped from training if ``filter_cfg`` has ``filter_empty_gt=True``, else they are kept
    as images of background; the log says how many. Images with crowds only count as images with objects.

    It takes the arguments of mmdet's class.

    Attributes:
        name_fields: fields of an image with the name of its file; the first one present is used.

    Raises:
        AnnotationError: if the file is not valid (see :func:`pe_dense.datasets.annotations.read_annotations`), or a
            data set for training has no object to learn from.
        InputError: if the classes are not the file's, or some of them, in its order.
    """

    name_fields: tuple[str, ...] = COCO_NAMES

    def COCOAPI(self, path: str) -> COCO:
        """Read the annotation file (called by mmdet's class)."""
        steps = [step for step in self.pipeline.transforms if isinstance(step, LoadAnnotations)]
        masks = any(step.with_mask for step in steps) if steps else None
        content = read_annotations(path, masks=masks)
        self._match_classes(class_names(content))
        index = COCO()
        index.dataset = content
        index.createIndex()
        index.cat_img_map = index.catToImgs
        return index

    def _match_classes(self, names: Sequence[str]) -> None:
        check_classes(self.metainfo["classes"], names, self.ann_file)

    def load_data_list(self) -> list[dict]:
        """Return the images with their instances, in the file's order, see :meth:`parse_data_info`."""
        self._num_objects = self._crowds = self._other_classes = self._clipped = 0
        self._left_out: Counter = Counter()
        images = super().load_data_list()
        if self._left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self._left_out.most_common())
            self._log(f"left out {self._left_out.total()} of {self._num_objects} boxes of {self.ann_file}: {reasons}")
        if self._other_classes:
            self._log(
                f"left out {self._other_classes} of {self._num_objects} boxes of {self.ann_file}: their categories "
                "are not among the classes of this data set",
                logging.INFO,
            )
        if self._clipped:
            self._log(f"clipped {self._clipped} of {self._num_objects} boxes of {self.ann_file} to their images")
        self._check_learnable(len(images))
        self._decode_run_lengths(images)
        return images

    def _log(self, message: str, level: int = logging.WARNING) -> None:
        print_log(f"{type(self).__name__}: {message}", "current", level)

    def _check_learnable(self, num_images: int) -> None:
        """Raise an error for a training set without usable objects; log a warning for such a test set."""
        useless = Counter({"crowds": self._crowds, "of other classes": self._other_classes}) + self._left_out
        if useless.total() < self._num_objects or not num_images:
            return
        reasons = ", ".join(f"{count} {reason}" for reason, count in useless.most_common())
        counts = f"{self.ann_file} has {self._num_objects} annotations in {num_images} images" + (
            f", of which none is usable: {reasons}" if useless else ""
        )
        if self.test_mode:
            self._log(f"there is nothing to evaluate, average precision will be -1: {counts}")
        else:
            raise AnnotationError(f"there is nothing to learn from: {counts}")

    def filter_data(self) -> list[dict]:
        """Drop images without objects and small images, according to ``filter_cfg``."""
        if self.test_mode:
            return self.data_list
        filters = self.filter_cfg or {}
        drop_empty, min_size = filters.get("filter_empty_gt", False), filters.get("min_size", 0)
        large = [image for image in self.data_list if min(image["width"], image["height"]) >= min_size]
        if len(large) < len(self.data_list):
            self._log(
                f"dropped {len(self.data_list) - len(large)} of {len(self.data_list)} images of {self.ann_file} with "
                f"a side under {min_size} pixels (filter_cfg.min_size)"
            )
        if empty := sum(not image["instances"] for image in large):
            self._log(
                f"{'dropped' if drop_empty else 'kept'} {empty} of {len(large)} images of {self.ann_file} that have "
                f"no objects (filter_cfg.filter_empty_gt={drop_empty} in the data set's config)",
                logging.INFO,
            )
        return [image for image in large if image["instances"]] if drop_empty else large

    def _decode_run_lengths(self, images: list[dict]) -> None:
        """Let the pipeline load bitmaps where objects have run-length codes, which mmdet ignores as polygons."""
        steps = [step for step in self.pipeline.transforms if isinstance(step, LoadAnnotations) and step.with_mask]
        if any(not step.poly2mask for step in steps) and any(
            isinstance(instance.get("mask"), dict) and not instance["ignore_flag"]
            for image in images
            for instance in image["instances"]
        ):
            for step in steps:
                step.poly2mask = True

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Convert an image's entry to mmdet's format, without unusable boxes.

        Args:
            raw_data_info: dict with ``raw_img_info`` and ``raw_ann_info``, entries of the file.
        """
        image = dict(raw_data_info["raw_img_info"])
        image["file_name"] = image_name(image, self.name_fields)
        size, kept = (image["width"], image["height"]), []
        for annotation in raw_data_info["raw_ann_info"]:
            if annotation["category_id"] not in self.cat2label:
                self._other_classes += 1
                continue
            fault = box_fault(annotation["bbox"], annotation["area"], *size)
            if annotation.get("ignore"):
                fault = "marked 'ignore'"
            if fault is not None:
                self._left_out[fault] += 1
                continue
            box = clip_box(annotation["bbox"], *size)
            self._clipped += box[2] < annotation["bbox"][2] - 1 or box[3] < annotation["bbox"][3] - 1
            self._crowds += bool(annotation.get("iscrowd"))
            kept.append({**annotation, "bbox": box})
        self._num_objects += len(raw_data_info["raw_ann_info"])
        return super().parse_data_info(dict(raw_img_info=image, raw_ann_info=kept))


@DATASETS.register_module()
class Objects365Dataset(Objects365V2Dataset):
    """mmdet's ``Objects365V2Dataset``, which accepts several names of the annotation file.

    Args:
        ann_file: path of the annotation file, relative to ``data_root``.
        data_root: folder of the data.
        ann_file_alternatives: other names of the file; the first that exists is read where ``ann_file`` does not exist.
        kwargs: those of mmdet's class.
    """

    def __init__(self, ann_file: str = "", *, data_root: str = "", ann_file_alternatives: Sequence[str] = (), **kwargs):
        names = [ann_file, *ann_file_alternatives]
        existing = (name for name in names if os.path.exists(os.path.join(data_root or "", name)))
        super().__init__(ann_file=next(existing, ann_file), data_root=data_root, **kwargs)

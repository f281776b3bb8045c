"""Instances in COCO's format."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence

from mmdet.datasets import CocoDataset as _CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.datasets.transforms import LoadAnnotations
from mmengine.logging import print_log

from pe_dense.datasets.annotations import COCO_NAMES, check_classes, class_names, image_name, read_annotations
from pe_dense.registry import DATASETS


def box_fault(box: Sequence[float], area: float, width: int, height: int) -> str | None:
    """Why nothing can be learned from a box.

    Args:
        box: left, top, width and height in pixels.
        area: of the object, in pixels.
        width: of the image, in pixels.
        height: of the image, in pixels.

    Returns:
        the end of "a box ...", or None for a good one.
    """
    if len(box) != 4 or not all(isinstance(value, int | float) and math.isfinite(value) for value in box):
        return "not of four numbers"
    if box[2] <= 0 or box[3] <= 0 or area <= 0:
        return "of zero area"
    *_, inner_width, inner_height = clip_box(box, width, height)
    if inner_width <= 0 or inner_height <= 0:
        return "outside of the image"
    return "under a pixel wide or high" if min(inner_width, inner_height) < 1 else None


def clip_box(box: Sequence[float], width: int, height: int) -> list[float]:
    """The part of a box that is in its image, of no or a negative extent if there is none.

    Args:
        box: left, top, width and height in pixels.
        width: of the image, in pixels.
        height: of the image, in pixels.
    """
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    if min(left, top) >= 0 and right <= width and bottom <= height:
        return list(box)  # to the last bit
    left, top = max(left, 0), max(top, 0)
    return [left, top, min(right, width) - left, min(bottom, height) - top]


@DATASETS.register_module()
class CocoDataset(_CocoDataset):
    """As mmdet's ``CocoDataset``, but nothing of the file is passed over in silence.

    Boxes are clipped to their image. Those that are of zero area, outside of the image or less than a pixel in it, are
    left out, as mmdet does, and counted in a warning. mmdet ignores classes that the file does not have, which gives
    the labels of all further ones other names.

    Arguments are those of mmdet's class.

    Attributes:
        name_fields: fields of an image that tell its file, the first that is there.

    Raises:
        ValueError: if the file is none in COCO's form (see :func:`pe_dense.datasets.annotations.read_annotations`),
            or the classes are not the file's, or some of them, in its order.
    """

    name_fields: tuple[str, ...] = COCO_NAMES

    def COCOAPI(self, path: str) -> COCO:
        """Read the annotation file: how mmdet's class does it."""
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
        """Images with their instances, in the file's order, each as :meth:`parse_data_info` gives it."""
        self._num_boxes, self._left_out = 0, Counter()
        images = super().load_data_list()
        if self._left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self._left_out.most_common())
            print_log(
                f"{type(self).__name__}: left out {self._left_out.total()} of {self._num_boxes} boxes of "
                f"{self.ann_file}: {reasons}",
                "current",
                logging.WARNING,
            )
        self._decode_run_lengths(images)
        return images

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
        """Bring an image's entry to mmdet's form, without boxes that are useless.

        Args:
            raw_data_info: with ``raw_img_info`` and ``raw_ann_info``, entries of the file.
        """
        image = dict(raw_data_info["raw_img_info"])
        image["file_name"] = image_name(image, self.name_fields)
        size, kept = (image["width"], image["height"]), []
        for annotation in raw_data_info["raw_ann_info"]:
            fault = box_fault(annotation["bbox"], annotation["area"], *size)
            if fault is None:
                kept.append({**annotation, "bbox": clip_box(annotation["bbox"], *size)})
            else:
                self._left_out[fault] += 1
        self._num_boxes += len(raw_data_info["raw_ann_info"])
        return super().parse_data_info(dict(raw_img_info=image, raw_ann_info=kept))

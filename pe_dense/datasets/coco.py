"""COCO-format data set of instances."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np
from mmdet.datasets import CocoDataset as _CocoDataset
from mmdet.datasets import Objects365V2Dataset
from mmdet.datasets.objects365 import objv2_ignore_list
from mmdet.datasets.transforms import LoadAnnotations
from mmengine.logging import print_log

from pe_dense.datasets.annotation_cache import read_table
from pe_dense.datasets.annotation_table import AnnotationTable
from pe_dense.datasets.annotations import COCO_NAMES, AnnotationError, check_classes, image_name
from pe_dense.datasets.boxes import box_fault, clip_box
from pe_dense.datasets.instance_list import InstanceList, usable_annotations
from pe_dense.registry import DATASETS


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

    def _match_classes(self, names: Sequence[str]) -> None:
        check_classes(self.metainfo["classes"], names, self.ann_file)

    def load_data_list(self) -> Sequence[dict]:
        """Return the images with their instances, in the file's order.

        They are read from the file's columns, see :mod:`pe_dense.datasets.annotation_cache`, and made on access. Only a
        class that overrides :meth:`parse_data_info`, or proposals from a file, need a list of all of them.
        """
        steps = [step for step in self.pipeline.transforms if isinstance(step, LoadAnnotations)]
        table = read_table(self.ann_file, masks=any(step.with_mask for step in steps) if steps else None)
        self._match_classes(table.class_names())
        classes = set(self.metainfo["classes"])
        ids = [category["id"] for category in table.categories if category["name"] in classes or not classes]
        self.cat_ids, self.cat2label = ids, {category: label for label, category in enumerate(ids)}
        if type(self).parse_data_info is not CocoDataset.parse_data_info:
            images = self._parse_all(table)
        else:
            images = self._use_columns(table)
            if self.proposal_file is not None:
                images = list(images)
        self._report(len(images))
        if isinstance(images, InstanceList):
            self.serialize_data = False  # the columns are shared by all processes
            coded = images.has_coded_objects()
        else:
            coded = any(
                isinstance(instance.get("mask"), dict) and not instance["ignore_flag"]
                for image in images
                for instance in image["instances"]
            )
        if coded:
            self._decode_run_lengths()
        return images

    def _use_columns(self, table: AnnotationTable) -> InstanceList:
        labels = np.array([self.cat2label.get(category["id"], -1) for category in table.categories], np.int64)
        usable = usable_annotations(table, labels)
        self._num_objects, self._crowds, self._other_classes = usable.total, usable.crowds, usable.other_classes
        self._left_out, self._clipped = usable.left_out, usable.clipped
        extra = {}
        if self.return_classes:
            extra = dict(text=self.metainfo["classes"], caption_prompt=self.caption_prompt, custom_entities=True)
        name_of = self._name_of()
        for row in table.images_without(self.name_fields)[:1]:
            name_of(table.image(row))  # raises the error
        return InstanceList(
            table,
            self._image_rows(table),
            usable.kept,
            labels,
            name_of,
            self.data_prefix["img"],
            self.data_prefix.get("seg"),
            self.seg_map_suffix,
            extra,
        )

    def _name_of(self):
        """Return a function that returns the file name of an entry of ``images``."""
        return partial(image_name, fields=self.name_fields)

    def _image_rows(self, table: AnnotationTable) -> np.ndarray:
        """Return the indices of the images to use."""
        return np.arange(table.num_images)

    def _parse_all(self, table: AnnotationTable) -> list[dict]:
        self._num_objects = self._crowds = self._other_classes = self._clipped = 0
        self._left_out = Counter()
        images = []
        for row in self._image_rows(table).tolist():
            image = table.image(row)
            where = table.annotations_of(row)
            annotations = [table.annotation(number, image) for number in range(where.start, where.stop)]
            image["img_id"] = image["id"]
            images.append(self.parse_data_info(dict(raw_img_info=image, raw_ann_info=annotations)))
        return images

    def _report(self, num_images: int) -> None:
        """Log what is left out, and check that something is left."""
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
        self._check_learnable(num_images)

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

    def get_data_info(self, idx: int) -> dict:
        """Return an image with its instances, see mmdet's class; changing the result does not change the data set."""
        if self._fully_initialized and isinstance(self.data_list, InstanceList):
            return {**self.data_list[idx], "sample_idx": idx if idx >= 0 else len(self) + idx}
        return super().get_data_info(idx)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the labels of the instances of an image."""
        if self._fully_initialized and isinstance(self.data_list, InstanceList):
            return self.data_list.labels_of(idx)
        return super().get_cat_ids(idx)

    def filter_data(self) -> Sequence[dict]:
        """Drop images without objects and small images, according to ``filter_cfg``."""
        if self.test_mode:
            return self.data_list
        filters, images = self.filter_cfg or {}, self.data_list
        drop_empty, min_size = filters.get("filter_empty_gt", False), filters.get("min_size", 0)
        if isinstance(images, InstanceList):
            sides, counts = images.sizes().min(axis=1, initial=2**31 - 1), images.counts()
        else:
            sides = np.array([min(image["width"], image["height"]) for image in images])
            counts = np.array([len(image["instances"]) for image in images])
        large = sides >= min_size
        if not large.all():
            self._log(
                f"dropped {int((~large).sum())} of {len(images)} images of {self.ann_file} with "
                f"a side under {min_size} pixels (filter_cfg.min_size)"
            )
        if empty := int((large & (counts == 0)).sum()):
            self._log(
                f"{'dropped' if drop_empty else 'kept'} {empty} of {int(large.sum())} images of {self.ann_file} that "
                f"have no objects (filter_cfg.filter_empty_gt={drop_empty} in the data set's config)",
                logging.INFO,
            )
        return self._choose(images, np.flatnonzero(large & (counts > 0) if drop_empty else large).tolist())

    def _get_unserialized_subset(self, indices: Sequence[int] | int) -> Sequence[dict]:
        if isinstance(indices, int):
            return super()._get_unserialized_subset(indices)
        return self._choose(self.data_list, indices)

    @staticmethod
    def _choose(images: Sequence[dict], indices: Sequence[int]) -> Sequence[dict]:
        if isinstance(images, InstanceList):
            return images.select(images.rows[np.asarray(indices, np.int64)])
        return [images[index] for index in indices]

    def _decode_run_lengths(self) -> None:
        """Let the pipeline load bitmaps, since mmdet ignores run-length codes when it loads polygons."""
        for step in self.pipeline.transforms:
            if isinstance(step, LoadAnnotations) and step.with_mask:
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
class Objects365Dataset(CocoDataset):
    """Objects365 v2, with several possible names of the annotation file.

    Like mmdet's ``Objects365V2Dataset``, it keeps the last folder of an image's name (``patch16/...jpg``), leaves out
    the three images that were not published, and ignores classes that the file does not have.

    Args:
        ann_file: path of the annotation file, relative to ``data_root``.
        data_root: folder of the data.
        ann_file_alternatives: other names of the file; the first that exists is read where ``ann_file`` does not exist.
        kwargs: those of :class:`CocoDataset`.
    """

    METAINFO = Objects365V2Dataset.METAINFO

    def __init__(self, ann_file: str = "", *, data_root: str = "", ann_file_alternatives: Sequence[str] = (), **kwargs):
        names = [ann_file, *ann_file_alternatives]
        existing = (name for name in names if os.path.exists(os.path.join(data_root or "", name)))
        super().__init__(ann_file=next(existing, ann_file), data_root=data_root, **kwargs)

    def _match_classes(self, names: Sequence[str]) -> None:
        """Accept any names."""

    def _name_of(self):
        return _name_in_patch

    def _image_rows(self, table: AnnotationTable) -> np.ndarray:
        unpublished = set(objv2_ignore_list)
        return np.array(
            [row for row in range(table.num_images) if _name_in_patch(table.image(row)) not in unpublished], np.int64
        )


def _name_in_patch(image: dict) -> str:
    folder, name = os.path.split(image_name(image, COCO_NAMES))
    return os.path.join(os.path.basename(folder), name)

"""The ground truth of an annotation file."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from faster_coco_eval.core.mask import segmToRle

from pe_dense.datasets.annotations import check_classes, missing_fields, read_annotations
from pe_dense.utils.errors import InputError

# LVIS's files, v0.5 and v1, misspell one name, which mmdet's LVIS data sets correct.
_MISSPELT = {"speaker_(stereo_equipment)": "speaker_(stero_equipment)"}


class GroundTruth(ABC):
    """What detections are compared with, and the rules of comparing.

    Attributes:
        required: the fields that each entry of a part of the file must have beyond COCO's.
        advice: what to do about a file that lacks some, for the error message.

    Args:
        path: a JSON file in COCO's format or a kindred one.
        masks: whether masks are to be compared too; they are not kept otherwise.

    Raises:
        AnnotationError: if the file is not valid, see :func:`pe_dense.datasets.annotations.read_annotations`.
        ValueError: if it lacks what the rules need, naming the fields.
    """

    required: dict[str, tuple[str, ...]] = {}
    advice: str

    def __init__(self, path: str | Path, *, masks: bool) -> None:
        self.path = path
        content = read_annotations(path, masks=masks, quiet=True)  # repairs are logged by the data set
        problems = missing_fields(content, self.required)
        if problems:
            raise InputError(f"{path} cannot be evaluated: {'; '.join(problems)}. {self.advice}")
        self._ids = {category["name"]: category["id"] for category in content["categories"]}
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        self._image_ids = set(sizes)
        for number, annotation in enumerate(content["annotations"]):
            annotation["id"] = number + 1  # the evaluator takes 0 for "matches nothing"
            mask = annotation.pop("segmentation", None)
            if masks:
                # What the evaluator makes of `segmentation`, but each time.
                annotation["rle"] = segmToRle(mask, *sizes[annotation["image_id"]])
        self._index(content)

    @abstractmethod
    def _index(self, content: dict) -> None:
        """Keep what the comparison needs of a checked file's content."""

    @abstractmethod
    def counted(self, image_id: int, categories: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Indices, M, of the detections of an image that may count.

        Args:
            image_id: an image of the file.
            categories: N category ids.
            scores: N.
        """

    @abstractmethod
    def average_precision(self, detections: list[dict], categories: np.ndarray, iou_type: str) -> dict[str, float]:
        """Mean precisions and recalls by name, in [0, 1], or -1 where nothing is annotated.

        Args:
            detections: result dicts with ``area`` and with ``bbox`` or ``rle``; they are changed.
            categories: ids of the categories to evaluate.
            iou_type: ``bbox`` or ``segm``.
        """

    @property
    def num_images(self) -> int:
        """Number of images in the file."""
        return len(self._image_ids)

    def check_image(self, image_id: int) -> None:
        """Raise a ``ValueError`` if the file has no such image."""
        if image_id not in self._image_ids:
            raise InputError(f"image {image_id!r} is not among the {self.num_images} images of {self.path}")

    def category_ids(self, classes: Sequence[str]) -> np.ndarray:
        """Category id of each label.

        Args:
            classes: the name that each label stands for: the file's categories or some of them, in its order.

        Raises:
            ValueError: if the file has no category of a name, or another order. (mmdet's data sets number labels in
                the file's order, whatever order their classes have.)
        """
        classes = [name if name in self._ids else _MISSPELT.get(name, name) for name in classes]
        check_classes(classes, tuple(self._ids), self.path)
        return np.array([self._ids[name] for name in classes], dtype=np.int64)

"""The ground truth of an annotation file."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from faster_coco_eval.core.mask import segmToRle
from mmengine.fileio import load

# LVIS's files, v0.5 and v1, misspell one name, which mmdet's LVIS data sets correct.
_MISSPELT = {"speaker_(stereo_equipment)": "speaker_(stero_equipment)"}


class GroundTruth(ABC):
    """What detections are compared with, and the rules of comparing.

    Attributes:
        required: the fields that each entry of a part of the file must have.
        advice: what to do about a file that lacks some, for the error message.

    Args:
        path: a JSON file in COCO's format or a kindred one.
        masks: whether masks are to be compared too; they are not kept otherwise.

    Raises:
        ValueError: if the file lacks what the rules need, naming the fields, or contradicts itself.
    """

    required: dict[str, tuple[str, ...]]
    advice: str

    def __init__(self, path: str | Path, *, masks: bool) -> None:
        self.path = path
        content = load(path, file_format="json")
        self._check(content, masks)
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
        """Mean precisions by name, in [0, 1], or -1 where nothing is annotated.

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
            raise ValueError(f"image {image_id!r} is not among the {self.num_images} images of {self.path}")

    def category_ids(self, classes: Sequence[str]) -> np.ndarray:
        """Category id of each label.

        Args:
            classes: the name that each label stands for: the file's categories or some of them, in its order.

        Raises:
            ValueError: if the file has no category of a name, or another order. (mmdet's data sets number labels in
                the file's order, whatever order their classes have.)
        """
        ids = [self._ids.get(name, self._ids.get(_MISSPELT.get(name))) for name in classes]
        missing = [name for name, id in zip(classes, ids, strict=True) if id is None]
        if missing:
            unused = [name for name, id in self._ids.items() if id not in ids]
            raise ValueError(
                f"{len(missing)} of the data set's {len(classes)} classes are not in {self.path}: {_some(missing)}; "
                f"of the file's {len(self._ids)} categories, {len(unused)} are no class: {_some(unused)}"
            )
        ordered = [id for id in self._ids.values() if id in set(ids)]
        if ids != ordered:
            names = [name for name, id in self._ids.items() if id in set(ids)]
            raise ValueError(
                f"the data set's classes are in another order than in {self.path}: {_some(classes)} there, "
                f"{_some(names)} in the file"
            )
        return np.array(ids, dtype=np.int64)

    def _check(self, content: dict, masks: bool) -> None:
        problems = []
        for part, fields in self.required.items():
            if part not in content:
                problems.append(f"there are no '{part}'")
                continue
            for field in (*fields, *(("segmentation",) if masks and part == "annotations" else ())):
                missing = sum(field not in entry for entry in content[part])
                if missing:
                    problems.append(f"'{field}' is missing in {missing} of {len(content[part])} {part}")
        if not problems:
            problems = self._contradictions(content)
        if problems:
            raise ValueError(f"{self.path} does not serve: {'; '.join(problems)}. {self.advice}")

    def _contradictions(self, content: dict) -> list[str]:
        problems = []
        names = {category["name"] for category in content["categories"]}
        if len(names) < len(content["categories"]):
            problems.append(f"{len(content['categories'])} categories share {len(names)} names")
        for part, field in (("categories", "category_id"), ("images", "image_id")):
            known = {entry["id"] for entry in content[part]}
            unknown = sum(annotation[field] not in known for annotation in content["annotations"])
            if unknown:
                problems.append(f"{unknown} annotations have a '{field}' that none of the {part} has")
        return problems


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "") if names else "none"

"""Base classes of detection metrics and their ground truth, and average precision and recall.

Notation: T = 10 IoU thresholds 0.5, 0.55 ... 0.95; R = 101 recalls 0, 0.01 ... 1; K categories; A = 4 ranges of area:
all, small (up to 32^2 pixels), medium (up to 96^2), large; M limits on the number of detections.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core.mask import area, segmToRle
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from pycocotools.mask import encode
from terminaltables import AsciiTable

from pe_dense.datasets.annotation_cache import read_table
from pe_dense.datasets.annotations import check_classes, missing_fields
from pe_dense.utils.errors import InputError
from pe_dense.utils.garbage import uncollected

# LVIS's files, v0.5 and v1, misspell one name, which mmdet's LVIS data sets correct.
_MISSPELT = {"speaker_(stereo_equipment)": "speaker_(stero_equipment)"}


class GroundTruth(ABC):
    """Base class of ground truth: annotations and evaluation rules.

    Attributes:
        required: fields that each entry of a part of the file must have in addition to COCO's.
        advice: remedy in the error message for a file without them.

    Args:
        path: path of a JSON file in COCO's or a similar format.
        masks: whether masks are evaluated; otherwise they are discarded.

    Raises:
        AnnotationError: if the file is not valid, see :func:`pe_dense.datasets.annotations.read_annotations`.
        ValueError: naming the fields, if required fields are missing.
    """

    required: dict[str, tuple[str, ...]] = {}
    advice: str

    def __init__(self, path: str | Path, *, masks: bool) -> None:
        self.path = path
        self._masks = masks
        self._table = read_table(path, masks=masks, quiet=True)  # repairs are logged by the data set
        images = self._table.images()
        problems = missing_fields(dict(images=images, categories=self._table.categories), self.required)
        if problems:
            raise InputError(f"{path} cannot be evaluated: {'; '.join(problems)}. {self.advice}")
        self._ids = {category["name"]: category["id"] for category in self._table.categories}
        self._image_ids = {image["id"] for image in images}

    def _annotations(self) -> Iterator[dict]:
        """Iterate over the annotations in the evaluator's format, which only the process that evaluates needs."""
        sizes = dict(zip(self._table.arrays["image_ids"].tolist(), self._table.arrays["sizes"].tolist(), strict=True))
        for number, annotation in enumerate(self._table.annotations()):
            annotation["id"] = number + 1  # for the evaluator, 0 means "no match"
            mask = annotation.pop("segmentation", None)
            if self._masks:
                # The evaluator would compute this from `segmentation` every time.
                annotation["rle"] = segmToRle(mask, *sizes[annotation["image_id"]])
            yield annotation

    @abstractmethod
    def counted(self, image_id: int, categories: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return the indices (M,) of the detections of an image that are evaluated.

        Args:
            image_id: id of an image of the file.
            categories: category ids (N,).
            scores: scores (N,).
        """

    @abstractmethod
    def average_precision(self, detections: list[dict], categories: np.ndarray, iou_type: str) -> dict[str, float]:
        """Compute mean precisions and recalls by name, in [0, 1], or -1 without annotations.

        Args:
            detections: result dicts with ``area`` and with ``bbox`` or ``rle``; changed in place.
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
        """Return the category id of each label.

        Args:
            classes: class name of each label: the file's categories or some of them, in the same order.

        Raises:
            ValueError: if a name is not a category of the file, or the order differs. (mmdet's data sets number labels
                in the order of the file, regardless of the order of their classes.)
        """
        classes = [name if name in self._ids else _MISSPELT.get(name, name) for name in classes]
        check_classes(classes, tuple(self._ids), self.path)
        return np.array([self._ids[name] for name in classes], dtype=np.int64)


IOU_TYPES = ("bbox", "segm")


class DetectionMetric(BaseMetric):
    """Average precision of boxes and masks.

    It reports unrounded ``<prefix>/<metric>_<name>``, with the names of the ground truth's ``average_precision``.

    Attributes:
        ground_truth_type: class that reads the annotation file and implements the rules.

    Args:
        ann_file: JSON file of the ground truth. All its images are evaluated.
        metric: ``bbox``, ``segm`` or both.
        **kwargs: arguments of ``BaseMetric``: ``collect_device``, ``collect_dir``, ``prefix``.

    Raises:
        ValueError: if a metric is unknown or the file is not valid; in ``process``, if the image or the classes in
            ``dataset_meta`` are not in the file.
    """

    ground_truth_type: type[GroundTruth]

    def __init__(self, *, ann_file: str, metric: str | Sequence[str] = "bbox", **kwargs) -> None:
        super().__init__(**kwargs)
        self.metrics = [metric] if isinstance(metric, str) else list(metric)
        if not self.metrics or not set(self.metrics) <= set(IOU_TYPES):
            raise InputError(f"metric must be one or both of {IOU_TYPES}, got {metric!r}")
        self.ground_truth = self.ground_truth_type(ann_file, masks="segm" in self.metrics)
        self._category_ids = None

    @property
    def category_ids(self) -> np.ndarray:
        """Return the category id of each label."""
        if self._category_ids is None:
            self._category_ids = self.ground_truth.category_ids(self.dataset_meta["classes"])
        return self._category_ids

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Store the detections to evaluate; only their masks are encoded.

        Args:
            data_batch: not used.
            data_samples: dicts with ``img_id`` and ``pred_instances``, a dict of ``labels`` (N), ``scores`` (N) and
                ``bboxes`` (N x 4, ``x1 y1 x2 y2`` in pixels). For masks also ``masks`` (N x H x W, or a list of N
                compressed run-length codes), and ``mask_scores`` (N) if they differ from ``scores``.
        """
        for sample in data_samples:
            instances = sample["pred_instances"]
            self.ground_truth.check_image(sample["img_id"])
            categories = self.category_ids[instances["labels"].numpy(force=True)]
            result = dict(img_id=sample["img_id"])
            for metric in self.metrics:
                scores = instances["scores"]
                if metric == "segm":
                    scores = instances.get("mask_scores", scores)
                scores = scores.double().numpy(force=True)
                kept = self.ground_truth.counted(sample["img_id"], categories, scores)
                shapes = _boxes(instances["bboxes"], kept) if metric == "bbox" else _masks(instances["masks"], kept)
                result[metric] = (categories[kept], scores[kept], shapes)
            self.results.append(result)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute all metrics from the detections of all images."""
        logger = MMLogger.get_current_instance()
        missing = self.ground_truth.num_images - len(results)
        if missing > 0:
            logger.warning(
                f"{missing} of {self.ground_truth.num_images} images have no result: all their objects count as missed"
            )
        values, rows = {}, []
        for metric in self.metrics:
            with uncollected():  # it would take longer than the evaluation to traverse a dict per detection
                averages = self._evaluate(results, metric)
            values |= {f"{metric}_{name}": value for name, value in averages.items()}
            rows.append([metric, *(f"{100 * value:.2f}" if value >= 0 else "-" for value in averages.values())])
        logger.info("\n" + AsciiTable([["%", *averages], *rows]).table)
        return values

    def _evaluate(self, results: list[dict], metric: str) -> dict[str, float]:
        detections = [entry for result in results for entry in _entries(result["img_id"], metric, *result[metric])]
        if not detections:
            MMLogger.get_current_instance().warning(f"there are no {metric} detections to evaluate")
        return self.ground_truth.average_precision(detections, self.category_ids, metric)


def _boxes(corners: torch.Tensor, kept: np.ndarray) -> np.ndarray:
    corners = corners.double().numpy(force=True)[kept]
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)  # M x 4, x y w h


def _masks(masks: torch.Tensor | list[dict], kept: np.ndarray) -> np.ndarray:
    codes = np.empty(len(kept), dtype=object)  # (M,); an array, since BaseMetric would copy a list item by item
    if not isinstance(masks, torch.Tensor):
        codes[:] = [masks[index] for index in kept]
    elif len(kept):
        masks = masks[torch.from_numpy(kept).to(masks.device)].to(torch.uint8)
        codes[:] = encode(np.asfortranarray(masks.permute(1, 2, 0).numpy(force=True)))  # from H x W x M
    return codes


def _entries(image_id: int, metric: str, categories: np.ndarray, scores: np.ndarray, shapes: np.ndarray) -> list[dict]:
    """Convert the detections of an image to the evaluator's format."""
    shapes = shapes.tolist()
    if metric == "bbox":
        key, sizes = "bbox", [width * height for _, _, width, height in shapes]
    else:  # as `rle`, since the evaluator would encode `segmentation` again
        key, sizes = "rle", area(shapes).tolist() if shapes else []
    return [
        {"image_id": image_id, "category_id": category, "score": score, "area": size, key: shape}
        for category, score, size, shape in zip(categories.tolist(), scores.tolist(), sizes, shapes, strict=True)
    ]


def precision_recall(
    truth: COCO,
    detections: list[dict],
    categories: list[int],
    iou_type: str,
    *,
    max_detections: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Compute interpolated precision and maximum recall with faster-coco-eval.

    Args:
        truth: ground truth, with masks as ``rle``.
        detections: result dicts with ``area`` and with ``bbox`` or ``rle``; an ``id`` is added.
        categories: ids of the K categories.
        iou_type: ``bbox`` or ``segm``.
        max_detections: M increasing limits on the detections per category and image. Precision uses the last one.

    Returns:
        precision T x R x K x A and recall T x K x A x M; -1 without annotations.
    """
    for number, detection in enumerate(detections):
        detection["id"] = number + 1
    evaluator = COCOeval_faster(
        truth,
        COCO(dict(images=truth.dataset["images"], categories=truth.dataset["categories"], annotations=detections)),
        iou_type,
        print_function=_silent,
        rle_iou_max_workers=1,
    )
    evaluator.params.catIds = categories
    evaluator.params.maxDets = list(max_detections)
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator.eval["precision"][..., -1], evaluator.eval["recall"]


def means(precision: np.ndarray) -> dict[str, float]:
    """Compute the mean precisions that COCO and LVIS have in common.

    Args:
        precision: T x R x K x A.

    Returns:
        means by name: the empty name for all, ``50`` and ``75`` for one IoU threshold, ``s``, ``m`` and ``l`` for one
        range of area.
    """
    return {
        "": mean(precision[..., 0]),
        "50": mean(precision[0, ..., 0]),
        "75": mean(precision[5, ..., 0]),
        "s": mean(precision[..., 1]),
        "m": mean(precision[..., 2]),
        "l": mean(precision[..., 3]),
    }


def mean(values: np.ndarray) -> float:
    """Compute the mean of all valid values, which are in [0, 1]; -1 if all are -1."""
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0


def _silent(*_) -> None:
    """Discard the evaluator's progress messages, one per category."""

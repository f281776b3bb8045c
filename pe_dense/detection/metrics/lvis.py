"""LVIS metric: average precision and recall on federated annotations."""

from collections import defaultdict
from functools import cached_property
from pathlib import Path

import numpy as np
from faster_coco_eval import COCO

from pe_dense.detection.metrics.detection_metric import DetectionMetric, GroundTruth, mean, means, precision_recall
from pe_dense.registry import METRICS

MAX_DETECTIONS = 300  # detections per image, over all categories


class LVISGroundTruth(GroundTruth):
    """LVIS ground truth, a federated data set: each category is evaluated on its own set of images.

    These are the images where it is annotated and those where it is verified absent (``neg_category_ids``); in all
    other images its detections are ignored ("LVIS: A Dataset for Large Vocabulary Instance Segmentation", Gupta et al.
    2019, section 2).

    Only few pairs of an image and a category are annotated, but the evaluator iterates over complete tables of images
    and categories. Since it treats categories independently, it is given dense tables: row ``i`` is the ``i``-th image
    of each category, and a table has categories with similar numbers of images.
    """

    required = {
        "categories": ("frequency",),
        "images": ("neg_category_ids", "not_exhaustive_category_ids"),
    }
    advice = (
        "An LVIS file has the frequency of each category and, for each image, the categories that are verified absent "
        "and those that are partly annotated; use CocoMetric for other files"
    )

    def __init__(self, path: str | Path, *, masks: bool) -> None:
        super().__init__(path, masks=masks)
        arrays, images = self._table.arrays, self._table.images()
        counted = (arrays["areas"] > 0) & (arrays["areas"] < np.inf)
        pairs = np.stack([arrays["categories"][counted], self._table.image_rows[counted]], axis=1)
        members = defaultdict(set)
        for category, row in np.unique(pairs, axis=0).tolist():
            members[int(self._table.category_ids[category])].add(images[row]["id"])
        self._partial = set()
        for image in images:
            self._partial.update((category, image["id"]) for category in image["not_exhaustive_category_ids"])
            for category in image["neg_category_ids"]:
                # Categories without any annotation have no precision.
                if category in members:
                    members[category].add(image["id"])
        self._rows = {
            category: {image: row for row, image in enumerate(sorted(ids))} for category, ids in members.items()
        }
        self._counted = defaultdict(list)
        for category, ids in members.items():
            for image in ids:
                self._counted[image].append(category)
        self._frequencies = {category["id"]: category["frequency"] for category in self._table.categories}

    @cached_property
    def _tables(self) -> dict[int, COCO]:
        """Tables by :meth:`_table_of` their categories."""
        entries, members = defaultdict(list), defaultdict(list)
        for annotation in filter(_has_area, self._annotations()):
            category = annotation["category_id"]
            annotation["image_id"] = self._rows[category][annotation["image_id"]]
            # LVIS has `ignore` and no crowds, the evaluator the reverse; and no range contains a negative area.
            annotation.pop("iscrowd", None)
            if annotation.get("ignore"):
                annotation["area"] = -1
            entries[self._table_of(category)].append(annotation)
        for category in self._rows:
            members[self._table_of(category)].append(category)
        tables = {}
        for table, ids in members.items():
            rows = range(max(len(self._rows[category]) for category in ids))
            tables[table] = COCO(
                dict(
                    # The evaluator requires sizes, which it uses to encode masks.
                    images=[dict(id=row, height=0, width=0) for row in rows],
                    annotations=entries[table],
                    categories=[dict(id=category) for category in ids],
                )
            )
        return tables

    def _table_of(self, category: int) -> int:
        return len(self._rows[category]).bit_length()

    def counted(self, image_id: int, categories: np.ndarray, scores: np.ndarray) -> np.ndarray:
        best = np.argsort(-scores, kind="stable")[:MAX_DETECTIONS]
        return best[np.isin(categories[best], self._counted.get(image_id, []))]

    def average_precision(self, detections: list[dict], categories: np.ndarray, iou_type: str) -> dict[str, float]:
        """Compute LVIS's thirteen summary values.

        Returns:
            ``AP`` over all categories; ``AP50`` and ``AP75`` at one IoU threshold; ``APs``, ``APm`` and ``APl`` of
            small, medium and large instances; ``APr``, ``APc`` and ``APf`` of rare, common and frequent categories;
            average recalls ``AR@300``, and by size ``ARs@300``, ``ARm@300`` and ``ARl@300``.
        """
        grouped = defaultdict(list)
        for detection in filter(_has_area, detections):
            category, image = detection["category_id"], detection["image_id"]
            # The evaluator's field for detections that are ignored if unmatched.
            detection["lvis_mark"] = (category, image) in self._partial
            detection["image_id"] = self._rows[category][image]
            grouped[self._table_of(category)].append(detection)
        members = defaultdict(list)
        for category in sorted(set(categories.tolist()) & self._rows.keys()):
            members[self._table_of(category)].append(category)
        precisions, recalls = [np.zeros((10, 101, 0, 4))], [np.zeros((10, 0, 4, 1))]
        for table, ids in members.items():
            precision, recall = precision_recall(
                self._tables[table], grouped[table], ids, iou_type, max_detections=[MAX_DETECTIONS]
            )
            precisions.append(precision)
            recalls.append(recall)
        precision = np.concatenate(precisions, axis=2)  # T x R x K x A
        recall = np.concatenate(recalls, axis=1)[..., 0]  # T x K x A
        groups = np.array([self._frequencies[category] for ids in members.values() for category in ids])
        averages = {f"AP{name}": value for name, value in means(precision).items()}
        averages |= {f"AP{group}": mean(precision[:, :, groups == group, 0]) for group in "rcf"}
        for index, size in enumerate(("", "s", "m", "l")):
            averages[f"AR{size}@{MAX_DETECTIONS}"] = mean(recall[..., index])
        return averages


def _has_area(annotation: dict) -> bool:
    """Return whether ``lvis`` evaluates an annotation or a detection; it drops those of zero area before matching."""
    return 0 < annotation["area"] < np.inf


@METRICS.register_module()
class LVISMetric(DetectionMetric):
    """LVIS's average precision and recall: ``lvis/bbox_AP``, ``lvis/segm_APr``, ``lvis/bbox_AR@300`` ...

    The best 300 detections of an image are evaluated. Detections and annotations of zero area are ignored, as in
    ``lvis``. Detections of categories that are neither annotated nor verified absent in the image are ignored, and so
    are unmatched detections of partly annotated categories.

    Values equal those of the ``lvis`` package. The size of a mask is its own area, as in the official evaluation;
    mmdet's metric of the same name uses the area of the box, so its ``segm_APs``, ``segm_APm`` and ``segm_APl`` differ.
    (An annotation with id 0, which ``lvis`` treats as "no match", is evaluated correctly.)

    Arguments and errors are those of :class:`pe_dense.detection.metrics.detection_metric.DetectionMetric`; the file
    is in the format of LVIS v0.5 or v1.
    """

    default_prefix = "lvis"
    ground_truth_type = LVISGroundTruth

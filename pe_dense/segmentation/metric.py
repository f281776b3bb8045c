"""Mean intersection over union (mIoU)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmseg.evaluation import IoUMetric as _IoUMetric

from pe_dense.registry import METRICS


@METRICS.register_module()
class IoUMetric(_IoUMetric):
    """mmseg's ``IoUMetric`` for mIoU, with pixels counted as integers and without rounding of results.

    Sums in float32 are not exact beyond 2^24 pixels, which classes of ADE20K exceed.

    Args:
        class_table: also log the IoU of each class.
        options: arguments of mmseg's ``IoUMetric``.
    """

    def __init__(self, class_table: bool = True, **options):
        super().__init__(iou_metrics=["mIoU"], **options)
        self.class_table = class_table

    def compute_metrics(self, results: Sequence[tuple]) -> dict[str, float]:
        """Compute the metrics of all images.

        Args:
            results: areas of each image in pixels by class: intersection, union, prediction and ground truth.

        Returns:
            ``mIoU``, ``mAcc`` (mean class accuracy) and ``aAcc`` (pixel accuracy), in percent; classes that occur
            neither in the ground truth nor in the predictions are ignored.
        """
        if self.class_table or self.format_only:
            super().compute_metrics(results)
        if self.format_only:
            return {}
        areas = [torch.stack([image[i].long() for image in results]).sum(0).double() for i in range(4)]
        by_class = self.total_area_to_metrics(*areas)
        mean = {name: 100 * float(np.nanmean(values)) for name, values in by_class.items()}
        return dict(mIoU=mean["IoU"], mAcc=mean["Acc"], aAcc=mean["aAcc"])

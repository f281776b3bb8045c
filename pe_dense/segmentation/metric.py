"""Mean intersection over union."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmseg.evaluation import IoUMetric as _IoUMetric

from pe_dense.registry import METRICS


@METRICS.register_module()
class IoUMetric(_IoUMetric):
    """As mmseg's with its mean IoU, but pixels are counted in integers and results not rounded.

    Sums in float32 lose pixels beyond 2^24, which a class of ADE20k passes.

    Args:
        class_table: log each class's IoU, too.
        options: arguments of mmseg's class.
    """

    def __init__(self, class_table: bool = True, **options):
        super().__init__(iou_metrics=["mIoU"], **options)
        self.class_table = class_table

    def compute_metrics(self, results: Sequence[tuple]) -> dict[str, float]:
        """Sum images up.

        Args:
            results: areas of each image, in pixels by class: intersection, union, predicted and true.

        Returns:
            ``mIoU``, ``mAcc`` (mean share of a class's pixels that are found) and ``aAcc`` (share of all pixels), in
            percent; classes that are neither there nor predicted do not count.
        """
        if self.class_table or self.format_only:
            super().compute_metrics(results)
        if self.format_only:
            return {}
        areas = [torch.stack([image[i].long() for image in results]).sum(0).double() for i in range(4)]
        by_class = self.total_area_to_metrics(*areas)
        mean = {name: 100 * float(np.nanmean(values)) for name, values in by_class.items()}
        return dict(mIoU=mean["IoU"], mAcc=mean["Acc"], aAcc=mean["aAcc"])

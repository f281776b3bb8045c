"""Mean intersection over union (mIoU)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmseg.evaluation import IoUMetric as _IoUMetric

from pe_dense.registry import METRICS
from pe_dense.utils.image import write_png


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

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch, and write its labels to ``output_dir`` if that is set.

        mmseg cuts labels of more than 256 classes to 8 bits and leaves parts of files on a full disk.
        """
        folder, self.output_dir = self.output_dir, None
        try:
            super().process(data_batch, data_samples)
        finally:
            self.output_dir = folder
        for sample in data_samples if folder is not None else ():
            labels = sample["pred_sem_seg"]["data"].squeeze().cpu().numpy()
            labels = labels + bool(sample.get("reduce_zero_label", False))  # as in the files of ADE20K
            dtype = np.uint8 if labels.max() < 256 else np.uint16
            write_png(Path(folder) / f"{Path(sample['img_path']).stem}.png", labels.astype(dtype))

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

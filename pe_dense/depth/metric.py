"""Depth estimation metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from mmseg.evaluation import DepthMetric as _DepthMetric
from torch import Tensor

from pe_dense.registry import METRICS
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import write_png

# First and last edge of the rows and the columns, in heights and widths of the image, as in the code of AdaBins.
_GARG = ((0.40810811, 0.99189189), (0.03594771, 0.96405229))


@METRICS.register_module()
class DepthMetric(_DepthMetric):
    """mmseg's ``DepthMetric``: errors of each image, averaged over images.

    Unlike mmseg, it stores only the errors instead of all pixels, and skips and counts images without valid pixels, for
    which all results of mmseg would become NaN.

    Args:
        crop_type: pixels to evaluate: 'nyu_crop', Eigen's rows 45..470 and columns 41..600 of NYU's images of 640 x 480
            px; 'garg_crop', the part of KITTI's images in which the laser scanner measures, of Garg et al. (arXiv
            1603.04992), in fractions of the image; None for all.
        options: further arguments of mmseg's ``DepthMetric``: ``min_depth_eval``, ``max_depth_eval`` ...

    Raises:
        ValueError: for another ``crop_type``.
    """

    def __init__(self, *, crop_type: str | None = None, **options) -> None:
        if crop_type not in (None, "nyu_crop", "garg_crop"):
            raise InputError(f"crop_type is {crop_type!r}, must be None, 'nyu_crop' or 'garg_crop'")
        super().__init__(crop_type="nyu_crop" if crop_type == "nyu_crop" else None, **options)
        self.crop_type = crop_type

    def _get_eval_mask(self, gt_depth: Tensor) -> Tensor:
        mask = super()._get_eval_mask(gt_depth)
        if self.crop_type == "garg_crop":
            rows, columns = (
                slice(*(int(edge * length) for edge in edges))
                for edges, length in zip(_GARG, gt_depth.shape, strict=True)
            )
            inside = mask.new_zeros(mask.shape)
            inside[rows, columns] = True
            mask &= inside
        return mask

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Compute the errors of each image of a batch (None without valid pixels), and write its depth if
        ``output_dir`` is set: 16-bit PNG, in meters times ``depth_scale_factor``.
        """
        before = len(self.results)
        folder, self.output_dir = self.output_dir, None  # on a full disk, mmseg's method goes on without an error
        try:
            super().process(data_batch, data_samples)
        finally:
            self.output_dir = folder
        for sample in data_samples if folder is not None else ():
            depth = sample["pred_depth_map"]["data"].squeeze().cpu().numpy() * self.depth_scale_factor
            write_png(Path(folder) / f"{Path(sample['img_path']).stem}.png", depth.astype(np.uint16))
        self.results[before:] = [
            self._calc_all_metrics(truth, depth) if len(truth) else None for truth, depth in self.results[before:]
        ]

    def compute_metrics(self, results: Sequence[dict | None]) -> dict[str, float]:
        """Average the errors over images.

        Returns:
            ``rmse`` in meters, ``rmse_log``, ``abs_rel``, ``sq_rel``, ``log10``, ``silog`` and the fractions ``d1``,
            ``d2``, ``d3`` of pixels with a ratio to the true depth below 1.25, 1.25^2, 1.25^3.

        Raises:
            ValueError: if no image has a valid pixel.
        """
        if self.format_only:
            return {}
        known = [errors for errors in results if errors is not None]
        if not known:
            raise InputError(
                f"none of {len(results)} images has a pixel with a depth in "
                f"{self.min_depth_eval}..{self.max_depth_eval} m to evaluate"
            )
        if len(known) < len(results):
            print_log(
                f"{len(results) - len(known)} of {len(results)} images have no valid depth and are skipped", "current"
            )
        return {name: sum(errors[name] for errors in known) / len(known) for name in self.metrics}

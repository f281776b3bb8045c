"""Hook that draws predictions on validation images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pe_dense.registry import HOOKS
from pe_dense.runtime.results import DepthMap, Detections, LabelMap, Result, Source
from pe_dense.utils.errors import ConfigError
from pe_dense.visualization import results as _drawing  # noqa: F401 - enables Result.draw


@HOOKS.register_module()
class ValidationPictureHook(Hook):
    """Draw the predictions on the first images of each validation.

    Pictures are passed to the runner's visualizer as ``val/<number>``, which writes them to the log folder
    (``vis_data/vis_image``) and to its other backends. Objects, label maps and depth maps are drawn; other predictions
    are not.

    Args:
        num_images: number of images.
        score_thr: lowest score of the objects to draw.

    Raises:
        ConfigError: for values out of range.
    """

    priority = "LOW"

    def __init__(self, num_images: int = 4, score_thr: float = 0.3):
        if num_images < 1 or not 0 <= score_thr <= 1:
            raise ConfigError(
                f"num_images must be at least 1 and score_thr from 0 to 1, got {num_images} and {score_thr}"
            )
        self.num_images, self.score_thr = num_images, score_thr
        self._drawn = 0

    def before_val_epoch(self, runner: Runner) -> None:
        """Start again with the first image."""
        self._drawn = 0

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: Sequence | None = None) -> None:
        """Draw images until there are enough."""
        if not is_main_process():
            return
        for sample in outputs or ():
            if self._drawn >= self.num_images:
                return
            result = result_of(sample, runner.val_dataloader.dataset.metainfo)
            if result is not None:
                options = dict(score_thr=self.score_thr) if isinstance(result, Detections) else {}
                runner.visualizer.add_image(f"val/{self._drawn}", result.draw(**options), runner.iter)
                self._drawn += 1


def result_of(sample, metainfo: dict) -> Result | None:
    """Convert the prediction of a data sample to a typed result; None if there is nothing to draw.

    Args:
        sample: data sample of mmdet or mmseg with ``img_path`` and a prediction.
        metainfo: ``classes`` and ``palette`` of the data set, if it has them.
    """
    if not getattr(sample, "img_path", None):
        return None
    classes = tuple(metainfo.get("classes") or ())
    palette = metainfo.get("palette")
    about = dict(
        source=Source(Path(sample.img_path)),
        palette=[tuple(map(int, color)) for color in palette] if isinstance(palette, list | tuple) else None,
    )
    if "pred_instances" in sample:
        found = sample.pred_instances.cpu().numpy()
        return Detections(
            boxes=found.bboxes,
            scores=found.scores,
            labels=found.labels,
            names=tuple(classes[label] for label in found.labels),
            masks=np.asarray(found.masks, bool) if "masks" in found else None,
            classes=classes,
            size=tuple(map(int, sample.ori_shape[:2])),
            **about,
        )
    if "pred_sem_seg" in sample:
        return LabelMap(labels=sample.pred_sem_seg.data[0].cpu().numpy().astype(np.int64), classes=classes, **about)
    if "pred_depth_map" in sample:
        return DepthMap(depth=sample.pred_depth_map.data[0].cpu().float().numpy(), **about)
    return None

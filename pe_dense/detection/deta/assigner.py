"""Which candidates are trained on which objects."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

from pe_dense.registry import TASK_UTILS


@TASK_UTILS.register_module()
class OverlapAssigner:
    """Match candidates to objects by overlap; an object may get several.

    A candidate is positive if it overlaps its best object by the threshold, or if no other overlaps some object more
    (ties included, even at no overlap at all). Of too many positives some are drawn. An object then gets as many
    candidates as it is the best object of positives, up to a limit, and these are the ones that overlap it most: a
    candidate can thus serve two objects. Candidates that are not matched are background.

    Source: DETA (arXiv 2212.06137, section 4) with Detectron2's matcher. Its first stage also draws negatives, which
    play no part: every candidate that is not matched is background.

    Args:
        pos_iou_thr: overlap from which a candidate is positive.
        max_positives: positives per image, as a number (int) or as a share of the candidates (float, 0.25); more are
            drawn from at random.
        max_per_object: candidates per object.
    """

    def __init__(self, pos_iou_thr: float, max_positives: int | float, max_per_object: int = 4):
        self.pos_iou_thr = pos_iou_thr
        self.max_positives = max_positives
        self.max_per_object = max_per_object

    @torch.no_grad()
    def __call__(self, candidates: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
        """Match one image's candidates; N is their number, K that of the objects.

        Args:
            candidates: (N, 4), x1, y1, x2, y2.
            objects: (K, 4), likewise.

        Returns:
            the M pairs, as indices of candidates (M,) and of objects (M,), in the objects' order.
        """
        if not len(objects) or not len(candidates):
            none = torch.zeros(0, dtype=torch.long, device=candidates.device)
            return none, none
        overlaps = box_iou(objects, candidates).nan_to_num(0.0)  # (K, N); 0 / 0 between boxes without area
        best_overlap, best = overlaps.max(dim=0)
        positive = best_overlap >= self.pos_iou_thr
        positive |= (overlaps == overlaps.amax(dim=1, keepdim=True)).any(dim=0)
        positive = positive.nonzero().squeeze(1)
        limit = self.max_positives
        if isinstance(limit, float):
            limit = int(limit * len(candidates))
        if len(positive) > limit:
            drawn = torch.randperm(len(positive), device=positive.device)[:limit]
            positive = positive[drawn]
        most = min(self.max_per_object, len(candidates))
        counts = best[positive].bincount(minlength=len(objects))  # (K,)
        nearest = overlaps.topk(most, dim=1).indices  # (K, most)
        taken = torch.arange(most, device=counts.device) < counts[:, None]
        return nearest[taken], taken.nonzero()[:, 0]

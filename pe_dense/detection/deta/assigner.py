"""Which candidates are trained on which objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor
from torchvision.ops import box_iou

from pe_dense.ops.nms import batched_nms
from pe_dense.registry import TASK_UTILS


@TASK_UTILS.register_module(name=["DETAAssigner", "OverlapAssigner"])
class DETAAssigner:
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


@torch.no_grad()
def choose_proposals(
    boxes: Tensor, logits: Tensor, level_sizes: Sequence[int], *, count: int, per_level: int, iou_threshold: float
) -> Tensor:
    """Choose one image's proposals: the best of each level, without near copies, spread over the levels.

    Of each level the ``per_level`` best go through NMS. Every level gives its best ``count / levels``; what is missing
    then is filled up with the best of the rest, whatever their level. Where NMS leaves too few, the best by objectness
    are taken instead.

    Source: DETA (arXiv 2212.06137, section 4.3 and its published code).

    Args:
        boxes: (S, 4), center and size relative to the image; S is the number of tokens of all levels.
        logits: (S,), objectness.
        level_sizes: tokens of each level, in order; their sum is S.
        count: proposals that are wanted.
        per_level: proposals of a level that NMS sees.
        iou_threshold: of NMS.

    Returns:
        (min(count, S),) indices, best first.
    """
    count = min(count, len(logits))
    sizes = torch.as_tensor(level_sizes, device=boxes.device)
    levels = torch.arange(len(sizes), device=boxes.device).repeat_interleave(sizes)  # (S,)
    starts = [0, *sizes.cumsum(0)[:-1].tolist()]
    candidates = torch.cat(
        [
            start + part.topk(min(per_level, len(part))).indices
            for start, part in zip(starts, logits.split(sizes.tolist()), strict=True)
        ]
    )
    corners = bbox_cxcywh_to_xyxy(boxes[candidates].float()).clamp(0, 1)
    kept = candidates[batched_nms(corners, logits[candidates].float(), levels[candidates], iou_threshold)]
    if len(kept) < count:
        kept = logits.topk(count).indices
    of_level = F.one_hot(levels[kept], len(sizes))
    ranks = (of_level.cumsum(0) * of_level).sum(1)  # from 1, among the kept of the same level
    chosen = ranks <= count // len(sizes)
    rest = (~chosen).nonzero().squeeze(1)
    chosen[rest[: count - int(chosen.sum())]] = True
    return kept[chosen]

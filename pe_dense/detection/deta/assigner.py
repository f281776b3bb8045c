"""Assign candidate boxes to objects by IoU, and select proposals."""

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
    """Match candidates to objects by IoU; an object may be matched to several candidates.

    A candidate is positive if its highest IoU with an object reaches the threshold, or if it has the highest IoU of all
    candidates with some object (including ties, even at an IoU of 0). If there are too many positives, some are
    sampled. Let k be the number of positives whose best object is a given object, up to a limit; that object is then
    matched to the k candidates with the highest IoU, so a candidate can be matched to two objects. Candidates that are
    not matched are background.

    Source: DETA (arXiv 2212.06137, section 4) with Detectron2's matcher. Its first stage also samples negatives, which
        have no effect, because every candidate that is not matched is background.

    Args:
        pos_iou_thr: minimum IoU of a positive candidate.
        max_positives: maximum number of positives per image, as a number (int) or a fraction of the candidates (float,
            0.25); if there are more, they are sampled at random.
        max_per_object: maximum number of candidates per object.
    """

    def __init__(self, pos_iou_thr: float, max_positives: int | float, max_per_object: int = 4):
        self.pos_iou_thr = pos_iou_thr
        self.max_positives = max_positives
        self.max_per_object = max_per_object

    @torch.no_grad()
    def __call__(self, candidates: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
        """Match the N candidates of one image to its K objects.

        Args:
            candidates: (N, 4), x1, y1, x2, y2.
            objects: (K, 4), x1, y1, x2, y2.

        Returns:
            M pairs, as indices of candidates (M,) and of objects (M,), sorted by object.
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
    """Select the proposals of one image: the best of each level after NMS.

    NMS is applied to the ``per_level`` best boxes of each level. The best ``count / levels`` of each level are
    selected, then the best remaining boxes of any level. If too few remain after NMS, the best by objectness are
    selected instead.

    Source: DETA (arXiv 2212.06137, section 4.3 and its published code).

    Args:
        boxes: (S, 4), center and size relative to the image; S is the number of tokens of all levels.
        logits: (S,), objectness logits.
        level_sizes: number of tokens of each level, in order; their sum is S.
        count: number of proposals to select.
        per_level: number of boxes per level before NMS.
        iou_threshold: IoU threshold of NMS.

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
    ranks = (of_level.cumsum(0) * of_level).sum(1)  # rank from 1 among the kept boxes of the same level
    chosen = ranks <= count // len(sizes)
    rest = (~chosen).nonzero().squeeze(1)
    chosen[rest[: count - int(chosen.sum())]] = True
    return kept[chosen]

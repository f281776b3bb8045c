"""Choosing the proposals that become queries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor
from torchvision.ops import batched_nms


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
        boxes: (S, 4), centre and size relative to the image; S is the number of tokens of all levels.
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

"""Cross-entropy of logits that are upsampled to the labels' size, without ever holding them at that size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pe_dense.utils.errors import InputError

# Numbers that are in work together: for each core as many as stay near it, but no fewer than are worth a start of all
# cores together; elsewhere as many as keep a GPU busy.
_CHUNK_OF_A_THREAD = 2**19
_CHUNK_ELSEWHERE = 2**25
# Beyond it, the share of a pixel's class loses digits in float32 until it is 0.
_LARGEST = 80.0


def upsampled_cross_entropy(
    logits: Tensor, labels: Tensor, *, ignore_index: int = 255, class_weight: Tensor | None = None
) -> Tensor:
    """Cross-entropy at the labels' resolution.

    The same, value and gradient, as ``F.cross_entropy(F.interpolate(logits, size, mode='bilinear'), labels)`` in
    mmseg's form (and DINOv2's): the mean over all pixels, ignored ones counting 0, or, with weights, the weighted mean.
    But upsampled logits and their gradient, for 16 images of 512 px and 150 classes 2.5 GB each, exist piece by piece
    only; gradients are computed along with the value.

    How: between four neighboring entries of the map, pixels are weighted sums of these four, with weights that are
    the same everywhere. So all pixels are one product of a small matrix with the corners of such cells.

    Args:
        logits: (B, K, h, w).
        labels: (B, H, W) int64, H and W multiples of h and w.
        ignore_index: label of pixels without a class.
        class_weight: (K,), of the pixels of each class; None for 1.

    Returns:
        a scalar, float32 or wider.

    Raises:
        ValueError: if H and W are no multiples of h and w.
    """
    height, width = logits.shape[-2:]
    if labels.shape[-2] % height or labels.shape[-1] % width:
        raise InputError(
            f"labels of {labels.shape[-2]} x {labels.shape[-1]} px are no multiple of the map of {height} x {width}"
        )
    down, right = labels.shape[-2] // height, labels.shape[-1] // width
    logits = logits if logits.dtype == torch.float64 else logits.float()
    padded = F.pad(logits, (1, 1, 1, 1), mode="replicate").movedim(1, -1)  # (B, h + 2, w + 2, K)
    corners = torch.stack([padded[:, y : y + height + 1, x : x + width + 1] for y in (0, 1) for x in (0, 1)])
    weights = _corner_weights(down, right).to(corners)  # (down * right, 4)
    cells = _cells(labels, down, right, ignore_index)  # (down * right, B * (h + 1) * (w + 1))
    known = cells != ignore_index
    cells = cells.where(known, 0)
    importance = known.to(corners) if class_weight is None else class_weight.to(corners)[cells] * known
    total = _CornerCrossEntropy.apply(corners.flatten(1, 3), weights, cells, importance)
    return total / (labels.numel() if class_weight is None else importance.sum())


def _corner_weights(down: int, right: int) -> Tensor:
    """Share of each corner of a cell in each of its pixels, (down * right, 4)."""
    y, x = (_fractions(factor) for factor in (down, right))
    y, x = torch.stack([1 - y, y]), torch.stack([1 - x, x])  # (2, down), (2, right)
    return torch.einsum("ap,bq->pqab", y, x).reshape(down * right, 4)


def _fractions(factor: int) -> Tensor:
    """Where a cell's pixels lie between its two ends."""
    return (torch.arange(factor, dtype=torch.float64) + 0.5 - (factor + 1) // 2) / factor + 0.5


def _cells(labels: Tensor, down: int, right: int, fill: int) -> Tensor:
    """Labels by cell, (down * right, B * (h + 1) * (w + 1)); cells reach half their size over the edge."""
    top, left = (down + 1) // 2, (right + 1) // 2
    labels = F.pad(labels, (left, right - left, top, down - top), value=fill)
    cells = labels.unflatten(2, (-1, right)).unflatten(1, (-1, down))  # (B, h + 1, down, w + 1, right)
    return cells.permute(2, 4, 0, 1, 3).reshape(down * right, -1)


def _chunk(device: torch.device) -> int:
    return _CHUNK_OF_A_THREAD * torch.get_num_threads() if device.type == "cpu" else _CHUNK_ELSEWHERE


class _CornerCrossEntropy(torch.autograd.Function):
    """Weighted sum of the cross-entropies of N cells' P pixels.

    From corners (4, N, K), their weights in the pixels (P, 4), labels (P, N) and the pixels' importance (P, N).
    """

    @staticmethod
    def forward(ctx, corners: Tensor, weights: Tensor, labels: Tensor, importance: Tensor) -> Tensor:
        _, cells, classes = corners.shape
        pixels = len(weights)
        gradient = torch.empty_like(corners) if ctx.needs_input_grad[0] else None
        total = corners.new_zeros(())
        step = max(_chunk(corners.device) // (pixels * classes), 1)
        for start in range(0, cells, step):
            part = slice(start, start + step)
            logits = (weights @ corners[:, part].flatten(1)).view(pixels, -1, classes)  # (P, n, K)
            index, factor = labels[:, part, None], importance[:, part, None]  # (P, n, 1)
            share = logits.softmax(-1)
            loss = -share.gather(-1, index).log()
            lost = loss[..., 0] > _LARGEST
            if lost.any():
                loss[lost] = logits[lost].logsumexp(-1, keepdim=True) - logits[lost].gather(-1, index[lost])
            total += (loss * factor).sum()
            if gradient is not None:
                share.mul_(factor).scatter_add_(-1, index, -factor)
                gradient[:, part] = (weights.T @ share.flatten(1)).view(4, -1, classes)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx, upstream: Tensor):
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None, None

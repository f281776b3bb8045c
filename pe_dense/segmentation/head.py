"""Linear head and models for semantic segmentation probes, and their loss at the resolution of the labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from pe_dense.probing import LayerProbe, LayerSweep
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError

# Number of logits processed at a time: per CPU thread, few enough to stay in its cache and enough to amortize the
# start of parallel work; on other devices, enough to keep a GPU busy.
_CHUNK_OF_A_THREAD = 2**19
_CHUNK_ELSEWHERE = 2**25
# Above this loss, the softmax probability of a class loses precision in float32 and underflows to 0.
_LARGEST = 80.0


@MODELS.register_module()
class LinearHead(BaseDecodeHead):
    """Linear segmentation head: BatchNorm and a 1x1 convolution; logits are upsampled bilinearly.

    Source: DINOv2's linear head (arXiv 2304.07193, section 7.4), the Perception Encoder's probe (appendix B.3.3).

    Args:
        width: number of channels of a map.
        num_taps: number of maps, which are concatenated.
        num_classes: number of classes K.
        ignore_index: label of pixels to ignore.
        class_weight: weight of each class in the loss; None for equal weights.
        dropout_ratio: share of channels that are dropped in training, 0.1 in DINOv3's probe.

    Raises:
        ValueError: if the length of ``class_weight`` is not ``num_classes``.
    """

    def __init__(
        self,
        width: int,
        num_taps: int,
        num_classes: int,
        ignore_index: int = 255,
        class_weight: Sequence[float] | None = None,
        dropout_ratio: float = 0.0,
    ):
        if class_weight is not None and len(class_weight) != num_classes:
            raise InputError(f"class_weight has {len(class_weight)} entries for {num_classes} classes")
        channels = width * num_taps
        super().__init__(
            in_channels=channels,
            channels=channels,
            num_classes=num_classes,
            out_channels=num_classes,
            dropout_ratio=dropout_ratio,
            ignore_index=ignore_index,
            loss_decode=dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True),  # unused, but required by mmseg
            init_cfg=None,
        )
        weight = None if class_weight is None else torch.tensor(class_weight)
        self.register_buffer("class_weight", weight, persistent=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Compute logits (B, K, h, w) from a list of maps (B, width, h, w)."""
        maps = torch.cat(list(inputs), dim=1)
        if self.dropout is not None:
            maps = self.dropout(maps)
        return self.conv_seg(self.norm(maps))

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: Sequence) -> dict[str, Tensor]:
        """Compute the cross-entropy at full resolution.

        Args:
            seg_logits: (B, K, h, w).
            batch_data_samples: data samples with ``gt_sem_seg`` of the same size.
        """
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, H, W)
        loss = upsampled_cross_entropy(
            seg_logits, labels, ignore_index=self.ignore_index, class_weight=self.class_weight
        )
        return dict(loss_ce=loss)


@MODELS.register_module()
class SegmentationProbe(LayerProbe, EncoderDecoder):
    """mmseg's ``EncoderDecoder`` on a :class:`~pe_dense.backbones.FrozenTower`, which determines the head size."""


@MODELS.register_module()
class SegmentationSweep(LayerSweep, EncoderDecoder):
    """Layer sweep for segmentation; see :class:`~pe_dense.probing.LayerSweep` for arguments in addition to mmseg's."""

    @staticmethod
    def compact(sample: SegDataSample) -> SegDataSample:
        """Keep the label map (as uint8 if possible) and remove the logits."""
        labels, classes = sample.pred_sem_seg.data, len(sample.seg_logits.data)
        sample.pred_sem_seg.data = labels.to(torch.uint8 if classes < 256 else torch.int32)
        del sample.seg_logits
        return sample


def upsampled_cross_entropy(
    logits: Tensor, labels: Tensor, *, ignore_index: int = 255, class_weight: Tensor | None = None
) -> Tensor:
    """Compute the cross-entropy at the resolution of the labels.

    Value and gradient equal those of ``F.cross_entropy(F.interpolate(logits, size, mode='bilinear'), labels)`` with the
    reduction of mmseg and DINOv2: the mean over all pixels, in which ignored pixels count as 0, or the weighted mean if
    weights are given. The upsampled logits and their gradient (2.5 GB each for 16 images of 512 px and 150 classes) are
    only computed in chunks, and gradients are computed together with the value.

    The pixels between four neighboring entries of the map are weighted sums of these entries, with the same weights in
    every such cell. All pixels are therefore the product of a small matrix with the corners of the cells.

    Args:
        logits: (B, K, h, w).
        labels: (B, H, W) int64, H and W multiples of h and w.
        ignore_index: label of pixels to ignore.
        class_weight: (K,), weight of each class; None for equal weights.

    Returns:
        a scalar, float32 or wider.

    Raises:
        ValueError: if H and W are not multiples of h and w.
    """
    height, width = logits.shape[-2:]
    if labels.shape[-2] % height or labels.shape[-1] % width:
        raise InputError(
            f"labels of {labels.shape[-2]} x {labels.shape[-1]} px are not a multiple of logits of {height} x {width}"
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
    """Compute the bilinear weight of each corner of a cell for each of its pixels, (down * right, 4)."""
    y, x = (_fractions(factor) for factor in (down, right))
    y, x = torch.stack([1 - y, y]), torch.stack([1 - x, x])  # (2, down), (2, right)
    return torch.einsum("ap,bq->pqab", y, x).reshape(down * right, 4)


def _fractions(factor: int) -> Tensor:
    """Compute the relative positions of the pixels of a cell between its two ends."""
    return (torch.arange(factor, dtype=torch.float64) + 0.5 - (factor + 1) // 2) / factor + 0.5


def _cells(labels: Tensor, down: int, right: int, fill: int) -> Tensor:
    """Arrange labels by cell, (down * right, B * (h + 1) * (w + 1)); cells extend over the edge by half their size."""
    top, left = (down + 1) // 2, (right + 1) // 2
    labels = F.pad(labels, (left, right - left, top, down - top), value=fill)
    cells = labels.unflatten(2, (-1, right)).unflatten(1, (-1, down))  # (B, h + 1, down, w + 1, right)
    return cells.permute(2, 4, 0, 1, 3).reshape(down * right, -1)


def _chunk(device: torch.device) -> int:
    return _CHUNK_OF_A_THREAD * torch.get_num_threads() if device.type == "cpu" else _CHUNK_ELSEWHERE


class _CornerCrossEntropy(torch.autograd.Function):
    """Weighted sum of the cross-entropy over the P pixels of N cells.

    Inputs are corners (4, N, K), their bilinear weights (P, 4), labels (P, N) and weights of pixels (P, N).
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

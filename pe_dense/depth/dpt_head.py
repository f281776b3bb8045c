"""DPT heads for depth estimation: mmseg's, and DINOv2's with its loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.models.decode_heads import DPTHead
from torch import Tensor, nn

from pe_dense.depth.linear_head import LOSS, DepthLoss
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError

STAGES = 4
_HIDDEN = 32  # channels before the last convolution


def stages(width: int, num_taps: int) -> dict:
    """Build arguments of mmseg's ``DPTHead`` for the feature maps of a backbone.

    Args:
        width: channels of a map, a multiple of 8.
        num_taps: number of maps: 1, which is used by all stages, or 4.

    Raises:
        ValueError: for another number of maps.
    """
    if num_taps not in (1, STAGES):
        raise InputError(f"a DPT head requires 1 or {STAGES} feature maps, got {num_taps}")
    return dict(
        embed_dims=width,
        post_process_channels=[width // 8, width // 4, width // 2, width],
        in_channels=[width] * STAGES,
        in_index=list(range(STAGES)),
        input_transform="multiple_select",
        num_classes=1,
        threshold=0.0,  # no effect, but mmseg warns if it is missing
        dropout_ratio=0.0,
        init_cfg=None,
    )


@MODELS.register_module()
class DPTDepthHead(DepthLoss, DPTHead):
    """mmseg's DPT head for depth estimation, on one map (used by all four stages) or on four.

    Depth is a sigmoid scaled to the depth range; the loss is mmseg's SILog. For DINOv2's head and loss see
    :class:`~pe_dense.depth.DINOv2DepthHead`.

    Source: DPT (arXiv 2103.13413); on one layer as in the Perception Encoder's appendix B.3.3.

    Args:
        width: number of channels of a map, a multiple of 8.
        num_taps: number of maps, 1 or 4.
        min_depth, max_depth: range of the output, in meters.
        channels: number of channels of the fusion stages.

    Raises:
        ValueError: for another number of maps.
    """

    def __init__(
        self, width: int, num_taps: int, min_depth: float = 1e-3, max_depth: float = 10.0, channels: int = 256
    ):
        super().__init__(**stages(width, num_taps), channels=channels, loss_decode=LOSS)
        self.learn_depth(min_depth, max_depth)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Predict depth in meters (B, 1, 8 h, 8 w) from one or four maps (B, width, h, w)."""
        maps = list(inputs) * (STAGES // len(inputs))
        share = super().forward([(feature_map, None) for feature_map in maps]).float().sigmoid()
        return self.min_depth + (self.max_depth - self.min_depth) * share


@MODELS.register_module()
class DINOv2DepthHead(DepthLoss, DPTHead):
    """DINOv2's DPT depth head, with the class token as readout, a final ReLU and DINOv2's loss.

    It differs from :class:`~pe_dense.depth.DPTDepthHead`, mmseg's DPT, as follows: there is no batch normalization, the
    class token is concatenated to each token and projected, the output layers are convolutions with upsampling between
    them, and depth is ``relu + min_depth``, clamped to ``max_depth`` in testing only. Channels of the stages are
    proportional to the width of the backbone.

    Source: DINOv2's depth evaluation (arXiv 2304.07193, section 7.4), on DPT (arXiv 2103.13413). The four stages use
    one map, as in the Perception Encoder's appendix B.3.3, or four.

    Args:
        width: number of channels of a map, a multiple of 8.
        num_taps: number of maps, 1 or 4.
        class_token: whether inputs are pairs of a map and its class token. :class:`~pe_dense.depth.DepthProbe` sets it
            if its backbone has a class token.
        min_depth, max_depth: range of the output, in meters.
        channels: number of channels of the fusion stages.
        loss: config of the loss.

    Raises:
        ValueError: for another number of maps, or an invalid depth range.
    """

    def __init__(
        self,
        width: int,
        num_taps: int,
        class_token: bool = False,
        min_depth: float = 1e-3,
        max_depth: float = 10.0,
        channels: int = 256,
        loss: dict | None = None,
    ) -> None:
        super().__init__(
            **stages(width, num_taps),
            readout_type="project" if class_token else "ignore",
            norm_cfg=None,
            channels=channels,
            loss_decode=loss or dict(type="pe_dense.SigLoss"),
        )
        self.class_token = class_token
        self.learn_depth(min_depth, max_depth)
        self.conv_seg = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(channels // 2, _HIDDEN, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_HIDDEN, 1, 1),
        )

    def forward(self, inputs: Sequence[Tensor] | Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Predict depth in meters, without clamping to ``max_depth``.

        Args:
            inputs: one or four maps (B, width, h, w); with ``class_token``, pairs of a map and a token (B, width).

        Returns:
            (B, 1, 16 h, 16 w).
        """
        pairs = list(inputs) if self.class_token else [(feature_map, None) for feature_map in inputs]
        return super().forward(pairs * (len(self.in_index) // len(pairs))).float().relu() + self.min_depth

    def predict_by_feat(self, seg_logits: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Clamp depths to the depth range and resize them to the image size, (B, 1, H, W)."""
        return super().predict_by_feat(seg_logits.clamp(self.min_depth, self.max_depth), batch_img_metas)


_MEAN_WEIGHT = 0.15  # weight of the squared mean relative to the variance


@MODELS.register_module()
class SigLoss(nn.Module):
    """Scale-invariant logarithmic depth loss over all pixels of a batch, or of each of its groups of images.

    ``sqrt(var(g) + 0.15 mean(g)^2)`` with ``g = log(predicted + eps) - log(true + eps)`` and the unbiased variance. In
    the first training steps the variance is omitted, so that the scale is learned first.

    Source: DINOv2's depth evaluation (arXiv 2304.07193, section 7.4), after AdaBins (arXiv 2011.14141), and DINOv3's
    (arXiv 2508.10104; ``eval/depth/loss.py``). It differs from ``mmseg.SiLogLoss``, which is computed image by image,
    with the mean weighted by 0.5.

    Args:
        loss_weight: weight of the loss.
        warmup_steps: number of training steps without the variance; the step counter is saved in checkpoints.
        eps: added to depths before the logarithm, in meters.
        loss_name: name of the loss in the log; only losses whose names begin with ``loss`` have gradients.
        group_size: number of images over which the loss is computed; losses of groups are averaged. None for the whole
            batch. DINOv2 and DINOv3 train with two images on each of eight GPUs, so with 2 the loss does not depend on
            the number of GPUs that share 16 images.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        warmup_steps: int = 100,
        eps: float = 1e-3,
        loss_name: str = "loss_sig",
        group_size: int | None = None,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.warmup_steps = warmup_steps
        self.eps = eps
        self.loss_name = loss_name
        self.group_size = group_size
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Compute the loss of a batch.

        Args:
            predicted: (B, 1, H, W) depths in meters.
            true: (B, 1, H, W) depths in meters; pixels of unknown depth (0) are ignored, and at least one is known.

        Returns:
            a scalar.
        """
        warming_up = bool(self.training and self.steps < self.warmup_steps)
        self.steps += warming_up
        size = self.group_size or max(len(true), 1)
        groups = zip(predicted.split(size), true.split(size), strict=True)
        losses = [self._loss(*group, with_variance=not warming_up) for group in groups if (group[1] > 0).any()]
        return self.loss_weight * torch.stack(losses).mean()

    def _loss(self, predicted: Tensor, true: Tensor, with_variance: bool) -> Tensor:
        known = true > 0
        g = torch.log(predicted[known].float() + self.eps) - torch.log(true[known].float() + self.eps)
        squared = _MEAN_WEIGHT * g.mean().square()
        if with_variance and g.numel() > 1:
            squared = squared + g.var()
        return squared.sqrt()

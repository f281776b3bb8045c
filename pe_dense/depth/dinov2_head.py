"""DINOv2's DPT head for depth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.models.decode_heads import DPTHead
from torch import Tensor, nn

from pe_dense.depth.dpt_head import stages
from pe_dense.depth.linear_head import DepthLoss
from pe_dense.registry import MODELS

_HIDDEN = 32  # channels before the last convolution


@MODELS.register_module()
class DINOv2DepthHead(DepthLoss, DPTHead):
    """DPT with a class token as readout, ReLU as the last activation and DINOv2's loss.

    It differs from :class:`~pe_dense.depth.DPTDepthHead`, mmseg's DPT: no batch normalization, the class token is
    concatenated to each token and projected, the output has convolutions of its own with an upsampling between, and
    depth is ``relu + min_depth``, limited to ``max_depth`` in testing only. Channels of the stages scale with the
    width of the backbone.

    Source: DINOv2's depth evaluation (arXiv 2304.07193, section 7.4), on DPT (arXiv 2103.13413). The four stages see
    one map, as in the Perception Encoder's appendix B.3.3, or four.

    Args:
        width: channels of a map, a multiple of 8.
        num_taps: 1 or 4.
        class_token: whether inputs are pairs of a map and its class token. :class:`~pe_dense.depth.DepthProbe` sets it
            to whether its backbone has a class token.
        min_depth, max_depth: range of the output, in meters.
        channels: of the fusion stages.
        loss: config of the loss.

    Raises:
        ValueError: for another number of maps, or a range that is not of positive depths.
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
        """Depth in meters, not limited to ``max_depth``.

        Args:
            inputs: one or four maps (B, width, h, w), with ``class_token`` pairs of a map and a token (B, width).

        Returns:
            (B, 1, 16 h, 16 w).
        """
        pairs = list(inputs) if self.class_token else [(feature_map, None) for feature_map in inputs]
        return super().forward(pairs * (len(self.in_index) // len(pairs))).float().relu() + self.min_depth

    def predict_by_feat(self, seg_logits: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Limit depths to the range and resize them to the images, (B, 1, H, W)."""
        return super().predict_by_feat(seg_logits.clamp(self.min_depth, self.max_depth), batch_img_metas)


_MEAN_WEIGHT = 0.15  # of the squared mean beside the variance


@MODELS.register_module()
class SigLoss(nn.Module):
    """Scale-invariant loss of logarithms over all pixels of a batch.

    ``sqrt(var(g) + 0.15 mean(g)^2)`` with ``g = log(predicted + eps) - log(true + eps)`` and the unbiased variance. In
    the first training steps the variance is left out, so that the scale is learned first.

    Source: DINOv2's depth evaluation (arXiv 2304.07193, section 7.4), after AdaBins (arXiv 2011.14141). It differs from
    ``mmseg.SiLogLoss``, which is computed image by image, with the mean weighted by 0.5.

    Args:
        loss_weight: factor of the loss.
        warmup_steps: training steps without the variance. They are counted in the checkpoint.
        eps: added to depths before the logarithm, in meters.
        loss_name: name of the loss in the log; only names that begin with ``loss`` have gradients.
    """

    def __init__(
        self, loss_weight: float = 1.0, warmup_steps: int = 100, eps: float = 1e-3, loss_name: str = "loss_sig"
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.warmup_steps = warmup_steps
        self.eps = eps
        self.loss_name = loss_name
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            predicted: (B, 1, H, W) depths in meters.
            true: (B, 1, H, W); pixels of 0 have no known depth and are left out.

        Returns:
            a scalar.
        """
        known = true > 0
        g = torch.log(predicted[known].float() + self.eps) - torch.log(true[known].float() + self.eps)
        squared = _MEAN_WEIGHT * g.mean().square()
        warming_up = self.training and self.steps < self.warmup_steps
        if warming_up:
            self.steps += 1
        elif g.numel() > 1:
            squared = squared + g.var()
        return self.loss_weight * squared.sqrt()

"""Linear head and models for depth probes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import signature

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import DepthEstimator
from mmseg.models.utils import resize
from torch import Tensor, nn

from pe_dense.probing import LayerProbe, LayerSweep
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError

# Scale-invariant log loss, Eigen et al. (arXiv 1406.2283).
LOSS = dict(type="mmseg.SiLogLoss")


class DepthLoss:
    """Mixin for mmseg heads that predict a depth map in meters.

    The loss is computed at the size of the ground truth. Pixels of unknown depth (0) are ignored, as are images without
    any pixel of known depth.
    """

    def learn_depth(self, min_depth: float, max_depth: float) -> None:
        """Set the depth range in meters; to be called after the constructor of the head.

        Raises:
            ValueError: if ``0 < min_depth < max_depth`` does not hold.
        """
        if not 0.0 < min_depth < max_depth:
            raise InputError(
                f"depth range must satisfy 0 < min_depth < max_depth, got min_depth={min_depth}, max_depth={max_depth}"
            )
        self.min_depth, self.max_depth = min_depth, max_depth
        self.num_classes = self.out_channels = 1

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: Sequence) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Args:
            seg_logits: predicted depth in meters, (B, 1, h, w).
            batch_data_samples: data samples with ``gt_depth_map`` in meters, of the same size.
        """
        name = self.loss_decode.loss_name
        truth = torch.stack([sample.gt_depth_map.data for sample in batch_data_samples])  # (B, 1, H, W)
        known = (truth > 0).flatten(1).any(1)
        if not known.any():
            return {name: 0.0 * seg_logits.sum()}
        depth = resize(seg_logits[known], truth.shape[-2:], mode="bilinear", align_corners=False)
        return {name: self.loss_decode(depth, truth[known])}


# Added to every bin before normalization, so that every pixel has a gradient.
_FLOOR = 0.1


@MODELS.register_module()
class LinearDepthHead(DepthLoss, BaseDecodeHead):
    """Linear depth head: BatchNorm and a 1x1 convolution to weights of depth bins, whose weighted mean is the depth.

    Source: DINOv2's linear depth head (arXiv 2304.07193, appendix B): uniform bins, normalized ReLU weights, logits
    upsampled by a factor of 4. DINOv3's (arXiv 2508.10104; ``eval/depth/models``) does not upsample the logits, so that
    depths are interpolated between patches instead.

    Args:
        width: number of channels of a map.
        num_taps: number of maps, which are concatenated.
        min_depth, max_depth: centers of the first and the last bin, in meters.
        num_bins: number of bins.
        upsampling: factor by which logits are upsampled bilinearly.
        loss: config of the loss; mmseg's SILog by default.
    """

    def __init__(
        self,
        width: int,
        num_taps: int,
        min_depth: float = 1e-3,
        max_depth: float = 10.0,
        num_bins: int = 256,
        upsampling: int = 4,
        loss: dict | None = None,
    ):
        channels = width * num_taps
        super().__init__(
            in_channels=channels,
            channels=channels,
            num_classes=num_bins,
            dropout_ratio=0.0,
            loss_decode=loss or LOSS,
            init_cfg=None,
        )
        self.upsampling = upsampling
        self.learn_depth(min_depth, max_depth)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Predict depth in meters (B, 1, u h, u w) from a list of maps (B, width, h, w); u is ``upsampling``."""
        logits = self.conv_seg(self.norm(torch.cat(list(inputs), dim=1))).float()
        size = [self.upsampling * side for side in logits.shape[-2:]]
        # Channels last, so that the bins of a pixel are contiguous for the sums.
        logits = logits.contiguous(memory_format=torch.channels_last)
        shares = resize(logits, size, mode="bilinear", align_corners=False).relu() + _FLOOR  # (B, bins, u h, u w)
        centers = torch.linspace(self.min_depth, self.max_depth, shares.shape[1], device=shares.device)
        sums = shares.movedim(1, -1) @ torch.stack([centers, torch.ones_like(centers)], dim=1)  # (B, u h, u w, 2)
        return (sums[..., 0] / sums[..., 1])[:, None]


@MODELS.register_module()
class DepthProbe(LayerProbe, DepthEstimator):
    """mmseg's ``DepthEstimator`` on a :class:`~pe_dense.backbones.FrozenTower`, which determines the head's size.

    With ``test_cfg=dict(mode='whole', flip=True)`` the prediction is averaged with that of the horizontally flipped
    image. A head with a ``class_token`` argument receives class tokens if the backbone has them, unless it is False.

    Raises:
        ValueError: if the head requires a class token and the backbone has none.
    """

    test_modes = ("whole", "slide_flip")  # mmseg's 'slide' also predicts the whole image in one pass

    def _init_decode_head(self, decode_head: dict) -> None:
        available = self.backbone.tower.num_prefix_tokens > 0
        if "class_token" in signature(MODELS.get(decode_head["type"])).parameters:
            decode_head = {"class_token": available, **decode_head}
        super()._init_decode_head(decode_head)
        self._with_class_token = getattr(self.decode_head, "class_token", False)
        if self._with_class_token and not available:
            raise InputError(f"{self.backbone.label} has no class token: set model.decode_head.class_token=False")

    def extract_feat(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> tuple:
        """Compute feature maps (B, C, h, w), or pairs of a map and a class token (B, C), from images (B, 3, H, W)."""
        if self._with_class_token:
            return self.backbone.maps_and_class_tokens(inputs)
        return super().extract_feat(inputs, batch_img_metas)

    def inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Predict depth in meters (B, 1, H, W) from images (B, 3, H, W)."""
        depth = super().inference(inputs, batch_img_metas)
        if self.test_cfg.get("flip"):
            depth = (depth + super().inference(inputs.flip(-1), batch_img_metas).flip(-1)) / 2
        return depth


@MODELS.register_module()
class DepthSweep(LayerSweep, DepthEstimator):
    """Layer sweep for depth; see :class:`~pe_dense.probing.LayerSweep` for arguments in addition to mmseg's."""

    test_modes = ("whole", "slide_flip")

    def encode_decode_all(self, inputs: Tensor, flip: bool = False) -> Iterator[tuple[str, Tensor]]:
        """See :meth:`LayerSweep.encode_decode_all`; in mode 'slide_flip' outputs of flipped windows are averaged in."""
        outputs = super().encode_decode_all(inputs, flip)
        if self.test_cfg["mode"] == "whole":
            return outputs
        others = super().encode_decode_all(inputs, not flip)
        return ((name, (output + other) / 2) for (name, output), (_, other) in zip(outputs, others, strict=True))

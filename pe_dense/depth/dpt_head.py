"""DPT head for depth estimation."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg.models.decode_heads import DPTHead
from torch import Tensor, nn

from pe_dense.depth.linear_head import LOSS, DepthLoss
from pe_dense.registry import MODELS
from pe_dense.utils.errors import InputError

STAGES = 4


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

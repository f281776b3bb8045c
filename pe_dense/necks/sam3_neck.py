"""Neck of SAM 3's vision tower."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pe_dense.backbones.sam3 import rename_sam3_neck
from pe_dense.necks.simple_fpn import SimpleFeaturePyramid
from pe_dense.registry import MODELS
from pe_dense.utils.checkpoint import CheckpointError, read_checkpoint
from pe_dense.utils.state_dict import match_state_dict

# Names within a level: its layers are numbered in the order of the forward pass.
_LAYERS = {
    4.0: ("dconv_2x2_0", None, "dconv_2x2_1", "conv_1x1", "conv_3x3"),
    2.0: ("dconv_2x2", "conv_1x1", "conv_3x3"),
    1.0: ("conv_1x1", "conv_3x3"),
    0.5: (None, "conv_1x1", "conv_3x3"),
}


@MODELS.register_module()
class SAM3Neck(SimpleFeaturePyramid):
    """Feature pyramid of SAM 3: four levels from the last map of its tower, convolutions with bias and without norm.

    Source: SAM 3's code, ``sam3/model/necks.py``. For a map of stride 14 the levels have strides of 3.5, 7, 14 and 28
    px; SAM 3's detector uses the first three. Its position encoding is that of mmdet,
    ``SinePositionalEncoding(num_feats=out_channels // 2, normalize=True)``.

    Args:
        in_channels: number of channels of the map.
        out_channels: number of channels of every level.
        tracker: :meth:`load_pretrained` reads the convolutions of the tracker instead of the detector's.
    """

    def __init__(
        self, in_channels: int = 1024, out_channels: int = 256, tracker: bool = False, init_cfg: dict | None = None
    ):
        super().__init__(in_channels, out_channels, tuple(_LAYERS), top_level=False, norm=False, init_cfg=init_cfg)
        self.tracker = tracker

    def init_weights(self) -> None:
        """Load the checkpoint of ``init_cfg``, if it is set."""
        if self.init_cfg and not self._is_init:
            self.load_pretrained(self.init_cfg["checkpoint"])
        self._is_init = True

    def load_pretrained(self, source: str | Path, content: Mapping | None = None) -> None:
        """Load the weights of SAM 3's published file.

        Args:
            source: path or ``hf://`` name, such as ``hf://facebook/sam3``.
            content: content of the file, if it was already read.

        Raises:
            FileNotFoundError, CheckpointError: if the file is missing, or has no such neck.
        """
        content = read_checkpoint(source) if content is None else content
        state = rename_sam3_neck(content, self._names(), tracker=self.tracker)
        if not state:
            raise CheckpointError(f"{source} contains no neck of SAM 3")
        match_state_dict(self.state_dict(), state, str(source), "SAM3Neck")
        self.load_state_dict(state)

    def _names(self) -> list[tuple[str, str]]:
        return [
            (rf"^{number}\.{layer}\.", f"{name}.{place}.")
            for number, (name, layers) in enumerate(zip(self.names, _LAYERS.values(), strict=True))
            for place, layer in enumerate(layers)
            if layer is not None
        ]

"""From images of a batch to the tower's input."""

from __future__ import annotations

from mmseg.models import SegDataPreProcessor

from pe_dense.registry import MODELS


@MODELS.register_module()
class ProbePreprocessor(SegDataPreProcessor):
    """As mmseg's, but images to test may differ in size: they then come as a list.

    Padding them to one size, as for training, would let results depend on an image's companions.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """As mmseg's; in testing ``inputs`` may be a list of (1, 3, H, W)."""
        images = data["inputs"]
        if training or len({tuple(image.shape) for image in images}) == 1:
            return super().forward(data, training)
        samples = data.get("data_samples") or [None] * len(images)
        parts = [
            super(ProbePreprocessor, self).forward(dict(inputs=[image], data_samples=[sample]), training)
            for image, sample in zip(images, samples, strict=True)
        ]
        return dict(inputs=[part["inputs"] for part in parts], data_samples=[part["data_samples"][0] for part in parts])

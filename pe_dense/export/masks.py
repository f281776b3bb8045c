"""Mask transformers (EoMT, PMT) as graphs of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from pe_dense.export.graphs import Graph
from pe_dense.export.preprocess import Preprocessing
from pe_dense.segmentation import EoMTHead
from pe_dense.utils.errors import InputError


class MaskTransformerGraph(Graph):
    """Base of mask transformers.

    Args:
        model: the model.
        head: its head.
        preprocessing, classes: see :class:`Graph`.
    """

    dynamic_axes = ("batch",)
    static_reason = "its queries are upsampled and masked at one size of images; set --size"

    def __init__(
        self, model: nn.Module, head: nn.Module, preprocessing: Preprocessing, classes: Sequence[str] | None = None
    ):
        super().__init__(preprocessing, classes)
        self.model, self.head = model, head

    def set_precision(self, dtype: torch.dtype) -> None:
        """Convert the backbone, and an EoMT's head, which the last blocks of the backbone are a part of."""
        self.model.float()
        (self.model if isinstance(self.head, EoMTHead) else self.model.backbone).to(dtype)

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Make the shares of masked queries constants; a graph would have to read their values."""
        shares = self.head._buffers.pop("attn_mask_probs")
        values = shares.tolist()
        self.head.attn_mask_probs = SimpleNamespace(tolist=lambda: values)
        try:
            yield
        finally:
            del self.head.attn_mask_probs
            self.head.register_buffer("attn_mask_probs", shares)


class SemanticMaskGraph(MaskTransformerGraph):
    """Semantic segmentation: labels (B, H, W) int64 of the pixels of the input.

    Args:
        model: a :class:`~pe_dense.segmentation.MaskTransformerSegmentor`; windows are not part of the graph.
        preprocessing, classes: see :class:`Graph`.
    """

    task = "segmentation"
    output_names = ("labels",)

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, classes: Sequence[str] | None = None):
        super().__init__(model, model.decode_head, preprocessing, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H, W)."""
        return self.model.encode_decode(images).argmax(dim=1)


class InstanceMaskGraph(MaskTransformerGraph):
    """Instance segmentation: boxes, scores and labels as of a detector, and masks (B, K, H, W) bool, best first.

    Args:
        model: a :class:`~pe_dense.segmentation.MaskTransformerDetector` with ``instance_on``.
        preprocessing, classes: see :class:`Graph`.

    Raises:
        InputError: for a model of panoptic segmentation, whose segments are merged one after another.
    """

    task = "detection"
    input_names = ("images", "sizes")
    output_names = ("boxes", "scores", "labels", "masks")
    uses_sizes = True

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, classes: Sequence[str] | None = None):
        super().__init__(model, model.panoptic_head, preprocessing, classes)
        if not model.test_cfg.get("instance_on"):
            raise InputError(
                "panoptic segmentation cannot be exported, because its segments are merged one after another: set "
                "model.test_cfg.instance_on=True for instances, or export the tower by --part tower"
            )

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Detect objects; see :meth:`pe_dense.export.MaskRCNNGraph.forward` for the arguments.

        Returns:
            boxes (B, K, 4), scores (B, K), labels (B, K) and masks (B, K, H, W).
        """
        height, width = images.shape[-2:]
        classes, masks = self.model.extract_feat(images)
        classes, masks = classes[-1].float(), self.head.upsample(masks[-1], (height, width))
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        inside = (rows < sizes[:, :1, None]) & (columns < sizes[:, 1:, None])  # (B, H, W)
        return self._select(classes, masks, inside)

    def _select(self, classes: Tensor, masks: Tensor, inside: Tensor) -> tuple[Tensor, ...]:
        """Select the objects, as mmdet's ``MaskFormerFusionHead.instance_postprocess``."""
        num_classes = self.head.num_classes
        count = self.model.test_cfg.get("max_per_image", 100)
        scores, pairs = classes.softmax(-1)[..., :-1].flatten(1).topk(count)  # (B, K)
        labels, logits = pairs % num_classes, _rows(masks, pairs // num_classes)
        binary = (logits > 0) & inside[:, None]
        area = binary.flatten(2).float().sum(2)
        scores = scores * (logits.sigmoid() * binary).flatten(2).sum(2) / (area + 1e-6)
        scores = torch.where(labels < self.head.num_things_classes, scores, 0.0)
        scores, order = scores.sort(descending=True)
        binary = _rows(binary, order)
        boxes = torch.stack([*_span(binary.any(2)), *_span(binary.any(3))], dim=2)[..., [0, 2, 1, 3]]
        return boxes.float(), scores, labels.gather(1, order), binary


def _rows(values: Tensor, chosen: Tensor) -> Tensor:
    """Select maps (B, K, H, W) from (B, N, H, W) by indices (B, K)."""
    return values.gather(1, chosen[..., None, None].expand(-1, -1, *values.shape[2:]))


def _span(present: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first place and the place after the last one where each row (B, K, N) is true; 0 without any."""
    places = torch.arange(present.shape[2])
    last = torch.where(present, places + 1, 0).amax(2)
    first = torch.where(present, places, present.shape[2]).amin(2)
    return torch.minimum(first, last), last

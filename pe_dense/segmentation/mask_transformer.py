"""Segmentation models that predict a set of masks with classes: EoMT and PMT in mmseg's and mmdet's forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mmdet.models.detectors import BaseDetector, MaskFormer
from mmengine.config import ConfigDict
from mmseg.models.segmentors.base import BaseSegmentor
from torch import Tensor

from pe_dense.backbones import Backbone
from pe_dense.probing.sliding_window import SlidingWindows
from pe_dense.registry import MODELS
from pe_dense.segmentation.mask_head import MaskTransformerHead, semantic_map
from pe_dense.utils.errors import InputError


def _build(backbone: dict, head: dict) -> tuple[Backbone, MaskTransformerHead]:
    """Build a backbone, and a head of its sizes.

    Raises:
        ValueError: if they are not a backbone of this package and a :class:`MaskTransformerHead`.
    """
    tower = MODELS.build(backbone)
    if not isinstance(tower, Backbone):
        raise InputError(f"mask transformers need a PETower or a TimmTower as backbone, got a {type(tower).__name__}")
    built = MODELS.build(head, default_args=dict(backbone=tower))
    if not isinstance(built, MaskTransformerHead):
        raise InputError(f"mask transformers need an EoMTHead or a PMTHead, got a {type(built).__name__}")
    return tower, built


@MODELS.register_module()
class MaskTransformerDetector(MaskFormer):
    """Instance and panoptic segmentation by masks of queries (EoMT, PMT), with the results of mmdet's ``MaskFormer``.

    Args:
        backbone: config of a :class:`~pe_dense.backbones.Backbone`.
        panoptic_head: config of an ``EoMTHead`` or a ``PMTHead``, without ``backbone``.
        test_cfg: options of mmdet's ``MaskFormerFusionHead``: ``panoptic_on``, ``instance_on``, ``object_mask_thr``,
            ``iou_thr`` and ``max_per_image``. A segment has the pixels with a mask probability of at least 0.5.
        data_preprocessor, init_cfg: see mmdet.

    Raises:
        ValueError: if ``max_per_image`` is more than queries times classes.
    """

    def __init__(
        self,
        backbone: dict,
        panoptic_head: dict,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ):
        BaseDetector.__init__(self, data_preprocessor, init_cfg)
        self.backbone, self.panoptic_head = _build(backbone, panoptic_head)
        classes = {name: getattr(self.panoptic_head, name) for name in ("num_things_classes", "num_stuff_classes")}
        self.num_classes = self.panoptic_head.num_classes
        self.num_things_classes, self.num_stuff_classes = classes.values()
        self.train_cfg = None
        self.test_cfg = ConfigDict(dict(filter_low_score=True) | dict(test_cfg or {}))
        most = self.panoptic_head.num_queries * self.num_classes
        if self.test_cfg.get("max_per_image", 1) > most:
            raise InputError(
                f"test_cfg.max_per_image {self.test_cfg.max_per_image} is more than queries times classes, {most}"
            )
        self.panoptic_fusion_head = MODELS.build(
            dict(type="mmdet.MaskFormerFusionHead", test_cfg=self.test_cfg, **classes)
        )

    def extract_feat(self, batch_inputs: Tensor) -> tuple[list, list]:
        """Predict classes and masks of images (B, 3, H, W), see :meth:`MaskTransformerHead.forward`."""
        return self.panoptic_head(self.backbone, batch_inputs)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: Sequence | None = None) -> tuple[list, list]:
        return self.extract_feat(batch_inputs)


@dataclass(frozen=True)
class EvenWindows(SlidingWindows):
    """As few windows as cover an image, with equal overlaps; ``stride`` is not used.

    Source: EoMT's semantic inference.
    """

    @property
    def boxes(self) -> list[tuple[slice, slice]]:
        """Row and column slices of each window."""
        if self.crop is None:
            return super().boxes
        rows, columns = (
            _even_spans(length, crop) for length, crop in zip((self.height, self.width), self.crop, strict=True)
        )
        return [(row, column) for row in rows for column in columns]


def _even_spans(length: int, crop: int) -> list[slice]:
    count = math.ceil(length / crop)
    step = crop - (count * crop - length) / (count - 1) if count > 1 else 0
    return [slice(int(j * step), min(int(j * step) + crop, length)) for j in range(count)]


@MODELS.register_module()
class MaskTransformerSegmentor(BaseSegmentor):
    """Semantic segmentation by masks of queries (EoMT, PMT), with the data and results of mmseg's models.

    ``seg_logits`` of the results are the scores of :func:`~pe_dense.segmentation.mask_head.semantic_map`, at least 0.

    Args:
        backbone: config of a :class:`~pe_dense.backbones.Backbone`.
        decode_head: config of an ``EoMTHead`` or a ``PMTHead``, without ``backbone``.
        test_cfg: ``dict(mode='slide', crop_size=(height, width))`` for as few windows as cover an image, evenly spaced
            as published, or ``dict(mode='whole')``, the default.
        data_preprocessor, init_cfg: see mmseg.

    Raises:
        ValueError: for another mode, or windows without a size.
    """

    def __init__(
        self,
        backbone: dict,
        decode_head: dict,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(data_preprocessor, init_cfg)
        self.backbone, self.decode_head = _build(backbone, decode_head)
        self.num_classes = self.out_channels = self.decode_head.num_classes
        self.align_corners = False
        self.train_cfg, self.test_cfg = None, ConfigDict(dict(mode="whole") | dict(test_cfg or {}))
        if self.test_cfg.mode not in ("whole", "slide"):
            raise InputError(f"test_cfg.mode {self.test_cfg.mode!r} is not one of whole, slide")
        if self.test_cfg.mode == "slide" and len(self.test_cfg.get("crop_size", ())) != 2:
            raise InputError("test_cfg.mode 'slide' needs test_cfg.crop_size=(height, width)")

    def extract_feat(self, inputs: Tensor) -> tuple[list, list]:
        """Predict classes and masks of images (B, 3, H, W), see :meth:`MaskTransformerHead.forward`."""
        return self.decode_head(self.backbone, inputs)

    def encode_decode(self, inputs: Tensor, batch_img_metas: Sequence[dict] | None = None) -> Tensor:
        """Compute scores of classes (B, K, H, W) of images (B, 3, H, W) as a whole."""
        classes, masks = self.extract_feat(inputs)
        return semantic_map(classes[-1], self.decode_head.upsample(masks[-1], inputs.shape[-2:]))

    def loss(self, inputs: Tensor, data_samples: Sequence) -> dict[str, Tensor]:
        """Compute the losses of images (B, 3, H, W)."""
        return self.decode_head.loss(self.extract_feat(inputs), data_samples)

    def predict(self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence | None = None) -> list:
        """Predict as mmseg does; images of different sizes are passed as a list and predicted one by one."""
        if not isinstance(inputs, Tensor):
            pairs = zip(inputs, data_samples, strict=True)
            return [found for image, sample in pairs for found in self.predict(image, [sample])]
        return self.postprocess_result(self._forward(inputs), data_samples)

    def _forward(self, inputs: Tensor, data_samples: Sequence | None = None) -> Tensor:
        """Compute scores of classes (B, K, H, W), by windows if ``test_cfg`` says so."""
        crop = tuple(self.test_cfg.crop_size) if self.test_cfg.mode == "slide" else None
        windows = EvenWindows(*inputs.shape[-2:], crop)
        return windows.merge(self.encode_decode(part) for part in windows.cut(inputs))

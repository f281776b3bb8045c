"""Segmentation models that predict a set of masks with classes (EoMT, PMT), and their training schedules.

The models have mmseg's and mmdet's forms; the schedules are mask annealing, layer-wise decay and a warm-up of the head
before the tower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.models.detectors import BaseDetector, MaskFormer
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import Runner
from mmseg.models.segmentors.base import BaseSegmentor
from torch import Tensor, nn

from pe_dense.backbones import Backbone
from pe_dense.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor
from pe_dense.probing.sliding_window import SlidingWindows
from pe_dense.registry import HOOKS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS, PARAM_SCHEDULERS
from pe_dense.segmentation.mask_head import MaskTransformerHead, semantic_map
from pe_dense.utils.errors import ConfigError, InputError


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


@HOOKS.register_module()
class MaskAnnealingHook(Hook):
    """Decrease the share of masked queries of each block from 1 to 0 in its interval of the training.

    The share is ``(1 - progress) ** power`` within the interval, 1 before and 0 after it. After the last interval the
    model needs no masks, and only its last prediction.

    Source: EoMT (arXiv 2503.19108, section 3.3) and its code.

    Args:
        intervals: (start, end) of each block with queries, in iterations.
        power: exponent.

    Raises:
        ConfigError: if an interval is empty, or, before training, if the intervals are not as many as the blocks or
            the last one ends after the run.
    """

    def __init__(self, intervals: Sequence[tuple[int, int]], power: float = 0.9):
        for start, end in intervals:
            if not 0 <= start < end:
                raise ConfigError(
                    f"MaskAnnealingHook: interval ({start}, {end}) must start at 0 or later and end later"
                )
        self.intervals = [tuple(interval) for interval in intervals]
        self.power = power

    def shares(self, iteration: int) -> list[float]:
        """Return the share of masked queries of each block after a number of iterations."""
        progress = [(iteration - start) / (end - start) for start, end in self.intervals]
        return [(1.0 - min(max(part, 0.0), 1.0)) ** self.power for part in progress]

    def before_train(self, runner: Runner) -> None:
        """Check the intervals and set the shares of the first iteration."""
        for head in _heads(runner.model):
            if head.num_blocks != len(self.intervals):
                raise ConfigError(
                    f"MaskAnnealingHook has {len(self.intervals)} intervals for {head.num_blocks} blocks with queries: "
                    "give one (start, end) for each"
                )
        last = max((end for _, end in self.intervals), default=0)
        if last > runner.max_iters:
            raise ConfigError(
                f"MaskAnnealingHook: the last interval ends at iteration {last}, the run at {runner.max_iters}: scale "
                "the intervals to the run, because a trained model predicts without masks"
            )
        self._set(runner, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Set the shares of the next iteration."""
        self._set(runner, runner.iter + 1)

    def _set(self, runner: Runner, iteration: int) -> None:
        shares = torch.tensor(self.shares(iteration))
        for head in _heads(runner.model):
            head.attn_mask_probs.copy_(shares)


def _heads(model: nn.Module) -> list[MaskTransformerHead]:
    return [module for module in model.modules() if isinstance(module, MaskTransformerHead)]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class EoMTOptimWrapperConstructor(LayerDecayOptimWrapperConstructor):
    """Layer-wise learning-rate decay as in EoMT's code: the last block has the full rate, the embedding the first's.

    Block i of L has the rate ``decay_rate ** (L - 1 - i)``, the layers after the blocks and the head the full one.

    Args:
        optim_wrapper_cfg: see :class:`LayerDecayOptimWrapperConstructor`.
        paramwise_cfg: ``dict(decay_rate=..., full_rate_blocks=...)``; the latter is the number of last blocks without
            decay, 0 by default. EoMT uses the blocks with queries on DINOv3 and 0 on DINOv2.

    Raises:
        ValueError: for other settings or values out of range.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        settings = dict(paramwise_cfg or {})
        self.full_rate_blocks = settings.pop("full_rate_blocks", 0)
        if self.full_rate_blocks < 0:
            raise InputError(f"full_rate_blocks {self.full_rate_blocks} is negative")
        super().__init__(optim_wrapper_cfg, settings)

    def parameter_groups(self, model: nn.Module, lr: float) -> list[dict]:
        """Group trainable parameters by layer; ``in_tower`` marks the groups of the embedding and the blocks."""
        groups = super().parameter_groups(model, lr)
        (blocks,) = (module.num_layers for module in model.modules() if isinstance(module, Backbone))
        for group in groups:
            above = blocks - max(group["layer"], 1)  # blocks above this one
            group["in_tower"] = above >= 0
            group["lr"] = lr * self.decay_rate ** (above if above >= self.full_rate_blocks else 0)
        return groups


@PARAM_SCHEDULERS.register_module()
class TwoStageWarmupPolyLR(_ParamScheduler):
    """Linear warm-up of the head, then of the tower, each followed by a polynomial decay to 0.

    The tower's learning rate is 0 while the head warms up. Groups of the tower are those that
    :class:`EoMTOptimWrapperConstructor` marks.

    Source: EoMT's code.

    Args:
        optimizer: optimizer or its wrapper.
        warmup: iterations of the warm-up of the head and of the tower.
        power: exponent of the decay.
        begin, end, last_step, by_epoch, verbose: see MMEngine's schedulers.

    Raises:
        ValueError: if the warm-up is not shorter than the schedule.
    """

    def __init__(
        self,
        optimizer,
        warmup: tuple[int, int],
        power: float = 0.9,
        begin: int = 0,
        end: int = 1_000_000_000,
        last_step: int = -1,
        by_epoch: bool = False,
        verbose: bool = False,
    ):
        if min(warmup) < 0 or sum(warmup) >= end - begin:
            raise InputError(f"a warm-up of {tuple(warmup)} does not fit into {end - begin} iterations")
        self.warmup, self.power = tuple(warmup), power
        super().__init__(optimizer, "lr", begin=begin, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose)

    def _get_value(self) -> list[float]:
        factors = {in_tower: self._factor(in_tower) for in_tower in (False, True)}
        groups = zip(self.base_values, self.optimizer.param_groups, strict=True)
        return [base * factors[group.get("in_tower", False)] for base, group in groups]

    def _factor(self, in_tower: bool) -> float:
        start, length = (self.warmup[0], self.warmup[1]) if in_tower else (0, self.warmup[0])
        step = self.last_step - start
        if step < length:
            return max(step, 0) / length
        remaining = 1 - (step - length) / (self.end - self.begin - start - length)
        return max(remaining, 0.0) ** self.power

"""Head of DETA: losses and predictions of classes and boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import DeformableDETRHead
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from pe_dense.detection.deta.soft_nms import soft_nms
from pe_dense.detection.federated_loss import FederatedLoss
from pe_dense.ops.nms import batched_nms
from pe_dense.registry import MODELS, TASK_UTILS
from pe_dense.utils.errors import InputError

SUPPRESSIONS = ("nms", "soft_nms")
TEST_SETTINGS = {"pre_nms", "nms", "max_per_img"}


class Objects(NamedTuple):
    """Ground truth of an image: boxes (K, 4), center and size relative to the image; their classifier outputs "
    "(K,); and the image's width, height, width, height in px (4,)."""

    boxes: Tensor
    channels: Tensor
    size: Tensor


@MODELS.register_module()
class DETAHead(DeformableDETRHead):
    """Deformable DETR's head with DETA's matching, optional numbering of classes by COCO ids, and NMS.

    In shapes L is the number of decoder layers, B the batch size, Q the number of queries, S the number of tokens of
    all levels, C the number of classifier outputs. Boxes are center and size relative to the image without padding.

    The first stage has its own classifier and regressor, the last of their lists. Its classifier has C outputs like the
    others, as published: the first is the objectness, the others are trained to be negative.

    Source: DETA (arXiv 2212.06137, section 4).

    Args:
        num_classes: number of classes of the data.
        class_ids: classifier output of each class, such as COCO's ids 1..90 in the released detector, which has 91
            outputs. None for outputs 0..num_classes - 1.
        train_cfg: ``first_stage`` and ``second_stage``, the assigners of anchors and of proposals to objects
            (:class:`~pe_dense.detection.deta.DETAAssigner`).
        test_cfg: ``pre_nms``, number of (query, class) pairs with the best scores before NMS; ``nms``, a dict with
            ``type`` 'nms' or 'soft_nms' and its ``iou_threshold``, or None; ``max_per_img``, maximum number of
            detections.
        args, kwargs: as in mmdet's ``DeformableDETRHead``; the losses are its focal, L1 and GIoU loss, the first one
            for LVIS a :class:`~pe_dense.detection.deta.FederatedFocalLoss`, without ``class_ids``.

    Raises:
        ValueError: if ``class_ids`` are not one for each class, the federated loss counts other classes than the head,
            or ``test_cfg`` lacks a setting or asks for another suppression.
    """

    def __init__(
        self,
        num_classes: int,
        *args,
        class_ids: Sequence[int] | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        **kwargs,
    ):
        if class_ids is not None and len(set(class_ids)) != num_classes:
            raise InputError(f"class_ids has {len(set(class_ids))} ids for num_classes={num_classes}")
        if test_cfg is not None:
            if missing := TEST_SETTINGS - set(test_cfg):
                raise InputError(f"test_cfg of DETAHead lacks {', '.join(sorted(missing))}: {dict(test_cfg)}")
            check_suppression(test_cfg["nms"])
        self.class_ids = None if class_ids is None else list(class_ids)
        super().__init__(num_classes, *args, train_cfg=None, test_cfg=test_cfg, **kwargs)
        stages = dict(train_cfg or {})
        self.assigners = {name: TASK_UTILS.build(stages[name]) for name in ("first_stage", "second_stage") if stages}
        counted = getattr(self.loss_cls, "num_classes", self.cls_out_channels)
        if counted != self.cls_out_channels:
            raise InputError(
                f"loss_cls counts num_classes={counted}, but the classifier has {self.cls_out_channels} outputs: give "
                "both the data's number of classes, and no class_ids"
            )

    def _init_layers(self) -> None:
        if self.class_ids is not None:
            self.cls_out_channels = max(self.class_ids) + 1
        super()._init_layers()

    def loss(
        self,
        hidden_states: Tensor,
        references: Sequence[Tensor],
        enc_logits: Tensor,
        enc_boxes: Tensor,
        enc_anchors: Tensor,
        batch_data_samples: Sequence[DetDataSample],
    ) -> dict[str, Tensor]:
        """Compute the losses of the decoder layers and the first stage.

        Objects without area are ignored, as in DETA's data set. Every layer is trained on the same pairs, those of the
        initial references. Sums are divided by the number of objects of a batch, averaged over processes.

        Args:
            hidden_states: (L, B, Q, D).
            references: input boxes of each layer, (B, Q, 4).
            enc_logits, enc_boxes, enc_anchors: outputs of the first stage, (B, S, C), (B, S, 4) and (B, S, 4).
            batch_data_samples: data samples with ``gt_instances``: ``bboxes`` in px and ``labels``.

        Returns:
            ``loss_cls``, ``loss_bbox`` and ``loss_iou`` of the last layer, those of layer i under ``d<i>.``, those of
            the first stage as ``enc_loss_cls``, ...; and, for logging only, as in DETR: ``class_error``, the percentage
            of matched queries whose best class is wrong, and each layer's ``cardinality_error``, the difference between
            the number of queries whose best class is not the last one and the number of objects.
        """
        logits, boxes = self(hidden_states, references)
        objects = [self._objects(sample, boxes.device) for sample in batch_data_samples]
        count = boxes.new_tensor([sum(len(item.boxes) for item in objects)])
        count = reduce_mean(count).clamp(min=1).item()
        pairs = self._match("second_stage", references[0], objects)
        losses = {}
        for layer in range(len(logits)):
            prefix = f"d{layer}." if layer < len(logits) - 1 else ""
            found = self._layer_losses(self.loss_cls, logits[layer], boxes[layer], pairs, objects, count)
            losses.update({prefix + name: value for name, value in found.items()})
        losses["class_error"] = self._class_error(logits[-1], pairs, objects)

        binary = [item._replace(channels=torch.zeros_like(item.channels)) for item in objects]
        pairs = self._match("first_stage", enc_anchors, binary)
        loss_cls = getattr(self.loss_cls, "objectness", self.loss_cls)
        found = self._layer_losses(loss_cls, enc_logits, enc_boxes, pairs, binary, count)
        losses.update({f"enc_{name}": value for name, value in found.items()})
        return losses

    def _objects(self, sample: DetDataSample, device: torch.device) -> Objects:
        height, width = sample.img_shape[:2]
        size = torch.tensor([width, height, width, height], dtype=torch.float32, device=device)
        boxes, labels = sample.gt_instances.bboxes.float(), sample.gt_instances.labels
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes, labels = boxes[has_area], labels[has_area]
        if self.class_ids is not None:
            labels = labels.new_tensor(self.class_ids)[labels]
        return Objects(bbox_xyxy_to_cxcywh(boxes / size), labels, size)

    def _match(self, stage: str, candidates: Tensor, objects: Sequence[Objects]) -> list[tuple[Tensor, Tensor]]:
        """Match candidates (B, N, 4): per image, indices of candidates and of objects."""
        assign = self.assigners[stage]
        return [
            assign(bbox_cxcywh_to_xyxy(boxes.detach().float()), bbox_cxcywh_to_xyxy(item.boxes))
            for boxes, item in zip(candidates, objects, strict=True)
        ]

    def _layer_losses(
        self, loss_cls: Callable, logits: Tensor, boxes: Tensor, pairs, objects: Sequence[Objects], count: float
    ) -> dict[str, Tensor]:
        """Compute the losses of one layer from logits (B, N, C) and boxes (B, N, 4)."""
        logits, boxes = logits.float(), boxes.float()
        targets = torch.full(logits.shape[:2], logits.shape[2], dtype=torch.long, device=logits.device)
        for target, (chosen, shown), item in zip(targets, pairs, objects, strict=True):
            target[chosen] = item.channels[shown]
        ours = torch.cat([found[chosen] for found, (chosen, _) in zip(boxes, pairs, strict=True)])  # (M, 4)
        wanted = torch.cat([item.boxes[shown] for item, (_, shown) in zip(objects, pairs, strict=True)])
        # In px, where the epsilon in mmdet's division is negligible.
        size = torch.cat([item.size.expand(len(shown), 4) for item, (_, shown) in zip(objects, pairs, strict=True)])
        corners = [bbox_cxcywh_to_xyxy(part) * size for part in (ours, wanted)]
        with torch.no_grad():
            present = (logits.argmax(-1) != logits.shape[2] - 1).sum(1).float()
            shown = present.new_tensor([len(item.boxes) for item in objects])
        return dict(
            loss_cls=loss_cls(logits.flatten(0, 1), targets.flatten(), avg_factor=count),
            loss_bbox=self.loss_bbox(ours, wanted, avg_factor=count),
            loss_iou=self.loss_iou(*corners, avg_factor=count),
            cardinality_error=(present - shown).abs().mean(),
        )

    @staticmethod
    @torch.no_grad()
    def _class_error(logits: Tensor, pairs, objects: Sequence[Objects]) -> Tensor:
        best = torch.cat([found[chosen].argmax(-1) for found, (chosen, _) in zip(logits, pairs, strict=True)])
        wanted = torch.cat([item.channels[shown] for item, (_, shown) in zip(objects, pairs, strict=True)])
        right = (best == wanted).float().mean() if len(best) else logits.new_zeros(())
        return 100 - 100 * right

    def _predict_by_feat_single(self, logits: Tensor, boxes: Tensor, meta: dict, rescale: bool) -> InstanceData:
        """Detect objects in one image from logits (Q, C) and boxes (Q, 4); in px of the original or the resized "
        "image."""
        if self.class_ids is not None:
            logits = logits[:, self.class_ids]
        height, width = meta["ori_shape" if rescale else "img_shape"][:2]
        scores = logits.float().sigmoid().flatten()
        pairs = torch.arange(len(scores), device=scores.device)
        if len(scores) > self.test_cfg["pre_nms"]:
            scores, pairs = scores.topk(self.test_cfg["pre_nms"])
        boxes = bbox_cxcywh_to_xyxy(boxes.float()) * boxes.new_tensor([width, height, width, height])
        found = InstanceData(bboxes=boxes[pairs // logits.shape[1]], scores=scores, labels=pairs % logits.shape[1])
        return suppress(found, self.test_cfg["nms"])[: self.test_cfg["max_per_img"]]


def check_suppression(nms: dict | None) -> None:
    """Check the settings of :func:`suppress`.

    Raises:
        ValueError: if ``type`` is missing or unknown.
    """
    if nms is not None and nms.get("type") not in SUPPRESSIONS:
        raise InputError(f"nms has type {nms.get('type')!r}, not one of {', '.join(SUPPRESSIONS)}; None disables it")


def suppress(found: InstanceData, nms: dict | None) -> InstanceData:
    """Apply per-class NMS or soft-NMS to the detections of one image.

    Args:
        found: ``bboxes`` (N, 4) in px, ``scores`` (N,) and ``labels`` (N,).
        nms: ``type``, 'nms' or 'soft_nms', and its other arguments; None only sorts.

    Returns:
        the remaining detections, best first.
    """
    if nms is None:
        return found[found.scores.argsort(descending=True)]
    options = {name: value for name, value in nms.items() if name != "type"}
    if nms["type"] == "nms":
        return found[batched_nms(found.bboxes, found.scores, found.labels, **options)]
    kept, scores = soft_nms(found.bboxes, found.scores, found.labels, **options)
    found = found[kept]
    found.scores = scores
    return found


@MODELS.register_module()
class FederatedFocalLoss(FederatedLoss):
    """Federated focal loss of DETA for LVIS: a few classes per batch, sampled as in the parent class.

    Args:
        num_classes, num_sampled, ann_file, loss_weight: as in :class:`~pe_dense.detection.FederatedLoss`.
        alpha, gamma: weight of positives, focus on hard examples (arXiv 1708.02002).
    """

    use_sigmoid = True  # mmdet's heads read this

    def __init__(
        self,
        num_classes: int,
        num_sampled: int | None = 50,
        ann_file: str | None = None,
        alpha: float = 0.25,
        gamma: float = 2.0,
        loss_weight: float = 1.0,
    ):
        super().__init__(num_classes, num_sampled, ann_file, loss_weight)
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor, avg_factor: float) -> Tensor:
        """Compute the loss of a layer's queries.

        Args:
            logits: (N, K).
            labels: (N,) classes; K is the background.
            avg_factor: divisor of the sum.

        Returns:
            a scalar.
        """
        classes = self._classes_of_batch(labels)
        targets = F.one_hot(labels, self.num_classes + 1)[:, classes]
        return self._focal(logits[:, classes], targets, avg_factor)

    def objectness(self, logits: Tensor, labels: Tensor, avg_factor: float) -> Tensor:
        """Compute the loss of the first stage, whose first output separates objects (label 0) from background."""
        return self._focal(logits[:, :1], labels[:, None] == 0, avg_factor)

    def _focal(self, logits: Tensor, targets: Tensor, avg_factor: float) -> Tensor:
        loss = sigmoid_focal_loss(logits, targets.to(logits), self.alpha, self.gamma, reduction="sum")
        return self.loss_weight * loss / avg_factor

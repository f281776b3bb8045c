"""Detectors as graphs of tensors: Mask R-CNN and DETA, with a fixed number of detections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from pe_dense.detection.deta.deta import DETA, DeformableAttention
from pe_dense.export.boxes import (
    check_coder,
    check_extractor,
    class_wise_nms,
    decode_boxes,
    pool_regions,
    with_empty,
)
from pe_dense.export.deform_attn import sample_levels
from pe_dense.export.graphs import Graph
from pe_dense.export.preprocess import Preprocessing
from pe_dense.utils.errors import InputError

# Pairs of a box and a class that NMS sees, those with the best scores. Without a limit, there are as many as proposals
# times classes.
CANDIDATES = 5000


class DetectorGraph(Graph):
    """Base of detectors: boxes (B, K, 4) in px of the input, scores (B, K), labels (B, K) int64, best first.

    K is the maximum number of detections; in places without a detection everything is 0.

    Args:
        model: the detector.
        preprocessing, classes: see :class:`Graph`.
    """

    task = "detection"
    input_names = ("images", "sizes")
    output_names = ("boxes", "scores", "labels")
    dynamic_axes = ()
    static_reason = (
        "its anchors, levels and suppression are exported for one number and size of images; set --batch and --size"
    )
    uses_sizes = True

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, classes: Sequence[str] | None = None):
        super().__init__(preprocessing, classes)
        self.model = model

    def set_precision(self, dtype: torch.dtype) -> None:
        """Convert the backbone; boxes need float32."""
        self.model.float()
        self.model.backbone.to(dtype)

    def levels(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the levels of the pyramid in float32."""
        dtype = next(self.model.backbone.parameters()).dtype
        return self.model.neck([x.float() for x in self.model.backbone(images.to(dtype))])


def best_of_classes(
    boxes: Tensor, scores: Tensor, score_thr: float, iou_threshold: float | None, length: int, candidates: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Select detections of one image: class-wise NMS, then the best.

    Args:
        boxes: (N, 4), or (N, K, 4) for one box per class, in px.
        scores: (N, K).
        score_thr: scores must be above this.
        iou_threshold: of NMS; None for no suppression.
        length: number of detections to return.
        candidates: number of pairs of a box and a class that NMS sees.

    Returns:
        boxes (length, 4), scores (length,) and labels (length,), zero where there are fewer detections.
    """
    count, num_classes = scores.shape
    best, pairs = scores.flatten().topk(min(candidates, count * num_classes))
    rows, labels = pairs // num_classes, pairs % num_classes
    boxes = boxes[rows] if boxes.dim() == 2 else boxes.flatten(0, 1)[pairs]
    best = torch.where(best > score_thr, best, 0.0)
    if iou_threshold is None:
        kept = torch.arange(min(length, len(best)))
        kept = F.pad(kept, (0, length - len(kept)), value=len(best))
    else:
        kept = class_wise_nms(boxes, best, labels, num_classes, iou_threshold, length)
    scores = with_empty(best)[kept]
    found = scores > 0
    return with_empty(boxes)[kept] * found[:, None], scores, with_empty(labels)[kept] * found


class MaskRCNNGraph(DetectorGraph):
    """Mask R-CNN and Faster R-CNN; masks are probabilities (B, K, m, m) inside of the boxes, not yet pasted.

    Args:
        model: mmdet's ``MaskRCNN`` or ``FasterRCNN`` with heads that :mod:`pe_dense.export.boxes` supports.
        preprocessing, classes: see :class:`Graph`.

    Raises:
        InputError: if a part of the detector cannot be exported.
    """

    has_roi_align = True

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, classes: Sequence[str] | None = None):
        super().__init__(model, preprocessing, classes)
        rpn, roi = model.rpn_head, model.roi_head
        for settings in (model.test_cfg.rpn, model.test_cfg.rcnn):
            if settings.nms.get("type", "nms") != "nms" or set(settings.nms) - {"type", "iou_threshold"}:
                raise InputError(f"suppression {dict(settings.nms)} cannot be exported: only plain NMS")
        if isinstance(roi.bbox_head, nn.ModuleList):
            raise InputError(f"{type(roi).__name__} has several stages, which cannot be exported: only one stage")
        check_coder(rpn.bbox_coder)
        check_coder(roi.bbox_head.bbox_coder)
        check_extractor(roi.bbox_roi_extractor)
        if roi.with_mask:
            check_extractor(roi.mask_roi_extractor)
            self.output_names = (*self.output_names, "masks")

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Detect objects.

        Args:
            images: (B, 3, H, W), normalized.
            sizes: (B, 2) int64, height and width of each image before padding.

        Returns:
            boxes (B, K, 4), scores (B, K), labels (B, K) and, with a mask head, masks (B, K, m, m).
        """
        levels = self.levels(images)
        logits, deltas = self.model.rpn_head(levels)
        shapes = [tuple(x.shape[-2:]) for x in logits]
        anchors = self.model.rpn_head.prior_generator.grid_priors(shapes, device=images.device)
        found = []
        for index in range(images.shape[0]):
            limits = sizes[index].flip(0).repeat(2).float()
            one = slice(index, index + 1)
            proposals, valid = self.proposals([x[index] for x in logits], [x[index] for x in deltas], anchors, limits)
            found.append(self.detect([x[one] for x in levels], proposals, valid, limits))
        return tuple(torch.stack(values) for values in zip(*found, strict=True))

    def proposals(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Tensor], limits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Select the proposals of one image: (P, 4) in px, and whether each is one, (P,)."""
        head, settings = self.model.rpn_head, self.model.test_cfg.rpn
        boxes, scores, groups = [], [], []
        for level, (logit, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
            logit = logit.permute(1, 2, 0).reshape(-1, head.cls_out_channels)
            score = logit.sigmoid()[:, 0] if head.use_sigmoid_cls else logit.softmax(-1)[:, 0]
            nms_pre = settings.get("nms_pre", -1)
            score, best = score.topk(min(nms_pre, len(score)) if nms_pre > 0 else len(score))
            delta = delta.permute(1, 2, 0).reshape(-1, 4)[best]
            boxes.append(decode_boxes(anchor[best], delta, head.bbox_coder, limits))
            scores.append(score)
            groups.append(torch.full_like(best, level))
        boxes, scores = torch.cat(boxes), torch.cat(scores)
        smallest = settings.get("min_bbox_size", -1)
        valid = torch.ones_like(scores, dtype=torch.bool)
        if smallest >= 0:
            valid = (boxes[:, 2:] - boxes[:, :2] > smallest).all(1)
            scores = torch.where(valid, scores, -1.0)  # after all others
        kept = class_wise_nms(
            boxes, scores, torch.cat(groups), len(logits), settings.nms.iou_threshold, settings.max_per_img
        )
        return with_empty(boxes)[kept], with_empty(valid)[kept]

    def detect(self, levels: Sequence[Tensor], proposals: Tensor, valid: Tensor, limits: Tensor) -> tuple[Tensor, ...]:
        """Classify and refine the proposals of one image and predict masks; see :meth:`forward` without B."""
        roi, settings = self.model.roi_head, self.model.test_cfg.rcnn
        head = roi.bbox_head
        logits, deltas = head(pool_regions(roi.bbox_roi_extractor, levels, proposals))
        scores = head.loss_cls.get_activation(logits) if head.custom_cls_channels else logits.softmax(-1)
        scores = torch.where(valid[:, None], scores[:, : head.num_classes], 0.0)
        if head.reg_class_agnostic:
            boxes = decode_boxes(proposals, deltas, head.bbox_coder, limits)
        else:
            deltas = deltas.unflatten(1, (head.num_classes, 4))
            boxes = decode_boxes(proposals[:, None], deltas, head.bbox_coder, limits)
        found = best_of_classes(
            boxes, scores, settings.score_thr, settings.nms.iou_threshold, settings.max_per_img, CANDIDATES
        )
        if not roi.with_mask:
            return found
        masks = roi.mask_head(pool_regions(roi.mask_roi_extractor, levels, found[0])).sigmoid()
        if roi.mask_head.class_agnostic:
            return *found, masks[:, 0]
        places = found[2][:, None, None, None].expand(-1, 1, *masks.shape[2:])
        return *found, masks.gather(1, places)[:, 0]


class DETAGraph(DetectorGraph):
    """DETA: two-stage deformable transformer; deformable attention is exported as gathers and products.

    Args:
        model: a :class:`~pe_dense.detection.deta.DETA`.
        preprocessing, classes: see :class:`Graph`.

    Raises:
        InputError: for soft-NMS, whose loop has no operator.
    """

    def __init__(self, model: DETA, preprocessing: Preprocessing, classes: Sequence[str] | None = None):
        super().__init__(model, preprocessing, classes)
        nms = model.bbox_head.test_cfg["nms"]
        if nms is not None and nms["type"] != "nms":
            raise InputError(f"{nms['type']} cannot be exported: set model.test_cfg.nms.type=nms")

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Sample with operators that export; the size of each level is known when the backbone has run."""
        modules = [module for module in self.model.modules() if isinstance(module, DeformableAttention)]
        for module in modules:
            module.sample = partial(sample_levels, self)
        try:
            yield
        finally:
            for module in modules:
                del module.sample

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Detect objects; see :meth:`MaskRCNNGraph.forward`, without masks."""
        model, head = self.model, self.model.bbox_head
        levels = self.levels(images)
        self.level_shapes = shapes = [tuple(x.shape[-2:]) for x in levels]
        masks = [_padding(sizes, images.shape[-2:], shape) for shape in shapes]  # (B, h, w) each
        positions = [model.positional_encoding(mask) for mask in masks]
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in levels], dim=1)  # (B, S, D)
        positions = [x.flatten(2).transpose(1, 2) + model.level_embed[i] for i, x in enumerate(positions)]
        padding = torch.cat([mask.flatten(1) for mask in masks], dim=1)  # (B, S)
        ratios = torch.stack([model.get_valid_ratio(mask) for mask in masks], dim=1)  # (B, L, 2)
        common = dict(
            key_padding_mask=padding,
            spatial_shapes=torch.tensor(shapes),
            level_start_index=torch.tensor([sum(h * w for h, w in shapes[:i]) for i in range(len(shapes))]),
            valid_ratios=ratios,
        )
        grids = [_centers(shape) for shape in shapes]  # (h * w, 2) each, in tokens
        extents = [
            ratios[:, None, i] * grid.new_tensor(shape[::-1])
            for i, (grid, shape) in enumerate(zip(grids, shapes, strict=True))
        ]
        points = torch.cat([grid / extent for grid, extent in zip(grids, extents, strict=True)], dim=1)  # (B, S, 2)
        references = points[:, :, None] * ratios[:, None]
        for layer in model.encoder.layers:
            tokens = layer(query=tokens, query_pos=torch.cat(positions, dim=1), reference_points=references, **common)

        queries = self.first_stage(tokens, padding, points)
        initial = queries.pop("reference_points")
        states, inner = model.decoder(
            value=queries.pop("memory"), reference_points=initial, reg_branches=head.reg_branches, **queries, **common
        )
        logits, boxes = head(states, [initial, *inner])
        return self.select(logits[-1], boxes[-1], sizes)

    def first_stage(self, memory: Tensor, padding: Tensor, points: Tensor) -> dict[str, Tensor]:
        """Select proposals as :meth:`DETA.pre_decoder` does, with tensors of fixed shapes."""
        model, stage = self.model, self.model.decoder.num_layers
        counts = [h * w for h, w in self.level_shapes]
        sides = torch.cat([torch.full((n, 2), 0.05 * 2.0**level) for level, n in enumerate(counts)])
        anchors = torch.cat([points, sides.expand(points.shape[0], -1, -1)], dim=-1)
        unusable = (padding | ((anchors <= 0.01) | (anchors >= 0.99)).any(-1))[..., None]
        anchors = torch.log(anchors / (1 - anchors)).masked_fill(unusable, float("inf"))
        tokens = model.memory_trans_norm(model.memory_trans_fc(memory.masked_fill(unusable, 0.0)))
        logits = model.bbox_head.cls_branches[stage](tokens)[..., 0]
        boxes = model.bbox_head.reg_branches[stage](tokens) + anchors
        chosen = torch.stack([self._proposals(boxes[i].sigmoid(), logits[i]) for i in range(memory.shape[0])])
        return model.queries_of(tokens, boxes, chosen) | dict(memory=memory)

    def _proposals(self, boxes: Tensor, logits: Tensor) -> Tensor:
        """Select proposals of one image, as :func:`~pe_dense.detection.deta.assigner.choose_proposals`: (Q,)."""
        model = self.model
        counts = [h * w for h, w in self.level_shapes]
        levels = torch.cat([torch.full((n,), level) for level, n in enumerate(counts)])
        count = min(model.num_queries, sum(counts))
        start, candidates = 0, []
        for n in counts:
            candidates.append(start + logits[start : start + n].topk(min(model.proposals_per_level, n)).indices)
            start += n
        candidates = torch.cat(candidates)
        corners = bbox_cxcywh_to_xyxy(boxes[candidates]).clamp(0, 1)
        total = len(candidates)
        kept = class_wise_nms(corners, logits[candidates], levels[candidates], len(counts), model.proposal_iou, total)
        number = (kept < total).sum()
        kept = with_empty(candidates)[kept]
        # If too few remain, the best by objectness are selected instead.
        best = F.pad(logits.topk(count).indices, (0, max(total - count, 0)))[: max(total, count)]
        kept = F.pad(kept, (0, max(count - total, 0)))
        enough = number >= count
        kept = torch.where(enough, kept, best)
        real = torch.arange(len(kept)) < torch.where(enough, number, count)
        of_level = F.one_hot(levels[kept], len(counts)) * real[:, None]
        chosen = ((of_level.cumsum(0) * of_level).sum(1) <= count // len(counts)) & real
        rest = real & ~chosen
        chosen = chosen | (rest & (rest.cumsum(0) <= count - chosen.sum()))
        places = torch.where(chosen, torch.arange(len(kept)), len(kept))
        return kept[places.sort().values[:count]]

    def select(self, logits: Tensor, boxes: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Select the detections of each image from logits (B, Q, C) and boxes (B, Q, 4), center and size."""
        head = self.model.bbox_head
        settings = head.test_cfg
        if head.class_ids is not None:
            logits = logits[..., head.class_ids]
        iou_threshold = None if settings["nms"] is None else settings["nms"]["iou_threshold"]
        found = []
        for index in range(logits.shape[0]):
            corners = bbox_cxcywh_to_xyxy(boxes[index]) * sizes[index].flip(0).repeat(2)
            found.append(
                best_of_classes(
                    corners,
                    logits[index].sigmoid(),
                    0.0,
                    iou_threshold,
                    settings["max_per_img"],
                    settings["pre_nms"],
                )
            )
        return tuple(torch.stack(values) for values in zip(*found, strict=True))


def _padding(sizes: Tensor, canvas: Sequence[int], shape: tuple[int, int]) -> Tensor:
    """Compute which tokens (B, h, w) are padding: their nearest pixel lies outside of the image."""
    rows, columns = (
        torch.tensor([index * side // length for index in range(length)])
        for side, length in zip(canvas, shape, strict=True)
    )
    return (rows[:, None] >= sizes[:, 0, None, None]) | (columns >= sizes[:, 1, None, None])


def _centers(shape: tuple[int, int]) -> Tensor:
    """Return x and y of the centers of a level's tokens in row-major order, (h * w, 2), in tokens."""
    rows, columns = (torch.arange(length) + 0.5 for length in shape)
    return torch.stack([columns.expand(shape[0], -1), rows[:, None].expand(-1, shape[1])], dim=-1).flatten(0, 1)

"""DETA detector with a Perception Encoder backbone."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from mmdet.models.detectors import DeformableDETR
from torch import Tensor, nn

from pe_dense.detection.deta.assigner import choose_proposals
from pe_dense.detection.deta.convert import from_deta, is_deta
from pe_dense.engine.optimizers import LayerDecayOptimWrapperConstructor
from pe_dense.ops import is_replaced
from pe_dense.ops.deform_attn import DeformAttnFunction
from pe_dense.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from pe_dense.utils import match_state_dict, read_checkpoint
from pe_dense.utils.errors import InputError
from pe_dense.utils.hub import HubMixin
from pe_dense.utils.state_dict import unwrap_state


class DeformableAttention(MultiScaleDeformableAttention):
    """mmcv's deformable attention, batch first, with pe_dense's sampling where mmcv has no compiled kernel.

    mmcv's kernel, if compiled, supports float32 and float16 on GPUs. Otherwise mmcv uses a PyTorch implementation that
    stores all sampled values for the backward pass: at 1824 px, 1.4 GB in float32 for each layer of the encoder.
    :mod:`pe_dense.ops.deform_attn` stores none.

    Source: Deformable DETR (arXiv 2010.04159, equation 3).
    """

    def forward(
        self,
        query: Tensor,
        *,
        value: Tensor,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **unused,
    ) -> Tensor:
        """Add to each query the values sampled around its reference point.

        B is the batch size, Q the number of queries, S the number of tokens of all levels, C ``embed_dims``, L the
        number of levels.

        Args:
            query: (B, Q, C).
            value: (B, S, C).
            reference_points: (B, Q, L, 2) points, x and y from 0 to 1, or (B, Q, L, 4) boxes, center and size.
            spatial_shapes: (L, 2), height and width of each level in tokens.
            level_start_index: (L,), index of the first token of each level.
            query_pos: (B, Q, C), added to the queries to predict sampling points and weights.
            key_padding_mask: (B, S), True for tokens that are replaced by 0.
            unused: further arguments that mmdet's layers pass to every attention module.

        Returns:
            (B, Q, C).
        """
        batch, count, _ = query.shape
        positioned = query if query_pos is None else query + query_pos
        projected = self.value_proj(value)
        if key_padding_mask is not None:
            projected = projected.masked_fill(key_padding_mask[..., None], 0.0)
        projected = projected.view(batch, value.shape[1], self.num_heads, -1)

        grid = (batch, count, self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(positioned).view(*grid, 2)
        weights = self.attention_weights(positioned).view(*grid[:3], -1).softmax(-1).view(grid)
        points = reference_points[:, :, None, :, None]  # (B, Q, 1, L, 1, 2 or 4)
        if points.shape[-1] == 2:
            locations = points + offsets / spatial_shapes.flip(1)[:, None]
        else:
            locations = points[..., :2] + offsets / self.num_points * points[..., 2:] * 0.5

        sampled = self.sample(projected, spatial_shapes, level_start_index, locations, weights)
        return self.dropout(self.output_proj(sampled)) + query

    def sample(self, value: Tensor, *inputs: Tensor) -> Tensor:
        """Compute the weighted sum of values at the sampling points, as
        :func:`~pe_dense.ops.deform_attn.ms_deform_attn_forward`; an export replaces this method."""
        if value.is_cuda and value.dtype != torch.bfloat16 and not is_replaced():
            return MultiScaleDeformableAttnFunction.apply(value, *inputs, self.im2col_step)
        return DeformAttnFunction.apply(value, *inputs)


_DTYPES = {None: None, "bfloat16": torch.bfloat16, "float16": torch.float16}
_INIT_KEYS = {"type", "checkpoint", "keep_classifier"}


@MODELS.register_module()
class DETA(HubMixin, DeformableDETR):
    """Two-stage detection transformer on mmdet's deformable encoder and decoder.

    Every token of the encoder predicts a box; the best of each level after NMS become queries, which the decoder layers
    refine. In shapes B is the batch size, S the number of tokens of all levels, D ``embed_dims``, Q the number of
    queries, C the number of classifier outputs. Boxes are center and size relative to the image without padding. If the
    levels have fewer than ``num_queries`` tokens, all become queries.

    Sources: DETA (arXiv 2212.06137), Deformable DETR (arXiv 2010.04159), the Perception Encoder's detector
    (arXiv 2504.13181, section 5.3).

    Args:
        backbone, bbox_head, data_preprocessor, train_cfg, test_cfg: as in mmdet's detectors; the head is a
            :class:`~pe_dense.detection.deta.DETAHead`.
        neck: config of the pyramid (:class:`~pe_dense.necks.DETAPyramid`). Its ``out_channels`` and ``num_levels`` and
            the head's ``embed_dims`` follow from the arguments here.
        embed_dims: D, a multiple of ``num_heads`` and of 4.
        num_levels: levels of the pyramid.
        num_heads: number of attention heads.
        num_points: number of sampling points per head and level.
        feedforward_channels: hidden width of the MLPs.
        encoder_layers, decoder_layers: numbers of layers.
        dropout: dropout rate in attention and MLPs.
        num_queries: Q.
        proposals_per_level: proposals of a level that NMS sees.
        proposal_iou: overlap at which NMS drops the worse of two proposals of a level.
        tower_dtype: 'bfloat16' or 'float16' runs the tower under autocast in training, and the rest of the model in
            float32; None runs all of it in float32.
        test_tower_dtype: the same for testing and prediction; the published evaluation is in float32.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` starts from a detector's checkpoint (path, work dir or
            ``hf://`` name), which must fit, instead of new weights; ``keep_classifier=False`` in it leaves out the
            classifiers, for data of other classes.

    Raises:
        InputError: if ``tower_dtype`` or ``test_tower_dtype`` is another one, ``init_cfg`` has other entries, or a
            number of layers or queries is less than one.
    """

    default_scope = "mmdet"

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        *,
        embed_dims: int = 256,
        num_levels: int = 5,
        num_heads: int = 8,
        num_points: int = 4,
        feedforward_channels: int = 2048,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        dropout: float = 0.0,
        num_queries: int = 900,
        proposals_per_level: int = 1000,
        proposal_iou: float = 0.9,
        tower_dtype: str | None = None,
        test_tower_dtype: str | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ):
        counts = dict(
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            num_queries=num_queries,
            proposals_per_level=proposals_per_level,
        )
        for name, count in counts.items():
            if count < 1:
                raise InputError(f"{name} {count} is less than 1")
        for name, dtype in dict(tower_dtype=tower_dtype, test_tower_dtype=test_tower_dtype).items():
            if dtype not in _DTYPES:
                raise InputError(f"{name} {dtype!r} is not one of {', '.join(map(repr, _DTYPES))}")
        if init_cfg is not None and (
            init_cfg.get("type") != "Pretrained" or not {"type", "checkpoint"} <= set(init_cfg) <= _INIT_KEYS
        ):
            raise InputError(
                "init_cfg of DETA must be dict(type='Pretrained', checkpoint=..., keep_classifier=True or False), "
                f"got {init_cfg}"
            )
        deformable = dict(
            embed_dims=embed_dims,
            num_levels=num_levels,
            num_heads=num_heads,
            num_points=num_points,
            dropout=dropout,
            batch_first=True,
        )
        mlp = dict(embed_dims=embed_dims, feedforward_channels=feedforward_channels, ffn_drop=dropout)
        attention = dict(embed_dims=embed_dims, num_heads=num_heads, dropout=dropout, batch_first=True)
        super().__init__(
            backbone=backbone,
            neck=dict(neck, out_channels=embed_dims, num_levels=num_levels),
            encoder=dict(num_layers=encoder_layers, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=mlp)),
            decoder=dict(
                num_layers=decoder_layers,
                return_intermediate=True,
                layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=mlp),
                post_norm_cfg=None,
            ),
            positional_encoding=dict(num_feats=embed_dims // 2, normalize=True, offset=-0.5),
            bbox_head=dict(bbox_head, embed_dims=embed_dims),
            num_queries=num_queries,
            num_feature_levels=num_levels,
            with_box_refine=True,
            as_two_stage=True,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            data_preprocessor=data_preprocessor,
        )
        for layer in self.encoder.layers:
            layer.self_attn = DeformableAttention(**deformable)
        for layer in self.decoder.layers:
            layer.cross_attn = DeformableAttention(**deformable)
        # mmdet's table has uninitialized memory and stays on the CPU if the model is built on another device.
        self.level_embed = nn.Parameter(torch.empty(num_levels, embed_dims).normal_())
        self.pix_trans_fc = nn.Linear(embed_dims, embed_dims)
        self.pix_trans_norm = nn.LayerNorm(embed_dims)
        self.proposals_per_level = proposals_per_level
        self.proposal_iou = proposal_iou
        self.tower_dtype = _DTYPES[tower_dtype]
        self.test_tower_dtype = _DTYPES[test_tower_dtype]
        self.start = init_cfg

    def init_weights(self) -> None:
        """Initialize the weights, or load those of ``init_cfg`` (MMEngine calls this before training)."""
        super().init_weights()
        nn.init.xavier_uniform_(self.pix_trans_fc.weight)
        if self.start is not None:
            self._load(self.start["checkpoint"], self.start.get("keep_classifier", True))

    def _load(self, source: str, keep_classifier: bool) -> None:
        state = self.from_published(unwrap_state(read_checkpoint(source), source), source)
        own = self.state_dict()
        if not keep_classifier:
            prefix = "bbox_head.cls_branches."
            state = {key: value for key, value in state.items() if not key.startswith(prefix)}
            state.update({key: value for key, value in own.items() if key.startswith(prefix)})
        match_state_dict(own, state, source, type(self).__name__)
        self.load_state_dict(state)

    def from_published(self, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
        """Convert the released state dict to this model's names; return others unchanged. See
        :mod:`pe_dense.detection.deta.convert`."""
        return from_deta(state, self, source) if is_deta(state) else state

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the levels of the pyramid, each (B, D, h, w), from images (B, 3, H, W)."""
        precision = nullcontext()
        dtype = self.tower_dtype if self.training else self.test_tower_dtype
        if dtype is not None:
            precision = torch.autocast(batch_inputs.device.type, dtype=dtype)
        with precision:
            maps = self.backbone(batch_inputs)
        return self.neck([x.float() for x in maps])

    def pre_decoder(
        self, memory: Tensor, memory_mask: Tensor | None, spatial_shapes: Tensor
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run the first stage: select proposals and convert them to queries.

        Args:
            memory: (B, S, D), output of the encoder.
            memory_mask: (B, S), True for padding; None if there is none.
            spatial_shapes: (levels, 2), height and width of each in tokens.

        Returns:
            inputs of the decoder (``query`` and ``query_pos`` (B, Q, D), ``reference_points`` (B, Q, 4), ``memory``)
            and, in training, inputs of the head's loss: ``enc_logits`` (B, S, C), ``enc_boxes`` and ``enc_anchors`` (B,
            S, 4).
        """
        tokens, anchors = self.gen_encoder_output_proposals(memory, memory_mask, spatial_shapes)
        stage = self.decoder.num_layers
        logits = self.bbox_head.cls_branches[stage](tokens)
        boxes = self.bbox_head.reg_branches[stage](tokens) + anchors  # before the sigmoid; infinite at padding
        sizes = spatial_shapes.prod(1).tolist()
        chosen = torch.stack(
            [
                choose_proposals(
                    of_image.sigmoid(),
                    objectness,
                    sizes,
                    count=self.num_queries,
                    per_level=self.proposals_per_level,
                    iou_threshold=self.proposal_iou,
                )
                for of_image, objectness in zip(boxes, logits[..., 0], strict=True)
            ]
        )
        for_decoder = self.queries_of(tokens, boxes, chosen) | dict(memory=memory)
        for_head = dict(enc_logits=logits, enc_boxes=boxes.sigmoid(), enc_anchors=anchors.sigmoid())
        return for_decoder, for_head if self.training else {}

    def queries_of(self, tokens: Tensor, boxes: Tensor, chosen: Tensor) -> dict[str, Tensor]:
        """Convert proposals to queries.

        Args:
            tokens: (B, S, D).
            boxes: (B, S, 4), before the sigmoid.
            chosen: (B, Q), tokens of the proposals.

        Returns:
            ``query`` and ``query_pos`` (B, Q, D), ``reference_points`` (B, Q, 4).
        """
        chosen = chosen[..., None]  # (B, Q, 1)
        proposals = boxes.gather(1, chosen.expand(-1, -1, 4)).detach()
        pixels = tokens.gather(1, chosen.expand(-1, -1, self.embed_dims)).detach()
        positions = self.get_proposal_pos_embed(proposals, num_pos_feats=self.embed_dims // 2)  # (B, Q, 2 D)
        query_pos, query = self.pos_trans_norm(self.pos_trans_fc(positions)).chunk(2, dim=-1)
        query = query + self.pix_trans_norm(self.pix_trans_fc(pixels))
        return dict(query=query, query_pos=query_pos, reference_points=proposals.sigmoid())


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(name=["DETAOptimWrapperConstructor", "DeformableConstructor"])
class DETAOptimWrapperConstructor(LayerDecayOptimWrapperConstructor):
    """Layer-wise decay in the backbone, and a lower learning rate for the offsets of deformable attention.

    Source of the latter: Deformable DETR (arXiv 2010.04159, section 5).

    Args:
        optim_wrapper_cfg: as for MMEngine's default constructor.
        paramwise_cfg: ``dict(decay_rate=...)``, see
            :class:`~pe_dense.engine.optimizers.LayerDecayOptimWrapperConstructor`, and ``offsets_rate``, the factor of
            the offsets' learning rate, 0.1 by default.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        settings = dict(paramwise_cfg or {})
        self.offsets_rate = settings.pop("offsets_rate", 0.1)
        super().__init__(optim_wrapper_cfg, settings)

    def parameter_groups(self, model: nn.Module, lr: float) -> list[dict]:
        """Group parameters as layer-wise decay does, with the offsets' parameters in separate groups."""
        groups = []
        for group in super().parameter_groups(model, lr):
            named = list(zip(group["names"], group["params"], strict=True))
            for offsets, rate in ((False, 1.0), (True, self.offsets_rate)):
                part = [(name, param) for name, param in named if ("sampling_offsets" in name.split(".")) == offsets]
                if part:
                    names, params = map(list, zip(*part, strict=True))
                    groups.append(dict(group, params=params, names=names, lr=group["lr"] * rate))
        return groups

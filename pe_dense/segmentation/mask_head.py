"""Heads that predict a set of masks with classes, for semantic, instance and panoptic segmentation."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import Mask2FormerHead
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from pe_dense.backbones import Backbone
from pe_dense.necks.simple_fpn import LayerNorm2d
from pe_dense.registry import MODELS, TASK_UTILS
from pe_dense.utils.errors import InputError

# A block is masked in evaluation while it is masked for at least half of the queries in training.
_MASKED_IN_EVALUATION = 0.5


class ScaleBlock(nn.Sequential):
    """Double the size of a map: transposed convolution, GELU, depthwise convolution, LayerNorm."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
        self.act = nn.GELU()
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width, bias=False)
        self.norm = LayerNorm2d(width)


class MaskTransformerHead(Mask2FormerHead):
    """Base of heads that decode queries and patches together, with mmdet's matching and losses of Mask2Former.

    In shapes B is the batch, Q the number of queries, K that of classes, P that of prefix tokens, C the channels of
    the backbone, h and w the sides of its grid, m the factor of all scale blocks. Parameter names are the published
    ones, and their initial values those of PyTorch, as published.

    Source: EoMT (arXiv 2503.19108) and its code; losses as in Mask2Former (arXiv 2112.01527), here for the prediction
    before each block with queries and after the last.

    Args:
        backbone: determines sizes; it is not stored.
        num_things_classes: number of classes whose objects are told apart.
        num_stuff_classes: number of the other classes; all classes in semantic segmentation.
        num_queries: Q.
        num_blocks: number of blocks that see the queries.
        num_points: points sampled of a mask for matching and losses.
        oversample_ratio: random points drawn per sampled point, to choose the most uncertain from.
        importance_sample_ratio: share of the most uncertain points among those sampled.
        loss_weights: weights of the losses of classes, mask pixels and dice, and of the costs in matching.
        no_object_weight: weight of the class 'no object' in the classification loss.

    Raises:
        ValueError: if a number is not positive or a ratio is out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_things_classes: int,
        num_stuff_classes: int,
        num_queries: int = 200,
        num_blocks: int = 4,
        loss_weights: tuple[float, float, float] = (2.0, 5.0, 5.0),
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
        no_object_weight: float = 0.1,
    ):
        BaseModule.__init__(self)  # mmdet's constructor makes Mask2Former's pixel decoder
        self.num_classes = num_things_classes + num_stuff_classes
        for name, value in (
            ("num_things_classes + num_stuff_classes", self.num_classes),
            ("num_queries", num_queries),
            ("num_blocks", num_blocks),
            ("num_points", num_points),
        ):
            if value < 1:
                raise InputError(f"{type(self).__name__}: {name} is {value}, it must be at least 1")
        if oversample_ratio < 1 or not 0 <= importance_sample_ratio <= 1:
            raise InputError(
                f"{type(self).__name__}: oversample_ratio {oversample_ratio} must be at least 1, and "
                f"importance_sample_ratio {importance_sample_ratio} between 0 and 1"
            )
        self.num_things_classes, self.num_stuff_classes = num_things_classes, num_stuff_classes
        self.num_queries, self.num_blocks = num_queries, num_blocks
        self.num_prefix_tokens, self.patch_size = backbone.num_prefix_tokens, backbone.patch_size
        width = backbone.embed_dim
        self.register_buffer("attn_mask_probs", torch.ones(num_blocks))
        self.q = nn.Embedding(num_queries, width)
        self.class_head = nn.Linear(width, self.num_classes + 1)
        self.mask_head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.num_scales = max(1, int(math.log2(self.patch_size)) - 2)
        self.upscale = nn.Sequential(*(ScaleBlock(width) for _ in range(self.num_scales)))

        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio
        of_class, of_mask, of_dice = loss_weights
        costs = [
            dict(type="mmdet.ClassificationCost", weight=of_class),
            dict(type="mmdet.CrossEntropyLossCost", weight=of_mask, use_sigmoid=True),
            dict(type="mmdet.DiceCost", weight=of_dice, pred_act=True, eps=1.0),
        ]
        self.assigner = TASK_UTILS.build(dict(type="mmdet.HungarianAssigner", match_costs=costs))
        self.sampler = TASK_UTILS.build(dict(type="mmdet.MaskPseudoSampler"), default_args=dict(context=self))
        self.class_weight = [1.0] * self.num_classes + [no_object_weight]
        self.loss_cls = MODELS.build(
            dict(type="mmdet.CrossEntropyLoss", class_weight=self.class_weight, loss_weight=of_class)
        )
        self.loss_mask = MODELS.build(dict(type="mmdet.CrossEntropyLoss", use_sigmoid=True, loss_weight=of_mask))
        self.loss_dice = MODELS.build(dict(type="mmdet.DiceLoss", naive_dice=True, eps=1.0, loss_weight=of_dice))

    def init_weights(self) -> None:
        """Keep the initial values: those of mmdet are for layers that this head does not have."""

    @abstractmethod
    def forward(self, backbone: Backbone, images: Tensor, *, all_layers: bool | None = None) -> tuple[list, list]:
        """Predict classes and masks.

        Args:
            backbone: the one that determined the sizes of this head.
            images: (B, 3, H, W), normalized.
            all_layers: also return the predictions before each block with queries; by default in training only.

        Returns:
            class logits (B, Q, K + 1), the last for 'no object', and mask logits (B, Q, m h, m w): a list of each, the
            final prediction last.
        """

    def decode(
        self,
        patches: Tensor,
        grid: tuple[int, int],
        run_block: Callable[[int, Tensor, Tensor | None], Tensor],
        norm: Callable[[Tensor], Tensor],
        all_layers: bool | None,
    ) -> tuple[list, list]:
        """Run the blocks that see the queries and predict before each of them and after the last.

        Block k is masked for a share ``attn_mask_probs[k]`` of the queries in training. In evaluation it is masked for
        all queries if that share is at least a half and for none otherwise, so that results do not depend on chance.

        Args:
            patches: (B, P + h * w, C), the tokens of an image.
            grid: (h, w).
            run_block: called with k, the tokens (B, Q + P + h * w, C) and the attention mask or None.
            norm: applied to the tokens before each prediction.
            all_layers: see :meth:`forward`.

        Returns:
            see :meth:`forward`.
        """
        tokens = torch.cat([self.q.weight.to(patches.dtype).expand(patches.shape[0], -1, -1), patches], dim=1)
        every = self.training if all_layers is None else all_layers
        outputs = []
        for k, share in enumerate(self.attn_mask_probs.tolist()):
            masked = share > 0 if self.training else share >= _MASKED_IN_EVALUATION
            attn_mask = None
            if every or masked:
                outputs.append(self.predict_masks(norm(tokens), grid))
                if masked:
                    attn_mask = self.attention_mask(outputs[-1][1], grid, share if self.training else 1.0)
            tokens = run_block(k, tokens, attn_mask)
        outputs.append(self.predict_masks(norm(tokens), grid))
        classes, masks = zip(*(outputs if every else outputs[-1:]), strict=True)
        return list(classes), list(masks)

    def predict_masks(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Predict class logits (B, Q, K + 1) and mask logits (B, Q, m h, m w) from normalized tokens."""
        queries, patches = tokens[:, : self.num_queries], tokens[:, self.num_queries + self.num_prefix_tokens :]
        maps = self.upscale(patches.transpose(1, 2).unflatten(2, grid))
        return self.class_head(queries), torch.einsum("bqc,bchw->bqhw", self.mask_head(queries), maps)

    @torch.no_grad()
    def attention_mask(self, masks: Tensor, grid: tuple[int, int], share: float) -> Tensor:
        """Restrict queries to the patches inside of their masks; all other attention stays.

        Args:
            masks: (B, Q, m h, m w) logits.
            grid: (h, w).
            share: probability that a query is restricted.

        Returns:
            (B, 1, T, T), bool, for T = Q + P + h * w tokens.
        """
        inside = F.interpolate(masks.float(), grid, mode="bilinear").flatten(2) > 0  # (B, Q, h * w)
        if share < 1:
            inside |= torch.rand(inside.shape[:2], device=inside.device)[..., None] > share
        first = self.num_queries + self.num_prefix_tokens
        length = first + inside.shape[2]
        allowed = inside.new_ones(inside.shape[0], 1, length, length)
        allowed[:, 0, : self.num_queries, first:] = inside
        return allowed

    def loss(self, x: tuple[list, list], batch_data_samples: Sequence) -> dict[str, Tensor]:
        """Compute the losses of all predictions.

        Args:
            x: result of :meth:`forward` in training.
            batch_data_samples: mmdet's with ``gt_instances`` (and ``gt_sem_seg`` for stuff), or mmseg's with
                ``gt_sem_seg``, of which each class present is one mask.
        """
        if all("gt_instances" in sample for sample in batch_data_samples):
            things = [sample.gt_instances for sample in batch_data_samples]
            stuff = [sample.get("gt_sem_seg") for sample in batch_data_samples]
            targets = self.preprocess_gt(things, stuff)
        else:
            targets = [self._masks_of_classes(sample.gt_sem_seg.data[0]) for sample in batch_data_samples]
        return self.loss_by_feat(*x, targets, [sample.metainfo for sample in batch_data_samples])

    def loss_by_feat(self, all_cls_scores, all_mask_preds, batch_gt_instances, batch_img_metas) -> dict[str, Tensor]:
        """Compute mmdet's losses in float32; arguments and result as in mmdet."""
        return super().loss_by_feat(
            [scores.float() for scores in all_cls_scores],
            [masks.float() for masks in all_mask_preds],
            batch_gt_instances,
            batch_img_metas,
        )

    def _masks_of_classes(self, labels: Tensor) -> InstanceData:
        """Turn a label map (H, W) into one mask for each class present."""
        present = labels.unique()
        present = present[(present >= 0) & (present < self.num_classes)].long()
        return InstanceData(labels=present, masks=(labels == present[:, None, None]).long())

    def predict(self, x: tuple[list, list], batch_data_samples: Sequence) -> tuple[Tensor, Tensor]:
        """Return class logits (B, Q, K + 1) and mask logits (B, Q, H, W) at the size of the padded images."""
        classes, masks = x
        return classes[-1], self.upsample(masks[-1], batch_data_samples[0].metainfo["batch_input_shape"])

    def upsample(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize mask logits (B, Q, m h, m w) to images of ``size``, without the padding to whole patches."""
        padded = [(side >> self.num_scales) * self.patch_size for side in masks.shape[-2:]]
        return F.interpolate(masks.float(), padded, mode="bilinear")[..., : size[0], : size[1]]


def semantic_map(classes: Tensor, masks: Tensor) -> Tensor:
    """Combine queries to scores of classes.

    Args:
        classes: (B, Q, K + 1) logits.
        masks: (B, Q, H, W) logits.

    Returns:
        (B, K, H, W), the sum over queries of class probability times mask probability.
    """
    return torch.einsum("bqk,bqhw->bkhw", classes.float().softmax(-1)[..., :-1], masks.float().sigmoid())


@MODELS.register_module()
class EoMTHead(MaskTransformerHead):
    """Encoder-only mask transformer (EoMT): the last blocks of the backbone decode the queries.

    The backbone needs :meth:`~pe_dense.backbones.Backbone.run_block`. One without a final norm (PE Spatial) gets a new
    LayerNorm before predictions.

    Source: arXiv 2503.19108 and its code.

    Args:
        backbone, options: see :class:`MaskTransformerHead`.

    Raises:
        ValueError: if ``num_blocks`` leaves no block of the backbone without queries.
    """

    def __init__(self, backbone: Backbone, num_things_classes: int, num_stuff_classes: int, **options):
        super().__init__(backbone, num_things_classes, num_stuff_classes, **options)
        if self.num_blocks >= backbone.num_layers:
            raise InputError(
                f"num_blocks {self.num_blocks} leaves no block of {backbone.name} without queries: use at most "
                f"{backbone.num_layers - 1}"
            )
        self.norm = own_norm(backbone)

    def forward(self, backbone: Backbone, images: Tensor, *, all_layers: bool | None = None) -> tuple[list, list]:
        """See :meth:`MaskTransformerHead.forward`."""
        grid = backbone.grid_of(images)
        first = backbone.num_layers - self.num_blocks
        ((_, tokens),) = backbone.iter_tokens(images, [first - 1])

        def run_block(k: int, tokens: Tensor, attn_mask: Tensor | None) -> Tensor:
            return backbone.run_block(first + k, tokens, grid, attn_mask)

        return self.decode(tokens, grid, run_block, self.norm or backbone.final_norm, all_layers)


def own_norm(backbone: Backbone) -> nn.LayerNorm | None:
    """Make the final norm of a backbone that has none."""
    return nn.LayerNorm(backbone.embed_dim, eps=1e-6) if isinstance(backbone.final_norm, nn.Identity) else None

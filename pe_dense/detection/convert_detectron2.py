"""Convert published Mask R-CNN checkpoints from Detectron2's layout to mmdet's."""

from __future__ import annotations

import re

from torch import Tensor, nn

from pe_dense.backbones.checkpoint import adapt_backbone_state
from pe_dense.utils import CheckpointError

# Patterns of Detectron2's keys and their replacements. None drops the key: it is recomputed from the annotations.
_RULES: list[tuple[str, str | None]] = [
    (r"backbone\.net\.(.+)", r"backbone.\1"),
    (r"backbone\.(simfp_.+)", r"neck.\1"),
    (r"proposal_generator\.rpn_head\.conv\.conv(\d)\.(.+)", r"rpn_head.rpn_conv.\1.conv.\2"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(.+)", r"rpn_head.rpn_cls.\1"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(.+)", r"rpn_head.rpn_reg.\1"),
    (r"roi_heads\.box_head\.conv(\d)\.norm\.(.+)", r"roi_head.bbox_head.shared_convs.<\1>.ln.\2"),
    (r"roi_heads\.box_head\.conv(\d)\.(.+)", r"roi_head.bbox_head.shared_convs.<\1>.conv.\2"),
    (r"roi_heads\.box_head\.fc(\d)\.(.+)", r"roi_head.bbox_head.shared_fcs.<\1>.\2"),
    (r"roi_heads\.box_predictor\.cls_score\.(.+)", r"roi_head.bbox_head.fc_cls.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(.+)", r"roi_head.bbox_head.fc_reg.\1"),
    (r"roi_heads\.box_predictor\.fed_loss_cls_weights", None),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.norm\.(.+)", r"roi_head.mask_head.convs.<\1>.ln.\2"),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.(.+)", r"roi_head.mask_head.convs.<\1>.conv.\2"),
    (r"roi_heads\.mask_head\.deconv\.(.+)", r"roi_head.mask_head.upsample.\1"),
    (r"roi_heads\.mask_head\.predictor\.(.+)", r"roi_head.mask_head.conv_logits.\1"),
]
_LANDMARK = "proposal_generator.rpn_head.objectness_logits.weight"


def is_detectron2(state: dict[str, Tensor]) -> bool:
    """Return whether a state dict is a Mask R-CNN in Detectron2's layout."""
    return _LANDMARK in state


def classifier_outputs(state: dict[str, Tensor]) -> int:
    """Return the number of outputs of the box classifier: classes plus background."""
    return len(state["roi_heads.box_predictor.cls_score.bias"])


def has_layer_scale(state: dict[str, Tensor]) -> bool:
    """Return whether the backbone has LayerScale."""
    return any(key.endswith(".ls_1.gamma") for key in state)


def from_detectron2(state: dict[str, Tensor], model: nn.Module, source: str) -> dict[str, Tensor]:
    """Convert the state dict of a published Mask R-CNN to the keys of this project's model.

    Every key is either mapped, dropped (rotary and sampling tables are recomputed) or reported as unexpected.

    Args:
        state: Detectron2's state dict.
        model: the target model; its backbone determines the size of the position embedding and whether the unused class
                token entry is kept.
        source: name of the file in error messages.

    Raises:
        CheckpointError: if a key is unexpected or the backbone does not match.
    """
    tower, mapped, unknown = {}, {}, []
    for key, value in state.items():
        name = _rename(key)
        if name is None:
            continue
        if not name:
            unknown.append(key)
        elif name.startswith("backbone."):
            tower[name.removeprefix("backbone.")] = value
        else:
            mapped[name] = value
    if unknown:
        raise CheckpointError(
            f"{source} is in Detectron2's layout, but {len(unknown)} keys are unexpected:  "
            f"{', '.join(unknown[:6])}{', ...' if len(unknown) > 6 else ''}"
        )
    tower = adapt_backbone_state(model.backbone, tower, source)
    return {**{f"backbone.{key}": value for key, value in tower.items()}, **mapped}


def _rename(key: str) -> str | None:
    """Return the new key, None to drop it, or '' if no rule matches. Detectron2 counts layers from 1, mmdet from 0."""
    for pattern, replacement in _RULES:
        match = re.fullmatch(pattern, key)
        if match:
            if replacement is None:
                return None
            return re.sub(r"<(\d)>", lambda number: str(int(number[1]) - 1), match.expand(replacement))
    return ""

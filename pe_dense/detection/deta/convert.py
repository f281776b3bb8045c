"""Convert the released DETA detector to mmdet's parameter names."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from pe_dense.backbones.checkpoint import adapt_backbone_state
from pe_dense.utils import CheckpointError

# COCO's ids of its 80 classes, in order: eleven ids of 0..90 were never used.
COCO_IDS = tuple(i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))

# Patterns of published keys and their replacements.
_RULES: list[tuple[str, str]] = [
    (r"backbone\.0\.body\.(fpn1\..+)", r"neck.\1"),
    (r"backbone\.0\.body\.(.+)", r"backbone.\1"),
    (r"input_proj\.(.+)", r"neck.input_proj.\1"),
    (r"class_embed\.(.+)", r"bbox_head.cls_branches.\1"),
    (r"bbox_embed\.(\d+)\.layers\.(\d)\.(.+)", r"bbox_head.reg_branches.\1.<\2>.\3"),
    (r"transformer\.level_embed", r"level_embed"),
    (r"transformer\.enc_output(_norm)?\.(.+)", r"memory_trans\1.\2"),
    (r"transformer\.(pos|pix)_trans(_norm)?\.(.+)", r"\1_trans\2.\3"),
    (r"transformer\.((?:en|de)coder\.layers\.\d+)\.linear1\.(.+)", r"\1.ffn.layers.0.0.\2"),
    (r"transformer\.((?:en|de)coder\.layers\.\d+)\.linear2\.(.+)", r"\1.ffn.layers.1.\2"),
    (r"transformer\.(encoder\.layers\.\d+\.self_attn)\.(.+)", r"\1.\2"),
    (r"transformer\.(encoder\.layers\.\d+)\.norm1\.(.+)", r"\1.norms.0.\2"),
    (r"transformer\.(encoder\.layers\.\d+)\.norm2\.(.+)", r"\1.norms.1.\2"),
    (r"transformer\.(decoder\.layers\.\d+\.self_attn)\.(.+)", r"\1.attn.\2"),
    (r"transformer\.(decoder\.layers\.\d+\.cross_attn)\.(.+)", r"\1.\2"),
    # Published names number the decoder's norms by module; mmdet numbers them in execution order.
    (r"transformer\.(decoder\.layers\.\d+)\.norm2\.(.+)", r"\1.norms.0.\2"),
    (r"transformer\.(decoder\.layers\.\d+)\.norm1\.(.+)", r"\1.norms.1.\2"),
    (r"transformer\.(decoder\.layers\.\d+)\.norm3\.(.+)", r"\1.norms.2.\2"),
]
_COPIES = re.compile(r"transformer\.decoder\.((?:class|bbox)_embed\..+)")
_LANDMARK = "transformer.level_embed"


def is_deta(state: dict[str, Tensor]) -> bool:
    """Return whether a state dict is a DETA detector in the published layout."""
    return _LANDMARK in state


def from_deta(state: dict[str, Tensor], model: nn.Module, source: str) -> dict[str, Tensor]:
    """Convert the state dict of the released DETA detector to the keys of this project's model.

    Every key is either mapped, dropped (rotary tables, which are recomputed, and copies of a classifier or regressor
    under a second name, which must be equal) or reported as unexpected. A classifier with 91 outputs, one per COCO id,
    is reduced to the 80 classes if the model has 80 outputs.

    Args:
        state: published state dict.
        model: target model.
        source: name of the file in errors.

    Raises:
        CheckpointError: if a key is unexpected, a copy differs, or the tower does not match.
    """
    tower, mapped, unknown, different = {}, {}, [], []
    for key, value in state.items():
        copy = _COPIES.fullmatch(key)
        name = _rename(key)
        if copy:
            original = state.get(copy[1])
            if original is None or not torch.equal(original, value):
                different.append(key)
        elif name is None:
            unknown.append(key)
        elif name.startswith("backbone."):
            tower[name.removeprefix("backbone.")] = value
        else:
            mapped[name] = value
    for keys, problem in ((unknown, "are unexpected"), (different, "differ from their first copy")):
        if keys:
            raise CheckpointError(
                f"{source} is a DETA detector in the published layout, but {len(keys)} keys {problem}: "
                f"{', '.join(keys[:6])}{', ...' if len(keys) > 6 else ''}"
            )
    if model.bbox_head.cls_out_channels == len(COCO_IDS):
        mapped = {name: _cut_classifier(name, value, model.decoder.num_layers) for name, value in mapped.items()}
    tower = adapt_backbone_state(model.backbone, tower, source)
    return {**{f"backbone.{key}": value for key, value in tower.items()}, **mapped}


def _rename(key: str) -> str | None:
    """Return the new name, or None if no rule matches. In mmdet, activations are between the layers of a regressor."""
    for pattern, replacement in _RULES:
        match = re.fullmatch(pattern, key)
        if match:
            name = re.sub(r"<(\d)>", lambda number: str(2 * int(number[1])), match.expand(replacement))
            return re.sub(r"^(memory|pos|pix)_trans\.", r"\1_trans_fc.", name)
    return None


def _cut_classifier(name: str, value: Tensor, first_stage: int) -> Tensor:
    """Select the rows of COCO's 80 classes in a classifier's parameter; return other parameters unchanged."""
    match = re.fullmatch(r"bbox_head\.cls_branches\.(\d+)\..+", name)
    if not match or len(value) != COCO_IDS[-1] + 1:
        return value
    # The first output of the first stage is the objectness; the others are not used.
    rows = [0, *COCO_IDS[1:]] if int(match[1]) == first_stage else list(COCO_IDS)
    return value[rows]

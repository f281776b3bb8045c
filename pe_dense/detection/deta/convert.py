"""The released DETA detector, brought to mmdet's names."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from pe_dense.backbones.checkpoint import adapt_backbone_state
from pe_dense.utils import CheckpointError

# COCO's ids of its 80 classes, in order: eleven ids of 0..90 were never used.
COCO_IDS = tuple(i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))

# Patterns of the published keys and what they become.
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
    # The decoder's norms are numbered by module there, in the order in which they run here.
    (r"transformer\.(decoder\.layers\.\d+)\.norm2\.(.+)", r"\1.norms.0.\2"),
    (r"transformer\.(decoder\.layers\.\d+)\.norm1\.(.+)", r"\1.norms.1.\2"),
    (r"transformer\.(decoder\.layers\.\d+)\.norm3\.(.+)", r"\1.norms.2.\2"),
]
_COPIES = re.compile(r"transformer\.decoder\.((?:class|bbox)_embed\..+)")
_LANDMARK = "transformer.level_embed"


def is_deta(state: dict[str, Tensor]) -> bool:
    """Whether a state dict is a DETA detector in the published layout."""
    return _LANDMARK in state


def from_deta(state: dict[str, Tensor], model: nn.Module, source: str) -> dict[str, Tensor]:
    """Map a released DETA detector to a model of this project's configs.

    Every key is accounted for: mapped, a second name of a classifier or regressor (which must agree with the first), a
    rotary table that is remade, or an error. A classifier of 91 outputs, counted by COCO's ids, is cut to the 80
    classes where the model has as many outputs.

    Args:
        state: the published state dict.
        model: the model that it is for.
        source: how errors name the file.

    Raises:
        CheckpointError: for a key that no rule knows, a copy that differs, or a tower that does not fit.
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
    for keys, problem in ((unknown, "are of no known part"), (different, "differ from their first copy")):
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
    """The new name, None where no rule matches. A regressor's layers have activations between them here."""
    for pattern, replacement in _RULES:
        match = re.fullmatch(pattern, key)
        if match:
            name = re.sub(r"<(\d)>", lambda number: str(2 * int(number[1])), match.expand(replacement))
            return re.sub(r"^(memory|pos|pix)_trans\.", r"\1_trans_fc.", name)
    return None


def _cut_classifier(name: str, value: Tensor, first_stage: int) -> Tensor:
    """The rows of COCO's classes of a classifier's parameter; other parameters unchanged."""
    match = re.fullmatch(r"bbox_head\.cls_branches\.(\d+)\..+", name)
    if not match or len(value) != COCO_IDS[-1] + 1:
        return value
    # The first stage's first output is the objectness; the others are silent, whichever stay.
    rows = [0, *COCO_IDS[1:]] if int(match[1]) == first_stage else list(COCO_IDS)
    return value[rows]

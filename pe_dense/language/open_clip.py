"""Convert state dicts of PE Core to and from open_clip's layout (``timm/PE-Core-*`` on the hub)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from pe_dense.utils import CheckpointError

LANDMARK = "visual.trunk.patch_embed.proj.weight"
_HEAD_BIAS = "visual.trunk.head.bias"
_TEXT = r"(token_embedding\.weight|positional_embedding|text_projection|ln_final\.(?:weight|bias)|transformer\..+)"
_BLOCK = {
    "ln_1": "norm1",
    "ln_2": "norm2",
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj": "attn.proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "ls_1.gamma": "gamma_1",
    "ls_2.gamma": "gamma_2",
}
_POOL = {
    "attn.out_proj": "proj",
    "layernorm": "norm",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "probe": "latent",
}
_NAMES = {
    "conv1.weight": "patch_embed.proj.weight",
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "ln_pre.weight": "norm_pre.weight",
    "ln_pre.bias": "norm_pre.bias",
    "ln_post.weight": "norm.weight",
    "ln_post.bias": "norm.bias",
    "proj": "head.weight",
}


def _replace_start(name: str, table: Mapping[str, str]) -> str | None:
    for start, other in table.items():
        if name.startswith(start):
            return other + name.removeprefix(start)
    return None


def _rename(key: str, names: Mapping[str, str], block: Mapping[str, str], pool: Mapping[str, str]) -> str | None:
    """Return the name of an image tower parameter in the other layout, without its prefix; None if unknown."""
    if key in names:
        return names[key]
    if match := re.fullmatch(r"(?:transformer\.resblocks|blocks)\.(\d+)\.(.+)", key):
        prefix = "blocks" if key.startswith("transformer") else "transformer.resblocks"
        name = _replace_start(match[2], block)
        return name and f"{prefix}.{match[1]}.{name}"
    if key.startswith("attn_pool."):
        name = _replace_start(key.removeprefix("attn_pool."), pool)
        return name and f"attn_pool.{name}"
    return None


def to_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the published layout to open_clip's.

    Args:
        state: of a :class:`~pe_dense.language.CLIP`.

    Raises:
        CheckpointError: for a key that open_clip's models do not have.
    """
    result = {}
    for key, value in state.items():
        if key == "logit_scale":
            result[key] = value
        elif re.fullmatch(_TEXT, key):
            result[f"text.{key}"] = value
        elif match := re.fullmatch(r"visual\.attn_pool\.attn\.in_proj_(weight|bias)", key):
            third = len(value) // 3
            result[f"visual.trunk.attn_pool.q.{match[1]}"] = value[:third]
            result[f"visual.trunk.attn_pool.kv.{match[1]}"] = value[third:]
        else:
            name = _rename(key.removeprefix("visual."), _NAMES, _BLOCK, _POOL) if key.startswith("visual.") else None
            if name is None:
                raise CheckpointError(f"{key} has no counterpart in open_clip's layout")
            if name in ("cls_token", "pos_embed"):
                value = value.reshape(1, -1, value.shape[-1])
            elif name == "head.weight":
                value = value.t()
                result[_HEAD_BIAS] = value.new_zeros(len(value))
            result[f"visual.trunk.{name}"] = value
    return {key: value.contiguous() for key, value in result.items()}


def from_open_clip(state: Mapping[str, Tensor], source: str = "checkpoint") -> dict[str, Tensor]:
    """Convert open_clip's layout to the published one.

    Args:
        state: of an open_clip model with a timm trunk ``vit_pe_core_*``.
        source: name of the file in errors.

    Raises:
        CheckpointError: for unknown keys, and for a bias of the projection that is not zero, which the published
            layout does not have.
    """
    names, block, pool = ({value: key for key, value in table.items()} for table in (_NAMES, _BLOCK, _POOL))
    result, unknown = {}, []
    for key, value in state.items():
        trunk = key.removeprefix("visual.trunk.")
        if key == "logit_scale":
            result[key] = value
        elif key.startswith("text.") and re.fullmatch(_TEXT, key.removeprefix("text.")):
            result[key.removeprefix("text.")] = value
        elif key == _HEAD_BIAS:
            if value.any():
                raise CheckpointError(f"{source}: {key} is not zero, which the published layout cannot express")
        elif match := re.fullmatch(r"attn_pool\.(q|kv)\.(weight|bias)", trunk):
            if match[1] == "kv":
                query = state.get(f"visual.trunk.attn_pool.q.{match[2]}")
                if query is None or query.shape[1:] != value.shape[1:]:
                    raise CheckpointError(
                        f"{source}: visual.trunk.attn_pool.q.{match[2]} is missing or does not fit {key}"
                    )
                result[f"visual.attn_pool.attn.in_proj_{match[2]}"] = torch.cat([query, value])
        elif key != trunk and (name := _rename(trunk, names, block, pool)):
            if name == "class_embedding":
                value = value.flatten()
            elif name == "positional_embedding":
                value = value.flatten(0, -2)
            elif name == "proj":
                value = value.t()
            result[f"visual.{name}"] = value
        else:
            unknown.append(key)
    if unknown:
        raise CheckpointError(
            f"{source}: unexpected keys {', '.join(sorted(unknown)[:6])}, not those of a PE Core model"
        )
    return result

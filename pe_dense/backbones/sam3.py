"""Parameter names of the vision tower and the neck in SAM 3's published file."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# Parameters by which the parts are found; those of the tracker's copies start with 'tracker.'.
_TOWER, _NECK = "trunk.patch_embed.proj.weight", "convs.0.conv_3x3.weight"
_WRAPPERS = ("model", "state_dict")
_TOWER_NAMES = [
    (r"^patch_embed\.proj\.", "conv1."),
    (r"^pos_embed$", "positional_embedding"),
    (r"^blocks\.(\d+)\.", r"transformer.resblocks.\1."),
    (r"\.norm([12])\.", r".ln_\1."),
    (r"\.attn\.qkv\.", ".attn.in_proj_"),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
]
_ROTARY_BUFFER = ".attn.freqs_cis"  # complex numbers, computed from the architecture


def rename_sam3_tower(checkpoint: Mapping) -> Mapping:
    """Convert SAM 3's published file to a state dict of its tower with the names of PE.

    Args:
        checkpoint: content of any file: a state dict, or a dict with one under ``model`` or ``state_dict``.

    Returns:
        the tower's parameters; every other file unchanged.
    """
    return _rename(checkpoint, _TOWER, "trunk.", _TOWER_NAMES) or checkpoint


def rename_sam3_neck(checkpoint: Mapping, names: list[tuple[str, str]], *, tracker: bool = False) -> dict[str, Tensor]:
    """Convert SAM 3's published file to a state dict of its neck.

    Args:
        checkpoint: see :func:`rename_sam3_tower`.
        names: patterns of the names after ``convs.`` and their replacements.
        tracker: the set of convolutions for the tracker (``sam2_convs``) instead of the detector's.

    Returns:
        the neck's parameters; empty if the file has none.
    """
    return _rename(checkpoint, f"sam2_{_NECK}" if tracker else _NECK, "sam2_convs." if tracker else "convs.", names)


def _rename(checkpoint: Mapping, landmark: str, part: str, names: list[tuple[str, str]]) -> dict[str, Tensor]:
    """Return the parameters after the prefix at which the landmark stands, with other names."""
    state = checkpoint
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping):
        return {}
    keys = [key for key in state if isinstance(key, str)]
    found = [key.removesuffix(landmark) for key in keys if key == landmark or key.endswith("." + landmark)]
    if not found:
        return {}
    prefix = min(found, key=lambda name: name.startswith("tracker.")) + part
    renamed = {}
    for key in keys:
        if key.startswith(prefix) and not key.endswith(_ROTARY_BUFFER):
            name = key.removeprefix(prefix)
            for pattern, replacement in names:
                name = re.sub(pattern, replacement, name)
            renamed[name] = state[key]
    return renamed

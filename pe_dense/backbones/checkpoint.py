"""Load and save weights of PE towers in the published format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor

from pe_dense.backbones.pos_embed import resample_patch_embedding, resample_positions, split_cls_entry
from pe_dense.backbones.sam3 import rename_sam3_tower
from pe_dense.utils import CheckpointError, match_state_dict, read_checkpoint
from pe_dense.utils.checkpoint import write_checkpoint, write_safetensors
from pe_dense.utils.errors import InputError
from pe_dense.utils.lora_state import merge_lora, with_lora
from pe_dense.utils.state_dict import require_finite, unwrap_state

# Two parameters that every tower has, used to find a tower in a file.
_LANDMARKS = ("conv1.weight", "transformer.resblocks.0.ln_1.weight")
_HEAD = ("ln_post", "attn_pool", "proj")
_ROTARY_BUFFERS = ("freqs", "freqs_cos", "freqs_sin")
_LAYER_SCALE = "gamma"
# Expected shapes by parameter name; w is the width of the tower, h the hidden width of its MLPs.
_SHAPES = [
    (r"\.attn\.in_proj_weight$", ("w3", "w")),
    (r"\.attn\.in_proj_bias$", ("w3",)),
    (r"\.attn\.out_proj\.weight$", ("w", "w")),
    (r"\.mlp\.c_fc\.weight$", ("h", "w")),
    (r"\.mlp\.c_fc\.bias$", ("h",)),
    (r"^transformer\.resblocks\.\d+\.mlp\.c_proj\.weight$", ("w", "h")),
    (r"^transformer\.resblocks\.\d+\.(ln_1|ln_2)\.(weight|bias)$", ("w",)),
    (r"^transformer\.resblocks\.\d+\.(attn\.out_proj|mlp\.c_proj)\.bias$", ("w",)),
    (r"\.gamma$", ("w",)),
    (r"^(ln_pre|ln_post)\.(weight|bias)$", ("w",)),
    (r"^class_embedding$", ("w",)),
]


def load_weights(tower, source: str | Path, *, add_layer_scale: bool = False) -> None:
    """Load the weights of a file into a tower.

    The file may be a released tower, a Core file with image and text towers, SAM 3's file, or a checkpoint of a model
    that contains a tower. Ignored are: parameters outside the vision tower (text tower, heads), rotary buffers and, if
    the tower was built without them, the class token with its position and the layers after the last block. Patch
    embedding and position embeddings are resampled if the patch size or native grid differs. All other keys and shapes
    must match.

    Args:
        tower: a :class:`~pe_dense.backbones.PETower`.
        source: path or ``hf://`` name, see :func:`~pe_dense.utils.read_checkpoint`.
        add_layer_scale: see :func:`adapt_backbone_state`.

    Raises:
        CheckpointError: if the file contains no tower, more than one, or one that does not match; the message names the
            keys, the file and the tower.
        FileNotFoundError: if the file does not exist.
    """
    state = adapt_backbone_state(
        tower, extract_backbone_state(read_checkpoint(source), source), source, add_layer_scale=add_layer_scale
    )
    tower.load_state_dict(state, assign=any(p.is_meta for p in tower.parameters()))


def extract_backbone_state(checkpoint, source: str | Path = "checkpoint") -> dict[str, Tensor]:
    """Find the tower in a checkpoint and return its state dict with the published names; LoRA adapters are merged.

    Args:
        checkpoint: a state dict, or a dict with one under ``state_dict``, ``weights`` or ``model``.
        source: name of the checkpoint in error messages.

    Raises:
        CheckpointError: if the checkpoint contains no tower or more than one.
    """
    state = unwrap_state(rename_sam3_tower(checkpoint), str(source), ("state_dict", "weights", "model"))
    first = _LANDMARKS[0]
    prefixes = [
        key.removesuffix(first) for key in state if key == first or key.endswith("." + first)
    ]  # 'module.', 'visual.', 'backbone.', ...
    prefixes = [prefix for prefix in prefixes if all(prefix + mark in state for mark in _LANDMARKS)]
    if not prefixes:
        shown = ", ".join(key[:100] for key in list(state)[:4])
        raise CheckpointError(
            f"{source} contains no PE tower: no {' and '.join(_LANDMARKS)} among its {len(state)} keys ({shown}, ...)"
        )
    if len(prefixes) > 1:
        raise CheckpointError(f"{source} contains {len(prefixes)} towers, under {', '.join(map(repr, prefixes))}")
    prefix = prefixes[0]
    if others := sum(not key.startswith(prefix) for key in state):
        print_log(f"{source}: took the tower under {prefix!r}, left out {others} other tensors", logger="current")
    part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return merge_lora(part, str(source))


def adapt_backbone_state(
    tower, state: dict[str, Tensor], source: str | Path = "checkpoint", *, add_layer_scale: bool = False
) -> dict[str, Tensor]:
    """Adapt a published state dict to a tower: drop unused parts and resample embeddings.

    Args:
        tower: a :class:`~pe_dense.backbones.PETower`.
        state: state dict of a tower, with the published names.
        source: name of the state dict in error messages.
        add_layer_scale: keep the initial LayerScale of the tower if the file has none, and log it, as for the student
            of spatial alignment; by default this is an error.

    Returns:
        a state dict with exactly the keys, shapes and data types of the tower.

    Raises:
        CheckpointError: if there are missing keys, unexpected keys or other shapes; the message lists them.
    """
    config = tower.config
    state = {key: value for key, value in state.items() if key.rpartition(".")[2] not in _ROTARY_BUFFERS}
    _check_resampled(state, source)
    if not tower.has_head:
        state = {key: value for key, value in state.items() if key.partition(".")[0] not in _HEAD}
    table = state.get("positional_embedding")
    if table is not None and config.use_abs_posemb:
        try:
            cls_entry, grid = split_cls_entry(table)
        except InputError as error:
            raise CheckpointError(f"{source}: {error}") from error
        if not config.use_cls_token:
            state.pop("class_embedding", None)
            cls_entry = cls_entry[:0]
        if len(grid) != config.grid_size**2:
            grid = resample_positions(grid, config.grid_size)
            print_log(f"{source}: positions resampled to {config.grid_size} x {config.grid_size}", "current")
        state["positional_embedding"] = torch.cat([cls_entry, grid])
    weight = state.get("conv1.weight")
    if weight is not None and weight.shape[-1] != config.patch_size:
        state["conv1.weight"] = resample_patch_embedding(weight, config.patch_size)
        print_log(f"{source}: patches resampled from {weight.shape[-1]} to {config.patch_size} px", "current")

    own = tower.state_dict()
    if add_layer_scale:
        added = [key for key in own if key.rpartition(".")[2] == _LAYER_SCALE and key not in state]
        state.update({key: own[key] for key in added})
        if added:
            initial = tower.config.ls_init_value
            print_log(f"{source}: LayerScale of {initial} added in {len(added)} places: {added[0]}, ...", "current")
    state = with_lora(state, own)
    match_state_dict(own, state, str(source), tower.name)
    # Towers on the meta device take the tensors as they are, so a file in half precision is converted here.
    return {key: value.to(own[key].dtype) for key, value in state.items()}


def _check_resampled(state: dict[str, Tensor], source: str | Path) -> None:
    """Check the tensors that are resampled, before all tensors are compared with those of the tower."""
    for key, dims in (("positional_embedding", (2, 3)), ("conv1.weight", (4,))):
        value = state.get(key)
        if value is None:
            continue
        shape = tuple(value.shape)
        if value.dim() not in dims or not value.numel() or not value.is_floating_point():
            raise CheckpointError(f"{source}: {key} is {value.dtype} of shape {shape}, not that of a tower")
        if key == "conv1.weight" and shape[2] != shape[3]:
            raise CheckpointError(f"{source}: {key} has patches of {shape[2]} x {shape[3]} px, which are not square")
        if key == "positional_embedding" and value.dim() == 3 and len(value) != 1:
            raise CheckpointError(f"{source}: {key} is of shape {shape}, not (1, positions, channels)")


def check_tower_state(state: Mapping[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """Check the state dict of a tower of unknown size: finite floating-point tensors with consistent shapes.

    Args:
        state: state dict of a tower, with the published names.
        source: name of the state dict in error messages.

    Returns:
        the state dict, with the leading dimension of 1 that published detectors have removed from the position
        embedding.

    Raises:
        CheckpointError: if a tensor is invalid; the message names the tensors.
    """
    state = dict(state)
    _check_resampled(state, source)
    width = len(state["conv1.weight"])
    problems = []
    table = state.get("positional_embedding")
    if table is not None:
        state["positional_embedding"] = table = table.squeeze(0) if table.dim() == 3 else table
        try:
            split_cls_entry(table)
        except InputError as error:
            raise CheckpointError(f"{source}: {error}") from error
        if table.shape[1] != width:
            problems.append(f"positional_embedding is of shape {tuple(table.shape)}")
    for key, value in state.items():
        if not value.is_floating_point():
            problems.append(f"{key} is {str(value.dtype).removeprefix('torch.')}")
            continue
        shape = next((shape for pattern, shape in _SHAPES if re.search(pattern, key)), None)
        if shape is not None:
            hidden = state.get(f"{key.rpartition('.mlp.')[0]}.mlp.c_fc.bias")
            sizes = dict(w=width, w3=3 * width, h=None if hidden is None else hidden.numel())
            wanted = tuple(sizes[size] for size in shape)
            if tuple(value.shape) != wanted:
                problems.append(f"{key} is of shape {tuple(value.shape)}, not {wanted}")
    if problems:
        raise CheckpointError(f"{source} is not a tower of {width} channels: {'; '.join(problems[:4])}")
    require_finite(state, str(source))
    return state


def save_state(
    state: Mapping[str, Tensor],
    path: str | Path,
    *,
    overwrite: bool = False,
    meta: Mapping | None = None,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Save a state dict atomically.

    Tensors may be memory-mapped from the file that is replaced: data goes to a temporary file in the same folder first,
    see :mod:`pe_dense.utils.atomic_write`.

    Args:
        state: tensors by name.
        path: path with suffix ``.safetensors`` or, for the PyTorch format, ``.pt`` or ``.pth``.
        overwrite: replace an existing file.
        meta: plain values to store under ``meta`` in ``.pt`` and ``.pth`` files, with the state dict under
            ``state_dict``.
        dtype: data type of the tensors in the file; their own by default.
        metadata: texts by name for the header of a ``.safetensors`` file.

    Returns:
        the path of the file.

    Raises:
        FileExistsError: if the file exists and ``overwrite`` is not set.
        ValueError: for another suffix, or ``metadata`` with ``.pt`` and ``.pth``.
        WriteError: if the file cannot be written, for example because the disk is full or the folder is read-only.
    """
    path = Path(path)
    if path.suffix not in (".pt", ".pth", ".safetensors"):
        raise InputError(f"{path}: weights are written as .pt, .pth or .safetensors")
    if metadata and path.suffix != ".safetensors":
        raise InputError(f"{path}: only .safetensors files have metadata in their header")
    state = {key: value.detach().to("cpu", dtype).contiguous() for key, value in state.items()}
    if path.suffix == ".safetensors":
        write_safetensors(path, state, overwrite=overwrite, metadata=metadata)
    else:
        write_checkpoint(path, state if meta is None else dict(state_dict=state, meta=meta), overwrite=overwrite)
    return path

"""State dicts of backbones with LoRA adapters: merge the adapters, and convert names.

An adapted layer has the names of the package ``peft``: the weights of the layer itself are under ``base_layer``, the
two factors of the adapter under ``lora_A.default`` and ``lora_B.default``. Their product is multiplied by the tensor
``lora_scaling`` of the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pe_dense.utils.checkpoint import CheckpointError
from pe_dense.utils.errors import ConfigError

SCALING = "lora_scaling"
_BASE, _DOWN, _UP = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


def has_lora(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict contains LoRA adapters."""
    return any(key.rpartition(".")[2] == SCALING for key in state)


def with_lora(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict without adapters to the names of a model that has them.

    Args:
        state: state dict with the names of the model without adapters.
        own: state dict of the model, whose adapters are added to the result. Without any, ``state`` is not changed.
    """
    names = {_plain_name(key): key for key in own}
    return {names.get(key, key): value for key, value in state.items()} | {
        key: value for key, value in own.items() if _is_adapter(key)
    }


def match_lora(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str, *, resume: bool) -> dict:
    """Merge the adapters of a state dict if the model has none; if only the model has adapters, add those.

    Args:
        state: state dict from a file.
        own: state dict of the model.
        source: name of the file in errors.
        resume: whether the model continues the run that saved the file.

    Raises:
        ConfigError: if only one of them has adapters and ``resume`` is set.
        CheckpointError: see :func:`merge_lora`.
    """
    if has_lora(state) == has_lora(own):
        return dict(state)
    if resume:
        saved, remedy = ("with", "add --lora RANK") if has_lora(state) else ("without", "leave --lora out")
        raise ConfigError(f"{source} was saved by a run {saved} LoRA: to resume it, {remedy}")
    return merge_lora(state, source) if has_lora(state) else with_lora(state, own)


def merge_lora(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Add the adapters to the weights of their layers: W + scaling * B A (LoRA, arXiv 2106.09685, section 4.1).

    Args:
        state: state dict of a backbone, or of a model with backbones, with or without adapters.
        source: name of the state dict in errors.

    Returns:
        the state dict of the same model without adapters, with the same outputs up to rounding.

    Raises:
        CheckpointError: if an adapter is incomplete or does not match its layer.
    """
    scalings = {key.removesuffix(SCALING): state[key] for key in state if key.rpartition(".")[2] == SCALING}
    if not scalings:
        return dict(state)
    if bad := [prefix for prefix, value in scalings.items() if value.shape != () or not bool(value.isfinite())]:
        raise CheckpointError(f"{source}: {bad[0]}{SCALING} is not a finite number")
    adapters = {key.rpartition(".lora_")[0] for key in state if key.endswith((_DOWN, _UP))}
    merged = {}
    for key, value in state.items():
        if _is_adapter(key):
            continue
        layer = key.removesuffix(f"{_BASE}weight")
        if layer != key and layer in adapters:
            adapters.remove(layer)
            down, up = state.get(layer + _DOWN), state.get(layer + _UP)
            scaling = next((scalings[prefix] for prefix in scalings if key.startswith(prefix)), None)
            if down is None or up is None or scaling is None or not _fits(value, down, up):
                raise CheckpointError(f"{source}: the LoRA adapter of {layer[:200]} does not match its layer")
            value = (value.float() + scaling * (up.float() @ down.float())).to(value.dtype)
        merged[_plain_name(key)] = value
    if adapters:
        raise CheckpointError(f"{source}: the layer of the LoRA adapter {min(adapters)[:200]} is missing")
    return merged


def _fits(weight: Tensor, down: Tensor, up: Tensor) -> bool:
    """Return whether the factors A (r, C) and B (D, r) belong to a weight (D, C)."""
    return weight.dim() == down.dim() == up.dim() == 2 and (
        (up.shape[0], down.shape[1], up.shape[1]) == (*weight.shape, down.shape[0])
    )


def _is_adapter(key: str) -> bool:
    return key.endswith((_DOWN, _UP)) or key.rpartition(".")[2] == SCALING


def _plain_name(key: str) -> str:
    # The projection to queries, keys and values of a PE tower is a linear layer only while it has an adapter.
    return key.replace(f".in_proj{_BASE}", ".in_proj_").replace(_BASE, ".")

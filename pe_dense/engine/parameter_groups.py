"""What an optimiser of a config would train at which rate, without data or weights."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from pe_dense.engine.errors import ConfigError

_AMP_ONLY = ("dtype", "loss_scale", "use_fsdp")


@dataclass(frozen=True)
class ParameterGroup:
    """One group of an optimiser.

    Args:
        layer: depth by layer decay, 0 for the embedding; None where the config has no layer decay.
        names: its parameters' names.
        size: numbers in them.
        lr: learning rate, before warm-up and schedule.
        weight_decay: the optimiser's.
    """

    layer: int | None
    names: tuple[str, ...]
    size: int
    lr: float
    weight_decay: float


def parameter_groups(config: Config) -> list[ParameterGroup]:
    """Build a config's model, without memory for it, and its optimiser.

    Args:
        config: a whole config.

    Returns:
        the optimiser's groups, in its order; frozen parameters are in none.

    Raises:
        ConfigError: for a method without training.
    """
    if "optim_wrapper" not in config:
        raise ConfigError(f"{config.filename} has nothing to train")
    init_default_scope(config.get("default_scope", "mmengine"))
    with torch.device("meta"):
        model = MODELS.build(deepcopy(config.model))
    wrapper = {key: value for key, value in deepcopy(config.optim_wrapper).items() if key not in _AMP_ONLY}
    wrapper["type"] = "OptimWrapper"  # that of mixed precision asks for a GPU
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [
        ParameterGroup(
            layer=group.get("layer"),
            names=tuple(names[parameter] for parameter in group["params"]),
            size=sum(parameter.numel() for parameter in group["params"]),
            lr=group["lr"],
            weight_decay=group.get("weight_decay", 0.0),
        )
        for group in build_optim_wrapper(model, wrapper).optimizer.param_groups
    ]


def describe(groups: list[ParameterGroup]) -> str:
    """Lay groups out as a table, one line each and one for their sum."""
    lines = [f"{'layer':>5} {'tensors':>8} {'parameters':>14} {'lr':>11} {'decay':>6}  names"]
    for group in groups:
        layer = "-" if group.layer is None else group.layer
        names = group.names[0] if len(group.names) == 1 else f"{group.names[0]} ... {group.names[-1]}"
        lines.append(
            f"{layer:>5} {len(group.names):>8} {group.size:>14,} {group.lr:>11.4e} {group.weight_decay:>6g}  {names}"
        )
    tensors, size = sum(len(group.names) for group in groups), sum(group.size for group in groups)
    lines.append(f"{'all':>5} {tensors:>8} {size:>14,}  in {len(groups)} groups")
    return "\n".join(lines)

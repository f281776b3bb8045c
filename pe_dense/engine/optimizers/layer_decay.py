"""Layer-wise learning-rate decay."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, OPTIM_WRAPPERS, OPTIMIZERS, init_default_scope
from torch import nn

from pe_dense.backbones.base import Backbone
from pe_dense.engine.config_check import check_config
from pe_dense.registry import OPTIM_WRAPPER_CONSTRUCTORS
from pe_dense.utils.errors import ConfigError, InputError, library_errors


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(name=["LayerDecayOptimWrapperConstructor", "LayerDecayConstructor"])
class LayerDecayOptimWrapperConstructor:
    """Layer-wise learning-rate decay: scale the learning rate of layer k of n by ``decay_rate ** (n - k)``.

    Source: the published detectors' recipe (BEiT's rule, arXiv 2106.08254). The layer of a parameter is
    :meth:`~pe_dense.backbones.base.Backbone.layer_id` of the backbone; other parameters come after the last layer and
    use the full learning rate. By default weight decay applies to all parameters, including norms and position
    embeddings.

    Args:
        optim_wrapper_cfg: ``dict(optimizer=..., type=...)`` as for MMEngine's default constructor.
        paramwise_cfg: ``dict(decay_rate=...)``, a rate in (0, 1]; 1 disables the decay. As in MMEngine's default
            constructor, ``flat_decay_mult`` is a factor of the weight decay of parameters with less than two dimensions
            (biases, norms, scales), 0 for none.

    Raises:
        ValueError: for other settings or a rate out of range.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        settings = dict(paramwise_cfg or {})
        self.flat_decay_mult = settings.pop("flat_decay_mult", 1.0)
        if set(settings) != {"decay_rate"}:
            raise InputError(
                f"LayerDecayOptimWrapperConstructor takes paramwise_cfg=dict(decay_rate=...), got {settings}"
            )
        if not 0.0 < settings["decay_rate"] <= 1.0:
            raise InputError(f"decay_rate {settings['decay_rate']} is not in (0, 1]")
        self.decay_rate = settings["decay_rate"]
        self.optim_wrapper_cfg = dict(optim_wrapper_cfg)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper for a model with one backbone."""
        wrapper = dict(self.optim_wrapper_cfg)
        wrapper.setdefault("type", "OptimWrapper")
        optimizer = dict(wrapper.pop("optimizer"))
        groups = self.parameter_groups(model, optimizer["lr"])
        for group in groups:
            if self.flat_decay_mult != 1.0 and group["params"][0].ndim < 2:
                group["weight_decay"] = optimizer.get("weight_decay", 0.0) * self.flat_decay_mult
        return OPTIM_WRAPPERS.build(
            wrapper, default_args=dict(optimizer=OPTIMIZERS.build(optimizer, default_args=dict(params=groups)))
        )

    def parameter_groups(self, model: nn.Module, lr: float) -> list[dict]:
        """Group trainable parameters by layer.

        Args:
            model: contains exactly one :class:`~pe_dense.backbones.base.Backbone`.
            lr: learning rate of the last layer.

        Returns:
            one dict per layer in use, with ``params``, ``lr``, ``layer`` (0 for the embedding) and ``names``; two where
            weight decays differ, for parameters with two or more dimensions and for the others.

        Raises:
            ValueError: if the model does not contain exactly one backbone.
        """
        model = model.module if is_model_wrapper(model) else model
        towers = [(name, module) for name, module in model.named_modules() if isinstance(module, Backbone)]
        if len(towers) != 1:
            raise InputError(
                f"layer decay needs a model with one backbone, got {len(towers)} in {type(model).__name__}"
            )
        prefix, tower = towers[0]
        prefix = f"{prefix}." if prefix else ""
        last = tower.num_layers + 1
        groups: dict[tuple[int, bool], dict] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            layer = tower.layer_id(name.removeprefix(prefix)) if name.startswith(prefix) else last
            scale = self.decay_rate ** (last - layer)
            key = layer, self.flat_decay_mult != 1.0 and parameter.ndim < 2
            group = groups.setdefault(key, dict(params=[], names=[], layer=layer, lr=lr * scale))
            group["params"].append(parameter)
            group["names"].append(name)
        return [groups[key] for key in sorted(groups)]


_AMP_ONLY = ("dtype", "loss_scale", "use_fsdp")


@dataclass(frozen=True)
class ParameterGroup:
    """One parameter group of an optimizer.

    Args:
        layer: layer index of the layer-wise decay, 0 for the embedding; None without layer-wise decay.
        names: names of the parameters.
        size: number of parameters (elements).
        lr: learning rate, before warm-up and schedule.
        weight_decay: weight decay of the group.
    """

    layer: int | None
    names: tuple[str, ...]
    size: int
    lr: float
    weight_decay: float


def parameter_groups(config: Config) -> list[ParameterGroup]:
    """Build a config's model on the meta device, and its optimizer.

    Args:
        config: complete config.

    Returns:
        the optimizer's groups, in order; frozen parameters are not included.

    Raises:
        ConfigError: for a method without training.
    """
    if "optim_wrapper" not in config:
        raise ConfigError(f"{config.filename} has nothing to train")
    init_default_scope(config.get("default_scope", "mmengine"))
    check_config(config)
    with torch.device("meta"), library_errors(f"{config.filename}: the model can't be built from these values"):
        model = MODELS.build(deepcopy(config.model))
    wrapper = {key: value for key, value in deepcopy(config.optim_wrapper).items() if key not in _AMP_ONLY}
    wrapper["type"] = "OptimWrapper"  # the wrapper for mixed precision requires a GPU or a CPU with bfloat16
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
    """Format groups as a table with one line per group and one for their sum."""
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

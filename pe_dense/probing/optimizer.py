"""An optimiser group for each probe of a sweep."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from pe_dense.engine.errors import ConfigError
from pe_dense.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SweepConstructor:
    """Give each probe of a :class:`~pe_dense.probing.LayerSweep` a group with its setting's learning rate and decay.

    Args:
        optim_wrapper_cfg: ``dict(optimizer=..., type=...)`` as for MMEngine's default constructor. The optimiser must
            treat each parameter by itself, as Adam and SGD do.
        paramwise_cfg: None; the sweep's own arguments take its place.

    Raises:
        ConfigError: for a ``paramwise_cfg``, or for clipping by the norm, which all probes would share.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        if paramwise_cfg:
            raise ConfigError(
                f"a sweep takes model.learning_rates and model.weight_decays, not paramwise_cfg={paramwise_cfg}"
            )
        clip = optim_wrapper_cfg.get("clip_grad")
        if clip and clip.get("type", "norm") == "norm":
            raise ConfigError(
                f"clip_grad={dict(clip)} would clip all probes of a sweep by each other's gradients: leave it out, or "
                "clip values (type='value')"
            )
        self.optim_wrapper_cfg = dict(optim_wrapper_cfg)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimiser wrapper for a sweep."""
        model = model.module if is_model_wrapper(model) else model
        groups = [
            dict(params=list(head.parameters()), layer=layer, **setting)
            for layer in model.backbone.out_indices
            for setting, (_, head) in zip(model.settings, model.probes_of(layer), strict=True)
        ]
        wrapper = dict(self.optim_wrapper_cfg)
        wrapper.setdefault("type", "OptimWrapper")
        optimizer = OPTIMIZERS.build(dict(wrapper.pop("optimizer")), default_args=dict(params=groups))
        return OPTIM_WRAPPERS.build(wrapper, default_args=dict(optimizer=optimizer))

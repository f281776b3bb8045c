"""Learning rates of deformable detectors."""

from __future__ import annotations

from torch import nn

from pe_dense.engine.optimizers import LayerDecayOptimWrapperConstructor
from pe_dense.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(name=["DETAOptimWrapperConstructor", "DeformableConstructor"])
class DETAOptimWrapperConstructor(LayerDecayOptimWrapperConstructor):
    """Layer decay in the tower; the offsets of deformable attention learn more slowly than the rest.

    Source of the latter: Deformable DETR (arXiv 2010.04159, section 5).

    Args:
        optim_wrapper_cfg: as for MMEngine's default constructor.
        paramwise_cfg: ``dict(decay_rate=...)``, see
        :class:`~pe_dense.engine.optimizers.LayerDecayOptimWrapperConstructor`, and
            ``offsets_rate``, the factor of the offsets' learning rate, 0.1 by default.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        settings = dict(paramwise_cfg or {})
        self.offsets_rate = settings.pop("offsets_rate", 0.1)
        super().__init__(optim_wrapper_cfg, settings)

    def parameter_groups(self, model: nn.Module, lr: float) -> list[dict]:
        """As of layer decay, the offsets' parameters in groups of their own."""
        groups = []
        for group in super().parameter_groups(model, lr):
            named = list(zip(group["names"], group["params"], strict=True))
            for offsets, rate in ((False, 1.0), (True, self.offsets_rate)):
                part = [(name, param) for name, param in named if ("sampling_offsets" in name.split(".")) == offsets]
                if part:
                    names, params = map(list, zip(*part, strict=True))
                    groups.append(dict(group, params=params, names=names, lr=group["lr"] * rate))
        return groups

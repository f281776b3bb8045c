"""Train low-rank adapters of a config's backbone instead of the backbone: the option ``--lora`` of the tools."""

from __future__ import annotations

from inspect import signature

from mmengine.config import Config

from pe_dense.backbones.base import Backbone
from pe_dense.backbones.build import backbone_class
from pe_dense.backbones.frozen import FrozenTower
from pe_dense.utils.errors import ConfigError


def use_lora(config: Config, rank: int) -> None:
    """Set ``model.backbone.lora`` of a config, see :func:`~pe_dense.backbones.lora.add_lora`.

    Args:
        config: a whole config, changed in place. Other settings of ``model.backbone.lora`` are kept.
        rank: rank of the adapters.

    Raises:
        ConfigError: if the config has no backbone that is trained.
    """
    name = config.filename or "the config"
    backbone = (config.get("model") or {}).get("backbone")
    if not isinstance(backbone, dict) or "type" not in backbone:
        raise ConfigError(f"--lora: {name} has no model.backbone, so there is nothing to adapt: leave --lora out")
    kind = backbone_class(backbone)
    if kind is FrozenTower or backbone.get("frozen"):
        remedy = "use a config that trains its backbone"
        if kind is not FrozenTower:
            remedy = "train it by --cfg-options model.backbone.frozen=False"
        raise ConfigError(
            f"--lora: the backbone of {name} is frozen and only its heads train: leave --lora out, or {remedy}"
        )
    title = getattr(kind, "__name__", backbone["type"])
    if not (isinstance(kind, type) and issubclass(kind, Backbone)):
        raise ConfigError(f"--lora: the backbone of {name} is {title}, not a vision transformer: add --tower NAME")
    if "lora" not in signature(kind).parameters:
        raise ConfigError(f"--lora: {title} has no argument lora: add it as described in docs/adding_a_backbone.md")
    backbone["lora"] = dict(backbone.get("lora") or {}, rank=rank)

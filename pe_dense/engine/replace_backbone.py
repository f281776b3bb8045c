"""Replace the backbone of a config by a model of timm."""

from __future__ import annotations

import torch
from mmengine.config import Config, ConfigDict

from pe_dense.backbones.base import TIMM_PREFIX
from pe_dense.utils.errors import ConfigError

# Arguments of a PETower that a TimmTower or a FrozenTower around one takes, too.
_SHARED = ("out_indices", "drop_path_rate", "with_cp", "frozen", "pad_to_patch", "dtype")


def replace_backbone(config: Config, name: str) -> int:
    """Put a model of timm in the place of a config's PE tower, with its normalization and its channels.

    Windows and other options that only PE towers have are dropped. Weights are those that timm's configuration of the
    model names, unless the config's backbone starts from random ones.

    Args:
        config: a whole config, changed in place.
        name: ``timm/<model name>``.

    Returns:
        the new backbone's patch size in pixels.

    Raises:
        ConfigError: for an unknown model, one that is not a plain vision transformer, or a config without a PE tower.
    """
    backbone = config.get("model", {}).get("backbone")
    kind = backbone.get("type") if isinstance(backbone, dict) else None
    if kind not in ("pe_dense.PETower", "pe_dense.FrozenTower"):
        raise ConfigError(f"option tower={name}: {config.filename} has no PE tower as model.backbone to replace")
    if "teacher" in config.model or "core" in config.model:
        raise ConfigError(
            f"option tower={name}: the student of a distillation must be a PE tower; to distill from a model of timm, "
            "write its config in place of the teacher's"
        )
    from pe_dense.backbones.timm import TIMM_HUB, TimmTower

    with torch.device("meta"):
        tower = TimmTower(name)
    new = ConfigDict({key: backbone[key] for key in _SHARED if key in backbone})
    if kind == "pe_dense.FrozenTower":
        new.update(type=kind, arch=name)
    else:
        new.update(type="pe_dense.TimmTower", name=name.removeprefix(TIMM_PREFIX))
    if backbone.get("init_cfg"):
        new.init_cfg = ConfigDict(type="Pretrained", checkpoint=TIMM_HUB)
    config.model.backbone = new
    neck = config.model.get("neck")
    if isinstance(neck, dict) and "in_channels" in neck:
        neck.in_channels = tower.embed_dim
    for preprocessor in (config.get("data_preprocessor"), config.model.get("data_preprocessor")):
        if isinstance(preprocessor, dict) and {"mean", "std"} <= set(preprocessor):
            preprocessor.update(mean=list(tower.mean), std=list(tower.std))
    config.tower = name
    return tower.patch_size

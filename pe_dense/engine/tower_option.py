"""Put a plain vision transformer under a config of mmdet or mmseg: the option ``--tower`` of the tools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

from pe_dense.backbones.base import TIMM_PREFIX, Backbone
from pe_dense.backbones.build import backbone_class, dense_backbone
from pe_dense.backbones.pe_configs import detector_rates
from pe_dense.backbones.timm import TimmTower
from pe_dense.engine.config_parts import kind_of, walk_dicts
from pe_dense.engine.feature_levels import PATCH, Level, measure
from pe_dense.utils.errors import ConfigError

# These only merge the levels of a convolutional backbone; a plain ViT's pyramid takes their place (ViTDet, section 3).
REPLACED_NECKS = ("FPN", "PAFPN", "ChannelMapper")
# Parts of a model that bind it to one backbone, and why.
_OF_ONE_BACKBONE = {
    "detector": "wraps a whole detector, as trackers and semi-supervised methods do: train the detector by itself",
    "teacher_config": "distills from a trained teacher with its own config",
    "teacher_backbone": "distills from a trained teacher with its own backbone",
    "language_model": "needs a pretrained language model, and its layers mix text into the features",
    "image_encoder": "reads the features of CLIP's own image encoder",
}
_BACKBONE_IS_METHOD = {
    "TridentResNet": "its three branches with different dilations",
    "ICNet": "its branches for three image sizes",
    "VPD": "its diffusion model",
}
DIVISOR = 32  # px, of the sides of images
LARGEST_GLOBAL = 640  # px; up to here a detector's tower keeps global attention
# AdamW as in ViTDet (arXiv 2203.16527) and Mask2Former (arXiv 2112.01527), where a config has another optimizer.
_ADAMW = dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05)


def use_tower(config: Config, tower: str | dict, *, keep_optimizer: bool = False, distributed: bool = False) -> str:
    """Replace the backbone of a config of mmdet or mmseg by a plain vision transformer with a feature pyramid.

    The pyramid returns maps with the strides and channels of the neck that it replaces (FPN, PAFPN or ChannelMapper).
    Any other neck is kept, and without a neck the heads are fed directly: the pyramid then returns maps like those of
    the removed backbone. Image normalization and padding are those of the tower; the optimizer becomes AdamW with
    layer-wise learning-rate decay. Detectors of large images use the published detectors' window attention if the tower
    is of PE (arXiv 2504.13181, appendix B.3), with rates of ViTDet by depth.

    Args:
        config: a whole config, changed in place.
        tower: a published PE tower, ``timm/<model name>``, or the config of a
            :class:`~pe_dense.backbones.base.Backbone`.
        keep_optimizer: keep the config's optimizer and learning rates.
        distributed: keep synchronized batch normalization, which a single process replaces by the ordinary one.

    Returns:
        what was replaced, in a few lines.

    Raises:
        ConfigError: if the method depends on its backbone; the message names the part and the reason.
    """
    model = config.get("model")
    _refuse_unsupported(config, model)
    old = model.backbone
    made = measure(config, old)
    necks = _dicts(model.get("neck"))
    title = tower if isinstance(tower, str) else kind_of(tower)
    lines = [f"{Path(config.filename or 'config').name} on {title}:"]

    replaced = necks and kind_of(necks[0]) in REPLACED_NECKS
    if replaced:
        # Levels that an FPN appends by subsampling come without parameters, as ViTDet's last one.
        top = kind_of(necks[0]) == "FPN" and not necks[0].get("add_extra_convs")
        levels = measure(config, old, necks[0])
        top_level = bool(top and len(levels) > 1 and levels[-1].stride > made[-1].stride)
        kept = necks[1:]
    else:
        levels, top_level, kept = _drop_unused(config, made, necks), False, necks
    _check_strides(config, old, levels)
    # A ViT's pyramid is built from its last map; several maps of the patches' own stride come from as many blocks.
    num_maps = len(levels) if {level.stride for level in levels} == {PATCH} else 1
    if isinstance(tower, str):
        windows = _largest_side(config) > LARGEST_GLOBAL
        backbone = ConfigDict(dense_backbone(tower, PATCH, windows=windows, num_maps=num_maps))
    else:
        backbone = ConfigDict(tower)
    with torch.device("meta"):
        built = MODELS.build({key: value for key, value in backbone.items() if key != "init_cfg"})
    pyramid = _pyramid(config, built, levels, top_level, smooth=bool(replaced))
    _set_backbone(config, backbone, [pyramid, *kept] if kept else pyramid)
    lines += [
        f"backbone: {kind_of(old)} ({_describe(made)}) -> {built.label}{_attention(backbone)}",
        f"neck: {kind_of(necks[0]) if replaced else 'none'} -> SimpleFeaturePyramid ({_describe(levels)})"
        + (f", then {', '.join(map(kind_of, kept))}" if kept else ""),
        f"images: mean {built.mean[0]:.1f}, ..., std {built.std[0]:.1f}, ..., RGB, padded to multiples of {DIVISOR} px",
    ]
    _set_images(config, built)
    lines.append(_set_optimizer(config, built, keep_optimizer))
    dropped = _drop_pretrained(config)
    if not distributed and _replace_types(model, ("SyncBN", "MMSyncBN"), "BN"):
        dropped.append("SyncBN, replaced by BN on one process")
    lines += [f"dropped: {', '.join(dropped)}"] if dropped else []
    config.runner_type = "pe_dense.Runner"
    if kind_of(backbone) == "TimmTower":
        config.find_unused_parameters = True  # its final norm
    if inferencer := _inferencer(config):
        config.setdefault("inferencer", dict(type=inferencer))
    if not config.get("work_dir") and config.filename:
        config.work_dir = f"work_dirs/{Path(config.filename).stem}_{title.replace('/', '_')}"
    return "\n  ".join(lines)


def _inferencer(config: Config) -> str | None:
    """Return the type of the inferencer of a method, None for the default one, of objects."""
    if config.get("default_scope") == "mmseg":
        return "pe_dense.SegmentationPredictor"
    panoptic = config.model.get("panoptic_fusion_head") and (config.model.get("test_cfg") or {}).get(
        "panoptic_on", True
    )
    return "pe_dense.PanopticPredictor" if panoptic else None


def has_tower(config: Config) -> bool:
    """Return whether the backbone of a config is of this project, so that the option ``tower`` replaces it."""
    backbone = (config.get("model") or {}).get("backbone") or {}
    if isinstance(kind := backbone.get("type"), str) and not kind.startswith("pe_dense."):
        return False
    found = backbone_class(backbone) if kind else None
    return bool(found) and found.__module__.startswith("pe_dense.")


def tower_of(config: Config) -> str | None:
    """Return the name of a config's backbone, as of the option ``tower``; None for one that has no name.

    Args:
        config: a config for which :func:`has_tower` is true.
    """
    backbone = config.model.backbone
    if backbone_class(backbone) is TimmTower:
        return f"{TIMM_PREFIX}{backbone.name.removeprefix(TIMM_PREFIX)}"
    arch = backbone.get("arch")
    return arch if isinstance(arch, str) else None


def _refuse_unsupported(config: Config, model: dict | None) -> None:
    name = config.filename or "the config"
    if not isinstance(model, dict) or "type" not in model:
        raise ConfigError(f"--tower: {name} has no model: name the config of a detector or a segmentation model")
    for key, reason in _OF_ONE_BACKBONE.items():
        if model.get(key):
            raise ConfigError(f"--tower: {name} can't be adapted: {kind_of(model)} {reason} (model.{key})")
    backbone = model.get("backbone")
    if not isinstance(backbone, dict) or "type" not in backbone:
        raise ConfigError(
            f"--tower: {name} can't be adapted: {kind_of(model)} has no model.backbone; supported are models of mmdet "
            "and mmseg with one backbone"
        )
    if kind_of(backbone) in _BACKBONE_IS_METHOD:
        raise ConfigError(
            f"--tower: {name} can't be adapted: the method is its backbone {kind_of(backbone)} with "
            f"{_BACKBONE_IS_METHOD[kind_of(backbone)]}"
        )
    for neck in _dicts(model.get("neck")):
        if neck.get("rfp_backbone"):
            raise ConfigError(
                f"--tower: {name} can't be adapted: its neck {kind_of(neck)} feeds back into the backbone"
            )
    if config.get("default_scope") not in ("mmdet", "mmseg"):
        raise ConfigError(
            f"--tower: {name} has default_scope {config.get('default_scope')!r}; supported are mmdet and mmseg"
        )


def _check_strides(config: Config, backbone: dict, levels: Sequence[Level]) -> None:
    """Raise a ``ConfigError`` for maps in use that a pyramid does not have."""
    strides = [level.stride for level in levels]
    if any(stride < 4 or stride & (stride - 1) for stride in strides):
        raise ConfigError(
            f"--tower: {config.filename}: model.backbone {kind_of(backbone)} returns maps of strides "
            f"{', '.join(map(str, strides))}, which are read: a pyramid on patches of {PATCH} px has strides of 4, 8, "
            "16, 32, ..."
        )


def _drop_unused(config: Config, levels: list[Level], necks: list[dict]) -> list[Level]:
    """Leave out the levels that neither the kept neck nor, without a neck, a head of mmseg reads.

    Their parameters would have no gradient, which distributed training refuses.
    """
    if necks:
        start, channels = necks[0].get("start_level") or 0, necks[0].get("in_channels")
        if channels == levels[-1].channels != levels[0].channels:
            return levels[-1:]
        if kind_of(necks[0]) == "NASFCOS_FPN":  # counts the levels that it does not read
            config.find_unused_parameters = True
            return levels
        if not start or not isinstance(channels, list | tuple) or len(channels) != len(levels):
            return levels
        necks[0].update(start_level=0, in_channels=list(channels[start:]))
        if necks[0].get("end_level", -1) > 0:
            necks[0].end_level -= start
        return levels[start:]
    heads = [head for name in ("decode_head", "auxiliary_head") for head in _dicts(config.model.get(name))]
    if not heads:
        return levels
    count, used = len(levels), set()
    for head in heads:
        if kind_of(head) == "EncHead" and not head.get("add_lateral"):  # reads the last of its maps only
            head.update(in_channels=head["in_channels"][-1:], in_index=head["in_index"][-1:])
        found = [item["in_index"] for item in walk_dicts(head) if "in_index" in item]
        if not found and isinstance(head.get("in_channels"), list | tuple):
            return levels  # a head that reads all of them
        if any("c1_in_channels" in item for item in walk_dicts(head)):
            found.append(0)  # DeepLabV3+ reads it as well
        for index in found or [-1]:
            used |= {i % count for i in (index if isinstance(index, list | tuple) else [index])}
    order = sorted(used)
    for head in heads:
        for item in walk_dicts(head):
            if "in_index" in item:
                index = item["in_index"]
                several = isinstance(index, list | tuple)
                item["in_index"] = [order.index(i % count) for i in index] if several else order.index(index % count)
    return [levels[index] for index in order]


def _largest_side(config: Config) -> float:
    """Return the longest side in pixels of a detector's test images, 0 for segmentation."""
    if config.get("default_scope") != "mmdet":
        return 0
    sides = [0.0]
    for item in walk_dicts((config.get("test_dataloader") or {}).get("dataset") or {}):
        if str(item.get("type")).rpartition(".")[2] in ("Resize", "RandomResize", "FixScaleResize"):
            scale = item.get("scale") or ()
            sides += [float(side) for side in (scale if isinstance(scale, list | tuple) else [scale])]
    return max(sides) or math.inf


def _pyramid(config: Config, tower: Backbone, levels: Sequence[Level], top_level: bool, *, smooth: bool) -> ConfigDict:
    stride = tower.patch_size
    if stride < 4 or stride & (stride - 1):
        raise ConfigError(f"--tower: patches of {stride} px; the pyramid needs a power of 2 of at least 4")
    own = levels[:-1] if top_level else levels
    if any(stride / level.stride > 4 for level in own):
        raise ConfigError(f"--tower: {config.filename} needs a stride of {own[0].stride} px, at least {stride // 4}")
    channels = [level.channels for level in own]
    pyramid = ConfigDict(
        type="pe_dense.SimpleFeaturePyramid",
        in_channels=tower.embed_dim,
        out_channels=channels[0] if len(set(channels)) == 1 else channels,
        scales=[stride / level.stride for level in own],
        stride=stride,
        top_level=top_level,
        smooth=smooth,
    )
    if len(tower.out_indices) == len(own) > 1:
        pyramid.in_index = list(range(len(own)))
    return pyramid


def _set_backbone(config: Config, backbone: ConfigDict, neck) -> None:
    config.model.backbone, config.model.neck = backbone, neck
    # Variables of the config file; nothing reads them, and they would name the removed parts.
    for name in ("backbone", "neck", "pretrained", "checkpoint"):
        config.pop(name, None)


def _set_images(config: Config, tower: Backbone) -> None:
    for preprocessor in (config.get("data_preprocessor"), config.model.get("data_preprocessor")):
        if not isinstance(preprocessor, dict):
            continue
        preprocessor.update(mean=list(tower.mean), std=list(tower.std), bgr_to_rgb=True)
        preprocessor.pop("rgb_to_bgr", None)
        if config.default_scope == "mmdet":
            preprocessor.pad_size_divisor = math.lcm(preprocessor.get("pad_size_divisor") or 1, DIVISOR)
            continue
        if preprocessor.get("size"):
            preprocessor["size"] = _round_up(preprocessor["size"])
        elif preprocessor.get("size_divisor"):
            preprocessor.size_divisor = math.lcm(preprocessor.size_divisor, DIVISOR)
        preprocessor.test_cfg = dict(size_divisor=DIVISOR)
    test = config.model.get("test_cfg") or {}
    if config.default_scope == "mmseg" and test.get("crop_size"):
        test.crop_size = _round_up(test.crop_size)


def _round_up(size):
    sides = size if isinstance(size, list | tuple) else (size, size)
    return tuple(-(-side // DIVISOR) * DIVISOR for side in sides)


def _set_optimizer(config: Config, tower: Backbone, keep: bool) -> str:
    wrapper = config.get("optim_wrapper")
    if wrapper is None:
        return "optimizer: none"
    optimizer = wrapper.get("optimizer") or {}
    before = f"{optimizer.get('type')}, lr {optimizer.get('lr'):g}"
    if keep:
        if wrapper.get("constructor"):
            raise ConfigError(
                f"--keep-optimizer: the learning rates of {wrapper.constructor} are by layers of the removed backbone"
            )
        return f"optimizer: {before}, kept"
    rate = detector_rates(tower.num_layers)[1]
    old_lr = optimizer.get("lr")
    new = ConfigDict(_ADAMW)
    if optimizer.get("type") == "AdamW":
        # Rates of convolutional detectors trained in large batches, such as 4e-3 of RTMDet, are too high for a ViT.
        new.update(lr=min(old_lr, 2 * new.lr), weight_decay=optimizer.get("weight_decay", new.weight_decay))
    wrapper.optimizer = new
    wrapper.constructor = "pe_dense.LayerDecayOptimWrapperConstructor"
    wrapper.pop("paramwise_cfg", None)
    wrapper.paramwise_cfg = dict(decay_rate=rate)
    for scheduler in _dicts(config.get("param_scheduler")):
        if "eta_min" in scheduler:  # a learning rate, unlike the factors of the other schedulers
            scheduler.eta_min *= new.lr / old_lr
    config.pop("optimizer", None)
    return f"optimizer: {before} -> AdamW, lr {new.lr:g}, weight decay {new.weight_decay:g}, layer decay {rate:g}"


def _drop_pretrained(config: Config) -> list[str]:
    """Remove weights of the whole model and of the removed backbone; return their names."""
    dropped = []
    if config.get("load_from"):
        dropped.append(f"load_from ({Path(config.load_from).name})")
        config.load_from = None
    for key in ("init_cfg", "pretrained"):
        if config.model.get(key):
            dropped.append(f"model.{key}")
        config.model.pop(key, None)
    return dropped


def _replace_types(item, old: Sequence[str], new: str) -> int:
    found = [part for part in walk_dicts(item) if part.get("type") in old]
    for part in found:
        part["type"] = new
        part.pop("group_size", None)
    return len(found)


def _dicts(item) -> list[dict]:
    return [part for part in (item if isinstance(item, list | tuple) else [item]) if isinstance(part, dict)]


def _describe(levels: Sequence[Level]) -> str:
    channels = dict.fromkeys(level.channels for level in levels)
    return f"strides {', '.join(str(x.stride) for x in levels)}; channels {', '.join(map(str, channels))}"


def _attention(backbone: dict) -> str:
    window = backbone.get("window_size")
    return f", attention in windows of {window} x {window} patches" if window else ""

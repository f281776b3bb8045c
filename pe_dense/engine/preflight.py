"""Preflight checks of options, data and checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from mmengine.registry import DATASETS

from pe_dense.backbones.build import backbone_class
from pe_dense.backbones.frozen import FrozenTower
from pe_dense.backbones.timm import TIMM_HUB
from pe_dense.utils.errors import ConfigError

# Keys of file paths in a data set's entries.
_FILES = {"images": "img_path", "label maps": "seg_map_path", "depth maps": "depth_map_path"}


def check_files(config: Config, splits: tuple[str, ...]) -> None:
    """Check that the annotation files and image folders of a config exist.

    Data sets that generate their own data (with a ``generator``) are skipped. If a data set accepts several names of
    its annotation file (``ann_file_alternatives``), one of them must exist.

    Args:
        config: complete config.
        splits: which of 'train', 'val', 'test' the run will use.

    Raises:
        ConfigError: with the first missing path, the source of the data and the expected folder layout.
    """
    for split in splits:
        for dataset in inner_datasets(config.get(f"{split}_dataloader")):
            if "generator" in dataset:
                continue
            root = Path(dataset.get("data_root") or "")
            ann_files = [dataset.get("ann_file"), *(dataset.get("ann_file_alternatives") or ())]
            existing = [name for name in ann_files if name and (root / name).exists()]
            names = [*(existing or ann_files)[:1], *dict(dataset.get("data_prefix") or {}).values()]
            for path in [root / name for name in names if name] or [root]:
                if not path.exists():
                    raise ConfigError(_missing(config, split, path))


def check_pictures(config: Config) -> None:
    """Check that the images that hooks of a config visualize during training (their ``images``) exist.

    Raises:
        ConfigError: with the path and the option to change it.
    """
    for number, hook in enumerate(config.get("custom_hooks") or []):
        images = hook.get("images") or []
        for path in map(Path, [images] if isinstance(images, str) else images):
            if not path.exists():
                raise ConfigError(
                    f"{hook['type']} visualizes images that are not found: {path} does not exist ({path.absolute()}); "
                    f"add images there or set another path: --cfg-options custom_hooks.{number}.images=PATH"
                )


def check_weights(config: Config) -> None:
    """Check that the pretrained weights of a config's backbone exist.

    Raises:
        ConfigError: with the path, its source (the config's ``weights_source``) and the option to change it.
    """
    model = config.model.get("module", config.model)
    for name, owner in (("model.backbone", model.get("backbone") or {}), ("model", model)):
        source = (owner.get("init_cfg") or {}).get("checkpoint")
        if source in (None, TIMM_HUB) or "://" in source or Path(source).expanduser().exists():
            continue
        made = config.get("weights_source")
        raise ConfigError(
            f"the tower's weights {source} do not exist ({Path(source).absolute()})"
            + (f": {made}" if made else "")
            + f"; other ones: --cfg-options {name}.init_cfg.checkpoint=PATH"
        )


def _missing(config: Config, split: str, path: Path) -> str:
    source = config.get("data_source") or {}
    root = config.get("data_root")
    message = f"{source.get('name', 'The data')} ({split}) not found: {path} does not exist ({path.absolute()})."
    if source:
        message += f" Get it from {source['url']} and lay it out as {root}/{{{source['layout']}}}."
    if root:
        message += " If it is in another folder, set: --cfg-options data_root=FOLDER"
    return message


def inner_datasets(config: dict | None) -> Iterator[dict]:
    """Iterate over the configs of a loader's data sets, inside of any wrapper."""
    if not config:
        return
    inner = [config["dataset"]] if isinstance(config.get("dataset"), dict) else config.get("datasets") or []
    for dataset in inner:
        yield from inner_datasets(dataset)
    if not inner:
        yield config


def empty_error(dataset: dict) -> ConfigError:
    """Create the error for the config of an empty data set."""
    inner = next(inner_datasets(dict(dataset=dataset)))
    if not inner.get("ann_file"):
        folder = Path(inner.get("data_root") or "") / (inner.get("data_prefix") or {}).get("img_path", "")
        return ConfigError(f"{inner.get('type')}: no matching images found in {folder}")
    classes = (inner.get("metainfo") or {}).get("classes")
    wanted = f"classes {', '.join(classes[:8])}" if classes else "its classes"
    return ConfigError(
        f"{inner.get('type')}: no image is left of {inner.get('ann_file')} in {inner.get('data_root')}: it lists no "
        "images, "
        f"or none with an object of {wanted}"
    )


def is_empty(dataset: dict) -> bool:
    """Return whether an MMEngine data set in a config is empty, before or after filtering."""
    for inner in inner_datasets(dict(dataset=dataset)):
        try:
            built = DATASETS.build(dict(inner, lazy_init=True))
            built.data_list = built.load_data_list()
            if len(built.filter_data()) == 0:
                return True
        except (TypeError, AttributeError, ValueError, OSError):  # not an MMEngine data set, or another error
            continue
    return False


def check_images(dataset) -> None:
    """Preflight check of a data set: all images and their label or depth maps must exist.

    Each folder is listed only once, so that 100,000 images take seconds. A few maps are also read and checked.

    Args:
        dataset: built MMEngine data set, or a wrapper around one.

    Raises:
        ConfigError: for missing files, with their number and the first of them, and for an image whose size differs
            from its annotation.
        ValueError: for a map that does not match, see :mod:`pe_dense.datasets.label_maps`.
    """
    for inner in _built_datasets(dataset):
        _check_images(inner)


def _built_datasets(dataset) -> Iterator:
    """Iterate over the MMEngine data sets in any wrappers, such as concatenations."""
    if hasattr(dataset, "datasets"):
        for inner in dataset.datasets:
            yield from _built_datasets(inner)
    elif hasattr(dataset, "dataset"):
        yield from _built_datasets(dataset.dataset)
    elif hasattr(dataset, "get_data_info"):
        yield dataset


def _check_images(dataset) -> None:
    name, source = type(dataset).__name__, getattr(dataset, "ann_file", None) or "its folder"
    listed: dict[str, set[str]] = {}
    for kind, key in _FILES.items():
        missing = []
        for index in range(len(dataset)):
            folder, file = os.path.split(dataset.get_data_info(index).get(key) or "")
            if not file:
                break
            if folder not in listed:
                listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
            if file not in listed[folder]:
                missing.append(os.path.join(folder, file))
        if missing:
            raise ConfigError(
                f"{name}: {len(missing)} of {len(dataset)} {kind} that {source} lists do not exist, "
                f"the first is {missing[0]}"
            )
    _check_some_sizes(dataset, source)
    _check_some_maps(dataset)


def _check_some_sizes(dataset, source: str) -> None:
    """Compare the size of a few images with their annotations; the others are compared when they are loaded."""
    from pe_dense.datasets.loading import LoadImage, size_message
    from pe_dense.utils.image import ImageError, image_size

    steps = getattr(getattr(dataset, "pipeline", None), "transforms", [])
    reader = next((step for step in steps if isinstance(step, LoadImage)), None)
    for item in _some_entries(dataset):
        path, annotated = item.get("img_path"), (item.get("width"), item.get("height"))
        if not path or None in annotated or "://" in str(path):
            return
        try:
            size = image_size(path, ignore_orientation=reader is not None and reader.ignore_orientation)
        except ImageError as error:
            if reader is not None and reader.on_error == "skip":
                continue
            raise ConfigError(str(error)) from error
        if size != annotated:
            raise ConfigError(size_message(path, size, annotated, source))


def _check_some_maps(dataset) -> None:
    """Read a few label or depth maps with the loading transforms of the pipeline."""
    if not any(dataset.get_data_info(0).get(key) for key in ("seg_map_path", "depth_map_path")):
        return
    from mmcv.transforms import LoadImageFromFile

    from pe_dense.datasets.label_maps import LoadDepthMap, LoadLabelMap

    readers = (LoadImageFromFile, LoadLabelMap, LoadDepthMap)
    steps = [step for step in dataset.pipeline.transforms if isinstance(step, readers)]
    for item in _some_entries(dataset):
        for step in steps:
            item = step(item)
            if item is None:  # an image that is skipped
                break


def check_learnable(dataset) -> None:
    """Check that the label or depth maps of a training set contain something to learn.

    Data sets of objects check it when they are built. Data sets for validation and tests may contain anything.

    Args:
        dataset: built MMEngine data set, or a wrapper around one.

    Raises:
        MapError: with what the maps contain, see :mod:`pe_dense.datasets.label_maps`.
    """
    from pe_dense.datasets.label_maps import check_depths, check_label_values

    for inner in _built_datasets(dataset):
        if not len(inner):
            continue
        if inner.get_data_info(0).get("seg_map_path"):
            check_label_values(inner)
        if inner.get_data_info(0).get("depth_map_path"):
            check_depths(inner)


def _some_entries(dataset, count: int = 16) -> Iterator[dict]:
    """Iterate over a few entries, spread over the data set."""
    last = len(dataset) - 1
    for index in sorted({last * i // (count - 1) for i in range(count)}):
        yield dataset.get_data_info(index)


# Parts of a config that are used in training only.
_TRAINING_ONLY = (
    "activation_checkpointing", "auto_scale_lr", "default_hooks.checkpoint", "default_hooks.param_scheduler",
    "model.backbone.lora", "model.train_cfg", "optim_wrapper", "param_scheduler", "train_cfg", "train_dataloader",
    "val_cfg", "val_dataloader", "val_evaluator",
)  # fmt: skip
# Parts that are used in predictions on image files; the other tools use all parts that no rule below excludes.
_PREDICT_READS = (
    "data_root", "default_scope", "image_size", "inferencer", "model", "test_dataloader.dataset", "tower", "tta_model",
    "tta_pipeline",
)  # fmt: skip


class _Call(NamedTuple):
    """Arguments of a tool, and the config with its options applied."""

    config: Config
    arguments: dict

    def given(self, name: str) -> bool:
        return bool(self.arguments.get(name))

    def has_checkpoint(self) -> bool:
        """Return whether a checkpoint has the model's weights; methods without training need none, as 'words' says."""
        return "train_dataloader" in self.config or self.arguments.get("checkpoint") not in (None, "words")

    def has_checkpoint_with_backbone(self) -> bool:
        """Return whether a checkpoint has the backbone's weights, too; those of frozen ones are in none."""
        backbone = self.config.get("model", {}).get("backbone")
        frozen = isinstance(backbone, dict) and backbone_class(backbone) is FrozenTower
        return self.has_checkpoint() and not frozen


class _Unread(NamedTuple):
    """Parts of a config that tools do not read, on a condition, and why."""

    tools: str
    parts: tuple[str, ...]
    message: str
    condition: Callable[[_Call], bool] = lambda call: True


_SET = "not read by {tool}: %s sets it"
_UNREAD = [
    _Unread("train test", ("launcher",), _SET % "--launcher"),
    _Unread("train", ("resume",), _SET % "--resume"),
    _Unread("train", ("load_from",), _SET % "--resume", lambda call: call.given("resume")),
    _Unread("train test", ("work_dir",), _SET % "--work-dir", lambda call: call.given("work_dir")),
    _Unread("predict", ("launcher",), _SET % "--device"),
    _Unread("predict", ("work_dir",), _SET % "--out"),
    _Unread("test predict", ("load_from", "resume"), _SET % "CHECKPOINT"),
    _Unread("test predict", _TRAINING_ONLY, "read by training only, not by {tool}: leave it out"),
    _Unread(
        "test predict",
        ("model.init_cfg",),
        "not read by {tool}: all weights are those of CHECKPOINT",
        _Call.has_checkpoint,
    ),
    _Unread(
        "test predict",
        ("model.backbone.init_cfg",),
        "not read by {tool}: all weights are those of CHECKPOINT",
        _Call.has_checkpoint_with_backbone,
    ),
    _Unread(
        "test predict",
        ("tta_model", "tta_pipeline"),
        "read with --tta only: add it, or leave the option out",
        lambda call: not call.given("tta"),
    ),
]


def check_read(config: Config, tool: str, arguments: dict) -> None:
    """Raise an error for options that a tool does not use.

    Args:
        config: config with the options applied.
        tool: 'train', 'test' or 'predict'.
        arguments: all arguments of the tool; ``cfg_options`` are checked.

    Raises:
        ConfigError: naming the first such option and the remedy.
    """
    call = _Call(config, arguments)
    rules = [rule for rule in _UNREAD if tool in rule.tools.split() and rule.condition(call)]
    for name in arguments["cfg_options"] or ():
        for rule in rules:
            if _is_in(name, rule.parts):
                raise ConfigError(f"--cfg-options {name} is {rule.message.format(tool=tool)}")
        if tool == "predict" and not _is_in(name, _PREDICT_READS):
            raise ConfigError(
                f"--cfg-options {name} is not read by predict, which reads {', '.join(_PREDICT_READS)}: leave it out"
            )


def _is_in(name: str, parts: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{part}.") for part in parts)

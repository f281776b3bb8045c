"""Check the options and dicts of a config before anything is built from it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from mmengine.config import Config
from mmengine.runner import Runner

from pe_dense.engine.arguments import OptionText, parse
from pe_dense.engine.config_types import Arguments, accepts, arguments_of, check_runner_type, describe, suggestion
from pe_dense.utils.errors import ConfigError, library_errors

# Top-level keys that are used in a run: arguments of MMEngine's runner, other keys that the runner reads, and keys of
# this project. Any other top-level name is only a variable for a value that is used in several places.
# fmt: off
RUNNER_ARGUMENTS = frozenset((
    "auto_scale_lr", "custom_hooks", "data_preprocessor", "default_hooks", "default_scope", "env_cfg",
    "experiment_name", "launcher", "load_from", "log_level", "log_processor", "model", "optim_wrapper",
    "param_scheduler", "randomness", "resume", "test_cfg", "test_dataloader", "test_evaluator", "train_cfg",
    "train_dataloader", "val_cfg", "val_dataloader", "val_evaluator", "visualizer", "work_dir",
))
RUNNER_READS = frozenset((
    "activation_checkpointing", "compile", "efficient_conv_bn_eval", "find_unused_parameters", "model_wrapper_cfg",
    "sync_bn",
))
OWN_KEYS = frozenset(("inferencer", "runner_type", "tta_model", "tta_pipeline"))
TOP_LEVEL_KEYS = RUNNER_ARGUMENTS | RUNNER_READS | OWN_KEYS
# Of runs with `runner_type="FlexibleRunner"`.
FLEXIBLE_KEYS = frozenset(("init_weights_for_test_or_val", "strategy"))
_TEXT_KEYS = frozenset((
    "default_scope", "experiment_name", "launcher", "load_from", "log_level", "runner_type", "work_dir",
))

_NESTED_TEXT_KEYS = frozenset(("ann_file", "checkpoint", "data_root", "save_dir", "out_dir"))

_RPN = {
    "nms_pre", "max_per_img", "nms", "min_bbox_size", "assigner", "sampler", "allowed_border", "pos_weight", "debug",
}
_DEFAULT_PARAMWISE = {
    "custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "flat_decay_mult", "dwconv_decay_mult",
    "dcn_offset_lr_mult", "bypass_duplicate",
}
# Keys of dicts that are not built as a class, in addition to those in the config.
_KNOWN = {
    "env_cfg": {"cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"},
    "mp_cfg": {"mp_start_method", "opencv_num_threads"},
    "dist_cfg": {"backend", "timeout", "init_backend"},
    "randomness": {"seed", "diff_rank_seed", "deterministic"},
    "auto_scale_lr": {"enable", "base_batch_size"},
    "clip": {"vision", "text", "vision_options"},
    "clip_grad": {"type", "max_norm", "norm_type", "error_if_nonfinite", "foreach", "clip_value"},
    "paramwise_cfg": _DEFAULT_PARAMWISE | {"decay_rate", "offsets_rate"},
    "rpn": _RPN,
    "rpn_proposal": {"nms_pre", "max_per_img", "nms", "min_bbox_size"},
    "rcnn": {
        "assigner", "sampler", "mask_size", "pos_weight", "debug", "score_thr", "nms", "max_per_img", "mask_thr_binary",
    },
    "nms": {"type", "iou_threshold", "class_agnostic", "split_thr", "max_num", "sigma", "min_score", "method"},
    "generator": {
        "num_train", "num_val", "image_size", "seed", "num_videos", "num_frames", "max_shapes", "difficulty",
        "num_images",
    },
    "filter_cfg": {"filter_empty_gt", "min_size"},
    "data_prefix": {"img", "img_path", "seg", "seg_map_path", "depth_map_path", "mask"},
    "init_cfg": {"type", "checkpoint", "prefix", "map_location", "layer", "bias", "std", "mean", "override"},
}
# A dict or a list of dicts: MMEngine accepts both.
_ONE_OR_SEVERAL = frozenset(("param_scheduler", "test_evaluator", "val_evaluator"))
# Dicts with keys chosen by the user.
_OPEN = frozenset(("arch", "backend_args", "compile", "custom_keys", "metainfo", "norm_cfg", "act_cfg", "conv_cfg"))

# Ranges of numbers by the last part of their name; None for no bound.
_RANGES: dict[str, tuple[float | None, float | None]] = {
    "max_iters": (1, None), "max_epochs": (1, None), "val_interval": (1, None), "val_begin": (0, None),
    "batch_size": (1, 100_000), "num_workers": (0, 1024), "prefetch_factor": (1, 10_000), "interval": (1, None),
    "max_keep_ckpts": (-1, None), "window_size": (1, 100_000), "num_classes": (1, 1_000_000),
    "lr": (0, None), "weight_decay": (0, None), "eps": (0, None), "start_factor": (0, None), "end_factor": (0, None),
    "momentum": (0, 1), "accumulative_counts": (1, None), "max_norm": (0, None),
    "img_size": (1, 16_384), "image_size": (1, 16_384), "patch_size": (1, 1024), "pad_size_divisor": (1, 16_384),
    "crop_size": (1, 65_536), "scale": (0, 1_000_000), "stride": (1, 65_536), "size": (1, 65_536),
    "grid_size": (1, 4096), "short_side": (1, 16_384), "divisor": (1, 16_384),
    "layers": (1, 1000), "width": (1, 65_536), "heads": (1, 4096), "mlp_ratio": (0.01, 64), "drop_path_rate": (0, 1),
    "in_channels": (1, 1_000_000), "out_channels": (1, 1_000_000), "feat_channels": (1, 1_000_000),
    "num_convs": (0, 1000), "num_queries": (1, 1_000_000), "num": (1, 10_000_000),
    "score_thr": (0, 1), "iou_threshold": (0, 1), "mask_thr_binary": (-1, 1), "prob": (0, 1), "mask_ratio": (0, 1),
    "max_per_img": (1, None), "nms_pre": (1, None), "pre_nms": (1, None), "mask_size": (1, 4096),
    "opencv_num_threads": (0, 4096), "timeout": (1, None), "base_batch_size": (1, None), "fps": (1, 1000),
    "resource_limit": (1, None), "seed": (0, 2**32 - 1), "num_frames": (1, None), "num_videos": (1, None),
    "points_per_side": (1, 1024), "temperature": (1e-12, None),
}
_MODULE_COUNTS = re.compile(r"(convs|fcs|layers|blocks|stages|levels|heads|depth|ins|outs|points)$")
_CHOICES = {
    "log_level": ("NOTSET", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    "mp_start_method": ("fork", "spawn", "forkserver"),
    "dist_cfg.backend": ("nccl", "gloo", "mpi"),
    "sync_bn": ("torch", "mmcv", None),
    "launcher": ("none", "pytorch", "slurm", "mpi"),
}
# fmt: on


def check_option(config: Config, name: str, value):
    """Check an option against a config, and parse its value if it is text from the command line.

    Args:
        config: a config; not changed.
        name: dotted name.
        value: :class:`~pe_dense.engine.arguments.OptionText`, or a value of any type.

    Returns:
        the value to set. Text remains text if it replaces text.

    Raises:
        ConfigError: if the name is unknown, or the value has the wrong type or is out of range; the message names the
            option, the value and what is allowed.
    """
    parents, parent = _parent_of(config, name)
    key = name.rpartition(".")[2]
    old, known = _existing(parent, key), _has(parent, key)
    arguments = arguments_of(config, parents, parent) if parents and isinstance(parent, Mapping) else None
    if not known and parents:
        _check_new_key(name, parents, parent, key, arguments)
    annotation = arguments.annotations.get(key) if arguments else None
    if name.endswith(".clip.vision"):
        annotation = str | dict  # as an `arch`
    if annotation is None and key in (_NESTED_TEXT_KEYS if parents else _TEXT_KEYS):
        annotation = str | None
    if known and not accepts(annotation, old):
        annotation = None  # some annotations of MM libraries are too narrow
    if isinstance(value, OptionText):
        value = _read(name, value, old, annotation)
    if isinstance(old, tuple) and isinstance(value, list):
        value = tuple(value)  # some transforms of the mm libraries refuse lists
    if key == "type" and isinstance(parent, Mapping):
        arguments_of(config, parents, {"type": value})
    _check_type(name, value, old, known, annotation)
    check_value(name, value, old)
    return value


def _read(name: str, text: OptionText, old, annotation):
    """Parse the text of an option by the type of the value that it replaces."""
    is_text = isinstance(old, str) or (old is None and annotation is not None and _only_text(annotation))
    if is_text and annotation is not None and not _only_text(annotation):
        value = parse(name, text) if text.strip()[:1] in ("[", "(", "{") else str(text)
        return None if text == "None" else value
    if is_text:
        return None if text == "None" else str(text)
    value = parse(name, text)
    if isinstance(old, list | tuple) and old and all(isinstance(item, str) for item in old):
        # Keep names such as 007 as text.
        items = value if isinstance(value, list | tuple) else [str(text)]
        return [item if isinstance(item, str) else str(item) for item in items]
    return value


def _only_text(annotation) -> bool:
    return accepts(annotation, "") and not any(accepts(annotation, value) for value in (1, [1], ["a"], {}))


def _parent_of(config: Config, name: str) -> tuple[tuple[str, ...], object]:
    top = name.partition(".")[0]
    allowed = TOP_LEVEL_KEYS | (FLEXIBLE_KEYS if "Flexible" in str(config.get("runner_type")) else frozenset())
    if top not in allowed and (top in config or "." not in name):
        places = [place for place in _places(config, config.get(top)) if place.partition(".")[0] in allowed]
        if top in config and places:
            where = f"; it is only a variable: set {', '.join(places[:6])}"
        else:
            where = suggestion(top, allowed | set(config))
        raise ConfigError(f"option {name}: unknown top-level key {top!r}{where}")
    item: object = config
    *parents, _ = parts = name.split(".")
    for depth, part in enumerate(parents):
        where = ".".join(parents[:depth]) or "the config"
        if isinstance(item, list | tuple) and part.isdigit() and int(part) < len(item):
            item = item[int(part)]
        elif isinstance(item, dict | Config) and part in item:
            item = item[part]
        elif depth == 0 and part in allowed:
            item = {}
        else:
            names = f"0..{len(item) - 1}" if isinstance(item, list | tuple) else ", ".join(map(str, item or ()))
            raise ConfigError(f"option {name}: {where} has no {part!r}; it has {names or 'no keys'}")
        if item is None:
            item = {}
        if not isinstance(item, dict | list | tuple):
            raise ConfigError(f"option {name}: {'.'.join(parts[: depth + 1])} is {item!r}, which has no keys")
    if isinstance(item, list | tuple) and not (parts[-1].isdigit() and int(parts[-1]) < len(item)):
        raise ConfigError(f"option {name}: {'.'.join(parents)} has no {parts[-1]!r}; it has 0..{len(item) - 1}")
    return tuple(parents), item


def _has(parent, key: str) -> bool:
    return isinstance(parent, list | tuple) or key in parent


def _existing(parent, key: str):
    return parent[int(key)] if isinstance(parent, list | tuple) else parent.get(key)


def _places(item, value, name: str = "") -> Iterator[str]:
    """List the dotted names of all places that have a value."""
    if name and type(item) is type(value) and item == value:
        yield name
    children = item.items() if isinstance(item, dict | Config) else enumerate(item) if isinstance(item, list) else ()
    for key, child in children:
        yield from _places(child, value, f"{name}.{key}" if name else str(key))


def _check_new_key(name: str, parents: tuple[str, ...], parent, key: str, arguments: Arguments | None) -> None:
    """Check a key that the config does not have: it must be an argument of the class, or a key that the code reads."""
    place = ".".join(parents)
    if arguments is not None:
        if key not in arguments.annotations and not arguments.is_open:
            _refuse(f"option {name}: {place}", arguments, key, parent)
        return
    last = next((part for part in reversed(parents) if not part.isdigit()), "")
    if last in _OPEN or any(part in _OPEN for part in parents):
        return
    known = _KNOWN.get(last, set()) | set(parent)
    if key not in known:
        names = ", ".join(sorted(map(str, known)))
        raise ConfigError(f"option {name}: {place} has no {key!r}{suggestion(key, known)}; it has {names}")


def _refuse(prefix: str, arguments: Arguments, key: str, item: Mapping) -> None:
    known = set(arguments.annotations) - {"self", "_scope_"}
    owner = item.get("type", arguments.owner)
    owner = owner if isinstance(owner, str) else arguments.owner
    raise ConfigError(f"{prefix} ({owner}) has no {key!r}{suggestion(key, known)}; it has {', '.join(sorted(known))}")


def _check_type(name: str, value, old, known: bool, annotation) -> None:
    if annotation is not None:
        if not accepts(annotation, value):
            raise ConfigError(f"option {name}={value!r}: must be {describe(annotation)}")
        if not known or accepts(annotation, object()) is False:
            return
    if not known or old is None or value is None:
        return
    if name.endswith((".arch", ".clip")) and isinstance(old, str | dict) and isinstance(value, str | dict):
        return  # a name or file, or sizes
    if name in _ONE_OR_SEVERAL and isinstance(value, list | tuple | dict):
        return
    kinds = [kind for kind in (bool, str, int | float, list | tuple, dict) if isinstance(old, kind)]
    if kinds and not isinstance(value, kinds[0]):
        if annotation is not None and not isinstance(value, str | bool) and not isinstance(old, str | bool):
            return  # the annotation accepts both
        if annotation is not None and isinstance(value, str | list | tuple) and isinstance(old, str | list | tuple):
            return
        raise ConfigError(f"option {name}={value!r}: must be of the type of {old!r}, which it replaces")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and isinstance(old, bool):
        raise ConfigError(f"option {name}={value!r}: must be True or False")
    if isinstance(value, bool) and not isinstance(old, bool):
        raise ConfigError(f"option {name}={value!r}: must be a number, as {old!r}, which it replaces")
    if isinstance(value, float) and isinstance(old, int) and old not in (0, 1) and annotation is None:
        raise ConfigError(f"option {name}={value!r}: must be a whole number, as {old!r}, which it replaces")
    if isinstance(old, list | tuple) and old and not isinstance(old[0], dict):
        _check_items(name, value, old)


def _check_items(name: str, value, old) -> None:
    for item in value:
        wrong = isinstance(old[0], int | float) and not isinstance(item, int | float | list | tuple)
        if wrong or (isinstance(old[0], str) and not isinstance(item, str)):
            raise ConfigError(f"option {name}={value!r}: its items must be of the type of {old[0]!r}")


def check_value(name: str, value, old=None) -> None:
    """Check the range of a number or the choices of a string by the last part of its name.

    Raises:
        ConfigError: if the value is out of range or not among the choices.
    """
    key = next((part for part in reversed(name.split(".")) if not part.isdigit()), name)
    if isinstance(value, Mapping):
        for inner, item in value.items():
            check_value(f"{name}.{inner}", item)
        return
    if isinstance(value, list | tuple):
        for item in value:
            if not isinstance(item, Mapping):
                check_value(name, item, old if isinstance(old, int | float) else None)
        return
    choices = next((_CHOICES[suffix] for suffix in _CHOICES if f".{name}".endswith(f".{suffix}")), None)
    if choices and isinstance(value, str | None) and value not in choices:
        raise ConfigError(f"option {name}={value!r}: must be one of {', '.join(map(str, choices))}")
    if isinstance(value, str) and (("\0" in value) or (value.strip() == "" and isinstance(old, str) and old)):
        raise ConfigError(f"option {name}={value!r}: must not be empty")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"option {name}={value}: must be a finite number")
    lowest, highest = _RANGES.get(key) or _default_range(name, key)
    lowest = 0 if lowest is None and isinstance(old, int | float) and old > 0 and key != "ignore_index" else lowest
    if (lowest is not None and value < lowest) or (highest is not None and value > highest):
        allowed = f"at least {lowest:g}" if highest in (None, 2**62) else f"from {lowest or 0:g} to {highest:g}"
        raise ConfigError(f"option {name}={value}: must be {allowed}")


def _default_range(name: str, key: str) -> tuple[float | None, float]:
    if name.startswith(("model.", "tta_model.")):
        # Modules are built one by one, so that huge numbers of them would take hours.
        return (0, 1000) if _MODULE_COUNTS.search(key) else (None, 10**8)
    return None, 2**62


def check_config(config: Config) -> None:
    """Check that every class in a config is registered and accepts the given arguments.

    Raises:
        ConfigError: naming the place, the unknown name and the known names.
    """
    check_runner_type(config)
    for top in sorted(TOP_LEVEL_KEYS - {"runner_type"}):
        if top in config:
            _check_dicts(config, (top,), config[top])


def _check_dicts(config: Config, path: tuple[str, ...], item) -> None:
    if isinstance(item, list | tuple):
        for number, child in enumerate(item):
            _check_dicts(config, (*path, str(number)), child)
    if not isinstance(item, Mapping):
        return
    arguments = arguments_of(config, path, item)
    for key, child in item.items():
        if arguments is not None and key not in arguments.annotations and not (arguments.is_open or arguments.ignores):
            _refuse(f"{config.filename}: {'.'.join(path)}", arguments, str(key), item)
        _check_dicts(config, (*path, str(key)), child)
    if arguments is None and path[-1] in ("env_cfg", "mp_cfg", "randomness", "auto_scale_lr"):
        for key in set(item) - _KNOWN[path[-1]]:
            raise ConfigError(
                f"{config.filename}: {'.'.join(path)} has no {key!r}; it has {', '.join(sorted(_KNOWN[path[-1]]))}"
            )


class CheckedBuilding(Runner):
    """Mixin of MMEngine's runner that reports arguments that a library rejects as one-line errors.

    Loops, optimizers, schedulers and metrics are built in ``train``, ``val`` and ``test``, where other exceptions are
    bugs and keep their traceback.
    """

    def build_train_loop(self, loop):
        """Build the training loop and its data loader."""
        with library_errors("train_cfg and train_dataloader can't be used with these values"):
            return super().build_train_loop(loop)

    def build_val_loop(self, loop):
        """Build the validation loop with data loader and metrics."""
        with library_errors("val_cfg, val_dataloader and val_evaluator can't be used with these values"):
            return super().build_val_loop(loop)

    def build_test_loop(self, loop):
        """Build the test loop with data loader and metrics."""
        with library_errors("test_cfg, test_dataloader and test_evaluator can't be used with these values"):
            return super().build_test_loop(loop)

    def build_optim_wrapper(self, optim_wrapper):
        """Build the optimizer wrapper."""
        with library_errors("optim_wrapper can't be built from these values"):
            return super().build_optim_wrapper(optim_wrapper)

    def build_param_scheduler(self, scheduler):
        """Build the parameter schedulers."""
        with library_errors("param_scheduler can't be built from these values"):
            return super().build_param_scheduler(scheduler)

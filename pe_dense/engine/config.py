"""Reading configs, with options that reach every place that a value has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path

from mmengine.config import Config, ConfigDict

from pe_dense.utils.errors import ConfigError
from pe_dense.utils.package_files import find_config

# What a run reads of a config's top level. Any other name there only says once what stands in several places.
# fmt: off
READ = frozenset((
    "auto_scale_lr", "custom_hooks", "data_preprocessor", "default_hooks", "default_scope", "env_cfg",
    "experiment_name", "inferencer", "launcher", "load_from", "log_level", "log_processor", "model",
    "model_wrapper_cfg", "optim_wrapper", "param_scheduler", "randomness", "resume", "runner_type",
    "test_cfg", "test_dataloader", "test_evaluator", "train_cfg", "train_dataloader", "tta_model",
    "tta_pipeline", "val_cfg", "val_dataloader", "val_evaluator", "visualizer", "work_dir",
))
# fmt: on
_SIZE_KEYS = ("img_size", "pad_size_divisor", "scale", "crop_size", "size", "image_size")


def load_config(path: str | Path, options: dict | None = None) -> Config:
    """Read a config file and change it.

    Some values stand in many places of a config and are changed everywhere by their name at the top: ``data_root`` in
    all paths that begin with it, ``image_size`` in tower, padding and pipelines, and ``tower``, a published one's name,
    in model and weights. Other options then change single values (``model.backbone.with_cp``).

    Args:
        path: a config file, or a bare name as in :func:`~pe_dense.utils.package_files.find_config`.
        options: dotted names and values.

    Raises:
        ConfigError: for a file that is missing or no config, or an option that the config does not know.
    """
    path = find_config(path)
    if not path.is_file():
        known = sorted(file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
        close = get_close_matches(path.name, known, n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise ConfigError(f"config {path} does not exist{hint}")
    try:
        config = Config.fromfile(path)
    except (SyntaxError, NameError, TypeError, AttributeError) as error:
        raise ConfigError(f"config {path}: {type(error).__name__}: {error}") from error
    options = dict(options or {})
    for name, replaced in (("data_root", _replace_root), ("image_size", _replace_size), ("tower", _replace_tower)):
        if name in options:
            change_everywhere(config, name, options.pop(name), replaced)
    for name in options:
        _check_option(config, name)
    config.merge_from_dict(options)
    return config


def change_everywhere(config: Config, name: str, value, replaced: Callable) -> None:
    """Set a top-level value and every copy of it below."""
    if name not in config:
        raise ConfigError(f"{config.filename} has no {name} to change")
    old = config[name]
    for key in config:
        config[key] = _walk(config[key], key, lambda key, item: replaced(key, item, old, value))
    config[name] = value


def _walk(item, key: str, replaced: Callable):
    if isinstance(item, dict):
        return ConfigDict({name: _walk(value, name, replaced) for name, value in item.items()})
    if isinstance(item, list | tuple):
        return type(item)(_walk(value, key, replaced) for value in item)
    return replaced(key, item)


def _replace_root(_key: str, item, old: str, new: str):
    old = old.rstrip("/")
    if isinstance(item, str) and (item.rstrip("/") == old or item.startswith(f"{old}/")):
        return str(new).rstrip("/") + item[len(old) :]
    return item


def _replace_size(key: str, item, old: int, new: int):
    return new if key in _SIZE_KEYS and item == old and not isinstance(item, bool) else item


def _replace_tower(_key: str, item, old: str, new: str):
    return {old: new, f"hf://facebook/{old}": f"hf://facebook/{new}"}.get(item, item) if isinstance(item, str) else item


def _places(item, value, name: str = "") -> Iterator[str]:
    """Dotted names of all places below that hold a value."""
    if item == value and name:
        yield name
    children = item.items() if isinstance(item, dict | Config) else enumerate(item) if isinstance(item, list) else ()
    for key, child in children:
        yield from _places(child, value, f"{name}.{key}" if name else str(key))


def _check_option(config: Config, name: str) -> None:
    """An option that would silently change nothing is an error: one that is misspelt, or that no run reads."""
    top = name.partition(".")[0]
    if top not in READ and (top in config or "." not in name):
        places = [place for place in _places(config, config.get(top)) if place.partition(".")[0] in READ]
        where = f"; its value is in {', '.join(places[:6])}" if top in config and places else ""
        raise ConfigError(
            f"option {name} would change nothing: no run reads {top!r} from the config's top level{where}"
        )
    item = config
    *parents, _ = name.split(".")
    for depth, part in enumerate(parents):
        where = ".".join(parents[:depth]) or "the config"
        if isinstance(item, list | tuple) and part.isdigit() and int(part) < len(item):
            item = item[int(part)]
        elif isinstance(item, dict | Config) and part in item:
            item = item[part]
        else:
            known = f"0..{len(item) - 1}" if isinstance(item, list | tuple) else ", ".join(item or ())
            raise ConfigError(f"option {name}: {where} has no {part!r}; it has {known}")
        if item is None:
            item = {}

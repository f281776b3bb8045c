"""Load configs, apply command-line options, and find the file that sets each key.

Some options change a value everywhere: ``data_root``, ``image_size`` and ``tower``.
"""

from __future__ import annotations

import ast
import re
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import FunctionType

import torch
from mmengine.config import Config, ConfigDict
from mmengine.config.utils import ConfigParsingError
from mmengine.logging import print_log

from pe_dense.backbones.base import TIMM_PREFIX
from pe_dense.backbones.build import backbone_class
from pe_dense.backbones.frozen import FrozenTower
from pe_dense.backbones.pe import PETower
from pe_dense.backbones.pe_configs import get_pe_config
from pe_dense.engine.arguments import OptionText, parse
from pe_dense.engine.config_check import check_option, check_value
from pe_dense.engine.tower_option import has_tower, tower_of, use_tower
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.package_files import find_config

# Arguments of a PETower that a TimmTower also has, directly or in a FrozenTower.
_SHARED = ("out_indices", "drop_path_rate", "with_cp", "frozen", "pad_to_patch", "dtype")


def replace_backbone(config: Config, name: str) -> int:
    """Replace a config's PE backbone by a timm model, including its normalization and channels.

    Window attention and other options that only PE backbones have are dropped. Pretrained weights are those of timm's
    model configuration, unless the config's backbone is randomly initialized.

    Args:
        config: complete config, changed in place.
        name: ``timm/<model name>``.

    Returns:
        the new backbone's patch size in pixels.

    Raises:
        ConfigError: for an unknown model, one that is not a plain vision transformer, or a config without a PE tower.
    """
    backbone = config.get("model", {}).get("backbone")
    kind = backbone_class(backbone) if isinstance(backbone, dict) else None
    if kind not in (PETower, FrozenTower):
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
    if kind is FrozenTower:
        new.update(type="pe_dense.FrozenTower", arch=name)
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


_SIZE_KEYS = ("img_size", "pad_size_divisor", "scale", "crop_size", "size", "image_size")


def load_config(
    path: str | Path,
    options: dict | None = None,
    *,
    tower: str | dict | None = None,
    keep_optimizer: bool = False,
    distributed: bool = False,
) -> Config:
    """Load a config file and apply options.

    Some values occur in many places of a config and are changed everywhere by their top-level name: ``data_root`` in
    all paths that begin with it, ``image_size`` in backbone, padding and pipelines, and ``tower``, a published one's
    name, in model and weights; ``tower=timm/<model name>`` replaces the backbone by a model of timm, see
    :func:`~pe_dense.engine.config.replace_backbone`. Where a config has ``sizes_by_patch``, ``tower`` also
    sets the sizes listed there for the new patch size, except those that are options themselves. Other options then
    change single values (``model.backbone.with_cp``).

    Args:
        path: a config file, or a name as in :func:`~pe_dense.utils.package_files.find_config`.
        options: dotted names and values; text from the command line is parsed by the type of the value that it
            replaces.
        tower: replace the backbone of any config of mmdet or mmseg, before the options are applied, see
            :func:`~pe_dense.engine.tower_option.use_tower`; for this project's configs the same as the option. The name
            of the backbone that the config has already changes nothing.
        keep_optimizer, distributed: see :func:`~pe_dense.engine.tower_option.use_tower`.

    Raises:
        ConfigError: for a file that is missing or not a config, an option with an unknown name or a wrong value, or a
            method that depends on its backbone.
    """
    config = _read_file(find_config(path))
    options = dict(options or {})
    if tower is not None:
        if "tower" in options:
            raise ConfigError(f"--tower {tower} and the option tower={options['tower']} both replace the backbone")
        if has_tower(config) and tower == tower_of(config):
            pass  # the config of a run on this tower
        elif has_tower(config):
            if "tower" not in config and not tower.startswith(TIMM_PREFIX):
                raise ConfigError(
                    f"--tower {tower}: {config.filename} has the settings of its own tower: use the config for {tower}"
                )
            options["tower"] = tower
        else:
            report = use_tower(config, tower, keep_optimizer=keep_optimizer, distributed=distributed)
            print_log(report, "current")
    elif keep_optimizer:
        raise ConfigError("--keep-optimizer is for configs whose backbone is replaced: add --tower NAME")
    given, old_tower = set(options), config.get("tower")
    if str(options.get("tower", "")).startswith(TIMM_PREFIX):
        patch_size = replace_backbone(config, str(options.pop("tower")))
        _fit_sizes(config, old_tower, patch_size, given)
    for name, replaced in (("data_root", _replace_root), ("image_size", _replace_size), ("tower", _replace_tower)):
        if name in options:
            replace_everywhere(config, name, _shared_value(config, name, options.pop(name)), replaced)
            if name == "tower":
                _fit_sizes(config, old_tower, get_pe_config(config.tower).patch_size, given)
    for name in sorted(options, key=lambda name: name.count(".")):
        _set(config, name, check_option(config, name, options[name]))
    return config


def adapted(name: str, tower: str | dict, **options) -> dict:
    """Return the content of a config of mmdet or mmseg on a tower, for config files that begin with it.

    Such a file sets ``_base_ = []`` first, so that MMEngine runs its imports.

    Args:
        name: ``mmdet::<folder>/<name>`` or ``mmseg::<folder>/<name>``.
        tower: see :func:`~pe_dense.engine.tower_option.use_tower`.
        options: top-level options of :func:`load_config`, such as ``data_root``.
    """
    config = load_config(name, options, tower=tower)
    config.pop("work_dir", None)  # the default is named after the config file
    config.sync_bn = "torch"  # in place of SyncBN, which `use_tower` replaces: the file also serves a single process
    return config.to_dict()


def _set(config: Config, name: str, value) -> None:
    item = config
    *parents, last = name.split(".")
    for part in parents:
        is_list = isinstance(item, list | tuple)
        if not is_list and item.get(part) is None:
            item[part] = ConfigDict()
        item = item[int(part) if is_list else part]
    if isinstance(value, dict) and isinstance(item, dict | Config) and not isinstance(item.get(last), dict):
        item[last] = ConfigDict(value)  # MMEngine merges a dict into another one only
        return
    try:
        config.merge_from_dict({name: value})
    except (TypeError, KeyError, IndexError) as error:
        raise ConfigError(f"option {name}={value!r} can't be merged into the config: {error}") from error


def _read_file(path: Path) -> Config:
    if path.is_dir():
        raise ConfigError(f"config {path} is a folder: name one of the files in it")
    if not path.is_file():
        known = sorted(file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
        close = get_close_matches(path.name, known, n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise ConfigError(f"config {path} does not exist{hint}")
    if path.suffix not in (".py", ".json", ".yaml", ".yml"):
        raise ConfigError(f"config {path} is not a config: its name must end in .py, .json, .yaml or .yml")
    with path.open("rb"):  # a system error names the file
        pass
    try:
        config = Config.fromfile(path)
    except (Exception, SystemExit) as error:  # a config is a user's Python code, which may raise any exception
        message = " ".join(str(error).partition(", the current sys.path is")[0].split())[:500]
        hint = ""
        if "read_base" in message or isinstance(error, ConfigParsingError | OSError) or "lazy" in message:
            hint = "; bases are named relative to the config's own folder: keep it beside those that it inherits from"
        line = _line_in(error, path)
        raise ConfigError(f"config {path}{line}: {type(error).__name__}: {message}{hint}") from error
    # MMEngine keeps functions imported from base files, but cannot read a config dumped with them.
    for name in [name for name in config if isinstance(config[name], FunctionType)]:
        config.pop(name)
    return config


def _line_in(error: BaseException, path: Path) -> str:
    """Return ``, line N`` of the config in which an error was raised, or an empty string."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""


def _shared_value(config: Config, name: str, value):
    """Parse and check a value that occurs in many places."""
    if name not in config:
        raise ConfigError(f"{config.filename} has no {name} to change")
    old = config[name]
    if name == "image_size":
        value = parse(name, value) if isinstance(value, OptionText) else value
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"option {name}={value!r}: must be a whole number of pixels, as {old!r}")
        check_value(name, value, old)
        return value
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        raise ConfigError(f"option {name}={value!r}: must be a name, as {old!r}")
    if name == "tower":
        get_pe_config(str(value))
    return str(value)


def replace_everywhere(config: Config, name: str, value, replaced: Callable) -> None:
    """Set a top-level value and every copy of it in the config."""
    if name not in config:
        raise ConfigError(f"{config.filename} has no {name} to change")
    old = config[name]
    for key in config:
        config[key] = _walk(config[key], key, lambda key, item: replaced(key, item, old, value))
    config[name] = value


def _fit_sizes(config: Config, old_tower: str | None, patch_size: int, given: set[str]) -> None:
    """Replace the sizes that ``sizes_by_patch`` lists for the old tower's patches by those for the new one's.

    Args:
        config: config, changed in place; not changed without ``sizes_by_patch`` entries for both patch sizes.
        old_tower: name of the tower before the change.
        patch_size: patch size of the new tower, in pixels.
        given: names of all options; sizes among them are not changed here.
    """
    table = config.get("sizes_by_patch") or {}
    old = table.get(f"patch{get_pe_config(old_tower).patch_size}") if table and old_tower else None
    new = table.get(f"patch{patch_size}")
    if not old or not new:
        return
    for name in set(new) & set(old) - given:
        keys = _SIZE_KEYS if name == "image_size" else (name,)
        before, after = old[name], new[name]

        def replaced(key, item, keys=keys, before=before, after=after):
            return after if key in keys and item == before and not isinstance(item, bool) else item

        for key in set(config) - {"sizes_by_patch"}:
            config[key] = _walk(config[key], key, replaced)


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


_CHANGING_METHODS = frozenset(("merge", "update", "pop", "setdefault", "append", "extend", "insert", "clear"))


def key_sources(path: str | Path) -> dict[str, list[Path]]:
    """Find the files that set each top-level key of a config.

    Args:
        path: a config in Python, with bases imported under ``with read_base():``.

    Returns:
        for each key, the file that assigned it last, then those that changed parts of it, in the order of inheritance.
    """
    path = Path(path)
    sources: dict[str, list[Path]] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.With):
            for imported in node.body:
                if isinstance(imported, ast.ImportFrom):
                    sources |= _imported(path, imported)
        elif isinstance(node, ast.Delete):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    sources.pop(target.id, None)
        elif isinstance(node, ast.FunctionDef):
            sources[node.name] = [path]
        elif isinstance(node, ast.Expr) and ast.unparse(node).startswith("globals().update("):  # see `adapted`
            sources = {name: [path] for name in Config.fromfile(path)}
        else:
            for name, is_new in _changes(node):
                files = [] if is_new else sources.get(name, [])
                sources[name] = [*(file for file in files if file != path), path]
    return sources


def _imported(path: Path, node: ast.ImportFrom) -> dict[str, list[Path]]:
    folder = path.parents[max(node.level, 1) - 1]
    base = folder.joinpath(*(node.module or "").split(".")).with_suffix(".py")
    if not node.level or not base.is_file():  # a config of an installed package
        return {}
    found = key_sources(base)
    names = {alias.name: alias.asname or alias.name for alias in node.names}
    return found if "*" in names else {names[name]: files for name, files in found.items() if name in names}


def _changes(node: ast.stmt):
    """Yield names that a statement assigns (True) or changes in part (False)."""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            for item in target.elts if isinstance(target, ast.Tuple | ast.List) else [target]:
                yield _root(item), isinstance(item, ast.Name) and not isinstance(node, ast.AugAssign)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        method = node.value.func
        if isinstance(method, ast.Attribute) and method.attr in _CHANGING_METHODS:
            yield _root(method), False


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def describe_config(path: str | Path, options: dict | None = None) -> str:
    """Format a config with all bases and options resolved, with the source of each top-level key as a comment.

    Args:
        path: a config file, or a bare name as in :func:`~pe_dense.utils.package_files.find_config`.
        options: as in :func:`~pe_dense.engine.config.load_config`.

    Returns:
        Python code that :meth:`mmengine.config.Config.fromfile` can read.

    Raises:
        ConfigError: for a file that is missing or not a config, or an option with an unknown name or a wrong value.
    """
    path = find_config(path)
    config = load_config(path, options)
    before = load_config(path).to_dict() if options else config.to_dict()
    sources = key_sources(path) if path.suffix == ".py" else {}
    lines = []
    code = Config(config.to_dict(), format_python_code=True).pretty_text
    for line in code.splitlines():
        name = re.match(r"(\w+)\s*=", line)
        if name and name[1] in config:
            files = [_short(file, path) for file in sources.get(name[1], [])]
            if options and config.to_dict()[name[1]] != before.get(name[1]):
                files.append("--cfg-options")
            comment = f"# set by {files[0] if files else path}"
            lines.append(comment + (f", changed by {', '.join(files[1:])}" if files[1:] else ""))
        lines.append(line)
    return "\n".join(lines)


def _short(file: Path, config: Path) -> str:
    """Return a base file's path relative to the parent of the config's folder, as ``configs/_base_/coco.py``."""
    folder = config.resolve().parent.parent
    file = file.resolve()
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)

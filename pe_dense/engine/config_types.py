"""Find the classes that a config's dicts are built as, and their arguments."""

from __future__ import annotations

import ast
import inspect
import numbers
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import chain

from mmengine import registry
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from torch import nn

from pe_dense.backbones.base import backbone_config
from pe_dense.backbones.build import backbone_class
from pe_dense.backbones.frozen import FrozenTower
from pe_dense.backbones.pe_configs import PEConfig
from pe_dense.registry import INFERENCERS, RUNNERS
from pe_dense.utils.errors import ConfigError

# Keys whose dicts are not arguments of a registered class, although they may have a `type`.
_OTHERS = {"init_cfg", "norm_cfg", "act_cfg", "conv_cfg", "upsample_cfg", "roi_layer", "nms", "generator", "arch"}
_OTHERS |= {
    "metainfo",
    "backend_args",
    "data_prefix",
    "clip_grad",
    "paramwise_cfg",
    "dcn",
    "plugins",
    "positional_encoding",
}
# Keys that are removed from a dict before its class is built.
_TAKEN = {
    "optim_wrapper": {"constructor", "paramwise_cfg", "optimizer"},
    "param_scheduler": {"convert_to_iter_based"},
    "train_cfg": {"by_epoch"},
    "hooks": {"priority"},
    "loss_cls": {"bg_cls_weight"},  # of DETR's heads
}
_LOADER_EXTRA = {
    "dataset", "sampler", "batch_sampler", "num_batch_per_epoch", "worker_init_fn", "collate_fn",
}  # fmt: skip


# Its other keyword arguments are passed to `save_checkpoint`, which has none that a config could set.
_CLOSED = {CheckpointHook}


@dataclass(frozen=True)
class Arguments:
    """Arguments of a class.

    Args:
        owner: the class's name, for messages.
        annotations: annotations by name; empty for arguments without one.
        is_open: whether other names are accepted, too.
        ignores: whether it accepts other names without using them, which some configs of mmdet rely on.
    """

    owner: str
    annotations: Mapping[str, object]
    is_open: bool = False
    ignores: bool = False


def arguments_of(config: Config, path: tuple[str, ...], item: Mapping) -> Arguments | None:
    """Return the arguments of the class that a dict of a config is built as, found in the registry.

    Args:
        config: the complete config, for its ``default_scope``.
        path: keys and indices from the top level of the config to the dict.
        item: the dict.

    Returns:
        None if the dict is not built as a class or function.

    Raises:
        ConfigError: if ``type`` is not registered.
    """
    names = [part for part in path if not part.isdigit()]
    if names[-1:] == ["arch"]:
        fields = _signature(PEConfig)
        return Arguments(fields.owner, {**fields.annotations, "base": str})
    if not names or any(name in _OTHERS for name in names):
        return None
    if len(path) == 1 and names[0].endswith("_dataloader"):
        from torch.utils.data import DataLoader

        known = dict(_signature(DataLoader).annotations)
        return Arguments("a data loader", known | dict.fromkeys(_LOADER_EXTRA, typing.Any))
    kind = item.get("type") or _default_type(names, item)
    if kind is None:
        return None
    built = _find(config, names, ".".join(path), kind)
    taken = set(chain.from_iterable(_TAKEN.get(name, ()) for name in _groups(names)))
    found = _signature(built)
    if built is FrozenTower and isinstance(item.get("arch"), str | Mapping):  # passes the rest on to the backbone
        tower = _signature(backbone_class(backbone_config(item["arch"])))
        found = Arguments(found.owner, {**tower.annotations, **found.annotations}, tower.is_open)
    known = {**dict.fromkeys(taken), **found.annotations, "type": None, "_scope_": None}
    return Arguments(found.owner, known, found.is_open, found.ignores)


def _groups(names: list[str]) -> Iterable[str]:
    if names[0].endswith("_hooks"):
        return ["hooks"]
    return [names[0]] if len(names) == 1 else [names[-1]] if names[-1] == "loss_cls" else []


def _default_type(names: list[str], item: Mapping) -> str | None:
    """Return the class that MMEngine builds if a dict has no type."""
    if len(names) > 1:
        return None
    loops = "EpochBasedTrainLoop" if item.get("by_epoch", True) else "IterBasedTrainLoop"
    if names[0] == "train_cfg" and "by_epoch" not in item and "max_iters" in item:
        loops = "IterBasedTrainLoop"
    return {
        "train_cfg": loops,
        "val_cfg": "ValLoop",
        "test_cfg": "TestLoop",
        "log_processor": "LogProcessor",
        "visualizer": "Visualizer",
        "optim_wrapper": "OptimWrapper",
        "model_wrapper_cfg": "MMDistributedDataParallel",
    }.get(names[0])


def _registries(names: list[str]) -> list:
    top, key = names[0], names[-1]
    if "transforms" in names or any(name.endswith("pipeline") for name in names):
        return [registry.TRANSFORMS]
    if top.endswith("_dataloader"):
        if key in ("sampler", "batch_sampler"):
            return [registry.DATA_SAMPLERS]
        return [registry.FUNCTIONS] if key in ("collate_fn", "worker_init_fn") else [registry.DATASETS]
    if top.endswith("_hooks"):
        return [registry.HOOKS]
    if top.endswith("_evaluator"):
        return [registry.METRICS, registry.EVALUATOR]
    if top == "visualizer":
        return [registry.VISBACKENDS if key == "vis_backends" else registry.VISUALIZERS]
    if top == "optim_wrapper":
        return [registry.OPTIMIZERS if key == "optimizer" else registry.OPTIM_WRAPPERS]
    if top == "model" and key == "assigner":  # a look-up of a missing name would import all of our models
        return [registry.TASK_UTILS]
    return {
        "model": [registry.MODELS, registry.TASK_UTILS],
        "tta_model": [registry.MODELS],
        "data_preprocessor": [registry.MODELS],
        "train_cfg": [registry.LOOPS],
        "val_cfg": [registry.LOOPS],
        "test_cfg": [registry.LOOPS],
        "param_scheduler": [registry.PARAM_SCHEDULERS],
        "log_processor": [registry.LOG_PROCESSORS],
        "inferencer": [INFERENCERS],
        "model_wrapper_cfg": [registry.MODEL_WRAPPERS],
    }.get(top, [])


def _find(config: Config, names: list[str], place: str, kind):
    """Return the class or function of a type."""
    if not isinstance(kind, str):
        if callable(kind):
            return kind
        raise ConfigError(f"{place}.type is {kind!r}, not the name of a class")
    if not all(part.isidentifier() for part in kind.split(".")):
        raise ConfigError(f"{place}.type {kind!r} is not the name of a class")
    candidates = _registries(names)
    if not candidates:
        return None
    known: set[str] = set()
    for candidate in candidates:
        with candidate.switch_scope_and_registry(config.get("default_scope") or "mmengine") as current:
            found = current.get(kind)
            if found is not None:
                return found
            while current is not None:
                known |= set(current.module_dict)
                current = current.parent
    if names[0] == "model" and kind.islower():
        return None  # not a class but a choice of one, such as `dqs_cfg=dict(type="nms", ...)`
    sort = candidates[0].name
    raise ConfigError(f"{place}.type {kind!r} is not among the registered {sort} classes{suggestion(kind, known)}")


def check_runner_type(config: Config) -> None:
    """Check that the class of ``runner_type`` is registered.

    Raises:
        ConfigError: if it is not registered.
    """
    kind = config.get("runner_type")
    if isinstance(kind, str) and RUNNERS.get(kind) is None and registry.RUNNERS.get(kind) is None:
        raise ConfigError(f"runner_type {kind!r} is not registered as a runner")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean A, B?`` with similar names, or an empty string."""
    close = get_close_matches(name, sorted(known), n=3, cutoff=0.6)
    return f"; did you mean {', '.join(close)}?" if close else ""


@cache
def _signature(built: Callable | None) -> Arguments:
    """Return the arguments of a class, including those of its base classes if it forwards ``**kwargs``."""
    if built is None or isinstance(built, types.ModuleType):
        return Arguments("", {}, is_open=True)
    if not inspect.isclass(built):
        return _function(built, built, getattr(built, "__name__", str(built)))
    annotations: dict[str, object] = {}
    for base in built.__mro__[:-1]:
        if base is nn.Module:  # has none, although it accepts **kwargs
            return Arguments(built.__name__, annotations)
        if "__init__" not in vars(base):
            continue
        found = _function(base.__init__, base, built.__name__, skip=1)
        annotations = {**found.annotations, **annotations}
        if not found.is_open:
            # A constructor may call that of a later base and skip this one, as VFNetHead does.
            return Arguments(built.__name__, annotations, ignores=base is not built and len(built.__bases__) > 1)
        extra = _extra_of(base.__init__)
        annotations |= dict.fromkeys(extra.names - set(annotations))
        if extra.is_open or not extra.passes_on:
            is_open = extra.is_open and base not in _CLOSED
            return Arguments(built.__name__, annotations, is_open, ignores=not is_open and base not in _CLOSED)
    return Arguments(built.__name__, annotations)


def _function(function: Callable, owner, name: str, skip: int = 0) -> Arguments:
    try:
        parameters = list(inspect.signature(function).parameters.values())[skip:]
    except (ValueError, TypeError):
        return Arguments(name, {}, is_open=True)
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # annotations that cannot be evaluated here
        hints = {}
    annotations = {}
    for parameter in parameters:
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            hint = hints.get(parameter.name)
            annotations[parameter.name] = hint | None if parameter.default is None and _is_type(hint) else hint
    return Arguments(name, annotations, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters))


def _is_type(hint) -> bool:
    return hint is not None and (inspect.isclass(hint) or typing.get_origin(hint) is not None)


@dataclass(frozen=True)
class _Extra:
    """Determine how a constructor uses its ``**kwargs``."""

    names: frozenset[str] = frozenset()  # names that it reads itself
    passes_on: bool = False  # passed to another constructor
    is_open: bool = False  # used in another way


def _extra_of(function: Callable) -> _Extra:
    name = next((p.name for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_KEYWORD), None)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return _Extra(is_open=True)
    names, passes_on, explained = set(), False, 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "__init__" and any(_is_name(keyword.value, name) for keyword in node.keywords):
                passes_on, explained = True, explained + 1
            elif _is_name(node.func.value, name) and node.func.attr in ("get", "pop", "setdefault") and node.args:
                explained += isinstance(node.args[0], ast.Constant)
                names |= {item.value for item in node.args[:1] if isinstance(item, ast.Constant)}
    uses = sum(_is_name(node, name) for node in ast.walk(tree))
    return _Extra(frozenset(names), passes_on, is_open=uses > explained)


def _is_name(node, name: str | None) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def accepts(annotation, value) -> bool:
    """Return whether an annotation accepts a value of a config. Unknown kinds of annotations accept everything.

    Lists and tuples are equivalent, integers are accepted as floats, and a dict is accepted for any object that can be
    built from one.
    """
    if annotation is None or annotation is typing.Any or isinstance(annotation, str | typing.TypeVar):
        return True
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(accepts(type(None) if choice is type(None) else choice, value) for choice in inner)
    if origin is typing.Literal:
        return value in inner
    kind = origin or annotation
    if kind is type(None):
        return value is None
    if not inspect.isclass(kind):
        return True
    if kind is bool or isinstance(value, bool):
        return isinstance(value, bool) and kind in (bool, object)
    if kind is int:
        return isinstance(value, int)
    if kind is float:
        return isinstance(value, int | float)
    if issubclass(kind, str):
        return isinstance(value, str)
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    if issubclass(kind, numbers.Number):
        return isinstance(value, int | float)
    if kind is Callable:
        return not isinstance(value, int | float)
    if issubclass(kind, Iterable):
        return isinstance(value, list | tuple) and _accept_items(kind, inner, value)
    # Objects of other classes are built from a dict or a name, never from a number.
    return not isinstance(value, int | float | list | tuple)


def _accept_items(kind: type, inner: tuple, value: Sequence) -> bool:
    if issubclass(kind, tuple) and inner and inner[-1] is not Ellipsis:
        return len(inner) == len(value) and all(map(accepts, inner, value))
    return not inner or all(accepts(inner[0], item) for item in value)


def describe(annotation) -> str:
    """Describe an annotation for a message."""
    text = annotation.__name__ if inspect.isclass(annotation) and not typing.get_args(annotation) else str(annotation)
    return text.replace("typing.", "").replace("collections.abc.", "").replace("NoneType", "None")

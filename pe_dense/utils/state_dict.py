"""Check state dicts from files: types, data types, keys, shapes and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pe_dense.utils.checkpoint import CheckpointError

_SHOWN = 6
_KEY_LENGTH = 200
_MAX_EXPANDED = 1 << 26  # maximum size in bytes of a tensor with repeated values


def unwrap_state(checkpoint, source: str, wrappers: Iterable[str] = ("state_dict", "model")) -> dict[str, Tensor]:
    """Find a state dict in a checkpoint and check its types.

    Args:
        checkpoint: content of a file: a state dict, or a dict with one under one of the ``wrappers``.
        source: name of the file in errors.
        wrappers: keys to search, in order.

    Raises:
        CheckpointError: as :func:`check_state_dict`.
    """
    state = checkpoint
    for wrapper in wrappers:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    return check_state_dict(state, source)


def check_state_dict(state, source: str) -> dict[str, Tensor]:
    """Check that an object from a file is a state dict of dense tensors.

    Args:
        state: any object.
        source: the file's name in errors.

    Returns:
        the state dict.

    Raises:
        CheckpointError: if the type is wrong, keys are not strings, or values are not tensors or are sparse, quantized,
            complex, on the meta device or larger than their memory; the message names the file, the key and the reason.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{source} contains a {type(state).__name__}, not a state dict")
    problems = [problem for key, value in state.items() if (problem := _problem(key, value))]
    _raise(problems, f"{source} is not a state dict that can be loaded")
    return dict(state)


def checkpoint_meta(checkpoint, source: str) -> dict:
    """Return the dict ``meta`` of a checkpoint; empty if there is none.

    Raises:
        CheckpointError: if it is not a dict.
    """
    meta = checkpoint.get("meta") if isinstance(checkpoint, Mapping) else None
    if meta is not None and not isinstance(meta, dict):
        raise CheckpointError(f"{source}: meta is a {type(meta).__name__}, not a dict")
    return meta or {}


def checkpoint_classes(checkpoint, source: str, num_classes: int | None) -> dict | None:
    """Return the class names and colors that a model was trained with, from ``meta.dataset_meta`` of its checkpoint.

    Args:
        checkpoint: the content of the file.
        source: the file's name in errors.
        num_classes: number of classes of the model; None for models without classes.

    Returns:
        the metainfo of the data set; None if the checkpoint has none.

    Raises:
        CheckpointError: if it is invalid, or its number of classes differs from the model's.
    """
    metainfo = checkpoint_meta(checkpoint, source).get("dataset_meta")
    if not metainfo:
        return None
    if not isinstance(metainfo, dict):
        raise CheckpointError(f"{source}: meta.dataset_meta is a {type(metainfo).__name__}, not a dict")
    if num_classes is None:
        return metainfo
    names, palette = metainfo.get("classes"), metainfo.get("palette")
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{source}: meta.dataset_meta.classes is a {type(names).__name__}, not a list of names")
    if len(names) != num_classes:
        raise CheckpointError(f"{source} names {len(names)} classes, but its model has {num_classes}")
    if isinstance(palette, list | tuple) and not _is_palette(palette, num_classes):
        raise CheckpointError(f"{source}: meta.dataset_meta.palette is not a list of {num_classes} colors (R, G, B)")
    return metainfo


def _is_palette(palette, count: int) -> bool:
    colors = [color for color in palette if isinstance(color, list | tuple) and len(color) == 3]
    values = [value for color in colors for value in color]
    good = all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255 for value in values)
    return len(colors) == len(palette) >= count and good


def strip_wrappers(checkpoint, source: str) -> dict[str, Tensor]:
    """Find a model's state in a checkpoint: the dict itself, or the one under ``state_dict`` or ``model``.

    Args:
        checkpoint: content of the file.
        source: name of the file in errors.

    Raises:
        CheckpointError: if the file contains no state dict.
    """
    state = unwrap_state(checkpoint, source)
    return {key.removeprefix("module."): value for key, value in state.items()}


def match_state_dict(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str, target: str) -> None:
    """Check that a state dict has exactly the keys, shapes and kinds of data types of a model, and only finite values.

    Args:
        wanted: state dict of the model.
        given: state dict of the file.
        source, target: names of file and model in errors.

    Raises:
        CheckpointError: listing keys that are missing, unexpected, or have another shape (both shapes are printed),
            another kind of data type, or NaN or infinite values.
    """
    check_state_dict(given, source)
    shapes = {key: tuple(value.shape) for key, value in wanted.items()}
    others = {key: tuple(value.shape) for key, value in given.items()}
    problems = {
        "missing in the file": sorted(shapes.keys() - others.keys()),
        "unknown to the model": sorted(others.keys() - shapes.keys()),
        "of another shape": [
            f"{key} {others[key]} for {shape}" for key, shape in shapes.items() if others.get(key, shape) != shape
        ],
        "of another data type": [
            f"{key} {_type_name(given[key])} for {_type_name(value)}"
            for key, value in wanted.items()
            if key in given and given[key].is_floating_point() != value.is_floating_point()
        ],
    }
    if any(problems.values()):
        listed = [
            f"{len(keys)} {what}: {', '.join(map(_short, keys[:_SHOWN]))}{', ...' if len(keys) > _SHOWN else ''}"
            for what, keys in problems.items()
            if keys
        ]
        raise CheckpointError(f"{source} does not fit {target}: " + "; ".join(listed))
    require_finite(given, source)


def require_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Check that all values are finite.

    Raises:
        CheckpointError: naming the tensors with NaN or infinite values.
    """
    _raise(
        [f"{_short(key)} has NaN or infinite values" for key, value in state.items() if not _is_finite(value)], source
    )


def _problem(key, value) -> str | None:
    """Describe what is wrong with an entry of a state dict."""
    if not isinstance(key, str):
        return f"its key {_short(repr(key))} is a {type(key).__name__}, not a string"
    name = _short(key)
    if not isinstance(value, Tensor):
        return f"{name} is a {type(value).__name__}, not a tensor"
    if value.is_meta:
        return f"{name} is a tensor without data (device meta)"
    if value.layout != torch.strided:
        return f"{name} is a sparse tensor ({str(value.layout).removeprefix('torch.')})"
    if value.is_quantized:
        return f"{name} is a quantized tensor ({_type_name(value)})"
    if value.is_complex():
        return f"{name} is a complex tensor"
    if value.nbytes > max(value.untyped_storage().nbytes(), _MAX_EXPANDED):
        return f"{name} is a view {tuple(value.shape)} larger than its memory"
    return None


def _is_finite(value: Tensor) -> bool:
    if not value.is_floating_point() or not value.numel():
        return True
    if value.element_size() == 1:  # 8-bit floats have no minimum
        value = value.float()
    return bool(torch.isfinite(torch.stack(value.aminmax())).all())  # does not copy the tensor


def _type_name(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _short(key: str) -> str:
    line = " ".join(key[:_KEY_LENGTH].split())
    return line if len(key) <= _KEY_LENGTH else f"{line}..."


def _raise(problems: list[str], prefix: str) -> None:
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError(f"{prefix}: " + "; ".join(problems[:_SHOWN]) + more)

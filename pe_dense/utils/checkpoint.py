"""Safe reading of checkpoints: nothing but tensors and plain containers is ever unpickled.

Importing this module also makes MMEngine's own checkpoint loader read everything through :func:`read_checkpoint`, and
teaches it the ``hf://`` scheme. (Its own ways unpickle fully: from the web at once, from disk where a safe read fails.)
"""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from pe_dense.utils import hub
from pe_dense.utils.atomic_write import atomic_write
from pe_dense.utils.errors import InputError

_SAFETENSORS_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class CheckpointError(InputError):
    """A file that can't be read as a checkpoint, or whose contents do not fit."""


def read_checkpoint(source: str | Path, map_location="cpu"):
    """Read a checkpoint.

    Args:
        source: path of a PyTorch or safetensors file, of a run's folder (its last checkpoint), or
            ``hf://<owner>/<repo>[@<revision>][/<file>]``.
        map_location: as in :func:`torch.load`; tensors of a zipped file are mapped into memory, not copied, on the CPU.

    Returns:
        what the file holds: a state dict, or a dict around one.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it is damaged, no checkpoint, holds Python objects other than tensors, or is an address of
            another kind.
    """
    source = str(source)
    if "://" in source and not source.startswith(hub.PREFIX):
        raise CheckpointError(f"{source} is not fetched: only {hub.PREFIX} names are. Download it and give its path")
    path = Path(hub.fetch(source) if source.startswith(hub.PREFIX) else source).expanduser()
    if path.is_dir():
        path = _last_checkpoint(path)
    if not path.is_file():
        raise FileNotFoundError(f"Checkpoint {source} does not exist (looked for {path.absolute()})")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, source, map_location)
    try:
        with torch.serialization.safe_globals(_training_globals()):
            mmap = zipfile.is_zipfile(path) and str(map_location) == "cpu"
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        # PyTorch's own text begins by advising an unsafe load; what it met stands behind "WeightsUnpickler error".
        reason = str(error).partition("WeightsUnpickler error: ")[2].split("\n")[0]
        raise CheckpointError(
            f"Checkpoint {source} is damaged, no PyTorch file, or holds Python objects other than tensors, which are "
            f"never loaded ({reason or 'unreadable'})"
        ) from error
    except PermissionError:
        raise
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"Checkpoint {source} ({path.stat().st_size:,} bytes) is damaged or cut short: "
            f"{type(error).__name__} {str(error).partition(chr(10))[0]}. Fetch it again."
        ) from error


def write_checkpoint(path: str | Path, content, *, overwrite: bool = True) -> None:
    """Write a PyTorch file atomically.

    Args:
        path: the file to write.
        content: as of :func:`torch.save`.
        overwrite: replace a file that exists.

    Raises:
        FileExistsError: if the file exists and ``overwrite`` is False.
        WriteError: if the disk is full, the folder not writable, ...
    """
    with atomic_write(path, overwrite=overwrite) as file:
        torch.save(content, file)


def write_safetensors(path: str | Path, state: Mapping[str, Tensor], *, overwrite: bool = True) -> None:
    """Write a safetensors file atomically, tensor by tensor, so that it takes no memory beside the largest tensor.

    (The library either makes the whole file in memory or opens one of its own, with permissions 0600.)

    Args:
        path: the file to write.
        state: contiguous tensors by name, on the CPU.
        overwrite: replace a file that exists.

    Raises:
        FileExistsError, WriteError: as :func:`write_checkpoint`.
        ValueError: for a data type that the format does not have.
    """
    header, end = {}, 0
    # As the library does: wide types first, so that every tensor is aligned.
    names = sorted(state, key=lambda name: (-state[name].element_size(), name))
    for name in names:
        tensor = state[name]
        if tensor.dtype not in _SAFETENSORS_TYPES:
            raise ValueError(f"{path}: {name} is {tensor.dtype}, which safetensors files can not contain")
        start, end = end, end + tensor.nbytes
        header[name] = dict(dtype=_SAFETENSORS_TYPES[tensor.dtype], shape=list(tensor.shape), data_offsets=[start, end])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path, overwrite=overwrite) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(state[name].reshape(-1).view(torch.uint8).numpy())


def _last_checkpoint(work_dir: Path) -> Path:
    """The newest checkpoint of a training run (MMEngine notes it in a file)."""
    note = work_dir / "last_checkpoint"
    if not note.is_file():
        raise CheckpointError(f"Checkpoint {work_dir} is a folder without a training run in it; give a file")
    return work_dir / Path(note.read_text().strip()).name  # its folder may have been moved


def _read_safetensors(path: Path, source: str, map_location):
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device=str(map_location or "cpu"))
    except SafetensorError as error:
        raise CheckpointError(f"Checkpoint {source} is damaged or no safetensors file: {error}") from error


def _history_method(owner: type, name: str):
    """Stand in for ``getattr`` in files: MMEngine's message hub refers to the statistics of its history buffers."""
    if owner is HistoryBuffer and name in ("mean", "max", "min", "current"):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f"attribute {name!r} of {owner!r} is not allowed")


def _training_globals() -> list:
    """What checkpoints of a training run hold beside tensors: logged histories, NumPy's random state and, those of the
    DETR family, the command line's arguments."""
    dtypes = [type(np.dtype(code)) for code in ("f4", "f8", "i4", "i8", "u4", "u8", "b1")]
    return [
        argparse.Namespace,
        HistoryBuffer,
        (_history_method, "builtins.getattr"),
        (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
        (np._core.multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
        (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
        (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),
        np.ndarray,
        np.dtype,
        *dtypes,
    ]


@CheckpointLoader.register_scheme(prefixes=[*CheckpointLoader._schemes, hub.PREFIX], force=True)
def _load_for_mmengine(filename, map_location=None):
    return read_checkpoint(filename, map_location=map_location or "cpu")

"""Read and write checkpoints. Only tensors and plain containers are unpickled.

Importing this module adds the scheme ``hf://`` to MMEngine's checkpoint loader. See :func:`safe_checkpoint_loader` for
the other schemes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from pe_dense.utils.atomic_write import atomic_write
from pe_dense.utils.errors import InputError, first_line
from pe_dense.utils.package_weights import PACKAGE_PREFIX, find_package_weights, published_weights
from pe_dense.utils.storage_check import short_record

HUB_PREFIX = "hf://"
_HUB_NAME = re.compile(r"hf://(?P<owner>[^/@]+)/(?P<repo>[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?")

# Towers that are published as part of another model, with its repository.
_PART_OF = {"facebook/PE-SAM3-L14-1008": "facebook/sam3"}


def fetch_from_hub(uri: str) -> str:
    """Return the local path of a hub file, which is downloaded to the hub's cache if necessary.

    Args:
        uri: ``hf://<owner>/<repo>[@<revision>][/<file>]``; the default file is ``<repo>.pt``, as in the repositories of
            the towers. ``HF_HUB_OFFLINE=1``, ``HF_HOME`` and ``HF_TOKEN`` are honored.

    Raises:
        ValueError: if the name does not have that form.
        FileNotFoundError: if the file is neither in the cache nor on the hub.
    """
    match = _HUB_NAME.fullmatch(uri)
    if match is None:
        raise InputError(f"{uri!r} is not of the form hf://<owner>/<repo>[@<revision>][/<file>]")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    repo = f"{match['owner']}/{match['repo']}"
    repo = _PART_OF.get(repo, repo)
    file = match["file"] or f"{repo.partition('/')[2]}.pt"
    where = f"{file} of hub repository {repo}" + (f" at {match['revision']}" if match["revision"] else "")
    try:
        return hf_hub_download(repo, file, revision=match["revision"])
    except LocalEntryNotFoundError as error:  # a subclass of EntryNotFoundError, so it comes first
        raise FileNotFoundError(
            f"{where} is not in the local cache and the hub cannot be reached (HF_HUB_OFFLINE=1 forbids it). "
            "Connect once, or give the path of the file instead."
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"The hub has no {where}") from error
    except HfHubHTTPError as error:
        raise FileNotFoundError(
            f"The hub did not give {where} ({first_line(error)}). Check the name; a repository that asks "
            "for consent needs `hf auth login` or HF_TOKEN."
        ) from error


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


# Errors of zipfile and of PyTorch's reader for damaged files.
_READ_ERRORS = (
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
)
_MAX_COMPRESSION, _MAX_UNPACKED = 50, 1 << 30
_MAX_NOTE = 4096  # maximum length of a path in bytes


class CheckpointError(InputError):
    """A file cannot be read as a checkpoint, or its content does not match the model."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint is corrupted or truncated."""


def read_checkpoint(source: str | Path, map_location="cpu"):
    """Read a checkpoint safely: only tensors and plain containers are unpickled.

    The CRC of every record is verified first, which reads the file once (about 1 GB/s).

    Args:
        source: path of a PyTorch or safetensors file, path of a run's folder (see :func:`last_checkpoint`), or
            ``hf://<owner>/<repo>[@<revision>][/<file>]``, or ``pe-mini://core``, which comes with the
            package.
        map_location: as in :func:`torch.load`. On the CPU, tensors of uncompressed files are mapped into memory, not
            copied.

    Returns:
        the content of the file: a state dict, or a dict that contains one.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedCheckpointError: if the file is damaged or truncated.
        CheckpointError: if it is not a checkpoint, contains Python objects other than tensors, cannot be opened, or is
            a URL of another scheme.
    """
    source = str(source)
    path = find_package_weights(source)
    if path is None and "://" in source and not source.startswith(HUB_PREFIX):
        raise CheckpointError(f"{source} is not fetched: only {HUB_PREFIX} names are. Download it and give its path")
    path = path or Path(fetch_from_hub(source) if source.startswith(HUB_PREFIX) else source).expanduser()
    if path.is_dir():
        path = last_checkpoint(path)
        source = str(path)
    if not path.exists():
        is_name = re.fullmatch(r"PE-[\w-]+", source)
        hint = f"; the weights of a published model of this name are {published_weights(source)}" if is_name else ""
        raise FileNotFoundError(f"Checkpoint {source} does not exist (looked for {path.absolute()}){hint}")
    if not path.is_file():
        raise CheckpointError(f"Checkpoint {source} is not a regular file")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise CheckpointError(f"Checkpoint {source} cannot be opened: {error.strerror}") from error
    if path.suffix == ".safetensors":
        return _read_safetensors(path, source, map_location)
    try:
        stored = verify_records(path)
        with torch.serialization.safe_globals(_training_globals()):
            mmap = stored and str(map_location) == "cpu"
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except CheckpointError as error:
        raise type(error)(f"Checkpoint {source} {error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"Checkpoint {source} is damaged, not a PyTorch file, or contains Python objects other than tensors, which "
            f"are never loaded ({_refusal(error)})"
        ) from error
    except _READ_ERRORS as error:
        raise DamagedCheckpointError(
            f"Checkpoint {source} ({path.stat().st_size:,} bytes) is damaged or cut short: "
            f"{type(error).__name__} {first_line(error)}. Fetch it again."
        ) from error


def verify_records(path: Path) -> bool:
    """Compare the records of a PyTorch file with their CRCs and with the sizes of its tensors.

    Args:
        path: path of the file.

    Returns:
        whether all records are stored without compression, so that the file can be memory-mapped; False for files of
        PyTorch before 1.6, which are not archives.

    Raises:
        DamagedCheckpointError: if a CRC differs or the archive is truncated.
        CheckpointError: if the archive is much larger when decompressed.
        UnpicklingError: if the structure of the file is damaged.
    """
    if not zipfile.is_zipfile(path):
        return False
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        unpacked = sum(record.file_size for record in records)
        stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
        if unpacked > (size if stored else max(_MAX_COMPRESSION * size, _MAX_UNPACKED)):
            raise CheckpointError(f"({size:,} bytes) declares {unpacked:,} bytes of records and is not loaded")
        try:
            bad = archive.testzip()
        except (zlib.error, EOFError, NotImplementedError) as error:
            raise DamagedCheckpointError(f"({size:,} bytes) is damaged: {error}. Fetch it again.") from error
        if bad is not None:
            raise DamagedCheckpointError(
                f"({size:,} bytes) is damaged: the CRC of its record {bad} does not match. Fetch it again."
            )
        short = short_record(archive)
        if short is not None:
            raise DamagedCheckpointError(f"({size:,} bytes) is damaged: {short}. Fetch it again.")
    return stored


def last_checkpoint(work_dir: Path) -> Path:
    """Find the newest checkpoint of a training run.

    The run's file ``last_checkpoint`` names it. If that file is missing, unreadable or names a checkpoint that is not
    in the folder, the newest undamaged ``iter_<n>.pth`` or ``epoch_<n>.pth`` is used, and a warning is logged.

    Args:
        work_dir: the folder of the run, which may have been moved.

    Raises:
        CheckpointError: if there is no checkpoint; the message explains what is wrong with ``last_checkpoint``.
    """
    note = work_dir / "last_checkpoint"
    try:
        if note.exists() and not note.is_file():
            raise ValueError("it is not a regular file")
        with note.open("rb") as file:
            name = os.fsdecode(file.read(_MAX_NOTE)).strip()
        if not name or "\0" in name or not name.isprintable():
            raise ValueError("it is empty" if not name else "it does not contain a path")
        path = work_dir / Path(name).name
        if not path.is_file():
            raise ValueError(f"it names {path.name}, which is not in the folder")
        return path
    except FileNotFoundError:
        reason = f"{work_dir} has no file last_checkpoint"
    except (OSError, ValueError) as error:
        reason = f"{note} is not usable: {getattr(error, 'strerror', None) or error}"
    path = newest_undamaged(work_dir)
    if path is None:
        raise CheckpointError(
            f"{reason}, and the folder contains no undamaged iter_<n>.pth or epoch_<n>.pth. Give the path of a "
            "checkpoint, or of the folder of a training run"
        )
    print_log(f"{reason}: using the newest undamaged checkpoint, {path}", "current", logging.WARNING)
    return path


def run_checkpoints(work_dir: Path) -> list[Path]:
    """List the checkpoints ``iter_<n>.pth`` and ``epoch_<n>.pth`` of a run's folder, newest first."""
    found = [
        (int(match[1]), path)
        for path in work_dir.glob("*.pth")
        if (match := re.fullmatch(r"(?:iter|epoch)_([0-9]{1,18})\.pth", path.name))
    ]
    return [path for _, path in sorted(found, reverse=True)]


def newest_undamaged(work_dir: Path, skip: Path | None = None) -> Path | None:
    """Return the newest checkpoint of a run whose records match their CRCs; None if there is none.

    Args:
        work_dir: the folder of the run.
        skip: a file to ignore.
    """
    for path in run_checkpoints(work_dir):
        if skip is not None and path.name == skip.name:
            continue
        with contextlib.suppress(CheckpointError, pickle.UnpicklingError, *_READ_ERRORS):
            if path.is_file() and zipfile.is_zipfile(path):
                verify_records(path)
                return path
    return None


def _refusal(error: pickle.UnpicklingError) -> str:
    """Return the reason of the unpickler without its advice to load the file unsafely."""
    text = str(error)
    if match := re.search(r"(?:Unsupported (?:global|class)|GLOBAL|Trying to (?:load|call|instantiate))[^\n]*", text):
        return match[0].split(" was not an allowed")[0].strip()
    reason = text.partition("WeightsUnpickler error: ")[2].split("\n")[0]
    return reason or text.split("\n")[-1][:200] or "unreadable"


def write_checkpoint(path: str | Path, content, *, overwrite: bool = True) -> None:
    """Write a PyTorch file atomically.

    Args:
        path: path of the file.
        content: as for :func:`torch.save`.
        overwrite: replace an existing file.

    Raises:
        FileExistsError: if the file exists and ``overwrite`` is False.
        WriteError: if the disk is full, the folder is not writable, ...
    """
    with atomic_write(path, overwrite=overwrite) as file:
        torch.save(content, file)


def write_safetensors(
    path: str | Path, state: Mapping[str, Tensor], *, overwrite: bool = True, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically and tensor by tensor, so that it needs no memory beyond the largest tensor.

    (The library either creates the complete file in memory or opens the file itself, with permissions 0600.)

    Args:
        path: path of the file.
        state: contiguous tensors by name, on the CPU.
        overwrite: replace an existing file.
        metadata: texts by name for the file's header.

    Raises:
        FileExistsError, WriteError: as :func:`write_checkpoint`.
        ValueError: if the format does not support a data type.
    """
    header, end = {"__metadata__": dict(metadata)} if metadata else {}, 0
    # As the library does: wide types first, so that every tensor is aligned.
    names = sorted(state, key=lambda name: (-state[name].element_size(), name))
    for name in names:
        tensor = state[name]
        if tensor.dtype not in _SAFETENSORS_TYPES:
            raise ValueError(f"{path}: {name} is {tensor.dtype}, which safetensors files cannot contain")
        start, end = end, end + tensor.nbytes
        header[name] = dict(dtype=_SAFETENSORS_TYPES[tensor.dtype], shape=list(tensor.shape), data_offsets=[start, end])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path, overwrite=overwrite) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(state[name].reshape(-1).view(torch.uint8).numpy())


def _read_safetensors(path: Path, source: str, map_location):
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device=str(map_location or "cpu"))
    except (SafetensorError, *_READ_ERRORS) as error:
        raise DamagedCheckpointError(
            f"Checkpoint {source} is damaged or not a safetensors file: {first_line(error)}. Fetch it again."
        ) from error


def _history_method(owner: type, name: str):
    """Replace ``getattr`` in files: MMEngine's message hub refers to the statistics of its history buffers."""
    if owner is HistoryBuffer and name in ("mean", "max", "min", "current"):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f"attribute {name!r} of {owner!r} is not allowed")


def _training_globals() -> list:
    """Return the types other than tensors in checkpoints of training runs: logged histories, NumPy's random state "
    "and, for the DETR family, command-line arguments."""
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


@CheckpointLoader.register_scheme(prefixes=(HUB_PREFIX, PACKAGE_PREFIX), force=True)
def _load_for_mmengine(filename, map_location=None):
    return read_checkpoint(filename, map_location=map_location or "cpu")


@contextlib.contextmanager
def safe_checkpoint_loader() -> Iterator[None]:
    """Make MMEngine read all checkpoints by :func:`read_checkpoint` within the block.

    MMEngine unpickles files from the web without restriction, and local files if a safe read fails.
    :class:`~pe_dense.engine.runner.Runner` builds, trains and tests within such a block. Outside of it, other projects
    in the same process are not affected, except for the additional scheme ``hf://``.
    """
    schemes = CheckpointLoader._schemes
    CheckpointLoader._schemes = dict.fromkeys(schemes, _load_for_mmengine)
    try:
        yield
    finally:
        CheckpointLoader._schemes = schemes

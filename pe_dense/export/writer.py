"""Write a graph as an ONNX or ``torch.export`` file."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from pe_dense import __version__
from pe_dense.export.graphs import Graph
from pe_dense.export.preprocess import PreprocessedGraph
from pe_dense.utils.atomic_write import WriteError, atomic_write, report_write_errors
from pe_dense.utils.errors import InputError, UserError

OPSETS = (17, 24)  # LayerNormalization is an operator from 17 on; RoIAlign computes other values until 15
DEFAULT_OPSET = 20
PT2_METADATA = "pe_dense.json"
_ONE_FILE = 1_900_000_000  # bytes of weights up to which an ONNX file has no second file; protobuf ends at 2 GiB
_IMAGE_SIDES = 32_768  # upper limit of a raw image's sides


def export_graph(
    graph: Graph,
    path: str | Path,
    *,
    opset: int = DEFAULT_OPSET,
    dynamic: Sequence[str] = (),
    batch: int = 1,
    half: bool = False,
    int8: bool = False,
    with_preprocessing: bool = False,
    overwrite: bool = False,
    metadata: dict | None = None,
) -> Path:
    """Export a graph to a file.

    ``.onnx`` files contain everything that :class:`pe_dense.runtime.OnnxModel` needs. Weights of more than 1.9 GB go
    to a second file, ``<name>.data``. ``.pt2`` files are for ``torch.export.load``; their metadata are the extra file
    ``pe_dense.json``.

    Args:
        graph: see :func:`~pe_dense.export.graph_of`; with ``half``, its weights are converted in place.
        path: ending in ``.onnx`` or ``.pt2``.
        opset: version of the ONNX operators, from 17 to 24.
        dynamic: 'batch', 'size' or both; by default shapes are fixed.
        batch: number of images, if it is fixed.
        half: float16 for the backbone; heads and inputs stay in float32.
        int8: quantize the weights of linear layers to 8 bits, and their inputs when the graph runs.
        with_preprocessing: take one image (H, W, 3) uint8 of any size instead of normalized images.
        overwrite: replace an existing file.
        metadata: further entries of the file's metadata.

    Returns:
        the path.

    Raises:
        InputError: for options that do not go together or that the graph does not support.
        UserError: if onnx and onnxscript, or for ``int8`` onnxruntime, are not installed.
        FileExistsError, WriteError: if the file exists, or cannot be written.
    """
    path = Path(path)
    check_output(path, overwrite)
    _check(graph, path, opset, dynamic, batch, half, int8, with_preprocessing)
    if path.suffix == ".onnx":
        _require("onnx", "onnxscript", *(["onnxruntime"] if int8 else []))
    graph.eval()
    graph.set_precision(torch.float16 if half else torch.float32)
    entries = _metadata(graph, dynamic, half, int8, with_preprocessing) | (metadata or {})
    if path.suffix == ".onnx":
        entries["opset"] = opset
    module, arguments, shapes = graph, graph.example(batch, dynamic), graph.dynamic_shapes(dynamic)
    names = graph.input_names
    if with_preprocessing:
        module, names = PreprocessedGraph(graph), ("image",)
        height, width = graph.preprocessing.size
        arguments = (torch.zeros(height + 3, width - 1, 3, dtype=torch.uint8),)
        sides = {axis: torch.export.Dim(f"side_{axis}", min=2, max=_IMAGE_SIDES) for axis in (0, 1)}
        shapes = (sides,)
    with torch.no_grad(), graph.tracing(), _without_messages():
        if path.suffix == ".pt2":
            program = torch.export.export(module, arguments, dynamic_shapes=shapes, strict=False)
            extra = {PT2_METADATA: json.dumps(entries)}
            with atomic_write(path, overwrite=overwrite) as file:
                torch.export.save(program, file, extra_files=extra)
            return path
        exported = torch.onnx.export(
            module,
            arguments,
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=opset,
            input_names=list(names),
            output_names=list(graph.output_names),
            verbose=False,
        )
    written = exported.model.opset_imports[""]
    if written != opset:
        raise InputError(f"the exporter cannot write this model with opset {opset}, only with {written}")
    exported.model.metadata_props.update({key: _text(value) for key, value in entries.items()})
    external = _bytes_of(module) > _ONE_FILE
    _write_files(path, overwrite, lambda file: _save(exported, file, external, int8))
    return path


def check_output(path: Path, overwrite: bool) -> None:
    """Check that an export may write its files: the graph, and the weights that it may need beside it.

    Raises:
        FileExistsError: if one exists and ``overwrite`` is not set.
        InputError: if the suffix is of no format, or the path is a folder or in a file.
        WriteError: if the folder is not writable.
    """
    if path.suffix not in (".onnx", ".pt2"):
        raise InputError(f"{path} must end in .onnx or .pt2")
    for file in (path, *([_weights_file(path)] if path.suffix == ".onnx" else [])):
        if file.is_dir():
            raise InputError(f"{file} is a folder: choose another name")
        if file.exists() and not overwrite:
            raise FileExistsError(f"{file} exists: choose another name or pass --overwrite")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise InputError(f"{path} is in {folder}, which is a file: choose another folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(f"Cannot write {path}: {folder} is not writable. Name another folder")


def _weights_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")


def _check(graph, path, opset, dynamic, batch, half, int8, with_preprocessing) -> None:
    if not OPSETS[0] <= opset <= OPSETS[1]:
        reason = ": LayerNormalization begins with 17"
        if graph.has_roi_align:
            reason += ", and RoIAlign until 15 computes other values"
        raise InputError(f"opset {opset} is not from {OPSETS[0]} to {OPSETS[1]}{reason}")
    if unknown := set(dynamic) - {"batch", "size"}:
        raise InputError(f"dynamic {sorted(unknown)[0]!r} is neither 'batch' nor 'size'")
    if batch < 1:
        raise InputError(f"batch is {batch}, must be at least 1")
    if batch > 1 and "batch" in dynamic:
        raise InputError(f"the batch is either dynamic or fixed to {batch}: leave one of them out")
    if half and int8:
        raise InputError("half and int8 are alternatives: choose one")
    if int8 and path.suffix != ".onnx":
        raise InputError("int8 is a quantization of ONNX files: name an output ending in .onnx")
    if with_preprocessing and graph.preprocessing is None:
        raise InputError("with_preprocessing is for images: this graph takes token ids, leave it out")
    if with_preprocessing and (dynamic or batch > 1):
        raise InputError(
            "with_preprocessing takes one image and resizes it to a fixed size: leave out dynamic and batch"
        )


def _require(*packages: str) -> None:
    for package in packages:
        try:
            __import__(package)
        except ImportError as error:
            raise UserError(f"{package} is not installed: pip install 'pe_dense[export]'") from error


def _metadata(graph, dynamic, half, int8, with_preprocessing) -> dict:
    """Collect what a program that runs the file needs to know."""
    entries = dict(
        pe_dense_version=__version__,
        task=graph.task,
        precision="int8" if int8 else "float16" if half else "float32",
        dynamic=list(dynamic),
        with_preprocessing=with_preprocessing,
    )
    if graph.preprocessing is not None:
        entries |= graph.preprocessing.as_dict()
        if "size" in dynamic:
            entries |= dict(resize="multiple", stride=graph.stride)
    if graph.classes is not None:
        entries["classes"] = list(graph.classes)
    if hasattr(graph, "indices"):
        entries["layers"] = list(graph.indices)
    return entries


def _text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@contextmanager
def _without_messages() -> Iterator[None]:
    """Leave out warnings of the libraries, which are about their own steps."""
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnxscript")]  # onnxruntime uses the first
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _bytes_of(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))


def _save(exported, file: Path, external: bool, int8: bool) -> None:
    if not int8:
        exported.save(file, external_data=external)
        return
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain = file.with_name("float32.onnx")
    exported.save(plain, external_data=external)
    with _without_messages():
        quantize_dynamic(
            plain,
            file,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
            use_external_data_format=external,
            extra_options=dict(MatMulConstBOnly=True),
        )
    for temporary in file.parent.glob("float32.onnx*"):
        temporary.unlink()


def _write_files(path: Path, overwrite: bool, write) -> None:
    """Write a file, and a second one with its weights if there is one, in a temporary folder; then move both."""
    with report_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # With this suffix, `atomic_write` removes what a killed process leaves.
        with tempfile.TemporaryDirectory(prefix=".pe_dense-", suffix=".part", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            try:
                write(temporary)
            except OSError as error:
                if error.errno is not None:
                    raise
                # numpy's error of a full disk has no number.
                raise WriteError(f"Cannot write {path}: {error}. Free some space or name another disk") from error
            check_output(path, overwrite)  # the export took a while
            weights = _weights_file(temporary)
            split = weights.exists()
            if split:
                os.replace(weights, _weights_file(path))
            os.replace(temporary, path)  # last, because it refers to the weights
            if not split:  # those of the file that was replaced
                _weights_file(path).unlink(missing_ok=True)

"""Load a backbone from a published file, a training run or a probe, and export the tower of a run."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from pe_dense.backbones.base import TIMM_PREFIX, Backbone
from pe_dense.backbones.checkpoint import check_tower_state, extract_backbone_state, load_weights, save_state
from pe_dense.backbones.frozen import FrozenTower
from pe_dense.backbones.pe import PETower
from pe_dense.backbones.pe_configs import (
    PE_CONFIGS,
    PEConfig,
    detector_rates,
    detector_windows,
    get_pe_config,
    last_blocks,
)
from pe_dense.backbones.timm import TIMM_HUB, TimmTower
from pe_dense.registry import MODELS
from pe_dense.utils import CheckpointError, match_state_dict, read_checkpoint
from pe_dense.utils.errors import InputError, first_line
from pe_dense.utils.lora_state import merge_lora
from pe_dense.utils.package_weights import published_weights
from pe_dense.utils.rng import fork_rng_at_initial_seed
from pe_dense.utils.state_dict import unwrap_state


def export_tower(source: str | Path, path: str | Path, *, fold: bool = False, **options) -> list[str]:
    """Export the tower of a training run in the published format.

    Args:
        source: checkpoint or work dir (its last checkpoint) of a model that contains one tower.
        path: see :func:`~pe_dense.backbones.save_state`.
        fold: see :func:`fold_layer_scale`.
        options: ``overwrite``, ``dtype`` and ``metadata``, see :func:`~pe_dense.backbones.save_state`.

    Returns:
        names of the published towers with the same parameter names and shapes.

    Raises:
        CheckpointError, FileNotFoundError: if the checkpoint is missing or contains no tower.
        FileExistsError, ValueError: see :func:`~pe_dense.backbones.save_state`; also a ValueError if ``fold`` is set
            and the tower has no LayerScale.
    """
    state = check_tower_state(extract_backbone_state(read_checkpoint(source), source), source)
    if fold:
        state = fold_layer_scale(state)
    save_state(state, path, **options)
    return fitting_names(state)


def fold_layer_scale(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold LayerScale into the projections before it; features change only by rounding.

    Args:
        state: state dict of a tower with LayerScale, with the published names.

    Returns:
        the state dict of the equivalent tower without LayerScale.

    Raises:
        ValueError: if the tower has no LayerScale.
    """
    state = dict(state)
    scales = [key for key in state if key.rpartition(".")[2] == "gamma"]
    if not scales:
        raise InputError("The tower has no LayerScale to fold")
    for key in scales:
        block, scale, _ = key.rsplit(".", 2)
        projection = f"{block}.{dict(ls_1='attn.out_proj', ls_2='mlp.c_proj')[scale]}"
        gamma = state.pop(key)
        state[f"{projection}.weight"] = gamma[:, None] * state[f"{projection}.weight"]
        state[f"{projection}.bias"] = gamma * state[f"{projection}.bias"]
    return state


def fitting_names(state: dict[str, Tensor]) -> list[str]:
    """Return names of the published towers with exactly these parameter names and shapes."""
    shapes = {key: value.shape for key, value in state.items()}
    width, layers = len(state["conv1.weight"]), sum(key.endswith(".ln_1.weight") for key in state)
    names = []
    for name, variant in PE_CONFIGS.items():
        if (variant.width, variant.layers) != (width, layers):
            continue
        with torch.device("meta"):
            tower = PETower(name)
        if {key: value.shape for key, value in tower.state_dict().items()} == shapes:
            names.append(name)
    return names


RANDOM = "random"
_KINDS = ("pe_dense.PETower", "pe_dense.FrozenTower")
# Limits on values in the config text of a checkpoint, which is untrusted input. The
# largest published tower has 50 blocks of 1,536 channels.
_MAX_TEXT = 1 << 20
_MAX_SIZE, _MAX_VALUES = 1 << 14, 1000
_LIMITS = dict(layers=256, heads=256, attn_pooler_heads=256, patch_size=256, mlp_ratio=32)


def open_tower(arch: str | None, weights: str | Path | None = None, *, device: str | torch.device = "cpu") -> Backbone:
    """Load a backbone with its weights from a published file, a training run or a probe.

    Args:
        arch: name of a published tower, or ``timm/<model name>``. None if the file contains its own config, as
            checkpoints of pe_dense runs do; the tower is then built as it was trained, with its window size and
            patch size.
        weights: path of a file or of a work dir, or ``hf://`` name; 'random' for random weights; the published weights
            of ``arch`` by default.
        device: device of the tower.

    Returns:
        the tower, in evaluation mode.

    Raises:
        ValueError: if neither argument determines a tower, or they contradict each other.
        CheckpointError, FileNotFoundError: see :func:`~pe_dense.backbones.load_tower`.
    """
    if arch is not None and arch.startswith(TIMM_PREFIX):
        return _open_timm(arch, weights).to(device).eval()
    if weights is None or weights == RANDOM:
        if arch is None:
            raise InputError("no backbone given: set --arch, or --weights to a checkpoint of a pe_dense run")
        if weights is None:
            return load_tower(arch, device=device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return PETower(arch).to(device).eval()
    checkpoint = read_checkpoint(weights)
    backbone = trained_backbone(checkpoint)
    if backbone is None:
        if arch is None:
            raise InputError(f"{weights} contains no config of its backbone: set --arch")
        return load_tower(arch, weights, device=device)
    if arch not in (None, backbone.get("arch")):
        found = str(backbone.get("arch"))[:200]
        raise InputError(f"{weights} contains a tower of {found}, not {arch}: leave --arch out")
    return _build(backbone, checkpoint, weights).to(device).eval()


def _open_timm(arch: str, weights: str | Path | None) -> TimmTower:
    with fork_rng_at_initial_seed():
        tower = TimmTower(arch)
    if weights != RANDOM:
        tower.load_pretrained(weights or TIMM_HUB)
    return tower


def build_pretrained(config: dict, checkpoint: str | Path | None, content: Mapping | None = None) -> Backbone:
    """Build a backbone and load its weights, without allocating initial weights if the class supports it.

    Args:
        config: config of a :class:`~pe_dense.backbones.base.Backbone`, without ``init_cfg``.
        checkpoint: path or ``hf://`` name of the weights; None for random weights.
        content: content of the checkpoint, if it was already read.

    Raises:
        CheckpointError, FileNotFoundError: see :meth:`~pe_dense.backbones.base.Backbone.load_pretrained`.
    """
    if checkpoint is None:
        return MODELS.build(config)
    # timm models compute buffers in their constructors, which would be lost on the meta device.
    on_meta = backbone_class(config) is PETower
    with torch.device("meta") if on_meta else nullcontext():
        backbone: Backbone = MODELS.build(config)
    backbone.load_pretrained(checkpoint, content)
    return backbone


def backbone_class(config: dict) -> type | None:
    """Return the class of a backbone config, given by class or by registered name; None if it is not registered."""
    kind = config.get("type")
    return MODELS.get(kind) if isinstance(kind, str) else kind


def dense_backbone(name: str, patch_size: int, *, windows: bool, num_maps: int = 1) -> dict:
    """Build the config of a pretrained backbone for heads that train it on images of any size.

    Args:
        name: name of a published tower, or ``timm/<model name>``.
        patch_size: side of a patch in pixels; weights of other patches are resampled on load.
        windows: window attention as in the published detectors, for large images; PE towers only.
        num_maps: number of maps, from the last blocks of equal parts of the backbone.

    Raises:
        ValueError: for an unknown name, or a model that accepts only images of one size.
    """
    if name.startswith(TIMM_PREFIX):
        with torch.device("meta"):
            tower = TimmTower(name)
        if not tower.dynamic:
            raise InputError(f"{name} only accepts images of {tower.image_size} x {tower.image_size} px")
        layers, checkpoint = tower.num_layers, TIMM_HUB
        options = dict(type="pe_dense.TimmTower", name=name.removeprefix(TIMM_PREFIX))
        if tower.patch_size != patch_size:
            options["model_args"] = dict(patch_size=patch_size)
    else:
        layers, checkpoint = get_pe_config(name).layers, published_weights(name)
        options = dict(type="pe_dense.PETower", arch=name, patch_size=patch_size)
        options |= detector_windows(layers) if windows else dict(with_head=False)
    if num_maps > 1:
        options["out_indices"] = last_blocks(layers, num_maps)
    return options | dict(
        drop_path_rate=detector_rates(layers)[0],
        with_cp=layers >= 20,
        pad_to_patch=True,
        init_cfg=dict(type="Pretrained", checkpoint=checkpoint),
    )


def embed_dim_of(config: dict) -> int:
    """Return the embedding dimension of a backbone config, without allocating its weights."""
    with torch.device("meta"):
        return MODELS.build(config).embed_dim


def choose_device(name: str | None) -> torch.device:
    """Return the device with this name; by default a GPU if available, else the CPU.

    Raises:
        ValueError: if the device is not available.
    """
    device = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # AssertionError if PyTorch was built without CUDA
        raise InputError(
            f"device {device} is not available ({first_line(error)}): choose another one, such as cpu"
        ) from error


def title_of(tower: Backbone, weights: str | None) -> str:
    """Return a figure title: the label of the backbone and, for weights other than the published ones, their source."""
    return tower.label if weights is None else f"{tower.label} ({'/'.join(Path(weights).parts[-2:])})"


def trained_backbone(checkpoint) -> dict | None:
    """Read the backbone config from a checkpoint of a training run; None if it contains none."""
    model = trained_model(checkpoint)
    backbone = model.get("backbone") if model is not None else None
    kind = backbone.get("type") if isinstance(backbone, dict) else None
    return backbone if isinstance(kind, str) and kind in _KINDS else None


def trained_model(checkpoint) -> dict | None:
    """Read the model config from a checkpoint of a training run; None if it contains none.

    The config text is parsed and never executed, because the checkpoint may be untrusted.
    """
    meta = checkpoint.get("meta") if isinstance(checkpoint, dict) else None
    text = meta.get("cfg") if isinstance(meta, dict) else None
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        return None
    try:
        assigned = {node.targets[0].id: node.value for node in ast.parse(text).body if isinstance(node, ast.Assign)}
        model = _literal(assigned["model"])
    except (SyntaxError, ValueError, LookupError, AttributeError, TypeError, RecursionError, MemoryError):
        return None
    return model if isinstance(model, dict) else None


def _literal(node: ast.expr):
    """Evaluate a literal in which dicts may also be written as calls, ``dict(a=1)``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {_literal(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.List | ast.Tuple):
        values = [_literal(item) for item in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    return ast.literal_eval(node)


def _build(backbone: dict, checkpoint: dict, source: str | Path) -> PETower:
    """Build the tower of a run from an allow-list of options; memory is allocated after its weights are checked."""
    options = allowed_options(backbone, source)
    if backbone["type"] == "pe_dense.FrozenTower":
        return _build_frozen(backbone, options, checkpoint, source)
    try:
        with torch.device("meta"):
            tower = PETower(**options)
    except (InputError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise CheckpointError(f"the tower that the config in {source} describes cannot be built: {error}") from error
    load_weights(tower, source)
    return tower


def _build_frozen(backbone: dict, options: dict, checkpoint: dict, source: str | Path) -> PETower:
    """Build the tower of a probe, whose weights are in a separate file; only a published file is opened."""
    prefix = "backbone."
    state = unwrap_state(checkpoint, str(source), ["state_dict"])
    part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not part:
        raise CheckpointError(f"{source} has no {prefix}* in its state_dict, though its config has a frozen tower")
    arch, start = options["arch"], backbone.get("init_cfg")
    weights = start.get("checkpoint") if isinstance(start, dict) else None
    published = published_weights(arch)
    if weights != published:
        raise CheckpointError(
            f"{source} is a probe on a frozen tower, whose weights are in another file ({str(weights)[:200]}). Files "
            "named inside a checkpoint are not opened: pass that file with --weights and its architecture with --arch"
        )
    options.pop("dtype", None)
    frozen = FrozenTower(**options, init_cfg=dict(type="Pretrained", checkpoint=published))
    match_state_dict(frozen.state_dict(), part, str(source), "its frozen tower")
    frozen.load_state_dict(part)
    return frozen.tower


def allowed_options(backbone: dict, source: str | Path) -> dict:
    """Read the options of a tower from a checkpoint config: known names, plain values, limited sizes.

    Raises:
        CheckpointError: for any other option.
    """
    known = {*inspect.signature(PETower).parameters, "dtype"} - {"init_cfg"}
    options = {key: value for key, value in backbone.items() if key not in ("type", "init_cfg", "lora")}
    for key, value in options.items():
        if key == "arch" and isinstance(value, dict):
            names = {field.name for field in fields(PEConfig)}
            base = value.get("base")
            good = base is None or isinstance(base, str) and base in PE_CONFIGS
            values = {name: item for name, item in value.items() if name != "base"}
            good = good and all(name in names and _is_allowed(name, item) for name, item in values.items())
        elif key == "arch":
            good = isinstance(value, str) and value in PE_CONFIGS
        else:
            good = key in known and _is_allowed(key, value)
        if not good:
            raise CheckpointError(
                f"the config in {source} describes its tower by {str(key)[:100]}={str(value)[:100]}, which is not "
                "accepted from a checkpoint: set the architecture with --arch"
            )
    if "arch" not in options:
        raise CheckpointError(f"the config in {source} does not name the architecture of its tower: set it with --arch")
    return options


def _is_allowed(name: str, value) -> bool:
    """Return whether a value from a checkpoint config is a plain value within the size limits."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return len(value) <= 100
    if isinstance(value, list | tuple):
        return len(value) <= _MAX_VALUES and all(type(item) is int and abs(item) <= _MAX_VALUES for item in value)
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) <= _LIMITS.get(name, _MAX_SIZE)


def load_tower(arch: str | dict, weights: str | Path | None = None, *, device="cpu", dtype=torch.float32, **options):
    """Build a tower and load its weights.

    The tower is built on the meta device, so peak memory is that of the tower plus the pages of the file in use.

    Args:
        arch: see :class:`~pe_dense.backbones.PETower`.
        weights: path or ``hf://`` name; the published file by default, ``hf://facebook/<arch>`` or that in the package.
        device: device of the tower.
        dtype: data type of its parameters.
        options: further arguments of :class:`~pe_dense.backbones.PETower`.

    Returns:
        the tower, in evaluation mode.

    Raises:
        ValueError: for invalid arguments, or if ``arch`` is a dict of fields and ``weights`` is not given.
        CheckpointError, FileNotFoundError: see :func:`load_weights`.
    """
    with torch.device("meta"):
        tower = PETower(arch, **options)
    if weights is None:
        if not isinstance(arch, str):
            raise InputError("A tower given by fields has no published weights: pass weights=<path or hf:// name>")
        weights = published_weights(arch)
    load_weights(tower, weights)
    return tower.to(device=device, dtype=dtype).eval()


def save_weights(tower, path: str | Path, *, overwrite: bool = False) -> Path:
    """Save the weights of a tower in the published format, which the reference implementation can read too.

    Arguments, return value and errors are those of :func:`save_state`, with a :class:`~pe_dense.backbones.PETower`
    in place of the state dict.
    """
    return save_state(merge_lora(tower.state_dict(), tower.name), path, overwrite=overwrite)

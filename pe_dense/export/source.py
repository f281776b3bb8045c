"""Open the model that a command names: a config and a checkpoint, a training run, or a published model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from torch import nn

from pe_dense.backbones import PE_CONFIGS
from pe_dense.backbones.base import TIMM_PREFIX
from pe_dense.backbones.build import open_tower
from pe_dense.engine.config import load_config
from pe_dense.engine.inferencer import config_of_run, load_predictor
from pe_dense.language import load_clip
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.package_files import find_config

_WEIGHTS = (".pt", ".pth", ".safetensors")


def open_model(
    source: str,
    checkpoint: str | None = None,
    *,
    part: str = "model",
    options: dict | None = None,
    tower: str | None = None,
) -> tuple[nn.Module, Sequence[str] | None]:
    """Open a model with its weights on the CPU.

    Args:
        source: config; or work dir of a run, whose config and last checkpoint are used; or, for towers, a checkpoint or
            the name of a published model.
        checkpoint: path, work dir or ``hf://`` name; required with a config.
        part: see :func:`~pe_dense.export.graph_of`.
        options: overrides of config values.
        tower: backbone to put under the config, as in training.

    Returns:
        the model in evaluation mode, and its class names or None.

    Raises:
        ConfigError, CheckpointError, FileNotFoundError: if a file is missing or does not match, or there is no config
            that ``options`` or ``tower`` could change.
    """
    published = source in PE_CONFIGS or source.startswith(TIMM_PREFIX)
    if (options or tower) and (published or part in ("image", "text") or part == "tower" and checkpoint is None):
        raise ConfigError(f"--cfg-options and --tower change a config, which {source} with part '{part}' does not use")
    if part in ("image", "text"):
        weights = checkpoint or source
        return load_clip(weights, source if published and checkpoint else None), None
    if published:
        return open_tower(source, checkpoint), None
    if part == "tower" and checkpoint is None:
        return open_tower(None, source), None
    path = Path(source)
    if checkpoint is None:
        if not (path.is_dir() or path.is_file() and path.suffix in _WEIGHTS):
            _refuse(source)
        checkpoint, source = source, str(config_of_run(path))
    config = load_config(source, options, tower=tower)
    predictor = load_predictor(config, checkpoint, device="cpu")
    detector = getattr(predictor, "detector", None)
    model = predictor.model if detector is None else detector.model
    metainfo = predictor.metainfo if detector is None else detector.metainfo
    return model.eval(), metainfo.get("classes")


def _refuse(source: str) -> NoReturn:
    """Say what a name without a checkpoint is."""
    if source.startswith("PE-"):
        raise ConfigError(f"there is no published model {source}, only {', '.join(PE_CONFIGS)}")
    if find_config(source).is_file():
        raise ConfigError(f"{source} is a config: name a checkpoint or a work dir after it")
    raise FileNotFoundError(f"{source} does not exist: name a config and a checkpoint, a work dir or a published model")

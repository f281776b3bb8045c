"""From a config to what draws its model's predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import signature
from pathlib import Path
from typing import Protocol

from mmengine.config import Config

from pe_dense.backbones.build import choose_device
from pe_dense.engine.config_check import check_config
from pe_dense.engine.preflight import check_weights
from pe_dense.engine.tta import drop_pretrained
from pe_dense.registry import INFERENCERS
from pe_dense.utils.errors import ConfigError, library_errors

# Of configs that name none.
DETECTION = dict(type="pe_dense.DetectionPredictor")


class Predictor(Protocol):
    """A trained model that draws on image files."""

    def predict_files(self, images: Sequence[Path], out_dir: Path, batch_size: int = 1) -> Iterator[Path]:
        """Write a picture, and the prediction as data, for each image; give the picture's path, in order."""


def load_predictor(config: Config, checkpoint: str, *, device: str | None = None, **options) -> Predictor:
    """Build what a config's ``inferencer`` names, a detector's by default, with a checkpoint's weights.

    Args:
        config: a whole config.
        checkpoint: path, work dir (its last checkpoint) or ``hf://`` name.
        device: 'cuda', 'cpu', ...; a GPU where there is one by default.
        options: of the inferencer.

    Raises:
        ConfigError: for a method that works on videos, or an option that the inferencer does not have.
        CheckpointError, FileNotFoundError: for files that are missing or do not fit.
    """
    if "train_dataloader" not in config:
        raise ConfigError(f"{config.filename} has nothing to draw on single images: run it by tools/test.py")
    check_config(config)
    choose_device(device)
    drop_pretrained(config.model)
    check_weights(config)
    inferencer = dict(config.get("inferencer") or DETECTION)
    known = signature(INFERENCERS.get(inferencer["type"])).parameters
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(f"{config.filename} is drawn by {inferencer['type']}, which has no {', '.join(unknown)}")
    with library_errors(f"{config.filename}: the model can't be built from these values"):
        return INFERENCERS.build(dict(inferencer, config=config, checkpoint=checkpoint, device=device, **options))

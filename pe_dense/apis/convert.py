"""Writing released detectors in this project's layout."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from pe_dense.detection.convert_detectron2 import classifier_outputs, has_layer_scale, is_detectron2
from pe_dense.detection.deta.convert import is_deta
from pe_dense.engine.runner import model_state, strip_wrappers
from pe_dense.utils import CheckpointError
from pe_dense.utils.checkpoint import write_checkpoint

_DATA = {1204: "lvis", 81: "coco"}  # by the outputs of a classifier: classes and background


def published_config(checkpoint, source: str) -> str:
    """Name of the config that a released detector belongs to.

    DETA there is one. Of the four Mask R-CNNs the classes tell the data, and LayerScale the tower: Spatial G has it.

    Args:
        checkpoint: what the file holds.
        source: how errors name the file.

    Raises:
        CheckpointError: for any other file.
    """
    state = strip_wrappers(checkpoint, source)
    if is_deta(state):
        return "coco_deta_pe_g14_1824.py"
    data = _DATA.get(classifier_outputs(state)) if is_detectron2(state) else None
    if data is None:
        raise CheckpointError(f"{source} is none of the released detectors: name the config of its model by --config")
    return f"{data}_maskrcnn_{'pe' if has_layer_scale(state) else 'pe_core'}_g14.py"


def convert_checkpoint(config: Config, checkpoint, source: str, destination: Path) -> int:
    """Map a checkpoint to a config's model and write it; nothing is computed, so it takes no memory but the file's.

    Args:
        config: of the model.
        checkpoint: what the file holds.
        source: how errors name the file.
        destination: a file that does not exist yet; it appears when it is complete.

    Returns:
        the number of tensors written.

    Raises:
        FileExistsError: if the destination exists.
        CheckpointError: if the file does not fit the model.
    """
    if destination.exists():
        raise FileExistsError(f"{destination} exists; choose another name")
    init_default_scope(config.get("default_scope", "mmdet"))
    with torch.device("meta"):
        model = MODELS.build(config.model)
    state = {key: value.contiguous() for key, value in model_state(model, checkpoint, source).items()}
    write_checkpoint(destination, dict(state_dict=state), overwrite=False)
    return len(state)

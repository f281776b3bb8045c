"""Convert released detectors to this project's checkpoint layout."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from pe_dense.detection.convert_detectron2 import classifier_outputs, has_layer_scale, is_detectron2
from pe_dense.detection.deta.convert import is_deta
from pe_dense.engine.runner import model_state
from pe_dense.utils import CheckpointError
from pe_dense.utils.checkpoint import write_checkpoint
from pe_dense.utils.state_dict import strip_wrappers

_DATA = {1204: "lvis", 81: "coco"}  # by the outputs of a classifier: classes and background


def published_config(checkpoint, source: str) -> str:
    """Find the config of a released detector.

    There is one released DETA. The four Mask R-CNNs are distinguished by the number of classes (data set) and by
    LayerScale (backbone), which Spatial G has and Core G does not.

    Args:
        checkpoint: content of the file.
        source: name of the file in error messages.

    Returns:
        the file name of the config.

    Raises:
        CheckpointError: if the file is not a released detector.
    """
    state = strip_wrappers(checkpoint, source)
    if is_deta(state):
        return "coco_deta_pe_g14_1824.py"
    data = _DATA.get(classifier_outputs(state)) if is_detectron2(state) else None
    if data is None:
        raise CheckpointError(
            f"{source} is not one of the released detectors: pass the config of its model by --config"
        )
    return f"{data}_maskrcnn_{'pe' if has_layer_scale(state) else 'pe_core'}_g14.py"


def convert_checkpoint(config: Config, checkpoint, source: str, destination: Path) -> int:
    """Map a checkpoint to the model of a config and write it atomically.

    The model is built on the meta device, so that no memory is needed beyond that of the checkpoint.

    Args:
        config: config of the model.
        checkpoint: content of the file.
        source: name of the file in error messages.
        destination: path of the file to write; it must not exist.

    Returns:
        the number of tensors written.

    Raises:
        FileExistsError: if the destination exists.
        CheckpointError: if the checkpoint does not match the model.
    """
    if destination.exists():
        raise FileExistsError(f"{destination} exists: choose another name")
    init_default_scope(config.get("default_scope", "mmdet"))
    with torch.device("meta"):
        model = MODELS.build(config.model)
    state = {key: value.contiguous() for key, value in model_state(model, checkpoint, source).items()}
    write_checkpoint(destination, dict(state_dict=state), overwrite=False)
    return len(state)

"""Conversion of released Mask R-CNN files."""

import pytest
import torch
from helpers.recordings import Recording, recordings
from helpers.released_maskrcnn import CONFIGS, build
from mmengine.config import Config

from pe_dense.apis import convert
from pe_dense.engine.runner import model_state
from pe_dense.utils import CheckpointError


@pytest.fixture(scope="module")
def golden():
    return Recording(recordings("maskrcnn_lvis*.npz")[0])


def test_every_key_is_accounted_for(golden):
    model = build(golden)
    state = golden.state
    state["roi_heads.box_head.fc2.weight"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match="1 unknown to the model: roi_head.bbox_head.shared_fcs.1.weight"):
        model_state(model, state, "file.pth")
    state = golden.state
    state["roi_heads.keypoint_head.weight"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match="file.pth is in Detectron2's layout, but 1 keys .*keypoint_head"):
        model_state(model, state, "file.pth")
    state = golden.state
    del state["proposal_generator.rpn_head.anchor_deltas.bias"]
    with pytest.raises(CheckpointError, match="1 missing in the file: rpn_head.rpn_reg.bias"):
        model_state(model, state, "file.pth")
    del state["backbone.net.ln_pre.bias"]
    with pytest.raises(CheckpointError, match="1 missing in the file: ln_pre.bias"):
        model_state(model, state, "file.pth")


def test_own_checkpoints_pass_unchanged(golden):
    model = build(golden)
    state = model.state_dict()
    assert model_state(model, dict(state_dict=state), "own.pth").keys() == state.keys()


def test_convert_checkpoint(golden, tmp_path, monkeypatch):
    model = build(golden)
    monkeypatch.setattr(convert.MODELS, "build", lambda _: model)
    released, destination = dict(model=golden.state), tmp_path / "out" / "mapped.pth"
    count = convert.convert_checkpoint(Config(dict(model={})), released, "released.pth", destination)
    written = torch.load(destination, weights_only=True)["state_dict"]
    assert len(written) == count == len(model.state_dict())
    assert all(torch.equal(written[key], value) for key, value in model.state_dict().items())
    with pytest.raises(FileExistsError, match="mapped.pth exists"):
        convert.convert_checkpoint(Config(dict(model={})), released, "released.pth", destination)


@pytest.mark.parametrize(("outputs", "data"), [(1204, "lvis"), (81, "coco")])
@pytest.mark.parametrize(("scale", "tower"), [(True, "pe"), (False, "pe_core")])
def test_config_of_a_released_file(golden, outputs, data, scale, tower):
    state = {key: value for key, value in golden.state.items() if scale or not key.endswith(".gamma")}
    state["roi_heads.box_predictor.cls_score.bias"] = torch.zeros(outputs)
    name = convert.published_config(dict(model=state, iteration=1), "released.pth")
    assert name == f"{data}_maskrcnn_{tower}_g14.py"
    assert (CONFIGS / name).exists()


def test_config_of_a_released_deta():
    golden = Recording(recordings("deta.npz")[0])
    name = convert.published_config(golden.state, "deta.pth")
    assert name == "coco_deta_pe_g14_1824.py"
    assert (CONFIGS / name).exists()


def test_config_of_another_file(golden):
    for state in (golden.state, {"weight": torch.zeros(1)}):  # 12 classes, no detector
        with pytest.raises(CheckpointError, match="own.pth is not one of the released detectors: pass .* --config"):
            convert.published_config(state, "own.pth")

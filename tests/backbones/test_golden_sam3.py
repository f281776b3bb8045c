"""SAM 3's tower and neck against recordings of its published code."""

import pytest
import torch
from helpers.recordings import Recording, by_recording
from mmdet.models.layers import SinePositionalEncoding

from pe_dense.backbones import PETower, get_pe_config, load_weights
from pe_dense.backbones.checkpoint import extract_backbone_state
from pe_dense.necks import SAM3Neck
from pe_dense.utils import CheckpointError
from pe_dense.utils.checkpoint import fetch_from_hub

TOLERANCE = dict(atol=2e-5, rtol=0)


def recorded_sam3(config):
    vit = config["vit"]
    return PETower(
        dict(
            base="PE-SAM3-L14-1008",
            patch_size=vit["patch_size"],
            width=vit["embed_dim"],
            layers=vit["depth"],
            heads=vit["num_heads"],
            mlp_ratio=vit["mlp_ratio"],
            image_size=vit["pretrain_img_size"],
            input_size=vit["img_size"],
            window_size=vit["window_size"],
            global_blocks=vit["global_att_blocks"],
            rope_reference_grid=vit["window_size"],
        ),
        out_indices=None,
    ).eval()


def published_file(golden, path):
    """Write a file as SAM 3's: the detector's parameters, a copy in the tracker, and complex rotary buffers."""
    state = {f"detector.backbone.vision_backbone.{name}": value for name, value in golden.state.items()}
    state |= {f"tracker.backbone.vision_backbone.{name}": torch.zeros_like(v) for name, v in golden.state.items()}
    state |= {
        name.replace(".convs.", ".sam2_convs."): value + 1
        for name, value in state.items()
        if ".convs." in name and name.startswith("detector.")
    }
    state["detector.backbone.vision_backbone.trunk.blocks.0.attn.freqs_cis"] = torch.zeros(2, dtype=torch.complex64)
    state["detector.transformer.decoder.norm.weight"] = torch.zeros(3)
    torch.save(dict(model=state), path)
    return path


@by_recording("tower_sam3*.npz")
@torch.no_grad()
def test_golden_sam3(path, tmp_path):
    golden = Recording(path)
    file = published_file(golden, tmp_path / "sam3.pt")
    tower = recorded_sam3(golden.config)
    load_weights(tower, file)
    neck = SAM3Neck(golden.config["vit"]["embed_dim"], golden.config["neck"])
    neck.load_pretrained(file)
    maps = tower(golden["image"])
    for index, features in enumerate(maps):
        torch.testing.assert_close(features.permute(0, 2, 3, 1), golden[f"block{index}"], **TOLERANCE)
    torch.testing.assert_close(maps[-1], golden["last"], **TOLERANCE)
    encoding = SinePositionalEncoding(golden.config["neck"] // 2, normalize=True)
    levels = neck(maps)
    assert len(levels) == 4
    for index, level in enumerate(levels):
        torch.testing.assert_close(level, golden[f"neck{index}"], **TOLERANCE)
        positions = encoding(torch.zeros(1, *level.shape[2:]))
        torch.testing.assert_close(positions, golden[f"position{index}"], **TOLERANCE)


@by_recording("tower_sam3*.npz")
def test_every_form_of_the_file_loads(path, tmp_path):
    golden = Recording(path)
    names = set(recorded_sam3(golden.config).state_dict())
    assert set(extract_backbone_state(golden.state)) == names
    tracker = SAM3Neck(golden.config["vit"]["embed_dim"], golden.config["neck"], tracker=True)
    tracker.load_pretrained(published_file(golden, tmp_path / "sam3.pt"))
    expected = golden.state["convs.1.dconv_2x2.weight"] + 1
    assert torch.equal(tracker.state_dict()["simfp_3.0.weight"], expected)
    with pytest.raises(CheckpointError, match="contains no neck of SAM 3"):
        tracker.load_pretrained("tower.pt", dict(recorded_sam3(golden.config).state_dict()))


def test_published_architecture():
    with torch.device("meta"):
        tower = PETower("PE-SAM3-L14-1008")
        neck = SAM3Neck()
    assert sum(p.numel() for p in tower.parameters()) == pytest.approx(446.2e6, abs=0.7e6)
    assert sum(p.numel() for m in (tower, neck) for p in m.parameters()) == pytest.approx(454.0e6, abs=0.7e6)
    assert tower.image_size == 1008 and tower.transformer.window_size == 24
    assert tower.positional_embedding.shape == (24 * 24, 1024)
    assert get_pe_config("PE-SAM3-L14-1008").mlp_width == 4736


def test_window_attention_of_the_arch_is_a_default():
    tiny = dict(base="PE-SAM3-L14-1008", width=32, heads=2, layers=2, global_blocks=(1,))
    assert PETower(tiny).transformer.window_size == 24
    assert PETower(tiny, window_size=4, global_blocks=(0,)).transformer.window_size == 4
    assert PETower(dict(tiny, window_size=None, global_blocks=())).transformer.window_size is None


def test_weights_are_found_in_the_repository_of_sam3(monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *names, **_: asked.append(names) or "/nothing")
    fetch_from_hub("hf://facebook/PE-SAM3-L14-1008")
    fetch_from_hub("hf://facebook/PE-Core-B16-224")
    assert asked == [("facebook/sam3", "sam3.pt"), ("facebook/PE-Core-B16-224", "PE-Core-B16-224.pt")]

"""Load and save weights in the published format."""

import pytest
import torch
from safetensors.torch import save_file

from pe_dense.backbones import PETower, load_tower, load_weights, save_weights
from pe_dense.utils import CheckpointError

TINY = dict(patch_size=14, width=32, layers=2, heads=2, mlp_ratio=2.0, image_size=56, use_cls_token=True, output_dim=8)
TEXT = {
    "token_embedding.weight": torch.zeros(4, 2),
    "positional_embedding": torch.zeros(3, 2),
    "logit_scale": torch.ones(()),
}


@pytest.fixture
def published():
    torch.manual_seed(0)
    return PETower(TINY).state_dict()


def write(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize("wrap", ["bare", "state_dict", "weights", "module", "visual", "detector", "safetensors"])
def test_every_published_layout_loads(tmp_path, published, wrap):
    layouts = {
        "bare": published,
        "state_dict": {"state_dict": published, "epoch": 3},
        "weights": {"weights": published},
        "module": {f"module.{k}": v for k, v in published.items()},
        "visual": {**{f"visual.{k}": v for k, v in published.items()}, **TEXT},
        "detector": {
            "state_dict": {"neck.conv.weight": torch.zeros(2), **{f"backbone.{k}": v for k, v in published.items()}}
        },
    }
    path = tmp_path / "tower.safetensors"
    save_file(published, path) if wrap == "safetensors" else write(path := tmp_path / "tower.pt", layouts[wrap])
    tower = PETower(TINY, init_cfg=dict(type="Pretrained", checkpoint=str(path)))
    with pytest.raises(RuntimeError, match="call init_weights"):
        tower(torch.zeros(1, 3, 56, 56))
    tower.init_weights()
    assert all(torch.equal(value, published[key]) for key, value in tower.state_dict().items())
    tower(torch.zeros(1, 3, 56, 56))


def test_detection_tower_takes_what_it_has(tmp_path, published):
    """The class token, its position and the head are ignored; rotary buffers of old files are not parameters."""
    published["transformer.resblocks.0.attn.rope.freqs_cos"] = torch.zeros(4, 8)
    path = write(tmp_path / "core.pt", published)
    tower = PETower(TINY, patch_size=16, grid_size=6, window_size=2)
    load_weights(tower, path)
    assert tower.conv1.weight.shape == (32, 3, 16, 16)
    assert tower.positional_embedding.shape == (36, 32)
    table = published["positional_embedding"][1:].view(4, 4, 32).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(table, size=(6, 6), mode="bicubic").flatten(2)[0].T
    torch.testing.assert_close(tower.positional_embedding.data, expected)
    same = PETower(TINY, window_size=2)
    load_weights(same, path)
    assert torch.equal(same.positional_embedding, published["positional_embedding"][1:])


def test_what_does_not_fit_is_named(tmp_path, published):
    published.pop("ln_pre.bias")
    published["extra.weight"] = torch.zeros(1)
    published["proj"] = torch.zeros(32, 9)
    path = write(tmp_path / "wrong.pt", published)
    with pytest.raises(CheckpointError) as error:
        load_weights(PETower(TINY), path)
    message = str(error.value)
    assert "wrong.pt" in message
    assert "1 missing in the file: ln_pre.bias" in message
    assert "1 unknown to the model: extra.weight" in message
    assert "1 of another shape: proj (32, 9) for (32, 8)" in message


def test_another_tower_is_refused(tmp_path, published):
    path = write(tmp_path / "shallow.pt", published)
    with pytest.raises(CheckpointError, match=r"does not fit PE-Spatial-T16-512"):
        with torch.device("meta"):
            tower = PETower("PE-Spatial-T16-512")
        load_weights(tower, path)


def test_no_tower_or_several(tmp_path, published):
    path = write(tmp_path / "resnet.pt", {"layer1.0.conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="resnet.pt contains no PE tower: .*fc.weight"):
        load_weights(PETower(TINY), path)
    both = {f"{name}.{k}": v for name in ("student", "teacher") for k, v in published.items()}
    with pytest.raises(CheckpointError, match=r"2 towers, under 'student\.', 'teacher\.'"):
        load_weights(PETower(TINY), write(tmp_path / "both.pt", both))


@pytest.mark.parametrize("name", ["tower.pt", "tower.pth", "tower.safetensors"])
def test_saving_round_trip(tmp_path, name):
    torch.manual_seed(1)
    tower = PETower(TINY)
    path = save_weights(tower, tmp_path / name)
    again = load_tower(TINY, path)
    assert not again.training
    image = torch.randn(1, 3, 56, 56)
    assert all(torch.equal(again.state_dict()[key], value) for key, value in tower.state_dict().items())
    # Kernels may sum in another order where weights are mapped to another alignment.
    torch.testing.assert_close(again.embed(image), tower.eval().embed(image), rtol=0, atol=1e-6)
    with pytest.raises(FileExistsError, match=name):
        save_weights(tower, path)
    save_weights(tower, path, overwrite=True)
    with pytest.raises(ValueError, match=r"\.pt, \.pth or \.safetensors"):
        save_weights(tower, tmp_path / "tower.bin")


def test_loaded_tower_trains(tmp_path):
    path = save_weights(PETower(TINY), tmp_path / "tower.pt")
    before = path.read_bytes()
    tower = load_tower(TINY, path, drop_path_rate=0.1).train()
    tower(torch.randn(2, 3, 56, 56))[0].square().mean().backward()
    torch.optim.SGD(tower.parameters(), lr=1.0).step()
    assert path.read_bytes() == before  # weights mapped from the file are copied on write


def test_load_tower_converts(tmp_path):
    path = save_weights(PETower(TINY).half(), tmp_path / "tower.pt")
    assert load_tower(TINY, path).conv1.weight.dtype == torch.float32
    assert load_tower(TINY, path, dtype=torch.bfloat16).conv1.weight.dtype == torch.bfloat16


def test_fields_have_no_published_weights():
    with pytest.raises(ValueError, match="no published weights"):
        load_tower(TINY)


@pytest.mark.parametrize("init_cfg", [dict(type="Normal"), dict(type="Pretrained", checkpoint="a.pt", prefix="b")])
def test_other_init_cfg_is_refused(init_cfg):
    with pytest.raises(ValueError, match="init_cfg must be"):
        PETower(TINY, init_cfg=init_cfg).init_weights()

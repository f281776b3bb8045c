"""tools/export_tower.py: a training run's tower in the published format."""

import shutil

import numpy as np
import pytest
import torch
from helpers.recordings import recordings
from helpers.tiny_alignment import STUDENT, make_aligner, photos, write_core
from helpers.tiny_clip import TEXT, VISION, tiny_clip
from helpers.tool_runs import run_tool
from safetensors import safe_open

from pe_dense.backbones import PETower, load_tower
from pe_dense.backbones.build import export_tower, fitting_names, fold_layer_scale
from pe_dense.language import export_clip, load_clip
from pe_dense.utils.package_weights import find_package_weights


@pytest.fixture
def run(tmp_path):
    """Return a student with changed weights, and its checkpoint as written by the runner."""
    model = make_aligner(write_core(tmp_path)).eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save(dict(state_dict=model.state_dict(), meta=dict(iter=3), optimizer={}), folder / "iter_3.pth")
    (folder / "last_checkpoint").write_text(str(folder / "iter_3.pth"))
    return model, folder


def test_the_file_gives_the_students_features(run, tmp_path):
    """Drop path and masking are disabled, and training-only parameters are removed."""
    model, folder = run
    out = tmp_path / "new" / "tower.safetensors"
    done = run_tool("export_tower", folder, out)
    assert done.returncode == 0, done.stderr
    assert f"Tower: {out}" in done.stdout
    images = photos()
    tower = load_tower(STUDENT, out)
    tokens = tower.forward_features(images * 2 - 1, strip_cls_token=True)
    assert (tokens - model.tokens(images)).abs().max() <= 1e-6
    assert tower.forward_features(images * 2 - 1).shape[1] == 17  # the class token is kept

    done = run_tool("export_tower", folder, out)
    assert done.returncode == 2 and "exists" in done.stderr and "--overwrite" in done.stderr
    export_tower(folder, out, overwrite=True)
    export_tower(folder / "iter_3.pth", tmp_path / "tower.pt")
    assert torch.equal(load_tower(STUDENT, tmp_path / "tower.pt").conv1.weight, tower.conv1.weight)


def test_names_are_the_published_ones(run, tmp_path):
    """They are those of a recorded Spatial tower with LayerScale, and of its class token."""
    export_tower(run[1], tmp_path / "tower.pt")
    ours = {_in_block_0(key) for key in torch.load(tmp_path / "tower.pt")}
    (path,) = recordings("tower_spatial_g_like.npz")
    published = {_in_block_0(name.removeprefix("state/")) for name in np.load(path).files if name.startswith("state/")}
    assert ours == published | {"class_embedding"}


def _in_block_0(key):
    parts = key.split(".")
    return ".".join("0" if part.isdigit() else part for part in parts)


def test_layer_scale_folds_away(run, tmp_path):
    model, folder = run
    export_tower(folder, tmp_path / "tower.pt", fold=True)
    images = photos()
    tower = load_tower(dict(STUDENT, ls_init_value=None), tmp_path / "tower.pt")
    tokens = tower.forward_features(images * 2 - 1, strip_cls_token=True)
    # rounding of one product more in each of eight branches
    assert (tokens - model.tokens(images)).abs().max() < 8 * 2**-23 * tokens.abs().max()
    with pytest.raises(ValueError, match="no LayerScale"):
        fold_layer_scale(tower.state_dict())


def test_published_towers_are_recognized():
    with torch.device("meta"):
        tower = PETower("PE-Spatial-T16-512")
        core = PETower("PE-Core-T16-384", with_head=False)
    assert fitting_names(tower.state_dict()) == ["PE-Spatial-T16-512"]
    assert fitting_names(core.state_dict()) == []


def test_not_a_run(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    done = run_tool("export_tower", tmp_path / "other.pt", tmp_path / "out.pt")
    assert done.returncode == 2 and "contains no PE tower" in done.stderr
    assert not (tmp_path / "out.pt").exists()


def test_both_towers_in_half_precision(tmp_path):
    """Of a run on captions: the file of `load_clip`, with texts in its header."""
    model = tiny_clip()
    config = f"model = dict(type='pe_dense.ContrastiveCLIP', backbone=dict(type='pe_dense.PETower', arch={VISION}), "
    state = {f"clip.{key}": value for key, value in model.state_dict().items()}
    torch.save(dict(state_dict=state, meta=dict(cfg=f"{config}text={TEXT})")), tmp_path / "run.pth")
    out = tmp_path / "both.safetensors"
    done = run_tool("export_tower", tmp_path / "run.pth", out, "--text", "--half", "--metadata", "license=Apache-2.0")
    assert done.returncode == 0, done.stderr
    with safe_open(out, "pt") as file:
        assert file.metadata() == {"license": "Apache-2.0"}
        written = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert written.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(written[key], value.half()), key
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        load_clip(out, VISION, TEXT).encode_image(images), model.encode_image(images), rtol=0, atol=2e-2
    )
    done = run_tool("export_tower", tmp_path / "run.pth", tmp_path / "both.pt", "--text", "--metadata", "a=b")
    assert done.returncode == 2 and "only .safetensors files have metadata" in done.stderr
    done = run_tool("export_tower", tmp_path / "run.pth", out, "--metadata", "license")
    assert done.returncode == 2 and "not of the form NAME=TEXT" in done.stderr


def test_names_of_both_towers(tmp_path):
    shutil.copy(find_package_weights("pe-mini://core"), tmp_path / "core.safetensors")
    assert export_clip(tmp_path / "core.safetensors", tmp_path / "again.pt") == ["PE-Mini-Core"]

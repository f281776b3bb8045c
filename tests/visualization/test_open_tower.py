"""Load towers from all kinds of checkpoints."""

import pytest
import torch
from helpers.tiny_towers import ARCH, tiny_tower
from mmengine.config import Config

from pe_dense.backbones import PETower
from pe_dense.backbones.build import open_tower, title_of, trained_backbone
from pe_dense.registry import MODELS
from pe_dense.utils import CheckpointError

WINDOWED = dict(type="pe_dense.PETower", arch=ARCH, window_size=2, global_blocks=(1,), pos_embed="tile")


def write_run(path, backbone, state, **more):
    """Write a checkpoint as the runner does, with the config text of MMEngine."""
    config = Config(dict(data_root="data/", model=dict(type="Anything", backbone=backbone, neck=dict(scales=[2, -1]))))
    torch.save(dict(state_dict=state, meta=dict(cfg=config.pretty_text, epoch=1), **more), path)
    return path


@pytest.fixture
def detector(tmp_path):
    tower = tiny_tower(**{key: value for key, value in WINDOWED.items() if key not in ("type", "arch")})
    state = {f"backbone.{key}": value for key, value in tower.state_dict().items()}
    backbone = dict(WINDOWED, init_cfg=dict(type="Pretrained", checkpoint="absent.pt"))
    return tower, write_run(tmp_path / "iter_1.pth", backbone, dict(state, **{"head.weight": torch.zeros(3)}))


def test_tower_of_a_run_is_detected(detector):
    tower, path = detector
    found = open_tower(None, path)
    assert isinstance(found, PETower)
    assert not found.training
    assert found.transformer.window_size == 2
    assert found.transformer.global_blocks == {1}
    images = torch.randn(1, 3, 16, 24)
    torch.testing.assert_close(found(images)[0], tower(images)[0])


def test_a_runs_folder(detector):
    (detector[1].parent / "last_checkpoint").write_text("elsewhere/iter_1.pth")
    assert open_tower(None, detector[1].parent).name == open_tower(None, detector[1]).name


def test_a_probe_does_not_choose_the_file_of_its_tower(tmp_path):
    tower = tiny_tower()
    torch.save(tower.state_dict(), tmp_path / "tower.pt")
    backbone = dict(
        type="pe_dense.FrozenTower",
        arch=ARCH,
        dtype="bfloat16",
        init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "tower.pt")),
    )
    frozen = MODELS.build(backbone)
    frozen.init_weights()
    state = {f"backbone.{key}": value for key, value in frozen.state_dict().items()}
    assert sum(value.numel() for value in state.values()) < 200  # no tower in it
    with pytest.raises(CheckpointError, match=r"frozen tower.*tower\.pt.*pass that file with --weights.*--arch"):
        open_tower(None, write_run(tmp_path / "probe.pth", backbone, state))


def test_a_probe_on_a_published_tower_takes_the_published_file(tmp_path, monkeypatch):
    tower = open_tower("PE-Spatial-T16-512", "random")
    torch.save(tower.state_dict(), tmp_path / "tower.pt")
    fetched = []
    monkeypatch.setattr(
        "pe_dense.utils.checkpoint.fetch_from_hub", lambda name: fetched.append(name) or str(tmp_path / "tower.pt")
    )
    name = "hf://facebook/PE-Spatial-T16-512"
    backbone = dict(
        type="pe_dense.FrozenTower",
        arch="PE-Spatial-T16-512",
        dtype="bfloat16",
        init_cfg=dict(type="Pretrained", checkpoint=name),
    )
    frozen = MODELS.build(backbone)
    frozen.init_weights()
    state = {f"backbone.{key}": value for key, value in frozen.state_dict().items()}
    found = open_tower(None, write_run(tmp_path / "probe.pth", backbone, state))
    assert torch.equal(found.conv1.weight, tower.conv1.weight)
    assert set(fetched) == {name}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    "change",
    [
        dict(_scope_="antigravity"),
        dict(init_cfg=dict(type="Pretrained", checkpoint="/etc/passwd"), type="pe_dense.FrozenTower"),
        dict(arch=dict(ARCH, layers=10**7)),
        dict(arch=dict(ARCH, width=200_000)),
        dict(arch=dict(ARCH, layers="3")),
        dict(arch=dict(ARCH, layers=-1)),
        dict(arch=dict(ARCH, checkpoint="/etc/passwd")),
        dict(arch="PE-Unknown"),
        dict(arch=None),
        dict(patch_size=10**9),
        dict(out_indices=list(range(5000))),
        dict(drop_path_rate=1e9),
        dict(init="x"),
        dict(global_blocks=(7,)),
    ],
    ids=str,
)
def test_the_text_of_a_checkpoint_is_not_a_config(tmp_path, detector, change):
    """Only known options with plain, bounded values are read from it."""
    state = torch.load(detector[1])["state_dict"]
    state = {"backbone.taps": torch.tensor([2])} if "type" in change else state
    path = write_run(tmp_path / "a.pth", dict(WINDOWED, **change), state)
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        open_tower(None, path)


@pytest.mark.parametrize(
    "nested", ["(" * 20_000 + ")" * 20_000, "-" * 20_000 + "1", "+".join("1" * 20_000), "9" * 20_000]
)
def test_absurd_text_ends_soon(nested):
    text = f"model = dict(backbone=dict(type='pe_dense.PETower', arch={nested}))"
    assert trained_backbone(dict(meta=dict(cfg=text))) is None
    assert trained_backbone(dict(meta=dict(cfg="a = 1\n" * 1_000_000))) is None


def test_random_towers_are_the_same_each_time():
    first = open_tower("PE-Spatial-T16-512", "random")
    torch.rand(1)
    state = torch.random.get_rng_state()
    again = open_tower("PE-Spatial-T16-512", "random")
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert torch.equal(state, torch.random.get_rng_state())


def test_published_files_need_their_name(tmp_path):
    tower = open_tower("PE-Spatial-T16-512", "random")
    torch.save(tower.state_dict(), tmp_path / "a.pt")
    assert torch.equal(open_tower("PE-Spatial-T16-512", tmp_path / "a.pt").conv1.weight, tower.conv1.weight)
    with pytest.raises(ValueError, match=r"a\.pt contains no config of its backbone: set --arch"):
        open_tower(None, tmp_path / "a.pt")


def test_contradictions(detector):
    with pytest.raises(ValueError, match="not PE-Spatial-B16-512: leave --arch out"):
        open_tower("PE-Spatial-B16-512", detector[1])
    with pytest.raises(ValueError, match="no backbone given"):
        open_tower(None)
    with pytest.raises(ValueError, match="no backbone given"):
        open_tower(None, "random")


def test_a_probe_without_its_part_is_refused(tmp_path):
    path = write_run(tmp_path / "a.pth", dict(type="pe_dense.FrozenTower", arch=ARCH), {"head.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"a\.pth has no backbone\.\* in its state_dict"):
        open_tower(None, path)


def test_titles_tell_where_weights_come_from():
    tower = PETower("PE-Spatial-T16-512")
    assert title_of(tower, None) == "PE-Spatial-T16-512"
    assert title_of(tower, "random") == "PE-Spatial-T16-512 (random)"
    assert title_of(tiny_tower(), "/data/work_dirs/demo/") == "3 blocks, 32 channels (work_dirs/demo)"


@pytest.mark.parametrize(
    "text",
    [
        "model = dict(backbone=dict(type='pe_dense.PETower', arch=__import__('os').system('touch {}')))",
        "model = dict(backbone=dict(type='pe_dense.PETower', arch=[open('{}', 'w') for _ in '1']))",
        "open('{}', 'w')\nmodel = dict(backbone=dict(type='pe_dense.PETower', arch='PE-Spatial-B16-512', **x))",
        "model = dict(backbone=dict(type='subprocess.run', args=['touch', '{}']))",
        "model = (",
    ],
)
def test_nothing_of_a_file_is_executed(tmp_path, text):
    path = tmp_path / "touched"
    assert trained_backbone(dict(meta=dict(cfg=text.format(path)))) is None
    assert not path.exists()


@pytest.mark.parametrize("checkpoint", [[], dict(), dict(meta=None), dict(meta=dict(cfg=3))])
def test_files_without_a_config(checkpoint):
    assert trained_backbone(checkpoint) is None

"""``--lora`` of tools/train.py: configs that it changes and refuses, and short runs."""

import pytest
import torch
from helpers.tiny_run import logged, write_config
from helpers.tool_runs import call_tool
from mmengine.config import Config
from mmengine.registry import MODELS

from pe_dense.backbones.build import export_tower, open_tower
from pe_dense.detection import load_detector
from pe_dense.engine.lora_option import use_lora
from pe_dense.engine.optimizers.layer_decay import parameter_groups
from pe_dense.export.source import open_model
from pe_dense.utils import read_checkpoint
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.lora_state import has_lora

DECAY = {
    "optim_wrapper.constructor": "pe_dense.LayerDecayOptimWrapperConstructor",
    "optim_wrapper.paramwise_cfg": dict(decay_rate=0.5),
    "default_hooks.checkpoint.interval": 1,
}


def train(config, folder, *options):
    done = call_tool("train", config, "--work-dir", folder, "--lora", 2, "--ema", 0.5, *options)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three steps with LoRA, layer-wise decay and EMA."""
    folder = tmp_path_factory.mktemp("lora")
    config = write_config(folder, max_iters=3, **DECAY)
    train(config, folder / "run")
    return folder, config


def test_the_number_of_trained_parameters_is_logged(run):
    folder, _ = run
    (log,) = (folder / "run").glob("*/*.log")
    (line,) = [line for line in log.read_text().splitlines() if "LoRA of rank 2" in line]
    assert "of its" in line and "with the other parts of the model" in line
    start, end = (read_checkpoint(folder / "run" / f"iter_{step}.pth")["state_dict"] for step in (1, 3))
    changed = {key for key in start if not torch.equal(start[key], end[key])}
    assert {key for key in changed if key.startswith("backbone.")} == {key for key in start if ".default." in key}
    assert any(key.startswith("roi_head.") for key in changed)


def test_learning_rates_decay_by_layer(run):
    config = Config.fromfile(run[1])
    use_lora(config, 2)
    groups = parameter_groups(config)
    lr = config.optim_wrapper.optimizer.lr
    assert [(group.layer, group.lr) for group in groups] == [(1, lr / 4), (2, lr / 2), (3, lr)]
    assert all(".lora_" in name for group in groups[:2] for name in group.names)
    assert not any(name.startswith("backbone.") for name in groups[2].names)


def test_a_resumed_run_equals_an_uninterrupted_one(run, tmp_path):
    folder, config = run
    train(config, tmp_path / "run", "--resume", folder / "run" / "iter_2.pth")
    whole, resumed = (read_checkpoint(path / "run" / "iter_3.pth") for path in (folder, tmp_path))
    for part in ("state_dict", "ema_state_dict"):
        assert whole[part].keys() == resumed[part].keys()
        assert all(torch.equal(whole[part][key], resumed[part][key]) for key in whole[part])
    assert logged(folder / "run", "loss")[3] == logged(tmp_path / "run", "loss")[3]

    done = call_tool("train", config, "--work-dir", tmp_path / "run", "--ema", 0.5, "--resume")
    assert done.returncode == 2 and "saved by a run with LoRA: to resume it, add --lora RANK" in done.stderr


def test_the_run_folder_is_enough(run, tmp_path):
    """Tests, predictions and exports merge the adapters, with the run's config and with the original one."""
    folder, config = run
    adapted = Config.fromfile(folder / "run" / config.name)
    assert adapted.model.backbone.lora == dict(rank=2)
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    maps = []
    for path in (folder / "run" / config.name, config):
        model = load_detector(str(path), folder / "run", device="cpu").model
        assert not has_lora(model.state_dict())
        maps.append(model.backbone(images)[0])
    model, _ = open_model(str(folder / "run"))
    maps.append(model.backbone(images)[0])
    maps.append(open_tower(None, folder / "run")(images)[0])

    adapted.model.backbone.init_cfg = None
    tower = MODELS.build(adapted.model.backbone).eval()
    state = read_checkpoint(folder / "run")["state_dict"]
    tower.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")})
    expected = tower(images)[0]
    assert all((x - expected).abs().max() < 1e-5 for x in maps)

    export_tower(folder / "run", tmp_path / "tower.safetensors")
    exported = read_checkpoint(tmp_path / "tower.safetensors")
    assert exported.keys() == {name for name, _ in open_tower(None, folder / "run").named_parameters()}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (dict(type="X"), "has no model.backbone, so there is nothing to adapt"),
        (dict(backbone=dict(type="pe_dense.FrozenTower", arch="PE-Mini-Core")), "frozen and only its heads train"),
        (dict(backbone=dict(type="pe_dense.PETower", arch="PE-Mini-Core", frozen=True)), "model.backbone.frozen=False"),
        (dict(backbone=dict(type="mmdet.ResNet", depth=50)), "is ResNet, not a vision transformer: add --tower NAME"),
    ],
)
def test_configs_without_a_trained_tower(model, message):
    with pytest.raises(ConfigError, match=message):
        use_lora(Config(dict(model=model)), 4)


def test_other_settings_stay():
    config = Config(dict(model=dict(backbone=dict(type="pe_dense.PETower", lora=dict(rank=2, alpha=3)))))
    use_lora(config, 8)
    assert config.model.backbone.lora == dict(rank=8, alpha=3)


def test_the_option_is_read_in_training_only(run):
    folder, config = run
    done = call_tool("test", config, folder / "run", "--cfg-options", "model.backbone.lora={'rank': 4}")
    assert done.returncode == 2 and "read by training only" in done.stderr

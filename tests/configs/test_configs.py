"""Every config parses, reloads when dumped, and builds (on the meta device, so of any size)."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(FOLDER.glob("*.py"))
SIZES = {"g14": 1536, "l14": 1024, "b16": 768, "s16": 384, "t16": 192}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config(path, tmp_path):
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    config.dump(tmp_path / "dumped.py")
    again = Config.fromfile(tmp_path / "dumped.py")
    assert again.model.to_dict() == config.model.to_dict()
    with torch.device("meta"):
        model = MODELS.build(again.model)
    size = path.stem.rpartition("_")[2]
    assert f"configs/{path.name}" in path.read_text(), "the docstring shows the command"
    if "_words_" in path.stem:
        assert size == "tiny" or (model.clip.visual.out_channels, model.clip.name) == (1024, config.tower)
        return
    if size in SIZES:
        assert model.backbone.out_channels == SIZES[size]
    if size in SIZES and path.stem.split("_")[1] not in ("align", "distill"):  # these start from other towers
        kind = "Core" if "_core_" in path.stem else "Spatial"
        assert f"PE-{kind}-{size.upper()}-" in config.model.backbone.arch
        both_towers = config.model.type == "pe_dense.ContrastiveCLIP"
        owner = config.model if both_towers else config.model.backbone
        assert owner.init_cfg.checkpoint == f"hf://facebook/{config.model.backbone.arch}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_schedule_ends_with_the_run(path):
    config = Config.fromfile(path)
    if "train_dataloader" not in config:
        pytest.skip("nothing is trained")
    schedulers, loop = config.param_scheduler, config.train_cfg
    schedulers = [schedulers] if isinstance(schedulers, dict) else schedulers
    by_epoch = "max_epochs" in loop  # in configs of mmdet, whose warm-up is in iterations
    ends = [scheduler.end for scheduler in schedulers if scheduler.get("by_epoch", False) == by_epoch]
    # A stage from which the next one continues stops halfway.
    length = 2 if path.stem == "shapes_clip_crops_pe_tiny" else 1
    assert max(ends) == length * (loop.max_epochs if by_epoch else loop.max_iters)


@pytest.mark.parametrize(
    ("name", "iterations", "milestones", "lr", "decay"),
    [
        # 75 of 100 epochs of 184,375 iterations; drops as in the published configs
        ("lvis_maskrcnn_pe_g14", 138_281, [122_916, 133_159], 5e-5, 0.9),
        ("coco_maskrcnn_pe_g14", 66_375, [59_000, 63_916], 5e-5, 0.9),
        ("lvis_maskrcnn_pe_l14", 184_375, [163_889, 177_546], 2e-4, 0.8),
        ("coco_maskrcnn_pe_l14", 184_375, [163_889, 177_546], 1e-4, 0.8),
    ],
)
def test_published_schedules(name, iterations, milestones, lr, decay):
    config = Config.fromfile(FOLDER / f"{name}.py")
    assert config.train_cfg.max_iters == iterations
    assert config.param_scheduler[1].milestones == milestones
    assert config.optim_wrapper.optimizer.lr == lr
    assert config.optim_wrapper.optimizer.weight_decay == 0.1
    assert config.optim_wrapper.paramwise_cfg.decay_rate == decay


@pytest.mark.parametrize(
    ("name", "warmup"),
    [
        ("coco_maskrcnn_pe_g14", 90),
        ("coco_maskrcnn_pe_core_g14", 187.5),
        ("lvis_maskrcnn_pe_core_g14", 187.5),
        ("lvis_maskrcnn_pe_frozen_g14", 37.5),
        ("coco_maskrcnn_pe_t16", 250),
    ],
)
def test_warmup_is_as_long_as_published(name, warmup):
    """The warm-up takes 250 of 184,375 iterations, fewer in shorter runs, as in Detectron2's WarmupParamScheduler."""
    config = Config.fromfile(FOLDER / f"{name}.py")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedulers = [PARAM_SCHEDULERS.build(dict(cfg, optimizer=optimizer)) for cfg in config.param_scheduler]
    for iteration in range(300):
        expected = 0.001 + 0.999 * min(iteration / warmup, 1.0)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(
            expected, abs=1e-9 if warmup == int(warmup) else 0.5 / warmup
        )
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_flagship_has_the_published_tower():
    """Windows, positions and depth of the LVIS recipe, and 1.85 B parameters in the tower."""
    config = Config.fromfile(FOLDER / "lvis_maskrcnn_pe_g14.py")
    init_default_scope("mmdet")
    with torch.device("meta"):
        model = MODELS.build(config.model)
    # 50 blocks of attention (4 C^2 + 4 C), MLP (2 C * 8960 + 8960 + C), two norms and two scales (6 C)
    block = 4 * 1536**2 + 4 * 1536 + 2 * 1536 * 8960 + 8960 + 1536 + 6 * 1536
    # patches resampled to 16 px, the table of 32 x 32 positions, ln_pre
    embedding = 3 * 16 * 16 * 1536 + 32 * 32 * 1536 + 2 * 1536
    assert sum(p.numel() for p in model.backbone.parameters()) == 50 * block + embedding
    assert round((50 * block + embedding) / 1e9, 2) == 1.85
    tower = config.model.backbone
    assert (tower.window_size, tower.global_blocks, tower.pos_embed) == (32, (12, 24, 36, 49), "tile")
    assert (tower.rope_reference_grid, tower.with_cp) == (32, True)
    rates = [block.drop_path.rate for block in model.backbone.transformer.resblocks]
    assert rates == pytest.approx([0.5 * i / 49 for i in range(50)])
    assert model.roi_head.bbox_head.fc_cls.out_features == 1204


def test_runner_type_is_ours():
    from pe_dense.engine.runner import Runner as Ours

    assert issubclass(Ours, Runner)
    assert all(Config.fromfile(path).runner_type == "pe_dense.Runner" for path in CONFIGS)


def test_configs_of_other_libraries():
    """They are adapted as by `--tower`, for one process and for several, with the data where all configs have it."""
    config = Config.fromfile(FOLDER / "ade20k_upernet_pe_l14.py")
    assert config.model.decode_head.type == "UPerHead" and config.model.backbone.type == "pe_dense.PETower"
    assert (config.model.decode_head.norm_cfg.type, config.sync_bn) == ("BN", "torch")
    assert config.train_dataloader.dataset.data_root == "data/ade20k"
    assert "work_dir" not in config

"""The linear probe in DINOv3's form: schedule, final norm, dropout, config."""

import math
from pathlib import Path

import pytest
import torch
from helpers.tiny_towers import ARCH

from pe_dense.backbones import FrozenTower
from pe_dense.depth import GammaBrightnessColor
from pe_dense.engine.config import load_config
from pe_dense.probing import DINOv3DepthLR, DINOv3ProbeLR
from pe_dense.registry import PARAM_SCHEDULERS
from pe_dense.segmentation import LinearHead

CONFIGS = Path(__file__).parents[2] / "configs"


def test_learning_rates_of_the_schedule():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = PARAM_SCHEDULERS.build(
        dict(type="pe_dense.DINOv3ProbeLR", warmup=4, end=10), default_args=dict(optimizer=optimizer)
    )
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    # Iterations 0 and 1 both use the start of the warm-up.
    warmup = [(1 - (1 - t / 4) * (1 - 1e-6)) * (1 - t / 10) for t in (0, 0, 1, 2, 3)]
    cosine = [0.5 * (1 + math.cos(math.pi * (t + 1) / 10)) for t in range(4, 9)]
    assert rates == pytest.approx([2 * factor for factor in [*warmup, *cosine]])
    with pytest.raises(ValueError, match="a warm-up of 10 does not fit into 10 iterations"):
        DINOv3ProbeLR(optimizer, warmup=10, end=10)


def test_schedule_of_depth_probes():
    """Learning rate and first beta of nine steps, recorded from the published WarmupOneCycleLR."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-4, betas=(0.9, 0.99))
    schedules = [
        PARAM_SCHEDULERS.build(dict(type=f"pe_dense.{kind}", warmup=3, end=9), default_args=dict(optimizer=optimizer))
        for kind in ("DINOv3DepthLR", "DINOv3DepthMomentum")
    ]
    rates, betas = [], []
    for _ in range(9):
        rates.append(optimizer.param_groups[0]["lr"])
        betas.append(optimizer.param_groups[0]["betas"])
        optimizer.step()
        for schedule in schedules:
            schedule.step()
    warmup = [3e-07, 9.728463103929542e-05, 1.769044443118978e-04]
    cosine = [1.7605218476e-04, 1.2395981524e-04, 7.5009e-05, 3.5103929799e-05, 9.0577450378e-06, 1.2e-08]
    assert rates == pytest.approx([*warmup, *cosine], rel=1e-9)
    first = [0, 0, 0, 0.85, 0.8566987298, 0.875, 0.9, 0.925, 0.9433012702]
    assert [beta[0] for beta in betas] == pytest.approx(first, rel=1e-9) and {beta[1] for beta in betas} == {0.99}
    with pytest.raises(ValueError, match="a warm-up of 9 does not fit into 9 iterations"):
        DINOv3DepthLR(optimizer, warmup=9, end=9)


@pytest.mark.parametrize("norm", [False, True])
def test_maps_after_the_final_norm(norm):
    arch = dict(ARCH, use_ln_post=True, use_cls_token=True)
    frozen = FrozenTower(arch, norm=norm)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        frozen.tower.ln_post.weight.mul_(3)
        (expected,) = frozen.tower.forward_intermediates(images, [-1], norm=norm)
    assert torch.equal(frozen(images)[0], expected)
    assert torch.equal(frozen.maps_and_class_tokens(images)[0][0], expected)


def test_dropout_of_whole_channels_in_training_only():
    head = LinearHead(width=64, num_taps=1, num_classes=3, dropout_ratio=0.5)
    seen = []
    head.norm.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    maps = torch.ones(2, 64, 4, 4)
    head.train()([maps])
    dropped = (seen[0] == 0).flatten(2)
    assert dropped.any() and not dropped.all() and (dropped.all(2) == dropped.any(2)).all()
    head.eval()([maps])
    assert torch.equal(seen[1], maps)


@pytest.mark.parametrize(("tower", "size"), [("PE-Spatial-G14-448", 448), ("PE-Core-B16-224", 512)])
def test_recipe(tower, size):
    config = load_config(CONFIGS / "ade20k_dinov3_linear_pe.py", dict(tower=tower))
    assert config.model.backbone.norm and config.model.backbone.dtype == "float32"
    assert config.model.backbone.arch == tower and tuple(config.model.data_preprocessor.size) == (size, size)
    assert tuple(config.model.test_cfg.crop_size) == (size, size) and config.model.decode_head.dropout_ratio == 0.1
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-3, 1e-3)
    assert config.train_cfg.max_iters == 40_000 and config.param_scheduler[0].end == 40_000
    assert "clip_grad" not in config.optim_wrapper and config.train_dataloader.batch_size == 16


def test_sweep_has_the_same_recipe():
    single, sweep = (load_config(CONFIGS / f"ade20k_dinov3_{kind}_pe.py") for kind in ("linear", "sweep"))
    assert sweep.model.type == "pe_dense.SegmentationSweep" and sweep.model.decode_head == single.model.decode_head
    assert sweep.param_scheduler == single.param_scheduler and sweep.model.backbone.norm


@pytest.mark.parametrize(
    ("name", "depth", "crop", "brightness", "evaluated"),
    [("nyu", 10.0, (416, 544), (0.75, 1.25), "nyu_crop"), ("kitti", 80.0, (352, 704), (0.9, 1.1), "garg_crop")],
)
def test_depth_recipe(name, depth, crop, brightness, evaluated):
    """config-nyu.yaml of DINOv3's code; for KITTI the defaults of that code."""
    config = load_config(CONFIGS / f"{name}_dinov3_linear_pe.py", dict(tower="PE-Core-B16-224"))
    backbone, head = config.model.backbone, config.model.decode_head
    assert (backbone.arch, backbone.norm, backbone.dtype) == ("PE-Core-B16-224", True, "float32")
    assert (head.min_depth, head.max_depth, head.upsampling) == (1e-3, depth, 1)
    assert head.loss == dict(type="pe_dense.SigLoss", group_size=2)
    assert config.model.test_cfg == dict(mode="whole", flip=True)
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 3e-4, 1e-4)
    assert optimizer.betas == (0.9, 0.99) and config.optim_wrapper.clip_grad == dict(max_norm=35, norm_type=2)
    assert (config.train_cfg.max_iters, config.train_dataloader.batch_size) == (38_400, 16)
    assert [(schedule.warmup, schedule.end) for schedule in config.param_scheduler] == [(12_800, 38_400)] * 2
    steps = {step.type.rpartition(".")[2]: step for step in config.train_dataloader.dataset.pipeline}
    assert list(steps)[3:] == ["RandomRotate", "RandomFlip", "RandomCrop", "GammaBrightnessColor", "PackSegInputs"]
    assert steps["RandomCrop"].crop_size == crop and (steps["RandomRotate"].degree, steps["RandomRotate"].prob) == (
        2.5,
        0.5,
    )
    color = GammaBrightnessColor(
        **{key: value for key, value in steps["GammaBrightnessColor"].items() if key != "type"}
    )
    assert (color.prob, color.unit, color.gamma, tuple(color.brightness)) == (0.5, 1.0, (0.9, 1.1), brightness)
    assert config.test_evaluator.crop_type == evaluated and config.test_evaluator.max_depth_eval == depth

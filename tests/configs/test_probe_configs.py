"""The configs of ADE20K and NYUv2 run for one step on generated images in their layouts, with random weights."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.depth_folders import write, write_kitti, write_nyu
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from mmseg.models.losses import SiLogLoss

from pe_dense.depth import DPTDepthHead
from pe_dense.engine import build_runner
from pe_dense.engine.config import load_config
from pe_dense.engine.inferencer import load_predictor
from pe_dense.utils.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
RNG = np.random.default_rng(0)


def write_ade20k(root):
    """Write images of several sizes with labels 0 (no class) to 150."""
    for split in ("training", "validation"):
        for index, (height, width) in enumerate([(70, 50), (40, 60)]):
            write(root / f"images/{split}/{index}.jpg", RNG.integers(0, 256, (height, width, 3), np.uint8))
            labels = np.repeat(RNG.integers(0, 151, (height, 1), np.uint8), width, axis=1)
            write(root / f"annotations/{split}/{index}.png", labels)


def small(name, root, **options):
    """Reduce a config to one step of two images with a tower of two blocks."""
    config = load_config(CONFIGS / f"{name}.py", {"data_root": str(root)} | options)
    config.model.backbone.update(
        arch=dict(base="PE-Spatial-T16-512", layers=2), dtype="float32", init_cfg=None, out_indices=[-1]
    )
    for split in ("train", "val", "test"):
        config[f"{split}_dataloader"].update(num_workers=0, persistent_workers=False)
    config.train_dataloader.batch_size = 2
    config.train_cfg.update(max_iters=1, val_interval=1)
    config.default_hooks.checkpoint.interval = 1
    config.experiment_name = config.visualizer.name = root.parent.name + name
    config.log_level = "WARNING"
    return config


def train(config, work_dir):
    runner = build_runner.training_runner(config, work_dir=str(work_dir), resume=None, amp=False, launcher="none")
    runner.train()
    return runner


def test_ade20k(tmp_path):
    root = tmp_path / "ade"
    write_ade20k(root)
    train(small("ade20k_linear_pe_t16", root, image_size=64), tmp_path / "run")
    options = dict(work_dir=str(tmp_path / "test"), launcher="none")
    plain, augmented = (
        build_runner.testing_runner(
            small("ade20k_linear_pe_t16", root, image_size=64), str(tmp_path / "run"), tta=tta, **options
        ).test()
        for tta in (False, True)
    )
    assert 0 <= plain["mIoU"] < 20
    assert plain.keys() == augmented.keys()
    assert plain != augmented


def test_nyu_dpt(tmp_path):
    """A step and a test with DINOv2's head, which gets the class token of the tower."""
    root = tmp_path / "nyu"
    write_nyu(root)
    config = small("nyu_dpt_pe_t16", root, **{"model.decode_head.channels": 16})
    assert config.model.test_cfg.flip
    train(config, tmp_path / "run")
    (best,) = (tmp_path / "run").glob("best_rmse_*.pth")
    state = torch.load(best, weights_only=False)["state_dict"]
    assert any("readout_projects" in key for key in state)
    assert state["decode_head.loss_decode.steps"] == 1


def test_nyu_dpt_with_the_head_of_mmseg(tmp_path):
    config = small("nyu_dpt_pe_t16", tmp_path / "nyu", **{"model.decode_head.type": "pe_dense.DPTDepthHead"})
    model = MODELS.build(config.model)
    assert isinstance(model.decode_head, DPTDepthHead) and isinstance(model.decode_head.loss_decode, SiLogLoss)


def test_nyu_dpt_recipe():
    """DINOv2's: two images on each of 8 GPUs, a third of 38,400 steps for the warm-up, cosine, gradient norm 35."""
    config = load_config(CONFIGS / "nyu_dpt_pe_g14.py")
    assert (config.train_dataloader.batch_size, config.train_cfg.max_iters) == (2, 38_400)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedulers = [PARAM_SCHEDULERS.build(dict(cfg, optimizer=optimizer)) for cfg in config.param_scheduler]
    for step in range(38_400):
        if step % 3200 == 0:
            expected = (1 + math.cos(math.pi * step / 38_400)) / 2 * (0.001 + 0.999 * min(step / 12_800, 1))
            assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-4)
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    assert (config.optim_wrapper.optimizer.lr, config.optim_wrapper.optimizer.weight_decay) == (1e-4, 0.01)
    assert config.optim_wrapper.clip_grad == dict(max_norm=35, norm_type=2)
    steps = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    assert steps["pe_dense.CropBox"].box == (43, 45, 608, 472)
    assert (steps["RandomRotate"].prob, steps["RandomRotate"].degree) == (0.5, 2.5)
    assert steps["RandomCrop"].crop_size == (416, 544)
    assert (steps["pe_dense.GammaBrightnessColor"].prob, steps["RandomFlip"].prob) == (0.5, 0.5)
    assert "pe_dense.CropBox" not in [step.type for step in config.test_dataloader.dataset.pipeline]
    # Eigen's mask, [45:471, 41:601] of 480 x 640; depth up to 10 m; the average with the flipped image.
    for evaluator in (config.val_evaluator, config.test_evaluator):
        assert (evaluator.crop_type, evaluator.min_depth_eval, evaluator.max_depth_eval) == ("nyu_crop", 1e-3, 10.0)
    assert config.model.test_cfg == dict(mode="whole", flip=True)
    assert (config.model.decode_head.min_depth, config.model.decode_head.max_depth) == (1e-3, 10.0)


def test_nyu(tmp_path):
    root = tmp_path / "nyu"
    write_nyu(root)
    train(small("nyu_linear_pe_t16", root), tmp_path / "run")
    (best,) = (tmp_path / "run").glob("best_rmse_iter_1.pth")
    found = build_runner.testing_runner(
        small("nyu_linear_pe_t16", root), str(best), work_dir=str(tmp_path / "test"), launcher="none"
    ).test()
    # Depths spread evenly over 0..9 m: any constant near the middle is off by 9 / sqrt(12) m.
    assert found["rmse"] == pytest.approx(9 / 12**0.5, abs=0.4)
    predictor = load_predictor(small("nyu_linear_pe_t16", root), str(best), device="cpu")
    seen = []
    predictor.model.backbone.tower.conv1.register_forward_hook(lambda module, given, out: seen.append(given[0].shape))
    write(tmp_path / "photo.jpg", RNG.integers(0, 256, (900, 1000, 3), np.uint8))
    list(predictor.predict_files([tmp_path / "photo.jpg"], tmp_path / "drawn"))
    # a short side of 480 px as in NYU's pictures, the long one of 533 filled up to whole patches
    assert seen == [(1, 3, 480, 544)]
    assert cv2.imread(str(tmp_path / "drawn/photo_depth.png"), cv2.IMREAD_UNCHANGED).shape == (900, 1000)


def test_dinov3_depth(tmp_path):
    """Untrained heads predict the middle of the range, 5 and 40 m; only the middle of the images is evaluated."""
    nyu, kitti = np.full((480, 640), 9.0), np.full((375, 1242), 70.0)
    nyu[45:471, 41:601], kitti[23:][143:349, 13:][:, 43:1172] = 7.0, 30.0
    for name, write_data, depth, error in (("nyu", write_nyu, nyu, 2.0), ("kitti", write_kitti, kitti, 10.0)):
        root = tmp_path / name
        write_data(root, depth)
        runner = train(small(f"{name}_dinov3_linear_pe", root, tower="PE-Spatial-T16-512"), tmp_path / f"run_{name}")
        assert runner.message_hub.get_scalar("val/rmse").current() == pytest.approx(error, rel=0.1)


def test_a_sweep_has_no_augmented_test(tmp_path):
    config = load_config(CONFIGS / "ade20k_sweep_pe.py")
    with pytest.raises(ConfigError, match="ade20k_sweep_pe.py has no test-time augmentation: it lacks tta_model"):
        build_runner.testing_runner(config, "sweep.pth", work_dir=str(tmp_path), launcher="none", tta=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ade20k_linear_pe_g14", r"ADE20k .*\(train\) not found: .*/images/training does not exist .*ADEChallenge"),
        ("nyu_dpt_pe_g14", r"NYU depth v2 .*\(train\) not found: .*/images/train does not exist"),
        (
            "kitti_dinov3_linear_pe",
            r"KITTI .*\(train\) not found: .*/kitti_eigen_train\.txt does not exist.*_annotated/",
        ),
    ],
)
def test_missing_data(tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        train(load_config(CONFIGS / f"{name}.py", {"data_root": str(tmp_path)}), tmp_path / "run")


def test_a_head_with_other_classes_than_the_data(tmp_path):
    root = tmp_path / "ade"
    write_ade20k(root)
    config = small("ade20k_linear_pe_t16", root, image_size=64)
    config.model.decode_head.num_classes = 151
    with pytest.raises(ConfigError, match="has 151 classes, the train data set 150"):
        train(config, tmp_path / "run")

"""What DETA's configs come to: the published stages, sizes everywhere, options."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from pe_dense.engine.config import load_config
from pe_dense.engine.optimizers.layer_decay import parameter_groups
from pe_dense.engine.tta import use_test_time_augmentation

FOLDER = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("name", "size", "iterations", "drop", "lr", "batch", "drop_path", "start"),
    [
        # 1,742,289 images // 256 a step = 6805 iterations an epoch; 12 epochs, drop after 10
        ("objects365_deta_pe_g14_1024", 1024, 81_660, 68_050, 2e-4, 256, 0.5, None),
        # // 128 = 13,611; 6 epochs, drop after 4
        ("objects365_deta_pe_g14_1536", 1536, 81_666, 54_444, 5e-5, 128, 0.5, "objects365_deta_pe_g14_1024"),
        # 118,287 // 64 = 1848; 12 epochs, drop after 10
        ("coco_deta_pe_g14_1728", 1728, 22_176, 18_480, 5e-5, 64, 0.4, "objects365_deta_pe_g14_1536"),
        ("coco_deta_pe_g14_1824", 1824, 5_544, 3_696, 5e-5, 64, 0.0, "coco_deta_pe_g14_1728"),
    ],
)
def test_published_stages(name, size, iterations, drop, lr, batch, drop_path, start):
    config = Config.fromfile(FOLDER / f"{name}.py")
    model, coco = config.model, name.startswith("coco")
    assert config.image_size == model.data_preprocessor.pad_size_divisor == model.backbone.img_size == size
    assert config.train_dataloader.dataset.pipeline[3] == dict(type="pe_dense.DETAJitter", image_size=size)
    for loader in (config.val_dataloader, config.test_dataloader):
        assert tuple(loader.dataset.pipeline[1].scale) == (size, size)
    assert config.train_cfg.max_iters == config.param_scheduler[0].end == iterations
    assert config.param_scheduler[0].milestones == [drop]
    assert config.optim_wrapper.optimizer == (
        dict(type="SGD", lr=5e-5, momentum=0.9, weight_decay=1e-4)
        if size == 1824
        else dict(type="AdamW", lr=lr, weight_decay=1e-4)
    )
    assert config.optim_wrapper.clip_grad.max_norm == 0.1
    assert config.optim_wrapper.paramwise_cfg.decay_rate == 0.9
    assert config.auto_scale_lr.base_batch_size == batch
    assert model.backbone.drop_path_rate == drop_path
    assert model.bbox_head.num_classes == (80 if coco else 365)
    assert model.get("tower_dtype") == ("bfloat16" if coco else None)
    assert (model.backbone.window_size, model.backbone.grid_size, model.backbone.rope_reference_grid) == (24, 24, 16)
    assert config.train_dataloader.dataset.filter_cfg.filter_empty_gt is False
    assert "with_mask" not in config.train_dataloader.dataset.pipeline[1]
    assert config.val_evaluator.metric == "bbox"
    assert dict(type="pe_dense.ClassCheckHook") in config.custom_hooks
    if start is None:
        assert model.backbone.init_cfg.checkpoint == "hf://facebook/PE-Spatial-G14-448"
    else:
        assert model.backbone.init_cfg is None
        assert model.init_cfg.checkpoint == f"work_dirs/{start}"
        assert model.init_cfg.get("keep_classifier", True) == (size != 1728)


def test_the_1824_px_model():
    """On the meta device: 114 x 114 patches, the tower's 1.85 B parameters and the rest's 28.6 M."""
    config = Config.fromfile(FOLDER / "coco_deta_pe_g14_1824.py")
    init_default_scope("mmdet")
    with torch.device("meta"):
        model = MODELS.build(config.model)
        maps = model.neck([torch.empty(1, 1536, 114, 114)])
    assert [tuple(x.shape[1:]) for x in maps] == [(256, side, side) for side in (228, 114, 57, 29, 15)]
    tower = sum(p.numel() for p in model.backbone.parameters())
    rest = sum(p.numel() for p in model.parameters()) - tower
    assert round(tower / 1e9, 2) == 1.85
    assert round(rest / 1e6, 1) == 28.6
    assert all(p.is_meta for p in model.parameters())
    assert len(model.encoder.layers) == len(model.decoder.layers) == 6
    assert len(model.bbox_head.cls_branches) == 7 and model.bbox_head.cls_branches[0].out_features == 80


def test_image_size_reaches_every_place():
    config = load_config(FOLDER / "coco_deta_pe_b16.py", dict(image_size=768))
    assert config.model.data_preprocessor.pad_size_divisor == config.model.backbone.img_size == 768
    assert config.train_dataloader.dataset.pipeline[3].image_size == 768
    assert tuple(config.test_dataloader.dataset.pipeline[1].scale) == (768, 768)


@pytest.mark.parametrize("decay", [0.7, 1.0])
def test_learning_rates(decay):
    """The tower's fall with depth, or not; attention's offsets learn at a tenth."""
    options = {"optim_wrapper.paramwise_cfg.decay_rate": decay}
    groups = parameter_groups(load_config(FOLDER / "coco_deta_pe_b16.py", options))
    rates = {name: group.lr for group in groups for name in group.names}
    assert rates["backbone.conv1.weight"] == pytest.approx(2e-4 * decay**13)
    assert rates["neck.fpn1.0.weight"] == rates["level_embed"] == 2e-4
    assert rates["encoder.layers.5.self_attn.sampling_offsets.bias"] == pytest.approx(2e-5)
    assert rates["decoder.layers.0.cross_attn.attention_weights.weight"] == 2e-4


def test_augmented_test():
    config = Config.fromfile(FOLDER / "coco_deta_pe_g14_1824_tta.py")
    resizes, flips, _ = config.test_dataloader.dataset.pipeline[1].transforms
    assert {resize.scale for resize in resizes} == {(1824, 1824)}
    assert [int(1824 * resize.ratio_range[0]) for resize in resizes] == [1824, 1728, 1536, 1344]
    assert config.model.min_sides == (0, 0, 64, 64)
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    assert config.model.nms == dict(type="soft_nms", iou_threshold=0.7)
    assert config.model.num_queries == 2000
    flagged = use_test_time_augmentation(Config.fromfile(FOLDER / "coco_deta_pe_g14_1824.py"))
    assert flagged.model == config.model
    assert flagged.test_dataloader == config.test_dataloader


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*_deta_*.py")), ids=lambda path: path.stem)
def test_every_size_of_the_views_has_its_limit(path):
    config = Config.fromfile(path)
    sizes = {(view.scale, view.ratio_range) for view in config.tta_pipeline[1].transforms[0]}
    assert len(config.tta_model.min_sides) == len(sizes)


@pytest.mark.parametrize(
    ("name", "size"),
    [("coco_deta_pe_g14_1728", 1728), ("objects365_deta_pe_g14_1536", 1536), ("coco_deta_pe_t16", 1024)],
)
def test_views_start_from_the_image_size(name, size):
    views = Config.fromfile(FOLDER / f"{name}.py").tta_pipeline[1].transforms[0]
    assert {view.scale for view in views} == {(size, size)}

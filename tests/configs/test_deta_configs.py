"""The DETA configs have the published stages, sizes and options."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from PIL import Image

from pe_dense.datasets import Objects365Dataset
from pe_dense.detection.custom_dataset import use_data
from pe_dense.detection.inferencer import Detector
from pe_dense.engine.config import load_config
from pe_dense.engine.inferencer import use_test_time_augmentation
from pe_dense.engine.optimizers.layer_decay import parameter_groups
from pe_dense.engine.preflight import check_files, check_images
from pe_dense.utils.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "configs"
LOAD = dict(type="pe_dense.LoadImage", ignore_orientation=True)


@pytest.mark.parametrize(
    ("name", "size", "iterations", "drop", "lr", "batch", "drop_path", "start"),
    [
        # 1,742,289 images / 256 a step = 6806 iterations an epoch, rounded up; 12 epochs, drop after 10
        ("objects365_deta_pe_g14_1024", 1024, 81_672, 68_060, 2e-4, 256, 0.5, None),
        # / 128 = 13,612; 6 epochs, drop after 4
        ("objects365_deta_pe_g14_1536", 1536, 81_672, 54_448, 5e-5, 128, 0.5, "objects365_deta_pe_g14_1024"),
        # 118,287 / 64 = 1849; 12 epochs, drop after 10
        ("coco_deta_pe_g14_1728", 1728, 22_188, 18_490, 5e-5, 64, 0.4, "objects365_deta_pe_g14_1536"),
        ("coco_deta_pe_g14_1824", 1824, 5_547, 3_698, 5e-5, 64, 0.0, "coco_deta_pe_g14_1728"),
    ],
)
def test_published_stages(name, size, iterations, drop, lr, batch, drop_path, start):
    config = Config.fromfile(FOLDER / f"{name}.py")
    model, coco = config.model, name.startswith("coco")
    assert config.image_size == model.data_preprocessor.pad_size_divisor == model.backbone.img_size == size
    # ImageNet's 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225, for pixels of 0..255 in the order RGB
    assert model.data_preprocessor.mean == pytest.approx([123.675, 116.28, 103.53])
    assert model.data_preprocessor.std == pytest.approx([58.395, 57.12, 57.375])
    assert model.data_preprocessor.bgr_to_rgb is True
    assert config.train_dataloader.dataset.pipeline[3] == dict(type="pe_dense.DETAJitter", image_size=size)
    for loader in (config.val_dataloader, config.test_dataloader):
        assert loader.dataset.pipeline[1] == dict(type="pe_dense.DETAResize", image_size=size)
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert loader.dataset.pipeline[0] == config.tta_pipeline[0] == LOAD
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
    assert model.get("test_tower_dtype") is None
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
        assert model.init_cfg.keep_classifier == (size == 1824)


def test_classifiers_of_stage_1_can_be_kept():
    config = load_config(FOLDER / "objects365_deta_pe_g14_1536.py", {"model.init_cfg.keep_classifier": True})
    assert config.model.init_cfg.keep_classifier is True


def test_the_1824_px_model():
    """The model has 114 x 114 patches, 1.85 B parameters in the tower and 28.6 M in the rest."""
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
    assert config.test_dataloader.dataset.pipeline[1].image_size == config.tta_pipeline[1].image_size == 768
    assert [view.image_size for view in config.tta_pipeline[2].transforms[0]] == [768] * 4


@pytest.mark.parametrize("decay", [0.7, 1.0])
def test_learning_rates(decay):
    """Learning rates of the tower decrease with depth if configured; those of attention offsets are a tenth."""
    options = {"optim_wrapper.paramwise_cfg.decay_rate": decay}
    groups = parameter_groups(load_config(FOLDER / "coco_deta_pe_b16.py", options))
    rates = {name: group.lr for group in groups for name in group.names}
    assert rates["backbone.conv1.weight"] == pytest.approx(2e-4 * decay**13)
    assert rates["neck.fpn1.0.weight"] == rates["level_embed"] == 2e-4
    assert rates["encoder.layers.5.self_attn.sampling_offsets.bias"] == pytest.approx(2e-5)
    assert rates["decoder.layers.0.cross_attn.attention_weights.weight"] == 2e-4


def views(config):
    """Return the nominal longer sides of the views and, for each, the minimum area of a box as the side of a square."""
    sides = [round(view.image_size * view.ratio) for view in config.tta_pipeline[2].transforms[0]]
    assert config.tta_pipeline[1] == dict(type="pe_dense.DETAResize", image_size=config.image_size)
    sides[0] -= 32  # the first view is the resized image itself
    return dict(zip(sides, config.tta_model.min_sides, strict=True))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("coco_deta_pe_g14_1824", {1792: 0, 1728: 0, 1536: 64, 1344: 64}),
        ("coco_deta_pe_g14_1728", {1696: 0, 1536: 32, 1152: 32}),
        # not published: those of 1824 px in proportion
        ("objects365_deta_pe_g14_1536", {1504: 0, 1455: 0, 1293: 64, 1132: 64}),
        ("objects365_deta_pe_g14_1024", {992: 0, 970: 0, 862: 64, 755: 64}),
        ("coco_deta_pe_t16", {992: 0, 970: 0, 862: 64, 755: 64}),
    ],
)
def test_views(name, expected):
    assert views(Config.fromfile(FOLDER / f"{name}.py")) == expected


def test_augmented_test():
    config = Config.fromfile(FOLDER / "coco_deta_pe_g14_1824_tta.py")
    _, flips, _ = config.test_dataloader.dataset.pipeline[2].transforms
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    assert config.model.nms == dict(type="soft_nms", iou_threshold=0.7, min_score=0.001, quad_scale=0.5)
    assert (config.model.num_queries, config.model.pre_nms, config.model.get("max_per_img")) == (2000, 2000, None)
    flagged = use_test_time_augmentation(Config.fromfile(FOLDER / "coco_deta_pe_g14_1824.py"))
    assert flagged.model == config.model
    assert flagged.test_dataloader == config.test_dataloader


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*_deta_*.py")), ids=lambda path: path.stem)
def test_every_size_of_the_views_has_its_limit(path):
    config = Config.fromfile(path)
    transforms = next(step.transforms for step in config.tta_pipeline if step.type == "TestTimeAug")
    assert len(config.tta_model.min_sides) == len(transforms[0])


@pytest.mark.parametrize("names", [["train_fixmiss"], ["train"], ["train_fixmiss", "train"], []])
def test_objects365_annotations_have_either_name(tmp_path, names):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").mkdir()
    config = load_config(FOLDER / "objects365_deta_pe_g14_1024.py", dict(data_root=str(tmp_path)))
    dataset = config.train_dataloader.dataset
    categories = [dict(id=i, name=name) for i, name in enumerate(Objects365Dataset.METAINFO["classes"], 1)]
    for name in names:
        image = dict(id=1, file_name=f"images/v2/patch1/{name}.jpg", width=9, height=9)
        box = dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 4, 4], area=16, iscrowd=0)
        content = dict(images=[image], annotations=[box], categories=categories)
        (tmp_path / "annotations" / f"zhiyuan_objv2_{name}.json").write_text(json.dumps(content))
    if not names:
        with pytest.raises(ConfigError, match="annotations/zhiyuan_objv2_train_fixmiss.json does not exist"):
            check_files(config, ("train",))
        return
    check_files(config, ("train",))
    built = DATASETS.build(dict(dataset, pipeline=[]))
    assert [item["img_path"] for item in built] == [str(tmp_path / "train" / "patch1" / f"{names[0]}.jpg")]


@pytest.mark.parametrize(("image_size", "fits"), [((30, 20), True), ((20, 30), False)])
def test_exif_orientation_is_ignored(tmp_path, image_size, fits):
    """As in the published data set, an image stored as 30 x 20 px is annotated as stored, even if viewers rotate it."""
    folder = write_coco_folder(tmp_path, size=image_size)
    config = load_config(FOLDER / "coco_deta_pe_t16.py")
    use_data(config, folder)
    dataset = DATASETS.build(config.val_dataloader.dataset)
    if not fits:
        with pytest.raises(ConfigError, match="is 30 x 20 pixels, but .* says 20 x 30"):
            check_images(dataset)
        return
    check_images(dataset)
    data = dataset[0]
    assert data["data_samples"].ori_shape == (20, 30)
    assert data["inputs"].shape[2] > data["inputs"].shape[1]
    # A detector reads files as the config's tests do, and draws on the same pixels.
    detector = Detector(torch.nn.Identity(), config.test_dataloader.dataset.pipeline, dict(classes=("a",)))
    prepared, pixels = detector.prepare(str(folder / "val" / "1.jpg"))
    assert prepared["data_samples"].ori_shape == pixels.shape[:2] == (20, 30)


def write_coco_folder(root, size):
    """Write a COCO folder with one image of 30 x 20 px with an EXIF rotation, annotated with ``size``."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (root / "annotations").mkdir()
    box = dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 8, 8], area=64, iscrowd=0)
    for split in ("train", "val"):
        (root / split).mkdir()
        Image.new("RGB", (30, 20)).save(root / split / "1.jpg", exif=exif)
        image = dict(id=1, file_name="1.jpg", width=size[0], height=size[1])
        content = dict(images=[image], annotations=[box], categories=[dict(id=1, name="a")])
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return root

"""Configs of mmdet and mmseg on a plain ViT."""

import json

import numpy as np
import pytest
import torch
from helpers.annotated_folder import write_folder
from helpers.custom_runs import shrink
from helpers.tool_runs import run_tool
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from pe_dense.detection.custom_dataset import use_data
from pe_dense.engine import build_runner
from pe_dense.engine.config import load_config
from pe_dense.engine.feature_levels import Level, measure
from pe_dense.engine.inferencer import load_predictor
from pe_dense.engine.optimizers.layer_decay import parameter_groups
from pe_dense.engine.tower_option import use_tower
from pe_dense.utils.errors import ConfigError, UserError

B16 = "PE-Spatial-B16-512"
RETINANET = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"
MASK2FORMER = "mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco"
TINY = dict(
    type="pe_dense.PETower",
    arch=dict(
        patch_size=16, width=32, layers=2, heads=2, mlp_ratio=2.0, image_size=64, use_ln_post=False, pool_type="none"
    ),
    pad_to_patch=True,
)


def test_detector():
    """Strides and channels of the FPN; windows, rates and weights of the published detectors."""
    config = load_config(RETINANET, tower="PE-Spatial-L14-448")
    assert config.model.neck == dict(
        type="pe_dense.SimpleFeaturePyramid",
        in_channels=1024,
        out_channels=256,
        scales=[2.0, 1.0, 0.5, 0.25, 0.125],
        stride=16,
        top_level=False,
        smooth=True,
    )
    backbone = config.model.backbone
    assert (backbone.arch, backbone.patch_size, backbone.window_size) == ("PE-Spatial-L14-448", 16, 32)
    assert (backbone.global_blocks, backbone.drop_path_rate, backbone.pos_embed) == ((5, 11, 17, 23), 0.4, "tile")
    assert backbone.init_cfg == dict(type="Pretrained", checkpoint="hf://facebook/PE-Spatial-L14-448")
    preprocessor = config.model.data_preprocessor
    assert (preprocessor.mean, preprocessor.std, preprocessor.bgr_to_rgb) == ([127.5] * 3, [127.5] * 3, True)
    assert preprocessor.pad_size_divisor == 32
    wrapper = config.optim_wrapper
    assert (wrapper.optimizer.type, wrapper.optimizer.lr, wrapper.paramwise_cfg) == ("AdamW", 1e-4, {"decay_rate": 0.8})
    assert config.runner_type == "pe_dense.Runner"
    assert config.work_dir == "work_dirs/retinanet_r50_fpn_1x_coco_PE-Spatial-L14-448"
    groups = parameter_groups(config)
    assert groups[-1].lr == 1e-4 and groups[0].lr == pytest.approx(1e-4 * 0.8**25)


def test_two_stage_detector_has_the_pyramid_of_the_published_ones():
    published = load_config("coco_maskrcnn_pe_g14.py").model
    model = load_config("mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco", tower="PE-Spatial-G14-448").model
    init_default_scope("mmdet")
    with torch.device("meta"):
        necks = [MODELS.build(part.neck) for part in (published, model)]
    assert str(necks[0]) == str(necks[1]) and necks[0].top_level == necks[1].top_level
    expected = {key: value for key, value in published.backbone.items() if key not in ("with_cp", "init_cfg")}
    assert {key: model.backbone[key] for key in expected} == expected


def test_segmentation_model():
    """Crops and padding in multiples of 32 px; levels of the removed backbone, without convolutions of their own."""
    config = load_config("mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-769x769", tower=B16)
    neck = config.model.neck
    assert (neck.out_channels, neck.scales) == ([256, 512, 1024, 2048], [4.0, 2.0, 1.0, 0.5])
    assert (neck.smooth, neck.top_level) == (False, False)
    preprocessor = config.model.data_preprocessor
    assert (tuple(preprocessor["size"]), preprocessor.test_cfg) == ((800, 800), dict(size_divisor=32))
    assert tuple(config.model.test_cfg.crop_size) == (800, 800)
    assert "window_size" not in config.model.backbone
    assert "SyncBN" not in str(config.model) and not config.model.get("pretrained")
    assert config.inferencer.type == "pe_dense.SegmentationPredictor"
    assert load_config(f"{MASK2FORMER}-panoptic", tower=B16).inferencer.type == "pe_dense.PanopticPredictor"
    assert "inferencer" not in load_config(MASK2FORMER, tower=B16)


def test_only_levels_in_use_are_made():
    config = load_config("mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024", tower=B16)
    assert (config.model.neck.out_channels, config.model.neck.scales) == ([1024, 2048], [2.0, 2.0])
    assert (config.model.decode_head.in_index, config.model.auxiliary_head.in_index) == (1, 0)
    config = load_config("mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024", tower=B16)
    assert config.model.neck.out_channels == [256, 1024, 2048]  # the first one is read beside `in_index`
    config = load_config("mmseg::encnet/encnet_r50-d8_4xb2-40k_cityscapes-512x1024", tower=B16)
    assert (config.model.neck.out_channels, config.model.decode_head.in_channels) == ([1024, 2048], [2048])
    config = load_config("mmseg::cgnet/cgnet_fcn_4xb4-60k_cityscapes-680x680", tower=B16)
    assert (config.model.neck.out_channels, config.model.neck.scales) == (256, [2.0])  # those of strides 2 and 4 not
    config = load_config("mmdet::nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco", tower=B16)
    pyramid, kept = config.model.neck
    assert pyramid.out_channels == kept.in_channels == [512, 1024, 2048] and kept.start_level == 0


def test_maps_of_several_blocks_for_heads_of_plain_vits():
    config = load_config("mmseg::setr/setr_vit-l_pup_8xb1-80k_cityscapes-768x768", tower=B16)
    assert config.model.backbone.out_indices == (2, 5, 8, 11)
    assert (config.model.neck.in_index, config.model.neck.scales) == ([0, 1, 2, 3], [1.0] * 4)


def test_timm_model_of_other_patches():
    config = load_config("mmdet::dino/dino-4scale_r50_8xb2-12e_coco", tower="timm/vit_small_patch14_dinov2")
    backbone = config.model.backbone
    assert (backbone.type, backbone.name, backbone.model_args) == (
        "pe_dense.TimmTower",
        "vit_small_patch14_dinov2",
        dict(patch_size=16),
    )
    assert config.model.data_preprocessor.mean[0] == pytest.approx(123.675)
    assert config.find_unused_parameters
    # The optimizer was AdamW before: its rate and weight decay stay.
    assert (config.optim_wrapper.optimizer.lr, config.optim_wrapper.optimizer.weight_decay) == (1e-4, 1e-4)


def test_learning_rates_of_large_batches_are_lowered():
    config = load_config("mmdet::rtmdet/rtmdet_s_8xb32-300e_coco", tower=B16)
    cosine = next(item for item in config.param_scheduler if "eta_min" in item)
    assert config.optim_wrapper.optimizer.lr == 2e-4 and cosine.eta_min == pytest.approx(0.05 * 2e-4)
    assert "window_size" not in config.model.backbone  # images of 640 px


def test_kept_parts():
    config = load_config(RETINANET, tower=B16, keep_optimizer=True)
    assert config.optim_wrapper.optimizer.type == "SGD" and "constructor" not in config.optim_wrapper
    config = load_config("mmdet::rtmdet/rtmdet_s_8xb32-300e_coco", tower=B16, distributed=True)
    assert config.model.bbox_head.norm_cfg.type == "SyncBN"


def test_options_change_the_adapted_config():
    config = load_config(RETINANET, {"model.backbone.with_cp": True, "model.neck.smooth": False}, tower=B16)
    assert config.model.backbone.with_cp and not config.model.neck.smooth


def test_own_configs_take_it_as_the_option():
    config = load_config("ade20k_linear_pe_g14", tower="PE-Core-B16-224")
    assert config.model.backbone.arch == config.tower == "PE-Core-B16-224"
    with pytest.raises(ConfigError, match="coco_maskrcnn_pe_l14.py has the settings of its own tower"):
        load_config("coco_maskrcnn_pe_l14", tower=B16)


@pytest.mark.parametrize("tower", [B16, "timm/test_vit"])
def test_the_tower_of_a_run_is_accepted(tmp_path, tower):
    """Its config has the tower already, so that the option of the training can be repeated."""
    for name in (RETINANET, "ade20k_linear_pe_g14"):
        run = tmp_path / "run.py"
        trained = load_config(name, tower=tower)
        trained.dump(run)
        assert load_config(run, tower=tower).model == trained.model
    load_config(RETINANET, tower=tower).dump(run)
    with pytest.raises(ConfigError, match="run.py has the settings of its own tower"):
        load_config(run, tower="PE-Core-B16-224")


@pytest.mark.parametrize(
    ("name", "tower", "message"),
    [
        ("mmdet::lad/lad_r50-paa-r101_fpn_2xb8_coco_1x", B16, r"LAD distills .*\(model.teacher_backbone\)"),
        ("mmdet::qdtrack/qdtrack_faster-rcnn_r50_fpn_4e_base", B16, r"QDTrack wraps a whole .*\(model.detector\)"),
        ("mmdet::tridentnet/tridentnet_r50-caffe_1x_coco", B16, "the method is its backbone TridentResNet"),
        ("mmdet::detectors/cascade-rcnn_r50-rfp_1x_coco", B16, "neck RFP feeds back into the backbone"),
        ("mmdet::misc/d2_faster-rcnn_r50-caffe_fpn_ms-90k_coco", B16, "Detectron2Wrapper wraps a whole detector"),
        ("mmseg::dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512", B16, "VisionTransformer returns more than feature maps"),
        (
            "mmseg::unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024",
            B16,
            "UNet returns maps of strides 2, 1",
        ),
        ("mmdet::_base_/default_runtime", B16, "has no model"),
        (RETINANET, "PE-Spatial-L14-44", "Did you mean PE-Spatial-L14-448"),
        (RETINANET, "timm/resnet50", "not a plain vision transformer"),
        (
            "mmdet::retinanet/retinanet_r50_fpn_1x_cocos",
            B16,
            "did you mean .*mmdet::retinanet/retinanet_r50_fpn_1x_coco",
        ),
        ("mmpose::a/b", B16, "before '::' must be mmdet or mmseg, got 'mmpose'"),
    ],
)
def test_clear_errors(name, tower, message):
    with pytest.raises(UserError, match=message):
        load_config(name, tower=tower)


def test_options_that_exclude_each_other():
    with pytest.raises(ConfigError, match="both replace the backbone"):
        load_config(RETINANET, {"tower": B16}, tower=B16)
    with pytest.raises(ConfigError, match="add --tower NAME"):
        load_config("coco_maskrcnn_pe_l14", keep_optimizer=True)


def test_measuring_leaves_no_trace():
    config = load_config(RETINANET)
    before, state = config.to_dict(), torch.get_rng_state()
    assert measure(config, config.model.backbone) == [
        Level(4, 256),
        Level(8, 512),
        Level(16, 1024),
        Level(32, 2048),
    ]
    assert config.to_dict() == before and torch.equal(torch.get_rng_state(), state)


def test_mask_transformer_on_own_data(tmp_path):
    """Numbers of classes and class weights follow the data; methods with maps are refused."""
    data = write_folder(tmp_path / "parts", ("cog", "bolt", "nut"))
    config = load_config(MASK2FORMER, tower=B16)
    use_data(config, data)
    head = config.model.panoptic_head
    assert (head.num_things_classes, head.loss_cls.class_weight) == (3, [1.0, 1.0, 1.0, 0.1])
    assert config.model.panoptic_fusion_head.num_things_classes == 3
    assert config.train_dataloader.dataset.metainfo.classes == ("cog", "bolt", "nut")
    with pytest.raises(ConfigError, match="trains on segmentation maps in addition to objects"):
        use_data(load_config("mmdet::htc/htc_r50_fpn_1x_coco"), data)


def test_detector_runs(tmp_path):
    """Train and validate on a folder of one's own, test and predict with the config of the work dir."""
    data = write_folder(tmp_path / "parts", ("cog", "bolt"))
    config = load_config(RETINANET)
    use_tower(config, TINY)
    use_data(config, data)
    shrink(config).work_dir = str(tmp_path / "run")
    config.train_cfg.val_interval = 1
    runner = build_runner.training_runner(config, work_dir=None, resume=None, amp=False, launcher="none")
    before = runner.model.backbone.conv1.weight.clone()
    runner.train()
    assert not torch.equal(before, runner.model.backbone.conv1.weight)
    adapted = load_config(tmp_path / "run" / "retinanet_r50_fpn_1x_coco.py")
    assert adapted.model.backbone.type == "pe_dense.PETower" and adapted.model.bbox_head.num_classes == 2
    adapted.model.test_cfg.score_thr = 0.0
    predictor = load_predictor(adapted, str(tmp_path / "run"), device="cpu")
    list(predictor.predict_files([data / "pictures/val_0.png"], tmp_path / "out"))
    found = json.loads((tmp_path / "out" / "val_0.json").read_text())["objects"]
    assert found and {item["category"] for item in found} <= {"cog", "bolt"}


def ade20k_folder(root):
    """Two training and two validation images with label maps of two classes, in ADE20K's layout."""
    rng = np.random.default_rng(0)
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)).save(root / f"images/{split}/{number}.jpg")
            labels = rng.integers(1, 3, (64, 96)).astype(np.uint8)
            Image.fromarray(labels).save(root / f"annotations/{split}/{number}.png")
    return root


def test_segmentation_runs(tmp_path):
    """Train, resume, test with augmentation, and predict."""
    root = ade20k_folder(tmp_path / "ade")
    name = "mmseg::segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512"

    def config_of_run():
        config = load_config(name, dict(data_root=str(root)))
        use_tower(config, TINY)
        shrink(config).work_dir = str(tmp_path / "run")
        config.model.data_preprocessor["size"] = (64, 64)
        return config

    options = dict(work_dir=None, amp=False, launcher="none")
    build_runner.training_runner(config_of_run(), resume=None, **options).train()
    config = config_of_run()
    config.train_cfg.max_iters = 2
    runner = build_runner.training_runner(config, resume="auto", **options)
    runner.train()
    assert runner.iter == 2 and (tmp_path / "run" / "iter_2.pth").exists()
    # The config in the work dir is the adapted one: it needs no option.
    adapted = tmp_path / "run" / "segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512.py"
    config = load_config(adapted)
    assert config.model.backbone.type == "pe_dense.PETower" and config.model.neck.scales == [1.0]
    found = build_runner.testing_runner(
        config, str(tmp_path / "run"), work_dir=str(tmp_path / "test"), launcher="none", tta=True
    )
    assert 0 <= found.test()["mIoU"] <= 100
    predictor = load_predictor(load_config(adapted), str(tmp_path / "run"), device="cpu")
    list(predictor.predict_files([root / "images/validation/0.jpg"], tmp_path / "out"))
    assert np.array(Image.open(tmp_path / "out" / "0_labels.png")).shape == (64, 96)


def test_tools_take_the_option():
    done = run_tool("train", RETINANET, "--tower", "timm/test_vit", "--show-parameter-groups")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "neck: FPN -> SimpleFeaturePyramid (strides 8, 16, 32, 64, 128; channels 256)" in done.stdout + done.stderr
    assert "backbone.model.blocks.0" in done.stdout

"""Check options and dicts of a config before a model is built."""

import re
from pathlib import Path

import pytest

from pe_dense.engine.arguments import OptionText
from pe_dense.engine.config import load_config
from pe_dense.engine.config_check import check_config
from pe_dense.utils.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
SHAPES = CONFIGS / "shapes_maskrcnn_pe_tiny.py"
FIELDS = CONFIGS / "shapes_align_pe_tiny.py"  # its tower's arch is not a name, but fields


def with_option(option, config=SHAPES):
    name, _, text = option.partition("=")
    return load_config(config, {name: OptionText(text)})


def value_at(config, name):
    for part in name.split("."):
        config = config[int(part)] if isinstance(config, list | tuple) else config[part]
    return config


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_config_names_what_exists(path):
    check_config(load_config(path))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("data_root=My Data", "My Data"),
        ("data_root=007", "007"),
        ("data_root=2024_01", "2024_01"),
        ("data_root=1e5", "1e5"),
        ("data_root=a,b", "a,b"),
        ("data_root=[x]", "[x]"),
        ("data_root=(1)", "(1)"),
        ("data_root=True", "True"),
        ("train_dataloader.dataset.data_root=0815", "0815"),
        ("train_dataloader.dataset.data_prefix.img=1,2", "1,2"),
        ("model.backbone.init_cfg.checkpoint=a [1], (2).pth", "a [1], (2).pth"),
        ("load_from=007", "007"),
        ("experiment_name=1e5", "1e5"),
        ("load_from=None", None),
        ("image_size=256", 256),
        ("train_cfg.max_iters=12", 12),
        ("optim_wrapper.optimizer.lr=1e-5", 1e-5),
        ("model.backbone.out_indices=[1,2]", [1, 2]),
        ("model.backbone.out_indices=1, 2", [1, 2]),
        ("model.backbone.with_cp=true", True),
        ("model.backbone.init_cfg=None", None),
        ("val_evaluator.metric=[bbox, segm]", ["bbox", "segm"]),
        ("val_evaluator.metric=bbox", ["bbox"]),
        ("custom_hooks.0.priority=LOW", "LOW"),
        ("model.backbone.arch=PE-Core-T16-384", "PE-Core-T16-384"),
        ("sync_bn=torch", "torch"),
        ("find_unused_parameters=False", False),
        ("compile=True", True),
        ("compile.backend=eager", "eager"),
        ("activation_checkpointing=[backbone]", ["backbone"]),
        ("efficient_conv_bn_eval=[backbone]", ["backbone"]),
        ("model_wrapper_cfg.broadcast_buffers=False", False),
        ("default_hooks.checkpoint.save_best=auto", "auto"),
        ("optim_wrapper.accumulative_counts=2", 2),
        ("train_dataloader.pin_memory=True", True),
    ],
)
def test_values(option, value):
    name = option.partition("=")[0]
    found = value_at(with_option(option), name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.test_cfg.rcnn.score_thresh=0.5", "has no 'score_thresh'; did you mean score_thr"),
        ("model.test_cfg.rcnn.max_per_image=300", "has no 'max_per_image'; did you mean max_per_img"),
        ("model.test_cfg.rcnn.nms.iou_thr=0.9", "has no 'iou_thr'; .*it has .*iou_threshold"),
        ("model.train_cfg.rcnn.sampler.nums=64", r"\(RandomSampler\) has no 'nums'; did you mean num"),
        ("env_cfg.cudnn_benchmarks=True", "has no 'cudnn_benchmarks'; did you mean cudnn_benchmark"),
        ("randomness.sed=1", "has no 'sed'; did you mean seed"),
        ("train_dataloader.batchsize=4", "has no 'batchsize'; did you mean batch_size"),
        ("train_cfg.max_iter=2", r"\(IterBasedTrainLoop\) has no 'max_iter'; did you mean max_iters"),
        ("model.backbone.with_cpp=True", r"\(pe_dense.PETower\) has no 'with_cpp'; did you mean with_cp"),
        ("model.roi_head.bbox_head.num_class=3", "has no 'num_class'; did you mean num_classes"),
        ("optim_wrapper.optimizer.learning_rate=1e-4", r"\(AdamW\) has no 'learning_rate'; it has .*lr"),
        (
            "optim_wrapper.optimizer.type=Adamm",
            "'Adamm' is not among the registered optimizer classes; did you mean Adam",
        ),
        ("model.neck.type=.", "model.neck.type '.' is not the name of a class"),
        ("model.type=MaskRCNNN", "'MaskRCNNN' is not among the registered model classes"),
        ("default_hooks.checkpoint.max_keep_ckpt=1", "has no 'max_keep_ckpt'; did you mean max_keep_ckpts"),
        ("train_dataloader.dataset.pipeline.2.probability=1", "has no 'probability'"),
        ("val_evaluator.metrics=bbox", "has no 'metrics'; did you mean metric"),
        ("train_cfg.val_interval=0", "val_interval=0: must be at least 1"),
        ("train_cfg.max_iters=-5", "max_iters=-5: must be at least 1"),
        ("train_cfg.max_iters=1.5", "max_iters=1.5: must be int"),
        ("train_cfg.max_iters=many", "max_iters='many': must be int"),
        ("train_cfg.max_iters=nan", "must be int"),
        ("model.backbone.window_size=0", "window_size=0: must be from 1"),
        ("model.backbone.with_cp=5", "with_cp=5: must be bool"),
        ("model.backbone.with_cp=yes", "with_cp='yes': must be bool"),
        ("model.backbone.drop_path_rate=nan", "must be a finite number"),
        ("model.backbone.arch.layers=10000000", "layers=10000000: must be from 1 to 1000"),
        ("model.backbone.arch.mlp_ratio=None", "mlp_ratio=None: must be float"),
        ("model.backbone.arch.depth=3", r"\(PEConfig\) has no 'depth'; "),
        ("model.roi_head.bbox_head.num_shared_convs=2000000000", "must be from 0 to 1000"),
        ("optim_wrapper.optimizer.lr=-1", "lr=-1: must be at least 0"),
        ("optim_wrapper.optimizer.lr=inf", "must be a finite number"),
        ("optim_wrapper.optimizer.lr=fast", "lr='fast': must be"),
        ("train_dataloader.batch_size=0", "batch_size=0: must be from 1"),
        ("train_dataloader.batch_size=[1]", "must be"),
        ("train_dataloader.num_workers=-1", "num_workers=-1: must be from 0"),
        ("train_dataloader.dataset.pipeline.9.prob=0", r"pipeline has no '9'; it has 0\.\."),
        ("log_level=LOUD", "must be one of NOTSET, DEBUG, INFO"),
        ("env_cfg.mp_cfg.mp_start_method=thread", "must be one of fork, spawn, forkserver"),
        ("image_size=large", "image_size='large': must be a whole number of pixels"),
        ("image_size=0", "image_size=0: must be from 1"),
        ("image_size=1000000", "must be from 1 to 16384"),
        ("data_root=", "data_root=.*must be a name"),
        ("model.backbone.out_indices=[1,2", r"brackets of \[1,2 do not match"),
        ("model.backbone.out_indices=[1,2)", r"brackets of \[1,2\) do not match"),
        ("model.backbone.out_indices=[a]", "must be|its items"),
        ("model.backbone.out_indices=" + "[" * 5000 + "]" * 5000, "nested more than 20 deep"),
        ("custom_hooks.x=1", "custom_hooks has no 'x'"),
        ("model=5", "model=5: must be"),
        ("model.backbone=None.5", "model.backbone='None.5': must be"),
        ("work_dirs=x", "unknown top-level key 'work_dirs'.*did you mean work_dir"),
        ("strategy.type=DDPStrategy", "unknown top-level key|no 'strategy'"),
    ],
)
def test_refused(option, message):
    with pytest.raises(ConfigError, match=message) as raised:
        with_option(option, FIELDS if ".arch." in option else SHAPES)
    assert "\n" not in str(raised.value)
    name = option.partition("=")[0]
    assert name in str(raised.value) or name.rpartition(".")[0] in str(raised.value)


def test_tower_of_a_probe():
    with pytest.raises(ValueError, match=r"Unknown tower 'PE-Foo'\. Known towers: PE-Core"):
        with_option("tower=PE-Foo", CONFIGS / "ade20k_linear_pe_b16.py")


@pytest.mark.parametrize("tower", [None, "timm/vit_tiny_patch16_224"])
def test_options_of_a_frozen_tower_are_those_of_its_backbone(tower):
    linear = CONFIGS / "ade20k_linear_pe_b16.py"
    options = {"tower": OptionText(tower)} if tower else {}
    load_config(linear, {**options, "model.backbone.frozen": OptionText("True")})
    with pytest.raises(ConfigError, match=r"model.backbone .*has no 'grid_sizes'"):
        load_config(linear, {**options, "model.backbone.grid_sizes": OptionText("3")})


def test_a_users_own_config(tmp_path):
    config = load_config(SHAPES)
    config.model.rpn_head.num_conv = 2
    with pytest.raises(
        ConfigError, match=r"rpn_head \((pe_dense\.)?RPNHead\) has no 'num_conv'; did you mean num_convs"
    ):
        check_config(config)
    config = load_config(SHAPES)
    config.env_cfg.mp_cfg.start = "fork"
    with pytest.raises(ConfigError, match=r"env_cfg\.mp_cfg has no 'start'"):
        check_config(config)
    config = load_config(SHAPES)
    config.runner_type = "Runer"
    with pytest.raises(ConfigError, match="runner_type 'Runer' is not registered"):
        check_config(config)


def test_flexible_runner_has_a_strategy(tmp_path):
    text = "runner_type = 'FlexibleRunner'\nstrategy = dict(type='DDPStrategy')\nmodel = dict()\n"
    (tmp_path / "flexible.py").write_text(text)
    assert with_option("strategy.type=SingleDeviceStrategy", tmp_path / "flexible.py").strategy.type.startswith(
        "Single"
    )


def test_classes_with_options_of_their_bases():
    """`**kwargs` are followed to the base that takes them, and are open where a class uses them itself."""
    frozen = CONFIGS / "shapes_depth_linear_pe_tiny.py"
    assert with_option("model.backbone.with_cp=True", frozen).model.backbone.with_cp is True
    with pytest.raises(ConfigError, match=re.escape("(pe_dense.MaskRCNN) has no 'neckk'")):
        with_option("model.neckk=1")

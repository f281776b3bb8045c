"""Load configs and apply options."""

import argparse
import inspect
import re
import sys
from pathlib import Path

import pytest
from mmengine.config import ConfigDict
from mmengine.runner import Runner
from mmengine.runner._flexible_runner import FlexibleRunner

from pe_dense.backbones import FrozenTower
from pe_dense.engine.arguments import OptionText, number, text, whole_number
from pe_dense.engine.build_runner import work_dir_of
from pe_dense.engine.config import load_config
from pe_dense.engine.config_check import FLEXIBLE_KEYS, OWN_KEYS, RUNNER_ARGUMENTS, RUNNER_READS
from pe_dense.engine.inferencer import drop_pretrained
from pe_dense.engine.preflight import check_read
from pe_dense.utils.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


def text_of(config):
    return str(config.to_dict())


def test_data_root_reaches_every_path():
    config = load_config(CONFIGS / "lvis_maskrcnn_pe_g14.py", dict(data_root="/big/lvis/"))
    assert "data/lvis" not in text_of(config)
    assert config.train_dataloader.dataset.data_root == "/big/lvis"
    assert config.val_evaluator.ann_file == "/big/lvis/annotations/lvis_v1_val.json"
    assert config.model.roi_head.bbox_head.loss_cls.ann_file == "/big/lvis/annotations/lvis_v1_train.json"


def test_image_size_reaches_tower_padding_and_pipelines():
    config = load_config(CONFIGS / "coco_maskrcnn_pe_t16.py", dict(image_size=512))
    assert config.model.backbone.img_size == 512
    assert config.model.data_preprocessor.pad_size_divisor == 512
    resize, crop = config.train_dataloader.dataset.pipeline[3:5]
    assert tuple(resize.scale) == tuple(crop.crop_size) == (512, 512)
    assert tuple(config.test_dataloader.dataset.pipeline[1].scale) == (512, 512)
    assert config.model.neck.out_channels == 256
    assert config.model.roi_head.bbox_head.fc_out_channels == 1024  # only the sizes of images change
    assert "1024, 1024" not in text_of(config)


def test_single_values_change_on_top():
    options = {"image_size": 512, "model.backbone.img_size": 640, "train_dataloader.dataset.pipeline.2.prob": 0.0}
    config = load_config(CONFIGS / "coco_maskrcnn_pe_t16.py", options)
    assert config.model.backbone.img_size == 640
    assert config.model.data_preprocessor.pad_size_divisor == 512
    assert config.train_dataloader.dataset.pipeline[2].prob == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modle.backbone.with_cp": True}, "the config has no 'modle'; it has .*model"),
        ({"model.backbon.with_cp": True}, "model has no 'backbon'; it has .*backbone"),
        ({"train_dataloader.dataset.pipeline.9.prob": 0}, r"pipeline has no '9'; it has 0\.\.6"),
        (
            {"max_iters": 90},
            r"unknown top-level key 'max_iters'; .* set param_scheduler.*train_cfg\.max_iters",
        ),
        ({"norm_cfg.eps": 1e-5}, "unknown top-level key"),
        ({"randomnes": 3}, "unknown top-level key"),
    ],
)
def test_misspelt_option(options, message):
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIGS / "coco_maskrcnn_pe_t16.py", options)


def test_top_level_keys_are_those_that_a_run_reads():
    """They are arguments of MMEngine's runner, other keys that it reads, and keys of this project."""
    assert set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"} == RUNNER_ARGUMENTS
    source = inspect.getsource(sys.modules[Runner.__module__])
    assert set(re.findall(r"self\.cfg\.get\(\s*'(\w+)'", source)) == RUNNER_READS
    flexible = inspect.getsource(sys.modules[FlexibleRunner.__module__])
    arguments = set(inspect.signature(FlexibleRunner.__init__).parameters) - {"self", "cfg"}
    read = arguments | set(re.findall(r"self\.cfg\.get\(\s*'(\w+)'", flexible))
    assert read - RUNNER_ARGUMENTS - RUNNER_READS == FLEXIBLE_KEYS
    assert {"inferencer", "runner_type", "tta_model", "tta_pipeline"} == OWN_KEYS


def test_dicts_replace_names_and_lists_become_tuples():
    """MMEngine cannot merge a dict into a name or None; transforms of the mm libraries refuse lists of sizes."""
    options = {
        "model.clip.vision": OptionText("{'layers': 1}"),
        "model.proxy": OptionText("{'type': 'pe_dense.TimmTower', 'name': 'vit_tiny'}"),
        "test_dataloader.dataset.pipeline.1.scale": OptionText("[2048, 40]"),
        "model.templates": OptionText("photo"),
    }
    config = load_config("ade20k_words_pe_l14", options)
    assert config.model.clip == dict(vision=dict(layers=1))
    assert config.model.proxy == dict(type="pe_dense.TimmTower", name="vit_tiny")
    assert config.test_dataloader.dataset.pipeline[1].scale == (2048, 40)
    weights = {"model.init_cfg": dict(type="Pretrained", checkpoint="a.pt")}
    assert load_config("shapes_words_pe_tiny", weights).model.init_cfg == weights["model.init_cfg"]


def test_missing_config_suggests(tmp_path):
    with pytest.raises(ConfigError, match=r"does not exist; did you mean lvis_maskrcnn_pe_g14\.py"):
        load_config(CONFIGS / "lvis_maskrcnn_g14.py")
    with pytest.raises(ConfigError, match="absent/a.py does not exist$"):
        load_config(tmp_path / "absent" / "a.py")


@pytest.mark.parametrize("text", ["model = dict(", "from mmengine.config import read_base\nmodel = undefined"])
def test_broken_config(tmp_path, text):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.py(, line 2)?: (SyntaxError|NameError)"):
        load_config(tmp_path / "broken.py")


def test_unknown_knob(tmp_path):
    (tmp_path / "small.py").write_text("model = dict(b=1)\n")
    with pytest.raises(ConfigError, match="has no image_size to change"):
        load_config(tmp_path / "small.py", dict(image_size=3))
    assert load_config(tmp_path / "small.py", {"model.b": 2}).to_dict() == dict(model=dict(b=2))


def test_tower_reaches_model_and_weights():
    config = load_config(CONFIGS / "ade20k_linear_pe_g14.py", dict(tower="PE-Core-L14-336", image_size=336))
    assert config.model.backbone.arch == "PE-Core-L14-336"
    assert config.model.backbone.init_cfg.checkpoint == "hf://facebook/PE-Core-L14-336"
    assert "PE-Spatial" not in text_of(config)
    assert list(config.model.test_cfg.crop_size) == list(config.model.data_preprocessor.size) == [336, 336]
    assert config.train_dataloader.dataset.pipeline[3].crop_size == (336, 336)
    assert "448" not in text_of(config)


TIMM = "timm/test_vit"


def test_tower_of_timm_in_a_detector():
    config = load_config(CONFIGS / "coco_maskrcnn_pe_b16.py", dict(tower=TIMM))
    backbone = config.model.backbone
    assert (backbone.type, backbone.name) == ("pe_dense.TimmTower", "test_vit")
    assert backbone.init_cfg == dict(type="Pretrained", checkpoint="timm")
    assert set(backbone) <= {"type", "name", "init_cfg", "out_indices", "drop_path_rate", "with_cp"}
    assert config.model.neck.in_channels == 64
    assert config.model.data_preprocessor.mean == config.model.data_preprocessor.std == [127.5] * 3
    # ImageNet's mean and std, as the model's own configuration in timm says.
    config = load_config(CONFIGS / "coco_maskrcnn_pe_b16.py", dict(tower="timm/vit_small_patch16_dinov3"))
    assert config.model.data_preprocessor.mean == pytest.approx([123.675, 116.28, 103.53])
    assert config.model.data_preprocessor.std == pytest.approx([58.395, 57.12, 57.375])


@pytest.mark.parametrize("name", ["ade20k_linear_pe_b16", "nyu_dpt_pe_b16", "ade20k_sweep_pe"])
def test_tower_of_timm_in_a_probe(name):
    config = load_config(CONFIGS / f"{name}.py", dict(tower=TIMM))
    assert (config.model.backbone.type, config.model.backbone.arch) == ("pe_dense.FrozenTower", TIMM)
    assert config.model.backbone.init_cfg.checkpoint == "timm"


def test_tower_of_timm_where_it_cannot_be():
    with pytest.raises(ConfigError, match="student of a distillation must be a PE tower"):
        load_config(CONFIGS / "images_align_pe_b16.py", dict(tower=TIMM))
    with pytest.raises(ValueError, match="timm has no model 'no_such_model'"):
        load_config(CONFIGS / "coco_maskrcnn_pe_b16.py", dict(tower="timm/no_such_model"))


@pytest.mark.parametrize(("tower", "size"), [("PE-Spatial-B16-512", 512), ("PE-Spatial-L14-448", 448), (TIMM, 512)])
def test_tower_sets_the_sizes_of_images(tower, size):
    """Sweeps are written for Spatial G, with patches of 14 px; timm's test_vit has patches of 16 px."""
    config = load_config(CONFIGS / "ade20k_sweep_pe.py", dict(tower=tower))
    assert (config.tower, config.image_size) == (tower, size)
    assert tuple(config.model.data_preprocessor.size) == tuple(config.model.test_cfg.crop_size) == (size, size)
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        scales = [step.scale for step in loader.dataset.pipeline if "scale" in step]
        assert scales == [(100_000, size)]
    assert config.model.backbone.out_indices is None


@pytest.mark.parametrize(
    ("options", "suffix"),
    [({}, ""), (dict(tower="PE-Spatial-B16-512"), "_PE-Spatial-B16-512"), (dict(tower=TIMM), "_test_vit")],
)
def test_default_work_dir_has_the_name_of_another_tower(options, suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(CONFIGS / "ade20k_sweep_pe.py", options)
    assert work_dir_of(config, None) == f"work_dirs/ade20k_sweep_pe{suffix}"
    assert work_dir_of(config, "other") == "other"


def test_tower_sets_the_sizes_of_video_frames():
    def steps(**options):
        return load_config(CONFIGS / "davis_sweep_pe.py", options).test_dataloader.dataset.pipeline

    assert steps() == [dict(type="pe_dense.LoadVideo", short_side=476, divisor=14)]
    assert steps(tower="PE-Core-L14-336") == steps()
    assert steps(tower="PE-Core-B16-224") == [dict(type="pe_dense.LoadVideo", short_side=480, divisor=64)]


def test_given_sizes_are_kept():
    config = load_config(CONFIGS / "ade20k_sweep_pe.py", dict(tower="PE-Spatial-B16-512", image_size=256))
    assert config.image_size == config.val_dataloader.dataset.pipeline[1].scale[1] == 256


def test_functions_of_base_files_are_dropped(tmp_path):
    """MMEngine would keep them, and dump a config that cannot be read."""
    (tmp_path / "base.py").write_text("def steps(size):\n    return [dict(type='Resize', size=size)]\n")
    lines = (
        "from mmengine.config import read_base",
        "with read_base():",
        "    from .base import steps",
        "model = steps(8)",
    )
    (tmp_path / "small.py").write_text("\n".join(lines))
    config = load_config(tmp_path / "small.py")
    config.dump(tmp_path / "dumped.py")
    assert load_config(tmp_path / "dumped.py").to_dict() == dict(model=[dict(type="Resize", size=8)])


@pytest.mark.parametrize("kind", ["FrozenTower", "pe_dense.FrozenTower", FrozenTower], ids=str)
def test_a_frozen_backbone_is_recognized_however_its_class_is_named(kind):
    weights = dict(type="Pretrained", checkpoint="tower.pt")
    model = ConfigDict(init_cfg=weights, backbone=ConfigDict(type=kind, arch="PE-Spatial-T16-512", init_cfg=weights))
    drop_pretrained(model)
    assert "init_cfg" not in model
    assert model.backbone.init_cfg == weights
    model.backbone.type = "PETower"
    drop_pretrained(model)
    assert "init_cfg" not in model.backbone


@pytest.mark.parametrize(
    ("tool", "option", "message"),
    [
        ("test", "train_cfg.max_iters", "read by training only, not by test: leave it out"),
        ("test", "train_dataloader.batch_size", "read by training only"),
        ("test", "optim_wrapper.optimizer.lr", "read by training only"),
        ("test", "val_dataloader.num_workers", "read by training only"),
        ("test", "val_evaluator.metric", "read by training only"),
        ("test", "model.train_cfg.rcnn.sampler.num", "read by training only"),
        ("test", "default_hooks.checkpoint.interval", "read by training only"),
        ("test", "model.backbone.init_cfg.checkpoint", "not read by test: all weights are those of CHECKPOINT"),
        ("test", "load_from", "not read by test: CHECKPOINT sets it"),
        ("test", "launcher", "not read by test: --launcher sets it"),
        ("test", "tta_model.tta_cfg", "read with --tta only"),
        ("predict", "optim_wrapper.optimizer.lr", "read by training only, not by predict"),
        ("predict", "test_evaluator.metric", "not read by predict, which reads .*test_dataloader.dataset"),
        ("predict", "test_dataloader.batch_size", "not read by predict"),
        ("predict", "randomness.seed", "not read by predict"),
        ("predict", "work_dir", "not read by predict: --out sets it"),
        ("train", "launcher", "not read by train: --launcher sets it"),
        ("train", "resume", "not read by train: --resume sets it"),
    ],
)
def test_options_that_a_tool_does_not_read_are_refused(tool, option, message):
    config = load_config(CONFIGS / "coco_maskrcnn_pe_t16.py")
    with pytest.raises(ConfigError, match=f"^--cfg-options {re.escape(option)} is .*{message}"):
        check_read(config, tool, dict(cfg_options={"image_size": "512", option: "1"}, tta=False))


def test_options_that_a_tool_reads_are_accepted():
    config = load_config(CONFIGS / "coco_maskrcnn_pe_t16.py")
    shared = ["data_root", "image_size", "model.test_cfg.rcnn.score_thr", "test_dataloader.dataset.pipeline.1.scale"]
    trained = ["train_cfg.max_iters", "optim_wrapper.optimizer.lr", "test_evaluator.metric", "tta_model.tta_cfg"]
    tested = ["test_dataloader.batch_size", "test_evaluator.metric", "log_level", "default_hooks.logger.interval"]
    for tool, more, tta in (
        ("train", [*trained, "work_dir", "load_from"], False),
        ("test", [*tested, "work_dir"], False),
        ("test", ["tta_model.tta_cfg"], True),
        ("predict", ["tta_pipeline.1.transforms"], True),
        ("predict", [], False),
    ):
        check_read(config, tool, dict(cfg_options=dict.fromkeys(shared + more, "1"), tta=tta))
        check_read(config, tool, dict(cfg_options=None, tta=tta))
    # Weights of frozen towers are in no checkpoint.
    probe = load_config(CONFIGS / "ade20k_linear_pe_b16.py")
    check_read(probe, "test", dict(cfg_options={"model.backbone.init_cfg.checkpoint": "a.pt"}, tta=False))
    check_read(probe, "train", dict(cfg_options={"load_from": "a.pth"}, resume=None))
    for name, given in (("work_dir", "work_dir"), ("load_from", "resume")):
        with pytest.raises(ConfigError, match=f"not read by train: --{given.replace('_', '-')} sets it"):
            check_read(probe, "train", {"cfg_options": {name: "a"}, given: "b"})


@pytest.mark.parametrize(
    ("convert", "good", "bad"),
    [
        (whole_number(64, 8192), {"64": 64, "8192": 8192}, ["63", "8193", "100000", "1_000", "1e3", "64.0", "nan", ""]),
        (number(0.0, 1.0), {"0": 0.0, "1.0": 1.0, "5e-1": 0.5}, ["-0.1", "1.1", "nan", "inf", "0_1", "half", ""]),
        (text, {"a b": "a b"}, ["", " ", "a\0"]),
    ],
    ids=["whole number", "number", "text"],
)
def test_values_of_arguments(convert, good, bad):
    assert {given: convert(given) for given in good} == good
    for given in bad:
        with pytest.raises(argparse.ArgumentTypeError):
            convert(given)

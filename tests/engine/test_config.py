"""Reading configs and changing them."""

import inspect
from pathlib import Path

import pytest
from mmengine.runner import Runner

from pe_dense.engine.config import READ, load_config
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
            r"would change nothing: no run reads 'max_iters' .* in param_scheduler.*train_cfg\.max_iters",
        ),
        ({"norm_cfg.eps": 1e-5}, "would change nothing"),
        ({"randomnes": 3}, "would change nothing"),
    ],
)
def test_misspelt_option(options, message):
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIGS / "coco_maskrcnn_pe_t16.py", options)


def test_what_a_run_reads():
    """MMEngine's part of it is the runner's arguments."""
    arguments = set(inspect.signature(Runner.__init__).parameters)
    own = {"inferencer", "model_wrapper_cfg", "runner_type", "tta_model", "tta_pipeline"}
    assert arguments - {"self", "cfg"} | own == READ


def test_missing_config_suggests(tmp_path):
    with pytest.raises(ConfigError, match=r"does not exist; did you mean lvis_maskrcnn_pe_g14\.py"):
        load_config(CONFIGS / "lvis_maskrcnn_g14.py")
    with pytest.raises(ConfigError, match="absent/a.py does not exist$"):
        load_config(tmp_path / "absent" / "a.py")


@pytest.mark.parametrize("text", ["model = dict(", "from mmengine.config import read_base\nmodel = undefined"])
def test_broken_config(tmp_path, text):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.py: (SyntaxError|NameError)"):
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

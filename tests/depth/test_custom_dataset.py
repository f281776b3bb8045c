"""Adapt configs of depth estimation to custom data sets."""

import json

from helpers import data_formats as formats
from mmengine.registry import DATASETS, init_default_scope

from pe_dense.depth.custom_dataset import use_data
from pe_dense.engine.config import load_config


def test_depth_range_and_files_reach_every_place(tmp_path):
    root = formats.write_depth(tmp_path / "data", 3, kind="png", scale=0.005)
    config = use_data(load_config("configs/nyu_dpt_pe_b16.py"), root, work_dir=tmp_path / "run", scale=0.05)
    assert config.model.decode_head.max_depth == 40.0  # 4 m read with ten times the scale
    assert config.val_evaluator.max_depth_eval == config.test_evaluator.max_depth_eval == 40.0
    assert config.val_evaluator.crop_type is None
    types = [step.type for step in config.train_dataloader.dataset.pipeline]
    assert "pe_dense.CropBox" not in types
    init_default_scope("mmseg")
    item = DATASETS.build(config.val_dataloader.dataset)[0]["data_samples"]
    assert item.gt_depth_map.data.max() == 40.0
    assert item.gt_depth_map.data.min() == 0.0


def test_crops_of_nyu_are_removed_inside_of_lists(tmp_path):
    config = load_config("configs/nyu_dpt_pe_b16.py")
    config.tta_pipeline = [dict(type="TestTimeAug", transforms=[[dict(type="pe_dense.CropBox")], [dict(type="Pad")]])]
    dataset = config.train_dataloader.dataset
    config.train_dataloader.dataset = dict(type="ConcatDataset", datasets=[dataset])
    use_data(config, formats.write_depth(tmp_path / "data", 3), work_dir=tmp_path / "run")
    assert config.tta_pipeline[0].transforms == [[], [dict(type="Pad")]]
    (dataset,) = config.train_dataloader.dataset.datasets
    assert "CropBox" not in str(dataset.pipeline)


def test_config_of_kitti(tmp_path):
    """Its list, its crop and the evaluated part of its images do not suit other data."""
    root = formats.write_depth(tmp_path / "data", 3)
    config = use_data(load_config("configs/kitti_dinov3_linear_pe.py"), root, work_dir=tmp_path / "run")
    assert config.test_evaluator.crop_type is None and config.model.decode_head.max_depth == 80.0
    for split in ("train", "val"):
        dataset = config[f"{split}_dataloader"].dataset
        assert "pe_dense.CropBottomCenter" not in [step.type for step in dataset.pipeline]
        init_default_scope("mmseg")
        assert DATASETS.build(dict(dataset, pipeline=dataset.pipeline[:2]))[0]["gt_depth_map"].max() > 0


def test_a_small_range_keeps_the_configs(tmp_path):
    root = formats.write_depth(tmp_path / "data", 3)
    config = use_data(load_config("configs/nyu_linear_pe_b16.py"), root, work_dir=tmp_path / "run")
    assert config.model.decode_head.max_depth == 10.0


def test_the_range_of_the_run_is_used_again(tmp_path):
    root = formats.write_depth(tmp_path / "data", 3)
    formats.text(root / "depth.json", '{"max_depth": 80}')
    use_data(load_config("configs/nyu_linear_pe_b16.py"), root, work_dir=tmp_path / "run")
    assert json.loads((tmp_path / "run/data/depth.json").read_text()) == dict(scale=0.001, max_depth=80.0)
    (root / "depth.json").unlink()
    config = load_config("configs/nyu_linear_pe_b16.py")
    use_data(config, root, ("test",), work_dir=tmp_path / "test", records=(tmp_path / "run/data/split.json",))
    assert config.model.decode_head.max_depth == 80.0

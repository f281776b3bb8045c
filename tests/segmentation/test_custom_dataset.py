"""Adapt configs of segmentation to custom data sets."""

import pytest
from helpers import data_formats as formats
from mmengine.registry import DATASETS, init_default_scope

from pe_dense.engine.class_counts import mask_heads
from pe_dense.engine.config import load_config
from pe_dense.engine.config_parts import walk_dicts
from pe_dense.engine.preflight import check_files
from pe_dense.segmentation import custom_dataset, custom_panoptic

NAMES = ("background", *formats.NAMES)


@pytest.mark.parametrize("name", ["ade20k_linear_pe_b16", "ade20k_upernet_pe_l14", "ade20k_eomt_pe_b16"])
def test_classes_and_files_reach_every_place(tmp_path, name):
    root = formats.write_masks(tmp_path / "data", kind="rgb")
    config = custom_dataset.use_data(load_config(f"configs/{name}.py"), root, work_dir=tmp_path / "run")
    check_files(config, ("train", "val", "test"))
    assert "data_source" not in config
    init_default_scope("mmseg")
    for split, images in (("train", 4), ("val", 2), ("test", 2)):
        dataset = config[f"{split}_dataloader"].dataset
        built = DATASETS.build(dataset)
        assert built.metainfo["classes"] == NAMES
        assert not built.metainfo["reduce_zero_label"]
        assert len(built) == images
    assert set(built[0]["data_samples"].gt_sem_seg.data.unique().tolist()) <= {0, 1, 2}
    (reader,) = [step for step in config.train_dataloader.dataset.pipeline if "LabelMap" in step.type]
    assert reader.colors == {"#5a5a5a": 0, "#c82828": 1, "#283cdc": 2}
    assert not [step for step in walk_dicts(config.get("tta_pipeline") or []) if step.get("type") == "LoadAnnotations"]
    for head in (config.model.decode_head, config.model.get("auxiliary_head")):
        if head and "num_classes" in head:
            assert head.num_classes == 3
    for head in mask_heads(config.model):
        assert (head["num_things_classes"], head["num_stuff_classes"]) == (0, 3)


def test_class_weights_of_other_data_are_removed(tmp_path):
    root = formats.write_masks(tmp_path / "data")
    config = load_config("configs/shapes_linear_pe_tiny.py")
    assert len(config.model.decode_head.class_weight) == 9
    custom_dataset.use_data(config, root, work_dir=tmp_path / "run")
    assert config.model.decode_head.class_weight is None
    assert config.model.decode_head.num_classes == 3


def test_tests_use_the_test_images(tmp_path):
    root = formats.write_masks(tmp_path / "data")
    for kind in ("images", "masks"):
        (root / kind / "val").rename(root / kind / "test")
    config = load_config("configs/shapes_linear_pe_tiny.py")
    custom_dataset.use_data(config, root, ("test",), work_dir=tmp_path / "run")
    init_default_scope("mmseg")
    built = DATASETS.build(config.test_dataloader.dataset)
    assert built.get_data_info(0)["img_path"] == str(root / "images/test/4.jpg")


def test_panoptic_heads_have_things_and_stuff(tmp_path):
    root = formats.write_panoptic(tmp_path / "data", 3)
    config = load_config("configs/coco_panoptic_mask2former_pe_l14.py")
    custom_panoptic.use_data(config, root, work_dir=tmp_path / "run")
    heads = [(head["num_things_classes"], head["num_stuff_classes"]) for head in mask_heads(config.model)]
    assert heads == [(2, 1)] * len(heads) != []
    assert config.model.panoptic_head.loss_cls.class_weight == [1.0] * 3 + [0.1]
    assert config.val_evaluator.type == "CocoPanopticMetric"
    assert config.val_evaluator.seg_prefix == str(root / "annotations/panoptic_val")
    check_files(config, ("train", "val", "test"))

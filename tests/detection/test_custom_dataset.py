"""Adapt configs to custom data sets."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from helpers.annotated_folder import content, write_folder, write_images, write_json
from mmdet.visualization.palette import get_palette
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

from pe_dense.datasets import annotation_cache
from pe_dense.datasets.synthetic import CLASSES, write_shapes
from pe_dense.detection.custom_dataset import use_data
from pe_dense.engine.config import load_config
from pe_dense.engine.preflight import check_files, inner_datasets
from pe_dense.utils.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
PARTS = ("cog", "bolt", "washer")


def config_of(name="coco_maskrcnn_pe_t16"):
    return load_config(CONFIGS / f"{name}.py")


def dataset_of(config, split):
    (dataset,) = inner_datasets(config[f"{split}_dataloader"])
    return dataset


@pytest.mark.parametrize("federated", [False, True], ids=["coco", "lvis"])
@pytest.mark.parametrize("name", ["coco_maskrcnn_pe_t16", "lvis_maskrcnn_pe_t16", "shapes_maskrcnn_pe_tiny"])
def test_classes_and_files_reach_every_place(tmp_path, name, federated):
    root = write_folder(tmp_path / "parts", PARTS, federated=federated)
    config = use_data(config_of(name), root)
    check_files(config, ("train", "val", "test"))
    assert "data_source" not in config
    assert config.data_root == str(root)
    for split, file, images in (("train", "train", 3), ("val", "val", 2), ("test", "val", 2)):
        init_default_scope("mmdet")
        built = DATASETS.build(config[f"{split}_dataloader"].dataset)
        assert built.metainfo["classes"] == PARTS
        assert len(get_palette(built.metainfo["palette"], 100)) == 100  # mmdet's own would be 80 colors
        inner = built if hasattr(built, "ann_file") else built.dataset
        assert type(inner).__name__ == ("LVISDataset" if federated else "CocoDataset")
        assert inner.ann_file == str(root / f"annotations/parts_{file}.json")
        assert len(inner) == images
        assert inner[0]["inputs"].ndim == 3  # the images and masks load
        if split != "train":
            evaluator = config[f"{split}_evaluator"]
            assert evaluator.type == ("pe_dense.LVISMetric" if federated else "pe_dense.CocoMetric")
            assert evaluator.ann_file == inner.ann_file
            assert evaluator.metric == ["bbox", "segm"]
    head = config.model.roi_head
    assert head.bbox_head.num_classes == head.mask_head.num_classes == 3
    if name.startswith("lvis"):
        assert config.train_dataloader.sampler.type == "pe_dense.RepeatFactorSampler"
        assert head.bbox_head.loss_cls.num_classes == 3
        assert head.bbox_head.loss_cls.ann_file == str(root / "annotations/parts_train.json")
    model = MODELS.build(dict(config.model, backbone=dict(config.model.backbone, init_cfg=None)))
    assert model.roi_head.bbox_head.num_classes == 3
    assert model.rpn_head.num_classes == 1


def test_files_are_parsed_once(tmp_path, monkeypatch):
    """Parsing COCO's training file takes seconds and gigabytes."""
    root, parsed = write_folder(tmp_path, PARTS), []
    for file in root.glob("annotations/*.json"):
        os.utime(file, (0, 0))
    parse_table = annotation_cache.parse_table
    monkeypatch.setattr(
        "pe_dense.datasets.annotations.read_json", lambda path: pytest.fail(f"{path} is parsed as a whole")
    )
    monkeypatch.setattr(
        annotation_cache, "parse_table", lambda *args, **options: parsed.append(1) or parse_table(*args, **options)
    )
    config = use_data(config_of(), root)
    init_default_scope("mmdet")
    assert len(DATASETS.build(config.train_dataloader.dataset)) == 3
    assert len(parsed) == 2


def test_the_loss_counts_the_own_images(tmp_path):
    root = write_folder(tmp_path, PARTS)
    loss = MODELS.build(use_data(config_of("lvis_maskrcnn_pe_t16"), root).model.roi_head.bbox_head.loss_cls)
    assert loss._weights("cpu").square().round().tolist() == [3, 3, 3, 0]  # each in all three images


def test_any_detector_with_a_number_of_classes(tmp_path):
    """Heads in other places and lists of heads are changed; proposal heads are not."""
    config = config_of("shapes_maskrcnn_pe_tiny")
    config.model = dict(
        type="Other",
        bbox_head=dict(num_classes=80, loss_cls=[dict(num_classes=80)]),
        rpn_head=dict(num_classes=1),
    )
    use_data(config, write_folder(tmp_path))
    assert config.model.bbox_head.to_dict() == dict(num_classes=3, loss_cls=[dict(num_classes=3)])
    assert config.model.rpn_head.num_classes == 1


def test_a_test_needs_no_training_data(tmp_path):
    root = write_folder(tmp_path)
    (root / "annotations/parts_train.json").unlink()
    config = use_data(config_of("lvis_maskrcnn_pe_t16"), root, splits=("val",))
    assert config.model.roi_head.bbox_head.num_classes == 3
    assert dataset_of(config, "test").data_root == str(root)
    assert dataset_of(config, "train").data_root == "data/lvis"
    with pytest.raises(ConfigError, match="no annotation file for train"):
        use_data(config_of(), root)


def move_annotations(root, pattern):
    for split in ("train", "val"):
        target = root / pattern.format(split)
        target.parent.mkdir(exist_ok=True)
        (root / f"annotations/parts_{split}.json").rename(target)
    (root / "annotations").rmdir()


@pytest.mark.parametrize("pattern", ["{}.json", "my_{}2024.json", "{}/_annotations.json", "{}idation/a.json"])
def test_layouts_of_annotations(tmp_path, pattern):
    write_folder(tmp_path)
    move_annotations(tmp_path, pattern)
    config = use_data(config_of(), tmp_path)
    for split in ("train", "val"):
        assert dataset_of(config, split).ann_file == pattern.format(split)


@pytest.mark.parametrize("folder", ["", "a", "a/b"])
def test_images_anywhere_up_to_two_folders_deep(tmp_path, folder):
    write_folder(tmp_path)
    (tmp_path / ".hidden").mkdir()
    shutil.copytree(tmp_path / "pictures", tmp_path / ".hidden/pictures")
    shutil.move(tmp_path / "pictures", tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", tmp_path / folder, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "moved")
    config = use_data(config_of(), tmp_path)
    assert dataset_of(config, "train").data_prefix.img == folder


def test_images_of_a_split_in_a_folder_called_after_it(tmp_path):
    """As in the shapes: train/000000.png, val/000000.png, semantic/train/000000.png."""
    root = write_shapes(tmp_path / "shapes", num_train=1, num_val=1, image_size=64)
    for file in root.glob("annotations/lvis_*"):
        file.unlink()
    config = use_data(config_of(), root)
    assert [dataset_of(config, split).data_prefix.img for split in ("train", "val", "test")] == ["train", "val", "val"]
    assert dataset_of(config, "val").metainfo.classes == CLASSES


def test_run_length_masks_are_learned(tmp_path):
    """mmdet silently ignores objects with RLE masks if it loads polygons."""
    root = write_shapes(tmp_path / "shapes", num_train=2, num_val=1, image_size=64)
    for file in root.glob("annotations/lvis_*"):
        file.unlink()
    init_default_scope("mmdet")
    config = use_data(load_config(CONFIGS / "coco_maskrcnn_pe_t16.py", dict(image_size=64)), root)
    sample = DATASETS.build(config.train_dataloader.dataset)[0]["data_samples"]
    assert len(sample.ignored_instances) == 0
    assert len(sample.gt_instances) > 0
    polygons = use_data(config_of(), write_folder(tmp_path / "parts"))
    assert dataset_of(polygons, "train").pipeline[1].poly2mask is False


def write(root, **files):
    """Annotations and two images in `pictures/`."""
    write_images(root / "pictures", ["0.png", "1.png"])
    for name, annotations in files.items():
        write_json(root / f"annotations/{name}.json", annotations)
    return root


GOOD = content(PARTS, ["0.png", "1.png"])


@pytest.mark.parametrize(
    ("files", "messages"),
    [
        (dict(val=GOOD), ["no annotation file for train; looked for annotations/*train*.json, *train*.json"]),
        (
            dict(train=GOOD, instances_train=GOOD, val=GOOD),
            ["several annotation files for train: annotations/instances_train.json, annotations/train.json"],
        ),
        (
            dict(train=content(PARTS, ["absent.png"]), val=GOOD),
            ["train.json lists the image absent.png", "absent.png nor such a file", "--images FOLDER"],
        ),
        (dict(train=dict(GOOD, categories=[]), val=GOOD), ["'categories' is empty"]),
        (dict(train=content(("a", "a"), ["0.png"]), val=GOOD), ["2 categories share 1 names"]),
        (dict(train=dict(GOOD, images=[], annotations=[]), val=GOOD), ["train.json lists no image"]),
        (dict(train=[1], val=GOOD), ["train.json is not a valid annotation file: it contains a list"]),
        (
            dict(train=content(PARTS, ["0.png"], federated=True) | dict(), val=dict(GOOD, images=[{}])),
            ["'id' is missing in 1 of 1 images"],
        ),
        (
            dict(train=GOOD, val=content(("cog", "nut"), ["0.png"])),
            ["3 classes", "2, and they differ", "only in the first: 'bolt', 'washer'; only in the second: 'nut'"],
        ),
        (
            dict(train=GOOD, val=content(PARTS[::-1], ["0.png"])),
            ["their order differs: 'cog', 'bolt', 'washer' and 'washer'"],
        ),
        (
            dict(train=dict(GOOD, annotations=[dict(GOOD["annotations"][0], segmentation=[])]), val=GOOD),
            ["1 of 7 objects with a box only, but this config needs polygons or masks (train 1 of 1, val 0 of 6): for"],
        ),
        (
            dict(
                train=dict(GOOD, images=[dict(id=i, width=64, height=64, coco_url="0.png") for i in (0, 1)]), val=GOOD
            ),
            ["image 0 has no file_name"],
        ),
    ],
)
def test_mistakes_are_reported(tmp_path, files, messages):
    with pytest.raises(ConfigError) as error:
        use_data(config_of(), write(tmp_path, **files))
    for message in messages:
        assert message in str(error.value)
    assert "\n" not in str(error.value)


BOXES = dict(GOOD, annotations=[dict(item, segmentation=[]) for item in GOOD["annotations"]])


@pytest.mark.parametrize("name", ["coco_maskrcnn_pe_t16", "coco_cascade_pe_l14"])
def test_boxes_alone_leave_out_the_masks(tmp_path, name, monkeypatch):
    lines = []
    monkeypatch.setattr("pe_dense.detection.custom_dataset.print_log", lambda line, *_: lines.append(line))
    config = use_data(config_of(name), write(tmp_path, train=BOXES, val=BOXES), work_dir=tmp_path / "run")
    assert lines[0] == f"{tmp_path}: no masks in the data: training boxes only"
    assert config.model.roi_head.mask_head is None
    assert [config[f"{split}_evaluator"].metric for split in ("val", "test")] == ["bbox", "bbox"]
    init_default_scope("mmdet")
    sample = DATASETS.build(config.train_dataloader.dataset)[0]["data_samples"]
    assert len(sample.gt_instances) > 0
    assert "masks" not in sample.gt_instances
    with torch.device("meta"):
        assert not MODELS.build(dict(config.model, backbone=dict(config.model.backbone, init_cfg=None))).with_mask


def test_some_masks_are_no_boxes_alone(tmp_path):
    twice = [GOOD["annotations"][0], dict(GOOD["annotations"][0], id=2, segmentation=[])]
    root = write(tmp_path, train=dict(GOOD, annotations=twice), val=GOOD)
    with pytest.raises(ConfigError, match=r"is missing in 1 of 2 annotations \(id 2\). This config learns"):
        use_data(config_of(), root)


def test_mask_transformers_need_masks(tmp_path):
    root = write(tmp_path, train=BOXES, val=BOXES)
    with pytest.raises(ConfigError, match=r"has (\d+) of \1 objects with a box only, but this config needs"):
        use_data(config_of("coco_eomt_pe_l14"), root)


def test_boxes_suffice_where_no_masks_are_learned(tmp_path):
    config = config_of()
    config.val_evaluator.metric = "bbox"
    use_data(config, write(tmp_path, train=BOXES, val=BOXES))
    assert config.test_evaluator.metric == "bbox"
    assert config.model.roi_head.mask_head is None  # which would be trained, whatever is evaluated


def test_images_in_several_folders(tmp_path):
    root = write(tmp_path, train=GOOD, val=GOOD)
    write_images(root / "thumbnails", ["0.png"])
    with pytest.raises(ConfigError, match="0.png, which is in several folders of .*: pictures, thumbnails"):
        use_data(config_of(), root)


def test_missing_folder_and_other_configs(tmp_path):
    with pytest.raises(ConfigError, match="data folder .*absent does not exist"):
        use_data(config_of(), tmp_path / "absent")
    with pytest.raises(ConfigError, match="not a detector's config: its val_evaluator has no 'metric'"):
        use_data(Config(dict(model={})), tmp_path)
    root = write_folder(tmp_path)
    with pytest.raises(ConfigError, match="not a detector's config: its model has no 'num_classes'"):
        use_data(Config(dict(model=dict(type="Depth"), val_evaluator=dict(metric="bbox"))), root)


def annotation_files(config):
    return [Path(dataset_of(config, split).ann_file).name for split in ("train", "val", "test")]


@pytest.mark.parametrize(
    ("names", "train", "val"),
    [
        (("voc0712_trainval", "voc07_test"), "voc0712_trainval", "voc07_test"),
        (("trainval", "val"), "trainval", "val"),
        (("train", "trainval", "minival"), "train", "minival"),
        (("lvis_v1_train", "lvis_v1_val", "lvis_v1_minival"), "lvis_v1_train", "lvis_v1_val"),
        (("Instances_Train2017", "instances_VAL2017"), "Instances_Train2017", "instances_VAL2017"),
        (("training", "validation", "test"), "training", "validation"),
    ],
)
def test_val_is_never_the_training_file(tmp_path, names, train, val):
    write(tmp_path, **dict.fromkeys(names, GOOD))
    assert annotation_files(use_data(config_of(), tmp_path)) == [f"{train}.json", f"{val}.json", f"{val}.json"]


@pytest.mark.parametrize("name", ["trainval", "result"])
def test_a_single_file_of_any_name_is_split(tmp_path, name):
    root = write(tmp_path / "data", **{name: GOOD})
    config = use_data(config_of(), root, work_dir=tmp_path / "run")
    files = [Path(dataset_of(config, split).ann_file) for split in ("train", "val")]
    assert {file.parent for file in files} == {tmp_path / "run/data"}
    listed = [[image["file_name"] for image in json.loads(file.read_text())["images"]] for file in files]
    assert sorted(listed) == [["0.png"], ["1.png"]]
    assert dataset_of(config, "train").data_prefix.img == "pictures"
    again = use_data(config_of(), root, work_dir=tmp_path / "other", records=(tmp_path / "run/data/split.json",))
    assert Path(dataset_of(again, "val").ann_file).read_text() == files[1].read_text()


def test_files_of_other_tasks_in_cocos_own_folder_are_ignored(tmp_path):
    tasks = ("captions", "person_keypoints", "panoptic", "stuff")
    files = {f"{task}_{split}2017": [task] for task in tasks for split in ("train", "val")}
    good = dict(instances_train2017=GOOD, instances_val2017=GOOD)
    write(tmp_path, **files, **good, **{"image_info_test-dev2017": {}})
    config = use_data(config_of(), tmp_path)
    assert annotation_files(config)[:2] == ["instances_train2017.json", "instances_val2017.json"]


def test_files_and_images_named_by_options(tmp_path, monkeypatch):
    write(tmp_path / "data", first=GOOD, second=GOOD)
    write_images(tmp_path / "elsewhere", ["0.png", "1.png"])
    monkeypatch.chdir(tmp_path)
    chosen = dict(train_ann="annotations/first.json", val_ann=tmp_path / "data/annotations/second.json")
    config = use_data(config_of(), "data", **chosen, images="elsewhere")
    assert annotation_files(config)[:2] == ["first.json", "second.json"]
    init_default_scope("mmdet")
    for split in ("train", "val"):
        built = DATASETS.build(config[f"{split}_dataloader"].dataset)
        inner = built if hasattr(built, "ann_file") else built.dataset
        assert inner.get_data_info(0)["img_path"] == str(tmp_path / "elsewhere/0.png")
    with pytest.raises(ConfigError, match="--train-ann absent.json is not a file"):
        use_data(config_of(), "data", train_ann="absent.json")
    with pytest.raises(ConfigError, match="--images absent is not a folder"):
        use_data(config_of(), "data", **chosen, images="absent")
    with pytest.raises(ConfigError, match="lists the image 0.png, but annotations/0.png does not exist|exist"):
        use_data(config_of(), "data", **chosen, images="annotations")


def test_the_same_file_for_train_and_val_only_where_asked(tmp_path):
    write(tmp_path, train=GOOD)
    train = tmp_path / "annotations/train.json"
    config = use_data(config_of(), tmp_path, train_ann=train, val_ann=train)
    assert annotation_files(config) == ["train.json"] * 3
    (tmp_path / "annotations/val.json").symlink_to(train)
    with pytest.raises(ConfigError, match="train and val would both be .*train.json"):
        use_data(config_of(), tmp_path)
    with pytest.raises(ConfigError, match="train and val would both be .*val.json"):
        use_data(config_of(), tmp_path, train_ann="annotations/val.json")


def test_a_test_file_for_validation_finds_the_images_of_val(tmp_path):
    write(tmp_path, voc0712_trainval=GOOD, voc07_test=GOOD)
    (tmp_path / "pictures").rename(tmp_path / "train")
    write_images(tmp_path / "val", ["0.png", "1.png"])
    config = use_data(config_of(), tmp_path)
    assert [dataset_of(config, split).data_prefix.img for split in ("train", "val", "test")] == ["train", "val", "val"]

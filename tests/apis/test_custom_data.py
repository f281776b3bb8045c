"""Train, test and predict on every format of custom data."""

import json

import pytest
from helpers import data_formats as formats
from helpers.custom_runs import shrink, train_test_predict, write_config

from pe_dense.apis.custom_data import use_data
from pe_dense.engine.config import load_config
from pe_dense.utils.checkpoint import read_checkpoint
from pe_dense.utils.errors import ConfigError


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("configs") / "detector.py", "shapes_maskrcnn_pe_tiny")


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("coco", "data"),
        ("lvis", "data"),
        ("roboflow", "run"),
        ("yolo", "data"),
        ("voc", "checkpoint"),
        ("labelme", "run"),
    ],
)
def test_detectors(tmp_path, detector, name, classes):
    data = getattr(formats, f"write_{name}")(tmp_path / "data")
    picture = next(data.rglob("0.jpg"))
    metrics, drawn = train_test_predict(detector, data, tmp_path, picture, classes=classes)
    assert any(key.endswith(("bbox_mAP", "bbox_AP")) for key in metrics), metrics
    boxes_only = name == "voc"
    assert any(key.endswith(("segm_mAP", "segm_AP")) for key in metrics) != boxes_only
    assert ("roi_head.mask_head.conv_logits.weight" in read_checkpoint(tmp_path / "run")["state_dict"]) != boxes_only
    assert drawn["image"] == str(picture)
    assert {item["category"] for item in drawn["objects"]} <= set(formats.NAMES)
    meta = read_checkpoint(tmp_path / "run")["meta"]["dataset_meta"]
    assert tuple(meta["classes"]) == formats.NAMES
    tested = next(iter((tmp_path / "test/data").glob("test_*.json")), None)
    if name == "lvis":
        assert tested is None  # the file of the data is used as it is
        return
    found = formats.boxes_of(json.loads(tested.read_text()))
    if name == "coco":  # the split of the run is used
        assert list(found) == json.loads((tmp_path / "run/data/split.json").read_text())["val"]
        assert not (tmp_path / "test/data/split.json").exists()
    else:
        assert found == formats.expected_boxes([5] if name == "roboflow" else [4, 5])


@pytest.fixture(scope="module")
def linear_probe(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("configs") / "linear.py", "shapes_linear_pe_tiny")


@pytest.mark.parametrize(
    ("name", "classes"), [("index", "checkpoint"), ("palette", "run"), ("rgb", "checkpoint"), ("polygons", "run")]
)
def test_semantic_segmentation(tmp_path, linear_probe, name, classes):
    if name == "polygons":
        data = formats.write_coco(tmp_path / "data")
    else:
        data = formats.write_masks(tmp_path / "data", kind=name, split=name == "index")
    picture = next(data.rglob("0.jpg"))
    metrics, drawn = train_test_predict(linear_probe, data, tmp_path, picture, classes=classes)
    assert 0 <= metrics["mIoU"] <= 100
    names = ("background", *formats.NAMES)
    assert {item["name"] for item in drawn["classes"]} <= set(names)
    assert tuple(read_checkpoint(tmp_path / "run")["meta"]["dataset_meta"]["classes"]) == names


@pytest.mark.parametrize("kind", ["png", "npy", "tiff"])
def test_depth(tmp_path, depth_probe, kind):
    data = formats.write_depth(tmp_path / "data", kind=kind, scale=0.002)
    options = ["--depth-scale", "0.002"] if kind == "png" else []
    picture = next(data.rglob("0.jpg"))
    metrics, drawn = train_test_predict(
        depth_probe, data, tmp_path, picture, *options, classes="run" if kind == "npy" else "checkpoint"
    )
    assert 0 < metrics["rmse"] < 12
    assert drawn["depth"]["max"] <= 12
    scale = 0.002 if kind == "png" else 1.0
    assert json.loads((tmp_path / "run/data/depth.json").read_text()) == dict(scale=scale, max_depth=12.0)


@pytest.fixture(scope="module")
def depth_probe(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("configs") / "depth.py", "shapes_depth_linear_pe_tiny")


def test_panoptic_segmentation(tmp_path):
    config = write_config(tmp_path / "panoptic.py", "shapes_panoptic_eomt_pe_tiny", image_size=128, max_iters=1)
    data = formats.write_panoptic(tmp_path / "data", 3)
    metrics, drawn = train_test_predict(config, data, tmp_path, data / "images/train/0.jpg", classes="checkpoint")
    assert "coco_panoptic/PQ" in metrics
    assert {item["category"] for item in drawn["segments_info"]} <= {*formats.NAMES, "ground"}
    meta = read_checkpoint(tmp_path / "run")["meta"]["dataset_meta"]
    assert (tuple(meta["thing_classes"]), tuple(meta["stuff_classes"])) == (formats.NAMES, ("ground",))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("mmdet::retinanet/retinanet_r50_fpn_1x_coco", "yolo"),
        ("mmseg::segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512", "masks"),
    ],
    ids=["detector", "masks"],
)
def test_another_tower(tmp_path, name, data):
    """The data go with ``--tower``; the run's folder has both, so that a prediction names neither."""
    config = shrink(load_config(name), max_iters=2)
    if data == "masks":
        config.model.data_preprocessor["size"] = (64, 64)
    config.dump(tmp_path / "config.py")
    data = getattr(formats, f"write_{data}")(tmp_path / "data")
    picture = next(data.rglob("0.jpg"))
    options = ["--tower", "PE-Mini-Spatial"]
    metrics, drawn = train_test_predict(tmp_path / "config.py", data, tmp_path, picture, *options, classes="run")
    found = {item.get("category", item.get("name")) for item in drawn.get("objects", drawn.get("classes"))}
    if "mIoU" in metrics:
        assert found <= {"background", *formats.NAMES} and found
    else:
        assert "coco/bbox_mAP" in metrics and found <= set(formats.NAMES)
    adapted = load_config(tmp_path / "run/config.py")
    assert adapted.model.backbone.type == "pe_dense.PETower"
    state = read_checkpoint(tmp_path / "run")
    assert tuple(state["meta"]["dataset_meta"]["classes"])[-2:] == formats.NAMES


@pytest.mark.parametrize(
    ("config", "data", "message"),
    [
        ("ade20k_linear_pe_b16", "voc", "objects with a box only, but this config needs polygons"),
        ("coco_maskrcnn_pe_b16", "masks", "contains semantic masks, not annotations of objects"),
        ("coco_eomt_pe_l14", "voc", r"has (\d) of \1 objects with a box only"),
        ("nyu_linear_pe_b16", "coco", "contains no depth maps .*; it contains COCO objects"),
        ("coco_panoptic_eomt_pe_b16", "coco", "contains no file of panoptic annotations"),
        ("ade20k_linear_pe_b16", "depth", "contains neither masks .*; it contains depth maps"),
        ("davis_propagation_pe_b16", "coco", "takes no --data FOLDER, which is for object detection, "),
    ],
)
def test_data_of_another_task(tmp_path, config, data, message):
    root = getattr(formats, f"write_{data}")(tmp_path / "data", 2)
    with pytest.raises(ConfigError, match=message):
        use_data(load_config(f"configs/{config}.py"), root, work_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_options_of_other_tasks(tmp_path):
    root = formats.write_masks(tmp_path)
    config = load_config("configs/ade20k_linear_pe_b16.py")
    with pytest.raises(ConfigError, match="--val-ann is for detectors; .* is a config of semantic segmentation"):
        use_data(config, root, val_ann="val.json")
    with pytest.raises(ConfigError, match="--depth-scale is for depth"):
        use_data(config, root, depth_scale=0.1)
    with pytest.raises(ConfigError, match="add its folder with --data FOLDER"):
        use_data(config, None, val_ann="val.json")


def test_images_without_annotations(tmp_path):
    root = formats.write_coco(tmp_path, 2)
    config = use_data(load_config("configs/images_align_pe_b16.py"), root)
    assert config.train_dataloader.dataset.data_root == str(root)

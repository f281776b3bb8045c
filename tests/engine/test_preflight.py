"""Missing data is reported before a run starts."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from pe_dense.engine.preflight import check_files, check_images, check_pictures, check_weights
from pe_dense.engine.runner import Runner
from pe_dense.utils.errors import ConfigError


def config(root, **loader):
    dataset = dict(type="CocoDataset", data_root=str(root), ann_file="ann.json", data_prefix=dict(img="images/"))
    return Config(
        dict(
            data_root=str(root),
            data_source=dict(name="Some Data", url="https://data.example", layout="ann.json, images/*.jpg"),
            train_dataloader=dict(dataset=dict(type="RepeatDataset", times=2, dataset=dict(dataset, **loader))),
            val_dataloader=dict(dataset=dict(dataset, ann_file="val.json")),
        )
    )


def write_coco(root, images=2, annotations=1, category="cat", files=None):
    (root / "images").mkdir()
    for index in range(images if files is None else files):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(root / "images" / f"{index}.png")
    content = dict(
        images=[dict(id=i, file_name=f"{i}.png", width=30, height=20) for i in range(images)],
        categories=[dict(id=1, name=category)],
        annotations=[
            dict(id=i + 1, image_id=i, category_id=1, bbox=[2, 2, 10, 10], area=100, iscrowd=0, segmentation=[])
            for i in range(annotations)
        ],
    )
    (root / "ann.json").write_text(json.dumps(content))


def test_missing_annotations_are_reported_with_path_source_and_layout(tmp_path):
    with pytest.raises(ConfigError) as error:
        check_files(config(tmp_path), ("train",))
    message = str(error.value)
    for part in (
        "Some Data (train)",
        f"{tmp_path}/ann.json",
        "https://data.example",
        "images/*.jpg",
        "data_root=FOLDER",
    ):
        assert part in message
    assert "\n" not in message


def test_missing_folder_of_images_and_images_to_visualize(tmp_path):
    dataset = dict(type="pe_dense.ImageFolder", data_root=str(tmp_path / "absent"))
    hooks = [dict(type="A"), dict(type="B", images=[str(tmp_path), str(tmp_path / "photo.jpg")])]
    content = Config(dict(data_root="absent", train_dataloader=dict(dataset=dataset), custom_hooks=hooks))
    with pytest.raises(
        ConfigError, match=r"absent does not exist .* in another folder, set: --cfg-options data_root=FOLDER"
    ):
        check_files(content, ("train",))
    with pytest.raises(ConfigError, match=r"B visualizes .*photo\.jpg does not exist .*custom_hooks\.1\.images=PATH"):
        check_pictures(content)
    (tmp_path / "photo.jpg").touch()
    (tmp_path / "absent").mkdir()
    check_files(content, ("train",))
    check_pictures(content)


def test_missing_image_folder_and_other_splits(tmp_path):
    (tmp_path / "ann.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"{tmp_path}/images does not exist"):
        check_files(config(tmp_path), ("train",))
    (tmp_path / "images").mkdir()
    check_files(config(tmp_path), ("train", "test"))  # no test data in this config
    with pytest.raises(ConfigError, match=r"\(val\) not found: .*val\.json"):
        check_files(config(tmp_path), ("train", "val"))


def test_data_that_make_themselves_need_no_files(tmp_path):
    check_files(config(tmp_path / "absent", generator=dict(num_train=1)), ("train",))


def described(root, classes=("cat",)):
    return dict(
        type="CocoDataset",
        data_root=str(root),
        ann_file="ann.json",
        data_prefix=dict(img="images/"),
        metainfo=dict(classes=classes),
        filter_cfg=dict(filter_empty_gt=True),
    )


def build(root):
    init_default_scope("mmdet")
    return DATASETS.build(described(root))


def test_missing_images_are_counted(tmp_path):
    write_coco(tmp_path, images=3, annotations=3, files=1)
    with pytest.raises(ConfigError, match=r"2 of 3 images that .*ann\.json lists do not exist, .*images/1\.png"):
        check_images(build(tmp_path))
    wrapped = DATASETS.build(dict(type="RepeatDataset", dataset=build(tmp_path), times=2))
    with pytest.raises(ConfigError, match="2 of 3 images"):
        check_images(wrapped)


@pytest.mark.parametrize("wrapper", [None, "RepeatDataset"])
@pytest.mark.parametrize(("annotations", "classes"), [(0, ("cat",)), (2, ("dog",))])
def test_empty_annotations(tmp_path, annotations, classes, wrapper):
    write_coco(tmp_path, annotations=annotations)
    init_default_scope("mmdet")
    dataset = described(tmp_path, classes)
    if wrapper:
        dataset = dict(type=wrapper, times=2, dataset=dataset)
    loader = dict(batch_size=1, sampler=dict(type="DefaultSampler", shuffle=False), dataset=dataset)
    with pytest.raises(ConfigError, match=rf"no image is left of ann\.json in {tmp_path}: .*classes {classes[0]}"):
        Runner.build_dataloader(loader)


@pytest.mark.parametrize(
    ("size", "orientation", "fits"), [((30, 20), 1, True), ((20, 30), 6, True), ((60, 40), 1, False)]
)
def test_images_of_another_size_than_annotated(tmp_path, size, orientation, fits):
    """An image with an EXIF rotation is annotated as displayed: 30 x 20."""
    write_coco(tmp_path, annotations=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(tmp_path / "images" / "1.png", exif=exif)
    dataset = build(tmp_path)
    message = r"1\.png is 60 x 40 pixels, but .*ann\.json says 30 x 20"
    with nullcontext() if fits else pytest.raises(ConfigError, match=message):
        check_images(dataset)


def test_broken_images_are_reported(tmp_path):
    write_coco(tmp_path, annotations=2)
    (tmp_path / "images" / "0.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"0\.png is not a readable image"):
        check_images(build(tmp_path))


def test_complete_data_pass(tmp_path):
    write_coco(tmp_path, annotations=2)
    check_images(build(tmp_path))


@pytest.mark.parametrize("source", ["timm", "hf://owner/name"])
def test_weights_to_download_are_no_files(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    check_weights(Config(dict(model=dict(backbone=dict(init_cfg=dict(type="Pretrained", checkpoint=source))))))


def test_missing_weights_are_reported_with_the_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config(dict(model=dict(backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="timm.pth")))))
    with pytest.raises(ConfigError, match=r"timm.pth do not exist .*--cfg-options model.backbone.init_cfg.checkpoint="):
        check_weights(config)

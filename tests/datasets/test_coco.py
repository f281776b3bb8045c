"""COCO's and LVIS's data sets: equal to mmdet's on valid files, errors and warnings on others."""

import pytest
from helpers.annotated_folder import content, square, write_json
from mmdet import datasets as mmdet
from mmdet.registry import DATASETS as MMDET_DATASETS

from pe_dense.datasets import coco
from pe_dense.datasets.annotations import AnnotationError
from pe_dense.datasets.coco import CocoDataset
from pe_dense.datasets.lvis import LVISDataset
from pe_dense.datasets.synthetic import CLASSES


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(coco, "print_log", lambda message, *_: messages.append(message))
    return messages


def write(root, annotations):
    write_json(root / "ann.json", annotations)
    return dict(data_root=str(root), ann_file="ann.json", data_prefix=dict(img="pictures"))


def entries(dataset):
    return [dataset.get_data_info(index) for index in range(len(dataset))]


@pytest.mark.parametrize(
    ("ours", "theirs", "file", "prefix"),
    [
        (CocoDataset, mmdet.CocoDataset, "instances_train.json", "train/"),
        (LVISDataset, mmdet.LVISV1Dataset, "lvis_train.json", ""),
    ],
)
def test_good_files_give_what_mmdet_gives(small_shapes, warnings, ours, theirs, file, prefix):
    root, _ = small_shapes
    for filters in (None, dict(filter_empty_gt=True, min_size=1)):
        files = dict(
            data_root=str(root),
            ann_file=f"annotations/{file}",
            data_prefix=dict(img=prefix),
            metainfo=dict(classes=CLASSES),
            filter_cfg=filters,
        )
        dataset, reference = ours(**files), theirs(**files)
        assert len(dataset) > 12
        assert entries(dataset) == entries(reference)
        assert dataset.cat_ids == reference.cat_ids
    assert [message for message in warnings if "that have no objects" not in message] == []


def test_useless_boxes_are_left_out_and_counted_once(tmp_path, warnings):
    boxes = [square(2, 2, 10), [2, 2, 0, 5], square(70, 2, 5), square(60, 60, 10), square(1, 1, 0)]
    files = write(tmp_path, content(("a", "b"), ["0.png", "1.png"], boxes))
    dataset = CocoDataset(metainfo=dict(classes=("a", "b")), **files)
    # The fourth is half in the image, which is 64 pixels wide and high.
    assert [item["bbox"] for item in entries(dataset)[1]["instances"]] == [[2, 2, 12, 12], [60, 60, 64, 64]]
    assert [item["bbox_label"] for item in entries(dataset)[1]["instances"]] == [0, 1]
    assert warnings == [
        f"CocoDataset: left out 6 of 10 boxes of {tmp_path}/ann.json: 4 of zero area, 2 outside of the image",
        f"CocoDataset: clipped 2 of 10 boxes of {tmp_path}/ann.json to their images",
    ]


def test_other_classes_are_refused(tmp_path):
    files = write(tmp_path, content(("cog", "bolt"), ["0.png"]))
    with pytest.raises(
        ValueError, match=r"80 of the data set's 80 classes are not in .*ann\.json: 'person'.*'cog', 'bolt'"
    ):
        CocoDataset(**files)
    with pytest.raises(ValueError, match="order of the data set.s classes differs"):
        CocoDataset(metainfo=dict(classes=("bolt", "cog")), **files)
    some = CocoDataset(metainfo=dict(classes=("bolt",)), **files)
    assert [item["bbox_label"] for item in entries(some)[0]["instances"]] == [0]


def test_a_file_of_another_form_is_refused(tmp_path):
    files = write(tmp_path, dict(content(("a",), ["0.png"]), categories=[]))
    with pytest.raises(ValueError, match=r"ann\.json is not a valid annotation file: 'categories' is empty"):
        CocoDataset(**files)


def test_lvis_takes_its_classes_from_the_file(tmp_path):
    files = write(tmp_path, content(("cog", "bolt"), ["a/0.png"], federated=True))
    lazy = LVISDataset(lazy_init=True, **files)
    assert len(lazy.metainfo["classes"]) == 1203
    dataset = LVISDataset(**files)
    assert dataset.metainfo["classes"] == ("cog", "bolt")
    assert [item["bbox_label"] for item in entries(dataset)[0]["instances"]] == [0, 1]
    with pytest.raises(ValueError, match="1 of the data set's 2 classes are not in"):
        LVISDataset(metainfo=dict(classes=("cog", "nut")), **files)
    assert len(LVISDataset.METAINFO["classes"]) == 1203


def test_lvis_finds_images_by_address_or_name(tmp_path):
    annotations = content(("cog",), ["a/0.png", "a/1.png"], federated=True)
    annotations["images"][1].update(coco_url=None, file_name="1.png")
    dataset = LVISDataset(**write(tmp_path, annotations))
    assert [item["img_path"] for item in entries(dataset)] == [
        f"{tmp_path}/pictures/a/0.png",
        f"{tmp_path}/pictures/1.png",
    ]


def test_registered_for_every_scope():
    for dataset in (CocoDataset, LVISDataset):
        assert MMDET_DATASETS.get(f"pe_dense.{dataset.__name__}") is dataset
    assert MMDET_DATASETS.get("CocoDataset") is mmdet.CocoDataset


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        (dict(iscrowd=1), "4 annotations in 2 images, of which none is usable: 4 crowds"),
        (dict(ignore=1), "none is usable: 4 marked 'ignore'"),
        (dict(area=0), "none is usable: 4 of zero area"),
        (dict(bbox=[70, 70, 5, 5]), "none is usable: 4 outside of the image"),
        (dict(bbox=[4, 4, 9, 0.2]), "none is usable: 4 less than a pixel wide or high"),
        (None, "0 annotations in 2 images$"),
    ],
)
def test_nothing_left_to_learn_from(tmp_path, warnings, fields, counts):
    annotations = content(("a", "b"), ["0.png", "1.png"])
    for annotation in annotations["annotations"]:
        annotation.update(fields or {}, segmentation=[])
    if fields is None:
        annotations["annotations"] = []
    files = write(tmp_path, annotations)
    with pytest.raises(AnnotationError, match=f"nothing to learn from: .*ann.json .*{counts}"):
        CocoDataset(metainfo=dict(classes=("a", "b")), **files)
    assert len(CocoDataset(metainfo=dict(classes=("a", "b")), test_mode=True, **files)) == 2
    assert any("nothing to evaluate, average precision will be -1" in message for message in warnings)


def test_objects_of_other_classes_only(tmp_path):
    annotations = content(("a", "b"), ["0.png"])
    annotations["annotations"] = annotations["annotations"][:1]
    with pytest.raises(AnnotationError, match="none is usable: 1 of other classes"):
        CocoDataset(metainfo=dict(classes=("b",)), **write(tmp_path, annotations))


def test_one_usable_object_is_enough(tmp_path):
    annotations = content(("a", "b"), ["0.png"])
    annotations["annotations"][0]["iscrowd"] = 1
    dataset = CocoDataset(metainfo=dict(classes=("a", "b")), **write(tmp_path, annotations))
    assert [item["ignore_flag"] for item in entries(dataset)[0]["instances"]] == [1, 0]


@pytest.mark.parametrize("drop", [True, False])
def test_images_without_objects_are_kept_or_dropped_by_an_option(tmp_path, warnings, drop):
    """The second image has no annotation, the third only an unusable one, the fourth only a crowd."""
    annotations = content(("a",), [f"{i}.png" for i in range(4)])
    del annotations["annotations"][1]
    annotations["annotations"][1]["area"] = 0
    annotations["annotations"][2]["iscrowd"] = 1
    filters = dict(filter_empty_gt=drop, min_size=1)
    dataset = CocoDataset(metainfo=dict(classes=("a",)), filter_cfg=filters, **write(tmp_path, annotations))
    assert [item["img_id"] for item in entries(dataset)] == ([0, 3] if drop else [0, 1, 2, 3])
    what = "dropped" if drop else "kept"
    assert warnings[-1] == (
        f"CocoDataset: {what} 2 of 4 images of {tmp_path}/ann.json that have no objects "
        f"(filter_cfg.filter_empty_gt={drop} in the data set's config)"
    )


@pytest.mark.parametrize("masks", [True, False])
def test_masks_are_read_only_where_the_pipeline_loads_them(tmp_path, masks):
    annotations = content(("a", "b"), ["0.png"])
    annotations["annotations"][0]["segmentation"] = "a file's name"
    files = write(tmp_path, annotations) | dict(metainfo=dict(classes=("a", "b")))
    pipeline = [dict(type="LoadAnnotations", with_bbox=True, with_mask=masks)]
    if masks:
        with pytest.raises(AnnotationError, match="'segmentation' is text"):
            CocoDataset(pipeline=pipeline, **files)
    else:
        instances = entries(CocoDataset(pipeline=pipeline, **files))[0]["instances"]
        assert len(instances) == 2
        assert all("mask" not in instance for instance in instances)

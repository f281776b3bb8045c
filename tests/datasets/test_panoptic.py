"""Panoptic annotations in COCO's format: of generated shapes, and errors in files."""

import json
import shutil

import cv2
import numpy as np
import pytest
from mmdet.datasets.transforms import LoadPanopticAnnotations
from mmengine.registry import DATASETS

from pe_dense.datasets import CocoPanopticDataset, LoadImage
from pe_dense.datasets.panoptic import segment_ids
from pe_dense.datasets.synthetic import CLASSES, ShapesPanopticDataset, write_panoptic
from pe_dense.ops.panopticapi import id2rgb, rgb2id
from pe_dense.utils.errors import UserError

FILES = dict(ann_file="panoptic/panoptic_train.json", data_prefix=dict(img="train/", seg="panoptic/panoptic_train/"))


@pytest.fixture(scope="module")
def shapes(small_shapes, tmp_path_factory):
    """A copy of the small data set, which must not change, with panoptic annotations."""
    source, spec = small_shapes
    root = tmp_path_factory.mktemp("panoptic") / "shapes"
    shutil.copytree(source, root)
    pipeline = [LoadImage(), LoadPanopticAnnotations()]
    return root, ShapesPanopticDataset(data_root=str(root), generator=spec, pipeline=pipeline, **FILES)


def test_shapes_and_background(shapes):
    """Masks and labels are those of the class maps; every pixel belongs to one segment."""
    root, dataset = shapes
    assert DATASETS.get("pe_dense.ShapesPanopticDataset") is ShapesPanopticDataset
    assert dataset.metainfo["classes"] == (*CLASSES, "background")
    assert len(dataset.metainfo["palette"]) == 9 and len(dataset) == 24
    objects = 0
    for index in range(len(dataset)):
        loaded = dataset[index]
        name = loaded["img_path"].rpartition("/")[2]
        semantic = cv2.imread(f"{root}/semantic/train/{name}", cv2.IMREAD_UNCHANGED)
        masks, labels = loaded["gt_masks"].masks, loaded["gt_bboxes_labels"]
        assert len(masks) == len(labels) == len(loaded["gt_bboxes"])
        for mask, label in zip(masks, labels, strict=True):
            assert (semantic[mask > 0] == label + 1).all()
        expected = np.where(semantic == 0, 8, semantic - 1)  # the background is the last class
        assert (loaded["gt_seg_map"] == expected).all()
        assert (masks.sum(0) == (semantic > 0)).all()
        objects += len(masks)
    assert objects > 24


def test_they_are_made_once_and_are_of_their_data(shapes):
    root, _ = shapes
    before = (root / "panoptic/panoptic_val.json").stat()
    assert write_panoptic(root) == root / "panoptic"
    assert (root / "panoptic/panoptic_val.json").stat() == before
    content = json.loads((root / "panoptic/shapes_panoptic.json").read_text())
    assert content["shapes"] == json.loads((root / "shapes.json").read_text())
    (root / "panoptic/shapes_panoptic.json").write_text(json.dumps(dict(content, version=0)))
    with pytest.raises(FileExistsError, match="panoptic was made from .*'version': 0"):
        write_panoptic(root)
    (root / "panoptic/shapes_panoptic.json").write_text(json.dumps(content))


def test_ids_show_the_colors_of_the_classes():
    palette = [(0, 0, 0), (250, 100, 20)]
    ids = segment_ids([1, 0, 1, 1], palette)
    assert len(set(ids)) == 4 and 0 not in ids
    colors = id2rgb(np.array(ids)).astype(int)
    assert colors[0].tolist() == [250, 100, 20]
    assert (abs(colors[2:] - palette[1]) <= 40).all() and (colors[1] <= 40).all()
    assert rgb2id(colors).tolist() == ids == segment_ids([1, 0, 1, 1], palette)


META = dict(classes=("cog", "sky"), thing_classes=("cog",), stuff_classes=("sky",), palette=[(1, 2, 3), (4, 5, 6)])


def content():
    segment = dict(id=5, category_id=1, area=4, bbox=[0, 0, 2, 2], iscrowd=0)
    return dict(
        images=[dict(id=1, file_name="a.jpg", width=4, height=4)],
        annotations=[dict(image_id=1, file_name="a.png", segments_info=[segment, dict(segment, id=6, category_id=2)])],
        categories=[dict(id=1, name="cog", isthing=1), dict(id=2, name="sky", isthing=0)],
    )


def open_file(folder, changed):
    (folder / "panoptic.json").write_text(json.dumps(changed))
    return CocoPanopticDataset(
        ann_file="panoptic.json", data_root=str(folder), data_prefix=dict(img="i/", seg="s/"), metainfo=META
    )


def test_valid_file(tmp_path):
    (entry,) = open_file(tmp_path, content())
    assert entry["seg_map_path"] == f"{tmp_path}/s/a.png"
    assert [segment["category"] for segment in entry["segments_info"]] == [0, 1]
    assert len(entry["instances"]) == 1


def changed(path, value):
    result = item = content()
    *parents, last = path
    for key in parents:
        item = item[key]
    item[last] = value
    return result


SEGMENT = ("annotations", 0, "segments_info", 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "a dict with the lists images, annotations, categories"),
        (changed(("images", 0, "width"), "4"), "images: entry 0 has no field width of type int"),
        (changed(("categories", 1), dict(id=2, name="sky")), "categories: entry 1 has no field isthing of type int"),
        (changed((*SEGMENT, "bbox"), None), "segments_info: entry 0 has no field bbox of type list"),
        (changed((*SEGMENT, "area"), "4"), "segments_info: entry 0 has no field area of type number"),
        (changed((*SEGMENT, "bbox"), [1]), "image 1: a bbox must have four numbers"),
        (changed((*SEGMENT, "id"), 6), "image 1: the ids of its segments must differ and be from 1 to 16777215"),
        (changed((*SEGMENT, "id"), 0), "must differ and be from 1"),
        (changed((*SEGMENT, "category_id"), 9), "image 1: no category has the id 9"),
        (changed(("annotations", 0, "image_id"), 4), "annotation of image 4: no image has this id"),
        (changed(("annotations", 0, "file_name"), "b.png"), "file_name is 'b.png', must be 'a.png' as its image's"),
        (changed(("categories", 0, "name"), "nut"), "1 of the data set's 2 classes are not in .*: 'cog'"),
        (changed(("categories", 1, "isthing"), 1), "categories of things .* are 'cog', 'sky'; they must be .* 'cog'"),
    ],
)
def test_errors(tmp_path, wrong, message):
    with pytest.raises(UserError, match=message):
        open_file(tmp_path, wrong)

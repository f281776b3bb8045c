"""Readers of data sets, on small folders in the published layouts."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pe_dense.evaluation.data import object_boxes, segmentation_data, spair_pairs, write_shapes_pairs


def touch(root, *names, content=""):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_voc_lists(tmp_path):
    touch(tmp_path, "ImageSets/Segmentation/train.txt", content="a\nb\n")
    touch(tmp_path, "ImageSets/Segmentation/aug.txt", content="c\n")
    touch(tmp_path, "ImageSets/Segmentation/val.txt", content="v\n")
    data = segmentation_data("voc", tmp_path)
    assert [(image.name, mask.parent.name) for image, mask in data.train] == [
        (f"{name}.jpg", "SegmentationClassAug") for name in "abc"
    ]
    assert data.val == [(tmp_path / "JPEGImages/v.jpg", tmp_path / "SegmentationClass/v.png")]
    assert data.classes[0] == "background" and len(data.classes) == 21
    touch(tmp_path, "ImageSets/Segmentation/trainaug.txt", content="b\n")
    assert [image.name for image, _ in segmentation_data("voc", tmp_path).train] == ["b.jpg"]
    (tmp_path / "ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(ValueError, match=r"list .*val.txt cannot be read: No such file"):
        segmentation_data("voc", tmp_path)


def test_ade20k_and_cityscapes(tmp_path):
    touch(tmp_path, "images/training/a.jpg", "images/validation/b.jpg")
    data = segmentation_data("ade20k", tmp_path)
    assert data.val == [(tmp_path / "images/validation/b.jpg", tmp_path / "annotations/validation/b.png")]
    Image.fromarray(np.array([[0, 1], [150, 3]], np.uint8)).save(tmp_path / "labels.png")
    assert data.read_labels(tmp_path / "labels.png").tolist() == [[255, 0], [149, 2]]
    touch(tmp_path, "leftImg8bit/train/x/x_1_leftImg8bit.png")
    with pytest.raises(ValueError, match="has no images of the split val"):
        segmentation_data("cityscapes", tmp_path)
    touch(tmp_path, "leftImg8bit/val/y/y_1_leftImg8bit.png")
    data = segmentation_data("cityscapes", tmp_path)
    assert data.val[0][1] == tmp_path / "gtFine/val/y/y_1_gtFine_labelTrainIds.png" and not data.zero_is_ignored
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "color.png")
    with pytest.raises(ValueError, match="color.png is not a label map: it has 3 channels"):
        data.read_labels(tmp_path / "color.png")


VOC = """<annotation>{}</annotation>"""
OBJECT = """<object><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>11</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>
</object>"""


def test_voc_boxes_count_pixels_from_1(tmp_path):
    touch(tmp_path, "ImageSets/Main/trainval.txt", content="a\nb\n")
    touch(tmp_path, "Annotations/a.xml", content=VOC.format(OBJECT))
    touch(tmp_path, "Annotations/b.xml", content=VOC.format(""))
    ((path, boxes),) = object_boxes("voc07", tmp_path)
    assert path.name == "a.jpg" and boxes.tolist() == [[0, 10, 30, 40]]
    touch(tmp_path, "Annotations/b.xml", content=VOC.format("<object></object>"))
    with pytest.raises(ValueError, match="b.xml is not an annotation of PASCAL VOC"):
        object_boxes("voc07", tmp_path)


def test_coco20k_takes_listed_images_without_crowds(tmp_path):
    images = [dict(id=i, file_name=f"{i}.jpg", width=9, height=9) for i in range(3)]
    annotation = dict(category_id=1, area=4, segmentation=[])
    annotations = [
        dict(annotation, id=1, image_id=0, bbox=[1, 2, 3, 2], iscrowd=0),
        dict(annotation, id=2, image_id=0, bbox=[5, 5, 4, 2], iscrowd=1),
        dict(annotation, id=3, image_id=1, bbox=[6, 6, 1, 1], iscrowd=0),
    ]
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name="thing")])
    touch(tmp_path, "annotations/instances_train2014.json", content=json.dumps(content))
    touch(tmp_path, "coco_20k_filenames.txt", content="train2014/0.jpg\ntrain2014/2.jpg\n")
    ((path, boxes),) = object_boxes("coco20k", tmp_path)
    assert path == tmp_path / "train2014/0.jpg" and boxes.tolist() == [[1, 2, 4, 4]]


@pytest.fixture(scope="module")
def pairs_root(tmp_path_factory):
    return write_shapes_pairs(tmp_path_factory.mktemp("pairs") / "data", num_pairs=6, image_size=64)


def test_generated_pairs_show_the_same_places(pairs_root):
    """Colors around corresponding points agree, up to brightness and noise, better than around others."""
    apart = []
    for pair in spair_pairs(pairs_root):
        both = (pair.source.keypoints[:, 2] > 0) & (pair.target.keypoints[:, 2] > 0)
        assert both.sum() >= 3
        colors = []
        for end in (pair.source, pair.target):
            pixels = torch.from_numpy(np.array(Image.open(end.path), dtype=np.float32))
            x, y = end.keypoints[both, :2].long().T
            colors.append(pixels[y, x] / pixels[y, x].mean())
        distances = torch.cdist(*colors)
        apart.append(distances.diagonal().mean() < distances.mean())
    assert sum(apart) >= 5


def test_draws_do_not_depend_on_files_or_other_classes(pairs_root):
    everything = spair_pairs(pairs_root)
    drawn = spair_pairs(pairs_root, per_class=1)
    assert len(everything) == 6 and len({pair.category for pair in drawn}) == len(drawn)
    assert [p.source.path for p in drawn] == [p.source.path for p in spair_pairs(pairs_root, per_class=1)]


def test_images_with_different_numbers_of_keypoints(pairs_root, tmp_path):
    import shutil

    root = shutil.copytree(pairs_root, tmp_path / "copy")
    pair = spair_pairs(root)[0]
    path = root / "ImageAnnotation" / pair.category / f"{pair.target.path.stem}.json"
    note = json.loads(path.read_text())
    note["kps"] = {"0": note["kps"]["0"], "9": [1, 2]}
    path.write_text(json.dumps(note))
    pair = spair_pairs(root)[0]
    assert len(pair.source.keypoints) == len(pair.target.keypoints) == 10
    assert pair.target.keypoints[9].tolist() == [1, 2, 1] and pair.source.keypoints[9].tolist() == [0, 0, 0]


def test_no_pairs(tmp_path):
    with pytest.raises(ValueError, match=r"PairAnnotation/test contains no pairs \(\*.json\)"):
        spair_pairs(tmp_path)

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.registry import DATASETS as MMDET_DATASETS

from pe_dense.datasets.synthetic import CLASSES
from pe_dense.datasets.synthetic.datasets import ShapesDataset, ShapesLVISDataset
from pe_dense.registry import DATASETS

COCO_FILES = dict(ann_file="annotations/instances_train.json", data_prefix=dict(img="train/"))
LVIS_FILES = dict(ann_file="annotations/lvis_train.json", data_prefix=dict(img=""))


@pytest.fixture(params=[(ShapesDataset, COCO_FILES), (ShapesLVISDataset, LVIS_FILES)], ids=["coco", "lvis"])
def kind(request):
    return request.param


def test_registered_for_every_scope(kind):
    cls, _ = kind
    assert DATASETS.get(cls.__name__) is cls
    assert MMDET_DATASETS.get(f"pe_dense.{cls.__name__}") is cls


def test_makes_its_data(kind, tmp_path):
    cls, files = kind
    tiny = dict(num_train=3, num_val=1, image_size=64)
    dataset = cls(data_root=str(tmp_path / "shapes"), generator=tiny, **files)
    assert len(dataset) == 3
    assert dataset.metainfo["classes"] == CLASSES
    assert len(dataset.metainfo["palette"]) == len(CLASSES)
    with pytest.raises(FileExistsError, match="'num_train': 3.*'num_train': 400"):
        cls(data_root=str(tmp_path / "shapes"), **files)


def test_lazy_construction_makes_nothing(kind, tmp_path):
    cls, files = kind
    cls(data_root=str(tmp_path / "shapes"), lazy_init=True, **files)
    assert list(tmp_path.iterdir()) == []


def test_default_root(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cls, files = kind
    cls(generator=dict(num_train=1, num_val=1, image_size=64), **files)
    assert (tmp_path / "data/shapes/shapes.json").is_file()


def test_instances_agree_with_the_class_map(kind, small_shapes):
    cls, files = kind
    root, spec = small_shapes
    pipeline = [LoadImageFromFile(), LoadAnnotations(with_mask=True)]
    dataset = cls(data_root=str(root), generator=spec, pipeline=pipeline, **files)
    assert dataset.cat_ids == list(range(1, 9))
    seen = 0
    for index in range(len(dataset)):
        info, loaded = dataset.get_data_info(index), dataset[index]
        name = info["img_path"].rsplit("/", 1)[1]
        assert info["img_path"] == f"{root}/train/{name}"
        semantic = cv2.imread(f"{root}/semantic/train/{name}", cv2.IMREAD_UNCHANGED)
        masks = loaded["gt_masks"].masks  # (N, H, W)
        boxes, labels = loaded["gt_bboxes"].tensor.numpy(), loaded["gt_bboxes_labels"]
        assert len(masks) == len(boxes) == len(labels) and not loaded["gt_ignore_flags"].any()
        for mask, box, label in zip(masks, boxes, labels, strict=True):
            assert (semantic[mask > 0] == label + 1).all()
            y, x = np.nonzero(mask)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        seen += len(masks)
    assert seen > 24


def test_class_maps_come_as_segmentation(small_shapes):
    root, spec = small_shapes
    files = dict(COCO_FILES, data_prefix=dict(img="train/", seg="semantic/train/"))
    info = ShapesDataset(data_root=str(root), generator=spec, **files).get_data_info(2)
    assert info["seg_map_path"] == f"{root}/semantic/train/000002.png"

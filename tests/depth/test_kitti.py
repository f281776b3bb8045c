"""KITTI in Eigen's split: lists, folders and preflight checks."""

import cv2
import numpy as np
import pytest
from helpers.depth_folders import kitti_files, write_kitti
from mmengine.registry import init_default_scope

from pe_dense.depth import KITTIDepthDataset
from pe_dense.engine.preflight import check_images
from pe_dense.utils.errors import ConfigError, InputError

LOAD = [dict(type="pe_dense.LoadImage"), dict(type="pe_dense.LoadDepthMap", depth_rescale_factor=1 / 256)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("kitti")
    write_kitti(root, size=(20, 30))
    return root


def dataset(root, split="train"):
    init_default_scope("mmseg")
    return KITTIDepthDataset(f"kitti_eigen_{split}.txt", data_root=str(root), pipeline=LOAD)


def test_pairs_of_the_list(root):
    """Depth maps are found in the folders of the benchmark's own split; images without one are left out."""
    for split, folder in (("train", "val"), ("test", "train")):
        data = dataset(root, split)
        assert len(data) == 2
        names = [(item["img_path"], item["depth_map_path"]) for item in (data.get_data_info(i) for i in range(2))]
        assert names == sorted(
            (str(root / "input" / image), str(root / "data_depth_annotated" / folder / depth))
            for image, depth in kitti_files(split)
        )
        check_images(data)


def test_meters(root):
    """16 bits, meters times 256; 0 is unknown."""
    item = dataset(root)[0]
    stored = cv2.imread(item["depth_map_path"], cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16 and (stored == 0).any()
    np.testing.assert_array_equal(item["gt_depth_map"], stored / 256)


def test_errors(root, tmp_path):
    (tmp_path / "kitti_eigen_train.txt").write_text("a.png b.png 721.5\n\nonly.png\n")
    with pytest.raises(InputError, match=r"kitti_eigen_train\.txt, line 3: expected `<image> .*, got 'only\.png'"):
        dataset(tmp_path)
    with pytest.raises(InputError, match=r"list .*kitti_eigen_test\.txt cannot be read"):
        dataset(tmp_path, "test")
    lines = (root / "kitti_eigen_train.txt").read_text().replace("0001_sync/proj", "0009_sync/proj")
    (root / "kitti_eigen_other.txt").write_text(lines)
    with pytest.raises(
        ConfigError, match=r"2 of 2 depth maps that .*other\.txt lists do not exist, the first is .*ted/20"
    ):
        check_images(dataset(root, "other"))

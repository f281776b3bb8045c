"""Training transforms of depth estimation."""

import numpy as np
import pytest

from pe_dense.depth import CropBottomCenter, CropBox, GammaBrightnessColor


def test_crop_of_the_border():
    image = np.stack(np.meshgrid(np.arange(480), np.arange(640), indexing="ij"), axis=-1)  # each pixel is its place
    results = dict(img=image, gt_depth_map=image[..., 0], seg_fields=["gt_depth_map"], img_shape=(480, 640))
    results = CropBox(box=(43, 45, 608, 472))(results)
    assert results["img_shape"] == results["img"].shape[:2] == results["gt_depth_map"].shape == (427, 565)
    assert results["img"][0, 0].tolist() == [45, 43] and results["img"][-1, -1].tolist() == [471, 607]
    assert results["gt_depth_map"][0, 0] == 45
    with pytest.raises(ValueError, match=r"a\.jpg has 100 x 50 px, which does not contain the crop box \(43, 45"):
        CropBox(box=(43, 45, 608, 472))(dict(img=image[:50, :100], img_path="a.jpg"))


def test_crop_of_kitti():
    """352 x 1216 of 375 x 1242 px: rows from 23 and columns from 13; images without maps stay whole."""
    image = np.stack(np.meshgrid(np.arange(375), np.arange(1242), indexing="ij"), axis=-1)
    results = dict(img=image, gt_depth_map=image[..., 1], seg_fields=["gt_depth_map"], ori_shape=(375, 1242))
    results = CropBottomCenter()(results)
    assert results["img_shape"] == results["ori_shape"] == results["img"].shape[:2] == (352, 1216)
    assert results["img"][0, 0].tolist() == [23, 13] and results["img"][-1, -1].tolist() == [374, 1228]
    assert results["gt_depth_map"][0, 0] == 13
    assert CropBottomCenter()(dict(img=image, seg_fields=[]))["img"].shape == (375, 1242, 2)
    with pytest.raises(ValueError, match=r"a\.png has 1200 x 375 px, less than the crop of 1216 x 352 px"):
        CropBottomCenter()(dict(img=image[:, :1200], img_path="a.png", seg_fields=["gt_depth_map"]))


def test_gamma_on_other_units():
    """102 to the power of 1.1 and 0.9 on values in 0..255."""
    np.random.seed(0)
    transform = GammaBrightnessColor(prob=1.0, brightness=(1, 1), color=(1, 1), unit=1.0)
    drawn = [transform(dict(img=np.full((1, 1, 3), 102, np.uint8)))["img"][0, 0, 0] for _ in range(500)]
    assert 102**0.9 <= min(drawn) < 66 and 158 < max(drawn) <= 102**1.1


def test_gamma_brightness_and_color():
    np.random.seed(0)
    image = np.full((2, 2, 3), 102, dtype=np.uint8)
    transform = GammaBrightnessColor(prob=0.5)
    drawn = np.stack([transform(dict(img=image))["img"][0, 0] for _ in range(2000)])
    assert drawn.dtype == np.float32 and (image == 102).all()
    changed = drawn[(drawn != 102).any(1)]
    assert 0.45 < len(changed) / 2000 < 0.55
    # 0.4 to the power of 1.1 or 0.9, darkest and brightest
    assert changed.min() > 255 * 0.4**1.1 * 0.75 * 0.9 - 0.1 and changed.max() < 255 * 0.4**0.9 * 1.25 * 1.1 + 0.1
    ratios = changed[:, 0] / changed[:, 1]
    assert ratios.min() < 0.87 and ratios.max() > 1.15  # each channel has its own factor

"""Cropped masks, and outlines of masks."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle

from pe_dense.runtime.masks import CroppedMasks, joined_outline, outlines, union

MASKS = np.zeros((3, 20, 30), bool)
MASKS[0, 3:7, 4:9] = MASKS[0, 7:9, 6:8] = MASKS[0, 15:18, 20:25] = True
MASKS[1, 0, 0] = True  # the last one is empty


def test_cropped_masks_are_the_array():
    masks = CroppedMasks.of(MASKS)
    assert masks.shape == MASKS.shape and len(masks) == 3
    assert (np.asarray(masks) == MASKS).all()
    assert (masks[0] == MASKS[0]).all()
    assert (np.asarray(masks[[2, 0]]) == MASKS[[2, 0]]).all()
    assert (np.asarray(masks[np.array([False, True, False])]) == MASKS[1:2]).all()
    assert masks.crop(0)[0].shape == (15, 21) and masks.crop(0)[1] == (3, 4)
    moved = masks.shifted(2, 5, (40, 50))
    assert (moved[0][2:22, 5:35] == MASKS[0]).all() and moved[0].sum() == MASKS[0].sum()


def test_union_of_crops():
    whole, corner = union([(np.ones((2, 3), bool), (5, 1)), (np.ones((1, 2), bool), (4, 6))])
    assert corner == (4, 1)
    assert whole.astype(int).tolist() == [[0, 0, 0, 0, 0, 1, 1], [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]]


def test_outlines_run_along_the_edges_of_pixels():
    large, small = outlines(*CroppedMasks.of(MASKS).crop(0))
    assert {tuple(point) for point in small} == {(20, 15), (25, 15), (25, 18), (20, 18)}
    assert large.min(0).tolist() == [4, 3] and large.max(0).tolist() == [9, 9]
    assert outlines(MASKS[2]) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_joined_outline_encloses_the_mask(seed):
    """Blobs of several parts, rasterized by pycocotools."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(60, 80)), (0, 0), 4)
    mask = cv2.morphologyEx((noise > 0.06).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3)))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(mask, contours, -1, 1, -1)  # holes are filled
    polygons = outlines(mask.astype(bool))
    assert len(polygons) > 2
    joined = joined_outline(polygons).ravel().tolist()
    assert (rle.decode(rle.frPyObjects([joined], 60, 80)[0]) == mask).all()
    rough = outlines(mask.astype(bool), tolerance=1.0)
    assert sum(map(len, rough)) < 0.7 * sum(map(len, polygons))

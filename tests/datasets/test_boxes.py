"""Boxes that cannot be used for training."""

import math

import pytest

from pe_dense.datasets.boxes import box_fault, clip_box


@pytest.mark.parametrize(
    ("box", "area", "fault"),
    [
        ([0, 0, 30, 20], 600, None),
        ([29, 19, 1, 1], 1, None),
        ([-5, -5, 100, 100], 10, None),
        ([5, 5, 0, 4], 3, "of zero area"),
        ([5, 5, 4, -2], 3, "of zero area"),
        ([5, 5, 4, 4], 0, "of zero area"),
        ([30, 5, 4, 4], 16, "outside of the image"),
        ([-4, 5, 4, 4], 16, "outside of the image"),
        ([5, 100, 4, 4], 16, "outside of the image"),
        ([5, 5, 0.5, 4], 2, "less than a pixel wide or high"),
        ([29.5, 5, 9, 9], 81, "less than a pixel wide or high"),
        ([5, 5, 4], 16, "not four numbers"),
        ([5, 5, 4, None], 16, "not four numbers"),
        ([5, math.nan, 4, 4], 16, "not four numbers"),
    ],
)
def test_faults(box, area, fault):
    assert box_fault(box, area, width=30, height=20) == fault


def test_clipping_keeps_what_is_in_the_image():
    assert clip_box([-5, 4, 20, 30], 30, 20) == [0, 4, 15, 16]
    assert clip_box([25, -3, 20, 10], 30, 20) == [25, 0, 5, 7]
    inside = [0.1, 0.2, 0.7, 0.1]
    assert clip_box(inside, 30, 20) == inside  # to the last bit

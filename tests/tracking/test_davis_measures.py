"""J, F and their summaries over a video, computed by hand."""

import math

import numpy as np
import pytest

from pe_dense.tracking.davis_eval import contour, contour_accuracy, region_similarity, summarize


def square(top, left, side, shape=(60, 80)):
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


EMPTY = square(0, 0, 0)


@pytest.mark.parametrize(
    ("predicted", "truth", "region", "accuracy"),
    [
        (square(10, 10, 20), square(10, 10, 20), 1.0, 1.0),
        (EMPTY, EMPTY, 1.0, 1.0),
        (EMPTY, square(10, 10, 20), 0.0, 0.0),
        (square(10, 10, 20), EMPTY, 0.0, 0.0),
        # 60 x 80 px have a diagonal of 100, so contours match within ceil(0.8) = 1 px
        (square(10, 11, 20), square(10, 10, 20), 19 / 21, 1.0),
        (square(10, 10, 10), square(40, 40, 10), 0.0, 0.0),
        (np.ones((60, 80), bool), np.ones((60, 80), bool), 1.0, 1.0),
    ],
)
def test_pairs(predicted, truth, region, accuracy):
    assert region_similarity(predicted, truth) == pytest.approx(region)
    assert contour_accuracy(predicted, truth) == pytest.approx(accuracy)


def test_contour_accuracy_counts_pixels():
    """Contours of squares of 4 and 20 px at one corner: both sides next to it match, and a pixel around it."""
    small, large = square(20, 20, 4), square(20, 20, 20)
    # A square of side s has a contour of 4 s pixels: one outside at the top and left, its own last at the others'.
    assert [np.count_nonzero(contour(mask)) for mask in (small, large)] == [16, 80]
    ours, theirs = contour(small), contour(large)
    near = [np.zeros_like(ours), np.zeros_like(ours)]
    for edge, grown in zip((theirs, ours), near, strict=True):
        for y, x in np.argwhere(edge):
            for dy, dx in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):  # within 1 px
                grown[y + dy, x + dx] = True
    precision, recall = (ours & near[0]).sum() / 16, (theirs & near[1]).sum() / 80
    assert 0 < recall < precision < 1
    assert contour_accuracy(small, large) == pytest.approx(2 * precision * recall / (precision + recall))


def test_tolerance_is_a_share_of_the_diagonal_rounded_up():
    """480 x 854 px: ceil(0.008 * 979.7) = 8 px."""
    assert math.ceil(0.008 * math.hypot(480, 854)) == 8
    truth = np.zeros((480, 854), bool)
    truth[:, 400:] = True
    for shift, expected in ((8, 1.0), (9, 0.0)):
        assert contour_accuracy(np.roll(truth, shift, 1) & truth, truth) == expected


def test_contours_at_the_border():
    mask = square(40, 60, 20)  # reaches the last row and column
    assert not contour(np.ones((4, 4), bool)).any()
    edge = contour(mask)
    assert edge[59, 59] and edge[39, 79] and not edge[59, 79]
    assert np.count_nonzero(edge) == 41  # 20 and 20 along two sides, and their corner


def test_summary():
    """Nine values: quarters of 0..2, 2..4, 4..6 and 6..8."""
    values = np.array([0.9, 0.9, 0.6, 0.5, 0.5, 0.5, 0.3, 0.3, 0.0])
    mean, recall, decay = summarize(values)
    assert mean == pytest.approx(4.5 / 9)
    assert recall == pytest.approx(3 / 9)  # 0.5 itself is not above
    assert decay == pytest.approx(2.4 / 3 - 0.6 / 3)


def test_summary_rounds_the_ends_of_quarters_half_up():
    """Seven values: ends at 1, 2.5, 4, 5.5, 7, so the first quarter has three values, the last two."""
    assert summarize(np.array([0.9, 0.6, 0.3, 0.0, 0.0, 0.1, 0.2]))[2] == pytest.approx(0.6 - 0.15)


def test_summary_of_a_single_frame():
    assert summarize(np.array([0.75])) == (0.75, 1.0, 0.0)

"""Depth errors computed by hand."""

import math

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from pe_dense.depth import DepthMetric


def sample(predicted, true):
    result = SegDataSample(
        pred_depth_map=PixelData(data=torch.tensor([predicted])), gt_depth_map=PixelData(data=torch.tensor([true]))
    )
    return result.to_dict()


FIRST = sample([[1.0, 4.0, 9.0]], [[2.0, 4.0, 0.0]])  # an unknown pixel
SECOND = sample([[5.0, 3.0, 2.0]], [[4.0, 3.0, 20.0]])  # one beyond the range
EMPTY = sample([[1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0]])


def evaluate(samples, size=None):
    metric = DepthMetric(min_depth_eval=1e-3, max_depth_eval=10.0)
    metric.process({}, samples)
    return metric.evaluate(size or len(samples))


def test_errors_are_averaged_over_images():
    found = evaluate([FIRST, SECOND])
    # off by (-1, 0) and (1, 0) meters of (2, 4) and (4, 3)
    assert found["rmse"] == pytest.approx(math.sqrt(1 / 2))
    assert found["abs_rel"] == pytest.approx((1 / 2 / 2 + 1 / 4 / 2) / 2)
    assert found["d1"] == pytest.approx((0.5 + 0.5) / 2)  # a factor of 1.25 is not less than 1.25
    assert found["log10"] == pytest.approx((math.log10(2) / 2 + math.log10(1.25) / 2) / 2)


def test_images_seen_twice_count_once():
    assert evaluate([FIRST, SECOND, FIRST], size=2) == evaluate([FIRST, SECOND])


def test_images_without_depth_are_left_out():
    assert evaluate([FIRST, EMPTY, SECOND]) == evaluate([FIRST, SECOND])
    with pytest.raises(ValueError, match=r"none of 1 images has a pixel with a depth in 0\.001\.\.10\.0 m"):
        evaluate([EMPTY])


@pytest.mark.parametrize(
    ("crop", "shape", "box"),
    [
        ("nyu_crop", (480, 640), (45, 471, 41, 601)),
        ("garg_crop", (352, 1216), (143, 349, 43, 1172)),  # of 143.65, 349.15, 43.71, 1172.29
        ("garg_crop", (375, 1242), (153, 371, 44, 1197)),
    ],
)
def test_crops(crop, shape, box):
    """An error of 1 m at each edge inside, of 5 m outside, which does not count."""
    top, bottom, left, right = box
    true = torch.full(shape, 20.0)
    predicted = true + 5
    predicted[top:bottom, left:right] = 20.0
    predicted[[top, bottom - 1], :] += 1
    predicted[top + 1 : bottom - 1, [left, right - 1]] += 1
    pixels = (bottom - top) * (right - left)
    metric = DepthMetric(min_depth_eval=1e-3, max_depth_eval=80.0, crop_type=crop)
    metric.process({}, [sample(predicted.tolist(), true.tolist())])
    edges = pixels - (bottom - top - 2) * (right - left - 2)
    assert metric.evaluate(1)["rmse"] == pytest.approx(math.sqrt(edges / pixels))


def test_an_unknown_crop():
    with pytest.raises(ValueError, match="crop_type is 'eigen', must be None, 'nyu_crop' or 'garg_crop'"):
        DepthMetric(crop_type="eigen")


def test_only_errors_are_collected():
    metric = DepthMetric(max_depth_eval=10.0)
    metric.process({}, [FIRST, EMPTY])
    assert [sorted(found) if found else found for found in metric.results] == [sorted(metric.METRICS), None]

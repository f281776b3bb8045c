"""Mean IoU computed by hand."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from pe_dense.segmentation import IoUMetric

META = dict(classes=("a", "b", "c", "d"))


def sample(predicted, true):
    values = dict(pred_sem_seg=predicted, gt_sem_seg=true)
    result = SegDataSample()
    for name, labels in values.items():
        result.set_field(PixelData(data=torch.tensor([labels])), name)
    return result.to_dict()


def evaluate(samples, batch_size=1):
    metric = IoUMetric(class_table=False)
    metric.dataset_meta = META
    for start in range(0, len(samples), batch_size):
        metric.process({}, samples[start : start + batch_size])
    return metric.evaluate(len(samples))


SAMPLES = [
    sample([[0, 0, 1], [1, 1, 2]], [[0, 0, 0], [1, 1, 255]]),
    sample([[0, 2, 2], [2, 2, 1]], [[0, 0, 2], [2, 2, 2]]),
]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_by_hand(batch_size):
    """Class a: 3 of 5 true, none wrong: 3/5. b: 2 of 2, 2 wrong: 2/4. c: 3 of 4, 1 wrong: 3/5. d: nowhere."""
    found = evaluate(SAMPLES, batch_size)
    assert found["mIoU"] == pytest.approx(100 * (3 / 5 + 2 / 4 + 3 / 5) / 3)
    assert found["mAcc"] == pytest.approx(100 * (3 / 5 + 2 / 2 + 3 / 4) / 3)
    assert found["aAcc"] == pytest.approx(100 * 8 / 11)


def test_images_seen_twice_count_once():
    metric = IoUMetric(class_table=False)
    metric.dataset_meta = META
    metric.process({}, [*SAMPLES, SAMPLES[0]])  # the last fills up a process
    assert metric.evaluate(2) == evaluate(SAMPLES)


def test_every_pixel_counts():
    """2^25 + 3 pixels of which 2^25 are right: in float32 that would be all."""
    many = torch.tensor([2.0**24, 0, 0, 0])
    few = torch.tensor([3.0, 0, 0, 0])
    metric = IoUMetric(class_table=False)
    metric.dataset_meta = META
    none = torch.zeros(4)
    found = metric.compute_metrics([(many, many, many, many), (many, many, many, many), (none, few, none, few)])
    assert found["mIoU"] == pytest.approx(100 * 2**25 / (2**25 + 3), abs=1e-9)
    assert found["mIoU"] < 100

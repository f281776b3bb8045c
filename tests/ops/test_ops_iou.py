import pytest
import torch
from mmcv.ops import bbox_overlaps as mmcv_bbox_overlaps
from torchvision.ops import box_iou

from pe_dense.ops.nms import bbox_overlaps

FIRST = torch.tensor([[0.0, 0, 10, 10], [10, 10, 20, 20]])
SECOND = torch.tensor([[0.0, 0, 10, 20], [15, 15, 25, 25]])


@pytest.mark.parametrize(
    ("mode", "offset", "expected"),
    [
        ("iou", 0, [[100 / 200, 0], [0, 25 / 175]]),
        ("iof", 0, [[100 / 100, 0], [0, 25 / 100]]),
        # Sides grow by one: 11 x 11 of 11 x 21; 1 x 11 touching; 6 x 6 of two 11 x 11.
        ("iou", 1, [[121 / 231, 0], [11 / (121 + 231 - 11), 36 / (242 - 36)]]),
        ("iof", 1, [[121 / 121, 0], [11 / 121, 36 / 121]]),
    ],
)
def test_by_hand(mode, offset, expected):
    expected = torch.tensor(expected)
    torch.testing.assert_close(mmcv_bbox_overlaps(FIRST, SECOND, mode=mode, offset=offset), expected)
    aligned = mmcv_bbox_overlaps(FIRST, SECOND, mode=mode, aligned=True, offset=offset)
    torch.testing.assert_close(aligned, expected.diagonal())


def test_against_torchvision():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(30, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + torch.rand(30, 2, generator=generator) * 40], dim=1)
    expected = box_iou(boxes[:20], boxes[20:])
    assert (expected > 0).sum() > 20
    torch.testing.assert_close(mmcv_bbox_overlaps(boxes[:20], boxes[20:]), expected)


def test_zero_area():
    point = torch.tensor([[5.0, 5, 5, 5]])
    assert mmcv_bbox_overlaps(point, FIRST).tolist() == [[0, 0]]
    assert mmcv_bbox_overlaps(point, point).isnan().all()
    assert mmcv_bbox_overlaps(point, point, offset=1).tolist() == [[1]]


def test_half_precision_does_not_overflow():
    box = torch.tensor([[0, 0, 400, 400]], dtype=torch.float16)  # 160000 px^2 > 65504
    assert mmcv_bbox_overlaps(box, box / 2).tolist() == [[0.25]]


def test_no_boxes():
    assert mmcv_bbox_overlaps(FIRST[:0], SECOND).shape == (0, 2)
    ious = torch.zeros(0, 2)
    bbox_overlaps(FIRST[:0], SECOND, ious, mode=0, aligned=False, offset=0)


def test_rejects_other_modes():
    with pytest.raises(ValueError, match="got 2"):
        bbox_overlaps(FIRST, SECOND, torch.zeros(2, 2), mode=2, aligned=False, offset=0)

"""Low-quality matches as in Detectron2."""

import torch

from pe_dense.detection import MaxIoUAssigner


def test_low_quality_match_keeps_the_object_it_overlaps_most():
    # Prior 0 is object 0's best (0.4), but overlaps object 1 more (0.5); prior 1 is object 1's best and clear.
    overlaps = torch.tensor([[0.4, 0.1, 0.0], [0.5, 0.8, 0.0]])
    assigner = MaxIoUAssigner(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.0)
    result = assigner.assign_wrt_overlaps(overlaps, torch.tensor([7, 9]))
    assert result.gt_inds.tolist() == [2, 2, 0]
    assert result.labels.tolist() == [9, 9, -1]


def test_images_without_objects():
    assigner = MaxIoUAssigner(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.0)
    result = assigner.assign_wrt_overlaps(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    assert result.gt_inds.tolist() == [0, 0, 0]

"""Scores on tables small enough to compute by hand."""

import numpy as np
import pytest
import torch

from pe_dense.evaluation.scores import (
    box_ious,
    corloc,
    count_pairs,
    hungarian_miou,
    iou_matrix,
    many_to_one_miou,
    mean_iou,
)


def test_pairs_are_counted_without_ignored_pixels():
    predicted = torch.tensor([[0, 0, 1], [2, 2, 2]])
    truth = torch.tensor([[0, 1, 1], [1, 255, 0]], dtype=torch.uint8)
    assert count_pairs(predicted, truth, 3, 2).tolist() == [[1, 1], [0, 1], [1, 1]]
    with pytest.raises(ValueError, match=r"labels range from 0 to 1, but there are 1 classes: allowed are 0..0"):
        count_pairs(predicted, truth, 3, 1)


def test_mean_iou_counts_absent_classes_as_0():
    counts = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert iou_matrix(counts).diagonal().tolist() == [0.75, 0.8, 0.0]
    assert mean_iou(counts) == pytest.approx((0.75 + 0.8) / 3)


def test_hungarian_matching_swaps_labels_and_gives_the_rest_to_class_0():
    assert hungarian_miou(torch.tensor([[0, 5], [5, 0]])) == 1.0
    # The third label matches no class, so that it counts as class 0: 5 / (5 + 2) and 5 / (5 + 2).
    assert hungarian_miou(torch.tensor([[0, 5], [5, 0], [0, 2]])) == pytest.approx(5 / 7)


def test_many_clusters_of_a_class():
    counts = torch.tensor([[4, 0], [3, 1], [0, 6], [1, 9]])
    assert many_to_one_miou(counts) == pytest.approx((7 / 9 + 15 / 17) / 2)
    # A cluster with a majority of class 1 that overlaps class 0 more in relation to its size.
    counts = torch.tensor([[9, 10], [0, 90], [1, 0]])
    assert many_to_one_miou(counts, "iou") == pytest.approx((10 / 20 + 90 / 100) / 2)
    assert many_to_one_miou(counts, "precision") == pytest.approx((1 / 10 + 100 / 109) / 2)
    with pytest.raises(ValueError, match="by='size' is not 'precision' or 'iou'"):
        many_to_one_miou(counts, "size")


def test_corloc_takes_the_best_box():
    box = np.array([0.0, 0, 10, 10])
    boxes = np.array([[0.0, 0, 10, 5], [20, 20, 30, 30], [0, 0, 10, 4.9]])
    assert box_ious(box, boxes) == pytest.approx([0.5, 0, 0.49], abs=1e-6)
    assert corloc([box, box], [boxes[[1]], np.array([[0.0, 0, 10, 9]])]) == 0.5

"""Soft-NMS against a plain loop."""

import pytest
import torch
from helpers.soft_nms_loop import crowded_boxes, soft_nms_loop

from pe_dense.detection.deta import soft_nms


def assert_as_the_loop(boxes, scores, labels, **options):
    kept, lowered = soft_nms(boxes, scores, labels, **options)
    expected, expected_scores = soft_nms_loop(boxes, scores, labels, **options)
    assert sorted(kept.tolist()) == sorted(expected.tolist())
    ours, theirs = torch.zeros(len(boxes)), torch.zeros(len(boxes))
    ours[kept], theirs[expected] = lowered, expected_scores
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert (lowered.diff() <= 0).all()
    return kept, lowered


@pytest.mark.parametrize(
    ("count", "classes", "objects"), [(2000, 91, 150), (600, 1, 4), (400, 1, 1), (500, 3, 500), (1, 2, 1)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_loop(count, classes, objects, seed):
    boxes, scores, labels = crowded_boxes(count, classes, objects, seed)
    kept, lowered = assert_as_the_loop(boxes, scores, labels)
    if count > 1 and objects < count:
        assert (lowered < scores[kept]).any(), "nothing overlaps: the case tests nothing"


@pytest.mark.parametrize(
    "options", [dict(iou_threshold=0.3), dict(iou_threshold=0.9), dict(min_score=0.2), dict(quad_scale=0.4)]
)
def test_options(options):
    boxes, scores, labels = crowded_boxes(500, 5, 20)
    kept, lowered = assert_as_the_loop(boxes, scores, labels, **options)
    assert len(kept) != 500 or not torch.equal(lowered, soft_nms(boxes, scores, labels)[1])


def test_the_decay():
    """IoU of 0.8: 8 of 10 px wide boxes; the worse score times sqrt(1 - 0.8). Another class is left alone."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 8, 10], [0, 0, 8, 10]])
    kept, scores = soft_nms(boxes, torch.tensor([0.9, 0.5, 0.4]), torch.tensor([1, 1, 0]))
    assert kept.tolist() == [0, 2, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.4, 0.5 * 0.2**0.5])


def test_the_best_box_is_always_kept():
    """As in the published code, which drops boxes after their scores were lowered only."""
    kept, scores = assert_as_the_loop(
        torch.tensor([[0.0, 0, 10, 10], [50, 0, 60, 10]]), torch.tensor([2e-4, 5e-4]), torch.zeros(2), min_score=0.001
    )
    assert kept.tolist() == [1] and scores.tolist() == pytest.approx([5e-4])


def test_equal_scores_and_equal_boxes():
    """The first of equals wins; a copy keeps a score of 0 and is dropped."""
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3 + [[0.0, 0, 10, 9]])
    kept, scores = assert_as_the_loop(boxes, torch.full((4,), 0.5), torch.zeros(4, dtype=torch.long))
    assert kept.tolist() == [0, 3] and scores[0] == 0.5


@pytest.mark.parametrize("score", [-0.1, float("nan")])
def test_scores_that_are_none(score):
    boxes, scores, labels = crowded_boxes(5, 1, 1)
    scores[2] = score
    with pytest.raises(ValueError, match=f"the lowest score is {score:g}; soft-NMS needs scores from 0 to 1"):
        soft_nms(boxes, scores, labels)


def test_scores_given_stay_as_they_are():
    boxes, scores, labels = crowded_boxes(50, 2, 3)
    before = scores.clone()
    soft_nms(boxes, scores, labels)
    assert torch.equal(scores, before)


@pytest.mark.parametrize("boxes", [torch.zeros(0, 4), torch.zeros(3, 4), torch.tensor([[5.0, 5, 5, 9]] * 2)])
def test_nothing_and_boxes_without_area(boxes):
    scores = torch.rand(len(boxes)) + 0.1
    kept, lowered = soft_nms(boxes, scores, torch.zeros(len(boxes), dtype=torch.long))
    assert sorted(kept.tolist()) == list(range(len(boxes)))
    assert torch.equal(lowered, scores.sort(descending=True).values)

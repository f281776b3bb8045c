"""Classification loss of the LVIS detectors."""

import json
import math

import pytest
import torch
from helpers.annotated_folder import content, square

from pe_dense.detection import FederatedLoss
from pe_dense.detection.federated_loss import image_counts


def bce(logit, target):
    return math.log1p(math.exp(-logit)) if target else math.log1p(math.exp(logit))


def test_all_classes_by_hand():
    logits = torch.tensor([[0.5, -1.0, 2.0, 9.0], [1.5, 0.0, -0.5, -9.0]])
    labels = torch.tensor([1, 3])  # class 1, background
    expected = bce(0.5, 0) + bce(-1.0, 1) + bce(2.0, 0) + bce(1.5, 0) + bce(0.0, 0) + bce(-0.5, 0)
    for num_sampled in (None, 4, 100):
        loss = FederatedLoss(3, num_sampled)(logits, labels)
        assert loss.item() == pytest.approx(expected / 2, rel=1e-6)
    assert FederatedLoss(3, None)(logits, labels, avg_factor=4).item() == pytest.approx(expected / 4, rel=1e-6)
    assert FederatedLoss(3, None, loss_weight=3.0)(logits, labels).item() == pytest.approx(3 * expected / 2, rel=1e-6)
    weighted = FederatedLoss(3, None)(logits, labels, torch.tensor([1.0, 0.0]))
    assert weighted.item() == pytest.approx((bce(0.5, 0) + bce(-1.0, 1) + bce(2.0, 0)) / 2, rel=1e-6)


def test_classes_without_images_are_never_drawn_and_the_background_counts(tmp_path):
    counts = [4, 0, 9, 1, 0, 16]
    ann_file = tmp_path / "lvis.json"
    categories = [dict(id=i + 1, name=str(i), image_count=count) for i, count in enumerate(counts)]
    ann_file.write_text(json.dumps(dict(categories=categories, annotations=[], images=[])))
    loss = FederatedLoss(6, num_sampled=4, ann_file=str(ann_file))
    labels = torch.tensor([0, 6, 6])  # class 0 and background: two more are drawn of 2, 3 and 5
    torch.manual_seed(0)
    draws = [frozenset(loss._classes_of_batch(labels).tolist()) for _ in range(600)]
    assert all(len(draw) == 3 and 0 in draw and draw <= {0, 2, 3, 5} for draw in draws)
    # Left out is: 3 (weight 1), 2 (3) or 5 (4). P(left out 3) = 3/8 * 4/5 + 4/8 * 3/4 = 0.675
    assert sum(3 not in draw for draw in draws) / 600 == pytest.approx(0.675, abs=0.06)
    # Without background there is room for one more.
    assert all(len(loss._classes_of_batch(torch.tensor([0]))) == 4 for _ in range(5))


def test_present_classes_always_take_part():
    loss = FederatedLoss(6, num_sampled=2)
    assert sorted(loss._classes_of_batch(torch.tensor([5, 1, 4, 6])).tolist()) == [1, 4, 5]


def test_gradient_reaches_only_the_drawn_classes():
    logits = torch.zeros(2, 7, requires_grad=True)
    FederatedLoss(6, num_sampled=2)(logits, torch.tensor([3, 6])).backward()
    assert logits.grad[:, 3].abs().min() > 0
    assert logits.grad[:, [0, 1, 2, 4, 5, 6]].abs().max() == 0


def test_counts_are_made_where_the_file_has_none(tmp_path):
    ann_file = tmp_path / "own.json"
    annotations = content(("a", "b", "c"), ["0.png", "1.png"], [square(4, 6, 20)] * 2)
    for annotation, image, category in zip(annotations["annotations"], (0, 0, 1, 1), (2, 2, 2, 1), strict=True):
        annotation.update(image_id=image, category_id=category)
    ann_file.write_text(json.dumps(annotations))
    assert image_counts(ann_file) == [1, 2, 0]


def test_another_number_of_classes_names_both(tmp_path):
    ann_file = tmp_path / "lvis.json"
    ann_file.write_text(json.dumps(content(("a",), ["0.png"])))
    loss = FederatedLoss(3, ann_file=str(ann_file))  # reads nothing yet
    with pytest.raises(ValueError, match="lvis.json has 1 classes, but the model has 3"):
        loss(torch.zeros(1, 4), torch.tensor([0]))


def test_scores_and_accuracy():
    loss = FederatedLoss(2)
    logits = torch.tensor([[2.0, 1.0, 5.0], [0.0, 1.0, 5.0], [3.0, 0.0, 0.0]])
    assert loss.get_cls_channels(2) == 3
    assert torch.equal(loss.get_activation(logits), logits.sigmoid())
    assert loss.get_accuracy(logits, torch.tensor([0, 0, 2]))["acc_classes"] == 50.0
    assert loss.get_accuracy(logits, torch.tensor([2, 2, 2]))["acc_classes"] == 0.0
    with pytest.raises(ValueError, match="reduction_override='none'"):
        loss(logits, torch.tensor([0, 0, 2]), reduction_override="none")

"""Label propagation: comparison with a plain loop, context frames, invalid input."""

import pytest
import torch
from helpers.propagation_loop import propagate_dense, propagate_loop

from pe_dense.tracking import PropagationContext
from pe_dense.tracking.label_propagation import harden_labels, propagate, share_labels

SETTINGS = dict(radius=3, topk=5, temperature=0.1)


def context(height, width, *, frames=3, channels=8, classes=3):
    generator = torch.Generator().manual_seed(height)
    features = torch.nn.functional.normalize(
        torch.randn(frames + 1, height, width, channels, generator=generator), dim=-1
    )
    return features[0], features[1:], torch.rand(frames, classes, height, width, generator=generator).softmax(1)


@pytest.mark.parametrize("change", [{}, dict(radius=0), dict(topk=1), dict(topk=1000), dict(temperature=0.5)], ids=str)
def test_equals_a_loop_over_patches(change):
    given, settings = context(5, 7), SETTINGS | change
    torch.testing.assert_close(propagate(*given, **settings), propagate_loop(*given, **settings), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(5, 7), (16, 32), (19, 35), (40, 17)])
@pytest.mark.parametrize("radius", [0, 2, 12])
def test_equals_all_pairs_at_once(size, radius):
    given, settings = context(*size), SETTINGS | dict(radius=radius)
    torch.testing.assert_close(propagate(*given, **settings), propagate_dense(*given, **settings), atol=1e-6, rtol=0)


@pytest.mark.parametrize("radius", [1, 3])
def test_circular_neighborhood(radius):
    query, keys, labels = context(9, 20)
    found = propagate(query, keys, labels, **SETTINGS | dict(radius=radius), neighborhood="circle")
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(20.0), indexing="ij")
    for row, column in ((0, 0), (4, 17), (8, 3)):
        near = ((rows - row) ** 2 + (columns - column) ** 2).sqrt() <= radius
        weights = torch.exp(keys[:, near].flatten(0, 1) @ query[row, column] / SETTINGS["temperature"])
        weights = torch.where(weights >= weights.topk(5).values[-1], weights, 0.0)
        expected = labels[:, :, near].transpose(0, 1).flatten(1) @ (weights / weights.sum())
        torch.testing.assert_close(found[:, row, column], expected, atol=1e-6, rtol=0)


def test_equal_patches_count_together():
    """All patches are alike, so that all of the neighborhood are as good as the fifth: the mean of 3 x 3 labels."""
    features = torch.ones(1, 5, 5, 4) / 2
    labels = torch.arange(25.0).view(1, 1, 5, 5)
    soft = propagate(features[0], features, labels, radius=1, topk=5, temperature=0.1)
    assert soft[0, 2, 2] == pytest.approx(12.0)
    assert soft[0, 0, 0] == pytest.approx((0 + 1 + 5 + 6) / 4)


def test_low_temperatures_take_the_nearest():
    query, keys, labels = context(6, 6)
    soft = propagate(query, keys, labels, radius=0, topk=5, temperature=1e-6)
    nearest = (query.flatten(0, 1) @ keys.flatten(0, 2).T).argmax(dim=1)
    torch.testing.assert_close(soft.flatten(1), labels.transpose(0, 1).flatten(1)[:, nearest], atol=1e-3, rtol=0)


@pytest.mark.parametrize("num_last_frames", [0, 1, 3])
def test_context_is_the_first_frame_and_the_last_ones(num_last_frames):
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(9, 4, 6, 8, generator=generator), dim=-1)
    maps = [torch.rand(2, 4, 6, generator=generator).softmax(0)]
    run = PropagationContext(features[0], maps[0], num_last_frames=num_last_frames, **SETTINGS)
    for frame in range(1, 9):
        used = sorted({0, *range(max(frame - num_last_frames, 0), frame)})
        expected = propagate_dense(features[frame], features[used], torch.stack([maps[i] for i in used]), **SETTINGS)
        maps.append(run.propagate(features[frame]))
        torch.testing.assert_close(maps[-1], expected, atol=1e-6, rtol=0)


def test_length_of_features_does_not_matter():
    query, keys, labels = context(6, 6)
    runs = [PropagationContext(scale * keys[0], labels[0], radius=2) for scale in (1.0, 7.0)]
    torch.testing.assert_close(runs[0].propagate(query), runs[1].propagate(0.1 * query), atol=1e-6, rtol=0)


def test_hardening_rescales_each_class():
    """The second class never wins, yet where it is strongest it is 1 of its own range."""
    soft = torch.tensor([[[0.9, 0.6, 0.9]], [[0.1, 0.4, 0.1]]])
    assert harden_labels(soft, 1).tolist() == [[0, 1, 0]]


def test_hardening_a_class_that_is_everywhere_alike():
    soft = torch.stack([torch.ones(2, 2), torch.zeros(2, 2)])
    assert harden_labels(soft, 4).tolist() == [[0] * 8] * 8


def test_share_labels_takes_the_patches_centers():
    labels = torch.zeros(4, 4, dtype=torch.uint8)
    labels[3, 3], labels[0, 0] = 2, 1  # of four pixels along an axis, 1 and 3 are taken for two patches
    assert share_labels(labels.numpy(), 4, (2, 2)).argmax(0).tolist() == [[0, 0], [0, 2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(topk=0), "topk must be at least 1, got 0"),
        (dict(radius=-1), "radius must be at least 0, got -1"),
        (dict(num_last_frames=-1), "num_last_frames must be at least 0, got -1"),
        (dict(temperature=0.0), "temperature must be above 0, got 0.0"),
        (dict(neighborhood="disc"), "neighborhood 'disc' is not one of square, circle"),
        (dict(labels=torch.ones(1, 3, 4)), r"features and labels differ: \(3, 3\) vs \(3, 4\)"),
    ],
)
def test_bad_arguments(change, message):
    given = dict(features=torch.ones(3, 3, 2), labels=torch.ones(1, 3, 3))
    with pytest.raises(ValueError, match=message):
        PropagationContext(**{**given, **change})

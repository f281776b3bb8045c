"""Label propagation and J&F against recordings of the published implementations."""

import numpy as np
import pytest
import torch
from helpers.recordings import Recording, by_recording
from helpers.tiny_towers import tiny_tower

from pe_dense.tracking import LabelPropagator, PropagationContext, contour_accuracy, region_similarity
from pe_dense.tracking.label_propagation import harden_labels, share_labels


@by_recording("label_propagation*.npz")
def test_golden_propagation(path):
    golden = Recording(path)
    config, expected = golden.config, golden["soft"]  # (T - 1, K, h, w)
    grid = tuple(config["grid"])
    features = golden["features"].unflatten(1, grid)  # (T, h, w, C)
    run = PropagationContext(
        features[0],
        share_labels(golden["first_labels"].numpy(), expected.shape[1], grid),
        num_last_frames=config["n_last_frames"],
        radius=config["size_mask_neighborhood"],
        topk=config["topk"],
        temperature=config["temperature"],
    )
    for frame, soft, labels in zip(features[1:], expected, golden["labels"], strict=True):
        found = run.propagate(frame)
        torch.testing.assert_close(found, soft, atol=1e-5, rtol=0)
        differing = (harden_labels(found, config["patch_size"]) != labels).float().mean()
        assert differing <= 1e-4


@by_recording("dinov3_propagation*.npz")
def test_golden_dinov3_propagation(path):
    golden = Recording(path)
    config, features, mask = golden.config, golden["features"], golden["first_mask"].numpy()
    first = share_labels(mask, config["classes"], tuple(features.shape[1:3]))
    assert torch.equal(first.permute(1, 2, 0), golden["first"])
    run = PropagationContext(
        features[0],
        first,
        num_last_frames=config["context"],
        radius=config["neighbourhood"],
        neighborhood=config["shape"],
        topk=config["topk"],
        temperature=config["temperature"],
    )
    tower = tiny_tower()
    model = LabelPropagator(tower, upsampling="nearest")
    for frame, soft, labels in zip(features[1:], golden["soft"], golden["labels"], strict=True):
        found = run.propagate(frame)
        torch.testing.assert_close(found.permute(1, 2, 0), soft, atol=1e-5, rtol=0)
        assert np.array_equal(model._harden(found, tuple(config["out_size"])), labels)


def unpacked(golden, name):
    count, height, width = golden["shape"].tolist()
    bits = np.unpackbits(golden[name].numpy())[: count * height * width]
    return bits.reshape(count, height, width).astype(bool)


@by_recording("jf_metric*.npz")
def test_golden_jf(path):
    golden = Recording(path)
    pairs = list(zip(unpacked(golden, "segmentations"), unpacked(golden, "annotations"), strict=True))
    assert [region_similarity(*pair) for pair in pairs] == pytest.approx(golden["J"].tolist(), abs=1e-12)
    assert [contour_accuracy(*pair) for pair in pairs] == pytest.approx(golden["F"].tolist(), abs=1e-12)

"""Dense k-NN: labels of patches, sampled memory, search in blocks."""

import pytest
import torch
import torch.nn.functional as F

from pe_dense.evaluation import knn_segmentation
from pe_dense.evaluation.knn_segmentation import PatchMemory, knn_labels, label_shares, largest, sample_patches


def data(images=5, channels=6, grid=4, patch=3, classes=3):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(images, channels, grid, grid, generator=generator)
    labels = torch.randint(classes, (images, grid * patch, grid * patch), generator=generator)
    return features, labels


def test_shares_leave_out_ignored_pixels_or_count_them_as_a_class():
    labels = torch.tensor([[[0, 0, 255, 255], [1, 0, 255, 255]]])
    shares, valid = label_shares(labels, 2, (1, 2))
    assert shares.tolist() == [[[0.75, 0.25], [0, 0]]] and valid.tolist() == [[True, False]]
    shares, valid = label_shares(labels, 2, (1, 2), ignored_class=0)
    assert shares.tolist() == [[[0.75, 0.25], [1, 0]]] and valid.all()
    with pytest.raises(ValueError, match=r"labels of \(2, 4\) px do not divide into 2 x 3 patches"):
        label_shares(labels, 2, (2, 3))
    with pytest.raises(ValueError, match="labels have class 1, but there are 1 classes"):
        label_shares(labels, 1, (1, 2))


def test_patches_of_rare_classes_are_preferred():
    shares = torch.tensor([[[1.0, 0], [1, 0], [1, 0], [0, 1], [0.5, 0.5]]])
    valid = torch.tensor([[True, True, True, True, True]])
    assert sample_patches(shares, valid, torch.full((1, 5), 0.5), 1).tolist() == [[3]]
    assert sample_patches(shares, valid.clone().index_fill_(1, torch.tensor(3), False), torch.ones(1, 5), 9)[0, -1] == 3


@pytest.mark.parametrize("blocks", [(2, 7), (1000, 5), (3, 1000)])
def test_search_in_blocks_equals_a_full_one(blocks, monkeypatch):
    monkeypatch.setattr(knn_segmentation, "_QUERIES", blocks[0])
    monkeypatch.setattr(knn_segmentation, "_ENTRIES", blocks[1])
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(11, 6, generator=generator), torch.randn(40, 6, generator=generator)
    keys, labels = F.normalize(keys, dim=1), torch.rand(40, 3, generator=generator)
    cosines = F.normalize(queries, dim=1) @ keys.T
    top = cosines.topk(9, dim=1)
    expected = ((top.values / 0.1).softmax(1)[..., None] * labels[top.indices]).sum(1)
    found = knn_labels(queries, keys, labels, k=9, temperature=0.1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    everything = knn_labels(queries, keys, labels, k=99, temperature=0.1)
    torch.testing.assert_close(everything, (cosines / 0.1).softmax(1) @ labels, atol=1e-6, rtol=0)


@pytest.mark.parametrize("room", [None, 3])
def test_memory_does_not_depend_on_batches(room):
    features, labels = data()
    entries = []
    for size in (1, 2, 5):
        memory = PatchMemory(3, room, capacity=None if size == 1 else 90)
        for start in range(0, len(features), size):
            memory.add(features[start : start + size], labels[start : start + size])
        entries.append(memory.entries())
    assert len(entries[0][0]) == 5 * (room or 16)
    for found in entries[1:]:
        torch.testing.assert_close(found, entries[0])
    other = PatchMemory(3, 3, seed=1)
    other.add(features, labels)
    assert room is None or not torch.equal(other.entries()[0], entries[0][0])


def test_memory_without_labels_or_room():
    memory = PatchMemory(3)
    memory.add(torch.ones(1, 2, 2, 2), torch.full((1, 4, 4), 255))
    with pytest.raises(ValueError, match="no patch of the training images has a label"):
        memory.entries()
    with pytest.raises(ValueError, match="the memory has room for 0 patches of an image"):
        PatchMemory(3, 0)


@pytest.mark.parametrize("count", [100, 1024, 1500, 4099])
def test_largest_entries_are_those_of_topk(count):
    values = torch.randn(5, count, generator=torch.Generator().manual_seed(count))
    values[0, -1] = 9  # after the last whole chunk
    found, indices = largest(values, 3)
    expected = values.topk(3, dim=1)
    assert torch.equal(found, expected.values) and torch.equal(indices, expected.indices)

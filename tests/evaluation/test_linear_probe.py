"""Training of linear heads on features."""

import torch

from pe_dense.evaluation.linear_probe import train_head
from pe_dense.segmentation.head import LinearHead, upsampled_cross_entropy


def loss(logits, labels):
    return upsampled_cross_entropy(logits, labels)


def test_a_class_that_a_channel_encodes_is_learned():
    labels = torch.randint(3, (12, 4, 4), generator=torch.Generator().manual_seed(0))
    features = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    head, again = (
        train_head(lambda: LinearHead(3, 1, 3), features, labels.repeat_interleave(2, 1).repeat_interleave(2, 2), **o)
        for o in (dict(loss=loss, steps=60), dict(loss=loss, steps=60))
    )
    assert not head.training
    assert torch.equal(head([features]).argmax(1), labels)
    assert torch.equal(head.conv_seg.weight, again.conv_seg.weight)


def test_random_numbers_outside_are_not_used():
    features, labels = torch.randn(4, 3, 2, 2), torch.zeros(4, 4, 4, dtype=torch.long)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train_head(lambda: LinearHead(3, 1, 2, dropout_ratio=0.5), features, labels, loss=loss, steps=2)
    assert torch.equal(torch.rand(3), expected)

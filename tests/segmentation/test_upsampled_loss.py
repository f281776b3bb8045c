"""Upsampled cross-entropy equals upsampling and cross-entropy."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from pe_dense.segmentation import LinearHead, head, upsampled_cross_entropy


def plain(logits, labels):
    large = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(large, labels, ignore_index=255, reduction="sum") / labels.numel()


def example(down, right, dtype=torch.float64, scale=1.0):
    torch.manual_seed(0)
    logits = (scale * torch.randn(2, 5, 3, 4, dtype=dtype)).requires_grad_()
    labels = torch.randint(0, 5, (2, 3 * down, 4 * right))
    labels[torch.rand(labels.shape) < 0.2] = 255
    return logits, labels


@pytest.mark.parametrize("chunk", [1, 100, 2**18])
@pytest.mark.parametrize("factors", [(1, 1), (2, 2), (7, 7), (16, 16), (3, 4)], ids=str)
def test_value_and_gradient(factors, chunk, monkeypatch):
    monkeypatch.setattr(head, "_CHUNK_OF_A_THREAD", chunk)
    logits, labels = example(*factors)
    loss, expected = upsampled_cross_entropy(logits, labels), plain(logits, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (3 * loss, 3 * expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


def test_weights_of_classes():
    """As mmseg's loss with weights, which is PyTorch's."""
    logits, labels = example(8, 8)
    weight = torch.tensor([1.0, 0.5, 3.0, 0.0, 2.0], dtype=torch.float64)
    large = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    expected = F.cross_entropy(large, labels, weight=weight, ignore_index=255)
    loss = upsampled_cross_entropy(logits, labels, class_weight=weight)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)
    head = LinearHead(4, 1, num_classes=5, class_weight=weight.tolist())
    assert "class_weight" not in head.state_dict()
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels[:1]))
    found = head.loss_by_feat(logits[:1].float(), [sample])["loss_ce"]
    torch.testing.assert_close(found, F.cross_entropy(large[:1], labels[:1], weight=weight, ignore_index=255).float())
    with pytest.raises(ValueError, match="class_weight has 2 entries for 5 classes"):
        LinearHead(4, 1, num_classes=5, class_weight=[1.0, 2.0])


def test_large_logits_in_float32():
    logits, labels = example(8, 8, torch.float32, scale=1e4)
    loss = upsampled_cross_entropy(logits, labels)
    torch.testing.assert_close(loss, plain(logits, labels), rtol=1e-5, atol=0)
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_half_precision_is_computed_in_float32():
    logits, labels = example(4, 4, torch.float32)
    loss = upsampled_cross_entropy(logits.bfloat16(), labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain(logits.bfloat16().float(), labels))


def test_nothing_but_ignored_pixels():
    logits, labels = example(4, 4)
    loss = upsampled_cross_entropy(logits, torch.full_like(labels, 255))
    assert loss == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_another_label_to_ignore():
    logits, labels = example(4, 4)
    changed = labels.clone()
    changed[labels == 255] = 4
    expected = plain(logits, labels.masked_fill(labels == 4, 255))
    torch.testing.assert_close(upsampled_cross_entropy(logits, changed, ignore_index=4), expected)


def test_labels_must_be_whole_multiples():
    with pytest.raises(ValueError, match="labels of 24 x 31 px are not a multiple of logits of 3 x 4"):
        upsampled_cross_entropy(torch.zeros(1, 2, 3, 4), torch.zeros(1, 24, 31, dtype=torch.long))

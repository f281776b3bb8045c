"""Depth heads: range, start, and pixels without depth."""

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from pe_dense.depth import DPTDepthHead, LinearDepthHead


def samples(truth):
    return [SegDataSample(gt_depth_map=PixelData(data=depth)) for depth in truth]


HEADS = {
    "linear": lambda **options: LinearDepthHead(8, 1, num_bins=16, **options),
    "dpt": lambda **options: DPTDepthHead(8, 1, channels=8, **options),
}


@pytest.mark.parametrize("name", HEADS)
def test_depth_stays_in_range(name):
    torch.manual_seed(0)
    head = HEADS[name](min_depth=2.0, max_depth=6.0)
    torch.nn.init.normal_(head.conv_seg.weight, std=30.0)
    depth = head([torch.randn(2, 8, 4, 4)])
    assert 2.0 <= depth.min() < 3.5
    assert 4.5 < depth.max() <= 6.0
    torch.nn.init.zeros_(head.conv_seg.weight)
    torch.testing.assert_close(head([torch.randn(2, 8, 4, 4)]), torch.full_like(depth, 4.0))


def test_bins_by_hand():
    """Logits 2 and -1 on bins of 1 and 5 m: shares of 2.1 and 0.1."""
    head = LinearDepthHead(1, 1, min_depth=1.0, max_depth=5.0, num_bins=2).eval()
    with torch.no_grad():
        head.conv_seg.weight.zero_()
        head.conv_seg.bias.copy_(torch.tensor([2.0, -1.0]))
        depth = head([torch.zeros(1, 1, 2, 2)])
    torch.testing.assert_close(depth, torch.full((1, 1, 8, 8), (2.1 * 1 + 0.1 * 5) / 2.2))


@pytest.mark.parametrize("name", HEADS)
def test_unknown_pixels_and_images_do_not_count(name):
    torch.manual_seed(0)
    head = HEADS[name]().eval()
    maps = torch.randn(2, 8, 4, 4)
    truth = 1 + torch.rand(2, 1, 16, 16)
    truth[0, :, :8] = 0
    truth[1] = 0
    loss = head.loss_by_feat(head([maps]), samples(truth))["loss_silog"]
    alone = head.loss_by_feat(head([maps[:1]]), samples(truth[:1]))["loss_silog"]
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)
    changed = truth.clone()
    changed[0, :, 8:] *= 1.5
    assert head.loss_by_feat(head([maps]), samples(changed))["loss_silog"] != loss


def test_nothing_known_is_no_loss():
    head = HEADS["linear"]()
    loss = head.loss_by_feat(head([torch.randn(2, 8, 4, 4)]), samples(torch.zeros(2, 1, 16, 16)))["loss_silog"]
    loss.backward()
    assert loss == 0
    assert not head.conv_seg.weight.grad.any()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (3.0, 2.0), (float("nan"), 1.0)])
def test_ranges_that_are_none(low, high):
    with pytest.raises(ValueError, match="no range of positive depths"):
        LinearDepthHead(8, 1, min_depth=low, max_depth=high)

import math

import pytest
import torch
from mmcv.ops import RoIPool
from mmcv.ops.roi_pool import roi_pool

from pe_dense.ops.roi_align import roi_pool_forward

# Index of the image, x1, y1, x2, y2 (inclusive): inside; over the borders; outside; ends before it starts; other image.
ROIS = torch.tensor(
    [
        [0.0, 1.3, 2.0, 9.0, 11.0],
        [0, -6, -3, 5, 40],
        [1, 100, 100, 120, 130],
        [0, 5, 1, 3.9, 6],
        [1, 0, 0, 15, 11],
    ]
)


def loop_roi_pool(maps, rois, bins, scale):
    height, width = maps.shape[2:]
    output = torch.zeros(len(rois), maps.shape[1], *bins, dtype=maps.dtype)
    for k, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
        if x2 <= x1 or y2 <= y1:
            continue
        for row in range(bins[0]):
            top = max(math.floor(y1 + row * (y2 - y1) / bins[0]), 0)
            bottom = min(math.ceil(y1 + (row + 1) * (y2 - y1) / bins[0]), height)
            for column in range(bins[1]):
                left = max(math.floor(x1 + column * (x2 - x1) / bins[1]), 0)
                right = min(math.ceil(x1 + (column + 1) * (x2 - x1) / bins[1]), width)
                if top < bottom and left < right:
                    region = maps[int(image), :, top:bottom, left:right]
                    output[k, :, row, column] = region.flatten(1).amax(1)
    return output


def random_maps(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("bins", [(1, 1), (3, 2), (7, 7)])
def test_forward_against_loop(bins):
    maps = random_maps(2, 3, 6, 8)
    expected = loop_roi_pool(maps, ROIS, bins, 0.5)
    assert (expected[[2, 3]] == 0).all() and (expected[[0, 1, 4]] != 0).any()
    torch.testing.assert_close(RoIPool(bins, 0.5)(maps, ROIS.double()), expected)


def test_forward_by_hand():
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    # Ends are inclusive: px 0 to 2, in bins of 1.5 px that reach to whole px, 0..2 and 1..3.
    assert roi_pool(maps, torch.tensor([[0.0, 0, 0, 2, 2]]), 2, 1.0).tolist() == [[[[5, 6], [9, 10]]]]
    # Negative features win over nothing.
    assert roi_pool(maps - 20, torch.tensor([[0.0, 0, 0, 0, 0]]), 1, 1.0).item() == -20


def test_bins_without_pixels_have_no_argmax():
    output, argmax = torch.full((1, 1, 1, 1), 5.0), torch.full((1, 1, 1, 1), 5, dtype=torch.int)
    roi_pool_forward(torch.ones(1, 1, 4, 4), ROIS[2:3] - torch.tensor([1.0, 0, 0, 0, 0]), output, argmax, 1, 1, 1.0)
    assert (output.item(), argmax.item()) == (0, -1)


def test_gradient():
    maps = random_maps(2, 2, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: roi_pool(maps, ROIS.double(), (2, 3), 0.5), maps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype):
    maps = random_maps(2, 3, 6, 8).to(dtype).requires_grad_()
    output = RoIPool((3, 2), 0.5)(maps, ROIS)
    assert output.dtype == dtype
    torch.testing.assert_close(output.double(), loop_roi_pool(maps.detach().double(), ROIS, (3, 2), 0.5))
    output.sum().backward()
    # Three regions with pixels; the second one's lowest bins, rows 13 to 20, lie below the 6 rows of its map.
    assert maps.grad.sum().item() == (output != 0).sum().item()


def test_no_regions():
    maps = random_maps(1, 3, 4, 4).requires_grad_()
    output = RoIPool((3, 2), 1.0)(maps, torch.zeros(0, 5))
    assert output.shape == (0, 3, 3, 2)
    output.sum().backward()
    assert (maps.grad == 0).all()

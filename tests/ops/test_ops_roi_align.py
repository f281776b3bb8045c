import math

import pytest
import torch
from mmcv.ops import RoIAlign
from mmcv.ops.roi_align import roi_align

from pe_dense.ops import roi_align as module
from pe_dense.ops.roi_align import roi_align_backward, roi_align_forward

# Index of the image, x1, y1, x2, y2: inside; over the borders; far outside; no area; narrow; in the other image.
ROIS = torch.tensor(
    [
        [0.0, 1.0, 2.0, 9.0, 11.0],
        [0, -6, -3, 5, 40],
        [1, 100, 100, 120, 130],
        [0, 4, 4, 4, 4],
        [1, 3.3, 1.2, 3.9, 12.1],
        [1, 0, 0, 16, 12],
    ]
)


def random_maps(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def sample_at(plane: list[list[float]], y: float, x: float) -> float:
    height, width = len(plane), len(plane[0])
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    value = 0.0
    for row, row_weight in ((top, 1 - y + top), (top + 1, y - top)):
        for column, column_weight in ((left, 1 - x + left), (left + 1, x - left)):
            if row_weight and column_weight:
                value += row_weight * column_weight * plane[row][column]
    return value


def loop_roi_align(maps, rois, bins, scale, sampling_ratio, mode, aligned):
    output = torch.zeros(len(rois), maps.shape[1], *bins, dtype=maps.dtype)
    for k, (image, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (side * scale - 0.5 * aligned for side in box)
        size = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1), max(x2 - x1, 1))
        step = [extent / count for extent, count in zip(size, bins, strict=True)]
        grid = [sampling_ratio or math.ceil(one) for one in step]
        for c, plane in enumerate(maps[int(image)].tolist()):
            for row in range(bins[0]):
                for column in range(bins[1]):
                    values = [
                        sample_at(
                            plane,
                            y1 + (row + (i + 0.5) / grid[0]) * step[0],
                            x1 + (column + (j + 0.5) / grid[1]) * step[1],
                        )
                        for i in range(grid[0])
                        for j in range(grid[1])
                    ]
                    if values:
                        output[k, c, row, column] = max(values) if mode == "max" else sum(values) / len(values)
    return output


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_forward_against_loop(mode, aligned, sampling_ratio):
    maps = random_maps(2, 3, 6, 8)
    rois = ROIS if aligned else ROIS[[0, 1, 2, 4, 5]]
    expected = loop_roi_align(maps.double(), rois.double(), (3, 2), 0.5, sampling_ratio, mode, aligned)
    assert (expected[2] == 0).all() and (expected[[0, 1]] != 0).any()
    output = RoIAlign((3, 2), 0.5, sampling_ratio, mode, aligned)(maps, rois)
    torch.testing.assert_close(output, expected.float(), atol=1e-5, rtol=1e-5)


def test_forward_by_hand():
    maps = torch.tensor([[[[1.0, 2], [3, 4]]]])
    roi = torch.tensor([[0.0, 0, 0, 2, 2]])
    # One bin, pixel centers at half px: samples fall on the four pixels.
    assert roi_align(maps, roi, (1, 1), 1.0, 2, "avg", True).item() == 2.5
    assert roi_align(maps, roi, (1, 1), 1.0, 2, "max", True).item() == 4
    # Not aligned, samples at 0.5 and 1.5, the latter beyond the last center: rows 2, 3 and columns 0.5, 1 on top.
    assert roi_align(maps, roi, (1, 1), 1.0, 2, "avg", False).item() == 1 + 2 * 0.75 + 0.75


def test_max_mode_returns_its_points():
    maps = torch.tensor([[[[1.0, 2], [9, 4]]]])
    output, y, x = torch.zeros(3, 1, 1, 1, 1)
    roi_align_forward(maps, torch.tensor([[0.0, 0, 0, 2, 2]]), output, y, x, 1, 1, 1.0, 2, 0, True)
    assert (output.item(), y.item(), x.item()) == (9, 1, 0)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradient(mode, aligned, sampling_ratio):
    maps = random_maps(2, 2, 5, 6, dtype=torch.float64).requires_grad_()
    rois = ROIS.double()
    assert torch.autograd.gradcheck(
        lambda maps: roi_align(maps, rois, (2, 2), 0.5, sampling_ratio, mode, aligned), maps
    )


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradient_by_products_equals_torchvision(aligned, sampling_ratio, monkeypatch):
    """Small maps use matrix products, larger ones torchvision's operator; one image has no regions."""
    generator = torch.Generator().manual_seed(1)
    corner, extent = torch.rand(2, 40, 2, generator=generator, dtype=torch.float64) * 24 - 2
    image = torch.randint(2, (40, 1), generator=generator) * 2
    rois = torch.cat([torch.cat([image, corner, corner + extent], dim=1), ROIS.double()[[0, 1, 3]]])
    weights = random_maps(43, 3, 7, 5, dtype=torch.float64)
    operator, called = torch.ops.torchvision._roi_align_backward, []
    monkeypatch.setattr(torch.ops.torchvision, "_roi_align_backward", lambda *a: called.append(1) or operator(*a))
    gradients = []
    monkeypatch.setattr(module, "_VALUES_OF_A_PART", 7 * 12 * 3 * 8)  # eight regions at once
    for limit in (10 * 12, 10 * 12 - 1):
        monkeypatch.setattr(module, "MAX_PIXELS_OF_PRODUCTS", limit)
        maps = random_maps(3, 3, 10, 12, dtype=torch.float64).requires_grad_()
        (roi_align(maps, rois, (7, 5), 0.5, sampling_ratio, "avg", aligned) * weights).sum().backward()
        gradients.append(maps.grad)
        assert len(called) == len(gradients) - 1
    assert (gradients[0][1] == 0).all() and gradients[0][[0, 2]].abs().max() > 1
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


def test_boxes_that_are_not_finite_have_no_gradient():
    rois = torch.tensor([[0.0, math.nan, 0, 2, 2], [0, 0, 0, math.inf, 2]])
    grad = torch.empty(1, 2, 4, 4)
    roi_align_backward(torch.ones(2, 2, 2, 2), rois, grad, grad, grad, 2, 2, 1.0, 0, 1, True)
    assert (grad == 0).all()


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_gradient_of_the_border_sample(mode):
    """A sample at exactly -1 takes the border's value, so the border gets its gradient."""
    maps = torch.ones(1, 1, 2, 2, requires_grad=True)
    output = roi_align(maps, torch.tensor([[0.0, -1.5, -1.5, -0.5, -0.5]]), (1, 1), 1.0, 1, mode, False)
    roi_align(maps, torch.tensor([[0.0, -1.0, -1.0, 0.0, 0.0]]), (1, 1), 1.0, 1, mode, True).backward()
    assert output.item() == 1
    assert maps.grad.tolist() == [[[[1, 0], [0, 0]]]]


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(mode, dtype):
    maps = random_maps(2, 3, 6, 8, dtype=dtype).requires_grad_()
    wide = maps.detach().float().requires_grad_()
    pool = RoIAlign((3, 2), 0.5, 2, mode)
    output, expected = pool(maps, ROIS), pool(wide, ROIS)
    assert output.dtype == dtype
    torch.testing.assert_close(output, expected.to(dtype))
    output.sum().backward()
    expected.sum().backward()
    assert maps.grad.dtype == dtype
    if mode == "avg":
        torch.testing.assert_close(maps.grad, wide.grad.to(dtype))
    else:  # mmcv keeps the points in the type of the maps
        torch.testing.assert_close(maps.grad.float(), wide.grad, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_autocast(mode):
    layer = torch.nn.Conv2d(3, 2, 1)
    maps = random_maps(2, 3, 6, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = RoIAlign(2, 0.5, 2, mode)(layer(maps), ROIS)
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16 and layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_no_regions(mode):
    maps = random_maps(1, 3, 4, 4).requires_grad_()
    output = RoIAlign((3, 2), 1.0, 0, mode)(maps, torch.zeros(0, 5))
    assert output.shape == (0, 3, 3, 2)
    output.sum().backward()
    assert (maps.grad == 0).all()


def test_rejects_other_modes():
    maps, rois, buffer = torch.zeros(1, 1, 2, 2), torch.zeros(1, 5), torch.zeros(1, 1, 1, 1)
    for operator in (roi_align_forward, roi_align_backward):
        with pytest.raises(ValueError, match="got 2"):
            operator(maps, rois, buffer, buffer, buffer, 1, 1, 1.0, 0, pool_mode=2, aligned=True)

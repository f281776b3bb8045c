"""The low-pass filter equals a direct convolution."""

import math

import torch
import torch.nn.functional as F

from pe_dense.visualization import low_pass


def test_equals_a_direct_convolution():
    maps = torch.randn(2, 5, 7, 9, generator=torch.Generator().manual_seed(0))
    kernel = torch.tensor([[math.exp(-(x * x + y * y) / 2) for x in (-1, 0, 1)] for y in (-1, 0, 1)])
    kernel = (kernel / kernel.sum()).expand(5, 1, 3, 3)
    blurred = F.conv2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), kernel, groups=5)
    torch.testing.assert_close(low_pass(maps), 0.5 * maps + 0.5 * blurred)


def test_an_impulse():
    maps = torch.zeros(1, 1, 5, 5)
    maps[0, 0, 2, 2] = 1.0
    # 1 + 4 exp(-1/2) + 4 exp(-1) = 4.8976: the center keeps 0.5 + 0.5 / 4.8976, a side gets 0.5 * 0.6065 / 4.8976.
    expected = [[0.0376, 0.0619, 0.0376], [0.0619, 0.6021, 0.0619], [0.0376, 0.0619, 0.0376]]
    torch.testing.assert_close(low_pass(maps)[0, 0, 1:4, 1:4], torch.tensor(expected), atol=5e-5, rtol=0)


def test_is_its_own_adjoint_and_keeps_sums():
    a, b = torch.randn(2, 1, 3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close((low_pass(a) * b).sum(), (a * low_pass(b)).sum())
    torch.testing.assert_close(low_pass(a).sum(), a.sum())


def test_a_single_token():
    torch.testing.assert_close(low_pass(torch.full((1, 2, 1, 1), 3.0)), torch.full((1, 2, 1, 1), 3.0))

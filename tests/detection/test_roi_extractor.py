"""Regions are pooled as by mmdet's extractor, but from exact boxes in mixed precision."""

import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor as MMDetExtractor

from pe_dense.detection import SingleRoIExtractor

FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


def extractor(kind, strides=(4, 8, 16), **layer):
    layer = dict(type="RoIAlign", output_size=(3, 5), sampling_ratio=0) | layer
    return kind(roi_layer=layer, out_channels=6, featmap_strides=list(strides), finest_scale=28)


def pyramid(strides=(4, 8, 16), side=128, dtype=torch.float32, memory_format=torch.contiguous_format):
    generator = torch.Generator().manual_seed(0)
    sides = [side // stride for stride in strides]
    maps = [torch.randn(3, 6, length, length, generator=generator).to(dtype) for length in sides]
    return [level.to(memory_format=memory_format).requires_grad_() for level in maps]


def regions(sizes, side=128.0):
    """Regions in the images 0 and 2, not sorted by image, of the given sizes in px."""
    generator = torch.Generator().manual_seed(1)
    extent = torch.tensor(sizes)[:, None] * (0.5 + torch.rand(len(sizes), 2, generator=generator))
    corner = torch.rand(len(sizes), 2, generator=generator) * (side - extent)
    image = (torch.arange(len(sizes)) % 2 * 2)[:, None]
    return torch.cat([image, corner, corner + extent], dim=1)


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize(
    ("strides", "sizes", "factor"),
    [
        ((4, 8, 16), [20.0, 90, 40, 110, 15, 60, 50], None),
        ((4, 8, 16), [20.0, 90, 40, 110, 15, 60, 50], 1.3),
        ((4, 8, 16), [20.0, 100, 25], None),  # none on the level in the middle
        ((8,), [20.0, 90, 40], None),
        ((4, 8), [], None),
    ],
    ids=["all levels", "rescaled", "an empty level", "one level", "no regions"],
)
def test_equals_mmdet(memory_format, mode, strides, sizes, factor):
    """Outputs and gradients in float32; the order of the regions and the memory format are kept."""
    rois, weights = regions(sizes), torch.randn(len(sizes), 6, 3, 5, generator=torch.Generator().manual_seed(2))
    results = []
    for kind in (MMDetExtractor, SingleRoIExtractor):
        levels = pyramid(strides, memory_format=memory_format)
        pooled = extractor(kind, strides, pool_mode=mode)(levels, rois, factor)
        (pooled * weights).sum().backward()
        results.append([pooled, *(level.grad for level in levels)])
    assert results[1][0].is_contiguous(memory_format=memory_format) or not sizes
    for expected, ours in zip(*results, strict=True):
        expected = torch.zeros_like(ours) if expected is None else expected
        torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-5)


def test_boxes_are_exact_in_bfloat16():
    """At 1024 px, pooling differs by the rounding of the features alone; mmdet moves boxes by up to 2 px."""
    rois = regions([24.0] * 40, side=1024.0)
    errors = {}
    for kind in (SingleRoIExtractor, MMDetExtractor):
        levels = pyramid(side=1024, dtype=torch.bfloat16)
        exact = extractor(kind)([level.float() for level in levels], rois)
        pooled = extractor(kind)(levels, rois)
        assert pooled.dtype == torch.bfloat16
        errors[kind] = ((pooled - exact).norm() / exact.norm()).item()
    assert errors[SingleRoIExtractor] < 0.004
    assert errors[MMDetExtractor] > 0.2


def test_features_can_be_changed_in_place():
    """As by a head that begins with an activation."""
    levels = pyramid(memory_format=torch.channels_last)
    torch.relu_(extractor(SingleRoIExtractor)(levels, regions([20.0, 90, 40, 110, 15, 60, 50]))).sum().backward()
    assert all(level.grad.abs().max() > 0 for level in levels)

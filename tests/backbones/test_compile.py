"""torch.compile: one graph per tower, also with dynamic sizes."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from pe_dense.backbones import PETower

TINY = dict(
    patch_size=4, width=32, layers=2, heads=2, mlp_ratio=2.0, image_size=16, use_ln_post=False, pool_type="none"
)
TOWERS = {
    "published": dict(),
    "with a class token": dict(arch=dict(TINY, use_cls_token=True)),
    "windows that fit": dict(window_size=2, global_blocks=(1,), pos_embed="tile", rope_reference_grid=4),
    "windows that need filling": dict(window_size=3, global_blocks=(1,), pos_embed="bicubic", rope_reference_grid=4),
    "any size": dict(pad_to_patch=True),
}


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(("name", "training"), [*((name, True) for name in TOWERS), ("published", False)])
def test_no_graph_break(name, training):
    """The other towers are evaluated below."""
    options = TOWERS[name]
    tower = PETower(**{"arch": TINY, "out_indices": (0, 1)} | options).train(training)
    compiled = CompileCounter()
    step = torch.compile(tower, backend=compiled, fullgraph=True)
    images = torch.randn(2, 3, 16, 24)
    with torch.set_grad_enabled(training):
        for expected, found in zip(tower(images), step(images), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        step(images)
    assert compiled.frame_count == 1


@pytest.mark.parametrize("options", TOWERS.values(), ids=TOWERS)
def test_one_graph_for_all_sizes(options):
    """With dynamic shapes, three sizes need one compilation, with the results of the eager tower.

    Sizes that are multiples of the window or the position grid use another code path; the sizes here use the same one.
    """
    tower = PETower(**{"arch": TINY} | options).eval()
    compiled = CompileCounter()
    step = torch.compile(tower, backend=compiled, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for side in (28, 40, 52) if options.get("window_size") == 3 else (24, 40, 56):
            images = torch.randn(2, 3, side, side + 16)
            (expected,), (found,) = tower(images), step(images)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert compiled.frame_count == 1

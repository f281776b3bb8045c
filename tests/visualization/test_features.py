"""Input sizes, and feature maps block by block."""

import pytest
import torch
from helpers.tiny_towers import ARCH, tiny_tower
from PIL import Image

from pe_dense.visualization.features import center_of, input_size, iter_intermediates, prepare, token_at


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [
        ((640, 480), 512, (512, 384)),
        ((640, 427), 448, (448, 294)),  # 427 * 448 / 640 = 298.9 is 21.35 patches
        ((8000, 300), 448, (448, 14)),  # a panorama keeps at least a patch
        ((5, 3), 448, (448, 266)),  # smaller than a patch: enlarged
        ((300, 500), 100, (56, 98)),
    ],
)
def test_input_size(size, long_side, expected):
    assert input_size(size, long_side, 14 if long_side != 512 else 16) == expected


def test_a_size_below_a_patch_is_refused():
    with pytest.raises(ValueError, match="size 12 is shorter than a patch of 14 px"):
        input_size((640, 480), 12, 14)


@pytest.mark.parametrize("options", [dict(), dict(arch=dict(ARCH, use_cls_token=True))])
def test_maps_equal_the_towers(options):
    tower = tiny_tower(out_indices=(0, 2), **options)
    images = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    maps = dict(iter_intermediates(tower, images, [-1, 0]))
    assert list(maps) == [0, 2]
    for mine, theirs in zip(maps.values(), tower(images), strict=True):
        assert torch.equal(mine, theirs)
        assert not mine.requires_grad


def test_larger_inputs_give_finer_maps():
    tower = tiny_tower()
    assert tower.image_size == 16
    for side in (16, 64):
        ((_, features),) = iter_intermediates(tower, prepare(Image.new("RGB", (60, 30)), tower, side), [-1])
        assert features.shape == (1, 32, side // 8, side // 4)


def test_points_and_tokens():
    assert token_at((0, 0), (640, 480), (24, 32)) == (0, 0)
    assert token_at((639.9, 479.9), (640, 480), (24, 32)) == (23, 31)
    assert token_at((100, 60), (640, 480), (24, 32)) == (3, 5)
    assert center_of((3, 5), (640, 480), (24, 32)) == (110.0, 70.0)
    with pytest.raises(ValueError, match=r"point 640,10 lies outside of the image of 640 x 480 px"):
        token_at((640, 10), (640, 480), (24, 32))

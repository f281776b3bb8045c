"""Attention maps match the computation of the blocks."""

import pytest
import torch
from helpers.tiny_towers import ARCH, tiny_tower
from torch import nn

from pe_dense.backbones.attention import Windows

CASES = {
    "published": dict(),
    "class token": dict(arch=dict(ARCH, use_cls_token=True)),
    "no rotary positions": dict(arch=dict(ARCH, use_rope2d=False)),
    "windows": dict(window_size=2, global_blocks=(1,), pos_embed="tile", rope_reference_grid=4),
    "windows that need filling": dict(window_size=3, global_blocks=(1,), pos_embed="tile", rope_reference_grid=4),
}


@pytest.fixture
def images():
    return torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize("token", [(0, 0), (3, 4)])
def test_gives_what_the_block_adds_to_a_token(images, options, token):
    """Values weighted by the map equal the output of the block's attention for that token.

    The output projection is set to the identity. Weights of a class token or of padding tokens are the rest to 1, and
    their values are known.
    """
    tower = tiny_tower(**options)
    entries = int(tower.config.use_cls_token)
    for number, block in enumerate(tower.transformer.resblocks):
        seen = {}
        block.attn.out_proj = nn.Identity()
        handle = block.register_forward_hook(lambda module, args, out, seen=seen: seen.update(x=args[0], rest=args[1:]))
        weights = tower.attention_maps(images, token, [number])[number]
        handle.remove()
        assert weights.shape == (2, 2, 4, 6)
        with torch.no_grad():
            x, (rope, windows) = seen["x"], seen["rest"]
            normed = block.ln_1(x)
            out = block.attn(normed if windows is None else windows.window_partition(normed), rope)
            values = normed @ block.attn.in_proj_weight[64:].T + block.attn.in_proj_bias[64:]
            if x.shape[1] > 1:  # tokens travel in windows that fit
                values = Windows(4, 6, tower.transformer.window_size).window_unpartition(values)
                out = Windows(4, 6, tower.transformer.window_size).window_unpartition(out)
            elif windows is not None:
                out = windows.window_unpartition(out)
            values = values[:, 0].unflatten(2, (2, 16))  # (B, tokens, heads, 16)
            maps = weights.flatten(2)  # (B, heads, tokens)
            expected = torch.einsum("bhn,bnhd->bhd", maps, values[:, entries:])
            rest = 1 - maps.sum(dim=2, keepdim=True)
            if entries:
                expected += rest * values[:, 0]
            else:
                expected += rest * block.attn.in_proj_bias[64:].view(2, 16)  # a filled-up token is 0 after ln_1
            place = entries + token[0] * 6 + token[1]
            torch.testing.assert_close(out[:, 0, place], expected.flatten(1), atol=1e-5, rtol=1e-4)


def test_tokens_of_other_windows_get_nothing(images):
    tower = tiny_tower(**CASES["windows"])
    maps = tower.attention_maps(images, (3, 4), [0, 1, -1])
    assert list(maps) == [0, 1, 2]
    inside = torch.zeros(4, 6, dtype=torch.bool)
    inside[2:4, 4:6] = True
    for block in (0, 2):
        assert (maps[block][..., ~inside] == 0).all()
        assert (maps[block][..., inside] > 0).all()
        torch.testing.assert_close(maps[block].sum(dim=(2, 3)), torch.ones(2, 2))
    assert (maps[1] > 0).all()


def test_blocks_run_once_and_no_further_than_asked(images):
    tower, ran = tiny_tower(), []
    for number, block in enumerate(tower.transformer.resblocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    assert list(tower.attention_maps(images, (0, 0), [1, 0])) == [0, 1]
    assert ran == [0, 1]


def test_the_class_token_looks_too(images):
    tower = tiny_tower(**CASES["class token"])
    weights = tower.attention_maps(images, None)[2]
    assert weights.shape == (2, 2, 4, 6)
    assert not torch.allclose(weights, tower.attention_maps(images, (0, 0))[2])
    assert (weights.sum(dim=(2, 3)) < 1).all()


@pytest.mark.parametrize(
    ("token", "blocks", "message"),
    [
        (None, [-1], "has no class token"),
        ((4, 0), [-1], r"token \(4, 0\) is outside the grid of 4 x 6"),
        ((0, -1), [-1], r"token \(0, -1\) is outside"),
        ((0, 0), [3], r"allowed are -3\.\.2"),
    ],
)
def test_bad_input(images, token, blocks, message):
    with pytest.raises(ValueError, match=message):
        tiny_tower().attention_maps(images, token, blocks)

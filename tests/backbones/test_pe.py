"""Behavior of PETower that recordings do not cover."""

import gc
import math

import pytest
import timm
import torch
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope

from pe_dense.backbones import PE_CONFIGS, PETower, TimmTower
from pe_dense.backbones.transformer import MAX_ROTARY_TABLES
from pe_dense.registry import MODELS

TINY = dict(patch_size=16, width=32, layers=4, heads=2, mlp_ratio=2.0, image_size=64, pool_type="none")


def tiny(seed=0, **options):
    torch.manual_seed(seed)
    arch = {**TINY, **options.pop("arch", {})}
    tower = PETower(arch, **options).eval()
    for block in tower.transformer.resblocks:
        block.attn.in_proj_weight.data *= 10  # as drawn, attention is so even that positions hardly matter
    return tower


def images(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_every_argument_changes_the_maps():
    """With the same weights and image, each option changes the features, so none is ignored."""
    image = images(1, 3, 96, 96)
    base = dict(window_size=4, global_blocks=(3,), rope_reference_grid=6, pos_embed="tile")
    reference = tiny(**base)(image)[0]
    changes = [
        dict(window_size=3),
        dict(global_blocks=(1, 3)),
        dict(rope_reference_grid=None),
        dict(rope_reference_grid=8),
        dict(img_size=32),
        dict(pos_embed="interpolate"),
        dict(pos_embed="bicubic"),
        dict(out_indices=(0,)),
    ]
    for change in changes:
        assert not torch.allclose(tiny(**{**base, **change})(image)[0], reference, atol=1e-4), change


@torch.no_grad()
def test_maps_are_block_outputs_in_the_requested_order():
    tower = tiny(out_indices=(-1, 0, 2))
    image = images(2, 3, 64, 48)
    maps = tower(image)
    assert [tuple(m.shape) for m in maps] == [(2, 32, 4, 3)] * 3
    for index, tap in zip((3, 0, 2), maps, strict=True):
        tokens = tower.forward_features(image, layer_idx=index)
        assert torch.equal(tap.flatten(2).transpose(1, 2), tokens)


def test_blocks_after_the_last_index_do_not_run():
    tower = tiny(out_indices=(1,))
    tower.transformer.resblocks[2].register_forward_hook(lambda *_: pytest.fail("block 2 ran"))
    tower(images(1, 3, 64, 64))


@pytest.mark.parametrize("index", [4, -5])
@pytest.mark.parametrize("argument", ["out_indices", "global_blocks"])
def test_block_out_of_range_prints_the_legal_range(argument, index):
    with pytest.raises(ValueError, match=rf"{argument}: block {index} .* -4\.\.3"):
        tiny(window_size=2, **{argument: (index,)})


def test_unknown_arch_lists_the_names():
    with pytest.raises(ValueError, match="Did you mean PE-Spatial-G14-448") as error:
        PETower("PE-Spatial-G14-44")
    assert all(name in str(error.value) for name in PE_CONFIGS)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (dict(TINY, depth=3), "Unknown tower fields depth. Known fields: .*layers"),
        (dict(width=32), "lacks patch_size, layers, heads, mlp_ratio"),
        (dict(TINY, heads=3), "width 32 is not a multiple of heads 3"),
        (dict(TINY, image_size=65), "image_size 65 is not a multiple of patch_size 16"),
        (dict(TINY, pool_type="max"), "'max' is not one of attn, tok, avg, none"),
        (dict(TINY, heads=16), "multiple of 4, got width 32 / heads 16 = 2"),
    ],
)
def test_bad_fields(arch, message):
    with pytest.raises(ValueError, match=message):
        PETower(arch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(pos_embed="nearest"), "'nearest' is not one of interpolate, bicubic, tile"),
        (dict(global_blocks=(1,)), "requires window_size"),
        (dict(out_indices=()), "out_indices is empty"),
        (dict(drop_path_schedule="cosine"), "'cosine' is not one of constant, linear"),
        (dict(arch=dict(use_cls_token=True), window_size=2, with_cls_token=True), "does not support a class token"),
    ],
)
def test_contradicting_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


@torch.no_grad()
def test_image_size():
    with pytest.raises(ValueError, match=r"50 x 70 px are not a multiple of the patch size 16: .* 48 x 64"):
        tiny()(images(1, 3, 50, 70))
    padded = torch.nn.functional.pad(images(1, 3, 50, 70), (0, 10, 0, 14))
    assert torch.equal(tiny(pad_to_patch=True)(images(1, 3, 50, 70))[0], tiny()(padded)[0])


@torch.no_grad()
@pytest.mark.parametrize("size", [(96, 96), (80, 112)])  # 6 x 6 divides into windows of 3, 5 x 7 needs padding
def test_windows_see_only_themselves(size):
    """With window attention in all blocks, a changed patch only affects its window."""
    tower = tiny(window_size=3)
    before = images(1, 3, *size)
    after = before.clone()
    after[:, :, 16:32, 64:80] += 1.0  # patch (1, 4), in the window of rows 0-2 and columns 3-5
    changed = (tower(before)[0] - tower(after)[0]).abs().amax(dim=(0, 1)) > 1e-6
    expected = torch.zeros_like(changed)
    expected[0:3, 3:6] = True
    assert torch.equal(changed, expected)


@torch.no_grad()
def test_window_order_equals_partition_in_every_block():
    """Keeping tokens partitioned over consecutive window blocks does not change results."""
    tower = tiny(window_size=2, global_blocks=(2,), rope_reference_grid=4)
    image = images(2, 3, 96, 64)
    kept = tower(image)[0]
    from pe_dense.backbones.attention import Windows

    fits = Windows.fits
    try:
        Windows.fits = property(lambda self: False)
        partitioned = tower(image)[0]
    finally:
        Windows.fits = fits
    torch.testing.assert_close(kept, partitioned, atol=1e-6, rtol=0)


def test_checkpointing_gives_the_same_gradients():
    plain, saving = (tiny(window_size=3, global_blocks=(3,), with_cp=with_cp, drop_path_rate=0.5) for with_cp in (0, 1))
    calls = []
    plain.train(), saving.train()
    saving.transformer.resblocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    for tower in (plain, saving):
        torch.manual_seed(3)
        tower(images(2, 3, 64, 64))[0].square().sum().backward()
    assert len(calls) == 2  # forward, and once more in backward
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        (dict(drop_path_rate=0.6), [0.6] * 4),  # the published tower
        (dict(arch=dict(drop_path=0.6)), [0.6] * 4),  # its own config
        (dict(drop_path_rate=0.6, window_size=2), [0.0, 0.2, 0.4, 0.6]),  # the published detectors
        (dict(drop_path_rate=0.6, window_size=2, drop_path_schedule="constant"), [0.6] * 4),
        (dict(arch=dict(drop_path=0.6), drop_path_schedule="linear"), [0.0, 0.2, 0.4, 0.6]),
        (dict(arch=dict(drop_path=0.6), drop_path_rate=0.0), [0.0] * 4),
    ],
)
def test_stochastic_depth_by_block(options, rates):
    assert [round(block.drop_path.rate, 6) for block in tiny(**options).transformer.resblocks] == rates


def test_drop_path_drops_whole_images():
    drop = tiny(drop_path_rate=0.6).transformer.resblocks[3].drop_path.train()
    torch.manual_seed(0)
    out = drop(torch.ones(1000, 4, 4, 8))
    per_image = out.flatten(1)
    assert torch.equal(per_image.amin(1), per_image.amax(1))
    assert set(per_image[:, 0].unique().tolist()) == {0.0, 2.5}
    assert 0.35 < (per_image[:, 0] > 0).float().mean() < 0.45
    assert torch.equal(drop.eval()(torch.ones(4, 1, 1, 8)), torch.ones(4, 1, 1, 8))


def test_frozen_tower_needs_no_gradients_and_stays_in_evaluation_mode():
    tower = tiny(frozen=True, drop_path_rate=0.9).train()
    assert not tower.training
    assert not any(p.requires_grad for p in tower.parameters())
    assert not tower(images(1, 3, 64, 64))[0].requires_grad


def test_tables_made_in_inference_mode_do_not_break_training():
    tower = tiny()
    with torch.inference_mode():
        tower(images(1, 3, 64, 64))
    tower(images(1, 3, 64, 64))[0].sum().backward()


@torch.no_grad()
def test_images_of_many_sizes_do_not_grow_memory():
    tower = tiny(window_size=2, arch=dict(layers=1))
    first, second = images(1, 3, 32, 32), images(1, 3, 32, 48)
    expected = tower(second)[0]
    for rows in range(2, 9):
        for columns in range(2, 9):
            tower(images(1, 3, 16 * rows, 16 * columns))
            tower(first)
    tables = tower.transformer._tables
    assert len(tables) == MAX_ROTARY_TABLES
    # The least recently used grid was dropped and is computed again; the one in constant use was kept.
    grids = [grid for grid, *_ in tables]
    assert (2, 2) in grids and (2, 3) not in grids
    assert torch.equal(tower(second)[0], expected)


@pytest.mark.parametrize("kind", ["PETower", "TimmTower"])
@torch.no_grad()
def test_300_sizes_keep_no_more_tensors_than_50(kind, monkeypatch):
    if kind == "PETower":
        tower = tiny(window_size=2, arch=dict(layers=2), global_blocks=(1,))
    else:
        create = timm.create_model
        monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, depth=1, **options))
        tower = TimmTower("vit_small_patch16_dinov3").eval()
    sizes = [(16 * rows, 16 * columns) for rows in range(1, 21) for columns in range(1, 16)]
    alive = []
    for number, size in enumerate(sizes, start=1):
        tower(images(1, 3, *size))
        if number in (50, 300):
            gc.collect()
            alive.append(sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects()))
    assert alive[1] <= alive[0]


def test_positions_are_added_before_rounding_to_half_precision():
    tower = tiny(arch=dict(use_cls_token=True))
    image = images(1, 3, 64, 64)
    embedded = []
    tower.ln_pre.register_forward_pre_hook(lambda _, inputs: embedded.append(inputs[0].detach()))
    with torch.autocast("cpu", torch.bfloat16):
        tower(image)
        patches = tower.conv1(image).float().flatten(2).transpose(1, 2)
    tokens = torch.cat([tower.class_embedding.expand(1, 1, -1), patches], dim=1)
    assert torch.equal(embedded[0], tokens + tower.positional_embedding)


def test_state_dict_does_not_depend_on_the_grid():
    tower = tiny(window_size=3, rope_reference_grid=4)
    before = list(tower.state_dict())
    tower(images(1, 3, 96, 160))
    assert list(tower.state_dict()) == before
    assert not [key for key in before if "rope" in key or "freq" in key]


def test_windowed_tower_drops_class_token_and_head():
    core = dict(arch=dict(use_cls_token=True, pool_type="attn", output_dim=8))
    whole, dense = tiny(**core), tiny(**core, window_size=2)
    extra = {key.partition(".")[0] for key in set(whole.state_dict()) - set(dense.state_dict())}
    assert extra == {"class_embedding", "ln_post", "attn_pool", "proj"}
    assert len(dense.positional_embedding) == 16
    assert len(whole.positional_embedding) == 17
    assert whole.embed(images(1, 3, 64, 64)).shape == (1, 8)
    with pytest.raises(RuntimeError, match="no pooled embedding"):
        dense.embed(images(1, 3, 64, 64))


@torch.no_grad()
def test_other_poolings():
    image = images(1, 3, 64, 64)
    tower = tiny(arch=dict(use_cls_token=True, pool_type="tok"))
    assert torch.equal(tower.embed(image), tower.forward_features(image, norm=True)[:, 0])
    tower = tiny(arch=dict(pool_type="avg"))
    assert torch.equal(tower.embed(image), tower.forward_features(image, norm=True).mean(1))


def test_layer_id():
    tower = tiny(arch=dict(use_cls_token=True, pool_type="attn", output_dim=8))
    depths = {name: tower.layer_id(name) for name, _ in tower.named_parameters()}
    assert {name: depths[name] for name in ("conv1.weight", "class_embedding", "ln_pre.bias")} == {
        "conv1.weight": 0,
        "class_embedding": 0,
        "ln_pre.bias": 0,
    }
    assert depths["positional_embedding"] == 0
    assert depths["transformer.resblocks.0.ln_1.weight"] == 1
    assert depths["transformer.resblocks.3.mlp.c_proj.bias"] == 4
    assert depths["ln_post.weight"] == depths["attn_pool.probe"] == depths["proj"] == 5
    with pytest.raises(KeyError, match="no parameter 'head.weight'"):
        tower.layer_id("head.weight")


@torch.no_grad()
def test_half_precision_on_the_cpu():
    torch.manual_seed(0)
    tower = PETower(TINY).eval()
    image = images(1, 3, 64, 80)
    expected = tower(image)[0]
    result = tower.bfloat16()(image)[0]
    assert result.dtype == torch.bfloat16
    error = (result.float() - expected).norm() / expected.norm()
    assert 0 < error < 0.02


def parameter_count(patch, width, layers, mlp, grid, *, cls, scale):
    """Count the parameters by hand: embedding, positions, ln_pre, blocks."""
    block = 4 * width * width + 4 * width  # qkv and projection with biases
    block += 2 * width * mlp + mlp + width  # MLP
    block += 4 * width + (2 * width if scale else 0)  # two LayerNorms, two LayerScales
    embedding = 3 * patch * patch * width + (grid * grid + cls) * width + cls * width + 2 * width
    return embedding + layers * block


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("PE-Spatial-G14-448", parameter_count(14, 1536, 50, 8960, 32, cls=0, scale=True)),
        ("PE-Spatial-L14-448", parameter_count(14, 1024, 24, 4096, 32, cls=1, scale=False)),
        ("PE-Spatial-T16-512", parameter_count(16, 192, 12, 768, 32, cls=1, scale=False)),
        ("PE-Lang-G14-448", parameter_count(14, 1536, 47, 8960, 32, cls=0, scale=True)),
        # Core G: ln_post, the pooling (query, attention, LayerNorm, MLP of ratio 4) and the projection to 1280 follow.
        (
            "PE-Core-G14-448",
            parameter_count(14, 1536, 50, 8960, 32, cls=0, scale=False)
            + 2 * 1536
            + (1536 + 4 * 1536**2 + 4 * 1536 + 2 * 1536 + 8 * 1536**2 + 4 * 1536 + 1536)
            + 1536 * 1280,
        ),
    ],
)
def test_parameter_count(arch, expected):
    with torch.device("meta"):
        tower = PETower(arch)
    assert sum(p.numel() for p in tower.parameters()) == expected
    if arch.endswith("G14-448") and "Lang" not in arch:
        assert math.isclose(expected, {"S": 1.85e9, "C": 1.88e9}[arch[3]], rel_tol=5e-3)


@pytest.mark.parametrize("scope", ["mmengine", "mmdet", "mmseg", "pe_dense"])
def test_built_from_any_scope(scope):
    config = dict(type="pe_dense.PETower", arch=TINY)
    with DefaultScope.overwrite_default_scope(scope):
        assert isinstance(ROOT.build(config), PETower)
        assert isinstance(MODELS.build(config), PETower)


def test_built_by_its_bare_name_in_its_own_scope():
    with DefaultScope.overwrite_default_scope("pe_dense"):
        assert isinstance(MODELS.build(dict(type="PETower", arch=TINY)), PETower)

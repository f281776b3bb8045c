"""SpatialAligner: loading, trained parameters and losses."""

import pytest
import torch
from helpers.tiny_alignment import CORE, STUDENT, aligner_config, make_aligner, photos, write_core

from pe_dense.backbones import PETower
from pe_dense.distillation import losses, spatial_alignment
from pe_dense.registry import MODELS
from pe_dense.utils import CheckpointError


@pytest.fixture
def core(tmp_path):
    return write_core(tmp_path)


def total(result):
    return sum(value for name, value in result.items() if name.startswith("loss"))


def test_student_is_the_core_tower_with_layer_scale(core):
    """The head is not loaded, the class token is, LayerScale is added; student and teacher are equal initially."""
    model = make_aligner(core)
    state, file = model.backbone.state_dict(), torch.load(core)
    scales = {key for key in state if key.endswith("gamma")}
    assert len(scales) == 8 and all((state[key] == 0.1).all() for key in scales)
    assert set(file) - set(state) == {key for key in file if key.startswith(("ln_post", "attn_pool", "proj"))}
    assert all(torch.equal(state[key], file[key]) for key in set(state) - scales)
    teacher = model.teachers["core"].tower.state_dict()
    assert all(torch.equal(value, file[key]) for key, value in teacher.items())
    with pytest.raises(CheckpointError, match="8 missing in the file: .*ls_1.gamma"):
        PETower(STUDENT, init_cfg=dict(type="Pretrained", checkpoint=core), with_head=False).init_weights()


def test_a_tower_with_layer_scale_keeps_its_own(tmp_path):
    spatial = PETower(dict(STUDENT, ls_init_value=0.3))
    torch.save(spatial.state_dict(), tmp_path / "spatial.pt")
    tower = dict(type="pe_dense.PETower", arch=dict(STUDENT), with_head=False)
    model = make_aligner(str(tmp_path / "spatial.pt"), core=dict(tower=tower, layer=2))
    assert (model.backbone.transformer.resblocks[0].ls_1.gamma == 0.3).all()


def test_gradients_flow_to_the_student_only(core):
    model = make_aligner(core, locality_weight=1.0)
    for block in model.backbone.transformer.resblocks:
        block.drop_path.rate = 0.0  # else a block may be dropped for all images, and has no gradient
    result = model(photos(), mode="loss")
    assert set(result) == {"loss_core", "cosine", "loss_locality", "effective_rank"}
    total(result).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not missing
    assert all(p.grad is None for teacher in model.teachers.values() for p in teacher.parameters())


def test_checkpoints_hold_the_student_alone(core):
    model = make_aligner(core)
    assert set(model.state_dict()) == {"mask_token", *(f"backbone.{key}" for key in model.backbone.state_dict())}


@pytest.mark.parametrize("seen", [True, False])
def test_masked_and_unmasked_tokens_count(core, seen, monkeypatch):
    """Losses are means over all tokens: those of both kinds have gradients, of the same size."""
    model = make_aligner(core)
    drawn = {}
    tokens_of = model.tokens

    def tokens(images, mask, mask_token):
        drawn["tokens"] = tokens_of(images, mask=mask, mask_token=mask_token)
        drawn["tokens"].retain_grad()
        drawn["mask"] = mask
        return drawn["tokens"]

    monkeypatch.setattr(model, "tokens", tokens)
    images = photos(3)
    result = model(images, mode="loss")
    expected = -losses.cosine(drawn["tokens"], model.teachers["core"](images, (4, 4)))
    assert torch.equal(result["loss_core"], expected)
    total(result).backward()
    assert drawn["mask"].sum() == 3 * 12
    kind = drawn["mask"].flatten(1) != seen
    assert (drawn["tokens"].grad[kind].norm(dim=-1) > 1e-4).all()


def test_masked_patches_are_not_seen(core):
    model = make_aligner(core).eval()
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1:3, 1:3] = True
    image = photos(1)
    other = image.clone()
    other[..., 16:48, 16:48] = 0.5
    hidden = [model.tokens(x, mask=mask, mask_token=model.mask_token) for x in (image, other)]
    assert torch.equal(*hidden)
    assert not torch.allclose(model.tokens(image), model.tokens(other))
    # A token for a patch, at the patch's place: another token changes the masked ones first of all.
    change = model.tokens(image, mask=mask, mask_token=model.mask_token.flip(0)) - hidden[0]
    change = change.norm(dim=-1).view(4, 4)
    assert change[mask[0]].min() > change[~mask[0]].max()


def test_the_mask_token_stands_for_a_patchs_embedding(core):
    """It replaces embeddings before positions and ``ln_pre``: with that of a gray patch, tokens are those of a "
    "gray image."""
    model = make_aligner(core).eval()
    gray = torch.full((1, 3, 64, 64), 0.3)
    token = model.backbone.conv1(gray * 2 - 1)[0, :, 0, 0]
    hidden = model.tokens(photos(1), mask=torch.ones(1, 4, 4, dtype=torch.bool), mask_token=token)
    torch.testing.assert_close(hidden, model.tokens(gray), rtol=0, atol=1e-5)


def test_a_seed_repeats_a_step(core):
    model = make_aligner(core)
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(model(photos(), mode="loss")["loss_core"].item())
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize(
    "change",
    [
        dict(mask_ratio=0.0),
        dict(mask_block_size=1),
        dict(core_weight=0.5),
        dict(locality_weight=0.5),
        dict(temperature=5.0),
        dict(core=dict(tower=dict(type="pe_dense.PETower", arch=dict(CORE), with_head=False), layer=1)),
        dict(image_size=96),
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_argument_changes_the_loss(core, change):
    values = []
    for settings in ({}, change):
        model = make_aligner(core, **{"locality_weight": 1.0, **settings}).eval()
        torch.manual_seed(0)
        values.append(total(model(photos(), mode="loss")).item())
    assert abs(values[0] - values[1]) > 1e-4


def test_a_teacher_without_weight_is_not_made(core):
    model = make_aligner(core, core_weight=2.0, locality_weight=0.0)
    assert list(model.teachers) == ["core"]
    result = model(photos(), mode="loss")
    assert set(result) == {"loss_core", "cosine", "effective_rank"}
    assert result["loss_core"].item() == pytest.approx(-2 * result["cosine"].item(), abs=1e-5)


def test_pictures_show_student_and_teachers_unmasked(core):
    model = make_aligner(core, locality_weight=1.0).eval()
    images = photos(side=128) * 2 - 1
    maps = model.feature_maps(images)
    assert {name: tuple(value.shape) for name, value in maps.items()} == {
        "student": (2, 32, 4, 4),
        "core": (2, 32, 4, 4),
        "sam": (2, 16, 4, 4),
    }
    tokens = model.tokens(images * 0.5 + 0.5)
    assert torch.equal(maps["student"][:, :, 1, 2], tokens[:, 6])


def test_teachers_move_with_the_student(core):
    model = make_aligner(core).double()
    assert all(p.dtype == torch.float64 for p in model.teachers["core"].parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(image_size=60), "60 x 60 px are not a multiple of the patch size 16"),
        (dict(mask_ratio=1.0), r"mask_ratio 1.0 is not in \[0, 1\)"),
        (dict(core_weight=0.0), "core_weight=0.0, locality_weight=0.0"),
        (dict(core_weight=-1.0), "core_weight=-1.0"),
        (dict(temperature=0.0), "temperature must be above 0, got 0.0"),
        (dict(init_cfg=dict(type="Pretrained")), "init_cfg must be"),
    ],
)
def test_bad_settings(core, change, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(aligner_config(core, **change))


def test_a_teacher_of_another_grid_is_reported_before_training(core):
    arch = dict(CORE, patch_size=8, image_size=32)
    tower = dict(type="pe_dense.PETower", arch=arch, with_head=False)
    model = MODELS.build(aligner_config(core, core=dict(tower=tower, layer=2)))
    with pytest.raises(ValueError, match="8 x 8 tokens at 64 px, the student has 4 x 4"):
        model.init_weights()


def test_images_of_a_batch_differ(core):
    model = make_aligner(core)
    data = dict(image=[torch.zeros(3, 64, 64, dtype=torch.uint8), torch.zeros(3, 64, 48, dtype=torch.uint8)])
    with pytest.raises(ValueError, match="differ in size"):
        model.data_preprocessor(data, True)


def test_the_similarity_is_computed_once(core, monkeypatch):
    calls = []
    similarity = spatial_alignment.cosine
    monkeypatch.setattr(spatial_alignment, "cosine", lambda *tokens: calls.append(1) or similarity(*tokens))
    result = make_aligner(core)(photos(2), mode="loss")
    assert len(calls) == 1 and torch.equal(result["cosine"], -result["loss_core"])

"""The teacher of objects' crops: targets of tokens, and Spatial alignment with it."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_alignment import CORE, STUDENT, aligner_config, make_aligner, write_core
from PIL import Image

from pe_dense.backbones import PETower
from pe_dense.distillation.losses import target_cosine
from pe_dense.distillation.teachers import ObjectCropTeacher
from pe_dense.registry import MODELS

TOWER = dict(type="pe_dense.PETower", arch=dict(CORE))
GRID = (4, 4)  # patches of 16 px


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Core tower, and images of 64 x 64 px: two squares of a patch and a bar over half of a row; no objects."""
    folder = tmp_path_factory.mktemp("crops")
    write_core(folder)
    rng = np.random.default_rng(0)
    for number in range(2):
        pixels = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
        pixels.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    corner, inside = [[0, 0, 16, 0, 16, 16, 0, 16]], [[16, 16, 32, 16, 32, 32, 16, 32]]
    bar = dict(size=[64, 64], counts=[56] + [8, 56] * 63 + [8])  # the last eight rows
    entries = [dict(id=number, file_name=f"{number}.png", height=64, width=64) for number in range(2)]
    annotations = [dict(image_id=0, segmentation=segmentation) for segmentation in (corner, inside, bar)]
    (folder / "ann.json").write_text(json.dumps(dict(images=entries, annotations=annotations)))
    return folder


def files(folder):
    return dict(ann_file=str(folder / "ann.json"), data_prefix=str(folder))


def make_teacher(folder, tower=TOWER, image_size=32, checkpoint="core.pt", **options):
    checkpoint = checkpoint and str(folder / checkpoint)
    return ObjectCropTeacher(**files(folder), tower=tower, image_size=image_size, checkpoint=checkpoint, **options)


@pytest.fixture
def images(folder):
    """(2, 3, 64, 64), RGB in [0, 1]."""
    pixels = [np.array(Image.open(folder / f"{number}.png")) for number in range(2)]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


def embedding(folder, crop):
    """The unit embedding of a crop (3, H, W)."""
    tower = PETower(dict(CORE)).eval()
    tower.load_state_dict(torch.load(folder / "core.pt"))
    with torch.no_grad():
        return F.normalize(tower.forward_pooled(crop[None] * 2 - 1), dim=-1)[0]


def test_targets_are_embeddings_of_crops(folder, images):
    """With a context of 2 and crops of 32 px, those of the squares are neither enlarged nor reduced."""
    targets = make_teacher(folder, context=2.0)(images, GRID).view(2, *GRID, 8)
    torch.testing.assert_close(targets[0, 1, 1], embedding(folder, images[0, :, 8:40, 8:40]), rtol=0, atol=1e-5)
    # The crop around the corner begins eight pixels outside of the image, which is mirrored there.
    mirrored = F.pad(images[0], (8, 0, 8, 0), mode="reflect")[:, :32, :32]
    torch.testing.assert_close(targets[0, 0, 0], embedding(folder, mirrored), rtol=0, atol=1e-5)
    assert not torch.allclose(targets[0, 0, 0], targets[0, 1, 1], atol=1e-3)


def test_targets_are_as_long_as_objects_cover_their_patches(folder, images):
    targets = make_teacher(folder)(images, GRID)
    lengths = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]]
    torch.testing.assert_close(targets[0].norm(dim=-1).view(GRID), torch.tensor(lengths), rtol=0, atol=1e-6)
    assert torch.equal(targets[0, 12:], targets[0, 12].expand(4, 8))
    assert not targets[0, 1].any() and not targets[1].any()
    # A patch of 32 px has a quarter of either square: the sum of their directions.
    coarse = make_teacher(folder)(images[:1], (2, 2))
    torch.testing.assert_close(coarse[0, 0], 0.25 * (targets[0, 0] + targets[0, 5]), rtol=0, atol=1e-6)


def test_each_object_is_embedded_once(folder, images, monkeypatch):
    teacher = make_teacher(folder)
    counts, pooled = [], teacher.tower.forward_pooled
    monkeypatch.setattr(teacher.tower, "forward_pooled", lambda batch: counts.append(len(batch)) or pooled(batch))
    assert not teacher(images[1:], GRID).any() and counts == []
    first = teacher(images, GRID)
    assert torch.equal(teacher(images.flip(0), GRID), first.flip(0))
    assert counts == [3]


def test_context_changes_the_crop(folder, images):
    wide, narrow = (make_teacher(folder, context=context)(images, GRID)[0, 5] for context in (2.0, 1.0))
    assert not torch.allclose(wide, narrow, atol=1e-3)


def test_other_pixels_have_no_objects(folder, images):
    with pytest.raises(ValueError, match=r"none of the 2 annotated images.*remove random transforms"):
        make_teacher(folder)(images.flip(3), GRID)


@pytest.mark.parametrize(
    "tower", [dict(TOWER, with_head=False), dict(TOWER, arch=dict(STUDENT))], ids=["no head", "no pooling"]
)
def test_a_tower_without_pooled_embedding(folder, tower):
    with pytest.raises(ValueError, match="has no pooled embedding: take a Core tower"):
        make_teacher(folder, tower=tower, checkpoint=None)


def test_a_crop_has_the_whole_object(folder):
    with pytest.raises(ValueError, match=r"context of a crop must be at least 1 .*got 0.9"):
        make_teacher(folder, context=0.9)


def aligner(folder, objects=(), **changes):
    objects = dict(files(folder), type="pe_dense.ObjectCropTeacher", tower=TOWER, **dict(objects))
    return make_aligner(str(folder / "core.pt"), **{"objects": objects, "mask_ratio": 0.0, **changes})


def test_alignment_with_crops(folder, images):
    model = aligner(folder, objects_weight=0.5).eval()
    result = model(images, mode="loss")
    assert set(result) == {"loss_core", "cosine", "loss_objects", "object_cosine", "effective_rank"}
    teacher = model.teachers["objects"]
    expected = target_cosine(model.projection(model.tokens(images)), teacher(images, GRID))
    assert result["object_cosine"].item() == pytest.approx(expected.item(), abs=1e-6)
    assert result["loss_objects"].item() == pytest.approx(-0.5 * expected.item(), abs=1e-6)
    result["loss_objects"].backward()
    assert model.projection.weight.grad.any() and model.backbone.conv1.weight.grad.any()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_the_projection_is_trained_and_saved(folder, images):
    model = aligner(folder, core_weight=0.0, locality_weight=0.0).eval()
    assert list(model.teachers) == ["objects"]
    assert {key for key in model.state_dict() if not key.startswith("backbone.")} == {
        "projection.weight",
        "projection.bias",
    }
    optimizer = torch.optim.SGD(model.projection.parameters(), lr=1.0)
    values = []
    for _ in range(5):
        result = model(images, mode="loss")
        values.append(result["object_cosine"].item())
        optimizer.zero_grad()
        result["loss_objects"].backward()
        optimizer.step()
    assert values == sorted(values) and values[-1] > values[0] + 0.1


def test_the_teacher_is_the_initial_tower(folder, tmp_path):
    """Its weights and image size are those of the student, if it has no others."""
    teacher = aligner(folder).teachers["objects"]
    assert torch.equal(teacher.tower.proj, torch.load(folder / "core.pt")["proj"])
    assert teacher.image_size == 64
    other = PETower(dict(CORE)).state_dict()
    torch.save(other, tmp_path / "other.pt")
    teacher = aligner(folder, dict(checkpoint=str(tmp_path / "other.pt"), image_size=32)).teachers["objects"]
    assert torch.equal(teacher.tower.proj, other["proj"]) and teacher.image_size == 32


def test_embeddings_without_a_projection_of_their_own(folder):
    objects = dict(
        files(folder), type="pe_dense.ObjectCropTeacher", tower=dict(TOWER, arch=dict(CORE, output_dim=None))
    )
    assert MODELS.build(aligner_config("unread.pt", objects=objects)).projection.out_features == 32
    objects = dict(objects, tower=TOWER)
    assert MODELS.build(aligner_config("unread.pt", objects=objects)).projection.out_features == 8


def test_crops_without_weight_are_not_made(folder, images):
    model = aligner(folder, objects_weight=0.0)
    assert list(model.teachers) == ["core"] and not hasattr(model, "projection")
    assert set(model(images, mode="loss")) == {"loss_core", "cosine", "effective_rank"}


@pytest.mark.parametrize(
    ("core_weight", "objects_weight"), [(1.0, -1.0), (0.0, 0.0)], ids=["a negative weight", "all are 0"]
)
def test_bad_weights(folder, core_weight, objects_weight):
    given = f"core_weight={core_weight}, locality_weight=0.0, objects_weight={objects_weight}"
    with pytest.raises(ValueError, match=f"at least 0 and not all 0, got {given}$"):
        aligner(folder, core_weight=core_weight, objects_weight=objects_weight)

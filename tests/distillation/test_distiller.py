"""Distillation into a student of another width."""

import pytest
import torch
from helpers.tiny_alignment import CORE, STUDENT, photos, write_core

from pe_dense.backbones import PETower
from pe_dense.distillation.losses import cosine, pairwise_loss
from pe_dense.registry import MODELS

TEACHER = dict(STUDENT, patch_size=8, image_size=32, width=48, use_cls_token=False)


def make(tmp_path, **changes):
    torch.manual_seed(1)
    torch.save(PETower(TEACHER).state_dict(), tmp_path / "teacher.pt")
    config = dict(
        type="pe_dense.SpatialDistiller",
        image_size=64,
        backbone=dict(type="pe_dense.PETower", arch=dict(CORE), with_head=False),
        init_cfg=dict(type="Pretrained", checkpoint=write_core(tmp_path)),
        teacher=dict(
            tower=dict(type="pe_dense.PETower", arch=dict(TEACHER)),
            checkpoint=str(tmp_path / "teacher.pt"),
            image_size=32,  # of patches half as large
        ),
    )
    model = MODELS.build({**config, **changes})
    model.init_weights()
    return model


def test_losses_and_gradients(tmp_path):
    model = make(tmp_path, pairwise_weight=2.0, feature_weight=0.5)
    images = photos()
    result = model(images, mode="loss")
    student, teacher = model.tokens(images), model.teachers["teacher"](images, (4, 4))
    assert student.shape == (2, 16, 32) and teacher.shape == (2, 16, 48)
    assert torch.equal(result["loss_pairwise"], 2 * pairwise_loss(student, teacher))
    assert torch.equal(result["loss_feature"], -0.5 * cosine(model.projection(student), teacher))
    (result["loss_pairwise"] + result["loss_feature"]).backward()
    assert all(p.grad.any() for p in model.parameters())
    assert all(p.grad is None for p in model.teachers["teacher"].parameters())


def test_training_draws_the_student_to_its_teacher(tmp_path):
    model = make(tmp_path)
    images = photos(4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    values = []
    for _ in range(30):
        result = model(images, mode="loss")
        optimizer.zero_grad()
        (result["loss_pairwise"] + result["loss_feature"]).backward()
        optimizer.step()
        values.append((result["loss_pairwise"].item(), result["cosine"].item()))
    assert values[-1][0] < 0.8 * values[0][0]
    assert values[-1][1] > values[0][1] + 0.3


def test_grids_must_be_the_same(tmp_path):
    teacher = dict(tower=dict(type="pe_dense.PETower", arch=dict(TEACHER)), checkpoint=str(tmp_path / "teacher.pt"))
    with pytest.raises(ValueError, match="8 x 8 tokens at 64 px, the student has 4 x 4"):
        make(tmp_path, teacher=dict(teacher, image_size=64))
    with pytest.raises(ValueError, match="pairwise_weight=0.0, feature_weight=0.0"):
        make(tmp_path, pairwise_weight=0.0, feature_weight=0.0)

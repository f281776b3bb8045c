"""The teacher of annotated masks: fractions of patches, found by pixels."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from pe_dense.distillation.losses import locality_loss
from pe_dense.distillation.teachers import InstanceMaskTeacher, instance_masks


@pytest.fixture
def teacher(tmp_path):
    """Two images of 8 x 8 px: one with a square at the top left and a bar at the bottom, one without objects."""
    rng = np.random.default_rng(0)
    images = []
    for number in range(2):
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        images.append(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
    square, bar = [[0, 0, 4, 0, 4, 4, 0, 4]], dict(size=[8, 8], counts=[6] + [2, 6] * 7 + [2])
    annotations = [dict(image_id=0, segmentation=segmentation) for segmentation in (square, bar)]
    entries = [dict(id=number, file_name=f"{number}.png", height=8, width=8) for number in range(2)]
    (tmp_path / "ann.json").write_text(json.dumps(dict(images=entries, annotations=annotations)))
    return InstanceMaskTeacher(tmp_path / "ann.json", tmp_path), torch.stack(images)


def test_fractions_of_patches(teacher):
    teacher, images = teacher
    tokens = teacher(images, (2, 2))  # patches of 4 px: (background, square, bar)
    assert tokens[0].tolist() == [[0, 1, 0], [1, 0, 0], [0.5, 0, 0.5], [0.5, 0, 0.5]]
    assert tokens[1].tolist() == [[1, 0, 0]] * 4
    flipped = teacher(images.flip(0), (2, 2))
    assert torch.equal(flipped, tokens.flip(0))
    # A student that separates the objects as the masks do has a lower loss than one of equal tokens.
    assert locality_loss(tokens, tokens, 20.0) < locality_loss(torch.ones_like(tokens), tokens, 20.0)


def test_other_pixels_have_no_masks(teacher):
    teacher, images = teacher
    with pytest.raises(ValueError, match=r"none of the 2 annotated images.*remove random transforms"):
        teacher(images.flip(3), (2, 2))


def test_teachers_of_the_same_files_read_the_images_once(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(instance_masks, "read_image", lambda path: pytest.fail(f"{path} is read again"))
    again = InstanceMaskTeacher(tmp_path / "ann.json", tmp_path)
    assert torch.equal(again(teacher[1], (2, 2)), teacher[0](teacher[1], (2, 2)))
    os.utime(tmp_path / "ann.json", ns=(1, 1))
    with pytest.raises(pytest.fail.Exception, match=r"0\.png is read again"):
        InstanceMaskTeacher(tmp_path / "ann.json", tmp_path)

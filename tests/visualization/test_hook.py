"""Figures of features during training."""

import numpy as np
import pytest
import torch
from helpers.linear_run import Linear, make_runner
from PIL import Image
from torch import nn

from pe_dense.registry import HOOKS
from pe_dense.utils.errors import ConfigError
from pe_dense.visualization.hook import FeaturePictureHook, named_maps


class Features(Linear):
    """Two sources of other sizes; the second has dropout, which must be off."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 8, 8)
        self.drop = nn.Dropout(0.9)

    def feature_maps(self, images):
        return {"student": self.conv(images), "teacher": self.drop(self.conv(images)[:, :, ::2, ::2])}


class Backbone(Linear):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 8, 8), _Pair())


class _Pair(nn.Module):
    def forward(self, x):
        return 2 * x, x


@pytest.fixture
def photos(tmp_path):
    generator = np.random.default_rng(0)
    for name in "ab":
        pixels = generator.integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(pixels).resize((96, 80)).save(tmp_path / f"{name}.png")
    return tmp_path


def test_draws_before_and_during_and_after_training(tmp_path, photos):
    hook = HOOKS.build(dict(type="pe_dense.FeaturePictureHook", images=[str(photos)], interval=2, size=64))
    runner = make_runner(tmp_path, max_iters=5)
    runner.model = Features()
    runner.register_hook(hook)
    runner.train()
    assert runner.model.training
    pictures = sorted((tmp_path / "run").rglob("features_*.png"))
    assert [path.name for path in pictures] == [f"features_{step}.png" for step in (0, 2, 4, 5)]
    picture = Image.open(pictures[0])
    assert picture.width == 3 * 240 + 4 * 12  # photo, student, teacher
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 100


def test_sources_and_evaluation_mode():
    model = Features().train()
    images = torch.randn(2, 3, 16, 32)
    maps = named_maps(model, images)
    assert {name: tuple(x.shape) for name, x in maps.items()} == {"student": (2, 6, 2, 4), "teacher": (2, 6, 1, 2)}
    assert torch.equal(maps["teacher"], maps["student"][:, :, ::2, ::2])
    assert model.training
    assert not maps["student"].requires_grad


def test_a_backbone_shows_its_last_map():
    model = Backbone()
    maps = named_maps(model, torch.randn(2, 3, 16, 32))
    assert {name: tuple(x.shape) for name, x in maps.items()} == {"backbone": (2, 4, 2, 4)}


def test_models_without_features_are_refused(tmp_path, photos):
    hook = FeaturePictureHook(images=[str(photos / "a.png")], interval=2, size=64)
    runner = make_runner(tmp_path)
    runner.register_hook(hook)
    with pytest.raises(ConfigError, match="Linear has no features to draw"):
        runner.train()


def test_maps_of_other_shapes_are_refused():
    model = Features()
    model.feature_maps = lambda images: {"student": model.conv(images)[0]}
    with pytest.raises(ConfigError, match=r"feature map 'student' is \(6, 2, 4\), expected a tensor \(2, C, H, W\)"):
        named_maps(model, torch.randn(2, 3, 16, 32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(images="absent"), "image absent does not exist"),
        (dict(images=[]), "images contains no image"),
        (dict(images="{}/a.png", interval=0), "interval and size must be at least 1"),
        (dict(images="{}/broken.png"), r"broken\.png is not a readable image"),
    ],
)
def test_bad_arguments(photos, options, message):
    (photos / "broken.png").write_text("")
    options = dict(interval=1) | options
    if isinstance(options["images"], str):
        options["images"] = options["images"].format(photos)
    with pytest.raises(ConfigError, match=message):
        FeaturePictureHook(**options)

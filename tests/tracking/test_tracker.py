"""LabelPropagator: layers, frames per pass, dtype and loading of weights."""

import numpy as np
import pytest
import torch

from pe_dense.datasets.synthetic.video import draw_video
from pe_dense.registry import MODELS
from pe_dense.tracking import PropagationContext
from pe_dense.tracking.label_propagation import harden_labels, resize_nearest, share_labels
from pe_dense.utils import CheckpointError

ARCH = dict(patch_size=8, width=32, layers=3, heads=2, mlp_ratio=2.0, image_size=64, pool_type="none")


def build(arch=(), **options):
    torch.manual_seed(0)
    tower = dict(type="pe_dense.PETower", arch=ARCH | dict(arch), out_indices=options.pop("out_indices", (-1,)))
    return MODELS.build(dict(type="pe_dense.LabelPropagator", backbone=tower, **options)).eval()


@pytest.fixture(scope="module")
def video():
    images, labels = zip(*draw_video(np.random.default_rng(0), num_frames=6, image_size=64), strict=True)
    frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)  # (T, 3, H, W)
    return frames, labels[0], int(labels[0].max())


def test_labels_of_all_frames(video):
    (labels,) = build().track(*video).values()
    assert labels.shape == (6, 64, 64) and labels.dtype == np.uint8
    np.testing.assert_array_equal(labels[0], video[1])
    assert set(np.unique(labels)) <= set(range(video[2] + 1))
    assert all((labels[t] != labels[0]).any() for t in range(1, 6))


@torch.no_grad()
@pytest.mark.parametrize("use_cls_token", [False, True])
def test_frame_by_frame_with_the_towers_own_maps(video, use_cls_token):
    """The labels equal those computed step by step: normalized frames, `forward`, propagation, hardening."""
    model = build(dict(use_cls_token=use_cls_token), out_indices=(1,), topk=3, radius=2)
    frames, mask, count = video
    maps = model.backbone((frames / 255 - 0.5) / 0.5)[0].permute(0, 2, 3, 1)
    run = PropagationContext(maps[0], share_labels(mask, 1 + count, (8, 8)), topk=3, radius=2)
    expected = [harden_labels(run.propagate(features), 8).numpy() for features in maps[1:]]
    np.testing.assert_array_equal(model.track(*video)[1][1:], expected)


def test_layers_of_one_pass_equal_single_runs(video):
    together = build(out_indices=None).track(*video)
    assert list(together) == [0, 1, 2]
    for layer, labels in together.items():
        np.testing.assert_array_equal(labels, build(out_indices=(layer,)).track(*video)[layer])
    assert (together[0] != together[2]).any()


def test_every_frame_goes_through_the_tower_once(video, monkeypatch):
    model = build(out_indices=None, frames_per_pass=4)
    counts = []
    model.backbone.conv1.register_forward_hook(lambda module, given, out: counts.append(len(given[0])))
    model.track(*video)
    assert counts == [4, 2]


@pytest.mark.parametrize("frames_per_pass", [1, 5, 100])
def test_frames_per_pass_change_nothing(video, frames_per_pass):
    labels = [build(frames_per_pass=count).track(*video)[2] for count in (4, frames_per_pass)]
    assert (labels[0] != labels[1]).mean() < 1e-3


def test_masks_of_another_size_than_the_frames(video):
    frames, mask, count = video
    mask = resize_nearest(mask, (45, 90))
    (labels,) = build().track(frames, mask, count).values()
    assert labels.shape == (6, 45, 90)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_last_frames", 1),
        ("radius", 1),
        ("topk", 30),
        ("temperature", 5.0),
        ("mean", 0.0),
        ("upsampling", "nearest"),
        ("norm", True),
    ],
)
def test_every_setting_counts(video, name, value):
    changed = build(**{name: value}).track(*video)[2]
    assert (changed != build().track(*video)[2]).any()


def test_low_precision_is_the_towers_alone(video):
    model = build(tower_dtype="bfloat16")
    assert model.backbone.conv1.weight.dtype == torch.bfloat16
    model.load_state_dict(build().state_dict())
    labels = model.track(*video)[2]
    assert model.backbone.conv1.weight.dtype == torch.bfloat16
    assert (labels == build().track(*video)[2]).mean() > 0.9


def test_takes_the_tower_of_any_checkpoint():
    model = build()
    tower = {name: value + 1 for name, value in model.backbone.state_dict().items()}
    for prefix in ("", "backbone.", "visual."):
        state = {prefix + name: value for name, value in tower.items()}
        if prefix:
            state["head.weight"] = torch.ones(3)
        found = model.from_published(state, "some.pth")
        model.load_state_dict(found)
        torch.testing.assert_close(model.backbone.conv1.weight, tower["conv1.weight"])
    with pytest.raises(CheckpointError, match="some.pth contains no PE tower"):
        model.from_published({"head.weight": torch.ones(3)}, "some.pth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(topk=0), "topk must be at least 1, got 0"),
        (dict(frames_per_pass=0), "frames_per_pass must be at least 1, got 0"),
        (dict(tower_dtype="half"), "tower_dtype 'half' is not one of float32, bfloat16, float16"),
        (dict(upsampling="cubic"), "upsampling 'cubic' is not 'bilinear' or 'nearest'"),
        (dict(out_indices=(3,)), "block 3 is out of range for 3 blocks; allowed are -3..2"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_there_is_nothing_to_train(video):
    with pytest.raises(ValueError, match="only supports mode 'predict', got 'loss'"):
        build()([video[0]], [None], mode="loss")


def test_frames_that_are_no_multiple_of_the_patch(video):
    frames, mask, count = video
    with pytest.raises(ValueError, match="60 x 64 px are not a multiple of the patch size 8"):
        build().track(frames[:, :, :60], mask, count)


def test_numbers_with_gaps_are_tracked_as_such(video):
    """The number of classes in the propagation is the number of objects."""
    frames, mask, count = video
    numbers = np.arange(0, 60 * count + 1, 60).astype(np.uint8)
    (plain,) = build().track(frames, mask).values()
    np.testing.assert_array_equal(plain, build().track(*video)[2])
    (gaps,) = build().track(frames, numbers[mask]).values()
    np.testing.assert_array_equal(gaps, numbers[plain])

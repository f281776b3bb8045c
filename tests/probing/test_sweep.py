"""A sweep equals many single probes, with one forward pass of the tower."""

import weakref

import pytest
import torch
from helpers.tiny_probe import batch, build, write_tower
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from pe_dense.probing.probe import take_probe
from pe_dense.utils import CheckpointError
from pe_dense.utils.errors import ConfigError

TASKS = ("segmentation", "depth", "dpt")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tower(tmp_path_factory.mktemp("tower") / "tower.pth")


def optimizer(model, constructor="DefaultOptimWrapperConstructor", **options):
    wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-2, weight_decay=0.1) | options)
    return OPTIM_WRAPPER_CONSTRUCTORS.build(dict(type=constructor, optim_wrapper_cfg=wrapper))(model)


def train(model, task, wrapper, steps=4):
    """Return the log variables of some steps."""
    model.train()
    return [model.train_step(batch(task, seed=step), wrapper) for step in range(steps)]


@pytest.mark.parametrize("task", TASKS)
def test_probes_learn_as_if_alone(task, weights):
    sweep = build(task, "Sweep", None, weights)
    logs = train(sweep, task, optimizer(sweep, "pe_dense.SweepOptimWrapperConstructor"))
    for layer in range(3):
        probe = build(task, "Probe", (layer,), weights)
        alone = train(probe, task, optimizer(probe))
        for step, (together, single) in enumerate(zip(logs, alone, strict=True)):
            expected = single["loss"].item()
            assert together[f"layer_{layer}-0.loss"].item() == pytest.approx(expected, rel=1e-6), (layer, step)
        taken = take_probe(sweep.state_dict(), layer)
        for key, value in probe.state_dict().items():
            torch.testing.assert_close(taken[key], value, rtol=1e-5, atol=1e-6, msg=key)
    assert logs[0]["loss"].item() == pytest.approx(sum(v.item() for k, v in logs[0].items() if k != "loss"))


def test_grid_of_rates_and_decays(weights):
    sweep = build("segmentation", "Sweep", (1, 2), weights, learning_rates=[1e-3, 1e-1], weight_decays=[0.0, 0.5])
    wrapper = optimizer(sweep, "pe_dense.SweepOptimWrapperConstructor")
    groups = [(g["layer"], g["lr"], g["weight_decay"]) for g in wrapper.optimizer.param_groups]
    assert groups == [(layer, lr, wd) for layer in (1, 2) for lr in (1e-3, 1e-1) for wd in (0.0, 0.5)]
    train(sweep, "segmentation", wrapper)
    probe = build("segmentation", "Probe", (2,), weights)
    train(probe, "segmentation", optimizer(probe, lr=1e-1, weight_decay=0.5))
    taken = take_probe(sweep.state_dict(), layer=2, setting=3)
    torch.testing.assert_close(taken["decode_head.conv_seg.weight"], probe.decode_head.conv_seg.weight)
    other = take_probe(sweep.state_dict(), layer=2, setting=2)
    assert not torch.allclose(other["decode_head.conv_seg.weight"], probe.decode_head.conv_seg.weight)
    with pytest.raises(CheckpointError, match="4 probes of layer 2, expected 1; available .* 1-0, 1-1"):
        take_probe(sweep.state_dict(), layer=2)


@pytest.mark.parametrize(
    ("taps", "options", "message"),
    [
        ((1,), dict(weight_decays=[]), r"weight_decay requires a non-empty list, got \[\]"),
        ((1,), dict(learning_rates=1e-3), r"lr requires a non-empty list, got 0\.001"),
        ((0, -1, 2), {}, "must be different layers, got 0, 2, 2"),
    ],
)
def test_sweeps_over_nothing_or_twice_the_same(taps, options, message):
    with pytest.raises(ValueError, match=message):
        build("segmentation", "Sweep", taps, **options)


def test_maps_are_released_after_their_probes(weights, monkeypatch):
    sweep = build("segmentation", "Sweep", None, weights).train()
    original, maps, alive = sweep.backbone.iter_intermediates, [], []

    def watched(images):
        for index, feature_map in original(images):
            alive.append(sum(reference() is not None for reference in maps))
            maps.append(weakref.ref(feature_map))
            yield index, feature_map

    monkeypatch.setattr(sweep.backbone, "iter_intermediates", watched)
    sweep.train_step(batch("segmentation"), optimizer(sweep, "pe_dense.SweepOptimWrapperConstructor"))
    assert alive[0] == 0
    assert max(alive) <= 1  # the last one, which the loop still names


@pytest.mark.parametrize(
    ("task", "test_cfg"),
    [
        ("segmentation", dict(mode="whole")),
        ("segmentation", dict(mode="slide", crop_size=(12, 16), stride=(8, 8))),
        ("depth", dict(mode="whole")),
        ("depth", dict(mode="slide_flip", crop_size=(12, 16), stride=(8, 8))),
    ],
)
@pytest.mark.parametrize("size", [(16, 16), (18, 27)], ids=["whole patches", "padded"])
def test_predictions_are_those_of_single_probes(task, test_cfg, size, weights):
    sweep = build(task, "Sweep", None, weights, test_cfg=test_cfg)
    train(sweep, task, optimizer(sweep, "pe_dense.SweepOptimWrapperConstructor"), steps=2)
    sweep.eval()
    with torch.no_grad():
        found = sweep.test_step(batch(task, size))
        for layer in range(3):
            probe = build(task, "Probe", (layer,), weights, test_cfg=test_cfg).eval()
            probe.load_state_dict(probe.from_published(sweep.state_dict(), "sweep"))
            for sample, alone in zip(found, probe.test_step(batch(task, size)), strict=True):
                together = sample.by_probe[f"{layer}-0"]
                if task == "segmentation":
                    assert together.pred_sem_seg.data.shape == (1, *size)
                    assert torch.equal(together.pred_sem_seg.data, alone.pred_sem_seg.data)
                    assert torch.equal(together.gt_sem_seg.data, alone.gt_sem_seg.data)
                    assert "seg_logits" not in together
                else:
                    torch.testing.assert_close(together.pred_depth_map.data, alone.pred_depth_map.data)


@pytest.mark.parametrize("kind", ["Probe", "Sweep"])
@pytest.mark.parametrize("task", ["segmentation", "depth"])
def test_images_of_a_batch_may_differ_in_size(task, kind, weights):
    model = build(task, kind, (2,), weights).eval()
    small, large = batch(task, (16, 20), 1), batch(task, (26, 16), 1)
    mixed = {key: small[key] + large[key] for key in small}
    with torch.no_grad():
        together = model.test_step(mixed)
        alone = model.test_step(batch(task, (16, 20), 1)) + model.test_step(batch(task, (26, 16), 1))
    field = "pred_sem_seg" if task == "segmentation" else "pred_depth_map"
    for a, b in zip(together, alone, strict=True):
        a, b = (sample.by_probe["2-0"] if kind == "Sweep" else sample for sample in (a, b))
        assert torch.equal(a.get(field).data, b.get(field).data)


def test_probes_share_no_clipping(weights):
    wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=1.0))

    def constructor(**options):
        return OPTIM_WRAPPER_CONSTRUCTORS.build(dict(type="pe_dense.SweepOptimWrapperConstructor", **options))

    with pytest.raises(ConfigError, match="would clip all probes of a sweep by their common norm"):
        constructor(optim_wrapper_cfg=dict(wrapper, clip_grad=dict(max_norm=1.0)))
    with pytest.raises(ConfigError, match="paramwise_cfg=.*use model.learning_rates and model.weight_decays"):
        constructor(optim_wrapper_cfg=wrapper, paramwise_cfg=dict(norm_decay_mult=0.0))

"""EMA weights are evaluated, saved and resumed."""

import pytest
import torch
from helpers.linear_run import make_runner
from helpers.tiny_probe import build
from mmengine.hooks import Hook

from pe_dense.engine.hooks import EMAHook, ExponentialMovingAverage
from pe_dense.utils import read_checkpoint
from pe_dense.utils.errors import ConfigError


class Weights(Hook):
    """Keeps the weights after each step."""

    def __init__(self):
        self.steps = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.steps.append(runner.model.linear.weight.detach().clone())


def train(tmp_path, **options):
    runner = make_runner(tmp_path, **options)
    weights = Weights()
    runner.register_hook(weights)
    runner.train()
    return runner, weights.steps


def average(steps, part):
    mean = steps[0]  # after the first step the average is the weights
    for weight in steps[1:]:
        mean = mean + part * (weight - mean)
    return mean


def test_the_average_is_saved_and_evaluated(tmp_path):
    runner, steps = train(tmp_path, ema=0.25)
    state = read_checkpoint(tmp_path / "run")
    expected = average(steps, 0.25)
    assert not torch.allclose(expected, steps[-1])
    torch.testing.assert_close(state["state_dict"]["linear.weight"], expected)
    assert torch.equal(state["ema_state_dict"]["module.linear.weight"], steps[-1])
    hook = next(hook for hook in runner.hooks if isinstance(hook, EMAHook))
    hook.before_val_epoch(runner)
    torch.testing.assert_close(runner.model.linear.weight.detach(), expected)
    hook.after_val_epoch(runner)
    assert torch.equal(runner.model.linear.weight, steps[-1])


def test_resuming_goes_on_with_weights_and_average(tmp_path):
    (tmp_path / "whole").mkdir()
    _, whole = train(tmp_path / "whole", max_iters=6, ema=0.25)
    train(tmp_path, max_iters=4, ema=0.25)
    _, rest = train(tmp_path, max_iters=6, ema=0.25, resume="auto")
    assert torch.equal(rest[-1], whole[-1])
    ends = [read_checkpoint(path / "run" / "iter_6.pth")["state_dict"] for path in (tmp_path, tmp_path / "whole")]
    assert torch.equal(*(end["linear.weight"] for end in ends))
    torch.testing.assert_close(ends[0]["linear.weight"], average(whole, 0.25))


def test_an_average_is_not_mistaken_for_weights(tmp_path):
    train(tmp_path, ema=0.25)
    with pytest.raises(ConfigError, match="EMA weights: resume it with --ema"):
        make_runner(tmp_path, resume="auto").train()


def test_a_run_without_average_gets_one_on_resuming(tmp_path):
    train(tmp_path)
    train(tmp_path, max_iters=6, ema=0.25, resume="auto")
    assert "ema_state_dict" in read_checkpoint(tmp_path / "run")


def test_what_is_never_trained_is_not_copied(tmp_path):
    """Modules excluded from the state dict, in any container, and parameters without gradients are shared."""
    runner = make_runner(tmp_path, ema=0.25, max_iters=2)
    hidden = [torch.nn.Linear(2, 2) for _ in range(3)]
    runner.model._one, runner.model._more = [hidden[0]], dict(a=(hidden[1],))
    runner.model.linear._deep = [[hidden[2]]]
    runner.model.linear.bias.requires_grad_(False)
    runner.train()
    hook = next(hook for hook in runner.hooks if isinstance(hook, EMAHook))
    copied = hook.ema_model.module
    assert copied is not runner.model and copied.linear.weight is not runner.model.linear.weight
    assert copied.linear.bias is runner.model.linear.bias
    assert [copied._one[0], copied._more["a"][0], copied.linear._deep[0][0]] == hidden


def test_a_frozen_tower_is_shared():
    model = build("segmentation", "Probe", (1,))
    average = ExponentialMovingAverage(model, momentum=0.1)
    assert average.module.backbone.tower is model.backbone.tower
    assert average.module.decode_head is not model.decode_head


@pytest.mark.parametrize("part", [0.0, 1.0, 5.0])
def test_bad_part(tmp_path, part):
    with pytest.raises(ConfigError, match=f"--ema {part:g}: .* between 0 and 1"):
        make_runner(tmp_path, ema=part)

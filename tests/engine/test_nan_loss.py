"""Runs of all tasks end at the first NaN or infinite loss or gradient."""

import pytest
import torch
from helpers.linear_run import make_runner

from pe_dense.engine.hooks.nan_loss import NonFiniteLossError, image_paths


class Spoil(torch.autograd.Function):
    """Identity with a corrupted gradient."""

    @staticmethod
    def forward(ctx, value, gradient):
        ctx.gradient = gradient
        return value.clone()

    @staticmethod
    def backward(ctx, upstream):
        return upstream * ctx.gradient, None


def spoiled(tmp_path, change, **options):
    """A run of which ``change`` spoils the losses of iteration 4."""
    runner = make_runner(tmp_path, max_iters=8, **options)
    forward = runner.model.forward

    def spoil(x, mode="tensor"):
        result = forward(x, mode)
        return change(result) if runner.iter == 3 else result

    runner.model.forward = spoil
    return runner


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: dict(loss_a=r["loss"], loss_b=r["loss"] * torch.nan), "iteration 4: loss_b is NaN"),
        (lambda r: dict(loss_a=r["loss"] / 0, loss_b=r["loss"]), "iteration 4: loss_a is infinite"),
        (
            lambda r: dict(loss=Spoil.apply(r["loss"], torch.inf)),
            r"iteration 4: the gradient of linear\.weight \(and of 1 more of 2 parameters\) is infinite",
        ),
        (
            lambda r: dict(loss=Spoil.apply(r["loss"], torch.nan)),
            r"iteration 4: the gradient of linear\.weight .*is NaN",
        ),
    ],
)
@pytest.mark.parametrize("counts", [1, 2])
def test_the_run_ends_before_weights_and_checkpoints_are_corrupted(tmp_path, change, message, counts):
    wrapper = dict(type="OptimWrapper", accumulative_counts=counts, optimizer=dict(type="SGD", lr=0.1))
    runner = spoiled(tmp_path, change, optim_wrapper=wrapper)
    with pytest.raises(NonFiniteLossError, match=f"{message}.*before a checkpoint is written.*--resume"):
        runner.train()
    assert all(parameter.isfinite().all() for parameter in runner.model.parameters())
    assert sorted(path.name for path in (tmp_path / "run").glob("*.pth")) == ["iter_2.pth"]


def test_large_gradients_are_no_fault(tmp_path):
    """The sum of their squares overflows."""
    runner = spoiled(tmp_path, lambda r: dict(loss=Spoil.apply(r["loss"], 1e20)))
    runner.optim_wrapper["optimizer"] = dict(type="SGD", lr=1e-30)
    runner.train()


def test_what_is_no_loss_may_be_nan(tmp_path):
    """Example: the accuracy over no pixels."""
    spoiled(tmp_path, lambda r: dict(r, accuracy=torch.tensor(torch.nan))).train()


def test_an_old_name_in_a_config_adds_no_second_hook(tmp_path):
    runner = make_runner(tmp_path)
    count = len(runner.hooks)
    runner.register_custom_hooks([dict(type="pe_dense.FiniteLossHook")])
    assert len(runner.hooks) == count


def test_names_of_images():
    class Sample:
        img_path = "a.png"

    assert image_paths(dict(inputs=[], data_samples=[Sample(), object()])) == ["a.png"]
    assert image_paths(dict(path=["b.png"])) == ["b.png"]
    assert image_paths([1]) == []

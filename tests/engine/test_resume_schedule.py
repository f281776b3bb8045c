"""A resumed run follows its config's learning rates and schedule."""

import pytest
from helpers.linear_run import make_runner
from mmengine.hooks import Hook

from pe_dense.utils.errors import ConfigError


def schedule(end, eta_min=0.01):
    return [
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=2),
        dict(type="CosineAnnealingLR", by_epoch=False, begin=2, end=end, eta_min=eta_min),
    ]


class Rates(Hook):
    def __init__(self):
        self.rates = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        group = runner.optim_wrapper.optimizer.param_groups[0]
        self.rates[runner.iter] = (group["lr"], group["weight_decay"])


def run(folder, *, lr=0.1, weight_decay=0.0, **options):
    wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=lr, weight_decay=weight_decay, momentum=0.5))
    runner = make_runner(folder, optim_wrapper=wrapper, **options)
    runner.register_hook(hook := Rates())
    runner.train()
    return runner, hook.rates


@pytest.mark.parametrize(
    "changed",
    [
        dict(lr=0.03),
        dict(weight_decay=0.1),
        dict(param_scheduler=schedule(8)),
        dict(param_scheduler=schedule(8, eta_min=0.02), lr=0.05),
        {},
    ],
    ids=["lr", "weight decay", "longer schedule", "both", "nothing"],
)
def test_rates_are_those_of_an_uninterrupted_run(tmp_path, changed):
    options = dict(param_scheduler=schedule(4 if changed else 8)) | changed
    (tmp_path / "whole").mkdir()
    _, whole = run(tmp_path / "whole", max_iters=8, **options)
    run(tmp_path, max_iters=4, param_scheduler=schedule(4 if changed else 8))
    runner, rates = run(tmp_path, max_iters=8, resume="auto", **options)
    assert rates == {step: whole[step] for step in (4, 5, 6, 7)}
    assert runner.optim_wrapper.optimizer.state  # momentum is the checkpoint's


def test_a_run_that_ends_before_its_checkpoint(tmp_path):
    run(tmp_path, max_iters=4)
    with pytest.raises(ConfigError, match=r"is from iteration 4, after the end of this run: train_cfg\.max_iters=2"):
        run(tmp_path, max_iters=2, resume="auto")
    assert run(tmp_path, max_iters=4, resume="auto")[1] == {}

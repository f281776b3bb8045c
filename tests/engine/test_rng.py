"""Random numbers of a step depend only on the seed, the step and the process."""

import random

import numpy as np
import torch
from helpers.linear_run import make_runner
from mmengine.hooks import Hook

from pe_dense.utils.rng import step_seed


class Draws(Hook):
    def __init__(self):
        self.drawn = {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.drawn[runner.iter] = (torch.rand(1).item(), np.random.rand(), random.random())


def drawn(tmp_path, **options):
    runner = make_runner(tmp_path, **options)
    draws = Draws()
    runner.register_hook(draws)
    runner.train()
    return draws.drawn


def test_a_resumed_run_draws_what_the_whole_one_draws(tmp_path):
    (tmp_path / "whole").mkdir()
    whole = drawn(tmp_path / "whole", max_iters=6)
    drawn(tmp_path, max_iters=4)
    rest = drawn(tmp_path, max_iters=6, resume="auto")
    assert list(rest) == [4, 5]
    assert rest == {step: whole[step] for step in rest}
    assert len(set(whole.values())) == 6


def test_seeds_differ():
    seeds = [step_seed(*numbers) for numbers in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1))]
    assert len(set(seeds)) == 6
    assert step_seed(0, 1, 2) == 3071860871404845570  # NumPy keeps its seed sequences: runs resume the same elsewhere

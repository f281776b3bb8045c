"""Random weights that do not depend on what was drawn before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.hooks import Hook


@contextmanager
def drawn_alike() -> Iterator[None]:
    """Draw random numbers of the CPU as at the start of the run, and go on afterwards as if none had been drawn.

    So a probe starts from the same weights whether it is alone in its model or one of many.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(torch.initial_seed())
        yield


class StepSeedHook(Hook):
    """Seed PyTorch before each step with the run's seed, the step and the process.

    So a resumed run draws what the uninterrupted one would have drawn (sampled boxes, dropped paths, federated
    classes), and processes draw differently: with MMEngine's one seed for all, stochastic depth would drop the same
    blocks in all of a step's images. Data workers keep their own seeds, which differ by process and worker and start
    anew with a resumed run.
    """

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        torch.manual_seed(step_seed(runner.seed, runner.iter, runner.rank))


def step_seed(seed: int, step: int, rank: int) -> int:
    """Mix three numbers (each 0 or more) into a seed of 64 bits."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])

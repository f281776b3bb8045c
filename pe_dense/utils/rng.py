"""Seed random number generators (RNG) so that resumed runs match, and restore their states."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.hooks import Hook


@contextmanager
def fork_rng_at_initial_seed() -> Iterator[None]:
    """Reset the CPU's RNG to the run's initial seed inside the block, and restore its state afterwards.

    A probe therefore has the same initial weights whether it is the only one in its model or one of many.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(torch.initial_seed())
        yield


@contextmanager
def fork_rng() -> Iterator[None]:
    """Restore the states of Python's, NumPy's and PyTorch's RNG (on the CPU) when the block ends."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's RNG on the CPU.

    Args:
        seed: 64-bit seed; NumPy uses the lower half.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would prepare seeds of GPUs in every data worker


class StepSeedHook(Hook):
    """Seed all RNGs before each iteration with the run's seed, the iteration and the process.

    A resumed run therefore uses the same random numbers (sampled boxes, dropped paths, federated classes) as an
    uninterrupted one, and each process uses different ones: with one seed for all processes, as in MMEngine, stochastic
    depth would drop the same blocks in all images of a step. Samples are seeded separately, see
    :mod:`pe_dense.engine.seeded_sampling`.
    """

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        seed = step_seed(runner.seed, runner.iter, runner.rank)
        seed_all(seed)
        torch.manual_seed(seed)  # GPUs, too


def step_seed(seed: int, step: int, rank: int) -> int:
    """Mix three numbers (each 0 or more) into a seed of 64 bits."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])


def sample_seed(seed: int, place: int) -> int:
    """Mix a run's seed and a sample's position among all samples into a seed of 64 bits.

    Seeds of samples differ from those of steps.
    """
    return int(np.random.SeedSequence((seed, place), spawn_key=(1,)).generate_state(1, np.uint64)[0])

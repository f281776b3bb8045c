"""Random weights that do not depend on what was drawn before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def drawn_alike() -> Iterator[None]:
    """Draw random numbers of the CPU as at the start of the run, and go on afterwards as if none had been drawn.

    So a probe starts from the same weights whether it is alone in its model or one of many.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(torch.initial_seed())
        yield

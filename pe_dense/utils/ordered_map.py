"""Map a function over items in threads, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int = 1, ahead: int = 1
) -> Iterator[Result]:
    """Call a function in other threads, while the caller computes the next items or uses the results.

    It is for functions that spend their time in libraries which release Python's global lock, such as decoding,
    resizing and encoding of images. Items are taken in the caller's thread.

    Args:
        function: called with each item; with one worker, calls do not overlap.
        items: the items.
        workers: number of threads.
        ahead: number of calls that are started before the first result is taken, which bounds the memory.

    Yields:
        the results in the order of the items. An exception of a call is raised at its place; later calls that have not
        started are canceled then, or if the iteration ends early.
    """
    pending: deque[Future] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                while len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def spare_cores(limit: int) -> int:
    """Return the number of cores that this process may use besides one for the model, from 1 to a limit."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores - 1, 1), limit)

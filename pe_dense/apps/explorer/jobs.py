"""Queue of cancelable jobs that run one at a time in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from threading import Event
from typing import TypeVar

T = TypeVar("T")
_canceled: ContextVar[Event | None] = ContextVar("canceled", default=None)


class QueueFull(Exception):
    """The job queue is full."""


class JobCanceled(Exception):
    """The job that raises this was canceled."""


def check_canceled() -> None:
    """Stop the job of a :class:`JobQueue` that was canceled; long jobs call this between their steps.

    Outside of a queue it does nothing.

    Raises:
        JobCanceled: if the job that runs in this thread was canceled.
    """
    event = _canceled.get()
    if event is not None and event.is_set():
        raise JobCanceled


class JobQueue:
    """Run functions one at a time in a thread, in order of arrival.

    All methods are called from the event loop's thread.

    Args:
        limit: number of places, for the running job and those that wait for it.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._taken = 0
        self._closed = False
        self._lock = asyncio.Lock()
        self._running: Event | None = None
        self._executor = ThreadPoolExecutor(1)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Reserve a slot in the queue; each :meth:`run` needs one.

        Raises:
            QueueFull: if all places are taken.
        """
        if self._taken >= self.limit:
            raise QueueFull
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def run(self, function: Callable[..., T], *args) -> T:
        """Run a function in order of arrival and return its result.

        Cancelling the task that awaits this removes a waiting job. A running one ends at its next call of
        :func:`check_canceled`; the next job starts after that.

        Raises:
            JobCanceled: if the queue was closed before the job ended.
        """
        async with self._lock:
            if self._closed:
                raise JobCanceled
            self._running = Event()
            context = copy_context()
            context.run(_canceled.set, self._running)
            loop = asyncio.get_running_loop()
            job = loop.run_in_executor(self._executor, lambda: context.run(function, *args))
            try:
                await asyncio.wait([job])  # unlike `await job`, it leaves the job alone when it is canceled itself
            except asyncio.CancelledError:
                self._running.set()
                while not job.done():
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait([job])
                job.exception()  # asyncio reports exceptions that nobody has looked at
                raise
            return job.result()

    def close(self) -> None:
        """Cancel all jobs, the running one included, and reject new ones."""
        self._closed = True
        if self._running is not None:
            self._running.set()
        self._executor.shutdown(wait=False)

"""Stop a run cleanly on SIGTERM and SIGINT."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# `timeout` and `torchrun` signal a process twice, directly and through its group.
_REPEATS = 2.0  # seconds in which a second signal counts as the same request


class StopRun(SystemExit):
    """A run stops because of a signal; the exit status is 128 plus the signal's number, as in a shell.

    Args:
        signum: number of the signal.
        agreed: whether all processes of the run stop after the same iteration.
    """

    def __init__(self, signum: int, agreed: bool = False):
        super().__init__(128 + signum)
        self.signum = signum
        self.agreed = agreed


class StopSignals:
    """Handlers of SIGTERM and SIGINT.

    While handlers are installed (:meth:`handled`), a signal raises :class:`StopRun` immediately, unless ``deferred`` is
    set: then it is only recorded, and the run calls :meth:`check` where its state is consistent. A second signal, some
    seconds later, ends the process immediately.

    Attributes:
        requested: number of the received signal, or None.
        deferred: whether signals are only recorded.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self.deferred = False
        self._installed = False
        self._first = 0.0

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Install the handlers; do nothing inside of another such context or outside of the main thread."""
        if self._installed or threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        self.requested, self.deferred, self._installed = None, False, True
        try:
            yield
        finally:
            self.deferred, self._installed = False, False
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def interruptible(self, allowed: bool = True) -> Iterator[None]:
        """Let signals raise immediately inside the block; raise for one that was received before."""
        if not allowed or not self.deferred:
            yield
            return
        self.deferred = False
        try:
            self.check()
            yield
        finally:
            self.deferred = True

    def check(self) -> None:
        """Raise :class:`StopRun` if a signal was received."""
        if self.requested is not None:
            raise StopRun(self.requested)

    def _handle(self, signum: int, frame) -> None:
        now = time.monotonic()
        if self.requested is not None:
            if now - self._first > _REPEATS:
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)
            return
        self.requested, self._first = signum, now
        if not self.deferred:
            raise StopRun(signum)
        # Not by print, which the signal may have interrupted.
        name = signal.Signals(signum).name
        os.write(sys.__stderr__.fileno(), f"{name}: the run ends after this iteration\n".encode())


STOP = StopSignals()

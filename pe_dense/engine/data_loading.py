"""Data loader with clear errors for failed workers and no orphaned worker processes."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import pickle
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import queues

import torch
from torch.utils.data import DataLoader as _DataLoader
from torch.utils.data import IterableDataset
from torch.utils.data._utils.signal_handling import _error_if_any_worker_fails

from pe_dense.engine.seeded_sampling import SampleIndex, SeededBatchSampler, SeededDataset
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.rng import sample_seed
from pe_dense.utils.signals import STOP

TIMEOUT = 600  # seconds to wait for a batch if the config has no `timeout`
_SECONDS_TO_END = 2.0  # grace period of workers that were asked to exit
_NOT_HANDED_OVER = 74  # exit status of a worker whose batch did not fit into shared memory
_NO_FILES = 75  # exit status of a worker that cannot open one more file for a tensor
_SHARED_MEMORY = "/dev/shm"
_PR_SET_PDEATHSIG = 1


class DataWorkerError(ConfigError):
    """A data worker was killed, failed to send a batch, or does not respond."""


class DataLoader(_DataLoader):
    """PyTorch's ``DataLoader``, with one-line errors for failed workers and no orphaned worker processes.

    Attributes:
        interruptible: whether SIGTERM may end the wait for a batch; see :mod:`pe_dense.utils.signals`.

    Raises:
        DataWorkerError: while iterating.
    """

    interruptible: Callable[[], bool] = staticmethod(lambda: False)

    @classmethod
    def seeded(cls, loader: _DataLoader, seed: int, rank: int, world_size: int) -> DataLoader:
        """Create a loader with reproducible batches; those of an iterable data set are not changed."""
        options = dict(
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout or (TIMEOUT if loader.num_workers else 0),
            worker_init_fn=functools.partial(_start_worker, loader.worker_init_fn),
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )
        if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
            return cls(loader.dataset, batch_size=loader.batch_size, drop_last=loader.drop_last, **options)
        batches = SeededBatchSampler(loader.batch_sampler, seed, rank, world_size)
        return cls(SeededDataset(loader.dataset), batch_sampler=batches, **options)

    def __iter__(self) -> Iterator:
        self.end_workers()
        iterator = super().__iter__()
        if self.num_workers == 0:
            self._running = None
            return _Batches(iterator, self)
        _take_over_sigchld()
        for worker in iterator._workers:
            # Workers ignore SIGTERM, see `_start_worker`.
            worker.terminate = worker.kill
            worker._popen.terminate = worker._popen.kill
        self._running = iterator
        return _Batches(iterator, self)

    def end_workers(self, final: bool = False) -> None:
        """Shut down the workers of the last pass; persistent workers only if ``final``."""
        iterator = getattr(self, "_running", None)
        if iterator is not None and (final or not self.persistent_workers):
            _end_quickly(iterator)
            iterator._shutdown_workers()
            self._running = None
            if final and self.persistent_workers:
                self._iterator = None


def _end_quickly(iterator) -> None:
    """Ask all workers to exit and kill those that do not; PyTorch would wait five seconds for each one in turn."""
    iterator._workers_done_event.set()
    for queue in iterator._index_queues:
        with contextlib.suppress(ValueError):  # closed
            queue.put(None)
    end = time.monotonic() + _SECONDS_TO_END
    for worker in iterator._workers:
        worker.join(max(0.0, end - time.monotonic()))
        if worker.is_alive():
            worker.kill()


class _Batches:
    """Iterate over batches and report worker failures."""

    waiting = False  # for a batch of any loader

    def __init__(self, iterator: Iterator, loader: DataLoader):
        self._iterator = iterator
        self._loader = loader

    def __iter__(self) -> _Batches:
        return self

    def __len__(self) -> int:
        return len(self._iterator)

    def __next__(self):
        start = time.monotonic()
        try:
            with STOP.interruptible(self._loader.interruptible()):
                if self._loader.num_workers == 0:
                    return next(self._iterator)
                _Batches.waiting = True
                _error_if_any_worker_fails()
                return next(self._iterator)
        except RuntimeError as error:
            explained = _explain_sharing(error) or self._explain(time.monotonic() - start)
            if explained is None:
                raise
            raise explained from error
        finally:
            _Batches.waiting = False

    def _explain(self, seconds: float) -> DataWorkerError | None:
        """Create the error for workers that died or do not respond; None if workers are not the cause."""
        workers = getattr(self._iterator, "_workers", ())
        for worker in workers:
            worker.join(0)
        ended = [worker for worker in workers if worker.exitcode not in (None, 0)]
        if ended:
            worker, status = ended[0], ended[0].exitcode
            if status == _NOT_HANDED_OVER or status == -signal.SIGBUS:
                return DataWorkerError(
                    f"data worker {worker.pid} could not hand over a batch in shared memory "
                    f"({_SHARED_MEMORY}: {_megabytes(free_shared_memory())} free). {_MORE_ROOM}"
                )
            if status == _NO_FILES:
                return DataWorkerError(_TOO_MANY_FILES)
            if status == -signal.SIGKILL:
                return DataWorkerError(
                    f"data worker {worker.pid} was killed (signal 9), most likely because the system ran out of memory "
                    "(see `dmesg`): use fewer workers (--cfg-options train_dataloader.num_workers=N) or smaller batches"
                )
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            return DataWorkerError(
                f"data worker {worker.pid} {how}. To see where, load the data in the main process: --cfg-options "
                "train_dataloader.num_workers=0"
            )
        if workers and self._loader.timeout and seconds >= self._loader.timeout:
            return DataWorkerError(
                f"no batch came from {len(workers)} data workers in {seconds:.0f} s ({_SHARED_MEMORY}: "
                f"{_megabytes(free_shared_memory())} free). If the data is that slow, wait longer: --cfg-options "
                f"train_dataloader.timeout=SECONDS. {_MORE_ROOM}"
            )
        return None


_MORE_ROOM = (
    "Where shared memory is small, use fewer workers (--cfg-options train_dataloader.num_workers=N, or 0 for "
    "none), a lower train_dataloader.prefetch_factor, or, in a container, more of "
    "it (docker run --shm-size=8g or --ipc=host)"
)

_TOO_MANY_FILES = (
    "data workers need an open file for each tensor that they hand over, more than allowed: raise the limit (ulimit -n "
    "65536), or use fewer workers (--cfg-options train_dataloader.num_workers=N) or a lower "
    "train_dataloader.prefetch_factor"
)


def _explain_sharing(error: RuntimeError) -> DataWorkerError | None:
    """Create the error for tensors that could not be put into shared memory or taken from it, as when collating."""
    found = re.search(
        r"unable to [^\n]*</torch_[^\n]*|torch_shm_manager[^\n]*|received \d+ items of ancdata", str(error)
    )
    if found is None:
        return None
    if "Too many open files" in found[0] or "ancdata" in found[0]:
        return DataWorkerError(_TOO_MANY_FILES)
    return DataWorkerError(
        f"a data worker could not put a batch into shared memory ({_SHARED_MEMORY}: {_megabytes(free_shared_memory())} "
        f"free; {found[0]}). {_MORE_ROOM}"
    )


def check_shared_memory(loader: DataLoader) -> None:
    """Check that the batches that workers prefetch fit into shared memory.

    If less than 2 GiB are free, one sample is loaded to estimate the size of a batch.

    Raises:
        ConfigError: with the sizes and what to do.
    """
    free = free_shared_memory()
    if loader.num_workers == 0 or isinstance(loader.dataset, IterableDataset) or free is None or free >= 2**31:
        return
    try:
        sample = loader.dataset[SampleIndex(0, sample_seed(0, 0))]
    except Exception:
        return
    batch = tensor_bytes(sample) * (loader.batch_sampler.batch_size if loader.batch_sampler else 1)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    count = (loader.num_workers * loader.prefetch_factor + 1) * processes
    if batch * count > free:
        raise ConfigError(
            f"{_SHARED_MEMORY} has {_megabytes(free)} free, but {loader.num_workers} data workers x "
            f"{loader.prefetch_factor} batches of {_megabytes(batch)} each"
            + (f" in each of {processes} processes" if processes > 1 else "")
            + f" need {_megabytes(batch * count)}. {_MORE_ROOM}"
        )


def tensor_bytes(sample) -> int:
    """Compute the bytes of all tensors in a sample, at any depth, which are passed through shared memory."""

    class Counter(pickle.Pickler):
        total = 0

        def persistent_id(self, item):
            if not isinstance(item, torch.Tensor):
                return None
            Counter.total += item.untyped_storage().nbytes()
            return "tensor"

    class Nowhere:
        @staticmethod
        def write(data: Iterable) -> None:
            pass

    Counter(Nowhere(), protocol=pickle.HIGHEST_PROTOCOL).dump(sample)
    return Counter.total


def free_shared_memory() -> int | None:
    """Return the free bytes of the shared-memory file system, or None if there is none."""
    try:
        status = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def _megabytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e6:,.1f} MB"


def _start_worker(initialize: Callable[[int], None] | None, worker_id: int) -> None:
    """Initialize a data worker.

    Workers ignore signals to the process group, because the current iteration still needs their data; the main process
    shuts them down. If the main process itself dies, the kernel kills its workers.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    queues.Queue._on_queue_feeder_error = staticmethod(_not_handed_over)
    if initialize is not None:
        initialize(worker_id)


def end_with_parent() -> None:
    """Ask the kernel to kill this process when its parent exits for any reason (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _not_handed_over(error: Exception, item) -> None:
    """Exit a worker that failed to send a batch, which Python's queue would drop while the main process waits."""
    if isinstance(error, RuntimeError | OSError):
        os.write(2, f"data worker {os.getpid()}: {error}\n".encode())
        os._exit(_NO_FILES if "Too many open files" in str(error) else _NOT_HANDED_OVER)
    traceback.print_exception(error)
    os._exit(1)


def _take_over_sigchld() -> None:
    """Check for dead workers only while waiting for their data.

    PyTorch's SIGCHLD handler would raise at any point of the main process, for example while writing a checkpoint.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, _on_child_end)


def _on_child_end(signum: int, frame) -> None:
    if _Batches.waiting:
        _error_if_any_worker_fails()

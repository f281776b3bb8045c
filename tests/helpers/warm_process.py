"""Separate processes without the seconds of their imports: forked from a server that has only imported libraries.

A process has its own exit status, signals, file descriptors and session, as one started from a shell has. It differs
from a fresh one in three ways: nothing has to be imported, all have the same hash seed, and the interpreter is not
finalized at the end. Tests of imports, of the order of sets or of threads that outlive the main one start fresh
processes.
"""

import contextlib
import multiprocessing
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Names that cannot be imported are skipped by the server.
_IMPORTED = (
    "pe_dense", "torch.distributed.tensor", "mmdet.models", "mmdet.evaluation", "mmdet.visualization", "mmseg.models",
    "mmseg.datasets", "pe_dense.apis", "pe_dense.backbones", "pe_dense.datasets.synthetic", "pe_dense.detection.deta",
    "pe_dense.detection.metrics", "pe_dense.distillation", "pe_dense.engine.build_runner", "pe_dense.engine.hooks",
    "pe_dense.engine.optimizers", "pe_dense.engine.runner", "pe_dense.language.registered", "pe_dense.probing",
    "pe_dense.segmentation", "pe_dense.depth", "pe_dense.tracking", "pe_dense.visualization.figures",
    "pe_dense.visualization.hook", "pe_dense.apps.explorer.cli",
)  # fmt: skip


class WarmProcess:
    """A script that runs in a forked process; the methods are those of ``subprocess.Popen``.

    Args:
        script: path of a Python file.
        arguments: its arguments.
        output: file that standard output is appended to.
        errors: the same of standard error; that of standard output by default.
        environment: environment variables besides those of this process.
        ignored: signals that the process ignores from its start on.
    """

    def __init__(self, script, *arguments, output, errors=None, environment=None, ignored=()):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_IMPORTED))
        files = [str(output), str(errors or output)]
        variables = os.environ | {name: str(value) for name, value in (environment or {}).items()}
        names = [str(ROOT / script), *map(str, arguments)]
        self._process = context.Process(target=_run, args=(names, files, dict(variables), list(ignored)))
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    returncode = property(poll)

    def wait(self, timeout: float = 300) -> int:
        """Wait for the exit status; a process that takes longer is killed."""
        self._process.join(timeout)
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)
            self._process.join()
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        return self.poll()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_ranks(script, *arguments, processes: int = 2, output, environment=None) -> list[WarmProcess]:
    """Start the processes of a distributed program with the variables that torchrun sets."""
    shared = dict(WORLD_SIZE=processes, LOCAL_WORLD_SIZE=processes, MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port())
    return [
        WarmProcess(
            script, *arguments, output=output, environment=shared | dict(RANK=i, LOCAL_RANK=i) | (environment or {})
        )
        for i in range(processes)
    ]


def run_ranks(script, *arguments, output, timeout: float = 280, **options) -> str:
    """Run the processes of a distributed program; return what they print. If one fails, the others are killed."""
    ranks = start_ranks(script, *arguments, output=output, **options)
    end = time.monotonic() + timeout
    while any(rank.poll() is None for rank in ranks):
        if any(rank.poll() for rank in ranks) or time.monotonic() > end:
            for rank in ranks:
                rank.send_signal(signal.SIGKILL)
        time.sleep(0.02)
    text = Path(output).read_text()
    assert [rank.poll() for rank in ranks] == [0] * len(ranks), text[-6000:]
    return text


def session_processes(session: int) -> list[int]:
    """List the running processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            # After the name in parentheses, which may contain anything: state, parent, group, session.
            state, *numbers = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if state != "Z" and int(numbers[2]) == session:
                found.append(int(entry.name))
    return found


def _run(command: list[str], files: list[str], variables: dict[str, str], ignored: list[int]) -> None:
    """Run a script as the main program of this process."""
    import numpy as np
    import torch

    os.setsid()
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    for target, path in enumerate(files, start=1):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, target)
        os.close(opened)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(ROOT)
    # As in a fresh process: data workers start in the usual way, and global generators have seeds of their own. More
    # threads than one would wait forever for those of the server, which a fork does not copy.
    multiprocessing.set_start_method(None, force=True)
    random.seed()
    np.random.seed()
    torch.set_num_threads(1)
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))
    runpy.run_path(command[0], run_name="__main__")

"""SIGTERM and SIGINT at any time: a checkpoint of the last iteration is saved, with a shell's exit status."""

import multiprocessing
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from helpers.linear_run import Numbers, make_runner
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import ValLoop

from pe_dense.engine.hooks import checkpoint as stop_module
from pe_dense.engine.hooks.checkpoint import StopHook
from pe_dense.utils import read_checkpoint
from pe_dense.utils.signals import STOP, StopRun, StopSignals

MOMENTS = ("before_train_iter", "after_train_iter", "before_save_checkpoint", "before_val_iter", "after_val_epoch")


class Signal(Hook):
    """Hook that sends a signal to the process at a given point of an iteration."""

    def __init__(self, moment, number, iteration):
        def send(runner, *args, **kwargs):
            if runner.iter == iteration:
                signal.raise_signal(number)

        setattr(self, moment, send)


def validated(runner):
    """Validate every three iterations."""
    runner.model.val_step = lambda data: runner.model(data["x"])
    evaluator = Evaluator([])
    evaluator.evaluate = lambda size: dict(score=1.0)
    dataloader = dict(batch_size=2, sampler=dict(type="DefaultSampler"), dataset=dict(type="NumbersForTests"))
    runner._val_loop = ValLoop(runner, dataloader, evaluator)
    runner._train_loop["val_interval"] = 3
    return runner


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_ends_a_run_with_a_checkpoint(tmp_path, moment, number):
    (tmp_path / "whole").mkdir()
    whole = validated(make_runner(tmp_path / "whole", max_iters=6, ema=0.25)).train()
    runner = validated(make_runner(tmp_path, max_iters=6, ema=0.25))
    runner._train_dataloader.update(num_workers=1, persistent_workers=True)
    iteration = 1 if moment == "before_save_checkpoint" else 3
    runner.register_hook(Signal(moment, number, iteration))
    with pytest.raises(StopRun) as stopped:
        runner.train()
    assert stopped.value.code == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    done = dict(before_train_iter=4, after_train_iter=4, before_save_checkpoint=2).get(moment, 3)
    assert read_checkpoint(tmp_path / "run")["meta"]["iter"] == done
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not multiprocessing.active_children()
    resumed = validated(make_runner(tmp_path, max_iters=6, ema=0.25, resume="auto")).train()
    assert torch.equal(resumed.linear.weight, whole.linear.weight)
    ends = [read_checkpoint(path / "run" / "iter_6.pth") for path in (tmp_path / "whole", tmp_path)]
    for part in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(value, ends[1][part][name]) for name, value in ends[0][part].items()), part


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_waiting_for_data_ends_at_once(tmp_path, monkeypatch, number):
    runner = make_runner(tmp_path, max_iters=6)
    load = Numbers.__getitem__

    def slow(self, index):
        if runner.iter == 3:
            signal.raise_signal(number)
            raise AssertionError("not ended")
        return load(self, index)

    monkeypatch.setattr(Numbers, "__getitem__", slow)
    with pytest.raises(StopRun) as stopped:
        runner.train()
    assert stopped.value.code == 128 + number
    assert read_checkpoint(tmp_path / "run")["meta"]["iter"] == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_waiting_for_a_worker_ends_at_once(tmp_path, monkeypatch, number):
    """The worker is killed: it would load for a minute."""
    runner = make_runner(tmp_path, max_iters=6)
    runner._train_dataloader.update(num_workers=1, prefetch_factor=1)
    load = Numbers.__getitem__

    def slow(self, index):
        if index == 6:  # in the fourth batch
            os.kill(os.getppid(), number)
            time.sleep(60)
        return load(self, index)

    monkeypatch.setattr(Numbers, "__getitem__", slow)
    with pytest.raises(StopRun) as stopped:
        runner.train()
    assert stopped.value.code == 128 + number
    assert not multiprocessing.active_children()
    assert read_checkpoint(tmp_path / "run")["meta"]["iter"] in (2, 3)


def test_gradients_that_were_accumulated_are_not_lost(tmp_path):
    """The run goes on to the update: after three iterations the checkpoint could not be resumed exactly."""
    wrapper = dict(type="OptimWrapper", accumulative_counts=2, optimizer=dict(type="SGD", lr=0.1))
    runner = make_runner(tmp_path, max_iters=8, optim_wrapper=wrapper)
    runner.register_hook(Signal("after_train_iter", signal.SIGTERM, 4))
    with pytest.raises(StopRun):
        runner.train()
    assert read_checkpoint(tmp_path / "run")["meta"]["iter"] == 6


def test_a_signal_before_the_first_iteration_leaves_no_checkpoint(tmp_path):
    runner = make_runner(tmp_path)
    runner.register_hook(Signal("before_run", signal.SIGTERM, 0))
    with pytest.raises(StopRun):
        runner.train()
    assert not list((tmp_path / "run").glob("*.pth"))


def test_processes_stop_together(monkeypatch):
    """If one process receives a signal, all stop before the same iteration."""
    monkeypatch.setattr(stop_module, "all_reduce", lambda value, op: value.fill_(int(signal.SIGTERM)))
    runner = SimpleNamespace(world_size=2, iter=3, optim_wrapper=SimpleNamespace(_accumulative_counts=1))
    with pytest.raises(StopRun) as stopped:
        StopHook().before_train_iter(runner, 3)
    assert stopped.value.agreed
    runner.optim_wrapper._accumulative_counts = 2
    StopHook().before_train_iter(runner, 3)  # not between two updates


def test_a_second_signal_ends_the_process(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "kill", lambda pid, number: ended.append((pid, number)))
    signals = StopSignals()
    previous = signal.getsignal(signal.SIGTERM)
    with signals.handled():
        signals.deferred = True
        for _ in range(2):  # `timeout` sends two at once
            signal.raise_signal(signal.SIGTERM)
        assert signals.requested == signal.SIGTERM and not ended
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 5)
        signal.raise_signal(signal.SIGTERM)
        assert ended == [(os.getpid(), signal.SIGTERM)]
    assert signal.getsignal(signal.SIGTERM) == previous


def test_other_threads_leave_signals_alone():
    seen = []

    def work():
        with StopSignals().handled():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)] and not STOP.deferred

"""A killed run loses the steps since its last checkpoint, and nothing else."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.tiny_run import logged, write_config
from helpers.tool_runs import ROOT, run_tool


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended by itself"
        assert time.monotonic() < end
        time.sleep(0.01)


def test_resuming_after_a_kill_repeats_the_uninterrupted_run(tmp_path):
    """Exactly, as images are not augmented here: data workers' own draws alone start anew on resuming."""
    config = write_config(tmp_path, max_iters=12, **{"default_hooks.checkpoint.interval": 4})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run_tool("train", config, "--work-dir", whole)
    assert done.returncode == 0, done.stderr[-2000:]

    command = [sys.executable, "tools/train.py", str(config), "--work-dir", str(killed)]
    with open(tmp_path / "killed.txt", "w") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
        try:
            wait_for(lambda: (killed / "last_checkpoint").exists() and len(logged(killed, "loss")) > 5, process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == -signal.SIGKILL
    reached = max(logged(killed, "loss"))
    assert 6 <= reached < 12
    assert not (killed / "iter_12.pth").exists()

    done = run_tool("train", config, "--work-dir", killed, "--resume")
    assert done.returncode == 0, done.stderr[-2000:]
    last = 4 if reached < 8 or "iter: 4" in done.stdout + done.stderr else 8
    assert f"resumed epoch: 0, iter: {last}" in done.stdout + done.stderr
    keys = ("loss", "lr", "grad_norm", "loss_rpn_cls", "loss_cls", "loss_bbox", "loss_mask")
    expected = logged(whole, *keys)
    assert list(expected) == list(range(1, 13))
    for step, values in logged(killed, *keys).items():
        assert values == pytest.approx(expected[step], rel=1e-6), f"step {step}"
    assert set(logged(killed, *keys)) == set(expected)

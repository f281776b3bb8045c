"""A run that was killed or stopped and resumed equals an uninterrupted one, with augmentation and data workers.

This is the short form of tests/kill_and_resume.py, which tries more moments and tasks.
"""

import importlib.util

import pytest
from helpers.tool_runs import ROOT


@pytest.mark.parametrize(("task", "signal", "workers"), [("maskrcnn", "KILL", "2"), ("alignment", "TERM", "1")])
def test_resuming_repeats_the_uninterrupted_run(tmp_path, capsys, task, signal, workers):
    """Bit for bit, even with another number of data workers."""
    spec = importlib.util.spec_from_file_location("kill_and_resume", ROOT / "tests" / "kill_and_resume.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    short = ["--kills", "1", "--iterations", "12", "--warm", "--folder", str(tmp_path)]
    differs = script.main(["--tasks", task, "--signal", signal, "--workers", workers, *short])
    said = capsys.readouterr().out
    assert not differs, said
    assert "12 losses, all equal" in said and "missed" not in said

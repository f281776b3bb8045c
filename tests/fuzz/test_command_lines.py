"""Short run of the command-line fuzzer."""

import importlib.util
from pathlib import Path


def test_command_lines():
    spec = importlib.util.spec_from_file_location("command_lines", Path(__file__).with_name("command_lines.py"))
    fuzzer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzzer)
    endings, failures = fuzzer.run(rounds=60, seed=0)
    assert not failures, "\n".join(failures)
    assert sum(count for name, count in endings.items() if "accepted" in name) >= 5
    assert sum(count for name, count in endings.items() if "refused" in name) >= 5

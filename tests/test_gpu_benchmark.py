"""benchmarks/gpu.py: options exist, time limits hold, and the report is complete although parts fail."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import gpu  # noqa: E402


@pytest.mark.parametrize("tiny", [True, False])
def test_commands_name_existing_files_and_options(tiny, tmp_path):
    parts = gpu.parts("cpu" if tiny else "cuda", tiny, tmp_path)
    commands = [command for _, commands in parts.values() for command in commands]
    assert len(commands) >= 9
    for command in commands:
        (path,) = (Path(word) for word in command if word.endswith(".py"))
        text = path.read_text()
        if path.parent.name != "tests" and "tests" not in path.parts:
            options = [word for word in command[command.index(str(path)) :] if word.startswith("--")]
            assert options and all(f'"{option}"' in text for option in options), (path, options)
    assert sum(limit for limit, _ in parts.values()) <= 700  # the last parts may be cut off


def test_report_of_good_failing_and_slow_parts(tmp_path, monkeypatch, capsys):
    def part(code):
        return [sys.executable, "-c", code]

    slow = "import subprocess, sys; print('started', flush=True); subprocess.run(['sleep', '60'])"
    log = "print('Iter(train) [ 1/2] lr: 1e-3  loss: 2.5000  x: 1'); print('Iter(train) [ 2/2] loss: nan')"
    planned = dict(
        good=(30, [part(log)]),
        bad=(30, [part("raise SystemExit('no kernel')")]),
        slow=(1, [part(slow), part("print('never')")]),
    )
    monkeypatch.setattr(gpu, "parts", lambda *_: planned)
    report = tmp_path / "gpu.md"
    assert gpu.main(["--tiny", "--output", str(report)]) == 1
    text = report.read_text()
    assert text.startswith("# GPU report\n\nCPU, ")
    assert "loss: 2.5000 nan" in text
    assert re.search(r"\*\*failed with status 1\*\*\n\n```\nno kernel", text)
    assert re.search(r"\*\*cut off after 1 s\*\*\n\n```\nstarted", text)
    assert "**not started: no time left**" in text
    assert "slow: cut off after 1 s" in capsys.readouterr().out
    assert gpu.main(["--tiny", "good", "--output", str(report)]) == 0
    assert "## bad" not in report.read_text()


def test_unknown_parts_and_missing_gpus_are_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--tiny", "towers"])
    assert "unknown parts towers; available: kernels, tower" in capsys.readouterr().err
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "there is no GPU: try the commands on a CPU with --tiny" in capsys.readouterr().err

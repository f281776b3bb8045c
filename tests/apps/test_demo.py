"""The demo: its chains of commands, with shell commands in the place of pe-dense's, and its page."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pe_dense.apps import demo
from pe_dense.apps.demo import DemoError, Part, page_of, run_demo
from pe_dense.datasets.synthetic import CLASSES
from pe_dense.engine.arguments import OptionText
from pe_dense.engine.config import load_config
from pe_dense.utils.package_files import find_config

SHELL = """#!/bin/sh
[ "$1 $2 $OMP_NUM_THREADS" = "-m pe_dense 1" ] || exit 99
exec /bin/sh -c "$3"
"""
LONG = "echo $$ > {}; exec sleep 60"  # its process is known by a file
INTERRUPTED = """
import sys
from pathlib import Path
from pe_dense.apps import demo
from pe_dense.utils.signals import STOP

out, sys.executable = Path(sys.argv[1]), sys.argv[2]
demo.detector = lambda out: [demo.Part("", [sys.argv[3].format(out / "first.pid")], out / "first")]
demo.others = lambda out: [demo.Part("", [sys.argv[3].format(out / "second.pid")], out / "second")]
with STOP.handled():
    demo.run_demo(out)
"""


@pytest.fixture
def shell(tmp_path):
    """A program that runs `-m pe_dense COMMAND` as a shell command."""
    path = tmp_path / "shell"
    path.write_text(SHELL)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def run(tmp_path, monkeypatch, shell):
    """Run the demo with these chains, each ``{name: command}``; return the page and all printed lines."""
    out, said = tmp_path / "out", []

    def run(first, second):
        for chain, commands in (("detector", first), ("others", second)):
            parts = [Part(name, [command], out / name, pictures=["*.png"]) for name, command in commands.items()]
            monkeypatch.setattr(demo, chain, lambda folder, parts=parts: parts)
        said.clear()
        return run_demo(out, said.append), said

    monkeypatch.setattr(demo.sys, "executable", shell)
    return run


def wait_for(found, seconds=60):
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "still waiting after a minute"
        time.sleep(0.05)


def is_running(path):
    try:
        os.kill(int(path.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_all_parts_run_and_end_in_a_page(run, tmp_path):
    out = tmp_path / "out"
    second = {"b": f"cp {out}/a/1.png {out}/b/2.png || touch {out}/b/2.png"}
    page, said = run({"a": f"touch {out}/a/1.png; echo made", "c": "true"}, second)
    assert page == out / "index.html"
    assert all(f'src="{name}"' in page.read_text() for name in ("a/1.png", "b/2.png"))
    assert sorted(line[: line.index(",")] for line in said) == ["[1/3", "[2/3", "[3/3"]
    assert (out / "a.log").read_text() == "made\n"
    assert json.loads((out / "c" / "done.json").read_text()) == ["true"]


def test_finished_parts_are_not_run_again(run, tmp_path):
    count = "echo run >> {}"
    first, second = ({name: count.format(tmp_path / name)} for name in ("a", "b"))
    run(first, second)
    run(first, second)
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["run\n"] * 2
    # Another command of the same name has not run yet.
    run(first, {"b": "echo again; " + second["b"]})
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["run\n", "run\nrun\n"]


def test_progress_of_the_first_chain_is_shown(run):
    lines = "echo 'Iter(train) [ 25/50]'; echo weights; echo '8 images, 2 s'; echo end; sleep 2"
    _, said = run({"a": lines}, {"b": lines.replace("25/50", "9/9")})
    assert [line for line in said if not line.startswith("[")] == ["Iter(train) [ 25/50]", "8 images, 2 s"]


@pytest.mark.parametrize("chain", [0, 1])
def test_a_failing_command_stops_the_other_chain(run, tmp_path, chain):
    out, pid = tmp_path / "out", tmp_path / "pid"
    failing = f"while [ ! -s {pid} ]; do sleep 0.1; done; echo begun; echo no weights >&2; exit 3"
    chains = [{"bad": failing, "never": f"touch {tmp_path}/never"}, {"long": LONG.format(pid), "later": "true"}]
    message = rf"^pe-dense '.*' failed with status 3: no weights \(all of its output: {out}/bad\.log\)$"
    with pytest.raises(DemoError, match=message):
        run(*(chains if chain == 0 else reversed(chains)))
    assert not is_running(pid)
    assert (out / "bad.log").read_text() == "begun\nno weights\n"
    assert not (tmp_path / "never").exists() and not (out / "later").exists()
    assert not list(out.glob("*/done.json")) and not (out / "index.html").exists()


def test_a_stopped_part_is_not_said_to_be_finished(run, tmp_path):
    pid = tmp_path / "pid"
    said = []
    with pytest.raises(DemoError):
        _, said = run({"long": LONG.format(pid)}, {"bad": f"while [ ! -s {pid} ]; do sleep 0.1; done; exit 1"})
    assert said == []


def test_a_command_without_output_fails(run):
    with pytest.raises(DemoError, match=r"^pe-dense false failed with status 1: no output \("):
        run({"a": "false"}, {})


def test_faults_of_the_second_chain_are_raised(run, tmp_path):
    """Not only those of a command: here a folder is in the place of the file that tells that a part has run."""
    with pytest.raises(OSError):
        run({"a": "true"}, {"b": f"mkdir {tmp_path}/out/b/done.json"})
    assert not (tmp_path / "out" / "index.html").exists()


def test_a_signal_leaves_no_process(tmp_path, shell):
    out = tmp_path / "out"
    command = [sys.executable, "-c", INTERRUPTED, str(out), shell, LONG]
    process = subprocess.Popen(command)
    pids = [out / "first.pid", out / "second.pid"]
    try:
        wait_for(lambda: all(path.exists() and path.read_text() for path in pids))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
        left = [path.name for path in pids if path.exists() and is_running(path)]
        for name in left:
            os.kill(int((out / name).read_text()), signal.SIGKILL)
    assert left == []
    assert not list(out.glob("*/done.json"))


def test_a_command_of_the_project(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "detector", lambda out: [Part("Version", ["--version"], out / "version")])
    monkeypatch.setattr(demo, "others", lambda out: [])
    run_demo(tmp_path, lambda line: None)
    assert re.fullmatch(r"pe_dense \d+\.\d+.*\n", (tmp_path / "version.log").read_text())


class Read(HTMLParser):
    """Text and pictures of each section of a page."""

    def __init__(self, page):
        super().__init__()
        self.sections, self.links = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "section":
            self.sections.append({"text": [], "images": []})
        elif tag in ("img", "a"):
            self.links.append(dict(attrs).get("src") or dict(attrs)["href"])
            if tag == "img":
                self.sections[-1]["images"].append(dict(attrs)["src"])

    def handle_data(self, data):
        if self.sections and data.strip():
            self.sections[-1]["text"].append(data)


def test_page(tmp_path):
    run = tmp_path / "run"
    for name in ("000001.png", "000000.png", "000000_labels.png"):
        (run / "pictures").mkdir(parents=True, exist_ok=True)
        (run / "pictures" / name).touch()
    for started, value in (("20260101_000000", 0.25), ("20260102_000000", 0.5)):
        (run / started).mkdir()
        (run / started / f"{started}.json").write_text(json.dumps({"mAP": value, "other": 1}))
    figures = {"mAP": ("box AP", " %", 100), "absent": ("absent", "", 1)}
    parts = [
        Part("", ["train", "config", "--words", "a; <b>", "tower=$HOME's"], run, figures=figures),
        Part("Objects & <more>", ["predict", "config"], run / "pictures", "Drawn <here>.", ["*[0-9].png"]),
        Part("Other", ["visualize"], tmp_path / "other", pictures=["*.png"]),
    ]
    page = page_of(parts, tmp_path)
    assert "<more>" not in page and "<here>" not in page and "<b>.." not in page
    read = Read(page)
    assert read.sections == [
        {
            "text": [
                "Objects & <more>",
                "Drawn <here>. ",
                "box AP 50 %",
                "Commands",
                """pe-dense train config --words 'a; <b>' 'tower=$HOME'"'"'s'""",
                "pe-dense predict config",
            ],
            "images": ["run/pictures/000000.png", "run/pictures/000001.png"],
        },
        {"text": ["Other", "Commands", "pe-dense visualize"], "images": []},
    ]
    assert all((tmp_path / link).is_file() and not Path(link).is_absolute() for link in read.links)


def test_a_page_shows_the_first_pictures(tmp_path):
    (tmp_path / "part").mkdir()
    for number in range(10):
        (tmp_path / "part" / f"{number}.jpg").touch()
    page = page_of([Part("Many", ["x"], tmp_path / "part", pictures=["*.jpg"])], tmp_path)
    assert Read(page).sections[0]["images"] == [f"part/{number}.jpg" for number in range(8)]


def test_words_are_the_classes_of_the_scenes():
    forms = ", ".join(CLASSES)
    assert forms == demo.FORMS
    assert load_config("shapes_words_pe_tiny").model.words == f"background; empty background, {forms}"


def test_commands_name_what_exists(tmp_path):
    """The demo's own commands: their configs and options, and a folder of its own for each."""
    parts = [*demo.detector(tmp_path), *demo.others(tmp_path)]
    assert len({part.out for part in parts}) == len(parts)
    for part in parts:
        command, name, *rest = part.command
        assert command in ("train", "test", "predict", "visualize")
        if not name.endswith("_pe_tiny"):
            continue
        assert find_config(name).is_file()
        given = rest[rest.index("--cfg-options") + 1 :] if "--cfg-options" in rest else []
        load_config(name, {key: OptionText(value) for key, value in (option.split("=") for option in given)})

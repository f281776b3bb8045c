"""Find the file that sets a key of a config, and print resolved configs."""

import re
from pathlib import Path

import pytest
from helpers.tool_runs import run_tool
from mmengine.config import Config

from pe_dense.engine.config import describe_config, key_sources, load_config

CONFIGS = Path(__file__).parents[2] / "configs"
HEAD = "from mmengine.config import read_base\nwith read_base():\n"


def names(sources):
    return {key: [file.name for file in files] for key, files in sources.items()}


def test_assignments_changes_and_deletions(tmp_path):
    (tmp_path / "first.py").write_text("a = dict(x=1)\nb = c = 2\nlate = [1]\ngone = 3\n\ndef f():\n    return 4\n")
    (tmp_path / "second.py").write_text(f"{HEAD}    from .first import *\na.merge(dict(y=2))\nb = 5\ndel gone, f\n")
    (tmp_path / "other.py").write_text("late = [2]\nunused = 1\n")
    (tmp_path / "top.py").write_text(
        f"{HEAD}    from .second import *\n    from .other import late as later\na.x = 7\nd, e = 1, 2\nlate += [3]\n"
    )
    assert names(key_sources(tmp_path / "top.py")) == dict(
        a=["first.py", "second.py", "top.py"],
        b=["second.py"],
        c=["first.py"],
        d=["top.py"],
        e=["top.py"],
        late=["first.py", "top.py"],
        later=["other.py"],
    )
    assert set(Config.fromfile(tmp_path / "top.py").to_dict()) == set(key_sources(tmp_path / "top.py"))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_key_has_a_source(path):
    assert set(key_sources(path)) == set(Config.fromfile(path).to_dict())


def sources_in(text):
    """Return keys and the comments above them."""
    return {key: files for files, key in re.findall(r"^# set by (.*)\n(\w+) = ", text, re.MULTILINE)}


def test_a_printed_config(tmp_path):
    options = {"image_size": 768, "optim_wrapper.optimizer.lr": 1e-3}
    text = describe_config(CONFIGS / "coco_maskrcnn_pe_s16.py", options)
    (tmp_path / "printed.py").write_text(text)
    expected = load_config(CONFIGS / "coco_maskrcnn_pe_s16.py", options)
    assert Config.fromfile(tmp_path / "printed.py").to_dict() == expected.to_dict()
    sources = sources_in(text)
    assert set(sources) == set(expected.to_dict())
    assert sources["data_root"] == "configs/_base_/coco.py"
    assert sources["log_level"] == "configs/_base_/runtime.py"
    assert sources["train_cfg"] == "configs/_base_/detection_schedule_100ep.py"
    assert sources["default_hooks"] == "configs/_base_/runtime.py, changed by configs/_base_/coco_maskrcnn.py"
    assert sources["image_size"] == "configs/_base_/maskrcnn.py, changed by --cfg-options"
    assert sources["optim_wrapper"] == (
        "configs/_base_/detection_schedule.py, changed by configs/coco_maskrcnn_pe_s16.py, --cfg-options"
    )


def test_the_tool(tmp_path):
    options = [f"data_root={tmp_path}", "tower=PE-Spatial-T16-512"]
    done = run_tool("print_config", "nyu_sweep_pe", "--cfg-options", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"# set by configs/_base_/nyu.py, changed by --cfg-options\ndata_root = '{tmp_path}'\n" in done.stdout
    (tmp_path / "printed.py").write_text(done.stdout)
    assert Config.fromfile(tmp_path / "printed.py").model.backbone.arch == "PE-Spatial-T16-512"

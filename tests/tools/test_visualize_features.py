"""Run tools/visualize_features.py in a separate process."""

import sys

import pytest
import torch
from helpers.tiny_towers import ARCH, tiny_tower
from helpers.tool_runs import run_tool
from mmengine.config import Config
from PIL import Image

from pe_dense.cli import main
from pe_dense.language.dense import CORE_MODES


def test_help_lists_all_modes_of_patches():
    helped = " ".join(run_tool("visualize_features", "--help", fresh=True).stdout.split())
    assert all(mode in helped for mode in CORE_MODES)


def test_drawing_a_runs_features(tmp_path, capsys, monkeypatch):
    config = Config(dict(model=dict(backbone=dict(type="pe_dense.PETower", arch=ARCH))))
    state = {f"backbone.{key}": value for key, value in tiny_tower().state_dict().items()}
    torch.save(dict(state_dict=state, meta=dict(cfg=config.pretty_text)), tmp_path / "run.pth")
    Image.effect_noise((40, 30), 100).save(tmp_path / "a.png")
    arguments = (tmp_path / "a.png", "--weights", tmp_path / "run.pth", "--layers", "all", "--out", tmp_path / "out")
    done = run_tool("visualize_features", *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    out = tmp_path / "out"
    assert done.stdout.splitlines() == [str(out / "a.png"), str(out / "a_layers.mp4"), f"Pictures: {out}"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "a_layers.mp4"]
    again = run_tool("visualize_features", *arguments)
    assert (again.returncode, len(again.stderr.strip().splitlines())) == (2, 1)
    assert "out is not empty: choose another folder or pass --overwrite" in again.stderr
    (tmp_path / "broken.png").write_bytes(b"no image")
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(SystemExit) as ended:
        main(["visualize", *map(str, (tmp_path / "broken.png", *arguments, "--overwrite"))])
    assert ended.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        str(out / "a.png"),
        str(out / "a_layers.mp4"),
        f"left out: {tmp_path / 'broken.png'} is not a readable image (not one of JPEG, PNG, WEBP, BMP, TIFF, GIF)",
        "Left out, since they cannot be used: 1 files",
        f"Pictures: {out}",
    ]

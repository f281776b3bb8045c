"""Run the tools in separate processes, as a user does."""

import argparse
import json
import subprocess
import sys

import pytest
from helpers.tool_runs import CONFIG, ROOT, call_tool, run_tool
from PIL import Image

from pe_dense import cli

TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))


@pytest.mark.parametrize("name", TOOLS)
def test_help(name):
    done = run_tool(name, "--help", fresh=True)
    assert done.returncode == 0
    assert "usage" in done.stdout


@pytest.mark.parametrize("name", TOOLS)
def test_interruption_ends_every_tool_in_a_line(name, monkeypatch):
    def pressed(*args, **options):
        raise KeyboardInterrupt

    for method in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, method, pressed)
    done = call_tool(name, "x", "y")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("message", ["", "nothing was written"])
def test_interruption_of_a_command(monkeypatch, capsys, message):
    """While it works, inside of what reports the user's errors; the message of the tool is a part of the line."""

    def pressed(*args, **options):
        raise KeyboardInterrupt(*filter(None, [message]))

    monkeypatch.setattr("pe_dense.apis.data_report.report_data", pressed)
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "folder"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == f"interrupted{': ' * bool(message)}{message}\n"


def test_tools_are_executable():
    """README and docs call them by their path; git keeps the mode."""
    listed = subprocess.run(["git", "ls-files", "-s", "tools"], cwd=ROOT, capture_output=True, text=True).stdout
    if not listed:
        pytest.skip("not a git checkout")
    modes = {line.split()[3]: line.split()[0] for line in listed.splitlines() if line.endswith(".py")}
    assert set(modes.values()) == {"100755"}, modes


def test_training_leaves_checkpoints_and_says_where(trained):
    assert f"Checkpoints: {trained.work_dir}" in trained.output
    assert (trained.work_dir / "iter_2.pth").exists()
    assert (trained.work_dir / "last_checkpoint").read_text().endswith("iter_4.pth")
    assert "coco/bbox_mAP" in trained.output
    assert "coco/segm_mAP" in trained.output


def test_resuming_goes_on(trained):
    options = [option for option in trained.options if "max_iters" not in option] + ["train_cfg.max_iters=6"]
    again = run_tool("train", CONFIG, "--work-dir", trained.work_dir, "--cfg-options", *options)
    assert again.returncode == 2
    assert "already contains a run" in again.stderr
    done = run_tool("train", CONFIG, "--work-dir", trained.work_dir, "--resume", "--cfg-options", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "resumed epoch: 0, iter: 4" in done.stdout + done.stderr
    assert (trained.work_dir / "iter_6.pth").exists()


def test_testing_prints_ap(trained):
    options = [option for option in trained.options if option.startswith(("data_root", "test_"))]
    done = run_tool("test", CONFIG, trained.work_dir, "--work-dir", trained.folder / "test", "--cfg-options", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "coco/bbox_mAP_50" in done.stdout + done.stderr
    assert str(trained.folder / "test") in done.stdout


def test_predicting_draws_and_writes(trained):
    images = sorted((trained.folder / "shapes" / "val").iterdir())[:2]
    broken = trained.folder / "broken.jpg"
    broken.write_bytes(b"no image")
    out = trained.folder / "pictures"
    arguments = (CONFIG, trained.work_dir, *images, broken, "--out", out, "--score-thr", "0.1")
    done = run_tool("predict", *arguments)
    assert done.returncode == 1, done.stderr[-2000:]  # one file could not be read
    assert f"left out: {broken} is not a readable image" in done.stdout
    assert str(out) in done.stdout
    for image in images:
        assert Image.open(out / f"{image.stem}.png").size == (512, 512)  # 128 px, enlarged by 4 to be readable
        content = json.loads((out / f"{image.stem}.json").read_text())
        assert (content["width"], content["height"]) == (128, 128)
        for item in content["objects"]:
            assert set(item) == {"category", "label", "score", "bbox", "mask"}
    refused = run_tool("predict", *arguments)
    assert refused.returncode == 2
    assert "is not empty: name another folder or pass --overwrite" in refused.stderr


def test_predicting_imports_no_more_than_it_needs(trained, tmp_path):
    """These packages take longer to import than PyTorch; `pe_dense.ops.late_imports` postpones most of them."""
    slow = {
        "imgaug", "matplotlib", "numba", "peft", "pe_dense.datasets.torchvision_transforms", "pe_dense.probing",
        "scipy", "timm", "torch._dynamo", "transformers",
    }  # fmt: skip
    code = (
        "import runpy, sys\ntry:\n    runpy.run_path('tools/predict.py', run_name='__main__')\n"
        f"finally:\n    print('imported', sorted({slow} & set(sys.modules)))"
    )
    image = min((trained.folder / "shapes" / "val").iterdir())
    command = [sys.executable, "-c", code, str(trained.work_dir), str(image), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "imported []"


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("train", ["configs/lvis_maskrcnn_pe_g14.py"], "LVIS v1 (train) not found: data/lvis/annotations"),
        ("train", ["configs/lvis_maskrcnn_pe_g41.py"], "did you mean lvis_maskrcnn_pe_g14.py"),
        ("train", [CONFIG, "--cfg-options", "model.backbone.out_indices=[6]"], "allowed are -6..5"),
        ("train", [CONFIG, "--cfg-options", "model.backbone.arch=PE-Spatial-G15"], "Known towers: PE-Core-T16-384"),
        ("test", [CONFIG, "absent.pth", "--cfg-options"], "absent.pth does not exist"),
        ("train", [CONFIG, "--cfg-options", "train_cfg.max_iter=2"], "has no 'max_iter'; did you mean max_iters"),
        ("predict", [CONFIG, "a.pth", "README.md", "--out", "README.md"], "--out README.md is a file: name a folder"),
        ("predict", [CONFIG, "absent.pth", "absent.jpg", "--out", "x"], "image absent.jpg does not exist"),
        ("predict", [CONFIG, "absent.pth", "pe_dense", "--out", "x"], "folder pe_dense contains no image"),
    ],
)
def test_mistakes_are_reported_in_one_line(tool, arguments, message, tmp_path, trained):
    read = ("data_root", "test_dataloader") if tool == "test" else ""
    extra = [option for option in trained.options if option.startswith(read)] if "--cfg-options" in arguments else []
    extra = [*extra, "--work-dir", tmp_path / "run"] if tool != "predict" else []
    if "data/lvis" in message and (ROOT / "data" / "lvis").exists():
        pytest.skip("LVIS is here")
    done = run_tool(tool, *arguments, *extra)
    assert done.returncode == 2, done.stderr[-2000:]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in done.stderr

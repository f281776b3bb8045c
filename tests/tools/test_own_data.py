"""Data of one's own, through the tools."""

import json

import pytest
from annotated_folder import write_folder
from tool_runs import CONFIG, run_tool

CLASSES = ("cog wheel", "bolt")
OPTIONS = [
    "train_dataloader.batch_size=2",
    *(
        f"{split}_dataloader.{name}"
        for split in ("train", "val", "test")
        for name in ("num_workers=0", "persistent_workers=False")
    ),
    "train_cfg.max_iters=2",
    "train_cfg.val_interval=2",
    "default_hooks.checkpoint.interval=2",
    "model.test_cfg.rcnn.score_thr=0.0",
]


@pytest.mark.parametrize("federated", [False, True], ids=["coco", "lvis"])
def test_train_test_and_predict(tmp_path, federated):
    data = write_folder(tmp_path / "parts", CLASSES, federated=federated)
    run = tmp_path / "run"
    arguments = ("--data", data, "--cfg-options", *OPTIONS)
    done = run_tool("train", CONFIG, "--work-dir", run, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    metric = "lvis/bbox_AP" if federated else "coco/bbox_mAP"
    assert metric in done.stdout + done.stderr
    (data / "annotations" / "parts_train.json").unlink()  # needed no more
    done = run_tool("test", CONFIG, run, "--work-dir", tmp_path / "test", *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    assert metric in done.stdout + done.stderr
    picture = data / "pictures" / "val_0.png"
    done = run_tool("predict", CONFIG, run, picture, "--out", tmp_path / "out", *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "out" / "val_0.json").read_text())["objects"]
    assert found
    assert {item["category"] for item in found} <= set(CLASSES)
    # The run's own config names the data, too.
    done = run_tool("predict", run / CONFIG.name, run, picture, "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "again" / "val_0.json").read_text())["objects"] == found


@pytest.mark.parametrize("tool", ["train", "test", "predict"])
def test_mistakes_are_told_in_one_line(tmp_path, tool):
    picture = write_folder(tmp_path / "parts") / "pictures" / "val_0.png"
    arguments = {"train": [], "test": ["absent.pth"], "predict": ["absent.pth", picture, "--out", tmp_path / "out"]}
    done = run_tool(tool, CONFIG, *arguments[tool], "--data", tmp_path / "absent")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: the data folder {tmp_path}/absent does not exist")

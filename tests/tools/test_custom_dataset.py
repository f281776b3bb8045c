"""Train and test on custom data with the tools."""

import json

from helpers.annotated_folder import write_folder
from helpers.tool_runs import CONFIG, run_tool

from pe_dense.detection import load_detector

CLASSES = ("cog wheel", "bolt")
ONE_PROCESS = ("num_workers=0", "persistent_workers=False")
SCORE = "model.test_cfg.rcnn.score_thr=0.0"
OPTIONS = [
    "train_dataloader.batch_size=2",
    "train_cfg.max_iters=2",
    "train_cfg.val_interval=2",
    "default_hooks.checkpoint.interval=2",
    SCORE,
    *(f"{split}_dataloader.{option}" for split in ("train", "val") for option in ONE_PROCESS),
]


def test_train_test_and_predict(tmp_path):
    data = write_folder(tmp_path / "parts", CLASSES, federated=True)
    run = tmp_path / "run"
    done = run_tool("train", CONFIG, "--work-dir", run, "--data", data, "--cfg-options", *OPTIONS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "lvis/bbox_AP" in done.stdout + done.stderr
    (data / "annotations" / "parts_train.json").unlink()  # needed no more
    options = [f"test_dataloader.{option}" for option in ONE_PROCESS]
    arguments = ("--data", data, "--cfg-options", SCORE)
    done = run_tool("test", CONFIG, run, "--work-dir", tmp_path / "test", *arguments, *options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "lvis/bbox_AP" in done.stdout + done.stderr
    picture = data / "pictures" / "val_0.png"
    done = run_tool("predict", CONFIG, run, picture, "--out", tmp_path / "out", *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "out" / "val_0.json").read_text())["objects"]
    assert {item["category"] for item in found} <= set(CLASSES)
    # The config in the work dir already contains the data.
    detector = load_detector(run / CONFIG.name, run, device="cpu")
    assert detector.classes == CLASSES
    assert len(detector(picture)[0].pred_instances) == len(found) > 0

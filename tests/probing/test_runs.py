"""Runs of probes and sweeps: their outputs and how to use them."""

import csv
import json
from itertools import count

import numpy as np
import pytest
import torch
from helpers.shapes_probe import CONFIGS, small_config
from helpers.tiny_run import logged
from PIL import Image

from pe_dense.engine import build_runner
from pe_dense.engine.config import load_config
from pe_dense.engine.inferencer import load_predictor
from pe_dense.probing import save_probe
from pe_dense.utils import CheckpointError, read_checkpoint
from pe_dense.utils.errors import ConfigError

_COUNT = count()


def name_anew(config):
    """MMEngine keeps state, open log files among it, by these names."""
    config.experiment_name = config.visualizer.name = f"probing_{next(_COUNT)}"
    return config


def train(config, work_dir, resume=None):
    name_anew(config)
    build_runner.training_runner(config, work_dir=str(work_dir), resume=resume, amp=False, launcher="none").train()
    return work_dir


def evaluate(config, checkpoint, work_dir):
    name_anew(config)
    return build_runner.testing_runner(config, str(checkpoint), work_dir=str(work_dir), launcher="none").test()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("probing")


@pytest.fixture(scope="module")
def sweep(folder):
    return train(small_config("shapes_sweep_pe_tiny", folder), folder / "sweep")


@pytest.fixture(scope="module")
def depth_sweep(folder):
    return train(small_config("shapes_depth_sweep_pe_tiny", folder), folder / "depth_sweep")


def report(work_dir, name):
    (path,) = work_dir.glob(f"*/{name}")
    return path


def test_sweep_reports_every_validation(sweep):
    for step in (2, 4):
        path = report(sweep, f"layers_iter_{step}")
        rows = list(csv.DictReader((path / "layers.csv").open()))
        assert [int(row["layer"]) for row in rows] == [0, 1, 2, 3, 4, 5]
        assert all(0 <= float(row["mIoU"]) <= 100 for row in rows)
        content = json.loads((path / "layers.json").read_text())
        assert content["best"]["mIoU"] == max(row["mIoU"] for row in content["rows"])
        assert content["title"] == "Shapes, linear probe, PE-Mini-Spatial"
        assert Image.open(path / "layers.png").size == (1120, 700)
        logs = logged(sweep, "best_layer", "mIoU", "mIoU/layer_5-0")[step]
        assert logs[:2] == [content["best"]["layer"], pytest.approx(content["best"]["mIoU"])]


def test_checkpoints_are_small(sweep):
    # six heads of 128 -> 9 with BatchNorm (5 x 128 + 1 numbers), a number per tensor of the tower, AdamW's moments
    assert (sweep / "iter_4.pth").stat().st_size < 200_000


def test_best_probe_is_for_the_single_layer_config(sweep, folder):
    probe = read_checkpoint(sweep / "best_probe.pth")
    layer = probe["meta"]["layer"]
    options = {"model.backbone.out_indices": [layer]}
    found = evaluate(small_config("shapes_linear_pe_tiny", folder, **options), sweep / "best_probe.pth", folder / "t1")
    assert found["mIoU"] == pytest.approx(probe["meta"]["mIoU"])
    best = json.loads((sweep / "best_by_probe.json").read_text())
    assert max(row["mIoU"] for row in best) == probe["meta"]["mIoU"]


def test_any_layers_probe_is_found_in_the_sweep(sweep, folder):
    rows = json.loads((report(sweep, "layers_iter_4") / "layers.json").read_text())["rows"]
    config = small_config("shapes_linear_pe_tiny", folder, **{"model.backbone.out_indices": [1]})
    assert evaluate(config, sweep, folder / "t2")["mIoU"] == pytest.approx(rows[1]["mIoU"])
    path = save_probe(sweep, folder / "second.pth", layer=1)
    config = small_config("shapes_linear_pe_tiny", folder, **{"model.backbone.out_indices": [1]})
    assert evaluate(config, path, folder / "t3")["mIoU"] == pytest.approx(rows[1]["mIoU"])
    with pytest.raises(CheckpointError, match=r"trained on blocks \[1\], the config has \[5\]"):
        evaluate(small_config("shapes_linear_pe_tiny", folder), path, folder / "t4")
    with pytest.raises(FileExistsError, match="second.pth exists"):
        save_probe(sweep, path, layer=2)
    with pytest.raises(CheckpointError, match="contains 0 probes of layer 6"):
        save_probe(sweep, folder / "seventh.pth", layer=6)


def test_a_tested_sweep_reports_too(sweep, folder):
    found = evaluate(small_config("shapes_sweep_pe_tiny", folder), sweep, folder / "t5")
    content = json.loads((report(folder / "t5", "layers_test") / "layers.json").read_text())
    assert content["best"]["mIoU"] == pytest.approx(found["mIoU"])


def test_sweep_logs_what_a_single_run_logs(sweep, folder):
    config = small_config("shapes_linear_pe_tiny", folder, **{"model.backbone.out_indices": [2]})
    single = train(config, folder / "single")
    together, alone = logged(sweep, "layer_2-0.loss", "lr"), logged(single, "loss", "lr")
    assert list(alone) == [1, 2, 3, 4]
    for step, (loss, lr) in alone.items():
        assert together[step] == [pytest.approx(loss, rel=1e-6), lr]


def test_resumed_sweep_repeats_the_uninterrupted_one(sweep, folder):
    part = small_config("shapes_sweep_pe_tiny", folder)
    for loader in (part.train_dataloader,):
        loader.dataset.pipeline = [step for step in loader.dataset.pipeline if step.type != "RandomFlip"]
    part.train_cfg.max_iters = 2
    train(part, folder / "part")
    before = read_checkpoint(folder / "part" / "best_probe.pth")["meta"]
    rest = small_config("shapes_sweep_pe_tiny", folder)
    train(rest, folder / "part", resume="auto")
    after = read_checkpoint(folder / "part" / "best_probe.pth")["meta"]
    rows = [json.loads(path.read_text())["best"] for path in (folder / "part").glob("*/layers_iter_*/layers.json")]
    assert after["mIoU"] == max(row["mIoU"] for row in rows) >= before["mIoU"]


def test_depth_sweep_keeps_each_layers_best(depth_sweep):
    reports = [json.loads((report(depth_sweep, f"layers_iter_{i}") / "layers.json").read_text()) for i in (2, 4)]
    for first, second in zip(*(content["rows"] for content in reports), strict=True):
        assert second["rmse"] <= first["rmse"]
        assert second["iter"] in (2, 4)
    assert reports[1]["best"]["rmse"] == min(row["rmse"] for row in reports[1]["rows"])
    assert reports[1]["unit"] == "m"


def test_depth_probe_keeps_the_best_epoch(folder, depth_sweep):
    options = {"default_hooks.checkpoint.max_keep_ckpts": 1}
    run = train(small_config("shapes_depth_pe_tiny", folder, **options), folder / "dpt")
    (best,) = run.glob("best_rmse_iter_*.pth")
    rmse = {step: value[0] for step, value in logged(run, "rmse").items()}
    assert f"iter_{min(rmse, key=rmse.get)}" in best.stem
    found = evaluate(small_config("shapes_depth_pe_tiny", folder), best, folder / "t6")
    assert found["rmse"] == pytest.approx(min(rmse.values()))
    predictor = load_predictor(small_config("shapes_depth_pe_tiny", folder), str(best), device="cpu")
    image = folder / "shapes" / "val" / "000001.png"
    assert list(predictor.predict_files([image], folder / "drawn")) == [folder / "drawn" / "000001.png"]
    written = json.loads((folder / "drawn" / "000001.json").read_text())
    millimeters = np.asarray(Image.open(folder / "drawn" / "000001_depth.png"))
    assert millimeters.shape == (64, 64)
    assert millimeters.dtype == np.uint16
    assert millimeters.max() == pytest.approx(1000 * written["depth"]["max"], abs=0.51)
    # enlarged by 8 to 512 px, twice beside each other with a margin of 6, a bar of 34 below
    assert Image.open(folder / "drawn" / "000001.png").size == (1030, 546)


def test_drawing_classes_of_images_of_any_size(sweep, folder):
    config = small_config("shapes_linear_pe_tiny", folder)
    predictor = load_predictor(config, str(sweep), device="cpu")
    images = [folder / "shapes" / "val" / "000000.png", folder / "wide.png"]
    Image.open(images[0]).resize((90, 50)).save(images[1])
    single = list(predictor.predict_files(images, folder / "one"))
    list(predictor.predict_files(images, folder / "two", batch_size=2))
    for picture, size in zip(single, ((64, 64), (90, 50)), strict=True):
        written = json.loads(picture.with_suffix(".json").read_text())
        assert (written["width"], written["height"]) == size
        assert sum(item["share"] for item in written["classes"]) == pytest.approx(1)
        assert {item["name"] for item in written["classes"]} <= set(predictor.metainfo["classes"])
        labels = Image.open(picture.with_name(f"{picture.stem}_labels.png"))
        assert labels.size == size
        assert labels.tobytes() == Image.open(folder / "two" / f"{picture.stem}_labels.png").tobytes()


@pytest.mark.parametrize(
    ("run", "name", "key"),
    [("sweep", "shapes_sweep_pe_tiny", "mIoU"), ("depth_sweep", "shapes_depth_sweep_pe_tiny", "rmse")],
)
def test_numbers_do_not_depend_on_the_batch(run, name, key, folder, request):
    work_dir = request.getfixturevalue(run)
    config = small_config(name, folder, **{"test_dataloader.batch_size": 5})
    found = evaluate(config, work_dir, folder / f"batch_{run}")
    for layer in range(6):
        (value,) = logged(work_dir, f"{key}/layer_{layer}-0")[4]  # validated in batches of two
        assert found[f"{key}/layer_{layer}-0"] == pytest.approx(value, rel=1e-5)


def test_what_can_not_be_drawn(sweep, folder):
    with pytest.raises(ConfigError, match="is the config of a sweep over layers: use the config of a single layer"):
        load_predictor(small_config("shapes_sweep_pe_tiny", folder), str(sweep))
    with pytest.raises(ConfigError, match="SegmentationPredictor, which has no score_thr"):
        load_predictor(small_config("shapes_linear_pe_tiny", folder), str(sweep), score_thr=0.5)
    with pytest.raises(ConfigError, match=r"nothing to draw on single images: run it by tools/test\.py"):
        load_predictor(load_config(CONFIGS / "shapes_propagation_pe_tiny.py"), "pe-mini://spatial")


def test_another_towers_weights_are_refused(sweep, folder):
    config = small_config("shapes_linear_pe_tiny", folder)
    state = read_checkpoint("pe-mini://spatial")
    torch.save({key: value + 0.5 for key, value in state.items()}, folder / "other.pth")
    config.model.backbone.init_cfg.checkpoint = str(folder / "other.pth")
    with pytest.raises(CheckpointError, match="was trained on a backbone with other weights"):
        evaluate(config, sweep, folder / "t7")


def test_missing_weights_of_the_tower(folder):
    config = small_config("shapes_linear_pe_tiny", folder)
    config.model.backbone.init_cfg.checkpoint = "work_dirs/absent"
    config.weights_source = "the first stage trains them"
    with pytest.raises(ConfigError, match=r"work_dirs/absent do not exist .*: the first stage trains them; other"):
        train(config, folder / "never")

"""Complete test runs of tracking: outputs, in one or two processes, and errors for missing files."""

import csv
import json

import numpy as np
import pytest
import torch
from helpers.video_folder import write_videos
from helpers.warm_process import ROOT, run_ranks

from pe_dense.datasets.davis import read_mask
from pe_dense.engine import build_runner
from pe_dense.engine.config import load_config
from pe_dense.engine.optimizers.layer_decay import parameter_groups
from pe_dense.registry import MODELS
from pe_dense.utils.errors import ConfigError

CONFIG = ROOT / "configs/shapes_propagation_pe_tiny.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the weights of a tower; the first run generates the videos."""
    folder = tmp_path_factory.mktemp("tracking")
    config = load_config(CONFIG)
    config.model.backbone.init_cfg = None
    torch.manual_seed(0)
    torch.save(MODELS.build(config.model).backbone.state_dict(), folder / "tower.pth")
    return folder


def options(folder, **more):
    loader = {"num_workers": 0, "prefetch_factor": None}
    generator = {"num_videos": 3, "num_frames": 4, "image_size": 64}
    return {
        "data_root": f"{folder}/videos",
        "model.backbone.init_cfg.checkpoint": f"{folder}/tower.pth",
        "model.frames_per_pass": 2,
        **{f"test_dataloader.{name}": value for name, value in loader.items()},
        **{f"test_dataloader.dataset.generator.{name}": value for name, value in generator.items()},
        "test_dataloader.dataset.pipeline.0.short_side": 64,
        **more,
    }


def run(folder, name, config=CONFIG, checkpoint=None, **more):
    config = load_config(config, options(folder, **more))
    runner = build_runner.testing_runner(config, checkpoint, work_dir=str(folder / name), launcher="none")
    return runner.test(), next((folder / name).glob("2*"))


@pytest.fixture(scope="module")
def single(folder):
    return run(folder, "single")


def masks(results):
    return {path.relative_to(results): read_mask(path) for path in results.rglob("masks/*/*.png")}


def test_a_run_leaves_masks_drawings_and_a_table(single):
    values, results = single
    assert 0 < values["davis/copy_J&F"] < 1 and 0 < values["davis/J&F"] < 1
    names = [f"shapes-{index:03d}" for index in range(3)]
    assert sorted(map(str, masks(results))) == [f"masks/{name}/{frame:05d}.png" for name in names for frame in range(4)]
    drawings = {path.name for path in (results / "overlays").iterdir()}
    assert drawings == {f"{name}.{kind}" for name in names for kind in ("jpg", "mp4")}
    with open(results / "objects.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["video"] for row in rows} == set(names)
    assert np.mean([float(row["J&F"]) for row in rows]) == pytest.approx(values["davis/J&F"])
    assert not list(results.glob("layers*"))


def test_nothing_depends_on_the_batch(folder, single):
    values, _ = run(folder, "batch", **{"test_dataloader.batch_size": 3})
    davis = [name for name in values if name.startswith("davis/")]
    assert {name: values[name] for name in davis} == {name: single[0][name] for name in davis}


def test_nothing_depends_on_the_number_of_processes(folder, single):
    command = ["tools/test.py", CONFIG, "--launcher", "pytorch", "--work-dir", folder / "two", "--cfg-options"]
    given = [f"{name}={value}" for name, value in options(folder).items()]
    run_ranks(*command, *given, output=folder / "two.txt", environment=dict(CUDA_VISIBLE_DEVICES=""))
    results = next((folder / "two").glob("2*"))
    assert (results / "objects.csv").read_bytes() == (single[1] / "objects.csv").read_bytes()
    found, expected = masks(results), masks(single[1])
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_the_sweep_compares_all_layers(folder, single):
    values, results = run(folder, "sweep", ROOT / "configs/shapes_propagation_sweep_pe_tiny.py")
    report = json.loads((results / "layers.json").read_text())
    assert [row["layer"] for row in report["rows"]] == [0, 1, 2, 3, 4, 5]
    assert report["best"]["layer"] == values["davis/layer"]
    assert values["davis/layer_5_J&F"] == single[0]["davis/J&F"]
    assert (results / "layers.png").exists() and (results / "layers.csv").exists()
    assert not (results / "masks").exists()


def test_masks_without_truth(folder, tmp_path):
    """Without ground truth, as for a submission: one mask per video, no evaluation."""
    write_videos(tmp_path / "davis")
    for path in (tmp_path / "davis/Annotations").rglob("0000[123].png"):
        path.unlink()
    loader = {"type": "pe_dense.DavisDataset", "with_truth": False, "data_root": str(tmp_path / "davis")}
    more = {f"test_dataloader.dataset.{name}": value for name, value in loader.items()}
    config = load_config(CONFIG, options(folder, test_evaluator=[], **more))
    config.test_dataloader.dataset.pop("generator")
    build_runner.testing_runner(config, None, work_dir=str(tmp_path / "run"), launcher="none").test()
    assert len(masks(next((tmp_path / "run").glob("2*")))) == 8


def test_missing_data_is_reported(tmp_path):
    config = load_config(ROOT / "configs/davis_propagation_pe_b16.py", dict(data_root=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"DAVIS 2017 \(test\) not found: .*val.txt does not exist.*davisch"):
        build_runner.testing_runner(config, "tower.pth", work_dir=str(tmp_path), launcher="none")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "shapes_maskrcnn_pe_tiny",
            {},
            "shapes_maskrcnn_pe_tiny.py needs training: name the CHECKPOINT",
        ),
        (
            "shapes_propagation_pe_tiny",
            {"model.backbone.init_cfg": None},
            "has no pretrained weights: name a CHECKPOINT",
        ),
        (
            "shapes_propagation_pe_tiny",
            {"model.backbone.init_cfg.checkpoint": "absent"},
            "the tower's weights absent do not exist .*; other ones: --cfg-options model.backbone.init_cfg",
        ),
    ],
)
def test_missing_weights_are_reported(name, change, message, tmp_path):
    config = load_config(ROOT / f"configs/{name}.py", change)
    with pytest.raises(ConfigError, match=message):
        build_runner.testing_runner(config, None, work_dir=str(tmp_path), launcher="none")


def test_training_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="has nothing to train: run it by tools/test.py"):
        build_runner.training_runner(
            load_config(CONFIG), work_dir=str(tmp_path), resume=None, amp=False, launcher="none"
        )
    with pytest.raises(ConfigError, match="has nothing to train"):
        parameter_groups(load_config(CONFIG))

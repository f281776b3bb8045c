"""Configs of open-vocabulary segmentation: word files, labels of each data set, and whole tests on made-up pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_clip import TEXT, VISION, tiny_clip
from helpers.tool_runs import call_tool
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from pe_dense.engine import build_runner
from pe_dense.engine.config import load_config
from pe_dense.language import save_clip
from pe_dense.language.word_lists import WORDS_FOLDER, parse_synonyms
from pe_dense.utils.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
NUM_CLASSES = dict(
    ade20k=150, cityscapes=19, cocoobject=81, cocostuff=171, context59=59, context60=60, voc20=20, voc21=21
)
# Names in word files of what the data sets name otherwise, some of which are labels rather than words.
RENAMED = {
    "aeroplane": "airplane",
    "crt screen": "CRT screen",
    "diningtable": "dining table",
    "donut": "doughnut",
    "hair drier": "hair dryer",
    "motorbike": "motorcycle",
    "mouse": "computer mouse",
    "pottedplant": "potted plant",
    "remote": "remote control",
    "tie": "necktie",
    "tv": "television",
    "tvmonitor": "television",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With weights of both towers in both layouts, and three pictures and label maps in ADE20k's layout."""
    folder = tmp_path_factory.mktemp("words")
    save_clip(tiny_clip(), folder / "clip.pt")
    save_clip(tiny_clip(), folder / "open_clip.pt", layout="open_clip")
    rng = np.random.default_rng(0)
    for index, (height, width) in enumerate([(40, 56), (64, 48), (48, 48)]):
        for name, values in (("images", rng.integers(0, 256, (height, width, 3))), ("annotations", None)):
            path = folder / f"ade/{name}/validation/{index}.{'jpg' if name == 'images' else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            labels = np.repeat(rng.integers(0, 151, (height, 1)), width, axis=1)
            Image.fromarray((labels if values is None else values).astype(np.uint8)).save(path)
    return folder


def options(folder, **more):
    return {
        "data_root": str(folder / "ade"),
        "model.clip.vision": VISION,
        "model.clip.text": TEXT,
        "model.templates": "photo",
        "model.test_cfg.crop_size": [32, 32],
        "model.test_cfg.stride": [16, 16],
        "test_dataloader.dataset.pipeline.1.scale": [2048, 40],
        "test_dataloader.num_workers": 0,
        "test_dataloader.persistent_workers": False,
        "log_level": "WARNING",
        **more,
    }


def run(folder, name, checkpoint="clip.pt", **more):
    given = options(folder, **more)
    if "model.clip" in more:
        given = {key: value for key, value in given.items() if not key.startswith("model.clip.")}
    config = load_config("ade20k_words_pe_l14", given)
    config.experiment_name = config.visualizer.name = f"{folder.name}{name}"
    runner = build_runner.testing_runner(
        config, checkpoint and str(folder / checkpoint), work_dir=str(folder / name), launcher="none"
    )
    return runner.test()


@pytest.fixture(scope="module")
def pooled(folder):
    return run(folder, "pooled")


def test_every_file_has_a_config():
    assert {file.stem for file in WORDS_FOLDER.iterdir()} == set(NUM_CLASSES)
    named = {path.stem.partition("_")[0] for path in CONFIGS.glob("*_words_pe_l14.py")}
    assert named == set(NUM_CLASSES)


@pytest.mark.parametrize("name", NUM_CLASSES)
def test_words_are_in_the_order_of_the_labels(name):
    config = load_config(f"{name}_words_pe_l14")
    assert config.model.words == f"{name}.txt"
    names, queries, _ = parse_synonyms(config.model.words)
    init_default_scope("mmseg")
    dataset = config.test_dataloader.dataset
    with DATASETS.switch_scope_and_registry("mmseg") as registry:
        classes = dict(dataset.get("metainfo") or registry.get(dataset.type).METAINFO)["classes"]
    reader = next(step for step in dataset.pipeline if step.type == "pe_dense.LoadLabelMap")
    assert len(names) == len(classes) == reader.num_classes == NUM_CLASSES[name]
    for word, label in zip(names, map(str.strip, classes), strict=True):
        if name == "cocostuff" and "-" in label:  # wall-brick: "brick wall", ceiling-tile: "tiled ceiling"
            assert label.partition("-")[0][:6] in word or word == "structure"
        else:
            assert word == RENAMED.get(label, label).replace("playingfield", "playing field").replace(
                "waterdrops", "water drops"
            )
    threshold = config.model.threshold
    assert (threshold > 0) == (classes[0] == "background") and all(queries)


def labels_of(name, values, tmp_path):
    """Labels that a config reads from a map of these values."""
    config = load_config(f"{name}_words_pe_l14")
    Image.fromarray(np.array([values], np.uint8)).save(tmp_path / "map.png")
    dataset = config.test_dataloader.dataset
    init_default_scope("mmseg")
    with DATASETS.switch_scope_and_registry("mmseg"):
        reduced = DATASETS.build(dict(dataset, lazy_init=True, pipeline=[])).reduce_zero_label
    from mmengine.registry import TRANSFORMS

    reader = TRANSFORMS.build(next(step for step in dataset.pipeline if step.type == "pe_dense.LoadLabelMap"))
    results = dict(
        seg_map_path=str(tmp_path / "map.png"), reduce_zero_label=reduced, seg_fields=[], ori_shape=(1, len(values))
    )
    reader._load_seg_map(results)
    return results["gt_seg_map"][0].tolist()


@pytest.mark.parametrize(
    ("name", "values", "labels"),
    [
        ("cocoobject", [0, 79, 80, 170, 255], [1, 80, 0, 0, 0]),  # stuff and unlabeled pixels are background
        ("cocostuff", [0, 79, 80, 170, 255], [0, 79, 80, 170, 255]),
        ("voc20", [0, 1, 20, 255], [255, 0, 19, 255]),
        ("ade20k", [0, 1, 150], [255, 0, 149]),
    ],
)
def test_labels(name, values, labels, tmp_path):
    assert labels_of(name, values, tmp_path) == labels


def test_a_run_does_not_depend_on_the_batch(folder, pooled):
    assert 0 <= pooled["mIoU"] < 20
    assert run(folder, "batch", **{"test_dataloader.batch_size": 3}) == pooled


def test_proxy(folder, pooled):
    tower = dict(type="pe_dense.PETower", arch=dict(VISION, pool_type="none", output_dim=None), with_head=False)
    found = run(folder, "proxy", **{"model.mode": "proxy", "model.proxy": tower})
    assert found.keys() == pooled.keys() and found != pooled


def test_weights(folder, pooled):
    """Strictly from a file in either layout, or from the config."""
    assert run(folder, "open_clip", "open_clip.pt") == pooled
    own = {"model.init_cfg.checkpoint": str(folder / "clip.pt")}
    assert run(folder, "own", None, **own) == pooled
    file = {"model.clip": str(folder / "clip.pt")}  # with the architecture that it names
    assert run(folder, "file", None, **file) == pooled
    with pytest.raises(ConfigError, match=r"absent.pt do not exist .*model.init_cfg.checkpoint=PATH"):
        run(folder, "absent", None, **{"model.init_cfg.checkpoint": "absent.pt"})


def test_tool(folder, pooled):
    """tools/test.py, as a user runs it."""
    given = [f"{name}={value}".replace(" ", "") for name, value in options(folder).items()]
    ended = call_tool(
        "test", "ade20k_words_pe_l14", folder / "clip.pt", "--work-dir", folder / "tool", "--cfg-options", *given
    )
    assert ended.returncode == 0, ended.stderr
    (figures,) = [file for file in (folder / "tool").rglob("*.json") if "mIoU" in file.read_text()]
    assert json.loads(figures.read_text())["mIoU"] == pytest.approx(pooled["mIoU"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model.words": "dog, cat"}, r"model.words has 2 classes, the test data set 150: 'wall', 'building'"),
        ({"model.words": ""}, "must not be empty"),
        (
            {"tower": "PE-Spatial-L14-448"},
            "PE-Spatial-L14-448 has no text tower; models with a text tower: PE-Core-T16",
        ),
        ({"data_root": "absent"}, "ADE20k .* not found: absent/images/validation does not exist"),
    ],
)
def test_what_does_not_fit_is_told(folder, more, message):
    given = options(folder, **more)
    if "tower" in more:
        given = {name: value for name, value in given.items() if not name.startswith("model.clip")}
    with pytest.raises(ValueError, match=message):
        config = load_config("ade20k_words_pe_l14", given)
        build_runner.testing_runner(
            config, str(folder / "clip.pt"), work_dir=str(folder / "refused"), launcher="none"
        ).test()


def test_shapes(folder, tmp_path):
    """The config of generated shapes, with a checkpoint of a training run: both towers under one prefix."""
    state = {f"clip.{key}": value for key, value in tiny_clip().state_dict().items()}
    torch.save(dict(state_dict=state | dict(logit_bias=torch.zeros(())), meta={}), tmp_path / "run.pth")
    more = {"data_root": str(tmp_path / "shapes"), "test_dataloader.dataset.generator": dict(num_train=2, num_val=2)}
    given = options(folder, **more)
    given.pop("test_dataloader.dataset.pipeline.1.scale")
    config = load_config("shapes_words_pe_tiny", given)
    config.experiment_name = config.visualizer.name = tmp_path.name
    runner = build_runner.testing_runner(config, str(tmp_path / "run.pth"), work_dir=str(tmp_path), launcher="none")
    assert 0 <= runner.test()["mIoU"] < 40
    assert (tmp_path / "shapes/shapes.json").is_file()  # made there, not in the working directory

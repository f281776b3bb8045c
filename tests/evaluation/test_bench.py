"""The benchmark on tiny backbones and data: every task, sheet, resuming, missing data."""

import csv
import json
import re
from functools import partial

import numpy as np
import pytest
import torch
from helpers import bench_processes
from helpers.tiny_bench import SETTINGS, SHAPES, second_of_two, tiny_bench
from helpers.tiny_clip import tiny_clip
from helpers.tiny_towers import tiny_tower
from helpers.warm_process import run_ranks
from PIL import Image

from pe_dense.backbones.base import parse_layers
from pe_dense.evaluation import bench, features, tasks
from pe_dense.evaluation.bench import file_name, open_named, run_bench
from pe_dense.evaluation.depth_probe import evaluate_depth_probe
from pe_dense.evaluation.features import fingerprint
from pe_dense.evaluation.run import TaskRun
from pe_dense.evaluation.sheet import published_values
from pe_dense.evaluation.task import Task
from pe_dense.evaluation.tasks import TASKS, select_tasks
from pe_dense.evaluation.words import evaluate_words, evaluate_zero_shot, open_text
from pe_dense.utils.errors import ConfigError, InputError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("bench") / "data"


def rows_of(name, root, figure=None, **options):
    folder, evaluate = SETTINGS[name]
    options = dict(layers=(0, 2)) | options
    return evaluate(TaskRun(tiny_tower(), root / folder, figure=figure, **options))


@pytest.mark.parametrize("name", SETTINGS)
def test_batches_workers_processes_layers_and_cache_change_no_value(name, root, tmp_path):
    """Layers are evaluated one by one under a small memory limit."""
    expected = rows_of(name, root, figure=tmp_path / "figure.png")
    assert [row["layer"] for row in expected] == [0, 2]
    assert all(0 <= row[TASKS[name].metric] <= 100 for row in expected)
    assert min(Image.open(tmp_path / "figure.png").size) > 100
    with second_of_two():
        other = rows_of(name, root, batch_size=2, workers=1, memory_limit=1.0, cache=tmp_path / "cache")
    for found, row in zip(other, expected, strict=True):
        assert found == pytest.approx(row, abs=0.05)


def test_more_layers_have_the_rows_of_fewer(root):
    single = [rows_of("shapes_lost", root, layers=(layer,))[0] for layer in range(3)]
    assert rows_of("shapes_lost", root, layers=(0, 1, 2)) == single


WORDS = {
    "shapes_words": (
        "shapes",
        partial(
            evaluate_words,
            data="shapes",
            words="background, circle, square, triangle, star, ring, cross, crescent, heart",
            templates=["a {}"],
            short_side=1.5,
            generator=SHAPES,
        ),
    ),
    "shapes_zeroshot": (
        "forms",
        partial(evaluate_zero_shot, templates=["a {}"], generator=dict(num_images=8, image_size=64)),
    ),
}


@pytest.mark.parametrize("name", WORDS)
def test_tasks_of_words(name, root, tmp_path):
    folder, evaluate = WORDS[name]
    clip = tiny_clip()
    run = TaskRun(clip.visual, root / folder, (0,), text=lambda: clip, figure=tmp_path / "figure.png")
    (row,) = evaluate(run)
    assert row["layer"] == 1 and 0 <= row[TASKS[name].metric] <= 100
    with second_of_two():
        other = evaluate(TaskRun(clip.visual, root / folder, (0,), text=lambda: clip, batch_size=2, workers=1))
    assert other == [pytest.approx(row, abs=0.05)]
    with pytest.raises(InputError, match="the backbone has no text tower"):
        evaluate(TaskRun(tiny_tower(), root / folder, (0,)))


def test_every_task_is_among_them():
    """The tests above, and those of test_depth_probe.py, run each function that evaluates a task."""
    tested = {evaluate.func for _, evaluate in (SETTINGS | WORDS).values()} | {evaluate_depth_probe}
    assert tested == {partial(task.evaluate).func for task in TASKS.values()}


def test_backbones_with_text():
    assert open_text("PE-Mini-Core=random", "cpu").logit_scale.ndim == 0
    for name in ("PE-Spatial-T16-512=random", "timm/vit_tiny_patch16_224=random"):
        with pytest.raises(InputError, match=f"{name.partition('=')[0]} has no text tower"):
            open_text(name, "cpu")


def test_layers():
    assert parse_layers("all", 3) == [0, 1, 2]
    assert parse_layers("-1", 3) == [2]
    assert parse_layers("1,-1,1", 3) == [1, 2]


@pytest.fixture
def small_bench():
    with tiny_bench() as opened:
        yield opened


def test_sheet(small_bench, root, tmp_path, monkeypatch):
    out = tmp_path / "out"
    options = dict(data_root=root, out=out, layers="all", workers=0)
    sheet = run_bench(["PE-Spatial-G14-448", "timm/windows"], **options).read_text()
    assert "| LOST, shapes | CorLoc |" in sheet and "PE-Spatial-G14-448 | timm/windows |" in sheet
    assert "`davis_s`" in sheet and "davischallenge.org" in sheet and "ImageSets/2017/val.txt" in sheet
    with (out / "sheet.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 6 and {row["task"] for row in table} == {"shapes_lost", "shapes_correspondence", "shapes_knn"}
    stored = json.loads((out / "results/timm_windows/shapes_lost.json").read_text())
    assert [row["layer"] for row in stored["rows"]] == [0, 1, 2]
    best = max(stored["rows"], key=lambda row: row["CorLoc"])
    row = next(row for row in table if row["task"] == "shapes_lost" and row["tower"] == "timm/windows")
    assert float(row["best"]) == pytest.approx(best["CorLoc"], abs=0.01) and row["layer"] == "2"
    assert {path.name for path in out.glob("*.png")} == {"tasks.png", *(f"layers_{n}.png" for n in stored_tasks(out))}
    assert (out / "results/timm_windows/shapes_knn.png").exists()

    # Nothing runs again, except what is damaged or has other layers.
    (out / "results/timm_windows/shapes_lost.json").write_text("{")
    ran = []
    evaluate = bench._evaluate
    monkeypatch.setattr(
        bench, "_evaluate", lambda name, task, *rest: ran.append((name, task.name)) or evaluate(name, task, *rest)
    )
    assert run_bench(["PE-Spatial-G14-448", "timm/windows"], **options).read_text() == sheet
    assert ran == [("timm/windows", "shapes_lost")]
    run_bench(["timm/windows"], **options | dict(layers="-1", tasks=["shapes_lost"]))
    assert ran[1:] == [("timm/windows", "shapes_lost")]


def test_processes_share_the_tasks(root, tmp_path):
    """Two processes write what one does, each a part of it."""
    run_ranks(bench_processes.__file__, root, tmp_path / "two", output=tmp_path / "output.txt")
    assert [(tmp_path / f"two/evaluated_{rank}").read_text() for rank in range(2)] == ["3", "3"]
    with tiny_bench():
        run_bench(["timm/a", "timm/b"], data_root=root, out=tmp_path / "one", layers="all", workers=0)
    for name in ("sheet.md", "sheet.csv"):
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "one" / name).read_text()
    for path in (tmp_path / "one/results").rglob("*.json"):
        result = json.loads(path.read_text())
        other = json.loads((tmp_path / "two" / path.relative_to(tmp_path / "one")).read_text())
        assert result["rows"] == [pytest.approx(row, abs=1e-3) for row in other["rows"]]


def test_weights_are_hashed_once(small_bench, root, tmp_path, monkeypatch):
    """Neither each extractor nor each task of words reads all weights again."""
    hashed = []
    for module in (bench, features):
        monkeypatch.setattr(module, "fingerprint", lambda tower: hashed.append(type(tower).__name__) or "hash")
    monkeypatch.setattr(bench, "open_text", lambda name, device: tiny_clip())
    for name in ("first_words", "second_words"):
        task = Task(name, name, "mIoU", "", lambda run: [dict(layer=0, mIoU=0.0)], "words", needs_text=True)
        monkeypatch.setitem(tasks.TASKS, name, task)
    run_bench(["timm/a"], data_root=root, out=tmp_path / "out", workers=0, cache=tmp_path / "cache")
    assert len(stored_tasks(tmp_path / "out")) == 5 and hashed == ["PETower", "CLIP"]


def stored_tasks(out):
    return {path.stem for path in out.glob("results/*/*.json")}


def test_published_values_are_beside(small_bench, root, tmp_path, monkeypatch):
    value = dict(task="shapes_lost", tower="PE-Spatial-G14-448", value=12.3, source="A paper")
    monkeypatch.setattr("pe_dense.evaluation.sheet.published_values", lambda: [value])
    sheet = run_bench(
        ["PE-Spatial-G14-448"], tasks=["shapes_lost"], data_root=root, out=tmp_path, workers=0
    ).read_text()
    assert "| shapes_lost | PE-Spatial-G14-448 | 12.3 | A paper |" in sheet
    assert re.search(r"\| LOST, shapes \| CorLoc \| [\d.]+ \[published 12\.3\] \|", sheet)
    (row,) = json.loads((tmp_path / "sheet.json").read_text())["rows"]
    assert row["published"] == 12.3 and row["source"] == "A paper"


def test_errors_in_meters_are_better_if_lower(small_bench, root, tmp_path, monkeypatch):
    """They have three decimals, and are not among the percentages of the plot of all tasks."""
    rows = [dict(layer=0, rmse=0.31256), dict(layer=2, rmse=0.5)]
    task = Task("some_depth", "depth", "rmse", "", lambda run: rows, "as published", unit="m")
    monkeypatch.setitem(tasks.TASKS, "some_depth", task)
    value = dict(task="some_depth", tower="timm/a", value=0.4, source="A paper")
    monkeypatch.setattr("pe_dense.evaluation.sheet.published_values", lambda: [value])
    sheet = run_bench(["timm/a"], tasks=["some_depth"], data_root=root, out=tmp_path, layers="0,2").read_text()
    assert "| depth | rmse (m) | 0.500 (0: 0.313) [published 0.400] |" in sheet
    (row,) = json.loads((tmp_path / "sheet.json").read_text())["rows"]
    assert (row["value"], row["best"], row["best_layer"]) == (0.5, 0.3126, 0)
    assert {path.name for path in tmp_path.glob("*.png")} == {"layers_some_depth.png"}


def test_a_task_that_a_backbone_cannot_run_is_skipped(small_bench, root, tmp_path, monkeypatch):
    def refuse(*_):
        raise InputError("only accepts images of 224 x 224 px")

    monkeypatch.setattr(bench, "_evaluate", refuse)
    sheet = run_bench(["timm/a"], tasks=["shapes_lost"], data_root=root, out=tmp_path, workers=0).read_text()
    assert "- `shapes_lost`, timm/a: only accepts images of 224 x 224 px" in sheet
    assert not list(tmp_path.glob("results/**/*.json"))


def test_published_values():
    values = published_values()
    assert {value["task"] for value in values} <= set(TASKS)
    assert all(
        0 < value["value"] < (100 if TASKS[value["task"]].unit == "%" else 5) and value["source"] and value["tower"]
        for value in values
    )
    places = [(value["task"], value["tower"]) for value in values]
    assert len(places) == len(set(places)) > 50


def test_selection_of_tasks(tmp_path):
    present, absent = select_tasks(None, tmp_path)
    assert {task.name for task in present} == {name for name in TASKS if name.startswith("shapes_")}
    assert len(present) + len(absent) == len(TASKS)
    (tmp_path / "davis/ImageSets/2017").mkdir(parents=True)
    for name in ("JPEGImages/480p", "Annotations/480p"):
        (tmp_path / "davis" / name).mkdir(parents=True)
    (tmp_path / "davis/ImageSets/2017/val.txt").touch()
    present, absent = select_tasks(["davis", "voc_knn_1_8"], tmp_path)
    assert [task.name for task in present] == ["davis_s", "davis_m", "davis_l"]
    assert [task.name for task in absent] == ["voc_knn_1_8"]
    assert absent[0].missing(tmp_path).endswith("VOCdevkit/VOC2012/JPEGImages")
    with pytest.raises(ConfigError, match="--tasks shapes_kn is not a task. Did you mean shapes_knn"):
        select_tasks(["shapes_kn"], tmp_path)


def test_bad_arguments(small_bench, tmp_path):
    name = "PE-Spatial-T16-512=random"
    for towers, options, message in (
        ([name, name], {}, "each backbone may be given once, got PE-Spatial-T16-512=random, PE-Spa"),
        ([name], dict(tasks=["davis"]), "no task has its data in .*; the tasks `shapes` need none"),
        (
            [name, "PE-Spatial-T16"],
            {},
            "PE-Spatial-T16 is not a published backbone, .* Did you mean PE-Spatial-T16-512",
        ),
        (["PE-Spatial-T16-512=missing.pth"], {}, "weights missing.pth of PE-Spatial-T16-512 do not exist"),
        ([name], dict(layers="last"), "--layers must be 'all' or numbers"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_bench(towers, data_root=tmp_path, out=tmp_path, **options)
    assert not small_bench  # nothing was opened


def test_names_of_backbones(tmp_path):
    tower = open_named("PE-Spatial-T16-512=random", "cpu")
    assert tower.name == "PE-Spatial-T16-512" and not tower.training
    towers = []
    for seed in (1, 2):  # another process has another seed
        torch.manual_seed(seed)
        towers.append(open_named("timm/vit_tiny_patch16_224=random", "cpu"))
    assert towers[0].name == "timm/vit_tiny_patch16_224" and fingerprint(towers[0]) == fingerprint(towers[1])
    with pytest.raises(FileNotFoundError):
        open_named(str(tmp_path / "missing.pth"), "cpu")
    assert file_name("timm/vit tiny=random") == "timm_vit_tiny=random" and file_name("../..") == "backbone"


def test_crop_and_jitter_depend_on_the_image_only():
    from pe_dense.evaluation.data import _augment

    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    image, labels = Image.fromarray(pixels), Image.fromarray(pixels[..., 0])
    first, second, other = (_augment(image, labels, number) for number in (3, 3, 4))
    assert np.array_equal(first[0], second[0]) and first[0].size == first[1].size
    assert np.asarray(first[1]).tobytes() != np.asarray(other[1]).tobytes()

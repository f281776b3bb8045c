"""LVISMetric against the `lvis` package, or against known values where that package fails."""

import copy
import gc
import json

import numpy as np
import pytest
import torch
from helpers.metric_data import add_degenerate_shapes, as_results, make_ground_truth, make_predictions
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from pycocotools import mask as mask_api

from pe_dense.registry import METRICS

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR@300", "ARs@300", "ARm@300", "ARl@300")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Content of an annotation file, its path, and detections of its images."""
    content = make_ground_truth(num_images=100, num_categories=60, size=(320, 240), lvis=True)
    return content, write(tmp_path_factory.mktemp("lvis"), content), make_predictions(content, per_image=300)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    content = make_ground_truth(num_images=20, num_categories=12, size=(240, 200), lvis=True, seed=3)
    return content, write(tmp_path_factory.mktemp("lvis"), content), make_predictions(content, per_image=60)


def write(folder, content):
    path = folder / "lvis.json"
    path.write_text(json.dumps(content))
    return str(path)


def build(path, content, **kwargs):
    metric = METRICS.build(dict(type="pe_dense.LVISMetric", ann_file=path, **kwargs))
    metric.dataset_meta = dict(classes=[category["name"] for category in content["categories"]])
    return metric


@pytest.fixture
def log(caplog):
    logger = MMLogger.get_current_instance()
    level = logger.level  # of tests before
    logger.setLevel("INFO")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.setLevel(level)


def evaluate(path, content, samples, iou_type="bbox"):
    metric = build(path, content, metric=iou_type)
    metric.process({}, samples)
    values = metric.evaluate(len(samples))
    assert tuple(values) == tuple(f"lvis/{iou_type}_{name}" for name in NAMES)
    return np.array(list(values.values()))


def oracle(path, content, samples, iou_type, monkeypatch):
    from lvis import LVIS, LVISEval, LVISResults

    monkeypatch.setattr(np, "float", float, raising=False)  # gone from NumPy, not from `lvis`
    truth = LVIS(path)
    evaluation = LVISEval(truth, LVISResults(truth, as_results(content, samples, iou_type)), iou_type)
    evaluation.run()
    return np.array([evaluation.get_results()[name] for name in NAMES])


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_equals_lvis(data, iou_type, monkeypatch):
    content, path, samples = data
    expected = oracle(path, content, samples, iou_type, monkeypatch)
    assert (expected > 0.05).all()
    np.testing.assert_allclose(evaluate(path, content, samples, iou_type), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("field", ["ignore", "iscrowd"])
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_equals_lvis_with_flagged_annotations(small, tmp_path, iou_type, field, monkeypatch):
    content, plain, samples = copy.deepcopy(small)
    for annotation in content["annotations"][::3]:
        annotation[field] = 1
    path = write(tmp_path, content)
    expected = oracle(path, content, samples, iou_type, monkeypatch)
    np.testing.assert_allclose(evaluate(path, content, samples, iou_type), expected, rtol=0, atol=1e-12)
    # `lvis` does not know crowds, but what is to be ignored.
    assert (field == "iscrowd") == np.allclose(expected, oracle(plain, content, samples, iou_type, monkeypatch))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_equals_lvis_with_degenerate_shapes(tmp_path, iou_type, seed, monkeypatch):
    """Zero areas, boxes without width, empty masks, ignored annotations, and categories that only these annotate."""
    content = make_ground_truth(num_images=40, num_categories=15, size=(240, 200), lvis=True, seed=seed)
    samples = make_predictions(content, per_image=60, seed=10 + seed)
    plain = evaluate(write(tmp_path, content), content, samples, iou_type)
    add_degenerate_shapes(content, samples, seed=20 + seed)
    path = write(tmp_path, content)
    expected = oracle(path, content, samples, iou_type, monkeypatch)
    values = evaluate(path, content, samples, iou_type)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9)
    assert (np.abs(values - plain) > 1e-3).sum() > 6


def test_equals_lvis_where_results_are_missing(small, log, monkeypatch):
    content, path, samples = small
    some = samples[::2]
    values = evaluate(path, content, some)
    assert "10 of 20 images have no result" in log.text
    np.testing.assert_allclose(values, oracle(path, content, some, "bbox", monkeypatch), rtol=0, atol=1e-12)
    assert not np.allclose(values, evaluate(path, content, samples))


def test_order_of_results_is_irrelevant(small):
    content, path, samples = small
    assert (evaluate(path, content, samples[::-1]) == evaluate(path, content, samples)).all()


def test_masks_as_tensors(small):
    content, path, samples = small
    pixels = copy.deepcopy(samples)
    for sample in pixels:
        instances = sample["pred_instances"]
        masks = [mask_api.decode(code) for code in instances["masks"]]
        instances["masks"] = torch.from_numpy(np.stack(masks)).bool() if masks else torch.zeros(0, 200, 240).bool()
    assert (evaluate(path, content, pixels, "segm") == evaluate(path, content, samples, "segm")).all()


def test_scores_of_half_precision(small):
    content, path, samples = small
    halves, singles = copy.deepcopy(samples), copy.deepcopy(samples)
    for half, single in zip(halves, singles, strict=True):
        half["pred_instances"]["scores"] = half["pred_instances"]["scores"].bfloat16()
        single["pred_instances"]["scores"] = half["pred_instances"]["scores"].float()
    assert (evaluate(path, content, halves) == evaluate(path, content, singles)).all()


def test_mask_scores_rank_masks_only(small):
    content, path, samples = small
    changed = copy.deepcopy(samples)
    for sample in changed:
        sample["pred_instances"]["mask_scores"] = sample["pred_instances"]["scores"]
        sample["pred_instances"]["scores"] = sample["pred_instances"]["scores"].flip(0)
    assert (evaluate(path, content, changed, "segm") == evaluate(path, content, samples, "segm")).all()
    assert (evaluate(path, content, changed) != evaluate(path, content, samples)).any()


def test_evaluator_of_mmengine_with_samples_of_mmdet(small):
    content, path, samples = small
    evaluator = Evaluator(dict(type="pe_dense.LVISMetric", ann_file=path, metric=["bbox", "segm"]))
    evaluator.dataset_meta = dict(classes=[category["name"] for category in content["categories"]])
    for sample in samples:
        instances = InstanceData(**sample["pred_instances"])
        evaluator.process([DetDataSample(metainfo=dict(img_id=sample["img_id"]), pred_instances=instances)])
    values = evaluator.evaluate(len(samples))
    expected = [evaluate(path, content, samples, iou_type) for iou_type in ("bbox", "segm")]
    assert list(values.values()) == np.concatenate(expected).tolist()


def test_keeps_only_what_counts(data):
    content, path, samples = data
    metric = build(path, content, metric=["bbox", "segm"])
    metric.process({}, samples)
    images = {image["id"]: set(image["neg_category_ids"]) for image in content["images"]}
    for annotation in content["annotations"]:
        images[annotation["image_id"]].add(annotation["category_id"])
    for result in metric.results:
        categories, _, codes = result["segm"]
        assert set(categories.tolist()) <= images[result["img_id"]] and len(codes) == len(categories) <= 300


def test_nothing_detected(small, tmp_path, log):
    content, _, samples = copy.deepcopy(small)
    for category in content["categories"]:
        category["frequency"] = "f"
    for sample in samples:
        sample["pred_instances"] = {key: value[:0] for key, value in sample["pred_instances"].items()}
    metric = build(write(tmp_path, content), content, metric=["bbox", "segm"])
    metric.process({}, samples)
    values = metric.evaluate(len(samples))
    assert "no bbox detection" in log.text and "no segm detection" in log.text
    absent = {f"lvis/{iou_type}_AP{group}" for iou_type in ("bbox", "segm") for group in "rc"}
    assert values == {name: -1 if name in absent else 0 for name in values} and len(values) == 26


def test_without_any_result(small):
    content, path, _ = small
    assert build(path, content).evaluate(20)["lvis/bbox_AP"] == 0


@pytest.fixture
def perfect(small, tmp_path):
    """A file, and its annotations as detections."""

    def make(content):
        labels = {category["id"]: label for label, category in enumerate(content["categories"])}
        samples = []
        for image in content["images"]:
            found = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]]
            boxes = torch.tensor([entry["bbox"] for entry in found]).reshape(-1, 4)
            instances = dict(
                bboxes=torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1),
                scores=torch.ones(len(found)),
                labels=torch.tensor([labels[entry["category_id"]] for entry in found], dtype=torch.long),
            )
            samples.append(dict(img_id=image["id"], pred_instances=instances))
        return write(tmp_path, content), content, samples

    return make


def test_annotation_with_id_0_can_be_matched(small, perfect):
    content = copy.deepcopy(small[0])
    for number, annotation in enumerate(content["annotations"]):
        annotation["id"] = number
    assert (evaluate(*perfect(content)) == 1).all()


def test_some_classes(small, perfect):
    content = copy.deepcopy(small[0])
    path, _, samples = perfect(content)
    content["categories"] = content["categories"][:3]
    for sample in samples:
        instances = sample["pred_instances"]
        kept = instances["labels"] < 3
        sample["pred_instances"] = {key: value[kept] for key, value in instances.items()}
    assert (evaluate(path, content, samples)[[0, 1, 2, 6]] == 1).all()


def test_name_that_lvis_misspells(small, perfect):
    content = copy.deepcopy(small[0])
    content["categories"][4]["name"] = "speaker_(stero_equipment)"
    path, content, samples = perfect(content)
    content["categories"][4]["name"] = "speaker_(stereo_equipment)"
    assert (evaluate(path, content, samples) == 1).all()


def test_logs_a_table(small, log):
    content, path, samples = small
    values = evaluate(path, content, samples)
    assert all(name in log.text for name in NAMES) and all(f"{100 * value:.2f}" in log.text for value in values)


@pytest.mark.parametrize("enabled", [True, False])
def test_leaves_the_garbage_collector_as_it_was(small, enabled):
    content, path, samples = small
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        evaluate(path, content, samples[:2])
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was else gc.disable)()


def broken(content, part, field):
    content = copy.deepcopy(content)
    for entry in content[part][1:]:
        del entry[field]
    return content


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("categories", "frequency"),
        ("images", "neg_category_ids"),
        ("images", "not_exhaustive_category_ids"),
        ("annotations", "bbox"),
    ],
)
def test_says_what_a_file_lacks(small, tmp_path, part, field):
    content = broken(small[0], part, field)
    count = len(content[part])
    with pytest.raises(ValueError, match=f"'{field}' is missing in {count - 1} of {count} {part}"):
        build(write(tmp_path, content), content)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("bbox", [1, 2, 3], "'bbox' is not four numbers in 1 of"),
        ("segmentation", None, "'segmentation' is missing in 1"),
    ],
)
def test_says_what_the_evaluator_would_stumble_over(small, tmp_path, field, value, message):
    content = copy.deepcopy(small[0])
    content["annotations"][3][field] = value
    with pytest.raises(ValueError, match=message):
        build(write(tmp_path, content), content, metric=["bbox", "segm"])


def test_masks_are_wanted_only_for_masks(small, tmp_path):
    content = broken(small[0], "annotations", "segmentation")
    path = write(tmp_path, content)
    build(path, content, metric="bbox")
    with pytest.raises(ValueError, match="'segmentation' is missing"):
        build(path, content, metric="segm")


def test_says_how_a_file_contradicts_itself(small, tmp_path):
    content = copy.deepcopy(small[0])
    content["categories"][0]["frequency"] = "x"
    with pytest.raises(ValueError, match="'frequency' is 'x' in 1 of .* must be 'r', 'c' or 'f'"):
        build(write(tmp_path, content), content)
    content["annotations"][1]["category_id"] = 999
    with pytest.raises(ValueError, match="1 annotations have a 'category_id' that none of the categories has"):
        build(write(tmp_path, content), content)


def test_part_that_is_not_there(small, tmp_path):
    content = {key: value for key, value in small[0].items() if key != "annotations"}
    with pytest.raises(ValueError, match="'annotations' is missing or not a list"):
        build(write(tmp_path, content), content)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["thing 0", "cat"], "1 of the data set's 2 classes.*'cat';.* 11 are not among the classes: 'thing 1'"),
        (["thing 1", "thing 0"], "classes differs.*'thing 1', 'thing 0'; in the file 'thing 0', 'thing 1'"),
    ],
)
def test_classes_that_the_file_has_not(small, classes, message):
    content, path, samples = small
    metric = build(path, content)
    metric.dataset_meta = dict(classes=classes)
    with pytest.raises(ValueError, match=message):
        metric.process({}, samples)


def test_image_that_the_file_has_not(small):
    content, path, samples = small
    with pytest.raises(ValueError, match="image 7 is not among the 20 images"):
        build(path, content).process({}, [dict(samples[0], img_id=7)])


@pytest.mark.parametrize("metric", ["box", ["bbox", "proposal"], []])
def test_metric_that_does_not_exist(small, metric):
    content, path, _ = small
    with pytest.raises(ValueError, match="metric must be one or both"):
        build(path, content, metric=metric)

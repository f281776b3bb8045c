"""CocoMetric against pycocotools."""

import json

import numpy as np
import pytest
from helpers.metric_data import add_degenerate_shapes, as_results, make_ground_truth, make_predictions
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pe_dense.registry import METRICS

NAMES = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
NAMES += ("AR@1", "AR@10", "AR@100", "AR_s@100", "AR_m@100", "AR_l@100")


def write(folder, content):
    path = folder / "coco.json"
    path.write_text(json.dumps(content))
    return str(path)


def build(path, classes, metric):
    metric = METRICS.build(dict(type="pe_dense.CocoMetric", ann_file=path, metric=metric))
    metric.dataset_meta = dict(classes=classes)
    return metric


def oracle(path, content, samples, iou_type, categories):
    truth = COCO(path)
    evaluation = COCOeval(truth, truth.loadRes(as_results(content, samples, iou_type)), iou_type)
    evaluation.params.catIds = categories
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


# With 8 categories some images have more than the 100 detections of one category that count.
@pytest.mark.parametrize(("num_categories", "per_image"), [(80, 100), (8, 500)])
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_equals_pycocotools(num_categories, per_image, iou_type, tmp_path):
    content = make_ground_truth(
        num_images=60, num_categories=num_categories, size=(320, 240), lvis=False, crowds=0.15, seed=5
    )
    path, samples = write(tmp_path, content), make_predictions(content, per_image=per_image)
    metric = build(path, [category["name"] for category in content["categories"]], iou_type)
    metric.process({}, samples)
    values = metric.evaluate(len(samples))
    assert list(values) == [f"coco/{iou_type}_{name}" for name in NAMES]
    expected = oracle(path, content, samples, iou_type, [category["id"] for category in content["categories"]])
    assert (expected > 0.02).all()
    np.testing.assert_allclose(list(values.values()), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_equals_pycocotools_with_degenerate_shapes(tmp_path, iou_type, seed):
    """Zero areas, boxes without width, empty masks, crowds and ignored annotations, and unannotated categories."""
    content = make_ground_truth(
        num_images=40, num_categories=15, size=(240, 200), lvis=False, crowds=0.15, seed=30 + seed
    )
    samples = make_predictions(content, per_image=60, seed=40 + seed)
    add_degenerate_shapes(content, samples, seed=50 + seed)
    path = write(tmp_path, content)
    metric = build(path, [category["name"] for category in content["categories"]], iou_type)
    metric.process({}, samples)
    values = metric.evaluate(len(samples))
    expected = oracle(path, content, samples, iou_type, [category["id"] for category in content["categories"]])
    np.testing.assert_allclose(list(values.values()), expected, rtol=0, atol=1e-9)


def test_equals_pycocotools_on_some_classes(tmp_path):
    content = make_ground_truth(num_images=30, num_categories=20, size=(160, 120), lvis=False, crowds=0.1)
    path, samples = write(tmp_path, content), make_predictions(content, per_image=60)
    chosen = content["categories"][2:9:2]
    part = dict(content, categories=chosen)
    for sample in samples:
        instances = sample["pred_instances"]
        kept = (instances["labels"] < len(chosen)).nonzero().flatten()
        masks = [instances["masks"][index] for index in kept]
        sample["pred_instances"] = {key: instances[key][kept] for key in ("labels", "scores", "bboxes")}
        sample["pred_instances"]["masks"] = masks
    metric = build(path, [category["name"] for category in chosen], "bbox")
    metric.process({}, samples)
    expected = oracle(path, part, samples, "bbox", [category["id"] for category in chosen])
    np.testing.assert_allclose(list(metric.evaluate(30).values()), expected, rtol=0, atol=1e-12)


def test_nothing_detected(tmp_path):
    content = make_ground_truth(num_images=12, num_categories=10, size=(480, 360), lvis=False, crowds=0.2)
    samples = make_predictions(content, per_image=0)
    metric = build(write(tmp_path, content), [category["name"] for category in content["categories"]], ["bbox", "segm"])
    metric.process({}, samples)
    values = metric.evaluate(len(samples))
    assert len(values) == 24 and set(values.values()) == {0}


def test_file_without_annotations(tmp_path):
    content = make_ground_truth(num_images=5, num_categories=10, size=(96, 80), lvis=False)
    del content["annotations"]
    with pytest.raises(ValueError, match="'annotations' is missing or not a list"):
        build(write(tmp_path, content), [], "bbox")

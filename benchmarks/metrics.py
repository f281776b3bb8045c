"""Compare the time of the LVIS and COCO metrics with the packages they replace, on generated data.

    python benchmarks/metrics.py --images 500

Both read the same file and the same detections, 300 per image for LVIS and 100 for COCO, on 640 x 480 pixels with
encoded masks; times are from reading the file to the values. The result dicts of the packages are created before.
Prints a table with the largest difference between the values, and writes it as JSON.
"""

import argparse
import contextlib
import io
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from utils import write_table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.metric_data import as_results, make_ground_truth, make_predictions

from pe_dense.registry import METRICS
from pe_dense.utils.atomic_write import write_json

np.float = float  # removed from NumPy, but used by `lvis`
from lvis import LVIS, LVISEval, LVISResults
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def ours(name: str, path: str, content: dict, samples: list[dict], iou_type: str) -> list[float]:
    metric = METRICS.build(dict(type=f"pe_dense.{name}", ann_file=path, metric=iou_type))
    metric.dataset_meta = dict(classes=[category["name"] for category in content["categories"]])
    metric.process({}, samples)
    return list(metric.evaluate(len(samples)).values())


def lvis(path: str, results: list[dict], iou_type: str) -> list[float]:
    truth = LVIS(path)
    evaluation = LVISEval(truth, LVISResults(truth, results), iou_type)
    evaluation.run()
    return list(evaluation.get_results().values())


def pycocotools(path: str, results: list[dict], iou_type: str) -> list[float]:
    truth = COCO(path)
    evaluation = COCOeval(truth, truth.loadRes(results), iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return list(evaluation.stats)


def timed(function: Callable, *args) -> tuple[float, list[float]]:
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        values = function(*args)
    return time.perf_counter() - start, values


def compare(name: str, package: Callable, images: int, repeats: int, **data) -> list[dict]:
    per_image = 300 if data["lvis"] else 100
    content = make_ground_truth(num_images=images, size=(640, 480), **data)
    samples = make_predictions(content, per_image=per_image)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "annotations.json")
        write_json(path, content)
        for iou_type in ("bbox", "segm"):
            runs = []
            for _ in range(repeats):
                new = timed(ours, name, path, content, samples, iou_type)
                # Created again, since the packages modify them.
                old = timed(package, path, as_results(content, samples, iou_type), iou_type)
                runs.append((new[0], old[0], float(np.abs(np.subtract(new[1], old[1])).max())))
            seconds, reference, difference = np.array(runs).min(0)[:2].tolist() + [max(run[2] for run in runs)]
            rows.append(
                dict(
                    metric=name,
                    type=iou_type,
                    package=package.__name__,
                    images=images,
                    detections=sum(len(sample["pred_instances"]["labels"]) for sample in samples),
                    seconds=round(seconds, 3),
                    package_seconds=round(reference, 3),
                    ratio=round(seconds / reference, 3),
                    largest_difference=difference,
                )
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3, help="the shortest time of so many counts")
    parser.add_argument("--output", type=Path, default=Path("work_dirs/benchmarks/metrics.json"))
    args = parser.parse_args()
    logging.disable(logging.WARNING)

    rows = compare("LVISMetric", lvis, args.images, args.repeats, num_categories=1203, lvis=True)
    rows += compare("CocoMetric", pycocotools, args.images, args.repeats, num_categories=80, lvis=False, crowds=0.1)
    write_table(rows, args.output)


if __name__ == "__main__":
    main()

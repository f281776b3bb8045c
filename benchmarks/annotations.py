"""Measure how long a process takes to build the data set of a large annotation file, and its memory.

    python benchmarks/annotations.py
    git worktree add /tmp/before COMMIT && python benchmarks/annotations.py --before /tmp/before

The default is a generated file of a quarter of LVIS v1 train (100,170 images, 1,270,141 annotations), with polygons of
36 numbers; LVIS's have about 88 (`--numbers 88`). Rows, each in a process of its own, in turns:

* first: `pe_dense.LVISDataset` without a cache file, with all checks; * later: with the cache file;
* before: the class of another checkout; * mmdet: mmdet's class, which does not check the file.

`private MB` is the process's own memory that the data set takes after it was built, `peak MB` the most during that,
both in addition to the imports. `same` is whether all entries of `get_data_info` equal those of the
row `first`; mmdet's have other names of images.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from utils import quartiles, write_table

WORKER = """
import json, logging, resource, sys, time
from hashlib import blake2b
from mmengine.logging import MMLogger

MMLogger.get_instance("benchmark", log_level="ERROR")
row, path, compare = sys.argv[1:4]
if row == "mmdet":
    from mmdet.datasets import LVISV1Dataset as Dataset
else:
    from pe_dense.datasets import LVISDataset as Dataset
classes = [f"class {i}" for i in range(1203)]

def private():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before, high = private(), peak()
start, cpu = time.perf_counter(), time.process_time()
data = Dataset(ann_file=path, data_prefix=dict(img=""), metainfo=dict(classes=classes),
               filter_cfg=dict(filter_empty_gt=True, min_size=1), pipeline=[])
result = dict(seconds=time.perf_counter() - start, cpu=time.process_time() - cpu, private=private() - before,
              peak=peak() - high)
if compare == "1":
    digest = blake2b()
    for index in range(len(data)):
        digest.update(json.dumps(data.get_data_info(index)).encode())
    result["digest"] = digest.hexdigest()
print(json.dumps(result))
"""


def make_file(path: Path, count: int, numbers: int) -> None:
    """Write a file with `count` annotations of closed outlines in images of 640 x 480 pixels."""
    rng = np.random.default_rng(0)
    images = [
        dict(
            id=i,
            width=640,
            height=480,
            coco_url=f"http://images.example.org/train2017/{i:012d}.jpg",
            neg_category_ids=[1, 2, 3],
            not_exhaustive_category_ids=[4],
        )
        for i in range(count // 13 + 1)
    ]
    categories = [dict(id=i + 1, name=f"class {i}", frequency="f", image_count=9) for i in range(1203)]
    angles = np.linspace(0, 2 * np.pi, numbers // 2, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    annotations = []
    for i in range(count):
        radius, center = rng.uniform(3, 100), rng.uniform([110, 110], [530, 370])
        points = (circle * radius + center).round(2)
        left, top = points.min(axis=0).tolist()
        right, bottom = points.max(axis=0).tolist()
        parts = [points.ravel().tolist()]
        if i % 4 == 0:  # masks of two parts
            parts = [parts[0][: numbers // 2], parts[0][numbers // 2 :]]
        annotations.append(
            dict(
                id=i + 1,
                image_id=i // 13,
                category_id=i % 1203 + 1,
                bbox=[left, top, right - left, bottom - top],
                area=float(np.pi * radius**2),
                segmentation=parts,
            )
        )
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def measure(row: str, path: Path, compare: bool, root: Path | None) -> dict:
    """Build the data set of one row in a process of its own."""
    if row == "first":
        for cache in path.parent.glob(f".{path.name}.*.cache"):
            cache.unlink()
    folder = root if row == "before" else Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", WORKER, row, str(path), str(int(compare))]
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True, cwd=path.parent)
    return json.loads(output.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=int, default=318_000)
    parser.add_argument("--numbers", type=int, default=36, help="coordinates of an annotation, a multiple of 4 (36)")
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmarks/annotations.json"))
    args = parser.parse_args()
    rows = ["first", "later", *(["before"] if args.before else []), "mmdet"]
    results: dict[str, list[dict]] = {row: [] for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lvis.json"
        make_file(path, args.annotations, args.numbers)
        print(f"{args.annotations} annotations, {path.stat().st_size / 1e6:.0f} MB")
        for number in range(args.repeats):
            for row in rows:
                results[row].append(measure(row, path, number == 0, args.before))
    table = []
    for row, values in results.items():
        table.append(
            {
                "row": row,
                "seconds": round(quartiles([value["seconds"] for value in values])[1], 2),
                "CPU seconds": round(quartiles([value["cpu"] for value in values])[1], 2),
                "private MB": round(quartiles([value["private"] for value in values])[1]),
                "peak MB": round(quartiles([value["peak"] for value in values])[1]),
                "same": values[0]["digest"] == results["first"][0]["digest"],
            }
        )
    write_table(table, args.out)


if __name__ == "__main__":
    main()

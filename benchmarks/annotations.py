"""Measure the time to check an annotation file, in addition to loading its JSON, on generated data similar to LVIS.

    python benchmarks/annotations.py --annotations 325000

LVIS v1 train has 100,170 images and 1,270,141 annotations; the default is a quarter of that. Each annotation has
polygons with as many numbers as LVIS's on average. Prints processor seconds and memory, scaled to LVIS train, and
writes them as JSON.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from pe_dense.datasets.annotation_check import check_content
from pe_dense.datasets.annotations import read_json
from pe_dense.utils.atomic_write import write_json

LVIS_TRAIN = 1_270_141
NUMBERS = 88  # per annotation; results in the size of LVIS train, 1.1 GB


def make_file(path: Path, count: int) -> None:
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
    angles = np.linspace(0, 2 * np.pi, NUMBERS // 2, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    annotations = []
    for i in range(count):
        radius, center = rng.uniform(3, 100), rng.uniform([110, 110], [530, 370])
        points = (circle * radius + center).round(2)
        left, top = points.min(axis=0).tolist()
        right, bottom = points.max(axis=0).tolist()
        parts = [points.ravel().tolist()]
        if i % 4 == 0:  # masks of two parts
            parts = [parts[0][: NUMBERS // 2], parts[0][NUMBERS // 2 :]]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=int, default=325_000)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmarks/annotations.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lvis.json"
        make_file(path, args.annotations)
        size = path.stat().st_size
        start = time.process_time()
        content = read_json(path)
        loaded = time.process_time()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        findings = check_content(content, masks=True)
        checked = time.process_time()
    assert not findings.problems and not findings.repairs, findings.problems
    scale = LVIS_TRAIN / args.annotations
    result = dict(
        annotations=args.annotations,
        megabytes=round(size / 1e6),
        load_seconds=round(loaded - start, 2),
        check_seconds=round(checked - loaded, 2),
        check_seconds_lvis_train=round((checked - loaded) * scale, 1),
        extra_megabytes=round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
    )
    for name, value in result.items():
        print(f"{name}: {value}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, result)


if __name__ == "__main__":
    main()

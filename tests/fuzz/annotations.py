"""Fuzz annotation files: each must be repaired and usable, or refused with a one-line error.

    python tests/fuzz/annotations.py --rounds 10000 --seed 0

A round takes a small valid file in COCO's or LVIS's format, and replaces, removes, doubles or wraps one to three of its
values: fields by values of every JSON type, numbers by special ones, boxes and masks by other forms. It passes if

* the file is refused with an ``InputError`` of one line, or
* it is read, its data set builds, every image's masks and boxes load through mmdet's transform as bitmaps and
  as polygons, all of them in the image, and the metric accepts it.

Any other exception, a round of more than 20 seconds and a file that is accepted though it was spoiled in a way
that must be refused are failures; they are printed with the round's seed.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import random
import signal
import sys
import tempfile
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

SIZE = (40, 32)  # width and height of the images
SECONDS = 20
VALUES = [
    None, True, False, 0, 1, -1, 2, 7, 10**6, 10**19, 10**400, -(10**19), 0.0, 1.0, 0.5, -0.0, 64.0, 1e-30, 1e8, 1e30,
    1e308, math.nan, math.inf, -math.inf, "", " ", "0", "1", "7", "1.0", "false", "null", "NaN", "a", "a\nb", "\x00",
    "\ud800", "日本", "$x$", "../../etc/passwd", [], [[]], [None], [1], [1, 2, 3, 4], ["1", "2", "3", "4"], [0] * 6,
    [[1, 2]], {}, {"a": 1}, {"counts": []}, {"size": [32, 40], "counts": "0"}, {"size": [32, 40], "counts": [1280]},
    {"size": [32, 40], "counts": "o" * 50}, {"size": [40, 32], "counts": [1, 1279]}, {"x": 1, "y": 2},
]  # fmt: skip


def valid_content(rng: random.Random) -> dict:
    """Three images with two objects each, some of polygons, some of run-length codes."""
    federated = rng.random() < 0.4
    images, annotations = [], []
    for i in range(3):
        image = dict(id=i + 1, width=SIZE[0], height=SIZE[1], file_name=f"{i}.png")
        if federated:
            image.update(coco_url=f"http://x.org/{i}.png", neg_category_ids=[2], not_exhaustive_category_ids=[1])
        images.append(image)
        for k in range(2):
            left, top, width, height = 3 + 12 * k, 4, 10, 20
            right, bottom = left + width, top + height
            mask = [[left, top, right, top, right, bottom, left, bottom]]
            if rng.random() < 0.3:
                skip = SIZE[1] - height
                counts = [left * SIZE[1] + top] + [height, skip] * width
                counts[-1] += SIZE[0] * SIZE[1] - sum(counts)
                mask = dict(size=[SIZE[1], SIZE[0]], counts=counts)
            annotation = dict(
                id=len(annotations) + 1,
                image_id=i + 1,
                category_id=k + 1,
                bbox=[left, top, width, height],
                area=width * height,
                segmentation=mask,
                iscrowd=0,
            )
            annotations.append(annotation)
    categories = [dict(id=k + 1, name=f"c{k}", frequency="f", image_count=3) for k in range(2)]
    return dict(images=images, annotations=annotations, categories=categories)


def places(value, depth: int = 0):
    """List all (container, key) pairs of a content; those deep in masks are sampled less often."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        if depth < 6:
            yield from places(inner, depth + 1)


def spoil(content: dict, rng: random.Random) -> str:
    """Change one value of a content; return a description of the change."""
    part = rng.choice(["images", "annotations", "annotations", "annotations", "categories", ""])
    candidates = list(places(content[part] if part and isinstance(content.get(part), list) else content))
    if not candidates:
        return "nothing"
    container, key = rng.choice(candidates)
    old = container[key]
    how = rng.choice(["value", "value", "value", "remove", "text", "float", "list", "double", "number", "every"])
    if how == "remove":
        del container[key]
    elif how == "text":
        container[key] = str(old)
    elif how == "float" and isinstance(old, int) and abs(old) < 2**53:
        container[key] = float(old)
    elif how == "list":
        container[key] = [old]
    elif how == "double" and isinstance(container, list):
        container.insert(key, copy.deepcopy(old))
    elif how == "number" and isinstance(old, int | float) and math.isfinite(old):
        container[key] = rng.choice([old + 1, -old, old * 1000, old / 64, old + 0.5, old + 33])
    elif how == "every" and isinstance(key, str) and part and isinstance(content.get(part), list):
        value = copy.deepcopy(rng.choice(VALUES))
        for entry in content[part]:
            if isinstance(entry, dict):
                entry[key] = copy.deepcopy(value)
        return f"{part}[*].{key} = {value!r:.60}"
    else:
        container[key] = copy.deepcopy(rng.choice(VALUES))
        how = f"value {container[key]!r:.60}"
    return f"{part or 'content'} {key}: {how}"


def use(path: Path, masks: bool) -> str:
    """Read a file as training and evaluation do; return 'repaired' or 'unchanged'."""
    import numpy as np
    from mmdet.datasets.transforms import LoadAnnotations

    from pe_dense.datasets.annotation_cache import read_table
    from pe_dense.datasets.annotation_check import check_content
    from pe_dense.datasets.annotation_parser import parse_table
    from pe_dense.datasets.annotations import class_names, read_annotations, read_json
    from pe_dense.datasets.coco import CocoDataset
    from pe_dense.datasets.lvis import LVISDataset
    from pe_dense.detection.federated_loss import image_counts
    from pe_dense.detection.metrics import CocoMetric, LVISMetric
    from pe_dense.utils.errors import InputError

    try:
        content = read_annotations(path, masks=masks, quiet=True)
    except InputError:
        assert parse_table(path.read_bytes(), masks=masks) is None, "the fast parser accepts a refused file"
        raise
    json.dumps(content)
    again = check_content(copy.deepcopy(content), masks=masks)
    assert not again.problems and not again.repairs, f"a repaired file is not valid: {again.problems} {again.repairs}"
    table = read_table(path, masks=masks, quiet=True)
    assert table.class_names() == class_names(content)
    fields = ("id", "image_id", "category_id", "bbox", "area", "segmentation")
    for ours, theirs in zip(table.annotations(), content["annotations"], strict=True):
        assert [ours.get(key) for key in fields] == [theirs.get(key) or None if key == "segmentation" else theirs[key]
                                                     for key in fields]  # fmt: skip
        assert [bool(ours.get(key)) for key in ("iscrowd", "ignore")] == [
            bool(theirs.get(key)) for key in ("iscrowd", "ignore")
        ]
    federated = any("neg_category_ids" in image for image in content["images"])
    kind = LVISDataset if federated else CocoDataset
    steps = [dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=masks)]
    dataset = kind(
        ann_file=str(path), data_prefix=dict(img=""), metainfo=dict(classes=class_names(content)), pipeline=steps
    )
    objects = 0
    for bitmaps in (True, False):
        load = LoadAnnotations(with_bbox=True, with_mask=masks, poly2mask=bitmaps)
        for index in range(len(dataset)):
            item = dataset.get_data_info(index)
            assert isinstance(item["img_path"], str)
            width, height = item["width"], item["height"]
            if width * height > 10**7:
                continue  # valid, but a bitmap of it takes long
            loaded = load(dict(item, ori_shape=(height, width), img_shape=(height, width)))
            boxes = loaded["gt_bboxes"].tensor.numpy()
            assert np.isfinite(boxes).all() and (boxes >= 0).all() and (boxes[:, 2:] <= [[width, height]]).all()
            if masks and bitmaps:
                assert loaded["gt_masks"].masks.max(initial=0) <= 1
            objects += len(boxes)
    assert objects
    image_counts(path)
    for metric in (CocoMetric, LVISMetric) if federated else (CocoMetric,):
        if max(image["width"] * image["height"] for image in content["images"]) <= 10**7:
            built = metric(ann_file=str(path), metric=["bbox", "segm"] if masks else ["bbox"])
            built.dataset_meta = dict(classes=class_names(content))
            assert built.ground_truth.num_images == len(content["images"])
            assert built.ground_truth._tables if metric is LVISMetric else built.ground_truth._truth
    found = check_content(read_json(path), masks=masks)
    return "repaired" if found.repairs else "unchanged"


def run(rounds: int, seed: int, folder: Path) -> tuple[Counter, list[str]]:
    """Play rounds; gives how many ended how, and the failures.

    Args:
        rounds: how many.
        seed: of the first round; each round has a seed of its own.
        folder: for the files.
    """
    from mmengine.logging import MMLogger

    import pe_dense.detection.federated_loss
    import pe_dense.detection.metrics  # noqa: F401  not within the time of the first round
    from pe_dense.utils.errors import InputError

    MMLogger.get_instance("fuzz", log_level="ERROR").setLevel(logging.ERROR)
    outcomes: Counter = Counter()
    failures: list[str] = []
    path = folder / "fuzz.json"
    signal.signal(signal.SIGALRM, _too_long)
    for number in range(seed, seed + rounds):
        rng = random.Random(number)
        content = valid_content(rng)
        changes = [spoil(content, rng) for _ in range(rng.choice([1, 1, 2, 3]))]
        masks = rng.random() < 0.8
        path.write_text(json.dumps(content))
        signal.alarm(SECONDS)
        try:
            with redirect_stdout(StringIO()):
                outcome = use(path, masks)
        except InputError as error:
            outcome = "refused"
            if "\n" in str(error) or str(path) not in str(error) or len(str(error)) > 3000:
                failures.append(f"round {number} ({'; '.join(changes)}): not one line with the file's name: {error}")
        except Exception as error:
            outcome = "failed"
            failures.append(f"round {number} ({'; '.join(changes)}): {type(error).__name__}: {error}")
        finally:
            signal.alarm(0)
        outcomes[outcome] += 1
    return outcomes, failures


def _too_long(*_) -> None:
    raise TimeoutError(f"a round took more than {SECONDS} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import pe_dense  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        outcomes, failures = run(args.rounds, args.seed, Path(folder))
    for failure in failures[:50]:
        print(failure[:600])
    print(", ".join(f"{count} {name}" for name, count in outcomes.most_common()), file=sys.stdout)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())

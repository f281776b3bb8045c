"""Errors in fields, masks and boxes of annotation files are repaired, or reported with counts and ids."""

import math
import re

import numpy as np
import pytest
from helpers.annotated_folder import content
from pycocotools import mask as mask_api

from pe_dense.datasets.annotation_check import check_content
from pe_dense.datasets.run_lengths import decode_counts, measure_runs

SQUARE = [4, 6, 24, 6, 24, 26, 4, 26]  # the polygon of the first object
POINTS = [SQUARE[i : i + 2] for i in range(0, 8, 2)]


def data(federated=False):
    """Two images of 64 x 64 pixels with two objects each, ids 1 to 4."""
    return content(("a", "b"), ["0.png", "1.png"], federated=federated)


def checked(part, federated=False, masks=True, **fields):
    """Check a file in which fields of the first entry of a part are changed."""
    changed = data(federated)
    changed[part][0].update(fields)
    return check_content(changed, masks=masks), changed


@pytest.mark.parametrize(
    ("part", "field", "value", "meaning"),
    [
        ("images", "id", "0", 0),
        ("images", "width", 64.0, 64),
        ("images", "height", " 64 ", 64),
        ("annotations", "id", "1", 1),
        ("annotations", "image_id", 0.0, 0),
        ("annotations", "category_id", "1.0", 1),
        ("annotations", "bbox", ["4", 6.0, "2e1", "20"], [4.0, 6.0, 20.0, 20.0]),
        ("annotations", "area", "400.5", 400.5),
        ("annotations", "area", None, 400.0),
        ("annotations", "area", math.nan, 400.0),
        ("annotations", "iscrowd", "0", 0),
        ("annotations", "iscrowd", " False ", 0),
        ("annotations", "iscrowd", None, 0),
        ("annotations", "iscrowd", math.nan, 0),
        ("annotations", "iscrowd", True, 1),
        ("annotations", "iscrowd", 1.0, 1),
        ("annotations", "ignore", "true", 1),
        ("categories", "id", 1.0, 1),
        ("categories", "name", 7, "7"),
        ("annotations", "segmentation", SQUARE, [SQUARE]),
        ("annotations", "segmentation", POINTS, [SQUARE]),
        ("annotations", "segmentation", [POINTS], [SQUARE]),
        ("annotations", "segmentation", [[dict(x=x, y=y) for x, y in POINTS]], [SQUARE]),
        ("annotations", "segmentation", [dict(x=x, y=y) for x, y in POINTS], [SQUARE]),
        ("annotations", "segmentation", [[str(v) for v in SQUARE]], [SQUARE]),
        ("annotations", "segmentation", [SQUARE, [4, 6], []], [SQUARE]),
    ],
)
def test_one_meaning_is_read_and_listed(part, field, value, meaning):
    findings, changed = checked(part, **{field: value})
    assert findings.problems == []
    assert changed[part][0][field] == meaning
    assert type(changed[part][0][field]) is type(meaning)
    assert len(findings.repairs) == 1
    assert field in findings.repairs[0]
    assert f"1 {part}" in findings.repairs[0]
    again = check_content(changed, masks=True)
    assert again.problems == again.repairs == []


def code(counts, size=(64, 64)):
    return dict(size=list(size), counts=counts)


@pytest.mark.parametrize(
    ("part", "field", "value", "problem"),
    [
        ("images", "id", "a3f", "'id' is text in 1 of 2 images, must be an integer"),
        ("images", "id", True, "'id' is true or false"),
        ("images", "id", 10**400, "'id' is out of range"),
        ("images", "id", 0.5, "'id' is not an integer"),
        ("images", "width", None, r"'width' is null in 1 of 2 images, must be a positive number of pixels \(id 0\)"),
        ("images", "width", 0, "'width' is out of range"),
        ("images", "height", -64, "'height' is out of range"),
        ("images", "height", 10**400, "'height' is out of range"),
        ("images", "height", [64], "'height' is a list"),
        ("images", "file_name", "a\x00b", "'file_name' is text with control characters"),
        ("images", "file_name", {}, "'file_name' is an object"),
        ("categories", "name", "", "'name' is empty"),
        ("categories", "name", None, "'name' is null"),
        ("categories", "name", "\ud800", "unpaired surrogates"),
        ("categories", "image_count", -1, "'image_count' is out of range"),
        ("annotations", "image_id", "7", r"1 annotations have a 'image_id' that none of the images has \(7\)"),
        ("annotations", "category_id", [1], r"'category_id' is a list in 1 of 4 annotations.*\(id 1\)"),
        ("annotations", "id", 2, r"4 annotations share 3 ids \(2 occurs more than once\)"),
        ("annotations", "bbox", None, "'bbox' is null in 1 of 4 annotations"),
        ("annotations", "bbox", [1, 2, 3], "'bbox' is not four numbers in 1"),
        ("annotations", "bbox", [1, 2, 3, math.nan], r"'bbox' is not four numbers \(one is NaN\)"),
        ("annotations", "bbox", [1, 2, 3, 1e300], "'bbox' is beyond"),
        ("annotations", "bbox", [1, 2, 3, True], "one is true or false"),
        ("annotations", "area", math.inf, "'area' is infinite"),
        ("annotations", "area", "large", "'area' is text"),
        ("annotations", "iscrowd", 2, "'iscrowd' is out of range in 1 of 4 annotations, must be 0 or 1"),
        ("annotations", "iscrowd", "maybe", "'iscrowd' is text"),
        ("annotations", "ignore", [], "'ignore' is a list"),
        ("annotations", "segmentation", None, r"'segmentation' is missing in 1 of 4 annotations \(id 1\)"),
        ("annotations", "segmentation", [], "'segmentation' is missing"),
        ("annotations", "segmentation", [[]], "fewer than three points"),
        ("annotations", "segmentation", [[4, 6, 24, 26]], "fewer than three points"),
        ("annotations", "segmentation", [4, 6, 20, 20], "fewer than three points"),
        ("annotations", "segmentation", [SQUARE[:7]], "odd number of coordinates"),
        ("annotations", "segmentation", [[*SQUARE[:7], math.nan]], "NaN or infinite"),
        ("annotations", "segmentation", [[*SQUARE[:7], -math.inf]], "NaN or infinite"),
        ("annotations", "segmentation", [[*SQUARE[:7], 1e8]], "far outside of its image"),
        ("annotations", "segmentation", [[*SQUARE[:7], 10**400]], "far outside of its image|out of range"),
        ("annotations", "segmentation", [[*SQUARE[:7], None]], "a coordinate that is null"),
        ("annotations", "segmentation", [[*SQUARE[:7], True]], "a coordinate that is true or false"),
        ("annotations", "segmentation", [[v + 70 for v in SQUARE]], "outside of its image"),
        ("annotations", "segmentation", [[v + 30 for v in SQUARE]], "outside of its 'bbox'"),
        ("annotations", "segmentation", [[v / 64 for v in SQUARE]], "normalized to the image's size|outside of its"),
        ("annotations", "segmentation", [[4, 6, 14, 16, 24, 26]], "has no area"),
        ("annotations", "segmentation", [[0, 0, 60, 60] * 40_000], "outline of more than"),
        ("annotations", "segmentation", "masks/1.png", "'segmentation' is text"),
        ("annotations", "segmentation", 5, "neither a list of polygons nor a run-length code"),
        ("annotations", "segmentation", {"size": [64, 64]}, "an object without 'counts'"),
        ("annotations", "segmentation", code([100, 10]), "fewer pixels than its size"),
        ("annotations", "segmentation", code([100, 10, 5000]), "more pixels than its size"),
        ("annotations", "segmentation", code([100, -10, 4006]), "negative counts"),
        ("annotations", "segmentation", code([4096]), "has no area"),
        ("annotations", "segmentation", code([]), "fewer pixels"),
        ("annotations", "segmentation", code([100, 1.5]), "of another type"),
        ("annotations", "segmentation", code(7), "of another type"),
        ("annotations", "segmentation", code("not a code"), "not a run-length code"),
        ("annotations", "segmentation", code("o" * 40), "not a run-length code"),
        ("annotations", "segmentation", code([4096], (128, 32)), "another size than its image"),
        ("annotations", "segmentation", {"counts": [4096]}, "without 'size'"),
        ("annotations", "segmentation", [code([4096])] * 2, "list of several run-length codes"),
    ],
)
def test_anything_else_is_refused_with_count_and_id(part, field, value, problem):
    findings, _ = checked(part, **{field: value})
    text = "; ".join(findings.problems)
    assert re.search(problem, text), text
    assert "\n" not in text


def test_swapped_sides_of_a_run_length_code_are_named():
    changed = data()
    for image in changed["images"]:
        image["width"] = 96
    changed["annotations"][0]["segmentation"] = code([1000, 500, 64 * 96 - 1500], (96, 64))
    problems = check_content(changed, masks=True).problems
    assert problems == [
        "'segmentation' is a run-length code of size [width, height], must be [height, width] in 1 of 4 annotations "
        "(id 1)"
    ]


def test_lists_of_lvis():
    for value in (None, 5, ["a"], [[1]], {}):
        findings, _ = checked("images", federated=True, neg_category_ids=value)
        assert "'neg_category_ids' is or has" in findings.problems[0]
    findings, changed = checked("images", federated=True, neg_category_ids=["2", 99], not_exhaustive_category_ids=[1])
    assert findings.problems == []
    assert changed["images"][0]["neg_category_ids"] == [2]
    assert len(findings.repairs) == 2
    findings, _ = checked("categories", federated=True, frequency="rare")
    assert findings.problems == ["'frequency' is 'rare' in 1 of 2 categories, must be 'r', 'c' or 'f' (id 1)"]


def converted(change, masks):
    changed = data()
    for annotation in changed["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = change(x, y, w, h)
        annotation["bbox"] = [float(value) for value in annotation["bbox"]]
    return check_content(changed, masks=masks).problems


@pytest.mark.parametrize(
    ("change", "name", "masks_needed"),
    [
        (lambda x, y, w, h: (x, y, x + w, y + h), "corners [left, top, right, bottom]", False),
        (lambda x, y, w, h: (x / 64, y / 64, w / 64, h / 64), "normalized to the image's size", False),
        (lambda x, y, w, h: ((x + w / 2) / 64, (y + h / 2) / 64, w / 64, h / 64), "normalized", False),
        (lambda x, y, w, h: (x + w / 2, y + h / 2, w, h), "[center x, center y, width, height]", True),
        (lambda x, y, w, h: (y, x, y + h, x + w), "[top, left, bottom, right]", True),
        (lambda x, y, w, h: (x / 0.64, y / 0.64, w / 0.64, h / 0.64), "in percent of the image's size", True),
    ],
)
def test_boxes_in_another_convention_are_named(change, name, masks_needed):
    for masks in (True,) if masks_needed else (True, False):
        problems = converted(change, masks)
        assert len(problems) == 1
        assert problems[0].startswith(f"the boxes look {name}")
        assert "COCO's 'bbox' is [left, top, width, height] in pixels" in problems[0]


def test_boxes_as_they_should_be_are_not_taken_for_others():
    for masks in (True, False):
        assert converted(lambda *box: box, masks) == []
    one = content(("a",), ["0.png"], [[2, 2, 60, 60]])
    assert check_content(one, masks=False).problems == []
    beyond = content(("a",), ["0.png"], [[10, 0, 60, 30]])  # could be corners, but its area says sides
    assert check_content(beyond, masks=False).problems == []


def test_masks_that_are_not_learned_are_not_read():
    findings, changed = checked("annotations", masks=False, segmentation="a name")
    assert findings.problems == []
    assert all("segmentation" not in annotation for annotation in changed["annotations"])


def test_counts_of_run_length_codes_equal_pycocotools():
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (7, 5), (64, 96), (300, 200)):
        masks = [rng.random((height, width)) < share for share in (0, 0.02, 0.5, 1)]
        masks.append(np.kron(rng.random((height, 1)) < 0.5, np.ones((1, width))) > 0)
        encoded = [mask_api.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
        counts, sizes, good = decode_counts([item["counts"].decode() for item in encoded])
        assert good.all()
        total, least, foreground, extent = measure_runs(counts, sizes, np.full(len(masks), height))
        assert (total == height * width).all()
        assert least.min() >= 0
        np.testing.assert_array_equal(foreground, mask_api.area(encoded))
        boxes = mask_api.toBbox(encoded)
        boxes[:, 2:] += boxes[:, :2]
        some = foreground > 0
        np.testing.assert_array_equal(extent[some], boxes[some])
        assert np.isnan(extent[~some]).all()


def test_malformed_codes_do_not_affect_their_neighbors():
    good = mask_api.encode(np.asfortranarray(np.eye(9), np.uint8))["counts"].decode()
    counts, sizes, fine = decode_counts([good, "", "o" * 9 + "0", "é", "0P", good])
    assert fine.tolist() == [True, False, False, False, False, True]
    alone, _, _ = decode_counts([good])
    assert counts.tolist() == alone.tolist() * 2
    assert sizes.tolist() == [len(alone), 0, 0, 0, 0, len(alone)]

from collections import Counter
from copy import deepcopy

import numpy as np
import pytest
from lvis import LVIS, LVISEval, LVISResults
from pycocotools.coco import COCO

from pe_dense.datasets.synthetic.build import CATEGORY_IDS, federate, frequencies


def fake(*categories):
    return [dict(category_id=category, image_id=0) for category in categories]


def load(root, split):
    return COCO(root / f"annotations/instances_{split}.json"), LVIS(str(root / f"annotations/lvis_{split}.json"))


def test_federated_rules():
    rng = np.random.default_rng(0)
    unverified, partial, negative = 0, 0, 0
    for _ in range(2000):
        annotations = fake(1, 1, 1, 2, 5)
        kept, image = federate(rng, annotations)
        before, after = Counter(a["category_id"] for a in annotations), Counter(a["category_id"] for a in kept)
        assert set(image["neg_category_ids"]).isdisjoint(before)
        assert set(image["not_exhaustive_category_ids"]) <= set(after)
        for category, count in before.items():
            if category in image["not_exhaustive_category_ids"]:
                assert 0 < after[category] < count
            else:
                assert after[category] in (0, count)
        unverified += sum(after[category] == 0 for category in before)
        partial += len(image["not_exhaustive_category_ids"])
        negative += len(image["neg_category_ids"])
    # Of three present categories 15 % go unverified; the one of three instances is partial in 0.85 * 0.2 of
    # the images; of five absent categories half are verified.
    assert unverified / 2000 == pytest.approx(0.45, abs=0.05)
    assert partial / 2000 == pytest.approx(0.17, abs=0.03)
    assert negative / 2000 == pytest.approx(2.5, abs=0.1)


def test_frequencies_follow_image_shares():
    # Category 1 in 41 of 100 images, 2 in 40, 3 in 23, 4 in 22, the others in none.
    annotations = [
        dict(category_id=category, image_id=image)
        for category, count in {1: 41, 2: 40, 3: 23, 4: 22}.items()
        for image in range(count)
        for _ in range(2)  # instances do not count, images do
    ]
    assert "".join(frequencies(100, annotations)[category] for category in CATEGORY_IDS) == "fccrrrrr"


@pytest.mark.parametrize("split", ["train", "val"])
def test_lvis_file_is_a_federated_part_of_coco(small_shapes, split):
    coco, lvis = load(small_shapes[0], split)
    gaps, partial = 0, 0
    for image in lvis.load_imgs(None):
        complete, kept = coco.imgToAnns[image["id"]], lvis.img_ann_map[image["id"]]
        positive = {annotation["category_id"] for annotation in kept}
        negative, not_exhaustive = set(image["neg_category_ids"]), set(image["not_exhaustive_category_ids"])
        present = {annotation["category_id"] for annotation in complete}
        assert positive <= present and negative.isdisjoint(present) and not_exhaustive <= positive
        masks = [annotation["segmentation"]["counts"] for annotation in complete]
        assert all(annotation["segmentation"]["counts"] in masks for annotation in kept)
        gaps += len(present - positive)
        partial += len(not_exhaustive)
        assert image["coco_url"] == f"{split}/{coco.imgs[image['id']]['file_name']}"
    assert gaps > 0 and (partial > 0 or split == "val")


def test_lvis_categories(small_shapes):
    _, train = load(small_shapes[0], "train")
    _, val = load(small_shapes[0], "val")
    for category in train.load_cats(None):
        annotations = [a for a in train.anns.values() if a["category_id"] == category["id"]]
        assert category["instance_count"] == len(annotations)
        assert category["image_count"] == len({annotation["image_id"] for annotation in annotations})
        assert category["synonyms"] == [category["name"]]
        assert {"synset", "def"} <= set(category)
    assert [c["frequency"] for c in val.load_cats(None)] == [c["frequency"] for c in train.load_cats(None)]
    assert {c["frequency"] for c in train.load_cats(None)} == {"r", "c", "f"}


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_lvis_evaluation_sees_only_what_is_verified(small_shapes, iou_type, monkeypatch):
    # lvis 0.5.3 was written for NumPy before 1.24.
    monkeypatch.setattr(np, "float", float, raising=False)
    _, lvis = load(small_shapes[0], "val")
    fields = ("image_id", "category_id", "bbox", "segmentation")
    truth = [{"score": 0.5, **{field: a[field] for field in fields}} for a in lvis.load_anns(None)]

    def average_precision(extra):
        evaluation = LVISEval(lvis, LVISResults(lvis, deepcopy([*truth, *extra]), max_dets=-1), iou_type)
        evaluation.run()
        return evaluation.get_results()["AP"]

    def false_positives(wanted):
        """Create one detection of score 1 per image and category selected by ``wanted(image, positives)``."""
        template = truth[0]
        return [
            dict(template, image_id=image["id"], category_id=category, score=0.9)
            for image in lvis.load_imgs(None)
            for category in wanted(image, {a["category_id"] for a in lvis.img_ann_map[image["id"]]})
        ]

    unverified = false_positives(lambda i, positives: set(CATEGORY_IDS) - positives - set(i["neg_category_ids"]))
    negative = false_positives(lambda i, positives: i["neg_category_ids"])
    assert len(unverified) > 5 and len(negative) > 5
    assert average_precision([]) == pytest.approx(1.0)
    assert average_precision(unverified) == pytest.approx(1.0)
    assert average_precision(negative) < 0.95

"""The replacement of panopticapi: coding of ids, panoptic quality, and mmdet's metric on it."""

import json
import pickle

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoPanopticMetric
from panopticapi.evaluation import OFFSET, VOID, PQStat
from panopticapi.utils import id2rgb, rgb2id
from PIL import Image


def test_ids_are_colors():
    ids = np.array([[VOID, 255, 256], [65_536 * 7 + 256 * 5 + 3, OFFSET - 1, 1]])
    colors = id2rgb(ids)
    assert colors.dtype == np.uint8
    assert colors.tolist() == [[[0, 0, 0], [255, 0, 0], [0, 1, 0]], [[3, 5, 7], [255, 255, 255], [1, 0, 0]]]
    assert rgb2id(colors).tolist() == ids.tolist()
    assert (torch.from_numpy(rgb2id(colors)) < OFFSET).all()  # of a type that PyTorch compares


CATEGORIES = {
    1: dict(id=1, name="cog", isthing=1),
    5: dict(id=5, name="nut", isthing=1),
    7: dict(id=7, name="sky", isthing=0),
}


def test_panoptic_quality():
    first, second = PQStat(), PQStat()
    first[1].tp += 2
    first[1].iou += 1.5
    first[7].fn += 1
    second[1].fp += 1
    second[1].fn += 1
    total = PQStat()
    for part in (first, pickle.loads(pickle.dumps(second))):  # collected from processes
        total += part
    mean, by_category = total.pq_average(CATEGORIES, isthing=None)
    # Two matches of IoU 0.75, one false positive, one false negative; a category that was missed; one that is absent.
    assert by_category[1] == pytest.approx(dict(pq=0.75 * 2 / 3, sq=0.75, rq=2 / 3))
    assert by_category[7] == by_category[5] == dict(pq=0.0, sq=0.0, rq=0.0)
    assert mean == pytest.approx(dict(pq=0.25, sq=0.375, rq=1 / 3, n=2))
    assert total.pq_average(CATEGORIES, isthing=True)[0] == pytest.approx(dict(pq=0.5, sq=0.75, rq=2 / 3, n=1))
    assert total.pq_average(CATEGORIES, isthing=False)[0] == dict(pq=0.0, sq=0.0, rq=0.0, n=1)
    assert np.isnan(PQStat().pq_average(CATEGORIES, isthing=None)[0]["pq"])


def test_metric_of_mmdet(tmp_path):
    """A cog of 8 px of which 6 are found, a sky of 16 px of which 12 are found with 2 wrong ones, and an extra nut."""
    truth = np.full((4, 6), 70)
    truth[:, :2] = 1000
    (tmp_path / "maps").mkdir()
    Image.fromarray(id2rgb(truth)).save(tmp_path / "maps/0.png")
    segments = [
        dict(id=1000, category_id=1, area=8, bbox=[0, 0, 2, 4], iscrowd=0),
        dict(id=70, category_id=7, area=16, bbox=[2, 0, 4, 4], iscrowd=0),
    ]
    content = dict(
        images=[dict(id=3, file_name="0.jpg", height=4, width=6)],
        annotations=[dict(image_id=3, file_name="0.png", segments_info=segments)],
        categories=list(CATEGORIES.values()),
    )
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    found = torch.full((1, 4, 6), 2)  # sky
    found[0, :3, :2] = 1000  # cog, the first object
    found[0, :, 5] = 2001  # nut, the second
    metric = CocoPanopticMetric(ann_file=str(tmp_path / "panoptic.json"), seg_prefix=str(tmp_path / "maps"))
    metric.dataset_meta = dict(classes=("cog", "nut", "sky"), thing_classes=("cog", "nut"), stuff_classes=("sky",))
    sample = dict(img_id=3, img_path="images/0.jpg", ori_shape=(4, 6), pred_panoptic_seg=dict(sem_seg=found))
    metric.process({}, [sample])
    result = {key.removeprefix("coco_panoptic/"): value for key, value in metric.evaluate(1).items()}
    cog, sky = 6 / 8, 12 / 18
    expected = dict(PQ=(cog + sky) / 3, SQ=(cog + sky) / 3, RQ=2 / 3, PQ_th=cog / 2, SQ_th=cog / 2, RQ_th=0.5)
    expected.update(PQ_st=sky, SQ_st=sky, RQ_st=1.0)
    assert result == pytest.approx({key: 100 * value for key, value in expected.items()})

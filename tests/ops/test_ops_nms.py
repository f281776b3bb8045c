import math

import pytest
import torch
from mmcv.ops import batched_nms, soft_nms
from mmcv.ops import nms as mmcv_nms
from mmcv.ops import nms_match as mmcv_nms_match

from pe_dense.ops.nms import batched_nms as class_nms
from pe_dense.ops.nms import nms, nms_match, softnms

# Two boxes of 10 x 10 that share 5 x 10: IoU 50 / 150 = 1/3; the third is far away.
BOXES = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [50, 50, 60, 60]])
SCORES = torch.tensor([0.6, 0.9, 0.3])


def random_boxes(count: int, seed: int, decimals: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 40
    boxes = torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 30], dim=1)
    scores = torch.rand(count, generator=generator)
    return boxes, scores if decimals is None else scores.round(decimals=decimals)


def scalar_iou(a: list[float], b: list[float], offset: int) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union else 0.0


def loop_nms(boxes, scores, threshold, offset):
    kept = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(scalar_iou(boxes[index], boxes[other], offset) <= threshold for other in kept):
            kept.append(index)
    return kept


def loop_softnms(boxes, scores, threshold, sigma, min_score, method, offset):
    """The algorithm entry by entry: the best is swapped forward, dropped ones are overwritten by the last."""
    rows = [[index, score] for index, score in enumerate(scores)]
    done = 0
    while done < len(rows):
        best = max(range(done, len(rows)), key=lambda i: (rows[i][1], -i))
        rows[done], rows[best] = rows[best], rows[done]
        place = done + 1
        while place < len(rows):
            overlap = scalar_iou(boxes[rows[done][0]], boxes[rows[place][0]], offset)
            if method == 2:
                rows[place][1] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                rows[place][1] *= 0 if method == 0 else 1 - overlap
            if rows[place][1] < min_score:
                rows[place] = rows[-1]
                rows.pop()
            else:
                place += 1
        done += 1
    return rows


@pytest.mark.parametrize(("threshold", "kept"), [(0.3, [1, 2]), (0.34, [1, 0, 2])])
def test_nms_by_hand(threshold, kept):
    assert nms(BOXES, SCORES, threshold, 0).tolist() == kept


def test_nms_offset_by_hand():
    # Sides of 11 and a shared 6 x 11: 66 / (242 - 66) = 0.375 instead of 1/3.
    assert nms(BOXES, SCORES, 0.35, 0).tolist() == [1, 0, 2]
    assert nms(BOXES, SCORES, 0.35, 1).tolist() == [1, 2]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_nms_against_loop(offset, seed):
    boxes, scores = random_boxes(60, seed)
    expected = loop_nms(boxes.double().tolist(), scores.tolist(), 0.4, offset)
    assert 10 < len(expected) < 60
    assert nms(boxes, scores, 0.4, offset).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_nms_types(dtype):
    assert nms(BOXES.to(dtype), SCORES.to(dtype), 0.3, 0).tolist() == [1, 2]


def test_nms_few_boxes():
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 0).shape == (0,)
    assert nms(BOXES[:1], SCORES[:1], 0.5, 0).tolist() == [0]
    points = torch.zeros(3, 4)
    assert nms(points, SCORES, 0.5, 0).tolist() == [1, 0, 2]


def test_nms_through_mmcv():
    dets, inds = mmcv_nms(BOXES, SCORES, iou_threshold=0.3, score_threshold=0.4)
    assert inds.tolist() == [1]
    torch.testing.assert_close(dets, torch.tensor([[5, 0, 15, 10, 0.9]]))
    # Boxes of different classes do not suppress each other.
    config = dict(type="nms", iou_threshold=0.3)
    assert batched_nms(BOXES, SCORES, torch.tensor([0, 0, 0]), config)[1].tolist() == [1, 2]
    assert batched_nms(BOXES, SCORES, torch.tensor([0, 1, 0]), config)[1].tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("naive", [0.9, 0.3]),  # 0.6 -> 0
        ("linear", [0.9, 0.4, 0.3]),  # 0.6 * (1 - 1/3)
        ("gaussian", [0.9, 0.6 * math.exp(-1 / 9 / 0.5), 0.3]),
    ],
)
def test_soft_nms_by_hand(method, expected):
    dets, inds = soft_nms(BOXES, SCORES, iou_threshold=0.3, sigma=0.5, min_score=1e-3, method=method)
    assert inds.tolist() == ([1, 2] if method == "naive" else [1, 0, 2])
    torch.testing.assert_close(dets[:, 4], torch.tensor(expected))
    torch.testing.assert_close(dets[:, :4], BOXES[inds])


@pytest.mark.parametrize(("threshold", "score"), [(0.33, 0.4), (0.34, 0.6)])
def test_soft_nms_threshold(threshold, score):
    dets, _ = soft_nms(BOXES, SCORES, iou_threshold=threshold, method="linear")
    assert dets[1, 4].item() == pytest.approx(score)


@pytest.mark.parametrize("method", [0, 1, 2])
@pytest.mark.parametrize(("offset", "decimals", "seed"), [(0, None, 0), (1, None, 1), (0, 1, 2), (0, 1, 3), (1, 1, 4)])
def test_soft_nms_against_loop(method, offset, decimals, seed):
    """Scores with one decimal have many ties, whose order depends on the swaps."""
    boxes, scores = random_boxes(50, seed, decimals)
    dets = torch.full((50, 5), -7.0)
    inds = softnms(boxes, scores, dets, 0.3, 0.4, 0.05, method, offset)
    expected = loop_softnms(boxes.double().tolist(), scores.tolist(), 0.3, 0.4, 0.05, method, offset)
    assert inds.tolist() == [index for index, _ in expected]
    assert 5 < len(inds) < 50
    torch.testing.assert_close(dets[: len(inds), 4], torch.tensor([score for _, score in expected]))
    assert (dets[len(inds) :] == -7).all()


def test_soft_nms_few_boxes():
    dets = torch.zeros(1, 5)
    assert softnms(torch.zeros(0, 4), torch.zeros(0), dets[:0], 0.3, 0.5, 0.1, 1, 0).shape == (0,)
    # The best box stays even below the least score.
    assert softnms(BOXES[:1], torch.tensor([0.01]), dets, 0.3, 0.5, 0.1, 1, 0).tolist() == [0]
    assert dets.tolist() == [[0, 0, 10, 10, pytest.approx(0.01)]]


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_nms_zero_area(method):
    boxes = torch.tensor([[3.0, 1, 3, 1]] * 3)
    dets, inds = soft_nms(boxes, SCORES, method=method)
    assert inds.tolist() == [1, 0, 2]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.6, 0.3]))


def test_soft_nms_leaves_its_input_alone():
    boxes, scores = BOXES.clone(), SCORES.clone()
    softnms(boxes, scores, torch.zeros(3, 5), 0.3, 0.5, 0.1, 1, 0)
    assert torch.equal(boxes, BOXES) and torch.equal(scores, SCORES)


def test_soft_nms_rejects_other_methods():
    with pytest.raises(ValueError, match="got 3"):
        softnms(BOXES, SCORES, torch.zeros(3, 5), 0.3, 0.5, 0.1, 3, 0)


def test_nms_match_by_hand():
    dets = torch.cat([BOXES, SCORES[:, None]], dim=1)
    dets = torch.cat([dets, torch.tensor([[6.0, 0, 16, 10, 0.7]])])  # IoU with the best, 9 / 11; it goes first
    assert nms_match(dets, 0.3) == [[1, 3, 0], [2]]
    assert nms_match(dets, 0.5) == [[1, 3], [0], [2]]
    assert [group.tolist() for group in mmcv_nms_match(dets, 0.5)] == [[1, 3], [0], [2]]
    assert nms_match(dets[:0], 0.5) == []


def crowd(seed: int, count: int = 6000, classes: int = 1203) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes, scores and labels around 60 small objects of a 1024 px image, some beyond its border."""
    generator = torch.Generator().manual_seed(seed)
    center, size = torch.rand(60, 2, generator=generator) * 1024, torch.rand(60, 2, generator=generator) * 60 + 8
    shown = torch.randint(60, (count,), generator=generator)
    jitter = torch.randn(count, 4, generator=generator) * 0.12
    middle, size = center[shown] + jitter[:, :2] * size[shown], size[shown] * jitter[:, 2:].exp()
    boxes = torch.cat([middle - size / 2, middle + size / 2], dim=1)
    labels = (shown * 20 + torch.randint(3, (count,), generator=generator)) % classes
    return boxes, torch.rand(count, generator=generator), labels


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_separated_exactly(seed):
    """As NMS of each class alone. MMCV's shift in float32 drops or keeps other boxes in each of these cases."""
    boxes, scores, labels = crowd(seed)
    wanted = torch.cat(
        [
            (labels == i).nonzero().flatten()[nms(boxes[labels == i], scores[labels == i], 0.5, 0)]
            for i in labels.unique()
        ]
    )
    kept = class_nms(boxes, scores, labels, 0.5)
    assert set(kept.tolist()) == set(wanted.tolist())
    assert (scores[kept].diff() <= 0).all()
    shifted = batched_nms(boxes, scores, labels, dict(type="nms", iou_threshold=0.5))[1]
    assert set(shifted.tolist()) != set(wanted.tolist())


@pytest.mark.parametrize("count, classes", [(300, 3), (300, 2), (2000, 80), (500, 1)])
def test_nms_by_class_and_of_all_boxes_are_equal(monkeypatch, count, classes):
    """The same boxes in the same order, with equal scores and negative coordinates; groups are not sorted by label."""
    generator = torch.Generator().manual_seed(count + classes)
    corners = torch.rand(count, 2, generator=generator) * 100 - 50
    boxes = torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * 30 + 1], dim=1)
    scores = (torch.rand(count, generator=generator) * 20).round() / 20
    labels = torch.randint(classes, (count,), generator=generator)
    results = []
    for limit in (1, 10**9):  # pairs per class
        monkeypatch.setattr("pe_dense.ops.nms.PAIRS_PER_CLASS_ON_CPU", limit)
        results.append(class_nms(boxes, scores, labels, 0.3).tolist())
    assert results[0] == results[1]
    assert len(results[0]) < count


def test_negative_coordinates_do_not_reach_another_class():
    """Shifted by the largest coordinate only, the second box would cover the first one."""
    boxes, labels = torch.tensor([[0.0, 0, 10, 10], [-11, -11, -1, -1]]), torch.tensor([0, 1])
    assert class_nms(boxes, torch.tensor([0.9, 0.8]), labels, 0.5).tolist() == [0, 1]
    assert class_nms(torch.zeros(0, 4), torch.zeros(0), labels[:0], 0.5).tolist() == []

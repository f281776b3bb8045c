"""Numbers of objects in videos."""

import numpy as np
from mmengine.registry import DefaultScope

from pe_dense.runtime import Detections
from pe_dense.tracking.object_tracker import ObjectTracker


def frame(*objects):
    """Objects as (x, y, score, label), boxes of 20 px."""
    boxes = np.array([(x, y, x + 20, y + 20) for x, y, *_ in objects], np.float32).reshape(-1, 4)
    scores = np.array([score for *_, score, _ in objects], np.float32)
    labels = np.array([label for *_, label in objects], np.int64)
    return Detections(boxes, scores, labels, tuple(f"class {label}" for label in labels))


def test_crossing_objects_keep_their_numbers():
    """Two objects of one class that move in opposite directions, in an order that changes, and one of another class."""
    tracker = ObjectTracker(0.5)
    numbers = []
    for step in range(20):
        one, other = (10 + 6 * step, 50, 0.9, 0), (130 - 6 * step, 62, 0.8, 0)
        still = (12 + 6 * step, 52, 0.85, 1)
        objects = (one, other, still) if step % 2 else (still, other, one)
        ids = tracker.update(frame(*objects)).ids
        numbers.append(tuple(ids if step % 2 else ids[::-1]))
    assert set(numbers) == {numbers[0]}
    assert len(set(numbers[0])) == 3 and min(numbers[0]) == 1


def test_hidden_and_weak_objects():
    tracker = ObjectTracker(0.5, fps=10)
    place = iter(range(10, 1000, 3))
    first = tracker.update(frame((next(place), 10, 0.9, 0))).ids.tolist()
    assert tracker.update(frame((next(place), 10, 0.3, 0))).ids.tolist() == first  # a low score continues the track
    assert tracker.update(frame((200, 200, 0.3, 0))).ids.tolist() == [0]  # but starts none
    for _ in range(3):
        next(place)
        assert tracker.update(frame()).ids.tolist() == []
    assert tracker.update(frame((next(place), 10, 0.9, 0))).ids.tolist() == first
    for _ in range(11):
        tracker.update(frame())
    assert tracker.update(frame((next(place), 10, 0.9, 0))).ids.tolist() != first  # hidden for more than a second


def test_memory_does_not_grow_with_the_video():
    tracker = ObjectTracker(0.5)
    for step in range(30):
        tracker.update(frame((10 + step, 10, 0.9, 0)))
    (track,) = tracker._tracker.tracks.values()
    assert len(track["bboxes"]) <= 4


def test_default_scope_of_segmentors():
    """A video is predicted in the default scope of its model; open-vocabulary segmenters have that of mmseg."""
    with DefaultScope.overwrite_default_scope("mmseg"):
        assert ObjectTracker().update(frame((10, 10, 0.9, 0))).ids.tolist() == [1]

"""DavisMetric over videos, layers and processes."""

import numpy as np
import pytest
from helpers.video_folder import mask_path, squares, write_videos

from pe_dense.tracking import DavisMetric
from pe_dense.tracking.davis_eval import NAMES


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_videos(tmp_path_factory.mktemp("davis"), frames=6)


def sample(root, labels, video="cat"):
    masks = [str(mask_path(root, video, frame)) for frame in range(6)]
    return dict(video=video, masks=masks, num_objects=2, labels=labels)


def evaluate(*samples, size=None):
    metric = DavisMetric()
    metric.dataset_meta = dict(videos=("cat", "dog"))
    metric.process(None, samples)
    return metric.evaluate(size or len(samples)), metric


TRUTH = np.stack([squares(frame) for frame in range(6)])
COPY = np.stack([squares(0)] * 6)


def test_truth_has_all_and_the_copied_mask_is_reported_beside_it(root):
    values, _ = evaluate(sample(root, {3: TRUTH}))
    assert [values[f"davis/{name}"] for name in NAMES] == [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    copied, _ = evaluate(sample(root, {3: COPY}))
    assert {f"davis/copy_{name}": copied[f"davis/{name}"] for name in NAMES}.items() <= values.items()
    assert "davis/layer" not in values


def test_regions_by_hand(root):
    """Copied squares, in frames 1 to 4, shifted by 4 px each: 8 px wide ones overlap by 4 px, then no more; 16 px
    wide ones by 12, 8, 4 and 0."""
    values, metric = evaluate(sample(root, {0: COPY}))
    first = np.mean([4 / 12, 0, 0, 0])
    second = np.mean([12 / 20, 8 / 24, 4 / 28, 0])
    assert [row["J_mean"] for row in metric.by_object] == pytest.approx([first, second])
    assert values["davis/J_mean"] == pytest.approx((first + second) / 2)
    assert values["davis/J_recall"] == pytest.approx((0 + 1 / 4) / 2)
    assert values["davis/J&F"] == pytest.approx((values["davis/J_mean"] + values["davis/F_mean"]) / 2)


def test_first_and_last_frame_do_not_count(root):
    wrong = TRUTH.copy()
    wrong[[0, -1]] = 0
    assert evaluate(sample(root, {0: wrong}))[0]["davis/J&F"] == 1.0
    wrong[1] = 0
    assert evaluate(sample(root, {0: wrong}))[0]["davis/J&F"] == pytest.approx(3 / 4)


def test_best_layer_and_all_layers(root):
    values, metric = evaluate(sample(root, {2: COPY, 5: TRUTH, 7: COPY}))
    assert values["davis/layer"] == 5
    assert values["davis/J&F"] == values["davis/layer_5_J&F"] == 1.0
    assert values["davis/layer_2_J&F"] == values["davis/layer_7_J&F"] == values["davis/copy_J&F"]
    assert [row["layer"] for row in metric.by_layer] == [2, 5, 7]
    assert len(metric.by_object) == 6


def test_objects_of_all_videos_count_alike_once(root):
    """Duplicate videos from two processes and the order of videos do not change the values."""
    cat, dog = sample(root, {0: TRUTH}), sample(root, {0: COPY}, "dog")
    alone, _ = evaluate(dog)
    values, _ = evaluate(cat, dog)
    assert values["davis/J_mean"] == pytest.approx((1 + alone["davis/J_mean"]) / 2)
    assert evaluate(dog, cat, dog)[0] == values


def test_missing_videos_are_named(root, monkeypatch):
    warnings = []
    monkeypatch.setattr("mmengine.logging.MMLogger.warning", lambda _, message: warnings.append(message))
    evaluate(sample(root, {0: TRUTH}))
    assert warnings == ["1 videos have no results and are not evaluated: dog"]


def test_masks_to_compare_with_must_be_there(root):
    given = sample(root, {0: TRUTH})
    given["masks"] = given["masks"][:1]
    with pytest.raises(ValueError, match="cat has 1 ground-truth masks for 6 frames; .*with_truth=True"):
        evaluate(given)

import cv2
import numpy as np
import pytest

from pe_dense.datasets.synthetic import CLASSES, draw_scene


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(np.random.default_rng((0, index))) for index in range(200)]


def test_shapes_and_types(scenes):
    for scene in scenes[:20]:
        count = len(scene.labels)
        assert 1 <= count <= 8
        assert scene.image.shape == (128, 128, 3) and scene.image.dtype == np.uint8
        assert scene.masks.shape == (count, 128, 128) and scene.masks.dtype == bool
        assert scene.depth.shape == (128, 128) and scene.depth.dtype == np.float32
        assert scene.semantic.shape == (128, 128) and scene.semantic.dtype == np.uint8


def test_same_state_same_scene():
    first, again, other = (draw_scene(np.random.default_rng((0, index)), 64) for index in (5, 5, 6))
    for field in ("image", "masks", "labels", "full_areas", "depth", "semantic"):
        assert getattr(first, field).tobytes() == getattr(again, field).tobytes()
    assert not np.array_equal(first.image, other.image)


def test_recorded_scene():
    # Other values here mean other data for the same arguments: then raise VERSION in shapes.py.
    scene = draw_scene(np.random.default_rng((0, 3)))
    assert [CLASSES[label] for label in scene.labels] == ["square", "triangle", "square", "star", "circle"]
    assert scene.masks.sum(axis=(1, 2)).tolist() == [1308, 580, 233, 695, 149]
    assert scene.image.mean() == pytest.approx(135.27, abs=0.01)


def test_masks_are_disjoint_and_visible(scenes):
    for scene in scenes:
        assert scene.masks.sum(axis=0).max() == 1
        assert scene.masks.sum(axis=(1, 2)).min() >= 12


def test_semantic_map_agrees_with_masks(scenes):
    for scene in scenes[:50]:
        for mask, label in zip(scene.masks, scene.labels, strict=True):
            assert (scene.semantic[mask] == label + 1).all()
        assert (scene.semantic[~scene.masks.any(axis=0)] == 0).all()


@pytest.mark.parametrize("difficulty", ["hard", "easy"])
def test_depth_follows_size_in_perspective(difficulty):
    full_shapes = 0
    for index in range(40):
        scene = draw_scene(np.random.default_rng((0, index)), difficulty=difficulty, perspective=True)
        meters = [scene.depth[mask][0] for mask in scene.masks]
        assert meters == sorted(meters) and meters[0] >= 0.8 and meters[-1] <= 8
        for mask, label, distance in zip(scene.masks, scene.labels, meters, strict=True):
            rows, columns = np.nonzero(mask)
            cut = min(rows.min(), columns.min()) == 0 or max(rows.max(), columns.max()) == 127
            if CLASSES[label] == "circle" and not cut and mask.sum() == scene.full_areas[list(meters).index(distance)]:
                # A circle half a meter wide, seen whole: its diameter is half a meter times 128 px / distance.
                assert np.ptp(rows) + 1 == pytest.approx(0.5 * 128 / distance, abs=1.5)
                full_shapes += 1
    assert full_shapes >= 5


def test_depth_agrees_with_masks(scenes):
    for scene in scenes:
        shapes = [np.unique(scene.depth[mask]) for mask in scene.masks]
        assert all(len(depths) == 1 for depths in shapes)
        nearest_first = np.concatenate(shapes)
        assert (np.diff(nearest_first) >= 0).all()
        assert nearest_first[0] >= 1 and nearest_first[-1] <= 8
        background = scene.depth[~scene.masks.any(axis=0)]
        assert background.min() >= 8.2 - 1e-5 and background.max() <= 10 + 1e-5
        assert background.max() - background.min() > 0.5


def test_occlusion_is_real(scenes):
    visible = np.concatenate([scene.masks.sum(axis=(1, 2)) for scene in scenes])
    full = np.concatenate([scene.full_areas for scene in scenes])
    assert (visible <= full).all()
    assert 0.2 < np.mean(visible < full) < 0.6
    for scene in scenes:  # nothing hides the nearest shape
        assert scene.masks[0].sum() == scene.full_areas[0]


def test_small_and_large_shapes(scenes):
    areas = np.concatenate([scene.full_areas for scene in scenes])
    assert areas.min() < 60  # a disc of 8 pixels has 50
    assert areas.max() > 3800  # a disc of 0.6 * 128 pixels has 4632


def test_classes_are_long_tailed(scenes):
    counts = np.bincount(np.concatenate([scene.labels for scene in scenes]), minlength=len(CLASSES))
    assert counts.min() > 5
    assert counts[0] > 3 * counts[-1]
    # Each class 0.8 as frequent as the one before: the slope of the log counts is log 0.8 = -0.22.
    assert np.polyfit(np.arange(len(CLASSES)), np.log(counts), 1)[0] == pytest.approx(-0.22, abs=0.06)


def test_color_does_not_tell_the_class(scenes):
    labels = np.concatenate([scene.labels for scene in scenes])
    colors = np.stack([scene.image[mask].mean(axis=0) for scene in scenes for mask in scene.masks])
    depths = np.concatenate([[scene.depth[mask][0] for mask in scene.masks] for scene in scenes])
    for values in (*colors.T, depths):
        error = values.std() / np.bincount(labels) ** 0.5
        offset = np.bincount(labels, weights=values) / np.bincount(labels) - values.mean()
        assert (np.abs(offset) < 4 * error).all()


def test_image_changes_at_the_edges_of_masks(scenes):
    def edge_strength(image, mask):
        edges = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        return np.hypot(cv2.Sobel(gray, -1, 1, 0), cv2.Sobel(gray, -1, 0, 1))[edges].mean()

    at_edges, beside = [], []
    for scene in scenes:
        if scene.masks[0].sum() > 100:
            at_edges.append(edge_strength(scene.image, scene.masks[0]))
            beside.append(edge_strength(scene.image, np.roll(scene.masks[0], (5, 5), axis=(0, 1))))
    assert np.mean(at_edges) > 1.5 * np.mean(beside)


def test_haze_pales_the_far(scenes):
    pixels = np.concatenate([scene.image[scene.masks.any(axis=0)] for scene in scenes]).astype(float)
    depths = np.concatenate([scene.depth[scene.masks.any(axis=0)] for scene in scenes])
    chroma = pixels.max(axis=1) - pixels.min(axis=1)
    assert chroma[depths < 2].mean() > 1.3 * chroma[depths > 7].mean()


def test_image_size():
    assert draw_scene(np.random.default_rng(0), 96).image.shape == (96, 96, 3)
    with pytest.raises(ValueError, match="63.*64"):
        draw_scene(np.random.default_rng(0), 63)

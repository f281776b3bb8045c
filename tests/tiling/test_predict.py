"""Tiles against the untiled prediction, with predictors that see only the pixels of a tile."""

import json
import weakref
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from pe_dense.apis.label_files import FORMATS
from pe_dense.depth import DepthPredictor
from pe_dense.runtime import CroppedMasks, Detections
from pe_dense.segmentation import PanopticPredictor, SegmentationPredictor
from pe_dense.tiling import Tiling, maps, predict_tiles
from pe_dense.tiling.readers import ArrayReader
from pe_dense.utils.errors import ConfigError, InputError

SIZE = (700, 1000)


class _Sample(SimpleNamespace):
    def cpu(self):
        return self


class ColorDetector:
    """Finds connected pixels of one color: class 0 is red, class 1 green."""

    tiles = "objects"

    def __init__(self, masks=True):
        self.masks, self.sizes = masks, set()

    def prepare(self, pixels, index):
        self.sizes.add(pixels.shape[:2])
        return pixels, pixels

    def predict(self, batch):
        return [_Sample(pixels=pixels) for pixels in batch]

    def result(self, sample):
        boxes, labels, crops, corners = [], [], [], []
        for label in (0, 1):
            count, places, stats, _ = cv2.connectedComponentsWithStats((sample.pixels[..., label] > 0).astype(np.uint8))
            for number in range(1, count):
                left, top, width, height, _ = stats[number]
                boxes.append((left, top, left + width, top + height))
                labels.append(label)
                crops.append(places[top : top + height, left : left + width] == number)
                corners.append((top, left))
        size = sample.pixels.shape[:2]
        masks = CroppedMasks(crops, corners, size) if self.masks else None
        boxes, labels = np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64)
        scores = np.linspace(0.9, 0.5, len(labels), dtype=np.float32)
        names = tuple("rg"[label] for label in labels)
        return Detections(boxes, scores, labels, names, masks, classes=("r", "g"), size=size)


def scene(seed, count=60, size=SIZE, largest=120):
    """Ellipses of two colors that do not touch those of their color; some are larger than the overlap of tiles."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((*size, 3), np.uint8)
    for number in range(count):
        one = np.zeros(size, np.uint8)
        axes = tuple(int(value) for value in rng.integers(4, largest, 2))
        center = tuple(int(value) for value in rng.integers(0, size[::-1]))
        cv2.ellipse(one, center, axes, float(rng.integers(180)), 0, 360, 255, -1)
        around = cv2.dilate(one, np.ones((5, 5), np.uint8)) > 0
        if not pixels[around, number % 2].any():
            pixels[..., number % 2] |= one
    return pixels


def sorted_by_place(found):
    order = np.lexsort(np.column_stack([found.labels, found.boxes]).T)
    return found[order]


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_objects_on_seams_are_found_once(seed, masks):
    """Each object of the scene, with its whole box and mask, although tiles show parts of most of them."""
    pixels, detector = scene(seed), ColorDetector(masks)
    whole = sorted_by_place(detector.result(_Sample(pixels=pixels)))
    progress = []
    found = predict_tiles(
        detector, ArrayReader(pixels), Tiling(256, 0.25), 3, on_tile=lambda *numbers: progress.append(numbers)
    )
    assert detector.sizes == {(256, 256)}
    assert progress[-1][0] == progress[-1][1] == len(progress) == 4 * 5
    assert (np.diff(found.scores) <= 0).all()
    found = sorted_by_place(found)
    assert len(whole) > 25
    assert found.boxes.tolist() == whole.boxes.tolist()
    assert found.names == whole.names and found.size == SIZE
    if masks:
        assert (np.asarray(found.masks) == np.asarray(whole.masks)).all()


@pytest.mark.parametrize("masks", [False, True])
def test_images_without_objects(masks, tmp_path):
    """Empty arrays of the usual shapes and types, which every format writes."""
    pixels = np.zeros((*SIZE, 3), np.uint8)
    found = predict_tiles(ColorDetector(masks), ArrayReader(pixels), Tiling(256, 0.25))
    assert len(found) == 0 and found.names == () and found.size == SIZE
    assert (found.boxes.shape, found.boxes.dtype) == ((0, 4), np.float32)
    assert (found.scores.shape, found.scores.dtype) == ((0,), np.float32)
    assert (found.labels.shape, found.labels.dtype) == ((0,), np.int64)
    assert found.draw(pixels).shape[2] == 3 and found.above({"r": 0.5}).names == ()
    found.save(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"objects": []}
    with np.load(found.save(tmp_path / "a.npz")) as arrays:
        assert ("masks" in arrays) == masks and (not masks or arrays["masks"].shape == (0, *SIZE))
    assert found.to_coco() == [] and found.to_yolo() == ""
    image = tmp_path / "in.png"
    Image.fromarray(pixels).save(image)
    for name, kind in FORMATS.items():
        if masks or name != "masks":
            writer = kind(tmp_path / name, ("r", "g"))
            writer.add("in", image, pixels, found)
            writer.finish()
    if masks:
        assert (np.asarray(found.masks).shape, found.masks.dtype) == ((0, *SIZE), bool)
        assert not np.asarray(Image.open(tmp_path / "masks/masks/in.png")).any()


def test_small_images_are_one_tile():
    pixels, detector = scene(0)[:100, :200], ColorDetector()
    found = predict_tiles(detector, ArrayReader(pixels), Tiling(256))
    assert detector.sizes == {(100, 200)}
    assert len(found) == len(detector.result(_Sample(pixels=pixels)))


def test_parts_inside_of_a_larger_object_are_removed():
    """A tile that shows only the end of an object takes it for a small one, which agrees little with the object."""
    pixels = np.zeros((100, 170, 3), np.uint8)
    pixels[10:90, 20:98, 0] = 255
    detector = ColorDetector(masks=False)

    def weak(sample, original=detector.result):
        found = original(sample)
        if sample.pixels[:, 0].any():  # the tile on the right: the object begins at its border
            found.boxes[:] = [0, 30, 28, 50]
        return found

    detector.result = weak
    found = predict_tiles(detector, ArrayReader(pixels), Tiling(100, 0.3))
    assert found.boxes.tolist() == [[20, 10, 98, 90]]


class Maps:
    """Scores that depend on the pixel and, slightly, on the place in the tile."""

    tiles = "maps"
    map_dtype = np.float32

    def prepare(self, pixels, index):
        return pixels, pixels

    def predict(self, batch):
        return [_Sample(pixels=pixels) for pixels in batch]

    def tile_scores(self, sample):
        values = sample.pixels.transpose(2, 0, 1).astype(np.float32)
        return values + np.linspace(0, self.slope, values.shape[2], dtype=np.float32)

    def decide(self, scores):
        return scores[0]

    def map_result(self, values):
        return values

    slope = 0.0


@pytest.mark.parametrize(("size", "overlap"), [(256, 0.25), (200, 0.6), (250, 0.0), (2000, 0.2)])
def test_blending_keeps_what_tiles_agree_on(size, overlap):
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    found = predict_tiles(Maps(), ArrayReader(pixels), Tiling(size, overlap), 2)
    assert np.abs(found - pixels[..., 0]).max() < 1e-3


def test_blending_is_continuous_across_seams():
    """Tiles that disagree by 10 at a seam: neighboring pixels differ by no more than the slope in the overlap."""
    predictor = Maps()
    predictor.slope = 10.0
    found = predict_tiles(predictor, ArrayReader(np.zeros((*SIZE, 3), np.uint8)), Tiling(256, 0.25))
    assert np.abs(np.diff(found, axis=1)).max() < 0.3
    assert np.abs(np.diff(found, axis=0)).max() < 1e-4


def test_one_tile_is_in_memory_and_decided_in_bands(monkeypatch):
    """Scores of 150 classes take most of the memory: those of a tile are released before the next is predicted."""
    monkeypatch.setattr(maps, "_BAND_BYTES", 20 * 3 * 256 * 4)
    alive, decided = [], []

    class Watched(Maps):
        def predict(self, batch):
            assert all(reference() is None for reference in alive)
            found = super().predict(batch)
            alive.extend(weakref.ref(sample) for sample in found)
            return found

        def decide(self, scores):
            decided.append(scores.shape[1])
            return super().decide(scores)

    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    found = predict_tiles(Watched(), ArrayReader(pixels), Tiling(256, 0.2))
    np.testing.assert_allclose(found, pixels[..., 0], atol=1e-3)
    assert len(alive) > 10 and max(decided) < 40


def test_large_maps_go_to_files(tmp_path, monkeypatch):
    """The same result; the file of the map has no name."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    monkeypatch.setattr(maps, "_STRIP_BYTES", 0)
    monkeypatch.setattr(maps, "_MAP_BYTES", 0)
    found = predict_tiles(Maps(), ArrayReader(pixels), Tiling(256, 0.25), folder=tmp_path)
    assert isinstance(found, np.memmap)
    assert np.abs(found - pixels[..., 0]).max() < 0.2  # half precision
    assert list(tmp_path.iterdir()) == []


def test_decisions_of_inferencers():
    scores = np.array([[[0.2, 0.9]], [[0.7, 0.1]]], np.float32)
    one = SegmentationPredictor.__new__(SegmentationPredictor)
    assert one.decide(scores).tolist() == [[1, 0]]
    one.model = SimpleNamespace(decode_head=SimpleNamespace(threshold=0.3))
    assert one.decide(scores[:1]).tolist() == [[False, True]]
    depth = DepthPredictor.__new__(DepthPredictor)
    assert depth.decide(scores[:1]).tolist() == scores[0].tolist()


def test_mistakes():
    with pytest.raises(InputError, match="tile 16 is not a number of pixels of at least 32"):
        Tiling(16)
    with pytest.raises(InputError, match="overlap 0.9 is not a part of the tile from 0 to below 0.9"):
        Tiling(64, 0.9)
    panoptic = PanopticPredictor.__new__(PanopticPredictor)
    with pytest.raises(ConfigError, match="PanopticPredictor predicts the whole"):
        predict_tiles(panoptic, ArrayReader(np.zeros((8, 8, 3), np.uint8)), Tiling(64))

"""Predictions written as annotations."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import yaml
from helpers.tool_runs import call_tool
from PIL import Image
from pycocotools import mask as rle

from pe_dense.apis.label_files import CocoWriter, LabelmeWriter, MaskWriter, YoloWriter, write_labels
from pe_dense.runtime import CroppedMasks, DepthMap, Detections, LabelMap, Segment, Segments
from pe_dense.tiling import open_windows
from pe_dense.utils.errors import ConfigError

CLASSES = ("cat", "dog")
SIZE = (40, 80)
BOXES = np.array([[20, 10, 60, 30], [40, 0, 70, 20]], np.float32)
MASKS = np.zeros((2, *SIZE), bool)
MASKS[0, 10:30, 20:60] = MASKS[1, 0:20, 40:70] = True


def found(masks=MASKS):
    masks = None if masks is None else CroppedMasks.of(masks)
    return Detections(BOXES, np.array([0.9, 0.5]), np.array([0, 1]), CLASSES, masks, classes=CLASSES, size=SIZE)


@pytest.fixture
def image(tmp_path):
    """A photo that was taken with the camera upside down, and its upright pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    Image.fromarray(pixels[::-1, ::-1]).save(path, exif=exif)
    return path, pixels


def write(kind, folder, image, *results):
    writer = kind(folder, CLASSES)
    for number, result in enumerate(results):
        writer.add(f"photo_{number}", *image, result)
    writer.finish()


def test_coco(tmp_path, image):
    write(CocoWriter, tmp_path / "out", image, found(), found(None))
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [one["file_name"] for one in content["images"]] == ["photo_0.png", "photo_1.png"]
    assert content["images"][1] == dict(id=2, file_name="photo_1.png", height=40, width=80)
    assert content["categories"] == [dict(id=1, name="cat"), dict(id=2, name="dog")]
    assert [(one["id"], one["image_id"], one["category_id"]) for one in content["annotations"]] == [
        (1, 1, 1), (2, 1, 2), (3, 2, 1), (4, 2, 2),
    ]  # fmt: skip
    assert (rle.decode(content["annotations"][1]["segmentation"]) == MASKS[1]).all()
    copied = Image.open(tmp_path / "out/images/photo_0.png")
    assert copied.getexif().get(0x0112) is None
    assert (np.asarray(copied) == image[1]).all()


def test_images_without_orientation_are_copied(tmp_path):
    pixels = np.zeros((*SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.JPG", quality=50)
    write(YoloWriter, tmp_path / "out", (tmp_path / "a.JPG", pixels), found())
    assert (tmp_path / "out/images/photo_0.jpg").read_bytes() == (tmp_path / "a.JPG").read_bytes()


@pytest.mark.parametrize("ignored", [False, True])
def test_large_images_are_copied_as_the_model_reads_them(tmp_path, image, ignored, monkeypatch):
    """The writer gets reduced pixels of those; the file has more pixels than Pillow opens."""
    path, pixels = image
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    writer = YoloWriter(tmp_path / "out", CLASSES, partial(open_windows, ignore_orientation=ignored))
    writer.add("photo", path, pixels[::2, ::2], found())
    monkeypatch.undo()
    expected = pixels[::-1, ::-1] if ignored else pixels
    assert (np.asarray(Image.open(tmp_path / "out/images/photo.png")) == expected).all()


def test_yolo(tmp_path, image):
    write(YoloWriter, tmp_path / "out", image, found(None))
    assert yaml.safe_load((tmp_path / "out/data.yaml").read_text()) == dict(
        path=".", train="images", names={0: "cat", 1: "dog"}
    )
    assert (tmp_path / "out/labels/photo_0.txt").read_text() == found(None).to_yolo()


def test_labelme(tmp_path, image):
    write(LabelmeWriter, tmp_path / "out", image, found(), found(None))
    content = json.loads((tmp_path / "out/photo_0.json").read_text())
    assert (tmp_path / "out" / content["imagePath"]).exists()
    assert (content["imageHeight"], content["imageWidth"], content["imageData"]) == (40, 80, None)
    first = content["shapes"][0]
    assert (first["label"], first["shape_type"], first["group_id"]) == ("cat", "polygon", None)
    assert {tuple(point) for point in first["points"]} == {(20, 10), (20, 30), (60, 30), (60, 10)}
    (box, _) = json.loads((tmp_path / "out/photo_1.json").read_text())["shapes"]
    assert (box["shape_type"], box["points"]) == ("rectangle", [[20, 10], [60, 30]])


def test_label_maps(tmp_path, image):
    labels = np.random.default_rng(1).integers(0, 2, SIZE)
    write(MaskWriter, tmp_path / "semantic", image, LabelMap(labels, CLASSES))
    assert (np.asarray(Image.open(tmp_path / "semantic/masks/photo_0.png")) == labels).all()
    assert (tmp_path / "semantic/classes.txt").read_text() == "cat\ndog\n"
    write(MaskWriter, tmp_path / "objects", image, found())
    painted = np.asarray(Image.open(tmp_path / "objects/masks/photo_0.png"))
    assert (painted == np.where(MASKS[0], 1, np.where(MASKS[1], 2, 0))).all()
    assert (tmp_path / "objects/classes.txt").read_text() == "background\ncat\ndog\n"


def test_masks_are_cropped_once(tmp_path, image, monkeypatch):
    """Not once per object: those of exported models are arrays of the size of the image."""
    crop, calls = CroppedMasks.of, []
    monkeypatch.setattr(CroppedMasks, "of", lambda masks: calls.append(masks) or crop(masks))
    write(MaskWriter, tmp_path, image, replace(found(None), masks=MASKS))
    assert len(calls) == 1


def test_panoptic_segments(tmp_path, image):
    ids = np.zeros(SIZE, np.int32)
    ids[:, :20], ids[5:10, 30:50] = 7, 9
    segments = (Segment(7, 1, "dog", False, 800, (0, 0, 20, 40)), Segment(9, 0, "cat", True, 100, (30, 5, 20, 5)))
    write(MaskWriter, tmp_path / "maps", image, Segments(ids, segments, CLASSES))
    painted = np.asarray(Image.open(tmp_path / "maps/masks/photo_0.png"))
    assert (painted == np.select([ids == 7, ids == 9], [1, 0], 255)).all()
    write(CocoWriter, tmp_path / "things", image, Segments(ids, segments, CLASSES))
    (thing,) = json.loads((tmp_path / "things/annotations/instances_train.json").read_text())["annotations"]
    assert (thing["bbox"], thing["area"], thing["category_id"]) == ([30, 5, 20, 5], 100, 1)


@pytest.mark.parametrize(
    ("kind", "result", "message"),
    [
        (
            CocoWriter,
            LabelMap(np.zeros(SIZE, int), CLASSES),
            "--format coco is for objects and .*: choose masks or json",
        ),
        (MaskWriter, DepthMap(np.zeros(SIZE)), "this model predicts depth maps: choose json"),
        (MaskWriter, found(None), "needs masks, but this model predicts boxes: choose coco or yolo"),
    ],
)
def test_formats_of_other_results(tmp_path, image, kind, result, message):
    with pytest.raises(ConfigError, match=message):
        write(kind, tmp_path / "out", image, result)


def test_thresholds_and_interruption(detector, photos, tmp_path):
    """What was written until an interruption is complete."""
    (expected,) = detector.predict(photos[0], score_thr={"class 0": 1.0, "*": 0.05})
    images = write_labels(
        detector.predictor, photos, tmp_path / "out", "coco", score_thr={"class 0": 1.0, "*": 0.05}, batch_size=2
    )
    assert next(images) == photos[0]
    with pytest.raises(KeyboardInterrupt):
        images.throw(KeyboardInterrupt())
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [one["file_name"] for one in content["images"]] == ["a.png"]
    assert len(content["annotations"]) == len(expected) > 0


def test_command(detector, run, photos, tmp_path):
    """The work dir of a run in place of config and checkpoint."""
    arguments = (run, *photos[:1], "--out", tmp_path / "out", "--device", "cpu", "--format", "yolo")
    done = call_tool("predict", *arguments, "--score-thr", "class 1=0.2,0.1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"Annotations (yolo) of 1 of 1 images: {tmp_path / 'out'}" in done.stdout
    (expected,) = detector.predict(photos[0], score_thr={"class 1": 0.2, "*": 0.1})
    assert (tmp_path / "out/labels/a.txt").read_text() == expected.to_yolo()
    assert call_tool("predict", *arguments).returncode == 2  # the folder is not empty
    wrong = call_tool("predict", *arguments, "--overwrite", "--score-thr", "class1=0.2")
    assert (
        "error: threshold of 'class1', which is not one of the model's 8 classes; did you mean class 1?" in wrong.stderr
    )


def test_interruption_ends_in_a_line(run, photos, tmp_path, monkeypatch):
    def pressed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("pe_dense.detection.DetectionPredictor.predict", pressed)
    done = call_tool("predict", run, *photos, "--out", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 130
    out = tmp_path / "out"
    assert done.stderr.endswith(f"interrupted: Pictures and JSON files of 0 of 3 images: {out}\n")
    assert "Traceback" not in done.stderr

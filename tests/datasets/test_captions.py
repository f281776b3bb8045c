"""Captions of generated scenes, and data sets of images with captions: folders, tables and shards."""

import io
import itertools
import json
import logging
import random
import re
import tarfile

import numpy as np
import pytest
import torch
from helpers.tiny_towers import photo_file
from mmengine.logging import MMLogger
from PIL import Image

from pe_dense.datasets.captions import CaptionFolder, CaptionTable, LabeledImages, WebCaptions, read_table
from pe_dense.datasets.synthetic import CLASSES, ShapesCaptionDataset, ShapesFormDataset, draw_scene, write_shapes
from pe_dense.datasets.synthetic.datasets import _crop_around, _draw_crop
from pe_dense.datasets.synthetic.scene import color_name, draw_caption, name_shapes
from pe_dense.engine.data_loading import DataLoader
from pe_dense.engine.runner import Runner
from pe_dense.utils.errors import ConfigError, UserError
from pe_dense.utils.rng import seed_all

PIPELINE = [dict(type="pe_dense.PILToTensor")]


@pytest.fixture
def photos(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(photo_file(seed=ord(name)))
    return tmp_path


@pytest.fixture
def warnings():
    """Lines of the log from now on."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def test_names_of_colors():
    colors = dict(
        red=(200, 20, 20), orange=(230, 130, 30), yellow=(220, 210, 40), green=(40, 180, 50), cyan=(40, 200, 210),
        blue=(40, 60, 200), purple=(130, 40, 200), pink=(230, 50, 160), gray=(120, 125, 130),
    )  # fmt: skip
    assert [color_name(rgb) for rgb in colors.values()] == list(colors)
    assert color_name((200, 20, 40)) == "red"  # a hue of 353 degrees


def painted(*boxes):
    """A black image of 90 x 90 px with filled boxes (label, color, x, y, w, h), and their masks and labels."""
    image, masks = np.zeros((90, 90, 3), np.uint8), []
    for _, color, x, y, w, h in boxes:
        mask = np.zeros((90, 90), bool)
        mask[y : y + h, x : x + w] = True
        image[mask] = color
        masks.append(mask)
    return image, np.stack(masks), [CLASSES.index(box[0]) for box in boxes]


SCENE = (
    ("star", (255, 0, 0), 5, 5, 20, 20),
    ("ring", (0, 0, 255), 30, 32, 30, 30),
    ("heart", (0, 255, 0), 40, 66, 9, 9),
)


def test_words_for_shapes():
    ring, star, heart = name_shapes(*painted(*SCENE))  # largest first
    assert (star.form, star.color, star.size, star.place) == ("star", "red", "small", "at the top left")
    assert (ring.form, ring.color, ring.size, ring.place) == ("ring", "blue", "medium", "in the center")
    assert (heart.size, heart.place, heart.part) == ("small", "at the bottom", False)
    image, masks, labels = painted(*SCENE)
    (large,) = name_shapes(image[20:60, 30:60], masks[:, 20:60, 30:60], labels)
    assert large.size == "large"


def test_crops_name_what_they_show():
    image, masks, labels = painted(*SCENE)
    pixels = masks.sum(axis=(1, 2))
    view = slice(20, 50)  # shows 18 x 20 of the ring's 30 x 30 px, less than half
    named = name_shapes(image[view, view], masks[:, view, view], labels, pixels)
    assert [(shape.form, shape.part) for shape in named] == [("ring", True)]
    view = slice(20, 60)
    named = name_shapes(image[view, view], masks[:, view, view], labels, pixels)
    assert [(shape.form, shape.part) for shape in named] == [("ring", False)]
    assert name_shapes(image[:, 70:], masks[:, :, 70:], labels, pixels) == []


def test_captions_tell_the_truth():
    shapes = name_shapes(*painted(*SCENE))
    words = {shape.form: shape for shape in shapes}
    rng = np.random.default_rng(0)
    captions = [draw_caption(rng, shapes) for _ in range(400)]
    assert "a small red star above a medium blue ring" in {caption.strip(".") for caption in captions}
    assert any(caption.endswith("a heart below a star.") for caption in captions)
    assert len(set(captions)) > 200
    for caption in captions:
        for word in ("above", "below", "to the left of", "to the right of"):
            if f" {word} " in caption:
                first, second = (
                    words[next(form for form in words if form in part)].center for part in caption.split(word)
                )
                axis = int(word in ("above", "below"))
                assert (first[axis] > second[axis]) == (word in ("below", "to the right of")), caption
    one = {draw_caption(rng, shapes[:1]) for _ in range(200)}
    assert {"a ring", "a photo of a medium blue ring in the center."} <= one
    assert all("ring" in caption for caption in one)
    assert "an empty background" in draw_caption(rng, [])
    orange = name_shapes(*painted(("star", (255, 128, 0), 5, 5, 20, 20)))
    assert any("an orange star" in draw_caption(rng, orange) for _ in range(20))


def test_at_most_four_shapes_are_named():
    many = [("star", (255, 0, 0), 10 * i, 10, 4 + i, 9) for i in range(6)]
    assert len(name_shapes(*painted(*many))) == 4


def test_written_captions(small_shapes, tmp_path):
    root, spec = small_shapes
    lines = (root / "annotations/captions_val.jsonl").read_text().splitlines()
    first = json.loads(lines[3])
    assert len(lines) == 8 and first["file"] == "val/000003.png"
    scene = draw_scene(np.random.default_rng((0, 2, 3)), 64)
    forms = {CLASSES[label] for label in scene.labels}
    for caption in first["captions"]:
        named = {form for form in CLASSES if form in caption}
        assert named and named <= forms
    again = write_shapes(tmp_path / "again", **spec)
    assert (again / "annotations/captions_val.jsonl").read_text().splitlines() == lines


def test_easy_scenes_are_balanced_and_large():
    scenes = [draw_scene(np.random.default_rng((1, i)), 64, "easy") for i in range(300)]
    counts = np.bincount(np.concatenate([scene.labels for scene in scenes]), minlength=8)
    assert counts.min() > 0.6 * counts.mean() and max(len(scene.labels) for scene in scenes) == 4
    for scene in scenes:
        assert (scene.masks.sum(axis=(1, 2)) > scene.full_areas / 2).all()
    with pytest.raises(ValueError, match="difficulty 'simple' is not one of hard, easy"):
        write_shapes("nowhere", difficulty="simple")


def test_images_of_one_shape(tmp_path):
    dataset = ShapesFormDataset(PIPELINE, str(tmp_path / "forms"), dict(num_images=17, image_size=64))
    assert dataset.metainfo["classes"] == tuple(sorted(CLASSES))
    labels = [dataset[i]["label"] for i in range(17)]
    assert np.bincount(labels).tolist() == [3, 2, 2, 2, 2, 2, 2, 2]  # circles come first, in the alphabet, too
    assert dataset[0]["image"].shape == (3, 64, 64)
    first = (tmp_path / "forms/labels.csv").read_text().splitlines()[:3]
    assert first == ["file,label", "images/000000.png,circle", "images/000001.png,square"]


def test_crops_stay_inside():
    random.seed(0)
    shares = []
    for _ in range(300):
        rows, columns = _draw_crop(128, 128, 0.08)
        assert 0 <= rows.start < rows.stop <= 128 and 0 <= columns.start < columns.stop <= 128
        shares.append((rows.stop - rows.start) * (columns.stop - columns.start) / 128**2)
        rows, columns = _crop_around((100, 3, 28, 17), 128, 3.0)
        assert rows.start <= 3 and rows.stop >= 20 and columns.start <= 100 and columns.stop == 128
        assert rows.stop - rows.start == columns.stop - columns.start <= 84
    assert min(shares) < 0.12 and max(shares) > 0.9
    for _ in range(20):
        rows, columns = _draw_crop(64, 64, 1.0)
        assert min(rows.stop - rows.start, columns.stop - columns.start) > 54


def test_crop_captions(small_shapes):
    root, spec = small_shapes
    dataset = ShapesCaptionDataset(PIPELINE, str(root), "val", spec, focus=0.0, crop_area=0.3, flip=0.0)
    mirrored = ShapesCaptionDataset(PIPELINE, str(root), "val", spec, focus=0.0, crop_area=0.3, flip=1.0)
    opposite = dict(left="right", right="left")
    places = 0
    for index in range(len(dataset)):
        for seed in range(10):
            seed_all(seed)
            item = dataset[index]
            seed_all(seed)
            other = mirrored[index]
            assert (item["image"].flip(-1) == other["image"]).all()
            words = other["caption"].replace(".", " .").replace(",", " ,").split()
            if "to" in words:
                continue  # a relation, whose words are shared
            expected = " ".join(opposite.get(word, word) for word in words)
            assert item["caption"].replace(".", " .").replace(",", " ,") == expected
            places += "left" in words or "right" in words
    assert places > 5
    with pytest.raises(ValueError, match="crop_area is in"):
        ShapesCaptionDataset(PIPELINE, str(root), "val", spec, crop_area=0.0)
    with pytest.raises(ValueError, match="split 'test'"):
        ShapesCaptionDataset(PIPELINE, str(root), "test", spec)


def test_rotated_crops_and_their_captions(tmp_path):
    spec = dict(num_train=1, num_val=16, image_size=64, difficulty="easy")
    options = dict(focus=0.0, crop_area=1.0, flip=0.0, told=dict(size=0.0, color=0.0, place=1.0, relation=0.0))
    upright = ShapesCaptionDataset(PIPELINE, str(tmp_path / "data"), "val", spec, **options)
    rotated = ShapesCaptionDataset(PIPELINE, str(tmp_path / "data"), "val", spec, rotate=True, **options)
    single = [index for index, shapes in enumerate(upright.shapes) if len(shapes) == 1]
    counterclockwise = dict(top="left", left="bottom", bottom="right", right="top", center="center")

    def draw(dataset, index, seed):
        seed_all(seed)
        item = dataset[index]
        return item["image"], {word for word in re.findall(r"\w+", item["caption"]) if word in counterclockwise}

    seen = set()
    for index, seed in itertools.product(single, range(8)):
        (image, place), (other, place_then) = draw(upright, index, seed), draw(rotated, index, seed)
        turns = next(k for k in range(4) if torch.equal(image.rot90(k, (1, 2)), other))
        for _ in range(turns):
            place = {counterclockwise[word] for word in place}
        assert place == place_then and place
        seen.add(turns)
    assert seen == {0, 1, 2, 3}


def test_folder_with_text_files(photos, warnings):
    (photos / "a.txt").write_text("one\n\n two \n", encoding="utf-8")
    (photos / "c.txt").write_text("\ufeffthree\n", encoding="utf-8")
    dataset = CaptionFolder(photos, PIPELINE, min_side=8)
    assert [path.name for path in dataset.paths] == ["a.png", "c.png"]
    random.seed(0)
    assert {dataset[0]["caption"] for _ in range(20)} == {"one", "two"}
    item = dataset[1]
    assert item["caption"] == "three" and item["path"] == str(photos / "c.png") and item["skipped"] == ""
    assert any("1 images without a caption are left out" in line and "b.png" in line for line in warnings)


def test_folder_without_captions(photos):
    with pytest.raises(ConfigError, match="none of the 3 images in .* has a caption: write them .*a.txt"):
        CaptionFolder(photos, PIPELINE)
    (photos / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="a.txt is not text in UTF-8"):
        CaptionFolder(photos, PIPELINE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "file,caption\na.png,one\nb.png,\na.png,two\nc.png, three \n"),
        (
            "t.jsonl",
            '{"file": "a.png", "captions": ["one", "", "two"]}\n\n{"file": "b.png", "captions": []}\n'
            '{"file": "c.png", "caption": " three"}\n',
        ),
    ],
)
def test_tables(photos, warnings, name, content):
    (photos / name).write_text(content)
    dataset = CaptionTable(name, PIPELINE, data_root=photos, min_side=8)
    assert dataset.captions == {str(photos / "a.png"): ["one", "two"], str(photos / "c.png"): ["three"]}
    assert len(dataset) == 2 and dataset[1]["caption"] == "three"
    assert any("1 images without a caption are left out: b.png" in line for line in warnings)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "file,text\na.png,one\n", "lacks the column caption; found: file, text"),
        ("t.csv", "file,caption\na.png,\n", "contains no row with a caption"),
        ("t.csv", b"\xff\xfe\x00", "is not a CSV file in UTF-8"),
        (
            "t.csv",
            "file,caption\nd.png,one\ne.png,one\na.png,one\n",
            "2 of 3 files of .* do not exist, such as .*d.png",
        ),
        ("t.jsonl", "[1]\n", "line 1: not an object with 'file' and 'caption'"),
        ("t.jsonl", '{"file": "a.png", "captions": [1]}\n', "line 1: not an object"),
        ("t.jsonl", '{"file": "a.png"\n', "is not a JSON lines file"),
        ("t.json", "{}", "captions are read from .csv or .jsonl files"),
    ],
)
def test_tables_that_cannot_be_used(photos, name, content, message):
    (photos / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((UserError, FileNotFoundError), match=message):
        CaptionTable(photos / name, PIPELINE)


def test_labeled_images(photos):
    (photos / "labels.csv").write_text("file,label\na.png,dog\nb.png,cat\n")
    dataset = LabeledImages("labels.csv", PIPELINE, data_root=photos, min_side=8)
    assert dataset.metainfo["classes"] == ("cat", "dog")
    assert [dataset[i]["label"] for i in range(2)] == [1, 0]
    assert read_table(photos / "labels.csv", "label")[0] == (photos / "a.png", "dog")


def test_shards(tmp_path):
    pytest.importorskip("webdataset")
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        for name, content in (
            ("0.png", photo_file(seed=0)),
            ("0.txt", b"one\ntwo\n"),
            ("1.png", photo_file(seed=1)),
            ("1.json", b'{"caption": "three"}'),
            ("2.png", photo_file(seed=2)),
            ("2.json", b"not json"),
            ("3.json", b'{"captions": ["four", ""]}'),
            ("3.png", photo_file(seed=3)),
            ("4.txt", b"without an image"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    dataset = WebCaptions(str(tmp_path / "s.tar"), PIPELINE, min_side=8, visit=3)
    drawn = [dataset[index] for index in range(60)]
    assert {(item["path"][-5:], item["caption"]) for item in drawn} == {
        ("0.png", "one"), ("0.png", "two"), ("1.png", "three"), ("3.png", "four")
    }  # fmt: skip
    assert any("2.png has no caption" in item["skipped"] for item in drawn)


def test_draws_depend_on_seed_and_position_only(photos):
    """A resumed run draws the captions that it would have drawn, with any number of workers."""
    for name in ("a", "b", "c"):
        (photos / f"{name}.txt").write_text("".join(f"{name}{i}\n" for i in range(50)))

    def draws(workers, skip=0, seed=3):
        loader = Runner.build_dataloader(
            dict(
                batch_size=2,
                num_workers=workers,
                sampler=dict(type="InfiniteSampler", shuffle=True),
                dataset=CaptionFolder(photos, PIPELINE, min_side=8),
            ),
            seed=seed,
        )
        assert isinstance(loader, DataLoader)
        loader.batch_sampler.continues = True
        if skip:
            loader.batch_sampler.skip(skip, lambda: None)
        batches = iter(loader)
        captions = [tuple(next(batches)["caption"]) for _ in range(8 - skip)]
        loader.end_workers(final=True)
        return captions

    whole = draws(0)
    assert len({caption for pair in whole for caption in pair}) > 8
    assert draws(1) == whole
    assert draws(0, skip=5) == whole[5:]
    assert draws(0, seed=4) != whole


def test_pictures_of_the_samples_are_images(small_shapes):
    root, spec = small_shapes
    item = ShapesCaptionDataset([], str(root), "train", spec)[0]
    assert isinstance(item["image"], Image.Image)

"""Detections drawn over images, and their masks as run-length codes."""

import numpy as np
import pytest
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw
from pycocotools import mask as rle

from pe_dense.runtime.masks import run_lengths
from pe_dense.visualization import drawing
from pe_dense.visualization.drawing import DrawnObject, add_legend, draw_objects, font_for

RED = (200, 0, 0)


def test_a_mask_is_blended_in_its_part_only():
    pixels = np.full((600, 800, 3), 100, np.uint8)
    mask = np.zeros((102, 102), bool)
    mask[1:-1, 1:-1] = True
    thing = DrawnObject((300.0, 200.0, 400.0, 300.0), "cat: 90.0", RED, mask, (199, 299))
    drawn = draw_objects(pixels, [thing])
    assert drawn.shape == pixels.shape and (pixels == 100).all()  # a copy
    assert drawn[290, 390].tolist() == [150, 50, 50]
    assert drawn[200, 350].tolist() == list(RED)  # the box
    changed = (drawn != 100).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert rows[0] >= 197 and rows[-1] <= 303 and columns[0] >= 297 and columns[-1] <= 403


def test_small_images_are_enlarged_with_all_that_was_found():
    thing = DrawnObject((10.0, 10.0, 20.0, 20.0), "a", RED, np.ones((10, 10), bool), (10, 10))
    drawn = draw_objects(np.zeros((60, 100, 3), np.uint8), [thing])
    assert drawn.shape == (300, 500, 3)
    assert drawn[90, 90].tolist() == [100, 0, 0]
    assert not drawn[150:, 150:].any()


@pytest.mark.parametrize("box", [(-50, -50, 2000, 900), (799, 599, 800, 600), (5, 5, 5, 5), (0, 590, 3, 600)])
def test_boxes_at_and_beyond_the_border(box):
    draw_objects(np.zeros((600, 800, 3), np.uint8), [DrawnObject(tuple(map(float, box)), "name", RED)])


def test_no_object_leaves_the_image_as_it_is():
    pixels = np.arange(480 * 640 * 3, dtype=np.uint8).reshape(480, 640, 3)
    np.testing.assert_array_equal(draw_objects(pixels, []), pixels)


NAMES = ["$x^2$", "$", "100%", "3", 7, "a\nb", "", "naïve café", "стол", "σκύλος", "猫と犬", "😀", "\ud800", "x" * 500]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_any_text_are_drawn(name):
    pixels = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_objects(pixels, [DrawnObject((100.0, 100.0, 300.0, 300.0), name, RED)])
    assert drawn.shape == pixels.shape
    assert add_legend(Image.new("RGB", (200, 50)), [(name, RED)]).width == 200


def ink(name):
    font, text = font_for(name, 20)
    image = Image.new("L", (400, 40))
    ImageDraw.Draw(image).text((0, 0), text, 255, font)
    return np.asarray(image)


def test_characters_without_a_font_stay_distinct(monkeypatch):
    """Without a fallback, both names would be drawn as the same empty boxes."""
    monkeypatch.setattr(drawing, "_fonts", lambda: (findfont("DejaVu Sans"),))
    said = []
    monkeypatch.setattr(drawing, "print_log", lambda line, *_: said.append(line))
    drawing._say_missing.cache_clear()
    assert font_for("猫 1", 20)[1] == "\\u732b 1"
    assert not np.array_equal(ink("猫"), ink("犬"))
    assert said[0].startswith("No installed font contains \\u732b: drawn as escapes. Install a font")
    assert font_for("стол", 20)[1] == "стол"  # DejaVu Sans has Cyrillic


def test_an_installed_font_that_has_the_characters_is_used(tmp_path, monkeypatch):
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for move, point in ((pen.moveTo, (0, 0)), (pen.lineTo, (900, 0)), (pen.lineTo, (900, 700)), (pen.lineTo, (0, 700))):
        move(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord("猫"): "cat"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "cat": (1000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable(dict(familyName="Cats", styleName="Regular"))
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "cats.ttf")
    monkeypatch.setattr(drawing, "_fonts", lambda: (findfont("DejaVu Sans"), str(tmp_path / "cats.ttf")))
    font, text = font_for("猫", 20)
    assert (font.path, text) == (str(tmp_path / "cats.ttf"), "猫")
    assert ink("猫").any()


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_equal_those_of_the_whole_mask(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(5, 40, 2)
    whole = np.zeros((height, width), bool)
    top, left = rng.integers(0, (height, width))
    part = (
        rng.random((rng.integers(1, height - top + 1), rng.integers(1, width - left + 1))) < (0.5, 1.0, 0.0)[seed % 3]
    )
    if seed == 4:  # from the bottom of each column to the top of the next
        top, left, part = 0, 2, np.ones((height, 3), bool)
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    expected = rle.encode(np.asfortranarray(whole, np.uint8))
    assert run_lengths(part, (top, left), whole.shape) == dict(
        size=expected["size"], counts=expected["counts"].decode()
    )

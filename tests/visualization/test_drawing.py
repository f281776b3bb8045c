"""Sheets, marks and overlays."""

import math

import numpy as np
from PIL import Image, ImageFont

from pe_dense.visualization import drawing
from pe_dense.visualization.drawing import (
    MARGIN,
    add_colorbar,
    draw_sheet,
    enlarge,
    fit_image,
    fit_text,
    in_rows,
    join,
    mark,
    overlay_heatmap,
)


def blank(width, height, color):
    return Image.new("RGB", (width, height), color)


def test_a_sheet_contains_all_images():
    rows = [[("one", blank(100, 60, "red")), ("two", blank(80, 40, "lime"))], [("", blank(90, 30, "blue"))]]
    sheet = draw_sheet(rows, "heading")
    pixels = np.asarray(sheet)
    for color, count in (((255, 0, 0), 6000), ((0, 255, 0), 3200), ((0, 0, 255), 2700)):
        assert (pixels == color).all(axis=-1).sum() == count
    assert sheet.width == 100 + 80 + 3 * MARGIN
    assert (pixels[0] == 255).all()


def test_titles_are_written_and_take_place_only_where_they_are():
    cell = blank(200, 50, "white")
    titled, plain = draw_sheet([[("layer 7", cell)]]), draw_sheet([[("", cell)]])
    assert plain.height == 50 + 2 * MARGIN
    assert (np.asarray(plain) == 255).all()
    ink = np.argwhere((np.asarray(titled) < 128).all(axis=-1))
    assert len(ink) > 30
    assert ink[:, 0].max() < titled.height - MARGIN - 50  # above the picture
    middle = ink[:, 1].mean()
    assert abs(middle - titled.width / 2) < 5


def test_each_title_has_a_font_that_contains_it(monkeypatch):
    asked = []
    monkeypatch.setattr(drawing, "font_for", lambda text, size: asked.append(text) or (load(size), text.upper()))
    load = ImageFont.load_default
    sheets = [draw_sheet([[(title, blank(100, 20, "white")) for title in titles]]) for titles in (("a", "猫"), "AB")]
    assert asked == ["", "a", "猫", "", "A", "B"]
    assert np.array_equal(*(np.asarray(sheet)[:, :112] for sheet in sheets))  # the text that the font has is drawn


def test_a_color_bar_fits_below_a_narrow_picture():
    colors = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    for width in (240, 480):
        bar = np.asarray(add_colorbar(blank(width, 10, "white"), colors, "-0.12", "0.34"))
        dark = np.argwhere((bar < 100).all(axis=-1))  # the digits
        colored = np.argwhere((bar[..., 1] == 0) & (bar.max(axis=-1) > 200))
        assert colored[:, 1].max() < dark[:, 1].max() < width - 5
        assert np.ptp(colored[:, 1]) > 100


def test_long_titles_are_cut_in_the_middle():
    font = ImageFont.load_default(size=14)
    text = fit_text("photo_of_a_very_long_name_0001", font, 100)
    assert font.getlength(text) <= 100
    assert text.startswith("photo")
    assert text.endswith("1")
    assert "…" in text
    assert fit_text("short", font, 100) == "short"


def test_overlay_goes_from_dark_to_light():
    heat = np.asarray(overlay_heatmap(blank(80, 20, "gray"), np.linspace(-0.5, 1.5, 8)[None])).astype(int).sum(axis=-1)
    assert heat.shape == (20, 80)
    assert (heat[10, 5], heat[10, 75]) == (heat.min(), heat.max())


def test_marks_lie_where_they_should():
    picture = blank(200, 100, "white")
    pixels = np.asarray(mark(picture, [(50, 30)])).astype(int)
    changed = np.argwhere((pixels < 255).any(axis=-1))
    assert np.abs(changed.mean(axis=0) - (30, 50)).max() < 1
    assert pixels[30, 50].tolist() == [200, 0, 0]
    assert np.asarray(picture).min() == 255  # the original stays


def test_marks_at_the_border_are_seen_whole():
    middle = np.asarray(mark(blank(100, 60, "white"), [(50, 30)])).astype(int)
    size = (middle < 255).any(axis=-1).sum()
    for place in ((0, 0), (99, 59), (99, 30)):
        corner = np.asarray(mark(blank(100, 60, "white"), [place])).astype(int)
        assert (corner < 255).any(axis=-1).sum() == size
    assert mark(blank(4, 60, "white"), [(0, 5)]).getpixel((2, 11)) == (200, 0, 0)


def test_narrow_pictures_have_room_for_titles():
    """A column is as wide as its title, up to 240 px, and the sheet as its heading."""
    cells = [[("layer 11: cosine 0.25 to 1.00", blank(10, 300, "red")), ("x" * 99, blank(20, 300, "blue"))]]
    font = ImageFont.load_default(size=13)
    title = font.getlength(cells[0][0][0])
    assert draw_sheet(cells).width == math.ceil(title) + 240 + 3 * MARGIN
    heading = "a heading of some length"
    assert draw_sheet([[("", blank(10, 10, "red"))]], heading).width == math.ceil(font.getlength(heading)) + 2 * MARGIN


def test_joined_places_are_connected():
    sheet = np.asarray(join(blank(100, 50, "white"), blank(60, 80, "white"), [((20, 25), (40, 60))]))
    assert sheet.shape == (80, 100 + MARGIN + 60, 3)
    orange = (sheet == (230, 159, 0)).all(axis=-1)
    assert orange[25 - 5 : 25 + 6, 20 - 5 : 20 + 6].sum() > 20
    x = 152 - 20
    for part in (0.3, 0.5, 0.7):
        row, column = round(25 + part * 35), round(20 + part * x)
        assert orange[row - 2 : row + 3, column].any()


def test_sizes():
    assert fit_image(blank(640, 480, "red"), 240).size == (240, 180)
    assert fit_image(blank(900, 1, "red"), 240).size == (240, 1)
    tokens = np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)
    assert np.asarray(enlarge(tokens, (4, 2)))[:, :, 0].tolist() == [[255, 255, 0, 0]] * 2
    assert [len(row) for row in in_rows([("", blank(1, 1, "red"))] * 7, 3)] == [3, 3, 1]

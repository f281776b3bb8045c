import numpy as np
import pytest

from pe_dense.datasets.synthetic.shapes import CLASSES, TEXTURES, draw_color, draw_texture, rasterize

UNIT_AREAS = dict(
    circle=np.pi,
    square=2.0,
    triangle=3 * 3**0.5 / 4,
    star=5 * 0.42 * np.sin(np.pi / 5),
    ring=np.pi * (1 - 0.55**2),
    cross=4 * 0.56 * (0.96 - 0.28) + 0.56**2,  # arms of half width 0.28 end at sqrt(1 - 0.28^2) = 0.96
)


def draw(name, **changes):
    arguments = dict(center=(33.3, 30.6), diameter=48.0, angle=0.4, image_size=64)
    return rasterize(CLASSES.index(name), **{**arguments, **changes})


@pytest.mark.parametrize("name", UNIT_AREAS)
def test_area_is_that_of_the_form(name):
    assert draw(name).sum() == pytest.approx(24**2 * UNIT_AREAS[name], rel=0.03)  # cv2 fills the outline too


@pytest.mark.parametrize("name", CLASSES)
def test_form_stays_in_its_circle_and_touches_it(name):
    y, x = np.nonzero(draw(name) > 0)
    distance = np.hypot(x + 0.5 - 33.3, y + 0.5 - 30.6).max()
    assert 23 < distance < 25


def test_ring_is_hollow_and_crescent_bitten():
    assert draw("ring")[30, 33] == 0
    assert draw("circle")[30, 33] == 1
    assert draw("crescent", angle=0.0)[30, 33 + 12] == 0
    assert draw("crescent", angle=0.0)[30, 33 - 20] == 1


def test_every_argument_moves_the_form():
    drawn = draw("star")
    changes = [dict(center=(30.3, 30.6)), dict(diameter=40.0), dict(angle=0.5)]
    for change in changes:
        assert not np.array_equal(drawn, draw("star", **change))
    assert draw("star", image_size=80).shape == (80, 80)
    np.testing.assert_array_equal(draw("star", image_size=80)[:64, :64], drawn)


def test_center_moves_by_whole_pixels():
    np.testing.assert_array_equal(draw("heart")[2:-3, 2:-4], draw("heart", center=(35.3, 31.6))[3:-2, 4:-2])


def test_colors_stay_in_their_ranges():
    rng = np.random.default_rng(0)
    colors = np.stack([draw_color(rng, saturation=(0.4, 0.6), value=(0.5, 0.8)) for _ in range(200)])
    value = colors.max(axis=1)
    saturation = 1 - colors.min(axis=1) / value
    assert value.min() >= 0.5 and value.max() <= 0.8
    assert saturation.min() > 0.39 and saturation.max() < 0.61
    assert set(colors.argmax(axis=1)) == {0, 1, 2}


@pytest.mark.parametrize("kind", TEXTURES)
def test_texture_lies_between_its_colors(kind):
    first, second = np.zeros(3, np.float32), np.array([1.0, 0.5, 0.25], np.float32)
    texture = draw_texture(np.random.default_rng(0), kind, (first, second), 64)
    assert texture.shape == (3, 64, 64) and texture.dtype == np.float32
    share = texture[0]
    np.testing.assert_allclose(texture, share * second[:, None, None], atol=1e-6)
    assert share.min() == 0 if kind == "plain" else share.min() < 0.1 and share.max() > 0.9


def test_unknown_texture_is_refused():
    with pytest.raises(ValueError, match="'velvet'.*'stripes'"):
        draw_texture(np.random.default_rng(0), "velvet", (np.zeros(3), np.ones(3)), 64)

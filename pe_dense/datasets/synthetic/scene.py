"""Generate a scene: an image of textured shapes with its masks, labels and depth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from pe_dense.datasets.synthetic.shapes import CLASSES, TEXTURES, draw_color, draw_texture, rasterize
from pe_dense.utils.errors import InputError

MAX_SHAPES = 8
MIN_VISIBLE_PIXELS = 12
MIN_IMAGE_SIZE = 64

# Each class is this much rarer than the one before it.
_CLASS_DECAY = 0.8
_LONG_TAIL = _CLASS_DECAY ** np.arange(len(CLASSES)) / np.sum(_CLASS_DECAY ** np.arange(len(CLASSES)))
_MIN_DIAMETER = 8.0  # pixels
_MAX_DIAMETER = 0.6  # of the image's side
_EASY_SHAPES = 4
_EASY_DIAMETER = 20 / 128  # of the image's side
_EASY_VISIBLE = 0.5  # of a shape inside the image
DIFFICULTIES = ("hard", "easy")
_SHAPE_DEPTHS = (1.0, 8.0)  # meters
_SHAPE_SIZE = 0.5  # meters: in perspective, diameter times distance, for a field of view as wide as the distance
_BACKGROUND_DEPTHS = (8.2, 10.0)  # meters
# Air between camera and surface: the visible cue for depth, besides occlusion.
_HAZE_COLOR = np.array([0.80, 0.85, 0.92], np.float32)[:, None, None]
_HAZE_DISTANCE = 14.0  # meters after which 1/e of the surface's own color is left
_SHADOW = 0.6
_SENSOR_NOISE = 0.012


@dataclass(frozen=True)
class Scene:
    """A scene of N shapes, nearest first, on a canvas of S x S pixels.

    Attributes:
        image: RGB, (S, S, 3) uint8.
        masks: visible pixels of each shape, (N, S, S) bool; no pixel belongs to two.
        labels: class of each shape, index into ``CLASSES``, (N,) int64.
        full_areas: pixels of each shape inside the image, hidden ones included, (N,) int64.
        depth: meters, (S, S) float32.
    """

    image: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    full_areas: np.ndarray
    depth: np.ndarray

    @property
    def semantic(self) -> np.ndarray:
        """Label map (S, S) uint8: 0 for the background, class index + 1 for shapes."""
        return np.einsum("nhw,n->hw", self.masks, self.labels + 1).astype(np.uint8)


def check_difficulty(difficulty: str) -> None:
    """Raise a ``ValueError`` for a difficulty that scenes do not have."""
    if difficulty not in DIFFICULTIES:
        raise InputError(f"difficulty {difficulty!r} is not one of {', '.join(DIFFICULTIES)}")


def draw_scene(
    rng: np.random.Generator,
    image_size: int = 128,
    difficulty: str = "hard",
    labels: Sequence[int] | None = None,
    perspective: bool = False,
) -> Scene:
    """Draw shapes over a textured, slanted background.

    The outline is the only cue to the class: position, size, rotation, color, texture and depth are sampled
    independently of it. Nearer shapes occlude farther ones, and surfaces fade into haze with depth. In
    perspective, depth follows from the size in the image, because all shapes are equally large.

    Args:
        rng: random generator; the same state generates the same scene.
        image_size: side S of the image, in pixels.
        difficulty: 'hard' for 1 to 8 shapes of at least 8 px and classes that are long-tailed in the order of
            ``CLASSES``, where a shape of which fewer than 12 pixels would be visible is left out of the image too;
            'easy' for 1 to 4 shapes of at least 20 px in 128, equally frequent classes, and shapes left out that are
            hidden by half or more.
        labels: classes of the shapes, nearest first; random number and classes by default.
        perspective: whether all shapes have a diameter of half a meter, so that larger ones are nearer: from 0.8 to
            8 meters. Otherwise size and depth are independent.

    Raises:
        ValueError: if ``image_size`` is below 64, or for another difficulty.
    """
    if image_size < MIN_IMAGE_SIZE:
        raise InputError(f"image_size is {image_size}, must be at least {MIN_IMAGE_SIZE}")
    check_difficulty(difficulty)
    labels, depths, covers, masks = _place_shapes(rng, image_size, difficulty == "easy", labels, perspective)
    depth = _slanted_plane(rng, image_size)
    surface = draw_background(rng, image_size)
    for alpha in reversed(covers):
        texture = draw_surface(rng, image_size)
        surface *= 1 - _SHADOW * cv2.GaussianBlur(alpha, (0, 0), image_size / 64)
        surface += alpha * (texture - surface)
    for mask, meters in zip(masks, depths, strict=True):
        depth[mask] = meters
    return Scene(
        image=apply_haze_and_noise(rng, surface, depth),
        masks=np.stack(masks),
        labels=np.array(labels, np.int64),
        full_areas=np.array([np.count_nonzero(alpha >= 0.5) for alpha in covers], np.int64),
        depth=depth,
    )


def _place_shapes(
    rng: np.random.Generator, image_size: int, easy: bool, wanted: Sequence[int] | None, perspective: bool
) -> tuple[list[int], list[float], list[np.ndarray], list[np.ndarray]]:
    """Sample classes, depths, coverages (S, S) and visible masks (S, S) of the visible shapes, nearest first."""
    labels, depths, covers, masks = [], [], [], []
    hidden = np.zeros((image_size, image_size), bool)
    count = rng.integers(1, _EASY_SHAPES if easy else MAX_SHAPES, endpoint=True) if wanted is None else len(wanted)
    distances = np.sort(rng.uniform(*_SHAPE_DEPTHS, count))
    drawn = [_draw_placement(rng, image_size, easy, None if wanted is None else wanted[i]) for i in range(count)]
    if perspective:
        drawn.sort(key=lambda shape: -shape[1]["diameter"])
        distances = [_SHAPE_SIZE * image_size / shape["diameter"] for _, shape in drawn]
    for (label, shape), meters in zip(drawn, distances, strict=True):
        alpha = rasterize(label, **shape, image_size=image_size)
        mask = alpha >= 0.5
        visible = mask & ~hidden
        pixels = np.count_nonzero(visible)
        if pixels < MIN_VISIBLE_PIXELS or easy and pixels <= _EASY_VISIBLE * np.count_nonzero(mask):
            continue
        hidden |= mask
        labels.append(label)
        depths.append(meters)
        covers.append(alpha)
        masks.append(visible)
    return labels, depths, covers, masks


def _draw_placement(
    rng: np.random.Generator, image_size: int, easy: bool, wanted: int | None
) -> tuple[int, dict[str, Any]]:
    """Sample class, center, diameter and angle of a shape; the class may be given."""
    label = rng.choice(len(CLASSES), p=None if easy else _LONG_TAIL) if wanted is None else wanted
    smallest = _EASY_DIAMETER * image_size if easy else _MIN_DIAMETER
    # Uniform in the square root: small shapes outnumber large ones, yet large ones occlude enough of them.
    diameter = rng.uniform(smallest**0.5, (_MAX_DIAMETER * image_size) ** 0.5) ** 2
    # Large shapes may extend slightly beyond the image; the nearest shape always has at least 20 visible pixels.
    margin = max(0.35 * diameter, _MIN_DIAMETER / 2)
    center = tuple(rng.uniform(margin, image_size - margin, 2))
    return int(label), dict(center=center, diameter=diameter, angle=rng.uniform(0, 2 * np.pi))


def _slanted_plane(rng: np.random.Generator, image_size: int) -> np.ndarray:
    """Compute the depth (S, S) float32 of a plane slanted in a random direction."""
    near, far = _BACKGROUND_DEPTHS
    angle = rng.uniform(0, 2 * np.pi)
    slope_x, slope_y = np.cos(angle), np.sin(angle)
    axis = np.linspace(-0.5, 0.5, image_size)
    height = slope_x * axis + slope_y * axis[:, None]
    share = 0.5 + height / (abs(slope_x) + abs(slope_y))
    return (near + (far - near) * share).astype(np.float32)


def draw_background(rng: np.random.Generator, image_size: int) -> np.ndarray:
    """Draw colors (3, S, S) float32 from 0 to 1: an unsaturated texture over a gradient."""
    first = draw_color(rng, saturation=(0.1, 0.6), value=(0.1, 0.9))
    second = draw_color(rng, saturation=(0.1, 0.6), value=(0.1, 0.9))
    # A gradient towards the second color under the texture, so that even a plain background varies.
    coarse = rng.random((3, 3), np.float32)
    share = cv2.resize(coarse, (image_size, image_size), interpolation=cv2.INTER_LINEAR)
    texture = draw_texture(rng, rng.choice(TEXTURES), (first, (first + second) / 2), image_size)
    return texture + 0.5 * share * (second[:, None, None] - texture)


def draw_surface(rng: np.random.Generator, image_size: int) -> np.ndarray:
    """Draw colors (3, S, S) float32 from 0 to 1 of a shape that fills the canvas."""
    # Saturated, so that paleness is a cue for depth.
    first = draw_color(rng, saturation=(0.75, 1.0), value=(0.6, 1.0))
    second = draw_color(rng, saturation=(0.75, 1.0), value=(0.35, 1.0))
    return draw_texture(rng, rng.choice(TEXTURES), (first, (first + second) / 2), image_size)


def apply_haze_and_noise(rng: np.random.Generator, surface: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Add haze and sensor noise and round: (3, S, S) float32 colors to (S, S, 3) uint8."""
    clarity = np.exp(-depth / np.float32(_HAZE_DISTANCE))
    seen = _HAZE_COLOR + clarity * (surface - _HAZE_COLOR)
    seen += np.float32(_SENSOR_NOISE) * rng.standard_normal(seen.shape, np.float32)
    levels = np.clip(np.rint(255 * seen), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(1, 2, 0))  # (S, S, 3)


MAX_NAMED = 4  # shapes that a caption names
CAPTIONS = 5  # per image
TOLD = dict(size=0.4, color=0.5, place=0.4, relation=0.2)
_WHOLE = 0.5  # of a shape's pixels in a crop; a crop that shows less shows a part
_MIN_PART = 0.04  # of a crop's pixels
_SMALL, _LARGE = 0.25, 0.42  # longer side of the bounding box, of the view's side
_GRAY = 0.12  # saturation
# First hue of each color, in degrees; red begins at 345.
_HUES = ((15, "orange"), (45, "yellow"), (70, "green"), (165, "cyan"), (200, "blue"), (255, "purple"), (290, "pink"))
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")
_OPENINGS = ("", "", "a photo of ", "a picture of ", "an image of ", "there is ")
_RELATIONS = (("to the left of", "to the right of"), ("above", "below"))  # along x, along y


@dataclass(frozen=True)
class NamedShape:
    """What a caption tells of a shape, in a view of the scene.

    Attributes:
        form: a name of ``CLASSES``.
        color, size: words.
        center: x and y of the visible pixels' mean, from 0 to 1 across the view.
        part: whether less than half of its visible pixels are in the view.
    """

    form: str
    color: str
    size: str
    center: tuple[float, float]
    part: bool = False

    @property
    def place(self) -> str:
        """The part of the view, in a grid of 3 x 3."""
        column, row = (min(int(3 * value), 2) for value in self.center)
        words = f"{_ROWS[row]} {_COLUMNS[column]}".strip()
        return f"at the {words}" if words else "in the center"


def name_shapes(
    image: np.ndarray, masks: np.ndarray, labels: Sequence[int], pixels: Sequence[int] | None = None
) -> list[NamedShape]:
    """Find words for the largest shapes of a scene or of a crop of it.

    Args:
        image: RGB, (H, W, 3) uint8.
        masks: visible pixels of N shapes, (N, H, W) bool.
        labels: their classes, indices into ``CLASSES``.
        pixels: numbers of visible pixels of the shapes in the whole scene, if this is a crop.

    Returns:
        up to 4 shapes, largest first. In a crop, shapes of which half or more is seen; if there is none, the largest
        part that covers 4 % of it or more.
    """
    height, width = image.shape[:2]
    seen = masks.reshape(len(masks), -1).sum(axis=1)
    whole = [i for i in range(len(masks)) if seen[i] and (pixels is None or seen[i] >= _WHOLE * pixels[i])]
    chosen = sorted(whole, key=lambda i: -seen[i])[:MAX_NAMED]
    if not chosen and len(masks) and seen.max() >= _MIN_PART * height * width:
        chosen = [int(seen.argmax())]
    named = []
    for i in chosen:
        rows, columns = np.nonzero(masks[i])
        extent = max(np.ptp(rows) + 1, np.ptp(columns) + 1) / max(height, width)
        named.append(
            NamedShape(
                form=CLASSES[labels[i]],
                color=color_name(image[rows, columns].mean(axis=0)),
                size="small" if extent < _SMALL else "large" if extent >= _LARGE else "medium",
                center=((columns.mean() + 0.5) / width, (rows.mean() + 0.5) / height),
                part=i not in whole,
            )
        )
    return named


def color_name(rgb: Sequence[float]) -> str:
    """Word for a color, RGB from 0 to 255: red, orange, yellow, green, cyan, blue, purple, pink or gray."""
    red, green, blue = (float(value) for value in rgb)
    high, low = max(red, green, blue), min(red, green, blue)
    if high - low <= _GRAY * high:
        return "gray"
    if high == red:
        hue = (green - blue) / (high - low) % 6
    else:
        hue = (blue - red) / (high - low) + 2 if high == green else (red - green) / (high - low) + 4
    degrees = 60 * hue
    if degrees >= 345:
        return "red"
    return next((name for first, name in reversed(_HUES) if degrees >= first), "red")


def draw_caption(rng: np.random.Generator, shapes: Sequence[NamedShape], told: Mapping[str, float] = TOLD) -> str:
    """Draw a caption of a view.

    Some captions tell the relation of two shapes; the others name the forms of all, with a random choice among size,
    color and place, in random order.

    Args:
        rng: source of all randomness.
        shapes: see :func:`name_shapes`.
        told: probabilities with which a caption tells the sizes, the colors, the places, or a relation.
    """
    opening, stop = rng.choice(_OPENINGS), rng.choice(["", "."])
    if not shapes:
        return f"{opening}an empty background{stop}"
    size, color, place = rng.random(3) < [told[name] for name in ("size", "color", "place")]
    if len(shapes) > 1 and rng.random() < told["relation"]:
        first, second = (shapes[i] for i in rng.permutation(len(shapes))[:2])
        offsets = np.subtract(first.center, second.center)
        axis = int(np.abs(offsets).argmax())
        relation = _RELATIONS[axis][int(offsets[axis] > 0)]
        return f"{opening}{_phrase(first, size, color)} {relation} {_phrase(second, size, color)}{stop}"
    if len(shapes) > 1 and rng.random() < 0.1:
        shapes = shapes[:1]  # the largest
    phrases = [_phrase(shapes[i], size, color, place) for i in rng.permutation(len(shapes))]
    listed = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    return f"{opening}{listed}{stop}"


def _phrase(shape: NamedShape, size: bool, color: bool, place: bool = False) -> str:
    words = [*([shape.size] if size else []), *([shape.color] if color else []), shape.form]
    article = "an" if words[0][0] in "aeiou" else "a"
    return f"{'part of ' if shape.part else ''}{article} {' '.join(words)}{f' {shape.place}' if place else ''}"

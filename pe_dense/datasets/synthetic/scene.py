"""Generate a scene: an image of textured shapes with its masks, labels and depth."""

from dataclasses import dataclass

import cv2
import numpy as np

from pe_dense.datasets.synthetic.shapes import CLASSES, TEXTURES, draw_color, draw_texture, rasterize
from pe_dense.utils.errors import InputError

MAX_SHAPES = 8
MIN_VISIBLE_PIXELS = 12
MIN_IMAGE_SIZE = 64

# Each class is this much rarer than the one before it.
_CLASS_DECAY = 0.8
_CLASS_SHARES = _CLASS_DECAY ** np.arange(len(CLASSES)) / np.sum(_CLASS_DECAY ** np.arange(len(CLASSES)))
_MIN_DIAMETER = 8.0  # pixels
_MAX_DIAMETER = 0.6  # of the image's side
_SHAPE_DEPTHS = (1.0, 8.0)  # meters
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


def draw_scene(rng: np.random.Generator, image_size: int = 128) -> Scene:
    """Draw 1 to 8 shapes over a textured, slanted background.

    The outline is the only cue to the class: position, size, rotation, color, texture and depth are sampled
    independently of it. Class frequencies are long-tailed in the order of ``CLASSES``. Nearer shapes occlude farther
    ones, and surfaces fade into haze with depth. Shapes with fewer than 12 visible pixels are removed from the image,
    too.

    Args:
        rng: random generator; the same state generates the same scene.
        image_size: side S of the image, in pixels.

    Raises:
        ValueError: if ``image_size`` is below 64.
    """
    if image_size < MIN_IMAGE_SIZE:
        raise InputError(f"image_size is {image_size}, must be at least {MIN_IMAGE_SIZE}")
    labels, depths, covers, masks = _place_shapes(rng, image_size)
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
    rng: np.random.Generator, image_size: int
) -> tuple[list[int], list[float], list[np.ndarray], list[np.ndarray]]:
    """Sample classes, depths, coverages (S, S) and visible masks (S, S) of the visible shapes, nearest first."""
    labels, depths, covers, masks = [], [], [], []
    hidden = np.zeros((image_size, image_size), bool)
    count = rng.integers(1, MAX_SHAPES, endpoint=True)
    for meters in np.sort(rng.uniform(*_SHAPE_DEPTHS, count)):
        label = int(rng.choice(len(CLASSES), p=_CLASS_SHARES))
        # Uniform in the square root: small shapes outnumber large ones, yet large ones occlude enough of them.
        diameter = rng.uniform(_MIN_DIAMETER**0.5, (_MAX_DIAMETER * image_size) ** 0.5) ** 2
        # Large shapes may extend slightly beyond the image; the nearest shape always has at least 20 visible pixels.
        margin = max(0.35 * diameter, _MIN_DIAMETER / 2)
        alpha = rasterize(
            label,
            center=tuple(rng.uniform(margin, image_size - margin, 2)),
            diameter=diameter,
            angle=rng.uniform(0, 2 * np.pi),
            image_size=image_size,
        )
        mask = alpha >= 0.5
        visible = mask & ~hidden
        if np.count_nonzero(visible) < MIN_VISIBLE_PIXELS:
            continue
        hidden |= mask
        labels.append(label)
        depths.append(meters)
        covers.append(alpha)
        masks.append(visible)
    return labels, depths, covers, masks


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

"""Generate a video of shapes that move, rotate and occlude each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pe_dense.datasets.synthetic.scene import MIN_IMAGE_SIZE, apply_haze_and_noise, draw_background, draw_surface
from pe_dense.datasets.synthetic.shapes import CLASSES, rasterize
from pe_dense.utils.errors import InputError

MIN_SHAPES, MAX_SHAPES = 2, 4
MIN_VISIBLE_PIXELS = 60  # of each shape in the first frame of 128 px

_DIAMETERS = (0.2, 0.42)  # of the image's side
_SPEEDS = (0.015, 0.04)  # of the image's side, per frame
_SPINS = (0.02, 0.12)  # radians per frame
_SWELLING = (0.85, 1.15)  # amplitude of the diameter
_DEPTHS = (1.0, 7.0)  # meters
_BACKGROUND_DEPTH = 9.0  # meters
_BACKGROUND_SIZE = 1.25  # of the image's side: range of the camera's motion
_SHADOW = 0.6


@dataclass(frozen=True)
class _Shape:
    """A shape and its trajectory; lengths in pixels."""

    label: int
    diameter: float
    meters: float
    texture: np.ndarray  # (S, S, 3) float32, centered on the shape
    start: np.ndarray  # x, y
    velocity: np.ndarray
    angle: float
    spin: float
    phase: float  # of the change of diameter

    def at(self, frame: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Compute coverage (S, S) and colors (3, S, S) in a frame."""
        low, high = _SWELLING
        swell = (low + high) / 2 + (high - low) / 2 * np.sin(self.phase + 0.2 * frame)
        margin = 0.3 * self.diameter
        center = margin + _reflect(self.start - margin + frame * self.velocity, size - 2 * margin)
        angle = self.angle + frame * self.spin
        alpha = rasterize(
            self.label, center=tuple(center), diameter=swell * self.diameter, angle=angle, image_size=size
        )
        turn = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), -np.degrees(angle), swell)
        turn[:, 2] += center - size / 2
        return alpha, cv2.warpAffine(self.texture, turn, (size, size), borderMode=cv2.BORDER_REFLECT).transpose(2, 0, 1)


def _reflect(position: np.ndarray, length: float) -> np.ndarray:
    """Fold unbounded positions into 0..length by reflection at both ends."""
    return length - np.abs(position % (2 * length) - length)


def draw_video(
    rng: np.random.Generator, *, num_frames: int, image_size: int = 128, same_surface: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw a video of 2 to 4 shapes that move, rotate, change in size and occlude each other, with a moving camera.

    All shapes are visible in the first frame. A shape's texture moves with it; each frame has independent noise.

    Args:
        rng: random generator; the same state generates the same video.
        num_frames: number of frames T.
        image_size: side S of the frames, in pixels.
        same_surface: whether all shapes of a video have the same colors and texture, and different forms.

    Yields:
        for each frame the image, RGB (S, S, 3) uint8, and the visible shapes, (S, S) uint8: 0 for the background,
        1, 2, ... for shapes, nearest first.

    Raises:
        ValueError: if ``image_size`` is below 64.
    """
    if image_size < MIN_IMAGE_SIZE:
        raise InputError(f"image_size is {image_size}, must be at least {MIN_IMAGE_SIZE}")
    shapes = _draw_shapes(rng, image_size, same_surface)
    wide = round(_BACKGROUND_SIZE * image_size)
    background = np.ascontiguousarray(draw_background(rng, wide).transpose(1, 2, 0))
    ends = rng.uniform(0, wide - image_size, (2, 2))  # x, y of the image's corner on the background, first and last
    for frame in range(num_frames):
        x, y = ends[0] + (ends[1] - ends[0]) * frame / max(num_frames - 1, 1)
        shift = np.float32([[1, 0, -x], [0, 1, -y]])
        surface = cv2.warpAffine(background, shift, (image_size, image_size)).transpose(2, 0, 1).copy()
        depth = np.full((image_size, image_size), _BACKGROUND_DEPTH, np.float32)
        labels = np.zeros((image_size, image_size), np.uint8)
        for number, shape in reversed(list(enumerate(shapes, start=1))):
            alpha, colors = shape.at(frame, image_size)
            surface *= 1 - _SHADOW * cv2.GaussianBlur(alpha, (0, 0), image_size / 64)
            surface += alpha * (colors - surface)
            depth[alpha >= 0.5] = shape.meters
            labels[alpha >= 0.5] = number
        yield apply_haze_and_noise(rng, surface, depth), labels


def _draw_shapes(rng: np.random.Generator, size: int, same_surface: bool) -> list[_Shape]:
    """Sample shapes, nearest first, that are sufficiently visible in the first frame."""
    shapes: list[_Shape] = []
    hidden = np.zeros((size, size), bool)
    count = rng.integers(MIN_SHAPES, MAX_SHAPES, endpoint=True)
    depths = np.sort(rng.uniform(*_DEPTHS, count))
    forms = list(range(len(CLASSES)))
    while len(shapes) < count:
        shape = _draw_shape(rng, size, depths[len(shapes)], forms)
        mask = shape.at(0, size)[0] >= 0.5
        # A shape that is occluded too much is drawn again.
        if np.count_nonzero(mask & ~hidden) >= MIN_VISIBLE_PIXELS * (size / 128) ** 2:
            if same_surface:
                forms.remove(shape.label)
                shape = replace(shape, texture=shapes[0].texture if shapes else shape.texture)
            shapes.append(shape)
            hidden |= mask
    return shapes


def _draw_shape(rng: np.random.Generator, size: int, meters: float, forms: list[int]) -> _Shape:
    heading, speed = rng.uniform(0, 2 * np.pi), size * rng.uniform(*_SPEEDS)
    diameter = size * rng.uniform(*_DIAMETERS)
    return _Shape(
        label=forms[rng.integers(len(forms))],
        diameter=diameter,
        meters=float(meters),
        texture=np.ascontiguousarray(draw_surface(rng, size).transpose(1, 2, 0)),
        start=rng.uniform(0.3 * diameter, size - 0.3 * diameter, 2),
        velocity=speed * np.array([np.cos(heading), np.sin(heading)]),
        angle=rng.uniform(0, 2 * np.pi),
        spin=rng.choice([-1, 1]) * rng.uniform(*_SPINS),
        phase=rng.uniform(0, 2 * np.pi),
    )

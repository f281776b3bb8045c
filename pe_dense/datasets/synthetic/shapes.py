"""Outlines, rasterization and textures of the eight shapes."""

import cv2
import numpy as np

from pe_dense.utils.errors import InputError

_SUPERSAMPLING = 4
# cv2 takes polygon corners as fixed-point numbers with this many fractional bits.
_FRACTION_BITS = 6


def _arc(radius: float, start: float, stop: float, center: float = 0.0) -> np.ndarray:
    """Return points (64, 2) on a circle around ``(center, 0)``, with angles in units of pi."""
    angles = np.pi * np.linspace(start, stop, 64)
    return np.stack([center + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _spikes(count: int, inner: float) -> np.ndarray:
    """Return an outline whose radius alternates between 1 and ``inner``."""
    angles = np.pi * np.arange(2 * count) / count
    radii = np.where(np.arange(2 * count) % 2 == 0, 1.0, inner)
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _regular(count: int) -> np.ndarray:
    return _spikes(count, inner=1.0)[::2]


def _cross(half_width: float) -> np.ndarray:
    long, short = np.sqrt(1 - half_width**2), half_width
    arm = np.array([(short, -short), (long, -short), (long, short)])
    quarter_turn = np.array([(0, 1), (-1, 0)])
    return np.concatenate([arm @ np.linalg.matrix_power(quarter_turn, k) for k in range(4)])


def _crescent(bite_radius: float, bite_center: float) -> np.ndarray:
    """Return the outline of the unit disc without a disc around ``(bite_center, 0)``."""
    x = (1 - bite_radius**2 + bite_center**2) / (2 * bite_center)
    tip = np.arccos(x) / np.pi
    bite_tip = np.arctan2(np.sqrt(1 - x**2), x - bite_center) / np.pi
    return np.concatenate([_arc(1.0, tip, 2 - tip), _arc(bite_radius, 2 - bite_tip, bite_tip, center=bite_center)])


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t)
    outline = np.stack([x, y - (y.max() + y.min()) / 2], axis=1)
    return outline / np.linalg.norm(outline, axis=1).max()


# Most frequent class first. Each shape is a tuple of closed outlines (points, 2) inside the unit disc; a point is
# inside the shape if it is inside an odd number of them.
_OUTLINES = {
    "circle": (_arc(1.0, 0, 2),),
    "square": (_regular(4),),
    "triangle": (_regular(3),),
    "star": (_spikes(5, inner=0.42),),
    "ring": (_arc(1.0, 0, 2), _arc(0.55, 0, 2)),
    "cross": (_cross(half_width=0.28),),
    "crescent": (_crescent(bite_radius=0.85, bite_center=0.55),),
    "heart": (_heart(),),
}
CLASSES = tuple(_OUTLINES)
# Colors of the classes in pictures, then that of the background.
PALETTE = [
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (188, 189, 34),
    (40, 40, 40),
]


def rasterize(label: int, *, center: tuple[float, float], diameter: float, angle: float, image_size: int) -> np.ndarray:
    """Rasterize one shape on a square canvas.

    Args:
        label: index into :data:`CLASSES`.
        center: x and y of the center of the circumscribed circle, in pixels; pixel (0, 0) covers [0, 1) x [0, 1).
        diameter: diameter of the circumscribed circle, in pixels.
        angle: rotation about the center, in radians.
        image_size: side S of the canvas, in pixels.

    Returns:
        Fraction of each pixel that the shape covers, (S, S) float32 from 0 to 1.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([(cos, sin), (-sin, cos)])
    canvas = np.zeros((image_size * _SUPERSAMPLING,) * 2, np.uint8)
    contours = []
    for outline in _OUTLINES[CLASSES[label]]:
        points = np.asarray(center) + diameter / 2 * outline @ rotation
        # cv2 places integer coordinates at pixel centers, half a subpixel from our corners.
        fine = points * _SUPERSAMPLING - 0.5
        contours.append(np.round(fine * (1 << _FRACTION_BITS)).astype(np.int32))
    cv2.fillPoly(canvas, contours, color=255, shift=_FRACTION_BITS)
    covered = cv2.resize(canvas, (image_size, image_size), interpolation=cv2.INTER_AREA)
    return covered.astype(np.float32) / 255


TEXTURES = ("plain", "stripes", "checker", "dots", "noise")


def draw_color(rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    """Sample an RGB color (3,), float32 from 0 to 1, of any hue and with HSV saturation and value in the ranges."""
    hue = rng.uniform(0, 6)
    chroma = rng.uniform(*saturation)
    # Piecewise linear HSV to RGB: each channel is a trapezoid over the hue circle.
    ramp = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return (rng.uniform(*value) * (1 - chroma + chroma * ramp)).astype(np.float32)


def draw_texture(
    rng: np.random.Generator, kind: str, colors: tuple[np.ndarray, np.ndarray], image_size: int
) -> np.ndarray:
    """Fill a square canvas with a texture of random direction, period and phase.

    Args:
        rng: random number generator.
        kind: one of :data:`TEXTURES`.
        colors: two RGB colors (3,), between which the texture changes.
        image_size: side S of the canvas, in pixels.

    Returns:
        RGB canvas, channels first: (3, S, S) float32.

    Raises:
        ValueError: if ``kind`` is not a texture.
    """
    if kind not in TEXTURES:
        raise InputError(f"unknown texture {kind!r}, choose one of {TEXTURES}")
    first, second = (color[:, None, None] for color in colors)
    return first + _pattern(rng, kind, image_size) * (second - first)  # (3, S, S)


def _pattern(rng: np.random.Generator, kind: str, size: int) -> np.ndarray:
    """Compute the fraction of the second color in each pixel, (S, S) float32."""
    if kind == "plain":
        return np.zeros((size, size), np.float32)
    if kind == "noise":
        cells = int(rng.integers(size // 10, size // 5))
        coarse = rng.random((cells, cells), np.float32)
        return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.05, 0.1) * size
    phase_u, phase_v = rng.uniform(0, 2 * np.pi, 2)
    axis = np.arange(size, dtype=np.float32) * np.float32(2 * np.pi / period)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u = np.sin(axis * cos + (axis * sin + np.float32(phase_u))[:, None])
    if kind == "stripes":
        return _soft_step(u, period)
    v = np.sin(axis * -sin + (axis * cos + np.float32(phase_v))[:, None])
    return _soft_step(u * v if kind == "checker" else u + v - 0.6, period)


def _soft_step(wave: np.ndarray, period: float) -> np.ndarray:
    """Convert a wave with slope ``2 pi / period`` at zero to a step about one pixel wide."""
    return np.clip(wave * np.float32(period / (2 * np.pi)) + np.float32(0.5), 0, 1)

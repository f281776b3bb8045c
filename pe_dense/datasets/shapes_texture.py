"""Colours and textures of the `shapes` data, drawn without a look at the class."""

import cv2
import numpy as np

TEXTURES = ("plain", "stripes", "checker", "dots", "noise")


def draw_colour(rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    """An RGB colour (3,), float32 from 0 to 1, of any hue and with HSV saturation and value in the ranges."""
    hue = rng.uniform(0, 6)
    chroma = rng.uniform(*saturation)
    # Piecewise linear HSV to RGB: each channel is a trapezoid over the hue circle.
    ramp = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return (rng.uniform(*value) * (1 - chroma + chroma * ramp)).astype(np.float32)


def draw_texture(
    rng: np.random.Generator, kind: str, colours: tuple[np.ndarray, np.ndarray], image_size: int
) -> np.ndarray:
    """Fill a square canvas with a texture of random direction, period and phase.

    Args:
        rng: source of all randomness.
        kind: one of :data:`TEXTURES`.
        colours: two RGB colours (3,), between which the texture changes.
        image_size: side S of the canvas, in pixels.

    Returns:
        RGB canvas, channels first: (3, S, S) float32.

    Raises:
        ValueError: if ``kind`` is not a texture.
    """
    if kind not in TEXTURES:
        raise ValueError(f"unknown texture {kind!r}, choose one of {TEXTURES}")
    first, second = (colour[:, None, None] for colour in colours)
    return first + _pattern(rng, kind, image_size) * (second - first)  # (3, S, S)


def _pattern(rng: np.random.Generator, kind: str, size: int) -> np.ndarray:
    """Share of the second colour in each pixel, (S, S) float32."""
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
    """Step at zero, about a pixel wide, from a wave whose slope there is about ``2 pi / period``."""
    return np.clip(wave * np.float32(period / (2 * np.pi)) + np.float32(0.5), 0, 1)

"""Figures of the benchmark's tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pe_dense.evaluation.scores import IGNORED
from pe_dense.tracking.results_hook import overlay, strip
from pe_dense.tracking.tracker import read_frame
from pe_dense.utils.image import read_image, write_png
from pe_dense.visualization.drawing import draw_sheet, enlarge, fit_image, heat_colors, join, overlay_heatmap

_SIDE = 240  # px
_FOUND, _TRUE = (230, 159, 0), (0, 158, 115)


def write(path: Path, figure: Image.Image) -> None:
    """Write a figure as PNG."""
    write_png(path, np.asarray(figure))


def label_figure(
    shown: Sequence[tuple[Path, np.ndarray, np.ndarray]], palette: Sequence, title: str, *, cluster_colors: bool = False
) -> Image.Image:
    """Draw images, label maps and predictions in rows.

    Args:
        shown: image path, true labels (H, W) and predicted labels (H, W).
        palette: color of each class.
        title: of the column of predictions.
        cluster_colors: color the predictions by cluster numbers instead of classes.
    """
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(palette)] = palette
    colors[IGNORED] = 255
    numbered = np.random.default_rng(0).integers(40, 256, (int(max((p.max() for *_, p in shown), default=0)) + 1, 3))
    rows = []
    for number, (path, truth, predicted) in enumerate(shown):
        image = read_image(path).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        drawn = numbered.astype(np.uint8)[predicted] if cluster_colors else colors[predicted]
        maps = [enlarge(pixels, image.size) for pixels in (colors[truth], drawn)]
        titles = ("image", "classes", title) if number == 0 else ("",) * 3
        rows.append(list(zip(titles, (image, *maps), strict=True)))
    return draw_sheet(rows)


def depth_figure(shown: Sequence[tuple[Path | Image.Image, np.ndarray, np.ndarray]]) -> Image.Image:
    """Draw images, depth and predicted depth in rows; both maps of a row share one scale.

    Args:
        shown: image or its path, true depth (H, W) and predicted depth (H, W).
    """
    rows = []
    for source, truth, predicted in shown:
        image = source if isinstance(source, Image.Image) else read_image(source)
        image = image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        low, high = float(truth.min()), max(float(truth.max()), float(truth.min()) + 1e-6)
        maps = [enlarge(heat_colors((values - low) / (high - low)), image.size) for values in (truth, predicted)]
        titles = ("" if rows else title for title in ("image", "depth", "predicted"))
        rows.append(list(zip(titles, (image, *maps), strict=True)))
    return draw_sheet(rows)


def match_figure(shown: Sequence[tuple]) -> Image.Image:
    """Draw pairs of images with keypoints and where they were found.

    Args:
        shown: pixels (S, S, 3) of both images, source points (V, 2), and matches.
    """
    rows = []
    for source, target, points, found in shown:
        images = [fit_image(Image.fromarray(pixels), _SIDE) for pixels in (source, target)]
        scale = _SIDE / len(source)
        ends = [[tuple(point) for point in (scale * places).tolist()] for places in (points, found.predicted)]
        right = sum(error < 0.1 for error in found.error.tolist())
        rows.append([(f"{right} of {len(points)} right", join(*images, list(zip(*ends, strict=True))))])
    return draw_sheet(rows)


def box_figure(shown: Sequence[tuple], best: int) -> Image.Image:
    """Draw the discovered box (orange) and the true ones (green), and the scores of the patches.

    Args:
        shown: pixels (H, W, 3), true boxes, found boxes by setting and image, scores (h, w) by setting, number of the
            image.
        best: setting to draw.
    """
    rows = []
    for pixels, boxes, found, scores, index in shown:
        image = Image.fromarray(pixels)
        draw = ImageDraw.Draw(image)
        for kind, color in [(box, _TRUE) for box in boxes] + [(found[best][index], _FOUND)]:
            draw.rectangle(tuple(float(value) for value in kind), outline=color, width=max(2, image.width // 100))
        chosen = scores[best]
        low, high = chosen.min(), chosen.max()
        heat = overlay_heatmap(Image.fromarray(pixels), (chosen - low) / max(high - low, 1e-12))
        rows.append([("" if rows else name, fit_image(p, _SIDE)) for name, p in (("boxes", image), ("scores", heat))])
    return draw_sheet(rows)


def video_figure(shown: Sequence[tuple[Sequence[str], np.ndarray]], frames: int = 4) -> Image.Image:
    """Draw the tracked objects of videos over some frames, one row per video.

    Args:
        shown: paths of the frames, and labels (T, H, W) uint8.
        frames: number of frames.
    """
    rows = []
    for paths, labels in shown:
        chosen = np.linspace(0, len(paths) - 1, frames).round().astype(int)
        drawn = [
            np.asarray(fit_image(Image.fromarray(overlay(read_frame(paths[i]), labels[i])), _SIDE)) for i in chosen
        ]
        rows.append([("", Image.fromarray(strip(drawn, frames)))])
    return draw_sheet(rows)


def point_figure(shown: Sequence[tuple]) -> Image.Image:
    """Draw pairs of views with matched surface points.

    Args:
        shown: pixels (S, S, 3) of both views, positions (M, 2) from 0 to 1 in both, and whether each match is right.
    """
    rows = []
    for first, second, *places, right in shown:
        images = [fit_image(Image.fromarray(pixels), _SIDE) for pixels in (first, second)]
        ends = [[tuple(point) for point in (_SIDE * place).tolist()] for place in places]
        title = f"{int(right.sum())} of {len(right)} right"
        rows.append([(title, join(*images, list(zip(*ends, strict=True))))])
    return draw_sheet(rows)

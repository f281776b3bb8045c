"""Draw typed results on their images; importing this module enables ``Result.draw``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from pe_dense.ops.panopticapi import id2rgb
from pe_dense.runtime.masks import CroppedMasks
from pe_dense.runtime.results import DRAWING, DepthMap, Detections, LabelMap, Result, Segments
from pe_dense.runtime.thresholds import Thresholds
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import read_image
from pe_dense.visualization.drawing import DrawnObject, add_colorbar, add_legend, draw_objects, hstack, id_borders

DRAWN_SIDE = 4096  # px, longer side of the pictures of images in tiles
_LARGE = 89_000_000  # pixels; larger images are reduced before drawing
_OPACITY = 0.6
_DEPTH_COLORS = "magma_r"  # near pixels are bright
_PERCENTILES = (1, 99)  # percentiles of depth at the ends of the color map


def pixels_of(result: Result, image: np.ndarray | None = None) -> np.ndarray:
    """Return the pixels (H, W, 3) uint8, RGB, that a result is drawn on; those of very large images are reduced.

    Args:
        result: whose source is read if no image is given.
        image: the image.

    Raises:
        InputError: if the source is a frame of a video whose pixels were not kept, or there is no source.
        FileNotFoundError, ImageError: if the file cannot be read.
    """
    source = result.source
    if image is not None:
        return np.asarray(image)
    pixels = None if source is None else source.pixels
    if pixels is None and (source is None or source.path is None or source.frame is not None):
        raise InputError("the pixels of this image were not kept: pass them, draw(image)")
    if np.prod(result.image_size or (0, 0)) > _LARGE:
        from pe_dense.tiling import open_windows  # which imports the data sets and their libraries

        reader = open_windows(source.path if pixels is None else pixels)
        pixels, _ = reader.overview(DRAWN_SIDE)
        reader.close()
    return np.asarray(read_image(source.path)) if pixels is None else pixels


def blend(pixels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Lay colors over the image in gray, which preserves them: (H, W, 3) uint8 each."""
    gray = pixels.mean(axis=2, keepdims=True, dtype=np.float32)
    return np.rint(gray + np.float32(_OPACITY) * (colors - gray)).astype(np.uint8)


def draw_detections(
    result: Detections, image: np.ndarray | None = None, *, score_thr: Thresholds = 0.0, copy: bool = True
) -> np.ndarray:
    """Draw boxes, masks, and class names with scores and numbers of tracked objects; see :meth:`Result.draw`.

    Args:
        result: the objects.
        image: (H, W, 3) uint8, RGB.
        score_thr: lowest score, see :meth:`Detections.above`.
        copy: do not draw on ``image`` itself.
    """
    pixels = pixels_of(result, image)
    found = reduced(result, pixels).above(score_thr)
    palette = colors_of(result)
    crops = found.crops()
    objects = []
    for index in range(len(found)):
        mask, corner = (None, (0, 0)) if crops is None else crops.crop(index)
        label = int(found.labels[index])
        name = found.names[index] if found.names else str(label)
        number = f" {found.ids[index]}" if found.ids is not None and found.ids[index] else ""
        objects.append(
            DrawnObject(
                box=tuple(map(float, found.boxes[index])),
                text=f"{name}{number}: {100 * found.scores[index]:.1f}",
                color=palette[label],
                mask=mask,
                corner=corner,
            )
        )
    return draw_objects(pixels, objects, copy=copy)


def draw_label_map(result: LabelMap, image: np.ndarray | None = None, *, legend: bool = True) -> np.ndarray:
    """Draw classes over the image in gray, next to the image, with a legend; see :meth:`Result.draw`."""
    pixels = pixels_of(result, image)
    result = reduced(result, pixels)
    labels = np.asarray(result.labels)
    palette = np.asarray(colors_of(result, int(labels.max(initial=0)) + 1), np.uint8)
    names = result.classes or tuple(map(str, range(len(palette))))
    entries = [(names[label], tuple(map(int, palette[label]))) for label in result.shares()]
    picture = hstack(pixels, blend(pixels, palette[labels]))
    return np.asarray(add_legend(picture, entries) if legend else picture)


def draw_segments(result: Segments, image: np.ndarray | None = None, *, legend: bool = True) -> np.ndarray:
    """Draw segments over the image in gray, next to the image, with a legend; see :meth:`Result.draw`."""
    pixels, ids = pixels_of(result, image), np.asarray(result.ids)
    colors = id2rgb(ids)  # ids are made from colors
    drawn = blend(pixels, colors)
    drawn[ids == 0] = pixels[ids == 0]
    drawn[id_borders(ids)] = 255
    palette = colors_of(result)
    present = dict.fromkeys(segment.label for segment in sorted(result.segments, key=lambda one: -one.area))
    picture = hstack(pixels, drawn)
    entries = [(result.classes[label], palette[label]) for label in present]
    return np.asarray(add_legend(picture, entries) if entries and legend else picture)


def draw_depth(result: DepthMap, image: np.ndarray | None = None) -> np.ndarray:
    """Draw color-coded depth next to the image, with a color bar; see :meth:`Result.draw`."""
    import matplotlib

    pixels = pixels_of(result, image)
    depth = np.asarray(reduced(result, pixels).depth)
    colors = np.rint(255 * matplotlib.colormaps[_DEPTH_COLORS](np.linspace(0, 1, 256))[:, :3]).astype(np.uint8)
    near, far = np.percentile(depth, _PERCENTILES)
    share = np.clip((depth - near) / max(far - near, 1e-6), 0, 1)
    drawn = colors[np.rint(255 * share).astype(int)]
    picture: Image.Image = add_colorbar(hstack(pixels, drawn), colors, f"{near:.2f} m", f"{far:.2f} m")
    return np.asarray(picture)


def reduced(result: Result, pixels: np.ndarray) -> Result:
    """Reduce the result of an image to the size of its reduced pixels, for drawing.

    Args:
        result: of an image of any size.
        pixels: (h, w, 3), the image, or the image reduced by a whole number.

    Returns:
        the result, if the pixels are those of the image; maps are reduced without interpolation.
    """
    step = -(-max(result.image_size or pixels.shape[:2]) // max(pixels.shape[:2]))
    if step == 1:
        return result
    if isinstance(result, LabelMap):
        return replace(result, labels=np.asarray(result.labels[::step, ::step]))
    if not isinstance(result, Detections):
        return replace(result, depth=np.asarray(result.depth[::step, ::step]))
    masks = result.crops()
    if masks is not None:
        crops, corners = [], []
        for crop, (row, column) in masks.crops():
            crops.append(crop[-row % step :: step, -column % step :: step])
            corners.append((-(-row // step), -(-column // step)))
        masks = CroppedMasks(crops, corners, pixels.shape[:2])
    return replace(result, boxes=result.boxes / step, masks=masks, size=pixels.shape[:2])


def colors_of(result: Detections | LabelMap | Segments, count: int = 0) -> Sequence[tuple[int, int, int]]:
    """Return the colors of the classes by label: the result's palette, or distinct colors that depend on the label."""
    if result.palette is not None:
        return result.palette
    from mmdet.visualization.palette import get_palette

    highest = int(result.labels.max(initial=0)) + 1 if isinstance(result, Detections) else count
    return [tuple(map(int, color)) for color in get_palette("random", max(len(result.classes), highest, 1))]


DRAWING.update({Detections: draw_detections, LabelMap: draw_label_map, Segments: draw_segments, DepthMap: draw_depth})

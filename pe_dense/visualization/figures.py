"""Figures of ``tools/visualize_features.py``: one function per mode, which writes image and video files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from pe_dense.backbones.base import Backbone, resolve_indices
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import write_png
from pe_dense.utils.video import frame_rate, read_video, write_video
from pe_dense.visualization.colors import feature_rgb
from pe_dense.visualization.drawing import (
    TITLE_WIDTH,
    Cell,
    add_colorbar,
    add_legend,
    draw_sheet,
    enlarge,
    fit_image,
    heat_colors,
    in_rows,
    join,
    mark,
    overlay_heatmap,
)
from pe_dense.visualization.features import FigureInputs, center_of, iter_intermediates, prepare, token_at
from pe_dense.visualization.pca import Basis, fit_basis
from pe_dense.visualization.similarity import cosine_similarity, mutual_matches, nearest_tokens

LARGE, SMALL = 480, 240  # px, longer side of an image in sheets of few and of many images
WORD_SIDE = 320  # px, in sheets of words
FEW = 4
ANIMATION_FPS = 4
CLASS_TOKEN = "cls"
NO_WORD = "none"  # in legends, for pixels whose best score is below the threshold
_LABEL_OPACITY = 0.6


def draw_pca(inputs: FigureInputs, blocks: Sequence[int], out: Path, *, per_image: bool = False) -> Iterator[Path]:
    """Draw the principal components of features as colors, one sheet per image; several blocks also as an animation.

    Args:
        inputs: backbone, images and optional masks.
        blocks: block numbers.
        out: an existing folder; its files are replaced.
        per_image: fit the components to each image separately instead of to all images together.

    Yields:
        the path of each file after it is written.
    """
    count = len(inputs.images)
    groups = [[number] for number in range(count)] if per_image else [list(range(count))]
    tiles: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(count)]
    before: list[list[Tensor] | None] = [None] * len(groups)
    for block, maps in inputs.iter_intermediates(blocks):
        masks = inputs.token_masks(maps) or [None] * count
        for place, group in enumerate(groups):
            chosen, chosen_masks = [maps[i] for i in group], [masks[i] for i in group]
            basis = fit_basis(chosen, chosen_masks)
            if before[place] is not None:  # otherwise colors could be inverted from block to block
                basis = basis.align_signs([basis.scores(x) for x in chosen], before[place])
            before[place] = [basis.scores(x) for x in chosen]
            for number, rgb in zip(group, _colored(chosen, chosen_masks, basis), strict=True):
                tiles[number].append((block, rgb))
    for number, name in enumerate(inputs.names):
        side = LARGE if len(tiles[number]) <= FEW else SMALL
        image = fit_image(inputs.images[number], side)
        cells = [(name, image)] + [(f"layer {block}", enlarge(rgb, image.size)) for block, rgb in tiles[number]]
        yield save_sheet(tile_sheet(inputs, cells), out / f"{name}.png")
        if len(tiles[number]) > 1:
            image = fit_image(inputs.images[number], LARGE)
            frames = (
                np.asarray(tile_sheet(inputs, [(name, image), (f"layer {block}", enlarge(rgb, image.size))]))
                for block, rgb in tiles[number]
            )
            write_video(out / f"{name}_layers.mp4", frames, ANIMATION_FPS, overwrite=True)
            yield out / f"{name}_layers.mp4"


def draw_correspondence(inputs: FigureInputs, blocks: Sequence[int], out: Path, *, count: int = 8) -> Iterator[Path]:
    """Draw mutual nearest neighbors of the first image and each other image, above their PCA colors of a common basis.

    Args:
        inputs, blocks, out: see :func:`draw_pca`.
        count: maximum number of matches.

    Yields:
        the path of each file after it is written.

    Raises:
        ValueError: if there is only one image.
    """
    if len(inputs.images) < 2:
        raise InputError("--mode correspondence requires at least two images")
    images = [fit_image(image, LARGE) for image in inputs.images]
    for block, maps in inputs.iter_intermediates(blocks):
        masks = inputs.token_masks(maps)
        rgb = _colored(maps, masks or [None] * len(maps), fit_basis(maps, masks))
        colors = [enlarge(x, image.size) for x, image in zip(rgb, images, strict=True)]
        for other in range(1, len(maps)):
            chosen = None if masks is None else (masks[0][0], masks[other][0])
            matches = mutual_matches(maps[0][0], maps[other][0], count, masks=chosen)
            pairs = [
                (
                    center_of(match.source, images[0].size, inputs.grid(0)),
                    center_of(match.target, images[other].size, inputs.grid(other)),
                )
                for match in matches
            ]
            cosines = [match.similarity for match in matches]
            suffix = f", cosine {min(cosines):.2f} to {max(cosines):.2f}" if cosines else ""
            names = f"{inputs.names[0]} and {inputs.names[other]}"
            rows = [
                [(f"{names}, layer {block}{suffix}", join(images[0], images[other], pairs))],
                [("principal components of all images together", join(colors[0], colors[other], []))],
            ]
            path = out / f"{inputs.names[0]}_{inputs.names[other]}_layer{block}.png"
            yield save_sheet(draw_sheet(rows, _heading(inputs)), path)


def draw_similarity(
    inputs: FigureInputs, blocks: Sequence[int], out: Path, *, point: tuple[float, float] | None = None, count: int = 3
) -> Iterator[Path]:
    """Draw the cosine similarity of all tokens to one token of the first image; the nearest tokens are marked.

    Args:
        inputs, blocks, out: see :func:`draw_pca`.
        point: x and y in pixels of the first image; its center by default.
        count: number of marked tokens in each other image.

    Yields:
        the path of the file after it is written.
    """
    side = LARGE if len(inputs.images) <= FEW else SMALL
    images = [fit_image(image, side) for image in inputs.images]
    token = _token(inputs, 0, point)
    place = center_of(token, images[0].size, inputs.grid(0))
    rows = [[(name, image) for name, image in zip(inputs.names, images, strict=True)]]
    rows[0][0] = (inputs.names[0], mark(images[0], [place]))
    for block, maps in inputs.iter_intermediates(blocks):
        query = maps[0][0, :, token[0], token[1]]
        similar = [cosine_similarity(x, query)[0].cpu() for x in maps]
        low, high = min(float(x.min()) for x in similar), max(float(x.max()) for x in similar)
        row = []
        for number, (image, values) in enumerate(zip(images, similar, strict=True)):
            found = [token] if number == 0 else nearest_tokens(values, count)
            places = [center_of(token, image.size, inputs.grid(number)) for token in found]
            heat = overlay_heatmap(image, ((values - low) / max(high - low, 1e-6)).numpy())
            title = f"layer {block}: cosine {float(values.min()):.2f} to {float(values.max()):.2f}"
            row.append((title, mark(heat, places, numbered=number > 0)))
        rows.append(row)
    yield save_sheet(draw_sheet(rows, _heading(inputs)), out / f"{inputs.names[0]}_similarity.png")


def draw_attention(
    inputs: FigureInputs, blocks: Sequence[int], out: Path, *, point: tuple[float, float] | str | None = None
) -> Iterator[Path]:
    """Draw attention maps of a token: the mean over heads for each block, and for a single block also each head.

    Args:
        inputs, blocks, out: see :func:`draw_pca`.
        point: x and y in pixels of the first image, scaled to the size of the other images; the center by default, or
            'cls' for the class token.

    Yields:
        the path of the file of each image after it is written.
    """
    blocks = sorted(set(resolve_indices("layers", blocks, inputs.tower.num_layers)))
    tokens = [None if point == CLASS_TOKEN else _token(inputs, i, point) for i in range(len(inputs.images))]
    for number, name in enumerate(inputs.names):
        maps = inputs.tower.attention_maps(inputs.input(number), tokens[number], blocks)
        inputs.advance(blocks[-1] + 1)
        heads = next(iter(maps.values())).shape[1]
        pictures = [(f"layer {block}, mean of {heads} heads", x[0].mean(dim=0)) for block, x in maps.items()]
        if len(blocks) == 1:
            pictures += [(f"head {head}", x) for head, x in enumerate(maps[blocks[0]][0])]
        image = fit_image(inputs.images[number], LARGE if len(pictures) <= FEW else SMALL)
        cells: list[Cell] = [(name, image)]
        cells += [(title, overlay_heatmap(image, _to_peak(values))) for title, values in pictures]
        if tokens[number] is not None:
            place = center_of(tokens[number], image.size, inputs.grid(number))
            cells = [(title, mark(picture, [place])) for title, picture in cells]
        yield save_sheet(tile_sheet(inputs, cells), out / f"{name}_attention.png")


def draw_words(
    inputs: FigureInputs, words: Sequence[str], maps: Callable[[Tensor, tuple[int, int]], WordMaps], out: Path
) -> Iterator[Path]:
    """Draw the similarity of each image to words, and the word that each pixel is most similar to.

    Args:
        inputs: see :func:`draw_pca`.
        words: K names.
        maps: computes the maps of an input (1, 3, H, W) with labels of a size (height, width).
        out: see :func:`draw_pca`.

    Yields:
        the path of the file of each image after it is written.
    """
    for number, name in enumerate(inputs.names):
        image = fit_image(inputs.images[number], WORD_SIDE)
        found = maps(inputs.input(number), image.size[::-1])
        inputs.advance(inputs.tower.num_layers)
        yield save_sheet(word_sheet(name, image, words, found, _heading(inputs)), out / f"{name}_words.png")


@dataclass(frozen=True)
class WordMaps:
    """Similarity of an image to K words.

    Attributes:
        cosines: (K, h, w) of the patches.
        labels: (H, W), the most similar word of each pixel of a picture, K where there is none.
    """

    cosines: np.ndarray
    labels: np.ndarray

    @property
    def shares(self) -> list[float]:
        """The share of pixels of each word, and of those without one."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.cosines) + 1)
        return (counts / self.labels.size).tolist()


def word_colors(count: int) -> list[tuple[int, int, int]]:
    """Colors of words: distinct ones for up to 18, which then repeat. Gray is left for pixels without a word."""
    from matplotlib import colormaps

    table = (np.array(colormaps["tab20"].colors) * 255).round().astype(int)
    table = [*table[:14:2], *table[16::2], *table[1:14:2], *table[17::2]]  # saturated ones first, no grays
    return [tuple(map(int, table[number % len(table)])) for number in range(count)]


def word_heat(image: Image.Image, cosines: np.ndarray) -> tuple[Image.Image, float, float]:
    """Overlay an image with the cosines (h, w) of a word, scaled to their range; return the range as well."""
    low, high = float(cosines.min()), float(cosines.max())
    return overlay_heatmap(image, (cosines - low) / max(high - low, 1e-6)), low, high


def word_labels(image: Image.Image, maps: WordMaps) -> Image.Image:
    """Blend a gray image with the colors of the labels (H, W), which have its size."""
    return blend_labels(image, maps.labels, word_colors(len(maps.cosines)))


def blend_labels(image: Image.Image, labels: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> Image.Image:
    """Blend a gray image with the colors of labels (H, W) of its size; labels without a color leave it gray."""
    palette = np.array([*colors, (0, 0, 0)], np.float32)
    gray = np.asarray(image.convert("L"), np.float32)[..., None]
    opacity = np.where(labels == len(colors), 0, _LABEL_OPACITY)[..., None]
    return Image.fromarray(np.rint(gray + opacity * (palette[labels] - gray)).astype(np.uint8))


def word_sheet(name: str, image: Image.Image, words: Sequence[str], maps: WordMaps, heading: str = "") -> Image.Image:
    """Arrange an image, the heat map of each word with its color bar, and the label map with its legend.

    Args:
        name: title of the image.
        image: at the size of the labels.
        words: K names.
        maps: of the image.
        heading: line above.
    """
    bar = heat_colors(np.linspace(0, 1, 256))
    cells: list[Cell] = [(name, _at_least(image, TITLE_WIDTH))]
    for word, cosines in zip(words, maps.cosines, strict=True):
        heat, low, high = word_heat(image, cosines)
        cells.append((word, add_colorbar(_at_least(heat, TITLE_WIDTH), bar, f"{low:.3f}", f"{high:.3f}")))
    *shares, left = (f"{share:.0%}" if share >= 0.005 or not share else "< 1%" for share in maps.shares)
    colors = word_colors(len(words))
    entries = [(f"{word} {share}", color) for word, share, color in zip(words, shares, colors, strict=True)]
    if left != "0%":
        entries.append((f"{NO_WORD} {left}", (128, 128, 128)))
    cells.append(("most similar word", add_legend(_at_least(word_labels(image, maps), TITLE_WIDTH), entries)))
    return _arranged(cells, image.size, heading)


def _at_least(picture: Image.Image, width: int) -> Image.Image:
    """Center a narrow picture on white, so that a legend fits below."""
    if picture.width >= width:
        return picture
    canvas = Image.new("RGB", (width, picture.height), "white")
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    return canvas


def _colored(maps: Sequence[Tensor], masks: Sequence[Tensor | None], basis: Basis) -> list[np.ndarray]:
    """Return the PCA colors (H, W, 3) of maps (1, C, H, W)."""
    return [feature_rgb(x, mask, basis=basis)[0] for x, mask in zip(maps, masks, strict=True)]


def _token(inputs: FigureInputs, number: int, point: tuple[float, float] | None) -> tuple[int, int]:
    """Find the token of an image at a point given in pixels of the first image."""
    first = inputs.images[0].size
    if point is None:
        point = first[0] / 2, first[1] / 2
    token_at(point, first, inputs.grid(0))  # raises an error for a point outside
    size = inputs.images[number].size
    return token_at((point[0] * size[0] / first[0], point[1] * size[1] / first[1]), size, inputs.grid(number))


def _to_peak(weights: Tensor) -> np.ndarray:
    """Scale attention by its 99.5 % quantile, because few tokens have much larger weights than the others."""
    values = weights.cpu().numpy()
    return values / max(float(np.quantile(values, 0.995)), 1e-12)


def _heading(inputs: FigureInputs) -> str:
    return f"{inputs.title}, input {inputs.long_side} px, patch size {inputs.patch} px"


def tile_sheet(inputs: FigureInputs, cells: Sequence[Cell]) -> Image.Image:
    """Arrange titled pictures of one image under a heading with backbone and input size."""
    return _arranged(cells, cells[0][1].size, _heading(inputs))


def _arranged(cells: Sequence[Cell], size: tuple[int, int], heading: str) -> Image.Image:
    """Arrange few cells in one row, and more in rows with the aspect ratio of a screen."""
    width, height = size
    columns = len(cells) if len(cells) <= FEW + 1 else math.ceil(math.sqrt(len(cells) * 1.6 * height / width))
    return draw_sheet(in_rows(cells, min(columns, len(cells))), heading)


def save_sheet(sheet: Image.Image, path: Path) -> Path:
    """Write a sheet as PNG and return its path."""
    write_png(path, sheet)
    return path


SAMPLES = 16  # frames that the components are fitted to
SIDE = 480  # px


def count_frames(path: Path) -> int:
    """Count the frames of a video.

    Raises:
        FileNotFoundError, ValueError: as :func:`~pe_dense.utils.video.read_video`.
    """
    return sum(1 for _ in read_video(path))


def draw_feature_video(
    tower: Backbone, video: Path, out: Path, *, block: int, long_side: int, frames: int, advance: Callable[[int], None]
) -> Path:
    """Write a video with each frame and the PCA colors of its features side by side.

    The principal components are fitted once, to 16 frames spaced evenly over the video.

    Args:
        tower: the backbone.
        video: path of the video.
        out: path of the MP4 file to write; replaced if it exists.
        block: block number.
        long_side: see :class:`~pe_dense.visualization.features.FigureInputs`.
        frames: number of frames of the video, see :func:`count_frames`.
        advance: called with the number of frames that were run.
    """

    def features(frame: np.ndarray):
        advance(1)
        ((_, maps),) = iter_intermediates(tower, prepare(Image.fromarray(frame), tower, long_side), [block])
        return maps

    chosen = sample_numbers(frames)
    basis = fit_basis([features(frame) for number, frame in enumerate(read_video(video)) if number in chosen])

    def sheets():
        for frame in read_video(video):
            image = fit_image(Image.fromarray(frame), SIDE)
            colors = enlarge(feature_rgb(features(frame), basis=basis)[0], image.size)
            yield np.asarray(draw_sheet([[("", image), ("", colors)]]))

    write_video(out, sheets(), frame_rate(video), overwrite=True)
    return out


def sample_numbers(frames: int) -> set[int]:
    """Return the numbers of at most 16 evenly spaced frames."""
    return {round(number) for number in np.linspace(0, frames - 1, min(frames, SAMPLES))}

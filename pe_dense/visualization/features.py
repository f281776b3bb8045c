"""Run a backbone on images and return the feature maps of its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from pe_dense.backbones.base import Backbone, resolve_indices
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import decode
from pe_dense.visualization.pca import fit_basis

_ASPECT_TOLERANCE = 0.05


def foreground_masks(features: Sequence[Tensor]) -> list[Tensor]:
    """Segment the foreground by the first principal component of all images together.

    The threshold is that of Otsu's method (1979). The foreground is the side that covers a smaller fraction of the
    image borders than of the whole images.

    Args:
        features: maps (N, C, H, W), which may differ in N, H and W.

    Returns:
        a mask (N, H, W) bool for each map.
    """
    from skimage.filters import threshold_otsu

    basis = fit_basis(features)
    scores = [basis.scores(x)[:, 0] for x in features]
    values = torch.cat([score.flatten() for score in scores]).cpu().numpy()
    threshold = float(threshold_otsu(values))
    masks = [score > threshold for score in scores]
    return masks if _share_of_border(masks) <= np.mean(values > threshold) else [~mask for mask in masks]


def _share_of_border(masks: Sequence[Tensor]) -> float:
    """Compute the fraction of border tokens that are inside of the masks."""
    borders = [mask[:, border_mask(*mask.shape[1:]).to(mask.device)].flatten() for mask in masks]
    return float(torch.cat(borders).float().mean())


def border_mask(height: int, width: int) -> Tensor:
    """Return a mask (H, W) bool of the border tokens of a grid."""
    outside = torch.ones(height, width, dtype=torch.bool)
    outside[1:-1, 1:-1] = False
    return outside


def read_mask(path: str | Path, image_size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Read a mask: foreground is white, or any value except 0 in files of class or object numbers.

    Args:
        path: an image file of any size, with the aspect ratio of its image.
        image_size: (width, height) of its image.
        grid: rows and columns of tokens.

    Returns:
        (1, H, W) bool, true for tokens of which at least half is in the mask.

    Raises:
        FileNotFoundError, ValueError: if the file cannot be read, has another aspect ratio than the image, or covers no
            token.
    """
    image = decode(path)
    if image.mode in ("LA", "RGBA"):  # a cut-out: transparent pixels are background
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    stretch = image.width / image.height / (image_size[0] / image_size[1])
    if abs(stretch - 1) > _ASPECT_TOLERANCE:
        raise InputError(
            f"mask {path} is {image.width} x {image.height} px, but its image is {image_size[0]} x "
            f"{image_size[1]} px: a mask may have another size, but must have the same aspect ratio"
        )
    colorful = image.mode not in ("1", "L", "P", "I", "I;16", "F")
    values = np.asarray(image.convert("L") if colorful else image)
    # The foreground of gray masks is white; files of class or object numbers have small values, or a palette.
    inside = values > (127 if image.mode != "P" and values.max() == 255 else 0)
    covered = Image.fromarray(inside.astype(np.float32)).resize((grid[1], grid[0]), Image.Resampling.BOX)
    mask = torch.from_numpy(np.array(covered) >= 0.5)[None]
    if not mask.any():
        raise InputError(f"mask {path} covers none of the {grid[0]} x {grid[1]} tokens: it is empty or too small")
    return mask


def input_size(size: tuple[int, int], long_side: int, patch: int) -> tuple[int, int]:
    """Compute the input size of an image for a backbone: multiples of the patch size near the image's aspect ratio.

    Args:
        size: (width, height) of the image.
        long_side: approximate length of the longer side in pixels.
        patch: patch size in pixels.

    Returns:
        (width, height), multiples of ``patch``, at least one patch each.

    Raises:
        ValueError: if ``long_side`` is shorter than a patch.
    """
    if long_side < patch:
        raise InputError(f"size {long_side} is shorter than a patch of {patch} px")
    scale = long_side / max(size)
    width, height = (max(round(side * scale / patch), 1) * patch for side in size)
    return width, height


def prepare(image: Image.Image, tower: Backbone, long_side: int) -> Tensor:
    """Resize and normalize an image to a backbone's input (1, 3, H, W), on its device; see :func:`input_size`."""
    size = input_size(image.size, long_side, tower.patch_size)
    pixels = to_input(image.resize(size, Image.Resampling.BICUBIC), tower.mean, tower.std)
    return pixels.to(next(tower.parameters()).device)


@torch.no_grad()
def iter_intermediates(tower: Backbone, images: Tensor, blocks: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Yield the feature map of each block as soon as it is computed, without storing earlier ones.

    Args:
        tower: the backbone.
        images: (B, 3, H, W).
        blocks: block numbers from 0, negatives from the end.

    Yields:
        (block number from 0, (B, C, H / p, W / p) float32) in ascending order of the blocks.
    """
    for block, features in tower.iter_intermediates(images, resolve_indices("blocks", blocks, tower.num_layers)):
        yield block, features.float()


def token_at(point: tuple[float, float], size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """Find the token at a point of an image.

    Args:
        point: x and y in pixels of the image.
        size: (width, height) of the image.
        grid: rows and columns of tokens.

    Returns:
        (row, column).

    Raises:
        ValueError: if the point is outside of the image.
    """
    if not all(0 <= place < side for place, side in zip(point, size, strict=True)):
        raise InputError(f"point {point[0]:g},{point[1]:g} lies outside of the image of {size[0]} x {size[1]} px")
    return int(point[1] * grid[0] / size[1]), int(point[0] * grid[1] / size[0])


def center_of(token: tuple[int, int], size: tuple[int, int], grid: tuple[int, int]) -> tuple[float, float]:
    """Return the center (x, y) of a token (row, column) in an image of size (width, height)."""
    return (token[1] + 0.5) * size[0] / grid[1], (token[0] + 0.5) * size[1] / grid[0]


AUTO_MASK = "auto"


def _nothing(_blocks: int) -> None:
    pass


@dataclass
class FigureInputs:
    """Inputs of the figures of every mode: backbone, images, input size and masks.

    Attributes:
        tower: the backbone.
        title: name of the backbone in figures.
        names: distinct names of the images.
        images: the images, RGB.
        long_side: longer side in pixels that images are resized to; larger sizes result in finer maps.
        masks: 'auto' for foreground by the first principal component, one mask file per image, or None.
        advance: called with the number of blocks that were run for an image.

    Raises:
        ValueError: if the number or aspect ratio of the masks does not match the images, or the size is below the patch
            size.
        FileNotFoundError: if a mask does not exist.
    """

    tower: Backbone
    title: str
    names: Sequence[str]
    images: Sequence[Image.Image]
    long_side: int
    masks: str | Sequence[Path] | None = None
    advance: Callable[[int], None] = _nothing

    def __post_init__(self):
        for image in self.images:
            input_size(image.size, self.long_side, self.patch)
        if self.masks not in (None, AUTO_MASK):
            if len(self.masks) != len(self.images):
                raise InputError(f"{len(self.masks)} masks for {len(self.images)} images: give one for each, or 'auto'")
            self._masks = [
                read_mask(path, image.size, self.grid(number))
                for number, (path, image) in enumerate(zip(self.masks, self.images, strict=True))
            ]

    @property
    def patch(self) -> int:
        return self.tower.patch_size

    def grid(self, number: int) -> tuple[int, int]:
        """Return the token grid (rows, columns) of an image."""
        width, height = input_size(self.images[number].size, self.long_side, self.patch)
        return height // self.patch, width // self.patch

    def input(self, number: int) -> Tensor:
        """Return an image as the input (1, 3, H, W) of the backbone."""
        return prepare(self.images[number], self.tower, self.long_side)

    def iter_intermediates(self, blocks: Sequence[int]) -> Iterator[tuple[int, list[Tensor]]]:
        """Run all images through the backbone block by block, so that only the maps of one block are in memory.

        Args:
            blocks: block numbers from 0, negatives from the end.

        Yields:
            (block number from 0, a map (1, C, H, W) for each image) in ascending order of the blocks.
        """
        streams = [self._watched(number, blocks) for number in range(len(self.images))]
        for maps in zip(*streams, strict=True):
            yield maps[0][0], [features for _, features in maps]

    def _watched(self, number: int, blocks: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        wanted = resolve_indices("layers", blocks, self.tower.num_layers)
        for block, features in iter_intermediates(self.tower, self.input(number), range(max(wanted) + 1)):
            self.advance(1)
            if block in wanted:
                yield block, features

    def token_masks(self, maps: Sequence[Tensor]) -> list[Tensor] | None:
        """Return the token masks (1, H, W) bool of the images according to ``masks``, or None if it is None."""
        if self.masks is None:
            return None
        if self.masks == AUTO_MASK:
            return foreground_masks(maps)
        return self._masks


def crop_square(image: Image.Image, size: int) -> Image.Image:
    """Resize and center-crop an image to ``size`` x ``size`` px."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def to_input(image: Image.Image, mean: Sequence[float] = (127.5,) * 3, std: Sequence[float] = (127.5,) * 3) -> Tensor:
    """Normalize an RGB image.

    Args:
        image: the image.
        mean, std: per channel, for values between 0 and 255; those of PE by default.

    Returns:
        (1, 3, H, W).
    """
    pixels = torch.from_numpy(np.array(image, dtype=np.float32))
    return ((pixels - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)[None]

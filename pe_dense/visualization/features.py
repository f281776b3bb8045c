"""A tower and the photos that it looks at."""

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
    """Tell foreground from background by the first principal component of all images together.

    The component is cut where Otsu's method (1979) puts the threshold; foreground is the side that has the smaller
    share of the pictures' borders than of their inside.

    Args:
        features: maps (N, C, H, W), which may differ in N, H and W.

    Returns:
        a mask (N, H, W) bool for each.
    """
    from skimage.filters import threshold_otsu

    basis = fit_basis(features)
    scores = [basis.scores(x)[:, 0] for x in features]
    values = torch.cat([score.flatten() for score in scores]).cpu().numpy()
    threshold = float(threshold_otsu(values))
    masks = [score > threshold for score in scores]
    return masks if _share_of_border(masks) <= np.mean(values > threshold) else [~mask for mask in masks]


def _share_of_border(masks: Sequence[Tensor]) -> float:
    """How much of the outermost tokens is in the masks."""
    borders = [mask[:, border_mask(*mask.shape[1:]).to(mask.device)].flatten() for mask in masks]
    return float(torch.cat(borders).float().mean())


def border_mask(height: int, width: int) -> Tensor:
    """The outermost tokens of a grid (H, W), bool."""
    outside = torch.ones(height, width, dtype=torch.bool)
    outside[1:-1, 1:-1] = False
    return outside


def read_mask(path: str | Path, photo_size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Read a mask: what to look at is white, or any number but 0 in files of class or object numbers.

    Args:
        path: an image file, as large as its photo or smaller or larger in proportion.
        photo_size: (width, height) of its photo.
        grid: rows and columns of tokens.

    Returns:
        (1, H, W) bool, true for tokens of which at least half is in the mask.

    Raises:
        FileNotFoundError, ValueError: if it can't be read, has other proportions than the photo, or covers no token.
    """
    image = decode(path)
    if image.mode in ("LA", "RGBA"):  # a cut-out: what is transparent is outside
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    stretch = image.width / image.height / (photo_size[0] / photo_size[1])
    if abs(stretch - 1) > _ASPECT_TOLERANCE:
        raise InputError(
            f"mask {path} is {image.width} x {image.height} px and its photo {photo_size[0]} x {photo_size[1]}: "
            "a mask may have another size, but not other proportions"
        )
    colorful = image.mode not in ("1", "L", "P", "I", "I;16", "F")
    values = np.asarray(image.convert("L") if colorful else image)
    # Gray masks are white where they are set; files of class or object numbers have small ones, or a palette.
    inside = values > (127 if image.mode != "P" and values.max() == 255 else 0)
    covered = Image.fromarray(inside.astype(np.float32)).resize((grid[1], grid[0]), Image.Resampling.BOX)
    mask = torch.from_numpy(np.array(covered) >= 0.5)[None]
    if not mask.any():
        raise InputError(f"mask {path} covers no token of the {grid[0]} x {grid[1]}: it is empty, or too small a spot")
    return mask


def input_size(size: tuple[int, int], long_side: int, patch: int) -> tuple[int, int]:
    """Size at which a photo goes through a tower: whole patches, at least one, as near to its proportions as that gets.

    Args:
        size: (width, height) of the photo.
        long_side: about how long its longer side should be, in pixels.
        patch: side of a patch in pixels.

    Returns:
        (width, height), multiples of ``patch``.

    Raises:
        ValueError: if ``long_side`` is shorter than a patch.
    """
    if long_side < patch:
        raise InputError(f"size {long_side} is shorter than a patch of {patch} px")
    scale = long_side / max(size)
    width, height = (max(round(side * scale / patch), 1) * patch for side in size)
    return width, height


def prepare(photo: Image.Image, tower: Backbone, long_side: int) -> Tensor:
    """A photo as a backbone's input (1, 3, H, W), on the backbone's device; see :func:`input_size`."""
    size = input_size(photo.size, long_side, tower.patch_size)
    pixels = to_input(photo.resize(size, Image.Resampling.BICUBIC), tower.mean, tower.std)
    return pixels.to(next(tower.parameters()).device)


@torch.no_grad()
def iter_maps(tower: Backbone, images: Tensor, blocks: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Give each block's map as soon as it is there, and keep none.

    Args:
        tower: a tower.
        images: (B, 3, H, W).
        blocks: block numbers from 0, negatives from the end.

    Yields:
        (block number from 0, (B, C, H / p, W / p) float32) in rising order of the blocks.
    """
    for block, features in tower.iter_intermediates(images, resolve_indices("blocks", blocks, tower.num_layers)):
        yield block, features.float()


def token_at(point: tuple[float, float], size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """The token under a point of a photo.

    Args:
        point: x and y in pixels of the photo.
        size: (width, height) of the photo.
        grid: rows and columns of tokens.

    Returns:
        (row, column).

    Raises:
        ValueError: if the point lies outside.
    """
    if not all(0 <= place < side for place, side in zip(point, size, strict=True)):
        raise InputError(f"point {point[0]:g},{point[1]:g} lies outside of the photo of {size[0]} x {size[1]} px")
    return int(point[1] * grid[0] / size[1]), int(point[0] * grid[1] / size[0])


def center_of(token: tuple[int, int], size: tuple[int, int], grid: tuple[int, int]) -> tuple[float, float]:
    """The middle (x, y) of a token (row, column) in a photo of size (width, height)."""
    return (token[1] + 0.5) * size[0] / grid[1], (token[0] + 0.5) * size[1] / grid[0]


AUTO_MASK = "auto"


def _nothing(_blocks: int) -> None:
    pass


@dataclass
class FigureInputs:
    """What the modes of drawing have in common.

    Attributes:
        tower: a tower.
        title: what pictures call it.
        names: of the photos, distinct.
        photos: RGB.
        long_side: longer side in pixels at which photos go through the tower; the larger, the finer the maps.
        masks: 'auto' for foreground by the first principal component, a mask file per photo, or None.
        advance: called with the number of blocks that were run for a photo.

    Raises:
        ValueError: for masks that are not one per photo or do not fit, or a size below the tower's patch.
        FileNotFoundError: for a mask that does not exist.
    """

    tower: Backbone
    title: str
    names: Sequence[str]
    photos: Sequence[Image.Image]
    long_side: int
    masks: str | Sequence[Path] | None = None
    advance: Callable[[int], None] = _nothing

    def __post_init__(self):
        for photo in self.photos:
            input_size(photo.size, self.long_side, self.patch)
        if self.masks not in (None, AUTO_MASK):
            if len(self.masks) != len(self.photos):
                raise InputError(f"{len(self.masks)} masks for {len(self.photos)} photos: give one for each, or 'auto'")
            self._masks = [
                read_mask(path, photo.size, self.grid(number))
                for number, (path, photo) in enumerate(zip(self.masks, self.photos, strict=True))
            ]

    @property
    def patch(self) -> int:
        return self.tower.patch_size

    def grid(self, number: int) -> tuple[int, int]:
        """Rows and columns of a photo's tokens."""
        width, height = input_size(self.photos[number].size, self.long_side, self.patch)
        return height // self.patch, width // self.patch

    def input(self, number: int) -> Tensor:
        """A photo (1, 3, H, W) as the tower takes it."""
        return prepare(self.photos[number], self.tower, self.long_side)

    def iter_maps(self, blocks: Sequence[int]) -> Iterator[tuple[int, list[Tensor]]]:
        """Run all photos through the tower in step, so that only one block's maps are in memory.

        Args:
            blocks: block numbers from 0, negatives from the end.

        Yields:
            (block number from 0, a map (1, C, H, W) for each photo) in rising order of the blocks.
        """
        streams = [self._watched(number, blocks) for number in range(len(self.photos))]
        for taps in zip(*streams, strict=True):
            yield taps[0][0], [features for _, features in taps]

    def _watched(self, number: int, blocks: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        wanted = resolve_indices("layers", blocks, self.tower.num_layers)
        for block, features in iter_maps(self.tower, self.input(number), range(max(wanted) + 1)):
            self.advance(1)
            if block in wanted:
                yield block, features

    def token_masks(self, maps: Sequence[Tensor]) -> list[Tensor] | None:
        """Masks (1, H, W) bool of the photos' tokens, as ``masks`` says; None without."""
        if self.masks is None:
            return None
        if self.masks == AUTO_MASK:
            return foreground_masks(maps)
        return self._masks


def crop_square(photo: Image.Image, size: int) -> Image.Image:
    """The middle of a photo, ``size`` px wide and high."""
    return ImageOps.fit(photo, (size, size), Image.Resampling.BICUBIC)


def to_input(photo: Image.Image, mean: Sequence[float] = (127.5,) * 3, std: Sequence[float] = (127.5,) * 3) -> Tensor:
    """Normalize an RGB photo.

    Args:
        photo: RGB.
        mean, std: of values between 0 and 255, per channel; PE's by default.

    Returns:
        (1, 3, H, W).
    """
    pixels = torch.from_numpy(np.array(photo, dtype=np.float32))
    return ((pixels - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)[None]

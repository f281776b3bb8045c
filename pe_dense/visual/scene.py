"""A tower and the photos that it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from pe_dense.tower import PETower
from pe_dense.tower.tower import block_numbers
from pe_dense.visual.maps import input_size, iter_maps, prepare
from pe_dense.visual.masks import foreground_masks, read_mask

AUTO_MASK = "auto"


def _nothing(_blocks: int) -> None:
    pass


@dataclass
class Scene:
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

    tower: PETower
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
                raise ValueError(f"{len(self.masks)} masks for {len(self.photos)} photos: give one for each, or 'auto'")
            self._masks = [
                read_mask(path, photo.size, self.grid(number))
                for number, (path, photo) in enumerate(zip(self.masks, self.photos, strict=True))
            ]

    @property
    def patch(self) -> int:
        return self.tower.variant.patch_size

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
        wanted = block_numbers("layers", blocks, self.tower.num_layers)
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

"""One backbone on the data of one task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch.utils.data import DataLoader

from pe_dense.backbones import Backbone
from pe_dense.evaluation import pictures
from pe_dense.evaluation.features import FeatureExtractor, Items
from pe_dense.utils.errors import InputError

if TYPE_CHECKING:
    from pe_dense.language.clip import CLIP

SHOWN_IMAGES = 4  # of a figure


@dataclass
class TaskRun:
    """One backbone on the data of one task.

    Attributes:
        tower: the backbone, in evaluation mode, on its device.
        root: folder of the task's data.
        layers: block numbers to evaluate, from 0.
        weights: :func:`~pe_dense.evaluation.features.fingerprint` of the backbone, if it is already known.
        batch_size, workers, cache: see :class:`~pe_dense.evaluation.features.FeatureExtractor`.
        memory_limit: bytes that features of several layers may take together; layers are evaluated in groups that fit.
        figure: path of the figure to write; None for none.
        text: loads image and text tower, for tasks with words; None if the backbone has no text tower.
    """

    tower: Backbone
    root: Path
    layers: tuple[int, ...]
    weights: str | None = None
    batch_size: int = 8
    workers: int = 0
    cache: Path | None = None
    memory_limit: float = 4e9
    figure: Path | None = None
    text: Callable[[], CLIP] | None = None

    @property
    def device(self) -> torch.device:
        return next(self.tower.parameters()).device

    def open_text(self) -> CLIP:
        """Load image and text tower.

        Raises:
            InputError: if the backbone has no text tower.
        """
        if self.text is None:
            raise InputError("the backbone has no text tower")
        return self.text()

    def read(self, items: Sequence, load: Callable[[Any], Any]) -> Iterator[Any]:
        """Yield ``load(item)`` for each item in order, read by the workers."""
        yield from DataLoader(Items(items, load), batch_size=None, num_workers=self.workers)

    def extractor(self, *, norm: bool) -> FeatureExtractor:
        """Create a feature extractor of all layers."""
        return FeatureExtractor(
            self.tower,
            self.layers,
            norm=norm,
            batch_size=self.batch_size,
            workers=self.workers,
            cache=self.cache,
            weights=self.weights,
        )

    def groups(self, bytes_per_layer: float) -> Iterator[tuple[int, ...]]:
        """Split the layers into groups that fit into the memory limit, each of at least one layer."""
        size = max(int(self.memory_limit // max(bytes_per_layer, 1)), 1)
        for start in range(0, len(self.layers), size):
            yield self.layers[start : start + size]

    def save(self, figure: Image.Image) -> None:
        """Write the figure, if one is wanted."""
        if self.figure is not None:
            self.figure.parent.mkdir(parents=True, exist_ok=True)
            pictures.write(self.figure, figure)

"""Features of the blocks of a backbone for lists of images, with an optional cache on disk."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pe_dense.backbones import Backbone
from pe_dense.backbones.base import resolve_indices
from pe_dense.distillation.feature_cache import FeatureCache, digest
from pe_dense.utils.errors import InputError


class FeatureExtractor:
    """Compute feature maps of several blocks of a backbone for a list of images.

    Images are read by worker processes. The images of a batch may differ in size. Results do not depend on the batch
    size or the number of workers, except for rounding.

    Args:
        tower: the backbone, in evaluation mode.
        layers: block numbers; negative ones count from the end, None for all.
        norm: apply the backbone's final norm.
        batch_size: images of a forward pass.
        workers: processes that read images; 0 to read them in this process.
        cache: folder in which features are stored and from which they are read again; None for no cache. The key of a
            file is made of the weights, the settings and the pixels.
        weights: :func:`fingerprint` of the backbone; computed by default, which reads all weights.

    Raises:
        ValueError: if a block number is out of range.
    """

    def __init__(
        self,
        tower: Backbone,
        layers: Sequence[int] | None = (-1,),
        *,
        norm: bool = False,
        batch_size: int = 8,
        workers: int = 0,
        cache: str | Path | None = None,
        weights: str | None = None,
    ):
        self.tower = tower
        self.layers = tuple(dict.fromkeys(resolve_indices("layers", layers, tower.num_layers)))
        self.norm, self.batch_size, self.workers = norm, batch_size, workers
        self.cache = None if cache is None else FeatureCache(cache)
        self._source = None if cache is None else f"{weights or fingerprint(tower)} norm={norm}"

    @property
    def device(self) -> torch.device:
        return next(self.tower.parameters()).device

    def with_layers(self, layers: Sequence[int]) -> FeatureExtractor:
        """Return an extractor of other layers with the same backbone, settings and cache."""
        other = object.__new__(FeatureExtractor)
        other.__dict__.update(self.__dict__, layers=tuple(layers))
        return other

    def iter(
        self, items: Sequence, load: Callable[[Any], tuple[Tensor, Any]]
    ) -> Iterator[tuple[int, Any, dict[int, Tensor]]]:
        """Yield features of each item, in order.

        Args:
            items: what ``load`` takes.
            load: returns an image (3, H, W), normalized, and anything else; it runs in worker processes.

        Yields:
            index of the item, the second result of ``load``, and {layer: (C, h, w) float32 on the backbone's device}.
        """
        loader = DataLoader(
            Items(items, load), self.batch_size, num_workers=self.workers, collate_fn=list, shuffle=False
        )
        index = 0
        for batch in loader:
            maps: list[dict[int, Tensor]] = [{} for _ in batch]
            shapes = [tuple(image.shape) for image, _ in batch]
            for shape in dict.fromkeys(shapes):
                places = [place for place, other in enumerate(shapes) if other == shape]
                for layer, features in self(torch.stack([batch[place][0] for place in places])).items():
                    for place, found in zip(places, features, strict=True):
                        maps[place][layer] = found
            for (_, extra), features in zip(batch, maps, strict=True):
                yield index, extra, features
                index += 1

    def __call__(self, images: Tensor) -> dict[int, Tensor]:
        """Compute feature maps: images (N, 3, H, W) -> {layer: (N, C, h, w) float32 on the backbone's device}."""
        if self.cache is None:
            return self._run(images)
        computed: dict[str, dict[int, Tensor]] = {}

        def compute(part: Tensor, layer: int) -> Tensor:
            key = digest([part])
            if key not in computed:
                computed[key] = self._run(part)
            return computed[key][layer]

        return {
            layer: self.cache.get(images, f"{self._source} {layer}", lambda part, at=layer: compute(part, at)).to(
                self.device
            )
            for layer in self.layers
        }

    @torch.no_grad()
    def _run(self, images: Tensor) -> dict[int, Tensor]:
        found = self.tower.iter_intermediates(images.to(self.device), self.layers, norm=self.norm)
        return {layer: features.float() for layer, features in found}

    def cache_bytes(self, images: int, tokens: int) -> int:
        """Return the size in bytes of the cached features of this many images with this many patches each."""
        return 4 * images * tokens * self.tower.embed_dim * len(self.layers)

    def announce_cache(self, images: int, tokens: int) -> None:
        """Log the size that the cache may grow by.

        Raises:
            InputError: if the disk has less free space.
        """
        if self.cache is None:
            return
        size, folder = self.cache_bytes(images, tokens), self.cache.folder.absolute()
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        print_log(
            f"feature cache in {self.cache.folder}: up to {size / 1e9:.2f} GB of {images:,} images, "
            f"{free / 1e9:.1f} GB free",
            "current",
            logging.INFO,
        )
        if size > free:
            raise InputError(
                f"the feature cache may take {size / 1e9:.1f} GB, but {self.cache.folder} has {free / 1e9:.1f} GB "
                "free: choose fewer layers, another folder, or no cache"
            )


class Items(Dataset):
    """A list of items that worker processes load; arguments as of :meth:`FeatureExtractor.iter`."""

    def __init__(self, items: Sequence, load: Callable) -> None:
        self.items, self.load = items, load

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        return self.load(self.items[index])


def fingerprint(tower: Backbone) -> str:
    """Hash the weights of a backbone and the plain values that its modules are built from."""
    plain = (int, float, str, bool, tuple, frozenset, type(None))
    settings = []
    for name, module in tower.named_modules():
        for key, value in sorted(vars(module).items()):
            if isinstance(value, plain) and key not in ("training", "name", "label"):
                value = sorted(value) if isinstance(value, frozenset) else value
                settings.append(f"{name}.{key}={value}")
    parts = [part for name, value in sorted(tower.state_dict().items()) for part in (name, value)]
    return digest([*settings, *parts])

"""Repeat-factor sampling: images with rare classes come more often."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import torch
from mmengine.dataset import InfiniteSampler
from torch import Tensor

from pe_dense.registry import DATA_SAMPLERS
from pe_dense.utils.errors import InputError


@DATA_SAMPLERS.register_module()
class RepeatFactorSampler(InfiniteSampler):
    """Endless shuffled passes over a data set, in which images with rare classes come several times.

    An image with a repeat factor of 2.3 comes twice in a pass and, with a chance of 0.3, once more. (MMEngine's
    ``ClassBalancedDataset`` rounds up: each image of a class that is a little below the threshold comes twice.)

    Source: LVIS (arXiv 1908.03195), with Detectron2's rounding by chance, as the published detectors were trained.

    Args:
        dataset: tells the classes of its images by ``get_cat_ids(index)``, as mmdet's do.
        threshold: share of all images below which a class counts as rare, see :func:`repeat_factors`.
        seed: of all randomness, the same in every process; None for one that they agree on.

    Raises:
        ValueError: if the threshold is not in (0, 1].
    """

    def __init__(self, dataset, threshold: float, seed: int | None = None) -> None:
        if not 0.0 < threshold <= 1.0:
            raise InputError(f"threshold {threshold} is not in (0, 1]: it is a share of the images")
        self.factors = repeat_factors([dataset.get_cat_ids(index) for index in range(len(dataset))], threshold)
        super().__init__(dataset, seed=seed)

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        sure = self.factors.floor()
        chance = self.factors - sure
        while True:
            times = (sure + (torch.rand(self.size, generator=generator) < chance)).long()
            indices = torch.arange(self.size).repeat_interleave(times)
            yield from indices[torch.randperm(len(indices), generator=generator)].tolist()


def repeat_factors(classes: Sequence[Iterable[int]], threshold: float) -> Tensor:
    """How often each of N images comes in a pass, on average.

    A class that is in a share f of the images has the factor ``max(1, sqrt(threshold / f))``; an image has the highest
    factor of its classes, or 1.

    Args:
        classes: of each image.
        threshold: as of :class:`RepeatFactorSampler`.

    Returns:
        (N,), each at least 1.
    """
    images = [set(image) for image in classes]
    counts = Counter(category for image in images for category in image)
    factors = {category: max(1.0, math.sqrt(threshold * len(images) / count)) for category, count in counts.items()}
    return torch.tensor([max((factors[category] for category in image), default=1.0) for image in images])

"""Samplers: repeat factors, which oversample images with rare classes, and the order of web shards."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_dist_info, sync_random_seed
from torch import Tensor
from torch.utils.data import Sampler

from pe_dense.registry import DATA_SAMPLERS
from pe_dense.utils.errors import InputError
from pe_dense.utils.rng import sample_seed


@DATA_SAMPLERS.register_module()
class RepeatFactorSampler(InfiniteSampler):
    """Infinite sampler that repeats images with rare classes within each shuffled pass.

    An image with a repeat factor of 2.3 occurs twice per pass and, with probability 0.3, once more. (MMEngine's
    ``ClassBalancedDataset`` rounds up: each image of a class that is a little below the threshold comes twice.)

    Source: LVIS (arXiv 1908.03195), with Detectron2's stochastic rounding, as for the published detectors.

    Args:
        dataset: data set with ``get_cat_ids(index)``, such as mmdet's.
        threshold: fraction of images below which a class counts as rare, see :func:`repeat_factors`.
        seed: random seed, identical in every process; None for a seed shared by all processes.

    Raises:
        ValueError: if the threshold is not in (0, 1].
    """

    def __init__(self, dataset, threshold: float, seed: int | None = None) -> None:
        if not 0.0 < threshold <= 1.0:
            raise InputError(f"threshold {threshold} is not in (0, 1]: it is a fraction of the images")
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
    """Compute the mean number of repetitions of each of N images per pass.

    A class that occurs in a fraction f of the images has the factor ``max(1, sqrt(threshold / f))``; an image has the
    highest factor of its classes, or 1.

    Args:
        classes: class ids of each image.
        threshold: see :class:`RepeatFactorSampler`.

    Returns:
        (N,), each at least 1.
    """
    images = [set(image) for image in classes]
    counts = Counter(category for image in images for category in image)
    factors = {category: max(1.0, math.sqrt(threshold * len(images) / count)) for category, count in counts.items()}
    return torch.tensor([max((factors[category] for category in image), default=1.0) for image in images])


@DATA_SAMPLERS.register_module()
class ShardSampler(Sampler):
    """Infinite sampler of :class:`~pe_dense.datasets.webdataset.WebImages`.

    Each process draws from 48 shards at a time: batches take turns in 24 groups of two shards, and the samples of a
    batch in the shards of its group. PyTorch's data workers take batches in turns, too, so that 1, 2, 3, 4, 6, 8, 12 or
    24 of them open different shards; the samples are the same for any number of workers.

    Args:
        dataset: a ``WebImages``.
        seed: random seed, identical in every process; None for a seed shared by all processes.

    Attributes:
        batch_size: samples per batch and process; set by the data loader.
    """

    groups = 24
    shards_per_batch = 2

    def __init__(self, dataset, seed: int | None = None) -> None:
        self.visit = dataset.visit
        self.seed = sync_random_seed() if seed is None else seed
        self.rank, self.world_size = get_dist_info()
        self.batch_size = 1

    def __len__(self) -> int:
        """Return a number larger than any run needs, since MMEngine requires a length."""
        return 2**40

    def __iter__(self) -> Iterator[int]:
        lanes = self.groups * self.shards_per_batch
        # Samples that each lane, a sequence of visits, provides to one batch.
        shares = [len(range(lane, self.batch_size, self.shards_per_batch)) for lane in range(self.shards_per_batch)]
        numbers = functools.lru_cache(4 * lanes)(
            lambda lane, count: sample_seed(self.seed, (count * lanes + lane) * self.world_size + self.rank)
        )
        for batch in itertools.count():
            turn, group = divmod(batch, self.groups)
            for offset in range(self.batch_size):
                step, shard = divmod(offset, self.shards_per_batch)
                lane = group * self.shards_per_batch + shard
                # Lanes change their shards at different times.
                count, place = divmod(turn * shares[shard] + step + lane * self.visit // lanes, self.visit)
                yield numbers(lane, count) * self.visit + place

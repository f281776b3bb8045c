"""Seed every sample by its place in a run, so that a resumed run loads what the uninterrupted one would have loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import BatchSampler, Dataset, get_worker_info

from pe_dense.utils.errors import ConfigError
from pe_dense.utils.rng import fork_rng, sample_seed, seed_all


class SampleIndex(int):
    """An index into a data set, with the seed of the sample's augmentation."""

    def __new__(cls, index: int, seed: int) -> SampleIndex:
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __getnewargs__(self) -> tuple[int, int]:
        return int(self), self.seed


class SeededDataset(Dataset):
    """A data set that seeds Python's, NumPy's and PyTorch's RNG before each sample.

    So a sample depends on its seed alone, not on the process that loads it or on what that loaded before. In the main
    process the RNGs are put back afterwards. Other attributes are those of the data set.

    Args:
        dataset: a map-style data set.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        """Load a sample; an index without a seed is passed on as it is."""
        if not isinstance(index, SampleIndex):
            return self.dataset[index]
        if get_worker_info() is not None:
            seed_all(index.seed)
            return self.dataset[int(index)]
        with fork_rng():
            seed_all(index.seed)
            return self.dataset[int(index)]

    def __getattr__(self, name: str):
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)


class SeededBatchSampler:
    """A batch sampler whose indices carry seeds, and which can begin in the middle.

    A sample's seed follows from the run's seed and the sample's place in the order of all processes' samples, so it is
    the same for any number of data workers.

    Args:
        batches: gives lists of indices.
        seed: the run's.
        rank, world_size: of this process.

    Attributes:
        continues: whether places count on from one pass to the next, as in training; else each pass begins at 0.
    """

    def __init__(self, batches: BatchSampler, seed: int, rank: int, world_size: int):
        self.batches = batches
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.continues = False
        self._number = 0
        self._rest: Iterator[list[int]] | None = None

    @property
    def sampler(self):
        return self.batches.sampler

    @property
    def batch_size(self) -> int:
        return self.batches.batch_size

    @property
    def drop_last(self) -> bool:
        return getattr(self.batches, "drop_last", False)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        batches, self._rest = self._rest or iter(self.batches), None
        number = self._number if self.continues else 0
        for batch in batches:
            places = (number * self.batch_size + offset for offset in range(len(batch)))
            yield [
                SampleIndex(index, sample_seed(self.seed, place * self.world_size + self.rank))
                for index, place in zip(batch, places, strict=True)
            ]
            number += 1
            if self.continues:
                self._number = number

    def skip(self, count: int, next_pass: Callable[[], None]) -> None:
        """Let the next pass begin after as many batches.

        Args:
            count: number of batches since the start of training.
            next_pass: called when the batches of a pass are used up, before the next one is begun.

        Raises:
            ConfigError: if there is no batch.
        """
        batches = iter(self.batches)
        for _ in range(count):
            if next(batches, None) is None:
                next_pass()
                batches = iter(self.batches)
                if next(batches, None) is None:
                    raise ConfigError("the training data is less than one batch: lower train_dataloader.batch_size")
        self._rest, self._number = batches, count

    def begin_at(self, count: int) -> None:
        """Count the next batch as the one after this many; the sampler's own state says which one it is."""
        self._number = count

    def restart(self, seed: int) -> None:
        """Begin anew with another seed."""
        self.seed = seed
        if hasattr(self.sampler, "seed"):
            self.sampler.seed = seed
        if hasattr(self.sampler, "skip"):  # MMEngine's endless samplers draw from a stream that is made once
            self.sampler.skip(0)


class TrainBatches(_InfiniteDataloaderIterator):
    """MMEngine's endless iteration over a loader, which skips without loading for every sampler."""

    def skip_iter(self, num_iters: int) -> None:
        """Go to the batch that follows this many."""
        batches = self._dataloader.batch_sampler
        if not isinstance(batches, SeededBatchSampler):
            super().skip_iter(num_iters)
        elif num_iters > 0:
            batches.skip(num_iters, self._next_pass)
            self._iterator = None

    def _next_pass(self) -> None:
        self._epoch += 1
        if hasattr(self._dataloader.batch_sampler.sampler, "set_epoch"):
            self._dataloader.batch_sampler.sampler.set_epoch(self._epoch)

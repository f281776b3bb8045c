"""Seed the RNG of every sample from its position in the run, so that resumed runs match uninterrupted ones."""

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
    """Data set wrapper that seeds Python's, NumPy's and PyTorch's RNG before each sample.

    A sample depends only on its seed, not on the data worker that loads it or on earlier samples. In the main process,
    the RNG states are restored afterwards. Other attributes are forwarded to the data set.

    Args:
        dataset: a map-style data set.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        """Load a sample; an index without a seed is passed on unchanged."""
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
    """Batch sampler that adds a seed to each index and can resume within an epoch.

    A sample's seed is computed from the run's seed and the sample's position among the samples of all processes, so it
    does not depend on the number of data workers.

    Args:
        batches: batch sampler that yields lists of indices.
        seed: seed of the run.
        rank, world_size: rank of this process and number of processes.

    Attributes:
        continues: whether positions continue across epochs, as in training; otherwise each pass starts at 0.
    """

    def __init__(self, batches: BatchSampler, seed: int, rank: int, world_size: int):
        self.batches = batches
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.continues = False
        if hasattr(getattr(batches, "sampler", None), "batch_size"):  # a ShardSampler
            batches.sampler.batch_size = batches.batch_size
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
        """Start the next pass after this many batches.

        Args:
            count: number of batches since the start of training.
            next_pass: called at the end of a pass, before the next one starts.

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
        """Set the number of batches already drawn; the sampler's own state determines the next batch."""
        self._number = count

    def restart(self, seed: int) -> None:
        """Restart from scratch with another seed."""
        self.seed = seed
        if hasattr(self.sampler, "seed"):
            self.sampler.seed = seed
        if hasattr(self.sampler, "skip"):  # MMEngine's infinite samplers draw from a stream that is created only once
            self.sampler.skip(0)


class TrainBatches(_InfiniteDataloaderIterator):
    """MMEngine's infinite iterator over a data loader, which skips batches without loading them for every sampler."""

    def skip_iter(self, num_iters: int) -> None:
        """Skip this many batches."""
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

"""Data set of unlabeled images in webdataset shards."""

from __future__ import annotations

import io
import logging
import random
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.logging import print_log
from torch.utils.data import IterableDataset

from pe_dense.datasets.image_folder import ImageReader, UnusableImageError
from pe_dense.registry import DATASETS
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import EXTENSIONS

MAX_MEMBER_BYTES = 256 << 20
PATIENCE = 10_000  # samples in a row; shards of something else would be searched without end


@DATASETS.register_module()
class WebImages(IterableDataset):
    """Images of tar files, drawn without end: shards at random with replacement, images from a buffer.

    Every process and data worker draws on its own, so a run can't repeat another; use it with
    ``train_cfg.fast_forward_on_resume=True``, so that a resumed run does not look for its place.

    Args:
        urls: shards, in webdataset's notation: ``data/shard-{000000..000999}.tar``, several separated by ``::``.
        pipeline, min_side: see :class:`~pe_dense.datasets.image_folder.ImageReader`.
        buffer: images among which the next is drawn.

    Raises:
        ValueError: if the package webdataset is not installed.
        FileNotFoundError: if local shards do not exist.
    """

    metainfo: dict = {}

    def __init__(self, urls: str, pipeline: Sequence[dict], min_side: int = 32, buffer: int = 1000):
        try:
            import webdataset
        except ImportError as error:
            raise InputError("Shards are read by webdataset: pip install 'pe_dense[distill]'") from error
        names = webdataset.shardlists.expand_urls(urls)
        missing = [
            name for name in names if not name.startswith("pipe:") and "://" not in name and not Path(name).is_file()
        ]
        if missing:
            raise FileNotFoundError(f"{len(missing)} of {len(names)} shards do not exist, the first is {missing[0]}")
        self._names, self._buffer = list(names), buffer
        self._read = ImageReader(pipeline, min_side)

    def __len__(self) -> int:
        """Return a number larger than any run needs, since MMEngine requires a length."""
        return 2**40

    def __iter__(self) -> Iterator[dict]:
        """Iterate over samples in the format of :class:`~pe_dense.datasets.image_folder.ImageFolder`.

        Raises:
            UnusableImageError: if a full pass over all shards finds no image, or after 10,000 samples in a row without
                an image that can be used; with the shard's name.
        """
        import webdataset

        samples = self._draw()
        if self._buffer > 1:
            samples = webdataset.shuffle(self._buffer)(samples)
        skipped: list[str] = []
        in_vain = 0
        for sample in samples:
            in_vain += 1
            for name, content in sample.items():
                if not _is_image(name):
                    continue
                path = f"{sample['__url__']}/{sample['__key__']}.{name}"
                try:
                    image = self._read(io.BytesIO(content), path)
                except UnusableImageError as error:
                    skipped.append(str(error))
                    continue
                yield dict(image, path=path, skipped="\n".join(skipped))
                skipped, in_vain = [], 0
            if in_vain >= PATIENCE:
                names = ", ".join(name for name in sample if not name.startswith("__"))
                why = skipped[0] if skipped else f"the last has {names}, no image ({', '.join(EXTENSIONS)})"
                raise UnusableImageError(f"None of {in_vain:,} samples in {sample['__url__']} can be used: {why}")

    def _draw(self) -> Iterator[dict]:
        """Samples of shards that are drawn at random.

        As soon as many shards as there are were drawn without an image, each is read once, in order: random draws could
        miss the only good one.
        """
        from webdataset.tariterators import group_by_keys

        rng, count, in_vain = random.Random(), len(self._names), 0
        while in_vain < 2 * count:
            url = rng.choice(self._names) if in_vain < count else self._names[in_vain - count]
            found = False
            for sample in group_by_keys(_members(url), handler=_note):
                found = found or any(map(_is_image, sample))
                yield sample
            in_vain = 0 if found else in_vain + 1
        raise UnusableImageError(
            f"None of {count} shards has an image ({', '.join(EXTENSIONS)}) that can be read, from {self._names[0]} to "
            f"{self._names[-1]}"
        )


def _members(url: str) -> Iterator[dict]:
    """Files of a shard as webdataset's ``group_by_keys`` takes them.

    A shard that cannot be opened, is cut short, or has a member of more than 256 MB, is logged; what comes after is
    left out. In a stream the rest of a member must be read to reach the next one, which would take hours for 1 TB.
    """
    from webdataset.gopen import gopen

    try:
        with gopen(url) as stream, tarfile.open(fileobj=stream, mode="r|*") as shard:
            for info in shard:
                shard.members = []  # tarfile keeps the headers of all members
                if not info.isreg() or (info.name.startswith("__") and info.name.endswith("__")):
                    continue
                if info.size > MAX_MEMBER_BYTES:
                    raise InputError(
                        f"{info.name} has {info.size:,} bytes, more than the {MAX_MEMBER_BYTES:,} that are allowed"
                    )
                yield dict(fname=info.name, data=shard.extractfile(info).read(), __url__=url)
    except Exception as error:  # tarfile.ReadError, zlib.error, errors of the network, ...
        print_log(f"Skipped shard {url} or the rest of it: {error}", "current", logging.WARNING)


def _is_image(name: str) -> bool:
    return not name.startswith("__") and f".{name.rpartition('.')[2].lower()}" in EXTENSIONS


def _note(error: Exception) -> bool:
    """Log and skip files that webdataset cannot group."""
    print_log(f"Skipped a part of a shard: {error!r}", "current", logging.WARNING)
    return True

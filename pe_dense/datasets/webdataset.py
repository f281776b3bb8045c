"""Images without labels in webdataset shards."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.logging import print_log
from torch.utils.data import IterableDataset

from pe_dense.datasets.image_folder import ImageReader, UnusableImageError
from pe_dense.registry import DATASETS
from pe_dense.utils.errors import InputError
from pe_dense.utils.image import EXTENSIONS

PATIENCE = 10_000  # samples in a row; shards of something else would be searched without end


@DATASETS.register_module()
class WebImages(IterableDataset):
    """Images of tar files, drawn without end: shards at random with replacement, images from a buffer.

    Every process and data worker draws on its own, so a run can't repeat another; use it with
    ``train_cfg.fast_forward_on_resume=True``, so that a resumed run does not look for its place.

    Args:
        urls: shards, in webdataset's notation: ``data/shard-{000000..000999}.tar``, several separated by ``::``.
        pipeline, min_side: as of :class:`~pe_dense.datasets.image_folder.ImageReader`.
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
        shards = webdataset.WebDataset(names, resampled=True, shardshuffle=False, handler=_note)
        self._samples = shards.shuffle(buffer) if buffer > 1 else shards
        self._read = ImageReader(pipeline, min_side)

    def __len__(self) -> int:
        """More than any run asks for: MMEngine wants to know."""
        return 2**40

    def __iter__(self) -> Iterator[dict]:
        """Give samples as :class:`~pe_dense.datasets.image_folder.ImageFolder` does.

        Raises:
            UnusableImageError: after 10,000 samples without an image that can be used.
        """
        skipped: list[str] = []
        in_vain = 0
        for sample in self._samples:
            in_vain += 1
            for name, content in sample.items():
                if f".{name.rpartition('.')[2].lower()}" not in EXTENSIONS:
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
                why = skipped[0] if skipped else f"the last holds {names}, no image ({', '.join(EXTENSIONS)})"
                raise UnusableImageError(f"None of {in_vain:,} samples in {sample['__url__']} can be used: {why}")


def _note(error: Exception) -> bool:
    """What can't be opened is told and left out."""
    print_log(f"Skipped a shard or a part of it: {error!r}", "current", logging.WARNING)
    return True

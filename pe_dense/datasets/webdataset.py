"""Data set of unlabeled images in webdataset shards."""

from __future__ import annotations

import errno
import io
import logging
import os
import tarfile
import tempfile
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from torch.utils.data import Dataset

from pe_dense.datasets.image_folder import ImageReader, UnusableImageError
from pe_dense.registry import DATASETS
from pe_dense.utils.errors import ConfigError, InputError
from pe_dense.utils.image import EXTENSIONS

MAX_MEMBER_BYTES = 256 << 20
PATIENCE = 10_000  # images in a row; shards of something else would be searched without end
_OPEN_SHARDS = 64  # per process and data worker


@DATASETS.register_module()
class WebImages(Dataset):
    """Images of tar files, drawn without end by a :class:`~pe_dense.datasets.samplers.ShardSampler`.

    A number of a visit selects a shard at random, and the images that are drawn from it, in random order. Samples
    therefore depend on their index alone, and a resumed run reads what an uninterrupted one would have read.

    Local tar files are read in place. Shards that are compressed or not local are copied to a temporary file (in
    ``$TMPDIR``) for the time of their visits; a process has up to 48 of them at a time.

    Args:
        urls: shards in webdataset's notation: ``data/shard-{000000..000999}.tar``, several separated by ``::``.
        pipeline, min_side: see :class:`~pe_dense.datasets.image_folder.ImageReader`.
        visit: images that are drawn from a shard before the next one is opened. Larger numbers read shards that are not
            local less often, smaller numbers mix shards better.

    Raises:
        ValueError: if the package webdataset is not installed, or ``visit`` is not positive.
        FileNotFoundError: if local shards do not exist.
    """

    metainfo: dict = {}
    endings: Sequence[str] = EXTENSIONS  # of the members that are used

    def __init__(self, urls: str, pipeline: Sequence[dict], min_side: int = 32, visit: int = 1000):
        try:
            import webdataset
        except ImportError as error:
            raise InputError("Shards are read by webdataset: pip install 'pe_dense[distill]'") from error
        if visit < 1:
            raise InputError(f"visit={visit} images per visit of a shard: at least 1 is needed")
        names = webdataset.shardlists.expand_urls(urls)
        missing = [name for name in names if _is_local(name) and not Path(name).is_file()]
        if missing:
            raise FileNotFoundError(f"{len(missing)} of {len(names)} shards do not exist, the first is {missing[0]}")
        self.visit = visit
        self._names = list(names)
        self._read = ImageReader(pipeline, min_side)
        self._shards: OrderedDict[str, _Shard] = OrderedDict()
        self._pid = os.getpid()

    def __len__(self) -> int:
        """Raise an error: samplers of MMEngine and PyTorch can't draw from shards, which have no known length.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "web shards are drawn without end, not by number: set train_dataloader.sampler to "
            "dict(type='pe_dense.ShardSampler')"
        )

    def __getitem__(self, index: int) -> dict:
        """Read the image ``index % visit`` of the visit with the number ``index // visit``.

        An image that can't be used is replaced by the next one of the visit, a shard without any by another one.

        Returns:
            a sample in the format of :class:`~pe_dense.datasets.image_folder.ImageFolder`.

        Raises:
            UnusableImageError: if no shard has an image, or 10,000 images in a row can't be used; with names of shards.
        """
        number, place = divmod(int(index), self.visit)
        rng = np.random.default_rng(number)
        skipped: list[str] = []
        for shard_number in rng.permutation(len(self._names)):
            name = self._names[shard_number]
            shard = self._shard(name)
            drawn = rng.choice(len(shard.offsets), min(self.visit, len(shard.offsets)), replace=False)
            for step in range(len(drawn)):
                try:
                    image = drawn[(place + step) % len(drawn)]
                    path, content = shard.read(shard.offsets[image])
                    about = self.describe(shard, image, path)
                    return dict(self._read(content, path), **about, path=path, skipped="\n".join(skipped))
                except UnusableImageError as error:
                    skipped.append(str(error))
                if len(skipped) >= PATIENCE:
                    raise UnusableImageError(f"None of {len(skipped):,} images in {name} can be used: {skipped[-1]}")
        raise UnusableImageError(
            f"None of {len(self._names)} shards has an image ({', '.join(EXTENSIONS)}) that can be read, from "
            f"{self._names[0]} to {self._names[-1]}" + (f": {skipped[0]}, ..." if skipped else "")
        )

    def describe(self, shard: _Shard, number: int, path: str) -> dict:
        """Return further entries of an image's sample; none by default.

        Raises:
            UnusableImageError: if it has none although it should.
        """
        return {}

    def __getstate__(self) -> dict:
        return self.__dict__ | dict(_shards=OrderedDict())

    def _shard(self, name: str) -> _Shard:
        """Open a shard, or take it from the last ones that were opened."""
        if self._pid != os.getpid():  # processes must not share the position in an open file
            self._shards, self._pid = OrderedDict(), os.getpid()
        if name in self._shards:
            self._shards.move_to_end(name)
        else:
            self._shards[name] = _Shard(name, self.endings)
            if len(self._shards) > _OPEN_SHARDS:
                self._shards.popitem(last=False)[1].close()
        return self._shards[name]


class _Shard:
    """The images of a shard, at any place.

    A shard that can't be opened, is cut short, or has a member that is too large, is logged; what comes after that is
    left out.

    Args:
        name: path or address.
        endings: of the members that are used; those that are not images are texts of the images with the same name.

    Attributes:
        offsets: where the members that are images begin; eight bytes for each one, whatever their number.
        texts: where their texts begin, as webdataset stores them next to the image; -1 for none.
    """

    def __init__(self, name: str, endings: Sequence[str] = EXTENSIONS):
        self.name, self.endings = name, endings
        self.offsets, self.texts = array("q"), array("q")
        self._file = None
        try:
            self._file = self._open()
            size = os.fstat(self._file.fileno()).st_size
            key, first, text = None, 0, -1  # of the current sample, whose members follow each other
            with tarfile.open(fileobj=self._file, mode="r:") as shard:
                for info in _members(shard, endings):
                    if info.offset_data + info.size > size:
                        raise InputError(f"{info.name} is cut short: {info.size:,} bytes are declared")
                    if key != (key := _key(info.name)):
                        first, text = len(self.offsets), -1
                    if _ending(info.name) in EXTENSIONS:
                        self.offsets.append(info.offset)
                        self.texts.append(text)
                    else:
                        text = info.offset
                        self.texts[first:] = array("q", [text] * (len(self.offsets) - first))
        except Exception as error:  # tarfile.ReadError, zlib.error, errors of the network, ...
            self._skip(error)

    def read(self, offset: int) -> tuple[str, io.BytesIO]:
        """Read the member that begins there; return its path and its content.

        Raises:
            UnusableImageError: if the file has changed meanwhile.
        """
        try:
            self._file.seek(offset)
            with tarfile.open(fileobj=self._file, mode="r:") as shard:
                info = shard.firstmember
                return f"{self.name}/{info.name}", io.BytesIO(shard.extractfile(info).read())
        except (tarfile.TarError, OSError, AttributeError) as error:
            raise UnusableImageError(f"{self.name} can't be read any more: {error}") from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _skip(self, error: Exception) -> None:
        """Log why the rest of the shard is left out.

        Raises:
            ConfigError: if there is no room for the copy, since the run would go on with a part of the images.
        """
        if isinstance(error, ConfigError):
            raise error
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ConfigError(
                f"no room for a copy of shard {self.name} in {tempfile.gettempdir()} ({error.strerror}): set TMPDIR to "
                "a folder on a larger disk, or store the shards as local, uncompressed tar files"
            ) from error
        print_log(f"Skipped shard {self.name} or the rest of it: {error}", "current", logging.WARNING)

    def _open(self):
        """Open the file in place, or a temporary copy of its images."""
        if _is_local(self.name):
            file = open(self.name, "rb")  # noqa: SIM115 - stays open
            try:
                tarfile.open(fileobj=file, mode="r:").close()
                file.seek(0)
                return file
            except tarfile.ReadError:
                file.close()
        from webdataset.gopen import gopen

        copy = tempfile.TemporaryFile()  # noqa: SIM115 - stays open, without a name
        with tarfile.open(fileobj=copy, mode="w:") as target:
            try:
                with gopen(self.name) as stream, tarfile.open(fileobj=stream, mode="r|*") as shard:
                    for info in _members(shard, self.endings):
                        target.addfile(info, shard.extractfile(info))
            except Exception as error:
                self._skip(error)
        copy.seek(0)
        return copy


def _members(shard: tarfile.TarFile, endings: Sequence[str]) -> Iterator[tarfile.TarInfo]:
    """Members of a shard with one of these endings.

    Raises:
        InputError: for a member of more than 256 MB. In a stream, the rest of it must be read to reach the next one,
            which would take hours for 1 TB.
    """
    while (info := shard.next()) is not None:
        shard.members.clear()  # tarfile stores the headers of all members
        if info.isreg() and info.size > MAX_MEMBER_BYTES:
            raise InputError(
                f"{info.name} has {info.size:,} bytes, more than the {MAX_MEMBER_BYTES:,} that are allowed"
            )
        if info.isreg() and not info.issparse() and _ending(info.name) in endings:
            yield info


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _key(name: str) -> str:
    """What members of one sample have in common, as webdataset groups them: the path up to the name's first dot."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _is_local(name: str) -> bool:
    return not name.startswith("pipe:") and "://" not in name

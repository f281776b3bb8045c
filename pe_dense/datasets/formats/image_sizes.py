"""Sizes of the images of a data folder, with a cache file, so that only new and changed images are opened."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from pe_dense.datasets.annotation_cache import cache_places
from pe_dense.datasets.formats.files import content_hash
from pe_dense.utils.atomic_write import write_text
from pe_dense.utils.image import image_size

MIN_IMAGES = 500  # fewer are opened each time
_VERSION = 1  # changes with what :func:`~pe_dense.utils.image.image_size` returns
_SETTLED = 0.1  # seconds; file systems may not tell two changes within a few milliseconds apart


class ImageSizes:
    """Read sizes of images from their headers, or from the cache file ``.image_sizes.cache`` of the data folder.

    A size is used again if the image has the same path, number of bytes and modification time. Where the folder is
    read-only, the cache file is in the user's cache folder, see :mod:`pe_dense.datasets.annotation_cache`.

    Args:
        root: data folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._places = list(cache_places(root, "image_sizes", f"{content_hash(os.path.realpath(root))}.image_sizes"))
        self._known: dict[str, list[int]] = {}
        self._is_new = False
        for place in self._places:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                content = json.loads(Path(place).read_text())
                if content["version"] == _VERSION:
                    self._known = dict(content["images"])
                    break

    def read(self, name: str) -> tuple[int, int]:
        """Return width and height in pixels, after the EXIF orientation is applied.

        Args:
            name: path, absolute or relative to the data folder.

        Raises:
            ImageError: if it cannot be read.
            FileNotFoundError: if it does not exist.
        """
        status = os.stat(self.root / name)
        known = self._known.get(name)
        if isinstance(known, list) and len(known) == 4 and known[:2] == [status.st_size, status.st_mtime_ns]:
            return known[2], known[3]
        size = image_size(self.root / name)
        if time.time() - status.st_mtime >= _SETTLED:
            self._known[name] = [status.st_size, status.st_mtime_ns, *size]
            self._is_new = True
        return size

    def save(self) -> None:
        """Write the cache file if sizes were added, as far as a folder is writable."""
        if not self._is_new or len(self._known) < MIN_IMAGES:
            return
        for place in self._places:
            with contextlib.suppress(OSError):
                write_text(Path(place), json.dumps(dict(version=_VERSION, images=self._known)))
                return

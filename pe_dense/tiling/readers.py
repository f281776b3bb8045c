"""Read windows of images, without decoding the whole file where the format allows it."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pe_dense.utils.image import ImageError, find_white_level, is_upright, pixel_limit, read_image, to_8_bits

WHOLE_PIXELS = 500_000_000  # largest image that is decoded as a whole: 1.5 GB in RGB
_TIFF = (".tif", ".tiff")
_LAYOUTS = (("MINISBLACK", 1), ("RGB", 3), ("YCBCR", 3))  # photometric interpretation and channels
_CACHE_BYTES = 256 << 20  # of decoded strips and tiles of a TIFF


class WindowReader(ABC):
    """An image that is read window by window.

    Attributes:
        height, width: size of the image in pixels.
    """

    height: int
    width: int

    @abstractmethod
    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Return the pixels of a window, (h, w, 3) uint8, RGB."""

    def overview(self, side: int) -> tuple[np.ndarray, int]:
        """Return the image reduced by a whole number, so that the longer side is at most ``side``, and that number."""
        step = max(-(-max(self.height, self.width) // side), 1)
        rows, columns = -(-self.height // step), -(-self.width // step)
        small = np.empty((rows, columns, 3), np.uint8)
        band = max(1024 // step, 1)
        for row in range(0, rows, band):
            for column in range(0, columns, band):
                part = small[row : row + band, column : column + band]
                bottom, right = (row + part.shape[0]) * step, (column + part.shape[1]) * step
                window = self.read(
                    slice(row * step, min(bottom, self.height)), slice(column * step, min(right, self.width))
                )
                part[:] = window if step == 1 else cv2.resize(window, part.shape[1::-1], interpolation=cv2.INTER_AREA)
        return small, step

    def close(self) -> None:  # noqa: B027 - only files are closed
        """Close the file."""


class ArrayReader(WindowReader):
    """Windows of an array (H, W, 3) uint8, RGB."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """See the base class."""
        return self.pixels[rows, columns]


class TiffReader(WindowReader):
    """Windows of a TIFF through tifffile; only the strips or tiles of the file that a window needs are decoded.

    Pixels are those of :func:`pe_dense.utils.image.read_image`, except that an orientation is not applied. The default
    white level of 16 bits is that of the whole image, of which as much is decoded once as decides about it.

    Args:
        path: the file.
        white_level: see :func:`pe_dense.utils.image.as_rgb`.

    Raises:
        NotImplementedError: for a layout or compression that is not read by windows.
    """

    def __init__(self, path: Path, white_level: float | None = None):
        import tifffile

        self._file = tifffile.TiffFile(path)
        page = self._page = self._file.pages[0]
        self.height, self.width = page.imagelength, page.imagewidth
        usual = (page.photometric.name, page.samplesperpixel) in _LAYOUTS and page.dtype in ("uint8", "uint16")
        if not usual or page.planarconfig != 1 or page.imagedepth != 1:
            self.close()
            raise NotImplementedError("layout")
        if page.is_tiled:
            self._part = (page.tilelength, page.tilewidth)
        else:
            self._part = (min(page.rowsperstrip, self.height), self.width)
        self._per_row = -(-self.width // self._part[1])
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._white_level = white_level
        try:
            if page.dtype == "uint16" and page.samplesperpixel == 1 and white_level is None:
                self._white_level = find_white_level(map(self._decode, range(len(page.dataoffsets))), str(path))
            self._segment(0)
        except Exception as error:  # a codec that needs the package imagecodecs raises errors of several classes
            self.close()
            raise NotImplementedError(str(error)) from error

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """See the base class."""
        window = np.zeros((rows.stop - rows.start, columns.stop - columns.start, 3), np.uint8)
        high, wide = self._part
        for row in range(rows.start // high, -(-rows.stop // high)):
            for column in range(columns.start // wide, -(-columns.stop // wide)):
                part = self._segment(row * self._per_row + column)
                top, left = row * high, column * wide
                bottom, right = min(top + part.shape[0], rows.stop), min(left + part.shape[1], columns.stop)
                first, start = max(top, rows.start), max(left, columns.start)
                window[first - rows.start : bottom - rows.start, start - columns.start : right - columns.start] = part[
                    first - top : bottom - top, start - left : right - left
                ]
        return window

    def _segment(self, index: int) -> np.ndarray:
        """Return a strip or tile, (h, w, 3) uint8."""
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        part = self._decode(index)
        if part.dtype == np.uint16:
            # Pillow reads the upper 8 bits of 16 per channel.
            part = to_8_bits(part, self._white_level) if part.shape[2] == 1 else (part >> 8).astype(np.uint8)
        self._cache[index] = np.broadcast_to(part, (*part.shape[:2], 3))
        room = max(_CACHE_BYTES // max(part.nbytes, 1), 2 * self._per_row)
        while len(self._cache) > room:
            self._cache.popitem(last=False)
        return self._cache[index]

    def _decode(self, index: int) -> np.ndarray:
        """Decode a strip or tile, (h, w, channels), without the padding of tiles at the right and bottom."""
        page, file = self._page, self._file.filehandle
        file.seek(page.dataoffsets[index])
        data = file.read(page.databytecounts[index])
        part, _, _ = page.decode(data, index, jpegtables=page.jpegtables)
        if part is None:  # an empty segment of a sparse file
            part = np.zeros((1, *self._part, page.samplesperpixel), page.dtype)
        top, left = index // self._per_row * self._part[0], index % self._per_row * self._part[1]
        return part[0, : self.height - top, : self.width - left]

    def close(self) -> None:
        """See the base class."""
        self._file.close()


class RasterioReader(WindowReader):
    """Windows of any file that GDAL reads, through rasterio; gray, or red, green and blue of 8 bits.

    An orientation is not applied.

    Raises:
        NotImplementedError: for other bands, such as a palette or transparency.
    """

    def __init__(self, path: Path):
        import rasterio

        with warnings.catch_warnings():
            # It is a photo, not a map.
            warnings.filterwarnings("ignore", "Dataset has no geotransform")
            self._file = rasterio.open(path)
        self.height, self.width = self._file.height, self._file.width
        bands = [band.name for band in self._file.colorinterp]
        colors = bands[:3] == ["red", "green", "blue"] and len(bands) <= 4 and "alpha" not in bands
        if not (colors or bands == ["gray"]) or set(self._file.dtypes) != {"uint8"}:
            self.close()
            raise NotImplementedError("bands")
        self._bands = [1, 2, 3] if colors else [1, 1, 1]

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """See the base class."""
        window = ((rows.start, rows.stop), (columns.start, columns.stop))
        return np.ascontiguousarray(self._file.read(self._bands, window=window).transpose(1, 2, 0))

    def close(self) -> None:
        """See the base class."""
        self._file.close()


def open_windows(
    image: Path | np.ndarray, *, ignore_orientation: bool = False, white_level: float | None = None
) -> WindowReader:
    """Open an image to read windows of it.

    TIFF files are read by windows if tifffile, with imagecodecs for most compressions, or rasterio supports their
    layout. All other files, and those with an orientation to apply, are decoded as a whole, up to 500 million pixels.
    Pixels are those of :func:`pe_dense.utils.image.read_image` in both cases.

    Args:
        image: a file, or pixels (H, W, 3) uint8, RGB.
        ignore_orientation, white_level: see :func:`pe_dense.utils.image.read_image`.

    Raises:
        FileNotFoundError, ImageError: if the file cannot be read, or is too large to be decoded as a whole.
    """
    if isinstance(image, np.ndarray):
        return ArrayReader(image)
    path = Path(image)
    by_windows = path.suffix.lower() in _TIFF and path.is_file() and (ignore_orientation or is_upright(path))
    if by_windows:
        for reader in (partial(TiffReader, white_level=white_level), RasterioReader):
            try:
                return reader(path)
            except Exception:  # not installed, or a damaged file, which Pillow reports
                continue
    try:
        with pixel_limit(WHOLE_PIXELS):
            decoded = read_image(path, ignore_orientation=ignore_orientation, white_level=white_level)
            return ArrayReader(np.asarray(decoded))
    except ImageError as error:
        if by_windows and any(words in str(error) for words in ("exceeds limit", "more than")):
            raise ImageError(f"{error}; to read it by windows: pip install imagecodecs or rasterio") from error
        raise

"""Windows of images."""

import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pe_dense.tiling import open_windows, readers
from pe_dense.tiling.readers import ArrayReader, RasterioReader, TiffReader
from pe_dense.utils.image import ImageError, read_image

tifffile = pytest.importorskip("tifffile")
PIXELS = np.random.default_rng(0).integers(0, 256, (150, 230, 3), np.uint8)
WINDOWS = [(0, 150, 0, 150), (10, 90, 60, 140), (149, 150, 149, 150), (64, 128, 64, 128)]


def check(reader, pixels):
    assert (reader.height, reader.width) == pixels.shape[:2]
    for top, bottom, left, right in (*WINDOWS, (0, reader.height, 0, reader.width)):
        window = reader.read(slice(top, bottom), slice(left, right))
        assert window.dtype == np.uint8 and (window == pixels[top:bottom, left:right]).all()
    reader.close()


@pytest.mark.parametrize(
    "options",
    [
        dict(photometric="rgb"),
        dict(photometric="rgb", rowsperstrip=7),
        dict(photometric="rgb", tile=(64, 48)),
        dict(photometric="rgb", tile=(32, 32), compression="zlib"),
        dict(photometric="rgb", rowsperstrip=16, bigtiff=True),
    ],
)
def test_tiff_by_windows(tmp_path, options, monkeypatch):
    monkeypatch.setattr(readers, "_CACHE_BYTES", 0)  # decoded again when needed
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **options)
    reader = open_windows(tmp_path / "a.tif")
    assert isinstance(reader, TiffReader)
    check(reader, PIXELS)


def test_gray_tiffs(tmp_path):
    tifffile.imwrite(tmp_path / "gray.tif", PIXELS[..., 0], photometric="minisblack")
    check(open_windows(tmp_path / "gray.tif"), np.repeat(PIXELS[..., :1], 3, 2))
    tifffile.imwrite(tmp_path / "deep.tif", PIXELS[..., 0].astype(np.uint16) * 257, tile=(64, 64))
    reader = open_windows(tmp_path / "deep.tif")
    assert isinstance(reader, TiffReader)
    check(reader, np.repeat(PIXELS[..., :1], 3, 2))


def whole(path, **options):
    """The image of the ordinary reader, and a reader of its windows."""
    pixels = np.asarray(read_image(path, **options))
    reader = open_windows(path, **options)
    check(reader, pixels)
    return pixels, type(reader)


@pytest.mark.parametrize("highest", [200, 3000, 60_000])
def test_16_bits_are_scaled_as_by_the_ordinary_reader(tmp_path, highest):
    """By the maximum of the image, not of a tile; the brightest pixel is in the last tile, beside its padding."""
    deep = PIXELS[..., 0].astype(np.uint16) % 150
    deep[-1, -1] = highest
    tifffile.imwrite(tmp_path / "deep.tif", deep, tile=(64, 64))
    pixels, kind = whole(tmp_path / "deep.tif")
    assert kind is TiffReader and pixels.max() == {200: 200, 3000: 12, 60_000: 233}[highest]
    pixels, kind = whole(tmp_path / "deep.tif", white_level=3000)
    assert kind is TiffReader and pixels.max() == {200: 17, 3000: 255, 60_000: 255}[highest]
    tifffile.imwrite(tmp_path / "colors.tif", np.stack([deep, deep // 2, deep * 0], 2), photometric="rgb")
    pixels, kind = whole(tmp_path / "colors.tif")
    assert kind is TiffReader and pixels.max() == highest >> 8


class Gdal:
    """rasterio's interface to a file of PIXELS; like GDAL, it does not apply an orientation."""

    height, width, dtypes, count = 150, 230, ("uint8",) * 3, 3
    names = ("red", "green", "blue")

    def __init__(self, path):
        warnings.warn("Dataset has no geotransform, gcps, or rpcs.", UserWarning, stacklevel=2)
        self.colorinterp = [SimpleNamespace(name=name) for name in self.names]

    def read(self, bands, window):
        return PIXELS.transpose(2, 0, 1)[[band - 1 for band in bands]][:, slice(*window[0]), slice(*window[1])]

    def close(self):
        pass


@pytest.mark.filterwarnings("error:Dataset has no")
@pytest.mark.parametrize("rasterio", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(tmp_path, orientation, rasterio, monkeypatch):
    """The same pixels as those of the ordinary reader, whatever reads the windows."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, photometric="rgb", tile=(64, 64), extratags=[(274, "H", 1, orientation, True)])
    if rasterio:
        monkeypatch.setattr(tifffile, "TiffFile", None)
        monkeypatch.setitem(sys.modules, "rasterio", SimpleNamespace(open=Gdal))
    by_windows = RasterioReader if rasterio else TiffReader
    pixels, kind = whole(path, ignore_orientation=True)
    assert kind is by_windows and (pixels == PIXELS).all()
    pixels, kind = whole(path)
    assert kind is (by_windows if orientation == 1 else ArrayReader)
    upright = PIXELS if orientation < 5 else PIXELS.transpose(1, 0, 2)
    down, right = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}[
        orientation
    ]
    assert (pixels == upright[::down, ::right]).all()


@pytest.mark.parametrize("names", [("red", "green", "blue", "alpha"), ("palette",), ("gray", "alpha")])
def test_bands_that_are_not_colors_are_left_to_the_ordinary_reader(tmp_path, names, monkeypatch):
    monkeypatch.setattr(Gdal, "names", names)
    monkeypatch.setitem(sys.modules, "rasterio", SimpleNamespace(open=Gdal))
    monkeypatch.setattr(tifffile, "TiffFile", None)
    Image.fromarray(PIXELS).save(tmp_path / "a.tif")
    assert isinstance(open_windows(tmp_path / "a.tif"), ArrayReader)


def test_other_files_are_decoded_as_a_whole(tmp_path, monkeypatch):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    reader = open_windows(tmp_path / "a.png")
    assert isinstance(reader, ArrayReader)
    check(reader, PIXELS)
    planes = PIXELS.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    check(open_windows(tmp_path / "planes.tif"), PIXELS)
    (tmp_path / "bad.tif").write_bytes(b"II*\0 no image")
    with pytest.raises(ImageError, match="bad.tif is not a readable image"):
        open_windows(tmp_path / "bad.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert open_windows(tmp_path / "a.png").width == 230  # more than Pillow allows, fewer than the limit of tiles
    monkeypatch.setattr(readers, "WHOLE_PIXELS", 2000)
    with pytest.raises(ImageError, match=r"a.png is not a readable image \(Image size \(34500 pixels\) exceeds limit"):
        open_windows(tmp_path / "a.png")
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(ImageError, match="to read it by windows: pip install imagecodecs or rasterio"):
        open_windows(tmp_path / "planes.tif")


def test_overview():
    small, step = ArrayReader(PIXELS).overview(100)
    assert step == 3 and small.shape == (50, 77, 3)
    assert np.abs(small[10, 20].astype(float) - PIXELS[30:33, 60:63].mean((0, 1))).max() < 12
    same, step = ArrayReader(PIXELS).overview(230)
    assert step == 1 and (same == PIXELS).all()

"""Windows of images."""

import numpy as np
import pytest
from PIL import Image

from pe_dense.tiling import open_windows, readers
from pe_dense.tiling.readers import ArrayReader, TiffReader
from pe_dense.utils.image import ImageError

tifffile = pytest.importorskip("tifffile")
PIXELS = np.random.default_rng(0).integers(0, 256, (150, 230, 3), np.uint8)
WINDOWS = [(0, 150, 0, 230), (10, 90, 60, 200), (149, 150, 229, 230), (64, 128, 64, 128)]


def check(reader, pixels):
    assert (reader.height, reader.width) == pixels.shape[:2]
    for top, bottom, left, right in WINDOWS:
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

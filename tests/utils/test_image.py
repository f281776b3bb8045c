"""Reader of image files: the same pixels in checks, training, prediction and figures, and errors."""

import os
import tracemalloc

import mmengine.logging
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image, ImageFile

from pe_dense.datasets import LoadImage, loading
from pe_dense.datasets.loading import image_reader, loads_annotations, transform_class, without_loading
from pe_dense.utils import image as image_module
from pe_dense.utils.image import ImageError, decode, find_images, image_size, read_image
from pe_dense.utils.output_folder import output_names

WIDTH, HEIGHT = 48, 32


@pytest.fixture
def pixels():
    return np.kron(np.random.default_rng(0).integers(0, 256, (4, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)


@pytest.fixture
def logged(monkeypatch):
    """Return the logged lines."""
    lines = []
    for owner in (mmengine.logging, loading):  # the module of images imports it when it is called
        monkeypatch.setattr(owner, "print_log", lambda line, *_: lines.append(line))
    monkeypatch.setattr(image_module, "_warned", set())
    return lines


def loaded(path, **options):
    return LoadImage(**options)(dict(img_path=str(path)))["img"][..., ::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif", ".png"])
def test_orientation_of_every_format(tmp_path, pixels, suffix, orientation):
    """The four quadrants distinguish all eight orientations of the EXIF standard."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    options = dict(lossless=True) if suffix == ".webp" else dict(quality=95) if suffix == ".jpg" else {}
    Image.fromarray(pixels).save(path, exif=exif, **options)
    stored = np.asarray(read_image(path, ignore_orientation=True))
    rows_first = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.transpose(1, 0, 2), 6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2), 8: stored[:, ::-1].transpose(1, 0, 2),
    }  # fmt: skip
    shown = np.asarray(read_image(path))
    np.testing.assert_array_equal(shown, rows_first[orientation])
    np.testing.assert_array_equal(loaded(path), shown)
    np.testing.assert_array_equal(loaded(path, ignore_orientation=True), stored)
    assert image_size(path) == shown.shape[1::-1]
    assert image_size(path, ignore_orientation=True) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("exif", [b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", b"Exif\x00\x00junk", b"Exif\x00\x00"])
def test_exif_data_that_cannot_be_parsed_is_ignored(tmp_path, pixels, exif):
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (WIDTH, HEIGHT)


ODD = {
    "transparent": lambda p: Image.fromarray(np.dstack([p, p[..., :1]])),
    "gray with alpha": lambda p: Image.fromarray(p[..., :2], "LA"),
    "palette": lambda p: Image.fromarray(p).quantize(8),
    "1 bit": lambda p: Image.fromarray(p[..., 0] > 127),
    "16 bits": lambda p: Image.fromarray(p[..., 0].astype(np.uint16) * 257),
    "32 bits": lambda p: Image.fromarray(p[..., 0].astype(np.int32) * 200),
    "float": lambda p: Image.fromarray(p[..., 0].astype(np.float32) / 255),
    "float with NaN": lambda p: Image.fromarray(np.where(p[..., 0] > 99, np.nan, 1).astype(np.float32)),
    "CMYK": lambda p: Image.fromarray(p).convert("CMYK"),
}


@pytest.mark.parametrize("kind", ODD)
def test_training_sees_what_pictures_show(tmp_path, pixels, kind):
    path = tmp_path / ("a.tif" if kind in ("32 bits", "float", "float with NaN", "CMYK") else "a.png")
    ODD[kind](pixels).save(path)
    shown = np.asarray(read_image(path))
    assert shown.shape == (HEIGHT, WIDTH, 3) and shown.max() > 100
    np.testing.assert_array_equal(loaded(path), shown)


def test_12_bits_in_16(tmp_path, logged):
    """A warning names the option; with the option, the full range is used without a color cast."""
    gray = np.tile(np.linspace(0, 4095, 64), (64, 1)).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "camera.png")
    assert loaded(tmp_path / "camera.png").max() == 16
    (said,) = logged
    assert "camera.png has 16 bits but no value above 4095: it is nearly black" in said
    assert "set white_level" in said
    bright = loaded(tmp_path / "camera.png", white_level=4095)
    np.testing.assert_array_equal(bright[..., 0], np.rint(gray / 4095 * 255))


def test_deep_images_are_converted_without_a_floating_point_copy(tmp_path):
    side = 3000
    Image.fromarray(np.full((side, side), 40_000, np.uint16)).save(tmp_path / "a.png")
    tracemalloc.start()  # NumPy reports its memory to it
    gray = read_image(tmp_path / "a.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert gray.getpixel((0, 0)) == (156, 156, 156)
    assert peak < 4 * side * side + 40e6  # a float64 copy takes 8 bytes per pixel


def spoil(root, name, content=b"", **options):
    (root / name).write_bytes(content)
    return root / name


def encoded(pixels, kind, **options):
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"pe_dense_test_{os.getpid()}")
    Image.fromarray(pixels).save(path, kind, **options)
    with open(path, "rb") as file:
        content = file.read()
    os.unlink(path)
    return content


BROKEN = {
    "empty": (lambda p: b"", "not one of JPEG, PNG"),
    "an error page": (lambda p: b"<html>404</html>", "not one of JPEG, PNG"),
    "EPS": (lambda p: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not one of JPEG, PNG"),
    "PPM": (lambda p: b"P6 1 1 255 abc", "not one of JPEG, PNG"),
    "JPEG cut short": (lambda p: encoded(p, "JPEG")[:-200], "(?i)truncated"),
    "PNG cut short": (lambda p: encoded(p, "PNG")[:-40], "truncated|broken|EOF|file"),
    "WebP cut short": (lambda p: encoded(p, "WEBP")[:-20], "is not a readable image"),
    "TIFF cut short": (lambda p: encoded(p, "TIFF")[:3000], "is not a readable image"),
    "wrong checksum": (lambda p: encoded(p, "PNG").replace(b"IHDR\x00", b"IHDR\x01", 1), "is not a readable image"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_one_line_with_the_name(tmp_path, pixels, kind):
    make, reason = BROKEN[kind]
    path = spoil(tmp_path, "a.jpg", make(pixels))
    with pytest.raises(ImageError, match=reason) as error:
        loaded(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ImageError, match=reason):
        read_image(path)


def test_png_without_an_end(tmp_path, pixels):
    """All pixels are there, without the last chunk: OpenCV refuses it, Pillow reads it."""
    path = spoil(tmp_path, "a.png", encoded(pixels, "PNG")[:-12])
    np.testing.assert_array_equal(loaded(path), pixels)


def test_ghostscript_is_never_started(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    path = spoil(tmp_path, "a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    for read in (read_image, decode, image_size, loaded):
        with pytest.raises(ImageError):
            read(path)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("read", [read_image, decode, image_size, loaded])
def test_only_regular_files_are_opened(tmp_path, read):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(ImageError, match=r"a\.png is a FIFO, not a regular file"):
        read(tmp_path / "a.png")  # would wait for ever
    with pytest.raises(ImageError, match=r"b\.png is a folder, not a regular file"):
        read(tmp_path / "b.png")
    with pytest.raises(ImageError, match="cannot be read"):
        read(tmp_path / ("long" * 100))
    with pytest.raises((FileNotFoundError, ImageError), match=r"c\.png does not exist"):
        read(tmp_path / "c.png")


def test_one_limit_of_pixels(tmp_path, pixels, monkeypatch):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT - 1)
    for read in (read_image, decode, image_size, loaded):
        with pytest.raises(ImageError, match=r"a\.png is not a readable image \(48 x 32 px, more than"):
            read(tmp_path / "a.png")


def test_jpeg_with_thousands_of_scans(tmp_path, pixels):
    """A scan is repeated: 100 bytes each, and the time of decoding the whole image."""
    content = encoded(pixels, "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    path = spoil(tmp_path, "a.jpg", content[:-2] + content[start:-2] * 2000 + b"\xff\xd9")
    with pytest.raises(ImageError, match=r"a\.jpg is not a readable image \(a JPEG of 0\.0 million pixels with 20\d\d"):
        read_image(path)
    assert read_image(spoil(tmp_path, "b.jpg", content)).size == (WIDTH, HEIGHT)


def test_truncated_files_are_refused_whatever_pillow_was_set_to(tmp_path, pixels):
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False  # no import of ours, or of mmdet's, changes it


# --- images against their annotations ---


def test_an_image_of_another_size_than_annotated(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    reader = LoadImage()
    assert reader(dict(img_path=str(tmp_path / "a.png"), width=48, height=32))["ori_shape"] == (32, 48)
    with pytest.raises(ImageError, match=r"a\.png is 48 x 32 pixels, but its annotation says 32 x 48.*EXIF"):
        reader(dict(img_path=str(tmp_path / "a.png"), width=32, height=48))


def test_a_broken_image_is_skipped_named_and_counted(tmp_path, pixels, logged):
    spoil(tmp_path, "a.png", b"no image")
    Image.fromarray(pixels).save(tmp_path / "b.png")
    reader = LoadImage(on_error="skip")
    for _ in range(2):
        assert reader(dict(img_path=str(tmp_path / "a.png"))) is None
    assert reader(dict(img_path=str(tmp_path / "b.png"), width=9, height=9)) is None
    first, second = logged
    assert first.startswith("Skipped image 1 of this process: ") and "a.png is not a readable image" in first
    assert second.startswith("Skipped image 2 of this process: ") and "b.png is 48 x 32 pixels" in second


@pytest.mark.parametrize("options", [dict(on_error="ignore"), dict(white_level=0), dict(white_level=float("nan"))])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match="on_error is 'ignore', must be one of raise, skip|white_level is"):
        LoadImage(**options)


class _Files(torch.utils.data.Dataset):
    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return LoadImage()(dict(img_path=str(self.path)))


def test_an_error_of_a_data_worker_is_one_line(tmp_path):
    loader = torch.utils.data.DataLoader(_Files(spoil(tmp_path, "a.png", b"no image")), num_workers=1)
    with pytest.raises(ImageError) as error:
        next(iter(loader))
    assert str(error.value).startswith(f"{tmp_path}/a.png is not a readable image")


# --- pipelines taken apart by the classes of their steps ---


def test_steps_are_recognized_however_they_are_named():
    from mmcv.transforms import LoadImageFromFile
    from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs

    init_default_scope("mmdet")
    pipeline = [
        dict(type=LoadImageFromFile, to_float32=True),
        dict(type="mmdet.LoadAnnotations", with_bbox=True),
        dict(type=LoadAnnotations, with_bbox=True),
        dict(type="LoadAnnotations"),
        dict(type="pe_dense.LoadLabelMap", num_classes=3),
        dict(type="mmseg.LoadDepthAnnotation"),
        dict(type="mmdet.LoadPanopticAnnotations"),
        dict(type=PackDetInputs),
    ]
    assert [loads_annotations(step) for step in pipeline] == [False, *[True] * 6, False]
    assert [transform_class(step) for step in without_loading(pipeline)] == [PackDetInputs]
    reader = image_reader(pipeline)
    assert isinstance(reader, LoadImage) and reader.to_float32
    kept = image_reader([dict(type="mmcv.LoadImageFromFile", imdecode_backend="pillow")])
    assert type(kept) is LoadImageFromFile and kept.imdecode_backend == "pillow"
    ours = image_reader([dict(type="pe_dense.LoadImage", white_level=4095)])
    assert ours.white_level == 4095
    with pytest.raises(ValueError, match="'Nothing' is not a registered transform"):
        transform_class(dict(type="Nothing"))


def test_annotations_inside_of_test_time_augmentation_are_left_out():
    init_default_scope("mmseg")
    views = [[dict(type="RandomFlip", prob=p) for p in (0.0, 1.0)], [dict(type="pe_dense.LoadLabelMap", num_classes=2)]]
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="TestTimeAug", transforms=[*views, [dict(type="PackSegInputs")]]),
    ]
    steps = without_loading(pipeline)
    assert [[item["type"] for item in group] for group in steps[0]["transforms"]] == [
        ["RandomFlip", "RandomFlip"],
        ["PackSegInputs"],
    ]
    views = Compose(steps)(dict(img=np.zeros((8, 8, 3), np.uint8), img_shape=(8, 8), ori_shape=(8, 8), img_path="a"))
    assert len(views["inputs"]) == 2


# --- finding files and naming outputs ---


def test_outputs_are_not_inputs(tmp_path, pixels):
    photos = tmp_path / "photos"
    for name in ("a.png", "b.png", "out/a.png", "earlier/a.png", "earlier/a_labels.png", "mine/a.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(photos / name)
    (photos / "earlier/a.json").write_text('{"image": "a.png", "width": 1}')
    (photos / "mine/a.json").write_text('{"shapes": []}')  # annotations of the user's own
    names = [
        str(path.relative_to(photos))
        for path in find_images([photos, photos / "a.png"], exclude=[photos / "out"], skip_outputs=True)
    ]
    assert names == ["a.png", "b.png", "mine/a.png"]
    assert len(find_images([photos])) == 6
    assert find_images([photos / "out"], exclude=[tmp_path]) == [photos / "out/a.png"]  # a folder above hides nothing


def test_two_inputs_never_share_an_output(tmp_path):
    names = ["a.jpg", "a_labels.jpg", "A.png", "b/a.jpg"]
    paths = [tmp_path / name for name in names]
    for order in (paths, paths[::-1]):
        made = [f"{name}{ending}" for name in output_names(order, ("", "_labels")) for ending in ("", "_labels")]
        assert len({name.casefold() for name in made}) == 8

"""All modes of the tool on small images with a small tower."""

import os

import av
import numpy as np
import pytest
import torch
from helpers.tiny_clip import tiny_clip
from helpers.tiny_towers import ARCH, tiny_tower
from mmengine.config import Config
from PIL import Image

from pe_dense.apps.visualize import draw
from pe_dense.language import save_clip
from pe_dense.language.dense import CORE_MODES
from pe_dense.utils.errors import ConfigError
from pe_dense.utils.video import read_video, write_video
from pe_dense.visualization import feature_rgb, fit_basis
from pe_dense.visualization.features import prepare
from pe_dense.visualization.figures import sample_numbers

DEFAULTS = dict(
    arch=None, layers="-1", mode="pca", mask=None, point=None, size=None, per_image=False, overwrite=False, device="cpu"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, two photos of other proportions, a mask and a video."""
    folder = tmp_path_factory.mktemp("command")
    config = Config(dict(model=dict(backbone=dict(type="pe_dense.PETower", arch=ARCH))))
    state = {f"backbone.{key}": value for key, value in tiny_tower().state_dict().items()}
    torch.save(dict(state_dict=state, meta=dict(cfg=config.pretty_text)), folder / "run.pth")
    save_clip(tiny_clip(), folder / "clip.pt")
    generator = np.random.default_rng(0)
    for name, size in (("a", (64, 48)), ("b", (30, 90))):
        pixels = generator.integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(pixels).resize(size).save(folder / f"{name}.png")
    white = np.zeros((48, 64), np.uint8)
    white[:, :32] = 255
    Image.fromarray(white).save(folder / "mask.png")
    Image.new("L", (30, 90), 255).save(folder / "full.png")
    film = np.asarray(Image.open(folder / "a.png"))
    write_video(folder / "film.mp4", [np.roll(film, 3 * shift, axis=1) for shift in range(20)], fps=10)
    return folder


def run(folder, out, *names, **options):
    """Draw and return the names of the files."""
    sources = [str(folder / name) for name in names]
    defaults = DEFAULTS | dict(weights=str(folder / "run.pth"), out=out, left_out=[])
    paths = list(draw(sources, **defaults | options))
    assert {path.name for path in out.iterdir()} >= {path.name for path in paths}
    return [path.name for path in paths]


def pixels(path):
    return np.asarray(Image.open(path))


def test_pca(folder, tmp_path):
    assert run(folder, tmp_path / "o", "a.png", "b.png") == ["a.png", "b.png"]
    sheet = Image.open(tmp_path / "o" / "a.png")
    assert sheet.width == 2 * 480 + 3 * 12
    assert len(np.unique(pixels(tmp_path / "o" / "a.png")[100:, 500:].reshape(-1, 3), axis=0)) > 10


def test_colors_do_not_depend_on_the_order_of_files(folder, tmp_path):
    run(folder, tmp_path / "o", "a.png", "b.png")
    run(folder, tmp_path / "p", "b.png", "a.png")
    for name in ("a.png", "b.png"):
        assert np.array_equal(pixels(tmp_path / "o" / name), pixels(tmp_path / "p" / name))


def test_per_image(folder, tmp_path):
    run(folder, tmp_path / "o", "a.png", "b.png", per_image=True)
    run(folder, tmp_path / "p", "a.png")
    assert np.array_equal(pixels(tmp_path / "o" / "a.png"), pixels(tmp_path / "p" / "a.png"))


def test_size_makes_maps_finer(folder, tmp_path):
    run(folder, tmp_path / "o", "a.png", size=32)
    run(folder, tmp_path / "p", "a.png", size=128)
    coarse, fine = (len(np.unique(pixels(tmp_path / x / "a.png")[60:, 520:].reshape(-1, 3), axis=0)) for x in "op")
    assert fine > 2 * coarse


def test_all_layers_make_a_grid_and_an_animation(folder, tmp_path):
    assert run(folder, tmp_path / "o", "a.png", layers="all") == ["a.png", "a_layers.mp4"]
    assert Image.open(tmp_path / "o" / "a.png").width == 4 * 480 + 5 * 12
    with av.open(str(tmp_path / "o" / "a_layers.mp4")) as container:
        assert len(list(container.decode(video=0))) == 3


def test_masks(folder, tmp_path):
    run(folder, tmp_path / "o", "a.png", mask=[str(folder / "mask.png")])
    sheet = pixels(tmp_path / "o" / "a.png")
    assert (sheet[200:, 520 + 240 : 980] == 255).all()
    assert (sheet[200:300, 520:720] < 255).any(axis=-1).all()
    run(folder, tmp_path / "p", "a.png", "b.png", mask=["auto"])
    assert (pixels(tmp_path / "p" / "a.png")[60:400, 510:960] == 255).all(axis=-1).any()


def test_correspondence(folder, tmp_path):
    masks = [str(folder / "mask.png"), str(folder / "full.png")]
    for mask in (None, ["auto"], masks):
        out = tmp_path / str(mask and len(mask))
        assert run(folder, out, "a.png", "b.png", mode="correspondence", mask=mask) == ["a_b_layer2.png"]
    assert Image.open(out / "a_b_layer2.png").width >= 480 + 160 + 3 * 12


def test_clusters(folder, tmp_path):
    assert run(folder, tmp_path / "o", "a.png", "b.png", mode="clusters", clusters=3) == [
        "a_clusters.png",
        "b_clusters.png",
    ]
    drawn = pixels(tmp_path / "o" / "a_clusters.png")[100:, 520:960].reshape(-1, 3).astype(int)
    hues = {tuple(np.sign(pixel - pixel.mean()).astype(int)) for pixel in np.unique(drawn, axis=0)}
    assert len(hues) >= 3
    assert run(folder, tmp_path / "p", "a.png", mode="clusters", layers="0,-1") == ["a_clusters.png"]
    assert Image.open(tmp_path / "p" / "a_clusters.png").width == 3 * 480 + 4 * 12


def test_discovery(folder, tmp_path):
    for name, options in (("tokencut", dict(tau=0.5)), ("lost", dict(method="lost")), ("tokencut", {})):
        out = tmp_path / str(options)
        assert run(folder, out, "a.png", "b.png", mode="discovery", **options) == [f"a_{name}.png", f"b_{name}.png"]
        assert (pixels(out / f"a_{name}.png") == (230, 159, 0)).all(-1).sum() > 50  # the box


def test_options_of_clusters_and_discovery(folder, tmp_path):
    for options, message in (
        (dict(clusters=3), "--clusters is not supported by --mode pca: it belongs to --mode clusters"),
        (dict(mode="clusters", tau=0.1), "--tau is not supported by --mode clusters: it belongs to --mode discovery"),
        (dict(mode="discovery", method="lost", tau=0.1), "--tau is not supported by --method lost"),
        (dict(mode="discovery", point="1,1"), "--point is not supported by --mode discovery"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(folder, tmp_path / "o", "a.png", **options)


def test_similarity(folder, tmp_path):
    options = dict(mode="similarity", layers="0,-1")
    assert run(folder, tmp_path / "o", "a.png", "b.png", point="5,40", **options) == ["a_similarity.png"]
    run(folder, tmp_path / "p", "a.png", "b.png", **options)
    run(folder, tmp_path / "q", "a.png", "b.png", point="32,24", **options)
    corner, middle, default = (pixels(tmp_path / x / "a_similarity.png") for x in "oqp")
    assert np.array_equal(middle, default)
    assert not np.array_equal(corner, default)


def test_attention(folder, tmp_path):
    assert run(folder, tmp_path / "o", "a.png", "b.png", mode="attention", point="5,40") == [
        "a_attention.png",
        "b_attention.png",
    ]
    assert Image.open(tmp_path / "o" / "a_attention.png").width == 4 * 480 + 5 * 12  # photo, mean, two heads
    run(folder, tmp_path / "p", "a.png", mode="attention", layers="0,1")
    assert Image.open(tmp_path / "p" / "a_attention.png").width == 3 * 480 + 4 * 12  # photo, two means


def words(folder, out, *names, **options):
    clip = dict(mode="words", words="a dog, grass; lawn", weights=str(folder / "clip.pt"), size=64)
    return run(folder, out, *names, **clip | options)


def test_words(folder, tmp_path):
    """One row: the photo, a heat map with a color bar for each word, the labels with a legend of their colors."""
    assert words(folder, tmp_path / "o", "a.png", "b.png") == ["a_words.png", "b_words.png"]
    sheet = pixels(tmp_path / "o" / "a_words.png")
    assert sheet.shape[1] == 4 * 320 + 5 * 12
    legend = sheet[-40:, 3 * 332 + 12 :]
    for color in ((31, 119, 180), (255, 127, 14)):
        assert (legend == color).all(axis=-1).sum() > 100
    below = sheet[-60:, 344:664].astype(int)
    for end in ((0, 0, 4), (252, 254, 164)):  # of the color bar
        assert (np.abs(below - end).max(axis=-1) < 4).any()
    assert Image.open(tmp_path / "o" / "b_words.png").width == 4 * 240 + 5 * 12  # a portrait, widened for its legend


def test_words_depend_on_patches_and_background(folder, tmp_path):
    def drawn(name, **options):
        words(folder, tmp_path / name, "a.png", **options)
        return pixels(tmp_path / name / "a_words.png")[40:260]

    pooled = drawn("pooled")
    assert np.array_equal(pooled, drawn("again", patches="pooled"))
    modes = [pooled, *(drawn(mode, patches=mode) for mode in CORE_MODES if mode not in ("pooled", "proxy"))]
    assert len({picture.tobytes() for picture in modes}) == len(CORE_MODES) - 1
    labels = drawn("background", background=1.0)[:, 3 * 332 + 12 : -12]
    assert np.ptp(labels, axis=-1).max() == 0  # nothing is certain: no pixel has a color


def test_words_in_any_script(folder, tmp_path):
    for name, text in (("a", "\U0001f415, собака, 犬, \x07bell, " + 40 * "x"), ("b", "x\udcff, ñ")):
        assert words(folder, tmp_path / name, "a.png", words=text) == ["a_words.png"]


def test_words_by_the_similarities_of_another_backbone(folder, tmp_path):
    with pytest.raises(ValueError, match="no default proxy for a CLIP given by fields"):
        words(folder, tmp_path / "o", "a.png", patches="proxy")


def test_videos(folder, tmp_path):
    assert run(folder, tmp_path / "o", "film.mp4", "a.png") == ["a.png", "film_features.mp4"]
    with av.open(str(tmp_path / "o" / "film_features.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert float(container.streams.video[0].average_rate) == 10
    assert len(frames) == 20
    assert frames[0].shape[1] == 2 * 480 + 3 * 12
    tower = tiny_tower()
    inputs = [prepare(Image.fromarray(frame), tower, 16) for frame in read_video(folder / "film.mp4")]
    with torch.no_grad():
        maps = [tower(x)[0] for x in inputs]
    common = fit_basis([maps[number] for number in sample_numbers(20)])
    for number in (0, 7, 19):
        drawn = Image.fromarray(frames[number]).crop((504, 12, 984, 372)).resize((4, 3), Image.Resampling.BOX)
        expected, alone = feature_rgb(maps[number], basis=common)[0], feature_rgb(maps[number])[0]
        assert np.abs(np.asarray(drawn).astype(int) - expected).mean() < 6
        assert np.abs(np.asarray(drawn).astype(int) - alone).mean() > 12


def test_frames_for_the_basis_are_spread():
    assert sample_numbers(3) == {0, 1, 2}
    assert sample_numbers(301) == set(range(0, 301, 20))
    assert sample_numbers(1) == {0}


def test_images_of_all_sizes(folder, tmp_path):
    for name, size in (("panorama", (501, 7)), ("dot", (2, 1))):
        Image.effect_noise(size, 100).save(tmp_path / f"{name}.png")
        assert run(tmp_path, tmp_path / name, f"{name}.png", weights=str(folder / "run.pth")) == [f"{name}.png"]


def test_nothing_is_overwritten_unasked(folder, tmp_path):
    run(folder, tmp_path / "o", "a.png")
    with pytest.raises(FileExistsError, match="o is not empty: choose another folder or pass --overwrite"):
        run(folder, tmp_path / "o", "a.png")
    run(folder, tmp_path / "o", "a.png", overwrite=True)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["a.png"], dict(mode="correspondence"), "--mode correspondence requires at least two images"),
        (["absent.png"], dict(), "absent.png does not exist"),
        (["run.pth", "a.png"], dict(mode="similarity"), "run.pth is not a readable image .* name another one"),
        (["run.pth", "a.png"], dict(mode="correspondence"), "run.pth is not a readable image .* name another one"),
        (["run.pth", "a.png"], dict(mode="attention", point="1,1"), "run.pth is not a readable image .* name another"),
        (["a.png"], dict(layers="3"), r"--layers: block 3 is out of range for 3 blocks; allowed are -3\.\.2"),
        (["a.png"], dict(layers="last"), "--layers must be 'all' or numbers .* got 'last'"),
        (["a.png"], dict(point="1,1"), "--point is not supported by --mode pca"),
        (["a.png"], dict(mode="similarity", point="1"), "--point must be x and y in pixels .* got '1'"),
        (["a.png"], dict(mode="similarity", point="cls"), "--point cls is not supported by --mode similarity"),
        (["a.png"], dict(mode="similarity", point="64,1"), "point 64,1 lies outside of the image of 64 x 48 px"),
        (["a.png"], dict(mode="attention", point="cls"), "has no class token"),
        (["a.png"], dict(mode="attention", mask=["auto"]), "--mask is not supported by --mode attention"),
        (["a.png"], dict(mode="attention", per_image=True), "--per-image is not supported by --mode attention"),
        (["a.png", "b.png"], dict(mask=["mask.png"]), "1 masks for 2 images: give one for each, or 'auto'"),
        (["a.png"], dict(mask=["full.png"]), "must have the same aspect ratio"),
        (["a.png"], dict(size=0), "size 0 is shorter than a patch of 4 px"),
        (["a.png"], dict(size=3), "size 3 is shorter than a patch of 4 px"),
        (["film.mp4"], dict(mode="attention"), "film.mp4 is a video: videos support only --mode pca"),
        (["film.mp4"], dict(layers="all"), "a video is drawn with one layer, but --layers all selects 3"),
        (["a.png"], dict(arch="PE-Spatial-T16-512"), "leave --arch out"),
        (["a.png"], dict(words="a dog"), "--words is not supported by --mode pca: it belongs to --mode words"),
        (["a.png"], dict(background=0.0), "--background is not supported by --mode pca"),
        (["a.png"], dict(mode="words"), "--mode words needs --words, such as --words 'a dog, grass, sky'"),
        (["a.png"], dict(mode="words", words=" , "), "the list of words is empty"),
        (["a.png"], dict(mode="words", words="dog, cat , Dog"), "class names are given twice: dog"),
        (["a.png"], dict(mode="words", words="dog,\u200b"), r"word '\\u200b' has no visible character"),
        (["a.png"], dict(mode="words", words="a", patches="pool"), "--patches pool is not one of pooled, proxy, self"),
        (
            ["a.png"],
            dict(mode="words", words="a", patches="tokens"),
            "--patches tokens is not one of .*clearclip",
        ),
        (["a.png"], dict(mode="words", words="a", layers="0"), "--mode words uses the last layer, but --layers 0"),
        (["a.png"], dict(mode="words", words="a", point="1,1"), "--point is not supported by --mode words"),
        (["a.png"], dict(mode="words", words="a"), "run.pth contains no image tower 'visual.*'; models with both"),
        (
            ["a.png"],
            dict(mode="words", words="a", arch="PE-Spatial-B16-512", weights=None),
            "PE-Spatial-B16-512 has no text tower; models with a text tower: PE-Core-T16-384",
        ),
        (["a.png"], dict(mode="words", words="a", weights=None), "no model given: set --arch, such as PE-Core-B16-224"),
        (["film.mp4"], dict(mode="words", words="a"), "film.mp4 is a video: videos support only --mode pca"),
    ],
)
def test_mistakes_are_reported(folder, tmp_path, names, options, message):
    if isinstance(options.get("mask"), list) and options["mask"] != ["auto"]:
        options = options | dict(mask=[str(folder / name) for name in options["mask"]])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(folder, tmp_path / "o", *names, **options)
    assert not list((tmp_path / "o").glob("*"))


BROKEN = ("broken.png", "broken.mp4", "fifo.png")


@pytest.fixture
def broken(folder, tmp_path, bounded):
    """Return images and a video among files that cannot be read."""
    for name in ("a.png", "b.png", "full.png", "film.mp4"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "broken.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (tmp_path / "broken.mp4").write_bytes((folder / "film.mp4").read_bytes()[:200])
    os.mkfifo(tmp_path / "fifo.png")
    return tmp_path


@pytest.mark.parametrize(
    ("mode", "drawn"),
    [
        ("pca", ["a.png", "b.png", "film_features.mp4"]),
        ("similarity", ["a_similarity.png"]),
        ("correspondence", ["a_b_layer2.png"]),
        ("attention", ["a_attention.png", "b_attention.png"]),
    ],
)
def test_files_that_cannot_be_read_do_not_stop_the_others(folder, broken, mode, drawn):
    names = ["a.png", "broken.png", "fifo.png", "b.png"] + (["broken.mp4", "film.mp4"] if mode == "pca" else [])
    left_out = []
    options = dict(weights=str(folder / "run.pth"), left_out=left_out, mode=mode)
    assert run(broken, broken / "out", *names, **options) == drawn
    assert sorted(path.name for path, _ in left_out) == sorted(set(names) & set(BROKEN))
    assert all(str(path) in reason for path, reason in left_out)


def test_masks_stay_with_their_images(folder, broken):
    options = dict(
        weights=str(folder / "run.pth"), mask=[str(folder / f"{name}.png") for name in ("mask", "b", "full")]
    )
    assert run(broken, broken / "out", "a.png", "broken.png", "b.png", **options) == ["a.png", "b.png"]
    assert (pixels(broken / "out/a.png")[200:, 520 + 240 : 980] == 255).all()  # the right half is not in its mask


def test_nothing_is_drawn_where_no_file_can_be_read(folder, broken):
    left_out = []
    options = dict(weights=str(folder / "absent.pth"), out=broken / "out", left_out=left_out)
    assert list(draw([str(broken / name) for name in BROKEN], **DEFAULTS | options)) == []
    assert len(left_out) == 3 and not (broken / "out").exists()


def test_outputs_are_neither_read_again_nor_written_over_images(folder, tmp_path):
    (tmp_path / "in").mkdir()
    photo = (folder / "a.png").read_bytes()
    (tmp_path / "in" / "a.png").write_bytes(photo)
    out = tmp_path / "in" / "out"
    for _ in range(2):
        options = dict(weights=str(folder / "run.pth"), out=out, overwrite=True, left_out=[])
        paths = draw([str(tmp_path / "in")], **DEFAULTS | options)
        assert [path.name for path in paths] == ["a.png"]
    for source in ("in", "in/a.png"):
        options = dict(weights=str(folder / "run.pth"), out=tmp_path / "in", overwrite=True, left_out=[])
        with pytest.raises((ConfigError, FileNotFoundError)):
            list(draw([str(tmp_path / source)], **DEFAULTS | options))
    assert (tmp_path / "in" / "a.png").read_bytes() == photo

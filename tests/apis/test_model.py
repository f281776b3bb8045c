"""Load models by their run and predict typed results on all kinds of inputs."""

import sys

import numpy as np
import pytest
import torch
from helpers.run_folder import COLORS, write_run
from helpers.tiny_clip import tiny_clip
from helpers.tool_runs import call_tool
from PIL import Image

import pe_dense
from pe_dense.apis import Model
from pe_dense.language import save_clip
from pe_dense.runtime import DepthMap, Detections, LabelMap
from pe_dense.utils.errors import ConfigError, InputError
from pe_dense.utils.video import write_video


def same(a, b):
    assert np.abs(a.scores - b.scores).max() < 1e-5
    assert np.abs(a.boxes - b.boxes).max() < 1e-3
    assert (np.asarray(a.masks) == np.asarray(b.masks)).mean() > 0.999


def test_a_run_is_enough(detector):
    """Classes and colors are those of the checkpoint; the data are not there."""
    assert isinstance(detector, Model)
    assert detector.classes == tuple(f"class {number}" for number in range(8))


def test_backbones_are_compiled_or_run_in_bfloat16_on_request(run, photos, tmp_path, monkeypatch):
    calls = []

    def accelerate(network, **options):
        calls.append((type(network).__name__, options))

    monkeypatch.setattr("pe_dense.apis.model.accelerate", accelerate)
    monkeypatch.setattr("pe_dense.engine.acceleration.accelerate", accelerate)
    pe_dense.load(run, device="cpu", compiled=True, dtype="auto")
    done = call_tool("predict", run, photos[0], "--out", tmp_path / "out", "--compile", "--dtype", "bfloat16")
    assert done.returncode == 0, done.stderr[-2000:]
    assert [name for name, _ in calls] == 2 * ["MaskRCNN"]
    assert [options for _, options in calls] == [
        dict(compiled=True, dtype="auto"),
        dict(compiled=True, dtype="bfloat16"),
    ]


def test_results_do_not_depend_on_the_kind_of_input(detector, photos):
    pixels = [np.asarray(Image.open(photo)) for photo in photos]
    tensor = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    expected = detector.predict(photos[0].parent, score_thr=0)
    assert [one.source.path for one in expected] == photos
    assert all(isinstance(one, Detections) and len(one) > 5 for one in expected)
    assert expected[0].masks.shape == (len(expected[0]), 96, 128)
    assert expected[0].names[0] == f"class {expected[0].labels[0]}"
    for images in (photos, map(str, photos), [Image.open(p) for p in photos], pixels, tensor, tensor / 255):
        found = detector.predict(images, batch_size=2, score_thr=0)
        for a, b in zip(found, expected, strict=True):
            same(a, b)
    assert len(detector.predict(pixels[0])) == 1


def test_thresholds(detector, photos):
    (found,) = detector.predict(photos[0], score_thr=0)
    middle = float(np.median(found.scores))
    (some,) = detector.predict(photos[0], score_thr=middle)
    assert 0 < len(some) < len(found)
    assert some.scores.min() >= middle
    name = found.names[0]
    (others,) = detector.predict(photos[0], score_thr={name: 1.0})
    assert len(others) == sum(other != name for other in found.names)
    with pytest.raises(InputError, match="threshold of 'clas 1'.* did you mean class 1"):
        detector.predict(photos[0], score_thr={"clas 1": 0.5})


def test_video_frames(detector, tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(3)]
    write_video(tmp_path / "clip.mp4", frames, 5)
    results = detector.predict(tmp_path / "clip.mp4")
    assert [one.source.frame for one in results] == [0, 1, 2]
    assert results[0].source.pixels is None
    with pytest.raises(InputError, match="pixels of this image were not kept"):
        results[0].draw()
    assert next(detector.stream(tmp_path / "clip.mp4")).draw().shape == (320, 480, 3)


def test_drawing_and_saving(detector, photos, tmp_path):
    (found,) = detector.predict(photos[:1], score_thr=0)
    drawn = found.draw()
    assert drawn.shape == (384, 512, 3)
    color = COLORS[found.labels[0]]
    assert (drawn == np.array(color)).all(2).sum() > 50
    assert (found[:0].draw() == color).all(2).sum() < 50
    path = found.save(tmp_path / "a.png")
    assert (np.asarray(Image.open(path)) == drawn).all()
    with pytest.raises(FileExistsError, match="choose another name or pass overwrite=True"):
        found.save(path)
    arrays = np.load(found.save(tmp_path / "a.npz"))
    assert (arrays["boxes"] == found.boxes).all()
    assert arrays["masks"].shape == found.masks.shape
    with pytest.raises(InputError, match=r"saved as \.json, \.npz, \.png or \.jpg"):
        found.save(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("name", "kind", "attribute"),
    [("shapes_linear_pe_tiny", LabelMap, "label_map"), ("shapes_depth_linear_pe_tiny", DepthMap, "depth")],
)
def test_probes(tmp_path, photos, name, kind, attribute):
    run = write_run(tmp_path, name, classes=())
    model = pe_dense.load(run / "iter_4.pth", device="cpu")
    (found,) = model.predict(photos[0])
    assert isinstance(found, kind)
    assert getattr(found, attribute).shape == (96, 128)
    assert found.draw().shape[1] > 2 * 128
    (again,) = model.predict(np.asarray(Image.open(photos[0])))
    assert (getattr(again, attribute) == getattr(found, attribute)).all()


def test_words(tmp_path, photos):
    save_clip(tiny_clip(), tmp_path / "clip.pt")
    (tmp_path / "words.txt").write_text("cat; kitten\ndog\n")
    model = pe_dense.load(
        tmp_path / "clip.pt", words=tmp_path / "words.txt", device="cpu", options={"model.templates": "none"}
    )
    (found,) = model.predict(photos[0])
    assert found.classes == model.classes == ("cat", "dog")
    assert found.label_map.shape == (96, 128)
    with pytest.raises(ConfigError, match="words do not go with tower"):
        pe_dense.load("PE-Core-B16-224", words="cat", tower="PE-Core-B16-224")
    for name, message in (
        ("tower", "the model is given twice, by PE-Mini-Core and by the option tower"),
        ("model.clip", "the model is given twice, by PE-Mini-Core and by the option model.clip"),
        ("model.words", "the words are given twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            pe_dense.load("PE-Mini-Core", words="cat", device="cpu", options={name: "PE-Core-B16-224"})


def test_mistakes(detector, tmp_path):
    for image, message in (
        ("https://example.org/a.jpg", r"a\.jpg is a URL: download the image and pass its path"),
        (np.zeros((4, 4, 3)), r"uint8 in RGB, got float64 of shape \(4, 4, 3\)"),
        (torch.zeros(4, 4, 3), r"\(3, H, W\) or \(N, 3, H, W\) in RGB, got \(4, 4, 3\)"),
        (torch.full((3, 4, 4), 2.0), "values from 0 to 1, got 2 to 2"),
        ([{}], "an image is a path, .* got dict"),
    ):
        with pytest.raises(InputError, match=message):
            detector.predict(image)
    with pytest.raises(FileNotFoundError, match="absent.png does not exist"):
        detector.predict(tmp_path / "absent.png")
    with pytest.raises(InputError, match="batch_size is 0, must be at least 1"):
        detector.predict([], batch_size=0)
    with pytest.raises(ConfigError, match="has 0 configs, not the one of a run"):
        pe_dense.load(tmp_path)
    with pytest.raises(ConfigError, match="PE-Mini-Core is a backbone, .* words to segment: pe_dense.load"):
        pe_dense.load("PE-Mini-Core")
    with pytest.raises(ConfigError, match="is a config: name a checkpoint or a work dir after it"):
        pe_dense.load("shapes_maskrcnn_pe_tiny")
    with pytest.raises(FileNotFoundError, match="checkpoint absent.pth does not exist"):
        pe_dense.load("absent.pth")


def test_unknown_names_of_the_package():
    assert "load" in dir(pe_dense)
    with pytest.raises(AttributeError, match="no attribute 'loda'"):
        pe_dense.loda
    assert sys.modules["pe_dense.apis.model"].load is pe_dense.load

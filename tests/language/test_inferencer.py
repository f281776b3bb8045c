"""Windows of the inferencer at the native size of a model."""

import pytest
from helpers.tiny_clip import tiny_clip

from pe_dense.backbones.pe_configs import PE_CONFIGS
from pe_dense.engine.arguments import OptionText
from pe_dense.engine.config import load_config
from pe_dense.language import OpenVocabularyPredictor, save_clip
from pe_dense.language.inferencer import native_windows
from pe_dense.utils.errors import InputError


@pytest.mark.parametrize(
    ("name", "crop", "stride", "short_side"),
    [
        ("PE-Core-L14-336", 336, 112, 448),  # the protocols that the others are scaled from
        ("PE-Core-B16-224", 224, 80, 304),
        ("PE-Core-T16-384", 384, 128, 512),
        ("PE-Core-G14-448", 448, 154, 602),
        ("PE-Mini-Core", 128, 40, 168),
    ],
)
def test_native_windows(name, crop, stride, short_side):
    windows = dict(mode="slide", crop_size=(crop, crop), stride=(stride, stride))
    assert native_windows(PE_CONFIGS[name]) == (windows, short_side)


def test_windows_smaller_than_a_patch():
    assert native_windows(PE_CONFIGS["PE-Mini-Core"], (32, 4))[0]["stride"] == (8, 4)


@pytest.mark.parametrize(
    ("given", "crop", "stride", "scale"),
    [
        (None, (336, 336), (112, 112), (2048, 448)),
        ({}, (32, 32), (8, 8), (2048, 40)),
        ({"model.test_cfg.crop_size": "(24,16)"}, (24, 16), (8, 8), (2048, 40)),
        (
            {"model.test_cfg.stride": "(16,16)", "test_dataloader.dataset.pipeline.1.scale": "(64,64)"},
            (32, 32),
            (16, 16),
            (64, 64),
        ),
    ],
)
def test_native_size_of_a_model(tmp_path, given, crop, stride, scale):
    """What the user sets is kept, and without names all of the config is."""
    save_clip(tiny_clip(), tmp_path / "clip.pt")
    config = load_config("ade20k_words_pe_l14", {name: OptionText(value) for name, value in (given or {}).items()})
    config.model.update(clip=str(tmp_path / "clip.pt"), templates="none")
    predictor = OpenVocabularyPredictor(config, None, "cpu", "cat, dog", native_except=given)
    windows = predictor.model.test_cfg
    assert (tuple(windows.crop_size), tuple(windows.stride)) == (crop, stride)
    (resize,) = [step for step in predictor._pipeline.transforms if type(step).__name__ == "Resize"]
    assert tuple(resize.scale) == scale


def test_stride_of_more_than_the_native_size(tmp_path):
    save_clip(tiny_clip(), tmp_path / "clip.pt")
    config = load_config("ade20k_words_pe_l14")
    config.model.update(clip=str(tmp_path / "clip.pt"))
    with pytest.raises(InputError, match=r"test_cfg.stride \(112, 112\) is larger than the window \(32, 32\)"):
        OpenVocabularyPredictor(config, None, "cpu", "cat, dog", native_except=["model.test_cfg.stride"])

"""Feature cache, including damaged and foreign files."""

import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pe_dense.distillation import feature_cache
from pe_dense.distillation.feature_cache import FeatureCache
from pe_dense.utils.atomic_write import WriteError

IMAGES = torch.arange(24.0).view(2, 3, 2, 2)


def mean(images):
    return images.mean((2, 3))


@pytest.fixture
def file(tmp_path):
    FeatureCache(tmp_path).get(IMAGES, "mean", mean)
    return sorted(tmp_path.rglob("*.safetensors"))[0]


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        flip_a_bit,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"x" * 100),
        lambda path: save_file({"other": torch.zeros(3)}, path),
        lambda path: save_file({"features": torch.zeros(7)}, path),
        lambda path: save_file({"features": torch.zeros(3, dtype=torch.int64)}, path),
        lambda path: save_file({"features": torch.full((3,), torch.nan)}, path),
        lambda path: save_file({"features": torch.zeros(3)}, path, metadata={"digest": "0" * 32}),
    ],
    ids=["bit", "empty", "text", "key", "shape", "type", "NaN", "digest"],
)
def test_corrupted_files_are_computed_again(tmp_path, file, spoil):
    good = file.read_bytes()
    spoil(file)
    assert torch.equal(FeatureCache(tmp_path).get(IMAGES, "mean", mean), mean(IMAGES))
    assert file.read_bytes() == good
    assert torch.equal(FeatureCache(tmp_path).get(IMAGES, "mean", None), mean(IMAGES))


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_named(tmp_path, file, make, monkeypatch):
    file.unlink()
    make(file)

    def open_other(path, **options):
        # Opening a FIFO waits for ever, and in the library's native code no signal ends that.
        assert path != file
        return safe_open(path, **options)

    monkeypatch.setattr(feature_cache, "safe_open", open_other)
    with pytest.raises(WriteError, match=rf"^Cannot write {file}: it is (a folder|not a regular file)"):
        FeatureCache(tmp_path).get(IMAGES, "mean", mean)


def test_shapes_that_differ_within_a_batch(tmp_path, file):
    foreign = FeatureCache(tmp_path / "foreign")
    foreign.get(IMAGES, "mean", lambda images: mean(images)[:, :2])
    other = tmp_path / "foreign" / file.relative_to(tmp_path)
    os.replace(other, file)
    assert torch.equal(FeatureCache(tmp_path).get(IMAGES, "mean", mean), mean(IMAGES))
    assert load_file(file)["features"].shape == (3,)


def test_features_without_end_are_not_kept(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.get(IMAGES, "", lambda images: torch.full((len(images), 3), torch.inf))
    assert not list(tmp_path.rglob("*.safetensors"))

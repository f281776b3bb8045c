"""Features of lists of images: batches, workers, cache."""

import pytest
import torch
from helpers.tiny_towers import tiny_tower

from pe_dense.evaluation.features import FeatureExtractor, fingerprint


def load(number):
    """Images of two sizes."""
    side = 16 if number % 3 else 24
    return torch.randn(3, 16, side, generator=torch.Generator().manual_seed(number)), f"image {number}"


def collect(**options):
    extractor = FeatureExtractor(tiny_tower(), (0, -1), **options)
    return list(extractor.iter(range(7), load))


@pytest.mark.parametrize("options", [dict(batch_size=1), dict(batch_size=3, workers=2), dict(batch_size=100)], ids=str)
def test_batches_and_workers_change_nothing(options):
    found = collect(**options)
    assert [(index, extra) for index, extra, _ in found] == [(i, f"image {i}") for i in range(7)]
    tower = tiny_tower()
    for index, _, maps in found:
        with torch.no_grad():
            expected = tower.forward_intermediates(load(index)[0][None], (0, 2))
        for layer, features in zip((0, 2), expected, strict=True):
            torch.testing.assert_close(maps[layer], features[0], atol=1e-5, rtol=0)


def test_cache_is_read_instead_of_the_backbone(tmp_path):
    first = collect(cache=tmp_path / "cache")
    extractor = FeatureExtractor(tiny_tower(), (0, -1), cache=tmp_path / "cache")
    extractor._run = lambda images: pytest.fail("the backbone ran")
    for (_, _, before), (_, _, after) in zip(first, extractor.iter(range(7), load), strict=True):
        assert all(torch.equal(before[layer], after[layer]) for layer in (0, 2))


def test_one_forward_pass_for_all_layers_of_missing_images(tmp_path):
    extractor = FeatureExtractor(tiny_tower(), None, cache=tmp_path, batch_size=7)
    run, sizes = extractor._run, []
    extractor._run = lambda images: sizes.append(len(images)) or run(images)
    list(extractor.iter([1, 2, 4], load))
    list(extractor.iter([1, 2, 4, 5], load))
    assert sizes == [3, 1]


def test_other_weights_and_settings_have_other_files():
    tower = tiny_tower()
    assert fingerprint(tower) == fingerprint(tiny_tower())
    assert fingerprint(tower) != fingerprint(tiny_tower(window_size=2))
    with torch.no_grad():
        tower.conv1.weight[0, 0, 0, 0] += 1
    assert fingerprint(tower) != fingerprint(tiny_tower())


def test_size_of_the_cache_is_stated_before(tmp_path, monkeypatch):
    extractor = FeatureExtractor(tiny_tower(), None, cache=tmp_path / "new" / "cache")
    assert extractor.cache_bytes(10, 16) == 3 * 10 * 16 * 32 * 4
    extractor.announce_cache(10, 16)
    with pytest.raises(ValueError, match="the feature cache may take .* GB free: choose fewer layers"):
        extractor.announce_cache(10**12, 16)
    FeatureExtractor(tiny_tower()).announce_cache(10**12, 16)  # without a cache


def test_layer_out_of_range():
    with pytest.raises(ValueError, match="layers: block 3 is out of range for 3 blocks"):
        FeatureExtractor(tiny_tower(), (3,))

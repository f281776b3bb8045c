"""Images with rare classes are repeated as in Detectron2."""

from collections import Counter
from itertools import islice

import pytest
import torch

from pe_dense.datasets.samplers import RepeatFactorSampler, repeat_factors

# Of eight images class 1 is in all but one, class 2 in two (one shows it twice), class 3 in one; one shows nothing.
CLASSES = [[1], [1], [1], [1], [1], [1, 2, 2], [2, 1, 3], []]
# With a threshold of 1/2 they have the factors max(1, sqrt(4/7)), sqrt(4/2), sqrt(4/1); an image has its highest.
FACTORS = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 2**0.5, 2.0, 1.0])


class Data:
    def __len__(self):
        return len(CLASSES)

    def get_cat_ids(self, index):
        return CLASSES[index]


def test_factors_by_hand():
    torch.testing.assert_close(repeat_factors(CLASSES, 0.5), FACTORS)
    assert (repeat_factors(CLASSES, 1e-3) == 1).all()


def test_images_come_as_often_as_their_factors_say():
    passes = 2000
    total = round(float(FACTORS.sum()) * passes)
    counts = Counter(islice(RepeatFactorSampler(Data(), 0.5, seed=0), total))
    for index, factor in enumerate(FACTORS.tolist()):
        # The part of 2 ** 0.5 is a matter of chance; 0.04 is 3.6 standard deviations of its mean.
        assert counts[index] / passes == pytest.approx(factor, abs=0.04 if index == 5 else 0.01)


def test_passes_are_shuffled_and_follow_the_seed():
    first, again, other = (list(islice(RepeatFactorSampler(Data(), 0.5, seed=seed), 40)) for seed in (0, 0, 1))
    assert first == again != other
    assert first[:9] != sorted(first[:9])
    assert set(range(8)) == set(first[:9])  # a pass has nine or ten


def test_resuming_skips_what_came():
    whole = list(islice(RepeatFactorSampler(Data(), 0.5, seed=3), 40))
    resumed = RepeatFactorSampler(Data(), 0.5, seed=3)
    resumed.skip(25)
    assert list(islice(resumed, 15)) == whole[25:]


def test_processes_share_the_indices(monkeypatch):
    whole = list(islice(RepeatFactorSampler(Data(), 0.5, seed=3), 40))
    for rank in (0, 1):
        monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda rank=rank: (rank, 2))
        assert list(islice(RepeatFactorSampler(Data(), 0.5, seed=3), 20)) == whole[rank::2]


@pytest.mark.parametrize("threshold", [0.0, -1.0, 2.0])
def test_threshold_out_of_range(threshold):
    with pytest.raises(ValueError, match=r"is not in \(0, 1\]: it is a fraction of the images"):
        RepeatFactorSampler(Data(), threshold)

"""Cosine similarity of tokens, and matches between images."""

import math

import pytest
import torch

from pe_dense.visualization.similarity import Match, cosine_similarity, mutual_matches, nearest_tokens


def test_cosines():
    features = torch.tensor([[3.0, 0.0, -2.0, 1.0], [0.0, 5.0, 0.0, 1.0]]).view(1, 2, 2, 2)
    similarity = cosine_similarity(features, torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(similarity, torch.tensor([[[1.0, 0.0], [-1.0, math.sqrt(0.5)]]]))


def test_a_query_of_other_channels_is_refused():
    with pytest.raises(ValueError, match=r"got \(1, 2, 2, 2\) and \(3,\)"):
        cosine_similarity(torch.zeros(1, 2, 2, 2), torch.zeros(3))


def test_nearest_tokens_keep_their_distance():
    similarity = torch.zeros(8, 16)  # apart by 16 / 8 = 2
    similarity[2, 3], similarity[2, 4], similarity[2, 5], similarity[7, 15] = 0.9, 0.8, 0.7, 0.5
    assert nearest_tokens(similarity, 3) == [(2, 3), (2, 5), (7, 15)]
    assert similarity[2, 3] == 0.9  # the caller's map stays


def test_no_more_tokens_than_there_are():
    assert len(nearest_tokens(torch.zeros(1, 2), 5)) == 2


@pytest.fixture
def pair():
    """An image of unrelated tokens, and one with three of its tokens in other places among others."""
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(64, 6, 8, generator=generator), torch.randn(64, 9, 5, generator=generator)
    for (row, column), (to_row, to_column), noise in (
        ((0, 0), (8, 4), 0.0),
        ((5, 7), (0, 0), 0.1),
        ((3, 2), (4, 2), 0.2),
    ):
        target[:, to_row, to_column] = source[:, row, column] + noise * torch.randn(64, generator=generator)
    return source, target


def test_counterparts_are_found(pair):
    matches = mutual_matches(*pair, count=3)
    assert [match[:2] for match in matches] == [((0, 0), (8, 4)), ((5, 7), (0, 0)), ((3, 2), (4, 2))]
    assert isinstance(matches[0], Match)
    assert matches[0].similarity == pytest.approx(1.0)
    assert matches[1].similarity > matches[2].similarity > 0.9


def test_counterparts_keep_their_distance_in_both_images(pair):
    """Of two distant tokens whose matches are neighbors, the more similar match is kept."""
    source, target = pair
    target[:, 0, 1] = source[:, 0, 7] + 0.05 * target[:, 0, 1]
    assert [match[:2] for match in mutual_matches(*pair, count=3)] == [
        ((0, 0), (8, 4)),
        ((0, 7), (0, 1)),
        ((3, 2), (4, 2)),
    ]


def test_the_other_way_round(pair):
    back = mutual_matches(*reversed(pair), count=3)
    assert [(match.target, match.source) for match in back] == [match[:2] for match in mutual_matches(*pair, count=3)]


def test_masks_leave_tokens_out(pair):
    masks = torch.ones(6, 8, dtype=torch.bool), torch.ones(9, 5, dtype=torch.bool)
    masks[0][0, 0] = masks[1][0, 0] = False
    matches = mutual_matches(*pair, count=1, masks=masks)
    assert [match[:2] for match in matches] == [((3, 2), (4, 2))]


def test_nothing_matches_an_empty_mask(pair):
    assert mutual_matches(*pair, masks=(torch.ones(6, 8).bool(), torch.zeros(9, 5).bool())) == []


def test_parts_change_nothing(pair, monkeypatch):
    whole = mutual_matches(*pair, count=20)
    monkeypatch.setattr("pe_dense.visualization.similarity._PART", 7)
    assert [match[:2] for match in mutual_matches(*pair, count=20)] == [match[:2] for match in whole]


def test_every_match_is_mutual(pair):
    source, target = (torch.nn.functional.normalize(x.flatten(1), dim=0) for x in pair)
    similarity = source.T @ target
    for match in mutual_matches(*pair, count=20):
        row = similarity[match.source[0] * 8 + match.source[1]]
        column = similarity[:, match.target[0] * 5 + match.target[1]]
        assert row.max() == column.max() == pytest.approx(match.similarity)

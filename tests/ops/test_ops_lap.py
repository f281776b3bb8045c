"""The linear assignment of mmdet's trackers."""

import itertools

import numpy as np
import pytest

from pe_dense.ops.lap import lapjv


def best(cost, limit):
    """The lowest total over all partial assignments, in which a missing pair saves the limit."""
    rows, columns = cost.shape
    totals = []
    for chosen in itertools.product(range(-1, columns), repeat=rows):
        used = [column for column in chosen if column >= 0]
        if len(set(used)) == len(used):
            totals.append(sum(cost[row, column] - limit for row, column in enumerate(chosen) if column >= 0))
    return min(totals)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (0, 3)])
@pytest.mark.parametrize("limit", [0.3, 0.9])
def test_assignment_with_a_limit(shape, limit):
    cost = np.random.default_rng(sum(shape)).random(shape)
    total, of_row, of_column = lapjv(cost, extend_cost=True, cost_limit=limit)
    pairs = [(row, column) for row, column in enumerate(of_row) if column >= 0]
    assert all(of_column[column] == row for row, column in pairs)
    assert (of_column >= 0).sum() == len(pairs)
    assert total == pytest.approx(sum(cost[pair] for pair in pairs))
    assert total - limit * len(pairs) == pytest.approx(best(cost, limit) if cost.size else 0)


def test_without_a_limit():
    cost = np.array([[4.0, 1.0], [2.0, 3.0], [9.0, 9.0]])
    assert [part.tolist() for part in lapjv(cost, extend_cost=True, return_cost=False)] == [[1, 0, -1], [1, 0]]
    with pytest.raises(ValueError, match="pass extend_cost=True"):
        lapjv(cost)

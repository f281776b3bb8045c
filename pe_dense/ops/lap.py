"""Replacement of ``lap``, which mmdet's trackers need, by SciPy: the linear assignment problem with a cost limit."""

from __future__ import annotations

import numpy as np


def lapjv(
    cost: np.ndarray, extend_cost: bool = False, cost_limit: float = np.inf, return_cost: bool = True
) -> tuple[float, np.ndarray, np.ndarray] | tuple[np.ndarray, np.ndarray]:
    """Assign rows to columns at the lowest total cost.

    Args:
        cost: (N, M).
        extend_cost: allow N and M to differ.
        cost_limit: a pair that costs more than this is worse than leaving both unassigned.
        return_cost: return the total cost, too.

    Returns:
        the total cost of the assigned pairs, the column of each row (N,) and the row of each column (M,), int32; -1 for
        none.

    Raises:
        ValueError: if N and M differ without ``extend_cost`` or a limit.
    """
    from scipy.optimize import linear_sum_assignment

    cost = np.asarray(cost, np.float64)
    rows, columns = cost.shape
    if rows != columns and not extend_cost and not np.isfinite(cost_limit):
        raise ValueError("Square cost array expected. If cost is intentionally non-square, pass extend_cost=True.")
    whole = cost
    if np.isfinite(cost_limit):
        # Each row and each column has a partner of its own, which stands for none and costs half of the limit.
        whole = np.full((rows + columns, rows + columns), cost_limit / 2)
        whole[:rows, :columns] = cost
        whole[rows:, columns:] = 0
    chosen = linear_sum_assignment(whole)
    of_row, of_column = np.full(rows, -1, np.int32), np.full(columns, -1, np.int32)
    for row, column in zip(*chosen, strict=True):
        if row < rows and column < columns:
            of_row[row], of_column[column] = column, row
    found = of_row >= 0
    total = float(cost[np.flatnonzero(found), of_row[found]].sum())
    return (total, of_row, of_column) if return_cost else (of_row, of_column)

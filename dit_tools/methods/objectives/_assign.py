"""Linear sum assignment by shortest augmenting paths (Jonker and Volgenant 1987)."""

from __future__ import annotations

from typing import Any


def assign_columns(cost: Any) -> Any:
    """The column for each row that makes the sum of a square cost matrix (n, n) smallest.

    Args:
        cost: numpy array of finite numbers.

    Returns:
        int array (n,), a permutation. Time grows with n**3.
    """
    import numpy as np

    n = len(cost)
    u, v = np.zeros(n + 1), np.zeros(n + 1)  # prices of rows and columns, 1-based
    row_of = np.zeros(n + 1, int)
    cost = np.asarray(cost, np.float64)
    for row in range(1, n + 1):
        row_of[0], column = row, 0
        least, used = np.full(n + 1, np.inf), np.zeros(n + 1, bool)
        came_from = np.zeros(n + 1, int)
        while row_of[column]:
            used[column] = True
            i = row_of[column]
            reduced = cost[i - 1] - u[i] - v[1:]
            better = ~used[1:] & (reduced < least[1:])
            least[1:][better], came_from[1:][better] = reduced[better], column
            column = int(np.argmin(np.where(used[1:], np.inf, least[1:]))) + 1
            step = least[column]
            u[row_of[used]] += step
            v[used] -= step
            least[~used] -= step
        while column:
            before = came_from[column]
            row_of[column] = row_of[before]
            column = before
    columns = np.empty(n, int)
    columns[row_of[1:] - 1] = np.arange(n)
    return columns

"""Column orders that rows agree on: each takes its cells along the way through all groups that it would mostly go.

In: all groups of rows that a tree could keep together. Out: column orders, from equal shares of each group's cost or
from better ones. Rows choose each for itself, so some ways are gone by one row alone: such an order is a start for
branches to move from (`graft`), seldom a good tree by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.descent import NONE
from pg_bridge.ordering.groups import Groups, common_columns
from pg_bridge.ordering.shares import Shares, Ways


class Guide:
    """All groups of a table's rows, and the ways through them.

    Args:
        cells: The rows' cells.
        groups: All groups of the rows.
        order: All columns; it decides where groups do not.
    """

    def __init__(self, cells: Cells, groups: Groups, order: list[int]) -> None:
        self._ways = Ways.of(cells, groups)
        self._common = common_columns(cells, groups.rows, groups.begin[:-1])
        self._place = np.argsort(np.array(order))

    def rounds(self) -> Iterator[Shares]:
        """Equal shares, then better and better ones."""
        return self._ways.rounds()

    def column_order(self, shares: Shares) -> NDArray[np.int16]:
        """(n, k) int16: each row's columns, those first that the largest group on its way has in common."""
        n, k = len(self._ways.row_start), len(self._place)
        height = np.full((n, k), NONE, np.intp)  # of the largest group in which a column is equal
        for steps, (rows, group) in enumerate(self._ways.gone(shares)):
            row, column = self._common[group].nonzero()
            height[rows[row], column] = steps
        return np.argsort(self._place - height * k, axis=1).astype(np.int16)

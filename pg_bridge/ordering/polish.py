"""Improves an ordering of few rows, one row at a time.

In: each row's order of columns. Out: a better one. A row's share of the prefix tree is what it does not have in common
with the row most like it, given all rows' column orders; so if it could have more in common with some other row by
taking over that row's column order, it does. It ends when no single row can gain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.cells import Cells

_MOST_SWEEPS = 10


def polish(cells: Cells, column_order: NDArray[np.int16]) -> NDArray[np.int16]:
    """Let rows take over each other's column orders.

    Each sweep takes time and memory of the square of the rows.

    Args:
        cells: The table's cells; at least one column.
        column_order: (n, k) int16; each row's columns in order.

    Returns:
        (n, k) int16; no two rows share less in all.
    """
    order = column_order.copy()
    place = (cells.ranks.astype(np.intp) + cells.offsets[:, np.newaxis]).T  # (n, k), by column
    sent = np.take_along_axis(place, order.astype(np.intp), axis=1)  # (n, k), as sent
    every_column = np.ones(order.shape, np.bool_)
    for _ in range(_MOST_SWEEPS):
        before = order.copy()
        for row in range(cells.rows):
            could = _shared(cells, sent, place[row][order], every_column)
            does = _shared(cells, sent, np.broadcast_to(sent[row], sent.shape), order == order[row])
            could[row] = does[row] = -1
            other = int(could.argmax())
            if could[other] > does.max():
                order[row] = order[other]
                sent[row] = place[row][order[row]]
        if np.array_equal(order, before):
            break
    return order


def _shared(
    cells: Cells, theirs: NDArray[np.intp], mine: NDArray[np.intp], same_column: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """(n,) int64: characters that one row shares with each row at its start."""
    n, k = theirs.shape
    leading = np.logical_and.accumulate((theirs == mine) & same_column, axis=1)
    shared: NDArray[np.int64] = (cells.chars[theirs] * leading).sum(axis=1)
    depth = np.minimum(leading.sum(axis=1), k - 1)
    every = np.arange(n)
    one, other = theirs[every, depth], mine[every, depth]
    parted = same_column[every, depth] & (one != other)
    low, high = np.minimum(one, other)[parted], np.maximum(one, other)[parted]
    shared[parted] += cells.shared_chars(low, high)
    return shared

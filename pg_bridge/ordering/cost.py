"""The exact worth of an ordering: characters that each sent row shares with the one sent before it.

In: a table's cells and an ordering's two arrays. Out: two sums over the rows as `prompt.render` writes them, braces,
names, commas and all. Of two cells that differ, the characters before the first difference count too.

It never renders a row: equal cells are skipped as wholes, and only the cells at which a pair of neighbours parts are
weighed. One pair's common prefix always ends inside those two cells, because no JSON value continues another except a
number, and a number is followed by a comma or a brace.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.cells import Cells


def total_chars(cells: Cells) -> int:
    """Characters of all rows as rendered, without the question."""
    return sum(
        int(np.take(cells.chars, ranks.astype(np.intp) + offset).sum())
        for ranks, offset in zip(cells.ranks, cells.offsets.tolist(), strict=True)
    )


def shared_chars(cells: Cells, row_order: NDArray[np.intp], column_order: NDArray[np.int16]) -> int:
    """Characters that each sent row shares with the one before it, summed over all rows but the first.

    Args:
        cells: The table's cells.
        row_order: (n,) intp; the rows in sending order.
        column_order: (n, k) int16; the columns of the row sent i-th, in order.
    """
    if cells.rows == 0 or cells.columns == 0:
        return 0
    alike = np.arange(1, cells.rows)  # places in sending order whose row equals the one before it so far
    shared = len(alike)  # each its opening brace
    for place in range(cells.columns):
        column, column_before = column_order[alike, place], column_order[alike - 1, place]
        cell = cells.places(row_order[alike], column)
        cell_before = cells.places(row_order[alike - 1], column_before)
        same = cell == cell_before
        shared += int(cells.chars[cell[same]].sum())
        part = ~same & (column == column_before)
        low, high = np.minimum(cell[part], cell_before[part]), np.maximum(cell[part], cell_before[part])
        shared += int(cells.shared_chars(low, high).sum())
        parted = column != column_before
        shared += cells.common_label_chars(column_before[parted], column[parted])
        alike = alike[same]
        if not alike.size:
            return shared
    return shared - len(alike)  # equal rows: ', ' was counted after their last cell, where only '}' stands

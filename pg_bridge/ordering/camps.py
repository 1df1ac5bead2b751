"""Rows in two camps, each with a column order of its own: for rows of popular values, and for those of rare ones.

In: cells, and an order of columns that is good for all rows. Out: the two camps' rows and orders.

Who holds a popular value shares most behind it; who holds a rare one, with hardly any company there, would share more
with the rows of other rare values, by other columns. So rows of rare values make the second camp at first. Then every
row joins the camp in which others pay more of its cells, if the cost of a cell is shared evenly by all in the camp who
hold the same cells up to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.fixed import fixed_chars, greedy_columns, refined_columns
from pg_bridge.ordering.partition import sort_keys

_RARE = 2  # rows that hold a value
_LEAST_ROWS = 0.005  # of all, that share a rare value
_ROUNDS = 4
_LEAST_GAIN = 0.002  # of what all rows share by one order
_HOPELESS = 0.02  # of it less, at first
_SAMPLED_CELLS = 1 << 15  # of some of a camp's rows, on which its order is found


class Camp(NamedTuple):
    """Rows that share by one order of columns.

    Attributes:
        rows: (r,) intp; ascending.
        order: All columns.
    """

    rows: NDArray[np.intp]
    order: list[int]


def two_camps(
    cells: Cells, order: list[int], shared: int, check_interrupts: Callable[[], None] = lambda: None
) -> list[Camp]:
    """Divide all rows.

    Args:
        cells: Their cells.
        order: All columns, in an order that is good for all rows.
        shared: Characters of cells that they share by it.
        check_interrupts: Called between steps; what it raises ends all.

    Returns:
        The two camps; none where no value is rare, or where that gains little.
    """
    column = next((column for column in order if _has_rare_values(cells, column)), None)
    if column is None:
        return []
    rare = np.bincount(cells.ranks[column])[cells.ranks[column]] <= _RARE
    first, second = (_order_of(cells, np.flatnonzero(rows), column, order) for rows in (~rare, rare))
    if _shared_chars(cells, rare, first, second) < (1 - _HOPELESS) * shared:
        return []
    for _ in range(_ROUNDS):
        check_interrupts()
        rare = _paid_by_others(cells, second, rare) > _paid_by_others(cells, first, ~rare)
    if not 0 < rare.sum() < len(rare) or _shared_chars(cells, rare, first, second) < (1 + _LEAST_GAIN) * shared:
        return []
    return [Camp(np.flatnonzero(~rare), first), Camp(np.flatnonzero(rare), second)]


def _has_rare_values(cells: Cells, column: int) -> bool:
    """Whether some rows share a column's value with so few others, and some with more."""
    count = np.bincount(cells.ranks[column])
    rare = count[(count > 1) & (count <= _RARE)].sum()
    return bool(rare >= _LEAST_ROWS * cells.rows and count.max() > _RARE)


def _shared_chars(cells: Cells, rare: NDArray[np.bool_], first: list[int], second: list[int]) -> int:
    """Characters of cells that rows share if each camp stands sorted by its order."""
    return sum(
        fixed_chars(cells.some(np.flatnonzero(rows)), columns) for rows, columns in ((~rare, first), (rare, second))
    )


def _order_of(cells: Cells, rows: NDArray[np.intp], column: int, order: list[int]) -> list[int]:
    """What is best for some rows: of a sample that has all rows of a value or none, of one column."""
    step = max(1, len(rows) * cells.columns // _SAMPLED_CELLS)
    some = cells.some(rows[cells.ranks[column, rows] % step == 0])
    tried = [refined_columns(some, start) for start in (order, greedy_columns(some))]
    return max(tried, key=lambda columns: fixed_chars(some, columns))


def _paid_by_others(cells: Cells, order: list[int], members: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,) float64: characters that others of a camp would pay for each row, if it were in it."""
    paid = np.zeros(cells.rows)
    rows, group = np.arange(cells.rows), np.zeros(cells.rows, np.intp)
    for column in order:
        rank = cells.ranks[column, rows].astype(np.intp)
        by_cell, key = sort_keys(group * cells.sizes[column] + rank)
        start = np.flatnonzero(np.diff(key, prepend=-1))
        size = np.diff(start, append=len(key))
        rows, rank = rows[by_cell], rank[by_cell]
        inside = np.add.reduceat(members[rows], start, dtype=np.intp)
        payers = np.maximum(np.repeat(inside, size) + ~members[rows], 1)
        paid[rows] += cells.chars[cells.offsets[column] + rank] * (1 - 1 / payers)
        goes_on = np.repeat(size > 1, size)
        rows, group = rows[goes_on], np.repeat(np.arange(len(size)), size)[goes_on]
        if not rows.size:
            break
    return paid

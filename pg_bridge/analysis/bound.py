"""What no ordering can beat: upper bounds on the characters shared, and the true optimum of tiny tables.

In: a table's cells, or a tiny table. Out: a number of characters, or an ordering. It plans nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise, permutations, product
from os.path import commonprefix

import numpy as np
from numpy.typing import NDArray

from pg_bridge.analysis.groups import find_groups
from pg_bridge.analysis.shares import least_tree_chars
from pg_bridge.ordering import Ordering, weigh
from pg_bridge.ordering.cells import Cells
from pg_bridge.rows.table import Table


def most_shared_chars(cells: Cells) -> int:
    """Characters shared by an ordering in which every repeat of a cell is shared whole.

    A cell is computed at least once, so it is shared at most as often as it is repeated. A row may further share the
    beginning of one cell, that at which it parts from the row before it.
    """
    if cells.rows < 2 or cells.columns == 0:
        return 0
    repeated = 0
    for ranks, offset in zip(cells.ranks, cells.offsets.tolist(), strict=True):
        counts = np.bincount(ranks)
        repeated += int(np.maximum(counts - 1, 0) @ cells.chars[offset : offset + len(counts)])
    beginnings = _beginnings(cells)
    return repeated + cells.rows - 1 + int(beginnings.sum() - beginnings.min())


def most_shared_by_neighbours(cells: Cells) -> int:
    """Characters shared if every row followed the row that is most like it: a maximum spanning tree (Prim, 1957).

    Two rows share at most their equal cells and the beginning of one more. A tighter bound than `most_shared_chars` as
    a rule, and the square of the rows in time.
    """
    n = cells.rows
    if n < 2 or cells.columns == 0:
        return 0
    place = cells.ranks.astype(np.intp) + cells.offsets[:, np.newaxis]
    chars = cells.chars[place]
    beginnings = _beginnings(cells)
    names = _common_names(cells)
    shared = n - 1
    rows = np.arange(1, n)
    best = np.full(n - 1, -1, np.int64)
    last = 0
    while rows.size:
        alike = np.zeros(len(rows), np.int64)
        for j in range(cells.columns):
            alike += chars[j, rows] * (cells.ranks[j, rows] == cells.ranks[j, last])
        hopeful = np.flatnonzero(alike + beginnings[rows] > best)
        alike = alike[hopeful] + _begin_alike(cells, place[:, rows[hopeful]], place[:, last], names)
        best[hopeful] = np.maximum(best[hopeful], alike)
        next_ = int(best.argmax())
        shared += int(best[next_])
        last = int(rows[next_])
        rows, best = np.delete(rows, next_), np.delete(best, next_)
    return shared


def most_shared_by_groups(cells: Cells, most: int, check_interrupts: Callable[[], None] = lambda: None) -> int | None:
    """Characters shared if every row could go different ways through a prefix tree, each for a part of itself.

    By far the tightest bound: on tables whose optimum is known it is hardly ever above it.

    Args:
        cells: The table's cells.
        most: How many cells to look at in all groups of rows that share some; see `groups.find_groups`.
        check_interrupts: Called now and then.

    Returns:
        The bound; None where more would have to be looked at.
    """
    if cells.rows < 2 or cells.columns == 0:
        return 0
    groups = find_groups(cells, most, check_interrupts=check_interrupts)
    if groups is None:
        return None
    return cells.total_chars() - least_tree_chars(cells, groups, check_interrupts) + cells.rows - 1


def _begin_alike(cells: Cells, places: NDArray[np.intp], place: NDArray[np.intp], names: int) -> NDArray[np.integer]:
    """(r,) the most that each of some rows, (k, r) places, shares with one row, (k,) places, of an unequal cell."""
    most = np.full(places.shape[1], names, np.int64)
    for theirs, its in zip(places, place, strict=True):
        unequal = np.flatnonzero(theirs != its)
        low, high = np.minimum(theirs[unequal], its), np.maximum(theirs[unequal], its)
        most[unequal] = np.maximum(most[unequal], cells.shared_chars(low, high))
    return most


def searchable(rows: int, columns: int, most_orderings: int = 100_000) -> bool:
    """Whether a table has at most so many orderings of its rows' columns; 100,000 take seconds to try."""
    return columns < 9 and rows * math.log(math.factorial(columns)) <= math.log(most_orderings)


def search_optimum(table: Table) -> Ordering:
    """Find the best ordering by trying all orders of all rows' columns.

    For given column orders the best order of rows is the alphabetical one: neighbours then share what the prefix tree
    of the texts holds, and no order of rows shares more.

    Args:
        table: Few rows; see `searchable`.

    Raises:
        ValueError: There are too many orderings to try them all.
    """
    n, k = table.rows, len(table.columns)
    if not searchable(n, k):
        raise ValueError(f"{n} rows of {k} columns have too many orderings to try them all")
    labels = table.labels()
    orders = list(permutations(range(k)))
    texts = [
        ["{" + ", ".join(labels[j] + cells[j] for j in order) + "}" for order in orders] for cells in table.cells()
    ]
    best = max(product(range(len(orders)), repeat=n), key=lambda chosen: _shared(texts, chosen))
    rows = np.array(sorted(range(n), key=lambda row: texts[row][best[row]]), np.intp)
    column_order = np.array([orders[place] for place in best], np.int16).reshape(n, k)
    return weigh("optimum", table, rows, column_order[rows])


def _shared(texts: list[list[str]], chosen: tuple[int, ...]) -> int:
    rendered = sorted([row[place] for row, place in zip(texts, chosen, strict=True)])
    return sum(len(commonprefix(pair)) for pair in pairwise(rendered))  # noqa: RUF071 - characters are meant


def _beginnings(cells: Cells) -> NDArray[np.int64]:
    """(n,) int64: the most that each row can share of a cell that is not shared whole."""
    common = cells.common_with_previous
    nearest = np.maximum(common, np.append(common[1:], 0))
    nearest[cells.offsets[1:] - 1] = common[cells.offsets[1:] - 1]
    best = np.full(cells.rows, _common_names(cells), np.int64)
    for ranks, offset in zip(cells.ranks, cells.offsets.tolist(), strict=True):
        np.maximum(best, nearest[ranks.astype(np.intp) + offset], out=best)
    return best


def _common_names(cells: Cells) -> int:
    """The most characters that two columns' names have in common; names that stand next to each other share most."""
    pairs = pairwise(sorted(range(cells.columns), key=cells.labels.__getitem__))
    return max((cells.common_label(a, b) for a, b in pairs), default=0)

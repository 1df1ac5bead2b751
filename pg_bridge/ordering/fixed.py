"""Orders of columns that are the same for all rows, or for each of two camps of rows.

In: a table's cells. Out: lists of columns: the paper's v1 (arXiv 2403.05821v1, fixed field ordering), the exact greedy
one, and how to better any. What an order saves is the sum of what each of its columns saves in the groups that the
columns before it leave, so it is counted, never guessed.

Two camps: who holds a popular value shares most behind it; who holds a rare one, with hardly any company there, would
share more with the rows of other rare values, by other columns. So rows of rare values make the second camp at first.
Then every row joins the camp in which others pay more of its cells, if the cost of a cell is shared evenly by all in
the camp who hold the same cells up to it.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.cells import SEPARATOR_CHARS, Cells, sort_keys
from pg_bridge.ordering.measured import (
    CAMP_HOPELESS,
    CAMP_RARE,
    CAMP_RARE_SHARE,
    CAMP_ROUNDS,
    CAMP_SAMPLE_CELLS,
    MOVABLE_COLUMNS,
    MOVE_REACH,
)
from pg_bridge.ordering.partition import Partition, split


class Camp(NamedTuple):
    """Rows that share by one order of columns.

    Attributes:
        rows: (r,) intp; ascending.
        order: All columns.
    """

    rows: NDArray[np.intp]
    order: list[int]


def order_v1(cells: Cells) -> list[int]:
    """Columns by descending `mean length * n / cardinality`; equal scores keep the row's order."""
    scores = []
    for j, (ranks, offset, size) in enumerate(
        zip(cells.ranks, cells.offsets.tolist(), cells.sizes.tolist(), strict=True)
    ):
        count = np.bincount(ranks, minlength=size)
        names = len(cells.labels[j]) + SEPARATOR_CHARS
        chars = int(count @ (cells.chars[offset : offset + size] - names))
        scores.append(-chars / np.count_nonzero(count) if cells.rows else 0)
    return [int(column) for column in np.argsort(scores, kind="stable")]


def count_fixed(cells: Cells, columns: list[int]) -> int:
    """Characters of cells that rows share when all of them hold their columns in this order and stand sorted."""
    groups = Partition.whole(cells)
    shared = 0
    for column in columns:
        saved, groups = _count_saved(cells, groups, column)
        shared += saved
    return shared


def order_greedily(cells: Cells, *, beginnings: bool = False) -> list[int]:
    """Again and again the column that saves most behind those already chosen, counted exactly.

    What a column saves can only shrink as rows are told apart, so a column is weighed again only when its last weight
    would still win. The first weights come from counting cells, without a split.

    Args:
        cells: The table's cells.
        beginnings: Whether what unequal cells have in common at their start counts too. Such a column saves it only
            where it is the last that rows share, so it is as often wrong as right to count it early.

    Returns:
        All columns; those that save nothing stand last, in the row's order.
    """
    groups = Partition.whole(cells)
    chosen: list[int] = []
    queue = [(-_count_most_saved(cells, column, not beginnings), column) for column in range(cells.columns)]
    heapq.heapify(queue)
    while queue and groups.count:
        weighed: set[int] = set()
        best, left = (0, 0), groups
        while queue and queue[0][1] not in weighed:
            _, column = heapq.heappop(queue)
            weighed.add(column)
            parts = split(cells, groups, column)
            whole = cells.chars[parts.place] * (parts.size - 1)
            saved = int((parts.saved if beginnings else whole).sum())
            if saved:
                heapq.heappush(queue, (-saved, column))
            if (-saved, column) < best:
                best, left = (-saved, column), parts.groups()[0]
        if queue:
            chosen.append(heapq.heappop(queue)[1])
            groups = left
    return chosen + [column for column in range(cells.columns) if column not in set(chosen)]


def _count_most_saved(cells: Cells, column: int, exact: bool) -> int:
    """Characters of a column's cells, all but one of equal cells if exact: what it saves in front of all others."""
    size, offset = int(cells.sizes[column]), int(cells.offsets[column])
    count = np.bincount(cells.ranks[column], minlength=size)
    if exact:
        count -= count > 0
    return int(count @ cells.chars[offset : offset + size])


def refine_order(cells: Cells, columns: list[int]) -> list[int]:
    """Let each column in turn walk towards the front, and leave it where the whole order saves most.

    Two neighbours that change places leave what stands before and behind them as it was: the same groups, the same
    savings. So a column's walk to the front costs two splits a step, and no order is ever counted as a whole.

    Args:
        cells: The table's cells.
        columns: The order to better.
    """
    order: list[int] = []
    saved: list[int] = []  # by each column of `order`
    groups = [Partition.whole(cells)]  # before each column of `order`, and behind the last
    for place, column in enumerate(columns[:MOVABLE_COLUMNS]):
        behind, below = _count_saved(cells, groups[place], column)
        walk: list[tuple[int, Partition, int]] = []  # saved by the column, the groups then, saved by the one it passed
        gain, most, left = 0, 0, behind
        best = place
        for passed in range(place - 1, max(place - MOVE_REACH, 0) - 1, -1):
            here, then = _count_saved(cells, groups[passed], column)
            other, _ = _count_saved(cells, then, order[passed])
            gain += here + other - saved[passed] - left
            left = here
            walk.append((here, then, other))
            if gain > most:
                most, best = gain, passed
        passed_by = walk[: place - best][::-1]
        order.insert(best, column)
        saved[best:] = [passed_by[0][0] if passed_by else behind, *(other for _, _, other in passed_by)]
        groups[best + 1 :] = [*(then for _, then, _ in passed_by), below]
    return order + columns[MOVABLE_COLUMNS:]


def _count_saved(cells: Cells, groups: Partition, column: int) -> tuple[int, Partition]:
    """Characters that a column saves in groups of rows, and the groups that it leaves."""
    if not groups.count:
        return 0, groups
    parts = split(cells, groups, column)
    return int(parts.saved.sum()), parts.groups()[0]


def divide_in_camps(cells: Cells, order: list[int], shared: int) -> list[Camp]:
    """Divide all rows, where some values are rare and that pays.

    Args:
        cells: Their cells.
        order: All columns, in an order that is good for all rows.
        shared: Characters of cells that they share by it.

    Returns:
        The two camps; none where no value is rare, or where that gains little.
    """
    column = next((column for column in order if _has_rare_values(cells, column)), None)
    if column is None:
        return []
    rare = np.bincount(cells.ranks[column])[cells.ranks[column]] <= CAMP_RARE
    first, second = (_order_camp(cells, np.flatnonzero(rows), column, order) for rows in (~rare, rare))
    if _count_camps(cells, rare, first, second) < (1 - CAMP_HOPELESS) * shared:
        return []
    for _ in range(CAMP_ROUNDS):
        rare = _count_paid_by_others(cells, second, rare) > _count_paid_by_others(cells, first, ~rare)
    if not 0 < rare.sum() < len(rare) or _count_camps(cells, rare, first, second) <= shared:
        return []
    return [Camp(np.flatnonzero(~rare), first), Camp(np.flatnonzero(rare), second)]


def _has_rare_values(cells: Cells, column: int) -> bool:
    """Whether some rows share a column's value with so few others, and some with more."""
    count = np.bincount(cells.ranks[column])
    rare = count[(count > 1) & (count <= CAMP_RARE)].sum()
    return bool(rare >= CAMP_RARE_SHARE * cells.rows and count.max() > CAMP_RARE)


def _count_camps(cells: Cells, rare: NDArray[np.bool_], first: list[int], second: list[int]) -> int:
    """Characters of cells that rows share if each camp stands sorted by its order."""
    return sum(
        count_fixed(cells.some(np.flatnonzero(rows)), columns) for rows, columns in ((~rare, first), (rare, second))
    )


def _order_camp(cells: Cells, rows: NDArray[np.intp], column: int, order: list[int]) -> list[int]:
    """What is best for some rows: of a sample that has all rows of a value or none, of one column."""
    step = max(1, len(rows) * cells.columns // CAMP_SAMPLE_CELLS)
    some = cells.some(rows[cells.ranks[column, rows] % step == 0])
    tried = [refine_order(some, start) for start in (order, order_greedily(some))]
    return max(tried, key=lambda columns: count_fixed(some, columns))


def _count_paid_by_others(cells: Cells, order: list[int], members: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,) float64: characters that others of a camp would pay for each row, if it were in it."""
    paid = np.zeros(cells.rows)
    rows, group = np.arange(cells.rows), np.zeros(cells.rows, np.intp)
    for column in order:
        cells.check_interrupts()
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

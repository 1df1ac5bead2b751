"""Orders of columns that are the same for all rows: the paper's v1, the exact greedy one, and how to better any.

In: a table's cells, or its statistics. Out: a list of columns. What an order saves is the sum of what each of its
columns saves in the groups that the columns before it leave, so it is counted, never guessed. Paper: arXiv
2403.05821v1, fixed field ordering.
"""

from __future__ import annotations

import copy
import heapq
from collections.abc import Callable

import numpy as np

from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.partition import Partition, split
from pg_bridge.rows.statistics import ColumnStatistics

_REACH = 8  # places that a column moves at most
_MOVABLE = 64  # columns at an order's beginning; behind them little is shared


def v1_columns(statistics: ColumnStatistics) -> list[int]:
    """Columns by descending `mean length * n / cardinality`; equal scores keep the row's order."""
    scores = statistics.mean_chars * statistics.rows / statistics.cardinality
    return [int(column) for column in np.argsort(-scores, kind="stable")]


def fixed_chars(cells: Cells, columns: list[int]) -> int:
    """Characters of cells that rows share when all of them hold their columns in this order and stand sorted."""
    groups = Partition.whole(cells)
    shared = 0
    for column in columns:
        saved, groups = _saved(cells, groups, column)
        shared += saved
    return shared


def greedy_columns(cells: Cells, *, beginnings: bool = False) -> list[int]:
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
    exact = not beginnings and cells.sent is None
    queue = [(-_most_saved(cells, column, exact), column) for column in range(cells.columns)]
    heapq.heapify(queue)
    while queue and groups.count:
        weighed: set[int] = set()
        best, left = (0, 0), groups
        while queue and queue[0][1] not in weighed:
            _, column = heapq.heappop(queue)
            weighed.add(column)
            parts = split(cells, groups, column)
            whole = cells.chars[parts.place] * (parts.size - 1 + parts.known)
            saved = int((parts.saved if beginnings else whole).sum())
            if saved:
                heapq.heappush(queue, (-saved, column))
            if (-saved, column) < best:
                best, left = (-saved, column), parts.groups()[0]
        if queue:
            chosen.append(heapq.heappop(queue)[1])
            groups = left
    return chosen + [column for column in range(cells.columns) if column not in set(chosen)]


def _most_saved(cells: Cells, column: int, exact: bool) -> int:
    """Characters of a column's cells, all but one of equal cells if exact: what it saves in front of all others."""
    size, offset = int(cells.sizes[column]), int(cells.offsets[column])
    count = np.bincount(cells.ranks[column], minlength=size)
    if exact:
        count -= count > 0
    return int(count @ cells.chars[offset : offset + size])


def refined_columns(cells: Cells, columns: list[int], check_interrupts: Callable[[], None] = lambda: None) -> list[int]:
    """Let each column in turn walk towards the front, and leave it where the whole order saves most.

    Two neighbours that change places leave what stands before and behind them as it was: the same groups, the same
    savings. So a column's walk to the front costs two splits a step, and no order is ever counted as a whole.

    Args:
        cells: The table's cells; what earlier windows have sent is left out of account.
        columns: The order to better.
        check_interrupts: Called for every column; what it raises ends the walk.
    """
    cells = copy.copy(cells)
    cells.sent = None
    order: list[int] = []
    saved: list[int] = []  # by each column of `order`
    groups = [Partition.whole(cells)]  # before each column of `order`, and behind the last
    for place, column in enumerate(columns[:_MOVABLE]):
        check_interrupts()
        behind, below = _saved(cells, groups[place], column)
        walk: list[tuple[int, Partition, int]] = []  # saved by the column, the groups then, saved by the one it passed
        gain, most, left = 0, 0, behind
        best = place
        for passed in range(place - 1, max(place - _REACH, 0) - 1, -1):
            here, then = _saved(cells, groups[passed], column)
            other, _ = _saved(cells, then, order[passed])
            gain += here + other - saved[passed] - left
            left = here
            walk.append((here, then, other))
            if gain > most:
                most, best = gain, passed
        passed_by = walk[: place - best][::-1]
        order.insert(best, column)
        saved[best:] = [passed_by[0][0] if passed_by else behind, *(other for _, _, other in passed_by)]
        groups[best + 1 :] = [*(then for _, then, _ in passed_by), below]
    return order + columns[_MOVABLE:]


def _saved(cells: Cells, groups: Partition, column: int) -> tuple[int, Partition]:
    """Characters that a column saves in groups of rows, and the groups that it leaves."""
    if not groups.count:
        return 0, groups
    parts = split(cells, groups, column)
    return int(parts.saved.sum()), parts.groups()[0]

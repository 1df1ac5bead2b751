"""Orders of columns that are the same for all rows: the paper's v1, and the exact greedy one.

In: a table's cells, or its statistics. Out: a list of columns. Paper: arXiv 2403.05821v1, fixed field ordering.
"""

from __future__ import annotations

import heapq

import numpy as np

from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.partition import Partition, Split, split
from pg_bridge.statistics import ColumnStatistics


def v1_columns(statistics: ColumnStatistics) -> list[int]:
    """Columns by descending `mean length * n / cardinality`; equal scores keep the row's order."""
    scores = statistics.mean_chars * statistics.rows / statistics.cardinality
    return [int(column) for column in np.argsort(-scores, kind="stable")]


def fixed_chars(cells: Cells, columns: list[int]) -> int:
    """Characters of cells that rows share when all of them hold their columns in this order and stand sorted."""
    groups = Partition.whole(cells)
    shared = 0
    for column in columns:
        if not groups.count:
            break
        parts = split(cells, groups, column)
        shared += int(parts.saved.sum())
        groups, _ = parts.groups()
    return shared


def greedy_columns(cells: Cells, *, beginnings: bool = False) -> list[int]:
    """Again and again the column that saves most behind those already chosen, counted exactly.

    What a column saves can only shrink as rows are told apart, so a column is weighed again only when its last weight
    would still win.

    Args:
        cells: The table's cells.
        beginnings: Whether what unequal cells have in common at their start counts too. Such a column saves it only
            where it is the last that rows share, so it is as often wrong as right to count it early.

    Returns:
        All columns; those that save nothing stand last, in the row's order.
    """
    groups = Partition.whole(cells)
    chosen: list[int] = []
    queue = [(-float("inf"), column) for column in range(cells.columns)]
    while queue and groups.count:
        weighed: dict[int, Split] = {}
        while queue and queue[0][1] not in weighed:
            _, column = heapq.heappop(queue)
            weighed[column] = parts = split(cells, groups, column)
            whole = cells.chars[parts.place] * (parts.size - 1 + parts.known)
            saved = int((parts.saved if beginnings else whole).sum())
            if saved:
                heapq.heappush(queue, (-saved, column))
        if queue:
            _, best = heapq.heappop(queue)
            chosen.append(best)
            groups, _ = weighed[best].groups()
    return chosen + [column for column in range(cells.columns) if column not in set(chosen)]

"""What it costs to plan window by window, and what the memory of earlier windows wins back.

In: the prompts of a table. Out: rates, by way of planning. Windows are the pipeline's, or all as small as its first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.planner.fresh import Arrays
from benchmarks.planner.prefixes import Rates, rates
from benchmarks.planner.prompts import Prompts
from pg_bridge.options import Call
from pg_bridge.ordering import Sent, plan
from pg_bridge.rows.table import Table

FIRST_WINDOW_ROWS, WINDOW_GROWTH = 1024, 16
WINDOWED = ("movies", "beer", "fever")

_MOST_ROWS = Call().window_rows
WAYS = {
    f"{FIRST_WINDOW_ROWS:,} rows each": (FIRST_WINDOW_ROWS, False),
    f"{FIRST_WINDOW_ROWS:,} rows each, with memory": (FIRST_WINDOW_ROWS, True),
    f"{FIRST_WINDOW_ROWS:,}, then {_MOST_ROWS:,}": (_MOST_ROWS, False),
    f"{FIRST_WINDOW_ROWS:,}, then {_MOST_ROWS:,}, with memory": (_MOST_ROWS, True),
}
"""By name the most rows of a window, and whether each is planned after what the ones before it have sent."""


def windowed(prompts: Prompts, cache_tokens: int) -> dict[str, Rates]:
    """Plan a table window by window, in every way."""
    found = {}
    for way, (most_rows, with_memory) in WAYS.items():
        ordering = _planned(prompts.table, most_rows, with_memory)
        found[way] = rates(prompts.texts(*ordering), prompts.tokens(*ordering), cache_tokens)
    return found


def _planned(table: Table, most_rows: int, with_memory: bool) -> Arrays:
    row_orders, column_orders = [], []
    sent = Sent() if with_memory else None
    for rows in _windows(table.rows, most_rows):
        ordering = plan(table.take(rows), after=sent)
        sent = ordering.sent
        row_orders.append(rows[ordering.row_order])
        column_orders.append(ordering.column_order)
    return np.concatenate(row_orders), np.concatenate(column_orders)


def _windows(rows: int, most_rows: int) -> Iterator[NDArray[np.intp]]:
    start, size = 0, FIRST_WINDOW_ROWS
    while start < rows:
        yield np.arange(start, min(start + size, rows), dtype=np.intp)
        start, size = start + size, min(size * WINDOW_GROWTH, most_rows)

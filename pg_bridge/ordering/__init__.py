"""The order in which rows are sent and, row by row, the order of their cells.

In: a `Table`. Out: an `Ordering`. Neighbouring prompts should share the longest prefixes, because the engine
reuses what it has cached of a prefix. Strategies compete, and the one that shares most wins, counted exactly:

    original   rows and columns as they came; it competes too, so no plan is worse than none
    rows only  the columns as they came, rows sorted
    v1         the paper's column order for all rows, by length and cardinality (`fixed`)
    greedy     the column order for all rows that saves most, column by column, counted exactly (`fixed`)
    refined    the best of these column orders after single columns have moved to where more is saved (`fixed`)
    tree       a prefix tree in which every node has columns of its own (`tree`), its branches moved about (`graft`)
    optimum    the best of all orderings, tried one by one; of a handful of rows (`bound`)

It never drops or changes a row, knows no token and no block, and, without a budget in seconds, depends on nothing but
its arguments: no clock, no random number, no hash seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.options import Reorder
from pg_bridge.ordering.bound import most_shared_chars, searchable
from pg_bridge.ordering.candidates import STRATEGIES, Candidates, Strategy
from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.cost import shared_chars, total_chars
from pg_bridge.ordering.rows import mean_order, prefixes, sort_rows
from pg_bridge.ordering.sent import Sent
from pg_bridge.rows.table import Table

__all__ = ["MOST_COLUMNS", "STRATEGIES", "Ordering", "Sent", "Strategy", "order_by", "plan", "weigh"]

MOST_COLUMNS = int(np.iinfo(np.int16).max)

_STRATEGIES_OF: dict[Reorder, tuple[Strategy, ...]] = {
    "none": ("original",),
    "rows": ("original", "rows only"),
    "rows and columns": STRATEGIES,
}


@dataclass(frozen=True, slots=True, eq=False)
class Ordering:
    """The planner's result.

    Attributes:
        row_order: (n,) intp; `row_order[i]` is the input row sent i-th.
        column_order: (n, k) int16; `column_order[i]` are the column indices, in order, of the row sent i-th.
        strategy: Where it comes from, as a rule one of `STRATEGIES`.
        shared_chars: Characters that each sent row shares with the one before it, summed.
        total_chars: Characters of all rows, as rendered, without the question.
        most_shared_chars: No ordering of these rows shares more than this.
        sent: What has been sent up to these rows; None where the caller carries nothing from window to window.
    """

    row_order: NDArray[np.intp]
    column_order: NDArray[np.int16]
    strategy: str
    shared_chars: int
    total_chars: int
    most_shared_chars: int
    sent: Sent | None = None

    @property
    def hit_rate(self) -> float:
        """Shared characters of all characters; 0 where there are none."""
        return self.shared_chars / self.total_chars if self.total_chars else 0.0


def plan(
    table: Table,
    *,
    reorder: Reorder = "rows and columns",
    budget_s: float | None = None,
    after: Sent | None = None,
    check_interrupts: Callable[[], None] = lambda: None,
) -> Ordering:
    """Order a table for prefix reuse.

    Args:
        table: The rows, as a rule distinct ones.
        reorder: What may move: 'none' nothing, 'rows' rows only, 'rows and columns' both.
        budget_s: Go on looking for a better tree for so many seconds; None takes the time that pays as a rule. What
            is found within a budget depends on the machine.
        after: What earlier windows of the same columns have sent, `Sent()` for the first one: prefixes found there
            are shared too, and rows begin where the last window ended. None plans the table for itself.
        check_interrupts: Called between steps, of a few tenths of a second at most with 16,384 rows; what it raises
            ends planning.

    Returns:
        The best ordering found; never one that shares less than any single strategy does, with what was sent before
        counted in.

    Raises:
        ValueError: There are more than 32,767 columns.
    """
    until = time.monotonic() + budget_s if budget_s is not None else None
    return _ordered(table, _STRATEGIES_OF[reorder], until, after, check_interrupts)


def order_by(strategy: Strategy, table: Table) -> Ordering:
    """Order a table by one strategy, whatever the others would reach.

    Raises:
        ValueError: There are more than 32,767 columns, or too many orderings to try them all.
    """
    if strategy == "optimum" and not searchable(table.rows, len(table.columns)):
        raise ValueError(f"{table.rows} rows of {len(table.columns)} columns have too many orderings to try them all")
    return _ordered(table, (strategy,), None, None, lambda: None)


def weigh(name: str, table: Table, row_order: NDArray[np.intp], column_order: NDArray[np.int16]) -> Ordering:
    """Count what an ordering of one's own shares.

    Args:
        name: What to call it.
        table: The rows.
        row_order: (n,) intp; the rows in sending order.
        column_order: (n, k) int16; the columns of the row sent i-th, in order.
    """
    cells = Cells(table)
    shared = shared_chars(cells, row_order, column_order)
    return Ordering(row_order, column_order, name, shared, total_chars(cells), most_shared_chars(cells))


def _ordered(
    table: Table,
    strategies: tuple[Strategy, ...],
    until: float | None,
    after: Sent | None,
    check_interrupts: Callable[[], None],
) -> Ordering:
    if len(table.columns) > MOST_COLUMNS:
        raise ValueError(f"at most {MOST_COLUMNS} columns can be ordered")
    cells = Cells(table, after)
    best = Candidates(table, cells, after, check_interrupts).best(strategies, until)
    rows = best.row_order if best.row_order is not None else sort_rows(cells, best.column_order)
    if after is not None and after.turned and best.strategy != "original":
        rows = rows[::-1]
    column_order = best.column_order[rows]
    sent = after
    if after is not None and cells.rows and cells.columns:
        sent = after.and_then(prefixes(cells, best.column_order), mean_order(best.column_order))
    shared = shared_chars(cells, rows, column_order)
    return Ordering(rows, column_order, best.strategy, shared, total_chars(cells), most_shared_chars(cells), sent)

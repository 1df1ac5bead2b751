"""The order in which rows are sent and, row by row, the order of their cells.

In: a `Table`. Out: an `Ordering`. Neighbouring prompts should share the longest prefixes, because the engine
reuses what it has cached of a prefix. `plan` lets several strategies compete and keeps the one with the most
shared characters, counted exactly; one fixed order beats GGR on some tables and loses on others.

    original   rows and columns as they came; it competes too, so no plan is worse than none
    rows only  the columns as they came, rows sorted
    v1         one column order for all rows, rows sorted (`fixed`)
    ggr        groups of rows, each with its own column order (`ggr`)

It never drops or changes a row, knows no token and no block, and depends on nothing but its arguments: no
clock, no random number, no hash seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.options import Reorder
from pg_bridge.ordering.cost import shared_chars, total_chars
from pg_bridge.ordering.fixed import sort_rows, v1_columns
from pg_bridge.ordering.ggr import ggr
from pg_bridge.ordering.texts import Texts
from pg_bridge.table import Table

__all__ = ["MOST_COLUMNS", "Ordering", "plan"]

MOST_COLUMNS = int(np.iinfo(np.int16).max)

_LARGEST_GGR = 60_000_000  # rows * columns^2: a second of counting dependencies at the worst, as a rule far less
_LEAST_REPEATED = 0.01  # share of the characters that stand in repeated cells


@dataclass(frozen=True, slots=True, eq=False)
class Ordering:
    """The planner's result.

    Attributes:
        row_order: (n,) intp; `row_order[i]` is the input row sent i-th.
        column_order: (n, k) int16; `column_order[i]` are the column indices, in order, of the row sent i-th.
        strategy: 'original', 'rows only', 'v1' or 'ggr'.
        shared_chars: Characters that each sent row shares with the one before it, summed.
        total_chars: Characters of all rows, as rendered, without the question.
    """

    row_order: NDArray[np.intp]
    column_order: NDArray[np.int16]
    strategy: str
    shared_chars: int
    total_chars: int

    @property
    def hit_rate(self) -> float:
        """Shared characters of all characters; 0 where there are none."""
        return self.shared_chars / self.total_chars if self.total_chars else 0.0


def plan(table: Table, *, reorder: Reorder = "rows and columns") -> Ordering:
    """Order a table for prefix reuse.

    GGR is left out where it cannot pay: with one column it is v1; where less than 1 % of the characters stand
    in cells that repeat there is nothing to group; and with rows times columns squared over 60 million it
    would take longer than it saves.

    Args:
        table: The rows, as a rule distinct ones.
        reorder: What may move: 'none' nothing, 'rows' rows only, 'rows and columns' both.

    Returns:
        The best ordering found; never one that shares less than the original order.

    Raises:
        ValueError: There are more than 32,767 columns.
    """
    n, k = table.rows, len(table.columns)
    if k > MOST_COLUMNS:
        raise ValueError(f"at most {MOST_COLUMNS} columns can be ordered")
    texts = Texts(table)
    total = total_chars(table, texts)
    every = np.arange(n, dtype=np.intp)

    def measured(strategy: str, row_order: NDArray[np.intp], column_order: NDArray[np.int16]) -> Ordering:
        shared = shared_chars(table, texts, row_order, column_order)
        return Ordering(row_order, column_order, strategy, shared, total)

    def sorted_by(strategy: str, columns: list[int]) -> Ordering:
        return measured(strategy, sort_rows(table, texts, every, columns), _same_for_all(columns, n))

    original = measured("original", every, _same_for_all(list(range(k)), n))
    if reorder == "none" or n <= 1 or k == 0:
        return original
    candidates = [original, sorted_by("rows only", list(range(k)))]
    if reorder == "rows and columns":
        fixed = v1_columns(table, texts)
        if fixed != list(range(k)):
            candidates.append(sorted_by("v1", fixed))
        if _ggr_can_pay(table, texts, total):
            candidates.append(measured("ggr", *ggr(table, texts)))
    return max(candidates, key=lambda candidate: candidate.shared_chars)  # the first of equals


def _same_for_all(columns: list[int], n: int) -> NDArray[np.int16]:
    """(n, k) int16, read-only: one column order, stored once."""
    return np.broadcast_to(np.array(columns, np.int16), (n, len(columns)))


def _ggr_can_pay(table: Table, texts: Texts, total: int) -> bool:
    n, k = table.rows, len(table.columns)
    if k == 1 or n * k * k > _LARGEST_GGR:
        return False
    repeated = sum(
        int(np.maximum(np.bincount(table.codes[:, j], minlength=len(lengths)) - 1, 0) @ lengths)
        for j, lengths in enumerate(texts.lengths)
    )
    return repeated >= _LEAST_REPEATED * total

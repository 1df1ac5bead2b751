"""The order in which rows are sent and, row by row, the order of their cells.

In: a `Table`. Out: an `Ordering`. Neighbouring prompts should share the longest prefixes, because the engine
reuses what it has cached of a prefix. The way through this folder:

    cells      texts become numbers, once
    sent       what has been sent before, as hashes of prefixes
    partition  groups of equal rows, split column by column: so what an ordering shares is counted, never guessed
    fixed      orders of columns that are the same for all rows, or for each of two camps of rows
    tree       a prefix tree grown from such an order, in which every node has columns of its own
    moves      its branches are moved to where they share more
    measured   all numbers that were chosen by measuring, each with what was measured

Here all of them compete, and the ordering that shares most wins:

    original   rows and columns as they came; it competes too, so no plan is worse than none
    rows only  the columns as they came, rows sorted
    v1         the paper's column order for all rows, by length and cardinality
    greedy     the column order for all rows that saves most, column by column
    refined    the best of these column orders after single columns have moved to where more is saved
    tree       the best of some trees, after moves

It never drops or changes a row, knows no token and no block, and depends on nothing but its arguments: no clock, no
random number, no hash seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from pg_bridge.options import Reorder
from pg_bridge.ordering.cells import Cells, count_sent, count_shared
from pg_bridge.ordering.fixed import count_fixed, divide_in_camps, order_greedily, order_v1, refine_order
from pg_bridge.ordering.measured import (
    ASKED_COLUMNS,
    HOPELESS_TREE,
    MOST_SWEEPS,
    MOVED_CELLS,
    REFINED_CELLS,
    SMALL_CELLS,
    TINY_CELLS,
    TREE_CELLS,
    WEIGHED_CELLS,
)
from pg_bridge.ordering.moves import move_branches
from pg_bridge.ordering.partition import count_all, walk
from pg_bridge.ordering.sent import Sent
from pg_bridge.ordering.tree import grow
from pg_bridge.rows.table import Table

__all__ = ["MOST_COLUMNS", "STRATEGIES", "Ordering", "Sent", "Strategy", "order_by", "plan", "weigh"]

MOST_COLUMNS = int(np.iinfo(np.int16).max)

Strategy = Literal["original", "rows only", "v1", "greedy", "refined", "tree"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

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
        sent: What has been sent up to these rows; None where the caller carries nothing from window to window.
    """

    row_order: NDArray[np.intp]
    column_order: NDArray[np.int16]
    strategy: str
    shared_chars: int
    total_chars: int
    sent: Sent | None = None

    @property
    def hit_rate(self) -> float:
        """Shared characters of all characters; 0 where there are none."""
        return self.shared_chars / self.total_chars if self.total_chars else 0.0


def plan(
    table: Table,
    *,
    reorder: Reorder = "rows and columns",
    quick: bool = False,
    after: Sent | None = None,
    check_interrupts: Callable[[], None] = lambda: None,
) -> Ordering:
    """Order a table for prefix reuse.

    Args:
        table: The rows, as a rule distinct ones.
        reorder: What may move: 'none' nothing, 'rows' rows only, 'rows and columns' both.
        quick: Try column orders that are the same for all rows, and no tree: for the first rows of many, which an
            engine waits for, and which the others continue.
        after: What has been sent of the same columns before, `Sent()` for nothing yet: prefixes found there are shared
            too. None plans the table for itself.
        check_interrupts: Called often: before each split of groups of rows; what it raises ends planning.

    Returns:
        The best ordering found; never one that shares less than any single order that was tried does, with what was
        sent before counted in.

    Raises:
        ValueError: There are more than 32,767 columns.
    """
    strategies = _STRATEGIES_OF[reorder]
    if quick:
        strategies = tuple(strategy for strategy in strategies if strategy != "tree")
    return _order(table, strategies, after, check_interrupts)


def order_by(strategy: Strategy, table: Table) -> Ordering:
    """Order a table by one strategy, whatever the others would reach.

    Raises:
        ValueError: There are more than 32,767 columns.
    """
    return _order(table, (strategy,), None, lambda: None)


def weigh(name: str, table: Table, row_order: NDArray[np.intp], column_order: NDArray[np.int16]) -> Ordering:
    """Count what an ordering of one's own shares.

    Args:
        name: What to call it.
        table: The rows.
        row_order: (n,) intp; the rows in sending order.
        column_order: (n, k) int16; the columns of the row sent i-th, in order.
    """
    cells = Cells(table)
    shared = int(count_shared(cells, row_order, column_order).sum())
    return Ordering(row_order, column_order, name, shared, cells.total_chars())


def _order(
    table: Table, strategies: tuple[Strategy, ...], after: Sent | None, check_interrupts: Callable[[], None]
) -> Ordering:
    if len(table.columns) > MOST_COLUMNS:
        raise ValueError(f"at most {MOST_COLUMNS} columns can be ordered")
    cells = Cells(table, after is not None, check_interrupts)
    if cells.columns == 0 or cells.rows < (1 if after is not None and after.order else 2):
        strategies = ("original",)
    best = _choose(_Contest(cells, after).enter(strategies))
    check_interrupts()
    rows = best.row_order if best.row_order is not None else walk(cells, best.column_order)[0]
    column_order = best.column_order[rows]
    shared = int(count_shared(cells, rows, column_order).sum())
    sent = (
        after.add(cells.hashes_by_place(rows, column_order), column_order, check_interrupts)
        if after is not None
        else None
    )
    return Ordering(rows, column_order, best.strategy, shared, cells.total_chars(), sent)


class _Candidate(NamedTuple):
    """One ordering.

    Attributes:
        strategy: Where it comes from.
        column_order: (n, k) int16; each row's columns in order, by row.
        row_order: (n,) intp; the rows in sending order; None where they have yet to be sorted.
        shared_chars: Characters of cells and names that rows share with the row before, or with what was sent before.
    """

    strategy: Strategy
    column_order: NDArray[np.int16]
    row_order: NDArray[np.intp] | None
    shared_chars: int


def _choose(candidates: Iterable[_Candidate]) -> _Candidate:
    """The one that shares most; of equal ones the first."""
    return max(candidates, key=lambda candidate: candidate.shared_chars)


class _Contest:
    """Makes the orderings of one table that compete."""

    def __init__(self, cells: Cells, after: Sent | None) -> None:
        self._cells = cells
        self._sent = after if after is not None and after.order else None
        self._size = cells.rows * cells.columns
        self._orders: dict[Strategy, list[int]] = {}
        self._shared: dict[tuple[int, ...], int] = {}  # what an order of all columns shares

    def enter(self, strategies: tuple[Strategy, ...]) -> Iterator[_Candidate]:
        """The orderings of some strategies."""
        for strategy in strategies:
            if strategy == "original":
                yield self._original()
            elif strategy != "tree":
                yield self._fixed(strategy, self._order(strategy))
            elif self._size <= TREE_CELLS or strategies == ("tree",):
                yield self._tree()
        if self._sent is not None and "refined" in strategies:
            yield self._fixed("refined", list(self._sent.order))

    def _original(self) -> _Candidate:
        cells, sent = self._cells, self._sent
        rows = np.arange(cells.rows, dtype=np.intp)
        column_order = self._for_all(list(range(cells.columns)))
        shared = count_shared(cells, rows, column_order)
        if sent is not None:
            shared = np.maximum(shared, count_sent(cells, sent, rows, column_order))
            return _Candidate("original", column_order, rows, int(shared.sum()))
        equal = (cells.ranks[:, 1:] == cells.ranks[:, :-1]).all(axis=0)  # of equal rows a comma is left out
        return _Candidate("original", column_order, rows, int(shared.sum()) + int(equal.sum()) - len(equal))

    def _fixed(self, strategy: Strategy, columns: list[int]) -> _Candidate:
        column_order = self._for_all(columns)
        if self._sent is None:
            return _Candidate(strategy, column_order, None, self._count(columns))
        return _Candidate(strategy, column_order, *count_all(self._cells, column_order, self._sent))

    def _for_all(self, columns: list[int]) -> NDArray[np.int16]:
        """(n, k) int16, read-only: one column order, stored once."""
        return np.broadcast_to(np.array(columns, np.int16), (self._cells.rows, len(columns)))

    def _count(self, columns: list[int]) -> int:
        key = tuple(columns)
        if key not in self._shared:
            self._shared[key] = count_fixed(self._cells, columns)
        return self._shared[key]

    def _order(self, strategy: Strategy) -> list[int]:
        """One column order for all rows."""
        if strategy not in self._orders:
            if strategy == "v1":
                columns = order_v1(self._cells)
            elif strategy == "greedy":
                columns = order_greedily(self._cells)
            elif strategy == "refined":
                columns = self._refine()
            else:
                columns = list(range(self._cells.columns))
            self._orders[strategy] = columns
        return self._orders[strategy]

    def _refine(self) -> list[int]:
        """The best of the simpler orders once they are refined; of a tiny table only the best of them is."""
        simple = [self._order(strategy) for strategy in ("greedy", "v1", "rows only")]
        simple.sort(key=self._count, reverse=True)
        some = self._sample(REFINED_CELLS)
        refined = [refine_order(some, columns) for columns in _distinct(simple)[: 1 if self._size <= TINY_CELLS else 3]]
        if self._size <= WEIGHED_CELLS:
            return max(refined, key=self._count)
        return max(_distinct(refined), key=partial(count_fixed, self._sample(WEIGHED_CELLS)))

    def _sample(self, most_cells: int) -> Cells:
        """An even sample of the rows."""
        return self._cells.some(np.arange(0, self._cells.rows, -(-self._size // most_cells)))

    def _tree(self) -> _Candidate:
        """The best of the trees, once the branches have moved of those that are not far behind."""
        trees: dict[int, _Candidate] = {}  # of those that share the same the first
        for column_order in self._grow():
            tree = _Candidate("tree", column_order, *count_all(self._cells, column_order, self._sent))
            trees.setdefault(tree.shared_chars, tree)
        least = (1 - HOPELESS_TREE) * max(trees)
        return _choose(self._move(tree) for shared, tree in trees.items() if shared >= least)

    def _grow(self) -> Iterator[NDArray[np.int16]]:
        """Trees, the most promising first."""
        in_camps = self._grow_in_camps() if SMALL_CELLS < self._size <= MOVED_CELLS else None
        yield in_camps if in_camps is not None else grow(self._cells, self._order("refined"))
        if TINY_CELLS < self._size <= SMALL_CELLS:
            yield grow(self._cells, self._order("v1"))
            yield grow(self._cells, order_greedily(self._cells, beginnings=True))

    def _grow_in_camps(self) -> NDArray[np.int16] | None:
        """A tree of two camps of rows, where that pays."""
        cells, order = self._cells, self._order("refined")
        camps = divide_in_camps(cells, order, self._count(order))
        column_order = np.empty((cells.rows, cells.columns), np.int16)
        for camp in camps:
            column_order[camp.rows] = grow(cells.some(camp.rows), camp.order)
        return column_order if camps else None

    def _move(self, tree: _Candidate) -> _Candidate:
        sweeps = min(MOST_SWEEPS, MOVED_CELLS // (self._cells.rows * min(self._cells.columns, ASKED_COLUMNS)))
        if tree.row_order is not None and sweeps:
            moved = move_branches(self._cells, tree.column_order, tree.row_order, tree.shared_chars, self._sent)
            for better in islice(moved, sweeps):
                tree = _Candidate("tree", *better)
        return tree


def _distinct(orders: Iterable[list[int]]) -> list[list[int]]:
    return [list(order) for order in dict.fromkeys(tuple(order) for order in orders)]

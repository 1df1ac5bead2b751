"""The orderings of one table that compete, and which of them wins.

In: a table, the strategies to try, what earlier windows have sent. Out: column orders, each with what it shares. All
arrays of column orders in here are (n, k) int16 by row; by place in the sending order they stand only in an
`Ordering`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.bound import optimum, searchable
from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.cost import shared_chars
from pg_bridge.ordering.fixed import fixed_chars, greedy_columns, v1_columns
from pg_bridge.ordering.polish import polish
from pg_bridge.ordering.rows import tree_chars
from pg_bridge.ordering.sent import Sent
from pg_bridge.ordering.tree import grow
from pg_bridge.statistics import column_statistics
from pg_bridge.table import Table

Strategy = Literal["original", "rows only", "v1", "greedy", "tree", "optimum"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

_TREES = ((1_000, 8), (200_000, 3), (100_000_000, 1), (math.inf, 0))  # grown of tables of at most so many cells
_LOOKED_AT = 8  # columns tried as a node's first
_REGROUPED = 4  # columns among which a node's rows may be divided
_SAMPLE_ROWS = 2_048  # on which a large table's one tree is chosen
_LARGEST_POLISHED = 64  # rows
_MOST_ORDERINGS = 1_500  # of a table so small that all of them are tried


class Candidate(NamedTuple):
    """One ordering.

    Attributes:
        strategy: Where it comes from.
        column_order: (n, k) int16; each row's columns in order.
        shared_chars: Characters of cells that rows share with the row before, or with what was sent earlier.
    """

    strategy: Strategy
    column_order: NDArray[np.int16]
    shared_chars: int


class Candidates:
    """Makes the orderings of one table.

    Args:
        table: The rows.
        cells: Their cells.
        after: What earlier windows have sent.
    """

    def __init__(self, table: Table, cells: Cells, after: Sent | None) -> None:
        self._table = table
        self._cells = cells
        self._last_order = list(after.order) if after is not None else []
        self._greedy: list[int] | None = None

    def best(self, strategies: tuple[Strategy, ...], until: float | None) -> Candidate:
        """The one that shares most; of equal ones that of the first strategy.

        Args:
            strategies: What to try.
            until: Go on growing trees until this `time.monotonic()`; None grows as many as pay as a rule.
        """
        if self._cells.rows < 2 or self._cells.columns == 0:
            strategies = ("original",)
        made = (candidate for strategy in strategies for candidate in self._of(strategy, strategies, until))
        return max(made, key=lambda candidate: candidate.shared_chars)

    def _of(self, strategy: Strategy, strategies: tuple[Strategy, ...], until: float | None) -> Iterator[Candidate]:
        cells = self._cells
        tiny = searchable(cells.rows, cells.columns, _MOST_ORDERINGS)
        alone = len(strategies) == 1
        if strategy == "original":
            column_order = self._for_all(list(range(cells.columns)))
            shared = shared_chars(cells, np.arange(cells.rows, dtype=np.intp), column_order)
            equal = (cells.ranks[:, 1:] == cells.ranks[:, :-1]).all(axis=0)  # of equal rows `cost` leaves out a comma
            yield Candidate(strategy, column_order, shared + int(equal.sum()) - len(equal))
        elif strategy == "optimum":
            if tiny or alone:
                yield self._weighed(strategy, optimum(self._table))
        elif strategy == "tree":
            if alone or not tiny:
                for column_order in self._trees(until):
                    yield self._weighed(strategy, column_order)
        else:
            columns = self._columns_of(strategy)
            yield Candidate(strategy, self._for_all(columns), fixed_chars(cells, columns))

    def _columns_of(self, strategy: Strategy) -> list[int]:
        if strategy == "v1":
            return v1_columns(column_statistics(self._table))
        return self._greedy_columns() if strategy == "greedy" else list(range(self._cells.columns))

    def _greedy_columns(self) -> list[int]:
        if self._greedy is None:
            self._greedy = greedy_columns(self._cells)
        return self._greedy

    def _for_all(self, columns: list[int]) -> NDArray[np.int16]:
        """(n, k) int16, read-only: one column order, stored once."""
        return np.broadcast_to(np.array(columns, np.int16), (self._cells.rows, len(columns)))

    def _weighed(self, strategy: Strategy, column_order: NDArray[np.int16]) -> Candidate:
        return Candidate(strategy, column_order, tree_chars(self._cells, column_order))

    def _trees(self, until: float | None) -> Iterator[NDArray[np.int16]]:
        """Trees, the most promising first; more than one where the table is small, or until the time is over."""
        cells = self._cells
        most = next(trees for largest, trees in _TREES if cells.rows * cells.columns <= largest)
        for grown, (order, looked_at, regrouped) in enumerate(self._attempts(most)):
            if grown >= most + bool(self._last_order) if until is None else grown and time.monotonic() >= until:
                return
            column_order = grow(cells, order, looked_at, regrouped)
            yield polish(cells, column_order) if cells.rows <= _LARGEST_POLISHED else column_order

    def _attempts(self, most: int) -> Iterator[tuple[list[int], int, int]]:
        """What to grow a tree from, how many columns to look at, and among how many to regroup."""
        if self._last_order:
            yield self._last_order, _LOOKED_AT, 0
        greedy = self._greedy_columns()
        regroup_first = most == 1 and _regrouping_pays(self._cells, greedy)
        yield greedy, _LOOKED_AT, _REGROUPED if regroup_first else 0
        yield greedy, _LOOKED_AT, 0 if regroup_first else _REGROUPED
        beginnings = greedy_columns(self._cells, beginnings=True)
        v1 = v1_columns(column_statistics(self._table))
        yield beginnings, _LOOKED_AT // 2, 0
        for order in (beginnings, v1):
            yield order, _LOOKED_AT, 0
        for order in (greedy, v1, beginnings):
            yield order, 1, 0
        for order in (greedy, v1, beginnings):
            yield order, 3 * _LOOKED_AT, 2 * _REGROUPED
        for column in greedy:
            yield [column, *(other for other in greedy if other != column)], 3 * _LOOKED_AT, 2 * _REGROUPED


def _regrouping_pays(cells: Cells, order: list[int]) -> bool:
    """Whether regrouping makes a better tree of an even sample of the rows."""
    some = cells.every(-(-cells.rows // _SAMPLE_ROWS))
    plain, regrouped = (tree_chars(some, grow(some, order, _LOOKED_AT, width)) for width in (0, _REGROUPED))
    return regrouped > plain

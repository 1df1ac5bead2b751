"""The orderings of one table that compete, and which of them wins.

In: a table, the strategies to try, what earlier windows have sent. Out: column orders, each with what it shares. All
arrays of column orders in here are (n, k) int16 by row; by place in the sending order they stand only in an
`Ordering`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.bound import optimum, searchable
from pg_bridge.ordering.camps import two_camps
from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.cost import shared_chars, total_chars
from pg_bridge.ordering.fixed import fixed_chars, greedy_columns, refined_columns, v1_columns
from pg_bridge.ordering.graft import ASKED, graft
from pg_bridge.ordering.groups import all_groups
from pg_bridge.ordering.guide import Guide
from pg_bridge.ordering.rows import walk
from pg_bridge.ordering.sent import Sent
from pg_bridge.ordering.tree import grow
from pg_bridge.rows.statistics import column_statistics
from pg_bridge.rows.table import Table

Strategy = Literal["original", "rows only", "v1", "greedy", "refined", "tree", "optimum"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


class _Effort(NamedTuple):
    """What pays for a table of at most so many cells: of a tiny one the engine's own work is soon done."""

    most_cells: float
    refined: int  # column orders
    trees: int
    camps: bool = False
    guided: int = 0  # cells of all groups at most for a guided tree, however short the rows


_EFFORTS = (
    _Effort(2_000, 1, 1, guided=20_000),
    _Effort(1 << 16, 3, 3),
    _Effort(1 << 19, 3, 1, camps=True),
    _Effort(100_000_000, 3, 1),
    _Effort(math.inf, 3, 0),
)
_LOOKED_AT = 4  # columns tried as a node's first
_REGROUPED = 4  # columns among which a node's rows may be divided
_MOST_REGROUPED = 1 << 18  # rows; it holds several splits of all of them at once
_REFINED_CELLS = 1 << 17  # of an even sample of the rows, on which column orders are refined
_WEIGHED_CELLS = 1 << 20  # likewise, on which the best of the refined orders is found
_GRAFTED_CELLS = 1 << 19  # looked at in all sweeps over a tree's branches together
_MOST_SWEEPS = 16
_GUIDED_CHARS = 100  # of the table, for each cell of all its groups; long rows keep an engine busy for longer
_MOST_GUIDED_CELLS = 2_000_000  # likewise, however long the rows: a second or two
_GUIDED_CELLS_S = {True: 200_000, False: 2_000_000}  # likewise, with and without beginnings, for a second's budget
_GUIDED_ROUNDS = (6, 12, 25, 50, 100)  # of bettering shares, after which there is a guided tree within a budget
_HOPELESS = 0.05  # of what the best tree shares; one that far behind does not catch up when branches move
_MOST_ORDERINGS = 1_500  # of a table so small that all of them are tried


class Candidate(NamedTuple):
    """One ordering.

    Attributes:
        strategy: Where it comes from.
        column_order: (n, k) int16; each row's columns in order.
        row_order: (n,) intp; the rows in sending order; None where they have yet to be sorted.
        shared_chars: Characters of cells and names that rows share with the row before, or with what was sent earlier.
    """

    strategy: Strategy
    column_order: NDArray[np.int16]
    row_order: NDArray[np.intp] | None
    shared_chars: int


class Candidates:
    """Makes the orderings of one table.

    Args:
        table: The rows.
        cells: Their cells.
        after: What earlier windows have sent.
        check_interrupts: Called now and then; what it raises ends all.
    """

    def __init__(
        self, table: Table, cells: Cells, after: Sent | None, check_interrupts: Callable[[], None] = lambda: None
    ) -> None:
        self._table = table
        self._cells = cells
        self._check_interrupts = check_interrupts
        self._carries = after is not None
        self._last_order = list(after.order) if after is not None else []
        self._effort = next(effort for effort in _EFFORTS if cells.rows * cells.columns <= effort.most_cells)
        self._fixed: dict[Strategy, tuple[list[int], int]] = {}  # columns, and what they share
        self._shared: dict[tuple[int, ...], int] = {}  # what columns share

    def best(self, strategies: tuple[Strategy, ...], until: float | None) -> Candidate:
        """The one that shares most; of equal ones that of the first strategy.

        Args:
            strategies: What to try.
            until: Go on growing trees until this `time.monotonic()`; None grows as many as pay as a rule.
        """
        if self._cells.rows < (2 if self._cells.sent is None else 1) or self._cells.columns == 0:
            strategies = ("original",)
        made = (candidate for strategy in strategies for candidate in self._of(strategy, strategies, until))
        return _best(made)

    def _of(self, strategy: Strategy, strategies: tuple[Strategy, ...], until: float | None) -> Iterator[Candidate]:
        cells = self._cells
        tiny = searchable(cells.rows, cells.columns, _MOST_ORDERINGS)
        alone = len(strategies) == 1
        if strategy == "original":
            column_order = self._for_all(list(range(cells.columns)))
            rows = np.arange(cells.rows, dtype=np.intp)
            shared = shared_chars(cells, rows, column_order)
            equal = (cells.ranks[:, 1:] == cells.ranks[:, :-1]).all(axis=0)  # of equal rows `cost` leaves out a comma
            yield Candidate(strategy, column_order, rows, shared + int(equal.sum()) - len(equal))
        elif strategy == "optimum":
            if tiny or alone:
                yield self._weighed(strategy, optimum(self._table))
        elif strategy == "tree":
            pays = self._effort.trees > 0 or until is not None
            if alone or (pays and not tiny):
                yield self._grown(until)
        else:
            columns, shared = self._fixed_order(strategy)
            yield Candidate(strategy, self._for_all(columns), None, shared)

    def _fixed_order(self, strategy: Strategy) -> tuple[list[int], int]:
        """One column order for all rows, and the characters that it shares."""
        if strategy not in self._fixed:
            self._check_interrupts()
            columns = self._fixed_columns(strategy)
            self._fixed[strategy] = columns, self._shared_by(columns)
        return self._fixed[strategy]

    def _shared_by(self, columns: list[int]) -> int:
        key = tuple(columns)
        if key not in self._shared:
            self._shared[key] = fixed_chars(self._cells, columns)
        return self._shared[key]

    def _fixed_columns(self, strategy: Strategy) -> list[int]:
        if strategy == "v1":
            return v1_columns(column_statistics(self._table))
        if strategy == "greedy":
            return greedy_columns(self._cells)
        if strategy == "refined":
            refined = self._refined()
            if self._cells.rows * self._cells.columns <= _WEIGHED_CELLS:
                return max(refined, key=self._shared_by)
            return max(refined, key=partial(fixed_chars, self._some(_WEIGHED_CELLS)))
        return list(range(self._cells.columns))

    def _refined(self) -> list[list[int]]:
        """The simpler orders, the best of them if not all, each refined."""
        simple = [self._fixed_order(strategy)[0] for strategy in ("greedy", "v1", "rows only")]
        simple.sort(key=self._shared_by, reverse=True)
        some = self._some(_REFINED_CELLS)
        chosen = _distinct(simple)[: self._effort.refined]
        return _distinct(refined_columns(some, columns, self._check_interrupts) for columns in chosen)

    def _some(self, most_cells: int) -> Cells:
        """An even sample of the rows."""
        step = -(-self._cells.rows * self._cells.columns // most_cells)
        return self._cells.some(np.arange(0, self._cells.rows, step))

    def _for_all(self, columns: list[int]) -> NDArray[np.int16]:
        """(n, k) int16, read-only: one column order, stored once."""
        return np.broadcast_to(np.array(columns, np.int16), (self._cells.rows, len(columns)))

    def _weighed(self, strategy: Strategy, column_order: NDArray[np.int16]) -> Candidate:
        return Candidate(strategy, column_order, *walk(self._cells, column_order))

    def _grown(self, until: float | None) -> Candidate:
        """The best of the trees once their branches have moved."""
        trees = self._weigh(self._trees(until))
        if self._carries:  # a later window continues a tree as it grew better than one whose branches moved
            return _best(trees)
        if until is None:
            trees = chain(_promising(trees), self._weigh(self._guided()))
        return _best(self._grafted(tree, until) for tree in trees)

    def _weigh(self, column_orders: Iterable[NDArray[np.int16]]) -> Iterator[Candidate]:
        return (self._weighed("tree", column_order) for column_order in column_orders)

    def _grafted(self, tree: Candidate, until: float | None) -> Candidate:
        cells = self._cells
        sweeps = min(_MOST_SWEEPS, _GRAFTED_CELLS // (cells.rows * min(cells.columns, ASKED)))
        if until is not None and cells.rows <= _MOST_REGROUPED:
            sweeps = _MOST_SWEEPS
        if tree.row_order is None or not sweeps:
            return tree
        start = tree.column_order, tree.row_order, tree.shared_chars
        for better in islice(graft(cells, *start, self._check_interrupts), sweeps):
            tree = Candidate("tree", *better)
            if until is not None and time.monotonic() >= until:
                break
        return tree

    def _trees(self, until: float | None) -> Iterator[NDArray[np.int16]]:
        """Trees, the most promising first; as many as pay as a rule, and more until the time is over."""
        in_camps, grown = list(self._in_camps()), self._grow()
        most = max(self._effort.trees, 1) + bool(self._last_order)
        if in_camps and not self._carries:  # where it stands in place of a tree of all rows
            most -= 1
        as_a_rule = chain(in_camps, islice(grown, most))
        if until is None:
            yield from as_a_rule
            return
        for column_order in chain(as_a_rule, self._guided(until), grown):
            yield column_order
            if time.monotonic() >= until:
                return

    def _in_camps(self) -> Iterator[NDArray[np.int16]]:
        """A tree of two camps of rows, where that pays."""
        cells = self._cells
        if not self._effort.camps:
            return
        camps = two_camps(cells, *self._fixed_order("refined"), self._check_interrupts)
        if not camps:
            return
        column_order = np.empty((cells.rows, cells.columns), np.int16)
        for rows, order in camps:
            some = cells.some(rows)
            column_order[rows] = grow(some, order, _LOOKED_AT, _REGROUPED, check_interrupts=self._check_interrupts)
        yield column_order

    def _grow(self) -> Iterator[NDArray[np.int16]]:
        for attempt in self._attempts():
            settled = attempt[0] is self._fixed_order("refined")[0]
            yield grow(self._cells, *attempt, settled=settled, check_interrupts=self._check_interrupts)

    def _guided(self, until: float | None = None) -> Iterator[NDArray[np.int16]]:
        """Starts for branches to move from; none where there are too many groups of rows for the time."""
        if self._carries:
            return
        rounds: tuple[int, ...] = (0,)
        by_length = min(total_chars(self._cells) // _GUIDED_CHARS, _MOST_GUIDED_CELLS)
        tries = [(False, max(self._effort.guided, by_length))]
        if until is not None:
            rounds = _GUIDED_ROUNDS
            left_s = max(until - time.monotonic(), 0.0)
            tries = [(beginnings, int(left_s * cells_s)) for beginnings, cells_s in _GUIDED_CELLS_S.items()]
        for beginnings, most in tries:
            groups = all_groups(self._cells, most, beginnings, self._check_interrupts) if most else None
            if groups is not None:
                break
        else:
            return
        guide = Guide(self._cells, groups, self._fixed_order("refined")[0])
        for done, shares in enumerate(guide.rounds()):
            self._check_interrupts()
            if done in rounds:
                yield guide.column_order(shares)
            if done == rounds[-1] or (until is not None and time.monotonic() >= until):
                return

    def _attempts(self) -> Iterator[tuple[list[int], int, int]]:
        """What to grow a tree from, how many columns to look at, and among how many to regroup."""
        if self._last_order:
            yield self._last_order, _LOOKED_AT, 0
        refined, greedy, v1 = (self._fixed_order(strategy)[0] for strategy in ("refined", "greedy", "v1"))
        regrouped = _REGROUPED if self._cells.rows <= _MOST_REGROUPED else 0
        yield refined, _LOOKED_AT, regrouped
        yield v1, _LOOKED_AT, regrouped
        beginnings = greedy_columns(self._cells, beginnings=True)
        yield beginnings, _LOOKED_AT, 0
        orders = (v1, greedy, refined, beginnings)
        for looked_at, among in ((2 * _LOOKED_AT, _REGROUPED), (2 * _LOOKED_AT, 0), (1, 0)):
            yield from ((order, looked_at, among) for order in orders)
        yield from ((order, 6 * _LOOKED_AT, 2 * _REGROUPED) for order in orders)
        for column in refined:
            moved = [column, *(other for other in refined if other != column)]
            yield moved, 6 * _LOOKED_AT, 2 * _REGROUPED


def _best(candidates: Iterable[Candidate]) -> Candidate:
    """The one that shares most; of equal ones the first."""
    return max(candidates, key=lambda candidate: candidate.shared_chars)


def _promising(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Those that are not far behind the best; of equal ones the first."""
    by_shared: dict[int, Candidate] = {}
    for candidate in candidates:
        by_shared.setdefault(candidate.shared_chars, candidate)
    least = (1 - _HOPELESS) * max(by_shared)
    return (candidate for shared, candidate in by_shared.items() if shared >= least)


def _distinct(orders: Iterable[list[int]]) -> list[list[int]]:
    return [list(order) for order in dict.fromkeys(tuple(order) for order in orders)]

"""How small a prefix tree can be at best: rows pay for its nodes together.

In: all groups of rows that a tree could hold together (`groups`). Out: a number of characters, a lower bound.

Let the rows of each group share out the characters that the group adds to a larger one, in whatever parts, and let each
row go down to itself by the way that costs it least. No tree is smaller than what all rows pay together: each of its
nodes is paid by its rows at least once in full, and a tree's ways are no better than the cheapest. This is the dual of
the linear program of Steiner arborescences (Wong, 1984). So any parts give a bound, and the better the parts the tighter
it is. Those rows pay most of a group that can hardly do without it: parts grow with the use that rows make of a group
(multiplicative weights, with momentum, on ways that are chosen softly, ever less so).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.groups import Groups

_ROUNDS = 100
_COUNTED_EVERY = 10  # rounds
_SOFTEST, _HARDEST = 0.2, 0.015  # how unequal ways are still both gone, in parts of what an edge costs on average
_STEP, _LARGEST_STEP = 2.0, 3.0
_MOMENTUM = 0.9
_LEAST_PART = 1e-17
_FROM_ABOVE = 1 - 1e-9  # of what was computed, for what floating-point numbers round


def least_tree_chars(
    groups: Groups, row_chars: NDArray[np.int64], check_interrupts: Callable[[], None] = lambda: None
) -> int:
    """Characters that the smallest tree of all rows has at least.

    Args:
        groups: All groups of the rows.
        row_chars: (n,) int64; each row's characters.
        check_interrupts: Called every round.
    """
    ways = _Ways.of(groups, row_chars)
    best, part = ways.least(ways.evenly()), ways.evenly()
    grown = np.zeros(len(part))
    average = float(ways.cost.mean()) if len(ways.cost) else 1.0
    for soft in np.geomspace(_SOFTEST * average, _HARDEST * average, _ROUNDS) if len(part) else ():
        check_interrupts()
        use = ways.use(part, soft)
        step = np.minimum(_STEP * soft / (ways.cost * ways.most(part)), _LARGEST_STEP)
        grown *= _MOMENTUM
        grown += step[ways.edge] * (use - ways.most(use)[ways.edge])
        with np.errstate(divide="ignore"):
            part = ways.shared_out(np.maximum(np.log(part), np.log(_LEAST_PART)) + grown)
        best = max(best, ways.least(part))
    return int(np.ceil(best * _FROM_ABOVE))


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """Steps that can be gone once all steps of earlier levels have been.

    Attributes:
        steps: Which, as a slice.
        start: (t,) intp; where in the slice those begin that lead to the same place.
        place: (t,) intp; that place.
    """

    steps: slice
    start: NDArray[np.intp]
    place: NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class _Ways:
    """All ways of all rows through the graph: a place is a row in a group, a step a row's use of an edge.

    Attributes:
        cost: (e,) float64; characters of each edge.
        edge: (s,) int32; each step's.
        from_: (s,) int32; the place where it begins.
        to: (s,) int32; the place where it ends.
        levels: The steps, in the order in which they can be gone.
        rest: (p,) float64; what is left for a row to pay alone at each place.
        by_row: (p,) intp; the places, row after row.
        row_start: (n,) intp; where in `by_row` each row's begin.
    """

    cost: NDArray[np.float64]
    edge: NDArray[np.int32]
    from_: NDArray[np.int32]
    to: NDArray[np.int32]
    levels: list[_Level]
    rest: NDArray[np.float64]
    by_row: NDArray[np.intp]
    row_start: NDArray[np.intp]

    @classmethod
    def of(cls, groups: Groups, row_chars: NDArray[np.int64]) -> _Ways:
        """Give each row its steps."""
        n = len(row_chars)
        size = np.diff(groups.begin)
        group = np.repeat(np.arange(len(size)), size)
        depth = _depths(groups)
        order = np.lexsort((groups.target, depth[groups.target]))
        source, target = groups.source[order], groups.target[order]
        steps = size[target]
        edge = np.repeat(np.arange(len(target)), steps)
        to = np.arange(steps.sum()) + np.repeat(groups.begin[target] - (np.cumsum(steps) - steps), steps)
        from_ = np.searchsorted(group * n + groups.rows, source[edge] * n + groups.rows[to])
        order = np.lexsort((to, depth[target[edge]]))
        edge, from_, to = (each[order].astype(np.int32) for each in (edge, from_, to))
        levels = []
        ends = np.cumsum(np.bincount(depth[target[edge]]))
        for begin, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            start = np.flatnonzero(np.diff(to[begin:end], prepend=-1))
            levels.append(_Level(slice(begin, end), start, to[begin:end][start].astype(np.intp)))
        by_row = np.argsort(groups.rows, kind="stable")
        row_start = np.flatnonzero(np.diff(groups.rows[by_row], prepend=-1))
        cost = (groups.chars[target] - groups.chars[source]).astype(np.float64)
        rest = (row_chars[groups.rows] - groups.chars[group]).astype(np.float64)
        return cls(cost, edge, from_, to, levels, rest, by_row, row_start)

    def evenly(self) -> NDArray[np.float64]:
        """(s,) float64: equal parts of each edge."""
        return 1 / np.bincount(self.edge, minlength=len(self.cost))[self.edge]

    def most(self, of_steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """(e,) float64: the most of each edge's steps."""
        most = np.zeros(len(self.cost))
        np.maximum.at(most, self.edge, of_steps)
        return most

    def shared_out(self, logarithms: NDArray[np.float64]) -> NDArray[np.float64]:
        """(s,) float64: parts of each edge in proportion."""
        most = np.full(len(self.cost), -np.inf)
        np.maximum.at(most, self.edge, logarithms)
        part = np.exp(logarithms - most[self.edge])
        part /= np.bincount(self.edge, weights=part, minlength=len(self.cost))[self.edge]
        return part

    def least(self, part: NDArray[np.float64]) -> float:
        """What all rows pay, each by its cheapest way."""
        pays = self.cost[self.edge] * part
        paid = np.zeros(len(self.rest))
        for level in self.levels:
            paid[level.place] = np.minimum.reduceat(paid[self.from_[level.steps]] + pays[level.steps], level.start)
        return float(np.minimum.reduceat((paid + self.rest)[self.by_row], self.row_start).sum())

    def use(self, part: NDArray[np.float64], soft: float) -> NDArray[np.float64]:
        """(s,) float64: how much each row goes each step, if a way that costs `soft` more is gone 1/e times as much."""
        pays = self.cost[self.edge] * part
        paid, use = np.zeros(len(self.rest)), np.empty(len(part))
        for level in self.levels:
            through = paid[self.from_[level.steps]] + pays[level.steps]
            paid[level.place], use[level.steps] = _soft_minima(through, level.start, soft)
        rows_end = np.empty(len(self.rest))
        rows_end[self.by_row] = _soft_minima((paid + self.rest)[self.by_row], self.row_start, soft)[1]
        for level in reversed(self.levels):
            use[level.steps] *= rows_end[self.to[level.steps]]
            rows_end += np.bincount(self.from_[level.steps], weights=use[level.steps], minlength=len(rows_end))
        return use


def _soft_minima(
    values: NDArray[np.float64], start: NDArray[np.intp], soft: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each run of values the soft minimum, and of each value its weight in it."""
    size = np.diff(start, append=len(values))
    least = np.minimum.reduceat(values, start)
    weight = np.exp((np.repeat(least, size) - values) / soft)
    total = np.add.reduceat(weight, start)
    return least - soft * np.log(total), weight / np.repeat(total, size)


def _depths(groups: Groups) -> NDArray[np.intp]:
    """(v,) intp: the edges of the longest way to each group."""
    depth = np.zeros(len(groups.chars), np.intp)
    while True:
        deeper = depth.copy()
        np.maximum.at(deeper, groups.target, depth[groups.source] + 1)
        if np.array_equal(deeper, depth):
            return depth
        depth = deeper

"""Rows share out the cost of a prefix tree: how small it can be at best.

In: all groups of rows that a tree could keep together (`groups`). Out: a lower bound on the tree's characters.

Let the rows of a group share out the characters that it adds to a larger one, in whatever parts, and let each row go
down to itself by the way that costs it least. No tree is smaller than what all rows pay together: it has each of its
nodes in full, which is what all rows' parts of it come to, and no way through it costs a row less than its cheapest. So
any parts give a bound: the dual of the linear program for Steiner arborescences (Wong, 1984). The better the parts,
the tighter it is. In good parts those rows pay most of a group
that can hardly do without it. So parts grow with the use that rows make of a group (multiplicative weights, with
momentum), and a row makes use of all ways at first, but of those that cost more ever less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pg_bridge.analysis.groups import Groups
from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.partition import NONE

ROUNDS = 100
_COUNTED_EVERY = 10  # rounds
_SOFTEST, _HARDEST = 0.2, 0.015  # what more a way costs that is used 1/e times as much; in parts of the average edge
_STEP, _LARGEST_STEP = 2.0, 3.0  # how much a part grows in one round: a logarithm
_MOMENTUM = 0.9
_LEAST_PART = 1e-17
_ROUNDED = 1e-9  # of what was computed


def least_tree_chars(cells: Cells, groups: Groups, check_interrupts: Callable[[], None] = lambda: None) -> int:
    """Characters that any tree of all rows has at least.

    Args:
        cells: The rows' cells.
        groups: All groups of the rows, with beginnings.
        check_interrupts: Called every round.
    """
    ways = Ways.of(cells, groups)
    best = 0.0
    for done, part in enumerate(ways.rounds()):
        check_interrupts()
        if done % _COUNTED_EVERY == 0:
            best = max(best, ways.least(part))
    return int(groups.chars[0]) + int(np.ceil(best * (1 - _ROUNDED)))  # what all rows share is in every tree


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """Steps that can be gone once those of earlier levels have been.

    Attributes:
        steps: Which, as a slice; those that lead to one place stand together.
        start: (t,) intp; where in the slice these begin.
        place: (t,) intp; to which place they lead.
    """

    steps: slice
    start: NDArray[np.intp]
    place: NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Ways:
    """All ways of all rows through the groups. A place is a row in a group, a step a row's use of an edge.

    Attributes:
        cost: (e,) float64; characters of each edge.
        edge: (s,) int32; each step's.
        from_: (s,) int32; the place where it begins.
        to: (s,) int32; the place where it ends.
        levels: The steps, in the order in which they can be gone.
        by_edge: (s,) int32; the steps, edge after edge.
        edge_start: (e,) intp; where in `by_edge` each edge's begin.
        rest: (p,) float64; what is left at each place for its row to pay alone.
        by_row: (p,) intp; the places, row after row.
        row_start: (n,) intp; where in `by_row` each row's begin.
    """

    cost: NDArray[np.float64]
    edge: NDArray[np.int32]
    from_: NDArray[np.int32]
    to: NDArray[np.int32]
    levels: list[_Level]
    by_edge: NDArray[np.int32]
    edge_start: NDArray[np.intp]
    rest: NDArray[np.float64]
    by_row: NDArray[np.intp]
    row_start: NDArray[np.intp]

    @classmethod
    def of(cls, cells: Cells, groups: Groups) -> Ways:
        """Give each row its steps."""
        size = np.diff(groups.begin)
        group = np.repeat(np.arange(len(size)), size)
        depth = _depths(groups)
        by_depth = np.lexsort((groups.target, depth[groups.target]))
        source, target = groups.source[by_depth], groups.target[by_depth]
        steps = size[target]
        edge_start = np.cumsum(steps) - steps
        edge = np.repeat(np.arange(len(target)), steps)
        to = np.arange(len(edge)) + np.repeat(groups.begin[target] - edge_start, steps)
        from_ = np.searchsorted(group * cells.rows + groups.rows, source[edge] * cells.rows + groups.rows[to])
        order = np.lexsort((to, depth[target[edge]]))
        by_edge = np.empty(len(edge), np.int32)
        by_edge[order] = np.arange(len(edge))
        edge, from_, to = (each[order].astype(np.int32) for each in (edge, from_, to))
        levels = []
        ends = np.cumsum(np.bincount(depth[target[edge]], minlength=1)).tolist()
        for begin, end in pairwise(ends):
            start = np.flatnonzero(np.diff(to[begin:end], prepend=NONE))
            levels.append(_Level(slice(begin, end), start, to[begin:end][start].astype(np.intp)))
        by_row = np.argsort(groups.rows, kind="stable")
        row_start = np.flatnonzero(np.diff(groups.rows[by_row], prepend=NONE))
        place = cells.ranks.astype(np.intp) + cells.offsets[:, np.newaxis]
        row_chars = cells.chars[place].sum(axis=0)
        rest = (row_chars[groups.rows] - groups.chars[group]).astype(np.float64)
        cost = (groups.chars[target] - groups.chars[source]).astype(np.float64)
        return cls(cost, edge, from_, to, levels, by_edge, edge_start, rest, by_row, row_start)

    def rounds(self) -> Iterator[NDArray[np.float64]]:
        """The steps' parts of their edges: equal ones, then better ones, from ever fewer ways that are used."""
        part = 1 / np.bincount(self.edge, minlength=len(self.cost))[self.edge]
        growth = np.zeros(len(part))
        average = float(self.cost.mean()) if len(self.cost) else 1.0
        softness = np.geomspace(_SOFTEST * average, _HARDEST * average, ROUNDS + 1).tolist()
        yield part
        for soft in softness[1:] if len(part) else ():
            use = self._use(part, soft)
            step = np.minimum(_STEP * soft / (self.cost * self._most(part)), _LARGEST_STEP)
            growth *= _MOMENTUM
            growth += step[self.edge] * (use - self._most(use)[self.edge])
            part = self._shared_out(np.log(np.maximum(part, _LEAST_PART)) + growth)
            yield part

    def least(self, part: NDArray[np.float64]) -> float:
        """What all rows pay, each by its cheapest way."""
        pays = self.cost[self.edge] * part
        paid = np.zeros(len(self.rest))
        for level in self.levels:
            paid[level.place] = np.minimum.reduceat(paid[self.from_[level.steps]] + pays[level.steps], level.start)
        return float(np.minimum.reduceat((paid + self.rest)[self.by_row], self.row_start).sum())

    def _softly(self, part: NDArray[np.float64], soft: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How much of a row's use of a place comes by each step to it, and how much of a row ends at each place."""
        pays = self.cost[self.edge] * part
        paid, weight, end = np.zeros(len(self.rest)), np.empty(len(part)), np.empty(len(self.rest))
        for level in self.levels:
            through = paid[self.from_[level.steps]] + pays[level.steps]
            paid[level.place], weight[level.steps] = _soft_minima(through, level.start, soft)
        end[self.by_row] = _soft_minima((paid + self.rest)[self.by_row], self.row_start, soft)[1]
        return weight, end

    def _use(self, part: NDArray[np.float64], soft: float) -> NDArray[np.float64]:
        """(s,) float64: how much each row makes use of each step."""
        use, through = self._softly(part, soft)
        for level in reversed(self.levels):
            use[level.steps] *= through[self.to[level.steps]]
            through += np.bincount(self.from_[level.steps], weights=use[level.steps], minlength=len(through))
        return use

    def _most(self, of_steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """(e,) float64: the most of each edge's steps."""
        most: NDArray[np.float64] = np.maximum.reduceat(of_steps[self.by_edge], self.edge_start)
        return most

    def _shared_out(self, logarithms: NDArray[np.float64]) -> NDArray[np.float64]:
        """(s,) float64: parts of each edge in proportion."""
        part = np.exp(logarithms - self._most(logarithms)[self.edge])
        part /= np.add.reduceat(part[self.by_edge], self.edge_start)[self.edge]
        return part


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

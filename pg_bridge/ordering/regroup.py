"""Lets the rows of one node begin with different columns, where that shares more than one column for all of them.

In: nodes and the order of columns found best for each. Out: a first column for every row. Where values are popular
but not in the same column for every row (the passages that a search returned, say), no single column is right.

It is a local search with exact figures. A move takes all rows of a node that hold one value of one column, and lets
them begin with that column. It wins what these rows then share among themselves, and with the rows that begin there
already; it loses what they shared where they were. Moves that win more than they lose are made together, each row
going where the win is largest, and are kept where the node as a whole has gained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.descent import NONE, descend
from pg_bridge.ordering.partition import Partition, divide, sort_order, split

_ROUNDS = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Value:
    """The groups of rows of one node that are equal in one column.

    Attributes:
        group: (r,) intp; for each row of the partition its group, -1 where it is alone with its cell.
        inner: (g, w) int16; the columns after this one, for each group.
        chars: (g,) int64; characters of the cell.
        saved: (g,) float64; characters saved if all rows of the group began with this column.
        known: (g,) intp; 1 where an earlier window has sent what the group would begin with, else 0.
        prefix: (g,) uint64; the hash of that; None where no earlier window is known.
    """

    group: NDArray[np.intp]
    inner: NDArray[np.int16]
    chars: NDArray[np.int64]
    saved: NDArray[np.float64]
    known: NDArray[np.intp]
    prefix: NDArray[np.uint64] | None


@dataclass(frozen=True, slots=True, eq=False)
class _Shared:
    """What rows share at one depth of the arrangement as it is: groups of equal rows.

    Attributes:
        at: (s,) intp; places in the partition, group after group.
        group: (s,) intp.
        size: (g,) intp; rows of each group; one more where an earlier window has sent the same.
        chars: (g,) int64; characters that each row but one saves at this depth.
    """

    at: NDArray[np.intp]
    group: NDArray[np.intp]
    size: NDArray[np.intp]
    chars: NDArray[np.int64]


def regroup(cells: Cells, partition: Partition, order: NDArray[np.int16]) -> tuple[NDArray[np.int16], float]:
    """Choose a first column for each row.

    Args:
        cells: The table's cells.
        partition: The nodes' rows.
        order: (count, w) int16; each node's columns, best first, padded.

    Returns:
        first: (r,) int16; for each of `partition.rows` a column of its node's order.
        gain: Characters won over one first column a node, as a share of all those saved.
    """
    return _Search(cells, partition, order).run()


class _Search:
    def __init__(self, cells: Cells, partition: Partition, order: NDArray[np.int16]) -> None:
        self._cells = cells
        self._partition = partition
        self._order = order
        self._place = np.empty(cells.rows, np.intp)  # of a row in the partition
        self._place[partition.rows] = np.arange(len(partition.rows))
        self._values = {int(column): self._value(int(column)) for column in np.unique(order[order != NONE])}

    def run(self) -> tuple[NDArray[np.int16], float]:
        """Move rows until nothing is won."""
        first = self._order[self._partition.group, 0]
        saved, shared = self._arrangement(first)
        before = float(saved.sum())
        open_ = np.ones(self._partition.count, np.bool_)
        for _ in range(_ROUNDS):
            moved = self._moves(first, shared, open_)
            if moved is None:
                break
            saved_then, shared_then = self._arrangement(moved)
            won = saved_then > saved
            open_ &= won
            if not won.any():
                break
            if won.all():
                first, saved, shared = moved, saved_then, shared_then
            else:
                first = np.where(won[self._partition.group], moved, first)
                saved, shared = self._arrangement(first)
        return first, float(saved.sum()) / before - 1 if before else 0.0

    def _value(self, column: int) -> _Value:
        cells, partition = self._cells, self._partition
        has = (self._order == column).any(axis=1)
        nodes = np.flatnonzero(has)
        parts = split(cells, partition if has.all() else partition.of(has), column)
        groups, large = parts.groups()
        inner = _without(self._order[nodes[parts.parent[large]]], np.full(groups.count, column, np.int16))
        group = np.full(len(partition.rows), -1, np.intp)
        group[self._place[groups.rows]] = groups.group
        rank = cells.ranks[column][parts.rows[parts.start[large]]]
        chars = cells.chars[cells.offsets[column] + rank]
        known = parts.known[large]
        saved = (chars * (parts.size[large] - 1 + known)).astype(np.float64)
        if groups.count:
            for level in descend(cells, groups, inner):
                saved += level.saved(groups.count)
        return _Value(group, inner, chars, saved, known, groups.prefix)

    def _arrangement(self, first: NDArray[np.int16]) -> tuple[NDArray[np.float64], list[_Shared]]:
        """(count,) float64: characters saved in each node if each row begins with its column; and where."""
        cells, partition = self._cells, self._partition
        groups, node, column = divide(partition, first)
        order = np.concatenate([column[:, np.newaxis], _without(self._order[node], column)], axis=1)
        saved = np.zeros(partition.count)
        shared = []
        for level in descend(cells, groups, order):
            saved += np.bincount(node[level.owner], weights=level.parts.saved, minlength=partition.count)
            equal, large = level.parts.groups()
            shared.append(
                _Shared(
                    self._place[equal.rows],
                    equal.group,
                    (level.parts.size + level.parts.known)[large],
                    cells.chars[level.parts.place[large]],
                )
            )
        return saved, shared

    def _moves(
        self, first: NDArray[np.int16], shared: list[_Shared], open_: NDArray[np.bool_]
    ) -> NDArray[np.int16] | None:
        """(r,) int16: where each row would rather begin; None where every row stays."""
        may_move = open_[self._partition.group]
        best = np.zeros(len(first))
        moved = first.copy()
        for column, value in self._values.items():
            moving = may_move & (first != column) & (value.group >= 0)
            if not moving.any():
                continue
            win = value.saved - self._saved_there(first == column, value) - _lost(shared, moving, value)
            win = win[value.group]
            better = moving & (win > best)
            best[better], moved[better] = win[better], column
        return None if np.array_equal(moved, first) else moved

    def _saved_there(self, here: NDArray[np.bool_], value: _Value) -> NDArray[np.float64]:
        """(g,) float64: characters saved by those rows of each group that begin with the column already."""
        saved = np.zeros(len(value.chars))
        at = np.flatnonzero(here & (value.group >= 0))
        if not at.size:
            return saved
        at = at[np.argsort(value.group[at], kind="stable")]
        number, group = np.unique(value.group[at], return_inverse=True)
        saved[number] = value.chars[number] * (np.bincount(group) - 1 + value.known[number])
        prefix = None if value.prefix is None else value.prefix[number]
        inside = Partition(self._partition.rows[at], group, len(number), prefix)
        for level in descend(self._cells, inside, value.inner[number]):
            saved[number] += level.saved(len(number))
        return saved


def _lost(shared: list[_Shared], moving: NDArray[np.bool_], value: _Value) -> NDArray[np.float64]:
    """(g,) float64: characters that the rest of the table no longer saves when the moving rows of a group leave.

    Of a group of equal rows, m leaving lose m times its characters, or one time fewer if they are all of it.
    """
    lost = np.zeros(len(value.chars))
    for level in shared:
        leaving = moving[level.at]
        if not leaving.any():
            continue
        equal, group = level.group[leaving], value.group[level.at[leaving]]
        order = sort_order(equal, group)
        group = group[order]
        begins = np.ones(len(group), np.bool_)
        begins[1:] = (equal[1:] != equal[:-1]) | (group[1:] != group[:-1])
        start = np.flatnonzero(begins)
        count = np.diff(start, append=len(group))
        equal, group = equal[start], group[start]
        lost += np.bincount(
            group, weights=level.chars[equal] * (count - (count == level.size[equal])), minlength=len(lost)
        )
    return lost


def _without(order: NDArray[np.int16], column: NDArray[np.int16]) -> NDArray[np.int16]:
    """(g, w - 1) int16: each row of `order` without one of its columns."""
    g, w = order.shape
    keep = order != column[:, np.newaxis]
    others: NDArray[np.int16] = order[keep].reshape(g, w - 1)
    return others

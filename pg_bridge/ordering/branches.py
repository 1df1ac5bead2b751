"""The prefix tree of ordered rows as arrays of its nodes, and column orders made of such arrays.

In: each row's order of columns, and the rows sorted by it. Out: nodes, each with the cells that all its rows have in
common. Within these cells an order is free: rows begin with what the root has in common, go on with what the next node
adds, and so on. So a tree is no more than each node's parent, and moving a branch is setting one number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.descent import NONE
from pg_bridge.ordering.partition import sort_keys


@dataclass(frozen=True, slots=True, eq=False)
class Branches:
    """The N nodes of a tree: those of two rows or more, parents before children, then one for each row.

    Attributes:
        parent: (N,) intp; `NONE` for the root, which is the first.
        begin: (N,) intp; where a node's rows begin in the sending order.
        end: (N,) intp; where they end.
        common: (N, k) int32; places of the cells that all rows of a node hold, `NONE` where they differ.
        chars: (N, k) int32; the characters of these cells.
        rows: (n,) intp; the rows in sending order, as the last n nodes stand for them.
    """

    parent: NDArray[np.intp]
    begin: NDArray[np.intp]
    end: NDArray[np.intp]
    common: NDArray[np.int32]
    chars: NDArray[np.int32]
    rows: NDArray[np.intp]

    @classmethod
    def of(cls, cells: Cells, rows: NDArray[np.intp], column_order: NDArray[np.int16]) -> Branches:
        """Cut sorted rows into the tree's nodes.

        Args:
            cells: Their cells; one row at least.
            rows: (n,) intp; the rows, sorted along the order of columns.
            column_order: (n, k) int16; each row's columns in order.
        """
        n = cells.rows
        place = np.take(cells.ranks, rows, axis=1).astype(np.int32)
        place += cells.offsets.astype(np.int32)[:, np.newaxis]
        begin, end, parent = _runs(_depths(place, column_order[rows]))
        inner = len(begin) - n
        common = np.empty((len(begin), cells.columns), np.int32)
        common[inner:] = place.T
        changes = np.zeros(n, np.int32)
        for column, cell in enumerate(place):
            np.cumsum(cell[1:] != cell[:-1], out=changes[1:])
            constant = changes[end[:inner] - 1] == changes[begin[:inner]]
            common[:inner, column] = np.where(constant, cell[begin[:inner]], NONE)
        chars = np.where(common == NONE, 0, np.take(cells.chars.astype(np.int32), common, mode="clip"))
        return cls(parent, begin, end, common, chars, rows)

    @property
    def inner(self) -> int:
        """How many nodes are of two rows or more."""
        return len(self.parent) - len(self.rows)


def levels(parent: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The nodes of each level, the root's first."""
    depth = (parent != NONE).astype(np.intp)
    above = np.where(parent == NONE, np.arange(len(parent)), parent)
    while (further := depth[above]).any():  # each time twice as far up
        depth += further
        above = above[above]
    by_depth, depth = sort_keys(depth)
    return np.split(by_depth, np.flatnonzero(np.diff(depth)) + 1)


def column_orders(
    cells: Cells,
    parent: NDArray[np.intp],
    common: NDArray[np.int32],
    leaves: NDArray[np.intp],
    before: NDArray[np.int16],
    like: NDArray[np.intp],
) -> NDArray[np.int16]:
    """Let each row take the columns of its nodes, from the root on.

    Args:
        cells: The table's cells.
        parent: (N,) intp; the tree's nodes.
        common: (N, k) int32; what the rows of each node have in common.
        leaves: (n,) intp; each row's node.
        before: (n, k) int16; each row's columns in an order.
        like: (N,) intp; for each node a row whose order decides where the tree does not: what a node's rows have in
            common they must hold in one order.

    Returns:
        (n, k) int16; each row's columns in order.
    """
    n, k = before.shape
    by_level = levels(parent)
    first = _first_columns(cells, parent, common)
    place = np.empty((n, k), np.int32)
    place[np.arange(n)[:, np.newaxis], before] = np.arange(k)
    last = (2 * len(by_level) + 1) * k
    taken = np.full(common.shape, last, np.int32)  # by the level where a column is taken; the first less than others
    for level, nodes in enumerate(by_level):
        here = (2 * level + 1) * k + place[like[nodes]]
        chosen = np.flatnonzero(first[nodes] != NONE)
        here[chosen, first[nodes[chosen]]] -= k
        if level:
            above = parent[nodes]
            here = np.where(common[above] != NONE, taken[above], here)
        taken[nodes] = np.where(common[nodes] != NONE, here, last)
    return np.argsort(taken[leaves], axis=1).astype(np.int16)


def _depths(place: NDArray[np.int32], column_order: NDArray[np.int16]) -> NDArray[np.intp]:
    """(n,) intp: the leading cells that each row shares with the one before it; `NONE` for the first row."""
    n = len(column_order)
    depth = np.zeros(n, np.intp)
    depth[0] = NONE
    alike = np.arange(1, n)
    for columns in column_order.T:
        column = columns[alike]
        alike = alike[(column == columns[alike - 1]) & (place[column, alike] == place[column, alike - 1])]
        if not alike.size:
            break
        depth[alike] += 1
    return depth


def _runs(depth: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Begin, end and parent of each node: the runs of rows that share so many leading cells, and all single rows."""
    n = len(depth)
    node = np.zeros(n, np.intp)  # the latest one that each row is part of
    begin, end, parent = [np.zeros(1, np.intp)], [np.full(1, n, np.intp)], [np.full(1, NONE, np.intp)]
    ended = np.zeros(n, np.intp)  # where the latest node that begins at a row ends
    ended[0] = n
    count = 1
    for least in range(1, int(depth.max()) + 1):
        start = np.flatnonzero(depth < least)
        stop = np.append(start[1:], n)
        new = (stop - start > 1) & (stop != ended[start])
        start, stop = start[new], stop[new]
        size = stop - start
        inside = np.repeat(start - (np.cumsum(size) - size), size) + np.arange(size.sum())
        begin.append(start)
        end.append(stop)
        parent.append(node[start])
        ended[start] = stop
        node[inside] = np.repeat(np.arange(count, count + len(start)), size)
        count += len(start)
    single = np.arange(n)
    return np.concatenate([*begin, single]), np.concatenate([*end, single + 1]), np.concatenate([*parent, node])


def _first_columns(cells: Cells, parent: NDArray[np.intp], common: NDArray[np.int32]) -> NDArray[np.intp]:
    """(N,) intp: the column that comes first of those that a node adds to its parent's, `NONE` where that is all one.

    Where branches part, their next cells may still begin alike, or at least the columns' names do, if all hold the same
    column next. For each parent it is the column that shares most between its children, sorted by it.
    """
    nodes, k = len(parent), cells.columns
    adds = (common != NONE) & (common[parent] == NONE)
    adds[parent == NONE] = False
    child, column = adds.nonzero()
    of, place = column * nodes + parent[child], common[child, column].astype(np.intp)
    order, _ = sort_keys(of * len(cells.chars) + place)
    of, place = of[order], place[order]
    pair = np.flatnonzero(of[1:] == of[:-1])
    low, high = place[pair], place[pair + 1]
    shared = np.where(low == high, cells.chars[low], 0)
    unequal = low != high
    shared[unequal] = cells.shared_chars(low[unequal], high[unequal])
    shared_by = np.bincount(of[pair], weights=shared, minlength=k * nodes).reshape(k, nodes)
    best = np.where(shared_by.max(axis=0) > 0, shared_by.argmax(axis=0), NONE)
    first = np.where(parent == NONE, NONE, best[parent])
    return np.where((first == NONE) | (common[np.arange(nodes), first] == NONE), NONE, first)

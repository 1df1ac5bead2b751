"""Moves branches of a finished tree to where they share more: rows, and whole nodes with all rows below.

In: each row's order of columns, and the rows sorted by it. Out: a better one, counted exactly, or the same.

A tree is an array of its nodes, each with the cells that all its rows have in common. Within these an order is free:
rows begin with what the root has in common, go on with what the next node adds, and so on. So a tree is no more than
each node's parent, and moving a branch is setting one number.

A node adds nothing to the tree but what it does not have in common with the node above it. So a branch that moves
loses what its parent has in common, and wins what it has in common with its new parent: another node all of whose
common cells it holds, or a new node on the way to a branch with which it shares some cells more. The search goes down
from the root. Of all children of a node that hold one cell only the largest is tried.

All branches look for their best places at once. Then those move that win most, each node once, none into a branch that
is about to move elsewhere; the others have another try in the next sweep.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.cells import Cells, sort_keys
from pg_bridge.ordering.measured import ASKED_COLUMNS, CHUNK_ROWS, SENT_WAYS, SWEEP_GAIN
from pg_bridge.ordering.partition import NONE, count_all
from pg_bridge.ordering.sent import ROOT, Sent, lengthen


def move_branches(
    cells: Cells, column_order: NDArray[np.int16], rows: NDArray[np.intp], shared: int, sent: Sent | None = None
) -> Iterator[tuple[NDArray[np.int16], NDArray[np.intp], int]]:
    """Move branches, sweep after sweep, for as long as clearly more is shared.

    Args:
        cells: The table's cells; one row at least, and one column.
        column_order: (n, k) int16; each row's columns in order.
        rows: (n,) intp; the rows, sorted along it.
        shared: What they share, as `count_all` has it.
        sent: What was sent before.

    Yields:
        The three, bettered, after each sweep that gains.
    """
    asked = _choose_asked(cells)
    won = shared
    while won > SWEEP_GAIN * shared:
        moved = _move_best(cells, Branches.of(cells, rows, column_order), column_order, asked, sent)
        rows_then, shared_then = count_all(cells, moved, sent)
        won = shared_then - shared
        if won > 0:
            column_order, rows, shared = moved, rows_then, shared_then
            yield column_order, rows, shared


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
        begin, end, parent = _find_runs(cells, _count_alike(cells, place, column_order[rows]))
        inner = len(begin) - n
        common = np.empty((len(begin), cells.columns), np.int32)
        common[inner:] = place.T
        changes = np.zeros(n, np.int32)
        for column, cell in enumerate(place):
            cells.check_interrupts()
            np.cumsum(cell[1:] != cell[:-1], out=changes[1:])
            constant = changes[end[:inner] - 1] == changes[begin[:inner]]
            common[:inner, column] = np.where(constant, cell[begin[:inner]], NONE)
        chars = np.where(common == NONE, 0, np.take(cells.chars.astype(np.int32), common, mode="clip"))
        return cls(parent, begin, end, common, chars, rows)

    @property
    def inner(self) -> int:
        """How many nodes are of two rows or more."""
        return len(self.parent) - len(self.rows)


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A column by which better places are looked for.

    Attributes:
        column: Which.
        offset: The place of its first cell.
        number: (m,) int32; numbers its cells that two rows or more hold; `NONE` for others.
        count: How many these are.
    """

    column: int
    offset: int
    number: NDArray[np.int32]
    count: int


class _Children:
    """Finds, of a node's children that hold a certain cell of one column, that of most rows."""

    def __init__(self, tree: Branches, by_size: NDArray[np.intp], asked: _Asked) -> None:
        place = tree.common[:, asked.column]
        cell = np.take(asked.number, place - np.int32(asked.offset), mode="clip")
        cell[place == NONE] = NONE
        child = by_size[cell[by_size] != NONE]
        child = child[place[tree.parent[child]] == NONE]
        key = tree.parent[child] * asked.count + cell[child]
        self._cell, self._count = cell, asked.count
        self._keys, last = np.unique(key[::-1], return_index=True)  # of equal keys the last one, the largest child
        self._child = child[::-1][last]

    def find(self, branch: NDArray[np.intp], node: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """For those branches that find one below their node: the branch, and the child."""
        if not self._child.size:
            return branch[:0], node[:0]
        cell = self._cell[branch]
        asks = np.flatnonzero(cell != NONE)
        key = node[asks] * self._count + cell[asks]
        at = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
        found = self._keys[at] == key
        return branch[asks[found]], self._child[at][found]


def _move_best(
    cells: Cells, tree: Branches, column_order: NDArray[np.int16], asked: list[_Asked], sent: Sent | None
) -> NDArray[np.int16]:
    """(n, k) int16: each row's columns when the branches have moved that win most."""
    n, k = column_order.shape
    chars = tree.chars.sum(axis=1)
    like = tree.rows[tree.begin]  # for each node a row whose order decides where the tree does not
    place = np.empty((n, k), np.int32)
    place[np.arange(n)[:, np.newaxis], column_order] = np.arange(k)
    place = place[like]
    shares, target = _find_places(cells, tree, chars, asked)
    continues = np.zeros(len(chars), np.bool_)
    if sent is not None:
        continued, first = _find_sent(cells, tree, sent)
        continues = (continued >= shares) & (continued > 0)
        shares[continues] = continued[continues]
        target[continues] = 0
        first = first[continues]
        order = np.argsort(np.where(first < k, first, k + place[continues]), axis=1)
        place[np.flatnonzero(continues)[:, np.newaxis], order] = np.arange(k)
    movers = _choose_movers(tree, shares - chars[tree.parent], target)
    parent = tree.parent.copy()
    parent[movers[continues[movers]]] = NONE
    movers = movers[~continues[movers]]
    onto = target[movers]
    below = (onto < tree.inner) & (shares[movers] == chars[onto])
    parent[movers[below]] = onto[below]
    beside, onto = movers[~below], onto[~below]
    onto, last = np.unique(onto[::-1], return_index=True)  # each once, with whoever wins most there
    beside = beside[::-1][last]
    new = np.arange(len(parent), len(parent) + len(onto))
    parent = np.concatenate([parent, parent[onto]])
    parent[beside] = parent[onto] = new
    both = np.where(tree.common[beside] == tree.common[onto], tree.common[onto], NONE)
    leaves = np.empty(n, np.intp)
    leaves[tree.rows] = np.arange(tree.inner, tree.inner + n)
    common, place = np.concatenate([tree.common, both]), np.concatenate([place, place[onto]])
    return order_columns(cells, parent, common, leaves, place)


def _find_sent(cells: Cells, tree: Branches, sent: Sent) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """The longest way that each branch's cells have been sent, from the first on.

    Returns:
        chars: (N,) int64; characters of these cells.
        place: (N, k) intp; where each column stands in them, k where it does not.
    """
    size, k = tree.common.shape
    best, best_place = np.zeros(size, np.int64), np.full((size, k), k, np.intp)
    branch, prefix, chars, place = np.arange(size), np.full(size, ROOT), best, best_place
    for depth in range(k):
        cells.check_interrupts()
        state, column = sent.list_steps(prefix)
        cell = tree.common[branch[state], column]
        state, column, cell = (each[cell != NONE] for each in (state, column, cell))
        longer = lengthen(prefix[state], cells.hashes[cell])
        known = sent.knows(longer)
        state, column, prefix = state[known], column[known], longer[known]
        if not state.size:
            break
        branch = branch[state]
        chars, place = chars[state] + tree.chars[branch, column], place[state]
        place[np.arange(len(state)), column] = depth
        kept = np.lexsort((-chars, branch))  # a branch's longest ways first
        in_reach = np.ones(len(kept), np.bool_)
        in_reach[SENT_WAYS:] = branch[kept[SENT_WAYS:]] != branch[kept[:-SENT_WAYS]]
        kept = kept[in_reach]
        branch, prefix, chars, place = branch[kept], prefix[kept], chars[kept], place[kept]
        better = np.flatnonzero(chars > best[branch])[::-1]  # of equal branches the last one stays, the longest way
        best[branch[better]], best_place[branch[better]] = chars[better], place[better]
    return best, best_place


def _find_places(
    cells: Cells, tree: Branches, chars: NDArray[np.int64], asked: list[_Asked]
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """(N,) int64 and intp: what each branch shares at its best place, and the node there; `NONE` where it is there."""
    size = len(chars)
    shares, target = chars[tree.parent], np.full(size, NONE, np.intp)
    by_size = sort_keys(tree.end - tree.begin)[0]
    by_size = by_size[by_size != 0]  # the root is nobody's child
    children = []
    for column in asked:
        cells.check_interrupts()
        children.append(_Children(tree, by_size, column))
    branch, node = np.arange(1, size), np.zeros(size - 1, np.intp)
    while branch.size and children:
        found = []
        for each in children:
            cells.check_interrupts()
            found.append(each.find(branch, node))
        branch, node = (np.concatenate(both) for both in zip(*found, strict=True))
        outside = (tree.begin[node] < tree.begin[branch]) | (tree.end[node] > tree.end[branch])
        branch, node = branch[outside], node[outside]
        common = np.empty(len(branch), np.int64)
        for start in range(0, len(branch), CHUNK_ROWS):
            cells.check_interrupts()
            some = slice(start, start + CHUNK_ROWS)
            equal = tree.common[branch[some]] == tree.common[node[some]]
            common[some] = (equal * tree.chars[branch[some]]).sum(axis=1)
        whole = (node < tree.inner) & (common == chars[node])
        better = np.flatnonzero(common > shares[branch])
        better = better[np.argsort(common[better], kind="stable")]
        shares[branch[better]] = common[better]  # of equal branches the last one stays
        target[branch[better]] = node[better]
        branch, node = np.divmod(np.unique(branch[whole] * size + node[whole]), size)
    return shares, target


def _choose_asked(cells: Cells) -> list[_Asked]:
    """The columns, not constant, in which most is repeated."""
    repeated, asked = [], []
    for column, (ranks, offset, size) in enumerate(
        zip(cells.ranks, cells.offsets.tolist(), cells.sizes.tolist(), strict=True)
    ):
        count = np.bincount(ranks, minlength=size)
        often = count > 1
        if often.any() and count.max() < cells.rows:
            repeated.append(int(np.maximum(count - 1, 0) @ cells.chars[offset : offset + size]))
            number = np.where(often, np.cumsum(often, dtype=np.int32) - 1, NONE).astype(np.int32)
            asked.append(_Asked(column, offset, number, int(often.sum())))
    return [asked[i] for i in sorted(range(len(asked)), key=lambda i: -repeated[i])[:ASKED_COLUMNS]]


def _choose_movers(tree: Branches, wins: NDArray[np.int64], target: NDArray[np.intp]) -> NDArray[np.intp]:
    """The branches that move, those that win most last: none into a branch that moves and wins more, no target."""
    movers = np.flatnonzero(target != NONE)
    movers = movers[np.argsort(wins[movers], kind="stable")]
    strength = np.zeros(len(wins), np.intp)
    strength[movers] = np.arange(1, len(movers) + 1)
    around = strength.copy()
    for nodes in list_levels(tree.parent)[1:]:
        around[nodes] = np.maximum(around[nodes], around[tree.parent[nodes]])
    movers = movers[around[target[movers]] <= strength[movers]]
    aimed_at = np.zeros(len(wins), np.bool_)
    aimed_at[target[movers]] = True
    return movers[~aimed_at[movers]]


def list_levels(parent: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The nodes of each level, the root's first."""
    depth = (parent != NONE).astype(np.intp)
    above = np.where(parent == NONE, np.arange(len(parent)), parent)
    while (further := depth[above]).any():  # each time twice as far up
        depth += further
        above = above[above]
    by_depth, depth = sort_keys(depth)
    return np.split(by_depth, np.flatnonzero(np.diff(depth)) + 1)


def order_columns(
    cells: Cells,
    parent: NDArray[np.intp],
    common: NDArray[np.int32],
    leaves: NDArray[np.intp],
    place: NDArray[np.integer],
) -> NDArray[np.int16]:
    """Let each row take the columns of its nodes, from the root on.

    Args:
        cells: The table's cells.
        parent: (N,) intp; the tree's nodes.
        common: (N, k) int32; what the rows of each node have in common.
        leaves: (n,) intp; each row's node.
        place: (N, k) integers; where each column stands in an order of the node's that decides where the tree does not:
            what a node's rows have in common they must hold in one order.

    Returns:
        (n, k) int16; each row's columns in order.
    """
    k = cells.columns
    by_level = list_levels(parent)
    first = _choose_first(cells, parent, common)
    last = (2 * len(by_level) + 1) * k
    taken = np.full(common.shape, last, np.int32)  # by the level where a column is taken; the first less than others
    for level, nodes in enumerate(by_level):
        cells.check_interrupts()
        here = (2 * level + 1) * k + place[nodes]
        chosen = np.flatnonzero(first[nodes] != NONE)
        here[chosen, first[nodes[chosen]]] -= k
        if level:
            above = parent[nodes]
            here = np.where(common[above] != NONE, taken[above], here)
        taken[nodes] = np.where(common[nodes] != NONE, here, last)
    return np.argsort(taken[leaves], axis=1).astype(np.int16)


def _count_alike(cells: Cells, place: NDArray[np.int32], column_order: NDArray[np.int16]) -> NDArray[np.intp]:
    """(n,) intp: the leading cells that each row shares with the one before it; `NONE` for the first row."""
    n = len(column_order)
    depth = np.zeros(n, np.intp)
    depth[0] = NONE
    alike = np.arange(1, n)
    for columns in column_order.T:
        cells.check_interrupts()
        column = columns[alike]
        alike = alike[(column == columns[alike - 1]) & (place[column, alike] == place[column, alike - 1])]
        if not alike.size:
            break
        depth[alike] += 1
    return depth


def _find_runs(cells: Cells, depth: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Begin, end and parent of each node: the runs of rows that share so many leading cells, and all single rows."""
    n = len(depth)
    node = np.zeros(n, np.intp)  # the latest one that each row is part of
    begin, end, parent = [np.zeros(1, np.intp)], [np.full(1, n, np.intp)], [np.full(1, NONE, np.intp)]
    ended = np.zeros(n, np.intp)  # where the latest node that begins at a row ends
    ended[0] = n
    count = 1
    for least in range(1, int(depth.max()) + 1):
        cells.check_interrupts()
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


def _choose_first(cells: Cells, parent: NDArray[np.intp], common: NDArray[np.int32]) -> NDArray[np.intp]:
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

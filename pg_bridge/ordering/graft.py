"""Moves branches of a finished tree to where they share more: rows, and whole nodes with all rows below.

In: each row's order of columns, and the rows sorted by it. Out: a better one, counted exactly, or the same.

A node adds nothing to the tree but what it does not have in common with the node above it. So a branch that moves
loses what its parent has in common, and wins what it has in common with its new parent: another node all of whose
common cells it holds, or a new node on the way to a branch with which it shares some cells more. The search goes down
from the root. Of all children of a node that hold one cell only the largest is tried.

All branches look for their best places at once. Then those move that win most, each node once, none into a branch that
is about to move elsewhere; the others have another try in the next sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.branches import Branches, column_orders, levels
from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.descent import NONE
from pg_bridge.ordering.partition import sort_keys
from pg_bridge.ordering.rows import walk

ASKED = 16  # columns by which better places are looked for
_DENSE = 1 << 20  # entries of a table that is not searched but looked up
_LEAST_GAIN = 0.001  # of what is shared, for another sweep
_CHUNK = 1 << 14


def graft(
    cells: Cells,
    column_order: NDArray[np.int16],
    rows: NDArray[np.intp],
    shared: int,
    check_interrupts: Callable[[], None] = lambda: None,
) -> Iterator[tuple[NDArray[np.int16], NDArray[np.intp], int]]:
    """Move branches, sweep after sweep, for as long as clearly more is shared.

    Args:
        cells: The table's cells; two rows at least, and one column.
        column_order: (n, k) int16; each row's columns in order.
        rows: (n,) intp; the rows, sorted along it.
        shared: What they share, as `walk` counts it.
        check_interrupts: Called before each sweep; what it raises ends all.

    Yields:
        The three, bettered, after each sweep that gains.
    """
    asked = _asked(cells)
    won = shared
    while won > _LEAST_GAIN * shared:
        check_interrupts()
        moved = _moved(cells, Branches.of(cells, rows, column_order), column_order, asked)
        rows_then, shared_then = walk(cells, moved)
        won = shared_then - shared
        if won > 0:
            column_order, rows, shared = moved, rows_then, shared_then
            yield column_order, rows, shared


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
        self._dense = tree.inner * asked.count <= _DENSE
        if self._dense:
            self._child = np.full(tree.inner * asked.count, NONE, np.int32)
            self._child[key] = child  # of equal keys the last one stays
        else:
            self._keys, last = np.unique(key[::-1], return_index=True)
            self._child = child[::-1][last]

    def find(self, branch: NDArray[np.intp], node: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """For those branches that find one below their node: the branch, and the child."""
        if not self._child.size:
            return branch[:0], node[:0]
        cell = self._cell[branch]
        asks = np.flatnonzero(cell != NONE)
        key = node[asks] * self._count + cell[asks]
        if self._dense:
            child = self._child[key]
            found = child != NONE
        else:
            at = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
            child = self._child[at]
            found = self._keys[at] == key
        return branch[asks[found]], child[found]


def _moved(cells: Cells, tree: Branches, column_order: NDArray[np.int16], asked: list[_Asked]) -> NDArray[np.int16]:
    """(n, k) int16: each row's columns when the branches have moved that win most."""
    chars = tree.chars.sum(axis=1)
    shares, target = _best_places(tree, chars, asked)
    movers = _undisturbed(tree, shares - chars[tree.parent], target)
    onto = target[movers]
    below = (onto < tree.inner) & (shares[movers] == chars[onto])
    parent = tree.parent.copy()
    parent[movers[below]] = onto[below]
    beside, onto = movers[~below], onto[~below]
    onto, last = np.unique(onto[::-1], return_index=True)  # each once, with whoever wins most there
    beside = beside[::-1][last]
    new = np.arange(len(parent), len(parent) + len(onto))
    parent = np.concatenate([parent, parent[onto]])
    parent[beside] = parent[onto] = new
    both = np.where(tree.common[beside] == tree.common[onto], tree.common[onto], NONE)
    leaves = np.empty(cells.rows, np.intp)
    leaves[tree.rows] = np.arange(tree.inner, tree.inner + cells.rows)
    like = tree.rows[tree.begin]
    like = np.concatenate([like, like[onto]])
    return column_orders(cells, parent, np.concatenate([tree.common, both]), leaves, column_order, like)


def _best_places(
    tree: Branches, chars: NDArray[np.int64], asked: list[_Asked]
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """(N,) int64 and intp: what each branch shares at its best place, and the node there; `NONE` where it is there."""
    size = len(chars)
    shares, target = chars[tree.parent], np.full(size, NONE, np.intp)
    by_size = sort_keys(tree.end - tree.begin)[0]
    by_size = by_size[by_size != 0]  # the root is nobody's child
    children = [_Children(tree, by_size, column) for column in asked]
    branch, node = np.arange(1, size), np.zeros(size - 1, np.intp)
    while branch.size and children:
        found = [each.find(branch, node) for each in children]
        branch, node = (np.concatenate(each) for each in zip(*found, strict=True))
        outside = (tree.begin[node] < tree.begin[branch]) | (tree.end[node] > tree.end[branch])
        branch, node = branch[outside], node[outside]
        common = np.empty(len(branch), np.int64)
        for start in range(0, len(branch), _CHUNK):
            one, other = branch[start : start + _CHUNK], node[start : start + _CHUNK]
            common[start : start + _CHUNK] = ((tree.common[one] == tree.common[other]) * tree.chars[one]).sum(axis=1)
        whole = (node < tree.inner) & (common == chars[node])
        better = np.flatnonzero(common > shares[branch])
        better = better[np.argsort(common[better], kind="stable")]
        shares[branch[better]] = common[better]  # of equal branches the last one stays
        target[branch[better]] = node[better]
        branch, node = np.divmod(np.unique(branch[whole] * size + node[whole]), size)
    return shares, target


def _asked(cells: Cells) -> list[_Asked]:
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
    return [asked[i] for i in sorted(range(len(asked)), key=lambda i: -repeated[i])[:ASKED]]


def _undisturbed(tree: Branches, wins: NDArray[np.int64], target: NDArray[np.intp]) -> NDArray[np.intp]:
    """The branches that move, those that win most last: none into a branch that moves and wins more, no target."""
    movers = np.flatnonzero(target != NONE)
    movers = movers[np.argsort(wins[movers], kind="stable")]
    strength = np.zeros(len(wins), np.intp)
    strength[movers] = np.arange(1, len(movers) + 1)
    around = strength.copy()
    for nodes in levels(tree.parent)[1:]:
        around[nodes] = np.maximum(around[nodes], around[tree.parent[nodes]])
    movers = movers[around[target[movers]] <= strength[movers]]
    aimed_at = np.zeros(len(wins), np.bool_)
    aimed_at[target[movers]] = True
    return movers[~aimed_at[movers]]

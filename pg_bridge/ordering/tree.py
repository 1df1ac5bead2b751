"""The planner's own ordering: a prefix tree grown level by level, each node with a first column of its own.

In: the cells. Out: an order of columns for each row; rows sorted along it stand in the tree's depth-first order.

At every node of a level at once: columns that are equal in all of its rows are taken first, for free; then the first
column of the best order found for its rows; the rows split into groups of equal cells. Rows that are alone with their
cell are pooled and go on together with the other columns, for a column that tells them apart would end their sharing.

How good an order is, is not guessed from statistics but counted, by splitting the node's rows (`partition`). The order
that a node starts from is that of the node above; a column is moved to its front when that shares more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.measured import CHUNK_ROWS, LOOKED_AT, SPLIT_TOGETHER
from pg_bridge.ordering.partition import NONE, Partition, descend, split


@dataclass(frozen=True, slots=True, eq=False)
class _Nodes:
    """The nodes of one level that hold two rows or more.

    Attributes:
        partition: Their rows.
        order: (count, w) int16; the columns not yet taken in which rows still share something, best first; padded.
    """

    partition: Partition
    order: NDArray[np.int16]


def grow(cells: Cells, order: list[int], looked_at: int = LOOKED_AT) -> NDArray[np.int16]:
    """Order each row's columns.

    Args:
        cells: At least one row and one column.
        order: All columns, in an order that is good for the whole table.
        looked_at: How many columns of a node's order are tried as its first.

    Returns:
        (n, k) int16; each row's columns in order.
    """
    taken = _Taken.nothing(cells)
    waiting = [(cells, _root(cells, order, taken), taken)]
    while waiting:
        some, nodes, taken_by = waiting.pop()
        nodes = _end_pairs(some, nodes, taken_by)
        nodes = _best_first(some, _take_constant(some, nodes, taken_by), looked_at)
        if nodes.partition.count:
            waiting += _batches(some, _branch(some, nodes, taken_by), taken_by)
    return taken.complete(order, cells.check_interrupts)


def _root(cells: Cells, order: list[int], taken: _Taken) -> _Nodes:
    """The node of all rows, behind the columns that are equal in all of them."""
    whole = Partition.whole(cells)
    constant = (cells.ranks == cells.ranks[:, :1]).all(axis=1)
    left = [column for column in order if not constant[column]]
    if whole.count and left:
        for column in np.flatnonzero(constant).tolist():
            taken.add(whole.rows, np.full(len(whole.rows), column, np.int16))
        return _Nodes(whole, np.array([left], np.int16))
    return _Nodes(whole.of(np.zeros(whole.count, np.bool_)), np.empty((0, len(order)), np.int16))


def _batches(cells: Cells, nodes: _Nodes, taken: _Taken) -> Iterator[tuple[Cells, _Nodes, _Taken]]:
    """The nodes of a level; more rows than the processor's caches hold in batches, each with a copy of its cells."""
    partition = nodes.partition
    if len(partition.rows) <= CHUNK_ROWS:
        yield cells, nodes, taken
        return
    end = np.cumsum(np.bincount(partition.group, minlength=partition.count))
    first = start = 0
    while first < partition.count:
        last = max(first + 1, int(np.searchsorted(end, start + CHUNK_ROWS, side="right")))
        stop = int(end[last - 1])
        rows = partition.rows[start:stop]
        batch = Partition(np.arange(len(rows)), partition.group[start:stop] - first, last - first)
        yield cells.some(rows), _Nodes(batch, nodes.order[first:last]), taken.among(rows)
        first, start = last, stop


@dataclass(frozen=True, slots=True, eq=False)
class _Taken:
    """The columns that some of the table's rows have taken so far, in order.

    Attributes:
        rows: (r,) intp; which rows.
        order: (n, k) int16; of all rows, padded.
        depth: (n,) int16; of all rows, how many columns they have taken.
    """

    rows: NDArray[np.intp]
    order: NDArray[np.int16]
    depth: NDArray[np.int16]

    @classmethod
    def nothing(cls, cells: Cells) -> _Taken:
        """All rows, before they have taken any column."""
        n = cells.rows
        return cls(np.arange(n), np.full((n, cells.columns), NONE, np.int16), np.zeros(n, np.int16))

    def among(self, rows: NDArray[np.intp]) -> _Taken:
        """The same for some of these rows, renumbered."""
        return _Taken(self.rows[rows], self.order, self.depth)

    def add(self, rows: NDArray[np.intp], columns: NDArray[np.integer]) -> None:
        """Let each of some rows, none of them twice, take a column."""
        rows = self.rows[rows]
        self.order[rows, self.depth[rows]] = columns
        self.depth[rows] += 1

    def complete(self, order: list[int], check_interrupts: Callable[[], None]) -> NDArray[np.int16]:
        """Let every row take the rest of its columns, as they stand in an order of all of them."""
        columns = np.array(order, np.int16)
        place_of = np.empty(len(order), np.intp)
        place_of[columns] = np.arange(len(order))
        for start in range(0, len(self.order), CHUNK_ROWS):
            check_interrupts()
            some = self.order[start : start + CHUNK_ROWS]
            unused = np.ones(some.shape, np.bool_)
            row, place = np.nonzero(some != NONE)
            unused[row, place_of[some[row, place]]] = False
            some[some == NONE] = columns[np.nonzero(unused)[1]]
        return self.order


def _end_pairs(cells: Cells, nodes: _Nodes, taken: _Taken) -> _Nodes:
    """Let two rows that are left alone take what is equal in both, then the column that begins most alike."""
    partition = nodes.partition
    size = np.bincount(partition.group, minlength=partition.count)
    is_pair = size == 2
    pairs = np.flatnonzero(is_pair)
    start = (np.cumsum(size) - size)[pairs]
    one, other = partition.rows[start], partition.rows[start + 1]
    has = _has(cells, nodes.order[pairs])
    most, best = np.zeros(len(pairs), np.int64), np.full(len(pairs), NONE, np.int16)
    for column in np.flatnonzero(has.any(axis=0)).tolist():
        here = np.flatnonzero(has[:, column])
        place, place_of_other = (
            np.take(cells.ranks[column], rows[here]) + cells.offsets[column] for rows in (one, other)
        )
        equal = place == place_of_other
        for rows in (one, other):
            taken.add(rows[here[equal]], np.full(int(equal.sum()), column, np.int16))
        here, place, place_of_other = here[~equal], place[~equal], place_of_other[~equal]
        shared = cells.shared_chars(np.minimum(place, place_of_other), np.maximum(place, place_of_other))
        better = shared > most[here]
        most[here[better]], best[here[better]] = shared[better], column
    for rows in (one, other):
        taken.add(rows[best != NONE], best[best != NONE])
    return _Nodes(partition.of(~is_pair), nodes.order[~is_pair]) if pairs.size else nodes


def _has(cells: Cells, order: NDArray[np.int16]) -> NDArray[np.bool_]:
    """(count, k) bool: which columns each of some orders holds."""
    has = np.zeros((len(order), cells.columns), np.bool_)
    node, place = np.nonzero(order != NONE)
    has[node, order[node, place]] = True
    return has


def _take_constant(cells: Cells, nodes: _Nodes, taken: _Taken) -> _Nodes:
    """Take the columns that are equal in all rows of a node, forget those in which its rows share nothing."""
    partition, order = nodes.partition, nodes.order
    saved = np.zeros((partition.count, cells.columns), np.int64)
    constant = np.zeros((partition.count, cells.columns), np.bool_)
    has = _has(cells, order)
    columns = np.flatnonzero(has.any(axis=0))
    together = max(1, SPLIT_TOGETHER // (len(partition.rows) or 1))
    for start in range(0, len(columns), together):
        some = columns[start : start + together]
        repeated, node, turn = partition.each(has[:, some])
        column = some[turn]
        parts = split(cells, repeated, column if len(some) > 1 else int(some[0]))
        saved[node, column] = np.bincount(parts.parent, weights=parts.saved, minlength=repeated.count)
        constant[node, column] = np.bincount(parts.parent, minlength=repeated.count) == 1
    for column in np.flatnonzero(constant.any(axis=0)).tolist():
        rows = partition.of(constant[:, column]).rows
        taken.add(rows, np.full(len(rows), column, np.int16))
    useful = np.zeros(order.shape, np.bool_)
    node, place = np.nonzero(order != NONE)
    useful[node, place] = (saved > 0)[node, order[node, place]] & ~constant[node, order[node, place]]
    going_on = useful.any(axis=1)
    return _Nodes(partition.of(np.asarray(going_on)), _packed(order, useful)[going_on])


def _packed(order: NDArray[np.int16], keep: NDArray[np.bool_]) -> NDArray[np.int16]:
    """(count, w') int16: of each row of `order` the entries to keep, moved to the left."""
    width = int(keep.sum(axis=1).max(initial=0))
    packed = np.full((len(order), width), NONE, np.int16)
    node, place = np.nonzero(keep)
    packed[node, (np.cumsum(keep, axis=1) - 1)[node, place]] = order[node, place]
    return packed


def _best_first(cells: Cells, nodes: _Nodes, looked_at: int) -> _Nodes:
    """Move that column to the front of each node's order which makes the whole order share most.

    A move from place p changes nothing behind p: there the same columns have been split by. So p + 1 splits
    weigh it, against the sum of the first p + 1 of the order as it is.
    """
    partition, order = nodes.partition, nodes.order
    width = min(looked_at, order.shape[1])
    if width < 2 or not partition.count:
        return nodes
    as_it_is = np.zeros((width, partition.count))
    for place, level in enumerate(descend(cells, partition, order[:, :width])):
        as_it_is[place] = level.saved(partition.count)
    before = np.cumsum(as_it_is, axis=0)
    best, chosen = np.zeros(partition.count), np.zeros(partition.count, np.intp)
    for place in range(1, width):
        moved = np.concatenate([order[:, place : place + 1], order[:, :place]], axis=1)
        gain = sum(level.saved(partition.count) for level in descend(cells, partition, moved)) - before[place]
        better = gain > best
        best[better], chosen[better] = gain[better], place
    keep = np.ones(order.shape, np.bool_)
    keep[np.arange(len(order)), chosen] = False
    first = order[np.arange(len(order)), chosen]
    return _Nodes(partition, np.concatenate([first[:, np.newaxis], order[keep].reshape(len(order), -1)], axis=1))


def _branch(cells: Cells, nodes: _Nodes, taken: _Taken) -> _Nodes:
    """Split each node by the first column of its order; pool the rows that are alone with their cell."""
    partition, order = nodes.partition, nodes.order
    first = order[:, 0]
    parts = split(cells, partition, first)
    groups, large = parts.groups()
    alone = parts.size == 1
    node = parts.parent
    has_group = np.bincount(node[large], minlength=partition.count) > 0
    many_alone = np.bincount(node[alone], minlength=partition.count) > 1
    pooled = alone & (has_group & many_alone)[node]
    ended = alone & ~pooled
    taken.add(parts.rows[parts.start[ended]], first[node[ended]])
    taken.add(groups.rows, first[node[large]][groups.group])
    pool_node, pool = np.unique(node[pooled], return_inverse=True)
    rows = np.concatenate([groups.rows, parts.rows[parts.start[pooled]]])
    group = np.concatenate([groups.group, groups.count + pool])
    first_is_gone = np.concatenate([order[:, 1:], np.full_like(order[:, :1], NONE)], axis=1)[node[large]]
    first_is_last = np.concatenate([order[:, 1:], order[:, :1]], axis=1)[pool_node]
    below = Partition(rows, group, groups.count + len(pool_node))
    return _Nodes(below, np.concatenate([first_is_gone, first_is_last]))

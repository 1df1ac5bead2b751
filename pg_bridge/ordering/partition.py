"""Groups of rows that are equal so far, and how one more column splits them.

A `Partition` is stripped, as in the mining of functional dependencies (TANE): groups of one row are left out, for
nothing can be shared in them. The worth of any fixed column order, and of any step of a tree, is a sum over such
splits, so it is exact and costs no rendering.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.cells import Cells, count_sent, count_shared, sort_keys
from pg_bridge.ordering.measured import CHUNK_ROWS
from pg_bridge.ordering.sent import Sent

NONE = -1  # pads orders of unequal length; of a node, that there is none


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Groups of two or more rows.

    Attributes:
        rows: (r,) intp; group after group.
        group: (r,) intp; ascending, from 0, without gaps.
        count: How many groups there are.
    """

    rows: NDArray[np.intp]
    group: NDArray[np.intp]
    count: int

    @classmethod
    def whole(cls, cells: Cells) -> Partition:
        """One group of all rows, or none where there is but one row."""
        rows = np.arange(cells.rows, dtype=np.intp)
        if len(rows) < 2:
            return cls(rows[:0], np.empty(0, np.intp), 0)
        return cls(rows, np.zeros(len(rows), np.intp), 1)

    def of(self, wanted: NDArray[np.bool_]) -> Partition:
        """Some of the groups; `wanted` is (count,)."""
        keep = wanted[self.group]
        number = np.cumsum(wanted) - 1
        return Partition(self.rows[keep], number[self.group[keep]], int(wanted.sum()))

    def each(self, wanted: NDArray[np.bool_]) -> tuple[Partition, NDArray[np.intp], NDArray[np.intp]]:
        """Some of the groups, several times.

        Args:
            wanted: (count, times) bool; which groups, in each turn.

        Returns:
            repeated: The groups of the first turn, those of the second, and so on.
            group: (repeated.count,) intp; which group of this partition each was.
            turn: (repeated.count,) intp; ascending.
        """
        turn, group = wanted.T.nonzero()
        if wanted.shape[1] == 1:
            return self if len(group) == self.count else self.of(wanted[:, 0]), group, turn
        number = np.cumsum(wanted.T.ravel()) - 1
        turn_of, place = wanted[self.group].T.nonzero()
        number_of = number[turn_of * self.count + self.group[place]]
        return Partition(self.rows[place], number_of, len(group)), group, turn


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """What became of a partition whose groups were each split by a column.

    The rows stand sorted by group, then by cell; a part is a run of equal cells in one group, alone or not.

    Attributes:
        rows: (r,) intp; the partition's rows, sorted.
        start: (p,) intp; where each part begins in `rows`.
        size: (p,) intp; its rows.
        parent: (p,) intp; the group that it was split from, ascending.
        place: (p,) intp; its cell's place.
        saved: (p,) int64; characters that its rows share by this column: all but its first row the whole cell, its
            first row what the cell has in common with that of the part before it in the same group.
    """

    rows: NDArray[np.intp]
    start: NDArray[np.intp]
    size: NDArray[np.intp]
    parent: NDArray[np.intp]
    place: NDArray[np.intp]
    saved: NDArray[np.int64]

    def groups(self) -> tuple[Partition, NDArray[np.intp]]:
        """The parts of two rows or more as a partition, and which parts they are."""
        large = self.size > 1
        parts = np.flatnonzero(large)
        size = self.size[parts]
        rows = self.rows if len(parts) == len(self.size) else self.rows[np.repeat(large, self.size)]
        return Partition(rows, np.repeat(np.arange(len(parts)), size), len(parts)), parts


def split(cells: Cells, partition: Partition, column: int | NDArray[np.integer]) -> Split:
    """Split each group of a partition by a column.

    Args:
        cells: The table's cells.
        partition: At least one group.
        column: For all groups, or (count,) one for each.
    """
    cells.check_interrupts()
    group, rows = partition.group, partition.rows
    if isinstance(column, np.ndarray):
        place_of_rank = column.astype(np.intp, copy=False) * cells.rows
        rank = np.take(cells.ranks.ravel(), place_of_rank[group] + rows)
        ranks = int(cells.sizes[column].max())
    else:
        rank = np.take(cells.ranks[column], rows)
        ranks = int(cells.sizes[column])
    order, key = sort_keys(_keys(group, rank, ranks))
    rows = rows[order]
    del order, rank
    first = np.empty(len(rows), np.bool_)
    first[0] = True
    np.not_equal(key[1:], key[:-1], out=first[1:])
    start = first.nonzero()[0]
    size = np.empty_like(start)  # np.diff, in a tenth of its time for a few rows
    np.subtract(start[1:], start[:-1], out=size[:-1])
    size[-1] = len(rows) - start[-1]
    parent = group[start]
    place = key[start] - parent * ranks
    place += cells.offsets[column[parent]] if isinstance(column, np.ndarray) else cells.offsets[column]
    saved = cells.chars[place] * (size - 1)
    after = np.flatnonzero(parent[1:] == parent[:-1]) + 1
    for begin in range(0, len(after), CHUNK_ROWS):
        some = after[begin : begin + CHUNK_ROWS]
        saved[some] += cells.shared_chars(place[some - 1], place[some])
    return Split(rows, start, size, parent, place, saved)


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One more column of a fixed order.

    Attributes:
        parts: What the groups were split into.
        owner: (p,) intp; the group of the original partition to which each part belongs.
    """

    parts: Split
    owner: NDArray[np.intp]

    def saved(self, count: int) -> NDArray[np.float64]:
        """(count,) float64: characters saved in each group of the original partition."""
        return np.bincount(self.owner, weights=self.parts.saved, minlength=count).astype(np.float64, copy=False)


def descend(cells: Cells, partition: Partition, order: NDArray[np.int16]) -> Iterator[Level]:
    """Split groups by one column after another.

    Args:
        cells: The table's cells.
        partition: The groups.
        order: (count, w) int16; each group's columns, padded at the end.
    """
    owner = np.arange(partition.count)
    for place in range(order.shape[1]):
        column = order[owner, place]
        going_on = column != NONE
        if not going_on.all():
            partition, owner, column = partition.of(going_on), owner[going_on], column[going_on]
        if not partition.count:
            return
        parts = split(cells, partition, column)
        yield Level(parts, owner[parts.parent])
        partition, large = parts.groups()
        owner = owner[parts.parent[large]]


def divide(partition: Partition, column: NDArray[np.int16]) -> tuple[Partition, NDArray[np.intp], NDArray[np.int16]]:
    """Divide groups by the column that each of their rows takes next.

    Args:
        partition: The groups.
        column: (r,) int16; for each of `partition.rows` a column.

    Returns:
        divided: One group for each column that occurs in a group; it may hold one row.
        parent: (divided.count,) intp; the group that each was part of, ascending.
        column: (divided.count,) int16; the column of each.
    """
    order = sort_order(partition.group, column)
    group, column = partition.group[order], column[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (group[1:] != group[:-1]) | (column[1:] != column[:-1])
    parent = group[begins]
    return Partition(partition.rows[order], np.cumsum(begins) - 1, len(parent)), parent, column[begins]


def walk(cells: Cells, column_order: NDArray[np.int16]) -> tuple[NDArray[np.intp], int]:
    """Walk depth-first through the prefix tree of rows: those that share a prefix stand together.

    At every depth rows stand alphabetically by their column's name, then by cell; equal rows keep their order. So
    neighbours share all that the tree holds, every prefix is finished before the next begins, and a cache that drops
    the least recently used blocks never drops one that more rows are still to come for.

    Args:
        cells: The table's cells.
        column_order: (n, k) int16; `column_order[i]` are row i's columns in order.

    Returns:
        rows: (n,) intp; the rows, sorted.
        shared: Characters of cells and names that rows share with the row before them, without opening braces.
    """
    rows = np.arange(cells.rows, dtype=np.intp)
    slots = rows.copy()  # where the rows of the groups below will stand
    groups = Partition.whole(cells)
    shared = 0
    by_name = np.array(sorted(range(cells.columns), key=cells.labels.__getitem__), np.int16)
    place_of = np.argsort(by_name).astype(np.int16)
    for depth in range(cells.columns):
        if not groups.count:
            break
        divided, parent, place = divide(groups, place_of[column_order[groups.rows, depth]])
        column = by_name[place]
        after = np.flatnonzero(parent[1:] == parent[:-1]) + 1
        shared += int(cells.common_label_chars(column[after - 1], column[after]).sum())
        parts = split(cells, divided, column)
        rows[slots] = parts.rows
        shared += int(parts.saved.sum())
        slots = slots[np.repeat(parts.size > 1, parts.size)]
        groups, _ = parts.groups()
    return rows, shared


def count_all(cells: Cells, column_order: NDArray[np.int16], sent: Sent | None) -> tuple[NDArray[np.intp], int]:
    """Sort rows, as `walk` does, and count what they share with each other and with what was sent before.

    What a row begins with is computed once, by the row before it or by an earlier one that had it in front.
    """
    rows, shared = walk(cells, column_order)
    if sent is not None and len(sent.prefixes):
        sorted_order = column_order[rows]
        before = count_sent(cells, sent, rows, sorted_order)
        shared = int(np.maximum(count_shared(cells, rows, sorted_order), before).sum())
    return rows, shared


def sort_order(group: NDArray[np.intp], rank: NDArray[np.integer], ranks: int = 1 << 31) -> NDArray[np.intp]:
    """(r,) intp: what sorts by (group, rank), stably; `group` is ascending, ranks lie below `ranks`."""
    return sort_keys(_keys(group, rank, ranks))[0]


def _keys(group: NDArray[np.intp], rank: NDArray[np.integer], ranks: int) -> NDArray[np.int64]:
    """(r,) int64: numbers that stand to each other as (group, rank) do."""
    key: NDArray[np.int64] = group * ranks
    key += rank
    return key

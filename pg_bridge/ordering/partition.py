"""Groups of rows that are equal so far, and how one more column splits them.

A `Partition` is stripped, as in the mining of functional dependencies (TANE): groups of one row are left out, for
nothing can be shared in them. The worth of any fixed column order, and of any step of a tree, is a sum over such
splits, so it is exact and costs no rendering.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.sent import ROOT, UNKNOWN, lengthened

_KEY_BITS = 63
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Groups of two or more rows.

    Attributes:
        rows: (r,) intp; group after group.
        group: (r,) intp; ascending, from 0, without gaps.
        count: How many groups there are.
        prefix: (count,) uint64; the hash of what each group's rows begin with where an earlier window has sent it,
            `UNKNOWN` where not; None where no earlier window is known. A group with a known prefix may hold one row.
    """

    rows: NDArray[np.intp]
    group: NDArray[np.intp]
    count: int
    prefix: NDArray[np.uint64] | None = None

    @classmethod
    def whole(cls, cells: Cells) -> Partition:
        """One group of all rows, or none where there is but one row and nothing to continue."""
        rows = np.arange(cells.rows, dtype=np.intp)
        if len(rows) and cells.sent is not None:
            return cls(rows, np.zeros(len(rows), np.intp), 1, np.full(1, ROOT))
        if len(rows) < 2:
            return cls(rows[:0], np.empty(0, np.intp), 0)
        return cls(rows, np.zeros(len(rows), np.intp), 1)

    def of(self, wanted: NDArray[np.bool_]) -> Partition:
        """Some of the groups; `wanted` is (count,)."""
        keep = wanted[self.group]
        number = np.cumsum(wanted) - 1
        prefix = None if self.prefix is None else self.prefix[wanted]
        return Partition(self.rows[keep], number[self.group[keep]], int(wanted.sum()), prefix)

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
        prefix = None if self.prefix is None else self.prefix[group]
        number_of = number[turn_of * self.count + self.group[place]]
        return Partition(self.rows[place], number_of, len(group), prefix), group, turn

    @property
    def known(self) -> NDArray[np.bool_]:
        """(count,) bool: whether an earlier window has sent what the group's rows begin with."""
        return np.zeros(self.count, np.bool_) if self.prefix is None else self.prefix != UNKNOWN


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
    prefix: NDArray[np.uint64] | None

    @property
    def shared(self) -> NDArray[np.bool_]:
        """(p,) bool: whether more can be shared in a part: it has two rows, or continues what was sent before."""
        return self.size > 1 if self.prefix is None else (self.size > 1) | (self.prefix != UNKNOWN)

    @property
    def known(self) -> NDArray[np.intp]:
        """(p,) intp: 1 where an earlier window has sent what the part's rows begin with, else 0."""
        return np.zeros(len(self.size), np.intp) if self.prefix is None else (self.prefix != UNKNOWN).astype(np.intp)

    def groups(self) -> tuple[Partition, NDArray[np.intp]]:
        """The parts in which more can be shared as a partition, and which parts they are."""
        shared = self.shared
        parts = np.flatnonzero(shared)
        size = self.size[parts]
        rows = self.rows if len(parts) == len(self.size) else self.rows[np.repeat(shared, self.size)]
        prefix = None if self.prefix is None else self.prefix[parts]
        return Partition(rows, np.repeat(np.arange(len(parts)), size), len(parts), prefix), parts


def split(cells: Cells, partition: Partition, column: int | NDArray[np.integer]) -> Split:
    """Split each group of a partition by a column.

    Args:
        cells: The table's cells.
        partition: At least one group.
        column: For all groups, or (count,) one for each.
    """
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
    for begin in range(0, len(after), _CHUNK):
        some = after[begin : begin + _CHUNK]
        saved[some] += cells.shared_chars(place[some - 1], place[some])
    prefix = None
    if partition.prefix is not None and cells.sent is not None:
        prefix = np.full(len(start), UNKNOWN)
        continuing = np.flatnonzero(partition.prefix[parent] != UNKNOWN)
        longer = lengthened(partition.prefix[parent[continuing]], cells.hashes[place[continuing]])
        prefix[continuing] = cells.sent.known(longer)
        known = prefix != UNKNOWN
        saved[known] = (cells.chars[place] * size)[known]
    return Split(rows, start, size, parent, place, saved, prefix)


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
    prefix = None if partition.prefix is None else partition.prefix[parent]
    return Partition(partition.rows[order], np.cumsum(begins) - 1, len(parent), prefix), parent, column[begins]


def sort_order(group: NDArray[np.intp], rank: NDArray[np.integer], ranks: int = 1 << 31) -> NDArray[np.intp]:
    """(r,) intp: what sorts by (group, rank), stably; `group` is ascending, ranks lie below `ranks`."""
    return sort_keys(_keys(group, rank, ranks))[0]


def sort_keys(key: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """What sorts keys, stably, and the keys sorted; the keys are overwritten, and none is negative.

    Each key carries its place in its lowest bits, so that plain integers are sorted, which NumPy does with the
    processor's widest instructions: several times as fast as any sort that moves indices.
    """
    bits = len(key).bit_length()
    if int(key.max(initial=0)).bit_length() + bits > _KEY_BITS:
        order = np.argsort(key, kind="stable")
        return order, key[order]
    key <<= bits
    key |= np.arange(len(key))
    key.sort()
    return key & ((1 << bits) - 1), key >> bits


def _keys(group: NDArray[np.intp], rank: NDArray[np.integer], ranks: int) -> NDArray[np.int64]:
    """(r,) int64: numbers that stand to each other as (group, rank) do."""
    key: NDArray[np.int64] = group * ranks
    key += rank
    return key

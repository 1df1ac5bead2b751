"""Every group of rows that a prefix tree could keep together: the nodes of all trees at once.

In: a table's cells. Out: a graph. A row's way through any tree is a way through this graph, from the group of all rows
down to smaller and smaller ones, and what a tree costs is the length of all edges that its rows use.

Rows that hold some cells in common can hold all that they have in common first, for free. So there is one node for
each largest set of common cells, whatever their order (a closed set, or formal concept: Ganter and Wille, 1999), and
below it nodes for rows whose next cells only begin alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.cells import Cells
from pg_bridge.ordering.partition import NONE

_DEEPEST = 32  # beginnings within each other; texts of which each continues the one before it have no end of them


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """A graph of v groups of rows and e edges, from larger to smaller groups.

    Attributes:
        chars: (v,) int64; the most characters that a group's rows share, all of them; the first group has all rows.
        rows: (r,) intp; the rows of the groups, ascending in each, group after group.
        begin: (v + 1,) intp; where each group's rows begin in `rows`.
        source: (e,) intp; the larger group.
        target: (e,) intp; the smaller group.
    """

    chars: NDArray[np.int64]
    rows: NDArray[np.intp]
    begin: NDArray[np.intp]
    source: NDArray[np.intp]
    target: NDArray[np.intp]


def find_groups(cells: Cells, most: int, check_interrupts: Callable[[], None] = lambda: None) -> Groups | None:
    """Find all groups.

    Args:
        cells: Two rows at least, and one column.
        most: How many cells to look at: those of all groups that the group's rows do not have in common.
        check_interrupts: Called before each generation of groups; what it raises ends the search.

    Returns:
        The groups; None where more cells would have to be looked at, or beginnings nest too deep.
    """
    if cells.rows * int(np.count_nonzero(cells.sizes > 1)) > most:
        return None
    found = _Beginnings.of(cells)
    return _Search(cells, found, most).run(check_interrupts) if found is not None else None


def common_columns(cells: Cells, rows: NDArray[np.intp], begin: NDArray[np.intp]) -> NDArray[np.bool_]:
    """(g, k) bool: the columns in which all rows of a group are equal.

    Args:
        cells: The rows' cells.
        rows: (r,) intp; group after group.
        begin: (g,) intp; where each group's begin.
    """
    ranks = np.take(cells.ranks, rows, axis=1)
    equal: NDArray[np.bool_] = np.minimum.reduceat(ranks, begin, axis=1) == np.maximum.reduceat(ranks, begin, axis=1)
    return equal.T


@dataclass(frozen=True, slots=True, eq=False)
class _Beginnings:
    """What cells may begin alike with: the inner nodes of the radix tree of all cells' texts, columns' names included.

    Attributes:
        of_cell: (depth, d) int32; by the cell's place, the beginnings that it shares with others, shortest first;
            padded with `NONE`.
        chars: (b,) int64; each beginning's characters.
    """

    of_cell: NDArray[np.int32]
    chars: NDArray[np.int64]

    @classmethod
    def of(cls, cells: Cells) -> _Beginnings | None:
        """Find them all; None where they nest too deep."""
        common = cells.common_with_previous
        of_cell = np.full((_DEEPEST + 1, len(common)), NONE, np.int32)
        chars: list[int] = []
        depths = np.zeros(cells.columns, np.intp)
        by_name = sorted(range(cells.columns), key=cells.labels.__getitem__)
        names = [0, *(cells.common_label(a, b) for a, b in pairwise(by_name))]
        for first, last, length in _outermost_first(_intervals(names)):
            for column in by_name[first:last]:
                if depths[column] == _DEEPEST:
                    return None
                begin = cells.offsets[column]
                of_cell[depths[column], begin : begin + cells.sizes[column]] = len(chars)
                depths[column] += 1
            chars.append(length)
        for depth, offset, size in zip(depths.tolist(), cells.offsets.tolist(), cells.sizes.tolist(), strict=True):
            around: list[int] = []  # where the beginnings end that hold this one
            for first, last, length in _outermost_first(_intervals(common[offset : offset + size].tolist())):
                while around and around[-1] <= first:
                    around.pop()
                if depth + len(around) == _DEEPEST:
                    return None
                of_cell[depth + len(around), offset + first : offset + last] = len(chars)
                chars.append(length)
                around.append(last)
        deepest = int((of_cell != NONE).any(axis=1).sum())
        return cls(of_cell[: deepest + 1], np.array(chars, np.int64))


def _outermost_first(intervals: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    return sorted(intervals, key=lambda interval: (interval[0], -interval[1]))


def _intervals(common: list[int]) -> list[tuple[int, int, int]]:
    """Begin, end and common characters of each run of sorted texts that share more than the texts around them.

    >>> _intervals([0, 3, 1, 1])
    [(0, 2, 3), (0, 4, 1)]
    """
    found, waiting = [], [(0, 0)]
    for place in range(1, len(common) + 1):
        shared = common[place] if place < len(common) else 0
        begin = place - 1
        while waiting[-1][1] > shared:
            begin, length = waiting.pop()
            found.append((begin, place, length))
        if waiting[-1][1] < shared:
            waiting.append((begin, shared))
    return found


class _Generation(NamedTuple):
    """Groups, of three rows or more, whose smaller groups have yet to be found.

    Attributes:
        number: (g,) intp; of each group.
        rows: (r,) intp; group after group.
        begin: (g,) intp; where each group's rows begin.
        common: (g, k) bool; the columns in which all its rows are equal.
        chars: (g,) int64; what these take up.
    """

    number: NDArray[np.intp]
    rows: NDArray[np.intp]
    begin: NDArray[np.intp]
    common: NDArray[np.bool_]
    chars: NDArray[np.int64]


class _Search:
    """Goes down from the group of all rows, one generation of groups after another."""

    def __init__(self, cells: Cells, beginnings: _Beginnings, most: int) -> None:
        self._cells, self._beginnings, self._left = cells, beginnings, most
        self._place = cells.ranks.astype(np.intp) + cells.offsets[:, np.newaxis]
        self._number_of: dict[bytes, int] = {}  # by a group's first row and its common columns
        self._count = 0
        self._chars: list[NDArray[np.int64]] = []
        self._rows: list[NDArray[np.intp]] = []
        self._sizes: list[NDArray[np.intp]] = []
        self._edges = [(np.empty(0, np.intp), np.empty(0, np.intp))]
        self._raised: list[tuple[NDArray[np.intp], NDArray[np.int64]]] = []

    def run(self, check_interrupts: Callable[[], None]) -> Groups | None:
        """All groups; None where there are too many."""
        n = self._cells.rows
        generation = self._named(np.arange(n), np.zeros(1, np.intp), np.array([n]))[1]
        while generation.number.size:
            check_interrupts()
            self._left -= int((np.diff(generation.begin, append=len(generation.rows)) @ ~generation.common).sum())
            if self._left < 0:
                return None
            generation = self._below(generation)
        chars = np.concatenate(self._chars)
        for number, most in self._raised:
            chars[number] = np.maximum(chars[number], most)
        source, target = (np.concatenate(each) for each in zip(*self._edges, strict=True))
        edges = np.unique(source * self._count + target)
        begin = np.concatenate([[0], np.cumsum(np.concatenate(self._sizes))])
        return Groups(chars, np.concatenate(self._rows), begin, edges // self._count, edges % self._count)

    def _below(self, larger: _Generation) -> _Generation:
        """Find what groups split into, by each column that their rows do not have in common."""
        size = np.diff(larger.begin, append=len(larger.rows))
        owner = np.repeat(np.arange(len(size)), size)
        row, column = (~larger.common[owner]).nonzero()
        owner, row = owner[row], larger.rows[row]
        place = self._place[column, row]
        above = self._begun_alike(larger, owner, row, place)
        order = np.argsort(owner * len(self._cells.chars) + place, kind="stable")
        start = _starts(owner[order], place[order])
        size = np.diff(start, append=len(order))
        often = size > 1
        rows = row[order[np.repeat(often, size)]]
        size, above = size[often], above[order[start[often]]]
        number, smaller = self._named(rows, np.cumsum(size) - size, size)
        self._edges.append((above, number))
        return smaller

    def _begun_alike(
        self, larger: _Generation, owner: NDArray[np.intp], row: NDArray[np.intp], place: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """Add the groups of rows whose next cells begin alike and are not all equal.

        Some of them have more cells in common than the larger group. If these cells are no fewer characters than what
        other rows begin alike with, two rows or more share at least as much below a group of their own.

        Args:
            larger: The groups.
            owner: (c,) intp; the group of each cell that its rows do not have in common, ascending.
            row: (c,) intp; the cells' rows, ascending within a group.
            place: (c,) intp; the cells.

        Returns:
            (c,) intp: of each cell, the group in which it has most of its beginning in common with others.
        """
        above = larger.number[owner]
        with_others, with_all = np.zeros(len(owner), np.int64), np.zeros(len(larger.number), np.int64)
        cells_of = np.bincount(owner, minlength=len(larger.number))
        for beginnings, next_ in pairwise(self._beginnings.of_cell):
            begun = np.flatnonzero(beginnings[place] != NONE)
            if not begun.size:
                break
            key = owner[begun] * len(self._beginnings.chars) + beginnings[place[begun]]
            order = begun[np.argsort(key, kind="stable")]
            beginning, branch = beginnings[place[order]], next_[place[order]]
            branch = np.where(branch == NONE, -2 - place[order], branch)
            start = _starts(owner[order], beginning)
            parts = np.minimum.reduceat(branch, start) != np.maximum.reduceat(branch, start)
            again = row[order] == np.append(NONE, row[order[:-1]])  # the same row in another column
            again[start] = False
            size = np.diff(start, append=len(order))
            of = owner[order[start]]
            begun_chars = self._beginnings.chars[beginning[start]]
            chars = larger.chars[of] + begun_chars
            shared = parts & (np.add.reduceat(~again, start, dtype=np.intp) > 1)
            whole = shared & (size == cells_of[of])
            self._raised.append((larger.number[of[whole]], chars[whole]))
            with_all[of[whole]] = begun_chars[whole]
            with_others[order[np.repeat(whole, size)]] = np.repeat(begun_chars[whole], size[whole])
            shared &= ~whole
            kept = np.repeat(shared, size) & ~again
            rows, counts = row[order[kept]], np.add.reduceat(~again, start, dtype=np.intp)[shared]
            if counts.size:
                begin = np.cumsum(counts) - counts
                common = common_columns(self._cells, rows, begin)
                more = self._chars_of(rows[begin], common) - larger.chars[of[shared]]
                own = (more > 0) & (more >= with_others[order[start[shared]]] - with_all[of[shared]])
                rows, counts = rows[np.repeat(~own, counts)], counts[~own]
                shared[np.flatnonzero(shared)[own]] = False
            number = self._add(rows, counts, chars[shared])
            self._edges.append((above[order[start[shared]]], number))
            above[order[np.repeat(shared, size)]] = np.repeat(number, size[shared])
            with_others[order[np.repeat(shared, size)]] = np.repeat(begun_chars[shared], size[shared])
        return above

    def _named(
        self, rows: NDArray[np.intp], begin: NDArray[np.intp], size: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], _Generation]:
        """Give each group its number, and add those that are new."""
        common = common_columns(self._cells, rows, begin)
        first = rows[begin].astype(np.int64)
        keys = np.concatenate([first.view(np.uint8).reshape(-1, 8), np.packbits(common, axis=1)], axis=1)
        number = np.empty(len(begin), np.intp)
        new: list[int] = []
        for i, key in enumerate(keys.view(f"V{keys.shape[1]}").ravel().tolist()):
            if key not in self._number_of:
                self._number_of[key] = self._count + len(new)
                new.append(i)
            number[i] = self._number_of[key]
        is_new = np.zeros(len(begin), np.bool_)
        is_new[new] = True
        number_new, rows, size, common = number[is_new], rows[np.repeat(is_new, size)], size[is_new], common[is_new]
        begin = np.cumsum(size) - size
        chars = self._chars_of(rows[begin], common)
        larger = size > 2
        begun = chars.copy()
        if self._beginnings.chars.size:
            begun[~larger] += self._pairs_begin_alike(rows[begin[~larger]], rows[begin[~larger] + 1])
        self._add(rows, size, begun)
        rows, size = rows[np.repeat(larger, size)], size[larger]
        return number, _Generation(number_new[larger], rows, np.cumsum(size) - size, common[larger], chars[larger])

    def _chars_of(self, first: NDArray[np.intp], common: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(g,) int64: characters of the cells that groups have in common, by the first row of each."""
        chars: NDArray[np.int64] = (self._cells.chars[self._place[:, first]].T * common).sum(axis=1)
        return chars

    def _add(self, rows: NDArray[np.intp], size: NDArray[np.intp], chars: NDArray[np.int64]) -> NDArray[np.intp]:
        """(g,) intp: the numbers of new groups."""
        self._rows.append(rows)
        self._sizes.append(size)
        self._chars.append(chars)
        self._count += len(size)
        return np.arange(self._count - len(size), self._count)

    def _pairs_begin_alike(self, one: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.int64]:
        """(p,) int64: the most that two rows share of cells that are not equal."""
        most = np.zeros(len(one), np.int64)
        for places in self._place:
            unequal = np.flatnonzero(places[one] != places[other])
            low, high = np.sort([places[one[unequal]], places[other[unequal]]], axis=0)
            most[unequal] = np.maximum(most[unequal], self._cells.shared_chars(low, high))
        return most


def _starts(*keys: NDArray[np.integer]) -> NDArray[np.intp]:
    """Where sorted keys change."""
    changes = np.ones(len(keys[0]), np.bool_)
    changes[1:] = False
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changes)

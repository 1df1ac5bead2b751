"""The distinct cells of a table as numbers: what every ordering computes on.

In: a `Table`, and what has been sent before it. Out: arrays. Within a column cells are numbered alphabetically, so that
cells which start alike are neighbours, and what any two of them share is the least that neighbours between them share
(a range minimum, answered in two look-ups). After construction no text is looked at again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.measured import CHUNK_ROWS
from pg_bridge.ordering.sent import ROOT, Sent, hash_cells, lengthen
from pg_bridge.rows.table import Table

SEPARATOR_CHARS = 2  # ', ' after a cell; for the last cell of a row the two braces around it stand in
_HEAD_CHARS = 16
_KEY_BITS = 63
_LARGEST_BYTE = np.iinfo(np.uint8).max
_LARGEST_SHORT = np.iinfo(np.uint16).max


class Cells:
    """The cells of n rows and k columns, d of them distinct.

    A cell's place is its number among all distinct cells: column after column, alphabetical within each.

    Attributes:
        ranks: (k, n) uint16 or int32; each row's cell's number within its column.
        sizes: (k,) intp; each column's distinct cells.
        offsets: (k,) intp; the place of each column's first cell.
        chars: (d,) int64; characters that a cell takes up in a rendered row: name, colon, value, comma.
        hashes: (d,) uint64; of each cell; empty where what was and is sent is of no interest.
        labels: Per column, what stands before its cells in a rendered row.
        check_interrupts: To be called often by whoever computes on these cells; what it raises ends that.
    """

    def __init__(self, table: Table, hashed: bool = False, check_interrupts: Callable[[], None] = lambda: None) -> None:
        n, k = table.rows, len(table.columns)
        self.labels = table.labels()
        sizes = [len(texts) for texts in table.values]
        self.sizes = np.array(sizes, np.intp)
        self.offsets = np.cumsum([0, *sizes], dtype=np.intp)[:k]
        self.ranks = np.empty((k, n), np.uint16 if max(sizes, default=0) <= _LARGEST_SHORT else np.int32)
        self.check_interrupts = check_interrupts
        chars, common, hashes = [], [], []
        for j, (label, texts) in enumerate(zip(self.labels, table.values, strict=True)):
            by_text, in_common = sort_texts(texts, check_interrupts)
            lengths = np.fromiter(map(len, texts), np.int64, len(texts))[by_text]
            if len(texts) > 1:
                ranks = np.empty(len(texts), self.ranks.dtype)
                ranks[by_text] = np.arange(len(texts))
                np.take(ranks, table.codes[:, j], out=self.ranks[j], mode="clip")
            else:
                self.ranks[j] = 0
            if hashed:
                hashes.append(hash_cells(j, texts)[by_text])
            chars.append(lengths + len(label) + SEPARATOR_CHARS)
            common.append(np.where(np.arange(len(texts)) > 0, in_common + len(label), 0))
        self.hashes = np.concatenate(hashes) if hashes else np.empty(0, np.uint64)
        self.chars = np.concatenate(chars) if chars else np.empty(0, np.int64)
        self._minima = _range_minima(
            np.concatenate(common) if common else np.empty(0, np.int64), max(sizes, default=0), check_interrupts
        )

    @property
    def common_with_previous(self) -> NDArray[np.int64]:
        """(d,) int64: characters that each cell shares with the one before it in its column, the name included."""
        common: NDArray[np.int64] = self._minima[0].astype(np.int64)
        return common

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.ranks.shape[1])

    @property
    def columns(self) -> int:
        """How many columns there are."""
        return int(self.ranks.shape[0])

    def some(self, rows: NDArray[np.intp]) -> Cells:
        """The cells of some rows; the numbers of cells stay."""
        some = copy.copy(self)
        some.ranks = np.take(self.ranks, rows, axis=1)
        return some

    def total_chars(self) -> int:
        """Characters of all rows as rendered, without the question."""
        return sum(
            int(np.take(self.chars, ranks.astype(np.intp) + offset).sum())
            for ranks, offset in zip(self.ranks, self.offsets.tolist(), strict=True)
        )

    def places(self, rows: NDArray[np.intp], columns: NDArray[np.integer]) -> NDArray[np.intp]:
        """(r,) intp: the places of the cells (rows[i], columns[i])."""
        columns = columns.astype(np.intp, copy=False)
        ranks: NDArray[np.integer] = np.take(self.ranks.ravel(), columns * self.rows + rows)
        places: NDArray[np.intp] = ranks + self.offsets[columns]
        return places

    def hashes_by_place(self, rows: NDArray[np.intp], column_order: NDArray[np.int16]) -> Iterator[NDArray[np.uint64]]:
        """For each place in (n,) rows, whose columns stand in (n, k) orders, the hashes of their cells there."""
        for columns in column_order.T:
            self.check_interrupts()
            yield self.hashes[self.places(rows, columns)]

    def common_label(self, a: int, b: int) -> int:
        """Characters that what stands before the cells of two columns has in common."""
        pairs = zip(self.labels[a], self.labels[b], strict=False)
        return next((i for i, (one, other) in enumerate(pairs) if one != other), 0)

    def common_label_chars(self, one: NDArray[np.int16], other: NDArray[np.int16]) -> NDArray[np.int64]:
        """(p,) int64: characters that what stands before the cells of pairs of columns has in common."""
        pairs, pair = np.unique(one.astype(np.int64) * self.columns + other, return_inverse=True)
        common = [self.common_label(*divmod(pair, self.columns)) for pair in pairs.tolist()]
        return np.array(common, np.int64)[pair]

    def shared_chars(self, low: NDArray[np.intp], high: NDArray[np.intp]) -> NDArray[np.integer]:
        """(p,) integers: characters that pairs of cells share at their start, their column's name included.

        Args:
            low: (p,) intp; places.
            high: (p,) intp; places in the same columns, each above its `low`.
        """
        level = np.frexp((high - low).astype(np.float64))[1] - 1  # of the largest power of two that fits
        base = level * np.intp(len(self.chars)) + 1
        first = np.take(self._minima.ravel(), base + low)
        last = np.take(self._minima.ravel(), base + high - np.left_shift(1, level))
        shared: NDArray[np.integer] = np.minimum(first, last)
        return shared


def count_shared(cells: Cells, row_order: NDArray[np.intp], column_order: NDArray[np.int16]) -> NDArray[np.int64]:
    """(n,) int64: characters that each sent row shares with the one sent before it; the first shares none.

    No row is rendered: equal cells are skipped as wholes, and only the cells at which neighbours part are weighed. A
    common prefix always ends inside those two, because no JSON value continues another except a number, and a number is
    followed by a comma or a brace.

    Args:
        cells: The table's cells.
        row_order: (n,) intp; the rows in sending order.
        column_order: (n, k) int16; the columns of the row sent i-th, in order.
    """
    shared = np.zeros(cells.rows, np.int64)
    if not cells.columns:
        return shared
    shared[1:] = 1  # the opening brace
    alike = np.arange(1, cells.rows)  # places in sending order whose row equals the one before it so far
    for place in range(cells.columns):
        cells.check_interrupts()
        column, column_before = column_order[alike, place], column_order[alike - 1, place]
        cell = cells.places(row_order[alike], column)
        cell_before = cells.places(row_order[alike - 1], column_before)
        same = cell == cell_before
        shared[alike[same]] += cells.chars[cell[same]]
        part = ~same & (column == column_before)
        low, high = np.minimum(cell[part], cell_before[part]), np.maximum(cell[part], cell_before[part])
        shared[alike[part]] += cells.shared_chars(low, high)
        parted = column != column_before
        shared[alike[parted]] += cells.common_label_chars(column_before[parted], column[parted])
        alike = alike[same]
        if not alike.size:
            break
    shared[alike] -= 1  # equal rows: ', ' was counted after their last cell, where only '}' stands
    return shared


def count_sent(
    cells: Cells, sent: Sent, row_order: NDArray[np.intp], column_order: NDArray[np.int16]
) -> NDArray[np.int64]:
    """(n,) int64: characters of the longest prefix of whole cells of each row that was sent; as `count_shared`."""
    known = np.zeros(cells.rows, np.int64)
    rows = np.arange(cells.rows)
    prefix = np.full(cells.rows, ROOT)
    for place in range(cells.columns):
        if not rows.size:
            break
        cells.check_interrupts()
        cell = cells.places(row_order[rows], column_order[rows, place])
        prefix = lengthen(prefix, cells.hashes[cell])
        found = sent.knows(prefix)
        rows, prefix = rows[found], prefix[found]
        known[rows] += cells.chars[cell[found]]
    known[known > 0] += 1  # the opening brace
    known[rows] -= 1  # whole rows: ', ' was counted after their last cell, where only '}' stands
    return known


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


def sort_texts(
    texts: Sequence[str], check_interrupts: Callable[[], None] = lambda: None
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Sort texts alphabetically.

    Returns:
        order: (m,) intp; which text comes i-th.
        common: (m,) int64; characters that it shares with the one before it; the first shares none.

    >>> order, common = sort_texts(["b", "abc", "ab"])
    >>> order.tolist(), common.tolist()
    ([2, 1, 0], [0, 2, 0])
    """
    order, heads = _sort_by_heads(texts, check_interrupts)
    common = np.zeros(len(texts), np.int64)
    for start in range(1, len(texts), CHUNK_ROWS):
        check_interrupts()
        chunk = slice(start, start + CHUNK_ROWS)
        common[chunk], alike = _first_difference(
            heads[chunk], heads[start - 1 : start - 1 + CHUNK_ROWS][: len(heads[chunk])]
        )
        alike += start
        begin, width = _HEAD_CHARS, 4 * _HEAD_CHARS
        while alike.size:  # those that agree so far look further, in ever wider steps
            here, before = (
                _characters([texts[i][begin : begin + width] for i in order[places].tolist()], width)
                for places in (alike, alike - 1)
            )
            more, still = _first_difference(here, before)
            common[alike] += more
            alike = alike[still]
            begin, width = begin + width, min(4 * width, 4096)
    return order, common


def _sort_by_heads(
    texts: Sequence[str], check_interrupts: Callable[[], None]
) -> tuple[NDArray[np.intp], NDArray[np.unsignedinteger]]:
    """What sorts texts, and (m, 16) the characters that each begins with, sorted.

    Beginnings in Latin-1 are sorted as numbers, and only texts that begin alike by what follows.
    """
    heads = np.empty((len(texts), _HEAD_CHARS), np.uint8)
    for start in range(0, len(texts), CHUNK_ROWS):
        characters = _characters(texts[start : start + CHUNK_ROWS], _HEAD_CHARS)
        if characters.max() > _LARGEST_BYTE:
            order = np.array(sorted(range(len(texts)), key=texts.__getitem__), np.intp)
            return order, _characters(list(map(texts.__getitem__, order.tolist())), _HEAD_CHARS)
        heads[start : start + CHUNK_ROWS] = characters
        check_interrupts()
    words = heads.view(">u8").astype(np.uint64)
    first, second = (_number(words[:, i], check_interrupts) for i in (0, 1))
    check_interrupts()
    order, _ = sort_keys(first * len(texts) + second)
    heads, words = heads[order], words[order]
    check_interrupts()
    equal = (words[1:] == words[:-1]).all(axis=1)
    check_interrupts()
    tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
    order[tied] = sorted(order[tied].tolist(), key=texts.__getitem__)
    return order, heads


def _number(words: NDArray[np.uint64], check_interrupts: Callable[[], None]) -> NDArray[np.intp]:
    """(m,) intp: equal words have equal numbers, and larger ones larger numbers."""
    check_interrupts()
    numbers: NDArray[np.intp] = np.unique(words, return_inverse=True)[1]
    return numbers


def _characters(texts: Sequence[str], width: int) -> NDArray[np.uint32]:
    """(len(texts), width) uint32: code points, cut at `width`, padded with 0, which no JSON text holds."""
    return np.array(texts, dtype=f"U{width}").view(np.uint32).reshape(len(texts), width)


def _first_difference(
    a: NDArray[np.unsignedinteger], b: NDArray[np.unsignedinteger]
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Characters before each pair's first difference, and which pairs do not differ."""
    differ = a != b
    first = differ.argmax(axis=1)
    alike = np.flatnonzero(~differ[np.arange(len(first)), first])
    first[alike] = a.shape[1]
    return first, alike


def _range_minima(common: NDArray[np.int64], longest: int, check_interrupts: Callable[[], None]) -> NDArray[np.integer]:
    """(levels, d) integers: [l, i] is the least of common[i : i + 2**l]; `longest` is the longest range."""
    levels = max(longest - 1, 1).bit_length()
    most = common.max(initial=0)
    kind = np.uint8 if most <= _LARGEST_BYTE else np.uint16 if most <= _LARGEST_SHORT else np.int32
    minima = np.zeros((levels, len(common)), kind)
    minima[0] = common
    for level in range(1, levels):
        check_interrupts()
        half = 1 << (level - 1)
        np.minimum(minima[level - 1, :-half], minima[level - 1, half:], out=minima[level, :-half])
    return minima

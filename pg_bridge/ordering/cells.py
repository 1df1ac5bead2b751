"""The distinct cells of a table as numbers: what every ordering computes on.

In: a `Table`. Out: arrays. Within a column cells are numbered alphabetically, so that cells which start alike are
neighbours, and what any two of them share is the least that neighbours between them share (a range minimum, answered
in two look-ups). After construction no text is looked at again.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.sent import Lookup, Sent, cell_hashes
from pg_bridge.rows.table import Table

_SEPARATOR_CHARS = 2  # ', ' after a cell; for the last cell of a row the two braces around it stand in
_HEAD_CHARS = 16
_CHUNK = 1 << 16
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
        sent: Which prefixes earlier windows have sent; None where there were none.
        hashes: (d,) uint64; of each cell; empty where nothing is to be carried from window to window.
        labels: Per column, what stands before its cells in a rendered row.
    """

    def __init__(self, table: Table, sent: Sent | None = None) -> None:
        n, k = table.rows, len(table.columns)
        self.labels = table.labels()
        sizes = [len(texts) for texts in table.values]
        self.sizes = np.array(sizes, np.intp)
        self.offsets = np.cumsum([0, *sizes], dtype=np.intp)[:k]
        self.ranks = np.empty((k, n), np.uint16 if max(sizes, default=0) <= _LARGEST_SHORT else np.int32)
        self.sent = Lookup(sent) if sent is not None and sent.windows else None
        chars, common, hashes = [], [], []
        for j, (label, texts) in enumerate(zip(self.labels, table.values, strict=True)):
            by_text, in_common = alphabetical(texts)
            lengths = np.fromiter(map(len, texts), np.int64, len(texts))[by_text]
            if len(texts) > 1:
                ranks = np.empty(len(texts), self.ranks.dtype)
                ranks[by_text] = np.arange(len(texts))
                np.take(ranks, table.codes[:, j], out=self.ranks[j], mode="clip")
            else:
                self.ranks[j] = 0
            if sent is not None:
                hashes.append(cell_hashes(j, texts)[by_text])
            chars.append(lengths + len(label) + _SEPARATOR_CHARS)
            common.append(np.where(np.arange(len(texts)) > 0, in_common + len(label), 0))
        self.hashes = np.concatenate(hashes) if hashes else np.empty(0, np.uint64)
        self.chars = np.concatenate(chars) if chars else np.empty(0, np.int64)
        self._minima = _range_minima(np.concatenate(common) if common else np.empty(0, np.int64), max(sizes, default=0))

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

    def places(self, rows: NDArray[np.intp], columns: NDArray[np.integer]) -> NDArray[np.intp]:
        """(r,) intp: the places of the cells (rows[i], columns[i])."""
        columns = columns.astype(np.intp, copy=False)
        ranks: NDArray[np.integer] = np.take(self.ranks.ravel(), columns * self.rows + rows)
        places: NDArray[np.intp] = ranks + self.offsets[columns]
        return places

    def common_label(self, a: int, b: int) -> int:
        """Characters that what stands before the cells of two columns has in common."""
        pairs = zip(self.labels[a], self.labels[b], strict=False)
        return next((i for i, (one, other) in enumerate(pairs) if one != other), 0)

    def common_label_chars(self, one: NDArray[np.int16], other: NDArray[np.int16]) -> int:
        """Characters that what stands before the cells has in common, summed over (p,) pairs of columns."""
        pairs, counts = np.unique(one.astype(np.int64) * self.columns + other, return_counts=True)
        return sum(
            self.common_label(*divmod(pair, self.columns)) * count
            for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
        )

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


def alphabetical(texts: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Sort texts.

    Returns:
        order: (m,) intp; which text comes i-th.
        common: (m,) int64; characters that it shares with the one before it; the first shares none.

    >>> order, common = alphabetical(["b", "abc", "ab"])
    >>> order.tolist(), common.tolist()
    ([2, 1, 0], [0, 2, 0])
    """
    order, heads = _by_heads(texts)
    common = np.zeros(len(texts), np.int64)
    for start in range(1, len(texts), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        common[chunk], alike = _first_difference(
            heads[chunk], heads[start - 1 : start - 1 + _CHUNK][: len(heads[chunk])]
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


def _by_heads(texts: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.unsignedinteger]]:
    """What sorts texts, and (m, 16) the characters that each begins with, sorted.

    Beginnings in Latin-1 are sorted as numbers, and only texts that begin alike by what follows.
    """
    heads = np.empty((len(texts), _HEAD_CHARS), np.uint8)
    for start in range(0, len(texts), _CHUNK):
        characters = _characters(texts[start : start + _CHUNK], _HEAD_CHARS)
        if characters.max() > _LARGEST_BYTE:
            order = np.array(sorted(range(len(texts)), key=texts.__getitem__), np.intp)
            return order, _characters(list(map(texts.__getitem__, order.tolist())), _HEAD_CHARS)
        heads[start : start + _CHUNK] = characters
    words = heads.view(">u8").astype(np.uint64)
    first, second = (np.unique(words[:, i], return_inverse=True)[1] for i in (0, 1))
    order = np.argsort(first * len(texts) + second)  # of one number at a time: a third of what np.lexsort takes
    heads, words = heads[order], words[order]
    equal = (words[1:] == words[:-1]).all(axis=1)
    tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
    order[tied] = sorted(order[tied].tolist(), key=texts.__getitem__)
    return order, heads


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


def _range_minima(common: NDArray[np.int64], longest: int) -> NDArray[np.integer]:
    """(levels, d) integers: [l, i] is the least of common[i : i + 2**l]; `longest` is the longest range."""
    levels = max(longest - 1, 1).bit_length()
    most = common.max(initial=0)
    kind = np.uint8 if most <= _LARGEST_BYTE else np.uint16 if most <= _LARGEST_SHORT else np.int32
    minima = np.zeros((levels, len(common)), kind)
    minima[0] = common
    for level in range(1, levels):
        half = 1 << (level - 1)
        np.minimum(minima[level - 1, :-half], minima[level - 1, half:], out=minima[level, :-half])
    return minima

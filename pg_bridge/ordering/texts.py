"""What orderings ask about the texts of distinct cells: lengths, alphabetical ranks, common prefixes.

In: a `Table`. Out: arrays indexed by code, each computed when first asked for and then kept, because the
strategies that compete within one `plan` ask for the same ones. It never looks at rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pg_bridge.table import Table

_HEAD_CHARS = 16


class Texts:
    """The distinct cells of one table.

    Attributes:
        labels: Per column, what stands before its cells in a rendered row.
        lengths: Per column, (m,) int64; characters of each distinct cell.
    """

    def __init__(self, table: Table) -> None:
        self.labels = table.labels()
        self.lengths = table.lengths()
        self._values = table.values
        self._ranks: dict[int, NDArray[np.int64]] = {}
        self._heads: dict[int, NDArray[np.uint32]] = {}

    def ranks(self, column: int) -> NDArray[np.int64]:
        """(m,) int64: each distinct cell's place in the alphabetical order of its column."""
        if column not in self._ranks:
            texts = self._values[column]
            ranks = np.empty(len(texts), np.int64)
            ranks[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
            self._ranks[column] = ranks
        return self._ranks[column]

    def common_label(self, a: int, b: int) -> int:
        """Characters that the labels of two columns share at their start."""
        alike = 0
        for one, other in zip(self.labels[a], self.labels[b], strict=False):
            if one != other:
                break
            alike += 1
        return alike

    def common_chars(self, column: int, a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
        """Characters that cells of one column share at their start, summed over pairs of different cells.

        Args:
            column: The column.
            a: (p,) int32; the codes of one cell of each pair.
            b: (p,) int32; the codes of the other.
        """
        heads = self._head_of(column)
        total, alike = _common(heads[a], heads[b])
        start, width = _HEAD_CHARS, 4 * _HEAD_CHARS
        texts = self._values[column]
        while alike.size:  # the few pairs that agree so far look further, in ever wider steps
            a, b = a[alike], b[alike]
            more, alike = _common(
                _characters([texts[code][start : start + width] for code in a.tolist()], width),
                _characters([texts[code][start : start + width] for code in b.tolist()], width),
            )
            total += more
            start, width = start + width, min(4 * width, 4096)
        return total

    def _head_of(self, column: int) -> NDArray[np.uint32]:
        """(m, _HEAD_CHARS) uint32: the first characters of each distinct cell."""
        if column not in self._heads:
            self._heads[column] = _characters(self._values[column], _HEAD_CHARS)
        return self._heads[column]


def _characters(texts: list[str], width: int) -> NDArray[np.uint32]:
    """(len(texts), width) uint32: code points, cut at `width`, padded with 0, which no JSON text holds."""
    return np.array(texts, dtype=f"U{width}").view(np.uint32).reshape(len(texts), width)


def _common(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> tuple[int, NDArray[np.intp]]:
    """Characters shared before the first difference, summed, and the pairs that do not differ yet."""
    differ = a != b
    first = differ.argmax(axis=1)
    alike = np.flatnonzero(~differ[np.arange(len(first)), first])
    return int(first.sum()) + len(alike) * a.shape[1], alike

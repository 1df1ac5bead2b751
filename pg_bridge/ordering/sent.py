"""What has been sent, so that the rows planned next can continue its prefixes.

In: hashes of cells, and the column orders chosen for their rows. Out: which prefixes have been sent before. A prefix is
a chained hash of its cells, as the engine's cache keeps its blocks: the set is small, holds no text, and a collision
could cost a little sharing but never an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pg_bridge.ordering.measured import MOST_PREFIXES

ROOT = np.uint64(0x9E3779B97F4A7C15)

_COLUMN_BITS = np.uint64(0xFFFF)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """What rows begin with that have been sent; `Sent()` before the first.

    Attributes:
        order: The columns by their mean place in the rows sent last; empty before the first.
        prefixes: (p,) uint64; their hashes, sorted.
        steps: (s,) uint64; which columns follow a prefix, sorted: the 48 highest bits are the prefix's, the others the
            column.
    """

    order: tuple[int, ...] = ()
    prefixes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    steps: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    def knows(self, prefixes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of some prefixes were sent."""
        if not len(self.prefixes):
            return np.zeros(len(prefixes), np.bool_)
        at = np.minimum(np.searchsorted(self.prefixes, prefixes), len(self.prefixes) - 1)
        found: NDArray[np.bool_] = self.prefixes[at] == prefixes
        return found

    def list_steps(self, prefixes: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Where one may go on behind some prefixes: which of them, ascending, and the column."""
        begin = np.searchsorted(self.steps, prefixes & ~_COLUMN_BITS)
        count = np.searchsorted(self.steps, prefixes | _COLUMN_BITS, side="right") - begin
        which = np.repeat(np.arange(len(prefixes)), count)
        step = np.arange(len(which)) + np.repeat(begin - (np.cumsum(count) - count), count)
        return which, (self.steps[step] & _COLUMN_BITS).astype(np.intp)

    def add(
        self,
        cells: Iterator[NDArray[np.uint64]],
        column_order: NDArray[np.int16],
        check_interrupts: Callable[[], None] = lambda: None,
    ) -> Sent:
        """What has been sent after some more rows.

        Short prefixes are remembered first. Where there is no room for all, what was sent before is forgotten.

        Args:
            cells: For each place in the rows, (n,) hashes of the cells that they hold there.
            column_order: (n, k) int16; the rows' columns, in order.
            check_interrupts: Called between steps.
        """
        n, k = column_order.shape
        if not n or not k:
            return self
        prefix = np.full(n, ROOT)
        prefixes, steps = [], []
        room = MOST_PREFIXES
        for hashes, column in zip(cells, column_order.T, strict=True):
            longer = lengthen(prefix, hashes)
            prefixes.append(_sort_distinct(longer)[:room])
            steps.append(_sort_distinct((prefix & ~_COLUMN_BITS) | column.astype(np.uint64)))
            room -= len(prefixes[-1])
            if not room:
                break
            prefix = longer
        if room >= len(self.prefixes):
            prefixes.append(self.prefixes)
            steps.append(self.steps)
        places = np.zeros(k, np.intp)  # of each column, summed over the rows
        for place, column in enumerate(column_order.T):
            check_interrupts()
            places += place * np.bincount(column, minlength=k)
        order = tuple(np.argsort(places, kind="stable").tolist())
        check_interrupts()
        all_prefixes = _sort_distinct(np.concatenate(prefixes))
        check_interrupts()
        return Sent(order, all_prefixes, _sort_distinct(np.concatenate(steps)))


def hash_cells(column: int, texts: Sequence[str]) -> NDArray[np.uint64]:
    """(m,) uint64: hashes of the cells of a column; they hold within this process only."""
    hashes = np.fromiter(map(hash, texts), np.int64, len(texts)).view(np.uint64)
    return lengthen(hashes, np.full(1, column + 1, np.uint64))


def lengthen(prefixes: NDArray[np.uint64], cells: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The hashes of prefixes with one more cell each (the finaliser of SplitMix64)."""
    mixed = prefixes * _MULTIPLIERS[1] + cells
    mixed ^= mixed >> np.uint64(30)
    mixed *= _MULTIPLIERS[0]
    mixed ^= mixed >> np.uint64(27)
    mixed *= _MULTIPLIERS[1]
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _sort_distinct(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The distinct values, sorted; of millions in a tenth of the time of np.unique, which hashes them."""
    values = np.sort(values)
    first = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return values[first]

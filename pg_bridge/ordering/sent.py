"""What earlier windows have sent, so that the next one can continue their prefixes.

In: the cells of one window after another and the column orders chosen for them. Out: which prefixes have been sent
before. A prefix is a chained hash of its cells, as the engine's cache keeps its blocks: the set is small, holds no
text, and a collision could cost a little sharing but never an answer. The oldest windows are forgotten first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROOT = np.uint64(0x9E3779B97F4A7C15)
UNKNOWN = np.uint64(0)

_MOST_PREFIXES = 2_000_000
_FILTER_BITS = 22
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """The prefixes of earlier windows.

    Attributes:
        windows: For each window, the latest first, its prefixes: sorted uint64.
        turned: Whether the next window's rows go from the end of the alphabet to its beginning: every other window
            does, so that it begins where the one before it ended.
        order: The columns by their mean place in the latest window's rows; empty before the first window.
    """

    windows: tuple[NDArray[np.uint64], ...] = ()
    turned: bool = False
    order: tuple[int, ...] = ()

    def and_then(self, prefixes: NDArray[np.uint64], order: tuple[int, ...]) -> Sent:
        """What has been sent after one more window."""
        windows = [np.unique(prefixes)]
        room = _MOST_PREFIXES - len(windows[0])
        for window in self.windows:
            room -= len(window)
            if room < 0:
                break
            windows.append(window)
        return Sent(tuple(windows), not self.turned, order)


class Lookup:
    """Answers whether prefixes have been sent."""

    def __init__(self, sent: Sent) -> None:
        self._sorted = np.unique(np.concatenate(sent.windows)) if sent.windows else np.empty(0, np.uint64)
        self._filter = np.zeros(1 << _FILTER_BITS, np.bool_)  # most prefixes asked for were not sent
        self._filter[_slot(self._sorted)] = True

    def known(self, prefixes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The prefixes themselves where they were sent, `UNKNOWN` elsewhere."""
        found = np.zeros(len(prefixes), np.uint64)
        maybe = np.flatnonzero(self._filter[_slot(prefixes)])
        if maybe.size:
            asked = prefixes[maybe]
            at = np.minimum(np.searchsorted(self._sorted, asked), len(self._sorted) - 1)
            found[maybe] = np.where(self._sorted[at] == asked, asked, UNKNOWN)
        return found


def cell_hashes(column: int, texts: Sequence[str]) -> NDArray[np.uint64]:
    """(m,) uint64: hashes of the cells of a column; they hold within this process only."""
    hashes = np.fromiter(map(hash, texts), np.int64, len(texts)).view(np.uint64)
    return lengthened(hashes, np.full(1, column + 1, np.uint64))


def lengthened(prefixes: NDArray[np.uint64], cells: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The hashes of prefixes with one more cell each (the finaliser of SplitMix64)."""
    mixed = prefixes * _MULTIPLIERS[1] + cells
    mixed ^= mixed >> np.uint64(30)
    mixed *= _MULTIPLIERS[0]
    mixed ^= mixed >> np.uint64(27)
    mixed *= _MULTIPLIERS[1]
    mixed ^= mixed >> np.uint64(31)
    return np.where(mixed == UNKNOWN, ROOT, mixed)


def _slot(prefixes: NDArray[np.uint64]) -> NDArray[np.intp]:
    return (prefixes >> np.uint64(64 - _FILTER_BITS)).astype(np.intp)

"""Which of an engine's ranks a prompt goes to: each has a prefix cache of its own, and computes what it has not seen.

Scattered over ranks, as a load balancer does it, what neighbouring prompts share is computed by each of them. So the
planned order is cut into as many runs as there are ranks, of about the same cost, where neighbours share least. A rank
whose run is at its end takes from the end of the longest one that is left, cut at a weak place again.

In: prompts in their planned order; how many each rank has in flight. Out: the next prompts, and for which rank. It
sends nothing and has no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pg_bridge.engine.records import Numbered

ANSWER_CHARS = 64  # of a prompt that an answer costs as much as
LOOK_AROUND = 0.1  # of a run's cost, on either side of where it would end, for a place where little is shared
LEAST_PIECE = 8  # prompts that one rank takes from another: fewer are answered sooner where they are

Chars = NDArray[np.int64]


def shared_chars(prompts: Numbered) -> Chars:
    """How many characters each prompt's beginning shares with the one before it; 0 for the first."""
    shared = [0]
    for (_, before), (_, text) in pairwise(prompts):
        low, high = 0, min(len(before), len(text))
        while low < high:
            middle = (low + high + 1) // 2
            if before[low:middle] == text[low:middle]:
                low = middle
            else:
                high = middle - 1
        shared.append(low)
    return np.array(shared[: len(prompts)], dtype=np.int64)


def weakest_cuts(shared: Chars, costs: Chars, parts: int) -> list[int]:
    """Where to cut prompts into parts of about the same cost: the places of each part's first prompt but the first's.

    Args:
        shared: Characters that each shares with the one before.
        costs: What each costs.
        parts: How many parts; where there are fewer prompts, some are empty.
    """
    sums = np.cumsum(costs)
    total = int(sums[-1]) if len(sums) else 0
    cuts: list[int] = []
    for part in range(1, parts):
        middle, around = total * part / parts, LOOK_AROUND * total / parts
        first, ideal, last = np.searchsorted(sums, (middle - around, middle, middle + around))
        # A cut before a prompt leaves what is summed up to the one before it on the left.
        places = np.arange(max(int(first), cuts[-1] if cuts else 0), min(int(last), len(sums) - 1) + 1)
        if len(places):
            least = places[shared[places] == shared[places].min()]
            cuts.append(int(least[np.argmin(np.abs(least - ideal))]))
        else:
            cuts.append(cuts[-1] if cuts else 0)
    return cuts


@dataclass(slots=True)
class Piece:
    """Prompts that follow one another, and what each shares with the one before; the first `taken` are gone."""

    prompts: Numbered
    shared: Chars
    taken: int = 0

    @property
    def left(self) -> int:
        """Prompts that wait."""
        return len(self.prompts) - self.taken

    def take(self, most: int) -> Numbered:
        """The next prompts, at most so many."""
        batch = self.prompts[self.taken : self.taken + most]
        self.taken += len(batch)
        return batch

    def split(self) -> Piece:
        """Give away what is behind the weakest place near the middle of what waits."""
        first = self.taken + max(1, self.left // 3)
        last = self.taken + max(2, self.left - self.left // 3)
        cut = first + int(np.argmin(self.shared[first:last]))
        behind = Piece(self.prompts[cut:], self.shared[cut:])
        del self.prompts[cut:]
        self.shared = self.shared[:cut]
        return behind


def idlest(in_flight: Sequence[int]) -> int:
    """The rank with the fewest prompts in flight."""
    return min(range(len(in_flight)), key=in_flight.__getitem__)


class Runs:
    """The prompts that are placed and wait: a run for each rank.

    Args:
        ranks: How many there are.

    Attributes:
        waiting: Prompts in all runs.
    """

    def __init__(self, ranks: int) -> None:
        self.waiting = 0
        self._runs: list[deque[Piece]] = [deque() for _ in range(ranks)]

    def place(self, prompts: Numbered) -> None:
        """Hand prompts out to the ranks, in their planned order."""
        shared = shared_chars(prompts)
        lengths = np.array([len(text) for _, text in prompts], dtype=np.int64)
        cuts = weakest_cuts(shared, lengths - shared + ANSWER_CHARS, len(self._runs))
        for run, start, stop in zip(self._runs, [0, *cuts], [*cuts, len(prompts)], strict=True):
            if start < stop:
                run.append(Piece(prompts[start:stop], shared[start:stop]))
        self.waiting += len(prompts)

    def is_idle(self, in_flight: Sequence[int]) -> bool:
        """Whether the rank with the fewest prompts in flight has none that wait."""
        return not self._runs[idlest(in_flight)]

    def pull(self, most: int, in_flight: Sequence[int]) -> tuple[int, Numbered]:
        """The next prompts, of the rank that has the fewest in flight, and that rank; none if none wait."""
        for rank in sorted(range(len(self._runs)), key=in_flight.__getitem__):
            run = self._runs[rank]
            if not run:
                self._take_over(rank)
            if run:
                batch = run[0].take(most)
                self.waiting -= len(batch)
                if not run[0].left:
                    run.popleft()
                return rank, batch
        return 0, []

    def _take_over(self, rank: int) -> None:
        longest = max(self._runs, key=lambda run: sum(piece.left for piece in run))
        if len(longest) > 1:
            self._runs[rank].append(longest.pop())
        elif longest and longest[0].left >= 2 * LEAST_PIECE:
            self._runs[rank].append(longest[0].split())

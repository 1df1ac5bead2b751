"""Which engine a prompt goes to: each has a prefix cache of its own, and computes what it has not seen.

Scattered over engines, as a load balancer does it, what neighbouring prompts share is computed by each of them. So the
planned order is cut into as many runs as there are lanes, of about the same cost, where neighbours share least. A lane
is an engine, or one of its ranks. One whose run is at its end takes from the end of the longest one that is left, cut
at a weak place again.

In: prompts in their planned order; which lanes there is room in. Out: the next prompts, and for which lane. It sends
nothing and has no clock.
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
LEAST_PIECE = 8  # prompts that one lane takes from another: fewer are answered sooner where they are

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


class Runs:
    """The prompts that are placed and wait: a run for each lane.

    A lane that is closed has no run: its prompts are left for whoever has none.

    Args:
        lanes: How many there are.

    Attributes:
        waiting: Prompts in all runs.
    """

    def __init__(self, lanes: int) -> None:
        self.waiting = 0
        self._runs: list[deque[Piece]] = [deque() for _ in range(lanes)]
        self._waiting_for = [0] * lanes  # prompts in each run
        self._left_over: deque[Piece] = deque()
        self._urgent: deque[Piece] = deque()  # their rows have waited for some time
        self._closed: set[int] = set()

    def place(self, prompts: Numbered) -> None:
        """Hand prompts out to the lanes that are open, in their planned order."""
        lanes = [lane for lane in range(len(self._runs)) if lane not in self._closed]
        shared = shared_chars(prompts)
        lengths = np.array([len(text) for _, text in prompts], dtype=np.int64)
        cuts = weakest_cuts(shared, lengths - shared + ANSWER_CHARS, max(1, len(lanes)))
        pieces = [
            Piece(prompts[start:stop], shared[start:stop])
            for start, stop in zip([0, *cuts], [*cuts, len(prompts)], strict=True)
        ]
        if not lanes:
            self._left_over += [piece for piece in pieces if piece.left]
        for lane, piece in zip(lanes, pieces, strict=False):
            if piece.left:
                self._give(lane, piece)
        self.waiting += len(prompts)

    def close(self, lane: int) -> None:
        """Let others have what waits for a lane."""
        self._closed.add(lane)
        self._left_over += self._runs[lane]
        self._runs[lane].clear()
        self._waiting_for[lane] = 0

    def open(self, lane: int) -> None:
        """Place prompts for a lane again."""
        self._closed.discard(lane)

    def hand_over(self, prompts: Numbered) -> None:
        """Take prompts back that a lane had been given, in their planned order; the next that asks has them first."""
        self._urgent.append(Piece(prompts, shared_chars(prompts)))
        self.waiting += len(prompts)

    def is_idle(self, lanes: Sequence[int]) -> bool:
        """Whether nothing waits for the first of some lanes."""
        return not (self._runs[lanes[0]] or self._left_over or self._urgent)

    def pull(self, most: int, lanes: Sequence[int]) -> tuple[int, Numbered]:
        """The next prompts, of the first of some lanes that has any, and that lane; none if none wait for them."""
        for lane in lanes:
            run = self._runs[lane]
            if self._urgent:
                run.appendleft(self._urgent.popleft())
                self._waiting_for[lane] += run[0].left
            if not run:
                self._take_over(lane)
            if run:
                batch = run[0].take(most)
                self.waiting -= len(batch)
                self._waiting_for[lane] -= len(batch)
                if not run[0].left:
                    run.popleft()
                return lane, batch
        return 0, []

    def _take_over(self, lane: int) -> None:
        if self._left_over:
            self._give(lane, self._left_over.popleft())
            return
        number = max(range(len(self._runs)), key=self._waiting_for.__getitem__)
        longest = self._runs[number]
        if len(longest) > 1:
            piece = longest.pop()
        elif longest and longest[0].left >= 2 * LEAST_PIECE:
            piece = longest[0].split()
        else:
            return
        self._waiting_for[number] -= piece.left
        self._give(lane, piece)

    def _give(self, lane: int, piece: Piece) -> None:
        self._runs[lane].append(piece)
        self._waiting_for[lane] += piece.left

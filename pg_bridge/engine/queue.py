"""The prompts of a run that wait for room: made portion by portion, numbered as they are made.

In: an iterator of portions. Out: prompts in their order, first those that were put back; where the engine has several
ranks, those of one of them, as `pg_bridge.engine.placing` says. It sends nothing and knows no engine: it is told how
many there is room for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from pg_bridge.engine.placing import Runs, idlest
from pg_bridge.engine.records import Numbered, Portion

PLACED_TOGETHER = 1 << 14  # prompts, at most, that are cut into runs at one time: they are all in memory
PLACED_UNSIZED = 1 << 10  # as above, of portions of which nobody knows how large they are
ANY_RANK = -1


class PromptQueue:
    """The prompts that wait for room.

    Args:
        portions: Of prompts, in the order in which to send them.
        ranks: Over how many ranks of the engine they are handed out.
    """

    def __init__(self, portions: Iterator[Portion], ranks: int = 1) -> None:
        self._portions = portions
        self._made: deque[Portion] = deque()
        self._put_back: deque[tuple[int, Numbered]] = deque()
        self._runs = Runs(ranks) if ranks > 1 else None
        self._index = 0
        self.waiting = 0
        self.is_ahead = False
        self.ended = False

    def make_more(self) -> None:
        """Make the next portion, which may take long."""
        portion = next(self._portions, None)
        if portion is None:
            self.ended = True
        else:
            self._made.append(portion)
            self.waiting += portion.size
            self.is_ahead = portion.is_ahead

    def pull(self, most: int, in_flight: Sequence[int] = (0,)) -> tuple[int, Numbered]:
        """Take at most so many of the prompts that wait; first those that were put back, and no others with them.

        Args:
            most: How many there is room for.
            in_flight: How many prompts each rank has in flight.

        Returns:
            The rank that they are for, and the prompts.
        """
        if self._put_back:
            rank, batch = self._put_back.popleft()
            if len(batch) > most:
                self._put_back.appendleft((rank, batch[most:]))
                batch = batch[:most]
            self.waiting = max(0, self.waiting - len(batch))
            return (idlest(in_flight) if rank == ANY_RANK else rank), batch
        rank, batch = (0, self._number(most)) if self._runs is None else self._of_runs(self._runs, most, in_flight)
        has_more = bool(self._made or (self._runs and self._runs.waiting))
        self.waiting = max(0, self.waiting - len(batch)) if has_more else 0
        return rank, batch

    def _of_runs(self, runs: Runs, most: int, in_flight: Sequence[int]) -> tuple[int, Numbered]:
        while self._made and runs.is_idle(in_flight) and runs.waiting < PLACED_TOGETHER:
            runs.place(self._number(min(self._made[0].size or PLACED_UNSIZED, PLACED_TOGETHER)))
        return runs.pull(most, in_flight)

    def _number(self, most: int) -> Numbered:
        """The next prompts that were made, at most so many."""
        batch: Numbered = []
        while self._made and len(batch) < most:
            more = list(islice(self._made[0].prompts, most - len(batch)))
            if not more:
                self._made.popleft()
            batch += enumerate(more, self._index)
            self._index += len(more)
        return batch

    def put_back(self, batch: Numbered, rank: int = ANY_RANK) -> None:
        """Let prompts that were pulled wait again, before all others."""
        self._put_back.appendleft((rank, batch))
        self.waiting += len(batch)

    @property
    def is_stopped(self) -> bool:
        """Whether prompts wait that were to be sent already."""
        return bool(self._put_back)

    @property
    def is_dry(self) -> bool:
        """Whether no portion is left that may have a prompt."""
        return not (self._made or self._put_back or (self._runs and self._runs.waiting))

    def is_ready(self, most: int, eager: bool) -> bool:
        """Whether prompts should be sent now; where all will be asked, requests are filled."""
        whole = not eager or self.ended or self.is_ahead or self.is_stopped or self.waiting >= most
        return whole and not self.is_dry

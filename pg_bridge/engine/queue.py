"""The prompts of a run that wait for room: made portion by portion, numbered as they are made.

In: an iterator of portions. Out: prompts in their order, first those that were put back; where there are several lanes,
engines or ranks of one, those of one of them, as `pg_bridge.engine.placing` says. It sends nothing and knows no engine:
it is told how many there is room for, and where.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from pg_bridge.engine.placing import Runs
from pg_bridge.engine.records import NOTHING_YET, Numbered, Portion

PLACED_TOGETHER = 1 << 14  # prompts, at most, that are cut into runs at one time: they are all in memory
PLACED_UNSIZED = 1 << 10  # as above, of portions of which nobody knows how large they are


class PromptQueue:
    """The prompts that wait for room.

    Args:
        portions: Of prompts, in the order in which to send them.
        lanes: Over how many engines, or ranks of them, they are handed out.

    Attributes:
        waiting: How many have been made, about.
        is_ahead: Whether the next portion takes a while.
        awaits_answers: Whether it depends on answers.
        ended: Whether there is none.
    """

    def __init__(self, portions: Iterator[Portion], lanes: int = 1) -> None:
        self._portions = portions
        self._made: deque[Portion] = deque()
        self._put_back: deque[tuple[int, Numbered]] = deque()
        self._runs = Runs(lanes) if lanes > 1 else None
        self._index = 0
        self.waiting = 0
        self.is_ahead = False
        self.awaits_answers = False
        self.ended = False

    def make_more(self) -> None:
        """Make the next portion, which may take long."""
        portion = next(self._portions, None)
        self.awaits_answers = portion is NOTHING_YET
        if portion is None:
            self.ended = True
        elif self.awaits_answers:
            self.is_ahead = True
        else:
            self._made.append(portion)
            self.waiting += portion.size
            self.is_ahead = portion.is_ahead

    def pull(self, most: int, lanes: Sequence[int] = (0,)) -> tuple[int, Numbered]:
        """Take at most so many of the prompts that wait; first those that were put back, and no others with them.

        Args:
            most: How many there is room for.
            lanes: Where there is; the first of them that has prompts gets them.

        Returns:
            The lane that they are for, and the prompts; none if none wait for any of these lanes.
        """
        for place, (lane, waiting) in enumerate(self._put_back):
            if lane in lanes:
                del self._put_back[place]
                if len(waiting) > most:
                    self._put_back.appendleft((lane, waiting[most:]))
                self.waiting = max(0, self.waiting - min(len(waiting), most))
                return lane, waiting[:most]
        lane, batch = (0, self._number(most)) if self._runs is None else self._of_runs(self._runs, most, lanes)
        has_more = not self.is_dry
        self.waiting = max(0, self.waiting - len(batch)) if has_more else 0
        return lane, batch

    def _of_runs(self, runs: Runs, most: int, lanes: Sequence[int]) -> tuple[int, Numbered]:
        while self._made and runs.is_idle(lanes) and runs.waiting < PLACED_TOGETHER:
            runs.place(self._number(min(self._made[0].size or PLACED_UNSIZED, PLACED_TOGETHER)))
        return runs.pull(most, lanes)

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

    def put_back(self, batch: Numbered, lane: int = 0) -> None:
        """Let prompts that were pulled for a lane wait for it again, before all others."""
        self._put_back.appendleft((lane, batch))
        self.waiting += len(batch)

    def close(self, lane: int, unanswered: Numbered) -> None:
        """Hand what waits for a lane to the others, and what it was given and has not answered, which is waited for."""
        if self._runs is None:
            raise ValueError
        put_back = [each for each in self._put_back if each[0] == lane]
        self._put_back = deque(each for each in self._put_back if each[0] != lane)
        self._runs.close(lane)
        again = sorted([*unanswered, *(prompt for _, batch in put_back for prompt in batch)])
        if again:
            self._runs.hand_over(again)
        self.waiting += len(unanswered)

    def open(self, lane: int) -> None:
        """Let a lane that was closed have prompts again."""
        if self._runs is not None:
            self._runs.open(lane)

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

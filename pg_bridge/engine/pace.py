"""How many prompts go into one request and how many may be outstanding: numbers only, no I/O and no clock.

An engine is full while some prompts wait for it; more of them gain nothing, and whoever else asks it waits behind them.
How many keep it full nobody knows beforehand: an engine may answer five prompts a second or five thousand, after a
tenth of a second or a minute. So its answers decide. In flight are as many prompts as it answers in twice the time in
which it answered soonest, and in one second besides: an engine that has not enough of them answers each as soon as it
can, and is given twice as many; one that has waits for none. If it tells how many prompts it runs and how many wait,
its own word counts, too: before it has answered it is given twice as many while none waits, and once some have waited
no more than a second's work may.

Requests are small, because a server in front of an engine renders all prompts of one before it hands on the first.
For a consumer who may stop early few prompts are allowed at first, more with every answer that it has taken.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

LARGEST_REQUEST = 8  # a prompt costs vLLM's server no less in a larger one, and a sixth more in one of four
LARGEST_COUNTED_REQUEST = 128  # where requests are counted, so that few of them matter more
FIRST_OUTSTANDING = 16
GROWTH = 2

FIRST_IN_FLIGHT = 64
BLIND_IN_FLIGHT = 256  # before any answer, if the engine does not tell that prompts wait
BLIND_GROWTH_S = 0.25  # as many again in each
ENOUGH_WAIT = 4  # for one that waits so many run: what has come during a step waits, too
WAITING_S = 1.0  # of work may wait for the engine
RATE_OVER_S = 0.5
SHORTEST_S = 0.001
RATE_HALVES_S = 10.0  # what an engine has done is believed for some time, for much else makes pauses


class Load(NamedTuple):
    """What an engine says of itself, everybody's prompts together.

    Attributes:
        running: Prompts that it works on.
        waiting: Prompts that it has taken and has no room for yet.
    """

    running: int
    waiting: int


@dataclass(slots=True)
class Pace:
    """The size of the next request and the room for it. Times are moments of one clock, in s.

    Attributes:
        max_in_flight: Prompts that may await an answer at one time, whatever the engine does.
        eager: The consumer takes all answers, whatever comes: no slow start.
        counted: Whether requests are counted, not prompts alone.
        handed: Answers that the consumer has taken.
        per_s: Prompts that the engine answers in a second, lately at its best; None before the first answer.
    """

    max_in_flight: int
    eager: bool = False
    counted: bool = False
    handed: int = 0
    per_s: float | None = None
    _least_s: float = float("inf")  # that a request took
    _began_s: float | None = None  # when the engine was given something to do, having had nothing
    _rated_s: float = 0.0
    _landed: deque[tuple[float, int]] = field(default_factory=deque)  # of late: when, and how many prompts
    _landed_count: int = 0
    _heard: int | None = None  # as many in flight as the engine's word suggests
    _has_had_enough: bool = False  # by its own word

    @property
    def largest_request(self) -> int:
        """Four requests share what may be in flight, so that the engine has work while one is handed over."""
        most = LARGEST_COUNTED_REQUEST if self.counted else LARGEST_REQUEST
        return max(1, min(most, self.max_in_flight // 4))

    @property
    def request_size(self) -> int:
        """Prompts of the next request: no more than the engine answers in a second."""
        if self.counted or self.per_s is None:
            return self.largest_request
        return max(1, min(self.largest_request, int(self.per_s)))

    def limit(self, now_s: float) -> int:
        """Prompts that may be in flight."""
        if self.per_s is not None:
            wanted = self.per_s * (2 * self._least_s + WAITING_S)
        elif self._has_had_enough or self._began_s is None:
            wanted = FIRST_IN_FLIGHT
        else:
            grown = FIRST_IN_FLIGHT * (1 + (now_s - self._began_s) / BLIND_GROWTH_S)
            wanted = min(grown, BLIND_IN_FLIGHT)
        if self._heard is not None:
            wanted = min(wanted, self._heard) if self._has_had_enough else max(wanted, self._heard)
        return min(self.max_in_flight, max(int(wanted), FIRST_OUTSTANDING))

    def room(self, in_flight: int, landed: int, now_s: float) -> int:
        """Prompts to send now: a whole request or none, unless nothing is outstanding.

        Args:
            in_flight: Prompts that await their answer.
            landed: Answers that the consumer has not taken yet.
            now_s: This moment.
        """
        if not in_flight:  # an engine that had nothing to do is not slow
            self._began_s = now_s
            self._landed.clear()
            self._landed_count = 0
        limit = self.limit(now_s)
        outstanding, size = in_flight + landed, min(self.request_size, max(1, limit // 2))
        room = limit - in_flight
        if not self.eager:
            started = FIRST_OUTSTANDING + GROWTH * self.handed - outstanding
            room = min(room, started, 2 * self.max_in_flight - outstanding)
        if room < size and outstanding:
            return 0
        return max(0, min(room, size))

    def land(self, prompts: int, took_s: float, now_s: float) -> None:
        """Learn from a request of so many prompts that has been answered now, after so many seconds."""
        self._least_s = min(self._least_s, took_s)
        self._landed.append((now_s, prompts))
        self._landed_count += prompts
        over_s = max(RATE_OVER_S, 2 * self._least_s)
        while self._landed[0][0] < now_s - over_s:
            self._landed_count -= self._landed.popleft()[1]
        began_s = now_s - took_s if self._began_s is None else min(self._began_s, now_s - took_s)
        per_s = self._landed_count / max(min(over_s, now_s - began_s), SHORTEST_S)
        faded = 0.5 ** ((now_s - self._rated_s) / RATE_HALVES_S)
        self.per_s, self._rated_s = max(per_s, (self.per_s or 0.0) * faded), now_s

    def hear(self, load: Load, in_flight: int) -> None:
        """Learn from what the engine says of itself, with so many of this run's prompts in flight."""
        if ENOUGH_WAIT * load.waiting > load.running:
            self._has_had_enough = True
        if self._has_had_enough:
            self._heard = in_flight - load.waiting + int((self.per_s or 0.0) * WAITING_S)
        elif 2 * load.running >= in_flight:
            self._heard = 2 * in_flight
        else:  # they are with the server in front of it
            self._heard = None

    def wants_to_hear(self, in_flight: int, now_s: float) -> bool:
        """Whether the engine's word could change anything, with so many of this run's prompts in flight."""
        limit = self.limit(now_s)
        at_limit = self.per_s is None or in_flight + self.request_size > limit
        return in_flight > 0 and at_limit and limit < self.max_in_flight

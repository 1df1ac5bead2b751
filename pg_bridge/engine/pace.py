"""How many prompts go into one request and how many may be outstanding: numbers only, no I/O.

Large requests are cheap for a fast engine; small ones stream for a slow one. The first answers decide, then
it adapts. At first few prompts are allowed, more with every answer that the consumer has taken.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_BATCH = 8
LARGEST_BATCH = 128
FAST_S = 0.25
SLOW_S = 2.0
FIRST_OUTSTANDING = 16
GROWTH = 2


@dataclass(slots=True)
class Pace:
    """The size of the next request and the room for it.

    Attributes:
        max_in_flight: Prompts that may await an answer at one time.
        eager: The consumer takes all answers, whatever comes: no slow start.
        batch_size: Prompts of the next request.
        handed: Answers that the consumer has taken.
    """

    max_in_flight: int
    eager: bool = False
    batch_size: int = 0
    handed: int = 0

    def __post_init__(self) -> None:
        self.batch_size = self.largest_batch if self.eager else min(FIRST_BATCH, self.largest_batch)

    @property
    def largest_batch(self) -> int:
        """Four requests share what may be in flight, so that the engine has work while one is handed over."""
        return max(1, min(LARGEST_BATCH, self.max_in_flight // 4))

    def room(self, in_flight: int, landed: int) -> int:
        """Prompts to send now: a whole batch or none, unless nothing is outstanding.

        Args:
            in_flight: Prompts that await their answer.
            landed: Answers that the consumer has not taken yet.
        """
        outstanding = in_flight + landed
        room = self.max_in_flight - in_flight
        if not self.eager:
            started = FIRST_OUTSTANDING + GROWTH * self.handed - outstanding
            room = min(room, started, 2 * self.max_in_flight - outstanding)
        if room < self.batch_size and outstanding:
            return 0
        return max(0, min(room, self.batch_size))

    def adapt(self, prompt_count: int, took_s: float) -> None:
        """Adapt to a request that was answered in so many seconds."""
        if took_s > SLOW_S:
            self.batch_size = max(1, min(self.batch_size, prompt_count // 2))
        elif took_s < FAST_S and prompt_count >= self.batch_size:
            self.batch_size = min(self.batch_size * 2, self.largest_batch)

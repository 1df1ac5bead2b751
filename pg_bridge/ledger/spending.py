"""What one statement has taken of one server so far: what budgets are measured by.

In: prompts as they are sent, figures as answers land. Out: sums, of the whole statement and of each kind of call in it.
All runs of a statement share one `Spending`, however many there are.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, field

from pg_bridge.ledger.usage import FIGURES, Figures
from pg_bridge.options import Call

OTHERS_EVERY_S = 1.0  # what other sessions have taken is read again

CHARS_PER_TOKEN = 4
"""Of English, and more than of most else: what is expected of characters is the least, before any answer is known."""


@dataclass(slots=True)
class Spent:
    """What something has taken.

    Attributes:
        requests: Prompts that were sent.
        prompt_tokens: Of those that were answered; by their characters, where the engine does not tell.
        completion_tokens: Likewise.
        cost: At the server's prices.
        began_s: The moment of the first prompt, on the monotonic clock; None before it.
        in_flight: Prompts that were sent and not answered.
        in_flight_chars: Their characters, instructions included.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    began_s: float | None = None
    in_flight: int = 0
    in_flight_chars: int = 0

    @property
    def seconds(self) -> float:
        """Since the first prompt."""
        return 0.0 if self.began_s is None else time.monotonic() - self.began_s

    def send(self, chars: int) -> None:
        """Count a prompt that is sent."""
        if self.began_s is None:
            self.began_s = time.monotonic()
        self.requests += 1
        self.in_flight += 1
        self.in_flight_chars += chars

    def settle(self, chars: int) -> None:
        """Count a prompt as no longer in flight."""
        self.in_flight -= 1
        self.in_flight_chars -= chars


@dataclass(slots=True)
class Spending:
    """The sums of one statement, one role and one server.

    Attributes:
        total: All of it.
        calls: By the `purse` of what was called: calls that have all options in common are one.
        tokens_per_char: The least that prompts were seen to take; None before the first answer.
        tokens_per_answer: Likewise.
        others: What the role has taken today besides.
    """

    total: Spent = field(default_factory=Spent)
    calls: dict[Hashable, Spent] = field(default_factory=dict)
    tokens_per_char: float | None = None
    tokens_per_answer: float | None = None
    others: Figures = field(default_factory=Figures)
    _others_at_s: float | None = None
    _written: Figures = field(default_factory=Figures)  # of this statement, in the ledger under the day
    _day: str = ""

    def of(self, call: Call) -> Spent:
        """What a call has taken."""
        return self.calls.setdefault(call.purse, Spent())

    def wants_others(self) -> bool:
        """Whether it is time to read what others have taken."""
        return self._others_at_s is None or time.monotonic() - self._others_at_s >= OTHERS_EVERY_S

    def learn_others(self, day: str, taken: Figures) -> None:
        """Note what the role has taken on a day, this statement's own included as far as it is written."""
        self._begin(day)
        self._others_at_s = time.monotonic()
        # Nothing where the ledger could not be read.
        others = taken.less(self._written)
        self.others = Figures(*(max(0, getattr(others, name)) for name in FIGURES))

    def write(self, day: str, more: Figures) -> None:
        """Note what has been written into the ledger."""
        self._begin(day)
        self._written.add(more)

    def _begin(self, day: str) -> None:
        if day != self._day:
            self._day, self._written = day, Figures()

    def learn(self, prompts: int, chars: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Note what answered prompts took."""
        if prompt_tokens and chars:
            least, seen = self.tokens_per_char, prompt_tokens / chars
            self.tokens_per_char = seen if least is None else min(least, seen)
        if completion_tokens and prompts:
            least, seen = self.tokens_per_answer, completion_tokens / prompts
            self.tokens_per_answer = seen if least is None else min(least, seen)

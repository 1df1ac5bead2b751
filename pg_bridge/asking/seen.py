"""What an engine has been seen to do, and what that foretells: how long prompts take it, and how long its answers are.

In: figures of earlier runs. Out: seconds and tokens for a run to come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pg_bridge.engine import Sampling, Usage
from pg_bridge.ledger.speed import Speed

TELLING_ANSWERS = 16
"""Of a run that tells how fast an engine is. Who asks a question at a time waits for each, while most of the engine
stands idle: a thousand such calls take far longer than a thousand questions."""

AnswersBy = Literal["at_most", "as_seen"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What an engine has been seen to do.

    Attributes:
        computed_tokens: Prompt tokens that it computed, those that its cache held left out.
        seconds: What it took for them.
        answers: That it gave.
        completion_tokens: Tokens of these answers.
    """

    computed_tokens: int = 0
    seconds: float = 0.0
    answers: int = 0
    completion_tokens: int = 0

    def seconds_for(self, computed_tokens: int) -> float | None:
        """Seconds for so many tokens at that speed; None where nothing was seen."""
        if not computed_tokens:
            return 0.0
        return computed_tokens * self.seconds / self.computed_tokens if self.computed_tokens else None


def speed_shown(usage: Usage) -> Speed | None:
    """How fast a run has shown an engine to be; None where it does not tell."""
    if usage.answered < TELLING_ANSWERS or not usage.prompt_tokens or usage.cached_tokens is None:
        return None
    return Speed(usage.prompt_tokens - usage.cached_tokens, usage.wait_s)


NOTHING_SEEN = Seen()


def answer_tokens(asked: int, sampling: Sampling, seen: Seen, thought_tokens: int) -> tuple[int, AnswersBy | None]:
    """Tokens of so many answers, and whether that is what earlier ones took or the most that they may.

    Args:
        asked: How many.
        sampling: How they are given.
        seen: What earlier ones took.
        thought_tokens: Most tokens of thoughts before each.
    """
    if not asked:
        return 0, None
    most = sampling.max_tokens
    if sampling.choices:  # no token is shorter than a byte, and one ends the answer
        most = min(most, 1 + max(len(choice.encode(errors="replace")) for choice in sampling.choices))
    most += thought_tokens
    if not seen.answers or not seen.completion_tokens:
        return asked * most, "at_most"
    return round(asked * min(most, seen.completion_tokens / seen.answers)), "as_seen"

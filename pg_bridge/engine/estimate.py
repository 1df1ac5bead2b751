"""How many tokens a prompt and its answer will take, learned from those that were answered.

In: lengths of prompts, and what the engine says that they took. Out: a number. It is for limits of tokens a minute,
where what was really taken counts as soon as it is known.
"""

from __future__ import annotations

CHARS_PER_TOKEN = 4.0  # of English, before anything is known


class Estimate:
    """What is known of a run's tokens."""

    def __init__(self) -> None:
        self._chars = 0
        self._prompt_tokens = 0
        self._answers = 0
        self._completion_tokens = 0

    def tokens(self, chars: int, max_tokens: int) -> int:
        """How many tokens prompts of so many characters and one answer will take; at first the longest answer there is.

        >>> estimate = Estimate()
        >>> estimate.tokens(400, 128)
        228
        >>> estimate.learn(800, 2, 400, 10)
        >>> estimate.tokens(400, 128)
        205
        """
        per_token = self._chars / self._prompt_tokens if self._prompt_tokens else CHARS_PER_TOKEN
        answer = min(max_tokens, self._completion_tokens / self._answers) if self._answers else max_tokens
        return round(chars / max(per_token, 0.1) + answer)

    def learn(self, chars: int, answers: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Take in what an answered request took."""
        self._chars += chars
        self._answers += answers
        self._prompt_tokens += prompt_tokens
        self._completion_tokens += completion_tokens

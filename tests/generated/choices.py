"""Where chance comes from: a list of choices that can be replayed, and so be made smaller.

Alternative 0 is always the simplest, so a shorter list, or one with smaller numbers, makes a simpler statement.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Chooses, and remembers what was chosen.

    Args:
        seed: What fresh choices come from.
        replay: Choices to make instead; 0 is chosen after the last.

    Attributes:
        made: What was chosen so far.
    """

    def __init__(self, seed: str = "", replay: Sequence[int] | None = None) -> None:
        self._rng = random.Random(seed)
        self._replay = replay
        self.made: list[int] = []

    def below(self, count: int) -> int:
        """Choose a number from 0 to `count` - 1."""
        if self._replay is None:
            value = self._rng.randrange(count)
        else:
            position = len(self.made)
            value = min(self._replay[position], count - 1) if position < len(self._replay) else 0
        self.made.append(value)
        return value

    def pick(self, alternatives: Sequence[T]) -> T:
        """Choose one of them."""
        return alternatives[self.below(len(alternatives))]

    def make(self, alternatives: Sequence[Callable[[], T]]) -> T:
        """Choose one of them and call it."""
        return self.pick(alternatives)()

    def chance(self, percent: int) -> bool:
        """Choose yes in so many of a hundred cases; 0 is no."""
        return self.below(100) >= 100 - percent

"""Which of some candidates is right most often, by asking many of them about few rows and few of them about all.

In: how many there are, and about how many rows they may be asked; who was right about which. Out: what to ask next, and
the best. Successive halving: each step puts the worse half aside and doubles the rows. How many questions that takes
depends on the two numbers alone: `questions_of` tells it beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def steps_of(contenders: int, rows: int) -> list[tuple[int, int]]:
    """How many are left in each step, and about how many rows they have been asked at its end.

    >>> steps_of(4, 100), steps_of(5, 100), steps_of(1, 7), steps_of(0, 7)
    ([(4, 25), (2, 50), (1, 100)], [(5, 13), (3, 25), (2, 50), (1, 100)], [(1, 7)], [])
    """
    last = max(0, contenders - 1).bit_length()
    return [(-(-contenders >> step), -(-rows >> (last - step))) for step in range(last + 1 if contenders else 0)]


def questions_of(contenders: int, rows: int) -> int:
    """How many questions that is.

    >>> questions_of(4, 100), questions_of(0, 100)
    (200, 0)
    """
    steps = steps_of(contenders, rows)
    before = [0, *(asked for _, asked in steps)]
    return sum(left * (asked - already) for (left, asked), already in zip(steps, before, strict=False))


class Halving:
    """Finds the best of some contenders.

    Args:
        contenders: Their numbers; of those that are equally good the first is better.
        rows: About how many rows they may be asked.

    Attributes:
        left: Who is left.
    """

    def __init__(self, contenders: Sequence[int], rows: int) -> None:
        self.left = list(contenders)
        self._steps = steps_of(len(self.left), rows)[::-1]
        self._asked = 0

    def next_rows(self) -> range | None:
        """About which rows to ask those who are left; None at the end, when one is left or there was none."""
        if not self._steps:
            return None
        return range(self._asked, self._steps[-1][1])

    def take(self, right: Mapping[int, int]) -> None:
        """Take how many rows each who is left has been right about so far, and put the worse half aside."""
        self._asked = self._steps.pop()[1]
        best = sorted(self.left, key=lambda contender: -right[contender])
        self.left = best[: self._steps[-1][0]] if self._steps else best

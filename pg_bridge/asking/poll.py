"""The mean of numbers that rows have, from a few that are drawn by chance, within bounds that hold with a probability.

In: how often each row stands in a query, how narrow the bounds shall be. Out: round after round, rows whose numbers are
to be found out, and at any time an estimate and bounds. Nothing here is asked. Numbers are from 0 to 1.

The bounds hold at all times together, so that it may end as soon as they are narrow: a mean is out of the bounds
once who bets against it has made 1 to 2/alpha, as in `evidence`. A row that stands there m times is drawn as if it
had m lots, and no row twice: with all rows known the bounds are one number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pg_bridge.asking.evidence import Floats, Places, draw

_FIRST = 64  # rows
_MOST_GROWTH, _LEAST_GROWTH = 4.0, 1.1  # of all that are asked, from round to round
_HALVINGS = 40
_CAPITAL = np.log([0.6, 0.2, 0.2])
_BETS = np.array([1.0, 0.5, 2.0])  # times what is best if the bounds are as narrow as they shall be
_MOST_BET = 0.9  # of what there is


@dataclass(frozen=True, slots=True)
class Bounds:
    """A mean.

    Attributes:
        estimate: The likeliest.
        low: At least, with the probability that was asked for.
        high: At most.
    """

    estimate: float
    low: float
    high: float


class Poll:
    """Finds the mean.

    Args:
        counts: (rows,) how often each row stands in the query; at least one row.
        error: Half of how wide the bounds may be.
        alpha: How likely it may be that the mean is outside of them.
        seed: The same draws the same rows again.
    """

    def __init__(self, counts: Floats, error: float, alpha: float, seed: int) -> None:
        self._counts = counts.astype(np.float64)
        self._error = error
        self._alpha = alpha
        self._order = draw(self._counts, len(counts), np.random.default_rng(seed)).rows
        drawn = np.concatenate([[0.0], np.cumsum(self._counts[self._order])])
        self._left = drawn[-1] - drawn[:-1]  # of all rows, before each draw
        self._all = float(drawn[-1])
        self._values = np.array([])
        self._next = min(_FIRST, len(counts))

    @property
    def known(self) -> int:
        """Of how many rows the numbers have been found out."""
        return len(self._values)

    def rows(self) -> Places:
        """Whose numbers are to be found out now; empty once the bounds are narrow."""
        return self._order[self.known : self._next]

    def take(self, values: Floats) -> None:
        """Take the numbers of what was to be found out; NaN where one cannot be, which may be any."""
        self._values = np.concatenate([self._values, values])
        bounds = self.bounds()
        width = (bounds.high - bounds.low) / 2
        if width <= self._error:
            self._next = self.known
            return
        is_far = width >= self._error * _MOST_GROWTH**0.5  # a small error's square would be no float
        growth = _MOST_GROWTH if is_far else max((width / self._error) ** 2, _LEAST_GROWTH)
        self._next = int(min(np.ceil(self.known * growth), len(self._order)))

    def bounds(self) -> Bounds:
        """What is known now."""
        low = self._at_least(np.nan_to_num(self._values, nan=0.0))
        high = max(low, 1 - self._at_least(1 - np.nan_to_num(self._values, nan=1.0)))
        middle = self._guess(np.nan_to_num(self._values, nan=0.5))
        return Bounds(min(max(middle, low), high), low, high)

    def _guess(self, values: Floats) -> float:
        """The mean without bias: what is known, and each draw for those that were left (Raj 1956)."""
        counts = self._counts[self._order[: self.known]]
        before = np.concatenate([[0.0], np.cumsum(counts * values)])
        if self.known == len(self._order):
            return float(before[-1] / self._all)
        return float(np.mean(before[:-1] + values * self._left[: self.known]) / self._all)

    def _at_least(self, values: Floats) -> float:
        """The lowest mean that is not refuted."""
        counts = self._counts[self._order[: self.known]]
        before = np.concatenate([[0.0], np.cumsum(counts * values)])
        certain = float(before[-1] / self._all)
        if self.known == len(self._order):
            return certain
        bets = self._error / _variance_before(values)[:, None] * _BETS
        needed = np.log(2 / self._alpha)

        def is_refuted(mean: float) -> bool:
            expected = ((mean * self._all - before[:-1]) / self._left[: self.known])[:, None]
            if (expected <= 0).any():
                return mean < certain or bool((expected < 0).any())
            steps = np.log1p(np.minimum(bets, _MOST_BET / expected) * (values[:, None] - expected))
            return bool((np.logaddexp.reduce(_CAPITAL + np.cumsum(steps, axis=0), axis=1) >= needed).any())

        low, high = certain, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if is_refuted(middle) else (low, middle)
        return low


def _variance_before(values: Floats) -> Floats:
    """(n,) the variance of all values before each, as if there had been another that told nothing."""
    numbers = np.arange(1, len(values) + 1)
    means = (0.5 + np.cumsum(values)) / (numbers + 1)
    squares = (0.25 + np.cumsum((values - means) ** 2)) / (numbers + 1)
    return np.concatenate([[0.25], squares[:-1]])

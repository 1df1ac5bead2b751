"""Whether a total over many rows is at most zero, told by a few of them, drawn by chance; never wrong too often.

In: rows that were drawn one after the other without being put back, how likely each was to be the next, and what each
adds to the total. Out: whether the total is shown to be no greater than zero. Pure; no model of the rows, no limit of
large numbers: it holds for any rows whatever, and however often one looks.

The proof is a bet. Let T be the total and S what the rows add that have been looked at. Who draws a row that adds z
out of all that are left, with the probability q, expects z/q to be T - S. If T > 0 a bet on -S - z/q is unfair to
who makes it, as long as he decides how much before the row is drawn. So his capital, which begins at 1, reaches
1/alpha with a probability of at most alpha (Ville 1939). What he may lose is bounded by the most that a row adds.
(Waudby-Smith and Ramdas 2020; for draws with unequal probabilities Shekhar et al. 2023.) Several bets at once, with
parts of the capital, are a bet.

Totals may be nested: one for each of several regions of rows, each within the next, so that the totals grow. Regions
are shown one after the other, the smallest first, up to the first that is not. That is wrong only if the first one
is shown that has a total above zero, so no error is added up over regions (Bauer 1991).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SHARES = np.array([0.2, 0.5, 0.9])  # of what may be bet, besides the one that is thought best
_CAPITAL = np.array([0.7, 0.1, 0.1, 0.1])  # the parts of the capital: the best one's first
_ROUNDING = 1e-9  # of sums
_AT_ONCE = 512  # draws, so that what is computed with stays small

Floats = NDArray[np.float64]
Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Draws:
    """Rows that were drawn one after the other, of all that had not been looked at when the first was.

    Attributes:
        rows: (n,) which, in the order in which they were drawn.
        weights: (rows,) how likely each is to be the next, in proportion to the others; 0 for those that are not drawn
            any more.
    """

    rows: Places
    weights: Floats


def draw(weights: Floats, count: int, chance: np.random.Generator) -> Draws:
    """Draw some rows, each out of those that are left, by their weights (Efraimidis and Spirakis 2006).

    Args:
        weights: (rows,) of each; 0 for those that are not to be drawn.
        count: How many are to be drawn; all there are, if they are fewer.
        chance: Draws.
    """
    pool = np.flatnonzero(weights)
    keys = chance.exponential(size=len(pool)) / weights[pool]
    return Draws(pool[np.argsort(keys, kind="stable")[:count]], weights)


class Claim:
    """That what rows add is at most zero, in nested regions.

    Args:
        levels: (rows,) the first region that a row is in, from 0; `regions` for none.
        regions: How many regions there are.
        counts: (rows,) how often each row stands in the population.
        most: The most that a row adds which is in a region; any that is in none adds nothing or less.
        alpha: How likely it may be that a region is shown whose total is above zero.
        offset: Added to each total.

    Attributes:
        shown: How many regions are shown to have a total of at most zero.
    """

    def __init__(
        self, levels: Places, regions: int, counts: Floats, most: float, alpha: float, offset: float = 0.0
    ) -> None:
        self.shown = 0
        self._levels = levels
        self._regions = regions
        self._counts = counts
        self._most = most
        self._needed = -np.log(alpha)
        self._sums = np.full(regions, offset)
        self._capital = np.tile(np.log(_CAPITAL), (regions, 1))  # logarithms, of each part
        self._reached = np.zeros(regions, bool)
        self._left = np.ones(len(levels), bool)

    def capital(self) -> Floats:
        """(regions,) the logarithm of the capital; what is needed is `needed`."""
        return _log_of_sum(self._capital)

    @property
    def needed(self) -> float:
        """The logarithm of the capital that shows a region."""
        return float(self._needed)

    def see(self, rows: Places, inside: Floats, outside: Floats) -> None:
        """Look at rows that were not drawn by chance; nothing is bet on them.

        Args:
            rows: (n,) which.
            inside: (n,) what each adds for each time it stands there, to regions that it is in.
            outside: (n,) and to those that it is not in.
        """
        levels, counts = self._levels[rows], self._counts[rows]
        more = np.bincount(levels, weights=counts * (inside - outside), minlength=self._regions + 1)
        self._sums += float(counts @ outside) + np.cumsum(more)[: self._regions]
        self._left[rows] = False
        self._close()

    def bet(self, draws: Draws, inside: Floats, outside: Floats, share: Floats | float = 0.5) -> None:
        """Look at rows that were drawn by chance, out of all that had not been looked at.

        Args:
            draws: Which.
            inside: As for `see`.
            outside: As for `see`.
            share: (regions,) how much of what may be bet is thought best, by who knows nothing of the draws.
        """
        weights = draws.weights
        # What is left besides, and is not drawn, may add as much as it can.
        besides = self._most * self._mass(self._left & (weights == 0))
        # A row that adds most, for how likely it is: bounds what a draw says, for each region.
        worst = np.zeros(self._regions + 1)
        pool = np.flatnonzero(weights)
        np.maximum.at(worst, self._levels[pool], self._counts[pool] / weights[pool])
        worst = self._most * np.maximum.accumulate(worst)[: self._regions]
        total = weights.sum() - np.concatenate([[0.0], np.cumsum(weights[draws.rows])])
        best = np.broadcast_to(share, (1, self._regions))
        shares = np.vstack([best, np.tile(_SHARES[:, None], self._regions)])
        for begin in range(0, len(draws.rows), _AT_ONCE):
            some = slice(begin, begin + _AT_ONCE)
            rows = draws.rows[some]
            left = np.maximum(total[begin : begin + len(rows)], weights[rows])[:, None]
            adds = self._added(rows, inside[some], outside[some])
            sums = self._sums + np.cumsum(adds, axis=0)
            before = besides + np.vstack([self._sums, sums[:-1]])
            room = before + worst * left  # how far what is expected may be exceeded
            with np.errstate(divide="ignore", invalid="ignore"):
                gain = np.maximum((-before - adds * left / weights[rows][:, None]) / room, -1.0)
                gain = np.where(room > 0, gain, 0.0)
                steps = np.log1p(shares.T[None] * gain[:, :, None])
            course = self._capital + np.cumsum(steps, axis=0)
            self._reached |= (_log_of_sum(course) >= self._needed).any(axis=0)
            self._capital = course[-1]
            self._sums = sums[-1]
        self._left[draws.rows] = False
        self._close()

    def _added(self, rows: Places, inside: Floats, outside: Floats) -> Floats:
        """(n, regions) what each row adds to each total."""
        within = self._levels[rows][:, None] <= np.arange(self._regions)
        return np.where(within, inside[:, None], outside[:, None]) * self._counts[rows][:, None]

    def _mass(self, which: NDArray[np.bool_]) -> Floats:
        """(regions,) how often some rows stand in each."""
        mass = np.bincount(self._levels, weights=self._counts * which, minlength=self._regions + 1)
        return np.asarray(np.cumsum(mass)[: self._regions], np.float64)

    def _close(self) -> None:
        """Find what is shown, also where what is left cannot bring a total above zero any more."""
        self._reached |= self._sums + self._most * self._mass(self._left) <= _ROUNDING
        self.shown = int(np.argmin(self._reached)) if not self._reached.all() else self._regions


def _log_of_sum(parts: Floats) -> Floats:
    """The logarithm of the sum of what logarithms are given of, along the last axis."""
    most = np.maximum(parts.max(axis=-1, keepdims=True), -1e300)
    return np.asarray(most[..., 0] + np.log(np.exp(parts - most).sum(axis=-1)))

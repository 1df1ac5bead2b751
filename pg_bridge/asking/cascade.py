"""Which rows a small model may answer in the place of a large one, so that a stated quality is kept with a probability.

In: how sure the small model is of each row, and what is to be kept. Out: round after round, rows that the large
model is to be asked about, and at the end of which rows the small model's answers stand. Nothing here is asked, and
no row is looked at: rows are numbers.

    a sample, drawn by chance → where the small model is seen to be right → the rest, and a sample of these → …

Rows are put into bins by the small model's score. What is kept is a claim about nested regions of bins
(`evidence`), from the surest on, and is shown by rows drawn by chance. Which rows are drawn, and when it ends, follows
from guesses; what is shown does not.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.evidence import Claim, Draws, Floats, Places, draw

FEWEST = 100
"""Rows of which nothing is worth a sample: the large model is asked about all of them."""

_BINS = 100
_FIRST_SHARE, _FIRST_MOST = 20, 1000  # of the rows, and rows
_MARGIN = 1.25  # more is drawn than is thought to do
_MOST_ROUNDS = 12
_FLOOR = 0.5  # of the chance that a row has in a sample that takes no notice of scores
_SURE_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where the small model's answers stand.

    Attributes:
        no: Up to this score the answer is no; None where it is nowhere.
        yes: From this score on it is yes; None where it is nowhere.
    """

    no: float | None
    yes: float | None


@dataclass(slots=True)
class _Side:
    """One claim: that of a region's rows few enough are wrong.

    Attributes:
        claim: The claim.
        levels: (bins,) the region in which a bin comes.
        values: From answers to what each adds, inside a region and outside.
        wrong: From answers to whether the small model's would be wrong.
        allowed: From how many rows are yes to how many may be wrong.
    """

    claim: Claim
    levels: Places
    values: Callable[[Floats], tuple[Floats, Floats]]
    wrong: Callable[[Floats], Floats]
    allowed: Callable[[float], float]


Rounds = Generator[Places, Floats, None]


class Cascade:
    """Finds the rows that the small model may answer.

    Args:
        scores: (rows,) how sure the small model is: of yes, or of its label; NaN where nobody knows.
        counts: (rows,) how often each row stands in the query.
        sides: Makes the claims, of the bins of rows, how many there are, and counts.
        seed: The same draws the same rows again.

    Attributes:
        drawn: How many rows were drawn by chance.
    """

    def __init__(
        self,
        scores: Floats,
        counts: Floats,
        sides: Callable[[Places, int, Floats], tuple[_Side | None, _Side | None]],
        seed: int,
    ) -> None:
        self._scores = scores
        self._counts = counts.astype(np.float64)
        self._answers = np.full(len(scores), np.nan)
        self._asked = np.zeros(len(scores), bool)
        self._bins, self._edges = _bins(scores, self._counts)
        count = len(self._edges)
        self._low, self._high = sides(self._bins, count, self._counts)
        self._chance = np.random.default_rng(seed)
        self.drawn = 0
        self._rows = np.array([], np.intp)
        self._rounds = self._play()
        self._go_on(None)

    def rows(self) -> Places:
        """Which to ask the large model about now, all of them together; empty at the end."""
        return self._rows

    def take(self, answers: Floats) -> None:
        """Take the answers about what was to be asked: 1 for yes, or the small model's label; 0; NaN for none."""
        self._go_on(answers)

    def stands(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(rows,) each: where the small model's no stands, and where its yes does, or its label."""
        low, high = self._shown()
        is_surest = (self._bins >= high) & (self._bins < len(self._edges))
        return (self._bins < low) & ~self._asked, is_surest & ~self._asked

    def thresholds(self) -> Thresholds:
        """The scores that part them."""
        low, high = self._shown()
        count = len(self._edges)
        starts = self._scores[self._bins == high]
        return Thresholds(float(self._edges[low - 1]) if low else None, float(starts.min()) if high < count else None)

    def _shown(self) -> tuple[int, int]:
        """Up to which bin the answer is no, and from which on yes."""
        count = len(self._edges)
        low = self._low.claim.shown if self._low else 0
        high = count - (self._high.claim.shown if self._high else 0)
        if low > high:  # both would be right enough
            low = high = min(low, max(high, int(np.searchsorted(self._edges, 0.5))))
        return low, high

    def _go_on(self, answers: Floats | None) -> None:
        try:
            if answers is None:
                self._rows = next(self._rounds)
            else:
                self._asked[self._rows] = True
                self._answers[self._rows] = answers
                self._rows = self._rounds.send(answers)
        except StopIteration:
            self._rows = np.array([], np.intp)

    def _play(self) -> Rounds:
        count = len(self._edges)
        known = self._bins < count
        if known.sum() >= FEWEST:
            size = int(min(max(FEWEST, known.sum() // _FIRST_SHARE), _FIRST_MOST))
            yield from self._draw(draw(np.where(known, self._pilot_weights(), 0.0), size, self._chance), 0.5, 0.5)
            for _ in range(_MOST_ROUNDS):
                low, high, draws_low, draws_high, share_low, share_high = self._plan()
                middle = np.flatnonzero(~self._asked & ~((self._bins < low) | ((self._bins >= high) & known)))
                if not draws_low + draws_high:
                    break
                left = self._counts * ~self._asked
                weights = np.zeros(len(left))
                for rows, draws in ((self._bins < low, draws_low), ((self._bins >= high) & known, draws_high)):
                    mass = left[rows].sum()
                    if mass and draws:
                        weights[rows] = left[rows] * draws / mass
                drawn = draw(weights, draws_low + draws_high, self._chance)
                yield from self._see_and_draw(middle, drawn, share_low, share_high)
        no, yes = self.stands()
        rest = np.flatnonzero(~self._asked & ~no & ~yes)
        if len(rest):
            yield rest

    def _see_and_draw(self, seen: Places, draws: Draws, low: Floats | float, high: Floats | float) -> Rounds:
        answers = yield np.concatenate([seen, draws.rows])
        self.drawn += len(draws.rows)
        for side, share in ((self._low, low), (self._high, high)):
            if side is not None:
                if len(seen):
                    side.claim.see(seen, *side.values(answers[: len(seen)]))
                side.claim.bet(draws, *side.values(answers[len(seen) :]), share)

    def _draw(self, draws: Draws, low: Floats | float, high: Floats | float) -> Rounds:
        yield from self._see_and_draw(np.array([], np.intp), draws, low, high)

    def _pilot_weights(self) -> Floats:
        """Rows that are likelier to be yes, or in doubt, are drawn more often (Kang et al. 2020); others not seldom."""
        scores = np.nan_to_num(self._scores)
        likely = np.sqrt(scores if self._low is not None else 1.0 - scores)
        mean = np.average(likely, weights=self._counts) or 1.0
        return self._counts * (_FLOOR + (1 - _FLOOR) * likely / mean)

    def _plan(self) -> tuple[int, int, int, int, Floats, Floats]:
        """What seems to take the fewest questions: up to and from which bin, and how many rows to draw there."""
        count = len(self._edges)
        known = np.isfinite(self._answers)
        yes = self._rates(self._answers, known)
        is_bin = self._bins < count
        exact = np.bincount(self._bins[known], weights=(self._counts * self._answers)[known], minlength=count + 1)
        left = np.bincount(self._bins, weights=self._counts * ~self._asked, minlength=count + 1)[:count].astype(
            np.float64
        )
        rows = np.bincount(self._bins[~self._asked & is_bin], minlength=count + 1)[:count].astype(np.float64)
        positives = float(exact.sum() + (left * yes).sum())
        low_worth, low_draws, low_share = self._worth(self._low, left, rows, positives, known)
        high_worth, high_draws, high_share = self._worth(self._high, left, rows, positives, known)
        # The best low region up to each bin, and the best high one from it on.
        best_low = np.minimum.accumulate(np.concatenate([[0.0], low_worth]))
        best_high = np.minimum.accumulate(np.concatenate([[0.0], high_worth]))[::-1]
        split = int(np.argmin(best_low + best_high))
        low = int(np.argmin(np.concatenate([[0.0], low_worth])[: split + 1]))
        high = int(np.argmin(np.concatenate([[0.0], high_worth])[: count - split + 1]))
        draws_low = int(np.ceil(_MARGIN * low_draws[low - 1])) if low else 0
        draws_high = int(np.ceil(_MARGIN * high_draws[high - 1])) if high else 0
        return low, count - high, draws_low, draws_high, low_share, high_share

    def _worth(
        self, side: _Side | None, left: Floats, rows: Floats, positives: float, known: NDArray[np.bool_]
    ) -> tuple[Floats, Floats, Floats]:
        """(bins,) each, by regions: questions that a region costs less those it saves, rows to draw, what to bet."""
        count = len(self._edges)
        if side is None:
            return np.full(count, np.inf), np.zeros(count), np.full(count, 0.5)
        order = np.argsort(side.levels)
        wrong = np.where(known, side.wrong(self._answers), 0.0) * self._counts
        bins = self._bins[known]
        exact = np.bincount(bins, weights=wrong[known], minlength=count + 1)[:count].astype(np.float64)
        rates = self._rates(side.wrong(self._answers), known, rising=side is self._low)
        seen = np.cumsum(np.bincount(bins, minlength=count + 1)[:count][order])
        mass = np.cumsum(left[order])
        size = np.cumsum(rows[order])
        # Half a row more, for what has not been seen.
        wrongs = np.cumsum((left * rates)[order]) + 0.5 * mass / np.maximum(seen, 1)
        allowed = side.allowed(positives) - np.cumsum(exact[order])
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.clip(np.nan_to_num(wrongs / mass, nan=0.0), 0.0, 1.0)
            most = np.clip(np.nan_to_num(allowed / mass, nan=1.0), 1e-9, 0.999)
            lacks = np.maximum(side.claim.needed - side.claim.capital() + 0.4, 0.0)
            draws = np.where(rate < most, lacks / _divergence(rate, most), np.inf)
        is_shown = np.arange(count) < side.claim.shown
        draws = np.where(is_shown, 0.0, np.maximum(draws, 1.0))
        worth = np.where(_MARGIN * draws < size, _MARGIN * draws - size, np.inf)
        worth = np.where(is_shown, -size, worth)
        return worth, draws, np.clip(1 - rate / most, 0.05, _SURE_SHARE)

    def _rates(self, values: Floats, known: NDArray[np.bool_], *, rising: bool = True) -> Floats:
        """(bins,) the mean of values of each bin, as it seems: it rises with scores, or falls."""
        count = len(self._edges)
        bins = self._bins[known]
        of = bins < count
        weights = np.bincount(bins[of], weights=self._counts[known][of], minlength=count).astype(np.float64)
        sums = np.bincount(bins[of], weights=(self._counts * values)[known][of], minlength=count).astype(np.float64)
        return _monotone(sums, weights) if rising else _monotone(sums[::-1], weights[::-1])[::-1]


def _divergence(rate: Floats, most: Floats) -> Floats:
    """How much a row tells on average that the rate is not `most` but less: Kullback and Leibler's, in nats."""
    safe = np.clip(rate, 1e-12, 1 - 1e-12)
    return np.asarray(safe * np.log(safe / most) + (1 - safe) * np.log((1 - safe) / (1 - most)))


def _monotone(sums: Floats, weights: Floats) -> Floats:
    """Means that never fall, as near as can be to those of bins: pool adjacent violators; empty ones join others."""
    blocks: list[tuple[float, float, int]] = []
    for total, weight in zip(sums.tolist(), weights.tolist(), strict=True):
        block = (total, weight, 1)
        while blocks and (block[1] == 0 or blocks[-1][1] == 0 or blocks[-1][0] / blocks[-1][1] >= block[0] / block[1]):
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    return np.concatenate([np.full(length, total / weight if weight else 0.5) for total, weight, length in blocks])


def _bins(scores: Floats, counts: Floats) -> tuple[Places, Floats]:
    """(rows,) which bin a row is in, rows of one score in the same; and (bins,) the greatest score of each.

    Rows without a score are in none, which is as many as there are bins.
    """
    known = np.isfinite(scores)
    values, inverse = np.unique(scores[known], return_inverse=True)
    mass = np.cumsum(np.bincount(inverse, weights=counts[known], minlength=len(values)))
    number = np.ceil(mass / mass[-1] * _BINS - 1e-9).astype(np.intp) if len(values) else np.array([], np.intp)
    ends = np.flatnonzero(np.diff(number, append=_BINS + 1))
    bins = np.full(len(scores), len(ends), np.intp)
    bins[known] = np.searchsorted(ends, inverse)
    return bins, values[ends]


def keep_recall_and_precision(
    recall: float, precision: float, probability: float
) -> Callable[[Places, int, Floats], tuple[_Side | None, _Side | None]]:
    """The claims of a cascade of yes and no.

    A no that stands is wrong if the large model says yes: recall is kept where those are no more than (1 - recall)
    of all yes. A yes that stands is wrong if it says no. Of the yes of the large model at least the share `recall`
    is in the answer then, so precision is kept where the wrong ones are no more than (1 - precision) / precision of
    these.
    """

    def make(bins: Places, count: int, counts: Floats) -> tuple[_Side | None, _Side | None]:
        alpha = (1 - probability) / ((recall < 1) + (precision < 1) or 1)
        low_levels, high_levels = np.arange(count), np.arange(count)[::-1]
        miss, false = 1 - recall, (1 - precision) * recall
        low = high = None
        if recall < 1 and count:
            claim = Claim(np.append(low_levels, count)[bins], count, counts, recall, alpha)
            low = _Side(
                claim,
                low_levels,
                lambda y: (_by(y, recall, 0.0, recall), _by(y, -miss, 0.0, 0.0)),
                lambda y: y,
                lambda positives: miss * positives,
            )
        if precision < 1 and count:
            claim = Claim(np.append(high_levels, count)[bins], count, counts, precision, alpha)
            high = _Side(
                claim,
                high_levels,
                lambda y: (_by(y, -false, precision, precision), _by(y, -false, 0.0, 0.0)),
                lambda y: 1 - y,
                lambda positives: false * positives / precision,
            )
        return low, high

    return make


def keep_accuracy(
    accuracy: float, probability: float
) -> Callable[[Places, int, Floats], tuple[_Side | None, _Side | None]]:
    """The claim of a cascade of labels: no more than (1 - accuracy) of all rows have another than the large model's."""

    def make(bins: Places, count: int, counts: Floats) -> tuple[_Side | None, _Side | None]:
        if accuracy >= 1 or not count:
            return None, None
        levels = np.arange(count)[::-1]
        allowed = (1 - accuracy) * float(counts.sum())
        claim = Claim(np.append(levels, count)[bins], count, counts, 1.0, 1 - probability, -allowed)
        zero = np.zeros_like
        return None, _Side(
            claim, levels, lambda y: (_by(y, 0.0, 1.0, 1.0), zero(y)), lambda y: 1 - y, lambda positives: allowed
        )

    return make


def _by(answers: Floats, yes: float, no: float, unknown: float) -> Floats:
    return np.where(np.isnan(answers), unknown, np.where(answers == 1, yes, no))

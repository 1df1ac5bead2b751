"""What is shown by a sample holds for any rows: by counting all draws where rows are few, by simulation where many."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pg_bridge.asking.cascade import Cascade, keep_accuracy, keep_recall_and_precision
from pg_bridge.asking.evidence import Claim, Draws, Floats, draw
from pg_bridge.asking.poll import Poll

SIZES = st.integers(1, 300)
SEED = st.integers(0, 1 << 30)
PART = st.sampled_from([0.3, 0.7, 0.9, 1.0])


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 4), st.integers(1, 9), st.integers(0, 2)), min_size=2, max_size=6),
    st.sampled_from([0.3, 0.5, 0.8]),
    st.sampled_from([0.05, 0.2, 0.5]),
    st.integers(0, 6),
)
@example([(True, 1, 1, 0)] * 3 + [(True, 1, 5, 1)] * 3, 0.5, 0.5, 6)
def test_a_region_that_is_wrong_is_seldom_shown(
    rows: list[tuple[bool, int, int, int]], recall: float, alpha: float, drawn: int
) -> None:
    """Of all orders in which rows may be drawn, each as likely as it is."""
    yes, counts, weights = (np.array([row[at] for row in rows], np.float64) for at in range(3))
    weights = weights * counts
    levels = np.array([row[3] for row in rows], np.intp)
    inside, outside = yes * recall, yes * (recall - 1)
    wrong = [region for region in range(2) if (counts * np.where(levels <= region, inside, outside)).sum() > 1e-6]
    drawn = min(drawn, len(rows))
    likely = 0.0
    for order in permutations(range(len(rows)), drawn):
        places = np.array(order, np.intp)
        left = weights.sum() - np.concatenate([[0.0], np.cumsum(weights[places])[:-1]]) if drawn else np.zeros(0)
        claim = Claim(levels, 2, counts, recall, alpha)
        claim.bet(Draws(places, weights), inside[places], outside[places])
        if wrong and claim.shown > wrong[0]:
            likely += float(np.prod(weights[places] / left))
    assert likely <= alpha + 1e-9


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=30), SEED)
def test_all_rows_tell_all(rows: list[tuple[bool, int]], seed: int) -> None:
    yes = np.array([row[0] for row in rows], np.float64)
    levels = np.array([row[1] for row in rows], np.intp)
    claim = Claim(levels, 2, np.ones(len(rows)), 0.75, 1e-9)
    drawn = draw(np.ones(len(rows)), len(rows) // 2, np.random.default_rng(seed))
    claim.bet(drawn, yes[drawn.rows] * 0.75, yes[drawn.rows] * -0.25)
    rest = np.setdiff1d(np.arange(len(rows)), drawn.rows)
    claim.see(rest, yes[rest] * 0.75, yes[rest] * -0.25)
    totals = [float(np.where(levels <= region, 0.75, -0.25) @ yes) for region in range(2)]
    shown = next((region for region in range(2) if totals[region] > 1e-6), 2)
    assert claim.shown == shown


def play(cascade: Cascade, answers: Floats) -> tuple[Floats, int]:
    """Where the small model's answers stand, 0 for no and 1 for yes, and how many rows were asked about."""
    asked = np.zeros(len(answers), bool)
    while len(rows := cascade.rows()):
        assert len(np.unique(rows)) == len(rows)
        assert not asked[rows].any()
        asked[rows] = True
        cascade.take(answers[rows])
    no, yes = cascade.stands()
    assert not (no & yes).any()
    assert (no | yes | asked).all()
    assert not ((no | yes) & asked).any()
    return np.where(no, 0.0, np.where(yes, 1.0, np.nan)), int(asked.sum())


@given(SIZES, SEED, st.integers(1, 40), PART, PART, st.floats(0, 0.2), st.floats(0, 0.2))
def test_whatever_is_answered_every_row_is_asked_about_or_decided(
    size: int, seed: int, different: int, recall: float, precision: float, failing: float, silent: float
) -> None:
    chance = np.random.default_rng(seed)
    scores = chance.integers(0, different, size) / different
    scores[chance.random(size) < silent] = np.nan
    answers = (chance.random(size) < chance.random()).astype(np.float64)
    answers[chance.random(size) < failing] = np.nan
    counts = chance.integers(1, 9, size).astype(np.float64)
    for keep in (keep_recall_and_precision(recall, precision, 0.9), keep_accuracy(precision, 0.9)):
        stands, asked = play(Cascade(scores, counts, keep, seed), answers)
        assert np.isnan(stands[np.isnan(scores)]).all()
        if recall == precision == 1:
            assert asked == size


Make = Callable[[np.random.Generator, int], tuple[Floats, Floats, Floats]]


def normal(share: float, apart: float) -> Make:
    """Scores of two normal distributions, so far apart; of a model that knows nothing, or the contrary, too."""

    def make(chance: np.random.Generator, size: int) -> tuple[Floats, Floats, Floats]:
        yes = (chance.random(size) < share).astype(np.float64)
        return yes, 1 / (1 + np.exp(-chance.normal(size=size) - apart * (yes - 0.5))), np.ones(size)

    return make


def cliffs(chance: np.random.Generator, size: int) -> tuple[Floats, Floats, Floats]:
    """The surest of both sides are wrong a little more often than may be."""
    scores = chance.random(size)
    likely = np.where(scores < 0.35, 0.3, np.where(scores > 0.65, 0.7, 0.5))
    return (chance.random(size) < likely).astype(np.float64), scores, np.ones(size)


def equal(chance: np.random.Generator, size: int) -> tuple[Floats, Floats, Floats]:
    """The same confidence of all."""
    return (chance.random(size) < 0.78).astype(np.float64), np.full(size, 0.7), np.ones(size)


def often(chance: np.random.Generator, size: int) -> tuple[Floats, Floats, Floats]:
    """Few different rows are most of all."""
    yes, scores, _ = normal(0.4, 3)(chance, size)
    return yes, scores, chance.zipf(2.0, size).clip(1, 60).astype(np.float64)


@pytest.mark.parametrize(
    ("make", "size", "runs"),
    [
        (cliffs, 300, 40),
        (normal(0.5, 2), 300, 40),
        *(
            pytest.param(make, size, 1000, marks=pytest.mark.slow)
            for make, size in (
                (cliffs, 300), (cliffs, 1500), (equal, 300), (often, 300), (normal(0.5, 2), 300),
                (normal(0.3, -1), 300), (normal(0.5, 0), 300), (normal(0.02, 2), 300),
            )
        ),
    ],
)  # fmt: skip
def test_targets_are_missed_as_seldom_as_stated(make: Make, size: int, runs: int) -> None:
    """At a probability that leaves room to miss: 0.7. Of runs that all have other rows and other draws."""
    missed = 0
    for seed in range(runs):
        yes, scores, counts = make(np.random.default_rng([seed, 1]), size)
        stands, _ = play(Cascade(scores, counts, keep_recall_and_precision(0.8, 0.8, 0.7), seed), yes)
        output = np.where(np.isnan(stands), yes, stands)
        right = (counts * yes * output).sum()
        missed += bool(right < 0.8 * (counts * yes).sum() - 1e-6 or right < 0.8 * (counts * output).sum() - 1e-6)
    assert missed <= 0.3 * runs


def test_accuracy_of_labels_is_missed_as_seldom_as_stated() -> None:
    missed = saved = 0
    for seed in range(40):
        chance = np.random.default_rng([seed, 2])
        scores = chance.random(300)
        same = (chance.random(300) < 0.75 + 0.25 * scores).astype(np.float64)
        stands, asked = play(Cascade(scores, np.ones(300), keep_accuracy(0.85, 0.7), seed), same)
        missed += bool((same[~np.isnan(stands)] == 0).sum() > 0.15 * 300 + 1e-6)
        saved += 300 - asked
    assert missed <= 12
    assert saved


@given(SIZES, SEED, st.floats(0.001, 0.4), st.floats(0.01, 0.9), st.floats(0, 0.3))
def test_bounds_are_as_narrow_as_they_shall_be(
    size: int, seed: int, error: float, alpha: float, failing: float
) -> None:
    chance = np.random.default_rng(seed)
    values, counts = chance.random(size) ** chance.integers(0, 5), chance.integers(1, 9, size).astype(np.float64)
    failed = chance.random(size) < failing
    poll = Poll(counts, error, alpha, seed)
    told = np.where(failed, np.nan, values)
    while len(rows := poll.rows()):
        poll.take(told[rows])
    bounds = poll.bounds()
    assert 0 <= bounds.low <= bounds.estimate <= bounds.high <= 1
    if poll.known < size:
        assert (bounds.high - bounds.low) / 2 <= error
    else:  # nothing is left to chance
        lost = (counts * failed).sum() / counts.sum()
        known = (counts * np.where(failed, 0, values)).sum() / counts.sum()
        assert bounds.low == pytest.approx(known, abs=1e-9)
        assert bounds.high == pytest.approx(known + lost, abs=1e-9)


@pytest.mark.parametrize("share", [0.5, pytest.param(0.1, marks=pytest.mark.slow)])
def test_bounds_are_missed_as_seldom_as_stated(share: float) -> None:
    missed = 0
    for seed in range(60):
        chance = np.random.default_rng([seed, 3])
        values, counts = (chance.random(300) < share).astype(np.float64), chance.integers(1, 9, 300).astype(np.float64)
        poll = Poll(counts, 0.1, 0.3, seed)
        while len(rows := poll.rows()):
            poll.take(values[rows])
        bounds, truth = poll.bounds(), float(np.average(values, weights=counts))
        missed += not bounds.low - 1e-9 <= truth <= bounds.high + 1e-9
    assert missed <= 0.3 * 60

"""The best few of many rows: exactly they where answers are right, always in as many questions as were told."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st

from pg_bridge.asking.contest import Contest, List, Order, Standing, questions_of

Comparator = Callable[[List], Order]

ROWS = st.integers(1, 120)
WANTED = st.integers(1, 30) | st.just(1000)
SIZE = st.integers(2, 24)
SEED = st.integers(0, 1 << 30)


def play(rows: int, wanted: int, size: int, order: Comparator) -> list[Standing]:
    """The standings; every question shows several rows once, and there are as many as were told."""
    contest = Contest(rows, wanted, size)
    questions = rounds = 0
    while lists := contest.lists():
        assert all(2 <= len(shown) == len(set(shown)) <= size for shown in lists)
        questions, rounds = questions + len(lists), rounds + 1
        contest.take([order(shown) for shown in lists])
    effort = questions_of(rows, wanted, size)
    assert (questions, rounds) == (effort.questions, effort.rounds)
    assert contest.standings is not None
    assert len(contest.standings) >= min(wanted, rows)
    return contest.standings


@given(ROWS, WANTED, SIZE, SEED)
@example(2, 3, 4, 0)
def test_right_answers_give_exactly_the_best(rows: int, wanted: int, size: int, seed: int) -> None:
    better = list(range(rows))
    random.Random(seed).shuffle(better)
    standings = play(rows, wanted, size, lambda shown: sorted(shown, key=better.__getitem__))
    best = sorted(range(rows), key=better.__getitem__)[:wanted]
    assert [each.row for each in standings][:wanted] == best
    assert [each.rank for each in standings] == list(range(1, len(standings) + 1))
    assert all(each.ties == 0 and each.agreement in (1, None) for each in standings)


@given(ROWS, WANTED, SIZE, st.randoms(use_true_random=False))
def test_whatever_is_answered_it_ends(rows: int, wanted: int, size: int, chance: random.Random) -> None:
    def anything(shown: List) -> Order:
        named = chance.sample(shown, chance.randint(1, len(shown)))
        return None if chance.random() < 0.1 else named

    standings = play(rows, wanted, size, anything)
    ranks = [each.rank for each in standings]
    assert ranks == sorted(ranks)
    assert all(each.rank == ranks.index(each.rank) + 1 for each in standings)
    assert all(each.ties == ranks.count(each.rank) - 1 for each in standings)
    assert all(each.agreement is None or 0 <= each.agreement <= 1 for each in standings)


@given(st.integers(1, 8), SIZE)
def test_what_beats_one_another_in_a_circle_shares_a_rank(half: int, size: int) -> None:
    rows = 2 * half + 1

    def order(shown: List) -> Order:
        return sorted(shown, key=lambda row: sum((other - row) % rows > half for other in shown))

    standings = play(rows, rows, 2, order)
    assert {(each.rank, each.ties, each.agreement) for each in standings} == {(1, rows - 1, None)}


@given(st.integers(2, 60), st.integers(1, 60), SIZE)
def test_no_answers_tell_no_row_from_another(rows: int, wanted: int, size: int) -> None:
    standings = play(rows, wanted, size, lambda shown: None)
    assert {(each.rank, each.agreement) for each in standings} == {(1, None)}


def test_answers_that_go_by_the_place_alone_tell_nothing() -> None:
    standings = play(8, 8, 10, lambda shown: shown)
    assert {(each.rank, each.ties) for each in standings} == {(1, 7)}


def test_many_rows_take_little_memory() -> None:
    """What is held of comparisons grows with the square of the rows that are left, not of all."""
    tracemalloc.start()
    try:
        standings = play(20_000, 3, 20, sorted)
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()
    assert [each.row for each in standings][:3] == [0, 1, 2]


def test_noise_costs_little() -> None:
    """Of 1,000 rows the ten best, where of each list's pairs one in twenty is told the wrong way round."""
    chance = random.Random(62)
    better = list(range(1000))
    chance.shuffle(better)

    def order(shown: List) -> Order:
        wins = dict.fromkeys(shown, 0)
        for place, one in enumerate(shown):
            for other in shown[place + 1 :]:
                wins[one if (better[one] < better[other]) == (chance.random() > 0.05) else other] += 1
        return sorted(shown, key=lambda row: -wins[row])

    found = [
        sum(better[each.row] < 10 for each in play(1000, 10, size, order)[:10]) for size in (10, 20) for _ in range(5)
    ]
    assert sum(found) >= 0.88 * 100

"""Rows that mean the same: exactly they where answers are right, whatever is asked; and an end where they are wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations

from hypothesis import example, given
from hypothesis import strategies as st

from pg_bridge.asking.resolution import Pair, Resolution

Judge = Callable[[Pair], bool | None]

ENTITIES = st.lists(st.integers(0, 12), min_size=1, max_size=40)
CHANCE = st.randoms(use_true_random=False)


def play(rows: int, candidates: list[Pair], judge: Judge) -> tuple[Resolution, list[Pair], int]:
    """What was asked, and in how many rounds; no pair twice, and none of one row."""
    resolution = Resolution(rows, candidates)
    asked: list[Pair] = []
    rounds = 0
    while pairs := resolution.pairs():
        asked += pairs
        rounds += 1
        resolution.take([judge(pair) for pair in pairs])
    assert len(set(asked)) == len(asked)
    assert all(0 <= one < other < rows for one, other in asked)
    assert resolution.inferred == len(set(candidates) - set(asked))
    return resolution, asked, rounds


def leaders(entities: list[int]) -> list[int]:
    return [entities.index(entity) for entity in entities]


@given(ENTITIES, CHANCE)
def test_right_answers_about_all_pairs_give_exactly_the_groups(entities: list[int], chance: random.Random) -> None:
    candidates = list(combinations(range(len(entities)), 2))
    chance.shuffle(candidates)
    resolution, asked, _ = play(len(entities), candidates, lambda pair: entities[pair[0]] == entities[pair[1]])
    assert resolution.groups() == leaders(entities)
    assert set(resolution.agreements()) <= {1, None}
    assert set(asked) <= set(candidates)


@given(ENTITIES, CHANCE)
def test_the_nearest_first_most_is_inferred(entities: list[int], chance: random.Random) -> None:
    def is_same(pair: Pair) -> bool:
        return entities[pair[0]] == entities[pair[1]]

    candidates = list(combinations(range(len(entities)), 2))
    chance.shuffle(candidates)
    candidates.sort(key=is_same, reverse=True)
    _, asked, _ = play(len(entities), candidates, is_same)
    # Two rows become one by one answer, a row and a group by two, two groups by three.
    assert sum(map(is_same, asked)) <= 3 * (len(entities) - len(set(entities)))


def test_of_two_groups_that_are_told_apart_hardly_more_is_asked() -> None:
    entities = [row % 6 for row in range(60)]
    candidates = sorted(combinations(range(60), 2), key=lambda pair: entities[pair[0]] != entities[pair[1]])
    resolution, asked, _ = play(60, candidates, lambda pair: entities[pair[0]] == entities[pair[1]])
    assert resolution.groups() == leaders(entities)
    assert len(asked) <= 250  # of 1,770


@given(ENTITIES, st.data())
def test_a_chain_of_pairs_is_enough(entities: list[int], data: st.DataObject) -> None:
    of: dict[int, list[int]] = {}
    for row, entity in enumerate(entities):
        of.setdefault(entity, []).append(row)
    chains = [(rows[at], rows[at + 1]) for rows in of.values() for at in range(len(rows) - 1)]
    pairs = st.tuples(st.integers(0, len(entities) - 1), st.integers(0, len(entities) - 1))
    others = [pair for pair in data.draw(st.lists(pairs)) if pair[0] < pair[1]]
    candidates = data.draw(st.permutations(sorted({*chains, *others})))
    resolution, *_ = play(len(entities), list(candidates), lambda pair: entities[pair[0]] == entities[pair[1]])
    assert resolution.groups() == leaders(entities)


@given(st.integers(1, 30), st.floats(0, 1), CHANCE)
@example(3, 0.5, random.Random(0))
def test_whatever_is_answered_it_ends(rows: int, share: float, chance: random.Random) -> None:
    candidates = [pair for pair in combinations(range(rows), 2) if chance.random() < share]
    chance.shuffle(candidates)
    answers: dict[Pair, bool | None] = {}

    def judge(pair: Pair) -> bool | None:
        return answers.setdefault(pair, chance.choice((True, False, None)))

    resolution, *_ = play(rows, candidates, judge)
    groups, agreements = resolution.groups(), resolution.agreements()
    assert all(groups[group] == group <= row for row, group in enumerate(groups))
    for row, agreement in enumerate(agreements):
        told = {pair: answer for pair, answer in answers.items() if row in pair and answer is not None}
        agree = sum((groups[one] == groups[other]) == answer for (one, other), answer in told.items())
        assert agreement == (agree / len(told) if told else None)
    again, *_ = play(rows, candidates, lambda pair: answers[pair])
    assert again.groups() == groups


@given(st.integers(2, 6), st.integers(2, 6), st.data())
def test_one_wrong_yes_makes_no_group_of_two(one: int, other: int, data: st.DataObject) -> None:
    rows = one + other
    wrong = (data.draw(st.integers(0, one - 1)), data.draw(st.integers(one, rows - 1)))
    inside = [pair for pair in combinations(range(rows), 2) if (pair[0] < one) == (pair[1] < one)]
    candidates = [*data.draw(st.permutations(inside)), wrong]
    resolution, *_ = play(rows, candidates, lambda pair: pair == wrong or (pair[0] < one) == (pair[1] < one))
    assert resolution.groups() == [0] * one + [one] * other
    assert resolution.agreements()[wrong[0]] != 1


def test_no_answers_leave_all_rows_alone() -> None:
    resolution, asked, rounds = play(20, list(combinations(range(20), 2)), lambda pair: None)
    assert resolution.groups() == list(range(20))
    assert resolution.agreements() == [None] * 20
    assert len(asked) == 190
    assert rounds <= 12


def test_a_large_group_does_not_take_a_round_for_each_row() -> None:
    rows = 2000
    candidates = [(row, row + 1) for row in range(rows - 1)]
    resolution, asked, rounds = play(rows, candidates, lambda pair: True)
    assert resolution.groups() == [0] * rows
    assert len(asked) <= 3 * rows
    assert rounds <= 40

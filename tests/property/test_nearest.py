"""Only the nearest pairs are asked about; how many true ones that loses is bounded by what a sample tells."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.asking import nearness
from pg_bridge.asking.joining import Joining
from pg_bridge.asking.joint import LIST_ROWS
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.nearest import keep_nearest
from pg_bridge.asking.nearness import Vectors, to_units
from pg_bridge.asking.pair_plans import Terms
from pg_bridge.asking.pairs import Matter, find_pairs
from pg_bridge.asking.pruned import Pruned, Told, most_of
from pg_bridge.asking.vectors import text_of
from pg_bridge.options import Call
from pg_bridge.testing.behaviour import default_embedding
from tests.property.test_pairs import PROMPT, TEXT, WAYS, pair, run, say_yes

POINT = st.tuples(st.integers(-9, 9), st.integers(-9, 9))
LOOSE = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=60)


def call_of(**options: object) -> Call:
    return Call.from_arguments({"kind": "boolean", "nearest": 3} | options)


def embed(texts: Sequence[str]) -> Vectors:
    return to_units(np.array([default_embedding(text) for text in texts], np.float32))


def matter_of(pairs: Sequence[tuple[str, str]]) -> Matter:
    rows: list[str | None] = [pair({"review": a}, {"name": b}) for a, b in pairs]
    matters, _ = find_pairs([PROMPT] * len(rows), rows)
    (matter,) = matters
    return matter


def texts_of(matter: Matter) -> set[tuple[str, str]]:
    left, right = (list(side) for side in matter.sides)
    return {(text_of(left[a]), text_of(right[b])) for a, b in matter.places}


@given(LOOSE.filter(bool), st.integers(1, 4), st.integers(0, 9), st.data())
def test_each_row_keeps_the_nearest_of_those_it_is_asked_with(
    loose: list[tuple[int, int]], nearest: int, checked: int, data: st.DataObject
) -> None:
    """As somebody would find them who compares one with one; none is lost, and none is there twice."""
    points = {f"long review {i}": data.draw(POINT) for i in range(6)} | {f"n{i}": data.draw(POINT) for i in range(10)}
    pairs = [(f"long review {a}", f"n{b}") for a, b in loose]
    matter = matter_of(pairs)
    before = {pair: list(places) for pair, places in matter.places.items()}
    far = keep_nearest(
        matter,
        call_of(nearest=nearest, checked=checked),
        lambda texts: to_units(np.array([points[text] for text in texts], np.float32)),
    )
    gone = [] if far is None else [*far.places, *(place for places in far.sample for place in places)]
    kept = [place for places in matter.places.values() for place in places]
    assert sorted(kept + gone) == list(range(len(pairs)))
    assert matter.places.items() <= before.items()
    assert (far is None) == (len(matter.places) == len(before))
    if far is not None:
        assert far.told.pairs == len(before) - len(matter.places)
        assert far.told.sampled == len(far.sample) == min(checked, far.told.pairs)

    def cosine(one: str, other: str) -> float:
        a, b = (np.array(points[text], float) for text in (one, other))
        length = np.linalg.norm(a) * np.linalg.norm(b)
        return float(a @ b / length) if length else 2.0  # a point without a direction is far from nothing

    own: dict[str, list[tuple[float, bool]]] = {}
    for one, other in set(pairs):
        own.setdefault(one, []).append((cosine(one, other), (one, other) in texts_of(matter)))
    for of_row in own.values():
        comparable = [(value, is_kept) for value, is_kept in of_row if value < 2]
        assert all(is_kept for value, is_kept in of_row if value == 2)
        assert (
            len([1 for _, is_kept in comparable if is_kept]) == min(nearest, len(comparable)) or len(of_row) <= nearest
        )
        worst = min((value for value, is_kept in comparable if is_kept), default=-2.0)
        assert all(value <= worst + 1e-6 for value, is_kept in comparable if not is_kept)


def test_what_is_left_stands_nearest_first_and_what_is_drawn_depends_on_texts_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = [(f"a long review {i}", f"n{j}") for i in range(30) for j in range(20)]
    one, other = matter_of(pairs), matter_of(pairs[::-1])
    first = keep_nearest(one, call_of(checked=50), embed)
    monkeypatch.setattr(nearness, "_AT_ONCE", 50)
    second = keep_nearest(other, call_of(checked=50), embed)
    assert first is not None
    assert second is not None
    assert texts_of(one) == texts_of(other)
    drawn = {pairs[places[0]] for places in first.sample}
    assert drawn == {pairs[::-1][places[0]] for places in second.sample}
    assert len({a for a, _ in drawn}) > 15  # all over
    assert len({b for _, b in drawn}) > 15
    near: dict[int, list[float]] = {}
    for (a, b), places in one.places.items():
        left, right = embed(pairs[places[0]])
        near.setdefault(a, []).append(float(left @ right) / float(np.linalg.norm(left) * np.linalg.norm(right)))
        assert pairs[places[0]] == (f"a long review {a}", f"n{b}")
    assert all(len(values) == 3 and values == sorted(values, reverse=True) for values in near.values())


def test_what_has_no_embedding_is_asked_about_with_all() -> None:
    pairs = [(review, name) for review in ["a long review", "", "another one"] for name in ["a", "b", "c", " ", "d"]]
    asked: list[str] = []

    def some(texts: Sequence[str]) -> Vectors:
        asked.extend(texts)
        found = embed(texts)
        found[[text == "c" for text in texts]] = 0
        return found

    matter = matter_of(pairs)
    keep_nearest(matter, call_of(nearest=1), some)
    assert sorted(asked) == ["a", "a long review", "another one", "b", "c", "d"]
    kept = texts_of(matter)
    assert {(a, b) for a, b in pairs if not a or b in (" ", "c")} <= kept
    assert len(kept) == 5 + 2 * (2 + 1)
    nothing = matter_of(pairs)
    assert keep_nearest(nothing, call_of(), lambda texts: np.zeros((len(texts), 0), np.float32)) is None
    assert len(nothing.places) == 15


@pytest.mark.parametrize("way", WAYS)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=60), st.integers(1, 5))
def test_whatever_the_way_each_pair_has_its_own_answer_or_no(
    way: str, pairs: list[tuple[str, str]], nearest: int
) -> None:
    def is_yes(review: str, name: str) -> bool:
        return (len(review) + len(name)) % 3 == 0

    rows: list[str | None] = [pair({"review": a}, {"name": b}) for a, b in pairs]
    call = call_of(pairs=way, nearest=nearest, checked=4)
    joining = Joining([PROMPT] * len(rows), rows, call, Terms(), Memory(), lambda: None, embed)
    far = set(joining.answers)
    run(joining, lambda prompt, row: (say_yes(prompt, row, is_yes), None))
    assert sorted([*joining.answers, *joining.alone]) == list(range(len(pairs)))
    answers = ["yes" if is_yes(*each) else "no" for each in pairs]
    assert all(joining.answers[place] == ("no" if place in far else answers[place]) for place in joining.answers)
    joining.judge([joining.answers.get(place, answers[place]) for place in range(len(pairs))])
    for told in joining.pruned:
        assert 0 <= told.yes <= told.sampled <= told.pairs
        lost = {each for place, each in enumerate(pairs) if place in far and is_yes(*each)}
        if told.sampled == told.pairs:
            assert told.lost_at_most() == 0 == len(lost)


def grid(reviews: int, names: int) -> list[str | None]:
    sides = ((i, j) for i in range(reviews) for j in range(names))
    return [pair({"review": f"review {i}"}, {"name": f"the thing {j:03}"}) for i, j in sides]


@pytest.mark.parametrize(("nearest", "lists"), [(20, 50), (LIST_ROWS, 50), (LIST_ROWS + 20, 100)])
def test_a_row_and_its_nearest_are_one_list(nearest: int, lists: int) -> None:
    rows = grid(50, 200)
    call = call_of(pairs="listed", nearest=nearest)
    joining = Joining([PROMPT] * len(rows), rows, call, Terms(), Memory(), lambda: None, embed)
    assert len(joining.ask()[1]) == lists
    assert len(joining.alone) == 200  # the sample


def test_rows_that_are_near_to_the_same_are_one_block() -> None:
    """Ten kinds of things, each with its reviews: a block is of one kind, and none has more than a list."""

    def of_kind(texts: Sequence[str]) -> Vectors:
        numbers = [int(text.split()[-1]) for text in texts]
        points = [[np.cos(n % 10 / 2), np.sin(n % 10 / 2), 0.01 * (n // 10)] for n in numbers]
        return to_units(np.array(points, np.float32))

    rows = grid(100, 200)
    call = call_of(pairs="blocks", nearest=20, checked=0)
    joining = Joining([PROMPT] * len(rows), rows, call, Terms(), Memory(), lambda: None, of_kind)
    asks, _, told = joining.ask()
    assert told.blocks == len(asks) <= 12
    assert joining.alone == []


SMALL = [(pairs, sampled) for pairs in (1, 2, 5, 12, 30) for sampled in (0, 1, 2, 4, 11, 30) if sampled <= pairs]


@pytest.mark.parametrize(("pairs", "sampled"), SMALL)
@pytest.mark.parametrize("risk", [0.05, 0.01])
def test_the_truth_is_beyond_the_bound_as_rarely_as_was_said(pairs: int, sampled: int, risk: float) -> None:
    """Counted, for every number of true pairs there may be; and no bound is wider than it must be."""
    bounds = [most_of(pairs, sampled, yes, risk) for yes in range(sampled + 1)]
    assert bounds == sorted(bounds)
    for true in range(pairs + 1):
        each = [
            Fraction(comb(true, yes) * comb(pairs - true, sampled - yes), comb(pairs, sampled))
            for yes in range(sampled + 1)
        ]
        assert sum(share for share, most in zip(each, bounds, strict=True) if most < true) <= risk
        for yes, most in enumerate(bounds):
            if most < true <= pairs - sampled + yes:
                assert sum(each[: yes + 1]) <= risk


@given(st.integers(0, 10**9), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_bound_is_one_whatever_the_figures(pairs: int, sampled: int, yes: int) -> None:
    sampled = min(sampled, pairs)
    yes = min(yes, sampled)
    assert yes <= most_of(pairs, sampled, yes) <= pairs - sampled + yes


def test_of_several_parts_each_has_its_share_of_the_risk() -> None:
    one, two = Pruned(1000, 200, yes=3, found=40), Pruned(500, 100, unanswered=1)
    told = Told.of([one, two])
    assert told is not None
    assert told.lost_at_most == one.lost_at_most(0.025) + two.lost_at_most(0.025) > one.lost_at_most()
    assert told.recall_at_least == round(43 / (43 + told.lost_at_most), 4)
    assert (told.pruned, told.sampled, told.sampled_yes) == (1500, 300, 3)
    assert Told.of([]) is None
    assert str(Told.of([Pruned(7, 0)])) == "7, none of them checked"
    assert str(Told.of([Pruned(7, 7)])).endswith("at most 0 are lost (0.0 %), recall at least 1.00")

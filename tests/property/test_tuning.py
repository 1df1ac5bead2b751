"""Prompts compared where answers are known: what is asked is what was told, and who is chosen is better."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.asking.agreement import Known, Tally, at_least, by_chance, interval
from pg_bridge.asking.halving import Halving, questions_of, steps_of
from pg_bridge.asking.labelled import Labelled, Reading, spread
from pg_bridge.asking.prompt import parse_question
from pg_bridge.asking.teaching import answer_text, read_proposal
from pg_bridge.asking.tuning import LEAST_HELD_OUT, Judged, Lesson, Plan, Proposal, Wording, lessons_of, tune
from pg_bridge.errors import OptionError

few = st.integers(0, 12)


# -- intervals and the test


@given(st.integers(1, 400), st.data())
def test_an_interval_is_exact(rows: int, data: st.DataObject) -> None:
    agree = data.draw(st.integers(0, rows))
    low, high = interval(agree, rows)
    assert low is not None
    assert high is not None
    assert 0 <= low <= agree / rows <= high <= 1
    if agree:
        assert at_least(agree, rows, low) == pytest.approx(0.025, rel=1e-6)
    if agree < rows:
        assert 1 - at_least(agree + 1, rows, high) == pytest.approx(0.025, rel=1e-6)
    mirrored = interval(rows - agree, rows)
    assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))  # type: ignore[operator]


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_chance_is_that_of_tossed_coins(gained: int, lost: int) -> None:
    tossed = gained + lost
    want = sum(math.comb(tossed, heads) for heads in range(gained, tossed + 1)) / 2**tossed
    assert by_chance(gained, lost) == pytest.approx(want)


# -- agreement

texts = st.text(max_size=12)


@given(texts, texts)
def test_texts_agree_with_themselves_however_they_are_written(text: str, other: str) -> None:
    known = Known.of(json.dumps(text))
    assert known.agrees(f"  {text} ")
    assert known.agrees(text.upper().lower()) or text.upper().lower().casefold() != text.casefold()
    assert known.agrees(other) == Known.of(json.dumps(other)).agrees(text)


def test_a_known_answer_that_cannot_be_read_agrees_with_nothing() -> None:
    known = Known.of("[" * 100_000)
    assert not any(known.agrees(answer) for answer in ("", "null", "[", "[" * 100_000))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3), st.floats(0, 1e6))
def test_numbers_agree_within_a_distance(number: object, within: float) -> None:
    known = Known.of(str(number))
    assert known.kind == "number"
    assert known.agrees(str(number), within)
    assert not known.agrees("nan", within)
    assert not known.agrees("inf", within)
    assert not known.agrees("", within)
    assert not known.agrees("1e999999999", within)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | texts, lambda each: st.lists(each) | st.dictionaries(texts, each)
)


@given(anything, texts)
def test_any_json_is_compared_with_any_answer(value: object, answer: str) -> None:
    known = Known.of(json.dumps(value))
    assert known.agrees(answer) in (True, False)
    if isinstance(value, list | dict):
        assert known.agrees(json.dumps(value))


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["yes", "no", None, "maybe"]))))
def test_a_tally_counts(answers: list[tuple[bool, str | None]]) -> None:
    tally = Tally()
    for truth, answer in answers:
        tally.count(Known.of(json.dumps(truth)), answer, 0)
    right = [(truth, answer) for truth, answer in answers if answer == ("yes" if truth else "no")]
    yes = [truth for truth, answer in answers if answer == "yes"]
    assert tally.rows == len(answers)
    assert tally.agree == len(right)
    assert tally.errors == sum(answer is None for _, answer in answers)
    assert tally.precision == (yes.count(True) / len(yes) if yes else None)
    truths = [answer for truth, answer in answers if truth]
    assert tally.recall == (truths.count("yes") / len(truths) if truths else None)


# -- rows

rows_read = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["a", "b", None])), max_size=60)


def read(rows: Sequence[tuple[int, str | None]]) -> Reading:
    reading = Reading(["x"], "truth")
    reading.add([json.dumps({"id": number, "x": x, "truth": truth}) for number, (x, truth) in enumerate(rows)])
    return reading


@given(rows_read, st.none() | st.integers(1, 70), st.integers(), st.randoms())
def test_a_sample_goes_by_no_order_and_holds_no_known_answer(
    rows: list[tuple[int, str | None]], most: int | None, seed: int, random: Random
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    one, other = (read(each).sample(most, seed) for each in (rows, shuffled))
    known = [row for row in rows if row[1] is not None]
    assert len(one) == (len(known) if most is None else min(most, len(known)))
    assert sorted(row.row for row in one) == sorted(row.row for row in other)
    assert not any("truth" in row.row for row in one)
    distinct, same = (read(each).distinct(most, seed) for each in (rows, shuffled))
    assert distinct == same
    assert len({row.row for row in distinct}) == len(distinct)
    for row in distinct:
        answers = [f'"{truth}"' for x, truth in known if row.row == f'{{"x": {x}}}']
        assert answers.count(row.answer) == max(map(answers.count, answers))
    assert set(distinct) <= {Labelled(f'{{"x": {x}}}', f'"{truth}"') for x, truth in known}
    if most is not None:
        assert read(rows).distinct(most + 1, seed)[:most] == distinct  # a larger sample holds the smaller one


@given(st.lists(st.sampled_from("abc")), few)
def test_examples_are_of_as_many_answers_as_there_are(answers: list[str], count: int) -> None:
    chosen = spread([Labelled(str(number), answer) for number, answer in enumerate(answers)], count)
    assert len(set(chosen)) == min(count, len(answers))
    counts = [sum(answers[number] == answer for number in chosen) for answer in set(answers)]
    most = max(counts, default=0)
    for answer in set(answers):
        shown = sum(answers[number] == answer for number in chosen)
        assert shown >= min(most - 1, answers.count(answer))


# -- halving


@given(st.integers(0, 40), st.integers(0, 200), st.data())
def test_halving_asks_what_was_told_and_finds_who_is_always_right(
    contenders: int, rows: int, data: st.DataObject
) -> None:
    skills = data.draw(st.lists(st.integers(0, 3), min_size=contenders, max_size=contenders))
    race = Halving(range(contenders), rows)
    asked, right = 0, dict.fromkeys(range(contenders), 0)
    while (some := race.next_rows()) is not None:
        asked += len(some) * len(race.left)
        for number in race.left:
            right[number] += sum(row % 4 < skills[number] for row in some)
        race.take(right)
    assert asked == questions_of(contenders, rows) <= contenders * rows
    if contenders:
        assert len(race.left) == 1
        assert steps_of(contenders, rows)[-1] == (1, rows)
        if rows >= 4 * contenders:
            assert skills[race.left[0]] == max(skills)


# -- tuning


@given(
    st.integers(0, 120),
    st.integers(0, 4),
    st.integers(0, 5),
    st.integers(0, 6),
    st.randoms(use_true_random=False),
)
def test_no_more_is_asked_than_was_told_and_nothing_worse_is_chosen(
    rows: int, rounds: int, proposals: int, examples: int, random: Random
) -> None:
    if rows < 2 * LEAST_HELD_OUT:
        with pytest.raises(OptionError):
            Plan.of(rows, rounds, proposals, examples)
        return
    plan = Plan.of(rows, rounds, proposals, examples)
    assert plan.examples + plan.learning + plan.held_out == rows
    asked = lessons = 0

    def try_out(wordings: Sequence[Wording], some: range) -> list[list[Judged]]:
        nonlocal asked
        asked += len(wordings) * len(some)
        return [[Judged(None, random.random() < len(wording.prompt) / 20) for _ in some] for wording in wordings]

    def propose(wording: Wording, given: Sequence[Lesson]) -> list[Proposal]:
        nonlocal lessons
        lessons += len(given)
        for lesson in given:
            assert all(0 <= row < plan.learning for row, _ in lesson.mistakes)  # and none that is held out
            assert lesson.mistakes
        words = [wording.prompt + random.choice(["", "x", "yy"]) for _ in given]
        return [random.choice([Proposal(word), Proposal(word, "no"), Proposal(None, "no")]) for word in words]

    tried = tune("first", plan, try_out, propose)
    assert asked <= plan.questions
    assert lessons <= plan.lessons
    (chosen,) = [each for each in tried if each.is_chosen]
    first = tried[0]
    asked_at_end = [each for each in tried if each.held_out]
    assert first in asked_at_end
    assert len(asked_at_end) <= 2
    if chosen is not first:
        assert chosen.chance is not None
        assert chosen.chance <= 0.05
        assert sum(each.is_right for each in chosen.held_out) > sum(each.is_right for each in first.held_out)
        assert chosen.right > first.right
    wordings = [each.wording for each in tried if each.error is None]
    assert len(set(wordings)) == len(wordings)
    for each in tried[1:]:
        assert each.parent is not None
        assert tried[each.parent].error is None
        assert len(tried[each.parent].learnt) == plan.learning


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 3), few)
def test_lessons_are_about_mistakes(right: list[bool], number: int, count: int) -> None:
    learnt = [Judged("a", each) for each in right]
    wrong = {row for row, each in enumerate(right) if not each}
    lessons = lessons_of(learnt, number, count)
    assert len(lessons) == count
    shown = [row for lesson in lessons for row, _ in lesson.mistakes]
    assert set(shown) <= wrong
    assert len(set(shown)) == min(len(shown), len(wrong))  # none twice while there are others


# -- what a teacher says


@given(st.text() | st.from_regex(r'\{"prompt": "[^"\\]*"\}'))
def test_whatever_a_teacher_says_is_a_prompt_that_can_be_asked_or_a_reason(said: str) -> None:
    question = parse_question("Is {x} kind?")
    proposal = read_proposal(said, None, question)
    assert proposal.error or proposal.prompt
    if proposal.error is None:
        assert set(parse_question(proposal.prompt).columns) == {"x"}


def test_proposals() -> None:
    question = parse_question("Is {x} kind to {y}?")
    for said, prompt, error in (
        ("Is {y} met with {x}?", "Is {y} met with {x}?", None),
        (" {x}{y}{{}} ", "{x}{y}{{}}", None),
        ("Is {x} kind?", "Is {x} kind?", "names x"),
        ("Is it kind?", "Is it kind?", "names none"),
        ("{x} {y} {z}", "{x} {y} {z}", "names x, y, z"),
        ("{x", "{x", "unbalanced"),
        ("", None, "empty"),
        ("{x} {y} \0", None, "empty, too long"),
        ("{x} {y} \ud800", None, "empty, too long"),
        ("{x} {y}" + 9000 * ".", None, "empty, too long"),
    ):
        proposal = read_proposal(json.dumps({"mistake": "", "prompt": said}), None, question)
        assert proposal.prompt == prompt
        assert error in (proposal.error or "") if error else proposal.error is None
    for said in ("[]", "{}", "7", '{"prompt": 7}', "[" * 100_000, "{"):
        assert read_proposal(said, None, question) == Proposal(None, "the answer has no prompt")
    assert read_proposal(None, "it is gone", question) == Proposal(None, "it is gone")
    assert [answer_text(cell) for cell in ("false", '"a\\n\\"b"', "[1]", "null")] == ["no", 'a\n"b', "[1]", "null"]

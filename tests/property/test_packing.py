"""Rows that share a prompt: each has the answer about itself, whatever the model says of them together."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.asking.inquiry import Ask, Outcome
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.packing import ALL, Pack, Packing
from pg_bridge.engine import Completion
from pg_bridge.engine.payload import CUT_OFF
from pg_bridge.errors import Reason
from pg_bridge.options import Call

PROMPT = "Is {a} like {b}?"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["{", "}}", '"2": "no"', '"', "\\", "\n", "é", "Ω", "𝄞"]
)
ROWS = st.lists(st.fixed_dictionaries({"a": TEXT, "b": TEXT}), min_size=1, max_size=40)
TOO_LONG = Reason("too long", sqlstate="54000")
FORMS: dict[str, dict[str, Any]] = {
    "text": {},
    "boolean": {"kind": "boolean"},
    "label": {"kind": "label", "choices": ["red", "2", '"blue"']},
    "labels": {"kind": "labels", "choices": ["red", "2", '"blue"']},
    "number": {"kind": "number"},
    "score": {"kind": "number", "low": 1, "high": 5},
    "date": {"kind": "date"},
    "json": {"kind": "json", "schema": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXT,
    "boolean": st.sampled_from(["yes", "no"]),
    "label": st.sampled_from(["red", "2", '"blue"']),
    "labels": st.lists(st.sampled_from(["red", "2", '"blue"']), unique=True),
    "number": st.integers(-99, 99) | st.sampled_from([1.5, -0.25]),
    "score": st.integers(1, 5),
    "date": st.just("2026-11-28"),
    "json": st.fixed_dictionaries({"x": st.integers(-9, 9)}),
}
JSON = st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner, max_size=3))


def packing(form: str = "boolean", rows: int = 8, context_tokens: int = 4096, **options: Any) -> Packing:
    call = Call.from_arguments(FORMS[form] | options | {"rows_per_prompt": rows})
    return Packing(Memory().inquiry(Ask(PROMPT, call)), context_tokens)


def packed(rows: list[dict[str, Any]]) -> list[tuple[bytes, list[str]]]:
    """Rows as they are handed over, each with its place for a digest."""
    return [
        (
            str(place).encode(),
            [f"{json.dumps(name)}: {json.dumps(cell, ensure_ascii=False)}" for name, cell in row.items()],
        )
        for place, row in enumerate(rows)
    ]


def shown(prompt: str) -> dict[int, dict[str, Any]]:
    """The rows by their numbers, as whoever reads the prompt sees them; a lone row has no number."""
    rows = json.loads(prompt[prompt.index("\n{") + 1 :])
    if "1" not in rows:
        return {0: rows}
    alike = rows.pop(ALL, {})
    return {int(number): alike | row for number, row in rows.items()}


def ask_all(
    of: Packing, rows: list[dict[str, Any]], answer: Callable[[Pack, str], tuple[str | None, str | None]]
) -> tuple[dict[bytes, Outcome], int]:
    """Ask until nothing is left: the outcomes, and how many prompts that took."""
    found: dict[bytes, Outcome] = {}
    waiting = list(of.pack(packed(rows)))
    asked = 0
    while waiting:
        pack = waiting.pop(0)
        asked += 1
        outcomes, again = of.read(pack, Completion(asked, *answer(pack, of.write(pack))))
        assert all(each.size < pack.size and each.is_repair for each in again)
        for key, outcome in zip(pack.keys, outcomes, strict=True):
            if outcome is not None:
                assert key not in found
                found[key] = outcome
        waiting += again
    return found, asked


@pytest.mark.some(3)
@pytest.mark.parametrize("form", FORMS)
@given(st.data())
def test_each_row_has_the_answer_about_itself(form: str, data: st.DataObject) -> None:
    rows = data.draw(ROWS)
    of = packing(form, data.draw(st.integers(2, 9)))
    values = [data.draw(VALUES[form]) for _ in rows]
    keys = [json.dumps(row, sort_keys=True) for row in rows]
    value_of = dict(zip(keys, values, strict=True))

    def answer(pack: Pack, prompt: str) -> tuple[str, None]:
        told = {number: value_of[json.dumps(row, sort_keys=True)] for number, row in shown(prompt).items()}
        if pack.size == 1:
            return (told[0] if isinstance(told[0], str) else json.dumps(told[0], ensure_ascii=False)), None
        order = data.draw(st.permutations(list(told)))
        return json.dumps({str(number): told[number] for number in order}, ensure_ascii=False), None

    found, asked = ask_all(of, rows, answer)
    for place, key in enumerate(keys):
        text, error = found[str(place).encode()]
        value = value_of[key]
        if "\0" in str(value):
            assert error is not None or text is None
            continue
        assert text is not None
        assert (text if isinstance(value, str) else json.loads(text)) == value
    if not any("\0" in str(value) for value in values):
        assert asked == -(-len(rows) // of.inquiry.call.rows_per_prompt)


@given(ROWS, st.lists(st.sampled_from(["right", "nonsense", "cut", "long", "refused"]), min_size=1, max_size=30))
def test_whatever_is_answered_each_row_is_asked_about_to_the_end(rows: list[dict[str, str]], luck: list[str]) -> None:
    turn = iter(range(1 << 30))

    def answer(pack: Pack, _: str) -> tuple[str | None, str | None]:
        if pack.size == 1:
            return "no", None
        match luck[next(turn) % len(luck)]:
            case "right":
                return json.dumps({str(number): "yes" for number in range(1, pack.size + 1)}), None
            case "nonsense":
                return '{"1": "yes"}', None
            case "cut":
                return None, CUT_OFF
            case "long":
                return None, TOO_LONG
        return None, "refused"

    found, asked = ask_all(packing(rows=9), rows, answer)
    assert sorted(found) == sorted(str(place).encode() for place in range(len(rows)))
    assert asked < 2 * len(rows)


@pytest.mark.parametrize(
    "answer",
    [
        '{"1": "yes", "2": "no"}',
        '{"1": "yes", "2": "no", "4": "yes"}',
        '{"1": "yes", "2": "no", "3": "yes", "4": "no"}',
        '{"1": "yes", "2": "no", "3": "yes", "3": "no"}',
        '{"1": "yes", "2": "no", "03": "yes"}',
        '{"1": "yes", "2": "no", "": [{"3": "yes"}]}',
        '{"": [1, 2, 3]}',
        '["yes", "no", "yes"]',
        "yes, no, yes",
        "",
    ],
    ids=str,
)
def test_answers_of_other_numbers_are_not_guessed_at(answer: str) -> None:
    of = packing()
    (pack,) = of.pack(packed([{"a": str(i), "b": ""} for i in range(3)]))
    outcomes, again = of.read(pack, Completion(0, answer, None))
    assert outcomes == [None, None, None]
    assert [each.keys for each in again] == [(b"0",), (b"1",), (b"2",)]


@pytest.mark.parametrize("malformed", ["true", '"maybe"', "null", "1", '["yes"]', '{"yes": 1}', '"yes\\u0000"'])
def test_a_row_whose_answer_is_of_no_form_is_asked_about_alone(malformed: str) -> None:
    of = packing()
    (pack,) = of.pack(packed([{"a": str(i), "b": ""} for i in range(3)]))
    outcomes, again = of.read(pack, Completion(0, f'{{"3": " no", "1": "yes", "2": {malformed}}}', None))
    assert outcomes == [("yes", None), None, ("no", None)]
    assert [each.keys for each in again] == [(b"1",)]


@given(st.sampled_from(list(FORMS)), st.lists(st.tuples(st.sampled_from(["1", "2", "3", "x"]), JSON), max_size=5))
def test_no_answer_is_anything_but_an_outcome_or_another_question(form: str, named: list[tuple[str, Any]]) -> None:
    of = packing(form)
    (pack,) = of.pack(packed([{"a": str(i), "b": ""} for i in range(3)]))
    text = "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in named) + "}"
    outcomes, again = of.read(pack, Completion(0, text, None))
    asked_again = [key for each in again for key in each.keys]
    assert [key for key, outcome in zip(pack.keys, outcomes, strict=True) if outcome is None] == asked_again
    for outcome in outcomes:
        assert outcome is None or (outcome[1] is None and isinstance(outcome[0], str))


@given(ROWS, st.integers(2, 20), st.integers(200, 1000))
def test_packs_are_within_the_number_of_rows_and_the_context(
    rows: list[dict[str, str]], most: int, context_tokens: int
) -> None:
    of = packing(rows=most, context_tokens=context_tokens)
    packs = list(of.pack(packed(rows)))
    assert [key for pack in packs for key in pack.keys] == [str(place).encode() for place in range(len(rows))]
    for pack in packs:
        assert pack.size <= most
        if pack.size > 1:
            sampling = of.sampling(pack.size)
            said = len((of.write(pack) + sampling.system_prompt).encode()) / 3
            assert said + sampling.max_tokens <= context_tokens


def test_what_rows_have_in_common_stands_in_front_once() -> None:
    of = packing()
    film = "a long story " * 20
    packs = list(of.pack(packed([{"a": film, "b": str(i)} for i in range(8)])))
    assert len(packs) == 1
    prompt = of.write(packs[0])
    assert prompt.count(film) == 1
    assert shown(prompt)[8] == {"a": film, "b": "7"}
    apart = of.write(next(of.pack(packed([{"a": str(i), "b": str(i)} for i in range(2)]))))
    assert ALL not in apart


def test_what_rows_have_in_common_takes_its_room_once() -> None:
    of = packing(context_tokens=1200)
    alike, apart = [{"a": "x" * 1500, "b": str(i)} for i in range(8)], [{"a": f"{i}" * 1500, "b": ""} for i in range(8)]
    assert [pack.size for pack in of.pack(packed(alike))] == [8]
    assert [pack.size for pack in of.pack(packed(apart))] == [1] * 8


def test_long_answers_make_small_packs() -> None:
    rows = [{"a": str(i), "b": ""} for i in range(8)]
    assert [pack.size for pack in packing("text", max_tokens=100).pack(packed(rows))] == [8]
    assert [pack.size for pack in packing("text", max_tokens=1500).pack(packed(rows))] == [2] * 4
    assert [pack.size for pack in packing("text", max_tokens=4000).pack(packed(rows))] == [1] * 8
    assert [pack.size for pack in packing("boolean", max_tokens=4000).pack(packed(rows))] == [8]


def test_a_schema_that_refers_to_itself_is_asked_for_row_by_row() -> None:
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "integer"}}}
    of = packing("json", schema=schema)
    assert [pack.size for pack in of.pack(packed([{"a": "1", "b": ""}, {"a": "2", "b": ""}]))] == [1, 1]


def test_a_row_by_itself_is_asked_as_if_there_were_no_packs() -> None:
    of, plain = packing(), Memory().inquiry(Ask(PROMPT, Call.from_arguments({"kind": "boolean"})))
    (pack,) = of.pack(packed([{"a": "1", "b": ""}]))
    assert of.write(pack) == 'Is a like b?\n{"a": "1", "b": ""}'
    assert of.sampling(1) == plain.sampling


def test_the_form_is_an_object_of_all_numbers_and_no_others() -> None:
    sampling = packing().sampling(3)
    schema = json.loads(sampling.schema)
    assert schema["required"] == ["1", "2", "3"] == list(schema["properties"])
    assert schema["properties"]["2"] == {"type": "string", "enum": ["yes", "no"]}
    assert schema["additionalProperties"] is False
    assert (sampling.choices, sampling.pattern) == ((), "")
    assert re.search("rows", sampling.system_prompt)
    assert packing(system_prompt="Be kind.").sampling(3).system_prompt == "Be kind."

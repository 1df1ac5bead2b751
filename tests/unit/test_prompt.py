from __future__ import annotations

from itertools import pairwise
from os import path
from typing import get_args

import numpy as np
import pytest

from pg_bridge.asking.prompt import (
    First,
    Question,
    parse_question,
    place_questions,
    render,
    render_questions,
    resolve_columns,
)
from pg_bridge.errors import RepeatedColumn, TemplateError, UnknownColumn
from pg_bridge.ordering import Ordering, plan
from pg_bridge.rows.cutting import UNKNOWN
from pg_bridge.rows.table import Table


@pytest.mark.parametrize(
    ("prompt", "text", "columns"),
    [
        ("Is it kind?", "Is it kind?", ()),
        ("", "", ()),
        ("Is {review} kind?", "Is review kind?", ("review",)),
        ("{b} {a} {b}", "b a b", ("b", "a")),
        ('Reply {{"kind": true}}', 'Reply {"kind": true}', ()),
        ("{{{a}}}", "{a}", ("a",)),
        ("{{}}", "{}", ()),
        ("{the name} {日本}", "the name 日本", ("the name", "日本")),
        ("100 % of %s {a}", "100 % of %s a", ("a",)),
    ],
)
def test_braces(prompt: str, text: str, columns: tuple[str, ...]) -> None:
    assert parse_question(prompt) == Question(text, columns)


def test_empty_braces_name_a_value() -> None:
    assert parse_question("{}, or {{}}? {}") == Question("input, or {}? input", ("input",), names_value=True)
    assert resolve_columns(parse_question("{}?"), ["input"]) == ("input",)
    assert resolve_columns(parse_question("{input}?"), ["input"]) == ("input",)


def test_empty_braces_do_not_name_a_row() -> None:
    for prompt in ("{}?", "{} and {a}?"):
        with pytest.raises(TemplateError, match=r"\{\} names an input that is a single value") as caught:
            resolve_columns(parse_question(prompt), ["a", "inputs"])
        assert "The columns are: a, inputs." in caught.value.hint
    with pytest.raises(TemplateError, match=r"\{\} names an input that is a single value"):
        resolve_columns(parse_question("{}?"), [])


def test_a_column_of_a_value_is_an_error_that_says_what_the_input_is() -> None:
    with pytest.raises(UnknownColumn, match='column "a" does not exist: the input is a single value') as caught:
        resolve_columns(parse_question("{a}?"), ["input"])
    assert "{}" in caught.value.hint
    assert "::jsonb" in caught.value.hint


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, "the prompt is NULL"),
        ("a {b", "unbalanced '{' at character 3 of the prompt"),
        ("a} b", "unbalanced '}' at character 2 of the prompt"),
        ("{a{b}", "unbalanced '{' at character 1 of the prompt"),
        ("{{{a}}", "unbalanced '}' at character 6 of the prompt"),
    ],
)
def test_bad_braces_say_where_and_what_to_do(prompt: str | None, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse_question(prompt)
    assert caught.value.message == message
    assert caught.value.hint
    assert prompt is None or "'{{'" in caught.value.hint


def test_columns_come_in_the_rows_order() -> None:
    assert resolve_columns(Question("", ("c", "a")), ["a", "b", "c"]) == ("a", "c")
    assert resolve_columns(Question("", ()), ["b", "a"]) == ("b", "a")


def test_a_null_row_among_several_has_the_columns_that_are_named() -> None:
    assert resolve_columns(Question("", ("a", "name")), ["a", "b", UNKNOWN]) == ("a", "name")
    assert resolve_columns(Question("", ()), ["a", UNKNOWN, "b"]) == ("a", "b")
    assert resolve_columns(Question("", ("x",)), [UNKNOWN]) == ("x",)
    with pytest.raises(UnknownColumn):  # no key of JSON, whatever it is, stands for columns that nobody knows
        resolve_columns(Question("", ("x",)), ["\0"])


def test_a_column_that_is_there_twice_is_not_sent() -> None:
    assert resolve_columns(Question("", ("a", "b")), ["a", "id", "b", "id"]) == ("a", "b")
    for question in (Question("", ("id", "a")), Question("", ())):
        with pytest.raises(RepeatedColumn, match='more than one column named "id"') as caught:
            resolve_columns(question, ["a", "id", "b", "id"])
        assert "(SELECT id AS other_id, … FROM …)" in caught.value.hint
        assert ("name in the prompt" in caught.value.hint) == (not question.columns)


def test_an_unknown_column_is_named_with_the_likeliest_one() -> None:
    with pytest.raises(UnknownColumn, match='column "Reviev" does not exist') as caught:
        resolve_columns(Question("", ("Reviev",)), ["id", "review", "title"])
    assert "Did you mean {review}?" in caught.value.hint
    assert "id, review, title" in caught.value.hint


def test_the_hint_lists_some_of_many_columns() -> None:
    with pytest.raises(UnknownColumn) as caught:
        resolve_columns(Question("", ("zzz",)), [f"c{j}" for j in range(100)])
    assert "c19 and 80 more" in caught.value.hint
    assert "c20" not in caught.value.hint


def test_the_hint_for_rows_without_columns() -> None:
    with pytest.raises(UnknownColumn) as caught:
        resolve_columns(Question("", ("a",)), [])
    assert "The rows have no columns." in caught.value.hint


def test_messages_follow_both_orders() -> None:
    table = Table.from_json(['{"a":1.50,"b":"x"}', '{"a":null,"b":"é\\n"}'], ["a", "b"])
    ordering = Ordering(np.array([1, 0]), np.array([[1, 0], [0, 1]], np.int16), "test", 0, 0)
    assert list(render(Question("Well?", ()), table, ordering)) == [
        'Well?\n{"b": "é\\n", "a": null}',
        'Well?\n{"a": 1.50, "b": "x"}',
    ]


def test_names_are_json_too() -> None:
    table = Table.from_json(['{"a \\"b\\" %s {}":1}'], ['a "b" %s {}'])
    assert list(render(Question("Q", ()), table, plan(table))) == ['Q\n{"a \\"b\\" %s {}": 1}']


def test_rows_without_columns_get_the_question_alone() -> None:
    table = Table.from_json(["{}", None], [])
    assert list(render(Question("Q {x}", ()), table, plan(table))) == ["Q {x}", "Q {x}"]


def test_more_rows_than_one_chunk() -> None:
    table = Table.from_json([f'{{"a":{i}}}' for i in range(2500)], ["a"])
    messages = list(render(Question("Q", ()), table, plan(table, reorder="none")))
    assert messages == [f'Q\n{{"a": {i}}}' for i in range(2500)]


ROWS = Table.from_json([f'{{"a":"{"x" * 40}","b":{i}}}' for i in range(10)], ["a", "b"])
LONG_ROWS = Table.from_json([f'{{"a":"{i}{"x" * 400}"}}' for i in range(10)], ["a"])
QUESTIONS = [Question("Is it kind?", ()), Question("Is it short?", ()), Question("In which language is it?", ())]


def computed(messages: list[str]) -> int:
    """Characters of the messages' prefix tree."""
    in_order = sorted(messages)
    shared = sum(len(path.commonprefix(pair)) for pair in pairwise(in_order))  # noqa: RUF071 - characters are meant
    return sum(map(len, messages)) - shared


@pytest.mark.parametrize("questions", [QUESTIONS[:1], QUESTIONS[:2], QUESTIONS])
@pytest.mark.parametrize("table", [ROWS, LONG_ROWS])
def test_either_place_costs_what_is_said_and_the_cheaper_is_taken(table: Table, questions: list[Question]) -> None:
    ordering = plan(table)
    placement = place_questions(questions, ordering)
    cost: dict[First, int] = {}
    for first in get_args(First):
        of = [list(render(question, table, ordering, first=first)) for question in questions]
        cost[first] = computed([text for texts in of for text in texts])
    # Where a row parts from the next, its newline or comma may be shared with the question; no more than that.
    assert abs(cost["question"] - placement.question_first_chars) <= len(questions)
    assert abs(cost["row"] - placement.row_first_chars) <= table.rows
    assert cost[placement.first] == min(cost.values())
    assert placement.first == ("row" if table is LONG_ROWS and len(questions) > 1 else "question")


@pytest.mark.parametrize("table", [ROWS, LONG_ROWS])
def test_each_question_is_asked_about_each_row_once(table: Table) -> None:
    ordering = plan(table)
    sent = list(render_questions(QUESTIONS, table, ordering))
    assert sorted((place, number) for place, number, _ in sent) == [(i, j) for i in range(10) for j in range(3)]
    rows = list(render(Question("", ()), table, ordering))
    for place, number, text in sent:
        assert rows[place].strip() in text
        assert QUESTIONS[number].text in text
    starts = [text.split("\n")[0] for _, _, text in sent]
    assert sum(one != other for one, other in pairwise(starts)) == (9 if table is LONG_ROWS else 2)

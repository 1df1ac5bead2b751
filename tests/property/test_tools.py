"""Functions that a model may call: whatever it says, and however rows take turns."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.asking.dialogue import Dialogue, names_beside
from pg_bridge.asking.prompt import Question, render
from pg_bridge.asking.tools import (
    Argument,
    Said,
    Tool,
    Wanted,
    by_place,
    cell_of,
    failed_cell,
    read_turn,
    schema_of,
    told,
)
from pg_bridge.engine.shape import is_of
from pg_bridge.engine.untrusted import parse_jsonb
from pg_bridge.ordering import plan
from pg_bridge.rows.table import Table

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
arguments = st.builds(
    Argument,
    names,
    st.just("t"),
    st.sampled_from(["string", "integer", "number", "boolean"]),
    st.booleans(),
    is_optional=st.booleans(),
)
tools = st.lists(
    st.builds(
        Tool,
        names,
        st.lists(arguments, max_size=3, unique_by=lambda each: each.name).map(tuple),
        st.just("integer"),
        texts,
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda tool: tool.name,
)
json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["next", "call", "arguments", "answer"]) | texts, inner, max_size=3)
    ),
    max_leaves=8,
)
NO_NUL = st.text(st.characters(exclude_characters="\0"), max_size=40)  # PostgreSQL's texts have none
HOSTILE = ('"\\u0000"', '"\\\\u0000 and more than is shown"', '"\\ud800"', "NaN", "[" * 30, "1e400")
_VALUES = {"string": texts, "integer": st.integers(), "number": st.integers(), "boolean": st.booleans()}


def value_of(argument: Argument) -> Any:
    one: Any = _VALUES[argument.kind]
    value = st.lists(one, max_size=2) if argument.is_array else one
    return value | st.none() if argument.is_optional else value


@given(tools, json_values.map(json.dumps) | st.text(max_size=20), st.lists(texts, max_size=2))
def test_whatever_is_said_it_is_a_call_an_answer_or_nothing(known: list[Tool], text: str, choices: list[str]) -> None:
    turn = read_turn(text, known, choices)
    if isinstance(turn, Wanted):
        assert turn.problem or turn.tool in {tool.name for tool in known}
        parse_jsonb(turn.cell)
    if isinstance(turn, Said):
        assert not choices or turn.answer in choices
    assert not isinstance(read_turn(text, [], choices), Wanted)


@given(st.data(), tools)
def test_a_call_of_the_schema_is_made_with_what_was_given(data: st.DataObject, known: list[Tool]) -> None:
    tool = data.draw(st.sampled_from(known))
    given_ = {argument.name: data.draw(value_of(argument)) for argument in tool.arguments}
    turn = {"call": tool.name, "arguments": given_}
    of_tool = tool.schema()
    assert set(given_) == set(of_tool["properties"]["arguments"]["required"])
    assert is_of(turn, of_tool)
    wanted = read_turn(json.dumps({"next": turn}), known, [])
    assert isinstance(wanted, Wanted)
    assert wanted.problem == ""
    expected = {
        f"a{place}": given_[argument.name]
        for place, argument in enumerate(tool.arguments, 1)
        if not (argument.is_optional and given_[argument.name] is None)
    }
    assert json.loads(by_place(tool, wanted.arguments)) == expected


@given(tools, st.lists(texts, max_size=2, unique=True), texts)
def test_the_functions_are_told_first_and_the_schema_is_one(known: list[Tool], choices: list[str], prompt: str) -> None:
    text = told(known, prompt)
    assert text.endswith("\n" + prompt)
    assert [line for line in text.split("\n") if line.startswith("- ")] or any("\n" in tool.name for tool in known)
    assert len(json.loads(schema_of(known, choices))["properties"]["next"]["anyOf"]) == len(known) + 1
    assert json.loads(schema_of([], choices))["properties"]["next"]["required"] == ["answer"]


@given(
    json_values.map(lambda value: json.dumps(value, ensure_ascii=False)) | NO_NUL | st.sampled_from(HOSTILE),
    st.integers(1, 40),
)
def test_a_result_is_json_and_no_longer_than_it_may_be(found: str, most: int) -> None:
    for cell in (cell_of(found, most), failed_cell(found, most)):
        held = parse_jsonb(cell)
        if cell is not found:
            (shown,) = held.values()
            assert len(shown.encode()) <= most or shown == "the result is no JSON that jsonb can hold"[: len(shown)]


scripts = st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=6)


@given(scripts, st.integers(1, 3), st.sampled_from(["film", "call 1", "tool result"]))
def test_rows_take_turns_and_each_prompt_goes_on_where_it_was(
    script: list[list[int]], most_calls: int, column: str
) -> None:
    """Row r calls f(script[r][k]) in round k and answers when it has no more to call, or may not."""
    table = Table.from_cells([column], [[json.dumps(f"row {row}") for row in range(len(script))]])
    dialogue = Dialogue(len(script), most_calls)
    before: dict[int, str] = {}
    rounds = 0
    while dialogue.asking:
        rounds += 1
        own = table.take(np.array(dialogue.asking, np.intp))
        columns, left = names_beside(own.columns, dialogue.made)
        assert left not in own.columns
        cells = dialogue.cells()
        asked = own.beside(Table.from_cells(columns, cells)) if cells else own
        ordering = plan(asked, reorder="rows")
        for place, prompt in zip(ordering.row_order.tolist(), render(Question("?", ()), asked, ordering), strict=True):
            row = dialogue.asking[place]
            assert prompt.startswith(before.get(row, ""))
            before[row] = prompt.removesuffix("}")
            assert len(json.loads(prompt.partition("\n")[2])) == 1 + 2 * dialogue.made
        turns: list[Wanted | Said | str] = []
        for row in dialogue.asking:
            ask = script[row][dialogue.made : dialogue.made + 1]
            turns.append(Said(f"row {row}") if not ask or dialogue.is_last else Wanted("f", f'{{"a": {ask[0]}}}'))
        wanted = dialogue.take(turns)
        assert len(set(wanted)) == len(wanted)
        assert {each.arguments for each in wanted} == {turn.arguments for turn in turns if isinstance(turn, Wanted)}
        dialogue.learn({each: each.arguments for each in wanted})
    assert rounds <= most_calls + 1
    assert dialogue.answers == [f"row {row}" for row in range(len(script))]
    for row, made in enumerate(dialogue.calls):
        assert [result for _, result in made] == [f'{{"a": {ask}}}' for ask in script[row][:most_calls]]


@given(scripts, st.sets(st.integers(0, 5)))
def test_a_row_that_fails_is_out(script: list[list[int]], failing: set[int]) -> None:
    dialogue = Dialogue(len(script), 2)
    wanted = dialogue.take(["broken" if row in failing else Wanted("f", "{}") for row in range(len(script))])
    assert not failing.intersection(dialogue.asking)
    dialogue.learn(dict.fromkeys(wanted, "1"))
    dialogue.take([Said("x")] * len(dialogue.asking))
    dialogue.learn({})
    for row in range(len(script)):
        assert (dialogue.errors[row], dialogue.answers[row]) == (("broken", None) if row in failing else (None, "x"))

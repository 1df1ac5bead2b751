"""The calls of a statement without PostgreSQL: any windows, prompts and layouts, every call answered rightly, once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.asking import inquiry
from pg_bridge.asking.calls import Calls
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.together import Round
from pg_bridge.engine import Completion, Engine, Portion, Sampling, Usage
from pg_bridge.errors import CallError, NullPrompt, OptionError, TemplateError, UnknownColumn
from pg_bridge.options import Call


class Oracle:
    """Stands where an `Engine` stands: answers with the prompt's own question and cells, the latest prompt first."""

    server_name = "oracle"

    def __init__(self, asked: list[str]) -> None:
        self.usage = Usage(requests=1, prompt_tokens=10, cached_tokens=None)
        self.asked = asked
        self.closed = False

    def work(self) -> None:
        pass

    def complete_portions(
        self,
        portions: Iterator[Portion],
        sampling: Sampling,
        *,
        eager: bool,
        landed: object = None,
        ends_run: object = None,
    ) -> Iterator[Completion]:
        assert eager
        given = [prompt for portion in portions for prompt in portion.prompts]
        self.asked += given
        for index, prompt in reversed(list(enumerate(given))):
            question, _, row = prompt.partition("\n")
            bad = '"bad"' in row
            answer = json.dumps([question, json.loads(row or "null")], sort_keys=True)
            yield Completion(index, None if bad else answer, "bad row" if bad else None)

    def close(self) -> None:
        self.closed = True


def ask(
    statement: Memory, prompts: list[str | None], rows: list[str | None], call: Call, asked: list[str], node: int = 1
) -> list[str | None]:
    engine = Oracle(asked)
    try:
        calls = Calls(statement, lambda _: Round(statement, node, cast("Engine", engine), tells=True))
        calls.add(prompts, rows, {call: list(range(len(rows)))})
        return calls.take()
    finally:
        assert engine.closed or not rows


cells = st.one_of(
    st.none(),
    st.fixed_dictionaries({"a": st.sampled_from("xyz"), "b": st.integers(0, 2)}),
    st.fixed_dictionaries({"b": st.integers(0, 2), "a": st.sampled_from("xyz")}),
    st.fixed_dictionaries({"a": st.sampled_from("xyz"), "b": st.integers(0, 2), "c": st.just("ü\n")}),
)
asks = st.lists(st.tuples(st.sampled_from(["Is {a}?", "Is {a} or {b}?", "Look."]), cells), max_size=40)


def expected(prompt: str, row: dict[str, Any] | None) -> str:
    question = prompt.replace("{", "").replace("}", "")
    named = [name for name in "ab" if f"{{{name}}}" in prompt]
    if row is None:
        row = dict.fromkeys(named)
    sent = {name: row[name] for name in named} if named else row
    return json.dumps([question, sent or None], sort_keys=True)


@given(windows=st.lists(asks, max_size=5), remembered=st.integers(1, 30))
def test_every_call_gets_its_answer_and_nothing_is_asked_twice(
    windows: list[list[tuple[str, dict[str, Any] | None]]], remembered: int
) -> None:
    asked: list[str] = []
    statement = Memory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inquiry, "REMEMBERED_ANSWERS", remembered)
        for window in windows:
            before = len(asked)
            rows = [None if row is None else json.dumps(row, ensure_ascii=False) for _, row in window]
            answers = ask(statement, [prompt for prompt, _ in window], rows, Call(), asked)
            assert answers == [expected(prompt, row) for prompt, row in window]
            assert len(set(asked[before:])) == len(asked[before:])
    if remembered == 30:  # more than there are
        assert len({tuple(sorted(each)) for each in asked}) <= len(asked)
    assert statement.run.rows == sum(map(len, windows))
    assert statement.run.unique_prompts == len(asked)


def test_what_another_node_has_asked_is_known() -> None:
    asked: list[str] = []
    statement = Memory()
    row = '{"a": 1, "b": 2}'
    for node in (1, 2):
        ask(statement, ["{a}?", "{a}?"], [row, '{"a": 1, "b": 3}'], Call(), asked, node)
    assert asked == ['a?\n{"a": 1}']
    assert [statement.nodes[node].unique_prompts for node in (1, 2)] == [1, 0]
    ask(statement, ["{a}?"], [row], Call(max_tokens=5), asked)
    assert len(asked) == 2  # other options, another answer


def test_a_value_is_a_row_of_one_column() -> None:
    asked: list[str] = []
    values: list[str | None] = [
        '"Heat"',
        ' {"input": "Heat"}',
        "[1, 2]",
        "12.50",
        "null",
        None,
        '{"input": "{"}',
        '"{"',
    ]
    ask(Memory(), ["{}?"] * len(values), values, Call(), asked)
    assert sorted(asked) == sorted(
        f'input?\n{{"input": {cell}}}' for cell in ('"Heat"', "[1, 2]", "12.50", "null", '"{"')
    )
    ask(Memory(), ["Well?"] * 2, ['"Heat"', None], Call(), asked := [])
    assert sorted(asked) == ["Well?", 'Well?\n{"input": "Heat"}']


def test_a_failed_row_fails_the_window_or_is_null() -> None:
    rows: list[str | None] = ['{"a": "good"}', '{"a": "bad"}']
    with pytest.raises(CallError):
        ask(Memory(), ["{a}?", "{a}?"], rows, Call(), [])
    answers = ask(Memory(), ["{a}?", "{a}?"], rows, Call(on_error="null"), [])
    assert [answer is None for answer in answers] == [False, True]


@pytest.mark.parametrize(
    ("prompt", "row", "error"),
    [
        (None, "{}", NullPrompt),
        ("{b}?", '{"a": 1}', UnknownColumn),
        ("{a}?", "[1]", UnknownColumn),
        ("{}?", '{"a": 1}', TemplateError),
        ("{}?", "1 and 2", OptionError),
    ],
)
def test_errors(prompt: str | None, row: str, error: type[Exception]) -> None:
    asked: list[str] = []
    with pytest.raises(error):
        ask(Memory(), ["Look.", prompt], ['{"a": 1}', row], Call(), asked)
    assert asked == []


def test_the_report_leaves_out_what_nobody_knows() -> None:
    statement = Memory()
    ask(statement, ["{a}?"], ['{"a": 1}'], Call(), [])
    report = statement.nodes[1].as_report()
    assert len(report) % 2 == 0
    assert report[:8] == ["Rows Asked", "1", "Unique Prompts", "1", "Requests", "1", "Prompt Tokens", "10"]
    assert "Cached Tokens" not in report
    assert "Retries" not in report


def test_without_dedup_every_call_is_a_question() -> None:
    asked: list[str] = []
    statement = Memory()
    for _ in range(2):
        rows: list[str | None] = ['{"a": 1}', '{"a": 1}', None]
        ask(statement, ["{a}?"] * 3, rows, Call(dedup=False), asked)
    assert len(asked) == 6


def test_columns_that_may_not_move_stay_where_they_are() -> None:
    asked: list[str] = []
    statement = Memory()
    call = Call(reorder="rows")
    assert ask(statement, ["Q"], ['{"b": 1, "a": 2}'], call, asked) == ['["Q", {"a": 2, "b": 1}]']
    assert asked == ['Q\n{"b": 1, "a": 2}']
    ask(statement, ["Q"], ['{"a": 2, "b": 1}'], call, asked)  # the same row: known
    assert len(asked) == 1

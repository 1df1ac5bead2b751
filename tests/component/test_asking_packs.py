"""Several rows in one prompt, over a real engine's face: fewer prompts, the same answers, and repairs where none is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest

from pg_bridge.asking.calls import Calls
from pg_bridge.asking.inquiry import Ask
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.run import RowsTogether, Run
from pg_bridge.asking.several import ask_several
from pg_bridge.asking.streamed import Answer, ask
from pg_bridge.asking.together import Round
from pg_bridge.engine import Engine
from pg_bridge.errors import BudgetExceeded, CallError, RowError
from pg_bridge.options import Call, Server
from pg_bridge.testing.behaviour import each_alone
from pg_bridge.testing.double import EngineDouble

ROWS = 100
PROMPT = "Good {i}?"


@pytest.fixture
def double() -> Iterator[EngineDouble]:
    with EngineDouble() as running:
        yield running


def call_of(**options: Any) -> Call:
    return Call.from_arguments({"kind": "boolean", "rows_per_prompt": 8} | options)


def texts(rows: int = ROWS) -> list[str | None]:
    return [json.dumps({"i": i, "same": "film"}) for i in range(rows)]


def server_of(double: EngineDouble, **options: Any) -> Server:
    return Server(name="vllm", endpoint=double.url, model="double", **options)


def streamed(
    double: EngineDouble,
    call: Call,
    *,
    run: Run | None = None,
    every_row: bool = True,
    rows: int = ROWS,
    **options: Any,
) -> Iterator[Answer]:
    left = iter(texts(rows))
    fetch = lambda most: list(islice(left, most))  # noqa: E731 - as short as it says
    engine = Engine(server_of(double, **options))
    return ask(fetch, ["i", "same"], PROMPT, call, engine, run or Run(), every_row=every_row)


def in_calls(double: EngineDouble, call: Call, memory: Memory | None = None) -> list[str | None]:
    held = memory or Memory()
    calls = Calls(held, lambda _: Round(held, 1, Engine(server_of(double)), tells=True))
    calls.add([PROMPT] * ROWS, texts(), {call: list(range(ROWS))})
    answers: list[str | None] = []
    while not calls.are_taken:
        answers += calls.take()
    return answers


def alone(double: EngineDouble, **options: Any) -> list[str | None]:
    answers = in_calls(double, call_of(rows_per_prompt=1, **options))
    double.reset()
    return answers


FORMS = [
    {},
    {"kind": "text"},
    {"kind": "label", "choices": ["a", '"b"', "Ω"]},
    {"kind": "labels", "choices": ["a", '"b"', "Ω"]},
    {"kind": "number"},
    {"kind": "number", "low": 1, "high": 5},
    {"kind": "date"},
    {"kind": "json", "schema": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_rows_that_share_a_prompt_have_the_answers_that_they_have_alone(
    double: EngineDouble, form: dict[str, Any]
) -> None:
    if form.get("kind") == "date":
        double.behaviour.answer = lambda prompt: f"2026-11-{len(prompt) % 20 + 10}"
    expected = alone(double, **form)
    assert in_calls(double, call_of(**form)) == expected
    assert len(double.received.prompts) == 13
    double.reset()
    answers = list(streamed(double, call_of(**form)))
    assert [answer.output for answer in sorted(answers)] == expected
    assert len(double.received.prompts) == 13


def test_a_reader_who_may_stop_gets_all_answers_too(double: EngineDouble) -> None:
    expected = alone(double)
    run = Run()
    answers = list(streamed(double, call_of(), run=run, every_row=False))
    assert [answer.output for answer in sorted(answers)] == expected
    assert len(double.received.prompts) < ROWS / 4
    assert run.unique_prompts == len(double.received.prompts)


def nonsense(prompt: str) -> str:
    return '{"1": "yes"}' if each_alone(prompt) else "no"


@pytest.mark.parametrize("batches", [True, False])
@pytest.mark.parametrize("every_row", [True, False])
def test_what_is_nonsense_is_asked_row_by_row(double: EngineDouble, every_row: bool, batches: bool) -> None:
    double.behaviour.ignore_choices = True
    double.behaviour.batch_endpoint = batches
    double.behaviour.answer = nonsense
    run = Run()
    answers = list(streamed(double, call_of(), run=run, every_row=every_row))
    assert [answer.output for answer in answers] == ["no"] * ROWS
    assert run.together.repairs == ROWS
    assert run.together.rows == ROWS
    assert {failure.reason for failure in run.failures.latest} == {"the engine's answer is not JSON of the schema"}


def test_what_is_too_long_is_asked_in_halves(double: EngineDouble) -> None:
    expected = alone(double)
    double.behaviour.max_prompt_chars = 260  # of some four rows
    memory = Memory()
    assert in_calls(double, call_of(), memory) == expected
    told = memory.run.together
    assert (told.rows, told.prompts, told.alone) == (ROWS, 13, 0)
    assert ROWS > told.repairs > 12


def test_what_is_cut_off_is_asked_in_halves(double: EngineDouble) -> None:
    def long_winded(prompt: str) -> str:
        several = each_alone(prompt)
        return json.dumps(dict.fromkeys(several, "yes " * (300 if len(several) > 4 else 1))) if several else "yes"

    double.behaviour.answer = long_winded
    memory = Memory()
    assert in_calls(double, call_of(kind="text", max_tokens=30), memory) == ["yes "] * ROWS
    assert memory.run.together.repairs == 24  # the last four rows had one of their own


def test_a_row_that_is_refused_fails_alone(double: EngineDouble) -> None:
    double.behaviour.refuse_marked = {'"i": 42,': "this one not", '"i": 42}': "this one not"}
    double.behaviour.answer = lambda prompt: (
        json.dumps(dict.fromkeys(each_alone(prompt), "yes")) if each_alone(prompt) else "yes"
    )
    answers = in_calls(double, call_of(on_error="null"))
    assert [place for place, answer in enumerate(answers) if answer is None] == [42]
    with pytest.raises(CallError):
        in_calls(double, call_of())
    with pytest.raises(RowError, match="row 43"):
        list(streamed(double, call_of()))
    found = list(streamed(double, call_of(on_error="null")))
    assert [answer.row_id for answer in found if answer.error] == [43]


def test_an_engine_that_refuses_everything_is_told_soon(double: EngineDouble) -> None:
    double.behaviour.refuse_every = "not today"
    with pytest.raises(Exception, match="refuses every prompt"):
        list(streamed(double, call_of()))
    assert len(double.received.prompts) < 40


def test_budgets_hold_for_prompts_of_several_rows_and_for_repairs(double: EngineDouble) -> None:
    assert len(list(streamed(double, call_of(max_requests=13)))) == ROWS
    with pytest.raises(BudgetExceeded):
        list(streamed(double, call_of(max_requests=12)))
    double.reset()
    double.behaviour.ignore_choices, double.behaviour.answer = True, nonsense
    with pytest.raises(BudgetExceeded):
        list(streamed(double, call_of(max_requests=20)))
    found = list(streamed(double, call_of(max_requests=20, on_budget="null")))
    assert sum(answer.output is not None for answer in found) == 20 - 13
    assert len(found) == ROWS
    assert in_calls(double, call_of(max_requests=20, on_budget="null")).count("no") == 20 - 13


def test_with_limits_to_what_is_in_flight_all_are_asked(double: EngineDouble) -> None:
    double.behaviour.ignore_choices, double.behaviour.answer = True, nonsense
    answers = list(streamed(double, call_of(), max_in_flight=1))
    assert [answer.output for answer in answers] == ["no"] * ROWS


def test_confidence_and_equal_rows_that_are_wanted_each_are_not_put_together(double: EngineDouble) -> None:
    in_calls(double, call_of(dedup=False))
    assert len(double.received.prompts) == ROWS
    double.reset()
    in_calls(double, call_of(confidence=True))
    assert len(double.received.prompts) == ROWS


def test_several_questions_of_one_pass_each_have_their_own_prompts(double: EngineDouble) -> None:
    left = iter(texts())
    asks = {
        "good": Ask(PROMPT, call_of(shares_limits=True)),
        "alone": Ask("Bad {i}?", call_of(rows_per_prompt=1, shares_limits=True)),
        "five": Ask("Red {i}?", call_of(rows_per_prompt=5, shares_limits=True)),
    }
    memory = Memory()
    answers = ask_several(
        lambda most: list(islice(left, most)),
        ["i", "same"],
        asks,
        lambda: Engine(server_of(double)),
        memory,
        every_row=True,
    )
    found = [json.loads(answer.output or "") for answer in answers]
    assert len(found) == ROWS
    assert [isinstance(row["good"], bool) for row in found] == [True] * ROWS
    assert len(double.received.prompts) == 13 + ROWS + 20
    assert memory.run.together == RowsTogether(rows=2 * ROWS, prompts=33, alone=0, repairs=0)


def test_the_context_that_the_engine_tells_holds(double: EngineDouble) -> None:
    double.behaviour.max_model_len = 250
    in_calls(double, call_of())
    several = [prompt for prompt in double.received.prompts if each_alone(prompt)]
    assert 13 < len(double.received.prompts) < ROWS
    assert max(len(prompt) for prompt in several) < 750
    double.reset()
    in_calls(double, call_of(context_tokens=10))
    assert len(double.received.prompts) == ROWS


@pytest.mark.parametrize("answer", [lambda _: "{", lambda _: '{"1": {"2": []}}', lambda _: "\\u0000", lambda _: ""])
def test_an_engine_that_always_answers_nonsense_leaves_no_row_waiting(
    double: EngineDouble, answer: Callable[[str], str]
) -> None:
    double.behaviour.ignore_choices, double.behaviour.answer = True, answer
    found = list(streamed(double, call_of(on_error="null"), rows=20))
    assert len(found) == 20
    assert all(each.error for each in found)


def test_ranks_and_several_engines_have_packs_too(double: EngineDouble) -> None:
    expected = alone(double)
    with EngineDouble() as other:
        engine = Engine(Server(name="vllm", endpoint=f"{double.url},{other.url}", model="double"))
        left = iter(texts())
        fetch = lambda most: list(islice(left, most))  # noqa: E731 - as short as it says
        found = list(ask(fetch, ["i", "same"], PROMPT, call_of(), engine, Run(), every_row=True))
        assert [answer.output for answer in sorted(found)] == expected
        assert len(double.received.prompts) + len(other.received.prompts) == 13
    assert re.search("Good", double.received.prompts[0])

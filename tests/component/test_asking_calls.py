"""Calls that come in parts, over a real engine's face: a few go ahead, none twice, and nothing waits for room."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from pg_bridge.asking import calls as of_calls
from pg_bridge.asking import together, windows
from pg_bridge.asking.calls import Calls
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.together import Round
from pg_bridge.engine import Engine
from pg_bridge.engine import engine as of_engine
from pg_bridge.options import Call, Server
from pg_bridge.testing.double import EngineDouble
from tests.component.test_engine_stopping import wait_until

PART = 1024


@pytest.fixture
def double() -> Iterator[EngineDouble]:
    with EngineDouble(answer=str) as running:
        yield running


@pytest.fixture(autouse=True)
def reading_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few rows are asked about while the others come."""
    monkeypatch.setattr(windows, "AHEAD_AFTER_S", 0.0)


def begin(double: EngineDouble, memory: Memory | None = None) -> Calls:
    held = memory or Memory()
    server = Server(name="vllm", endpoint=double.url, model="double")
    return Calls(held, lambda _: Round(held, 1, Engine(server)))


def add_part(calls: Calls, start: int, rows: int = PART, prompt: str = "Good {i}?", call: Call | None = None) -> None:
    texts: list[str | None] = [json.dumps({"i": i}) for i in range(start, start + rows)]
    calls.add([prompt] * rows, texts, {call or Call(): list(range(rows))})


def answers_of(calls: Calls) -> list[str | None]:
    answers: list[str | None] = []
    while not calls.are_taken:
        answers += calls.take()
    return answers


def expected(rows: int) -> list[str]:
    return [f'Good i?\n{{"i": {i}}}' for i in range(rows)]


def test_some_are_asked_while_others_come_and_none_twice(double: EngineDouble) -> None:
    memory = Memory()
    calls = begin(double, memory)
    for part in range(4):
        add_part(calls, part * PART)
        calls.ask_ahead()

    def all_is_sent() -> bool:
        calls.ask_ahead()  # of the same calls nothing more
        return len(double.received.prompts) >= 8 + 16 + 32

    wait_until(all_is_sent)
    assert len(double.received.prompts) < 100
    add_part(calls, 4 * PART, rows=10)
    assert answers_of(calls) == expected(4 * PART + 10)
    assert len(double.received.prompts) == len(set(double.received.prompts)) == 4 * PART + 10
    assert (memory.run.rows, memory.run.unique_prompts) == (4 * PART + 10, 4 * PART + 10)


def test_answers_are_taken_some_at_a_time(double: EngineDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_calls, "ANSWER_CHARS", 1000)
    calls = begin(double)
    add_part(calls, 0, rows=100)
    first = calls.take()
    assert 0 < len(first) < 100
    assert not calls.are_taken
    assert first + answers_of(calls) == expected(100)


def test_no_part_waits_for_an_engine_that_does_not_answer(
    double: EngineDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More goes ahead only while there is room, so the rows are read on, however slow the engine is."""
    monkeypatch.setattr(of_engine, "AHEAD_PROMPTS", 40)
    monkeypatch.setattr(together, "AHEAD_PROMPTS", 40)
    double.behaviour.hang = True
    calls = begin(double)
    for part in range(40):
        add_part(calls, part * PART)
        calls.ask_ahead()
    wait_until(lambda: double.received.in_flight > 0)
    assert len(double.received.prompts) < 40
    calls.close()
    calls.close()
    wait_until(lambda: double.received.in_flight == 0)
    assert calls.is_closed


def test_nothing_goes_ahead_of_rows_that_are_soon_read(double: EngineDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "AHEAD_AFTER_S", 1000.0)
    calls = begin(double)
    for part in range(4):
        add_part(calls, part * PART)
        calls.ask_ahead()
    assert not double.received.prompts
    assert answers_of(calls) == expected(4 * PART)


def test_calls_that_are_questions_of_their_own_do_not_go_ahead(double: EngineDouble) -> None:
    calls = begin(double)
    for part in range(2):
        add_part(calls, part * PART, call=Call(dedup=False))
        calls.ask_ahead()
    assert not double.received.prompts
    add_part(calls, 0, call=Call(dedup=False))
    assert answers_of(calls) == [*expected(2 * PART), *expected(PART)]
    assert len(double.received.prompts) == 3 * PART


def test_what_another_node_is_answered_meanwhile_holds_for_both(double: EngineDouble) -> None:
    """One reads the rows of the other: each question has one answer, which both give."""
    draws = iter(range(100_000))
    double.behaviour.answer = lambda prompt: f"{prompt} {next(draws)}"
    memory = Memory()
    outer, inner = begin(double, memory), begin(double, memory)
    add_part(outer, 0)
    outer.ask_ahead()
    add_part(inner, 0)
    of_inner = answers_of(inner)
    assert answers_of(outer) == of_inner


def test_windows_within_a_window(double: EngineDouble) -> None:
    calls = begin(double)
    for part in range(3):
        add_part(calls, part * PART, call=Call(window_rows=1500))
        calls.ask_ahead()
    assert answers_of(calls) == expected(3 * PART)
    assert len(double.received.prompts) == len(set(double.received.prompts)) == 3 * PART

"""How long an engine is waited for that is gone, is starting, or asks to come again later; and who is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pg_bridge.engine import Acquaintance, Completion, Engine, Notice, Sampling
from pg_bridge.errors import EngineError, EngineUnreachable
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble
from tests.component.test_engine_faults import server

SAMPLING = Sampling(max_tokens=64, temperature=0.0, system_prompt="")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pg_bridge.engine.client.FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr("pg_bridge.engine.client.LONGEST_BACKOFF_S", 0.02)


def ask(engine: Engine, count: int = 20) -> list[Completion]:
    return list(engine.complete(iter([f"row {i}" for i in range(count)]), SAMPLING, eager=True))


@contextmanager
def restarted(double: EngineDouble, after_polls: int) -> Iterator[Callable[[], None]]:
    """Ends an engine when it has answered, and starts it again on its port after so many looks for interrupts."""
    port = int(double.url.rpartition(":")[2])
    polls_left: list[int] = []
    again = EngineDouble(port=port)

    def look() -> None:
        if not polls_left and double.received.answered:
            double.__exit__(None, None, None)
            polls_left.append(after_polls)
        elif polls_left and polls_left[0] > 0:
            polls_left[0] -= 1
            if not polls_left[0]:
                again.__enter__()

    try:
        yield look
    finally:
        if polls_left and not polls_left[0]:
            again.__exit__(None, None, None)


def test_an_engine_that_has_answered_and_is_gone_will_be_back() -> None:
    double = EngineDouble(delay_s=0.01).__enter__()
    with restarted(double, after_polls=30) as look:
        known = Server("vllm", double.url, "double", connect_timeout_s=0.1, max_in_flight=8)
        assert len(ask(Engine(known, check_interrupts=look), 200)) == 200


def test_one_that_is_not_back_in_time_ends_the_run() -> None:
    double = EngineDouble(delay_s=0.01).__enter__()
    with restarted(double, after_polls=10**9) as look, pytest.raises(EngineUnreachable, match="connection refused"):
        known = Server("vllm", double.url, "double", connect_timeout_s=60, patience_s=0.3, max_in_flight=8)
        ask(Engine(known, check_interrupts=look), 200)


def test_one_that_has_never_answered_may_be_a_wrong_endpoint() -> None:
    with EngineDouble() as double:
        gone = double.url
    started_s = time.monotonic()
    with pytest.raises(EngineUnreachable, match="connection refused"):
        ask(Engine(Server("vllm", gone, "double", connect_timeout_s=0.2)))
    assert time.monotonic() - started_s < 20  # of 300


def test_one_that_lists_its_models_has_answered_no_prompt() -> None:
    known = Acquaintance()
    with EngineDouble(models=()) as engine, pytest.raises(EngineError):
        ask(Engine(server(engine, model=None), acquaintance=known))
    assert not known.has_answered


def test_one_that_answered_an_earlier_run_is_waited_for() -> None:
    known = Acquaintance()
    with EngineDouble() as engine:
        ask(Engine(server(engine), acquaintance=known))
        assert known.has_answered
        engine.behaviour.fail_first = 30
        engine.behaviour.fail_status = 503
        assert len(ask(Engine(server(engine, max_retries=0), acquaintance=known))) == 20


@pytest.mark.parametrize("status", [429, 503])
def test_five_refusals_in_a_row_end_no_run_that_has_been_answered(status: int) -> None:
    with EngineDouble() as engine:
        began: list[None] = []

        def begin_to_fail() -> None:
            if not began and engine.received.answered >= 100:
                engine.behaviour.fail_status = status
                engine.behaviour.fail_first = 60
                began.append(None)

        caller = Engine(server(engine, max_in_flight=8, max_retries=1), check_interrupts=begin_to_fail)
        assert len(ask(caller, 400)) == 400
        assert began
        assert caller.usage.retries == 60


@pytest.mark.parametrize("status", [500, 502, 504])
def test_what_is_no_wish_for_patience_is_tried_again_as_often_as_said(status: int) -> None:
    known = Acquaintance(has_answered=True)
    failed = pytest.raises(EngineError, match=rf"status {status} after 2 retries")
    with EngineDouble(fail_first=1000, fail_status=status) as engine, failed:
        ask(Engine(server(engine, max_retries=2), acquaintance=known))


@pytest.mark.parametrize("status", [429, 503])
def test_one_that_is_starting_is_waited_for_where_the_server_says_so(status: int) -> None:
    with EngineDouble(fail_first=30, fail_status=status) as engine:
        assert len(ask(Engine(server(engine, max_retries=0, patience_s=60)))) == 20
    with EngineDouble(fail_first=30, fail_status=status) as engine:
        with pytest.raises(EngineError, match=rf"status {status}"):
            ask(Engine(server(engine, max_retries=0)))
        assert len(engine.received.requests) <= 4


@pytest.mark.parametrize("retry_after_s", [None, 0.02])
def test_no_patience_is_none(retry_after_s: float | None) -> None:
    with EngineDouble(fail_first=10**9, fail_status=429, retry_after_s=retry_after_s) as engine:
        with pytest.raises(EngineError, match="must be asked later"):
            ask(Engine(server(engine, patience_s=0)))
        assert len(engine.received.requests) <= 4
    with pytest.raises(EngineUnreachable):
        ask(Engine(server(engine, patience_s=0)))


@pytest.mark.slow
def test_an_answer_renews_the_patience() -> None:
    """Every second request fails, for longer than the patience in sum."""
    with EngineDouble(delay_s=0.05) as engine:
        engine.behaviour.fail_status = 503

        def fail_one() -> None:
            engine.behaviour.fail_first = 1

        known = server(engine, max_in_flight=1, patience_s=1.5)
        started_s = time.monotonic()
        caller = Engine(known, check_interrupts=fail_one)
        assert len(ask(caller, 60)) == 60
        assert time.monotonic() - started_s > 1.5
        assert caller.usage.retries >= 30


def test_the_user_is_told_once_and_can_stop_it() -> None:
    class Stopped(Exception):
        pass

    told: list[Notice] = []

    def stop() -> None:
        if told:
            raise Stopped

    with EngineDouble(fail_first=10**9, fail_status=429, retry_after_s=20) as engine:
        started_s = time.monotonic()
        with pytest.raises(Stopped):
            ask(Engine(server(engine), check_interrupts=stop, tell=told.append))
        assert time.monotonic() - started_s < 10
    assert told[0].message == 'waiting for the engine of server "vllm": it asks to come again in 20 s (HTTP status 429)'
    assert "300 s" in told[0].hint
    assert "cancelled" in told[0].hint


def test_nobody_is_told_of_moments_or_twice() -> None:
    told: list[Notice] = []
    with EngineDouble(fail_first=3, fail_status=429, retry_after_s=0.02) as engine:
        ask(Engine(server(engine), tell=told.append))
    assert told == []
    with EngineDouble(fail_first=3, fail_status=503, retry_after_s=1.0) as engine:
        ask(Engine(server(engine), tell=told.append), 1)
    assert len(told) == 1

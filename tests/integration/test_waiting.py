"""An engine that is gone, starting or overloaded for a while ends no statement: it is waited for, and the user told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, create_server
from tests.integration.test_faults import WITHIN_S, asked, eventually, once

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

COUNT = "SELECT count(output) FROM llm.map('SELECT i FROM generate_series(1, 400) AS i', '{i}')"


@pytest.fixture
def told(db: Conn) -> Iterator[list[str]]:
    """The notices of the session."""
    notices: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        notices.append(f"{diagnostic.severity}: {diagnostic.message_primary} ({diagnostic.message_hint})")

    db.add_notice_handler(note)
    yield notices
    db.remove_notice_handler(note)


def test_an_engine_that_is_restarted_in_the_middle_loses_no_row(db: Conn, told: list[str]) -> None:
    first = EngineDouble(delay_s=0.05).__enter__()
    second = EngineDouble(port=int(first.url.rpartition(":")[2]))
    create_server(db, first.url, connect_timeout_s="0.3", max_in_flight="16")

    def restart() -> None:
        first.__exit__(None, None, None)
        time.sleep(1.5)
        second.__enter__()

    with once(asked(first, 50), restart):
        found = db.execute(COUNT).fetchone()
    second.__exit__(None, None, None)
    assert found == (400,)
    assert [notice for notice in told if notice.startswith("NOTICE: waiting")] == [
        'NOTICE: waiting for the engine of server "vllm": connection refused '
        "(It is waited for for 300 s, the server's patience_s; the statement can be cancelled.)"
    ]


def test_an_overloaded_engine_is_waited_for_and_a_cancel_ends_that(
    db: Conn, engine: EngineDouble, connect: Connect, told: list[str]
) -> None:
    create_server(db, engine.url, max_retries="0", model="double")
    engine.behaviour.fail_first = 10**9
    engine.behaviour.fail_status = 429
    engine.behaviour.retry_after_s = 30
    other = connect()
    cancel = lambda: other.execute("SELECT pg_cancel_backend(%s)", [db.info.backend_pid])  # noqa: E731
    with once(lambda: told, cancel) as since, pytest.raises(psycopg.errors.QueryCanceled):
        db.execute(COUNT)
    assert since() < WITHIN_S
    assert len(told) == 1
    assert "asks to come again in 30 s (HTTP status 429)" in told[0]


def test_many_refusals_without_a_time_end_no_statement_that_was_answered(db: Conn, engine: EngineDouble) -> None:
    create_server(db, engine.url, max_retries="0", max_in_flight="16")
    engine.behaviour.delay_s = 0.02
    engine.behaviour.fail_status = 503

    def begin_to_fail() -> None:
        engine.behaviour.fail_first = 12

    with once(lambda: engine.received.answered > 50, begin_to_fail):
        assert db.execute(COUNT).fetchone() == (400,)
    assert engine.behaviour.fail_first == 0


@pytest.mark.parametrize("calls", ["llm.complete('x')", "llm.complete('{i}', q, on_error => 'null')"])
def test_a_wrong_endpoint_is_said_soon_and_in_one_word(db: Conn, told: list[str], calls: str) -> None:
    with EngineDouble() as double:
        gone = double.url
    create_server(db, gone, connect_timeout_s="0.3")
    started_s = time.monotonic()
    with pytest.raises(psycopg.OperationalError) as caught:
        db.execute(f"SELECT {calls} FROM (VALUES (1), (2)) AS q (i)".encode())
    assert time.monotonic() - started_s < WITHIN_S
    assert "connection refused" in str(caught.value)
    assert not [notice for notice in told if "waiting" in notice]


def test_an_engine_that_starts_while_the_statement_runs(db: Conn) -> None:
    with EngineDouble() as double:
        late = EngineDouble(port=int(double.url.rpartition(":")[2]))
    create_server(db, double.url, connect_timeout_s="0.3", patience_s="120")

    def start_late() -> None:
        asks = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Extension'"
        with psycopg.connect(db.info.dsn, autocommit=True) as other:
            eventually(lambda: other.execute(asks, [pid]).fetchone() == (1,))
        late.__enter__()

    pid = db.info.backend_pid
    thread = threading.Thread(target=start_late)
    thread.start()
    found = db.execute(COUNT).fetchone()
    thread.join()
    late.__exit__(None, None, None)
    assert found == (400,)

"""What goes wrong must be said clearly, stop at once and leave nothing behind."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database, create_server
from tests.integration.test_map import ask

MULTICORN_IS_SLOW = True

KEEP_DATABASE = True  # what one fault leaves behind in the session, another test sees

Conn = psycopg.Connection[Any]

MANY = "SELECT i FROM generate_series(1, 2000) AS i"
WITHIN_S = 20.0  # far less than what hangs would take, and enough for a busy machine


@contextmanager
def once(condition: Callable[[], object], action: Callable[[], object]) -> Iterator[Callable[[], float]]:
    """Do something while the block waits, as soon as there is reason to; gives the seconds since it was done."""
    done: list[float] = []

    def act() -> None:
        eventually(condition)
        done.append(time.monotonic())
        action()

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield lambda: time.monotonic() - done[0]
    finally:
        thread.join()


def eventually(condition: Callable[[], object], within_s: float = 6 * WITHIN_S) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def asked(engine: EngineDouble, prompts: int = 1) -> Callable[[], bool]:
    return lambda: len(engine.received.prompts) >= prompts


def assert_sound(conn: Conn, engine: EngineDouble) -> None:
    """The session goes on to work, and nothing of the failed run is in flight."""
    assert eventually(lambda: engine.received.in_flight == 0)
    engine.behaviour.hang = False
    engine.behaviour.delay_s = 0
    assert len(ask(conn, "SELECT i FROM generate_series(1, 50) AS i", "{i} again")) == 50


# -- cancel


def test_pg_cancel_backend_stops_the_statement_and_the_requests(
    conn: Conn, connect: Connect, engine: EngineDouble
) -> None:
    engine.behaviour.hang = True
    other = connect()
    cancel = lambda: other.execute("SELECT pg_cancel_backend(%s)", [conn.info.backend_pid])  # noqa: E731
    with once(asked(engine), cancel) as since, pytest.raises(psycopg.errors.QueryCanceled, match="due to user request"):
        ask(conn, MANY, "{i}")
    assert since() < WITHIN_S
    assert_sound(conn, engine)


def test_statement_timeout(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.hang = True
    conn.execute("SET statement_timeout = '300ms'")
    started = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled, match="due to statement timeout"):
        ask(conn, MANY, "{i}")
    assert time.monotonic() - started < 0.3 + WITHIN_S
    conn.execute("RESET statement_timeout")
    assert_sound(conn, engine)


def test_a_cancel_between_answers(conn: Conn, connect: Connect, engine: EngineDouble) -> None:
    engine.behaviour.delay_s = 0.05
    other = connect()
    cancel = lambda: other.execute("SELECT pg_cancel_backend(%s)", [conn.info.backend_pid])  # noqa: E731
    with once(asked(engine, 50), cancel) as since, pytest.raises(psycopg.errors.QueryCanceled):
        ask(conn, "SELECT i FROM generate_series(1, 200000) AS i", "{i}")
    assert since() < WITHIN_S
    assert_sound(conn, engine)


def test_llm_complete_can_be_cancelled(conn: Conn, connect: Connect, engine: EngineDouble) -> None:
    engine.behaviour.hang = True
    other = connect()
    cancel = lambda: other.execute("SELECT pg_cancel_backend(%s)", [conn.info.backend_pid])  # noqa: E731
    with once(asked(engine), cancel) as since, pytest.raises(psycopg.errors.QueryCanceled):
        conn.execute("SELECT llm.complete('x')")
    assert since() < WITHIN_S
    assert_sound(conn, engine)


def test_dropping_another_database_does_not_wait_for_the_engine(
    conn: Conn, connect: Connect, engine: EngineDouble
) -> None:
    engine.behaviour.hang = True
    other = connect()
    other.execute("CREATE DATABASE doomed")
    other.execute("SET statement_timeout = '60s'")

    def drop_and_cancel() -> None:
        try:
            other.execute("DROP DATABASE doomed")
        finally:
            conn.cancel_safe()

    with once(asked(engine), drop_and_cancel), pytest.raises(psycopg.errors.QueryCanceled):
        ask(conn, MANY, "{i}")
    databases = other.execute("SELECT count(*) FROM pg_database WHERE datname = 'doomed'").fetchone()
    other.execute("RESET statement_timeout")
    other.execute("DROP DATABASE IF EXISTS doomed")
    assert databases == (0,)
    assert_sound(conn, engine)


def test_a_closed_client_stops_the_statement(fresh: Conn, connect: Connect, engine: EngineDouble) -> None:
    engine.behaviour.hang = True
    leaving = connect()
    pid = leaving.info.backend_pid

    def run() -> None:
        with pytest.raises(psycopg.Error):
            ask(leaving, MANY, "{i}")

    thread = threading.Thread(target=run)
    thread.start()
    assert eventually(lambda: engine.received.requests)
    with socket.socket(fileno=leaving.fileno()) as own:
        own.shutdown(socket.SHUT_RDWR)
        own.detach()
    gone = lambda: fresh.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone() == (0,)  # noqa: E731
    assert eventually(gone)
    thread.join()
    assert eventually(lambda: engine.received.aborted == len(engine.received.requests))


def test_pg_terminate_backend(fresh: Conn, connect: Connect, engine: EngineDouble) -> None:
    engine.behaviour.hang = True
    victim = connect()
    end = lambda: fresh.execute("SELECT pg_terminate_backend(%s)", [victim.info.backend_pid])  # noqa: E731
    with once(asked(engine), end) as since, pytest.raises(psycopg.errors.AdminShutdown):
        ask(victim, MANY, "{i}")
    assert since() < WITHIN_S
    assert eventually(lambda: engine.received.aborted == len(engine.received.requests))


def test_an_error_elsewhere_in_the_statement_aborts_what_is_in_flight(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.hang_after = 1
    engine.behaviour.delay_s = 0.3  # the second request is there before the first is answered
    with pytest.raises(psycopg.errors.DivisionByZero):
        conn.execute(
            "SELECT 1 / (row_id - row_id) "
            "FROM (SELECT (llm.map('SELECT i FROM generate_series(1, 9999) AS i', '{i}')).*) AS m"
        ).fetchall()
    assert eventually(lambda: engine.received.aborted)
    assert_sound(conn, engine)


def test_failing_statements_with_open_runs_never_crash_the_server(conn: Conn, engine: EngineDouble) -> None:
    started = conn.execute("SELECT pg_postmaster_start_time(), pg_backend_pid()").fetchone()
    run = "(llm.map('SELECT i FROM generate_series(1, 3000) AS i', '{i}')).*"
    for fails_at in range(1, 40, 3):
        with conn.transaction(), contextlib.suppress(psycopg.errors.DivisionByZero), conn.transaction():
            for name in ("a", "b", "c"):
                conn.execute(f"DECLARE {name} CURSOR FOR SELECT 1 / (row_id - {fails_at}) FROM (SELECT {run}) AS m")
                conn.execute(f"FETCH 1 FROM {name}")
            for name in ("b", "a", "c"):
                conn.execute(f"FETCH 99 FROM {name}")
    # An abort ends the session's state only; a crash would have ended the session, and every other one.
    assert conn.execute("SELECT pg_postmaster_start_time(), pg_backend_pid()").fetchone() == started
    assert_sound(conn, engine)


def test_a_rolled_back_savepoint_ends_an_open_cursor_s_run(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.hang_after = 1
    engine.behaviour.delay_s = 0.3  # the second request is there before the first is answered
    with conn.transaction():
        conn.execute("SAVEPOINT s")
        conn.execute("DECLARE c CURSOR FOR SELECT (llm.map('SELECT i FROM generate_series(1, 9999) AS i', '{i}')).*")
        conn.execute("FETCH 5 FROM c")
        assert engine.received.in_flight
        conn.execute("ROLLBACK TO s")
        assert eventually(lambda: engine.received.in_flight == 0)
        assert engine.received.aborted
    assert_sound(conn, engine)


def test_stopping_early_aborts_what_is_in_flight(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.hang_after = 1
    engine.behaviour.delay_s = 0.3  # the second request is there before the first is answered
    conn.execute("SELECT (llm.map('SELECT i FROM generate_series(1, 9999) AS i', '{i}')).* LIMIT 5")
    assert eventually(lambda: engine.received.aborted)
    assert_sound(conn, engine)


def test_the_backend_stays_a_process_of_one_thread(fresh: Conn) -> None:
    assert len(ask(fresh, MANY, "{i}")) == 2000
    assert len(list(Path(f"/proc/{fresh.info.backend_pid}/task").iterdir())) == 1


# -- the engine


def test_engine_unreachable(db: Conn) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    create_server(db, f"http://127.0.0.1:{port}", connect_timeout_s="1")
    started = time.monotonic()
    with pytest.raises(psycopg.OperationalError) as caught:
        ask(db, "SELECT 1 AS a", "{a}")
    assert caught.value.sqlstate == "08001"
    assert time.monotonic() - started < 1 + 2 * WITHIN_S  # the session's first call imports, too
    assert str(port) in str(caught.value)
    assert caught.value.diag.message_hint


def test_an_answer_that_never_comes(db: Conn, engine: EngineDouble) -> None:
    create_server(db, engine.url, request_timeout_s="0.5")
    engine.behaviour.hang = True
    started = time.monotonic()
    with pytest.raises(psycopg.OperationalError) as caught:
        ask(db, MANY, "{i}")
    assert caught.value.sqlstate == "08006"
    assert "request_timeout_s" in str(caught.value)
    assert time.monotonic() - started < 0.5 + 3 * WITHIN_S
    db.execute("ALTER SERVER vllm OPTIONS (SET request_timeout_s '60')")
    assert_sound(db, engine)


def test_unknown_model(db: Conn, engine: EngineDouble) -> None:
    create_server(db, engine.url, model="nope")
    with pytest.raises(psycopg.errors.UndefinedObject, match="nope") as caught:
        ask(db, MANY, "{i}")
    assert "double" in (caught.value.diag.message_hint or "")


def test_the_engine_s_key_comes_from_the_user_mapping_and_is_never_shown(
    fresh: Conn, engine: EngineDouble, database: Database
) -> None:
    engine.behaviour.api_key = "sk-hush-hush"
    with pytest.raises(psycopg.errors.InvalidAuthorizationSpecification) as caught:
        ask(fresh, "SELECT 1 AS a", "{a}")
    assert "USER MAPPING" in (caught.value.diag.message_hint or "")
    fresh.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (api_key 'sk-wrong-key')")
    with pytest.raises(psycopg.errors.InvalidAuthorizationSpecification) as caught:
        ask(fresh, "SELECT 1 AS a", "{a}")
    assert "sk-wrong" not in str(caught.value) + str(caught.value.diag.context)
    fresh.execute("ALTER USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (SET api_key 'sk-hush-hush')")
    assert len(ask(fresh, "SELECT 1 AS a", "{a}")) == 1
    fresh.execute("DROP USER MAPPING FOR CURRENT_USER SERVER vllm")
    fresh.execute("CREATE USER MAPPING FOR PUBLIC SERVER vllm OPTIONS (api_key 'sk-hush-hush')")
    assert len(ask(fresh, "SELECT 1 AS a", "{a}")) == 1
    plan = fresh.execute("EXPLAIN (VERBOSE, ANALYZE) SELECT * FROM llm.map('SELECT 1 AS a', '{a}')").fetchall()
    assert "hush" not in str(plan)


def test_the_engine_fails_for_a_while(fresh: Conn, engine: EngineDouble) -> None:
    engine.behaviour.fail_first = 2
    assert len(ask(fresh, MANY, "{i}")) == 2000
    fresh.execute("ALTER SERVER vllm OPTIONS (ADD model 'double')")  # else the list of models meets the drops
    engine.behaviour.drop_first = 2
    assert len(ask(fresh, MANY, "{i} more")) == 2000
    assert fresh.execute("SELECT retries FROM llm.last_run()").fetchone() == (2,)


def test_the_engine_dies_in_the_middle(db: Conn) -> None:
    with ExitStack() as engine_lives:
        engine = engine_lives.enter_context(EngineDouble(delay_s=0.05))
        create_server(db, engine.url, patience_s="0.5")
        with once(asked(engine, 50), engine_lives.close), pytest.raises(psycopg.OperationalError) as caught:
            ask(db, "SELECT i FROM generate_series(1, 100000) AS i", "{i}")
    assert caught.value.sqlstate == "08001"
    assert db.execute("SELECT 1").fetchone() == (1,)


def test_one_bad_row_fails_itself_and_not_its_neighbours(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.reject_marker = "poison"
    engine.behaviour.reject_echo = True
    query = (
        "SELECT i, CASE WHEN i IN (7, 900) THEN 'poison ' || i ELSE 'fine' END AS t FROM generate_series(1, 1000) AS i"
    )
    rows = ask(conn, query, "{i} {t}", on_error="null")
    assert len(rows) == 1000
    assert [row[0] for row in rows if row[2] is None] == [7, 900]
    assert all((row[3] is None) == (row[2] is not None) for row in rows)
    assert "poison 7" not in str([row[3] for row in rows])
    with pytest.raises(psycopg.errors.DataException, match=r"row (7|900)\b") as caught:
        ask(conn, query, "{i} {t}")
    assert caught.value.sqlstate == "22000"
    assert "poison 7" not in str(caught.value)


def test_a_row_too_long_for_the_engine(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.max_prompt_chars = 500
    rows = ask(conn, "VALUES ('short'), (repeat('x', 600))", "{column1}", on_error="null")
    assert rows[0][3] is None
    assert "maximum context length" in rows[1][3]


def test_malformed_answers(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.malformed = True
    with pytest.raises(psycopg.errors.SystemError) as caught:
        ask(conn, MANY, "{i}")
    assert caught.value.sqlstate == "58000"


@pytest.mark.slow
def test_an_engine_without_the_batch_endpoint(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.batch_endpoint = False
    assert len(ask(conn, MANY, "{i}")) == 2000
    assert {path for path, _ in engine.received.requests[-100:]} == {"/v1/chat/completions"}


def test_the_completions_interface(db: Conn, engine: EngineDouble) -> None:
    create_server(db, engine.url, api="completions")
    assert len(ask(db, MANY, "{i}")) == 2000
    assert {path for path, _ in engine.received.requests} == {"/v1/completions"}


# -- the row set


def test_a_query_that_fails_in_the_middle(conn: Conn, engine: EngineDouble) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        ask(conn, "SELECT 1 / (3000 - i) AS a FROM generate_series(1, 5000) AS i", "{a}")
    assert_sound(conn, engine)


@pytest.mark.parametrize("host", ["plpython"])
def test_an_error_inside_a_subtransaction_is_caught_by_the_caller(fresh: Conn, engine: EngineDouble) -> None:
    fresh.execute(
        "CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM * FROM llm.map('SELECT 1 AS a', '{nope}'); RETURN 'no error'; "
        "EXCEPTION WHEN undefined_column THEN RETURN 'caught'; END $$"
    )
    assert fresh.execute("SELECT f()").fetchone() == ("caught",)
    assert_sound(fresh, engine)


def test_a_hostile_value_is_data(conn: Conn, engine: EngineDouble) -> None:
    hostile = "'; DROP TABLE pg_class; -- \" } {column1} $(touch /tmp/x) \\u0000"
    rows = ask(conn, f"SELECT {psycopg.sql.Literal(hostile).as_string(conn)} AS v", "{v}")
    assert rows[0][1] == {"v": hostile}
    assert len(engine.received.prompts) == 1


def test_a_hostile_server_name_is_data(conn: Conn) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject):
        ask(conn, "SELECT 1 AS a", "{a}", server="x'; DROP TABLE t; --")

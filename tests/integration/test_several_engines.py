"""A server of several engines, asked through SQL: every answer on its row, figures of each and of all, clear errors."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import create_server
from tests.integration.test_faults import eventually

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

ROWS = "SELECT repeat('film ' || i / 50 || ' ', 30) AS film, i FROM generate_series(0, 1999) AS i"
QUERY = f"SELECT input ->> 'i', output FROM llm.map($${ROWS}$$, '{{film}} {{i}}')"
NOBODY = "http://127.0.0.1:9"
FIGURES = ("requests", "retries", "prompt_tokens", "cached_tokens", "completion_tokens")


def end_of(prompt: str) -> str:
    return prompt[-6:]


def both(one: EngineDouble, other: EngineDouble) -> str:
    return f"{one.url}/v1, {other.url}"


def test_figures_are_of_each_and_of_all(db: Conn) -> None:
    with EngineDouble(answer=end_of) as one, EngineDouble(answer=end_of) as other:
        create_server(db, both(one, other))
        rows = db.execute(QUERY.encode()).fetchall()
        assert len(rows) == 2000
        assert all(number in output for number, output in rows)
        told = db.execute(f"SELECT {', '.join(FIGURES)}, engines FROM llm.last_run()".encode()).fetchall()
        ((*sums, engines),) = told
        assert [each["endpoint"] for each in engines] == [one.url, other.url]
        assert [each["answered"] for each in engines] == [one.received.answered, other.received.answered]
        assert sums == [sum(each[name] for each in engines) for name in FIGURES]
        usage = db.execute("SELECT e FROM llm.usage(), jsonb_array_elements(engines) AS e").fetchall()
        assert [each for (each,) in usage if each["endpoint"] == one.url] == engines[:1]
        assert [each for (each,) in usage if each["endpoint"] == other.url] == engines[1:]


def test_one_engine_has_no_figures_of_its_own(db: Conn) -> None:
    with EngineDouble(answer=end_of) as double:
        create_server(db, double.url)
        db.execute(QUERY.encode())
        assert db.execute("SELECT engines FROM llm.last_run()").fetchone() == (None,)


@pytest.mark.slow
def test_progress_tells_of_each(db: Conn) -> None:
    watch = psycopg.connect(db.info.dsn, password=db.info.password, autocommit=True)
    with watch, EngineDouble(delay_s=0.2) as one, EngineDouble(delay_s=0.2) as other:
        create_server(db, both(one, other), max_in_flight="64")
        asking = threading.Thread(target=db.execute, args=(QUERY.encode(),))
        asking.start()

        def seen() -> list[Any]:
            return watch.execute("SELECT engines FROM llm.progress() WHERE engines IS NOT NULL").fetchall()

        eventually(lambda: bool(seen()))
        found = seen()
        asking.join()
    assert all([each["endpoint"] for each in engines] == [one.url, other.url] for (engines,) in found)


def test_engines_that_serve_different_models_are_an_error(db: Conn) -> None:
    with EngineDouble(models=["one"]) as one, EngineDouble(models=["other"]) as other:
        create_server(db, both(one, other))
        with pytest.raises(psycopg.Error, match="serve different models") as failed:
            db.execute(QUERY.encode())
        assert f"{other.url} serves other" in (failed.value.diag.message_detail or "")
        assert not one.received.prompts + other.received.prompts


def test_a_model_that_only_one_of_them_has_is_an_error(db: Conn) -> None:
    with EngineDouble(models=["one"]) as one, EngineDouble(models=["other"]) as other:
        create_server(db, both(one, other), model="one")
        with pytest.raises(psycopg.Error, match='no model named "one"') as failed:
            db.execute(QUERY.encode())
        assert other.url in (failed.value.diag.message_detail or "")
        assert not one.received.prompts + other.received.prompts


def test_all_down_is_one_error_that_names_each(db: Conn) -> None:
    create_server(db, f"{NOBODY} http://127.0.0.1:1", connect_timeout_s="0.3")
    with pytest.raises(psycopg.errors.SqlclientUnableToEstablishSqlconnection, match="none of the 2 engines") as failed:
        db.execute(QUERY.encode())
    detail = failed.value.diag.message_detail or ""
    assert f"{NOBODY}: could not connect" in detail
    assert "http://127.0.0.1:1: could not connect" in detail


def test_a_cancelled_statement_leaves_nothing_at_any_engine(db: Conn) -> None:
    with EngineDouble(hang=True) as one, EngineDouble(hang=True) as other:
        create_server(db, both(one, other))
        db.execute("SET statement_timeout = '2s'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            db.execute(QUERY.encode())
        db.execute("RESET statement_timeout")
        eventually(lambda: not one.received.in_flight and not other.received.in_flight)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://one:8000,http://one:8000",
        "http://one:8000 http://one:8000/v1/",
        "http://one:8000, http://ONE:8000//v1",
        "http://one, http://one:80",
        "http://one:8000, http://two:99999",
        "http://one:8000, http://two:0",
        "http://one:8000, http:///two",
        "http://one:8000, http://[::1",
        "http://one:8000,",
        ",http://one:8000",
        "http://one:8000,,http://two:8000",
        "http://one:8000; http://two:8000",
        "http://one:8000\nhttp://two:8000",
        "http://one:8000, two:8000",
        "http://one:8000, http://me@two:8000",
        "http://one:8000, file:///etc/passwd",
        "",
    ],
)
def test_an_endpoint_is_urls_each_once(db: Conn, endpoint: str) -> None:
    with ExitStack() as stack:
        failed = stack.enter_context(pytest.raises(psycopg.Error, match="endpoint"))
        create_server(db, endpoint)
    assert failed.value.sqlstate == "HV00A"


def test_engines_that_only_look_alike_are_several(db: Conn) -> None:
    create_server(db, "http://one, http://one:8000, https://one, http://one/a/v1, http://one/A, http://[::1]:80")


def test_health_is_of_each(db: Conn) -> None:
    with EngineDouble() as double:
        create_server(db, f"{double.url},{NOBODY}", connect_timeout_s="0.3")
        found = db.execute("SELECT endpoint, state FROM llm.health() WHERE item = 'reachable'").fetchall()
    assert found == [(double.url, "yes"), (NOBODY, "no")]


def test_a_strangers_figures_are_nobodys(db: Conn) -> None:
    with EngineDouble(answer=end_of) as one, EngineDouble(answer=end_of) as other:
        create_server(db, both(one, other))
        db.execute(QUERY.encode())
        db.execute("CREATE ROLE stranger_of_several")
        try:
            db.execute("SET ROLE stranger_of_several")
            assert db.execute("SELECT engines FROM llm.last_run()").fetchone() in (None, (None,))
            assert db.execute("SELECT count(*) FROM llm.usage()").fetchone() == (0,)
        finally:
            db.execute("RESET ROLE")
            db.execute("DROP ROLE stranger_of_several")

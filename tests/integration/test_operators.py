"""What is built on llm.complete and its kin: alone and in batches, anywhere in a query, hostile arguments included."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble

Conn = psycopg.Connection[Any]

ROWS = 40
TEXTS = 9  # different ones, of ROWS, and a row without one


@pytest.fixture(params=["on", "off"])
def conn(
    request: pytest.FixtureRequest, used_conn: Conn, used_engine: EngineDouble, cluster: Cluster, host: str
) -> Conn:
    """Calls are batched, or not; a table of reviews of which many say the same."""
    if request.param == "on" and not (cluster.has_module and host == "plpython"):
        pytest.skip("nothing is batched here")
    if cluster.has_module:
        used_conn.execute("LOAD 'pg_bridge'")
        used_conn.execute(f"SET pg_bridge.batching = {request.param}".encode())
    used_conn.execute("CREATE TEMP TABLE reviews (id int, review text)")
    used_conn.execute(
        f"INSERT INTO reviews SELECT i, 'text ' || i % {TEXTS} FROM generate_series(1, {ROWS - 1}) AS i"
        f" UNION ALL SELECT {ROWS}, NULL"
    )
    used_engine.reset()
    return used_conn


def is_batched(conn: Conn) -> bool:
    row = conn.execute("SELECT current_setting('pg_bridge.batching', true) = 'on'").fetchone()
    return row == (True,)


def rows_of(conn: Conn, query: str, *parameters: object) -> list[Any]:
    return conn.execute(query.encode(), parameters or None).fetchall()


def fails(conn: Conn, query: str, *parameters: object) -> psycopg.Error:
    """The error of a statement; the session is sound afterwards."""
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(query.encode(), parameters or None)
    assert conn.execute("SELECT 1").fetchone() == (1,)
    return caught.value


# -- whole numbers in a range


def test_a_score_keeps_to_its_range_on_its_row(conn: Conn, used_engine: EngineDouble) -> None:
    used_engine.behaviour.answer = lambda prompt: "12" if "text 3" in prompt else "7"
    query = (
        "SELECT id % 9, llm.score('How good is {review}?', r, low => 7, high => 12, cache => 'off') FROM reviews AS r"
    )
    assert set(rows_of(conn, f"{query} WHERE review IS NOT NULL")) == {(i, 12.0 if i == 3 else 7.0) for i in range(9)}
    if is_batched(conn):
        assert len(used_engine.received.prompts) == TEXTS
        assert {body["structured_outputs"]["regex"] for body in used_engine.received.bodies} == {"([7-9]|1[0-2])"}
    assert used_engine.received.prompts[0].startswith(
        "How good is review?\nAnswer with a whole number from 7 to 12.\n{"
    )


def test_a_score_beyond_its_range_is_its_rows_error(conn: Conn, used_engine: EngineDouble) -> None:
    used_engine.behaviour.ignore_choices = True
    used_engine.behaviour.answer = lambda prompt: "6" if "text 3" in prompt else "5"
    query = (
        "SELECT id % 9, llm.score('{review}?', r, low => 1, high => 5, cache => 'off', on_error => 'null')"
        " FROM reviews AS r WHERE id < 10"
    )
    assert set(rows_of(conn, query)) == {(i, None if i == 3 else 5.0) for i in range(9)}
    assert fails(conn, query.replace(", on_error => 'null'", "")).sqlstate == "22000"


def test_the_range_of_a_score_may_be_another_for_each_row(conn: Conn) -> None:
    query = "SELECT id, llm.score('How good is {review}?', r, low => id, high => id) FROM reviews AS r"
    assert sorted(rows_of(conn, query)) == [(i, float(i)) for i in range(1, ROWS + 1)]
    error = fails(conn, query.replace("high => id", "high => 30"))
    assert (error.sqlstate, error.diag.message_primary) == ("22023", "no number is from 31 to 30")

"""Batching gives the same rows: statements from a fresh seed each time, and traps that were stepped into once."""

from __future__ import annotations

import secrets
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.conftest import Connect, Database
from tests.generated.run import run_cases
from tests.generated.server import Server
from tests.integration.batch_functions import calls, make_functions, make_tables

Conn = psycopg.Connection[Any]

STATEMENTS = 400  # `make test-slow` runs more, `python -m tests.generated --count 20000` as many as one likes


@pytest.fixture
def host() -> str:
    """The functions that are batched are those of the PL/Python host."""
    return "plpython"


@pytest.fixture
def conn(batching: Database, db: Conn) -> Conn:
    make_functions(db)
    make_tables(db)
    return db


def rows_of(conn: Conn, query: str) -> list[str] | str:
    try:
        return sorted(map(repr, conn.execute(query.encode()).fetchall()))
    except psycopg.Error as error:
        return f"{error.sqlstate} {error.diag.message_primary}"


@pytest.mark.timeout(300)
def test_generated_statements(batching: Database) -> None:
    seed = secrets.randbelow(10**9)
    server = Server(batching.dsn)
    try:
        summary = run_cases(server, [f"{seed}.{number}" for number in range(STATEMENTS)])
    finally:
        server.close()
    assert not summary.differences, "\n".join(map(str, summary.differences))
    assert summary.batched > STATEMENTS * 0.5
    assert summary.failed < STATEMENTS * 0.05
    assert summary.slow < STATEMENTS * 0.05


# Each was wrong once: what a window aggregation, a bounded sort, or a row that is skipped wants of its neighbours.
TRAPS = (
    "SELECT * FROM (SELECT word(t, g) AS w, row_number() OVER (ORDER BY id) AS r FROM a) AS s WHERE r < 5",
    "SELECT * FROM (SELECT t, rank() OVER (ORDER BY g) AS r, word(t, g), count(*) OVER () FROM a) AS s WHERE r <= 9",
    "SELECT id, word(t, 1) FROM p ORDER BY id LIMIT 7 OFFSET 3",
    "SELECT a.id, l.* FROM a, LATERAL (SELECT b.id AS i, word(t, 1) FROM b ORDER BY n DESC, i LIMIT a.g) AS l",
    "SELECT a.id, l.* FROM a, LATERAL (SELECT b.id AS i, word(t, 1) FROM b ORDER BY n DESC, i LIMIT a.g * 9) AS l",
    "SELECT a.id, l.* FROM a, LATERAL (SELECT id AS i, word(t, 1) FROM b ORDER BY n DESC, i LIMIT nullif(a.g, 3)) AS l",
    "SELECT generate_series(1, length(word(b.t, 1)) % 4)::text, word(b.t, 1) FROM a LEFT JOIN b ON b.a_id = a.id",
    "SELECT i, word('X', i) FROM generate_series(1, 40000) AS i ORDER BY i DESC LIMIT 20000",
    "SELECT id, word(t, 1) FROM a ORDER BY g, id LIMIT 3 FOR UPDATE SKIP LOCKED",
    "SELECT id, word(t, 1) FROM a WHERE passes(a, 3) ORDER BY g, id LIMIT 3 FOR UPDATE SKIP LOCKED",
)


@pytest.mark.parametrize("window_rows", [1, 7, 16384])
def test_traps(conn: Conn, connect: Connect, window_rows: int) -> None:
    other = connect(autocommit=False)
    other.execute("SELECT FROM a WHERE g = 0 AND id < 9 FOR UPDATE")
    conn.execute(sql.SQL("SET pg_bridge.window_rows = {}").format(sql.Literal(window_rows)))
    for query in TRAPS:
        conn.execute("SET pg_bridge.batching = off")
        expected = rows_of(conn, query)
        assert isinstance(expected, list)
        calls(conn)
        conn.execute("SET pg_bridge.batching = on")
        assert rows_of(conn, query) == expected, query
        assert calls(conn), query

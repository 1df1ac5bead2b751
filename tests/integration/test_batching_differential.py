"""Batching gives the same rows: statements from a fresh seed each time, and traps that were stepped into once."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.conftest import Connect, Database
from tests.generated.run import run_cases
from tests.generated.server import Server
from tests.generated.statements import Case
from tests.integration.batch_functions import calls, make_functions, make_tables

Conn = psycopg.Connection[Any]

SEED = 20261128  # one, for a new one may find what is no fault of the change at hand
STATEMENTS = 250  # `make test-slow` runs more, `python -m tests.generated --count 20000` as many as one likes


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
    server = Server(batching.dsn)
    try:
        summary = run_cases(server, [f"{SEED}.{number}" for number in range(STATEMENTS)])
    finally:
        server.close()
    assert not summary.differences, "\n".join(map(str, summary.differences))
    assert summary.batched > STATEMENTS * 0.5
    assert summary.failed < STATEMENTS * 0.05
    assert summary.slow < STATEMENTS * 0.05


# Generated statements that were wrong once, with their roles: what waits, what stands below it, what a join relies on.
ONCE_WRONG = (
    (
        "generated_reader",
        "SELECT coalesce(x.t, word(x.t, x.id)) FROM vault AS x JOIN secret AS y ON x.id = y.id"
        " WHERE leak(x.t, x.id) > ALL (SELECT r1.t FROM secret AS r1 WHERE r1.id = y.id) FOR UPDATE",
    ),
    (
        "generated_reader",
        "SELECT r1.t FROM guarded AS r1 FULL JOIN (SELECT (SELECT max(r3) FROM unnest(ARRAY[leak(r2.t, r2.id)]) AS r3"
        " WHERE r2.id = r2.g) AS c2 FROM srf_vault() AS r2 WHERE word(r2.t, r2.id) LIKE '%0%') AS r4 ON r1.t = r4.c2",
    ),
    (
        "generated_reader",
        "SELECT r1.t FROM guarded AS r1 JOIN secret AS r2 ON r1.id = r2.id"
        " WHERE CASE r1.t WHEN word(r1.t, r1.id) THEN r1.t ELSE strictly(r1.t, r2.id) END < ANY"
        " (SELECT r3.t FROM secret AS r3 WHERE r3.id IS NOT NULL AND word(r3.t, r3.id) IS NOT NULL)",
    ),
    (
        "none",
        "WITH r1 AS NOT MATERIALIZED (SELECT NOT (r2.t = word(r2.t, r2.id)) AS c1, CASE measure(r2.t, r2.id)"
        " WHEN 1 THEN leak((r2.arr)[r2.g], length(word(r3.t, r2.g))) WHEN (SELECT count(*)::int FROM secret AS r5"
        " WHERE r5.id = r5.g AND tell(r2.t)) THEN upper(word(r2.t, r2.id)) || r2.t END AS c2,"
        " (SELECT count(*)::int FROM locked AS r6 WHERE r6.id = r2.g AND slow(r2.g)) AS c3 FROM a AS r2"
        " CROSS JOIN LATERAL (SELECT word(CASE WHEN 2 IS NOT NULL THEN leak(r2.t, r2.id) ELSE r2.t END,"
        " (ROW(r2.id, r2.t)::pair).x) AS t LIMIT 1) AS r3) SELECT r8.c3 FROM r1 AS r7 JOIN r1 AS r8 ON r7.c1 = r8.c1"
        " WHERE r8.c2 IN (word(r7.c2, r7.c3), 'word 1-1', r7.c2)",
    ),
    (
        "none",
        "SELECT r1.t FROM listed(0) AS r1 FULL JOIN a AS r2 ON r1.id = r2.id"
        " WHERE passes(r1, 2) AND word(r2.t, r1.id) <> ''",
    ),
    (
        "generated_reader",
        "SELECT strictly(r1.t, r1.id) FROM secret AS r1 JOIN generate_series(1, 0) AS r2 (id) ON r1.id = r2.id"
        " UNION ALL SELECT leak(r3.t, r3.id) FROM srf_vault() AS r3",
    ),
    (
        "none",
        "SELECT r1.t, count(*) FROM a AS r1 JOIN (SELECT (SELECT count(*)::int FROM a) AS n FROM a AS r2"
        " WHERE r2.t = strictly(r2.t, r2.id) OR r2.id > 3) AS r4 ON r1.id = r4.n GROUP BY ROLLUP (r1.t)",
    ),
    ("none", "SELECT r1.t, word(r1.t, 1) FROM a AS r1 WHERE ROW(r1.id, word(r1.t, r1.id)) < ROW(2, word(r1.t, r1.id))"),
)


def test_statements_that_were_wrong_once(batching: Database) -> None:
    server = Server(batching.dsn)
    try:
        for role, step in ONCE_WRONG:
            for settings in ({}, {"enable_hashjoin": "off", "enable_nestloop": "off"}):
                what, off, on = server.difference(Case(settings, role, (step,)))
                assert not what, f"{what}: {step}"
                assert on.batches or off.timed_out, step  # as on a machine that does much else
    finally:
        server.close()


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


@pytest.mark.some(2)
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

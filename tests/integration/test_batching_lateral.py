"""Calls of the row at hand, in what is run once a row: functions in FROM, VALUES, SELECTs, look-ups, subqueries."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.integration.batch_functions import calls, make_functions, make_tables

Conn = psycopg.Connection[Any]

ROWS = 60  # of a; a quarter of them has a g of 3
PARTS = "unnest(string_to_array(word(a.t, a.g), '-'))"


@pytest.fixture
def host() -> str:
    """The functions that are batched are those of the PL/Python host."""
    return "plpython"


@pytest.fixture
def own(batching: Database, db: Conn) -> Conn:
    make_functions(db)
    make_tables(db)
    return db


def rows_of(conn: Conn, query: str) -> list[str]:
    return sorted(map(repr, conn.execute(query.encode()).fetchall()))


# A query, and the batches and calls that it takes.
QUERIES = {
    "function": (f"SELECT a.id, e FROM a, {PARTS} AS e", 1, ROWS),
    "left join": (f"SELECT a.id, e FROM a LEFT JOIN LATERAL {PARTS} AS e ON true", 1, ROWS),
    "left join, condition": (f"SELECT a.id, e FROM a LEFT JOIN LATERAL {PARTS} AS e ON e > '2'", 1, ROWS),
    "ordinality": (f"SELECT a.id, e, o FROM a, {PARTS} WITH ORDINALITY AS e (e, o)", 1, ROWS),
    "rows from": (f"SELECT a.id, f.* FROM a, ROWS FROM ({PARTS}, unnest(ARRAY[word(a.t, 7)])) AS f", 2, 2 * ROWS),
    "scalar": ("SELECT a.id, w FROM a, word(a.t, a.g) AS w", 1, ROWS),
    "values": ("SELECT a.id, w FROM a, LATERAL (VALUES (word(a.t, 1)), (word(a.t, 2))) AS v (w)", 2, 2 * ROWS),
    "select": ("SELECT a.id, w FROM a, LATERAL (SELECT word(a.t, a.g) AS w OFFSET 0) AS s", 1, ROWS),
    "select, limit": ("SELECT a.id, w FROM a, LATERAL (SELECT word(a.t, a.g) AS w LIMIT 1) AS s", 1, ROWS),
    "select, where": ("SELECT a.id, w FROM a, LATERAL (SELECT word(a.t, 1) AS w WHERE a.g = 3 OFFSET 0) AS s", 1, 15),
    "select, where it is": (
        "SELECT a.id FROM a, LATERAL (SELECT 1 WHERE word(a.t, a.g) LIKE '%3' OFFSET 0) AS s",
        1,
        ROWS,
    ),
    "select of elements": (f"SELECT a.id, w FROM a, LATERAL (SELECT {PARTS} AS w) AS s", 1, ROWS),
    "aggregate": (f"SELECT a.id, n FROM a, LATERAL (SELECT count(*) AS n FROM {PARTS}) AS s", 1, ROWS),
    "first element": (f"SELECT a.id, w FROM a, LATERAL (SELECT w FROM {PARTS} AS w ORDER BY w LIMIT 1) AS s", 1, ROWS),
    "union": (
        "SELECT a.id, w FROM a, LATERAL (SELECT word(a.t, a.g) AS w UNION ALL SELECT word(a.t, 9)) AS s",
        2,
        2 * ROWS,
    ),
    "one after another": (
        f"SELECT a.id, w, x FROM a, {PARTS} AS w, unnest(string_to_array(word(w, a.g), '-')) AS x WHERE a.g = 3",
        2,
        15 + 26,  # two have no text, and the others' answers two parts
    ),
    "over a join": (
        "SELECT a.id, e FROM a JOIN b ON b.a_id = a.id, unnest(string_to_array(word(b.t, a.g), '-')) AS e",
        1,
        66,
    ),
    "call of a call": (
        "SELECT a.id, e FROM a, unnest(string_to_array(word(word(a.t, 1), a.g), '-')) AS e",
        2,
        2 * ROWS,
    ),
    "case": (
        "SELECT a.id, e FROM a, unnest(string_to_array(CASE WHEN a.g = 3 THEN word(a.t, a.g) ELSE 'x' END, '-')) AS e",
        1,
        15,
    ),
    "memoize": ("SELECT a.id, e FROM a, unnest(ARRAY[word(a.g::text, a.g), 'x']) AS e", 1, ROWS),
    "update": (
        f"WITH u AS (UPDATE b SET t = e FROM a, {PARTS} AS e WHERE b.id = a.id RETURNING e) SELECT * FROM u",
        1,
        ROWS,
    ),
    # subqueries, in expressions
    "count": (f"SELECT id, (SELECT count(*) FROM {PARTS} AS e) FROM a", 1, ROWS),
    "exists": (f"SELECT id FROM a WHERE EXISTS (SELECT FROM {PARTS} AS e WHERE e = '2')", 1, ROWS),
    "in": (f"SELECT id FROM a WHERE g = 3 AND '2' NOT IN (SELECT e FROM {PARTS} AS e)", 1, 15),
    "array": (f"SELECT id, ARRAY(SELECT upper(e) FROM {PARTS} AS e) FROM a", 1, ROWS),
    "subquery, case": (f"SELECT CASE WHEN g = 3 THEN (SELECT max(e) FROM {PARTS} AS e) END FROM a", 1, 15),
    "subquery, gate": (f"SELECT id, (SELECT max(e) FROM {PARTS} AS e WHERE a.g = 3) FROM a", 1, 15),
    "subquery of an aggregate": (
        "SELECT g, (SELECT count(*) FROM unnest(ARRAY[word(max(a.t), a.g)])) FROM a GROUP BY g",
        1,
        4,
    ),
    "subquery of partitions": (  # they share a plan before
        "SELECT id, (SELECT max(e) FROM unnest(ARRAY[word(p.t, 1)]) AS e), word(t, 2) FROM p",
        4,
        80,
    ),
    "the same twice": (
        f"SELECT id, x, x FROM (SELECT id, (SELECT count(*) FROM {PARTS} AS e) AS x FROM a) AS s WHERE x > 1",
        1,
        ROWS,
    ),
    "subquery in an aggregate": (f"SELECT sum((SELECT count(*) FROM {PARTS} AS e)) FROM a", 1, ROWS),
    "subquery of a join": (
        "SELECT b.id FROM a JOIN b ON b.a_id = a.id AND a.g = 3"
        " WHERE EXISTS (SELECT FROM unnest(ARRAY[word(b.t, a.g)]) AS e WHERE e LIKE '%3-3')",
        1,
        20,
    ),
}


@pytest.mark.some(4)
@pytest.mark.parametrize("name", QUERIES)
def test_calls_in_from(own: Conn, name: str) -> None:
    query, batches, count = QUERIES[name]
    with own.transaction(force_rollback=True):
        assert own.execute("SET LOCAL pg_bridge.batching = off")
        expected = rows_of(own, query)
    assert calls(own) == {}
    assert rows_of(own, query) == expected
    assert calls(own) == {"word": (batches, count)}


@pytest.mark.some(3)
@pytest.mark.parametrize("join", ["JOIN", "LEFT JOIN"])
@pytest.mark.parametrize(
    ("off", "node", "columns"),
    [
        ("bitmapscan", "Index Scan", "n.*"),
        ("bitmapscan", "Index Only Scan", "n.name"),
        ("indexscan", "Bitmap Index Scan", "n.*"),
    ],
)
def test_what_is_looked_up_in_an_index(own: Conn, join: str, off: str, node: str, columns: str) -> None:
    own.execute(
        "CREATE TABLE names AS SELECT 'word ' || i % 9 || '-' || i % 4 AS name, i FROM generate_series(1, 20) i"
    )
    own.execute("CREATE INDEX ON names (name); ANALYZE names")
    for name in ("seqscan", "hashjoin", "mergejoin", "memoize", off):
        own.execute(f"SET enable_{name} = off".encode())
    query = f"SELECT a.id, {columns} FROM a {join} names AS n ON n.name = word(a.t, a.g)"
    assert node in str(own.execute(f"EXPLAIN {query}".encode()).fetchall())
    own.execute("SET pg_bridge.batching = off")
    expected = rows_of(own, query)
    own.execute("SET pg_bridge.batching = on")
    assert rows_of(own, query) == expected
    assert calls(own) == {"word": (1, ROWS)}


def test_what_is_reached_for_some_rows_only_is_not_asked_ahead(own: Conn) -> None:
    """A row of VALUES behind a LIMIT, a LIMIT that may be 0, what a subquery within needs: as without batching."""
    for query in (
        "SELECT a.id, w FROM a, LATERAL (SELECT * FROM (VALUES (a.t), (word(a.t, 2))) AS v (w) LIMIT 1) AS s",
        "SELECT a.id, w FROM a, LATERAL (SELECT word(a.t, 1) AS w LIMIT a.g) AS s",
        "SELECT a.id, w FROM a, LATERAL (SELECT word((SELECT max(b.t) FROM b WHERE id = a.id), 1) AS w OFFSET 0) AS s",
        "SELECT a.id, w FROM a, LATERAL (SELECT word(a.t, (SELECT max(id) FROM b)) AS w OFFSET 0) AS s",
        "SELECT a.id, e FROM a, unnest(ARRAY[word(a.t, (random() * 0)::int)]) AS e",
        f"SELECT a.id, (SELECT count(*) FROM {PARTS} AS e WHERE random() >= 0) FROM a",
        f"SELECT a.id, (SELECT count(*) FROM {PARTS} AS e WHERE e > (SELECT min(t) FROM b)) FROM a",
        f"WITH c AS MATERIALIZED (SELECT (SELECT count(*) FROM {PARTS} AS e) FROM a) SELECT * FROM c",
    ):
        own.execute("SET pg_bridge.batching = off")
        expected = rows_of(own, query)
        own.execute("SET pg_bridge.batching = on")
        assert rows_of(own, query) == expected
        assert calls(own) == {}, query


def test_an_inner_loop_is_supplied_by_the_loop_that_has_the_row(own: Conn) -> None:
    """The calls of the rows of b that belong to one of a are one batch."""
    own.execute("SET enable_hashjoin = off; SET enable_mergejoin = off")
    query = (
        "SELECT a.id, w FROM a, LATERAL"
        " (SELECT w FROM b, unnest(string_to_array(word(b.t, a.g), '-')) AS w WHERE b.a_id < a.g OFFSET 0) AS s"
    )
    expected = rows_of(own, query)
    batches, count = calls(own)["word"]
    assert batches < count
    own.execute("SET pg_bridge.batching = off")
    assert rows_of(own, query) == expected


def test_a_plan_that_is_kept_is_run_again(own: Conn) -> None:
    own.execute("SET plan_cache_mode = force_generic_plan")
    own.execute(f"PREPARE q (int) AS SELECT a.id, e FROM a, {PARTS} AS e WHERE a.g = $1".encode())
    for g, count in ((3, 15), (1, 15), (3, 15)):
        own.execute(f"EXECUTE q ({g})".encode())
        assert calls(own) == {"word": (1, count)}


def test_explain_shows_what_a_function_is_given(own: Conn) -> None:
    lines = [line.strip() for (line,) in own.execute(f"EXPLAIN (VERBOSE, COSTS OFF) {QUERIES['function'][0]}".encode())]
    assert lines.count("Calls: word(a.t, a.g)") == 1
    assert "Function Call: unnest(string_to_array((word(a.t, a.g)), '-'::text))" in lines

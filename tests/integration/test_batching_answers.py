"""What a batch function may answer: all but one result for each call fails the statement and leaves nothing."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.integration.batch_functions import make_functions, make_tables

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]


@pytest.fixture
def host() -> str:
    """The functions that are batched are those of the PL/Python host."""
    return "plpython"


@pytest.fixture
def own(batching: Database, db: Conn) -> Conn:
    make_functions(db)
    make_tables(db)
    return db


def answer_with(conn: Conn, body: str) -> None:
    conn.execute(
        "CREATE OR REPLACE FUNCTION word_batch(statement bigint, node int, t json[], n json[]) RETURNS text[]"
        f" LANGUAGE plpgsql AS $$ BEGIN {body}; END $$".encode()
    )


@pytest.mark.parametrize(
    ("body", "results"),
    [
        ("RETURN NULL", 0),
        ("RETURN '{}'", 0),
        ("RETURN '{a}'", 1),
        ("RETURN array_fill('a'::text, ARRAY[59])", 59),
        ("RETURN array_fill('a'::text, ARRAY[61])", 61),
        ("RETURN array_fill('a'::text, ARRAY[60, 2])", 120),
    ],
)
def test_a_wrong_number_of_results(own: Conn, body: str, results: int) -> None:
    answer_with(own, body)
    for _ in range(2):
        with pytest.raises(psycopg.errors.ExternalRoutineInvocationException, match=f"{results} results for 60 calls"):
            own.execute("SELECT word(t, g) FROM a")


@pytest.mark.parametrize(
    "body",
    [
        "RETURN array_fill('a'::text, ARRAY[60], ARRAY[0])",
        "RETURN array_fill('a'::text, ARRAY[60], ARRAY[-7])",
        "RETURN array_fill('a'::text, ARRAY[6, 10])",  # its elements count, as unnest() would return them
        "RETURN array_fill(NULL::text, ARRAY[60])",
    ],
)
def test_arrays_of_other_shapes(own: Conn, body: str) -> None:
    answer_with(own, body)
    rows = own.execute("SELECT word(t, g) FROM a").fetchall()
    assert rows == [(None if "NULL" in body else "a",)] * 60


def test_an_error_leaves_nothing(own: Conn) -> None:
    for body in ("RAISE EXCEPTION 'no'", "PERFORM 1 / 0", "PERFORM pg_cancel_backend(pg_backend_pid()), pg_sleep(9)"):
        answer_with(own, body)
        for _ in range(2):
            with pytest.raises(psycopg.Error):
                own.execute("SELECT word(t, g) FROM a WHERE word(t, 1) > 'a' OR word(t, 2) > 'a'")
            with own.transaction(), pytest.raises(psycopg.Error), own.transaction():
                own.execute("SELECT word(t, g) FROM a")
    answer_with(own, "RETURN ARRAY(SELECT x #>> '{}' FROM unnest(t) WITH ORDINALITY AS u (x, o) ORDER BY o)")
    assert own.execute("SELECT word(t, g) FROM a WHERE id = 1").fetchall() == [("Word 1",)]


def test_results_of_every_kind_of_type(own: Conn) -> None:
    own.execute("CREATE DOMAIN short AS text CHECK (length(value) < 99); CREATE TYPE pair AS (a int, b text)")
    values = {
        "boolean": "n % 2 = 0",
        "bigint": "n * 10000000000",
        "uuid": "md5(n::text)::uuid",
        "interval": "make_interval(secs => n)",
        "name": "('name' || n)::name",
        "short": "'s' || n",
        "pair": "ROW(n, 'x' || n)::pair",
        "jsonb": "to_jsonb(n)",
        "int4range": "int4range(n, n + 1)",
        "bytea": "sha256(n::text::bytea)",
    }
    for kind, value in values.items():
        own.execute(
            f"CREATE FUNCTION as_{kind}(n int) RETURNS {kind} LANGUAGE plpgsql STABLE COST 1000 AS"
            f" $$ BEGIN RETURN CASE WHEN n % 7 > 0 THEN {value} END; END $$;"
            f"CREATE FUNCTION as_{kind}_batch(s bigint, m int, n json[]) RETURNS {kind}[] LANGUAGE plpgsql AS $$ BEGIN"
            f" PERFORM note('{kind}', cardinality(n)); RETURN ARRAY(SELECT as_{kind}((x #>> '{{}}')::int)"
            " FROM unnest(n) WITH ORDINALITY AS u (x, o) ORDER BY o); END $$;"
            f"SELECT llm.register_batch('as_{kind}(int)', 'as_{kind}_batch(bigint, int, json[])')".encode()
        )
    columns = ", ".join(f"as_{kind}(id)" for kind in values)
    query = (
        f"SELECT id, {columns}, CASE WHEN as_uuid(id) > as_uuid(g) THEN as_pair(g) END FROM a"
        " WHERE as_interval(id) < '50s' AND as_name(id) <> 'name5' ORDER BY as_short(id), id"
    )
    for window_rows in (7, 16384):
        own.execute(f"SET pg_bridge.window_rows = {window_rows}".encode())
        own.execute("SET pg_bridge.batching = on; SET work_mem = '64kB'; TRUNCATE called")
        batched = own.execute(query.encode()).fetchall()
        assert own.execute("SELECT count(DISTINCT function) FROM called").fetchone() == (len(values),)
        own.execute("SET pg_bridge.batching = off")
        assert own.execute(query.encode()).fetchall() == batched

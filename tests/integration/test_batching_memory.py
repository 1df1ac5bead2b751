"""What a batch holds in memory is bounded: by the arguments of one batch, not by those of a window of rows."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database, create_server
from tests.integration.batch_functions import calls, make_functions
from tests.own_memory import MIB, OwnMemory

Conn = psycopg.Connection[Any]

ROWS = 20_000

# `size` answers a number, `shout` as much as it is asked.
FUNCTIONS = """
CREATE FUNCTION size(t text, n int) RETURNS int LANGUAGE plpgsql STABLE COST 10000 AS 'BEGIN RETURN length(t) + n; END';
CREATE FUNCTION size_batch(statement bigint, node int, t json[], n json[]) RETURNS int[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note('size', cardinality(t));
    RETURN ARRAY(SELECT length(a #>> '{}') + (b #>> '{}')::int FROM unnest(t, n) AS u (a, b));
END $$;
SELECT llm.register_batch('size(text, int)', 'size_batch(bigint, int, json[], json[])');
CREATE FUNCTION shout(t text, n int) RETURNS text LANGUAGE plpgsql STABLE COST 10000 AS 'BEGIN RETURN t || n; END';
CREATE FUNCTION shout_batch(statement bigint, node int, t json[], n json[]) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note('shout', cardinality(t));
    RETURN ARRAY(SELECT (a #>> '{}') || (b #>> '{}') FROM unnest(t, n) AS u (a, b));
END $$;
SELECT llm.register_batch('shout(text, int)', 'shout_batch(bigint, int, json[], json[])');
CREATE FUNCTION long(n int) RETURNS text LANGUAGE plpgsql STABLE COST 10000 AS $$
BEGIN RETURN repeat('x', 20000) || n; END $$;
CREATE FUNCTION long_batch(statement bigint, node int, n json[]) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note('long', cardinality(n));
    RETURN ARRAY(SELECT repeat('x', 20000) || (b #>> '{}') FROM unnest(n) AS u (b));
END $$;
SELECT llm.register_batch('long(int)', 'long_batch(bigint, int, json[])');
"""


@pytest.fixture
def host() -> str:
    """The functions that are batched are those of the PL/Python host."""
    return "plpython"


@pytest.fixture
def own(batching: Database, db: Conn, connect: Connect) -> Conn:
    make_functions(db)
    db.execute(FUNCTIONS)
    return connect()  # whose memory no one has used


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("call", "most"),  # a function in PL/pgSQL has its arguments, and its answer, several times
    [("size(repeat('x', 20000), i) + size(repeat('y', 20000), i)", 250), ("length(shout(repeat('x', 20000), i))", 400)],
)
@pytest.mark.parametrize("rows", [12_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_long_prompt_for_many_rows(own: Conn, call: str, most: int, rows: int) -> None:
    own.execute("SELECT size('x', 1), shout('x', 1)")
    with OwnMemory(own) as held:
        row = own.execute(f"SELECT count({call}), sum(i) FROM generate_series(1, {rows}) AS i".encode()).fetchone()
    assert row == (rows, rows * (rows + 1) // 2)
    print(f"{call}: {held.grown_bytes / MIB:.0f} MiB")
    assert held.grown_bytes < most * MIB
    for batches, total in calls(own).values():  # an answer that is as long counts as much
        assert batches <= 2 * 20_000 * total // (32 * MIB) + 4


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rows", [6000, pytest.param(16_384, marks=pytest.mark.slow)])  # PostgreSQL takes 1 GiB
@pytest.mark.slow
def test_a_prompt_that_would_make_too_large_an_array(own: Conn, rows: int) -> None:
    with OwnMemory(own) as held:
        row = own.execute(f"SELECT sum(size(repeat('x', 70000), i)) FROM generate_series(1, {rows}) AS i").fetchone()
    assert row == (rows * 70000 + rows * (rows + 1) // 2,)
    print(f"too large an array: {held.grown_bytes / MIB:.0f} MiB")
    assert held.grown_bytes < 250 * MIB


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_long_answers_do_not_pile_up(own: Conn) -> None:
    own.execute("SET pg_bridge.window_rows = 1000")
    own.execute("SELECT count(long(i)) FROM generate_series(1, 1000) AS i")
    own.execute("SET pg_bridge.window_rows = 1000000")
    with OwnMemory(own) as held:
        rows = own.execute(
            "SELECT count(*), min(length(l)), count(DISTINCT l)"
            " FROM (SELECT long(i) AS l FROM generate_series(1, 1000) AS i UNION ALL"
            "       SELECT shout(repeat('x', 20000), i) FROM generate_series(1, 10000) AS i) AS s"
        ).fetchall()
    assert rows == [(11000, 20001, 10000)]
    print(f"long answers: {held.grown_bytes / MIB:.0f} MiB")
    assert held.grown_bytes < 300 * MIB


@pytest.mark.timeout(300)
def test_a_million_rows_in_one_window(own: Conn) -> None:
    own.execute("SET pg_bridge.window_rows = 1000000")
    with OwnMemory(own) as held:
        rows = own.execute("SELECT sum(size('x', i % 7)), count(*) FROM generate_series(1, 1000000) AS i").fetchall()
    assert rows == [(1_000_000 + sum(i % 7 for i in range(1, 1_000_001)), 1_000_000)]
    print(f"a million rows: {held.grown_bytes / MIB:.0f} MiB")
    assert held.grown_bytes < 250 * MIB


@pytest.mark.timeout(300)
def test_a_long_prompt_of_llm(batching: Database, db: Conn, connect: Connect, engine: EngineDouble) -> None:
    create_server(db, engine.url)
    engine.behaviour.record = False
    conn = connect()
    conn.execute("SELECT llm.complete('Look', jsonb_build_object('x', i)) FROM generate_series(1, 3) AS i")
    prompt = "Look at {x} " + "x" * 20_000
    with OwnMemory(conn) as held:
        row = conn.execute(
            "SELECT count(llm.complete(%s, jsonb_build_object('x', i %% 100))) FROM generate_series(1, 20000) AS i",
            [prompt],
        ).fetchone()
    assert row == (ROWS,)
    print(f"llm.complete: {held.grown_bytes / MIB:.0f} MiB")
    assert held.grown_bytes < 250 * MIB

"""A million rows of 1 kB pass through a backend that stays small; so do fewer, in proportion."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Database
from tests.own_memory import MIB, OwnMemory

MULTICORN_IS_SLOW = True

MANY = pytest.mark.parametrize("rows", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])


def most_bytes(rows: int) -> int:
    """What a backend may take: hardly more than the rows themselves would, and they pass through."""
    return (300 + rows * 700 // 1_000_000) * MIB


@pytest.mark.slow
@MANY
def test_a_million_rows_of_1_kb(conn: psycopg.Connection[Any], engine: EngineDouble, rows: int) -> None:
    engine.behaviour.record = False
    query = f"SELECT i, i % 1000 AS k, repeat(md5(i::text), 31) AS body FROM generate_series(1, {rows}) AS i"
    with OwnMemory(conn) as few_prompts:
        counted = conn.execute(
            "SELECT count(*), count(DISTINCT row_id), count(DISTINCT output) FROM llm.map(%s, 'What is {k}?')", [query]
        ).fetchone()
    assert counted == (rows, rows, 1000)
    assert few_prompts.peak_bytes < most_bytes(rows)
    # Every prompt its own: nothing is spared.
    unique = rows // 20
    distinct = f"SELECT i, repeat(md5(i::text), 31) AS body FROM generate_series(1, {unique}) AS i"
    with OwnMemory(conn) as many_prompts:
        counted = conn.execute("SELECT count(DISTINCT output) FROM llm.map(%s, '{body}')", [distinct]).fetchone()
    assert counted == (unique,)
    assert many_prompts.peak_bytes < most_bytes(rows)
    print(f"peak {few_prompts.peak_bytes / MIB:.0f} and {many_prompts.peak_bytes / MIB:.0f} MiB")


@MANY
def test_a_million_rows_of_a_foreign_table(foreign: psycopg.Connection[Any], engine: EngineDouble, rows: int) -> None:
    engine.behaviour.record = False
    query = f"SELECT i, i % 1000 AS k, repeat(md5(i::text), 10) AS body FROM generate_series(1, {rows}) AS i"
    foreign.execute(
        "CREATE FOREIGN TABLE f (i int, k int, body text, said text OPTIONS (prompt 'What is {k}?'))"
        f" SERVER vllm OPTIONS (source_query '{query}')"
    )
    with OwnMemory(foreign) as scan:
        counted = foreign.execute(
            "SELECT count(*), count(DISTINCT i), count(DISTINCT said), min(length(body)) FROM f WHERE k <> 7"
        ).fetchone()
    assert counted == (rows - rows // 1000, rows - rows // 1000, 999, 320)
    assert scan.peak_bytes < most_bytes(rows)
    print(f"peak {scan.peak_bytes / MIB:.0f} MiB")


@MANY
@pytest.mark.timeout(600)
def test_a_million_rows_of_calls(
    batching: Database, conn: psycopg.Connection[Any], engine: EngineDouble, rows: int
) -> None:
    """The rows of a window stand on disk; in memory are its calls' arguments, of as many rows as a window may have."""
    if batching.host != "plpython":
        pytest.skip("the functions that are batched are those of the PL/Python host")
    engine.behaviour.record = False
    query = f"SELECT i, i % 1000 AS k, repeat(md5(i::text), 31) AS body FROM generate_series(1, {rows}) AS i"
    conn.execute(f"CREATE TABLE t AS {query}".encode())
    with OwnMemory(conn) as equal:
        assert conn.execute("SELECT count(llm.complete('What is {k}?', t)) FROM t").fetchone() == (rows,)
    assert equal.peak_bytes < most_bytes(rows)
    # Answers of which each row has its own.
    unique = rows // 10
    own = f"SELECT llm.complete('Which is {{i}}?', t) AS a FROM t WHERE i <= {unique}"
    with OwnMemory(conn) as unequal:
        counted = conn.execute(f"SELECT count(a), count(DISTINCT a) FROM ({own}) AS s".encode()).fetchone()
    answers, distinct = counted or (0, 0)
    assert answers == unique
    assert distinct > unique - 5  # the double draws its answers
    assert unequal.peak_bytes < most_bytes(rows)
    print(f"peak {unequal.peak_bytes / MIB:.0f} MiB")

"""A million rows of 1 kB pass through a backend that stays small; so do fewer, in proportion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Database

MIB = 1024 * 1024
MANY = pytest.mark.parametrize("rows", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])


def most_bytes(rows: int) -> int:
    """What a backend may take: hardly more than the rows themselves would, and they pass through."""
    return (300 + rows * 700 // 1_000_000) * MIB


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@MANY
def test_a_million_rows_of_1_kb(conn: psycopg.Connection[Any], engine: EngineDouble, rows: int) -> None:
    engine.behaviour.record = False
    query = f"SELECT i, i % 1000 AS k, repeat(md5(i::text), 31) AS body FROM generate_series(1, {rows}) AS i"
    counted = conn.execute(
        "SELECT count(*), count(DISTINCT row_id), count(DISTINCT output) FROM llm.map(%s, 'What is {k}?')", [query]
    ).fetchone()
    assert counted == (rows, rows, 1000)
    assert peak_bytes(conn.info.backend_pid) < most_bytes(rows)
    # Every prompt its own: nothing is spared.
    unique = rows // 20
    distinct = f"SELECT i, repeat(md5(i::text), 31) AS body FROM generate_series(1, {unique}) AS i"
    assert conn.execute("SELECT count(DISTINCT output) FROM llm.map(%s, '{body}')", [distinct]).fetchone() == (unique,)
    assert peak_bytes(conn.info.backend_pid) < most_bytes(rows)
    print(f"peak {peak_bytes(conn.info.backend_pid) / MIB:.0f} MiB")


@MANY
def test_a_million_rows_of_a_foreign_table(foreign: psycopg.Connection[Any], engine: EngineDouble, rows: int) -> None:
    engine.behaviour.record = False
    query = f"SELECT i, i % 1000 AS k, repeat(md5(i::text), 10) AS body FROM generate_series(1, {rows}) AS i"
    foreign.execute(
        "CREATE FOREIGN TABLE f (i int, k int, body text, said text OPTIONS (prompt 'What is {k}?'))"
        f" SERVER vllm OPTIONS (source_query '{query}')"
    )
    counted = foreign.execute(
        "SELECT count(*), count(DISTINCT i), count(DISTINCT said), min(length(body)) FROM f WHERE k <> 7"
    ).fetchone()
    assert counted == (rows - rows // 1000, rows - rows // 1000, 999, 320)
    assert peak_bytes(foreign.info.backend_pid) < most_bytes(rows)
    print(f"peak {peak_bytes(foreign.info.backend_pid) / MIB:.0f} MiB")


@MANY
@pytest.mark.timeout(600)
def test_a_million_rows_of_calls(
    batching: Database, conn: psycopg.Connection[Any], engine: EngineDouble, rows: int
) -> None:
    """One window holds all rows: it stands on disk, and only the arguments of one batch are in memory."""
    if batching.host != "plpython":
        pytest.skip("the functions that are batched are those of the PL/Python host")
    engine.behaviour.record = False
    query = f"SELECT i, i % 1000 AS k, repeat(md5(i::text), 31) AS body FROM generate_series(1, {rows}) AS i"
    conn.execute(f"CREATE TABLE t AS {query}".encode())
    assert conn.execute("SELECT count(llm.complete('What is {k}?', t)) FROM t").fetchone() == (rows,)
    assert peak_bytes(conn.info.backend_pid) < most_bytes(rows)
    # Answers of which each row has its own.
    unique = rows // 10
    own = f"SELECT llm.complete('Which is {{i}}?', t) AS a FROM t WHERE i <= {unique}"
    counted = conn.execute(f"SELECT count(a), count(DISTINCT a) FROM ({own}) AS s".encode()).fetchone()
    answers, distinct = counted or (0, 0)
    assert answers == unique
    assert distinct > unique - 5  # the double draws its answers
    assert peak_bytes(conn.info.backend_pid) < most_bytes(rows)
    print(f"peak {peak_bytes(conn.info.backend_pid) / MIB:.0f} MiB")

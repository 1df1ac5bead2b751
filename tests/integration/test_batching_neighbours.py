"""Calls beside other extensions: tables of another data wrapper, custom scans above the planner's own paths."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.integration.batch_functions import calls, make_functions, make_tables
from tests.integration.test_batching_proofs import nodes_of, plan_of, same_rows

Conn = psycopg.Connection[Any]

# `quick` is so cheap that a condition without calls comes after it; `known` may be sent to the other server.
FOREIGN = """
CREATE EXTENSION postgres_fdw;
CREATE FUNCTION quick(t text, n int) RETURNS text LANGUAGE plpgsql STABLE COST 1 AS
    'BEGIN RETURN word(t, n); END';
CREATE FUNCTION known(t text, n int) RETURNS text LANGUAGE plpgsql IMMUTABLE COST 1000 AS
    'BEGIN RETURN lower(t); END';
CREATE FUNCTION known_batch(statement bigint, node int, t json[], n json[]) RETURNS text[] LANGUAGE plpgsql AS
    'BEGIN RETURN ARRAY(SELECT lower(a #>> ''{}'') FROM unnest(t) WITH ORDINALITY AS u (a, o) ORDER BY o); END';
SELECT llm.register_batch('quick(text, int)', 'word_batch(bigint, int, json[], json[])');
SELECT llm.register_batch('known(text, int)', 'known_batch(bigint, int, json[], json[])');
ALTER EXTENSION postgres_fdw ADD FUNCTION known(text, int);
DO $$ BEGIN
    EXECUTE format('CREATE SERVER near FOREIGN DATA WRAPPER postgres_fdw OPTIONS (dbname %L, port %L, host %L,'
                   ' extensions ''postgres_fdw'', fdw_startup_cost ''1000000'')',
                   current_database(), current_setting('port'), '127.0.0.1');
END $$;
CREATE USER MAPPING FOR PUBLIC SERVER near OPTIONS (user 'postgres', password_required 'false');
CREATE TABLE kept AS SELECT i AS id, 'Word ' || i % 7 AS t, i % 5 AS x, i % 3 AS y FROM generate_series(1, 100) AS i;
CREATE FOREIGN TABLE one (id int, t text, x int, y int) SERVER near OPTIONS (table_name 'kept');
CREATE FOREIGN TABLE two (id int, t text, x int, y int) SERVER near OPTIONS (table_name 'kept');
"""


@pytest.fixture
def host() -> str:
    """The functions that are batched are those of the PL/Python host."""
    return "plpython"


@pytest.fixture
def conn(batching: Database, db: Conn) -> Conn:
    make_functions(db)
    make_tables(db)
    return db


@pytest.fixture
def foreign(conn: Conn) -> Conn:
    if not conn.execute("SELECT FROM pg_available_extensions WHERE name = 'postgres_fdw'").fetchall():
        pytest.skip("this PostgreSQL has no postgres_fdw")
    conn.execute(FOREIGN)
    return conn


def test_a_foreign_scan_brings_what_a_condition_above_it_reads(foreign: Conn) -> None:
    """The condition could be sent to the other server, and so its columns were not asked for."""
    query = "SELECT id FROM one WHERE quick(t, 1) > 'a' AND ((x + 1) * 2 + y) * 3 > 9"
    plan = plan_of(foreign, query)
    assert plan.index("* 3) > 9") < plan.index("Foreign Scan")
    assert len(same_rows(foreign, query)) > 50


def test_a_plan_for_rechecks_below_a_foreign_join_is_finished(foreign: Conn) -> None:
    query = (
        "SELECT one.id, a.id FROM one JOIN two ON two.id = one.id JOIN a ON a.id = one.id"
        " WHERE known(one.t, 1) > 'f' AND two.x < 3 FOR UPDATE"
    )
    plan = plan_of(foreign, query)
    assert plan.index("Relations: (public.one) INNER JOIN (public.two)") < plan.index("LLM Batch")
    assert len(foreign.execute(query.encode()).fetchall()) > 20


@pytest.fixture
def passing_node(batching: Database) -> Iterator[Path]:
    """The module of passing_node.c, compiled."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    pg_config = os.environ.get("PG_CONFIG", "pg_config")
    headers = subprocess.run([pg_config, "--includedir-server"], check=True, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as directory:
        module = Path(directory, "passing_node.so")
        source = Path(__file__).with_name("passing_node.c")
        include = f"-I{headers.stdout.strip()}"
        subprocess.run([compiler, "-shared", "-fPIC", include, "-o", module, source], check=True)
        Path(directory).chmod(0o755)
        yield module


def test_a_batch_below_another_extensions_node_is_finished(conn: Conn, passing_node: Path) -> None:
    """That one has been put above the paths that the planner has for a table."""
    conn.execute(f"LOAD '{passing_node}'".encode())
    query = "SELECT id FROM a WHERE passes(a, 3)"
    assert [node.get("Custom Plan Provider") for node in nodes_of(conn, query)][:2] == ["Passing Node", "LLM Batch"]
    assert len(same_rows(conn, query)) == 40
    conn.execute("SELECT id FROM a WHERE passes(a, 3) LIMIT 1")
    assert calls(conn)["passes"][1] <= 16  # there is no telling how many rows it wants

"""Calls beside other extensions: tables of another data wrapper."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.integration.batch_functions import make_functions, make_tables
from tests.integration.test_batching_proofs import plan_of, same_rows

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

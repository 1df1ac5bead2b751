"""Who takes every row of a statement gets its rows asked about together; who may stop early, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble

Conn = psycopg.Connection

ROWS = 3000

# `said` stands for calls: its batch function notes the size of each batch. The functions behind the foreign table and
# llm.map tell whether they were asked for every row.
TABLES = f"""
CREATE TABLE t AS SELECT i FROM generate_series(1, {ROWS}) AS i;
ALTER TABLE t ADD PRIMARY KEY (i);
CREATE TABLE few AS SELECT i AS x FROM generate_series(1, 3) AS i;
ANALYZE;
CREATE FUNCTION said(n int) RETURNS text LANGUAGE plpgsql STABLE COST 100000 AS $$ BEGIN RETURN 'said ' || n; END $$;
CREATE FUNCTION said_batch(statement bigint, node int, n json[]) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE 'batch %', cardinality(n);
    RETURN ARRAY(SELECT 'said ' || (e #>> '{{}}') FROM unnest(n) WITH ORDINALITY AS u (e, o) ORDER BY o);
END $$;
SELECT llm.register_batch('said(int)', 'said_batch(bigint, int, json[])');
CREATE FOREIGN TABLE f (i int, a text OPTIONS (prompt 'What is {{i}}?')) SERVER vllm OPTIONS (source 't', key 'i');
CREATE OR REPLACE FUNCTION llm._foreign_scan(request text) RETURNS TABLE (rows integer, cells text[], fault text[])
LANGUAGE plpython3u STABLE SET search_path = pg_catalog, pg_temp AS $$
import json
from pg_bridge.plpython import foreign
plpy.notice(f"every row: {{json.loads(request)['every_row']}}")
return foreign.scan(plpy, request)
$$;
CREATE OR REPLACE FUNCTION llm._map(rows refcursor, columns text[], prompt text, options text, every_row boolean)
RETURNS TABLE (row_id bigint, input jsonb, output text, error text, fault text[]) LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.plpython import functions
plpy.notice(f"every row: {{every_row}}")
return functions.map_rows(plpy, rows, columns, prompt, options, every_row)
$$;
CREATE TABLE kept (i int, a text);
"""


@pytest.fixture(scope="module")
def shared(shared_conn: Conn) -> Conn:
    shared_conn.execute(TABLES)
    return shared_conn


@contextmanager
def noticed(conn: Conn) -> Iterator[list[str]]:
    """The notices of a while."""
    notices: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        notices.append(diagnostic.message_primary or "")

    conn.add_notice_handler(note)
    try:
        yield notices
    finally:
        conn.remove_notice_handler(note)


def run(conn: Conn, statements: str) -> list[str]:
    """Run statements in a transaction that leaves nothing; what was noticed meanwhile."""
    with noticed(conn) as notices, conn.transaction(force_rollback=True):
        conn.execute(statements.encode())
    return notices


EVERY = [ROWS]
DOUBLING = [16, 32, 64, 128, 256, 512, 1024, ROWS - 2032]
FUNCTION = "CREATE FUNCTION pg_temp.f() RETURNS {} LANGUAGE {} AS $f$ {} $f$;"


@dataclass(frozen=True)
class Taken:
    """A consumer of the rows of (i, a), of which {rows} is a query and {s} the same as an item of FROM.

    Attributes:
        statements: What is run.
        batches: The sizes of the batches that a function gets, if a call stands for `a`.
        scan: Whether a foreign scan for `a` is asked for every row.
    """

    statements: str
    batches: list[int]
    scan: list[bool] = field(default_factory=list)


def every(statements: str) -> Taken:
    return Taken(statements, EVERY, [True])


def some(statements: str, batches: list[int] | None = None) -> Taken:
    return Taken(statements, DOUBLING[:1] if batches is None else batches, [False])


CONSUMERS = {
    "plain": every("{rows}"),
    "aggregate": every("SELECT count(a) FROM {s}"),
    "aggregate of a few": every("SELECT count(a) FROM {s} LIMIT 1"),
    "sort": every("SELECT i FROM {s} ORDER BY a"),
    "group by, sorted": every("SET LOCAL enable_hashagg = off; SELECT a, count(*) FROM {s} GROUP BY a LIMIT 1"),
    "group by, hashed": every("SET LOCAL enable_sort = off; SELECT a, count(*) FROM {s} GROUP BY a LIMIT 1"),
    "window function": every("SELECT count(a) OVER () FROM {s}"),
    "limit": some("SELECT a FROM {s} LIMIT 5", [5]),
    "limit above a filter": some("SELECT i FROM {s} WHERE a <> '' LIMIT 5"),
    "limit above a sort": every("SELECT i FROM {s} ORDER BY a LIMIT 5"),
    "offset alone": every("SELECT a FROM {s} OFFSET 5"),
    "subquery with offset 0": every("SELECT count(a) FROM ({rows} OFFSET 0) AS o"),
    "limit above a subquery with offset 0": some("SELECT a FROM ({rows} OFFSET 0) AS o WHERE a <> '' LIMIT 5"),
    "limit whose subquery is aggregated": some("SELECT count(a) FROM ({rows} LIMIT 5) AS o", [5]),
    "fetch": some("DECLARE c CURSOR FOR {rows}; FETCH 10 FROM c"),
    "fetch twice": some("DECLARE c CURSOR FOR {rows}; FETCH 10 FROM c; FETCH 10 FROM c", DOUBLING[:2]),
    "fetch all": every("DECLARE c CURSOR FOR {rows}; FETCH ALL FROM c"),
    "fetch all that is left": some("DECLARE c CURSOR FOR {rows}; FETCH 10 FROM c; FETCH ALL FROM c", [16, ROWS - 16]),
    "fetch all of a scroll cursor": every("DECLARE c SCROLL CURSOR FOR {rows}; FETCH ALL FROM c"),
    "fetch from a sort": every("DECLARE c CURSOR FOR SELECT i FROM {s} ORDER BY a; FETCH 1 FROM c"),
    "exists": some("SELECT EXISTS (SELECT FROM {s} WHERE a <> '')"),
    "scalar subquery": every("SELECT (SELECT max(a) FROM {s})"),
    "array": every("SELECT ARRAY(SELECT a FROM {s})"),
    "array of a few": some("SELECT ARRAY(SELECT a FROM {s} WHERE a <> '' LIMIT 2)"),
    "not in": every("SELECT x FROM few WHERE x::text NOT IN (SELECT a FROM {s})"),
    "semi join": some("SELECT x FROM few WHERE EXISTS (SELECT FROM {s} WHERE a <> x::text)"),
    "hash join": every("SELECT count(*) FROM few JOIN {s} ON a = x::text"),
    "union all": Taken("{rows} UNION ALL {rows}", EVERY * 2, [True, True]),
    "limit above union all": some("SELECT i FROM ({rows} UNION ALL {rows}) AS u WHERE a <> '' LIMIT 5"),
    "union": every("{rows} UNION SELECT 0, ''"),
    "except": every("{rows} EXCEPT SELECT 0, ''"),
    "cte": every("WITH c AS MATERIALIZED ({rows}) SELECT count(a) FROM c"),
    "limit above a cte": some("WITH c AS MATERIALIZED ({rows}) SELECT a FROM c LIMIT 5"),
    "cte of two readers": every(
        "WITH c AS MATERIALIZED ({rows}) SELECT (SELECT count(a) FROM c), EXISTS (SELECT FROM c)"
    ),
    "cte of a cte": every(
        "WITH c AS MATERIALIZED ({rows}), d AS MATERIALIZED (SELECT a FROM c) SELECT count(a) FROM d"
    ),
    "insert": every("INSERT INTO kept {rows}"),
    "insert that returns": every("INSERT INTO kept {rows} RETURNING a"),
    "cte that inserts": every("WITH c AS (INSERT INTO kept {rows}) SELECT"),
    "update": every(
        "INSERT INTO kept SELECT i FROM t; ANALYZE kept; UPDATE kept SET a = s.a FROM {s} WHERE kept.i = s.i"
    ),
    "create table": every("CREATE TABLE made AS {rows}"),
    "materialized view": every("CREATE MATERIALIZED VIEW made AS {rows}"),
    "copy": every("COPY ({rows}) TO '/dev/null'"),
    "generic plan": every(
        "SET LOCAL plan_cache_mode = force_generic_plan; PREPARE p AS {rows}; EXECUTE p; DEALLOCATE p"
    ),
    "SQL function in FROM": every(
        FUNCTION.format("TABLE (i int, a text)", "sql VOLATILE", "{rows}") + "SELECT a FROM pg_temp.f() LIMIT 5"
    ),
    "SQL function in the select list": some(
        FUNCTION.format("SETOF text", "sql VOLATILE", "SELECT a FROM {s} WHERE a <> ''") + "SELECT pg_temp.f() LIMIT 5"
    ),
    "stable SQL function in the select list": some(
        FUNCTION.format("SETOF text", "sql STABLE", "SELECT a FROM {s} WHERE a <> ''") + "SELECT pg_temp.f() LIMIT 5"
    ),
    "SQL function of one value": some(
        FUNCTION.format("text", "sql VOLATILE", "SELECT a FROM {s} WHERE a <> ''") + "SELECT pg_temp.f()"
    ),
    "PL/pgSQL loop": some(
        FUNCTION.format("void", "plpgsql", "DECLARE r record; BEGIN FOR r IN {rows} LOOP EXIT; END LOOP; END")
        + "SELECT pg_temp.f()"
    ),
    "PL/pgSQL loop to the end": some(
        FUNCTION.format("void", "plpgsql", "DECLARE r record; BEGIN FOR r IN {rows} LOOP END LOOP; END")
        + "SELECT pg_temp.f()",
        DOUBLING,
    ),
    "PL/pgSQL return query": every(
        FUNCTION.format("TABLE (j int, b text)", "plpgsql", "BEGIN RETURN QUERY {rows}; END")
        + "SELECT pg_temp.f() LIMIT 1"
    ),
    "PL/pgSQL into": some(
        FUNCTION.format("void", "plpgsql", "DECLARE r record; BEGIN SELECT a INTO r FROM {s}; END")
        + "SELECT pg_temp.f()"
    ),
}


def consumer(name: str, rows: str) -> str:
    return CONSUMERS[name].statements.replace("{rows}", rows).replace("{s}", f"({rows}) AS s")


@pytest.mark.parametrize("name", CONSUMERS)
def test_batches_of_calls(shared: Conn, name: str) -> None:
    batches = run(shared, consumer(name, "SELECT i, said(i) AS a FROM t"))
    assert batches == [f"batch {size}" for size in CONSUMERS[name].batches]


@pytest.mark.some(4)
@pytest.mark.parametrize("name", CONSUMERS)
def test_foreign_scans(shared: Conn, shared_engine: EngineDouble, name: str) -> None:
    shared_engine.reset()
    told = run(shared, consumer(name, "SELECT i, a FROM f"))
    assert told == [f"every row: {told}" for told in CONSUMERS[name].scan]
    if CONSUMERS[name].batches == DOUBLING[:1]:
        assert len(shared_engine.received.prompts) <= 64


SCANS = {
    "join on the key": Taken("SELECT count(a) FROM few JOIN f ON f.i = few.x", [], [True]),  # a window of keys
    "join on the key, one after the other": Taken(
        "SET LOCAL pg_bridge.batching = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;"
        "SELECT count(a) FROM few JOIN f ON f.i = few.x",
        [],
        [False] * 3,
    ),
    "inner side that is kept": Taken("SELECT count(a) FROM few JOIN f ON f.i < few.x", [], [True]),
    "merge join": Taken(
        "SET LOCAL enable_hashjoin = off; SET LOCAL enable_nestloop = off;"
        "SELECT f.i, a FROM few JOIN f ON f.i = few.x ORDER BY f.i",
        [],
        [False],
    ),
    "merge join that wants the rest": Taken(
        "SET LOCAL enable_hashjoin = off; SET LOCAL enable_nestloop = off;"
        "SELECT f.i, a FROM f LEFT JOIN few ON f.i = few.x ORDER BY f.i",
        [],
        [True],
    ),
    "without batching": Taken("SET LOCAL pg_bridge.batching = off; SELECT a FROM f", [], [True]),
    "below calls": Taken("SELECT said(f.i) FROM f WHERE a <> ''", [], [True]),
    "below calls that may stop": Taken("SELECT a FROM f WHERE said(f.i) <> '' LIMIT 5", [], [False]),
}


@pytest.mark.some(3)
@pytest.mark.parametrize("name", SCANS)
def test_foreign_scans_that_are_joined(shared: Conn, name: str) -> None:
    told = [notice for notice in run(shared, SCANS[name].statements) if not notice.startswith("batch")]
    assert told == [f"every row: {told}" for told in SCANS[name].scan]


MAP = "llm.map('SELECT i FROM t', 'What is {i}?')"
MAPS = {  # PostgreSQL runs a function in FROM to its end, and one in a select list row by row
    f"SELECT output FROM {MAP}": True,
    f"SELECT output FROM {MAP} LIMIT 5": True,
    f"SELECT count(*) FROM {MAP}": True,
    f"INSERT INTO kept SELECT row_id, output FROM {MAP}": True,
    f"CREATE TABLE made AS SELECT output FROM {MAP}": True,
    f"DECLARE c CURSOR FOR SELECT output FROM {MAP}; FETCH 1 FROM c": True,
    f"SELECT ({MAP}).output LIMIT 5": False,
    f"SELECT EXISTS (SELECT ({MAP}).output)": False,
    f"DECLARE c CURSOR FOR SELECT ({MAP}).output; FETCH 1 FROM c": False,
}


@pytest.mark.some(2)
@pytest.mark.parametrize("statements", MAPS)
def test_map(shared: Conn, shared_engine: EngineDouble, statements: str) -> None:
    shared_engine.reset()
    assert run(shared, statements) == [f"every row: {MAPS[statements]}"]
    asked = len(set(shared_engine.received.prompts))  # a request of the statement before may still have been on its way
    assert asked == ROWS if MAPS[statements] else asked <= 128


def test_windows_end_at_the_setting(shared: Conn) -> None:
    limited = "SET LOCAL pg_bridge.window_rows = 1000;"
    assert run(shared, f"{limited} SELECT count(said(i)) FROM t") == ["batch 1000"] * 3
    stopping = run(shared, f"{limited} DECLARE c CURSOR FOR SELECT said(i) FROM t; FETCH 2999 FROM c")
    assert stopping == [f"batch {size}" for size in (16, 32, 64, 128, 256, 512, 1000, 992)]


def test_a_first_window_tells_which_of_two_conditions_goes_first(shared: Conn) -> None:
    batches = run(shared, "SELECT count(*) FROM t WHERE said(i) <> '' AND said(-i) = 'said -1'")
    first = ["batch 1024", "batch 1024"]
    assert batches == [*first, f"batch {ROWS - 1024}"]  # the one that lets hardly a row through, and none of these


def test_only_a_run_of_a_statement_says_that_it_takes_every_row(shared: Conn) -> None:
    with pytest.raises(psycopg.errors.CantChangeRuntimeParam):
        shared.execute("SET pg_bridge.every_row = on")
    assert shared.execute("SHOW pg_bridge.every_row").fetchall() == [("off",)]
    read = "SELECT current_setting('pg_bridge.every_row') FROM t"
    assert set(shared.execute(read).fetchall()) == {("on",)}
    with shared.transaction(force_rollback=True):
        shared.execute(f"DECLARE c CURSOR FOR {read}")
        assert shared.execute("FETCH 1 FROM c").fetchall() == [("off",)]
        with pytest.raises(psycopg.errors.DivisionByZero), shared.transaction():
            shared.execute("SELECT 1 / (i - 7) FROM t")
        assert shared.execute("FETCH 1 FROM c").fetchall() == [("off",)]


def test_a_hash_join_without_partners_asks_nothing(shared: Conn) -> None:
    """It looks first whether the other side has any rows."""
    with shared.transaction(force_rollback=True):
        shared.execute("CREATE TABLE gone AS SELECT i % 10 AS x FROM generate_series(1, 2000) AS i")
        shared.execute("ANALYZE gone")
        shared.execute("DELETE FROM gone")
        shared.execute("SET LOCAL enable_mergejoin = off; SET LOCAL enable_nestloop = off")
        query = "SELECT count(*) FROM t JOIN gone ON t.i % 10 = gone.x WHERE said(t.i) <> ''"
        plan = "\n".join(line for (line,) in shared.execute(f"EXPLAIN {query}").fetchall())
        with noticed(shared) as notices:
            shared.execute(query.encode())
    print(plan)
    assert notices == []

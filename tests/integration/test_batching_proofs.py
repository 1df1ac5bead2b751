"""What the planner proved (unique joins, marks, workers, bounds) still holds when calls are moved to other places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.conftest import Database
from tests.integration.batch_functions import calls, make_functions, make_tables

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

SCANS = ("enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan")
JOINS = ("enable_nestloop", "enable_mergejoin", "enable_hashjoin")

TABLES = """
CREATE TABLE names (n int, name text UNIQUE);
INSERT INTO names SELECT i, 'word ' || i || '-1' FROM generate_series(0, 8) AS i;
CREATE TABLE u (x int, y text, PRIMARY KEY (x, y));
INSERT INTO u SELECT i, 'v' || j FROM generate_series(1, 60) AS i, generate_series(1, 4) AS j;
-- An index under another collation proves y unique within x, but cannot look it up.
CREATE TABLE m (x int, y text);
CREATE UNIQUE INDEX ON m (x, y COLLATE "POSIX");
INSERT INTO m SELECT i, 'v' || j FROM generate_series(0, 2000) AS i, generate_series(1, 4) AS j;
CREATE TABLE many AS SELECT i AS id, i % 40 AS g FROM generate_series(1, 4000) AS i;
ANALYZE;
"""

# A call that depends on no row, and that is no constant before the plan is made.
V3 = "left(word(CASE WHEN now() > '2000-01-01' THEN 'v3' END, 1), 2)"


@pytest.fixture
def host() -> str:
    """The functions that are batched are those of the PL/Python host."""
    return "plpython"


@pytest.fixture
def conn(batching: Database, db: Conn) -> Conn:
    make_functions(db)
    make_tables(db)
    db.execute(TABLES)
    return db


def switch(conn: Conn, value: str, *names: str) -> None:
    for name in names:
        conn.execute(sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))


def plan_of(conn: Conn, query: str) -> str:
    return "\n".join(line for (line,) in conn.execute(f"EXPLAIN (COSTS OFF, VERBOSE) {query}".encode()).fetchall())


def tree(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan node and all below it, but for what it has computed before it starts."""
    yield node
    for child in node.get("Plans", ()):
        if child["Parent Relationship"] != "InitPlan":
            yield from tree(child)


def nodes_of(conn: Conn, query: str) -> list[dict[str, Any]]:
    row = conn.execute(f"EXPLAIN (FORMAT JSON) {query}".encode()).fetchone()
    assert row
    return list(tree(row[0][0]["Plan"]))


def same_rows(conn: Conn, query: str) -> list[Any]:
    """Run a query with batching off and on; the rows, which are returned, must be the same, and batches be made."""
    switch(conn, "off", "pg_bridge.batching")
    expected = conn.execute(query.encode()).fetchall()
    switch(conn, "on", "pg_bridge.batching")
    calls(conn)
    assert sorted(map(repr, conn.execute(query.encode()).fetchall())) == sorted(map(repr, expected))
    assert calls(conn)
    return expected


# -- unique joins

BOTH_SIDES = "SELECT a.id, n FROM a JOIN names ON word(a.t, names.n) <> 'x' AND names.name = word(a.t, 1)"
ONE_SIDE = f"SELECT a.id, u.y FROM a JOIN u ON u.x = a.id WHERE u.y = {V3} AND a.g = 1"


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize("query", [BOTH_SIDES, ONE_SIDE])
def test_a_unique_partner_may_not_be_the_first(conn: Conn, query: str, join: str) -> None:
    switch(conn, "off", *SCANS, "enable_material", *(name for name in JOINS if name != join))
    switch(conn, "off", "pg_bridge.batching")
    assert "Inner Unique: true" in plan_of(conn, query)
    assert len(same_rows(conn, query)) >= 15


def test_a_merge_join_finds_its_mark_again(conn: Conn) -> None:
    """Several rows with one key on the outer side: the inner side goes back, and it is a batch node or a plain scan."""
    switch(conn, "off", "enable_nestloop", "enable_hashjoin", "enable_bitmapscan", "enable_seqscan")
    lifted = f"SELECT b.id, m.y FROM b JOIN m ON m.x = b.a_id % 7 WHERE m.y = {V3}"
    assert "Merge Join" in plan_of(conn, lifted)
    assert len(same_rows(conn, lifted)) == 75
    batched = "SELECT x.id, y.id FROM a AS x LEFT JOIN b AS y ON y.a_id = x.g AND passes(y, 3)"
    plan = plan_of(conn, batched)
    assert plan.index("Merge Left Join") < plan.index("Materialize") < plan.index("LLM Batch")
    assert same_rows(conn, batched)


def test_a_memory_of_unique_rows_keeps_all(conn: Conn) -> None:
    """Memoize keeps one row a key where the inner side is unique."""
    conn.execute("CREATE INDEX ON m (x); ANALYZE m")
    switch(conn, "off", "enable_hashjoin", "enable_mergejoin", "enable_bitmapscan", "enable_seqscan")
    query = f"SELECT many.id, m.y FROM many JOIN m ON m.x = many.g * 50 WHERE m.y = {V3} AND many.id < 900"
    switch(conn, "off", "pg_bridge.batching")
    plan = plan_of(conn, query)
    assert "Memoize" in plan
    assert "Inner Unique: true" in plan
    assert len(same_rows(conn, query)) == 899


def test_a_volatile_condition_stays_where_it_was(conn: Conn) -> None:
    """Above the join it would be evaluated once for every partner."""
    conn.execute(
        "CREATE SEQUENCE ticks; CREATE FUNCTION tick(id int) RETURNS boolean LANGUAGE plpgsql COST 1000000"
        " AS 'BEGIN RETURN nextval(''ticks'') > 0; END'"
    )
    switch(conn, "off", *SCANS, "enable_nestloop", "enable_mergejoin")
    query = "SELECT a.id FROM a JOIN b ON b.a_id = a.id AND b.id % 2 = 0 AND b.n > 5 WHERE passes(a, 3) AND tick(a.id)"
    plan = plan_of(conn, query)
    assert plan.index("Hash Join") < plan.index("Filter: ((passes")
    assert same_rows(conn, query)
    plan = plan_of(conn, query.replace("AND tick(a.id)", ""))
    assert plan.index("Filter: (passes") < plan.index("Hash Join")


def test_what_a_loop_hands_over_is_computed_below_it(conn: Conn) -> None:
    """A subquery's expressions, behind an outer join that turns out to be an inner one."""
    conn.execute(
        "CREATE TABLE few (x int, y text, UNIQUE (x, y)); INSERT INTO few SELECT i / 3, 'v' || i % 3"
        " FROM generate_series(0, 17) AS i; ANALYZE few"
    )
    switch(conn, "off", "enable_hashjoin", "enable_mergejoin", "enable_seqscan")
    query = (
        "SELECT r.t FROM generate_series(1, 3) AS g (id) LEFT JOIN ("
        "  SELECT cardinality(ARRAY['x', word('y', s.id)]) AS n, 'v1'::text AS t FROM generate_series(1, 3) AS s (id)"
        "  WHERE s.id IS NOT NULL AND word('z', s.id) LIKE '%z%'"
        ") AS r ON g.id < r.n JOIN few ON r.n = few.x AND few.y = left(word(r.t, 1), 2)"
    )
    assert same_rows(conn, query)


def test_a_call_about_two_tables_waits_for_no_volatile_condition(conn: Conn) -> None:
    """Of a third table, which sees the rows that the call has left."""
    conn.execute("CREATE SEQUENCE seen; SET join_collapse_limit = 1")
    query = (
        "SELECT a.id FROM a JOIN b ON a.id = b.a_id AND word(a.t, b.id) LIKE '%1%'"
        " JOIN names ON names.n = a.g + 7 AND nextval('seen') + names.n + a.id > 0"
    )
    counted = []
    for batching in ("off", "on"):
        switch(conn, batching, "pg_bridge.batching")
        conn.execute("SELECT setval('seen', 1)")
        conn.execute(query.encode())
        counted += conn.execute("SELECT last_value FROM seen").fetchall()
    assert counted[0] == counted[1]
    assert calls(conn)


def test_a_condition_stays_below_what_is_run_once_a_row(conn: Conn) -> None:
    """A volatile function in LATERAL is called for the rows that passed, and for no others."""
    conn.execute(
        "CREATE SEQUENCE s; CREATE FUNCTION tick(g int) RETURNS SETOF int LANGUAGE plpgsql ROWS 1"
        " AS 'BEGIN PERFORM nextval(''s''); RETURN NEXT g % 2; END'"
    )
    query = "SELECT a.id FROM a, LATERAL tick(a.g) AS l WHERE passes(a, 3) AND l = a.g"
    runs = []
    for value in ("off", "on"):
        switch(conn, value, "pg_bridge.batching")
        conn.execute("SELECT setval('s', 1, false)")
        assert len(conn.execute(query.encode()).fetchall()) == 20
        runs.append(conn.execute("SELECT last_value FROM s").fetchone())
    assert runs == [(40,), (40,)]
    assert calls(conn)


@pytest.mark.parametrize("join", JOINS)
def test_a_call_below_a_sort_reads_its_new_parameter(conn: Conn, join: str) -> None:
    """A call goes below the sort of its side; the sort must be done anew when what the call reads has changed."""
    switch(conn, "off", *SCANS, *(name for name in JOINS if name != join))
    query = (
        "SELECT a.id, (SELECT count(*) FROM b AS x JOIN b AS y ON x.id = y.id AND word(x.t, a.g) <> word(y.t, 1))"
        " FROM a WHERE id < 9"
    )
    assert (2, 90) in same_rows(conn, query)
    query = query.replace("a.g)", "(SELECT e.id + a.g FROM e RIGHT JOIN a AS o ON true WHERE o.id = a.g + 1))")
    same_rows(conn, query.replace("e.id + a.g", "coalesce(e.id, a.g)"))


# -- workers


@pytest.fixture
def workers(conn: Conn) -> Conn:
    """A connection that gets parallel plans for the table big, and for no other."""
    conn.execute(
        "CREATE TABLE big AS SELECT a.* FROM a, generate_series(1, 200); ALTER TABLE big SET (parallel_workers = 2);"
        "CREATE FUNCTION safe(t text) RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE COST 10000"
        " AS 'BEGIN RETURN lower(t); END';"
        "CREATE FUNCTION safe_batch(statement bigint, node int, t json[]) RETURNS text[] LANGUAGE plpgsql PARALLEL SAFE"
        " AS $$ BEGIN RETURN ARRAY(SELECT lower(u #>> '{}') FROM unnest(t) WITH ORDINALITY AS _ (u, o) ORDER BY o);"
        " END $$;"
        "SELECT llm.register_batch('safe(text)', 'safe_batch(bigint, int, json[])'); ANALYZE"
    )
    switch(conn, "0", "parallel_setup_cost", "parallel_tuple_cost")
    return conn


PARALLEL = (
    "SELECT count(*) FROM big WHERE t NOT IN (SELECT safe(b.t) FROM b)",
    "SELECT count(*) FROM big WHERE t NOT IN"
    " (SELECT safe(x.t) FROM b AS x JOIN b AS y ON x.id = y.id + length(safe(y.t)))",
    "SELECT count((SELECT max(safe(b.t)) FROM b WHERE b.a_id = big.id)) FROM big WHERE id % 9 = 1",
    "SELECT count(*) FROM big WHERE id < (SELECT count(*) FROM b WHERE safe(b.t) <> 'x')",
    "SELECT count(safe(t)) FROM big WHERE safe(t) <> 'word 1'",
    "SELECT safe(t), count(*) FROM big WHERE t IN (SELECT safe(t) || 'x' FROM big) OR id < 9 GROUP BY 1",
)


@pytest.mark.some(4)
@pytest.mark.parametrize("query", PARALLEL)
@pytest.mark.parametrize("forced", [False, True])
def test_workers_make_no_batches(workers: Conn, query: str, forced: bool) -> None:
    if forced:
        name = "force_parallel_mode" if workers.info.server_version < 160000 else "debug_parallel_query"
        switch(workers, "on", name)
    switch(workers, "off", "pg_bridge.batching")
    expected = workers.execute(query.encode()).fetchall()
    switch(workers, "on", "pg_bridge.batching")
    assert sorted(map(repr, workers.execute(query.encode()).fetchall())) == sorted(map(repr, expected))
    gathers = [node for node in nodes_of(workers, query) if node["Node Type"].startswith("Gather")]
    assert gathers
    for gather in gathers:
        assert not [node for node in tree(gather) if node["Node Type"] == "Custom Scan"]


def test_a_function_in_a_worker_makes_no_batches(workers: Conn) -> None:
    """Its statements are planned in the worker."""
    workers.execute(
        "CREATE OR REPLACE FUNCTION safe_batch(statement bigint, node int, t json[]) RETURNS text[] LANGUAGE plpgsql"
        " PARALLEL SAFE"
        " AS $$ BEGIN RAISE EXCEPTION 'batch'; END $$;"
        "CREATE FUNCTION inner_count(most int) RETURNS bigint LANGUAGE plpgsql STABLE PARALLEL SAFE"
        " AS $$ BEGIN RETURN (SELECT count(safe(t)) FROM b WHERE id <= most); END $$;"
        "SET parallel_leader_participation = off"
    )
    query = "SELECT sum(inner_count(g)) FROM big"
    with pytest.raises(psycopg.errors.RaiseException, match="batch"):
        workers.execute("SELECT inner_count(1)")
    assert any(node["Node Type"] == "Gather" for node in nodes_of(workers, query))
    assert workers.execute(query.encode()).fetchone() == (18000,)


# -- LIMIT

TICK = (
    "CREATE SEQUENCE s; CREATE FUNCTION tick() RETURNS int LANGUAGE plpgsql STABLE"
    " AS 'BEGIN RETURN nextval(''s''); END'"
)


@pytest.mark.parametrize(
    "limit",
    [
        "LIMIT nextval('s')",
        "LIMIT tick()",
        "LIMIT 3 + tick() - 3",
        "LIMIT (SELECT nextval('s'))",
        "LIMIT (SELECT tick())",
        "LIMIT 3 OFFSET nextval('s')",
        "LIMIT CASE WHEN tick() > 0 THEN 3 END",
    ],
)
def test_a_limit_is_evaluated_once(conn: Conn, limit: str) -> None:
    conn.execute(TICK)
    seen = []
    for value in ("off", "on"):
        switch(conn, value, "pg_bridge.batching")
        conn.execute("SELECT setval('s', 2)")
        rows = conn.execute(f"SELECT id, word(t, 1) FROM a ORDER BY id {limit}".encode()).fetchall()
        seen.append((rows, conn.execute("SELECT last_value FROM s").fetchone()))  # the planner may look, too
    assert seen[0] == seen[1]
    assert calls(conn)["word"]


@pytest.mark.parametrize("limit", ["LIMIT 3", "LIMIT 1 + 1 OFFSET 1", "LIMIT (SELECT count(*) FROM a WHERE id < 4)"])
def test_a_plain_limit_is_known_to_the_node(conn: Conn, limit: str) -> None:
    conn.execute(f"SELECT id, word(t, 1) FROM a ORDER BY id {limit}".encode()).fetchall()
    assert calls(conn) == {"word": (1, 3)}


# -- cursors


@pytest.mark.parametrize("scroll", ["", "SCROLL", "NO SCROLL"])
def test_cursors_go_back_where_they_would_without_calls(conn: Conn, scroll: str) -> None:
    for value in ("off", "on"):
        switch(conn, value, "pg_bridge.batching")
        with conn.transaction(force_rollback=True):
            conn.execute(f"DECLARE c {scroll} CURSOR FOR SELECT id, word(t, 1) FROM a WHERE passes(a, 7)".encode())
            first = conn.execute("FETCH 20 FROM c").fetchall()
            assert [row[0] for row in first] == [i for i in range(1, 60) if i % 7][:20]
            if scroll != "NO SCROLL":
                assert conn.execute("FETCH BACKWARD 3 FROM c").fetchall() == [first[18], first[17], first[16]]
                conn.execute("MOVE BACKWARD ALL FROM c")
                assert conn.execute("FETCH 20 FROM c").fetchall() == first
            assert len(conn.execute("FETCH ALL FROM c").fetchall()) == 32
            if scroll == "NO SCROLL":
                with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                    conn.execute("FETCH PRIOR FROM c")


def test_a_cursor_for_update_goes_forward_only_as_ever(conn: Conn) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute("DECLARE c CURSOR FOR SELECT id, word(t, 1) FROM a FOR UPDATE")
        conn.execute("FETCH 2 FROM c")
        conn.execute("UPDATE a SET t = 'x' WHERE CURRENT OF c")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            conn.execute("FETCH PRIOR FROM c")


def test_a_cursor_asks_no_sooner_for_that_it_can_go_back(conn: Conn) -> None:
    with conn.transaction():
        conn.execute("DECLARE c CURSOR FOR SELECT id, word(t, 1) FROM a")
        conn.execute("FETCH 2 FROM c")
        conn.execute("CLOSE c")
    assert calls(conn) == {"word": (1, 16)}

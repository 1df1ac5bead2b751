"""Row-level security and security barriers stand before a statement's own conditions, also inside SQL functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.conftest import Connect, Database
from tests.integration.batch_functions import calls, make_functions, make_tables

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

READER = "reader_of_secrets"

# Rows 1 to 20 are for everybody. `leak` tells what it sees; it costs so little that the planner puts it where it may.
SECRETS = f"""
CREATE TABLE secret (id int PRIMARY KEY, g int, t text);
INSERT INTO secret SELECT i, i % 7, CASE WHEN i <= 20 THEN 'quite open ' ELSE 'qualified ' END || i
               FROM generate_series(1, 40) AS i;
CREATE TABLE other AS SELECT i AS id, i % 7 AS g, 'Other ' || i AS t FROM generate_series(1, 10) AS i;
CREATE FUNCTION leak(t text) RETURNS text LANGUAGE plpgsql STABLE COST 0.0001 AS
    $$ BEGIN RAISE NOTICE '%', t; RETURN t; END $$;
CREATE VIEW barrier WITH (security_barrier) AS SELECT * FROM secret WHERE word(t, 1) LIKE '%open%';
CREATE VIEW joined WITH (security_barrier) AS
    SELECT s.* FROM secret AS s JOIN other AS o ON o.g = s.g AND o.id <= 7 WHERE word(s.t, 1) LIKE '%open%';
CREATE FUNCTION from_table() RETURNS SETOF secret LANGUAGE sql STABLE AS 'SELECT * FROM secret';
CREATE FUNCTION from_barrier() RETURNS SETOF barrier LANGUAGE sql STABLE AS 'SELECT * FROM barrier';
CREATE FUNCTION from_joined() RETURNS SETOF joined LANGUAGE sql STABLE AS 'SELECT * FROM joined';
CREATE FUNCTION nested() RETURNS SETOF secret LANGUAGE sql STABLE AS
    'SELECT * FROM (SELECT f.* FROM from_table() AS f UNION ALL SELECT f.* FROM from_table() AS f WHERE false) AS u';
CREATE TABLE p_secret (id int, g int, t text) PARTITION BY RANGE (id);
CREATE TABLE p_secret_1 PARTITION OF p_secret FOR VALUES FROM (0) TO (30);
CREATE TABLE p_secret_2 PARTITION OF p_secret FOR VALUES FROM (30) TO (100);
INSERT INTO p_secret SELECT * FROM secret;
CREATE FUNCTION from_parts() RETURNS SETOF p_secret LANGUAGE sql STABLE AS 'SELECT * FROM p_secret';
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
ALTER TABLE p_secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY open ON secret TO {READER} USING (word(t, 1) LIKE '%open%');
CREATE POLICY open ON p_secret TO {READER} USING (word(t, 1) LIKE '%open%');
GRANT SELECT ON secret, p_secret, barrier, joined, other TO {READER};
GRANT INSERT, SELECT ON called TO {READER};
ANALYZE;
"""

SOURCES = (
    "secret",
    "from_table()",
    "nested()",
    "barrier",
    "from_barrier()",
    "joined",
    "from_joined()",
    "p_secret",
    "from_parts()",
)

QUERIES = (
    "SELECT id FROM {source} AS s WHERE word(leak(t), 1) LIKE 'q%'",
    "SELECT id FROM {source} AS s WHERE leak(t) LIKE 'q%' AND word(t, 1) LIKE 'q%'",
    "SELECT s.id FROM {source} AS s JOIN other AS o ON o.g = s.g AND o.id < 3 AND leak(s.t) <> o.t",
    "SELECT s.id FROM {source} AS s JOIN other AS o ON o.g = s.g AND word(leak(s.t), 1) <> o.t",
    "SELECT s.id FROM {source} AS s JOIN other AS o ON word(leak(s.t), o.g) <> word(o.t, 2)",
    "SELECT o.id, s.id FROM other AS o LEFT JOIN {source} AS s ON o.g = s.g AND word(leak(s.t), 1) <> 'x'",
    "SELECT id FROM other AS o WHERE EXISTS (SELECT FROM {source} AS s WHERE s.g = o.g AND leak(s.t) <> word(o.t, 1))",
    "SELECT s.id, x.t FROM {source} AS s, LATERAL (SELECT word(leak(s.t), o.g) AS t FROM other AS o LIMIT 1) AS x",
    "SELECT g, max(word(leak(t), 1)) FROM {source} AS s GROUP BY g HAVING word(max(leak(t)), 1) LIKE 'q%'",
    "SELECT id FROM {source} AS s WHERE CASE WHEN leak(t) LIKE 'q%' THEN word(leak(t), 2) LIKE 'q%' ELSE false END",
    "SELECT o.id FROM {source} AS s JOIN other AS o ON s.id = o.id + 15 AND leak(s.t) <> o.t",
    "SELECT o.id, s.x FROM other AS o"
    " LEFT JOIN (SELECT id, coalesce(word(leak(t), 1), 'x') AS x FROM {source} AS s) AS s ON s.id = o.id + 15",
    "WITH c AS MATERIALIZED (SELECT id FROM {source} AS s WHERE word(leak(t), 1) LIKE 'q%') SELECT * FROM c, other",
)


@pytest.fixture
def host() -> str:
    """The functions that are batched are those of the PL/Python host."""
    return "plpython"


@pytest.fixture
def reader(batching: Database, db: Conn, connect: Connect) -> Iterator[Conn]:
    """A connection of a role that may see 20 of 40 secrets."""
    make_functions(db)
    make_tables(db)
    db.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(READER)))
    try:
        db.execute(SECRETS.encode())
        yield connect(user=READER)
    finally:
        db.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(sql.Identifier(READER)))


def leaked(conn: Conn, query: str) -> set[str]:
    """What `leak` saw, and what came as a row, that the role may not see."""
    seen: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        seen.append(diagnostic.message_primary or "")

    conn.add_notice_handler(note)
    try:
        conn.execute(query.encode()).fetchall()
    finally:
        conn.remove_notice_handler(note)
    assert seen, query
    return {text for text in seen if not text.startswith(("quite open", "Other"))}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("window_rows", [5, 16384])
def test_nothing_leaks(reader: Conn, db: Conn, window_rows: int) -> None:
    reader.execute(sql.SQL("SET pg_bridge.window_rows = {}").format(sql.Literal(window_rows)))
    for join in ("enable_nestloop", "enable_mergejoin", "enable_hashjoin"):
        reader.execute(sql.SQL("SET {} = off").format(sql.Identifier(join)))
        for source in SOURCES:
            for query in QUERIES:
                calls(db)
                assert leaked(reader, query.format(source=source)) == set(), (query, source, join)
                assert calls(db), query
        reader.execute(sql.SQL("RESET {}").format(sql.Identifier(join)))


def test_what_is_looked_up_is_guarded(reader: Conn, db: Conn) -> None:
    """A condition on both tables goes into the look-up of one, but not before a policy that makes calls."""
    for join in ("enable_hashjoin", "enable_mergejoin"):
        reader.execute(sql.SQL("SET {} = off").format(sql.Identifier(join)))
    db.execute("CREATE TABLE picks AS SELECT 15 + i AS id, 'x' AS t FROM generate_series(1, 10) AS i; ANALYZE picks")
    db.execute(sql.SQL("GRANT SELECT ON picks TO {}").format(sql.Identifier(READER)))
    query = "SELECT o.id FROM secret AS s JOIN picks AS o ON s.id = o.id AND leak(s.t) <> o.t"
    assert leaked(reader, query) == set()
    assert leaked(reader, f"{query} WHERE o.id IN (20, 21)") == set()  # of which one is hidden
    assert calls(db)


def test_a_partner_that_only_a_call_makes_unique_may_not_be_the_first(reader: Conn, db: Conn) -> None:
    """With policies a comparison with a call is no equivalence, but it may prove that there is one partner."""
    name = sql.Identifier(READER)
    db.execute(
        "CREATE TABLE keyed AS SELECT 'word ' || i % 9 || '-' || i AS key, i % 4 AS g FROM generate_series(1, 60) AS i"
    )
    db.execute("CREATE UNIQUE INDEX ON keyed (key); ALTER TABLE keyed ENABLE ROW LEVEL SECURITY; ANALYZE keyed")
    db.execute(sql.SQL("CREATE POLICY few ON keyed TO {} USING (g < 3)").format(name))
    db.execute(sql.SQL("GRANT SELECT ON keyed, a, b TO {}").format(name))
    query = b"SELECT a.id FROM a JOIN b ON a.id = b.id JOIN keyed AS k ON k.key = word(a.t, b.id) AND k.g = a.g"
    for join in ("enable_nestloop", "enable_mergejoin", "enable_hashjoin"):
        reader.execute(sql.SQL("SET {} = off; SET pg_bridge.batching = off").format(sql.Identifier(join)))
        expected = sorted(reader.execute(query).fetchall())
        reader.execute("SET pg_bridge.batching = on")
        assert sorted(reader.execute(query).fetchall()) == expected
        assert len(expected) > 20
        reader.execute(sql.SQL("RESET {}").format(sql.Identifier(join)))
    assert calls(db)


def test_a_cursors_row_is_found_behind_a_policy_with_calls(reader: Conn, db: Conn) -> None:
    """There is one way to find it, whatever that costs."""
    db.execute(sql.SQL("GRANT UPDATE ON secret TO {}").format(sql.Identifier(READER)))
    with reader.transaction(force_rollback=True):
        reader.execute("DECLARE c CURSOR FOR SELECT id FROM secret ORDER BY id FOR UPDATE; MOVE 3 FROM c")
        changed = reader.execute("UPDATE secret SET g = 100 WHERE CURRENT OF c RETURNING id").fetchall()
    assert changed == [(3,)]


def test_statements_without_policies_are_reordered_all_the_same(reader: Conn, db: Conn) -> None:
    """Planning a guarded statement inside of the planning of another leaves no trace on the next."""
    query = "SELECT a.id FROM a JOIN b ON b.a_id = a.id AND b.id < 5 WHERE passes(a, 3)"
    db.execute("SET enable_nestloop = off; SET enable_indexscan = off; SET enable_bitmapscan = off")

    def is_lifted() -> bool:
        plan = "\n".join(line for (line,) in db.execute(f"EXPLAIN (COSTS OFF) {query}".encode()).fetchall())
        return plan.index("LLM Batch") < plan.index("Join")

    assert is_lifted()
    db.execute("SELECT count(*) FROM barrier WHERE word(t, 1) LIKE 'q%'")
    assert is_lifted()
    with pytest.raises(psycopg.errors.DataException):
        db.execute("SELECT count(*) FROM barrier WHERE word('bad', length(t)) LIKE 'q%'")
    with pytest.raises(psycopg.errors.DivisionByZero):
        db.execute("SELECT count(*) FROM barrier WHERE word(t, 1 / (id - id)) LIKE 'q%'")
    assert is_lifted()

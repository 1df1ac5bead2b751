"""What a statement does once: it looks a server up, for each role that asks, and plans the query of `llm.map`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database
from tests.integration.test_map import Role

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

on_plpython = pytest.mark.parametrize("host", ["plpython"])  # where calls are gathered, and servers looked up by Python


def calls_of(conn: Conn, name: str) -> int:
    """How often a function of the extension has been called in this transaction."""
    found = conn.execute(
        "SELECT calls FROM pg_stat_xact_user_functions WHERE schemaname = 'llm' AND funcname = %s", [name]
    ).fetchone()
    return int(found[0]) if found else 0


@contextmanager
def counted(conn: Conn) -> Iterator[None]:
    """A transaction that counts calls from its start."""
    conn.execute("SELECT pg_stat_force_next_flush()")  # else what the session did in the last second counts, too
    with conn.transaction():
        conn.execute("SET LOCAL track_functions = 'all'; SET LOCAL pg_bridge.window_rows = 16")
        yield


# -- servers


@on_plpython
def test_a_batched_select_looks_its_server_up_once(conn: Conn, batching: Database) -> None:
    with counted(conn):
        conn.execute(
            "SELECT llm.complete('a {i}', g), llm.score('b {i}', g, on_error => 'null') "
            "FROM (SELECT generate_series(1, 300) AS i) AS g"
        )
        assert calls_of(conn, "_batch") > 4
        assert calls_of(conn, "_connect") == 1
        conn.execute("SELECT llm.complete('a {i}', g) FROM (SELECT generate_series(1, 3) AS i) AS g")
        assert calls_of(conn, "_connect") == 2  # the next statement does so anew


@on_plpython
def test_scans_of_one_statement_look_their_server_up_once(foreign: Conn) -> None:
    foreign.execute(
        "CREATE TABLE t AS SELECT i, 'text ' || i AS body FROM generate_series(1, 40) AS i; ANALYZE t;"
        "CREATE FOREIGN TABLE f (i int, body text, kind text OPTIONS (prompt 'What of {body}?'))"
        " SERVER vllm OPTIONS (source 'public.t')"
    )
    with counted(foreign):
        foreign.execute("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")
        rows = foreign.execute(
            "SELECT o.kind, f.kind FROM (SELECT * FROM f WHERE i < 4 OFFSET 0) AS o, "
            "LATERAL (SELECT kind FROM f WHERE f.i = o.i OFFSET 0) AS f"
        ).fetchall()
        assert len(rows) == 3
        assert calls_of(foreign, "_foreign_scan") > 1
        assert calls_of(foreign, "_connect") == 1


def test_llm_map_looks_its_server_up_once(conn: Conn) -> None:
    with counted(conn):
        conn.execute("SELECT FROM llm.map('SELECT i FROM generate_series(1, 3000) AS i', 'a {i}', window_rows => 100)")
        assert calls_of(conn, "_connect") == 1
        # More than Multicorn stages at once.
        conn.execute("SELECT FROM llm.map('SELECT i % 9 AS n FROM generate_series(1, 25000) AS i', 'a {n}')")
        assert calls_of(conn, "_connect") == 2


def test_the_next_statement_of_a_transaction_sees_what_has_changed(
    conn: Conn, connect: Connect, engine: EngineDouble
) -> None:
    with Role(conn, "asker"), EngineDouble() as another:
        conn.execute("GRANT USAGE ON FOREIGN SERVER vllm TO asker")
        asking = connect(user="asker", autocommit=False)
        ask = "SELECT count(llm.complete('{} {{i}}', g)) FROM (SELECT generate_series(1, 40) AS i) AS g"
        asking.execute(ask.format("first"))
        asked = len(engine.received.prompts)
        conn.execute(f"ALTER SERVER vllm OPTIONS (SET endpoint '{another.url}')")
        asking.execute(ask.format("second"))
        assert (len(engine.received.prompts), len(another.received.prompts)) == (asked, 40)
        conn.execute("REVOKE USAGE ON FOREIGN SERVER vllm FROM asker")
        if asking.execute("SELECT has_server_privilege('vllm', 'USAGE')").fetchone() == (True,):
            asking.rollback()  # PostgreSQL 18 itself sees it in the next transaction only, where no new lock is taken
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match='denied for foreign server "vllm"'):
            asking.execute(ask.format("third"))
        asking.close()


@on_plpython
def test_roles_of_one_statement_look_their_servers_up_each(conn: Conn, connect: Connect, batching: Database) -> None:
    with Role(conn, "lender"), Role(conn, "borrower"):
        conn.execute("GRANT USAGE ON FOREIGN SERVER vllm TO lender; GRANT CREATE ON SCHEMA public TO lender")
        lender = connect(user="lender")
        lender.execute(
            "CREATE FUNCTION lent(i int) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS "
            "$$ BEGIN RETURN llm.complete('lent {i}', (SELECT g FROM (SELECT i) AS g)); END $$"
        )
        borrower = connect(user="borrower")
        assert (
            borrower.execute("SELECT lent(i) IS NOT NULL FROM generate_series(1, 3) AS i").fetchall() == [(True,)] * 3
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            borrower.execute(
                "SELECT lent(i), llm.complete('own {i}', g) "
                "FROM (SELECT generate_series(1, 3) AS i) AS g WHERE lent(i) IS NOT NULL"
            )
        lender.close()
        borrower.close()


@on_plpython
def test_a_number_by_hand_is_of_no_use_in_the_next_transaction(conn: Conn, connect: Connect) -> None:
    with Role(conn, "forger"):
        conn.execute("GRANT USAGE ON FOREIGN SERVER vllm TO forger")
        forging = connect(user="forger")
        forged = (
            "SELECT fault[1] FROM llm._batch(7, 1, false, ARRAY['\"q\"'::json], ARRAY['{}'::json], '{}', '{server}', "
            "ARRAY[ARRAY['\"vllm\"'::json]])"
        )
        assert forging.execute(forged).fetchone() == (None,)
        conn.execute("REVOKE USAGE ON FOREIGN SERVER vllm FROM forger")
        assert forging.execute(forged).fetchone() == ("42501",)
        forging.close()


# -- queries


@pytest.fixture
def notices(conn: Conn) -> list[str]:
    """What a function says whenever a statement that calls it is planned."""
    conn.execute(
        "CREATE FUNCTION planned() RETURNS text IMMUTABLE LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE NOTICE 'planned'; RETURN 'x'; END $$;"
        "CREATE FUNCTION executed() RETURNS text VOLATILE LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE NOTICE 'executed'; RETURN 'x'; END $$"
    )
    said: list[str] = []
    conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    return said


@pytest.mark.parametrize(
    "query",
    [
        "SELECT i, planned() FROM generate_series(1, 5) AS i",
        "WITH g AS (SELECT i, planned() FROM generate_series(1, 5) AS i) SELECT * FROM g ORDER BY 1 DESC",
        "(SELECT 1 AS i, planned()) ; ",
        "VALUES (planned()) -- said once",
        "/* a comment */ SELECT planned() AS i WHERE false",
        "SELECT planned() FROM pg_class LIMIT 1 FOR UPDATE",
    ],
)
def test_the_query_of_llm_map_is_planned_once(conn: Conn, notices: list[str], query: str) -> None:
    conn.execute("SELECT * FROM llm.map(%s, 'say it')", [query])
    assert notices == ["planned"]


def test_a_query_that_is_not_read_is_not_executed(conn: Conn, notices: list[str]) -> None:
    query = "SELECT executed() AS word, planned() FROM generate_series(1, 3)"
    with pytest.raises(psycopg.errors.UndefinedColumn, match='column "sword" does not exist'):
        conn.execute("SELECT * FROM llm.map(%s, 'say {sword}')", [query])
    if conn.execute("SELECT FROM pg_extension WHERE extname = 'pg_bridge'").fetchone():  # the other stages rows first
        assert notices == ["planned"]
    notices.clear()
    conn.execute("SELECT * FROM llm.map(%s, 'say {word}')", [query])
    assert notices == ["planned"] + 3 * ["executed"]


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO written SELECT planned() RETURNING *",
        "WITH w AS (INSERT INTO written VALUES ('x') RETURNING *) SELECT * FROM w",
        "WITH w AS (SELECT 'x') INSERT INTO written SELECT * FROM w RETURNING *",
        "(ANALYZE) INSERT INTO written VALUES ('x') RETURNING *",
        "ANALYZE INSERT INTO written VALUES ('x') RETURNING *",
        "EXPLAIN ANALYZE INSERT INTO written VALUES ('x') RETURNING *",
        "SELECT 1) AS a; INSERT INTO written VALUES ('x'); SELECT * FROM (SELECT 1",
        "SELECT 1; INSERT INTO written VALUES ('x')",
        "CREATE TABLE more AS SELECT 1",
        "DECLARE c CURSOR FOR SELECT 1",
        "SELECT 'x' AS word INTO more",
        "SELECT 1 AS a) AS x, (SELECT 2 AS b",
        "written AS a JOIN written AS b ON true",
        "SHOW search_path",
        "",
    ],
)
def test_what_is_not_one_query_that_reads_is_refused_and_not_executed(
    conn: Conn, notices: list[str], query: str
) -> None:
    conn.execute("CREATE TABLE written (word text)")
    with pytest.raises(psycopg.Error) as refused:
        conn.execute("SELECT * FROM llm.map(%s, 'say it')", [query])
    assert refused.value.sqlstate in ("42601", "0A000"), refused.value
    assert conn.execute("SELECT (SELECT count(*) FROM written), to_regclass('more')").fetchone() == (0, None)
    assert conn.execute("SELECT count(*) FROM llm.map('SELECT 1 AS a', 'say it')").fetchone() == (1,)


def test_a_query_without_columns_has_rows_all_the_same(conn: Conn) -> None:
    rows = conn.execute("SELECT input, output IS NULL FROM llm.map('SELECT FROM generate_series(1, 2)', 'say it')")
    assert rows.fetchall() == [({}, False)] * 2


def test_many_rows_come_in_their_order(conn: Conn) -> None:
    """More than are fetched at once, on either host."""
    found = conn.execute(
        "SELECT count(*), bool_and((input ->> 'i')::int = row_id) "
        "FROM llm.map('SELECT i, i % 3 AS k FROM generate_series(1, 20000) AS i ORDER BY i', 'say {k}')"
    ).fetchone()
    assert found == (20000, True)

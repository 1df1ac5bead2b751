"""The Multicorn host's own surface: llm.rowset and llm.result, and whom staged rows belong to."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, create_server
from tests.integration.test_map import Role, expected

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

pytestmark = pytest.mark.multicorn


@pytest.fixture
def host() -> str:
    """These tables exist on Multicorn only."""
    return "multicorn"


def stage(conn: Conn, rows: int, name: str = "r") -> None:
    conn.execute(
        "INSERT INTO llm.rowset (rowset, input) SELECT %s, row_to_json(given) "
        "FROM (SELECT i AS n, 'x' || i AS t FROM generate_series(1, %s) AS i) AS given",
        [name, rows],
    )


def staged(conn: Conn) -> int:
    (rows,) = conn.execute("SELECT count(*) FROM llm.rowset").fetchone() or (-1,)
    return int(rows)


RESULT = "SELECT row_id, input, output FROM llm.result WHERE rowset = 'r' AND prompt = 'What is {n}?'"


def test_rows_go_in_and_answers_come_out(conn: Conn) -> None:
    with conn.transaction():
        stage(conn, 300)
        rows = conn.execute(RESULT + " ORDER BY row_id").fetchall()
    assert rows == [(i, {"n": i, "t": f"x{i}"}, expected("What is n?", {"n": i})) for i in range(1, 301)]


def test_a_scan_with_limit_stops_early(conn: Conn, engine: EngineDouble) -> None:
    with conn.transaction():
        stage(conn, 20000)
        assert len(conn.execute(RESULT + " LIMIT 10").fetchall()) == 10
        assert len(conn.execute(RESULT + " AND output IS NOT NULL LIMIT 10").fetchall()) == 10
    assert len(engine.received.prompts) <= 2 * 64


def test_options_are_one_json_object(conn: Conn, engine: EngineDouble) -> None:
    create_server(conn, engine.url, name="other")
    with conn.transaction():
        stage(conn, 5)
        rows = conn.execute(RESULT + """ AND options = '{"server": "other", "choices": ["yes", "no"]}'""").fetchall()
    assert {row[2] for row in rows} <= {"yes", "no"}
    for options in ("not json", "[1]", '{"colour": "red"}', '{"reorder": "sideways"}', '{"server": "nope"}'):
        with pytest.raises(psycopg.errors.InternalError) as caught, conn.transaction():
            stage(conn, 5)
            conn.execute(RESULT + " AND options = %s", [options])
        assert caught.value.diag.message_hint, options


@pytest.mark.parametrize("query", ["SELECT * FROM llm.result", "SELECT * FROM llm.result WHERE rowset = 'r'"])
def test_a_scan_needs_a_row_set_and_a_prompt(conn: Conn, query: str) -> None:
    with pytest.raises(psycopg.errors.InternalError, match="needs a row set and a prompt"):
        conn.execute(query)


def test_an_unknown_row_set(conn: Conn) -> None:
    with pytest.raises(psycopg.errors.InternalError, match='row set "r" does not exist') as caught:
        conn.execute(RESULT)
    assert "INSERT INTO llm.rowset" in (caught.value.diag.message_hint or "")


def test_staged_rows_go_with_the_transaction(conn: Conn) -> None:
    stage(conn, 3)
    assert staged(conn) == 0
    with conn.transaction():
        stage(conn, 3)
        assert staged(conn) == 3
    assert staged(conn) == 0
    with pytest.raises(psycopg.errors.DivisionByZero), conn.transaction():
        stage(conn, 3)
        conn.execute("SELECT 1 / 0")
    assert staged(conn) == 0


def test_an_aborted_llm_map_leaves_rows_that_were_staged_before(conn: Conn) -> None:
    with conn.transaction():
        stage(conn, 3)
        with pytest.raises(psycopg.errors.DivisionByZero), conn.transaction():
            stage(conn, 2)
            conn.execute("SELECT count(*) FROM llm.map('SELECT i FROM generate_series(1, 5) AS i', '{i}')")
            conn.execute("SELECT 1 / 0")
        assert staged(conn) == 3


def test_an_aborted_subtransaction_takes_its_rows_along(conn: Conn) -> None:
    with conn.transaction():
        stage(conn, 3)
        conn.execute("SAVEPOINT a")
        stage(conn, 4)
        stage(conn, 5, "another")
        conn.execute("SAVEPOINT b")
        stage(conn, 6)
        conn.execute("RELEASE b")
        assert staged(conn) == 18
        conn.execute("ROLLBACK TO a")
        assert staged(conn) == 3
        stage(conn, 2)
        conn.execute("RELEASE a")
        assert staged(conn) == 5
        rows = conn.execute(RESULT + " ORDER BY row_id").fetchall()
    assert [row[1]["n"] for row in rows] == [1, 2, 3, 1, 2]


def test_a_failed_insert_stages_nothing(conn: Conn) -> None:
    with conn.transaction():
        stage(conn, 2)
        with pytest.raises(psycopg.errors.DivisionByZero), conn.transaction():
            conn.execute(
                "INSERT INTO llm.rowset (rowset, input) "
                "SELECT 'r', to_json(1 / (1500 - i)) FROM generate_series(1, 3000) AS i"
            )
        assert staged(conn) == 2


def test_another_session_sees_nothing(conn: Conn, connect: Connect) -> None:
    other = connect()
    with conn.transaction():
        stage(conn, 3)
        assert staged(other) == 0
        with pytest.raises(psycopg.errors.InternalError, match="does not exist"):
            other.execute(RESULT)


def test_null_rows_and_rows_that_are_no_objects(conn: Conn, engine: EngineDouble) -> None:
    with conn.transaction():
        conn.execute("""INSERT INTO llm.rowset (rowset, input) VALUES ('r', '{"n": 1}'), ('r', NULL)""")
        assert len(conn.execute(RESULT).fetchall()) == 2
    assert engine.received.prompts == ['What is n?\n{"n": 1}', 'What is n?\n{"n": null}']
    with pytest.raises(psycopg.errors.InternalError, match="the input is a single value"), conn.transaction():
        conn.execute("INSERT INTO llm.rowset (rowset, input) VALUES ('r', '[1]')")
        conn.execute(RESULT)


def test_what_cannot_be_written(conn: Conn) -> None:
    for statement in (
        "INSERT INTO llm.rowset (rowset, input) VALUES (NULL, '{}')",
        "INSERT INTO llm.rowset (rowset, row_id, input) VALUES ('r', 7, '{}')",
        "UPDATE llm.rowset SET input = NULL",
        "DELETE FROM llm.rowset",
        "INSERT INTO llm.result (rowset) VALUES ('r')",
    ):
        with pytest.raises(psycopg.errors.Error), conn.transaction():
            stage(conn, 1)
            conn.execute(statement)
        assert staged(conn) == 0


def test_llm_map_leaves_no_row_set_behind(conn: Conn) -> None:
    with conn.transaction():
        conn.execute("SELECT * FROM llm.map('SELECT 1 AS a', '{a}')")
        conn.execute("SELECT llm.complete('x')")
        conn.execute("SELECT (llm.map('SELECT i FROM generate_series(1, 5000) AS i', '{i}')).* LIMIT 3")
        assert staged(conn) == 0


def test_secrets_cannot_be_read_back(conn: Conn, connect: Connect) -> None:
    conn.execute("CREATE USER MAPPING FOR PUBLIC SERVER vllm OPTIONS (api_key 'sk-hush')")
    with pytest.raises(psycopg.errors.InternalError, match="cannot be read"):
        conn.execute("SELECT * FROM llm._connection")
    with Role(conn, "reader"):
        reader = connect(user="reader")
        for statement in (
            "SELECT * FROM llm._connection",
            "INSERT INTO llm._connection VALUES (10, 'x', true, '{}')",
            "SELECT * FROM llm._servers('postgres')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(statement)
        reader.close()


def test_only_superusers_make_tables_that_reach_into_the_session(conn: Conn, connect: Connect) -> None:
    with Role(conn, "builder"):
        conn.execute("GRANT USAGE ON FOREIGN DATA WRAPPER pg_bridge TO builder")
        builder = connect(user="builder")
        builder.execute(
            "CREATE SERVER mine FOREIGN DATA WRAPPER pg_bridge "
            "OPTIONS (endpoint 'http://127.0.0.1:1', wrapper 'pg_bridge.multicorn.wrapper.Wrapper');"
            "CREATE FOREIGN TABLE pg_temp.own (role oid) SERVER mine OPTIONS (source 'a')"
        )
        for statement in (
            "CREATE FOREIGN TABLE pg_temp.c (role oid) SERVER mine OPTIONS (relation 'connection')",
            "ALTER FOREIGN TABLE pg_temp.own OPTIONS (DROP source, ADD relation 'connection')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                builder.execute(statement)
        builder.close()


def test_explain_asks_nothing(conn: Conn, engine: EngineDouble) -> None:
    with conn.transaction():
        stage(conn, 3)
        plan = str(conn.execute("EXPLAIN (VERBOSE) " + RESULT).fetchall())
    assert "What is {n}?" in plan
    assert engine.received.requests == []

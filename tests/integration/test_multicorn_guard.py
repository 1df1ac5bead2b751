"""EXPLAIN of a Multicorn scan with a value that is known only at run time, which crashes the server by itself."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from tests.conftest import Connect, Database
from tests.integration.test_faults import once

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

pytestmark = pytest.mark.multicorn

SOURCE = """
CREATE TABLE shelf (id int, u uuid, n numeric, t text, d timestamptz);
INSERT INTO shelf SELECT i, md5(i::text)::uuid, i / 2.0, 't' || i, timestamptz '2026-01-01' + i * interval '1 day'
FROM generate_series(1, 9) AS i;
CREATE FOREIGN TABLE books (id int, u uuid, n numeric, t text, d timestamptz,
                            kind text OPTIONS (prompt 'What kind is {t}?'))
SERVER vllm OPTIONS (source 'public.shelf');
"""

CONDITIONS = {
    "u = (SELECT md5('3')::uuid)": [3],
    "n = (SELECT 1.5)": [3],
    "n = ANY((SELECT ARRAY[1.5, 2.0])::numeric[])": [3, 4],
    "t = (SELECT 't3'::text)": [3],
    "d = (SELECT timestamptz '2026-01-04')": [3],
    "n = 1.0 + (SELECT 0.5)": [3],
    "id = 1 + (SELECT 2)": [3],
}


@pytest.fixture
def host() -> str:
    return "multicorn"


@pytest.fixture(params=["preloaded", "not preloaded"])
def books(request: pytest.FixtureRequest, batching: Database, foreign: Conn, connect: Connect) -> Conn:
    """A new session that may read a foreign table; with and without the module at its start."""
    foreign.execute(SOURCE)
    if request.param == "not preloaded":
        name = sql.Identifier(batching.name)
        foreign.execute(sql.SQL("ALTER DATABASE {} SET session_preload_libraries = 'plpgsql'").format(name))
    return connect()


@pytest.mark.some(2)
@pytest.mark.parametrize("explain", ["EXPLAIN", "EXPLAIN (VERBOSE)", "EXPLAIN (ANALYZE)"])
def test_a_value_of_run_time_does_not_crash_explain(books: Conn, explain: str) -> None:
    for condition in CONDITIONS:
        lines = [line for (line,) in books.execute(f"{explain} SELECT id FROM books WHERE {condition}")]
        assert any("Foreign Scan" in line for line in lines)
        is_shown = condition.startswith(("id", "d"))  # types that are passed by value
        assert any("known only at run time" in line for line in lines) != is_shown


@pytest.mark.some(1)
def test_the_statements_themselves_are_answered(books: Conn) -> None:
    for condition, ids in CONDITIONS.items():
        found = books.execute(f"SELECT id FROM books WHERE {condition} ORDER BY id").fetchall()
        assert [number for (number,) in found] == ids


@pytest.mark.some(1)
def test_a_generic_plan_can_be_explained(books: Conn) -> None:
    books.execute("SET plan_cache_mode = force_generic_plan")
    books.execute("PREPARE one (uuid) AS SELECT id FROM books WHERE u = $1")
    lines = [line for (line,) in books.execute("EXPLAIN EXECUTE one (md5('3')::uuid)")]
    assert any("known only at run time" in line for line in lines)


def test_any_role_may_explain_a_scan_of_results(batching: Database, db: Conn, connect: Connect) -> None:
    db.execute("DROP ROLE IF EXISTS nobody_much")
    db.execute("CREATE ROLE nobody_much LOGIN")
    with connect(user="nobody_much") as nobody:
        query = "EXPLAIN SELECT * FROM llm.result WHERE rowset = 'x' AND prompt = (SELECT 'a'::text)"
        assert "known only at run time" in str(nobody.execute(query).fetchall())
    db.execute("DROP ROLE nobody_much")


@pytest.mark.some(1)
@pytest.mark.parametrize("query", ["SELECT kind FROM books", "SELECT kind FROM books WHERE id > 3"])
@pytest.mark.parametrize("phase", ["planning", "execution"])
def test_a_cancel_before_the_first_row_is_raised_by_postgresql(
    books: Conn, foreign: Conn, connect: Connect, phase: str, query: str
) -> None:
    books.execute("SET plan_cache_mode = force_generic_plan")
    books.execute(f"PREPARE ask AS {query}")
    answers = books.execute("EXECUTE ask").fetchall()
    watching = connect()

    def waits() -> bool:
        return watching.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is not None

    with foreign.transaction(force_rollback=True):
        foreign.execute("LOCK TABLE shelf")  # which the connection to the source waits for, three seconds at most
        with once(waits, books.cancel), pytest.raises(errors.QueryCanceled, match="due to user request"):
            books.execute(query if phase == "planning" else "EXECUTE ask")
    assert books.execute("EXECUTE ask").fetchall() == answers


@pytest.mark.some(2)
@pytest.mark.parametrize(
    "condition",
    [
        "id = current_setting('max_connections')::int",
        "t = current_user",
        "t = ANY (ARRAY[current_setting('port'), 't3'])",
    ],
)
def test_what_multicorn_takes_for_another_type_is_refused(books: Conn, condition: str) -> None:
    with pytest.raises(errors.FeatureNotSupported, match='a condition on foreign table "books"') as caught:
        books.execute(f"SELECT id FROM books WHERE {condition}")
    assert "subquery" in str(caught.value.diag.message_hint)

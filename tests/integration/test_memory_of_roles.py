"""What a session remembers belongs to the role that it acts as, not to its SECURITY DEFINER functions' callers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database
from tests.integration.test_map import Role

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

ROWS = 7


@pytest.fixture
def peeker(conn: Conn, connect: Connect) -> Iterator[Conn]:
    """A role that may ask, and may call functions that ask about rows which it may not see."""
    with Role(conn, "peeker"):
        conn.execute(
            "GRANT USAGE ON FOREIGN SERVER vllm TO peeker; CREATE TABLE hidden (name text);"
            f"INSERT INTO hidden SELECT 'patient ' || i FROM generate_series(1, {ROWS}) AS i;"
            "CREATE FUNCTION asks() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS "
            "$$ SELECT count(llm.complete('Is {name} ill?', h)) FROM hidden AS h $$;"
            "CREATE FUNCTION maps() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS "
            "$$ SELECT count(output) FROM llm.map('TABLE hidden', 'Is {name} ill?') $$"
        )
        peeking = connect(user="peeker", autocommit=False)
        yield peeking
        peeking.close()


def forged(conn: Conn, number: int, name: str) -> Any:
    """A call of the batch function by hand, about one row."""
    found = conn.execute(
        "SELECT answers FROM llm._batch(%s, 1, false, ARRAY['\"Is {name} ill?\"'::json], ARRAY[%s::json], '{}', "
        "'{server,max_tokens}', ARRAY[ARRAY['\"vllm\"'::json], ARRAY['128'::json]])",
        [number, f'{{"name": "{name}"}}'],
    ).fetchone()
    return found and found[0]


@pytest.mark.parametrize("host", ["plpython"])
def test_a_forged_call_does_not_tell_what_another_role_asked(
    peeker: Conn, engine: EngineDouble, batching: Database
) -> None:
    assert peeker.execute("SELECT asks()").fetchone() == (ROWS,)
    for number in range(-3, 30):
        asked = len(engine.received.prompts)
        assert forged(peeker, number, "patient 3")
        assert len(engine.received.prompts) == asked + 1, f"statement {number} is another role's"
        assert peeker.execute("SELECT llm._report(%s, 1)", [number + 100]).fetchone() == ([],)


@pytest.mark.parametrize("host", ["plpython"])
def test_the_number_of_another_role_s_statement_is_of_no_use(
    conn: Conn, peeker: Conn, engine: EngineDouble, batching: Database
) -> None:
    conn.execute(
        "CREATE TABLE numbers (statement bigint); GRANT SELECT ON numbers TO peeker;"
        "CREATE FUNCTION told(t text) RETURNS text LANGUAGE plpgsql STABLE COST 10000 AS $$ BEGIN RETURN t; END $$;"
        "CREATE FUNCTION told_batch(statement bigint, node int, t json[]) RETURNS text[] LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO numbers VALUES (statement); RETURN ARRAY(SELECT e #>> '{}' FROM unnest(t) AS e); END $$;"
        "SELECT llm.register_batch('told(text)', 'told_batch(bigint, int, json[])');"
        "CREATE FUNCTION asks_and_tells() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS "
        "$$ SELECT count(llm.complete('Is {name} ill?', h) || told(name)) FROM hidden AS h $$"
    )
    numbers: set[int] = set()
    for _ in range(2):
        assert peeker.execute("SELECT asks_and_tells()").fetchone() == (ROWS,)
        (number,) = peeker.execute(
            "SELECT max(statement) FROM numbers WHERE statement <> ALL (%s)", [[*numbers, 0]]
        ).fetchone() or (None,)
        assert number is not None
        numbers.add(number)
        assert abs(number) > 2**32, "a number that can be guessed"
        asked = len(engine.received.prompts)
        assert forged(peeker, number, "patient 3")
        assert len(engine.received.prompts) == asked + 1
        assert (
            peeker.execute(
                "SELECT (llm._report(%s, n.n))[1:2] FROM generate_series(0, 9) AS n (n) WHERE n <> 1", [number]
            ).fetchall()
            == [([],)] * 9
        )


@pytest.mark.parametrize("call", ["asks()", "maps()"])
def test_last_run_tells_of_the_own_role_s_runs_only(peeker: Conn, call: str) -> None:
    assert peeker.execute(f"SELECT {call}").fetchone() == (ROWS,)
    assert peeker.execute("SELECT rows, prompt_tokens FROM llm.last_run()").fetchone() in (None, (None, None))
    peeker.execute("SELECT * FROM llm.map('VALUES (1), (2)', '{column1}')")
    peeker.execute(f"SELECT {call}")
    assert peeker.execute("SELECT rows FROM llm.last_run()").fetchone() == (2,)


@pytest.mark.multicorn
@pytest.mark.parametrize("host", ["multicorn"])
def test_staged_rows_are_seen_by_the_role_that_staged_them(conn: Conn, peeker: Conn) -> None:
    conn.execute(
        "CREATE FUNCTION stages() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$ "
        "INSERT INTO llm.rowset (rowset, input) SELECT 'r', row_to_json(h) FROM hidden AS h $$;"
        "CREATE FUNCTION sees() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM llm.rowset'"
    )
    peeker.execute("SELECT stages()")
    assert peeker.execute("SELECT count(*), sees() FROM llm.rowset").fetchone() == (0, ROWS)
    peeker.execute("""INSERT INTO llm.rowset (rowset, input) VALUES ('r', '{"name": "mine"}')""")
    assert peeker.execute("SELECT rowset, row_id, input FROM llm.rowset").fetchall() == [("r", 1, {"name": "mine"})]
    answers = peeker.execute("SELECT input FROM llm.result WHERE rowset = 'r' AND prompt = '{name}?'").fetchall()
    assert answers == [({"name": "mine"},)]
    # llm.map stages rows for as long as it runs, and a function in its caller's select list runs meanwhile.
    conn.execute(
        "CREATE FUNCTION streams() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS "
        "$$ SELECT (llm.map('TABLE hidden', 'Is {name} ill?')).output $$"
    )
    seen = peeker.execute("SELECT streams(), (SELECT count(*) FROM llm.rowset WHERE rowset <> 'r')").fetchall()
    assert [count for _, count in seen] == [0] * ROWS


def test_a_callers_code_fetches_nothing_that_a_definer_reads(conn: Conn, peeker: Conn) -> None:
    conn.execute(
        "INSERT INTO hidden SELECT 'patient ' || i FROM generate_series(8, 3000) AS i;"
        "CREATE FUNCTION streams() RETURNS SETOF bigint LANGUAGE sql SECURITY DEFINER AS "
        "$$ SELECT (llm.map('TABLE hidden', 'Is {name} ill?')).row_id $$;"
        "CREATE SCHEMA peeker AUTHORIZATION peeker"
    )
    peeker.execute("""
        CREATE FUNCTION peeker.fetches() RETURNS text LANGUAGE plpgsql AS $$
        DECLARE
            cursor text;
            found record;
        BEGIN
            FOREACH cursor IN ARRAY ARRAY(SELECT name FROM pg_cursors WHERE name <> '') LOOP
                EXECUTE format('FETCH 1 FROM %I', cursor) INTO found;
                RETURN found::text;
            END LOOP;
            RETURN NULL;
        END $$
    """)
    seen = peeker.execute("SELECT streams(), peeker.fetches()").fetchall()
    assert {text for _, text in seen} == {None}
    assert sorted(number for number, _ in seen) == list(range(1, 3001))

"""llm.last_errors: why rows have no answer, for the role that asked, and without their texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pg_bridge.asking.failures import digest_prompt
from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database
from tests.integration.test_map import Role, ask

MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

QUERY = "SELECT i, CASE WHEN i % 4 = 0 THEN 'poison' ELSE 'text ' || i END AS t FROM generate_series(1, 10) AS i"
TABLE = f"""
CREATE TABLE notes AS {QUERY};
CREATE FOREIGN TABLE asked (i int, t text, mood text OPTIONS (prompt 'How is {{t}}?', on_error 'null'))
SERVER vllm OPTIONS (source 'public.notes', key 'i');
"""


@pytest.fixture
def engine(engine: EngineDouble) -> EngineDouble:
    """Refuses what it finds poisonous, and repeats it."""
    engine.behaviour.reject_marker = "poison"
    engine.behaviour.reject_echo = True
    return engine


def errors(conn: Conn) -> list[Any]:
    statement = "SELECT server, question, row_id, key, reason FROM llm.last_errors()"
    found = conn.execute(statement).fetchall()
    assert "poison" not in str(found)
    return found


def poisoned(engine: EngineDouble) -> str:
    """The digest of the prompt that was refused."""
    (prompt,) = {prompt for prompt in engine.received.prompts if "poison" in prompt}
    return digest_prompt(prompt)


def test_rows_of_a_map(fresh: Conn, engine: EngineDouble) -> None:
    assert errors(fresh) == []
    rows = ask(fresh, QUERY, "How is {t}?", on_error="null")
    assert [row[0] for row in rows if row[2] is None] == [4, 8]
    found = errors(fresh)
    assert sorted(each[:4] for each in found) == [("vllm", poisoned(engine), row_id, None) for row_id in (4, 8)]
    assert found[0][4] == rows[3][3]
    times = (
        "SELECT count(*) FROM llm.last_errors() AS e WHERE e.at BETWEEN now() - interval '1 hour' AND clock_timestamp()"
    )
    assert fresh.execute(times).fetchone() == (2,)


def test_what_ended_a_statement_outlives_its_transaction(fresh: Conn, engine: EngineDouble) -> None:
    with pytest.raises(psycopg.errors.DataException), fresh.transaction():
        ask(fresh, QUERY, "How is {t}?")
    assert errors(fresh)[0][:2] == ("vllm", poisoned(engine))


@pytest.mark.parametrize("host", ["plpython"])
def test_calls_in_batches(fresh: Conn, engine: EngineDouble, batching: Database) -> None:
    call = f"SELECT count(llm.complete('How is {{t}}?', to_jsonb(q) - 'i', on_error => 'null')) FROM ({QUERY}) AS q"
    assert fresh.execute(call.encode()).fetchone() == (8,)
    (error,) = errors(fresh)
    assert error[:4] == ("vllm", poisoned(engine), None, None)


def test_one_call(fresh: Conn, engine: EngineDouble) -> None:
    assert fresh.execute("SELECT llm.complete('Is this poison?', on_error => 'null')").fetchone() == (None,)
    assert [error[1] for error in errors(fresh)] == [poisoned(engine)]


def test_rows_of_a_foreign_table(foreign: Conn, engine: EngineDouble) -> None:
    foreign.execute(TABLE)
    assert foreign.execute("SELECT i FROM asked WHERE mood IS NULL ORDER BY i").fetchall() == [(4,), (8,)]
    found = errors(foreign)
    assert sorted(each[:4] for each in found) == [("vllm", poisoned(engine), None, key) for key in ("4", "8")]
    assert all(each[4].startswith('column "mood": ') for each in found)


@pytest.fixture
def reader(foreign: Conn, connect: Connect) -> Iterator[Conn]:
    """A role that reads through a view of somebody else's."""
    with Role(foreign, "reader_23"):
        foreign.execute(TABLE)
        foreign.execute(
            "GRANT USAGE ON FOREIGN SERVER vllm TO reader_23;"
            "CREATE USER MAPPING FOR reader_23 SERVER vllm OPTIONS (user 'reader_23', password_required 'false');"
            "GRANT SELECT ON notes TO reader_23;"  # on Multicorn he reads as himself
            "CREATE VIEW moods AS SELECT mood FROM asked WHERE abs(i) > 0; GRANT SELECT ON moods TO reader_23"
        )
        reading = connect(user="reader_23")
        yield reading
        reading.close()
        foreign.execute("DROP USER MAPPING FOR reader_23 SERVER vllm")


def test_a_view_lends_no_keys(foreign: Conn, reader: Conn) -> None:
    moods = "SELECT count(*) FROM moods WHERE mood IS NULL"
    foreign.execute(moods)
    assert {error[3] for error in errors(foreign)} == {"4", "8"}
    reader.execute(moods)
    assert [error[3] for error in errors(reader)] == [None, None]


def test_each_role_has_its_own(fresh: Conn, connect: Connect, engine: EngineDouble) -> None:
    with Role(fresh, "other_23"):
        fresh.execute(
            "GRANT USAGE ON FOREIGN SERVER vllm TO other_23;"
            "CREATE FUNCTION asks() RETURNS text LANGUAGE sql SECURITY DEFINER AS "
            "$$ SELECT llm.complete('Is this poison?', on_error => 'null') $$"
        )
        ask(fresh, QUERY, "How is {t}?", on_error="null")
        fresh.execute("SET ROLE other_23")
        assert errors(fresh) == []
        forged = """'{"do": "last_errors", "role": 10, "all": true}'"""
        assert fresh.execute(f"SELECT llm._ledger({forged})").fetchone() == ([],)
        fresh.execute("SELECT asks()")
        assert errors(fresh) == []
        ask(fresh, QUERY, "What is {t}?", on_error="null")
        assert len(errors(fresh)) == 2
        fresh.execute("RESET ROLE")
        assert len(errors(fresh)) == 3
        assert errors(connect()) == []  # another session

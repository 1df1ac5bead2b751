"""llm.estimate: what it foretells, for whom, and that it asks and leaves nothing."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database
from tests.integration.test_faults import eventually, once
from tests.integration.test_map import Role

Conn = psycopg.Connection[Any]

ROWS = """
SELECT i AS id, md5((i % 40)::text) || repeat(' which is rather long', 2 + i % 7) AS film,
       repeat(md5(i::text), 1 + i % 3) AS review
FROM generate_series(1, 900) AS i
"""
PROMPT = "Is {review} kind to {film}, as far as one can tell from what is said of it and from nothing else?"


def estimate(conn: Conn, query: str = ROWS, prompt: str = PROMPT, **options: Any) -> dict[str, Any]:
    named = "".join(f", {name} => %s" for name in options)
    cursor = conn.execute(f"SELECT * FROM llm.estimate(%s, %s{named})", [query, prompt, *options.values()])
    (row,) = cursor.fetchall()
    return {column.name: value for column, value in zip(cursor.description or (), row, strict=True)}


def test_what_is_foretold_is_what_the_run_counts(conn: Conn, engine: EngineDouble) -> None:
    foretold = estimate(conn)
    assert engine.received.requests == []
    assert engine.received.tokenized > 0
    conn.execute("SELECT count(*) FROM llm.map(%s, %s)", [ROWS, PROMPT])
    counted = conn.execute(
        "SELECT rows, unique_prompts, requests, prompt_tokens, cached_tokens FROM llm.last_run()"
    ).fetchone()
    assert counted is not None
    rows, unique, requests, prompt_tokens, cached_tokens = counted
    assert (foretold["rows"], foretold["unique_prompts"]) == (rows, unique) == (900, 900)
    assert foretold["prompt_tokens"] == pytest.approx(prompt_tokens, rel=0.01)
    assert foretold["cached_tokens"] == pytest.approx(cached_tokens, rel=0.05)
    assert cached_tokens > prompt_tokens / 3
    assert requests / 3 <= foretold["requests"] <= requests
    assert foretold["counted_by"] == "by_tokenizer"


def test_it_leaves_nothing_behind(fresh: Conn, engine: EngineDouble) -> None:
    estimate(fresh)
    assert engine.received.requests == []
    assert fresh.execute("SELECT rows FROM llm.last_run()").fetchone() == (None,)
    assert eventually(lambda: engine.received.in_flight == 0)


def test_what_the_ledger_knows_is_not_counted(fresh: Conn, engine: EngineDouble) -> None:
    fresh.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent')")
    fresh.execute("SELECT count(*) FROM llm.map(%s, %s)", [ROWS, PROMPT])
    used = fresh.execute("SELECT * FROM llm.usage()").fetchall()
    known = estimate(fresh)
    assert (known["unique_prompts"], known["already_answered"], known["requests"]) == (900, 900, 0)
    assert (known["prompt_tokens"], known["cached_tokens"], known["seconds"]) == (0, 0, 0)
    more = ROWS.replace("generate_series(1, 900)", "generate_series(1, 910)")
    assert estimate(fresh, more)["already_answered"] == 900
    assert 0 < estimate(fresh, more)["prompt_tokens"] < 10_000
    assert estimate(fresh, temperature=0.7)["already_answered"] == 0
    assert estimate(fresh, max_tokens=7)["already_answered"] == 0
    assert fresh.execute("SELECT * FROM llm.usage()").fetchall() == used
    fresh.execute("ALTER SERVER vllm OPTIONS (SET cache 'off')")
    assert estimate(fresh)["already_answered"] == 0


def test_an_engine_without_a_tokenizer(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.tokenize = engine.behaviour.metrics = engine.behaviour.batch_endpoint = False
    foretold = estimate(conn)
    assert (foretold["counted_by"], foretold["requests"]) == ("by_characters", 900)


def test_a_role_needs_usage_and_sees_its_own_rows(connect: Connect, fresh: Conn) -> None:
    with Role(fresh, "reader"):
        fresh.execute(
            "CREATE TABLE mine (a int, owner text); INSERT INTO mine SELECT i, 'other' FROM generate_series(1, 9) AS i;"
            "INSERT INTO mine VALUES (1, 'reader'); ALTER TABLE mine ENABLE ROW LEVEL SECURITY;"
            "CREATE POLICY p ON mine USING (owner = current_user); GRANT SELECT ON mine TO reader;"
            "CREATE TABLE hidden (a int)"
        )
        reader = connect(user="reader")
        with pytest.raises(psycopg.Error, match="permission denied for foreign server"):
            estimate(reader, "TABLE mine", "{a}")
        fresh.execute("GRANT USAGE ON FOREIGN SERVER vllm TO reader")
        assert estimate(reader, "TABLE mine", "{a}")["rows"] == 1
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table hidden"):
            estimate(reader, "TABLE hidden", "{a}")
        reader.close()


def test_a_cancel_ends_it(fresh: Conn, engine: EngineDouble) -> None:
    engine.behaviour.hang = True
    with once(lambda: engine.received.tokenized, fresh.cancel), pytest.raises(psycopg.errors.QueryCanceled):
        estimate(fresh)
    engine.behaviour.hang = False
    assert estimate(fresh)["rows"] == 900


def test_it_runs_where_nothing_may_be_written(fresh: Conn, database: Database) -> None:
    if database.host == "multicorn":
        pytest.skip("Multicorn's own tables are filled by INSERT")
    fresh.execute("SET default_transaction_read_only = on")
    assert estimate(fresh)["rows"] == 900


def test_an_engine_that_is_gone_is_an_error_as_for_a_run(fresh: Conn) -> None:
    fresh.execute("ALTER SERVER vllm OPTIONS (SET endpoint 'http://127.0.0.1:9', ADD connect_timeout_s '0.2')")
    with pytest.raises(psycopg.Error, match="could not connect to the engine"):
        estimate(fresh)
    assert estimate(fresh, f"SELECT * FROM ({ROWS}) AS r WHERE id < 0")["requests"] == 0  # nothing to ask it about

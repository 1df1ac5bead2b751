"""What an engine refuses: the request's own fault ends the statement, a row's is that row's, and the price is known."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Database
from tests.integration.test_map import ask

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

ROWS = 3000
A_DOZEN = 12
TEXTS = f"SELECT i, 'text ' || i AS t FROM generate_series(1, {ROWS}) AS i"
TYPED = (
    "llm.complete('{t}?', to_jsonb(q), on_error => %s)",
    "llm.is_true('{t}?', to_jsonb(q), on_error => %s)",
    "llm.classify('{t}?', to_jsonb(q), '{a,b}', on_error => %s)",
    "llm.score('{t}?', to_jsonb(q), on_error => %s)",
    """llm.extract('{t}?', to_jsonb(q), '{"type": "object"}', on_error => %s)""",
)


@pytest.fixture
def texts(conn: Conn) -> Conn:
    conn.execute(f"CREATE TABLE texts AS {TEXTS}")
    return conn


def refused(conn: Conn, statement: str, parameters: list[str] | None = None) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(statement.encode(), parameters)
    assert "text " not in f"{caught.value} {caught.value.diag.message_detail}"
    return caught.value


@pytest.mark.parametrize("on_error", ["fail", "null"])
def test_a_refusal_of_every_prompt_fails_a_map_in_either_mode(conn: Conn, engine: EngineDouble, on_error: str) -> None:
    engine.behaviour.refuse_every = "Unrecognized request argument supplied: structured_outputs"
    error = refused(conn, "SELECT * FROM llm.map(%s, '{t}?', on_error => %s)", [TEXTS, on_error])
    assert "refuses every prompt (HTTP status 400)" in str(error)
    assert "Unrecognized request argument supplied: structured_outputs" in (error.diag.message_detail or "")
    assert "No row is to blame" in (error.diag.message_hint or "")
    assert len(engine.received.requests) <= A_DOZEN


@pytest.mark.some(4)
@pytest.mark.parametrize("host", ["plpython"])
@pytest.mark.parametrize("on_error", ["fail", "null"])
@pytest.mark.parametrize("call", TYPED)
def test_a_refusal_of_every_prompt_fails_a_select(
    batching: Database, texts: Conn, engine: EngineDouble, call: str, on_error: str
) -> None:
    engine.behaviour.refuse_every = "'max_tokens' is too large: 9999. The maximum is 4096."
    error = refused(texts, f"SELECT {call} FROM texts AS q", [on_error])
    assert error.sqlstate == "58000"
    assert "is too large: 9999. The maximum is 4096." in (error.diag.message_detail or "")
    assert len(engine.received.requests) <= A_DOZEN


@pytest.mark.parametrize("on_error", ["fail", "null"])
def test_a_refusal_of_every_prompt_fails_calls_that_are_not_batched(
    texts: Conn, engine: EngineDouble, host: str, on_error: str
) -> None:
    if host == "plpython":
        texts.execute("SET pg_bridge.batching = off")
    engine.behaviour.refuse_every = "no template"
    error = refused(texts, f"SELECT {TYPED[0]} FROM texts AS q", [on_error])
    assert "refuses every prompt" in str(error)
    assert len(engine.received.requests) == 2
    texts.execute("SET pg_bridge.batching = on")


@pytest.mark.parametrize("on_error", ["fail", "null"])
def test_a_refusal_of_every_prompt_fails_a_foreign_table(foreign: Conn, engine: EngineDouble, on_error: str) -> None:
    foreign.execute(f"CREATE TABLE texts AS {TEXTS}")
    foreign.execute(
        "CREATE FOREIGN TABLE moods (i int, t text, "
        f"mood text OPTIONS (prompt 'How is {{t}}?', on_error '{on_error}')) "
        "SERVER vllm OPTIONS (source 'public.texts')"
    )
    engine.behaviour.refuse_every = "no template"
    error = refused(foreign, "SELECT mood FROM moods")
    assert "refuses every prompt" in str(error)
    assert len(engine.received.requests) <= A_DOZEN


@pytest.mark.some(1)
@pytest.mark.parametrize("host", ["plpython"])
@pytest.mark.parametrize("bad", [1, 1000, ROWS])
def test_a_select_whose_row_is_refused_fails_as_soon_as_that_is_known(
    batching: Database, conn: Conn, engine: EngineDouble, bad: int
) -> None:
    conn.execute("CREATE TABLE many AS SELECT i, 'text ' || i AS t FROM generate_series(1, 20000) AS i")
    engine.behaviour.reject_marker = f'"text {bad}"'
    engine.behaviour.delay_s = 0.01
    error = refused(conn, "SELECT llm.complete('{t}?', q) FROM many AS q")
    assert (error.sqlstate, error.diag.message_detail) == ("22000", "bad prompt")
    # Those in flight are answered or aborted: hardly anything was sent after the refusal.
    first = next(n for n, prompt in enumerate(engine.received.prompts) if f'"text {bad}"' in prompt)
    assert len(engine.received.prompts) - first < 1000


def test_a_scan_whose_row_is_refused_fails_as_soon_as_that_is_known(foreign: Conn, engine: EngineDouble) -> None:
    foreign.execute("CREATE TABLE texts AS SELECT i, 'text ' || i AS t FROM generate_series(1, 20000) AS i")
    foreign.execute(
        "CREATE FOREIGN TABLE moods (i int, t text, mood text OPTIONS (prompt 'How is {t}?')) "
        "SERVER vllm OPTIONS (source 'public.texts', key 'i')"
    )
    engine.behaviour.reject_marker = '"text 1"'
    error = refused(foreign, "SELECT i, mood FROM moods")
    assert error.diag.message_primary == 'the engine could not answer column "mood" for one of the rows'
    assert len(engine.received.prompts) < 3000
    noted = foreign.execute("SELECT reason FROM llm.last_errors() LIMIT 1").fetchone()
    assert noted == ('column "mood": bad prompt',)


def test_rows_that_are_refused_are_each_found(texts: Conn, engine: EngineDouble) -> None:
    engine.behaviour.reject_marker = '7"'
    rows = ask(texts, "TABLE texts", "{t}?", on_error="null")
    assert [row[0] for row in rows if row[2] is None] == [i for i in range(1, ROWS + 1) if i % 10 == 7]
    assert {row[3] for row in rows if row[2] is None} == {"bad prompt"}
    assert len(engine.received.requests) < ROWS * 1.3

"""llm.extract_columns: typed columns of an answer, in FROM."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.conftest import Database

Conn = psycopg.Connection[Any]

ROWS, TEXTS = 12, 5
MULTICORN_IS_SLOW = True
COLUMNS = (
    "name text, stars int, share numeric(4,2), seen boolean, at date, tags text[], mood mood, code varchar(3), "
    '"a ""b""" jsonb'
)
ANSWER = {
    "stars": 4, "name": "Max", "share": 0.25, "seen": True, "at": "2026-11-28", "tags": ["x", "y, z"], "mood": "good",
    'a "b"': {"n": [1, None]}, "code": "abc",
}  # fmt: skip


@pytest.fixture(params=["on", "off"])
def conn(request: pytest.FixtureRequest, used_conn: Conn, used_engine: EngineDouble, cluster: Cluster) -> Conn:
    if not cluster.has_module:
        pytest.skip("this PostgreSQL has not the module pg_bridge")
    used_conn.execute("LOAD 'pg_bridge'")
    used_conn.execute(f"SET pg_bridge.batching = {request.param}".encode())
    used_conn.execute("SELECT llm.cache_clear()")
    used_conn.execute("CREATE TYPE pg_temp.mood AS ENUM ('good', 'bad')")
    used_conn.execute("CREATE TEMP TABLE reviews (id int, review text)")
    used_conn.execute(
        f"INSERT INTO reviews SELECT i, 'text ' || i % {TEXTS} FROM generate_series(1, {ROWS}) AS i".encode()
    )
    used_engine.reset()
    return used_conn


def is_batched(conn: Conn, host: str) -> bool:
    row = conn.execute("SELECT current_setting('pg_bridge.batching', true) = 'on'").fetchone()
    return host == "plpython" and row == (True,)


def answer_of(prompt: str) -> str:
    text = json.loads(prompt[prompt.rindex("{") :])["review"]
    return json.dumps(ANSWER | {"name": text, "stars": int(text.split()[1])})


def test_columns_have_their_types_on_their_rows(conn: Conn, used_engine: EngineDouble, host: str) -> None:
    used_engine.behaviour.answer = answer_of
    query = (
        "SELECT r.id, t.* FROM reviews AS r, llm.extract_columns('Who in {review}?', r, cache => 'off')"
        f" AS t ({COLUMNS})"
    )
    found = conn.execute(query.encode()).fetchall()
    assert len(found) == ROWS
    for id, name, stars, share, seen, at, tags, mood, code, a_b in found:
        assert (name, stars) == (f"text {id % TEXTS}", id % TEXTS)
        assert [str(share), seen, str(at), tags, mood, code, a_b] == ["0.25", True, "2026-11-28", ["x", "y, z"], "good",
                                                                       "abc", {"n": [1, None]}]  # fmt: skip
    if is_batched(conn, host):
        assert len(used_engine.received.prompts) == TEXTS
    schema = next(body["structured_outputs"]["json"] for body in used_engine.received.bodies if "model" in body)
    assert schema["required"] == ["name", "stars", "share", "seen", "at", "tags", "mood", "code", 'a "b"']
    assert list(schema["properties"]) == schema["required"]  # so a reason that is listed first is given first
    assert schema["properties"]["code"] == {"type": ["string", "null"], "maxLength": 3}
    assert set(schema["properties"]["mood"]["enum"]) == {"good", "bad", None}


@pytest.mark.parametrize(
    "arguments",
    [
        "'{review}?', r",
        "'{review}?', r, 'vllm', 99",
        "'{review}?', input => r, cache => 'off'",
        "prompt => '{review}?', input => r",
        "input => r, prompt => '{review}?', max_tokens => 99",
        "'{}?', r.review",
        "'{}?', 'literal'",
    ],
)
def test_it_is_called_as_any_function(conn: Conn, used_engine: EngineDouble, arguments: str) -> None:
    used_engine.behaviour.answer = lambda _: '{"a": "x"}'
    query = f"SELECT count(*), min(a) FROM reviews AS r, llm.extract_columns({arguments}) AS t (a text)"
    assert conn.execute(query.encode()).fetchone() == (ROWS, "x")


PLACES = (
    "SELECT count(*) FROM reviews AS r LEFT JOIN LATERAL {} AS t (a text) ON true",
    "SELECT count(*) FROM reviews AS r WHERE EXISTS (SELECT FROM {} AS t (a text) WHERE a = 'x')",
    "SELECT count(*) FROM reviews AS r WHERE (SELECT a FROM {} AS t (a text)) = 'x'",
    "WITH c AS MATERIALIZED (SELECT a FROM reviews AS r, {} AS t (a text)) SELECT count(*) FROM c",
    "SELECT count(*) FROM (SELECT * FROM reviews AS r, {} AS t (a text) OFFSET 0) AS s",
    "SELECT count(*) FROM reviews AS r, ROWS FROM ({} AS (a text), generate_series(1, 1)) AS t",
)


@pytest.mark.some(4)
@pytest.mark.parametrize("query", PLACES)
def test_it_stands_anywhere_in_from(conn: Conn, used_engine: EngineDouble, query: str) -> None:
    used_engine.behaviour.answer = lambda _: '{"a": "x"}'
    whole = query.format("llm.extract_columns('{review}?', r)")
    assert conn.execute(whole.encode()).fetchone() == (ROWS,)


def test_a_view_keeps_it_as_it_is_written(conn: Conn, used_engine: EngineDouble) -> None:
    used_engine.behaviour.answer = lambda _: '{"a": "x"}'
    conn.execute(
        "CREATE TEMP VIEW seen AS SELECT r.id, t.a FROM reviews AS r, llm.extract_columns('{review}?', r) AS t (a text)"
    )
    assert conn.execute("SELECT count(*) FROM seen WHERE a = 'x'").fetchone() == (ROWS,)
    assert "extract_columns(" in str(conn.execute("SELECT pg_get_viewdef('seen')").fetchone())


WRONG = {
    "a int": ('"four"', "4.5", "99999999999", "true", '["4"]'),
    "a date": ('"2026-02-31"', '"soon"', "7"),
    "a boolean": ('"yes"', "1"),
    "a mood": ('"ugly"', "1"),
    "a text[]": ('"x"', "[1]", '[["x"]]'),
    "a numeric": ('"x"', "false"),
    "a varchar(2)": ('"abc"',),
    "a timestamptz": ('"yesterday"', '"2026-02-31T10:00:00Z"'),
    "a text": ("7", "[]", '{"b": 1}'),
}


@pytest.mark.some(6)
@pytest.mark.parametrize("columns", WRONG)
def test_a_value_of_another_type_is_its_rows_error(conn: Conn, used_engine: EngineDouble, columns: str) -> None:
    used_engine.behaviour.ignore_choices = True
    query = (
        "SELECT r.id FROM reviews AS r, llm.extract_columns('{review}?', r, cache => 'off', on_error => 'null')"
        f" AS t ({columns}) WHERE a IS NULL"
    )
    for value in WRONG[columns]:
        used_engine.behaviour.answer = lambda prompt, value=value: f'{{"a": {value if "text 3" in prompt else "null"}}}'
        assert len(conn.execute(query.encode()).fetchall()) == ROWS
        with pytest.raises(psycopg.errors.DataException) as caught:
            conn.execute(query.replace(", on_error => 'null'", "").encode())
        assert caught.value.sqlstate == "22000"
    errors = conn.execute("SELECT DISTINCT reason FROM llm.last_errors()").fetchall()
    assert errors == [("the engine's answer is not JSON of the schema",)]


def test_where_no_columns_are_seen_it_says_so(conn: Conn) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="no list of columns"):
        conn.execute("SELECT llm.extract_columns('{review}?', r) FROM reviews AS r")
    for arguments, error in (("NULL, r", "22004"), ("'{nope}?', r", "42703"), ("'{review}?', r, 'nowhere'", "42704")):
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(f"SELECT a FROM reviews AS r, llm.extract_columns({arguments}) AS t (a text)".encode())
        assert caught.value.sqlstate == error


def test_without_the_module_it_says_so(database: Database) -> None:
    unloaded = pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="native module")
    with psycopg.connect(database.dsn, options="-c session_preload_libraries=") as bare, unloaded:
        bare.execute("SELECT a FROM llm.extract_columns('{}?', 'x') AS t (a text)")

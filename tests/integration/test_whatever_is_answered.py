"""on_error => 'null' holds for whatever an answer is: it is a value of its type, or the failure of its own row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Database
from tests.integration.test_map import ask

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

GOOD = "yes"
ANSWERS = (
    GOOD,
    "",
    " ",
    "\0",
    "a\0b",
    "half \ud83d",
    "\udc00",
    "\ufeff",
    "\uffff",
    "7",
    "100",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999999",
    "-1e-999999",
    "9" * 5000,
    "0." + "9" * 5000,
    "1_000",
    "١٢٣",
    "²",
    "0x10",
    "99999999999999",
    "-999999999999999",
    "123456789012345.123456789",
    "2147483648",
    '{"p": NaN}',
    '{"p": -Infinity}',
    '{"p": "\\u0000"}',
    '{"\\u0000": 1}',
    '{"p": "\\ud800"}',
    '{"p": "half \ud83d"}',
    '{"p": 1e999999}',
    '{"p": 1e-999999}',
    '{"p": ' + "9" * 5000 + "}",
    '{"p": 1' + "0" * 4000 + "e4000}",
    '{"p": ' + "[" * 5000 + "]" * 5000 + "}",
    '{"p": ' * 5000 + "1" + "}" * 5000,
    '{"p": ' + "[" * 900 + "]" * 900 + "}",
    "[" * 5000 + "]" * 5000,
    '["\\u0000"]',
    '["\\ud800"]',
    "[NaN]",
    '["a", 1]',
    '[["a"]]',
    "[]",
    '{"p": 1, "p": 2}',
    "{" + ", ".join(f'"k{i}": {i}' for i in range(3000)) + "}",
    "2024-02-31",
    "0000-01-01",
    "0001-01-01",
    "9999-12-31",
    "2024-02-29T24:00:00",
    "2024-02-29T23:59:60",
    "2024-02-29T10:00:00",
    "2024-02-29T10:00:00Z",
    "2024-02-29T10:00:00+19:00",
    "2024-02-29T10:00:00-19:59",
    "2024-02-29T10:00:00+15:59",
    "2024-02-29T10:00:00+16:00",
    "0001-01-01T00:00:00+15:00",
    "9999-12-31T23:59:59-15:59",
    "infinity",
    "epoch",
    "{}",
    "null",
    "true",
    "é" * 300,
    "\U0001f418" * 300,
)
CALLS = (
    "llm.complete('{i}?', t, on_error => 'null')",
    "llm.is_true('{i}?', t, on_error => 'null')",
    "llm.classify('{i}?', t, '{yes,no,é}', on_error => 'null')",
    "llm.score('{i}?', t, on_error => 'null')",
    """llm.extract('{i}?', t, '{"type": "object"}', on_error => 'null')""",
    """llm.extract('{i}?', t, '{"type": "array"}', on_error => 'null')""",
    "llm.extract('{i}?', t, '{}', on_error => 'null')",
)
TYPES = (
    *("text", "varchar(5)", "char(3)", "boolean", "smallint", "integer", "bigint", "real", "double precision"),
    *("numeric", "numeric(4,2)", "numeric(3,-2)", "date", "timestamp", "timestamptz", "jsonb", "json", "text[]"),
    *("answer",),
)


@pytest.fixture
def engine(engine: EngineDouble) -> EngineDouble:
    """Answers a row by its number, whatever form was asked for."""
    engine.behaviour.ignore_choices = True
    engine.behaviour.answer = answer_to
    return engine


def rows_of(conn: Conn, statement: str) -> Sequence[Any]:
    found = conn.execute(statement.encode()).fetchall()
    assert len(found) == len(ANSWERS)
    return found


@pytest.mark.parametrize("call", CALLS)
def test_a_call_gives_a_value_or_null(conn: Conn, engine: EngineDouble, call: str) -> None:
    conn.execute(f"CREATE TABLE numbers AS SELECT i FROM generate_series(0, {len(ANSWERS) - 1}) AS i")
    found = [value for _, value in rows_of(conn, f"SELECT i, ({call})::text FROM numbers AS t ORDER BY i")]
    assert any(value is not None for value in found)
    assert None in found


@pytest.mark.parametrize("host", ["plpython"])
@pytest.mark.parametrize("call", CALLS)
def test_a_batched_call_does_so_too(batching: Database, conn: Conn, engine: EngineDouble, call: str) -> None:
    conn.execute(f"CREATE TABLE numbers AS SELECT i FROM generate_series(0, {len(ANSWERS) - 1}) AS i")
    rows_of(conn, f"SELECT i, ({call})::text FROM numbers AS t")
    alone = [path for path, count in engine.received.requests if count == 1]  # what is asked once more, mostly
    assert len(engine.received.requests) - len(alone) < len(ANSWERS) / 2
    assert len(alone) <= len(ANSWERS) + 1


def test_a_map_gives_an_output_or_an_error(conn: Conn, engine: EngineDouble) -> None:
    rows = ask(conn, f"SELECT i FROM generate_series(0, {len(ANSWERS) - 1}) AS i", "{i}?", on_error="null")
    assert len(rows) == len(ANSWERS)
    assert all((output is None) == (error is not None) for _, _, output, error in rows)


def answer_to(prompt: str) -> str:
    """Of the row that stands in a prompt, behind which the form of the answer may be said."""
    row, _ = json.JSONDecoder().raw_decode(prompt[prompt.index("\n{") + 1 :])
    return ANSWERS[row["i"]]


@pytest.mark.some(2)
@pytest.mark.parametrize("type_", TYPES)
def test_a_column_of_a_foreign_table_holds_a_value_or_null(foreign: Conn, engine: EngineDouble, type_: str) -> None:
    engine.behaviour.answer = answer_to
    foreign.execute(f"CREATE TABLE numbers AS SELECT i FROM generate_series(0, {len(ANSWERS) - 1}) AS i")
    if type_ == "answer":
        foreign.execute("CREATE TYPE answer AS ENUM ('yes', 'no', 'é')")
    foreign.execute(
        f"CREATE FOREIGN TABLE answered (i int, a {type_} OPTIONS (prompt '{{i}}?', on_error 'null')) "
        "SERVER vllm OPTIONS (source 'public.numbers')".encode()
    )
    values = [value for _, value in rows_of(foreign, "SELECT i, a::text FROM answered ORDER BY i")]
    assert any(value is not None for value in values)
    assert None in values
    rows_of(foreign, "SELECT i, to_json(a)::text FROM answered")


SHORT = "max_tokens => 1, on_error => %s"  # four characters of the engine double's
CUT_CALLS = (
    f"llm.score('x', t, {SHORT})",
    f"llm.classify('x', t, '{{1984,other}}', {SHORT})",
    f"llm.is_true('x', t, {SHORT})",
    f"llm.extract('x', t, '{{}}', {SHORT})",
    f"llm.complete('x', t, choices => '{{1984,other}}', {SHORT})",
)


@pytest.mark.parametrize("call", CUT_CALLS)
def test_a_typed_answer_that_was_cut_off_is_an_error_of_its_row(conn: Conn, engine: EngineDouble, call: str) -> None:
    engine.behaviour.answer = lambda _: "198412"
    statement = f"SELECT {call} FROM (VALUES (1), (2)) AS t (a)".encode()
    assert conn.execute(statement, ["null"]).fetchall() == [(None,)] * 2
    with pytest.raises(psycopg.errors.DataException) as caught:
        conn.execute(statement, ["fail"])
    assert caught.value.diag.message_detail == "the answer was cut off after max_tokens tokens"


def test_a_text_that_was_cut_off_is_kept(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = lambda _: "It was fine."
    assert conn.execute("SELECT llm.complete('x', max_tokens => 1)").fetchone() == ("It w",)
    assert ask(conn, "SELECT 1 AS a", "{a}", max_tokens=1)[0][2:] == ("It w", None)


def test_a_cut_off_cell_is_an_error_of_its_row(foreign: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = lambda _: "198412"
    foreign.execute(
        "CREATE TABLE numbers AS SELECT 1 AS i; "
        "CREATE FOREIGN TABLE cut (i int, n int OPTIONS (prompt '{i}?', max_tokens '1', on_error 'null'), "
        "t text OPTIONS (prompt '{i}?', max_tokens '1')) SERVER vllm OPTIONS (source 'public.numbers')"
    )
    assert foreign.execute("SELECT n, t FROM cut").fetchall() == [(None, "1984")]


def test_what_a_content_filter_withholds_is_no_empty_text(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = None
    engine.behaviour.withhold_marker = '"i": 2'
    rows = ask(conn, "SELECT i FROM generate_series(1, 3) AS i", "{i}?", on_error="null")
    assert [row[3] for row in rows] == [None, "the engine's content filter withheld the answer", None]
    with pytest.raises(psycopg.errors.DataException, match="withheld"):
        conn.execute("SELECT llm.complete('{i}?', t) FROM (VALUES (1), (2)) AS t (i)")

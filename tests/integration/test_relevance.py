"""Relevances: on their rows whatever an engine answers, alone and in batches, by query, asked once each, and kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pg_bridge.testing.behaviour import default_relevance
from pg_bridge.testing.double import EngineDouble
from tests.conftest import is_batched

Conn = psycopg.Connection[Any]
MULTICORN_IS_SLOW = True
UNBATCHED_IS_SLOW = True

ROWS = 30
QUERIES = ("who 'hid' {behind} the \"sofa\"", "\u00e4rger: {}")
SAID = 7  # different documents, of ROWS, and a row without one


@pytest.fixture
def conn(switched_conn: Conn, used_engine: EngineDouble) -> Conn:
    """Calls are batched, or not; a table of texts, of which many say the same, and two queries for each."""
    switched_conn.execute("CREATE TEMP TABLE texts (id int, query text, said text)")
    with switched_conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO texts VALUES (%s, %s, %s)",
            [(2 * i + j, query, said_by(i)) for i in range(ROWS) for j, query in enumerate(QUERIES)]
            + [(-1, None, "a"), (-2, QUERIES[0], None), (-3, None, None)],
        )
    used_engine.reset()
    return switched_conn


def said_by(i: int) -> str:
    return f'{{"null"}} hid the {i % SAID}\n null'


def rows_of(conn: Conn, query: str, *parameters: object) -> list[Any]:
    return conn.execute(query.encode(), parameters or None).fetchall()


def fails(conn: Conn, query: str) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(query.encode())
    assert conn.execute("SELECT 1").fetchone() == (1,)
    return caught.value


def test_each_row_has_the_relevance_of_its_document_to_its_query(conn: Conn, used_engine: EngineDouble) -> None:
    found = dict(rows_of(conn, "SELECT id, llm.relevance(query, said, cache => 'off') FROM texts"))
    expected = {2 * i + j: default_relevance(q, said_by(i)) for i in range(ROWS) for j, q in enumerate(QUERIES)}
    assert found == {**expected, -1: None, -2: None, -3: None}
    received = used_engine.received
    assert {path for path, _ in received.requests} == {"/v1/rerank"}
    assert {body["query"] for body in received.bodies} == set(QUERIES)
    assert received.bodies[0] == {"model": "double", "query": received.bodies[0]["query"]}
    if is_batched(conn):
        assert len(received.prompts) == SAID * len(QUERIES)
        assert len(received.requests) < SAID
        assert rows_of(conn, "SELECT rows, unique_prompts FROM llm.last_run()") == [(ROWS * 2, SAID * 2)]


BAD = {
    "NaN": math.nan,
    "infinite": -math.inf,
    "too large": 10**400,
    "none": None,
    "a text": "0.5",
    "a truth": True,
    "a list": [0.5],
    "an object": {"score": 0.5},
}


def test_what_is_no_score_is_its_rows_error(conn: Conn, used_engine: EngineDouble) -> None:
    query = "SELECT id, llm.relevance(query, said, cache => 'off', on_error => 'null') FROM texts"
    query += " WHERE id BETWEEN 0 AND 9 ORDER BY id"
    for name, bad in list(BAD.items())[: None if is_batched(conn) else 3]:
        used_engine.behaviour.relevance = lambda _, said, bad=bad: bad if "3" in said else -1.5e-30
        assert rows_of(conn, query) == [(i, None if i in (6, 7) else -1.5e-30) for i in range(10)], name
        error = fails(conn, query.replace(", on_error => 'null'", ""))
        assert (error.sqlstate, "score" in str(error)) == ("22000", True), name


Change = Callable[[list[dict[str, Any]]], object]
INSTEAD: dict[str, Change] = {
    "one less": lambda results: results[:-1],
    "one more": lambda results: [*results, {"index": len(results), "relevance_score": 1.0}],
    "one twice": lambda results: [results[0], *results[: len(results) - 1]] if len(results) > 1 else [],
    "others": lambda results: [{**each, "index": each["index"] + 1} for each in results],
    "negative": lambda results: [{**each, "index": each["index"] - len(results)} for each in results],
    "in words": lambda results: [{**each, "index": str(each["index"])} for each in results],
    "as truths": lambda results: [{**each, "index": bool(each["index"])} for each in results[:2]],
}
NOTHING: dict[str, Change] = {
    "no list": lambda results: results[0],
    "null": lambda _: None,
    "of texts": lambda results: ["a" for _ in results],
    "no index": lambda results: [{"relevance_score": 1} for _ in results],
    "no score": lambda results: [{"index": each["index"]} for each in results],
    "a list as index": lambda results: [{**each, "index": [0]} for each in results],
}


def test_what_cannot_be_told_whose_it_is_is_nobodys(conn: Conn, used_engine: EngineDouble) -> None:
    query = "SELECT llm.relevance(query, said, cache => 'off', on_error => 'null') FROM texts WHERE id BETWEEN 0 AND 9"
    for name, change in list(INSTEAD.items())[: None if is_batched(conn) else 2]:
        used_engine.behaviour.reranked = change
        assert rows_of(conn, query) == [(None,)] * 10, name
    for name, change in list(NOTHING.items())[: None if is_batched(conn) else 2]:
        used_engine.behaviour.reranked = change
        assert fails(conn, query).sqlstate == "58000", name


def test_an_engine_without_reranking_says_so_at_once(conn: Conn, used_engine: EngineDouble) -> None:
    query = (
        "SELECT llm.relevance(query, said || n, cache => 'off', on_error => 'null') FROM texts, generate_series(1, 9) n"
    )
    told: list[dict[str, Any]] = [{"reranking": False}, {"fail_status": 501, "fail_first": 1000}]
    told += [
        {"refuse_every": said}
        for said in ("The model does not support Rerank (Score) API", "This server does not support reranking.")
    ]
    for change in told:
        used_engine.reset()
        used_engine.behaviour.change({"reranking": True, "fail_first": 0, **change})
        error = fails(conn, query)
        message = 'the engine of server "vllm" makes no relevance scores'
        assert (error.sqlstate, error.diag.message_primary) == ("0A000", message), change
        assert "llm.relevance" in str(error.diag.message_hint)
        assert len(used_engine.received.requests) <= 8, change


def test_relevances_are_kept_by_query_and_document(conn: Conn, used_engine: EngineDouble) -> None:
    query = f"SELECT sum(llm.relevance(query, said || '{uuid4()}')), count(*) FROM texts"
    with conn.transaction(force_rollback=True):
        conn.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent')")
        first = rows_of(conn, query)
        assert len({*used_engine.received.prompts}) == SAID
        used_engine.reset()
        assert rows_of(conn, query) == first
        assert used_engine.received.requests == []
        rows_of(conn, query.replace("query,", "said || query,"))
        assert used_engine.received.requests


def test_what_is_refused_is_its_rows_error(conn: Conn, used_engine: EngineDouble) -> None:
    used_engine.behaviour.max_prompt_chars = 60
    used_engine.behaviour.refuse_marked = {"odd": "This model does not support scoring such inputs: odd one out!"}
    query = "SELECT t, llm.relevance('q', t, cache => 'off'{}) IS NULL FROM (VALUES ('{}'), ('a'), ('b')) AS v (t)"
    for text, state, hint in (("x" * 61, "54000", "shorter document"), ("odd one out!", "22000", "on_error")):
        assert rows_of(conn, query.format(", on_error => 'null'", text)) == [(text, True), ("a", False), ("b", False)]
        error = fails(conn, query.format("", text))
        assert (error.sqlstate, hint in str(error.diag.message_hint)) == (state, True)
        assert text not in str(error)


PLACES = (
    "SELECT id FROM texts WHERE {} > 0.2 ORDER BY id",
    "SELECT id FROM texts WHERE id >= 0 ORDER BY {} DESC, id LIMIT 5",
    "SELECT query, max({}) FROM texts GROUP BY 1 ORDER BY 1",
    "SELECT q, (SELECT max({}) FROM texts) FROM (VALUES ('hid'), ('3')) AS v (q) ORDER BY 1",
)


@pytest.mark.some(2)
@pytest.mark.parametrize("query", PLACES)
def test_relevances_stand_anywhere(conn: Conn, used_engine: EngineDouble, query: str) -> None:
    whole = query.format("llm.relevance(query, said, cache => 'transaction', window_rows => 17)")
    found = rows_of(conn, whole)
    assert found
    if is_batched(conn):
        plan = str(rows_of(conn, f"EXPLAIN (VERBOSE) {whole}"))
        assert "llm._relevance_of" in plan
        assert "Estimated" in plan
        conn.execute("SET pg_bridge.batching = off")
        assert rows_of(conn, whole) == found
        conn.execute("SET pg_bridge.batching = on")


def test_forged_arguments_are_refused_or_nothing(conn: Conn, used_engine: EngineDouble, host: str) -> None:
    nothing = "SELECT llm.relevance(NULL, 'a'), llm.relevance('a', NULL, server => 'nowhere'), llm._relevance_of(NULL)"
    assert rows_of(conn, nothing) == [(None, None, None)]
    assert used_engine.received.requests == []
    assert rows_of(conn, "SELECT llm.relevance('', '', cache => 'off')") == [(default_relevance("", ""),)]
    options = """'{"kind": "relevance", "cache": "off"}'"""
    for forged, state in (
        ('{"a": 1}', "42703"),
        ('{"query": "a"}', "42703"),
        ('"a"', "42703"),
        ("[1, 2]", "42703"),
        *((("{", "22023"),) if host == "plpython" else ()),  # on Multicorn no text that is no JSON comes so far
    ):
        query = f"SELECT f.output, f.fault[1] FROM llm._complete('?', %s, {options}) AS f"
        assert rows_of(conn, query, forged) == [(None, state)], forged
    swapped = '{"document": {"a": [1]}, "query": 7}'
    expected = [(repr(default_relevance("7", '{"a": [1]}')),)]
    assert rows_of(conn, f"SELECT (llm._complete('?', %s, {options})).output", swapped) == expected
    for hostile in ('{"query": "a\\u0000b", "document": "c"}', '{"query": "\\ud800", "document": "c"}'):
        said = f"SELECT f.output, f.fault FROM llm._complete('?', %s, {options}) AS f"
        if host == "plpython" or "u0000" not in hostile:
            rows_of(conn, said, hostile)
        else:  # PostgreSQL's own error, for it is JSON there, of which parts are read
            with pytest.raises(psycopg.DataError), conn.transaction():
                rows_of(conn, said, hostile)
    if is_batched(conn):
        batch = """SELECT llm._batch(1, 2, false, ARRAY['"?"']::json[], ARRAY[%s]::json[], '{"kind": "relevance",
                                     "on_null": "null"}', '{server}', ARRAY[ARRAY['"vllm"'::json]])"""
        for forged in ("null", "7", "[null]", '{"query": null}', '{"a": null, "query": "b", "document": "c"}'):
            assert len(rows_of(conn, batch, forged)) == 1

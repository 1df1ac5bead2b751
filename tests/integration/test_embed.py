"""Embeddings: on their rows whatever an engine answers, alone and in batches, asked once each, kept, and compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
import pytest

from pg_bridge.testing.behaviour import default_embedding
from pg_bridge.testing.double import EngineDouble
from tests.conftest import is_batched

Conn = psycopg.Connection[Any]
MULTICORN_IS_SLOW = True

ROWS = 40
TEXTS = 9  # different ones, of ROWS, and a row without one


@pytest.fixture
def conn(switched_conn: Conn, used_engine: EngineDouble) -> Conn:
    """Calls are batched, or not; a table of reviews of which many say the same."""
    switched_conn.execute("CREATE TEMP TABLE reviews (id int, review text)")
    switched_conn.execute(
        f"INSERT INTO reviews SELECT i, '{{text}} \"' || i % {TEXTS} FROM generate_series(1, {ROWS - 1}) AS i"
        f" UNION ALL SELECT {ROWS}, NULL"
    )
    used_engine.reset()
    return switched_conn


def rows_of(conn: Conn, query: str, *parameters: object) -> list[Any]:
    return conn.execute(query.encode(), parameters or None).fetchall()


def fails(conn: Conn, query: str) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(query.encode())
    assert conn.execute("SELECT 1").fetchone() == (1,)
    return caught.value


def as_reals(numbers: list[float]) -> list[float]:
    """What a real[] holds of some numbers, as psycopg reads it."""
    return [float(str(np.float32(number))) for number in numbers]


def test_each_row_has_the_embedding_of_its_text(conn: Conn, used_engine: EngineDouble) -> None:
    found = dict(rows_of(conn, "SELECT id, llm.embed(review, cache => 'off') FROM reviews"))
    assert found == {
        i: as_reals(default_embedding(f'{{text}} "{i % TEXTS}')) if i < ROWS else None for i in range(1, ROWS + 1)
    }
    assert {path for path, _ in used_engine.received.requests} == {"/v1/embeddings"}
    assert set(used_engine.received.prompts) == {f'{{text}} "{i}' for i in range(TEXTS)}
    assert used_engine.received.bodies[0] == {"model": "double", "encoding_format": "base64"}
    if is_batched(conn):
        assert len(used_engine.received.prompts) == TEXTS
        assert len(used_engine.received.requests) < TEXTS


BAD = {
    "NaN": [1.0, math.nan],
    "infinite": [1.0, math.inf],
    "too large for a real": [1e300, 1.0],
    "an integer of hundreds of digits": [10**400, 1],
    "none": None,
    "empty": [],
    "no numbers": ["1", "2"],
    "no number": [1.0, None],
    "truths": [True, False],
    "lists": [[1.0, 2.0]],
    "an object": {"0": 1.0, "1": 2.0},
    "a number": 1.5,
    "no base64": "1.0, 2.0",
    "half a number": "AAA=",
    "an empty text": "",
    "NaN in base64": "AADAfwAAAAA=",
    "another dimension": [1.0, 2.0, 3.0],
    "far too many": [0.5] * 70_000,
}


def test_what_is_no_embedding_is_its_rows_error(conn: Conn, used_engine: EngineDouble) -> None:
    query = "SELECT id, llm.embed(review, cache => 'off', on_error => 'null') FROM reviews WHERE id <= 9 ORDER BY id"
    for name, bad in BAD.items():
        if name == "another dimension" and not is_batched(conn):  # one call knows nothing of others
            continue
        answer = lambda text, bad=bad: bad if "3" in text else [float(text[-1]), -0.25]  # noqa: E731
        used_engine.behaviour.embedding = answer
        assert rows_of(conn, query) == [(i, None if i == 3 else [i % TEXTS, -0.25]) for i in range(1, 10)], bad
        error = fails(conn, query.replace(", on_error => 'null'", ""))
        assert (error.sqlstate, "embedding" in str(error)) == ("22000", True), bad


def test_the_order_of_an_answer_is_nothing_to_its_rows(conn: Conn, used_engine: EngineDouble) -> None:
    used_engine.behaviour.embedding = lambda text: [float(text[-1]), 1e-40, -3.4e38]
    used_engine.behaviour.embedded = lambda data: data[::-1]
    found = rows_of(conn, "SELECT DISTINCT id % 9, llm.embed(review, cache => 'off') FROM reviews WHERE id < 40")
    assert sorted(found) == [(i, [i, pytest.approx(1e-40, rel=1e-4), pytest.approx(-3.4e38)]) for i in range(TEXTS)]


Change = Callable[[list[dict[str, Any]]], object]
INSTEAD: dict[str, Change] = {
    "one less": lambda data: data[:-1],
    "one more": lambda data: [*data, {"index": len(data), "embedding": [1.0]}],
    "one twice": lambda data: [data[0], *data[: len(data) - 1]] if len(data) > 1 else [],
    "others": lambda data: [{**each, "index": each["index"] + 1} for each in data],
    "negative": lambda data: [{**each, "index": each["index"] - len(data)} for each in data],
    "in words": lambda data: [{**each, "index": str(each["index"])} for each in data],
    "as truths": lambda data: [{**each, "index": bool(each["index"])} for each in data[:2]],
}
NOTHING: dict[str, Change] = {
    "no list": lambda data: data[0],
    "null": lambda _: None,
    "of texts": lambda data: ["a" for _ in data],
    "no index": lambda data: [{"embedding": each["embedding"]} for each in data],
    "no embedding": lambda data: [{"index": each["index"]} for each in data],
    "a list as index": lambda data: [{**each, "index": [0]} for each in data],
}


def test_what_cannot_be_told_whose_it_is_is_nobodys(conn: Conn, used_engine: EngineDouble) -> None:
    query = "SELECT llm.embed(review, cache => 'off', on_error => 'null') FROM reviews WHERE id <= 9"
    for name, change in INSTEAD.items():
        used_engine.behaviour.embedded = change
        assert rows_of(conn, query) == [(None,)] * 9, name
    for name, change in NOTHING.items():
        used_engine.behaviour.embedded = change
        assert fails(conn, query).sqlstate == "58000", name


def test_an_engine_without_embeddings_says_so_at_once(conn: Conn, used_engine: EngineDouble) -> None:
    query = "SELECT llm.embed(review || id, cache => 'off', on_error => 'null') FROM reviews, generate_series(1, 20)"
    told = {"fail_status": 501, "fail_first": 1000}, {"refuse_every": "The model does not support Embeddings API"}
    for change in ({"embeddings": False}, *told):
        used_engine.reset()
        used_engine.behaviour.change({"embeddings": True, "fail_first": 0, **change})
        error = fails(conn, query)
        assert (error.sqlstate, error.diag.message_primary) == (
            "0A000",
            'the engine of server "vllm" makes no embeddings',
        )
        assert "CREATE SERVER" in str(error.diag.message_hint)
        assert len(used_engine.received.requests) <= 5, change
    used_engine.behaviour.change({"refuse_every": "I do not like you", "fail_first": 0})
    used_engine.reset()
    assert fails(conn, query).sqlstate == "58000"
    assert len(used_engine.received.requests) <= 8


def test_an_engine_that_takes_no_base64_is_asked_for_decimals(conn: Conn, used_engine: EngineDouble) -> None:
    used_engine.behaviour.refuse_fields = ["encoding_format"]
    query = "SELECT DISTINCT llm.embed(review, cache => 'off') FROM reviews WHERE id = 4 OR id = 13"
    assert rows_of(conn, query) == [(as_reals(default_embedding('{text} "4')),)]
    assert "encoding_format" not in used_engine.received.bodies[-1]
    used_engine.reset()
    assert rows_of(conn, query)
    assert len(used_engine.received.requests) == (1 if is_batched(conn) else 2)  # it is remembered for it


def test_dimensions_are_asked_for_and_demanded(conn: Conn, used_engine: EngineDouble) -> None:
    query = "SELECT llm.embed('a', dimensions => 3, cache => 'off')"
    assert rows_of(conn, query) == [(as_reals(default_embedding("a", 3)),)]
    assert used_engine.received.bodies[-1]["dimensions"] == 3
    used_engine.behaviour.embedding = default_embedding
    error = fails(conn, query)
    assert (error.sqlstate, "8 dimensions and not 3" in str(error)) == ("22000", True)
    for wrong in (0, 65537):
        assert fails(conn, f"SELECT llm.embed('a', dimensions => {wrong})").sqlstate == "22023"


def test_embeddings_are_kept_by_text_and_dimensions(conn: Conn, used_engine: EngineDouble) -> None:
    text = f"review || '{uuid4()}'"
    query = f"SELECT sum(x), count(*) FROM reviews, unnest(llm.embed({text})) AS x"
    with conn.transaction(force_rollback=True):
        conn.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent')")
        first = rows_of(conn, query)
        used_engine.reset()
        assert rows_of(conn, query) == first
        assert used_engine.received.requests == []
        rows_of(conn, query.replace(text, f"{text}, dimensions => 2"))
        assert len(set(used_engine.received.prompts)) == TEXTS
        used_engine.behaviour.embedding = lambda text: [1.0, 2.0]  # a model of that name that is another one now
        if is_batched(conn):
            new = f"SELECT llm.embed(x) FROM (SELECT {text} FROM reviews UNION ALL VALUES ('{uuid4()}')) AS r (x)"
            error = fails(conn, new)
            assert (error.sqlstate, "2 dimensions and not 8" in str(error)) == ("22000", True)
            fresh = uuid4()
            rows_of(conn, f"SELECT llm.embed('{fresh}')")  # kept beside the others, of which it knows nothing
            both = f"SELECT llm.embed(x) FROM (SELECT {text} FROM reviews UNION ALL VALUES ('{fresh}')) AS r (x)"
            assert fails(conn, both).sqlstate == "22000"


def test_a_text_that_is_too_long_is_its_rows_error(conn: Conn, used_engine: EngineDouble) -> None:
    used_engine.behaviour.max_prompt_chars = 60
    used_engine.behaviour.refuse_marked = {"odd": "This model does not support embedding such inputs"}
    query = "SELECT t, llm.embed(t, cache => 'off'{}) IS NULL FROM (VALUES ('{}'), ('a'), ('b')) AS v (t)"
    for text, state, hint in (("x" * 61, "54000", "shorter text"), ("odd", "22000", "on_error")):
        assert rows_of(conn, query.format(", on_error => 'null'", text)) == [(text, True), ("a", False), ("b", False)]
        error = fails(conn, query.format("", text))
        assert (error.sqlstate, hint in str(error.diag.message_hint)) == (state, True)


PLACES = (
    "SELECT id FROM reviews WHERE ({})[1] > 0 ORDER BY id",
    "SELECT id FROM reviews ORDER BY ({})[2], id LIMIT 3",
    "SELECT {} AS e, count(*) FROM reviews GROUP BY 1 ORDER BY 1",
    "SELECT a.id FROM reviews AS a, LATERAL (SELECT {}) AS e (e) WHERE cardinality(e) = 8 ORDER BY 1",
    "SELECT json_agg(e ORDER BY id)::text FROM (SELECT id, CASE WHEN id % 2 = 0 THEN {} END AS e FROM reviews) AS s",
)


@pytest.mark.some(2)
@pytest.mark.parametrize("query", PLACES)
def test_embeddings_stand_anywhere(conn: Conn, used_engine: EngineDouble, query: str) -> None:
    whole = query.format("llm.embed(review, cache => 'transaction', window_rows => 7)")
    found = rows_of(conn, whole)
    assert found
    if is_batched(conn):
        assert len(used_engine.received.prompts) <= TEXTS
        assert "llm._embed" in str(rows_of(conn, f"EXPLAIN (VERBOSE) {whole}"))
        conn.execute("SET pg_bridge.batching = off")
        assert rows_of(conn, whole) == found
        conn.execute("SET pg_bridge.batching = on")


def test_forged_arguments_are_refused_or_nothing(conn: Conn, used_engine: EngineDouble) -> None:
    assert rows_of(conn, "SELECT llm.embed(NULL), llm._embed(NULL), llm.embed(NULL, server => 'nowhere')") == [
        (None, None, None)
    ]
    assert used_engine.received.requests == []
    options = """'{"kind": "embedding", "cache": "off"}'"""
    forged = f"SELECT f.output, f.fault[1] FROM llm._complete('{{a}} {{}}', '{{\"a\": 1}}', {options}) AS f"
    assert rows_of(conn, forged) == [(None, "22023")]
    assert rows_of(conn, f"SELECT f.fault[1] FROM llm._complete('?', '[1, 2]', {options}) AS f") == [("22023",)]
    assert rows_of(conn, f"SELECT (llm._complete('{{}}', '[1, 2]', {options})).output") == [
        ("{" + ",".join(f"{number:.9g}" for number in np.array(default_embedding("[1, 2]"), np.float32)) + "}",)
    ]
    if is_batched(conn):
        batch = """SELECT llm._batch(1, 2, false, ARRAY['"{}"']::json[], ARRAY['1']::json[], %s, '{server}',
                                     ARRAY[ARRAY['"vllm"'::json]])"""
        for fixed, state in (('{"kind": "embedding", "dimensions": -1}', "22023"), ('{"kind": "embedding"}', "None")):
            assert state in str(rows_of(conn, batch, fixed))


def test_pgvector_takes_an_embedding_for_a_vector(conn: Conn) -> None:
    if not rows_of(conn, "SELECT FROM pg_available_extensions WHERE name = 'vector'"):
        pytest.skip("pgvector is not installed")
    conn.execute("CREATE EXTENSION IF NOT EXISTS vector")
    conn.execute("CREATE TEMP TABLE kept (id int, e vector(8))")
    conn.execute("INSERT INTO kept SELECT id, llm.embed(review) FROM reviews WHERE review IS NOT NULL")
    nearest = """SELECT id % 9 FROM kept ORDER BY e <=> llm.embed('{text} "5')::vector, id LIMIT 5"""
    assert rows_of(conn, nearest) == [(5,)] * 4 + [(rows_of(conn, nearest)[4][0],)]
    assert fails(conn, "INSERT INTO kept SELECT 1, llm.embed('a', dimensions => 2)").sqlstate == "22000"

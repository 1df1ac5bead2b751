"""How sure the model is of an answer: with it in one question, anywhere in a query, whatever the engine tells."""

from __future__ import annotations

import math
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import is_batched

Conn = psycopg.Connection[Any]
MULTICORN_IS_SLOW = True

ROWS = 12
TEXTS = 4  # different ones
SURE = (0.5, 0.99, 0.65, 0.8)  # of the answer to each

LABELS = "labels => '{good,bad,so so}'"
FUNCTIONS = {
    "is_true": "",
    "classify": f", {LABELS}",
    "score": ", low => 1, high => 12",
}


def call(name: str, options: str = "", *, confidence: bool = False) -> str:
    """A call about a row, of a function or of that which tells how sure it is."""
    return f"llm.{name}{'_confidence' * confidence}('How is {{review}}?', r{FUNCTIONS[name]}{options})"


def sure_of(prompt: str) -> float:
    """How sure the model is of its answer to a prompt."""
    _, text, number = prompt.partition("text ")
    return SURE[int(number[0])] if text else 0.9


@pytest.fixture
def conn(switched_conn: Conn, used_engine: EngineDouble) -> Conn:
    """Calls are batched, or not; a table of reviews of which many say the same; a model of some doubts."""
    switched_conn.execute("CREATE TEMP TABLE reviews (id int, review text)")
    switched_conn.execute(
        f"INSERT INTO reviews SELECT i, 'text ' || i % {TEXTS} FROM generate_series(1, {ROWS}) AS i ORDER BY i"
    )
    used_engine.behaviour.confidence = sure_of
    switched_conn.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent')")
    switched_conn.execute("SELECT llm.cache_clear('vllm')")
    return switched_conn


def rows_of(conn: Conn, query: str) -> list[Any]:
    return conn.execute(query.encode()).fetchall()


@pytest.mark.some(2)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_question_gives_an_answer_and_its_confidence(conn: Conn, used_engine: EngineDouble, name: str) -> None:
    query = f"SELECT id, {call(name)}, {call(name, confidence=True)} FROM reviews AS r ORDER BY id"
    rows = rows_of(conn, query)
    assert [row[2] for row in rows] == pytest.approx([SURE[i % TEXTS] for i in range(1, ROWS + 1)], abs=1e-5)
    assert all(row[1] is not None for row in rows)
    # Without a batch each call finds in the ledger what another one was answered, where the module has joined them.
    has_module = rows_of(conn, "SELECT current_setting('pg_bridge.batching', true) IS NOT NULL") == [(True,)]
    assert len(used_engine.received.prompts) == (TEXTS if has_module else 2 * TEXTS)
    used_engine.reset()
    assert rows_of(conn, query) == rows
    assert rows_of(conn, f"SELECT id, {call(name)} FROM reviews AS r ORDER BY id") == [row[:2] for row in rows]
    assert used_engine.received.prompts == []


def test_an_answer_is_found_with_its_confidence_and_not_the_other_way(conn: Conn, used_engine: EngineDouble) -> None:
    rows_of(conn, f"SELECT {call('is_true', confidence=True)} FROM reviews AS r")
    rows_of(conn, f"SELECT {call('is_true')} FROM reviews AS r")
    assert len(used_engine.received.prompts) == TEXTS
    rows_of(conn, f"SELECT {call('score')} FROM reviews AS r")
    rows_of(conn, f"SELECT {call('score', confidence=True)} FROM reviews AS r")
    assert len(used_engine.received.prompts) == 3 * TEXTS
    used_engine.reset()
    rows_of(conn, f"SELECT {call('classify', ', confidence => true')} FROM reviews AS r")
    rows_of(conn, f"SELECT {call('classify', confidence=True)} FROM reviews AS r")
    assert len(used_engine.received.prompts) == TEXTS


PLACES = (
    "SELECT id, {answer} FROM reviews AS r WHERE {confidence} < 0.7 ORDER BY id",
    "SELECT id, {confidence} FROM reviews AS r WHERE {answer} IS NOT NULL ORDER BY {confidence}, id LIMIT 4",
    "SELECT {answer} AS answer, round(avg({confidence})::numeric, 3) FROM reviews AS r GROUP BY 1 ORDER BY 1",
    "SELECT id, a FROM (SELECT id, {answer} AS a, {confidence} AS c FROM reviews AS r) AS s WHERE c > 0.7 ORDER BY id",
    "SELECT id, CASE WHEN {confidence} >= 0.7 THEN {answer} END FROM reviews AS r ORDER BY id",
    "WITH s AS MATERIALIZED (SELECT id, {answer} AS a, {confidence} AS c FROM reviews AS r) SELECT * FROM s",
    "SELECT id, a.a, c.c FROM reviews AS r, LATERAL (SELECT {answer}) AS a (a), LATERAL (SELECT {confidence}) AS c (c)"
    " ORDER BY id",
)


@pytest.mark.some(5)
@pytest.mark.parametrize("place", PLACES)
def test_it_stands_anywhere_and_no_question_is_asked_twice(conn: Conn, used_engine: EngineDouble, place: str) -> None:
    answer, confidence = (
        call("is_true", ", cache => 'transaction'"),
        call("is_true", ", cache => 'transaction'", confidence=True),
    )
    rows = rows_of(conn, place.format(answer=answer, confidence=confidence))
    if is_batched(conn):
        assert len(used_engine.received.prompts) == len(set(used_engine.received.prompts)) <= TEXTS
    plain = rows_of(conn, "SELECT id, review FROM reviews")
    answers = dict(rows_of(conn, f"SELECT id, {call('is_true')} FROM reviews AS r"))
    sure = {i: SURE[i % TEXTS] for i, _ in plain}
    if place == PLACES[0]:
        assert rows == sorted((i, answers[i]) for i in sure if sure[i] < 0.7)
    if place == PLACES[1]:
        assert rows == [(i, pytest.approx(sure[i], abs=1e-5)) for i in sorted(sure, key=lambda i: (sure[i], i))[:4]]
    if place == PLACES[4]:
        assert rows == [(i, answers[i] if sure[i] >= 0.7 else None) for i in sorted(sure)]


@pytest.mark.some(1)
def test_a_view_and_a_prepared_statement_ask_once(conn: Conn, used_engine: EngineDouble) -> None:
    off = ", cache => 'transaction'"
    conn.execute(f"CREATE TEMP VIEW asked AS SELECT id, {call('is_true', off)} AS a FROM reviews AS r".encode())
    query = f"SELECT v.a, {call('is_true', off, confidence=True)} FROM asked AS v JOIN reviews AS r USING (id)"
    assert len(rows_of(conn, query)) == ROWS
    if is_batched(conn):
        assert len(used_engine.received.prompts) == TEXTS
    conn.execute(
        "PREPARE asks (text) AS SELECT llm.is_true($1, r, cache => 'transaction'),"
        " llm.is_true_confidence($1, r, cache => 'transaction') FROM reviews AS r"
    )
    for wording in range(7):  # the sixth is a generic plan
        used_engine.reset()
        assert len(rows_of(conn, f"EXECUTE asks ('{wording}: how is {{review}}?')")) == ROWS
        if is_batched(conn):
            assert len(used_engine.received.prompts) == TEXTS


def test_a_row_without_an_answer_has_no_confidence(conn: Conn, used_engine: EngineDouble) -> None:
    used_engine.behaviour.reject_marker = "text 3"
    query = f"SELECT id, {call('is_true', confidence=True)} FROM reviews AS r WHERE id < 5 ORDER BY id"
    with pytest.raises(psycopg.Error) as caught:
        rows_of(conn, query)
    assert caught.value.sqlstate == "22000"
    found = rows_of(conn, query.replace(", r)", ", r, on_error => 'null')"))
    assert [row[1] is None for row in found] == [i % TEXTS == 3 for i in range(1, 5)]
    for name, options in FUNCTIONS.items():
        about = f"llm.{name}_confidence('How is {{}}?', NULL{options}, on_null => 'null')"
        assert rows_of(conn, f"SELECT {about}") == [(None,)]


def _of_first(value: object) -> Any:
    return lambda told: {"content": [{**told["content"][0], "logprob": value}]}


NONSENSE = (
    lambda _: None,
    lambda _: "often",
    lambda _: {"content": None},
    lambda _: {"content": [{}] * 1000},
    lambda told: {"content": told["content"] * 3000},
    lambda told: {"content": told["content"][:0]},
    lambda told: {"content": [{"token": each["token"]} for each in told["content"]]},
    *map(_of_first, (math.nan, math.inf, 1.5, "-0.1", None, [], 10**400, True)),
)


@pytest.mark.some(10)
@pytest.mark.parametrize("tell", NONSENSE)
def test_whatever_the_engine_tells_an_answer_stays_one(conn: Conn, used_engine: EngineDouble, tell: Any) -> None:
    used_engine.behaviour.tell_logprobs = tell
    rows = rows_of(conn, f"SELECT {call('is_true')}, {call('is_true', confidence=True)} FROM reviews AS r LIMIT 4")
    assert all(answer is not None for answer, _ in rows)
    assert all(sure is None or 0 <= sure <= 1 for _, sure in rows)
    if tell is not NONSENSE[4]:
        assert {sure for _, sure in rows} == {None}


@pytest.mark.parametrize("refuse_as", ["openai", "model"])  # by 400, by 403
def test_an_engine_that_refuses_log_probabilities_answers_for_all_that(
    conn: Conn, used_engine: EngineDouble, refuse_as: str
) -> None:
    used_engine.behaviour.change({"refuse_fields": ("logprobs", "top_logprobs"), "refuse_as": refuse_as})
    rows = rows_of(conn, f"SELECT {call('is_true')}, {call('is_true', confidence=True)} FROM reviews AS r")
    assert {sure for _, sure in rows} == {None}
    assert all(answer is not None for answer, _ in rows)


def test_one_that_says_what_is_not_allowed_is_read_rightly(conn: Conn, used_engine: EngineDouble) -> None:
    used_engine.behaviour.free_share = 0.6
    conn.execute("ALTER SERVER vllm OPTIONS (ADD api 'completions')")
    try:
        rows = rows_of(
            conn, f"SELECT id, {call('classify', confidence=True)} FROM reviews AS r WHERE id < 5 ORDER BY id"
        )
    finally:
        conn.execute("ALTER SERVER vllm OPTIONS (DROP api)")
    assert [row[1] for row in rows] == pytest.approx([SURE[i % TEXTS] for i in range(1, 5)], abs=1e-5)
    assert {body["logprobs"] for body in used_engine.received.bodies} == {6}


def test_a_model_that_reasons_is_not_asked_how_sure_it_is(conn: Conn, used_engine: EngineDouble) -> None:
    query = f"SELECT {call('is_true', ', reasoning => $$low$$', confidence=True)} FROM reviews AS r WHERE id < 5"
    assert rows_of(conn, query) == [(None,)] * 4
    assert not any("logprobs" in body for body in used_engine.received.bodies)


def test_a_list_of_pairs_is_asked_pair_by_pair_for_its_confidence(conn: Conn, used_engine: EngineDouble) -> None:
    on = "llm.is_true('Is {review} like {other}?', llm.row(r, o), pairs => 'listed', cache => 'off'"
    query = f"SELECT count(*) FROM reviews AS r, (VALUES ('a'), ('b')) AS o (other) WHERE {on})"
    used_engine.behaviour.confidence = 0.9
    rows_of(conn, query)
    listed = len(used_engine.received.prompts)
    used_engine.reset()
    rows_of(conn, query.replace("cache => 'off'", "confidence => true"))
    if is_batched(conn):
        assert (listed, len(used_engine.received.prompts)) == (TEXTS, 2 * TEXTS)

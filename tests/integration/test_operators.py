"""What is built on llm.complete and its kin: alone and in batches, anywhere in a query, hostile arguments included."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

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
        f"INSERT INTO reviews SELECT i, 'text ' || i % {TEXTS} FROM generate_series(1, {ROWS - 1}) AS i"
        f" UNION ALL SELECT {ROWS}, NULL"
    )
    used_engine.reset()
    return switched_conn


def rows_of(conn: Conn, query: str, *parameters: object) -> list[Any]:
    return conn.execute(query.encode(), parameters or None).fetchall()


def fails(conn: Conn, query: str, *parameters: object) -> psycopg.Error:
    """The error of a statement; the session is sound afterwards."""
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(query.encode(), parameters or None)
    assert conn.execute("SELECT 1").fetchone() == (1,)
    return caught.value


# -- whole numbers in a range


def test_a_score_keeps_to_its_range_on_its_row(conn: Conn, used_engine: EngineDouble) -> None:
    used_engine.behaviour.answer = lambda prompt: "12" if "text 3" in prompt else "7"
    query = (
        "SELECT id % 9, llm.score('How good is {review}?', r, low => 7, high => 12, cache => 'off') FROM reviews AS r"
    )
    assert set(rows_of(conn, f"{query} WHERE review IS NOT NULL")) == {(i, 12.0 if i == 3 else 7.0) for i in range(9)}
    if is_batched(conn):
        assert len(used_engine.received.prompts) == TEXTS
        assert {body["structured_outputs"]["regex"] for body in used_engine.received.bodies} == {"([7-9]|1[0-2])"}
    assert used_engine.received.prompts[0].startswith(
        "How good is review?\nAnswer with a whole number from 7 to 12.\n{"
    )


def test_a_score_beyond_its_range_is_its_rows_error(conn: Conn, used_engine: EngineDouble) -> None:
    used_engine.behaviour.ignore_choices = True
    used_engine.behaviour.answer = lambda prompt: "6" if "text 3" in prompt else "5"
    query = (
        "SELECT id % 9, llm.score('{review}?', r, low => 1, high => 5, cache => 'off', on_error => 'null')"
        " FROM reviews AS r WHERE id < 10"
    )
    assert set(rows_of(conn, query)) == {(i, None if i == 3 else 5.0) for i in range(9)}
    assert fails(conn, query.replace(", on_error => 'null'", "")).sqlstate == "22000"


def test_the_range_of_a_score_may_be_another_for_each_row(conn: Conn) -> None:
    query = "SELECT id, llm.score('How good is {review}?', r, low => id, high => id) FROM reviews AS r"
    assert sorted(rows_of(conn, query)) == [(i, float(i)) for i in range(1, ROWS + 1)]
    error = fails(conn, query.replace("high => id", "high => 30"))
    assert (error.sqlstate, error.diag.message_primary) == ("22023", "no number is from 31 to 30")


# -- labels


def test_descriptions_are_told_and_labels_are_demanded(conn: Conn, used_engine: EngineDouble) -> None:
    query = """SELECT llm.classify('What is {review}?', r, cache => 'off', descriptions =>
                   '{"good": "seen\\nagain", "bad": null}') FROM reviews AS r WHERE id = 1"""
    assert rows_of(conn, query)[0][0] in {"good", "bad"}
    told = "The answer is one of these:\n- bad\n- good: seen again"
    assert used_engine.received.prompts == [f'What is review?\n{told}\n{{"review": "text 1"}}']
    assert used_engine.received.bodies[0]["structured_outputs"] == {"choice": ["bad", "good"]}


def test_a_description_is_no_template(conn: Conn, used_engine: EngineDouble) -> None:
    query = """SELECT llm.classify('{}?', 'x', cache => 'off', descriptions => '{"{nope}": "{", "}": "%s {0}"}')"""
    rows_of(conn, query)
    assert "- }: %s {0}\n- {nope}: {\n" in used_engine.received.prompts[0]


LABELS = ["a", "b, c", 'd"', "e|f", "(g)", "\\\\h", "Größe", "i'; DROP TABLE reviews; --"]


def test_several_labels_land_on_their_rows(conn: Conn, used_engine: EngineDouble) -> None:
    of_text = {f"text {i}": sorted(LABELS[i : i + 3]) for i in range(TEXTS)}

    def answer(prompt: str) -> str:
        labels = of_text[json.loads(prompt[prompt.rindex("{") :])["review"]]
        return json.dumps([*reversed(labels), *labels[:1]][: len(LABELS)], ensure_ascii=False)

    used_engine.behaviour.answer = answer
    query = (
        "SELECT review, llm.classify_many('What is {review} about?', r, %s, cache => 'off') FROM reviews AS r"
        " WHERE review IS NOT NULL"
    )
    assert dict(rows_of(conn, query, LABELS)) == of_text
    if is_batched(conn):
        assert len(used_engine.received.prompts) == TEXTS
    assert "\n- Größe\n" in used_engine.received.prompts[0]


@pytest.mark.parametrize("answer", ["a", "[a]", '["z"]', '["a", "a", "a"]', '{"a": 1}', "[", "", '["a" "b"]', "null"])
def test_what_is_no_list_of_labels_is_its_rows_error(conn: Conn, used_engine: EngineDouble, answer: str) -> None:
    used_engine.behaviour.ignore_choices = True
    used_engine.behaviour.answer = lambda prompt: answer if "text 3" in prompt else '["a"]'
    query = (
        "SELECT id, llm.classify_many('{review}?', r, '{a,b}', cache => 'off', on_error => 'null')"
        " FROM reviews AS r WHERE id < 10"
    )
    assert sorted(rows_of(conn, query)) == [(i, None if i == 3 else ["a"]) for i in range(1, 10)]
    assert fails(conn, query.replace(", on_error => 'null'", "")).sqlstate == "22000"


PLACES = (
    "SELECT count(*) FROM reviews AS r WHERE 'a' = ANY ({})",
    "SELECT id FROM reviews AS r ORDER BY cardinality({}), id LIMIT 3",
    "SELECT {} AS labels, count(*) FROM reviews AS r GROUP BY 1 ORDER BY 1",
    "SELECT l, count(*) FROM reviews AS r, unnest({}) AS l GROUP BY 1 ORDER BY 1",
    "SELECT id FROM reviews AS r WHERE CASE WHEN id < 5 THEN {} @> '{{a}}' END ORDER BY 1",
    "SELECT array_agg(id ORDER BY id) FROM (SELECT id, {} AS labels FROM reviews AS r) AS s GROUP BY labels ORDER BY 1",
)


@pytest.mark.some(2)
@pytest.mark.parametrize("query", PLACES)
def test_several_labels_stand_anywhere(conn: Conn, used_engine: EngineDouble, query: str) -> None:
    whole = query.format("llm.classify_many('What is {review} about?', r, '{a,b,c}', cache => 'off')")
    found = rows_of(conn, whole)
    if is_batched(conn):
        assert len(used_engine.received.prompts) <= TEXTS + 1
        assert "LLM Batch" in str(rows_of(conn, f"EXPLAIN {whole}"))
        conn.execute("SET pg_bridge.batching = off")
        assert rows_of(conn, whole) == found
        conn.execute("SET pg_bridge.batching = on")


# -- NULL


def test_a_null_input_is_not_asked_about_if_not_wanted(conn: Conn, used_engine: EngineDouble) -> None:
    query = "SELECT id, llm.complete('What is {}?', review, cache => 'off', on_null => 'null') FROM reviews"
    found = dict(rows_of(conn, query))
    assert [id for id, answer in found.items() if answer is None] == [ROWS]
    assert "null" not in " ".join(used_engine.received.prompts)
    used_engine.reset()
    assert rows_of(conn, query + " WHERE review IS NULL") == [(ROWS, None)]
    rows = "SELECT (SELECT r FROM reviews AS r WHERE false) AS r FROM generate_series(1, 5)"
    assert rows_of(conn, f"SELECT llm.is_true('{{review}}?', r, on_null => 'null') FROM ({rows}) AS s") == [(None,)] * 5
    assert used_engine.received.prompts == []


def test_whether_null_is_asked_about_may_differ_from_row_to_row(conn: Conn, used_engine: EngineDouble) -> None:
    query = (
        "SELECT llm.classify('{}?', v, '{a}', on_null => n, cache => 'off')"
        " FROM (VALUES (1, NULL, 'ask'), (2, NULL, 'null'), (3, 'x', 'null'), (4, NULL, NULL)) AS t (i, v, n)"
        " ORDER BY i"
    )
    assert rows_of(conn, query) == [("a",), (None,), ("a",), ("a",)]


# -- ready prompts

PROMPTS = {
    "llm.translate({}, 'French', cache => 'off')": "Translate input into French. Reply with the translation alone.",
    "llm.sentiment({}, cache => 'off')": "What is the sentiment of input?\nThe answer is one of these:\n",
    "llm.redact({}, cache => 'off')": "Copy input word for word, but write [REDACTED] in the place of each name",
    "llm.fix_grammar({}, cache => 'off')": "Correct the spelling, grammar and punctuation of input in its own language",
}


@pytest.mark.some(2)
@pytest.mark.parametrize("call", PROMPTS)
@pytest.mark.parametrize(
    "value", ["review", "upper(review)", "(SELECT r.review)", "nullif(pg_catalog.btrim(review), '')"]
)
def test_a_ready_prompt_asks_once_for_each_text(conn: Conn, used_engine: EngineDouble, call: str, value: str) -> None:
    query = f"SELECT id, {call.format(value)} FROM reviews AS r"
    found = dict(rows_of(conn, query))
    assert [id for id, answer in found.items() if answer is None] == [ROWS]
    assert len(set(used_engine.received.prompts)) == TEXTS
    assert all(prompt.startswith(PROMPTS[call]) for prompt in used_engine.received.prompts)
    if is_batched(conn):
        assert len(used_engine.received.prompts) == TEXTS
        assert all(found[i] == found[i + TEXTS] for i in range(1, ROWS - TEXTS))
    where = f"SELECT count(*) FROM reviews AS r WHERE {call.format(value)} IS NOT NULL"
    assert rows_of(conn, where) == [(ROWS - 1,)]


def test_a_text_that_another_call_gives_is_batched_too(conn: Conn, used_engine: EngineDouble) -> None:
    query = (
        "SELECT llm.sentiment(llm.translate(review, 'French', cache => 'off'), cache => 'off')"
        " FROM reviews WHERE review IS NOT NULL"
    )
    assert len(rows_of(conn, query)) == ROWS - 1
    if is_batched(conn):
        assert len(used_engine.received.prompts) == 2 * TEXTS


def test_the_language_may_be_a_column_and_no_template(conn: Conn, used_engine: EngineDouble) -> None:
    query = """SELECT llm.translate('x', l, cache => 'off') FROM (VALUES ('{nope}'), ('}{'), ('French')) AS t (l)"""
    assert len(rows_of(conn, query)) == 3
    languages = {prompt.partition(" into ")[2].partition(".")[0] for prompt in used_engine.received.prompts}
    assert languages == {"{nope}", "}{", "French"}

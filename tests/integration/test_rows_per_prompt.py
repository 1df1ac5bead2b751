"""Several rows in one prompt, from SQL: the same answers, fewer prompts, and another question in the ledger."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.behaviour import each_alone
from pg_bridge.testing.double import EngineDouble
from tests.conftest import Database, create_server
from tests.integration.test_faults import asked, once

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

ROWS = 40
ALIKE = 30  # different reviews
HOSTILE = '\'{"1": "yes"}\', "2": {braces} \\ Ω'


@pytest.fixture
def films(database: Database, db: Conn, engine: EngineDouble) -> Conn:
    if database.cluster.has_module and database.host == "plpython":
        db.execute("LOAD 'pg_bridge'")
        db.execute("SET pg_bridge.batching = on")
    fill(db)
    create_server(db, engine.url)
    return db


def fill(conn: Conn) -> None:
    conn.execute("CREATE TABLE films (id int, film text, review text)")
    made = "SELECT i, 'Heat', 'review ' || i %% %s FROM generate_series(1, %s) AS i"
    conn.execute(f"INSERT INTO films {made}".encode(), (ALIKE, ROWS))
    conn.execute("INSERT INTO films VALUES (98, 'Heat', NULL), (99, NULL, %s)", (HOSTILE,))


@pytest.fixture
def batched(films: Conn, host: str, database: Database) -> Conn:
    if host != "plpython" or not database.cluster.has_module:
        pytest.skip("nothing is batched here")
    return films


def rows_of(conn: Conn, query: str) -> list[Any]:
    return conn.execute(query.encode()).fetchall()


CALLS = [
    "llm.is_true('Is {review} kind to {film}?', f%s)",
    "llm.complete('Sum up {review}.', f%s)",
    "llm.classify('Of which kind is {review}?', f, '{a,\"b, c\"}'%s)",
    "llm.classify_many('What is in {review}?', f, '{a,\"b, c\"}'%s)",
    "llm.score('How good is {review}?', f, low => 1, high => 5%s)",
    "llm.sentiment(review%s)",
    'llm.extract(\'What is in {review}?\', f, \'{"type": "object", "required": ["x"]}\', max_tokens => 99%s)',
]


@pytest.mark.some(4)
@pytest.mark.parametrize("call", CALLS)
def test_a_batch_has_the_same_answers_in_a_fraction_of_the_prompts(
    batched: Conn, engine: EngineDouble, call: str
) -> None:
    query = f"SELECT id, {call} FROM films AS f ORDER BY 1"
    alone = rows_of(batched, query % "")
    asked = len(engine.received.prompts)
    engine.reset()
    assert rows_of(batched, query % ", rows_per_prompt => 8") == alone
    assert len(engine.received.prompts) == 4
    assert asked >= ALIKE + 1
    told = rows_of(batched, "SELECT together FROM llm.last_run()")
    assert told == [({"rows": asked, "prompts": 4, "alone": 0, "repairs": 0},)]


def test_llm_map_and_its_questions_have_it_too(films: Conn, host: str, engine: EngineDouble) -> None:
    query = "SELECT row_id, output, error FROM llm.map('TABLE films', 'Sum up {review}.'%s) ORDER BY 1"
    alone = rows_of(films, query % "")
    engine.reset()
    assert rows_of(films, query % ", rows_per_prompt => 16") == alone
    assert len(engine.received.prompts) < len(alone) / 3
    engine.reset()
    several = """SELECT outputs FROM llm.map('TABLE films', '{
        "kind": {"prompt": "Is {review} kind?", "type": "boolean", "rows_per_prompt": 4},
        "words": "Sum up {review}."}'::jsonb) ORDER BY row_id"""
    found = [outputs for (outputs,) in rows_of(films, several)]
    assert [row["words"] for row in found] == [output for _, output, _ in alone]
    spare = 0 if host == "plpython" else 4  # of windows' ends: there the first are of few rows
    assert len(engine.received.prompts) <= -(-(ALIKE + 2) // 4) + ALIKE + 2 + spare


def test_a_model_column_has_it_as_an_option(foreign: Conn, engine: EngineDouble) -> None:
    fill(foreign)
    foreign.execute(
        """
        CREATE FOREIGN TABLE judged (
            id int, review text,
            words text OPTIONS (prompt 'Sum up {review}.', rows_per_prompt '8'),
            alone text OPTIONS (prompt 'Sum up {review}.')
        ) SERVER vllm OPTIONS (source 'films')
        """
    )
    alone = rows_of(foreign, "SELECT id, alone FROM judged ORDER BY id")
    engine.reset()
    assert rows_of(foreign, "SELECT id, words FROM judged ORDER BY id") == alone
    assert len(engine.received.prompts) <= 5
    with pytest.raises(psycopg.Error, match="rows_per_prompt"):
        foreign.execute("ALTER FOREIGN TABLE judged ALTER words OPTIONS (SET rows_per_prompt '101')")


def test_plain_calls_ask_alone(films: Conn, engine: EngineDouble) -> None:
    if films.execute("SELECT 1 FROM pg_settings WHERE name = 'pg_bridge.batching'").fetchone():
        films.execute("SET pg_bridge.batching = off")
    query = "SELECT llm.complete('Sum up {review}.', f%s) FROM films AS f WHERE id < 4"
    alone = rows_of(films, query % "")
    engine.reset()
    assert rows_of(films, query % ", rows_per_prompt => 8") == alone
    assert [each_alone(prompt) for prompt in engine.received.prompts] == [{}] * 3


def test_answers_are_kept_by_row_and_are_of_another_question_than_alone(films: Conn, engine: EngineDouble) -> None:
    films.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent')")
    query = "SELECT count(output) FROM llm.map('SELECT * FROM films WHERE id %% 2 = 0', 'Sum up {review}.'%s)"
    rows_of(films, query % ", rows_per_prompt => 8")
    assert len(engine.received.prompts) <= 4
    engine.reset()
    rows_of(films, query.replace("%% 2 = 0", "> 0") % ", rows_per_prompt => 8")
    asked_about = sum(max(1, len(each_alone(prompt))) for prompt in engine.received.prompts)
    assert asked_about == ALIKE // 2 + 1  # those that nobody has asked about
    engine.reset()
    rows_of(films, query % "")
    assert len(engine.received.prompts) == ALIKE // 2 + 1
    assert not any(map(each_alone, engine.received.prompts))
    engine.reset()
    rows_of(films, query % ", rows_per_prompt => 4")  # so it is for another number
    assert 4 <= len(engine.received.prompts) <= 6


def test_explain_tells_what_is_foreseen_and_what_was_done(batched: Conn, engine: EngineDouble) -> None:
    batched.execute("ANALYZE films")
    query = "SELECT llm.is_true('Is {review} kind?', f, rows_per_prompt => 8) FROM films AS f"
    shown = "\n".join(row for (row,) in rows_of(batched, f"EXPLAIN {query}"))
    assert "Estimated Questions in Prompts of 8 Rows: about 4, of " in shown
    assert not engine.received.prompts
    engine.behaviour.ignore_choices = True
    engine.behaviour.answer = lambda prompt: "no" if not each_alone(prompt) else '{"1": "no"}'
    done = "\n".join(row for (row,) in rows_of(batched, f"EXPLAIN (ANALYZE, COSTS OFF) {query}"))
    assert f"Rows Asked Together: {ALIKE + 2} rows in 4 prompts, {ALIKE + 2} more prompts as repairs" in done
    reasons = rows_of(batched, "SELECT reason FROM llm.last_errors() LIMIT 4")
    assert reasons == [("the engine's answer is not JSON of the schema",)] * 4


def test_an_estimate_is_of_prompts_of_several_rows(films: Conn, engine: EngineDouble) -> None:
    query = "llm.estimate('TABLE films', 'Sum up {review}.', rows_per_prompt => %s)"
    fields = "unique_prompts, requests, prompt_tokens, cached_tokens"
    (alone,) = rows_of(films, f"SELECT {fields} FROM {query % 1}")
    (told,) = rows_of(films, f"SELECT {fields} FROM {query % 8}")
    assert not engine.received.prompts
    rows_of(films, "SELECT output FROM llm.map('TABLE films', 'Sum up {review}.', rows_per_prompt => 8)")
    (done,) = rows_of(films, f"SELECT {fields} FROM llm.last_run()")
    assert told[0] == done[0] < ALIKE / 4
    assert alone[0] == ALIKE + 2
    assert told[2] == pytest.approx(done[2], rel=0.1)
    assert told[2] < alone[2]


WRONG = [
    ("rows_per_prompt => 0", "between 1 and 100"),
    ("rows_per_prompt => 101", "between 1 and 100"),
    ("rows_per_prompt => -1", "between 1 and 100"),
]


@pytest.mark.parametrize(("option", "hint"), WRONG)
def test_what_is_no_number_of_rows_is_told(films: Conn, option: str, hint: str) -> None:
    with pytest.raises(psycopg.Error, match="rows_per_prompt") as caught:
        films.execute(f"SELECT llm.complete('x', f, {option}) FROM films AS f".encode())
    assert hint in (caught.value.diag.message_hint or "")


def test_null_is_the_default_and_aggregates_have_it_not(films: Conn, host: str) -> None:
    films.execute("SELECT llm.complete('x', f, rows_per_prompt => NULL) FROM films AS f WHERE id = 1")
    if host != "plpython":
        return
    with pytest.raises(psycopg.Error, match='invalid option "rows_per_prompt"'):
        films.execute("SELECT llm.aggregate('x', review, '{\"rows_per_prompt\": 8}') FROM films")


def test_a_row_that_is_refused_is_null_alone(films: Conn, engine: EngineDouble) -> None:
    engine.behaviour.reject_marker = "braces"
    of_map = "llm.map('TABLE films', 'x {review}', rows_per_prompt => 8, on_error => 'null')"
    found = rows_of(films, f"SELECT row_id, error IS NULL FROM {of_map}")
    assert [row_id for row_id, is_answered in found if not is_answered] == [ROWS + 2]


def test_one_answer_of_no_form_costs_its_row_alone(films: Conn, engine: EngineDouble) -> None:
    engine.behaviour.ignore_choices = True  # as engines without schemas do

    def answer(prompt: str) -> str:
        rows = each_alone(prompt)
        return json.dumps({n: 5 if n == "2" else f"of {row}" for n, row in rows.items()}) if rows else f"of {prompt}"

    engine.behaviour.answer = answer
    of_map = "llm.map('SELECT review FROM films WHERE id <= 4', 'x {review}', rows_per_prompt => 4)"
    found = rows_of(films, f"SELECT output, input->>'review' FROM {of_map}")
    assert [output for output, _ in found] == [f"of x review\n{json.dumps({'review': review})}" for _, review in found]
    assert len(engine.received.prompts) == 2


def test_a_statement_that_is_cancelled_lets_go(films: Conn, engine: EngineDouble) -> None:
    query = "SELECT count(output) FROM llm.map('TABLE films', 'x {review}', rows_per_prompt => 8)"
    engine.behaviour.hang = True
    with once(asked(engine), films.cancel), pytest.raises(psycopg.errors.QueryCanceled):
        films.execute(query.encode())
    engine.behaviour.hang = False
    assert rows_of(films, query) == [(ROWS + 2,)]

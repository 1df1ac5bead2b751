"""Foreign tables on a real vLLM with the model in the box: constrained answers, known ones, and real filters."""

from __future__ import annotations

import random
from typing import Any

import psycopg
import pytest

from pg_bridge.serving.launch import VllmEngine
from tests.conftest import WRAPPER, Database, create_server
from tests.integration.test_demo_model import FELT, LEAST, ROWS, SEED, film_review

MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.fixture
def films(database: Database, db: Conn, vllm: VllmEngine) -> Conn:
    """Invented film reviews, and a foreign table over them."""
    if database.host == "plpython" and not database.cluster.has_module:
        pytest.skip("this PostgreSQL has not the module pg_bridge")
    create_server(db, vllm.endpoint, model=vllm.model, **WRAPPER[database.host])
    db.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (user 'postgres')")
    db.execute("CREATE TABLE films (id int PRIMARY KEY, film text, critic text, year int, review text, felt text)")
    rng = random.Random(SEED)
    with db.cursor() as cursor:
        for i in range(ROWS):
            row, felt = film_review(rng)
            cursor.execute("INSERT INTO films VALUES (%s, %s, %s, %s, %s, %s)", [i, *row.values(), felt])
    db.execute(
        "CREATE FOREIGN TABLE film_insight (id int, film text, critic text, year int, review text, felt text,"
        " sentiment text OPTIONS (prompt 'Is the sentiment of {review} positive, negative or mixed?',"
        f" labels '{','.join(FELT)}'),"
        " stars int OPTIONS (prompt 'How many stars does {review} give?', max_tokens '8'),"
        " score numeric(20,2) OPTIONS (prompt 'Score {review}.', max_tokens '8', on_error 'null'),"
        " said text OPTIONS (prompt 'What does {review} say of {film}?', max_tokens '8'),"
        " good boolean OPTIONS (prompt 'Is {review} good?'),"
        " seen date OPTIONS (prompt 'When did {critic} see {film}?', on_error 'null'),"
        " words text[] OPTIONS (prompt 'List words of {review}.', on_error 'null', labels 'good,bad', max_tokens '40'),"
        " facts jsonb OPTIONS (prompt 'Facts of {film}.', on_error 'null', max_tokens '60', schema "
        ' \'{"type": "object", "properties": {"long": {"type": "boolean"}}, "required": ["long"],'
        ' "additionalProperties": false}\')'
        # This model has learnt from questions that stand first only.
        ") SERVER vllm OPTIONS (source 'films', key 'id', placement 'question first')"
    )
    return db


def test_known_answers_land_on_their_rows(films: Conn) -> None:
    rows = films.execute("SELECT id, film, felt, sentiment FROM film_insight ORDER BY id").fetchall()
    assert [row[:3] for row in rows] == films.execute("SELECT id, film, felt FROM films ORDER BY id").fetchall()
    assert sum(felt == sentiment for _, _, felt, sentiment in rows) / ROWS >= LEAST


@pytest.mark.slow
def test_the_engine_is_held_to_the_types(films: Conn) -> None:
    rows = films.execute("SELECT sentiment, stars, good, seen, words, facts FROM film_insight").fetchall()
    assert {row[0] for row in rows} <= set(FELT)
    assert all(isinstance(row[1], int) and isinstance(row[2], bool) for row in rows)
    dates, words, facts = ([row[i] for row in rows if row[i] is not None] for i in (3, 4, 5))
    assert dates  # the pattern admits the 39th of a month, which becomes NULL
    assert all(set(each) <= {"good", "bad"} for each in words)
    assert facts
    assert all(each.keys() == {"long"} for each in facts)


def test_filters_on_answers_agree_with_the_answers(films: Conn) -> None:
    answers = films.execute("SELECT id, sentiment, good FROM film_insight ORDER BY id").fetchall()
    kept = films.execute("SELECT id FROM film_insight WHERE good AND sentiment <> 'mixed' ORDER BY id").fetchall()
    assert kept == [(i,) for i, sentiment, good in answers if good and sentiment != "mixed"]


def test_answers_are_those_of_llm_map(films: Conn) -> None:
    films.execute("ALTER FOREIGN TABLE film_insight OPTIONS (ADD reorder 'none')")
    shown = films.execute("SELECT id, said FROM film_insight ORDER BY id").fetchall()
    mapped = films.execute(
        "SELECT (input ->> 'id')::int, output FROM llm.map('TABLE films', 'What does {review} say of {film}?',"
        " max_tokens => 8, reorder => 'none') ORDER BY 1"
    ).fetchall()
    assert shown == mapped
    assert len({said for _, said in shown}) > 3

"""The model in the box: it loads, it says the same thing twice, and it is right about rows that it has never seen."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from models.recipe.notes import TOPICS, note, plain, sentence
from models.recipe.reviews import Sentiment, review
from models.recipe.tables import Row, value_of
from pg_bridge.serving.demo import find_model
from pg_bridge.serving.launch import VllmEngine
from tests.conftest import create_server
from tests.integration.test_map import ask

MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

pytestmark = pytest.mark.timeout(600)

ROWS = 80
FELT: tuple[Sentiment, ...] = ("positive", "negative", "mixed")
SEED = 2026  # not that of training
MOST_MIB = 16
LABELS = ("billing", "delivery", "cooking", "weather")
WORD = "bridge"
LEAST = 0.9


@pytest.fixture
def conn(db: Conn, vllm: VllmEngine) -> Conn:
    """A connection whose server `vllm` serves the model in the box."""
    create_server(db, vllm.endpoint, model=vllm.model)
    return db


@dataclass(frozen=True)
class Task:
    """One question about a table of invented rows whose right answers are known.

    Attributes:
        prompt: The question; no braces, so that all columns are sent.
        make: Makes a row and its right answer.
        least: Share of right answers to reach, a few points below what models/README.md says of the task.
        choices: Passed to `llm.map`.
    """

    prompt: str
    make: Callable[[random.Random], tuple[Row, str]]
    least: float
    choices: tuple[str, ...]


def film_review(rng: random.Random) -> tuple[Row, str]:
    felt = rng.choice(FELT)
    row = {"film": value_of(rng, "title"), "critic": value_of(rng, "person"), "year": rng.randint(1950, 2026)}
    return row | {"review": review(rng, felt)}, felt


def parcel(rng: random.Random) -> tuple[Row, str]:
    row: Row = {"parcel": value_of(rng, "code"), "sender": value_of(rng, "person"), "weight": rng.randint(1, 900)}
    return row, str(row["parcel"])


def letter(rng: random.Random) -> tuple[Row, str]:
    topic = rng.choice([topic for topic in TOPICS if topic.labels[0] in LABELS])
    row: Row = {"sender": value_of(rng, "person"), "received": value_of(rng, "date")}
    return row | {"body": note(rng, topic)}, topic.labels[0]


def remark(rng: random.Random) -> tuple[Row, str]:
    text = sentence(rng, WORD) if rng.random() < 0.5 else plain(rng)
    row: Row = {"author": value_of(rng, "person"), "page": rng.randint(1, 400), "remark": text}
    return row, "yes" if re.search(rf"\b{WORD}\b", text) else "no"


TASKS = {
    "sentiment": Task("Is the sentiment of review positive, negative or mixed?", film_review, LEAST, FELT),
    "label": Task("What is body about: billing, delivery, cooking or weather?", letter, LEAST, LABELS),
    "mention": Task(f"Does remark mention the {WORD}?", remark, LEAST, ("yes", "no")),
    "value": Task("What is the value of parcel?", parcel, LEAST, ()),
}


def test_it_is_as_small_and_as_long_as_promised() -> None:
    assert sum(file.stat().st_size for file in find_model().iterdir()) < MOST_MIB << 20
    config = json.loads((find_model() / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] >= 2048


@pytest.mark.some(3)
@pytest.mark.vllm
@pytest.mark.parametrize("name", TASKS)
def test_it_is_right_about_rows_with_known_answers(conn: Conn, name: str) -> None:
    task = TASKS[name]
    rng = random.Random(SEED)
    known = [task.make(rng) for _ in range(ROWS)]
    conn.execute("CREATE TABLE sample (id int, doc json)")
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO sample VALUES (%s, %s)", [(i, json.dumps(row)) for i, (row, _) in enumerate(known)]
        )
    columns = ", ".join(f"doc -> '{column}' AS {column}" for column in known[0][0])
    choices = list(task.choices) or None
    rows = ask(conn, f"SELECT {columns} FROM sample ORDER BY id", task.prompt, choices=choices, max_tokens=16)
    assert [row[1] for row in rows] == [row for row, _ in known]  # every answer beside its own row
    assert [row[3] for row in rows] == [None] * ROWS
    right = [row[2] == answer for row, (_, answer) in zip(rows, known, strict=True)]
    assert sum(right) / ROWS >= task.least


@pytest.mark.vllm
def test_the_order_of_columns_and_rows_changes_little(conn: Conn) -> None:
    rng = random.Random(SEED)
    conn.execute("CREATE TABLE sample (id int, film text, critic text, year int, review text)")
    with conn.cursor() as cursor:
        rows = [film_review(rng)[0] for _ in range(ROWS)]
        cursor.executemany(
            "INSERT INTO sample VALUES (%s, %s, %s, %s, %s)", [(i, *r.values()) for i, r in enumerate(rows)]
        )
    query = "SELECT film, critic, year / 10 AS decade, review FROM sample ORDER BY id"
    task = TASKS["sentiment"]
    answers = {
        reorder: [row[2] for row in ask(conn, query, task.prompt, choices=list(task.choices), reorder=reorder)]
        for reorder in ("none", "rows and columns")
    }
    same = [one == other for one, other in zip(*answers.values(), strict=True)]
    assert sum(same) >= 0.9 * ROWS  # nearly the same; models/README.md has the figures


@pytest.mark.vllm
def test_it_says_the_same_thing_twice_at_temperature_0(conn: Conn) -> None:
    rng = random.Random(SEED)
    texts = [note(rng, rng.choice(TOPICS)) for _ in range(20)]
    conn.execute("CREATE TABLE sample (id int, body text)")
    with conn.cursor() as cursor:
        cursor.executemany("INSERT INTO sample VALUES (%s, %s)", list(enumerate(texts)))
    question = "What is {body} about?"
    together = ask(conn, "SELECT body FROM sample ORDER BY id", question, temperature=0, max_tokens=8)
    again = ask(conn, "SELECT body FROM sample ORDER BY id DESC", question, temperature=0, max_tokens=8)
    alone = [
        conn.execute(
            "SELECT llm.complete(%s, s, temperature => 0, max_tokens => 8) FROM (SELECT %s AS body) AS s",
            [question, text],
        ).fetchone()
        for text in texts
    ]
    assert [row[2] for row in together] == [row[2] for row in reversed(again)] == [row[0] for row in alone if row]

"""What statements send to the engine: all that the whole table's plan shares, and little where they may stop early."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

from benchmarks.paper_tables import PaperTable, make
from benchmarks.planner.prefixes import tree_chars
from benchmarks.planner.sent import WAYS, prepare, statement
from pg_bridge.asking.prompt import Question, render
from pg_bridge.ordering import plan
from pg_bridge.rows.dedup import dedup
from pg_bridge.testing.double import EngineDouble

Conn = psycopg.Connection[Any]

SEED = 5
FEW_DOZEN = 64


@pytest.fixture(scope="module")
def questions(shared_conn: Conn) -> PaperTable:
    """Questions, each with four passages of text, in random order: the tables `items` and `asked_items`."""
    made = make("squad", 1500, SEED)
    prepare(shared_conn, made, SEED)
    return made


EARLY = {
    "llm.map, LIMIT": "SELECT (llm.map('TABLE items', 'Good?')).output LIMIT 5",
    "SELECT, LIMIT": "SELECT llm.complete('Good?', r) FROM items AS r LIMIT 5",
    "scan, LIMIT": "SELECT answer FROM asked_items LIMIT 5",
    "SELECT, EXISTS": "SELECT 1 WHERE EXISTS (SELECT FROM items AS r WHERE llm.is_true('Good?', r))",
    "scan, EXISTS": "SELECT 1 WHERE EXISTS (SELECT FROM asked_items WHERE answer <> 'no')",
}


@pytest.mark.some(2)
@pytest.mark.usefixtures("questions")
@pytest.mark.parametrize("asking", EARLY.values(), ids=EARLY)
def test_who_stops_early_asks_a_few_dozen_questions(
    shared_conn: Conn, shared_engine: EngineDouble, asking: str
) -> None:
    shared_engine.reset()
    assert shared_conn.execute(asking.encode()).fetchall()
    assert 0 < len(shared_engine.received.prompts) <= FEW_DOZEN


@pytest.mark.usefixtures("questions")
@pytest.mark.parametrize("asking", list(EARLY.values())[:3], ids=list(EARLY)[:3])
def test_a_cursor_asks_as_it_is_read(shared_conn: Conn, shared_engine: EngineDouble, asking: str) -> None:
    shared_engine.reset()
    everything = asking.removesuffix(" LIMIT 5")
    with shared_conn.transaction():
        shared_conn.execute(f"DECLARE reading CURSOR FOR {everything}".encode())
        assert len(shared_conn.execute("FETCH 10 FROM reading").fetchall()) == 10
    assert 0 < len(shared_engine.received.prompts) <= FEW_DOZEN


LOST = 0.003  # of all characters of the prompts


@pytest.mark.some(1)
@pytest.mark.parametrize("way", WAYS)
def test_the_whole_tables_plan_reaches_the_engine(
    shared_conn: Conn, shared_engine: EngineDouble, questions: PaperTable, way: str
) -> None:
    unique = dedup(questions.table()).table
    planned = list(render(Question(questions.question, ()), unique, plan(unique)))
    shared_engine.reset()
    shared_conn.execute(sql.SQL("SELECT count(s.answer) FROM ({}) AS s (answer)").format(statement(way, questions)))
    sent = shared_engine.received.prompts
    chars = sum(map(len, planned))
    assert (len(sent), sum(map(len, sent))) == (len(planned), chars)
    assert tree_chars(sent) / chars >= tree_chars(planned) / chars - LOST

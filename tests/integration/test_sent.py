"""What statements send to the engine: little where they may stop early."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from benchmarks.paper_tables import PaperTable, make
from benchmarks.planner.sent import prepare
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

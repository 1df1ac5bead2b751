"""llm.map_with_tools: SQL functions that a model may call before it answers; on the PL/Python host."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import create_server

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

TABLES = """
CREATE TABLE films (id int PRIMARY KEY, film text);
INSERT INTO films VALUES (1, 'Heat'), (2, 'Alien'), (3, 'Heat'), (4, NULL);
CREATE TABLE stock (film text, shop text, copies int);
INSERT INTO stock VALUES ('Heat', 'north', 3), ('Heat', 'south', 4), ('Alien', 'north', 0);
CREATE FUNCTION stock_of(film text) RETURNS bigint STABLE LANGUAGE sql
    AS $$ SELECT sum(copies) FROM stock AS s WHERE s.film = $1 $$;
COMMENT ON FUNCTION stock_of IS 'copies on the shelves of all shops';
CREATE FUNCTION shops(film text, at_least int DEFAULT 1) RETURNS TABLE (shop text, copies int) STABLE LANGUAGE sql
    AS $$ SELECT shop, copies FROM stock AS s WHERE s.film = $1 AND s.copies >= $2 ORDER BY 1 $$;
"""


def row_of(prompt: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads("{" + prompt.rpartition("\n{")[2])
    return row


def calls(name: str, **arguments: object) -> str:
    return json.dumps({"next": {"call": name, "arguments": arguments}})


def says(answer: str) -> str:
    return json.dumps({"next": {"answer": answer}})


def look_up(prompt: str) -> str:
    """Looks at the stock of a film, and where there is some at the shops that have it."""
    row = row_of(prompt)
    if row["film"] is None:
        return says("no film")
    if "call 1" not in row:
        return calls("stock_of", film=row["film"])
    if not row["result 1"]:
        return says("sold out")
    if "call 2" not in row:
        return calls("shops", film=row["film"])
    return says(", ".join(shop["shop"] for shop in row["result 2"]))


@pytest.fixture
def conn(db: Conn, engine: EngineDouble, host: str) -> Conn:
    if host != "plpython":
        pytest.skip("functions are called on the PL/Python host only")
    create_server(db, engine.url)
    db.execute(TABLES)
    engine.behaviour.answer = look_up
    return db


def test_functions_are_called_before_the_answer(conn: Conn, engine: EngineDouble) -> None:
    got = conn.execute(
        "SELECT row_id, output, error, calls FROM llm.map_with_tools('SELECT film FROM films ORDER BY id', "
        "'Where can {film} be had?', '{stock_of(text), \"shops(text, int)\"}') ORDER BY row_id"
    ).fetchall()
    heat = [
        {"call": "stock_of", "arguments": {"film": "Heat"}, "result": 7},
        {
            "call": "shops",
            "arguments": {"film": "Heat"},
            "result": [{"shop": "north", "copies": 3}, {"shop": "south", "copies": 4}],
        },
    ]
    alien = [{"call": "stock_of", "arguments": {"film": "Alien"}, "result": 0}]
    assert got == [
        (1, "north, south", None, heat),
        (2, "sold out", None, alien),
        (3, "north, south", None, heat),
        (4, "no film", None, []),
    ]
    # Equal rows are asked once, and the calls of a round are one batch.
    assert len(engine.received.prompts) == 3 + 2 + 1
    run = conn.execute("SELECT rows, unique_prompts, tools FROM llm.last_run()").fetchone()
    assert run == (4, 6, {"rounds": 3, "calls": 3, "failed": 0})

"""An engine with ranks, asked through SQL: every answer on its row, each rank a run of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from pg_bridge.testing.speeds import speed_of
from tests.conftest import create_server

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

ROWS = "SELECT repeat('film ' || i / 50 || ' ', 30) AS film, i FROM generate_series(0, 1999) AS i"


def test_every_row_has_its_answer_and_every_rank_its_share(db: Conn) -> None:
    double = EngineDouble(speed=replace(speed_of(None), ranks=4), answer=lambda prompt: prompt[-6:])
    with double as engine:
        create_server(db, engine.url, ranks="4", cache="off")
        query = f"SELECT input ->> 'i', output FROM llm.map($${ROWS}$$, '{{film}} {{i}}')"
        rows = db.execute(query.encode()).fetchall()
        prompts = [rank.times.prompts for rank in engine.engine.ranks]
        computed = sum(rank.cache.queried_tokens - rank.cache.hit_tokens for rank in engine.engine.ranks)
        queried = sum(rank.cache.queried_tokens for rank in engine.engine.ranks)
    assert len(rows) == 2000
    assert all(number in output for number, output in rows)
    assert min(prompts) > 200
    assert computed < queried / 3


def test_ranks_that_the_engine_has_not_are_an_error(db: Conn) -> None:
    with EngineDouble() as engine:
        create_server(db, engine.url, ranks="2")
        with pytest.raises(psycopg.errors.SystemError, match="2 ranks of the option ranks") as failed:
            db.execute(f"SELECT count(output) FROM llm.map($${ROWS}$$, '{{i}}')".encode())
        assert "--data-parallel-size" in (failed.value.diag.message_hint or "")


@pytest.mark.parametrize("ranks", ["0", "-1", "two", "", "1.5", "99999"])
def test_a_number_of_ranks_is_one(db: Conn, ranks: str) -> None:
    with pytest.raises(psycopg.Error, match="ranks"):
        create_server(db, "http://127.0.0.1:9", ranks=ranks)

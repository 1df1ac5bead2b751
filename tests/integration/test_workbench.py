"""What the workbench shows as SQL asks what the workbench has asked."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble
from pg_bridge.workbench import Bench, Sample

MULTICORN_IS_SLOW = True


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ("Is {review} kind?", {"choices": "yes, it's", "max_tokens": "5", "temperature": "0.5"}),
        ("What does $q$ mean in '{review}', \\ and\nhere?", {"system_prompt": "It's $q$; {nothing}", "dedup": "false"}),
    ],
)
def test_sql_asks_the_same(
    used_conn: psycopg.Connection[Any], used_engine: EngineDouble, prompt: str, options: dict[str, str]
) -> None:
    query = "SELECT i AS id, '\"' || i AS review FROM generate_series(1, 3) AS i;"
    rows = tuple({"id": i, "review": f'"{i}'} for i in (1, 2, 3))
    bench = Bench(Sample(("id", "review"), rows, 3), Server("engine", used_engine.url), query)

    async def ask() -> None:
        async for _ in bench.ask(bench.add(prompt, options)):
            pass

    asyncio.run(ask())
    used_engine.reset()
    statement = bench.as_sql(0)
    assert statement is not None
    found = used_conn.execute(statement.encode()).fetchall()
    assert [output for _, output, _ in found] == [bench.versions[0].answers[row][0] for row in range(3)]

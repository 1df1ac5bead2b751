"""What statements send: the prompts that an engine gets, by each of the three ways in.

In: a table. Out: by way the file of its prompts, as they came to an engine double, in that order. Rows stand in the
database in random order, drawn by the seed, as users have them. Nothing is counted here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from benchmarks.hosts import make_hosts
from benchmarks.loading import columns_of, load_table
from benchmarks.paper_tables import PaperTable
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble

Conn = psycopg.Connection[Any]

MAP, SELECT, SCAN = "llm.map", "batched SELECT", "foreign scan"
STATEMENTS = {
    MAP: "SELECT output FROM llm.map('TABLE items', {question}, system_prompt => {system_prompt})",
    SELECT: "SELECT llm.complete({question}, r, system_prompt => {system_prompt}) FROM items AS r",
    SCAN: "SELECT answer FROM asked_items",
}
"""By way in the statement that asks about all rows of the table `items`, as users write it; see `prepare`."""

WAYS = tuple(STATEMENTS)


@contextmanager
def database(endpoint: str) -> Iterator[Conn]:
    """A connection to a throw-away database of the PL/Python host, which needs the native module, with an engine."""
    with Cluster() as cluster:
        host = make_hosts(cluster, endpoint)[0]
        with psycopg.connect(host.dsn, autocommit=True) as connection:
            yield connection


def prepare(connection: Conn, table: PaperTable, seed: int) -> None:
    """Make the table `items` of a table's rows in random order, and the foreign table `asked_items` over it."""
    load_table(connection, table, "items", np.random.default_rng(seed).permutation(len(table.cells[0])).tolist())
    foreign = "CREATE FOREIGN TABLE asked_items ({columns}, answer text OPTIONS (prompt {question}, system_prompt \
{system_prompt})) SERVER vllm OPTIONS (source 'items')"
    connection.execute("DROP FOREIGN TABLE IF EXISTS asked_items")
    connection.execute(sql.SQL(foreign).format(columns=columns_of(table), **_literals(table)))


def statement(way: str, table: PaperTable) -> sql.Composed:
    """The statement that asks a table's question in one of the ways."""
    return sql.SQL(STATEMENTS[way]).format(**_literals(table))


@contextmanager
def recorder(folder: Path) -> Iterator[Callable[[PaperTable, int], dict[str, str]]]:
    """A function that asks about a table in every way and returns by way the file of its prompts."""
    with EngineDouble(answer=lambda _: "yes", cache_blocks=1) as engine, database(engine.url) as connection:

        def record(table: PaperTable, seed: int) -> dict[str, str]:
            prepare(connection, table, seed)
            files = {}
            for way in WAYS:
                engine.reset()
                connection.execute(statement(way, table))
                prompts = [f"{table.system_prompt}\n{prompt}" for prompt in engine.received.prompts]
                file = folder / f"{table.name} {way}.json"
                file.write_text(json.dumps(prompts), encoding="ascii")
                files[way] = str(file)
            return files

        yield record


def load_prompts(file: str) -> list[str]:
    """Read the prompts of one statement, in the order in which they were sent."""
    prompts: list[str] = json.loads(Path(file).read_text(encoding="ascii"))
    return prompts


def _literals(table: PaperTable) -> dict[str, sql.Composable]:
    question = table.question.replace("{", "{{").replace("}", "}}")
    return {"question": sql.Literal(question), "system_prompt": sql.Literal(table.system_prompt)}

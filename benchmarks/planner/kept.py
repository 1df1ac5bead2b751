"""How busy statements keep a fast engine, how soon they ask it, and what they hold meanwhile.

In: numbers of rows. Out: `Kept` and `Peak` figures, by way in. The engine is a double in a process of its own that
computes so many prompt tokens a second and counts the time in which it had nothing to do, by when prompts came to it.
A control line asks prompts that are all there before the first is sent: what idles then is the double's doing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psycopg
from psycopg import sql

from benchmarks.hosts import peak_bytes
from benchmarks.paper_tables import PaperTable, make
from benchmarks.planner.results import Kept, Peak
from benchmarks.planner.sent import MAP, SCAN, SELECT, WAYS, database, prepare, statement
from pg_bridge.asking.prompt import Question, render
from pg_bridge.dev.devdb import Double
from pg_bridge.engine import Engine, Sampling
from pg_bridge.options import Server
from pg_bridge.ordering import plan
from pg_bridge.rows.dedup import dedup

TOKENS_PER_S = 100_000
SPEED = {"tokens_per_s": TOKENS_PER_S, "prefix_caching": False, "answer_tokens": 1}
ROWS, COLUMNS = 100_000, 8
CONTROL, CONTROL_ROWS = "all known", 20_000
PEAK_ROWS, PEAK_SHARE = 1_000_000, 10  # one row in so many is distinct

_WARM_UP_ROWS = 100
_BIG = "SELECT i, repeat(md5((i % {distinct})::text), 31) AS body FROM generate_series(1, {rows}) AS i"
_ABOUT_BIG = {
    MAP: "SELECT count(output) FROM llm.map({query}, '{{body}}')",
    SELECT: "SELECT count(llm.complete('{{body}}', r)) FROM big AS r",
    SCAN: "SELECT count(answer) FROM asked_big",
}


def kept(most_rows: int | None, seed: int, folder: Path) -> Iterator[Kept]:
    """Ask about beers, each way in a session that has asked before; the control comes last."""
    rows = min(ROWS, most_rows or ROWS)
    table = beers(rows, seed)
    with _double(folder) as endpoint, database(endpoint) as connection:
        prepare(connection, _first(table, _WARM_UP_ROWS), seed)
        for way in WAYS:
            connection.execute(statement(way, table))
        prepare(connection, table, seed)
        for way in WAYS:
            _tell(endpoint, speed=SPEED)
            began_s = time.monotonic()
            connection.execute(statement(way, table))
            yield _figures(way, rows, endpoint, began_s)
        known = _first(table, CONTROL_ROWS)
        unique = dedup(known.table()).table
        prompts = list(render(Question(known.question, ()), unique, plan(unique)))
        _tell(endpoint, speed=SPEED)
        began_s = time.monotonic()
        with Engine(Server("double", endpoint)) as engine:
            for _ in engine.complete(iter(prompts), Sampling(4, 0.0, known.system_prompt), eager=True):
                pass
        yield _figures(CONTROL, len(prompts), endpoint, began_s)


def peaks(most_rows: int | None, folder: Path) -> Iterator[Peak]:
    """Ask about rows of 1 kB, each way in a backend of its own."""
    rows = min(PEAK_ROWS, most_rows or PEAK_ROWS)
    query = _BIG.format(rows=rows, distinct=max(rows // PEAK_SHARE, 1))
    with _double(folder) as endpoint, database(endpoint) as connection:
        connection.execute(f"CREATE VIEW big AS {query}".encode())
        connection.execute(
            "CREATE FOREIGN TABLE asked_big (i integer, body text, answer text OPTIONS (prompt '{body}'))"
            " SERVER vllm OPTIONS (source 'big')"
        )
        for way, text in _ABOUT_BIG.items():
            with psycopg.connect(connection.info.dsn, autocommit=True) as alone:
                alone.execute(sql.SQL(text).format(query=sql.Literal(query)))
                yield Peak(way, rows, peak_bytes(alone))


def beers(rows: int, seed: int) -> PaperTable:
    """The beers without their last column, their names short and no instruction before them: little work a row."""
    made = make("beer", rows, seed)
    names = tuple(name.rpartition("/")[2] for name in made.columns)
    return replace(
        made, columns=names[:COLUMNS], types=made.types[:COLUMNS], cells=made.cells[:COLUMNS], system_prompt=""
    )


def _first(table: PaperTable, rows: int) -> PaperTable:
    return replace(table, cells=tuple(cells[:rows] for cells in table.cells))


@contextmanager
def _double(folder: Path) -> Iterator[str]:
    double = Double(log_path=folder / "double.log", detached=False).start()
    try:
        yield double.endpoint
    finally:
        double.stop()


def _figures(way: str, rows: int, endpoint: str, began_s: float) -> Kept:
    with urlopen(f"{endpoint}/double") as answer:  # noqa: S310 - the double that was started here
        told: dict[str, Any] = json.load(answer)
    return Kept(way, rows, told["prompts"], told["busy_s"], told["idle_s"], told["began_s"] - began_s)


def _tell(endpoint: str, **changes: object) -> None:
    with urlopen(Request(f"{endpoint}/double", data=json.dumps(changes).encode())):  # noqa: S310 - as above
        pass

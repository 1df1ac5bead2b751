"""One workload asked in one way: prompts go to a real vLLM, seconds and the engine's own counts come back.

In: a workload, a way, an engine, a database. Out: a `Run`. Every run's system prompt begins with a number of its own,
so that nothing which an earlier run left in the prefix cache helps it: the number is the first thing that the engine
sees.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from benchmarks import counters
from benchmarks.counters import Counters
from benchmarks.loading import load_table
from benchmarks.paper.ways import Way
from benchmarks.paper.workloads import Asked, Workload
from benchmarks.paper_tables import PaperTable
from pg_bridge.asking.inquiry import sampling_of
from pg_bridge.asking.prompt import Question, render
from pg_bridge.engine import Engine, Sampling
from pg_bridge.options import Server

Conn = psycopg.Connection[Any]

_RUNS = count(1000)
_CALLS = {
    "boolean": ("is_true", "", "count(*) FILTER (WHERE {})"),
    "label": ("classify", ", %(choices)s", "avg({}::integer)"),
    "text": ("complete", "", "count({})"),
}


@dataclass(frozen=True, slots=True)
class Run:
    """What one way took.

    Attributes:
        seconds: Wall-clock of the job, planning included.
        asked: Prompts sent; fewer than rows where equal ones are asked once.
        rows: Rows asked about, of all questions together.
        prompt_tokens: By the engine's own count, as the others.
        cached_tokens: Those of them that came from the prefix cache.
        completion_tokens: Tokens of the answers.
        solver_seconds: Part of `seconds` that ordering took.
        outside_share: Share of `seconds` in which the engine had nothing to do; None where it cannot be told.
    """

    seconds: float
    asked: int
    rows: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    solver_seconds: float
    outside_share: float | None

    @property
    def hit_rate(self) -> float:
        """Cached prompt tokens over prompt tokens."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


def fill(connection: Conn, table: PaperTable, half: frozenset[int]) -> None:
    """Load a table into PostgreSQL, in its own order, with a mark at half of its rows in a table beside it."""
    load_table(connection, table, table.name)
    name = sql.Identifier(table.name)
    connection.execute(
        sql.SQL("DROP TABLE IF EXISTS half; CREATE TABLE half AS SELECT ctid AS place FROM {}").format(name)
    )
    connection.execute(
        sql.SQL(
            "WITH n AS (SELECT ctid, row_number() OVER (ORDER BY ctid) - 1 AS i FROM {}) "
            "DELETE FROM half WHERE place IN (SELECT ctid FROM n WHERE NOT i = ANY (%s))"
        ).format(name),
        [sorted(half)],
    )
    connection.execute("ANALYZE half")


def run(workload: Workload, way: Way, server: Server, connection: Conn) -> Run:
    """Ask a workload in a way; `one by one` asks about the first rows only, see `sample`."""
    system = f"Run {next(_RUNS)}. {workload.table.system_prompt}"
    before = settled(server.endpoint)
    if way.order is None:
        seconds, outcome = _through_sql(workload, way, system, connection)
    else:
        seconds, outcome = _to_the_engine(workload, way, system, server)
    used = settled(server.endpoint).since(before)
    asked, rows, solver, outside = outcome
    return Run(seconds, asked, rows, used.prompt_tokens, used.cached_tokens, used.completion_tokens, solver, outside)


_TOLD = "SELECT unique_prompts, rows, plan_s, http_s + wait_s FROM llm.last_run()"

Outcome = tuple[int, int, float, float | None]


def _to_the_engine(workload: Workload, way: Way, system: str, server: Server) -> tuple[float, Outcome]:
    """Order the rows, render them and send all of them at once."""
    assert way.order is not None  # noqa: S101 - for the type checker
    started = time.perf_counter()
    asked, solver, waited = 0, 0.0, 0.0
    for question in workload.asked:
        table = workload.table.table()
        if question.halved:
            table = table.take(np.array(sorted(workload.half), np.intp))
        ordering_started = time.perf_counter()
        ordering = way.order(table)
        solver += time.perf_counter() - ordering_started
        prompts = list(render(Question(question.question, ()), table, ordering))
        engine = Engine(server)
        for _ in engine.complete(iter(prompts), _sampling(question, system), eager=True):
            pass
        asked += len(prompts)
        waited += engine.usage.wait_s
    seconds = time.perf_counter() - started
    return seconds, (asked, asked, solver, 1 - waited / seconds)


def _sampling(asked: Asked, system: str) -> Sampling:
    plain = sampling_of(asked.call)
    return Sampling(plain.max_tokens, plain.temperature, system, plain.choices, plain.pattern, plain.schema)


def _through_sql(workload: Workload, way: Way, system: str, connection: Conn) -> tuple[float, Outcome]:
    """Ask in SQL: in batches, or row by row as a scalar function does."""
    connection.execute(f"SET pg_bridge.batching = {'off' if way.one_by_one else 'on'}")
    started = time.perf_counter()
    asked, rows, solver, waited = 0, 0, 0.0, 0.0
    for question in workload.asked:
        given = {"question": question.question, "system": system, "choices": list(question.call.choices)}
        connection.execute(_statement(workload, question, way), given)
        if way.one_by_one:
            asked, rows = asked + _sampled(workload, question), rows + _sampled(workload, question)
            continue
        told = connection.execute(_TOLD).fetchone()
        if told is not None:
            asked, rows, solver, waited = (a + b for a, b in zip((asked, rows, solver, waited), told, strict=True))
    seconds = time.perf_counter() - started
    return seconds, (int(asked), int(rows), solver, None if way.one_by_one else 1 - waited / seconds)


SAMPLE = 10
"""Rows that are asked about one by one; half as many where a question is asked about half of the rows."""


def sampled_share(workload: Workload) -> float:
    """The share of a workload's rows that is asked about one by one."""
    return min(SAMPLE, workload.rows) / workload.rows


def _sampled(workload: Workload, asked: Asked) -> int:
    rows = min(SAMPLE, workload.rows)
    return rows // 2 if asked.halved else rows


def _statement(workload: Workload, asked: Asked, way: Way) -> sql.Composed:
    function, choices, wanted = _CALLS[asked.call.kind]
    call = (
        f"llm.{function}(%(question)s, t{choices}, system_prompt => %(system)s, max_tokens => {asked.call.max_tokens})"
    )
    half = sql.SQL(" WHERE t.ctid IN (SELECT place FROM half)") if asked.halved else sql.SQL("")
    limit = sql.SQL(" LIMIT {}").format(sql.Literal(_sampled(workload, asked))) if way.one_by_one else sql.SQL("")
    rows = sql.SQL("(SELECT t.* FROM {} AS t{}{}) AS t").format(sql.Identifier(workload.table.name), half, limit)
    return sql.SQL("SELECT {} FROM {}").format(sql.SQL(wanted.format(call)), rows)


def floor_rate(server: Server, prompts: Sequence[str]) -> float:
    """Prompt tokens that the engine computes in a second, of prompts that share nothing."""
    before = settled(server.endpoint)
    started = time.perf_counter()
    for _ in Engine(server).complete(iter(prompts), Sampling(1, 0.0, ""), eager=True):
        pass
    seconds = time.perf_counter() - started
    used = settled(server.endpoint).since(before)
    return (used.prompt_tokens - used.cached_tokens) / seconds


def settled(endpoint: str) -> Counters:
    """The engine's counters once they stand still."""
    before: Counters | None = None
    while (now := counters.read(endpoint)) != before:
        before = now
        time.sleep(0.05)
    return now

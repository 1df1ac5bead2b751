"""Asks the paper's workloads at engines that run already; run.py starts it, in a root that holds a PostgreSQL.

In: engines by name and endpoint, tables with their numbers of rows. Out: lines of JSON on stdout: a `header`, then a
`rate` for every engine and table (prompt tokens a second, where no two prompts share anything), and a `run` for every
engine, table and way, each with the seconds since 1970 between which it ran. It begins nothing when its time is up.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import psycopg

from benchmarks.hosts import make_hosts
from benchmarks.machine import describe
from benchmarks.paper.runs import fill, floor_rate, run
from benchmarks.paper.ways import GGR, ORIGINAL, OURS, WAYS, Way
from benchmarks.paper.workloads import Workload, workloads
from benchmarks.paper_tables import PAPER_TABLES
from pg_bridge.asking.prompt import Question, render
from pg_bridge.options import Server
from pg_bridge.ordering import order_by
from pg_bridge.serving.children import interrupt_on_sigterm
from pg_bridge.testing.cluster import Cluster

Conn = psycopg.Connection[Any]

RATE_PROMPTS = 400
"""How many of a table's prompts tell the rate: some seconds on a large card."""

MAIN = (ORIGINAL, GGR, OURS)
_LEFT_OUT = ("one by one", "all at once, no cache")  # the one takes hours, the other is told by the rate


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to measure: a way, or the rate where it is None."""

    engine: str
    workload: Workload
    way: Way | None


def jobs(engines: list[str], asked: Mapping[str, Workload], repeats: int) -> Iterator[Job]:
    """Yield what is to be measured, what matters most first.

    On the first engine every table by the three main ways; then on the others; then the other ways, then repeats.
    """
    main = [way for way in WAYS if way.name in MAIN]
    rest = [way for way in WAYS if way.name not in (*MAIN, *_LEFT_OUT)]
    for engine in engines:
        for workload in asked.values():
            yield Job(engine, workload, None)
            yield from (Job(engine, workload, way) for way in main)
    for workload in asked.values():
        yield from (Job(engines[0], workload, way) for way in rest)
    for _ in range(repeats - 1):
        for workload in asked.values():
            yield from (Job(engines[0], workload, way) for way in main)


def main() -> int:
    """Ask."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.ask", description=__doc__.partition("\n")[0])
    parser.set_defaults(module="benchmarks.gpu.ask")
    parser.add_argument("--engines", nargs="+", required=True, metavar="NAME=URL")
    parser.add_argument("--tables", nargs="+", required=True, metavar="NAME:ROWS")
    parser.add_argument("--repeats", type=int, default=3, help="of the main ways at the first engine")
    parser.add_argument("--until", type=float, required=True, metavar="SECONDS", help="since 1970: begin nothing later")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    endpoints = dict(each.split("=", 1) for each in arguments.engines)
    rows = {name: int(number) for name, number in (each.split(":") for each in arguments.tables)}
    arguments.names = list(rows)
    asked = {name: _workload(name, number, arguments.seed) for name, number in rows.items()}
    tell("header", lines=list(describe(arguments)))
    # The first process of a namespace hears no SIGTERM, unless it says what it does then.
    with interrupt_on_sigterm(), Cluster() as cluster:
        host = make_hosts(cluster, endpoints[next(iter(endpoints))])[0]
        with psycopg.connect(host.dsn, autocommit=True) as connection:
            for workload in asked.values():
                fill(connection, workload.table, workload.half)
            for endpoint in endpoints.values():  # an engine that starts takes processors from one that works
                _wait_for(endpoint, arguments.until)
            _measure(jobs(list(endpoints), asked, arguments.repeats), endpoints, connection, arguments)
    return 0


def _workload(name: str, rows: int, seed: int) -> Workload:
    return next(workloads(rows * PAPER_TABLES[name].tokens, seed, (name,), ("filter",)))


def _measure(
    wanted: Iterator[Job], endpoints: Mapping[str, str], connection: Conn, arguments: argparse.Namespace
) -> None:
    chance = random.Random(arguments.seed)
    at = ""
    for job in wanted:
        server = Server("vllm", endpoints[job.engine])
        if job.engine != at:
            at = job.engine
            connection.execute(f"ALTER SERVER vllm OPTIONS (SET endpoint '{server.endpoint}')")
            _warm(server, connection, next(name for name in PAPER_TABLES if name not in arguments.names))
        if time.time() > arguments.until:
            tell("note", text=f"time is up before {job.engine}, {job.workload.name}, {job.way and job.way.name}")
            return
        _tell_of(job, server, connection, chance)


def _tell_of(job: Job, server: Server, connection: Conn, chance: random.Random) -> None:
    facts = {"engine": job.engine, "workload": job.workload.name, "rows": job.workload.rows, "began": time.time()}
    if job.way is None:
        rate = _rate(job.workload, server, chance)
        tell("rate", **facts, ended=time.time(), rate=rate)
    else:
        found = run(job.workload, job.way, server, connection)
        tell("run", **facts, ended=time.time(), way=job.way.name, run=asdict(found))


def _rate(workload: Workload, server: Server, chance: random.Random) -> float:
    """Prompt tokens a second of a table's own prompts, each with a beginning of its own."""
    table = workload.table.table()
    prompts = render(Question(workload.asked[0].question, ()), table, order_by("original", table))
    return floor_rate(server, [f"{chance.random()} {prompt}" for prompt in islice(prompts, RATE_PROMPTS)])


def _warm(server: Server, connection: Conn, other: str) -> None:
    """Let an engine compile its kernels and its grammar, by either way that prompts come, with another table's rows."""
    few = _workload(other, 300, 0)
    fill(connection, few.table, few.half)
    for way in (way for way in WAYS if way.name in (ORIGINAL, OURS)):
        run(few, way, server, connection)


def _wait_for(endpoint: str, until: float) -> None:
    while time.time() < until:
        try:
            with urllib.request.urlopen(f"{endpoint}/health", timeout=5):  # noqa: S310 - an engine that run.py started
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)


def tell(kind: str, **facts: object) -> None:
    """Print a record."""
    print(json.dumps({"kind": kind, **facts}), flush=True)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:  # run.py has had enough, and says why
        raise SystemExit(130) from None

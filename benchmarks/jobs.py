"""`pg-bridge map` beside `llm.map` in the database: the same rows and prompt, an engine double that answers at once.

Both write a table of answers. In turn, several times: seconds by the clock, and CPU seconds of all processes but the
engine's (the command's own, and the server's backends). Of the command also its peak memory, with these rows and with
`--many` of them, and its longest transaction as `pg_stat_activity` shows it, before this engine and before one that
takes seconds for each answer. Goal: 1.3 times `llm.map`, flat memory, no transaction of 5 s.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from pg_bridge.testing.cluster import Cluster

PROMPT = "Is {review} a kind thing to say of {title}?"
LOOK_EVERY_S = 0.02
SLOW_S, SLOW_ROWS = 4.0, 100  # what an answer takes of the slow engine, and how many are asked for
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Took:
    """What one run took.

    Attributes:
        wall_s: By the clock.
        cpu_s: Of the command and the server's backends.
        peak_bytes: Of the command; 0 for a statement.
        longest_s: Its longest transaction.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int = 0
    longest_s: float = 0.0


@contextmanager
def double(*arguments: str) -> Iterator[str]:
    """An engine double in a process of its own."""
    command = [sys.executable, "-m", "pg_bridge.testing.double", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline() if process.stdout else ""
        try:
            yield said.strip().removeprefix("engine=")
        finally:
            process.terminate()


def ended_backends_s(cluster: Cluster) -> float:
    """CPU seconds of the backends that have ended."""
    words = Path(f"/proc/{_postmaster(cluster)}/stat").read_text().rpartition(")")[2].split()
    return (int(words[13]) + int(words[14])) / _TICKS


@contextmanager
def longest(dsn: str, found: list[float]) -> Iterator[None]:
    """Look for the longest transaction of the command, until the block ends."""
    over = threading.Event()

    def look() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not over.wait(LOOK_EVERY_S):
                row = connection.execute(
                    "SELECT extract(epoch FROM max(clock_timestamp() - xact_start)) FROM pg_stat_activity "
                    "WHERE application_name = 'pg-bridge map'"
                ).fetchone()
                found.append(float((row and row[0]) or 0.0))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def settled(cluster: Cluster) -> float:
    """CPU seconds of backends, once all have ended, which takes a large one a while."""
    time.sleep(0.1)
    while any(b" shop " in command or not command for command in map(_command, _children(cluster))):
        time.sleep(0.01)
    return ended_backends_s(cluster)


def _children(cluster: Cluster) -> list[str]:
    pid = _postmaster(cluster)
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _command(pid: str) -> bytes:
    """What a process is; nothing for one that has ended and has not been counted yet."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _postmaster(cluster: Cluster) -> str:
    return (cluster.directory / "data/postmaster.pid").read_text().splitlines()[0]


def in_the_database(cluster: Cluster, dsn: str, rows: int) -> Took:
    """A statement with `llm.map`."""
    before, began = settled(cluster), time.perf_counter()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS kind")
        connection.execute(
            "CREATE TABLE kind AS SELECT (input ->> 'id')::int AS id, output AS answer FROM "
            f"llm.map('SELECT id, title, review FROM reviews WHERE id <= {rows}', '{PROMPT}', "
            "choices => '{yes,no}')".encode()
        )
        wall_s = time.perf_counter() - began
    return Took(wall_s, settled(cluster) - before)


def beside_it(cluster: Cluster, dsn: str, engine: str, rows: int, *arguments: str, watched: bool = False) -> Took:
    """The command."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS review_kind")
    query = f"SELECT id, title, review FROM reviews WHERE id <= {rows}"
    words = ["--query", query, "--key", "id", "--prompt", PROMPT, "--choices", "yes,no", "--into", "review_kind"]
    program = "from pg_bridge.cli import main; raise SystemExit(main())"
    found: list[float] = []
    before, own = settled(cluster), resource.getrusage(resource.RUSAGE_CHILDREN)
    with longest(dsn, found) if watched else nullcontext():
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", program, "map", "--quiet", *words, *arguments],
            env={**os.environ, "PG_BRIDGE_ENDPOINT": engine, "PG_BRIDGE_DSN": dsn},
            start_new_session=True,  # a session of its own has its share of a busy machine, as the server has
        )
        peak = _peak(process)
        wall_s = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"the command ended with {process.returncode}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    own_s = now.ru_utime + now.ru_stime - own.ru_utime - own.ru_stime
    backends_s = settled(cluster) - before
    return Took(wall_s, own_s + backends_s, peak, max(found, default=0.0))


def _peak(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; the most memory that it had."""
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        peak = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), peak)
        time.sleep(0.02)
    process.wait()
    return peak


def main() -> int:
    """Measure, and print a table."""
    parser = parser_of("benchmarks.jobs", __doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    rows, many = arguments.rows, max(arguments.many, arguments.rows)
    with double() as engine, double("--set", f"delay_s={SLOW_S}") as slow_engine, Cluster() as cluster:
        cluster.psql("CREATE DATABASE shop")
        dsn = cluster.dsn_of("shop")
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pg_bridge CASCADE")
            connection.execute(
                "CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge "
                f"OPTIONS (endpoint '{engine}', cache 'transaction')".encode()
            )
            connection.execute(
                "CREATE TABLE reviews AS SELECT i AS id, 'Film ' || i % 500 AS title, 'What a film. ' || "
                f"repeat('So long! ', 1 + i % 9) || (i - 1) / {rows} * {rows} + i % {max(1, rows * 4 // 5)} AS review "
                f"FROM generate_series(1, {many}) AS i".encode()
            )
            connection.execute("ALTER TABLE reviews ADD PRIMARY KEY (id)")
            connection.execute("VACUUM ANALYZE reviews")
        pairs = [
            (in_the_database(cluster, dsn, rows), beside_it(cluster, dsn, engine, rows)) for _ in range(arguments.times)
        ]
        few = beside_it(cluster, dsn, engine, rows)
        watched = beside_it(cluster, dsn, engine, many, watched=True)
        slow = beside_it(cluster, dsn, slow_engine, SLOW_ROWS, "--max-in-flight", str(SLOW_ROWS // 4), watched=True)
    report.add(f"{rows:,} rows, four fifths of the questions distinct; medians of {arguments.times}", "")
    report.add(f"{'':<16} {'by the clock':>14} {'CPU seconds':>12}")
    for name, place in (("llm.map", 0), ("pg-bridge map", 1)):
        wall = statistics.median(pair[place].wall_s for pair in pairs)
        cpu = statistics.median(pair[place].cpu_s for pair in pairs)
        report.add(f"{name:<16} {wall:>12.2f} s {cpu:>10.2f} s")
    ratios: list[Any] = [
        statistics.median(getattr(beside, what) / getattr(inside, what) for inside, beside in pairs)
        for what in ("wall_s", "cpu_s")
    ]
    report.add(f"{'ratio':<16} {ratios[0]:>14.2f} {ratios[1]:>12.2f}", "")
    for name, took, of in (
        (f"{many:,} rows, {watched.wall_s:.0f} s", watched, "an engine that answers at once"),
        (f"{SLOW_ROWS:,} rows, {slow.wall_s:.0f} s", slow, f"one that takes {SLOW_S:g} s for each answer"),
    ):
        report.add(f"longest transaction: {took.longest_s:.2f} s of {name}, before {of}")
    for number, took in ((rows, few), (many, watched)):
        report.add(f"peak memory: {took.peak_bytes / 2**20:.0f} MiB for {number:,} rows")
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())

"""`pg-bridge worker` and what may happen to it: rows that are lost or wrong, and prompts that are asked again.

A job of many rows into a table, submitted to `llm_jobs` in a cluster with durable commits; workers in processes of
their own, which reach the database through a proxy; an engine double that takes a while for each request. Each fault is
done while the job runs, and at last each row's answer is compared with the engine's. Goal: no row lost, none wrong, and
asked again only what was in flight and, without a ledger, what had landed in the last second and was not committed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from pg_bridge.cli.worker import install
from pg_bridge.testing.behaviour import choose
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.cut_connections import Proxy
from pg_bridge.testing.double import EngineDouble

IN_FLIGHT = 64
DELAY_S = 0.02
CUTS, CUT_S = 5, 1.0
CHOICES = ["yes", "no"]
PATIENCE_S = 300.0  # of this program, with a job that does not end
_PROGRAM = "from pg_bridge.cli import main; raise SystemExit(main())"
_HEAD = ("", "times", "lost", "wrong", "asked again", "each time", "seconds")


@dataclass
class Stage:
    """A database with rows and a table of jobs, an engine, and workers.

    Attributes:
        cluster: The database's.
        proxy: The workers' way to it.
        rows: How many there are.
        folder: For a ledger.
        engine: The double; another one at the same port after it was stopped.
        workers: Those that run.
        asked: Prompts that engines before this one have got.
    """

    cluster: Cluster
    proxy: Proxy
    rows: int
    folder: Path
    engine: EngineDouble
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    asked: int = 0

    @property
    def prompts(self) -> int:
        """How many prompts engines have got."""
        return self.asked + len(self.engine.received.prompts)

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of who submits, past the proxy."""
        return psycopg.connect(self.cluster.dsn, autocommit=True)

    def submit(self) -> None:
        """A job of all rows."""
        with self.connect() as connection:
            connection.execute(
                "SELECT llm_jobs.submit('SELECT id, review FROM reviews', 'Is {review} kind?', 'review_kind', 'id', "
                "choices => '{yes,no}')"
            )

    def work(self, *more: str) -> subprocess.Popen[bytes]:
        """Start a worker."""
        words = [sys.executable, "-c", _PROGRAM, "worker", "--quiet", "--max-in-flight", str(IN_FLIGHT), *more]
        way = {"PG_BRIDGE_DSN": f"host=127.0.0.1 port={self.proxy.port} user=postgres dbname=postgres"}
        process = subprocess.Popen(words, env=os.environ | way | {"PG_BRIDGE_ENDPOINT": self.engine.url})
        self.workers.append(process)
        return process

    def reach(self, prompts: float) -> None:
        """Wait until so many have been asked, or the job is done."""
        until = time.monotonic() + PATIENCE_S
        while self.prompts < prompts and not self.is_over():
            if time.monotonic() > until:
                raise TimeoutError(f"{self.prompts} prompts, and no more")
            time.sleep(0.02)

    def is_over(self) -> bool:
        """Whether all jobs have ended."""
        with self.connect() as connection:
            found = connection.execute("SELECT count(*) FROM llm_jobs.jobs WHERE ended_at IS NULL").fetchone()
        return found == (0,)

    def wait(self) -> None:
        """Until all jobs have ended."""
        self.reach(float("inf"))

    def stop_engine(self, seconds: float) -> None:
        """Have no engine for some time, and then one at the same port."""
        port = int(self.engine.url.rpartition(":")[2])
        self.engine.__exit__(None, None, None)
        self.asked += len(self.engine.received.prompts)
        time.sleep(seconds)
        self.engine = EngineDouble(port=port, delay_s=DELAY_S)
        self.engine.__enter__()

    def count_wrong(self) -> tuple[int, int]:
        """Rows that are lost, and rows that have another answer than the engine's or that no job tells of."""
        with self.connect() as connection:
            found: dict[int, str] = dict(connection.execute("SELECT id, answer FROM review_kind").fetchall())
        right = {
            i: choose("Is review kind?\n" + json.dumps({"review": f"review {i}"}), CHOICES)
            for i in range(1, self.rows + 1)
        }
        return len(right.keys() - found.keys()), sum(found[i] != right.get(i) for i in found)


@contextmanager
def stage(rows: int) -> Iterator[Stage]:
    """All of it; nothing of it is left."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(settings={"synchronous_commit": "on"}) as cluster,
        psycopg.connect(cluster.dsn, autocommit=True, cursor_factory=psycopg.RawCursor) as connection,
    ):
        install(connection)
        connection.execute(
            "CREATE TABLE reviews AS SELECT i AS id, 'review ' || i AS review FROM generate_series(1, $1::int) AS i",
            [rows],
        )
        connection.execute("ALTER TABLE reviews ADD PRIMARY KEY (id)")
        connection.close()
        engine = EngineDouble(delay_s=DELAY_S)
        engine.__enter__()
        made = Stage(cluster, Proxy(cluster.port), rows, Path(folder), engine)
        try:
            yield made
        finally:
            for process in made.workers:
                process.kill()
                process.wait()
            made.proxy.close()
            made.engine.__exit__(None, None, None)


def kill(made: Stage, kills: int, seed: int, *more: str) -> int:
    """Kill the worker at random moments, each time with a new one at hand."""
    moments = random.Random(seed)
    each = made.rows / max(1, kills)
    made.submit()
    done = 0
    for _ in range(kills):
        before = made.prompts
        process = made.work(*more)
        made.reach(before + 1 + moments.uniform(0, each))
        if made.is_over():
            break
        process.kill()
        process.wait()
        done += 1
    made.work(*more)
    made.wait()
    return done


def restart(made: Stage) -> int:
    """Kill the database in the middle of the job, and start it again."""
    made.submit()
    made.work()
    made.reach(made.rows / 2)
    made.cluster.halt("immediate")
    made.cluster.resume()
    made.proxy.target = made.cluster.port
    made.wait()
    return 1


def cut(made: Stage) -> int:
    """Cut all connections, and let none be made for a moment."""
    made.submit()
    made.work()
    for i in range(1, CUTS + 1):
        made.reach(made.rows * i / (CUTS + 1))
        made.proxy.cut()
        time.sleep(CUT_S)
        made.proxy.is_cut = False
    made.wait()
    return CUTS


def stop_engine(made: Stage, seconds: float) -> int:
    """Have no engine for a while in the middle of the job."""
    made.submit()
    made.work()
    made.reach(made.rows / 2)
    made.stop_engine(seconds)
    made.wait()
    return 1


def two_workers(made: Stage, jobs: int) -> int:
    """Two workers, and a job that is there once or twice."""
    for _ in range(jobs):
        made.submit()
    for _ in range(2):
        made.work()
    made.wait()
    return 0


def faults(arguments: argparse.Namespace) -> dict[str, Callable[[Stage], int]]:
    """What is done, by name; each returns how many times."""
    kills, seed = arguments.kills, arguments.seed
    return {
        "worker killed": lambda made: kill(made, kills, seed),
        "the same, with a ledger": lambda made: kill(made, kills, seed, "--ledger", str(made.folder)),
        "database killed, restarted": restart,
        f"network cut for {CUT_S:g} s": cut,
        f"engine down for {arguments.down:g} s": lambda made: stop_engine(made, arguments.down),
        "two workers, one job": lambda made: two_workers(made, 1),
        "the same job twice": lambda made: two_workers(made, 2),
    }


def main() -> int:
    """Do each, and print a table; the status is 1 if a row was lost or wrong."""
    parser = parser_of("benchmarks.job_faults", __doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--down", type=float, default=60.0, metavar="SECONDS", help="how long the engine is down")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    report.add(f"{arguments.rows:,} rows, at most {IN_FLIGHT} prompts in flight", "")
    form = "{:<28} {:>6} {:>6} {:>6} {:>12} {:>10} {:>8}"
    report.add(form.format(*_HEAD))
    is_wrong = False
    for name, fault in faults(arguments).items():
        with stage(arguments.rows) as made:
            began = time.monotonic()
            times = fault(made)
            seconds = time.monotonic() - began
            lost, wrong = made.count_wrong()
            again = made.prompts - arguments.rows
        is_wrong |= bool(lost or wrong)
        each = f"{again / times:.0f}" if times else ""
        report.add(form.format(name, times or "", lost, wrong, f"{again:,}", each, f"{seconds:.0f}"))
    return report.close() or int(is_wrong)


if __name__ == "__main__":
    raise SystemExit(main())

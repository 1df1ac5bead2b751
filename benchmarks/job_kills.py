"""`pg-bridge map` killed by SIGKILL at random moments and started again: what is lost, wrong, and asked a second time.

A job of many rows on an engine double that takes a while for each request. It is killed when a random number of prompts
has been sent since its start, again and again, and at last runs to its end; then each row's answer is compared with the
engine's. Once with the target alone, once with a ledger. Goal: no row lost, none wrong, and asked again only what was
in flight, or had landed in the last second and was not committed.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import psycopg

from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from pg_bridge.testing.behaviour import choose
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble

IN_FLIGHT = 64
DELAY_S = 0.02
CHOICES = ["yes", "no"]
_PROGRAM = "from pg_bridge.cli import main; raise SystemExit(main())"


def words(*more: str) -> list[str]:
    """The command."""
    query = ["--query", "SELECT id, review FROM reviews", "--key", "id", "--into", "review_kind", "--quiet"]
    asked = ["--prompt", "Is {review} kind?", "--choices", ",".join(CHOICES), "--max-in-flight", str(IN_FLIGHT)]
    return [sys.executable, "-c", _PROGRAM, "map", *query, *asked, *more]


def kill_and_go_on(engine: EngineDouble, command: Sequence[str], moments: Sequence[float]) -> int:
    """Kill the command at moments, each a number of prompts, and run it to its end; returns how often it was killed."""
    kills = 0
    for moment in moments:
        before = len(engine.received.prompts)
        process = subprocess.Popen(command)
        while process.poll() is None and len(engine.received.prompts) - before < moment:
            time.sleep(0.003)
        kills += process.poll() is None
        process.kill()
        process.wait()
    subprocess.run(command, check=True)
    return kills


def count_wrong(dsn: str, rows: int) -> tuple[int, int]:
    """Rows that are lost, and rows that have another answer than the engine's."""
    with psycopg.connect(dsn) as connection:
        found: dict[int, str] = dict(connection.execute("SELECT id, answer FROM review_kind").fetchall())
    right = {
        i: choose("Is review kind?\n" + json.dumps({"review": f"review {i}"}), CHOICES) for i in range(1, rows + 1)
    }
    return len(right.keys() - found.keys()), sum(found[i] != right[i] for i in right.keys() & found.keys())


def main() -> int:
    """Kill, and print a table."""
    parser = parser_of("benchmarks.job_kills", __doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    rows = arguments.rows
    report.add(f"{rows:,} rows, at most {IN_FLIGHT} prompts in flight", "")
    report.add(f"{'':<14} {'kills':>6} {'lost':>6} {'wrong':>6} {'asked again':>12} {'for each kill':>14}")
    for name in ("target alone", "with a ledger"):
        moments = random.Random(arguments.seed)
        with tempfile.TemporaryDirectory() as folder, Cluster() as cluster, EngineDouble(delay_s=DELAY_S) as engine:
            with psycopg.connect(cluster.dsn, autocommit=True) as connection:
                connection.execute(
                    "CREATE TABLE reviews AS SELECT i AS id, 'review ' || i AS review "
                    f"FROM generate_series(1, {rows}) AS i".encode()
                )
                connection.execute("ALTER TABLE reviews ADD PRIMARY KEY (id)")
            os.environ |= {"PG_BRIDGE_DSN": cluster.dsn, "PG_BRIDGE_ENDPOINT": engine.url}
            command = words("--ledger", folder) if name == "with a ledger" else words()
            each = rows / max(1, arguments.kills)
            kills = kill_and_go_on(engine, command, [moments.uniform(0, each) for _ in range(arguments.kills)])
            lost, wrong = count_wrong(cluster.dsn, rows)
            again = len(engine.received.prompts) - rows
        report.add(f"{name:<14} {kills:>6} {lost:>6} {wrong:>6} {again:>12,} {again / max(1, kills):>14.0f}")
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())

"""Rows per second through llm.map with an engine that answers at once, beside a plain script.

The engine double is a process of its own. The plain script reads the same rows with psycopg and sends the same
prompts, in the rows' order, through the same client. Every repeat measures all of them in turn, so that a slow moment
of the machine hits them alike; medians are printed. Connections are open and warm: benchmarks.imports has the first.
Target: 20,000 rows/s, and the script no more than 1.5 times as fast.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from benchmarks.hosts import make_hosts
from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from pg_bridge.dev.devdb import Double
from pg_bridge.engine import Engine, Sampling
from pg_bridge.options import Call, Server
from pg_bridge.testing.cluster import Cluster

QUESTION = "Which topic is this text about?"
ROW_CHARS = 500
CATEGORIES = ("books", "films", "music", "tools", "travel", "food", "sports", "science")
SPLIT = ("read_s", "plan_s", "http_s", "wait_s", "return_s")
SCRIPT = "script"

Row = tuple[int, str, str]


def make_rows(count: int, seed: int) -> Iterator[Row]:
    """Yield (id, category, text); all distinct, 500 characters a row."""
    chance = random.Random(seed)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 11))) for _ in range(4000)]
    for number in range(1, count + 1):
        category = chance.choice(CATEGORIES)
        text = f"{number} " + " ".join(chance.choices(words, k=ROW_CHARS // 4))
        yield number, category, text[: ROW_CHARS - len(str(number)) - len(category)]


def load(connection: psycopg.Connection[Any], rows: list[Row]) -> None:
    """Create the table `item`."""
    connection.execute("CREATE TABLE item (id integer PRIMARY KEY, category text, text text)")
    with connection.cursor() as cursor, cursor.copy("COPY item FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    connection.execute("VACUUM ANALYZE item")


def query(count: int) -> str:
    """Return the query that all measure."""
    return f"SELECT id, category, text FROM item WHERE id <= {count}"


def by_script(connection: psycopg.Connection[Any], endpoint: str, count: int) -> int:
    """Do without pg_bridge in PostgreSQL what llm.map does; returns the number of answers."""

    def prompts() -> Iterator[str]:
        for number, category, text in connection.execute(query(count)):
            row = json.dumps({"id": number, "category": category, "text": text}, ensure_ascii=False)
            yield f"{QUESTION}\n{row}"

    call = Call()
    sampling = Sampling(call.max_tokens, call.temperature, call.system_prompt)
    with Engine(Server("script", endpoint)) as engine:
        return sum(answer is not None and answer.text is not None for answer in engine.complete(prompts(), sampling))


def by_map(connection: psycopg.Connection[Any], count: int) -> int:
    """Ask through llm.map; returns the number of answers."""
    row = connection.execute("SELECT count(output) FROM llm.map(%s, %s)", (query(count), QUESTION)).fetchone()
    return int(row[0]) if row else 0


@dataclass(slots=True)
class Timing:
    """The repeats of one way at one size.

    Attributes:
        seconds: Wall-clock, one a repeat.
        splits: What llm.last_run() says of each, in seconds; empty for the script.
    """

    seconds: list[float] = field(default_factory=list)
    splits: list[tuple[float, ...]] = field(default_factory=list)

    def split(self) -> str:
        """Return where the median repeat spent its time, in percent."""
        if not self.splits:
            return ""
        total, parts = sorted(zip(self.seconds, self.splits, strict=True))[len(self.seconds) // 2]
        named = [*zip((name.removesuffix("_s") for name in SPLIT), parts, strict=True), ("other", total - sum(parts))]
        return ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in named)


class Way:
    """One way to ask about the first rows of the table: a host, or the plain script."""

    def __init__(self, name: str, dsn: str, endpoint: str) -> None:
        self.name = name
        self.timings: dict[int, Timing] = {}
        self._endpoint = endpoint
        self._connection: psycopg.Connection[Any] = psycopg.connect(dsn, autocommit=True)

    def ask(self, count: int) -> None:
        """Ask about so many rows and note how long it took."""
        timing = self.timings.setdefault(count, Timing())
        started = time.perf_counter()
        if self.name == SCRIPT:
            answered = by_script(self._connection, self._endpoint, count)
        else:
            answered = by_map(self._connection, count)
        timing.seconds.append(time.perf_counter() - started)
        if answered != count:
            raise RuntimeError(f"{self.name} got {answered} answers to {count} rows")
        if self.name != SCRIPT:
            split = self._connection.execute(f"SELECT {', '.join(SPLIT)} FROM llm.last_run()").fetchone()
            timing.splits.append(split or ())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def run(report: Report, sizes: list[int], repeats: int, seed: int) -> None:
    """Measure and print."""
    rows = list(make_rows(max(sizes), seed))
    with tempfile.TemporaryDirectory() as folder, Cluster() as cluster:
        double = Double(log_path=Path(folder) / "log", detached=False).start()
        try:
            ways = []
            for host in make_hosts(cluster, double.endpoint):
                if host.skipped:
                    report.add(f"{host.name} {host.skipped}")
                    continue
                with psycopg.connect(host.dsn, autocommit=True) as connection:
                    load(connection, rows)
                ways.append(Way(host.name, host.dsn, double.endpoint))
            ways.insert(0, Way(SCRIPT, cluster.dsn_of("plpython"), double.endpoint))
            for way in ways:
                way.ask(100)  # imports, plans and connections
            for size in sizes:
                for _ in range(repeats):
                    for way in ways:
                        way.ask(size)
                _print(report, ways, size)
            for way in ways:
                way.close()
        finally:
            double.stop()


def _print(report: Report, ways: list[Way], size: int) -> None:
    script = ways[0].timings[size].seconds
    for way in ways:
        timing = way.timings[size]
        spread = "-".join(f"{size / seconds:.0f}" for seconds in (max(timing.seconds), min(timing.seconds)))
        ratio = median(mine / its for mine, its in zip(timing.seconds, script, strict=True))
        report.add(
            f"{size:>8} {way.name:<10} {size / median(timing.seconds):>8.0f} {spread:>14} {ratio:>6.2f}"
            f"  {timing.split()}".rstrip()
        )


def main() -> int:
    """Run the benchmark."""
    parser = parser_of("benchmarks.throughput", __doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2, help="of the table (default: %(default)s)")
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    report.add(
        f"Distinct rows of {ROW_CHARS} characters; medians of {arguments.repeats} interleaved repeats, with the",
        "slowest and the fastest. ratio: seconds of this way / seconds of the script, the median of the repeats. The",
        "split is llm.last_run()'s of the median repeat; other is PostgreSQL and what stands around the pipeline.",
        "",
        f"{'rows':>8} {'way':<10} {'rows/s':>8} {'spread':>14} {'ratio':>6}  split",
    )
    run(report, arguments.rows, arguments.repeats, arguments.seed)
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())

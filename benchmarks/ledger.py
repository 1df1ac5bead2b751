"""What the ledger costs: looking up rows that are all known, and writing down what none knew.

An engine double answers at once, so that what is left is the work of the backend. First 100,000 rows are asked about,
then asked about again, in each way in: nothing is sent. Target: 2 s. Then new questions about other rows, in turns with
`cache => 'off'`, with 'transaction' (which remembers answers as well, so that some rows go ahead while others are read)
and as a server has it by default: all is sent, and all is kept. Target: 5 % more than 'off'. The machine may be busy,
so seconds of the backend's own CPU stand beside those of the clock.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from benchmarks.hosts import make_hosts
from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from pg_bridge.dev.devdb import Double
from pg_bridge.testing.cluster import Cluster

Conn = psycopg.Connection[Any]

ROWS = """
CREATE TABLE items AS
SELECT i AS id, 'a text of some forty characters, the ' || i AS t FROM generate_series(1, ROWS) AS i;
ANALYZE items;
CREATE FOREIGN TABLE item_insight (id int, t text, said text OPTIONS (prompt 'Well, {t}?')) SERVER vllm
    OPTIONS (source 'items', key 'id');
ALTER SERVER vllm OPTIONS (DROP cache);
"""

WAYS = {
    "llm.map": "SELECT count(output) FROM llm.map('SELECT t FROM items', 'Well, {t}?')",
    "SELECT": "SELECT count(llm.complete('Well, {t}?', i)) FROM (SELECT t FROM items) AS i",
    "foreign table": "SELECT count(said) FROM item_insight",
}

CACHES = ["'off'", "'transaction'", "NULL"]
NEW = {
    "llm.map": "SELECT count(output) "
    "FROM llm.map('SELECT t FROM items LIMIT {rows}', '{nth} {{t}}?', cache => {cache})",
    "SELECT": "SELECT count(llm.complete('{nth} {{t}}?', i, cache => {cache})) "
    "FROM (SELECT t FROM items LIMIT {rows}) AS i",
}


def took(connection: Conn, query: str) -> tuple[float, float]:
    """Run a statement; returns its seconds by the clock, and of the backend's CPU."""
    cpu = Path(f"/proc/{connection.info.backend_pid}/schedstat")
    before, started = int(cpu.read_text().split()[0]), time.perf_counter()
    connection.execute(query.encode()).fetchall()
    return time.perf_counter() - started, (int(cpu.read_text().split()[0]) - before) / 1e9


def known(connection: Conn, host: str, rows: int, repeats: int) -> Iterator[str]:
    """Measure rows that are all known."""
    connection.execute(WAYS["llm.map"].encode())
    for way, query in WAYS.items():
        if way == "SELECT" and host == "multicorn":
            continue  # its calls are made one by one
        each = [took(connection, query) for _ in range(repeats)]
        run = connection.execute("SELECT unique_prompts, from_cache FROM llm.last_run()").fetchone()
        asked = "" if run == (0, rows) else f"; {run} and not (0, {rows})"
        seconds, cpu = (median(one) for one in zip(*each, strict=True))
        yield f"{host + ', ' + way:<26} {seconds:>6.2f} s {cpu:>6.2f} s of CPU{asked}"


def unknown(connection: Conn, host: str, rows: int, repeats: int) -> Iterator[str]:
    """Measure rows of which none is known, in turns."""
    for way, query in NEW.items():
        if way == "SELECT" and host == "multicorn":
            continue
        took_by: dict[str, list[tuple[float, float]]] = {cache: [] for cache in CACHES}
        for nth in range(repeats + 1):
            turn = nth % len(CACHES)
            for cache in CACHES[turn:] + CACHES[:turn]:
                statement = query.format(rows=rows, nth=f"{way} {nth} {cache[1:4]}", cache=cache)
                took_by[cache].append(took(connection, statement))
        off, transaction, kept = (each[1:] for each in took_by.values())  # the first imports
        rate = rows / median(seconds for seconds, _ in off)
        line = f"{host + ', ' + way:<22}"
        for name, others in (("off", off), ("transaction", transaction)):
            ratios = [[a / b for a, b in zip(*pair, strict=True)] for pair in zip(kept, others, strict=True)]
            seconds, cpu = (median(one) for one in zip(*ratios, strict=True))
            line += f" {seconds:.2f} times '{name}' ({cpu:.2f} of CPU)"
        yield f"{line}; {rate:.0f} rows/s with 'off'"


def main() -> int:
    """Run the benchmark."""
    parser = parser_of("benchmarks.ledger", __doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="that are known (default: %(default)s)")
    parser.add_argument("--new-rows", type=int, default=20_000, help="that are not (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="(default: %(default)s)")
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    with tempfile.TemporaryDirectory() as folder, Cluster() as cluster:
        double = Double(log_path=Path(folder) / "log", detached=False).start()
        try:
            hosts = [host for host in make_hosts(cluster, double.endpoint) if not host.skipped]
            connections = {host.name: psycopg.connect(host.dsn, autocommit=True) for host in hosts}
            report.add(f"{arguments.rows} rows that are all known:")
            for name, connection in connections.items():
                connection.execute(ROWS.replace("ROWS", str(arguments.rows)).encode())
                report.add(*known(connection, name, arguments.rows, arguments.repeats))
            report.add("", f"{arguments.new_rows} rows of which none is known, all kept:")
            for name, connection in connections.items():
                report.add(*unknown(connection, name, arguments.new_rows, arguments.repeats))
        finally:
            double.stop()
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())

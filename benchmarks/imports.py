"""What the first call in a new connection pays, beside a later one.

PostgreSQL starts Python, and Python imports pg_bridge, when a connection first uses them. Medians over new
connections; the engine is a double that answers at once. It also looks whether torch or vLLM got into a backend.
Target: less than 0.5 s.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from benchmarks.hosts import Host, make_hosts
from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from pg_bridge.dev.devdb import Double
from pg_bridge.testing.cluster import Cluster

VERSION = "SELECT llm.version()"
MAP = "SELECT * FROM llm.map('SELECT 1 AS number', 'Is it odd?')"
STATEMENTS = (VERSION, MAP, VERSION, MAP)

HEAVY = ("vllm", "torch", "transformers")
IMPORTED = f"""
DO $$
import sys
names = [name for name in {HEAVY!r} if name in sys.modules]
plpy.execute("SELECT set_config('benchmark.heavy', " + plpy.quote_literal(", ".join(names) or "none") + ", false)")
plpy.execute("SELECT set_config('benchmark.modules', '" + str(len(sys.modules)) + "', false)")
$$ LANGUAGE plpython3u
"""


def one_connection(dsn: str) -> list[float]:
    """Return the seconds of connecting and of each of the statements, in a new connection."""
    started = time.perf_counter()
    with psycopg.connect(dsn, autocommit=True) as connection:
        times = [time.perf_counter() - started]
        for statement in STATEMENTS:
            started = time.perf_counter()
            connection.execute(statement).fetchall()
            times.append(time.perf_counter() - started)
    return times


def heavy_modules(dsn: str) -> tuple[str, int]:
    """Return which heavy modules a backend has imported after a call, and how many modules in all."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in (MAP, IMPORTED):
            connection.execute(statement)
        shown: Any = connection.execute(
            "SELECT current_setting('benchmark.heavy'), current_setting('benchmark.modules')::int"
        ).fetchone()
        return shown[0], shown[1]


def measure(report: Report, host: Host, repeats: int) -> None:
    """Measure one host and print."""
    one_connection(host.dsn)  # the files are in the system's cache afterwards
    columns = zip(*(one_connection(host.dsn) for _ in range(repeats)), strict=True)
    connect, first_version, first_map, later_version, later_map = (median(column) * 1000 for column in columns)
    paid = first_version - later_version + first_map - later_map
    cells = (connect, first_version, later_version, first_map, later_map, paid)
    report.add(f"{host.name:<10}" + "".join(f"{cell:>16.1f}" for cell in cells))


def main() -> int:
    """Run the benchmark."""
    parser = parser_of("benchmarks.imports", __doc__)
    parser.add_argument("--repeats", type=int, default=10, help="new connections a host (default: %(default)s)")
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    report.add(
        f"Milliseconds, medians of {arguments.repeats} new connections. version is `{VERSION}`, the first statement;",
        f"map is `{MAP}`.",
        "",
        f"{'host':<10}"
        + "".join(
            f"{name:>16}"
            for name in ("connect", "first version", "later version", "first map", "later map", "first call pays")
        ),
    )
    with tempfile.TemporaryDirectory() as folder, Cluster() as cluster:
        double = Double(log_path=Path(folder) / "log", detached=False).start()
        try:
            hosts = make_hosts(cluster, double.endpoint)
            for host in hosts:
                if host.skipped:
                    report.add(f"{host.name} {host.skipped}")
                else:
                    measure(report, host, arguments.repeats)
            # Python code inside a backend can look at sys.modules only where PL/Python is.
            heavy, count = heavy_modules(hosts[0].dsn)
            report.add("", f"heavy modules in a {hosts[0].name} backend: {heavy} ({count} modules in all)")
        finally:
            double.stop()
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())

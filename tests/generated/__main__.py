"""`python -m tests.generated`: generated statements, batching on against off.

It prints its seed; the same seed makes the same statements. Exit status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import sys
from collections.abc import Iterator

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pg_bridge import __version__
from pg_bridge.testing.cluster import Cluster
from tests.generated.choices import Choices
from tests.generated.run import run_cases, script_of
from tests.generated.server import Server
from tests.generated.statements import make_case

SETTINGS = {"autovacuum": "off", "log_min_messages": "warning", "log_min_error_statement": "panic"}


@contextlib.contextmanager
def fresh_database(dsn: str | None) -> Iterator[str]:
    """A database of its own: on the server of `dsn`, or on a throw-away one."""
    if dsn is None:
        with Cluster(settings=SETTINGS) as cluster:
            yield cluster.dsn
        return
    name = f"generated_{secrets.token_hex(4)}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield make_conninfo(dsn, dbname=name)
        finally:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.generated", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="how many statements (default: 1000)")
    parser.add_argument("--seed", type=int, help="repeats a run; a new one is drawn otherwise")
    parser.add_argument("--one", metavar="SEED.NUMBER", help="run this one only, and show it")
    parser.add_argument(
        "--dsn", help="a superuser's connection to a server that has pg_bridge (default: a throw-away one)"
    )
    parser.add_argument("--keep-going", action="store_true", help="go on after a difference")
    parser.add_argument("--shrink-s", type=float, default=20.0, help="seconds to make a difference small (default: 20)")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(10**9)
    seeds = [options.one] if options.one else [f"{seed}.{number}" for number in range(options.count)]
    with fresh_database(options.dsn) as dsn:
        server = Server(dsn)
        version = server.conn.execute("SELECT version()").fetchone() or ("",)
        asserts = server.conn.execute("SHOW debug_assertions").fetchone() or ("",)
        print(f"pg_bridge {__version__} on {version[0].split(' on ')[0]}, assertions {asserts[0]}")
        print(f"{len(seeds)} statements, seed {options.one or seed}", flush=True)
        if options.one:
            print(script_of(server, make_case(Choices(options.one))), flush=True)
        summary = run_cases(server, seeds, keep_going=options.keep_going, shrink_s=options.shrink_s, progress=True)
        server.close()
    print(summary)
    for message, count in summary.errors.most_common(12):
        print(f"  {count} times {message}")
    return 1 if summary.differences else 0


if __name__ == "__main__":
    sys.exit(main())

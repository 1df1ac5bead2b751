"""`pg-bridge doctor`: look at a database and an engine, and say in plain words what is wrong and how to mend it.

In: a DSN and a server's name, or an engine's URL. Out: one line a check, and a line on how to mend what is
not well. It changes nothing in the database, asks the engine one short question up to four times and three more, and
never prints a key.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pg_bridge.cli import map_options
from pg_bridge.cli.checks import Check
from pg_bridge.errors import PgBridgeError
from pg_bridge.options import Server

if TYPE_CHECKING:
    from pg_bridge.cli.check_database import Database

KEY_VARIABLE = "PG_BRIDGE_API_KEY"

_DESCRIPTION = """\
Check a database, an engine, or both, and say how to mend what is wrong:

  database   it answers; the extension is there; its Python finds this package; the foreign server
             exists, has an endpoint, and may be used by this user; a user mapping holds the key
  engine     it answers; it serves the model; batches, token details and prefix cache counters are
             there; it answers one short question, asked up to four times (twice alone, twice at once); it is
             held to labels, numbers and JSON, by a question of each

Nothing is changed, and no key is ever printed. The exit status is 0 if nothing failed, 2 for wrong usage, 1 otherwise.
"""

_EPILOG = """\
examples:
  pg-bridge doctor                                    the database psql would take, its server vllm
  pg-bridge doctor --dsn 'dbname=shop' --server big   another database, another server
  pg-bridge doctor --endpoint http://127.0.0.1:8000   an engine alone, no database

With --endpoint the key, if the engine wants one, is taken from the environment variable PG_BRIDGE_API_KEY, and who
uses a proxy from PG_BRIDGE_PROXY_USER and PG_BRIDGE_PROXY_PASSWORD.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `doctor` to the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="check a database and an engine, and say what is wrong",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dsn", help="the database, as for psql (default: PGHOST, PGDATABASE and so on)")
    parser.add_argument(
        "--server", metavar="NAME", default="vllm", help="the foreign server to check (default: %(default)s)"
    )
    parser.add_argument(
        "--endpoint", metavar="URL", help="check the engine at this URL; no database unless --dsn is given"
    )
    map_options.add_group(
        parser, "the way to it", "With --endpoint; a server says so by its options.", map_options.way_options()
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check, print, and return 0 if nothing failed."""
    from pg_bridge.cli.check_engine import check_agreement, check_engine  # noqa: PLC0415 - other commands need no HTTP client

    well = True
    server: Server | None = None
    if arguments.dsn is not None or arguments.endpoint is None:
        database = _database(arguments.dsn or "", arguments.server)
        well &= _print("database", database.checks())
        server = database.server
    if arguments.endpoint is not None:
        given = map_options.server_texts(arguments, map_options.way_options())
        options = {"endpoint": arguments.endpoint, **given, **map_options.way_secrets()}
        if key := os.environ.get(KEY_VARIABLE):
            options["api_key"] = key
        server = Server.from_options("given by --endpoint", options)
    if server is not None:
        for engine in server.engines:
            well &= _print(f"engine {engine.endpoint}", check_engine(engine))
        if len(server.engines) > 1:
            well &= _print("its engines together", check_agreement(server))
    print("all is well" if well else "something is wrong: see the lines marked FAIL")
    return 0 if well else 1


def _database(dsn: str, server_name: str) -> Database:
    """Import psycopg, which is an extra."""
    try:
        from pg_bridge.cli.check_database import Database  # noqa: PLC0415
    except ImportError as error:
        raise PgBridgeError(
            "psycopg is needed to look at a database, and cannot be imported",
            detail=str(error),
            hint="Install it where this command is: pip install 'pg-bridge[doctor]'. "
            "With --endpoint URL an engine is checked without it.",
        ) from error
    return Database(dsn, server_name)


def _print(title: str, checks: Iterable[Check]) -> bool:
    """Print checks as they are made; True if none failed."""
    print(title)
    well = True
    for check in checks:
        print(f"  {check.verdict:<4}  {check.says}", flush=True)
        if check.mend:
            print(f"        mend: {check.mend}", flush=True)
        well &= check.verdict != "FAIL"
    return well

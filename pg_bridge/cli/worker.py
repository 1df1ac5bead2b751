"""`pg-bridge worker`: does the jobs that `llm.submit` has put into a table, as many as there are, for ever.

In: the database, engines. Out: tables of answers, and a line on standard error for each job. Any number of workers may
run; each takes one job at a time. `--install` makes the table of jobs where the extension is not at hand.
"""

from __future__ import annotations

import argparse
import configparser
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from pg_bridge.cli import beside, map_options
from pg_bridge.cli.install import jobs_script
from pg_bridge.errors import OptionError, PgBridgeError
from pg_bridge.jobs.needed import psycopg_needed
from pg_bridge.jobs.running import Stopped
from pg_bridge.options import Server

if TYPE_CHECKING:
    from pg_bridge.jobs.database import Connection, Database

DEFAULT_NAME = "vllm"  # as in llm.map
_PATIENCE_S = 60.0

_DESCRIPTION = """\
Do the jobs that llm.submit (with the extension) or llm_jobs.submit (after --install) has put into a table. Each is done
with the rights of the role that submitted it: the login must be that role, or be able to become it and nothing that the
role could not, for a job can become what its session can. Any number of workers may run; one that is killed
loses its job to the next within seconds, and only what was in flight is asked again.
"""

_EPILOG = f"""\
examples:
  export PGSERVICE=shop                                  # or PGHOST, PGDATABASE …: as for psql
  export {beside.ENDPOINT_VARIABLE}=http://127.0.0.1:8000        # and {beside.KEY_VARIABLE}, if the engine wants a key

  pg-bridge worker --install          once, where the extension is not at hand: makes schema llm_jobs
  pg-bridge worker                    for ever; SIGTERM and Ctrl-C end it at the end of a part
  pg-bridge worker --once             what there is to do now, for cron
  pg-bridge worker --engines FILE     several engines, which jobs name: server => 'large'

FILE has a section for each, with the options of a server (docs/sql.md):
  [large]
  endpoint = https://engine.example
  api_key_file = /etc/pg_bridge/large.key

Where the extension is, jobs ask its servers, with the keys of the user mappings of who submitted.

exit status:
  0 it was ended, or with --once all is done; 1 failed; 2 wrong usage.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `worker` to the command line."""
    parser = subparsers.add_parser(
        "worker",
        help="do the jobs of llm.submit, beside the database",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    beside.add_database(parser)
    beside.add_engine(parser)
    parser.add_argument("--engines", metavar="FILE", type=Path, help="several engines, by name")
    parser.add_argument("--install", action="store_true", help="make schema llm_jobs in the database, and end")
    parser.add_argument("--once", action="store_true", help="end when nothing is left to be done now")
    parser.add_argument(
        "--trust",
        metavar="a,b",
        type=lambda text: [name.strip() for name in text.split(",") if name.strip()],
        default=[],
        help="do the jobs of these roles, though by them they could reach all that the login can become",
    )
    parser.add_argument(
        "--patience",
        metavar="SECONDS",
        type=float,
        default=_PATIENCE_S,
        help="how long a job waits for an engine that is gone before others have their turn (default: %(default)g)",
    )
    parser.add_argument("--ledger", metavar="FOLDER", type=Path, help="keep each answer there, too, at once")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    map_options.add_group(parser, "the engine", "Of the one that --endpoint says.", map_options.server_options())
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status that `--help` tells.

    Raises:
        PgBridgeError: The database cannot be reached, or has no table of jobs.
    """
    with psycopg_needed():
        from pg_bridge.jobs.database import Database  # noqa: PLC0415 - psycopg is an extra
        from pg_bridge.jobs.queue import SESSION  # noqa: PLC0415 - as above
    interrupts = beside.Interrupts()
    database = Database(
        beside.dsn(arguments),
        session=SESSION,
        patience_s=float("inf"),
        say=_silent if arguments.quiet else _say,
        check=interrupts.check,
    )
    with closing(database), interrupts.taken():
        try:
            database.connect()
            if arguments.install:
                print(database.run(install))
            else:
                _work(arguments, database, interrupts)
        except Stopped:
            _say("ended")
    return 0


def _work(arguments: argparse.Namespace, database: Database, interrupts: beside.Interrupts) -> None:
    from pg_bridge.jobs.engines import EXTENSION_SCHEMA, Engines  # noqa: PLC0415 - psycopg is an extra
    from pg_bridge.jobs.keeper import Keeper  # noqa: PLC0415 - as above
    from pg_bridge.jobs.queue import find_schema  # noqa: PLC0415 - as above
    from pg_bridge.jobs.worker import Worker  # noqa: PLC0415 - as above

    say = _silent if arguments.quiet else _say
    schema = database.run(lambda connection: find_schema(connection, arguments.trust))
    own = _engines(arguments)
    if schema == EXTENSION_SCHEMA and own:
        say("the extension is there: jobs ask its servers, and not the engine that was named")
    elif schema != EXTENSION_SCHEMA and not own:
        raise OptionError(
            "there is no engine", hint=f"Give --endpoint http://… or --engines FILE, or set {beside.ENDPOINT_VARIABLE}."
        )
    engines = Engines(schema, own)
    keeper = Keeper(
        beside.dsn(arguments),
        database,
        engines,
        trusted=arguments.trust,
        ledger=arguments.ledger,
        say=say,
        check=interrupts.check,
    )
    worker = Worker(
        beside.dsn(arguments),
        database,
        engines,
        trusted=arguments.trust,
        ledger=arguments.ledger,
        patience_s=arguments.patience,
        chores=[keeper],
        say=say,
        check=interrupts.check,
    )
    interrupts.act = worker.interrupt
    say(f"{worker.name}: jobs and kept columns of schema {schema}")
    with closing(keeper):
        worker.run(until_idle=arguments.once)


def install(connection: Connection) -> str:
    """Make schema `llm_jobs`, unless it is there; what was done, in words.

    Raises:
        PgBridgeError: The extension is there, or another schema of that name.
    """
    from pg_bridge.jobs.engines import RENTED_SCHEMA  # noqa: PLC0415 - psycopg is an extra
    from pg_bridge.jobs.queue import has_extension  # noqa: PLC0415 - as above

    found = connection.execute(
        "SELECT pg_catalog.to_regclass($1) IS NOT NULL, pg_catalog.to_regnamespace($2) IS NOT NULL",
        [f"{RENTED_SCHEMA}._job", RENTED_SCHEMA],
    ).fetchone()
    is_there, is_taken = found or (False, False)
    if has_extension(connection):
        raise PgBridgeError(
            "the extension is in this database, and has all of it", hint="SELECT llm.submit(…) is there already."
        )
    if is_there:
        return f"schema {RENTED_SCHEMA} is there already"
    if is_taken:
        raise PgBridgeError(f"this database has another schema {RENTED_SCHEMA}", hint="Rename that one, or drop it.")
    with connection.transaction():
        connection.execute(jobs_script().encode())
    return f"schema {RENTED_SCHEMA} made: SELECT {RENTED_SCHEMA}.submit(…) makes a job, {RENTED_SCHEMA}.jobs shows them"


def _engines(arguments: argparse.Namespace) -> Mapping[str, Server]:
    one = beside.find_engine(arguments, DEFAULT_NAME)
    found = {} if one is None else {DEFAULT_NAME: one}
    return {**found, **_engines_of(arguments.engines)} if arguments.engines else found


def _engines_of(path: Path) -> Mapping[str, Server]:
    """The engines that a file says.

    Raises:
        OptionError: It cannot be read, or an option is not valid.
    """
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(beside.file_text(path))
    except configparser.Error:  # its text repeats the line, which may hold a key
        raise OptionError(
            f"{path} cannot be read as engines", hint="Write [name], and under it endpoint = http://… and the like."
        ) from None
    found = {}
    for name in parser.sections():
        options = dict(parser[name])
        key_file = options.pop("api_key_file", None)
        if key_file is not None:
            options["api_key"] = beside.file_text(Path(key_file)).strip()
        found[name] = Server.from_options(name, options)
    return found


def _say(text: str) -> None:
    """A line on standard error; what jobs are made of is others' text, and no terminal's commands."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {shown}", file=sys.stderr, flush=True)


def _silent(text: str) -> None:
    """Say nothing."""

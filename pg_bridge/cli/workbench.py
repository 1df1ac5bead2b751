"""`pg-bridge workbench`: a page on this machine for finding a prompt, by a sample of a query's or a file's rows.

In: what is read, the engine. Out: the address of a page that shows rows and the answers of each version side by side.
Nothing is written into the database, and a role that may read the query is enough.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
from contextlib import ExitStack, closing
from pathlib import Path

from pg_bridge.cli import beside, map_options
from pg_bridge.cli.beside import ENDPOINT_VARIABLE, KEY_VARIABLE, file_text
from pg_bridge.errors import OptionError
from pg_bridge.jobs.files import FileReading, format_of
from pg_bridge.jobs.needed import psycopg_needed
from pg_bridge.workbench import Bench, Sample, serve, take_sample

_MOST_ROWS = 500

_DESCRIPTION = """\
Show a random sample of a query's or a file's rows on a page of this machine, and the answers to each version of a
prompt beside them: where versions differ, what each took, and how many of the answers that you marked as right each
gives. What you come to, the page writes as SQL and as a command for all rows.

Asked is what you ask there, about the sample alone; nothing is written into the database.
"""

_EPILOG = f"""\
examples:
  export {ENDPOINT_VARIABLE}=http://127.0.0.1:8000        # and {KEY_VARIABLE}, if the engine wants a key
  pg-bridge workbench --query 'SELECT title, review FROM reviews'
  pg-bridge workbench --from reviews.csv --rows 50 --notes kind.json --ledger ./ledger

The page is for this machine and for who has its address with the token in it; from another one: ssh -L. Ctrl-C ends it.
"""  # noqa: S608 - a help text


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `workbench` to the command line."""
    parser = subparsers.add_parser(
        "workbench",
        help="find a prompt on a page: versions of it side by side, about a sample of rows",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--query", metavar="SQL", help="the rows; it is read through once")
    source.add_argument("--query-file", metavar="FILE", type=Path, help="the same, from a file")
    source.add_argument("--from", metavar="FILE", dest="source", help="the rows: .csv, .jsonl or .parquet")
    parser.add_argument(
        "--rows", type=int, default=20, help=f"of the sample, up to {_MOST_ROWS} (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, help="of the sample (default: another one each time)")
    parser.add_argument("--notes", metavar="FILE", type=Path, help="keep versions and right answers there")
    parser.add_argument("--ledger", metavar="FOLDER", type=Path, help="keep answers there, and ask nothing twice")
    parser.add_argument("--port", type=int, default=0, help="of the page (default: any that is free)")
    beside.add_database(parser)
    beside.add_engine(parser)
    beside.add_own_engine(parser)
    map_options.add_group(parser, "the engine", "", map_options.server_options())
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status.

    Raises:
        PgBridgeError: The rows cannot be read, or there is no engine.
    """
    if not 1 <= arguments.rows <= _MOST_ROWS:
        raise OptionError(f"a sample has from 1 to {_MOST_ROWS} rows")
    with beside.own_engine(arguments, quiet=False):
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    server = beside.find_engine(arguments, "engine")
    if server is None:
        raise OptionError(
            "there is no engine",
            hint=f"Give --endpoint http://…, set {ENDPOINT_VARIABLE}, or start one: --serve MODEL.",
        )
    source = arguments.source or arguments.query
    if arguments.query_file is not None:
        source = file_text(arguments.query_file)
    sample = _sample(arguments, source)
    bench = Bench(
        sample,
        server,
        source,
        is_file=arguments.source is not None,
        ledger=arguments.ledger,
        notes=arguments.notes,
    )
    print(f"{len(sample.rows):,} of {sample.total:,} rows", flush=True)
    asyncio.run(_serve(bench, arguments.port))
    return 0


async def _serve(bench: Bench, port: int) -> None:
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    runner, address = await serve(bench, port)
    try:
        print(address, flush=True)
        await over.wait()
    finally:
        await runner.cleanup()


def _sample(arguments: argparse.Namespace, source: str) -> Sample:
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    if arguments.source is not None:
        if format_of(source) is None:
            raise OptionError(f"{source} is no .csv, .jsonl or .parquet file")
        file = FileReading(Path(source), ())
        file.open()
        return take_sample(file, arguments.rows, seed)
    with psycopg_needed(besides=" Files need none."):
        from pg_bridge.jobs.database import Database  # noqa: PLC0415 - psycopg is an extra
        from pg_bridge.jobs.query import QueryReading  # noqa: PLC0415 - as above
    interrupts = beside.Interrupts()
    with ExitStack() as stack:
        database = stack.enter_context(closing(Database(beside.dsn(arguments), patience_s=0.0, check=interrupts.check)))
        interrupts.act = database.interrupt
        stack.enter_context(interrupts.taken())
        database.connect()
        reading = QueryReading(database, source, (), whole=True)
        reading.open()
        return take_sample(reading, arguments.rows, seed)

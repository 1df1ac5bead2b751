"""`pg-bridge map`: one prompt about each row of a query or a file, from a process beside the database.

In: what is read, asked, and written into; the engine. Out: a table or a file of answers, committed on the way, and one
line that says what was saved. Started again it asks only what is missing or has changed. The server needs nothing
installed, and the role no more than to read the query and to write the target.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pg_bridge.cli import INTERRUPTED, beside, map_options, map_progress, print_error, status_of
from pg_bridge.cli.beside import ENDPOINT_VARIABLE, KEY_VARIABLE, file_text
from pg_bridge.errors import BudgetExceeded, EngineDenied, JobRunning, OptionError, PgBridgeError, RowError
from pg_bridge.jobs.files import format_of
from pg_bridge.jobs.opening import PATIENCE_S, OpenJob
from pg_bridge.jobs.record import JobRecord, Part
from pg_bridge.jobs.report import summary
from pg_bridge.jobs.running import Running, Stopped
from pg_bridge.ledger.prices import has_prices
from pg_bridge.options import Server
from pg_bridge.options.values import CHOICES

SOME_FAILED, BUDGET_USED_UP, IS_RUNNING = 3, 4, 5

_STATUSES = {BudgetExceeded: BUDGET_USED_UP, JobRunning: IS_RUNNING}
# In place of those that speak of SQL.
_HINTS = {
    BudgetExceeded: "What was answered is kept. Raise the limit, or take what there is with --on-budget null.",
    EngineDenied: f"Put the key into {KEY_VARIABLE}, or into a file for --api-key-file.",
    RowError: "Without --on-error fail such a row gets its reason in column error, and the others their answers.",
}

_DESCRIPTION = """\
Ask one prompt about each row of a query, and write the answers into a table. Any PostgreSQL from 13 on, nothing
installed in it, an ordinary role. Equal questions are asked once, and prompts are ordered so that the engine reuses
what it has computed.

Answers are committed on the way, each within a second or so. Stopped, killed or disconnected: started again, the same
command asks only about rows that have no answer, whose cells have changed, or for which the prompt has.

The target is made if it is not there: the key's columns, answer, model, digest (of what was asked), answered_at and
error. One that is there needs these columns and a unique key of the same columns, and may have others.
"""

_EPILOG = f"""\
examples:
  export {ENDPOINT_VARIABLE}=http://127.0.0.1:8000        # and {KEY_VARIABLE}, if the engine wants a key
  export PGSERVICE=shop                                  # or PGHOST, PGDATABASE …: as for psql

  pg-bridge map --query 'SELECT id, title, review FROM reviews' --key id \\
      --prompt 'Is {{review}} a kind thing to say of {{title}}?' --choices yes,no --into review_kind
  the same with --dry-run                                what it would ask, take and cost; nothing is sent
  the same with --limit 20                               the next 20 rows that have no answer
  the same with --price-prompt 0.15 --price-completion 0.6 --max-cost 5
  pg-bridge map … --type boolean --into 'insight.review' --answer-column is_kind
  pg-bridge map … --schema '{{"type": "object", "required": ["city"]}}' --into review_city
  pg-bridge map --from reviews.csv --prompt 'Is {{review}} kind?' --type boolean --into answered.csv
  pg-bridge map … --serve Qwen/Qwen3-8B                  with a vLLM that is started for it
  pg-bridge map --from reviews.jsonl --key id --prompt 'Is {{review}} kind?' --into review_kind
  15 3 * * *  pg-bridge map … --log json >>/var/log/review_kind.log      in a crontab

exit status:
  0 every row has its answer; 1 failed; 2 wrong usage: an argument, the prompt, the query or a file that is named is
  not valid or cannot be read; {SOME_FAILED} some rows have an error instead of an answer;
  {BUDGET_USED_UP} a budget is used up; {IS_RUNNING} another run is writing into the target; {INTERRUPTED} interrupted.
  Whatever it is, answers that were written are kept.

Keys and passwords are taken from the environment, a file (PGPASSFILE, --dsn-file, --api-key-file) or a service: what
stands in a command line can be seen by everybody on the machine.
"""  # noqa: S608 - a help text


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `map` to the command line."""
    parser = subparsers.add_parser(
        "map",
        help="ask about each row of a query or a file, from beside the database",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_argument_group("what is asked about").add_mutually_exclusive_group(required=True)
    source.add_argument("--query", metavar="SQL", help="the rows: a query that has each key once")
    source.add_argument("--query-file", metavar="FILE", type=Path, help="the same, from a file")
    source.add_argument("--from", metavar="FILE", dest="source", help="the rows: .csv, .jsonl or .parquet")
    asked = parser.add_argument_group("what is asked")
    prompt = asked.add_mutually_exclusive_group(required=True)
    prompt.add_argument(
        "--prompt", metavar="TEXT", help="{column} names what is sent; one that names none sends all but the key"
    )
    prompt.add_argument("--prompt-file", metavar="FILE", type=Path, help="the same, from a file")
    asked.add_argument("--key", metavar="a,b", action="append", help="the columns that tell the rows apart")
    asked.add_argument("--choices", metavar="a,b", help="the only answers allowed, or a JSON array of them")
    asked.add_argument(
        "--type",
        choices=("text", "boolean", "number", "integer", "date", "timestamp", "timestamptz", "json", "embedding"),
        help="of the answers (default: what the target's column is, or text); for an embedding the prompt is the text "
        "itself, in which {column} stands for its cell",
    )
    asked.add_argument("--schema", metavar="JSON|FILE", help="the JSON schema of an answer")
    asked.add_argument(
        "--part", metavar="I/N", type=_part, default=(1, 1), help="only the I-th of N parts of the query's rows"
    )
    asked.add_argument("--part-by", metavar="a,b", action="append", help="rows equal in these columns are of one part")
    target = parser.add_argument_group("where answers go")
    target.add_argument("--into", metavar="TABLE|FILE", required=True, help="a table, or a file as for --from")
    target.add_argument("--answer-column", metavar="NAME", default="answer", help="(default: %(default)s)")
    beside.add_database(target)
    how = parser.add_argument_group("how")
    beside.add_engine(how)
    beside.add_own_engine(how)
    how.add_argument("--dry-run", action="store_true", help="tell what it would ask, take and cost")
    how.add_argument("--limit", metavar="ROWS", type=_count, help="ask about so many rows at most")
    how.add_argument(
        "--patience",
        metavar="SECONDS",
        type=float,
        default=PATIENCE_S,
        help="how long a database or an engine that is gone is waited for (default: %(default)g)",
    )
    how.add_argument("--ledger", metavar="FOLDER", type=Path, help="keep each answer there, too, at once")
    how.add_argument("--quiet", action="store_true", help="say nothing but errors")
    how.add_argument("--log", choices=("json", "text"), help="lines instead of a bar: JSON on standard output")
    map_options.add_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status that `--help` tells.

    Raises:
        OptionError: An argument is not valid.
    """
    _check_texts(arguments)
    record = _record(arguments)
    with beside.own_engine(arguments, quiet=arguments.quiet):
        return _run(arguments, record)


def _run(arguments: argparse.Namespace, record: JobRecord) -> int:
    server = _server(arguments)
    progress = map_progress.choose(quiet=arguments.quiet, log=arguments.log, server=server)
    interrupts = beside.Interrupts()
    job = OpenJob(
        record,
        server,
        dsn=beside.dsn(arguments),
        ledger=arguments.ledger,
        limit=arguments.limit,
        patience_s=arguments.patience,
        tell=progress.tell,
        say=progress.say,
        check=interrupts.check,
    )
    interrupts.act = job.interrupt
    with interrupts.taken(), job:
        try:
            running = job.open(is_rehearsal=arguments.dry_run)
            if arguments.dry_run:
                _rehearse(running, progress, as_json=arguments.log == "json")
                return 0
            report = running.run()
        except (Stopped, KeyboardInterrupt):
            done = f"{summary(job.report, server, record.target)} " if job.report else ""
            progress.end("stopped", job.report, f"{done}Interrupted: the same command goes on.")
            return INTERRUPTED
        except PgBridgeError as error:
            progress.end("failed", job.report, error.message)
            error.hint = next((hint for kind, hint in _HINTS.items() if isinstance(error, kind)), error.hint)
            print_error(error)
            return next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), status_of(error))
        progress.end("done", report, summary(report, server, record.target))
        return BUDGET_USED_UP if report.not_asked else SOME_FAILED if report.failed else 0


def _rehearse(running: Running, progress: map_progress.Progress, *, as_json: bool) -> None:
    """Tell what it would ask, take and cost."""
    found = running.foresee()
    report = running.report
    figures = {"rows": report.read, "rows_known": report.known, "rows_asked": found.rows, **asdict(found)}
    figures["rows"] = report.read
    if as_json:
        print(json.dumps(figures), flush=True)
        return
    progress.end("done", report, "")
    for name, value in figures.items():
        if value is not None:
            print(f"{name + ':':<18} {format(value, ',') if isinstance(value, int) else value}")


def _check_texts(arguments: argparse.Namespace) -> None:
    """See that what was typed is text: bytes that are no UTF-8 come as halves of surrogate pairs."""
    for value in vars(arguments).values():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise OptionError("an argument is not UTF-8", hint="Give it in a file, or in a terminal of UTF-8.")


def _record(arguments: argparse.Namespace) -> JobRecord:
    is_file, into_file = arguments.source is not None, format_of(arguments.into) is not None
    if is_file and format_of(arguments.source) is None:
        raise OptionError(f"{arguments.source} is no .csv, .jsonl or .parquet file")
    key = _names(arguments.key)
    if not key and not into_file:
        raise OptionError(
            "--key is missing: a table of answers needs what tells its rows apart", hint="For example --key id."
        )
    source = arguments.source or arguments.query
    if arguments.query_file is not None:
        source = file_text(arguments.query_file)
    schema = arguments.schema or ""
    if schema and not schema.lstrip().startswith("{"):
        schema = file_text(Path(schema))
    if schema and arguments.type not in (None, "json"):
        raise OptionError("--schema is for answers of --type json")
    number, parts = arguments.part
    return JobRecord(
        source=source,
        prompt=file_text(arguments.prompt_file).rstrip("\n") if arguments.prompt_file else arguments.prompt,
        target=arguments.into,
        key=key,
        is_file=is_file,
        into_file=into_file,
        type=arguments.type or "",
        schema=schema,
        answer_column=arguments.answer_column,
        options={**map_options.call_arguments(arguments), "choices": _choices(arguments.choices)},
        part=Part(number, parts, _names(arguments.part_by)),
    )


def _server(arguments: argparse.Namespace) -> Server:
    server = beside.find_engine(arguments, "engine")
    if server is None:
        raise OptionError(
            "there is no engine",
            hint=f"Give --endpoint http://…, set {ENDPOINT_VARIABLE}, or start one: --serve MODEL.",
        )
    if arguments.option_max_cost is not None and not has_prices(server):
        raise OptionError("a cost is limited, and there are no prices", hint="Give --price-prompt, --price-completion.")
    return server


def _choices(text: str | None) -> list[str]:
    if text is None:
        return []
    try:
        return list(CHOICES.of_text(text))
    except ValueError:
        raise OptionError("invalid value for --choices", hint=f"It must be {CHOICES.expects}.") from None


def _names(texts: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(name for text in texts or () for name in next(csv.reader([text], skipinitialspace=True), []))


def _part(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    return int(number), int(of)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return number

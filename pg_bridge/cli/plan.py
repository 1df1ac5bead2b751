"""`pg-bridge plan`: plan a CSV file without a database or an engine, and say what planning is worth.

In: a CSV file. Out: hit rates before and after on standard output, and the plan as JSON where asked for. It
sends nothing and changes no file but the one it was told to write.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pg_bridge.dedup import UniqueRows, dedup
from pg_bridge.errors import OptionError, UnknownColumn
from pg_bridge.ordering import MOST_COLUMNS, Ordering, plan
from pg_bridge.prompt import Question, columns_hint, parse_question, resolve_columns
from pg_bridge.table import Table

_DESCRIPTION = """\
Plan a CSV file as a query's rows would be planned, and print what share of the prompts' characters the engine
could reuse from the prompt before: in the file's own order, and in the planned order."""

_EPILOG = """\
The file is UTF-8 with one header line; every cell counts as text. Equal rows are asked once. Hit rates are in
characters, over all rows of the file; an engine counts tokens, in whole blocks, so its own figure
differs a little.

The plan in OUT.json, for a file whose second and third data rows are equal:

  {"columns": ["title", "review"],            the columns that are sent
   "row_order": [1, 2, 0],                    data rows in sending order, counted from 0; all of them, equal
                                              ones side by side (one request answers them)
   "column_order": [[0, 1], [0, 1], [1, 0]]}  for each sent row the order of its cells, as places in "columns"

examples:
  pg-bridge plan reviews.csv
  pg-bridge plan reviews.csv --question 'Is {review} about {title} kind?' --output plan.json
  pg-bridge plan reviews.csv --columns title,review"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `plan` command."""
    parser = subparsers.add_parser(
        "plan",
        help="plan a CSV file and print the hit rates before and after",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE.csv", type=Path, help="the rows")
    parser.add_argument("--output", metavar="OUT.json", type=Path, help="write the plan to this file")
    parser.add_argument(
        "--columns",
        metavar="a,b",
        help="send these columns only, in the file's order; quote a name that holds a comma",
    )
    parser.add_argument(
        "--question",
        metavar="TEXT",
        help="the prompt: {column} picks a column as in llm.map, and its text counts in the hit rates",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan the file, print the figures, write the plan.

    Raises:
        OptionError: The file cannot be read or is not a CSV file, or the plan cannot be written.
        TemplateError: The question's braces do not parse, or a column is unknown.
    """
    question = parse_question(arguments.question) if arguments.question is not None else Question("", ())
    started = time.perf_counter()
    table = _read(arguments.file, _parse_columns(arguments.columns), question)
    read = time.perf_counter()
    unique = dedup(table)
    ordering = plan(unique.table)
    planned = time.perf_counter()
    _report(table, unique, ordering, question, read_s=read - started, plan_s=planned - read)
    if arguments.output is not None:
        _write(arguments.output, table.columns, place_duplicates(unique, ordering))
    return 0


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A plan of all input rows.

    Attributes:
        row_order: (n,) intp; `row_order[i]` is the input row sent i-th; equal rows side by side, ascending.
        column_order: (n, k) int16; the columns of the row sent i-th, in order.
    """

    row_order: NDArray[np.intp]
    column_order: NDArray[np.int16]


def place_duplicates(unique: UniqueRows, ordering: Ordering) -> Placed:
    """Extend a plan of the unique rows to all input rows: each duplicate stands right after its twin.

    No such plan shares less than the input in its own order. There, between one row and the next new one,
    stand m duplicates and m + 1 common prefixes; all but the shortest of these fit each into a duplicate of
    its own, which here shares its whole length, and the shortest is no longer than what the two rows share.
    """
    sent = np.empty(len(ordering.row_order), np.intp)
    sent[ordering.row_order] = np.arange(len(sent))
    place = sent[unique.inverse]
    row_order = np.argsort(place, kind="stable").astype(np.intp, copy=False)
    return Placed(row_order, ordering.column_order[place[row_order]])


def _parse_columns(text: str | None) -> list[str] | None:
    return None if text is None else next(csv.reader([text], skipinitialspace=True), [])


def _read(path: Path, chosen: Sequence[str] | None, question: Question) -> Table:
    """Read the columns to be sent."""
    csv.field_size_limit(sys.maxsize)
    lines = _lines(path)
    header = next(lines, None)
    if header is None:
        raise OptionError(f"{path} is empty", hint="The first line must name the columns.")
    name, count = Counter(header).most_common(1)[0]
    if count > 1:
        raise OptionError(f'{path} has {count} columns named "{name}"', hint="Give each column its own name.")
    if len(header) > MOST_COLUMNS:
        raise OptionError(f"{path} has {len(header)} columns, at most {MOST_COLUMNS} can be planned")
    if chosen is not None and not chosen:
        raise OptionError("--columns names no column", hint=columns_hint("", header))
    for wanted in chosen or ():
        if wanted not in header:
            raise UnknownColumn(f'column "{wanted}" is not in {path}', hint=columns_hint(wanted, header))
    available = header if chosen is None else [name for name in header if name in set(chosen)]
    columns = resolve_columns(question, available)
    places = [header.index(name) for name in columns]
    cells: list[list[str]] = [[] for _ in columns]
    encode = json.JSONEncoder(ensure_ascii=False).encode
    for line in lines:
        for column, place in zip(cells, places, strict=True):
            column.append(encode(line[place]))
    return Table.from_cells(columns, cells)


def _lines(path: Path) -> Iterator[list[str]]:
    """Yield the header and the rows, each as wide as the header; blank lines are skipped."""
    width = 0
    reader = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)  # else an unclosed quote swallows the rest of the file
            for cells in reader:
                if not cells:
                    continue
                width = width or len(cells)
                if len(cells) != width:
                    raise OptionError(
                        f"line {reader.line_num} of {path} has {len(cells)} cells, the header has {width}",
                        hint="Quote a cell that holds a comma, a quote or a line break.",
                    )
                yield cells
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{path} is not UTF-8", hint="Convert it, for example with iconv.") from error
    except csv.Error as error:
        place = f" at line {reader.line_num}" if reader is not None else ""
        raise OptionError(f"{path} is not a CSV file{place}: {error}") from error


def _report(
    table: Table, unique: UniqueRows, ordering: Ordering, question: Question, *, read_s: float, plan_s: float
) -> None:
    before = plan(table, reorder="none")
    duplicate_chars = before.total_chars - ordering.total_chars
    question_chars = len(question.text) + 1 if question.text else 0
    shared_questions = question_chars * max(table.rows - 1, 0)
    total = before.total_chars + question_chars * table.rows

    def rate(shared: int) -> str:
        return f"{100 * (shared + shared_questions) / total if total else 0:.1f} %"

    print(f"rows             {table.rows}")
    print(f"unique rows      {unique.table.rows}")
    print(f"columns          {len(table.columns)}")
    print(f"strategy         {ordering.strategy}")
    print(f"hit rate before  {rate(before.shared_chars)}")
    print(f"hit rate after   {rate(ordering.shared_chars + duplicate_chars)}")
    print(f"seconds          {plan_s:.3f} planning, {read_s:.3f} reading")


def _write(path: Path, columns: Sequence[str], placed: Placed) -> None:
    document = {
        "columns": list(columns),
        "row_order": placed.row_order.tolist(),
        "column_order": placed.column_order.tolist(),
    }
    try:
        path.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror}") from error

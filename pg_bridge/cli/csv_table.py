"""A CSV file as a table of rows to ask about.

In: a path, the columns to keep, what the questions name. Out: a `Table` in which every cell is a JSON string. It
guesses no types: a number or an empty cell of a CSV file is text, as the file has it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pg_bridge.asking.prompt import Question, columns_hint, resolve_columns
from pg_bridge.errors import OptionError, UnknownColumn
from pg_bridge.jobs.csv_lines import csv_lines
from pg_bridge.ordering import MOST_COLUMNS
from pg_bridge.rows.table import Table


def read_table(path: Path, chosen: Sequence[str] | None, questions: Sequence[Question]) -> Table:
    """Read the columns that are to be sent.

    Args:
        path: A CSV file in UTF-8 with one header line.
        chosen: Keep these columns only; None keeps all.
        questions: Keep, of those, the columns that any of these names; all of them where one names none.

    Raises:
        OptionError: The file cannot be read, is not a CSV file, or its columns cannot be planned.
        UnknownColumn: A column is not in the file, or not among the chosen ones.
    """
    lines = csv_lines(path)
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
    named = {name for question in questions for name in resolve_columns(question, available)}
    columns = [name for name in available if name in named or not questions]
    places = [header.index(name) for name in columns]
    cells: list[list[str]] = [[] for _ in columns]
    encode = json.JSONEncoder(ensure_ascii=False).encode
    for line in lines:
        for column, place in zip(cells, places, strict=True):
            column.append(encode(line[place]))
    return Table.from_cells(columns, cells)

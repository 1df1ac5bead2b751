"""A file of rows with their answers: CSV, JSON Lines, or Parquet where pyarrow is installed.

In: rows as JSON texts, with what stands beside them. Out: the file, and what an earlier run has put into it. Answers
are true and false, numbers and JSON where they were asked for as such, else texts.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pg_bridge.jobs.csv_lines import csv_lines
from pg_bridge.jobs.files import CSV, PARQUET, import_parquet
from pg_bridge.options import Kind
from pg_bridge.rows.cutting import cut

_CHUNK_ROWS = 1024
_TRUTH = {"t": "true", "f": "false"}

Answered = tuple[str, str | None, str | None, str | None, str | None, str | None]
"""A row's JSON text; its answer, model, digest, time and error."""


class AnsweredFile:
    """What such a file looks like.

    Args:
        format: One of those of `files`.
        columns: The rows' columns.
        names: Those of the answer, its model, digest, time and error.
        kind: The form of the answers.

    Attributes:
        format: As given.
    """

    def __init__(self, format: str | None, columns: Sequence[str], names: Sequence[str], kind: Kind) -> None:
        self.format = format
        self._columns = tuple(columns)
        self._names = tuple(names)
        self._kind = kind

    def read(self, path: Path) -> Iterator[list[str | None]]:
        """What stands beside the rows of a file: answer, model, digest, time and error.

        Raises:
            KeyError: It lacks one of the columns.
            ValueError: It is no such file.
            OptionError: Likewise, or it cannot be read.
        """
        for row in _read(path, self.format):
            answer, *besides = (row[name] for name in self._names)
            text = answer if isinstance(answer, str | None) else json.dumps(answer, ensure_ascii=False)
            if self._kind == "boolean" and text is not None:
                text = {"true": "t", "false": "f"}[text]
            yield [text, *(None if value is None else str(value) for value in besides)]

    def write(self, path: Path, answered: Callable[[], Iterator[Answered]]) -> None:
        """Write a file.

        Args:
            path: Where.
            answered: Gives all rows; may be called twice.

        Raises:
            OSError: It cannot be written.
        """
        if self.format == PARQUET:
            self._write_parquet(path, answered)
            return
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:  # half a character
            if self.format == CSV:
                self._write_csv(file, answered())
            else:
                self._write_json_lines(file, answered())
            file.flush()
            os.fsync(file.fileno())

    def _as_json(self, answer: str) -> str:
        """An answer as JSON text."""
        if self._kind == "boolean":
            return _TRUTH[answer]
        return answer if self._kind in ("number", "integer", "json") else _quoted(answer)

    def _write_csv(self, file: IO[str], answered: Iterator[Answered]) -> None:
        lines = csv.writer(file)
        lines.writerow([*self._columns, *self._names])
        for chunk in _chunks(answered):
            cut_rows = cut([row for row, *_ in chunk], lambda _: self._columns)
            for (_, cells), (_, answer, *besides) in zip(cut_rows, chunk, strict=True):
                shown = _TRUTH[answer] if answer is not None and self._kind == "boolean" else answer
                lines.writerow([*map(_of_json, cells), shown, *besides])

    def _write_json_lines(self, file: IO[str], answered: Iterator[Answered]) -> None:
        for text, answer, *besides in answered:
            values = [None if answer is None else self._as_json(answer), *(v and _quoted(v) for v in besides)]
            named = zip(self._names, values, strict=True)
            more = ", ".join([f"{_quoted(name)}: {value or 'null'}" for name, value in named])
            row = text.rstrip()[:-1].rstrip()
            file.write(f"{row}{'' if row == '{' else ', '}{more}}}\n")

    def _write_parquet(self, path: Path, answered: Callable[[], Iterator[Answered]]) -> None:
        parquet = import_parquet()
        import pyarrow as pa  # noqa: PLC0415 - optional

        of_answers = {"boolean": pa.bool_(), "number": pa.float64(), "integer": pa.int64()}
        types = [
            *_arrow_types(pa, self._columns, (json.loads(text, strict=False) for text, *_ in answered())),
            of_answers.get(self._kind, pa.string()),
            *[pa.string()] * (len(self._names) - 1),
        ]
        schema = pa.schema(list(zip([*self._columns, *self._names], types, strict=True)))
        texts = {name for name, type_ in zip(self._columns, types, strict=False) if type_ == pa.string()}
        with parquet.ParquetWriter(path, schema) as writer:
            for chunk in _chunks(answered()):
                rows = [
                    self._parquet_row(row, texts, is_text=types[len(self._columns)] == pa.string()) for row in chunk
                ]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))

    def _parquet_row(self, answered: Answered, texts: set[str], *, is_text: bool) -> dict[str, Any]:
        text, answer, *besides = answered
        row = json.loads(text, strict=False)
        value = answer if answer is None or is_text else json.loads(self._as_json(answer))
        cells = {name: _as_text(row.get(name)) if name in texts else row.get(name) for name in self._columns}
        return cells | dict(zip(self._names, (value, *besides), strict=True))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _of_json(cell: str) -> str | None:
    """A JSON text as a cell of a CSV file: a string without its quotes, nothing for null."""
    return json.loads(cell, strict=False) if cell.startswith('"') else None if cell == "null" else cell


def _as_text(value: object) -> str | None:
    return value if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False)


def _chunks(rows: Iterable[Answered]) -> Iterator[list[Answered]]:
    chunk: list[Answered] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _arrow_types(pa: Any, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> list[Any]:  # noqa: ANN401
    """What columns are in a Parquet file: truth, whole numbers, numbers; else texts, which are JSON for all others."""
    kinds: dict[str, set[type]] = {name: set() for name in columns}
    for row in rows:
        for name in columns:
            value = row.get(name)
            if value is not None:
                is_large = isinstance(value, int) and not -(2**63) <= value < 2**63
                kinds[name].add(str if is_large else type(value))
    simple: Mapping[frozenset[type], Callable[[], Any]] = {
        frozenset([bool]): pa.bool_,
        frozenset([int]): pa.int64,
        frozenset([float]): pa.float64,
        frozenset([int, float]): pa.float64,
    }
    return [simple.get(frozenset(kinds[name]), pa.string)() for name in columns]


def _read(path: Path, format_: str | None) -> Iterator[Mapping[str, Any]]:
    """The rows of a file; an empty cell of a CSV file is None."""
    if format_ == CSV:
        lines = csv_lines(path)
        header = next(lines, [])
        yield from (dict(zip(header, [cell or None for cell in line], strict=True)) for line in lines)
    elif format_ == PARQUET:
        with import_parquet().ParquetFile(path) as file:
            for batch in file.iter_batches(_CHUNK_ROWS):
                yield from batch.to_pylist()
    else:
        with path.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(line)
                yield row

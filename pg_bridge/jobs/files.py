"""The reading side of a file: CSV, JSON Lines, or Parquet where pyarrow is installed.

In: a path. Out: `Item`s, in the file's order. Cells of a CSV file are texts, as the file has them; those of JSON Lines
are cut out of their line and stay as they are spelled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pg_bridge.asking.prompt import columns_hint
from pg_bridge.errors import KeyFault, OptionError, UnknownColumn
from pg_bridge.jobs.csv_lines import csv_lines
from pg_bridge.jobs.record import Item, digest_of
from pg_bridge.jobs.texts import encode, iterate
from pg_bridge.rows.cutting import Choose, Columns, cut

CSV, JSON_LINES, PARQUET = "CSV", "JSON Lines", "Parquet"
SUFFIXES = {".csv": CSV, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES, ".parquet": PARQUET}
_CHUNK_ROWS = 1024

Cells = tuple[str, ...]
"""JSON texts."""


def format_of(path: str) -> str | None:
    """The format of a file by its name's ending; None for what is no file's name."""
    return SUFFIXES.get(Path(path).suffix.lower())


class _Row(NamedTuple):
    cells: Cells
    text: str
    """All columns, a JSON object."""


class FileReading:
    """Reads a file.

    Args:
        path: The file.
        key: The columns that tell its rows apart; may be empty.

    Attributes:
        columns: Of the file.
        expected_rows: None: that is known at its end.
    """

    expected_rows = None

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self.columns: tuple[str, ...] = ()
        self._path = path
        self._format = format_of(str(path))
        self._key = tuple(key)
        self._rows: Iterator[_Row] = iter(())
        self._keys_seen: set[bytes] = set()
        self._sent: list[tuple[str, int]] = []  # label and place
        self._context = b""

    def open(self) -> None:
        """Look at the file's columns.

        Raises:
            OptionError: It cannot be read.
            UnknownColumn: It lacks a column of the key.
        """
        self.columns = _columns_of_json_lines(self._path) if self._format == JSON_LINES else self._begin()[0]
        for name in self.columns:
            if self.columns.count(name) > 1:
                raise OptionError(f'{self._path} has more than one column named "{name}"')
        for name in self._key:
            if name not in self.columns:
                raise UnknownColumn(f'column "{name}" is not in {self._path}', hint=columns_hint(name, self.columns))

    def begin(self, sent: Sequence[str], context: bytes) -> None:
        """As in `Reading`."""
        _, self._rows = self._begin()
        self._keys_seen.clear()
        self._sent = [(json.dumps(name, ensure_ascii=False) + ": ", self.columns.index(name)) for name in sent]
        self._context = context

    def fetch(self) -> list[Item]:
        """As in `Reading`.

        Raises:
            OptionError: The file cannot be read on.
            KeyFault: Two rows have one key, or a key is missing.
        """
        places = [self.columns.index(name) for name in self._key]
        items = []
        for row in islice(self._rows, _CHUNK_ROWS):
            text = "{" + ", ".join([label + row.cells[place] for label, place in self._sent]) + "}"
            key = tuple([_plain(row.cells[place]) for place in places])
            if None in key:
                raise KeyFault(f"a row of {self._path} has no key ({', '.join(self._key)})", sqlstate="23502")
            if key:
                self._see("\0".join(map(str, key)))
            items.append(Item(key, text, row.text, digest_of(self._context, text)))  # type: ignore[arg-type]
        return items

    def _see(self, key: str) -> None:
        digest = bytes.fromhex(digest_of(b"", key))
        if digest in self._keys_seen:
            raise KeyFault(
                f"two rows of {self._path} have the same key ({', '.join(self._key)})",
                hint="Name with --key what tells its rows apart.",
            )
        self._keys_seen.add(digest)

    def _begin(self) -> tuple[tuple[str, ...], Iterator[_Row]]:
        if self._format == CSV:
            return _of_csv(self._path)
        if self._format == JSON_LINES:
            return self.columns, _cut(self._path, lambda _: self.columns)
        return _of_parquet(self._path)


def _plain(cell: str) -> str | None:
    """A JSON text as a key: a string without its quotes."""
    if cell.startswith('"'):
        text = json.loads(cell)
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise OptionError("a key holds half of a surrogate pair, which PostgreSQL cannot hold")
        if "\0" in text:
            raise OptionError("a key holds a NUL character, which PostgreSQL cannot hold")
        return str(text)
    return None if cell == "null" else cell


def _objects(columns: Sequence[str], rows: Iterable[Cells]) -> Iterator[_Row]:
    labels = [json.dumps(name, ensure_ascii=False) + ": " for name in columns]
    for cells in rows:
        members = [label + cell for label, cell in zip(labels, cells, strict=True)]
        yield _Row(cells, "{" + ", ".join(members) + "}")


def _of_csv(path: Path) -> tuple[tuple[str, ...], Iterator[_Row]]:
    lines = csv_lines(path)
    header = next(lines, None)
    if header is None:
        raise OptionError(f"{path} is empty", hint="The first line must name the columns.")
    encoded = json.JSONEncoder(ensure_ascii=False).encode
    return tuple(header), _objects(header, (tuple(map(encoded, cells)) for cells in lines))


def _columns_of_json_lines(path: Path) -> tuple[str, ...]:
    """The columns that any row has, in order of first appearance: the file is read through for them."""
    named: dict[str, None] = {}

    def note(columns: Columns | None) -> tuple[str, ...]:
        named.update(dict.fromkeys(name for name in columns or () if name is not None))
        return ()

    for _ in _cut(path, note):
        pass
    return tuple(named)


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from (line for line in map(str.strip, file) if line)
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{path} is not UTF-8", hint="Convert it, for example with iconv.") from error


def _cut(path: Path, choose: Choose) -> Iterator[_Row]:
    number, lines = 0, _lines(path)
    while chunk := list(islice(lines, _CHUNK_ROWS)):
        try:
            for line, (_, cells) in zip(chunk, cut(chunk, choose), strict=True):
                number += 1
                yield _Row(cells, line)
        except ValueError:
            raise _no_object(path, number + 1) from None


def _no_object(path: Path, number: int) -> OptionError:
    return OptionError(
        f"row {number} of {path} is not a JSON object", hint="Each line is one row: {" + '"id": 1, "review": "…"}'
    )


def _of_parquet(path: Path) -> tuple[tuple[str, ...], Iterator[_Row]]:
    parquet = import_parquet()
    try:
        file = parquet.ParquetFile(path)
    except OSError as error:  # as pyarrow's own errors are
        raise OptionError(f"cannot read {path}: it is not there, or no Parquet file") from error
    columns = tuple(file.schema_arrow.names)

    def rows() -> Iterator[Cells]:
        with file:
            for batch in file.iter_batches(_CHUNK_ROWS):
                for row in iterate(batch):
                    yield tuple([encode(row[name], name) for name in columns])

    return columns, _objects(columns, rows())


def import_parquet() -> Any:  # noqa: ANN401 - it need not be installed
    """The module pyarrow.parquet.

    Raises:
        OptionError: It is not installed.
    """
    try:
        from pyarrow import parquet  # noqa: PLC0415 - optional
    except ImportError as error:
        raise OptionError("Parquet files need pyarrow", hint="pip install pyarrow") from error
    return parquet

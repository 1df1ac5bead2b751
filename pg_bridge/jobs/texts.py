"""Rows of a Python program as the JSON texts that `asking` takes, as PostgreSQL's `row_to_json` would print them.

In: mappings, a pandas DataFrame, or an Arrow table, batch or stream of batches; neither library is imported here. Out:
the names of the columns, and the text of each row. No value ever enters an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain, islice
from typing import Any, Protocol, cast, runtime_checkable
from uuid import UUID

from pg_bridge.errors import OptionError

LOOKED_AT_ROWS = 1024  # by which the columns are known: a row may lack some of those that others have
_FRAME_ROWS = 1024

Row = Mapping[str, object]
"""Column name to value."""


@runtime_checkable
class DataFrame(Protocol):
    """A pandas DataFrame, as far as it is read here."""

    @property
    def iloc(self) -> Any:  # noqa: ANN401 - pandas has no types where it is not installed
        """Rows by position."""

    def itertuples(self, index: bool = ..., name: str | None = ...) -> Iterable[tuple[object, ...]]:
        """Its rows."""


@runtime_checkable
class ArrowTable(Protocol):
    """An Arrow table or a reader of record batches, as far as they are read here."""

    @property
    def schema(self) -> Any:  # noqa: ANN401 - as above
        """Its columns."""

    def to_batches(self) -> Iterable[ArrowBatch]:
        """Its parts."""


@runtime_checkable
class ArrowBatch(Protocol):
    """An Arrow record batch, as far as it is read here."""

    @property
    def schema(self) -> Any:  # noqa: ANN401 - as above
        """Its columns."""

    def to_pylist(self) -> list[dict[str, Any]]:
        """Its rows."""

    def slice(self, offset: int = ..., length: int | None = ...) -> ArrowBatch:
        """Some of its rows."""


Rows = Iterable[Row] | DataFrame | ArrowTable | ArrowBatch
"""What can be asked about."""


def iterate(rows: Rows) -> Iterator[Row]:
    """Go through rows, whatever holds them; a missing value of pandas is None.

    Raises:
        OptionError: They are not rows.
    """
    if isinstance(rows, Mapping | str | bytes):
        raise OptionError("the rows are not an iterable of mappings", hint="Pass [row] for a single row.")
    if isinstance(rows, DataFrame):
        return _of_frame(rows)
    if isinstance(rows, ArrowBatch):  # a table has this, too
        return _of_batches(rows.to_batches() if isinstance(rows, ArrowTable) else [rows])
    if hasattr(rows, "read_next_batch"):  # a stream of batches
        return _of_batches(cast("Iterable[ArrowBatch]", rows))
    return iter(cast("Iterable[Row]", rows))


def _of_frame(frame: DataFrame) -> Iterator[Row]:
    total = len(cast("Sequence[object]", frame))
    for start in range(0, total, _FRAME_ROWS):
        part = frame.iloc[start : start + _FRAME_ROWS]
        part = part.astype(object).where(part.notna(), None)
        names = [str(name) for name in part.columns]
        for cells in part.itertuples(index=False, name=None):
            yield dict(zip(names, cells, strict=True))


def _of_batches(batches: Iterable[ArrowBatch]) -> Iterator[Row]:
    for batch in batches:
        for start in range(0, len(cast("Sequence[object]", batch)), _FRAME_ROWS):
            yield from batch.slice(start, _FRAME_ROWS).to_pylist()


class Texts:
    """The texts of rows, a few at a time.

    Args:
        rows: The rows.

    Attributes:
        columns: The columns of the first rows, in order of first appearance; empty if there is no row.
    """

    def __init__(self, rows: Iterator[Row]) -> None:
        first = list(islice(rows, LOOKED_AT_ROWS))
        for number, row in enumerate(first):
            _check(row, number)
        self.columns = tuple(dict.fromkeys(chain.from_iterable(first)))
        for name in self.columns:
            if not isinstance(name, str):
                raise OptionError("the name of a column is not a text", hint="Rename it, or make it a str.")
        self.is_empty = not first
        self._rows = chain(first, rows)
        self._number = 0
        self._sent: tuple[str, ...] | None = None
        self._labels: list[tuple[str, str]] = []

    def send(self, columns: Sequence[str]) -> None:
        """Say which columns the texts shall hold."""
        self._sent = tuple(columns)
        self._labels = [(name, json.dumps(name, ensure_ascii=False) + ": ") for name in columns]

    def fetch(self, count: int) -> list[str | None]:
        """The texts of at most so many more rows; fewer at the end only.

        Raises:
            OptionError: A row is no mapping, has a column that the first rows lack though all are to be sent, or a
                value that JSON has not.
        """
        known = set(self.columns) if self._sent == self.columns else None
        texts: list[str | None] = []
        for row in islice(self._rows, count):
            if self._number >= LOOKED_AT_ROWS:
                _check(row, self._number)
                if known is not None and not row.keys() <= known:
                    raise OptionError(
                        f"row {self._number} has a column that none of the first {LOOKED_AT_ROWS} rows has",
                        hint="Name in the prompt what is to be sent, as {column}.",
                    )
            texts.append("{" + ", ".join([label + encode(row.get(name), name) for name, label in self._labels]) + "}")
            self._number += 1
        return texts


def _check(row: object, number: int) -> None:
    if not isinstance(row, Mapping):
        raise OptionError(
            f"row {number} is no mapping but of type {type(row).__name__}",
            hint="Each row is a mapping of column names to values, such as a dict.",
        )


def encode(value: object, column: str) -> str:
    """A value as JSON text: numbers as they are written, times by ISO 8601, NaN and infinity as PostgreSQL has them.

    Args:
        value: The value.
        column: Whose it is, for the error.

    Raises:
        OptionError: JSON has no such value.

    >>> [encode(value, "a") for value in ("é", 1, 1.5, None, True, Decimal("12.50"), [1, Decimal("2.0")])]
    ['"é"', '1', '1.5', 'null', 'true', '12.50', '[1, 2.0]']
    >>> [encode(value, "a") for value in (date(2024, 2, 29), float("nan"), {"b": UUID(int=1)})]
    ['"2024-02-29"', '"NaN"', '{"b": "00000000-0000-0000-0000-000000000001"}']
    """
    encoder = _ENCODERS.get(type(value))
    try:
        return encoder(value) if encoder is not None else _encode_other(value, column)
    except RecursionError:
        raise OptionError(f'a value of column "{column}" is nested too deeply') from None


def _encode_other(value: object, column: str) -> str:
    if isinstance(value, Mapping):
        members = (f"{_text(str(name))}: {encode(of_name, column)}" for name, of_name in value.items())
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        return "[" + ", ".join([encode(item, column) for item in value]) + "]"
    for kind, encoder in _ENCODERS.items():
        if isinstance(value, kind):
            return encoder(value)
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):  # a number, or an array
        array: Any = value
        plain = array.tolist()
        if array.dtype.kind == "M" and isinstance(plain, int | list):  # of nanoseconds it makes numbers
            plain = array.astype("datetime64[us]").tolist()
        return encode(plain, column)
    raise OptionError(
        f'column "{column}" has a value of type {type(value).__name__}, which cannot be put into a prompt',
        hint="Make it a text, a number, or a list or dict of these.",
    )


_text = json.JSONEncoder(ensure_ascii=False).encode


def _decimal(value: Any) -> str:  # noqa: ANN401 - of the type it stands beside
    if not value.is_finite():
        return _float(float(str(value).replace("s", "")))
    text = str(value)
    return text if "E" not in text else format(value, "f")


def _float(value: Any) -> str:  # noqa: ANN401 - as above
    if math.isfinite(value):
        return float.__repr__(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _iso(value: Any) -> str:  # noqa: ANN401 - as above
    return f'"{value.isoformat()}"'


_ENCODERS: dict[type, Callable[[Any], str]] = {
    str: _text,
    bool: lambda value: "true" if value else "false",
    int: int.__repr__,
    float: _float,
    type(None): lambda _: "null",
    Decimal: _decimal,
    datetime: _iso,
    date: _iso,
    time: _iso,
    UUID: lambda value: f'"{value}"',
}

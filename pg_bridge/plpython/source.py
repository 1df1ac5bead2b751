"""The source of a foreign table on the PL/Python host: queries of the caller's own transaction, by the native module.

In: SQL with parameters. Out: rows as text. The module knows which source is meant, for it has called; it reads it with
the rights that count for the table, in the snapshot of the statement that scans. What stands here runs as the role that
reads the table, and only asks the system catalogs itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pg_bridge.errors import SourceError
from pg_bridge.foreign.source import Rows, SourceRow
from pg_bridge.plpython.spi import run_prepared, sqlstate_of

_TABLE = "SELECT llm._source_table($1) AS found"
_COLUMNS = "SELECT llm._source_columns($1) AS found"
_SIZE = "SELECT llm._source_size($1, $2) AS found"
_ROWS = "SELECT llm._source_rows($1, $2, $3) AS found"


class PlpySource:
    """The database that the backend is connected to.

    Args:
        plpy: PL/Python's module.
    """

    sees = (
        "Names without a schema are looked up in the schema of the role that reads the source, then in public; others "
        "need theirs."
    )

    def __init__(self, plpy: Any) -> None:
        self._plpy = plpy

    def catalog(self, sql: str, parameters: Sequence[str] = ()) -> list[SourceRow]:
        """All rows of a query with `$1`, `$2`, … in it; its columns must have distinct names."""
        with self._reading():
            result = run_prepared(self._plpy, sql, ["text"] * len(parameters), parameters)
            return [tuple(map(_text, row.values())) for row in result]

    def table(self, name: str) -> str | None:
        """A table's name as the source's queries are to have it; None if there is none."""
        found: str | None = self._found(_TABLE, ["text"], [name])
        return found

    def columns(self, sql: str) -> list[tuple[str, int, int]]:
        """The columns of a query, without running it: (name, oid of the type, type modifier)."""
        return [(name, int(oid), int(typmod)) for name, oid, typmod in self._found(_COLUMNS, ["text"], [sql])]

    def size(self, sql: str, parameters: Sequence[str]) -> tuple[int, int]:
        """What the planner expects of a query, without running it: (rows, bytes a row)."""
        rows, width = self._found(_SIZE, ["text", "text[]"], [sql, list(parameters)])
        return int(rows), int(width)

    @contextmanager
    def rows(self, sql: str, parameters: Sequence[str] = ()) -> Iterator[Rows]:
        """Run a query; its rows are there until the native module ends it."""
        yield _SourceRows(self, sql, parameters)

    def fetch(self, wanted: int, sql: str | None, parameters: Sequence[str] | None) -> list[SourceRow]:
        """At most so many more rows of the query, which SQL that is not None starts; none at the end."""
        given = None if parameters is None else list(parameters)
        rows: list[SourceRow] = self._found(_ROWS, ["integer", "text", "text[]"], [wanted, sql, given])
        return rows

    def _found(self, sql: str, types: list[str], parameters: Sequence[Any]) -> Any:
        with self._reading():
            return run_prepared(self._plpy, sql, types, parameters)[0]["found"]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except self._plpy.SPIError as error:
            sqlstate = sqlstate_of(error)
            if sqlstate.startswith("57"):  # a cancel or a timeout, in PostgreSQL's own words
                raise
            detail, hint = getattr(error, "spidata", (0, None, None))[1:3]
            raise SourceError(
                f"reading the source: {error}", sqlstate=sqlstate, detail=detail or "", hint=hint or ""
            ) from None


class _SourceRows:
    """The rows of the one query that a scan runs, which the first fetch starts."""

    def __init__(self, source: PlpySource, sql: str, parameters: Sequence[str]) -> None:
        self._source = source
        self._unopened: tuple[str, Sequence[str]] | None = (sql, parameters)

    def fetch(self, count: int) -> list[SourceRow]:
        """At most so many more rows; fewer at the end."""
        rows: list[SourceRow] = []
        while len(rows) < count:
            sql, parameters = self._unopened or (None, None)
            self._unopened = None
            fetched = self._source.fetch(count - len(rows), sql, parameters)
            if not fetched:
                break
            rows += fetched
        return rows


def _text(value: Any) -> str | None:
    """What PostgreSQL prints for a value that PL/Python has converted; of the types that pg_bridge asks for."""
    if isinstance(value, bool):
        return "t" if value else "f"
    return None if value is None else str(value)

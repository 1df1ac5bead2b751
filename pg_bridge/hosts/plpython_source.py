"""The source of a foreign table on the PL/Python host: queries of the caller's own transaction, through `plpy`.

In: SQL with parameters. Out: rows as text. All is read with the rights of the role that is current. The rows of a scan
come from a cursor that the native module keeps, in the snapshot of the statement that scans; Python knows its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pg_bridge.errors import SourceError
from pg_bridge.foreign.source import Cells, Rows
from pg_bridge.hosts.plpython import sqlstate_of

_ROWS = "SELECT llm._source_rows($1, $2, $3, $4) AS rows"
_COLUMNS = "SELECT llm._source_columns($1) AS columns"

_PLANS: dict[str, Any] = {}  # of the session


class PlpySource:
    """The database that the backend is connected to.

    Args:
        plpy: PL/Python's module.
        cursor: The name of the one cursor that may be opened, which the native module closes.
    """

    sees = (
        "Names without a schema are looked up in the schema of the role that reads, then in public; others need theirs."
    )

    def __init__(self, plpy: Any, cursor: str = "") -> None:
        self._plpy = plpy
        self._cursor = cursor

    def query(self, sql: str, parameters: Sequence[str] = ()) -> list[Cells]:
        """All rows of a query with `$1`, `$2`, … in it; its columns must have distinct names."""
        with self._reading():
            result = self._execute(sql, ["text"] * len(parameters), parameters)
            return [tuple(map(_text, row.values())) for row in result]

    def columns(self, sql: str) -> list[tuple[str, int, int]]:
        """The columns of a query, without running it: (name, oid of the type, type modifier)."""
        with self._reading():
            found = self._execute(_COLUMNS, ["text"], [sql])[0]["columns"]
        return [(name, int(oid), int(typmod)) for name, oid, typmod in found]

    @contextmanager
    def rows(self, sql: str, parameters: Sequence[str] = ()) -> Iterator[Rows]:
        """Run a query; its rows are there until the native module closes the cursor."""
        yield _Fetched(self, sql, parameters)

    def fetched(self, wanted: int, sql: str | None, parameters: Sequence[str] | None) -> list[Cells]:
        """At most so many more rows of the cursor, which SQL that is not None opens; none at the end."""
        with self._reading():
            types = ["text", "integer", "text", "text[]"]
            given = None if parameters is None else list(parameters)
            rows: list[Cells] = self._execute(_ROWS, types, [self._cursor, wanted, sql, given])[0]["rows"]
            return rows

    def _execute(self, sql: str, types: list[str], parameters: Sequence[Any]) -> Any:
        plan = _PLANS.get(sql)
        if plan is None:
            plan = self._plpy.prepare(sql, types)
            if not sql.startswith("EXPLAIN"):  # of the others there are few, and always the same
                _PLANS[sql] = plan
        return self._plpy.execute(plan, list(parameters))

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


class _Fetched:
    """The rows of the cursor, which the first fetch opens."""

    def __init__(self, source: PlpySource, sql: str, parameters: Sequence[str]) -> None:
        self._source = source
        self._unopened: tuple[str, Sequence[str]] | None = (sql, parameters)

    def fetch(self, count: int) -> list[Cells]:
        """At most so many more rows; fewer at the end."""
        rows: list[Cells] = []
        while len(rows) < count:
            sql, parameters = self._unopened or (None, None)
            self._unopened = None
            fetched = self._source.fetched(count - len(rows), sql, parameters)
            if not fetched:
                break
            rows += fetched
        return rows


def _text(value: Any) -> str | None:
    """What PostgreSQL prints for a value that PL/Python has converted; of the types that pg_bridge asks for."""
    if isinstance(value, bool):
        return "t" if value else "f"
    return None if value is None else str(value)

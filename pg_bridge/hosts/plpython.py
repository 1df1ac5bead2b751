"""The PL/Python host: `llm.map` and `llm.complete` as PL/Python functions.

In: `plpy`, the module that PL/Python gives to a function, and SQL arguments. Out: rows for PostgreSQL. The query runs
through `plpy`, so it has the caller's rights, transaction and snapshot. Errors leave as fault rows, which SQL
raises: an exception that leaves a PL/Python iterator loses its message.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from pg_bridge import __version__
from pg_bridge.errors import Cancelled
from pg_bridge.hosts.interrupts import Interrupts
from pg_bridge.hosts.session import SESSION, fault, fault_of, one_row, start_run
from pg_bridge.options import Call, Server

ResultRow = tuple[int | None, str | None, str | None, str | None]
CompleteRow = tuple[str | None, str | None, str | None]


def connect(plpy: Any, role: str) -> None:
    """Put the servers that a role may use into the session; the body of `llm._connect`."""
    SESSION.forget(role)
    plan = plpy.prepare("SELECT server, usable, options::text FROM llm._servers($1)", ["name"])
    for row in plan.execute([role]):
        SESSION.connect(role, row["server"], usable=row["usable"], options=row["options"])


def map_rows(plpy: Any, query: str, columns: list[str], prompt: str | None, options: str) -> Iterator[ResultRow]:
    """Ask a prompt about each row of a query; the body of `llm._map`.

    Yields:
        (row_id, input, output, error). A row whose row_id is None is a fault, and the last.
    """
    try:
        call = Call.from_arguments(json.loads(options))
        for answer in start_run(
            _Rows(plpy, query).fetch, columns, prompt, call, _server(plpy, call), Interrupts().check
        ):
            yield answer.row_id, answer.input, answer.output, answer.error
    except Exception as error:
        yield None, None, None, _fault(plpy, error)


def complete(plpy: Any, prompt: str | None, row: str | None, options: str) -> list[CompleteRow]:
    """Ask a prompt about one row; the body of `llm._complete`.

    Returns:
        One (output, error, fault).
    """
    try:
        call = Call.from_arguments(json.loads(options))
        run = start_run(*one_row(prompt, row), prompt, call, _server(plpy, call), Interrupts().check)
        return [(answer.output, answer.error, None) for answer in run]
    except Exception as error:
        return [(None, None, _fault(plpy, error))]


def session_state() -> list[tuple[str, str | None]]:
    """The body of `llm._session`: (package version, latest run as JSON)."""
    return [(__version__, SESSION.last_run_json())]


def _server(plpy: Any, call: Call) -> Server:
    role = plpy.execute("SELECT current_user AS role, llm._connect(current_user)")[0]["role"]
    return SESSION.server(role, call.server)


class _Rows:
    """The query's rows as JSON text. The query starts at the first fetch, and runs with the caller's rights.

    A cursor of SQL, not a `plpy.cursor`: when the statement fails elsewhere, PostgreSQL frees a suspended generator
    while it walks its list of cursors, and a `plpy.cursor` freed with it would drop its own from that list under
    PostgreSQL's feet, which crashes the server. Python holds only the name of this one; its transaction ends it.
    """

    _numbers = count(1)

    def __init__(self, plpy: Any, query: str) -> None:
        self._plpy = plpy
        self._name = f"pg_bridge_{next(self._numbers)}"
        # The line end closes a trailing comment.
        self._query = f"SELECT pg_catalog.row_to_json(pg_bridge_row) AS row FROM ({query}\n) AS pg_bridge_row"  # noqa: S608
        self._is_open = False

    def fetch(self, wanted: int) -> list[str | None]:
        """At most so many more rows; the cursor closes at the end of them."""
        if not self._is_open:
            self._plpy.execute(f"DECLARE {self._name} NO SCROLL CURSOR FOR {self._query}")
            self._is_open = True
        rows = [row["row"] for row in self._plpy.execute(f"FETCH {wanted} FROM {self._name}")]
        if len(rows) < wanted:
            self._plpy.execute(f"CLOSE {self._name}")
        return rows


def _fault(plpy: Any, error: Exception) -> str:
    if isinstance(error, Cancelled):
        try:
            plpy.execute("SELECT 1")  # PostgreSQL acts on the pending cancel here, in its own words
        except plpy.SPIError as own:
            error = own
    if isinstance(error, plpy.SPIError):
        sqlstate, detail, hint = getattr(error, "spidata", (0, None, None))[:3]
        return fault(_sqlstate(sqlstate) or "XX000", str(error), detail, hint)
    return fault_of(error)


def _sqlstate(packed: int) -> str:
    """Unpack PostgreSQL's MAKE_SQLSTATE: five characters of six bits each."""
    return "".join(chr((packed >> 6 * i & 0x3F) + ord("0")) for i in range(5)) if packed else ""

"""What goes through `plpy`: statements that are run often, the rows of a cursor, and PostgreSQL's own errors.

In: `plpy`, the module that PL/Python gives to a function. Out: its results, rows as JSON text, a `Fault`. No object of
PostgreSQL's stays with Python but plans that the session keeps.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pg_bridge.backend import postgres
from pg_bridge.backend.faults import Fault, describe_error
from pg_bridge.backend.rowsets import RowSet
from pg_bridge.errors import Cancelled

# What PL/Python puts before an error of a PL/Python function that SQL has called.
_NESTED = re.compile(r"^(spiexceptions\.\w+: )+")
_FETCH = "SELECT f AS row FROM llm._fetch($1, $2) AS f"

_PLANS: dict[str, Any] = {}  # of the session; there are few, and always the same


def run_prepared(plpy: Any, sql: str, types: list[str], parameters: Sequence[Any]) -> Any:
    """Run a statement that is run often; it is prepared once a session."""
    plan = _PLANS.get(sql)
    if plan is None:
        plan = _PLANS[sql] = plpy.prepare(sql, types)
    return plpy.execute(plan, list(parameters))


class QueryRows:
    """A cursor's rows as JSON text; they are read with the caller's rights.

    It is a cursor of SQL, not a `plpy.cursor`: when the statement fails elsewhere, PostgreSQL frees a suspended
    generator while it walks its list of cursors, and a `plpy.cursor` freed with it would drop its own from that list
    under PostgreSQL's feet, which crashes the server. Python holds only the name of this one; its transaction ends it.

    Any code of the session can see such a cursor and fetch from it. That is nothing new to who reads his own rows. But
    a SECURITY DEFINER function reads rows that its caller may not see, and the caller's code may run between two of
    them: so all rows of it are read before the first one is handed out.
    """

    _at_once = 1000  # more would not fit into work_mem, and go through a file

    def __init__(self, plpy: Any, cursor: str) -> None:
        self._plpy = plpy
        self._cursor = cursor
        self._is_begun = self._is_closed = False
        self._all: RowSet | None = None
        self._position = 0

    def fetch(self, wanted: int) -> list[str | None]:
        """At most so many more rows; the cursor closes at the end of them."""
        if not self._is_begun and postgres.rights_are_lent():
            self._all = RowSet()
            while rows := self._fetch(self._at_once):
                self._all.extend(rows)
        self._is_begun = True
        if self._all is None:
            return self._fetch(wanted)
        rows = self._all.fetch(self._position, wanted)
        self._position += len(rows)
        return rows

    def _fetch(self, wanted: int) -> list[str | None]:
        rows: list[str | None] = []
        while len(rows) < wanted and not self._is_closed:
            some = min(wanted - len(rows), self._at_once)
            fetched = run_prepared(
                self._plpy, _FETCH, ["pg_catalog.refcursor", "pg_catalog.int4"], [self._cursor, some]
            )
            rows += [row["row"] for row in fetched]
            if len(fetched) < some:
                self._plpy.execute(f"CLOSE {self._plpy.quote_ident(self._cursor)}")
                self._is_closed = True
        return rows


def describe_failure(plpy: Any, error: Exception) -> Fault:
    """Any error as data, PostgreSQL's own included."""
    if isinstance(error, Cancelled):
        try:
            plpy.execute("SELECT 1")  # PostgreSQL acts on the pending cancel here, in its own words
        except plpy.SPIError as own:
            error = own
    if isinstance(error, plpy.SPIError):
        detail, hint = getattr(error, "spidata", (0, None, None))[1:3]
        return Fault(sqlstate_of(error) or "XX000", _NESTED.sub("", str(error)), detail or "", hint or "")
    return describe_error(error)


def sqlstate_of(error: Any) -> str:
    """The SQLSTATE of an error of `plpy`; empty where it has none."""
    return _sqlstate(getattr(error, "spidata", (0,))[0])


def _sqlstate(packed: int) -> str:
    """Unpack PostgreSQL's MAKE_SQLSTATE: five characters of six bits each."""
    return "".join(chr((packed >> 6 * i & 0x3F) + ord("0")) for i in range(5)) if packed else ""

"""Connections back to the database, over which Multicorn's foreign tables read their source.

In: a `Login`, the role that the query runs as, SQL. Out: rows as text. A connection is read-only, belongs to the role
of the user mapping and is kept for the session. All scans that are open at one time share one transaction and one
snapshot; with the last of them it ends. The wait for rows is done in short turns, so that a cancel is seen.
"""

from __future__ import annotations

import json
import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import psycopg
from psycopg import RawCursor
from psycopg.adapt import AdaptersMap
from psycopg.pq import TransactionStatus
from psycopg.types.string import StrDumperUnknown, TextLoader
from psycopg.waiting import Ready, Wait

from pg_bridge.backend import postgres
from pg_bridge.backend.interrupts import Interrupts
from pg_bridge.errors import SourceDenied, SourceError
from pg_bridge.foreign.source import DEEPEST, Rows, SourceRow, too_deep
from pg_bridge.options import Login

CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_S = 3

_TURN_S = 0.02
_EVENTS = {Wait.R: select.POLLIN, Wait.W: select.POLLOUT, Wait.RW: select.POLLIN | select.POLLOUT}
_APPLICATION = "pg_bridge source "
_OWN_TRANSACTION = (
    "The foreign table reads its source over a connection of its own, which waits for no lock longer than "
    f"{LOCK_TIMEOUT_S} seconds: this transaction may hold it itself. Commit first, or take llm.map or llm.complete."
)


def _make_adapters() -> AdaptersMap:
    """Texts go in as literals of no type, and every value comes back as PostgreSQL prints it."""
    adapters = AdaptersMap()
    adapters.register_dumper(str, StrDumperUnknown)
    adapters.register_loader(0, TextLoader)
    return adapters


class _Context:
    """Hands the adapters to a new connection."""

    adapters = _make_adapters()
    connection = None


def _never() -> None:
    """No interrupts."""


class _Connection(psycopg.Connection[Any]):
    """Waits in short turns and looks for interrupts between them."""

    check_interrupts: Callable[[], None] = staticmethod(_never)

    def wait(self, gen: Any, interval: float = _TURN_S, timeout: float | None = None) -> Any:
        """Run one of psycopg's generators to its end."""
        poll = select.poll()
        try:
            wanted = next(gen)
            while True:
                poll.register(self.pgconn.socket, _EVENTS[wanted])
                ready = 0
                for _, event in poll.poll(1000 * _TURN_S):
                    ready |= (Ready.R if event & ~select.POLLOUT else 0) | (Ready.W if event & select.POLLOUT else 0)
                if not ready:
                    self.check_interrupts()
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


_SOURCES: dict[Login, SessionSource] = {}


def source_of(login: Login) -> SessionSource:
    """The session's source for a login, with its connection if there is one."""
    if login not in _SOURCES:
        _SOURCES[login] = SessionSource(login)
    return _SOURCES[login]


class SessionSource:
    """One role's connection, opened at the first need and kept.

    Args:
        login: Where and as whom.
    """

    sees = (
        "The foreign table reads it over a connection of its own, which sees committed tables only; write its schema "
        "too. For what this transaction made itself, take llm.map or llm.complete."
    )

    _cursors = count(1)

    def __init__(self, login: Login) -> None:
        self._login = login
        self._connection: _Connection | None = None
        self._open = 0

    def catalog(self, sql: str, parameters: Sequence[str] = ()) -> list[SourceRow]:
        """All rows of a query with `$1`, `$2`, … in it."""
        with self._transaction() as connection, RawCursor(connection) as cursor:
            return cursor.execute(sql, parameters).fetchall()

    def table(self, name: str) -> str | None:
        """A table's name as the source's queries are to have it; None if there is none."""
        return self.catalog("SELECT pg_catalog.to_regclass($1)::pg_catalog.text", [name])[0][0]

    def size(self, sql: str, parameters: Sequence[str]) -> tuple[int, int]:
        """What the planner expects of a query, without running it: (rows, bytes a row)."""
        explained = self.catalog(f"EXPLAIN (FORMAT JSON) {sql}", parameters)
        plan = json.loads("\n".join(line[0] or "" for line in explained))[0]["Plan"]
        return int(plan["Plan Rows"]), int(plan["Plan Width"])

    def columns(self, sql: str) -> list[tuple[str, int, int]]:
        """The columns of a query, without running it: (name, oid of the type, type modifier)."""
        with self._transaction() as connection, RawCursor(connection) as cursor:
            cursor.execute(f"{sql} LIMIT 0")
            result = cursor.pgresult
            if result is None:
                return []
            names = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
            return [(name, result.ftype(i), result.fmod(i)) for i, name in enumerate(names)]

    @contextmanager
    def rows(self, sql: str, parameters: Sequence[str] = ()) -> Iterator[Rows]:
        """Run a query; its rows are there until the context ends."""
        with self._transaction() as connection:
            rows = _CursorRows(RawCursor(connection), f"pg_bridge_{next(self._cursors)}")
            rows.start(sql, parameters)
            try:
                yield rows
            finally:
                rows.close()

    @contextmanager
    def _transaction(self) -> Iterator[_Connection]:
        """A connection inside a read-only transaction, which the last user of it ends."""
        try:
            connection = self._begin()
            self._open += 1
            try:
                yield connection
            finally:
                self._open -= 1
                self._end(connection)
        except psycopg.Error as error:
            raise _source_error(error) from None

    def _begin(self) -> _Connection:
        if self._connection is None or self._connection.closed:
            self._connection, self._open = _connect(self._login), 0
            self._connection.check_interrupts = Interrupts().check
        if not self._open:
            zone = postgres.setting("TimeZone").replace("'", "''")
            self._connection.execute(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
                f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'; SET LOCAL TimeZone = '{zone}'; "
                "SET LOCAL DateStyle = ISO; SET LOCAL IntervalStyle = iso_8601; SET LOCAL extra_float_digits = 1; "
                "SET LOCAL bytea_output = hex"
            )
        return self._connection

    def _end(self, connection: _Connection) -> None:
        """End the transaction with its last user; a connection that is in the middle of something is closed."""
        if connection.closed:
            return
        status = connection.pgconn.transaction_status
        if status not in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            if status == TransactionStatus.ACTIVE:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=1)
            connection.close()
        elif not self._open:
            check_interrupts, connection.check_interrupts = connection.check_interrupts, _never
            try:
                connection.execute("ROLLBACK")
            finally:
                connection.check_interrupts = check_interrupts


class _CursorRows:
    """The rows of a cursor of the source."""

    def __init__(self, cursor: RawCursor[Any], name: str) -> None:
        self._cursor = cursor
        self._name = name

    def start(self, sql: str, parameters: Sequence[str]) -> None:
        self._cursor.execute(f"DECLARE {self._name} NO SCROLL CURSOR FOR {sql}", parameters)

    def fetch(self, count: int) -> list[SourceRow]:
        """At most so many more rows; fewer at the end."""
        try:
            return self._cursor.execute(f"FETCH {count} FROM {self._name}").fetchall()
        except psycopg.Error as error:
            raise _source_error(error) from None

    def close(self) -> None:
        """Close the cursor, where others may be open; else its transaction ends it."""
        if self._cursor.connection.pgconn.transaction_status == TransactionStatus.INTRANS:
            with suppress(psycopg.Error):
                self._cursor.execute(f"CLOSE {self._name}")
        self._cursor.close()


def _connect(login: Login) -> _Connection:
    """Connect, and make sure of as whom."""
    role = postgres.current_role()
    if login.user is None:
        raise SourceDenied(
            f'the user mapping of "{role}" names no user that reads the source',
            hint="CREATE or ALTER USER MAPPING … OPTIONS (user '…', password '…'): they are read as that role.",
        )
    depth = postgres.setting("application_name").removeprefix(_APPLICATION)
    level = int(depth) + 1 if depth.isdigit() else 1
    if level > DEEPEST:
        raise too_deep()
    try:
        connection = _Connection.connect(
            host=login.host or postgres.setting("unix_socket_directories").split(",")[0].strip() or "localhost",
            port=login.port or int(postgres.setting("port")),
            dbname=postgres.database(),
            user=login.user,
            password=login.password or "",
            passfile="/nonexistent",  # no password of the server's own user
            context=_Context(),
            prepare_threshold=None,
            application_name=f"{_APPLICATION}{level}",
            connect_timeout=CONNECT_TIMEOUT_S,
            client_encoding="utf8",
            autocommit=True,
        )
    except psycopg.Error as error:
        raise _source_error(error) from None
    needed_password = connection.pgconn.used_password
    source_is_superuser = connection.info.parameter_status("is_superuser") == "on"
    if login.password_required and not needed_password and not postgres.is_superuser():
        connection.close()
        raise SourceDenied(
            "the connection to the source did not need a password",
            hint="Whoever may use the server could then read as any role. Have it authenticated by password, or let a "
            "superuser set password_required 'false' in the user mapping.",
        )
    if source_is_superuser and not postgres.is_superuser():
        connection.close()
        raise SourceDenied(
            f'the user mapping of "{role}" leads to a superuser',
            hint="Name a role that may read the source and no more.",
        )
    return connection


def _source_error(error: psycopg.Error) -> SourceError:
    """PostgreSQL's own words of what failed; a connection's error may not quote the password, and libpq never does."""
    sqlstate, text = error.sqlstate, error.diag.message_primary
    if text is None:
        text = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        if isinstance(error, psycopg.OperationalError):
            return SourceDenied(
                f"cannot connect to the source: {text}",
                sqlstate="28000" if "authentication" in text or "password" in text else "08001",
                hint="Look at user and password in the user mapping, and at host and port of the server.",
            )
    hint = _OWN_TRANSACTION if sqlstate == "55P03" else error.diag.message_hint or ""
    return SourceError(
        f"reading the source: {text}", sqlstate=sqlstate, detail=error.diag.message_detail or "", hint=hint
    )

"""A job's connection to PostgreSQL, made anew when it is lost.

In: a connection string; pieces of work that may be done twice. Out: what they return. Every statement is a transaction
of its own unless the work says otherwise, and none is open between two pieces of work. Errors are PostgreSQL's own
words; a connection string, which may hold a password, stands in none.
"""

from __future__ import annotations

import codecs
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import RawCursor, sql  # from 3.2 on
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pg_bridge.errors import DatabaseGone, JobError, NotPermitted, OptionError

T = TypeVar("T")

Connection = psycopg.Connection[tuple[Any, ...]]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
WAITED_FOR_LOCK = "4s"  # of somebody else's; then the work is done again, so that no transaction takes longer
_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "30",  # a network that is cut says nothing
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
# So that a server, too, notices a client that is gone, and with it the lock that it holds.
_SETTINGS = (
    "SET tcp_keepalives_idle = 30",
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 3",
    f"SET lock_timeout = '{WAITED_FOR_LOCK}'",
    # Keys go out and come back as texts, so each text is to be that of one value.
    "SET datestyle = ISO",
    "SELECT pg_catalog.set_config('extra_float_digits', '1', false) "
    "WHERE pg_catalog.current_setting('extra_float_digits')::int OPERATOR(pg_catalog.<) 1",
    # A server that crashes has what was committed before: this process lives on, and asks no more about it.
    "SELECT pg_catalog.set_config('synchronous_commit', 'on', false) "
    "WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'",
)
_PASSING = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)
_MOST_PASSING = 10  # times that the same work met with one of these


@dataclass(frozen=True, slots=True)
class Session:
    """What a connection is, besides where it leads.

    Attributes:
        application: Its name, as pg_stat_activity shows it.
        role: Whose rights it has; None for those of who logs in.
        search_path: As for SET; None for the role's own.
    """

    application: str = "pg-bridge map"
    role: str | None = None
    search_path: str | None = None


class Database:
    """One connection at a time.

    Args:
        dsn: As for psql; empty for libpq's defaults.
        session: What each connection is.
        patience_s: How long a lost connection is tried again.
        say: Is told what goes on.
        check: Called while it waits; raises to stop.

    Attributes:
        generation: Another number after each new connection: what a session held is gone then.
        pids: The numbers of this object's backends so far.
    """

    def __init__(
        self,
        dsn: str,
        *,
        session: Session = Session(),
        patience_s: float = 600.0,
        say: Callable[[str], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.generation = 0
        self.pids: list[int] = []
        self._session = session
        self._patience_s = patience_s
        self._say = say
        self._check = check
        self._connection: Connection | None = None
        self._reads_by: Connection | None = None  # while a statement runs there that may be cancelled
        self._is_cancelled = False
        try:
            given = conninfo_to_dict(dsn)
        except psycopg.ProgrammingError:  # its text may repeat the string
            raise OptionError(
                "the DSN cannot be read", hint="Write it as for psql: 'host=… dbname=… user=…'."
            ) from None
        own = {**_DEFAULTS, "fallback_application_name": session.application}
        defaults = {name: value for name, value in own.items() if name not in given}
        self._dsn = make_conninfo(dsn, **defaults, client_encoding="UTF8")  # a prompt may hold any character

    def connect(self) -> None:
        """Connect, at the beginning, when nobody waits for a server that was there before.

        Raises:
            DatabaseGone: There is no connection.
            NotPermitted: Who logs in may not take on the session's role.
        """
        try:
            self._open()
        except psycopg.OperationalError as error:
            raise DatabaseGone(
                f"no connection to PostgreSQL: {first_line(error)}",
                hint="Check --dsn, or PGHOST, PGDATABASE, PGUSER and PGSERVICE, and that the server runs.",
            ) from None

    def run(self, work: Callable[[Connection], T], *, reads: bool = False) -> T:
        """Do a piece of work; again from its beginning, where the connection is lost or a lock is not had meanwhile.

        Raises:
            DatabaseGone: There was no connection for as long as patience lasts.
            NotPermitted: The role may not do it.
            JobError: PostgreSQL refused it.
        """
        passing = 0
        while True:
            connection = self._connection or self._reconnect()
            self._reads_by = connection if reads else None
            try:
                return work(connection)
            except _PASSING as error:
                passing += 1
                if passing == _MOST_PASSING:
                    raise as_job_error(error) from None
                self._say(f"waiting: {first_line(error)}")
                self._pause(min(FIRST_PAUSE_S * 2**passing, LONGEST_PAUSE_S))
            except UnicodeError as error:
                raise JobError(f"a text is no UTF-8: {error}", sqlstate="22021") from None
            except psycopg.Error as error:
                if self._is_cancelled and isinstance(error, psycopg.errors.QueryCanceled):
                    self._is_cancelled = False
                    if reads:
                        self._check()
                    continue  # what is written was hit by a late cancel
                if not connection.broken and not connection.closed:
                    raise as_job_error(error) from None
                self._say(f"the connection to PostgreSQL is lost: {first_line(error)}")
                self.close()
            finally:
                self._reads_by = None

    def read(self, work: Callable[[Connection], T]) -> T:
        """As `run`, for work that `interrupt` may cancel; `check` is called then."""
        return self.run(work, reads=True)

    def interrupt(self) -> None:
        """Cancel what is being read, which may take hours, and nothing else; may be called by a signal handler."""
        if self._reads_by is not None:
            self._is_cancelled = True
            with contextlib.suppress(psycopg.Error):
                self._reads_by.cancel()

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def _open(self) -> Connection:
        connection = psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None, cursor_factory=RawCursor)
        for setting in _SETTINGS:
            with contextlib.suppress(psycopg.Error):
                connection.execute(setting.encode())
        try:
            self._become(connection)
        except psycopg.Error as error:
            connection.close()
            if isinstance(error, psycopg.OperationalError):
                raise
            raise as_job_error(error) from None
        self._connection = connection
        self.generation += 1
        self.pids.append(connection.info.backend_pid)
        return connection

    def _become(self, connection: Connection) -> None:
        role, path = self._session.role, self._session.search_path
        if role is not None:
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        if path is not None:
            connection.execute("SELECT pg_catalog.set_config('search_path', $1, false)", [path])

    def _reconnect(self) -> Connection:
        until = time.monotonic() + self._patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                connection = self._open()
            except psycopg.OperationalError as error:
                if time.monotonic() > until:
                    raise DatabaseGone(
                        f"no connection to PostgreSQL for {self._patience_s:g} s: {first_line(error)}",
                        hint="What was answered is kept: start it again, and only what is missing is asked.",
                    ) from None
            else:
                self._say("connected again")
                return connection
            self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check()
            time.sleep(min(left, 0.05))


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    lines = [line.strip() for line in str(primary or error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def as_job_error(error: psycopg.Error) -> JobError | NotPermitted:
    """An error of PostgreSQL as one of ours; its detail may hold a row, and is left out."""
    hint = error.diag.message_hint or ""
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return NotPermitted(first_line(error), hint=hint)
    return JobError(first_line(error), sqlstate=error.sqlstate, hint=hint)


def storable(connection: Connection, text: str) -> str:
    """A text as this database takes it: an engine's words may be anything, and a database's encoding not have ours."""
    of = (connection.info.parameter_status("server_encoding") or "UTF8").upper()
    try:
        encoding = codecs.lookup("UTF8" if of == "SQL_ASCII" else of.replace("WIN", "cp")).name
    except LookupError:
        encoding = "ascii"
    return text.replace("\0", "").encode(encoding, errors="replace").decode(encoding)


def identifiers(names: Sequence[str], of: str = "") -> sql.Composed:
    """Column names, parted by commas."""
    return sql.SQL(", ").join(sql.Identifier(of, name) if of else sql.Identifier(name) for name in names)

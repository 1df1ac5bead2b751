"""One SQLite file of the ledger: opened when it is first needed, done without where it cannot be had.

In: pieces of work on a connection. Out: what they return, or their default. A file that is damaged is set aside, once,
and begun anew; one that is locked, full, of a newer version or out of reach is left alone for a while. Each kind of
trouble is said once in the life of the process.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

T = TypeVar("T")

BUSY_S = 0.05  # SQLite waits so long for another process, and nothing can interrupt it
READ_WITHIN_S = 0.3  # readers wait for no writer, but for who opens the file after a crash, or closes it
OPEN_WITHIN_S = 0.3
MOST_PAUSE = 20  # times as long as that is the pause between two tries, if others have been writing again and again
PAUSE_S = 1.0  # as above, if it cannot even be read
AGAIN_S = 30.0  # after trouble that may pass, the file is tried again
LOCKED_S = 10.0  # if others have been writing for so long, somebody is told
MOST_TRIES = 3  # of one piece of work
MOST_WAL_BYTES = 16 << 20  # more of it is given back to the disk

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_FOR_WRITERS = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY}  # what is there can be read all the same
_TROUBLE = (sqlite3.Error, OSError, ValueError, OverflowError)  # the latter of values that SQLite cannot hold
_HINT = "The ledger is done without meanwhile: answers are asked for anew, and none is lost that a statement returns."


_TABLE = re.compile(r"CREATE TABLE (\w+)")
_INHERITED: list[sqlite3.Connection] = []  # by fork; never to be closed


class _Outdated(OSError):
    """The file is of an older version."""


@dataclass(slots=True)
class Warnings:
    """What is to be told to the user, at the next moment when that can be done."""

    waiting: list[tuple[str, str]] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)

    def add(self, kind: str, message: str, hint: str = _HINT) -> None:
        """Say something once a process."""
        if kind not in self._said:
            self._said.add(kind)
            self.waiting.append((message, hint))

    def take(self) -> list[tuple[str, str]]:
        """(message, hint) of each that nobody has been told."""
        taken, self.waiting[:] = list(self.waiting), []
        return taken


class Database:
    """One file. For one process and one thread.

    Args:
        path: Where it is, or will be made, with its folder.
        schema: The statements that make its tables.
        version: Of the schema; a file of another one is not touched if it is newer, and begun anew if it is older.
        warnings: Where trouble is noted.
        synchronous: SQLite's setting: NORMAL loses the last moments when the machine dies, OFF may lose the file.
        busy_s: How long SQLite waits for another process; nothing can interrupt it.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        version: int,
        warnings: Warnings,
        synchronous: Literal["NORMAL", "OFF"] = "NORMAL",
        busy_s: float = BUSY_S,
    ) -> None:
        self.path = path
        self._schema = schema
        self._version = version
        self._warnings = warnings
        self._synchronous = synchronous
        self._busy_s = busy_s
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._inode = 0
        self._not_before = 0.0
        self._read_after = self._write_after = self._full_until = self._busy_since = 0.0
        self._busy = 0  # how often it was, in a row

    def run(
        self, work: Callable[[sqlite3.Connection], T], default: T, *, within_s: float = 0.0, often: bool = False
    ) -> T:
        """Do a piece of work in one transaction that may write; the default if that cannot be.

        Args:
            work: The work; done again, if the file had to be opened anew.
            default: Returned without a file, and while others write.
            within_s: How long to try while others write; without it, once.
            often: Whether it will be tried again soon: then not each time, if others have been writing again and again.
        """
        until = time.monotonic() + within_s
        if often and until < max(self._write_after, self._full_until):
            return default
        tries = 0
        while True:
            try:
                connection = self._connect()
                if connection is None:
                    return default
                result = _transact(connection, work)
            except _TROUBLE as error:
                if _is_busy(error):
                    self._note_busy()
                    if time.monotonic() < until:
                        time.sleep(0.001)  # it may be told without having waited
                        continue
                    return default
                tries += 1
                if not self._is_mended(error, tries):
                    return default
            else:
                self._busy, self._write_after, self._full_until = 0, 0.0, 0.0
                return result

    def read(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        """Do a piece of work that only reads, however busy writers are; the default if that cannot be."""
        now = time.monotonic()
        if now < self._read_after:
            return default
        until, tries = now + READ_WITHIN_S, 0
        while True:
            try:
                connection = self._connect()
                return default if connection is None else work(connection)
            except _TROUBLE as error:
                if _is_busy(error):
                    if time.monotonic() < until:
                        time.sleep(0.001)
                        continue
                    self._read_after = time.monotonic() + PAUSE_S
                    return default
                tries += 1
                if not self._is_mended(error, tries):
                    return default

    @property
    def is_full(self) -> bool:
        """Whether it cannot be written for a while, for want of room or of rights."""
        return time.monotonic() < self._full_until

    @property
    def is_locked(self) -> bool:
        """Whether others have been writing for some time without a break."""
        return self._busy > 0 and time.monotonic() - self._busy_since > PAUSE_S

    def look(self) -> None:
        """See whether the file is still the one that is open: somebody may have removed it, or set it aside."""
        if self._connection is not None:
            try:
                is_same = self.path.stat().st_ino == self._inode
            except OSError:
                is_same = False
            if not is_same:
                self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None and self._process == os.getpid():
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _connect(self) -> sqlite3.Connection | None:
        if self._connection is not None and self._process != os.getpid():
            _INHERITED.append(self._connection)  # a child of the process that opened it may not even close it
            self._connection = None
        if self._connection is None and time.monotonic() >= self._not_before:
            self._not_before = time.monotonic() + AGAIN_S  # unless all goes well, or only others are in the way
            try:
                self._connection = self._open()
            except _TROUBLE as error:
                if _is_busy(error):
                    self._not_before = time.monotonic() + PAUSE_S
                raise
            if self._connection is not None:
                self._not_before = 0.0
        return self._connection

    def _open(self) -> sqlite3.Connection | None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._alone():
            # SQLite gives the files beside it the rights of this one. Closed before SQLite opens it: it would let go of
            # SQLite's locks, which belong to the process.
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._inode = os.fstat(fd).st_ino
            os.close(fd)
            self._process = os.getpid()
            connection = sqlite3.connect(self.path, timeout=self._busy_s, isolation_level=None)
            try:
                found = connection.execute("PRAGMA user_version").fetchone()[0]
                if found > self._version:
                    self._warnings.add(
                        "newer", f'the ledger "{self.path}" is of a newer version of pg_bridge', "Update pg_bridge."
                    )
                    connection.close()
                    return None
                if 0 < found < self._version:
                    raise _Outdated
                if found == 0:
                    self._make(connection)
                self._check(connection)
                connection.execute(f"PRAGMA synchronous = {self._synchronous}")
                connection.execute(f"PRAGMA journal_size_limit = {MOST_WAL_BYTES}")
            except BaseException:
                connection.close()
                raise
        return connection

    def _make(self, connection: sqlite3.Connection) -> None:
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() != (0,):
            raise _damaged("it holds something else")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise sqlite3.OperationalError("its file system has no shared memory for SQLite")
        connection.execute("BEGIN IMMEDIATE")
        for statement in self._statements():
            connection.execute(statement)
        connection.execute("INSERT INTO copied VALUES (?)", [self._inode])
        connection.execute(f"PRAGMA user_version = {self._version}")
        connection.execute("COMMIT")

    def _check(self, connection: sqlite3.Connection) -> None:
        """See that all tables are there; and all pages, if the file was copied since it was last opened.

        A base backup may have copied it in the middle of a write.

        Raises:
            DatabaseError: It is damaged.
        """
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not tables >= {_TABLE.match(statement)[1] for statement in self._statements()}:  # type: ignore[index]
            raise _damaged("tables are missing")
        if connection.execute("SELECT inode FROM copied").fetchone() != (self._inode,):
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise _damaged("it was copied while it was written")
            connection.execute("UPDATE copied SET inode = ?", [self._inode])

    def _statements(self) -> list[str]:
        own = (statement.strip() for statement in self._schema.split(";"))
        return [*filter(None, own), "CREATE TABLE copied (inode INTEGER)"]

    def _note_busy(self) -> None:
        """Be content with fewer tries, for each waits a while and nothing can interrupt it."""
        now = time.monotonic()
        self._busy_since = now if self._busy == 0 else self._busy_since
        self._busy += 1
        times = 2.0 ** min(self._busy - 3, 8) if self._busy > 2 else 0
        self._write_after = now + self._busy_s * min(times, MOST_PAUSE)
        if now - self._busy_since > LOCKED_S:
            self._warnings.add("locked", f'the ledger "{self.path}" has been locked by another process for a while')

    def _is_mended(self, error: Exception, tries: int) -> bool:
        """Deal with trouble; whether it is worth another try at once, after so many."""
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if code is not None else None
        if isinstance(error, _Outdated):
            return self._give_up_file() and tries < MOST_TRIES
        if primary in _DAMAGED:
            return self._give_up_file("damaged") and tries < MOST_TRIES
        if primary == sqlite3.SQLITE_ERROR and tries == 1:  # somebody has made other tables of it: opening tells
            self.close()
            self._not_before = 0.0
            return True
        if primary in _FOR_WRITERS:
            self._full_until = time.monotonic() + AGAIN_S
        elif isinstance(error, sqlite3.Error | OSError):
            self.close()
            self._not_before = time.monotonic() + AGAIN_S
        reason = str(error.strerror if isinstance(error, OSError) else error)
        self._warnings.add(f"trouble {primary}", f'the ledger "{self.path}" cannot be used: {reason}')
        return False

    def _give_up_file(self, end: str = "") -> bool:
        """Rename a file, unless another process has, or remove it; of those that are renamed the latest is kept.

        The connection is closed afterwards: until then no other file gets its inode.
        """
        try:
            with self._alone():
                is_ours = self.path.stat().st_ino == self._inode
                for old in self.path.parent.glob(f"{self.path.name}*.{end}") if is_ours and end else ():
                    old.unlink(missing_ok=True)
                for part in ("", "-wal", "-shm") if is_ours else ():
                    with suppress(FileNotFoundError):
                        if end:
                            os.rename(f"{self.path}{part}", f"{self.path}{part}.{end}")
                        else:
                            os.unlink(f"{self.path}{part}")
        except FileNotFoundError:
            pass  # another has
        except OSError:
            self.close()
            return False
        self.close()
        self._not_before = 0.0
        if end:
            self._warnings.add(
                end,
                f'the ledger "{self.path}" was {end} and has been set aside',
                "It is begun anew, without what it held.",
            )
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from opening, making or setting aside the file meanwhile.

        Raises:
            BlockingIOError: Another has been at it for a while.
        """
        fd = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + OPEN_WITHIN_S
        with closing(os.fdopen(fd)):
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.01)
            yield


class NoDatabase(Database):
    """No file at all."""

    def __init__(self) -> None:
        """Nothing to open."""
        self._full_until = self._busy_since = 0.0
        self._busy = 0

    def run(
        self, work: Callable[[sqlite3.Connection], T], default: T, *, within_s: float = 0.0, often: bool = False
    ) -> T:
        """The default."""
        return default

    def read(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        """The default."""
        return default

    def look(self) -> None:
        """Nothing to see."""

    def close(self) -> None:
        """Nothing to let go."""


def _transact(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    return result


def _is_busy(error: Exception) -> bool:
    """Whether another process is at it, which passes."""
    return isinstance(error, BlockingIOError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def _damaged(message: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(message)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error

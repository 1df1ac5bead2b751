"""One SQLite file of the ledger: opened when it is first needed, done without where it cannot be had.

In: pieces of work on a connection. Out: what they return, or their default. A file that is damaged is set aside, once,
and begun anew; one that is locked, full, of a newer version or out of reach is left alone for a while. Each kind of
trouble is said once in the life of the process.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

T = TypeVar("T")

BUSY_S = 0.05  # SQLite waits so long for another process, and nothing can interrupt it
AGAIN_S = 30.0  # after trouble that may pass, the file is tried again

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_HINT = "The ledger is done without meanwhile: answers are asked for anew, and none is lost that a statement returns."


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
        self._inode = 0
        self._not_before = 0.0

    def run(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        """Do a piece of work in one transaction that may write; the default if that cannot be."""
        for attempt in (1, 2):
            try:
                connection = self._connect()
                if connection is None:
                    return default
                connection.execute("BEGIN IMMEDIATE")
                try:
                    result = work(connection)
                    connection.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                    raise
                return result
            except (sqlite3.Error, OSError) as error:
                if not (self._is_mended(error) and attempt == 1):
                    return default
        return default

    def read(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        """Do a piece of work that only reads, however busy writers are; the default if that cannot be."""
        for attempt in (1, 2):
            try:
                connection = self._connect()
                return default if connection is None else work(connection)
            except (sqlite3.Error, OSError) as error:
                if not (self._is_mended(error) and attempt == 1):
                    return default
        return default

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
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _connect(self) -> sqlite3.Connection | None:
        if self._connection is None and time.monotonic() >= self._not_before:
            self._not_before = time.monotonic() + AGAIN_S  # unless all goes well
            self._connection = self._open()
            if self._connection is not None:
                self._not_before = 0.0
        return self._connection

    def _open(self) -> sqlite3.Connection | None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives the files beside it the rights of this one.
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._inode = os.fstat(fd).st_ino
        os.close(fd)
        connection = sqlite3.connect(self.path, timeout=self._busy_s, isolation_level=None)
        try:
            with self._alone():
                found = connection.execute("PRAGMA user_version").fetchone()[0]
                if found > self._version:
                    self._warnings.add(
                        "newer", f'the ledger "{self.path}" is of a newer version of pg_bridge', "Update pg_bridge."
                    )
                    connection.close()
                    return None
                if found < self._version:
                    self._make(connection)
                elif self._is_copy(connection):
                    self._check(connection)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            connection.execute(f'DROP TABLE "{name}"')
        for statement in filter(str.strip, (*self._schema.split(";"), "CREATE TABLE copied (inode INTEGER)")):
            connection.execute(statement)
        connection.execute("INSERT INTO copied VALUES (?)", [self._inode])
        connection.execute(f"PRAGMA user_version = {self._version}")
        connection.execute("COMMIT")

    def _is_copy(self, connection: sqlite3.Connection) -> bool:
        """Whether the file was copied since it was last opened, perhaps while somebody wrote: by a base backup, say."""
        (inode,) = connection.execute("SELECT inode FROM copied").fetchone()
        return int(inode) != self._inode

    def _check(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            error = sqlite3.DatabaseError("the copy is damaged")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        connection.execute("UPDATE copied SET inode = ?", [self._inode])

    def _is_mended(self, error: sqlite3.Error | OSError) -> bool:
        """Deal with trouble; whether it is worth another try at once."""
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if code is not None else None
        if primary in _BUSY:
            return False  # the work waits for its next time, and nobody need know
        if isinstance(error, sqlite3.DatabaseError) and primary in _DAMAGED:
            self.close()
            self._not_before = 0.0
            return self._set_aside()
        if isinstance(error, sqlite3.OperationalError) and "no such table" in str(error):
            self.close()
            return self._set_aside()
        self.close()
        self._not_before = time.monotonic() + AGAIN_S
        reason = error.strerror if isinstance(error, OSError) else str(error)
        self._warnings.add(f"trouble {primary}", f'the ledger "{self.path}" cannot be used: {reason}')
        return False

    def _set_aside(self) -> bool:
        """Rename a damaged file, unless another process has; at most one damaged file is kept."""
        try:
            with self._alone():
                if self.path.stat().st_ino == self._inode:
                    for old in self.path.parent.glob(f"{self.path.name}*.damaged"):
                        old.unlink(missing_ok=True)
                    for end in ("", "-wal", "-shm"):
                        with suppress(FileNotFoundError):
                            os.rename(f"{self.path}{end}", f"{self.path}{end}.damaged")
        except OSError:
            return False
        self._warnings.add(
            "damaged",
            f'the ledger "{self.path}" was damaged and has been set aside',
            "It is begun anew: what had been answered is asked once more.",
        )
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from opening, making or setting aside the file meanwhile.

        Raises:
            OSError: Another has been at it for a while.
        """
        fd = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with closing(os.fdopen(fd)):
            for _ in range(100):
                with suppress(BlockingIOError):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.01)
            else:
                raise BlockingIOError(None, "another process has been opening it for a second")
            yield


class NoDatabase(Database):
    """No file at all."""

    def __init__(self) -> None:
        """Nothing to open."""

    def run(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        """The default."""
        return default

    read = run

    def look(self) -> None:
        """Nothing to see."""

    def close(self) -> None:
        """Nothing to let go."""

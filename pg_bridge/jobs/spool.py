"""The writing side of a file: answers are kept in a file beside it, and the file is written once all rows are through.

In: rows as they are read, answers as they land. Out: `FILE.part`, an SQLite database with the rows and the answers so
far, and at the end FILE, which is put in its place as a whole: each row of the source in its order, with its answer.
Answers are found again by the digest of what was asked, so rows need no key. A file that holds something else is never
touched.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pg_bridge.errors import JobError, JobRunning, OptionError, TargetError
from pg_bridge.jobs.answered_file import Answered, AnsweredFile
from pg_bridge.jobs.answers import Form, form_of
from pg_bridge.jobs.files import PARQUET, format_of, import_parquet
from pg_bridge.jobs.record import BESIDES, Done, Item, JobRecord

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    digest TEXT PRIMARY KEY, answer TEXT, model TEXT, answered_at TEXT, error TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (place INTEGER PRIMARY KEY, digest TEXT, row TEXT)
"""
_APPLICATION_ID = 0x70675F62  # so that no other database is taken for a spool
_WRITE = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)"


class FileWriting:
    """Writes into a file.

    Args:
        job: What is written; its target is the file's path.
        choices: The only answers allowed; empty for any.
        columns: Those of the rows that are read.

    Attributes:
        form: What answers look like.
        model: The model that answers, to be set before anything is written.
        wanted_model: If answers of other models do not count, the one that does.
    """

    def __init__(self, job: JobRecord, choices: Sequence[str], columns: Sequence[str]) -> None:
        self.model = ""
        self.wanted_model: str | None = None
        self.form: Form = form_of(job, choices)
        self._path = Path(job.target)
        self._part = self._path.with_name(self._path.name + ".part")
        self._columns = tuple(columns)
        self._names = (job.answer_column, *BESIDES)
        self._file = AnsweredFile(format_of(job.target), self._columns, self._names, self.form.answer.kind)
        self._connection: sqlite3.Connection | None = None
        self._places = 0

    def open(self, *, is_rehearsal: bool = False) -> None:
        """Find what has been answered, and keep other runs out.

        Args:
            is_rehearsal: Whether nothing will be written: then nothing is made and nobody kept out.

        Raises:
            TargetError: A file of that name holds something else, or the rows have a column of an answer's name.
            JobRunning: Another run writes into it.
            JobError: It cannot be written.
        """
        taken = [name for name in self._names if name in self._columns]
        if taken:
            raise TargetError(
                f'the rows have a column "{taken[0]}" already',
                hint="Rename it, or name the answers' column with --answer-column.",
            )
        if self._file.format == PARQUET:
            import_parquet()
        is_there = self._path.exists()
        if is_there:
            next(self._look(), None)  # before anything is made beside it
        with self._trouble():
            self._connect(in_memory=is_rehearsal)
            if is_rehearsal and self._part.exists():
                with contextlib.closing(sqlite3.connect(f"{self._part.absolute().as_uri()}?mode=ro", uri=True)) as part:
                    self._database.executemany(_WRITE, part.execute("SELECT * FROM answers"))
            if is_there:
                self._database.executemany(_WRITE.replace("REPLACE", "IGNORE"), self._look())
            self._database.commit()

    def begin(self) -> None:
        """As in `Writing`."""
        with self._trouble():
            self._database.execute("DELETE FROM rows")
            self._places = 0

    def unknown(self, items: Sequence[Item]) -> list[Item]:
        """As in `Writing`.

        Raises:
            JobError: The file beside it cannot be written.
        """
        with self._trouble():
            self._database.executemany(
                "INSERT INTO rows VALUES (?, ?, ?)",
                [(place, item.digest, item.row) for place, item in enumerate(items, self._places)],
            )
            known = self._database.execute(
                "SELECT DISTINCT digest FROM rows JOIN answers USING (digest) WHERE place >= ? AND answer IS NOT NULL "
                "AND (?2 IS NULL OR model = ?2)",
                [self._places, self.wanted_model],
            )
            digests = {digest for (digest,) in known}
        self._places += len(items)
        return [item for item in items if item.digest not in digests]

    def write(self, done: Sequence[Done]) -> None:
        """As in `Writing`.

        Raises:
            JobError: The file beside it cannot be written.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._trouble():
            self._database.executemany(
                _WRITE, [(each.digest, each.answer, self.model, now, each.error) for each in done]
            )
            self._database.commit()

    def finish(self) -> None:
        """Write the file, and remove what stood beside it.

        Raises:
            JobError: It cannot be written.
        """
        new = self._part.with_name(self._part.name + ".new")  # a user may have a FILE.new
        with self._trouble():
            self._file.write(new, self._answered)
            new.replace(self._path)
            self.close()
            self._part.unlink(missing_ok=True)

    def close(self) -> None:
        """As in `Writing`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    @property
    def _database(self) -> sqlite3.Connection:
        assert self._connection is not None  # noqa: S101 - open() comes first; for the type checker
        return self._connection

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise JobRunning(f"another run is writing into {self._path}", hint="Wait for its end.") from None
            raise JobError(f"cannot write {self._part}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise JobError(
                f"{self._part} cannot be read: {error}", hint="Remove it, and what it holds is asked again."
            ) from error
        except OSError as error:
            raise JobError(f"cannot write {self._path}: {error.strerror}") from error

    def _connect(self, *, in_memory: bool) -> None:
        self._connection = sqlite3.connect(":memory:" if in_memory else self._part, timeout=1.0)
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        (found,) = self._connection.execute("PRAGMA application_id").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and found != _APPLICATION_ID:
            raise TargetError(f"{self._part} is there and holds something else", hint="Move it away.")
        self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")  # which takes the lock
        for statement in _SCHEMA.split(";"):
            self._connection.execute(statement)

    def _answered(self) -> Iterator[Answered]:
        """All rows, in their order, with their answers."""
        return self._database.execute(
            "SELECT row, answer, model, digest, answered_at, error FROM rows LEFT JOIN answers USING (digest) "
            "ORDER BY place"
        )

    def _look(self) -> Iterator[tuple[str | None, ...]]:
        """What stands in the file that an earlier run has left: (digest, answer, model, time, error)."""
        try:
            for answer, model, digest, at, error in self._file.read(self._path):
                if digest is not None:
                    yield digest, answer, model, at, error
        except (KeyError, OptionError, ValueError):
            raise TargetError(
                f"{self._path} is there and was not written by such a job",
                hint="Nothing in it has been touched: move it away, or name another file.",
            ) from None

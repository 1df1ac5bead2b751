"""From a job's record to a job that can be run: both sides looked at, and the engine, before a question is asked.

In: a `JobRecord`, a `Server`, a connection string. Out: a `Running`. What does not fit together is an error here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pg_bridge.errors import OptionError
from pg_bridge.jobs.answers import Form
from pg_bridge.jobs.asker import Desk
from pg_bridge.jobs.files import FileReading
from pg_bridge.jobs.needed import psycopg_needed
from pg_bridge.jobs.record import BESIDES, JobRecord
from pg_bridge.jobs.report import Report
from pg_bridge.jobs.running import Running
from pg_bridge.jobs.spool import FileWriting
from pg_bridge.options import Call, Server

if TYPE_CHECKING:
    from pg_bridge.jobs.database import Database, Session
    from pg_bridge.jobs.query import QueryReading
    from pg_bridge.jobs.table import TableWriting

PATIENCE_S = 600.0


class OpenJob:
    """What one job needs, for a `with`.

    Args:
        record: The job.
        server: Who is asked.
        dsn: The database, as for psql.
        session: What its connection is; None for one of `pg-bridge map`.
        lock_within_s: How long the end of another run into the same table is waited for; None for the usual time.
        ledger: A folder where each answer is kept, too.
        limit: Rows to ask about at most; None for all.
        patience_s: How long a database or an engine that is gone is waited for.
        tell: Is given the report now and then.
        say: Is told what goes on, in words.
        check: Called often; raises `Stopped` to stop.

    Attributes:
        running: The job, once `open` has made it.

    Raises:
        OptionError: The record is not valid.
    """

    def __init__(
        self,
        record: JobRecord,
        server: Server,
        *,
        dsn: str = "",
        session: Session | None = None,
        lock_within_s: float | None = None,
        ledger: Path | None = None,
        limit: int | None = None,
        patience_s: float = PATIENCE_S,
        tell: Callable[[Report], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.running: Running | None = None
        self._record = record
        self._server = server
        self._dsn = dsn
        self._session = session
        self._lock_within_s = lock_within_s
        self._ledger = ledger
        self._limit = limit
        self._patience_s = patience_s
        self._tell = tell
        self._say = say
        self._check = check
        self._choices = Call.from_arguments(record.options).choices
        self._database: Database | None = None
        self._desk: Desk | None = None
        self._writing: TableWriting | FileWriting | None = None
        if not record.key and not record.into_file:
            raise OptionError("a table of answers needs a key, which tells its rows apart")
        if record.part.of > 1 and (record.is_file or record.into_file):
            raise OptionError("parts are of a query, and go into one table", hint="Leave out --part.")
        if len(set(record.key)) < len(record.key):
            raise OptionError("the key has a column twice")
        if record.answer_column in record.key:
            raise OptionError("the answers' column is one of the key")
        for name in (record.answer_column, *record.key):
            if name in BESIDES:
                raise OptionError(
                    f'a column named "{name}" stands beside the answers already',
                    hint="Name the answers' column otherwise; rename one of the key, with AS.",
                )

    def open(self, *, is_rehearsal: bool = False) -> Running:
        """Look at everything.

        Args:
            is_rehearsal: Whether nothing will be asked and written.

        Raises:
            PgBridgeError: The query or the file cannot be read, the target cannot take the answers, another run writes
                into it, the engine is not there.
        """
        reading, writing = self._open_sides()
        self._writing = writing
        writing.open(is_rehearsal=is_rehearsal)
        self._desk = desk = Desk(
            self._server,
            self._ledger,
            lambda *told: self._say(". ".join(told)),
            self._look,
            lambda notice: self._say(notice.message),
        )
        writing.model = desk.find_model(self._patience_s)
        writing.wanted_model = self._server.model
        self.running = Running(
            self._record,
            call_of(self._record, writing.form),
            reading,
            writing,
            writing.form,
            desk,
            limit=self._limit,
            patience_s=self._patience_s,
            tell=self._tell,
            say=self._say,
            check=self._check,
        )
        return self.running

    @property
    def report(self) -> Report | None:
        """What has been done so far; None before it is open."""
        return self.running.report if self.running else None

    def interrupt(self) -> None:
        """End a query that is being read, so that `check` is called soon; may be called by a signal handler."""
        if self._database is not None:
            self._database.interrupt()

    def close(self) -> None:
        """Let go of everything; may be called at any time, also twice."""
        for each in (self._writing, self._database, self._desk):
            if each is not None:
                each.close()

    def __enter__(self) -> Self:
        """Open nothing yet: `open` does."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _open_sides(self) -> tuple[QueryReading | FileReading, TableWriting | FileWriting]:
        record = self._record
        reading: QueryReading | FileReading
        if record.is_file:
            reading, key_types = FileReading(Path(record.source), record.key), None
            reading.open()
        else:
            database = self._connected()
            from pg_bridge.jobs.query import QueryReading  # noqa: PLC0415 - psycopg is an extra

            reading = QueryReading(database, record.source, record.key, whole=record.into_file, part=record.part)
            reading.open()
            key_types = reading.key_types()
        if record.into_file:
            return reading, FileWriting(record, self._choices, reading.columns)
        database = self._connected()
        from pg_bridge.jobs.table import LOCK_WITHIN_S, TableWriting  # noqa: PLC0415 - psycopg is an extra

        within_s = LOCK_WITHIN_S if self._lock_within_s is None else self._lock_within_s
        return reading, TableWriting(database, record, self._choices, key_types, self._check, lock_within_s=within_s)

    def _connected(self) -> Database:
        """The database; psycopg is looked for here, before anything that imports it."""
        if self._database is None:
            with psycopg_needed(besides=" Files need none."):
                from pg_bridge.jobs.database import Database, Session  # noqa: PLC0415 - psycopg is an extra
            self._database = Database(
                self._dsn,
                session=self._session or Session(),
                patience_s=self._patience_s,
                say=self._say,
                check=self._check,
            )
            self._database.connect()
        return self._database

    def _look(self) -> None:
        if self.running is not None:
            self.running.look()
        else:
            self._check()


def call_of(record: JobRecord, form: Form) -> Call:
    """The options of a job's questions, held to the form that the target wants of answers."""
    answer = form.answer
    wanted = {
        "kind": answer.kind,
        "choices": list(answer.choices),
        "schema": answer.schema if answer.kind == "json" else None,
    }
    return Call.from_arguments({**record.options, **wanted})

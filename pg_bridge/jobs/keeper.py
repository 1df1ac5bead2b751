"""Keeps columns answered: one step at a time, each with the rights of the role that declared the column.

In: what `llm.keep` has declared, the rows that its triggers have noted, engines. Out: answers in each column's own
table, and in the catalog what went wrong and when to look again. A step asks about some thousand rows at most, so that
jobs and all columns have their turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from pg_bridge.errors import JobRunning, PgBridgeError
from pg_bridge.jobs.asker import Desk, folder_of
from pg_bridge.jobs.database import Connection, Database, Session
from pg_bridge.jobs.engines import Engines
from pg_bridge.jobs.kept import (
    CHANNEL,
    DueColumn,
    KeptColumn,
    drop_strays,
    due,
    find_work,
    is_noted,
    key_types,
    note_refusal,
    note_rows,
    note_step,
    note_trouble,
    read_column,
    record_of,
    whole_notes,
)
from pg_bridge.jobs.kept_writing import KeptWriting, delete_notes
from pg_bridge.jobs.noted import NotedReading, SliceReading, Work
from pg_bridge.jobs.opening import call_of
from pg_bridge.jobs.query import QueryReading
from pg_bridge.jobs.report import Report
from pg_bridge.jobs.running import Running, Stopped
from pg_bridge.jobs.table import TableWriting
from pg_bridge.jobs.trust import refusal
from pg_bridge.options import Call, Server

APPLICATION = "pg-bridge worker"
STEP_PATIENCE_S = 30.0  # for an engine that is gone; the next step tries again
LOOK_EVERY_S = 30.0  # at a column of which nothing is told: notices may be lost, or left out
TRUST_FOR_S = 60.0  # until a role's rights are looked at again


@dataclass(slots=True)
class _Sweep:
    """A look at all rows, slice by slice.

    Attributes:
        notes: The numbers of the notes that ask for it.
        behind: The last key of the slices that are through.
        is_whole: Whether no budget has left rows of them out.
    """

    notes: Sequence[int]
    behind: tuple[str, ...] | None = None
    is_whole: bool = True


class Keeper:
    """Answers kept columns: a chore of a worker. What it has in mind is no more than where to go on.

    Args:
        dsn: The database, as for psql.
        database: A connection to it, as who logged in.
        engines: Where columns ask; its schema is theirs.
        trusted: Roles that may reach all that the login reaches.
        ledger: A folder where answers are kept, too, each role's in one of its own; None for none.
        say: Is told what goes on.
        check: Called often; raises `Stopped` to stop.

    Attributes:
        channels: On which NOTIFY tells that something was noted.
    """

    channels = (CHANNEL,)

    def __init__(
        self,
        dsn: str,
        database: Database,
        engines: Engines,
        *,
        trusted: Collection[str] = (),
        ledger: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._dsn = dsn
        self._database = database
        self._engines = engines
        self._trusted = tuple(trusted)
        self._ledger = ledger
        self._say = say
        self._check = check
        self._sweeps: dict[int, _Sweep] = {}
        self._desks: dict[tuple[str, int, str], tuple[Server, Desk]] = {}
        self._idle_since_s: dict[str, float] = {}  # by a column's number
        self._told: set[str] = set()  # the same of which something was noted meanwhile; anybody may send a notice
        self._told_by = 0  # the generation of the connection that tells
        self._refusals: dict[int, tuple[float, str | None]] = {}

    def work(self) -> bool:
        """Take one step for one column; whether there was anything to do.

        Raises:
            Stopped: `check` has raised it.
            PgBridgeError: The declarations cannot be read.
        """
        self._database.run(self._hear)
        columns = self._database.run(lambda connection: due(connection, self._engines.schema))
        numbers = {str(column.id) for column in columns}
        self._idle_since_s = {number: at for number, at in self._idle_since_s.items() if number in numbers}
        self._told &= numbers
        return any(self._step(column) for column in columns if self._is_worth_a_look(column))

    def due_in_s(self) -> float | None:
        """Seconds until a column may be asked about again; None where none waits for its time."""
        statement = sql.SQL(
            "SELECT extract(epoch FROM min(k.next_at) - now())::float8 FROM {}._kept AS k WHERE k.next_at > now()"
        ).format(sql.Identifier(self._engines.schema))
        row = self._database.run(lambda connection: connection.execute(statement).fetchone())
        return None if row is None or row[0] is None else float(row[0])

    def close(self) -> None:
        """Let go of all engines."""
        desks, self._desks = self._desks, {}
        for _, desk in desks.values():
            desk.close()

    def _is_worth_a_look(self, kept: DueColumn) -> bool:
        """Whether it has something to do, by all that is known: each look takes a connection."""
        idle_since_s = self._idle_since_s.get(str(kept.id))
        return idle_since_s is None or str(kept.id) in self._told or time.monotonic() - idle_since_s >= LOOK_EVERY_S

    def _step(self, kept: DueColumn) -> bool:
        """Take a step for a column, with its role's rights. What goes wrong stands in the catalog."""
        number = str(kept.id)
        self._told.discard(number)
        self._idle_since_s[number] = time.monotonic()
        if self._is_refused(kept):
            return False
        login = self._database.run(lambda connection: connection.execute("SELECT session_user::text").fetchone())
        role = None if login == (kept.role,) else kept.role
        session = Session(APPLICATION, role)
        is_done = False
        with closing(
            Database(self._dsn, session=session, patience_s=STEP_PATIENCE_S, say=self._say, check=self._check)
        ) as database:
            try:
                database.connect()
                column = self._database.run(lambda connection: read_column(connection, self._engines.schema, kept))
                is_done = column is not None and self._take_step(database, column) is not None
            except JobRunning:
                pass
            except Stopped:
                raise
            except PgBridgeError as error:
                self._say(f"column {kept.id} of {kept.role}: {error.message}")
                note_trouble(self._database, self._engines.schema, kept, error.message)
            except Exception as error:  # whatever a column may hit, others go on
                self._say(f"column {kept.id} of {kept.role}: internal error: {error!r}")
                note_trouble(self._database, self._engines.schema, kept, f"internal error: {type(error).__name__}")
        if is_done:
            self._idle_since_s.pop(number)
        return is_done

    def _is_refused(self, kept: DueColumn) -> bool:
        """Whether the login leaves a role's columns alone; another worker may take them."""
        known = self._refusals.get(kept.role_oid)
        if known is None or time.monotonic() - known[0] > TRUST_FOR_S:
            why = self._database.run(lambda connection: refusal(connection, kept.role, kept.role_oid, self._trusted))
            known = self._refusals[kept.role_oid] = (time.monotonic(), why)
            if why is not None:
                self._say(f"columns of {kept.role} are left: {why}")
        if known[1] is not None:
            note_refusal(self._database, self._engines.schema, kept, f"left: {known[1]}")
        return known[1] is not None

    def _take_step(self, database: Database, kept: KeptColumn) -> Report | None:
        schema = self._engines.schema
        work = database.run(lambda connection: find_work(connection, schema, kept.id))
        if work is None:
            return None
        whole = database.read(lambda connection: whole_notes(connection, work))
        if whole and work.in_chunks:
            database.run(lambda connection: note_rows(connection, work, whole))
            database.run(lambda connection: drop_strays(connection, work))
            whole = []
        if whole:
            self._sweeps.setdefault(kept.id, _Sweep(whole))
        else:
            self._sweeps.pop(kept.id, None)
        if not whole and not database.read(lambda connection: is_noted(connection, work)):
            return None
        desk = self._desk(database, kept)
        desk.begin_job()
        report = self._noted(database, kept, work, desk)
        if whole:
            swept = self._swept(database, kept, work, desk)
            report = swept if report is None else _both(report, swept)
        is_more = kept.id in self._sweeps or database.read(lambda connection: is_noted(connection, work))
        note_step(database, schema, kept.id, is_more=is_more)
        if report is not None and report.done:
            failed = f", {report.failed:,} have an error" if report.failed else ""
            self._say(f"{report.answered:,} rows answered into {work.answers}{failed}")
        return report

    def _desk(self, database: Database, kept: KeptColumn) -> Desk:
        """Where a column's questions are asked; the same as long as its server is, so that limits hold."""
        server = database.run(lambda connection: self._engines.find(connection, kept.server))
        of = (kept.role, kept.role_oid, kept.server)
        if of in self._desks and self._desks[of][0] != server:
            self._desks.pop(of)[1].close()
        if of not in self._desks:
            ledger = self._ledger and folder_of(self._ledger, kept.role, kept.role_oid)
            desk = Desk(server, ledger, lambda *told: self._say(". ".join(told)), self._check)
            self._desks[of] = server, desk
        return self._desks[of][1]

    def _hear(self, connection: Connection) -> None:
        """Be told which columns NOTIFY names, from a new connection on of all."""
        if self._told_by != self._database.generation:
            connection.add_notify_handler(self._take_note)
            self._told_by = self._database.generation
            self._idle_since_s.clear()

    def _take_note(self, notify: psycopg.Notify) -> None:
        if notify.channel == CHANNEL and notify.payload in self._idle_since_s:
            self._told.add(notify.payload)

    def _noted(self, database: Database, kept: KeptColumn, work: Work, desk: Desk) -> Report | None:
        if not database.read(lambda connection: is_noted(connection, work)):
            return None
        rows, types, table = self._sides(database, kept, work)
        reading = NotedReading(database, work, rows.columns, types)
        return self._run(kept, work, desk, reading, KeptWriting(database, work, table, types, reading), table)

    def _swept(self, database: Database, kept: KeptColumn, work: Work, desk: Desk) -> Report:
        sweep = self._sweeps[kept.id]
        rows, types, table = self._sides(database, kept, work)
        reading = SliceReading(rows, sweep.behind)
        report = self._run(kept, work, desk, reading, KeptWriting(database, work, table, types, None), table)
        sweep.behind, sweep.is_whole = reading.last, sweep.is_whole and not report.not_asked
        if sweep.behind is None:
            del self._sweeps[kept.id]
            database.run(lambda connection: drop_strays(connection, work))
            if sweep.is_whole:
                delete_notes(database, work, sweep.notes)
        return report

    def _sides(self, database: Database, kept: KeptColumn, work: Work) -> tuple[QueryReading, list[str], TableWriting]:
        rows = QueryReading(database, work.query, () if work.in_chunks else work.key)
        rows.open()
        types = database.run(lambda connection: key_types(connection, work))
        call = Call.from_arguments(kept.options)
        table = TableWriting(database, record_of(kept, work), call.choices, types, self._check, lock_within_s=0.0)
        table.open()
        return rows, [type_.name for type_ in types], table

    def _run(
        self,
        kept: KeptColumn,
        work: Work,
        desk: Desk,
        reading: NotedReading | SliceReading,
        writing: KeptWriting,
        table: TableWriting,
    ) -> Report:
        table.model = desk.find_model(STEP_PATIENCE_S)
        record = record_of(kept, work)
        running = Running(
            record,
            call_of(record, table.form),
            reading,
            writing,
            table.form,
            desk,
            patience_s=STEP_PATIENCE_S,
            say=self._say,
            check=self._check,
        )
        return running.run()


def _both(first: Report, second: Report) -> Report:
    """One report of two."""
    first.read += second.read
    first.known += second.known
    first.answered += second.answered
    first.failed += second.failed
    first.not_asked += second.not_asked
    first.run.add(second.run)
    return first

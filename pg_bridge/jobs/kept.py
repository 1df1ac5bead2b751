"""Keeps columns answered: one step at a time, each with the rights of the role that declared the column.

In: what `llm.keep` has declared, in schema `llm` of the extension or in `llm_jobs` of a server without it; the rows
that its triggers have noted. Out: answers in the column's own table, and in the catalog of kept columns what went wrong
and when to look again. A step asks about some thousand rows at most, so that all columns have their turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pg_bridge.errors import DatabaseGone, JobError, JobRunning, PgBridgeError
from pg_bridge.foreign.answers import ColumnType
from pg_bridge.jobs import target
from pg_bridge.jobs.asker import Desk
from pg_bridge.jobs.database import Connection, Database
from pg_bridge.jobs.noted import KeptWriting, NotedReading, SliceReading, Work, delete_notes
from pg_bridge.jobs.opening import call_of
from pg_bridge.jobs.query import QueryReading
from pg_bridge.jobs.record import JobRecord
from pg_bridge.jobs.report import Report
from pg_bridge.jobs.running import Running
from pg_bridge.jobs.table import TableWriting
from pg_bridge.options import Call

SCHEMAS = ("llm", "llm_jobs")  # where the extension has them, and where a server without it
CHANNEL = "llm_kept"
"""Where triggers tell that something was noted; the text is the column's number."""

STEP_PATIENCE_S = 30.0  # for an engine that is gone; the next step tries again
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 5.0, 600.0
WINDOW_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class KeptColumn:
    """A column as it was declared.

    Attributes:
        id: Its number.
        role: Who declared it.
        name: The column's name.
        key: The names of the key.
        prompt: The question.
        schema: The JSON schema of an answer; empty for none.
        options: Those of a `Call`.
    """

    id: int
    role: str
    name: str
    key: tuple[str, ...]
    prompt: str
    schema: str
    options: Mapping[str, object]

    @property
    def server(self) -> str:
        """The name of the server that is to be asked."""
        return str(self.options.get("server", "vllm"))


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


@dataclass(slots=True)
class Keeper:
    """Answers kept columns; what it has in mind is no more than a place to go on from.

    Args:
        dsn: The database, as for psql, as a role that may become those who keep columns.
        desk_of: Where the questions of a server of this name are asked; None where there is none.
        say: Is told what goes on.
        check: Called often; raises `Stopped` to stop.
        tell: Is given a step's report now and then.
    """

    dsn: str
    desk_of: Callable[[str], Desk | None]
    say: Callable[[str], None] = lambda _: None
    check: Callable[[], None] = lambda: None
    tell: Callable[[Report], None] = lambda _: None
    _sweeps: dict[int, _Sweep] = field(default_factory=dict)

    def step(self, schema: str, kept: KeptColumn) -> Report | None:
        """Ask about what is noted for one column, or about some of all rows where that is asked for.

        Args:
            schema: Where it is declared.
            kept: The column.

        Returns:
            What was done; None where nothing is noted, or another worker is at it, or it went wrong, which the
            catalog then tells.

        Raises:
            Stopped: `check` has raised it.
        """
        database = Database(as_role(self.dsn, kept.role), patience_s=STEP_PATIENCE_S, say=self.say, check=self.check)
        with closing(database):
            try:
                database.connect()
                return self._step(database, schema, kept)
            except JobRunning:
                return None
            except PgBridgeError as error:
                self.say(f'column "{kept.name}" of {kept.role}: {error.message}')
                if not isinstance(error, DatabaseGone):  # or the role may not be taken on
                    _note_trouble(database, schema, kept.id, error.message)
                return None

    def _step(self, database: Database, schema: str, kept: KeptColumn) -> Report | None:
        work = database.run(lambda connection: _work(connection, schema, kept.id))
        if work is None:
            return None
        whole = database.read(lambda connection: _whole_notes(connection, work))
        if whole:
            self._sweeps.setdefault(kept.id, _Sweep(whole))
        else:
            self._sweeps.pop(kept.id, None)
        if not whole and not database.read(lambda connection: _is_noted(connection, work)):
            return None
        desk = self.desk_of(kept.server)
        if desk is None:
            raise JobError(
                f'there is no server "{kept.server}" here', sqlstate="42704", hint='Name it in options, as "server".'
            )
        desk.begin_job()
        report = self._noted(database, kept, work, desk)
        if whole:
            swept = self._swept(database, kept, work, desk)
            report = swept if report is None else _both(report, swept)
        is_more = kept.id in self._sweeps or database.read(lambda connection: _is_noted(connection, work))
        _note_step(database, schema, kept.id, is_more=is_more)
        return report

    def _noted(self, database: Database, kept: KeptColumn, work: Work, desk: Desk) -> Report | None:
        if not database.read(lambda connection: _is_noted(connection, work)):
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
            database.run(lambda connection: _drop_strays(connection, work))
            if sweep.is_whole:
                delete_notes(database, work, sweep.notes)
        return report

    def _sides(self, database: Database, kept: KeptColumn, work: Work) -> tuple[QueryReading, list[str], TableWriting]:
        rows = QueryReading(database, work.query, kept.key)
        rows.open()
        types = database.run(lambda connection: _key_types(connection, work))
        call = Call.from_arguments(kept.options)
        table = TableWriting(database, _record(kept, work), call.choices, types, self.check, lock_within_s=0.0)
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
        record = _record(kept, work)
        running = Running(
            record,
            call_of(record, table.form),
            reading,
            writing,
            table.form,
            desk,
            patience_s=STEP_PATIENCE_S,
            tell=self.tell,
            say=self.say,
            check=self.check,
        )
        return running.run()


def find_schemas(connection: Connection) -> list[str]:
    """The schemas in which columns can be declared."""
    rows = connection.execute(
        "SELECT s FROM unnest($1::text[]) WITH ORDINALITY AS u (s, place) "
        "WHERE to_regclass(quote_ident(s) || '._kept') IS NOT NULL ORDER BY u.place",
        [list(SCHEMAS)],
    )
    return [str(row[0]) for row in rows]


def due(connection: Connection, schema: str) -> list[KeptColumn]:
    """The columns of roles that this one may become, and whose time has come; the longest overdue first."""
    rows = connection.execute(
        sql.SQL(
            "SELECT k.id, k.role, k.name, k.key, k.prompt, k.schema, k.options::text FROM {}._kept AS k "
            "WHERE k.next_at <= now() AND pg_has_role("
            "(SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname = k.role), 'MEMBER') ORDER BY k.next_at"
        ).format(sql.Identifier(schema))
    )
    return [
        KeptColumn(id_, role, name, tuple(key), prompt, of_answers, json.loads(options))
        for id_, role, name, key, prompt, of_answers, options in rows
    ]


def as_role(dsn: str, role: str) -> str:
    """A connection string whose session has the rights of a role from its first moment on."""
    escaped = role.replace("\\", "\\\\").replace(" ", "\\ ")
    given = conninfo_to_dict(dsn).get("options") or ""
    return make_conninfo(dsn, options=f"{given} -c role={escaped}".strip())


def _record(kept: KeptColumn, work: Work) -> JobRecord:
    return JobRecord(
        source=work.query,
        prompt=kept.prompt,
        target=work.answers,
        key=kept.key,
        schema=kept.schema,
        answer_column=kept.name,
        options={"on_error": "null", "window_rows": WINDOW_ROWS, **kept.options},
    )


def _work(connection: Connection, schema: str, kept: int) -> Work | None:
    """A column's tables; None where it is kept no longer.

    Raises:
        JobError: Something of it is gone.
    """
    statement = sql.SQL("SELECT * FROM {}._kept_work($1)").format(sql.Identifier(schema))
    row = connection.execute(statement, [kept]).fetchone()
    if row is None or row[1] is None:
        return None
    *names, trouble = row
    if trouble is not None:
        raise JobError(str(trouble), sqlstate="55000")
    relation, key, key_columns, sent, sent_columns, answers, changes, equal = names
    return Work(relation, tuple(key), tuple(key_columns), tuple(sent), tuple(sent_columns), answers, changes, equal)


def _whole_notes(connection: Connection, work: Work) -> list[int]:
    statement = sql.SQL("SELECT noted FROM {} WHERE {} IS NULL").format(
        sql.SQL(work.changes), sql.Identifier(work.key[0])
    )
    return [int(row[0]) for row in connection.execute(statement)]


def _is_noted(connection: Connection, work: Work) -> bool:
    statement = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} IS NOT NULL)").format(
        sql.SQL(work.changes), sql.Identifier(work.key[0])
    )
    return connection.execute(statement).fetchone() == (True,)


def _key_types(connection: Connection, work: Work) -> list[ColumnType]:
    found = target.look(connection, work.answers)
    if found is None or not all(name in found.columns for name in work.key):
        raise JobError(f"table {work.answers} lacks its key", sqlstate="55000")
    return [found.columns[name] for name in work.key]


def _drop_strays(connection: Connection, work: Work) -> None:
    """Delete the answers about rows that are gone: nobody has noted which."""
    connection.execute(
        sql.SQL("DELETE FROM {} AS llm_key WHERE NOT EXISTS (SELECT FROM {} AS llm_row WHERE {})").format(
            sql.SQL(work.answers), sql.SQL(work.relation), sql.SQL(work.equal)
        )
    )


def _note_step(database: Database, schema: str, kept: int, *, is_more: bool) -> None:
    statement = sql.SQL(
        "UPDATE {}._kept SET asked_at = now(), failures = 0, trouble = NULL, "
        "next_at = CASE WHEN $2 THEN now() ELSE now() + at_most_every END WHERE id = $1"
    ).format(sql.Identifier(schema))
    database.run(lambda connection: connection.execute(statement, [kept, is_more]))


def _note_trouble(database: Database, schema: str, kept: int, trouble: str) -> None:
    statement = sql.SQL(
        "UPDATE {}._kept SET trouble = $2, failures = failures + 1, next_at = now() + greatest(at_most_every, "
        "make_interval(secs => least($3 * 2 ^ least(failures, 20), $4))) WHERE id = $1"
    ).format(sql.Identifier(schema))
    values: list[Any] = [kept, trouble, FIRST_BACKOFF_S, LONGEST_BACKOFF_S]
    database.run(lambda connection: connection.execute(statement, values))


def _both(first: Report, second: Report) -> Report:
    """One report of two."""
    first.read += second.read
    first.known += second.known
    first.answered += second.answered
    first.failed += second.failed
    first.not_asked += second.not_asked
    first.run.add(second.run)
    return first


__all__ = ["CHANNEL", "Keeper", "KeptColumn", "as_role", "due", "find_schemas"]

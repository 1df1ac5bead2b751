"""Kept columns, as they stand in the database: what is declared, what they are made of by now, what is to be done.

In: a connection, in a session of who logged in or of a column's role, and the schema in which `llm.keep` is. Out:
`KeptColumn`s, their `Work`, and what a step leaves behind in the catalog. Nothing is asked here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql

from pg_bridge.errors import JobError
from pg_bridge.foreign.answers import ColumnType
from pg_bridge.jobs import target
from pg_bridge.jobs.database import Connection, Database, identifiers, storable
from pg_bridge.jobs.noted import Work
from pg_bridge.jobs.record import JobRecord, options_of

CHANNEL = "llm_kept"
"""Where triggers tell that something was noted; the text is the column's number."""

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 5.0, 600.0
WINDOW_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class DueColumn:
    """A column whose time has come: what PostgreSQL, and not its role, says of it. The rest may be anything.

    Attributes:
        id: Its number.
        role: Who declared it.
        role_oid: The oid of the role of this name. Another role of the name would find nothing of what was made: it
            is looked for by its owner.
        failures: How many steps have gone wrong since the last one that has not.
    """

    id: int
    role: str
    role_oid: int
    failures: int


@dataclass(frozen=True, slots=True)
class KeptColumn:
    """A column as it was declared.

    Attributes:
        id: Its number.
        role: Who declared it.
        role_oid: As of a `DueColumn`.
        name: The column's name.
        key: The names of the key.
        prompt: The question.
        schema: The JSON schema of an answer; empty for none.
        options: Those of a `Call`.
    """

    id: int
    role: str
    role_oid: int
    name: str
    key: tuple[str, ...]
    prompt: str
    schema: str
    options: Mapping[str, object]

    @property
    def server(self) -> str:
        """The name of the server that is to be asked."""
        return str(self.options.get("server", "vllm"))


def due(connection: Connection, schema: str) -> list[DueColumn]:
    """The columns that a policy shows to this role, and whose time has come; the longest overdue first."""
    rows = connection.execute(
        sql.SQL(
            "SELECT k.id, k.role::text, r.oid, k.failures FROM {}._kept AS k "
            "JOIN pg_catalog.pg_roles AS r ON r.rolname = k.role WHERE k.next_at <= now() ORDER BY k.next_at"
        ).format(sql.Identifier(schema))
    )
    return [DueColumn(*row) for row in rows]


def read_column(connection: Connection, schema: str, of: DueColumn) -> KeptColumn | None:
    """A column as it was declared; None where it is kept no longer.

    Raises:
        OptionError: Its options are nothing that `llm.keep` writes.
    """
    statement = sql.SQL("SELECT name, key, prompt, schema, options::text FROM {}._kept WHERE id = $1")
    row = connection.execute(statement.format(sql.Identifier(schema)), [of.id]).fetchone()
    if row is None:
        return None
    name, key, prompt, of_answers, options = row
    return KeptColumn(of.id, of.role, of.role_oid, name, tuple(key), prompt, of_answers, options_of(options))


def record_of(kept: KeptColumn, work: Work) -> JobRecord:
    """A step of a column, as a job."""
    return JobRecord(
        source=work.query,
        prompt=kept.prompt,
        target=work.answers,
        key=work.answers_key,
        beside=work.beside,
        schema=kept.schema,
        answer_column=kept.name,
        options={"on_error": "null", "window_rows": WINDOW_ROWS, **kept.options},
    )


def find_work(connection: Connection, schema: str, kept: int) -> Work | None:
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
    relation, key, key_columns, sent, sent_columns, *others = names
    return Work(relation, tuple(key), tuple(key_columns), tuple(sent), tuple(sent_columns), *others)


def whole_notes(connection: Connection, work: Work) -> list[int]:
    """The numbers of the notes that ask for a look at all rows."""
    statement = sql.SQL("SELECT noted FROM {} WHERE {} IS NULL").format(
        sql.SQL(work.changes), sql.Identifier(work.key[0])
    )
    return [int(row[0]) for row in connection.execute(statement)]


def is_noted(connection: Connection, work: Work) -> bool:
    """Whether any rows are noted."""
    statement = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {} IS NOT NULL)").format(
        sql.SQL(work.changes), sql.Identifier(work.key[0])
    )
    return connection.execute(statement).fetchone() == (True,)


def key_types(connection: Connection, work: Work) -> list[ColumnType]:
    """The types of the key of the table of answers."""
    found = target.look(connection, work.answers)
    if found is None or not all(name in found.columns for name in work.answers_key):
        raise JobError(f"table {work.answers} lacks its key", sqlstate="55000")
    return [found.columns[name] for name in work.answers_key]


def drop_strays(connection: Connection, work: Work) -> None:
    """Delete the answers about rows that are gone: nobody has noted which."""
    connection.execute(
        sql.SQL("DELETE FROM {} AS llm_key WHERE NOT EXISTS (SELECT FROM {} AS llm_row WHERE {})").format(
            sql.SQL(work.answers), sql.SQL(work.rows if work.in_chunks else work.relation), sql.SQL(work.equal)
        )
    )


def note_rows(connection: Connection, work: Work, notes: Sequence[int]) -> None:
    """Note each row by its key, in the place of notes that ask for a look at all rows."""
    statement = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} AS llm_row").format(
        sql.SQL(work.changes), identifiers(work.key), identifiers(work.key_columns, "llm_row"), sql.SQL(work.rows)
    )
    done = sql.SQL("DELETE FROM {} WHERE noted = ANY ($1::bigint[])").format(sql.SQL(work.changes))
    with connection.transaction():
        connection.execute(statement)
        connection.execute(done, [list(notes)])


def note_step(database: Database, schema: str, kept: int, *, is_more: bool) -> None:
    """A step has been taken; the next one need not wait if there is more to do."""
    statement = sql.SQL(
        "UPDATE {}._kept SET asked_at = now(), failures = 0, trouble = NULL, "
        "next_at = CASE WHEN $2 THEN now() ELSE now() + at_most_every END WHERE id = $1"
    ).format(sql.Identifier(schema))
    database.run(lambda connection: connection.execute(statement, [kept, is_more]))


def note_trouble(database: Database, schema: str, kept: DueColumn, trouble: str) -> None:
    """A step has gone wrong; the next one waits, twice as long each time."""
    pause_s = min(FIRST_BACKOFF_S * 2 ** min(kept.failures, 20), LONGEST_BACKOFF_S)
    statement = sql.SQL(
        "UPDATE {}._kept SET trouble = $2, failures = least(failures, 1000) + 1, "
        "next_at = now() + greatest(at_most_every, make_interval(secs => $3::float8)) WHERE id = $1"
    ).format(sql.Identifier(schema))
    database.run(lambda c: c.execute(statement, [kept.id, storable(c, trouble), pause_s]))


def note_refusal(database: Database, schema: str, kept: DueColumn, why: str) -> None:
    """A worker leaves a column to others: say so if none takes it. It stays as due as it is."""
    statement = sql.SQL(
        "UPDATE {}._kept SET trouble = $2 WHERE id = $1 AND trouble IS DISTINCT FROM $2 "
        "AND (asked_at IS NULL OR asked_at < now() - interval '1 hour')"
    ).format(sql.Identifier(schema))
    database.run(lambda connection: connection.execute(statement, [kept.id, storable(connection, why)]))

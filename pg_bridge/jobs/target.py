"""The table that a job writes into: looked at, made, or refused before a question is asked.

In: a job, the types of its key. Out: the table as PostgreSQL knows it, and the form of the answers that its column can
hold. Nothing is changed in a table that is there: what it lacks is an error, whose hint says how to add it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from pg_bridge.errors import NotPermitted, OptionError, TargetError
from pg_bridge.foreign.answers import BPCHAR, INTEGERS, TEXT, TIMESTAMP, TIMESTAMPTZ, VARCHAR, ColumnType
from pg_bridge.jobs.answers import Form, form_of
from pg_bridge.jobs.database import Connection, identifiers
from pg_bridge.jobs.record import ANSWERED_AT, BESIDES, DIGEST, ERROR, MODEL, JobRecord

_TEXTS = {TEXT, VARCHAR}
_BESIDES = {MODEL: _TEXTS, DIGEST: _TEXTS, ANSWERED_AT: {TIMESTAMP, TIMESTAMPTZ}, ERROR: _TEXTS}
_NEW = {MODEL: "text", DIGEST: "text", ANSWERED_AT: "timestamptz", ERROR: "text"}


@dataclass(frozen=True, slots=True)
class Target:
    """A table that is there.

    Attributes:
        oid: Its oid.
        name: As SQL needs it.
        columns: Their types, by name.
    """

    oid: int
    name: str
    columns: Mapping[str, ColumnType]


def look(connection: Connection, name: str) -> Target | None:
    """Look up a table; None if there is none.

    Args:
        connection: Where.
        name: As SQL has it, quoted or not.

    Raises:
        OptionError: It is no name of a table.
        TargetError: It is one of something else.
    """
    try:
        row = connection.execute(
            "SELECT c.oid, c.oid::regclass::text, c.relkind::text FROM pg_catalog.pg_class AS c "
            "WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)",
            [name],
        ).fetchone()
    except (psycopg.errors.SyntaxError, psycopg.errors.InvalidName, psycopg.errors.FeatureNotSupported):
        raise _no_name(name) from None
    if row is None:
        return None
    oid, shown, kind = row
    if kind not in ("r", "p"):
        raise TargetError(f"{shown} is no table", hint="Answers go into an ordinary or a partitioned table.")
    columns = connection.execute(
        "SELECT attname::text, atttypid, atttypmod, pg_catalog.format_type(atttypid, atttypmod) "
        "FROM pg_catalog.pg_attribute "
        "WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped",
        [oid],
    )
    return Target(oid, shown, {column: ColumnType(*type_) for column, *type_ in columns})


def create(connection: Connection, job: JobRecord, key_types: Sequence[ColumnType], answers: ColumnType) -> None:
    """Make the table of a job, unless another run has been quicker.

    Raises:
        OptionError: Its name is no name of a table.
    """
    columns = [
        *(
            sql.SQL("{} {} NOT NULL").format(sql.Identifier(name), sql.SQL(type_.name))
            for name, type_ in zip(job.key, key_types, strict=True)
        ),
        sql.SQL("{} {}").format(sql.Identifier(job.answer_column), sql.SQL(answers.name)),
        *(sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type_)) for name, type_ in _NEW.items()),
    ]
    name = sql.Identifier(*_parts(connection, job.target))
    with contextlib.suppress(psycopg.errors.DuplicateTable, psycopg.errors.UniqueViolation):
        connection.execute(
            sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(
                name, sql.SQL(", ").join(columns), identifiers(job.key)
            )
        )


def check(
    connection: Connection,
    target: Target,
    job: JobRecord,
    choices: Sequence[str],
    key_types: Sequence[ColumnType] | None,
) -> Form:
    """See that a table can take the answers of a job; what they look like.

    Args:
        connection: Where it is.
        target: The table.
        job: The job.
        choices: The only answers allowed; empty for any.
        key_types: The types of the key's columns where the rows come from; None where nobody knows them.

    Raises:
        TargetError: It lacks a column or a key, or one is of another type.
        NotPermitted: The role may not write into it.
    """
    _check_columns(connection, target, job, key_types)
    for name, oids in _BESIDES.items():
        if target.columns[name].oid not in oids:
            raise TargetError(f'column "{name}" of table {target.name} is not of type {_NEW[name]}')
    for name, type_ in zip(job.key, key_types or (), strict=False):
        own = target.columns[name]
        if _family(type_.oid) != _family(own.oid):
            raise TargetError(
                f'column "{name}" is of type {type_.name} in the query, and of type {own.name} in table {target.name}',
                hint="Cast it in the query.",
            )
    if not _has_key(connection, target.oid, job.key):
        raise TargetError(
            f"table {target.name} has no unique key of ({', '.join(job.key)})",
            hint=f"ALTER TABLE {target.name} ADD PRIMARY KEY ({identifiers(job.key).as_string(connection)});",
        )
    _check_written(connection, target, job)
    _check_rights(connection, target, job)
    return form_of(job, choices, target.columns[job.answer_column], lambda oid: _labels(connection, oid))


def _check_columns(
    connection: Connection, target: Target, job: JobRecord, key_types: Sequence[ColumnType] | None
) -> None:
    types = {name: type_.name for name, type_ in zip(job.key, key_types or (), strict=False)} | _NEW
    lacking = [name for name in (*job.key, job.answer_column, *BESIDES) if name not in target.columns]
    if not lacking:
        return
    if job.answer_column in lacking:
        types[job.answer_column] = form_of(job, ()).column.name
    added = [f"ADD {sql.Identifier(name).as_string(connection)} {types[name]}" for name in lacking if name in types]
    raise TargetError(
        f'table {target.name} has no column "{lacking[0]}"',
        hint=f"ALTER TABLE {target.name} {', '.join(added)};" if added else "",
    )


def _check_written(connection: Connection, target: Target, job: JobRecord) -> None:
    """See that PostgreSQL lets these columns be written, and no others have to be."""
    rows = connection.execute(
        "SELECT attname::text, attgenerated <> '' OR attidentity = 'a', attnotnull, atthasdef OR attidentity <> '' "
        "FROM pg_catalog.pg_attribute WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [target.oid],
    )
    for name, is_generated, is_not_null, has_default in rows:
        column = f'column "{name}" of table {target.name}'
        alter = f"ALTER TABLE {target.name} ALTER {sql.Identifier(name).as_string(connection)}"
        if name not in (*job.key, job.answer_column, *BESIDES):
            if is_not_null and not has_default:
                raise TargetError(f"{column} has no default, and may not be NULL", hint=f"{alter} SET DEFAULT …")
        elif is_generated:
            raise TargetError(f"{column} is generated, and cannot be written")
        elif is_not_null and name in (job.answer_column, ERROR):
            raise TargetError(
                f"{column} may not be NULL, as one of answer and error is", hint=f"{alter} DROP NOT NULL;"
            )


def _check_rights(connection: Connection, target: Target, job: JobRecord) -> None:
    answered = [job.answer_column, *BESIDES]
    rights = {
        "SELECT": [*job.key, *answered],  # an upsert reads what it may write
        "INSERT": [*job.key, *answered],
        "UPDATE": answered,
    }
    for right, columns in rights.items():
        row = connection.execute(
            "SELECT pg_catalog.bool_and(pg_catalog.has_column_privilege($1::oid, a.attnum, $2)) "
            "FROM pg_catalog.pg_attribute AS a "
            "WHERE a.attrelid = $1::oid AND a.attname = ANY ($3::text[])",
            [target.oid, right, columns],
        ).fetchone()
        if not (row and row[0]):
            raise NotPermitted(
                f"permission denied for table {target.name}",
                hint=f"Ask its owner for: GRANT SELECT, INSERT, UPDATE ON {target.name} TO your role;",
            )
    if connection.execute("SHOW transaction_read_only").fetchone() == ("on",):
        raise TargetError(
            "this connection to PostgreSQL is for reading only",
            hint="Name the primary server; answers of a standby's rows can be written into a file.",
        )
    row = connection.execute(
        "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMP')"
    ).fetchone()
    if not (row and row[0]):
        raise NotPermitted(
            "permission denied to make temporary tables in this database",
            hint="Ask its owner for: GRANT TEMPORARY ON DATABASE … TO your role;",
        )


def _parts(connection: Connection, name: str) -> list[str]:
    """The parts of a name, as PostgreSQL reads it."""
    try:
        row = connection.execute("SELECT pg_catalog.parse_ident($1)", [name]).fetchone()
    except psycopg.errors.InvalidParameterValue:
        raise _no_name(name) from None
    parts = list(row[0]) if row else []
    if not 1 <= len(parts) <= 2:
        raise _no_name(name)
    return parts


def _no_name(name: str) -> OptionError:
    return OptionError(
        f"this is no name of a table: {name}",
        hint='Write it as in SQL: review_kind, public.review_kind, "My Schema"."Kind".',
    )


def _has_key(connection: Connection, table: int, key: Sequence[str]) -> bool:
    """Whether a unique index holds exactly these columns, for all rows and at once."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_index AS x WHERE x.indrelid = $1::oid AND x.indisunique "
        "AND x.indisvalid AND x.indimmediate AND x.indpred IS NULL AND x.indexprs IS NULL AND ARRAY("
        "SELECT a.attname::text FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = x.indrelid "
        "AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1]) ORDER BY 1) OPERATOR(pg_catalog.=) "
        "ARRAY(SELECT pg_catalog.unnest($2::text[]) ORDER BY 1))",
        [table, list(key)],
    ).fetchone()
    return bool(row and row[0])


def _labels(connection: Connection, oid: int) -> tuple[str, ...]:
    """An enum's labels in their order; none of any other type."""
    rows = connection.execute(
        "SELECT enumlabel FROM pg_catalog.pg_enum WHERE enumtypid = $1::oid ORDER BY enumsortorder", [oid]
    )
    return tuple(str(row[0]) for row in rows)


def _family(oid: int) -> int:
    """Types whose values can be told apart alike have one."""
    return TEXT if oid in (TEXT, VARCHAR, BPCHAR) else min(INTEGERS) if oid in INTEGERS else oid

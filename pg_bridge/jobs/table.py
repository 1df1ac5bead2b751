"""The writing side of a table: made or checked before a question is asked, written in committed parts.

In: the target's name, the key's columns and their types. Out: rows of key, answer, model, digest, time, error. A part
goes by COPY into a temporary table and from there, in the same transaction, by an upsert: so it may be written twice.
What stands in the table with the digest of what would be asked now is not asked again. One run at a time writes into a
table, or for each part of its rows: advisory locks keep a second one out. Nothing is ever deleted, and no column
changed but those named above.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from psycopg import sql

from pg_bridge.errors import JobError, JobRunning, KeyFault, NotPermitted
from pg_bridge.foreign.answers import TEXT, ColumnType
from pg_bridge.jobs import target
from pg_bridge.jobs.answers import Form, form_of
from pg_bridge.jobs.database import Connection, Database, identifiers
from pg_bridge.jobs.keys import SeenKeys
from pg_bridge.jobs.operators import Operators, arrays_of_texts
from pg_bridge.jobs.record import ANSWERED_AT, DIGEST, ERROR, MODEL, Done, Item, JobRecord
from pg_bridge.jobs.target import Target

LOCK_WITHIN_S = 10.0  # a run that was killed leaves a backend behind, which may be at a statement
_LOCK = 0x70675F62 << 32
_STAGE = "pg_bridge_stage"
_NOT_YET = "not asked yet"


class TableWriting:
    """Writes into a table.

    Args:
        database: Where it is.
        job: What is written; its target is the table's name, as SQL has it.
        choices: The only answers allowed; empty for any.
        key_types: Of the key's columns; None where they are known only by the table.
        check: Called while it waits; raises to stop.
        lock_within_s: How long the end of another run is waited for.

    Attributes:
        model: The model that answers, to be set before anything is written.
        wanted_model: If answers of other models do not count, the one that does.
        operators: Those of the key, once it is open.
    """

    def __init__(
        self,
        database: Database,
        job: JobRecord,
        choices: Sequence[str],
        key_types: Sequence[ColumnType] | None,
        check: Callable[[], None] = lambda: None,
        lock_within_s: float = LOCK_WITHIN_S,
    ) -> None:
        self.model = ""
        self.wanted_model: str | None = None
        self.operators = Operators((), ())
        self._database = database
        self._lock_within_s = lock_within_s
        self._job = job
        self._choices = choices
        self._key_types = key_types
        self._check = check
        self._form: Form | None = None
        self._found: Target | None = None
        self._locked_by = 0  # the generation of the connection that has the lock
        self._staged_by = 0  # the same of the temporary table
        self._is_empty = False
        self._is_guarded = False  # by policies, which may refuse a row
        self._seen: SeenKeys | None = None

    @property
    def form(self) -> Form:
        """What answers look like."""
        assert self._form is not None  # noqa: S101 - open() comes first; for the type checker
        return self._form

    def open(self, *, is_rehearsal: bool = False) -> None:
        """Make the table, or see that it can take the answers, and keep other runs out of it.

        Args:
            is_rehearsal: Whether nothing will be written: then nothing is made and nobody kept out.

        Raises:
            TargetError: It lacks a column or a key, or is no table.
            NotPermitted: The role may not write into it, or not make it.
            JobRunning: Another run writes into it.
        """
        name = self._job.target
        found = self._database.run(lambda connection: target.look(connection, name))
        if found is None:
            types = self._key_types or [ColumnType(TEXT, -1, "text")] * len(self._job.key)
            self._form = form = form_of(self._job, self._choices)
            if is_rehearsal:
                return
            self._database.run(lambda connection: target.create(connection, self._job, types, form.column))
            found = self._database.run(lambda connection: target.look(connection, name))
        assert found is not None  # noqa: S101 - it has been made; for the type checker
        self._found = there = found
        types = [there.columns[name] for name in self._job.key if name in there.columns]  # what it lacks is told next
        self.operators = self._database.run(lambda connection: Operators.find(connection, types))
        self._form = self._database.run(
            lambda connection: target.check(connection, there, self._job, self._choices, self._key_types)
        )
        self._seen = self._database.run(
            lambda connection: SeenKeys(connection, there, self._job.key, is_printed=self._key_types is not None)
        )
        if self._seen.is_folded and self._job.part.of > 1:  # two spellings may be of two parts, which see one each
            raise KeyFault(
                f"a collation of table {name}'s key ({', '.join(self._job.key)}) holds different texts for equal",
                sqlstate="0A000",
                hint="Such rows are not read in parts: leave those out, or give the key's column another collation.",
            )
        if not is_rehearsal:
            self._lock()
            active = "SELECT pg_catalog.row_security_active($1::oid)"
            self._is_guarded = self._database.run(lambda c: c.execute(active, [there.oid]).fetchone()) == (True,)

    def begin(self) -> None:
        """As in `Writing`."""
        if self._seen is not None:
            self._seen.begin()
        if self._found is not None:
            name = sql.SQL(self._found.name)
            empty = sql.SQL("SELECT NOT EXISTS (SELECT FROM {})").format(name)
            self._is_empty = self._database.run(lambda connection: connection.execute(empty).fetchone()) == (True,)

    def unknown(self, items: Sequence[Item]) -> list[Item]:
        """As in `Writing`.

        Raises:
            KeyFault: Two keys are one for the table.
            NotPermitted: One of its policies refuses a row.
            JobError: PostgreSQL failed.
        """
        if self._found is None or not items:
            return list(items)
        self._check_keys(items)
        known = {} if self._is_empty else self._database.run(lambda connection: self._digests(connection, items))
        unknown = [item for i, item in enumerate(items) if known.get(i) != item.digest]
        if unknown and self._is_guarded:
            self._check_policies(unknown)
        return unknown

    def write(self, done: Sequence[Done]) -> None:
        """As in `Writing`.

        Raises:
            JobError: PostgreSQL refused it.
        """
        self._write_locked(done)

    def finish(self) -> None:
        """As in `Writing`."""

    def close(self) -> None:
        """As in `Writing`; the lock goes with the connection."""
        self._database.close()

    def _check_keys(self, items: Sequence[Item]) -> None:
        seen = self._seen
        if seen is None or not seen.is_needed:
            return
        try:
            are_new = self._database.run(lambda c: seen.are_new(c, self._database.generation, items))
        except JobError as error:
            if not error.is_refusal:
                raise
            return  # a key that the table cannot hold is refused when it is written, and no other with it
        if not are_new:
            raise KeyFault(
                f"two rows have keys that are equal for table {self._job.target} ({', '.join(self._job.key)})",
                hint="They may be spelled differently, as 1.0 and 1.00 are. Leave all but one of them out.",
            )

    def _check_policies(self, items: Sequence[Item]) -> None:
        """Write rows as if they had failed, and take that back: only PostgreSQL knows what policies refuse."""
        try:
            self._write_locked(
                [Done(item.key, item.digest, None, _NOT_YET, item.beside) for item in items], is_kept=False
            )
        except NotPermitted as error:
            hint = (
                "Leave out the rows that its policies refuse, or ask its owner for one that lets your role write them."
            )
            raise NotPermitted(error.message, hint=hint) from None
        except JobError as error:
            if not error.is_refusal:  # by a CHECK, say, which may have nothing against an answer
                raise

    def _write_locked(self, done: Sequence[Done], *, is_kept: bool = True) -> None:
        is_written = False
        while not is_written:
            self._lock()
            is_written = self._database.run(lambda connection: self._write(connection, done, is_kept=is_kept))

    def _lock(self) -> None:
        """Keep other runs out; after a new connection anew, past what the old one may have left behind."""
        until = time.monotonic() + self._lock_within_s
        while not self._database.run(self._try_lock):
            if time.monotonic() > until:
                name = self._found.name if self._found else self._job.target
                raise JobRunning(
                    f"another run is writing into table {name}",
                    hint="Wait for its end. pg_locks has its process, as an advisory lock of this database.",
                )
            self._check()
            time.sleep(0.1)

    def _try_lock(self, connection: Connection) -> bool:
        if self._locked_by == self._database.generation:
            return True
        number = _LOCK | (self._found.oid if self._found else 0)
        if self._try_locks(connection, number):
            self._locked_by = self._database.generation
            return True
        for pid in self._database.pids[:-1]:  # a backend of ours, which does not know yet that we are gone
            connection.execute(
                "SELECT pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks AS l "
                "WHERE l.locktype = 'advisory' AND l.pid = $1::int "
                "AND (l.classid::bigint << 32 | l.objid::bigint) = $2::bigint",
                [pid, number],
            )
        return False

    def _try_locks(self, connection: Connection, number: int) -> bool:
        """Lock the table, or a part of its rows together with those who have other parts."""
        part = self._job.part

        def is_done(function: str, number: int) -> bool:
            return connection.execute(f"SELECT pg_catalog.{function}($1::bigint)".encode(), [number]).fetchone() == (
                True,
            )

        if part.of == 1:
            return is_done("pg_try_advisory_lock", number)
        own = blake2b(repr((number, part)).encode(), digest_size=8).digest()
        if not is_done("pg_try_advisory_lock_shared", number):
            return False
        if is_done("pg_try_advisory_lock", int.from_bytes(own, signed=True)):
            return True
        is_done("pg_advisory_unlock_shared", number)
        return False

    def _digests(self, connection: Connection, items: Sequence[Item]) -> dict[int, str]:
        """By the place of the item, the digests of what is answered."""
        assert self._found is not None  # noqa: S101 - unknown() has looked; for the type checker
        names = [f"k{i}" for i in range(len(self._job.key))]
        equal = self.operators.compare(
            [sql.Identifier("t", name) for name in self._job.key], "=", [sql.Identifier("i", name) for name in names]
        )
        statement = sql.SQL(
            "SELECT i.place, t.{digest} FROM {arrays} WITH ORDINALITY AS i ({names}, place) "
            "JOIN {table} AS t ON {equal} "
            "WHERE t.{answer} IS NOT NULL AND (${model}::text IS NULL OR t.{of}::text OPERATOR(pg_catalog.=) ${model})"
        ).format(
            digest=sql.Identifier(DIGEST),
            arrays=arrays_of_texts(len(names)),
            names=identifiers(names),
            table=sql.SQL(self._found.name),
            equal=equal,
            answer=sql.Identifier(self._job.answer_column),
            of=sql.Identifier(MODEL),
            model=sql.Literal(len(names) + 1),
        )
        keys: list[Any] = [list(column) for column in zip(*(item.key for item in items), strict=True)]
        found = connection.execute(statement, [*keys, self.wanted_model]).fetchall()
        return {place - 1: digest for place, digest in found}

    def _write(self, connection: Connection, done: Sequence[Done], *, is_kept: bool) -> bool:
        """Write a part; whether that could be done, which it cannot on a new connection before that has the lock."""
        if self._locked_by != self._database.generation:
            return False
        assert self._found is not None  # noqa: S101 - open() has made it; for the type checker
        columns = [*self._job.key, self._job.answer_column, DIGEST, ERROR, *self._job.beside]
        if self._staged_by != self._database.generation:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS pg_temp.{}").format(sql.Identifier(_STAGE)))
            connection.execute(
                sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DELETE ROWS AS SELECT {} FROM {} WITH NO DATA").format(
                    sql.Identifier(_STAGE), identifiers(columns), sql.SQL(self._found.name)
                )
            )
            self._staged_by = self._database.generation
        stage = sql.Identifier("pg_temp", _STAGE)
        copy = sql.SQL("COPY {} ({}) FROM STDIN").format(stage, identifiers(columns))
        set_ = sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
            for name in (self._job.answer_column, DIGEST, ERROR, MODEL, ANSWERED_AT, *self._job.beside)
        )
        upsert = sql.SQL(
            "INSERT INTO {} ({}) SELECT {}, $1, pg_catalog.now() FROM {} ON CONFLICT ({}) DO UPDATE SET {}"
        ).format(
            sql.SQL(self._found.name),
            identifiers([*columns, MODEL, ANSWERED_AT]),
            identifiers(columns),
            stage,
            identifiers(self._job.key),
            set_,
        )
        with connection.transaction(force_rollback=not is_kept), connection.cursor() as cursor:
            with cursor.copy(copy) as rows:
                for each in done:
                    rows.write_row((*each.key, each.answer, each.digest, each.error, *each.beside))
            cursor.execute(upsert, [self.model])
        return True

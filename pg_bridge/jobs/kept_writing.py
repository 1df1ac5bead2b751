"""The writing side of a kept column: answers, and notes that are done with.

In: a column's table of answers and of changes, as `kept` knows them. A note is deleted when what it tells of has been
answered, by its own number and never by a number up to which all were seen: so what changes while it is asked about has
a note of its own, and is asked about again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from psycopg import sql

from pg_bridge.jobs.database import Database
from pg_bridge.jobs.noted import NotedReading, Work, columns_of, key_rows
from pg_bridge.jobs.operators import Operators
from pg_bridge.jobs.record import Done, Item
from pg_bridge.jobs.table import TableWriting


class KeptWriting:
    """Writes answers, and deletes the notes of what has been dealt with; where a row is gone, its answer, too.

    Args:
        database: Where they are.
        work: The column's tables.
        table: What writes answers.
        key_types: As for `NotedReading`.
        noted: What reads the noted rows; None where all are read.
    """

    def __init__(
        self,
        database: Database,
        work: Work,
        table: TableWriting,
        key_types: Sequence[str],
        noted: NotedReading | None,
    ) -> None:
        self._database = database
        self._work = work
        self._table = table
        self._types = tuple(key_types[: len(work.key)])
        self._noted = noted
        self._left: Counter[tuple[str, ...]] = Counter()  # by the row's key, what of it is asked about

    def begin(self) -> None:
        """As in `Writing`."""
        self._left.clear()
        self._table.begin()

    def unknown(self, items: Sequence[Item]) -> list[Item]:
        """As in `Writing`."""
        if self._noted is not None:
            gone = self._noted.take_gone()
            if gone:
                self._forget(gone)
        unknown = self._table.unknown(items)
        rows = {self._row_of(item.key): item.key for item in items}  # each with the last one of it
        if self._work.in_chunks and rows:
            self._forget_behind(list(rows.values()))
        self._left.update(self._row_of(item.key) for item in unknown)
        self._delete_notes([row for row in rows if row not in self._left])
        return unknown

    def write(self, done: Sequence[Done]) -> None:
        """As in `Writing`. Killed between the two, it finds an answer to what is noted, and asks nothing."""
        self._table.write(done)
        written = Counter(self._row_of(each.key) for each in done)
        self._left -= written
        self._delete_notes([row for row in written if row not in self._left])

    def finish(self) -> None:
        """As in `Writing`."""
        self._table.finish()

    def close(self) -> None:
        """As in `Writing`."""
        self._table.close()

    def _row_of(self, key: tuple[str, ...]) -> tuple[str, ...]:
        return key[: len(self._work.key)]

    def _forget(self, gone: Sequence[tuple[str, ...]]) -> None:
        """Delete the answers about rows that are gone."""
        work = self._work
        statement = sql.SQL("DELETE FROM {} AS llm_answer USING {} WHERE {}").format(
            sql.SQL(work.answers), key_rows(work.key, self._types), self._is_same_row()
        )
        self._database.run(lambda connection: connection.execute(statement, columns_of(gone)))
        self._delete_notes(gone)

    def _forget_behind(self, last: Sequence[tuple[str, ...]]) -> None:
        """Delete the answers about chunks behind the last one that each row has now."""
        work = self._work
        statement = sql.SQL(
            "DELETE FROM {} AS llm_answer USING {} "
            "WHERE {} AND llm_answer.chunk_no OPERATOR(pg_catalog.>) llm_key.chunk_no"
        ).format(
            sql.SQL(work.answers), key_rows(work.answers_key, (*self._types, "pg_catalog.int4")), self._is_same_row()
        )
        self._database.run(lambda connection: connection.execute(statement, columns_of(last)))

    def _is_same_row(self) -> sql.Composed:
        """The condition for an answer to be about the row of a key."""
        key, operators = self._work.key, self._table.operators
        return Operators(operators.types[: len(key)], operators.schemas[: len(key)]).compare(
            [sql.Identifier("llm_answer", name) for name in key],
            "=",
            [sql.Identifier("llm_key", name) for name in key],
        )

    def _delete_notes(self, keys: Sequence[tuple[str, ...]]) -> None:
        if self._noted is not None:
            notes = self._noted.notes
            delete_notes(self._database, self._work, [note for key in keys for note in notes.get(key, ())])


def delete_notes(database: Database, work: Work, numbers: Sequence[int]) -> None:
    """Delete just these notes."""
    statement = sql.SQL("DELETE FROM {} WHERE noted = ANY ($1::bigint[])").format(sql.SQL(work.changes))
    if numbers:
        database.run(lambda connection: connection.execute(statement, [list(numbers)]))

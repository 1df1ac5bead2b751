"""The two sides of a kept column: rows whose changes were noted, or all of them; answers, and notes that are done with.

In: a column's table, its table of changes and of answers, as `kept` knows them. Out: `Item`s, each once in a pass. A
note is deleted when what it tells of has been answered, by its own number and never by a number up to which all were
seen: so what changes while it is asked about has a note of its own, and is asked about again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from pg_bridge.jobs.database import Connection, Database, identifiers
from pg_bridge.jobs.operators import arrays_of_texts
from pg_bridge.jobs.query import FIRST_PAGE_ROWS, MOST_PAGE_ROWS, PAGE_CHARS, QueryReading
from pg_bridge.jobs.record import Done, Item, digest_of
from pg_bridge.jobs.table import TableWriting

SLICE_ROWS = 20_000
"""Rows that one pass is about, before others have their turn."""


@dataclass(frozen=True, slots=True)
class Work:
    """A kept column's tables, in today's names, each as a statement needs it.

    Attributes:
        relation: Whose rows are asked about.
        key: The columns of the key in the tables of answers and changes.
        key_columns: The same in the table itself.
        sent: What the prompt calls the columns that are sent.
        sent_columns: What the table calls them.
        answers: The table of answers.
        changes: The table of notes.
        equal: The condition for a row `llm_row` of the table to have the key `llm_key`.
    """

    relation: str
    key: tuple[str, ...]
    key_columns: tuple[str, ...]
    sent: tuple[str, ...]
    sent_columns: tuple[str, ...]
    answers: str
    changes: str
    equal: str

    @property
    def query(self) -> str:
        """All rows, in the prompt's names."""
        named = dict(zip(self.key, self.key_columns, strict=True)) | dict(
            zip(self.sent, self.sent_columns, strict=True)
        )
        cells = sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(sql.Identifier("llm_row", column), sql.Identifier(name))
            for name, column in named.items()
        )
        return sql.SQL("SELECT {} FROM {} AS llm_row").format(cells, sql.SQL(self.relation)).as_string(None)


class NotedReading:
    """Reads the rows whose keys are noted: the first `SLICE_ROWS` of them.

    Args:
        database: Where they are.
        work: The column's tables.
        columns: Those of its query.
        key_types: The types of the key, as PostgreSQL writes them.

    Attributes:
        columns: As given.
        expected_rows: As many as are noted.
        notes: By key, the numbers of its notes.
    """

    def __init__(self, database: Database, work: Work, columns: Sequence[str], key_types: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self.expected_rows: int | None = None
        self.notes: dict[tuple[str, ...], list[int]] = {}
        self._database = database
        self._work = work
        self._types = tuple(key_types)
        self._sent: Sequence[str] = ()
        self._context = b""
        self._left: list[tuple[str, ...]] = []
        self._page_rows = FIRST_PAGE_ROWS
        self._gone: list[tuple[str, ...]] = []

    def begin(self, sent: Sequence[str], context: bytes) -> None:
        """As in `Reading`; looks anew at what is noted."""
        self._sent, self._context = sent, context
        self.notes = self._database.read(self._noted)
        self._left = list(self.notes)
        self._gone = []
        self.expected_rows = len(self._left)

    def fetch(self) -> list[Item]:
        """As in `Reading`: a page of rows that are there; of the others `take_gone` tells."""
        while self._left:
            keys, self._left = self._left[: self._page_rows], self._left[self._page_rows :]
            texts = self._database.read(lambda connection, keys=keys: self._texts(connection, keys))  # type: ignore[misc]
            items = [
                Item(key, text, "", digest_of(self._context, text))
                for key, text in zip(keys, texts, strict=True)
                if text is not None
            ]
            self._gone += [key for key, text in zip(keys, texts, strict=True) if text is None]
            chars = sum(len(item.text) for item in items)
            fits = int(PAGE_CHARS / max(1.0, chars / len(keys)))
            self._page_rows = max(1, min(fits, 2 * self._page_rows, MOST_PAGE_ROWS))
            if items:
                return items
        return []

    def take_gone(self) -> list[tuple[str, ...]]:
        """Keys that were read since this was last called, and of which there is no row."""
        gone, self._gone = self._gone, []
        return gone

    def _noted(self, connection: Connection) -> dict[tuple[str, ...], list[int]]:
        key = self._work.key
        statement = sql.SQL(
            "SELECT pg_catalog.array_agg(n.noted), {texts} FROM "
            "(SELECT * FROM {changes} WHERE {first} IS NOT NULL ORDER BY noted LIMIT {most}) AS n GROUP BY {key}"
        ).format(
            texts=sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier("n", name)) for name in key),
            changes=sql.SQL(self._work.changes),
            first=sql.Identifier(key[0]),
            most=sql.Literal(SLICE_ROWS),
            key=identifiers(key, "n"),
        )
        return {tuple(row[1:]): row[0] for row in connection.execute(statement)}

    def _texts(self, connection: Connection, keys: Sequence[tuple[str, ...]]) -> list[str | None]:
        """The rows of some keys; None where there is none."""
        work = self._work
        named = dict(zip(work.sent, work.sent_columns, strict=True)) | dict(
            zip(work.key, work.key_columns, strict=True)
        )
        # By the key's index, row by row: of a join PostgreSQL might make texts of all rows first.
        statement = sql.SQL(
            "SELECT found.text FROM {keys} LEFT JOIN LATERAL ("
            "SELECT pg_catalog.row_to_json(sent.*)::text AS text FROM {relation} AS llm_row "
            "CROSS JOIN LATERAL (SELECT {cells}) AS sent "
            "WHERE {equal} LIMIT 1) AS found ON true ORDER BY llm_key.llm_place"
        ).format(
            keys=key_rows(work.key, self._types),
            relation=sql.SQL(work.relation),
            cells=sql.SQL(", ").join(
                sql.SQL("{} AS {}").format(sql.Identifier("llm_row", named[name]), sql.Identifier(name))
                for name in self._sent
            ),
            equal=sql.SQL(work.equal),
        )
        return [row[0] for row in connection.execute(statement, _columns(keys))]


class SliceReading:
    """Reads all rows of a kept column's table, `SLICE_ROWS` or somewhat more in each pass.

    Args:
        rows: What reads them.
        behind: The last key of the former slice; None for the first.

    Attributes:
        columns: Of the rows.
        expected_rows: None: a slice is of no known size.
        last: The last key that was read; None where no row is left behind it.
    """

    def __init__(self, rows: QueryReading, behind: tuple[str, ...] | None) -> None:
        self.columns = rows.columns
        self.expected_rows: int | None = None
        self.last = behind
        self._rows = rows
        self._behind = behind
        self._read = 0

    def begin(self, sent: Sequence[str], context: bytes) -> None:
        """As in `Reading`."""
        self._rows.begin(sent, context)
        if self._behind is not None:
            self._rows.go_on_behind(self._behind)
        self._read, self.last = 0, self._behind

    def fetch(self) -> list[Item]:
        """As in `Reading`."""
        if self._read >= SLICE_ROWS:
            return []
        items = self._rows.fetch()
        self._read += len(items)
        self.last = items[-1].key if items else None
        return items


class KeptWriting:
    """Writes answers, and deletes the notes of what has been dealt with; where a row is gone, its answer, too.

    Args:
        database: Where they are.
        work: The column's tables.
        table: What writes answers.
        key_types: The types of the key.
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
        self._types = tuple(key_types)
        self._noted = noted

    def begin(self) -> None:
        """As in `Writing`."""
        self._table.begin()

    def unknown(self, items: Sequence[Item]) -> list[Item]:
        """As in `Writing`."""
        if self._noted is not None:
            gone = self._noted.take_gone()
            if gone:
                self._forget(gone)
        unknown = self._table.unknown(items)
        asked = {item.key for item in unknown}
        self._delete_notes([item.key for item in items if item.key not in asked])
        return unknown

    def write(self, done: Sequence[Done]) -> None:
        """As in `Writing`. Killed between the two, it finds an answer to what is noted, and asks nothing."""
        self._table.write(done)
        self._delete_notes([each.key for each in done])

    def finish(self) -> None:
        """As in `Writing`."""
        self._table.finish()

    def close(self) -> None:
        """As in `Writing`."""
        self._table.close()

    def _forget(self, gone: Sequence[tuple[str, ...]]) -> None:
        """Delete the answers about rows that are gone."""
        work = self._work
        equal = self._table.operators.compare(
            [sql.Identifier("llm_answer", name) for name in work.key],
            "=",
            [sql.Identifier("llm_key", name) for name in work.key],
        )
        statement = sql.SQL("DELETE FROM {} AS llm_answer USING {} WHERE {}").format(
            sql.SQL(work.answers), key_rows(work.key, self._types), equal
        )
        self._database.run(lambda connection: connection.execute(statement, _columns(gone)))
        self._delete_notes(gone)

    def _delete_notes(self, keys: Sequence[tuple[str, ...]]) -> None:
        if self._noted is not None:
            notes = self._noted.notes
            delete_notes(self._database, self._work, [note for key in keys for note in notes.get(key, ())])


def delete_notes(database: Database, work: Work, numbers: Sequence[int]) -> None:
    """Delete just these notes."""
    statement = sql.SQL("DELETE FROM {} WHERE noted = ANY ($1::bigint[])").format(sql.SQL(work.changes))
    if numbers:
        database.run(lambda connection: connection.execute(statement, [list(numbers)]))


def key_rows(key: Sequence[str], types: Sequence[str]) -> sql.Composed:
    """Rows `llm_key` of keys that are handed over as one array of texts for each column, and their place."""
    names = [f"k{number}" for number in range(len(key))]
    cells = sql.SQL(", ").join(
        sql.SQL("k.{}::{} AS {}").format(sql.Identifier(name), sql.SQL(type_), sql.Identifier(column))
        for name, type_, column in zip(names, types, key, strict=True)
    )
    return sql.SQL("(SELECT {}, k.llm_place FROM {} WITH ORDINALITY AS k ({}, llm_place)) AS llm_key").format(
        cells, arrays_of_texts(len(key)), identifiers(names)
    )


def _columns(keys: Sequence[tuple[str, ...]]) -> list[Any]:
    return [list(column) for column in zip(*keys, strict=True)]

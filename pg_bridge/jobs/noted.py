"""The reading side of a kept column: rows whose changes were noted, or all of them.

In: a column's table and its table of changes, as `kept` knows them. Out: `Item`s, each once in a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from pg_bridge.jobs.database import Connection, Database, identifiers
from pg_bridge.jobs.operators import arrays_of_texts
from pg_bridge.jobs.query import FIRST_PAGE_ROWS, MOST_PAGE_ROWS, PAGE_CHARS, QueryReading
from pg_bridge.jobs.record import Item, digest_of

SLICE_ROWS = 20_000
"""Rows that one pass is about, before others have their turn."""


@dataclass(frozen=True, slots=True)
class Work:
    """A kept column's tables, in today's names, each as a statement needs it.

    Attributes:
        relation: Whose rows are asked about: the table, or a subquery of what of it is.
        key: The columns of the key in the tables of answers and changes.
        key_columns: The same in the table itself.
        sent: What the prompt calls the columns that are sent.
        sent_columns: What the table calls them.
        answers: The table of answers.
        changes: The table of notes.
        equal: The condition for a row `llm_row` of the table to have the key `llm_key`.
        rows: The table itself.
        in_chunks: Whether each row has an answer for each chunk of it.
    """

    relation: str
    key: tuple[str, ...]
    key_columns: tuple[str, ...]
    sent: tuple[str, ...]
    sent_columns: tuple[str, ...]
    answers: str
    changes: str
    equal: str
    rows: str
    in_chunks: bool

    @property
    def answers_key(self) -> tuple[str, ...]:
        """The key of the table of answers."""
        return (*self.key, "chunk_no") if self.in_chunks else self.key

    @property
    def beside(self) -> tuple[str, ...]:
        """The columns that hold what an answer is about."""
        return ("chunk_start", "chunk") if self.in_chunks else ()

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
        key_types: The types of the key, as PostgreSQL writes them, and of what the answers' has besides.

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
        self._types = tuple(key_types[: len(work.key)])
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
            items = self._database.read(lambda connection, keys=keys: self._items(connection, keys))  # type: ignore[misc]
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

    def _items(self, connection: Connection, keys: Sequence[tuple[str, ...]]) -> list[Item]:
        """What there is of some keys, all of each; notes of which there is nothing."""
        work = self._work
        named = dict(zip(work.sent, work.sent_columns, strict=True)) | dict(
            zip(work.key, work.key_columns, strict=True)
        )
        # By the key's index, row by row: of a join PostgreSQL might make texts of all rows first.
        statement = sql.SQL(
            "SELECT llm_key.llm_place - 1, found.* FROM {keys} LEFT JOIN LATERAL ("
            "SELECT pg_catalog.row_to_json(sent.*)::text AS text{chunk} FROM {relation} AS llm_row "
            "CROSS JOIN LATERAL (SELECT {cells}) AS sent "
            "WHERE {equal} {few}) AS found ON true ORDER BY {order}"
        ).format(
            chunk=sql.SQL(", llm_chunk_no::text AS no, llm_chunk_start::text, llm_chunk" if work.in_chunks else ""),
            few=sql.SQL("OFFSET 0" if work.in_chunks else "LIMIT 1"),
            order=sql.SQL("llm_key.llm_place, found.no::int" if work.in_chunks else "llm_key.llm_place"),
            keys=key_rows(work.key, self._types),
            relation=sql.SQL(work.relation),
            cells=sql.SQL(", ").join(
                sql.SQL("{} AS {}").format(sql.Identifier("llm_row", named[name]), sql.Identifier(name))
                for name in self._sent
            ),
            equal=sql.SQL(work.equal),
        )
        items = []
        for place, text, *chunk in connection.execute(statement, columns_of(keys)):
            if text is None:
                self._gone.append(keys[place])
            else:
                items.append(
                    Item((*keys[place], *chunk[:1]), text, "", digest_of(self._context, text), tuple(chunk[1:]))
                )
        return items


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


def columns_of(keys: Sequence[tuple[str, ...]]) -> list[Any]:
    """The parameters of `key_rows`."""
    return [list(column) for column in zip(*keys, strict=True)]

"""Keys that have several spellings, compared as the target compares them, before a question is asked.

In: a table and its key; the rows as they are read. Out: whether each key is a new one. 1.0 and 1.00 are one number, and
so may `Heat` and `heat` be by a collation: as two rows of one part they would fail it, in two parts one would take the
other's place. PostgreSQL itself tells, by a temporary table with a unique index of the key's types and collations. A
key whose equal values have one spelling, as most have, needs none of this.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from pg_bridge.foreign.answers import BOOL, DATE, INTEGERS, TEXT, TIMESTAMP, TIMESTAMPTZ, UUID, VARCHAR
from pg_bridge.jobs.database import Connection, identifiers
from pg_bridge.jobs.operators import arrays_of_texts
from pg_bridge.jobs.record import Item
from pg_bridge.jobs.target import Target

_SEEN = "pg_bridge_keys"
_SPELLED_ONCE = {TEXT, VARCHAR}  # where the collation is deterministic
_PRINTED_ONCE = {BOOL, DATE, TIMESTAMP, TIMESTAMPTZ, UUID, *INTEGERS}  # by PostgreSQL; a file may have 1 and 01


class SeenKeys:
    """The keys that a pass has read.

    Args:
        connection: Where the table is.
        table: The table.
        key: The columns of its key.
        is_printed: Whether PostgreSQL has printed the keys that come; else they are as a file has them.

    Attributes:
        is_needed: Whether two spellings may be one key.
        is_folded: Whether they may be so by a collation.
    """

    def __init__(self, connection: Connection, table: Target, key: Sequence[str], *, is_printed: bool) -> None:
        self._table = table
        self._key = tuple(key)
        self._made_by = 0  # the generation of the connection that has the temporary table
        found = connection.execute(
            "SELECT a.attname::text, a.atttypid, pg_catalog.format_type(a.atttypid, -1), "
            "coalesce(c.collisdeterministic, true) "
            "FROM pg_catalog.pg_attribute AS a LEFT JOIN pg_catalog.pg_collation AS c ON c.oid = a.attcollation "
            "WHERE a.attrelid = $1::oid AND a.attname = ANY ($2::text[])",
            [table.oid, list(key)],
        ).fetchall()
        once = _SPELLED_ONCE | (_PRINTED_ONCE if is_printed else set())
        self.is_needed = not all(type_ in once and is_deterministic for _, type_, _, is_deterministic in found)
        self.is_folded = not all(is_deterministic for *_, is_deterministic in found)
        self._types = {name: str(type_) for name, _, type_, _ in found}  # without a length: a cast would cut to it

    def begin(self) -> None:
        """Forget all keys: the rows are read from the first one on."""
        self._made_by = 0

    def are_new(self, connection: Connection, generation: int, items: Sequence[Item]) -> bool:
        """Note the keys of some rows; whether none was there before, nor is there twice.

        Args:
            connection: The connection.
            generation: Its number. What an earlier one has noted is gone.
            items: The rows.

        Raises:
            psycopg.DataError: A key is no value of its type.
        """
        seen = sql.Identifier("pg_temp", _SEEN)
        if self._made_by != generation:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(seen))
            connection.execute(
                sql.SQL("CREATE TEMPORARY TABLE {} AS SELECT {} FROM {} WITH NO DATA").format(
                    sql.Identifier(_SEEN), identifiers(self._key), sql.SQL(self._table.name)
                )
            )
            connection.execute(sql.SQL("CREATE UNIQUE INDEX ON {} ({})").format(seen, identifiers(self._key)))
            self._made_by = generation
        names = [f"k{i}" for i in range(len(self._key))]
        statement = sql.SQL("INSERT INTO {} SELECT {} FROM {} AS i ({}) ON CONFLICT DO NOTHING").format(
            seen,
            sql.SQL(", ").join(
                sql.SQL("{}::{}").format(sql.Identifier("i", name), sql.SQL(self._types[column]))
                for name, column in zip(names, self._key, strict=True)
            ),
            arrays_of_texts(len(names)),
            identifiers(names),
        )
        keys = [list(column) for column in zip(*(item.key for item in items), strict=True)]
        return connection.execute(statement, keys).rowcount == len(items)

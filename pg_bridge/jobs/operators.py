"""The comparisons of keys, by operators that are named with their schema.

In: types, names of columns, values. Out: conditions. A job's path is its role's and may have schemas in it in which
others may create: an operator of theirs that fits a type better than PostgreSQL's own would be taken before it, and run
as who submitted. So what is executed in such a session says where its operators and functions are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from pg_bridge.foreign.answers import ColumnType
from pg_bridge.jobs.database import Connection

# That of the type's own order, as of an extension's type; of others, PostgreSQL's, whatever they are made of.
_SCHEMAS = """
WITH RECURSIVE made AS (
    SELECT t.oid, t.typbasetype, u.place
    FROM ROWS FROM (pg_catalog.unnest($1::oid[])) WITH ORDINALITY AS u (type, place)
    JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) u.type
    UNION ALL
    SELECT t.oid, t.typbasetype, m.place
    FROM made AS m JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) m.typbasetype
)
SELECT coalesce((
    SELECT n.nspname::text
    FROM pg_catalog.pg_opclass AS c
    JOIN pg_catalog.pg_am AS a ON a.oid OPERATOR(pg_catalog.=) c.opcmethod AND a.amname OPERATOR(pg_catalog.=) 'btree'
    JOIN pg_catalog.pg_amop AS s ON s.amopfamily OPERATOR(pg_catalog.=) c.opcfamily
        AND s.amoplefttype OPERATOR(pg_catalog.=) c.opcintype AND s.amoprighttype OPERATOR(pg_catalog.=) c.opcintype
        AND s.amopstrategy OPERATOR(pg_catalog.=) 3
    JOIN pg_catalog.pg_operator AS o ON o.oid OPERATOR(pg_catalog.=) s.amopopr
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace
    WHERE c.opcintype OPERATOR(pg_catalog.=) m.oid AND c.opcdefault
), 'pg_catalog')
FROM made AS m WHERE m.typbasetype OPERATOR(pg_catalog.=) 0 ORDER BY m.place
"""


@dataclass(frozen=True, slots=True)
class Operators:
    """Of a key's columns.

    Attributes:
        types: The columns' types, as PostgreSQL writes them.
        schemas: Where the operators of each are.
    """

    types: tuple[str, ...]
    schemas: tuple[str, ...]

    @classmethod
    def find(cls, connection: Connection, types: Sequence[ColumnType]) -> Operators:
        """Those of some types, in their order."""
        rows = connection.execute(_SCHEMAS, [[type_.oid for type_ in types]]).fetchall()
        return cls(tuple(type_.name for type_ in types), tuple(str(row[0]) for row in rows))

    def compare(
        self, columns: Sequence[sql.Composable], operator: str, values: Sequence[sql.Composable]
    ) -> sql.Composed:
        """A condition: columns compared with values, as PostgreSQL compares rows.

        Args:
            columns: Those of the key.
            operator: `=`, `>` or `>=`.
            values: Of types that have a cast to the columns'.
        """
        cast = [
            sql.SQL("{}::{}").format(value, sql.SQL(type_)) for value, type_ in zip(values, self.types, strict=True)
        ]
        if len(set(self.schemas)) == 1:
            return _apply(_listed(columns), self.schemas[0], operator, _listed(cast))
        rest = Operators(self.types[1:], self.schemas[1:]).compare(columns[1:], operator, values[1:])
        is_same = sql.SQL("{} AND {}").format(_apply(columns[0], self.schemas[0], "=", cast[0]), rest)
        if operator == "=":
            return is_same
        return sql.SQL("({} OR {})").format(_apply(columns[0], self.schemas[0], ">", cast[0]), is_same)


def arrays_of_texts(count: int) -> sql.Composed:
    """The parameters `$1` to `$count`, each an array of texts, side by side as rows of a FROM."""
    arrays = [sql.SQL(f"pg_catalog.unnest(${number}::text[])") for number in range(1, count + 1)]
    return sql.SQL("ROWS FROM ({})").format(_listed(arrays))


def _apply(left: sql.Composable, schema: str, operator: str, right: sql.Composable) -> sql.Composed:
    named = sql.SQL("OPERATOR({}.{})").format(sql.Identifier(schema), sql.SQL(operator))
    return sql.SQL("({}) {} ({})").format(left, named, right)


def _listed(cells: Sequence[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(cells)

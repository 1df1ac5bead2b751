"""Where a foreign table's rows come from: the interface that a host implements, and the SQL that is sent through it.

In: a definition, the columns that a scan needs, its quals and its sort keys. Out: one SELECT with parameters, and
whatever the source says of its columns and of how many rows it expects. Every cell comes back as text, and the columns
that prompts need once more as one JSON object a row, the same that `llm.map` would send.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from pg_bridge.asking.prompt import columns_hint
from pg_bridge.errors import SourceError, UnknownColumn
from pg_bridge.foreign.answers import TEXTS, ColumnType
from pg_bridge.foreign.definition import Definition
from pg_bridge.foreign.quals import IS_NOT_NULL, IS_NULL, Qual, source_condition

SourceRow = tuple[str | None, ...]

# Types whose order no collation decides: booleans, integers, floats, numeric, dates, times, uuid.
_SORTED_ALIKE = frozenset({16, 20, 21, 23, 26, 700, 701, 1700, 1082, 1083, 1114, 1184, 1266, 1186, 2950})

UNKNOWN_DISTINCT = 200
"""Different values that PostgreSQL takes a column to have of which it knows nothing: DEFAULT_NUM_DISTINCT."""

DEEPEST = 4
"""Foreign tables that read foreign tables; `native/foreign_source.c` has the same."""


def too_deep() -> SourceError:
    """What to raise below that."""
    return SourceError(
        "foreign tables read each other too deeply", sqlstate="54001", hint="Is one of them its own source?"
    )


class Rows(Protocol):
    """The rows of a running query."""

    def fetch(self, count: int) -> list[SourceRow]:
        """At most so many more rows; fewer at the end."""


class Source(Protocol):
    """A database, seen with the rights of one role. Any method raises `SourceError`.

    Attributes:
        sees: What it can see, as a hint for who names a table that it cannot.
    """

    @property
    def sees(self) -> str: ...  # noqa: D102

    def catalog(self, sql: str, parameters: Sequence[str] = ()) -> list[SourceRow]:
        """All rows of a query with `$1`, `$2`, … in it, of what every role may read of the system catalogs."""

    def table(self, name: str) -> str | None:
        """A table's name as the source's queries are to have it; None if there is none."""

    def columns(self, sql: str) -> list[tuple[str, int, int]]:
        """The columns of a query, without running it: (name, oid of the type, type modifier)."""

    def size(self, sql: str, parameters: Sequence[str]) -> tuple[int, int]:
        """What the planner expects of a query, without running it: (rows, bytes a row)."""

    def rows(self, sql: str, parameters: Sequence[str] = ()) -> AbstractContextManager[Rows]:
        """Run a query; its rows are there until the context ends."""


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of a sort order.

    Attributes:
        column: A column's name.
        descending: Whether the largest come first.
        nulls_first: Whether NULLs come before all others.
    """

    column: str
    descending: bool
    nulls_first: bool


@dataclass(frozen=True, slots=True)
class Select:
    """SQL with `$1`, `$2`, … and what stands for them."""

    sql: str
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Relation:
    """A foreign table's source as it is now.

    Attributes:
        definition: The foreign table.
        source: The database.
        sql: What stands after FROM.
        types: The columns' types, by column, named as this source knows them.
        enums: The columns whose types are enums.
        bytewise: Whether equal texts are equal bytes in all collations of the database.
        expressions: By source column, its value in the foreign table's type.
    """

    definition: Definition
    source: Source
    sql: str
    types: Mapping[str, ColumnType]
    enums: frozenset[str]
    bytewise: bool
    expressions: Mapping[str, str]

    @classmethod
    def open(cls, definition: Definition, source: Source) -> Relation:
        """Look at the source.

        Raises:
            SourceError: It is not there, or may not be read.
            UnknownColumn: The foreign table has a column that the source lacks.
        """
        if definition.source:
            found = source.table(definition.source)
            if found is None:
                raise SourceError(
                    f'the source "{definition.source}" does not exist', sqlstate="42P01", hint=source.sees
                )
            sql = f"{found} AS s"
        else:
            sql = f"({definition.source_query.rstrip().rstrip(';')}\n) AS s"
        have = {name: (oid, typmod) for name, oid, typmod in source.columns(f"SELECT * FROM {sql}")}  # noqa: S608
        return cls._of(definition, source, sql, have)

    @classmethod
    def unseen(cls, definition: Definition, source: Source) -> Relation:
        """The source as it is declared, where it cannot be looked at: for planning, not for reading."""
        declared = {column.name: (column.type.oid, column.type.typmod) for column in definition.source_columns}
        return cls._of(definition, source, "", declared)

    @classmethod
    def _of(cls, definition: Definition, source: Source, sql: str, have: Mapping[str, tuple[int, int]]) -> Relation:
        types, enums = _types(definition, source)
        expressions: dict[str, str] = {}
        for column in definition.source_columns:
            if column.name not in have:
                hint = columns_hint(column.name, list(have))
                raise UnknownColumn(
                    f'column "{column.name}" of the foreign table does not exist in the source',
                    hint=f"{hint} A column that a model answers needs the option prompt.",
                )
            oid, typmod = have[column.name]
            alike = oid == column.type.oid and column.type.typmod in (-1, typmod)
            # Another type than the source's: what PostgreSQL makes of the source's text.
            cast = "" if alike else f"::pg_catalog.text::{types[column.name].name}"
            expressions[column.name] = f"s.{quote_name(column.name)}{cast}"
        uneven = source.catalog("SELECT FROM pg_catalog.pg_collation WHERE NOT collisdeterministic LIMIT 1")
        return cls(definition, source, sql, types, enums, not uneven, expressions)

    def over(self, source: Source) -> Relation:
        """The same, read through another connection of the same role."""
        return replace(self, source=source)

    def select(
        self, needed: Sequence[str], sent: Collection[str], quals: Sequence[Qual], sort: Sequence[SortKey]
    ) -> Select:
        """Write the query of a scan.

        Args:
            needed: The source columns whose values are returned, in this order.
            sent: The columns that prompts need; if there are any, a last column holds them as a JSON object.
            quals: Those on source columns.
            sort: The order, of columns that `sortable` names.
        """
        shown = [f"s.{quote_name(name)}::pg_catalog.text" for name in needed]
        if sent:
            inner = ", ".join(
                f"s.{quote_name(column.name)}" for column in self.definition.columns if column.name in sent
            )
            shown.append(f"(SELECT pg_catalog.row_to_json(r)::pg_catalog.text FROM (SELECT {inner}) AS r)")  # noqa: S608
        return self._select(shown, quals, sort)

    def expect(self, columns: Sequence[str], quals: Sequence[Qual]) -> tuple[int, int]:
        """What the source's planner expects of the rows that satisfy quals: (rows, bytes of some columns a row)."""
        return self.size(self._select([f"s.{quote_name(name)}" for name in columns], quals, ()))

    def expect_distinct(self, columns: Sequence[str], quals: Sequence[Qual]) -> int | None:
        """What the source's planner expects of different combinations of columns in the rows that satisfy quals.

        Returns:
            How many; None where the planner knows nothing of a column: it says a number then, too.
        """
        rows, _ = self.expect(columns, ())
        if any(self._expect_groups([name], ()) in (UNKNOWN_DISTINCT, rows) for name in columns):
            return None
        return self._expect_groups(columns, quals)

    def _expect_groups(self, columns: Sequence[str], quals: Sequence[Qual]) -> int:
        # As texts, for not every type has an equality; the statistics are those of the columns all the same.
        selected = self._select([f"s.{quote_name(name)}::pg_catalog.text" for name in columns], quals, ())
        return self.size(Select(f"SELECT DISTINCT{selected.sql.removeprefix('SELECT')}", selected.parameters))[0]

    def _select(self, shown: Sequence[str], quals: Sequence[Qual], sort: Sequence[SortKey]) -> Select:
        parameters: list[str] = []

        def parameter(text: str) -> str:
            parameters.append(text)
            return f"${len(parameters)}"

        conditions = [condition for qual in quals if (condition := self._condition(qual, parameter))]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        keys = ", ".join(
            f"{self._sort_expression(key.column)} {'DESC' if key.descending else 'ASC'} "
            f"NULLS {'FIRST' if key.nulls_first else 'LAST'}"
            for key in sort
        )
        order = f" ORDER BY {keys}" if keys else ""
        listed = ", ".join(shown) or "NULL::pg_catalog.text"
        return Select(f"SELECT {listed} FROM {self.sql}{where}{order}", tuple(parameters))  # noqa: S608 - names are quoted, values are parameters

    def decides(self, qual: Qual) -> bool:
        """Whether the source keeps exactly the rows that satisfy a qual on one of its columns.

        Args:
            qual: The qual, its value no less exact than the one that PostgreSQL has, and its type named.
        """
        if qual.column in self.definition.model or self._condition(qual, lambda _: "$1") is None:
            return False
        no_value = qual.operator in (IS_NULL, IS_NOT_NULL)
        return no_value or self.types[qual.column].oid not in TEXTS or bool(qual.collation)

    def sortable(self, column: str, *, default_collation: bool) -> bool:
        """Whether the source can sort by a column as PostgreSQL would.

        Args:
            column: A source column.
            default_collation: Whether texts are sorted by the database's default collation.
        """
        oid = self.types[column].oid
        return oid in _SORTED_ALIKE or column in self.enums or (oid in TEXTS and default_collation)

    def size(self, statement: Select) -> tuple[int, int]:
        """What the source's planner expects of a query: (rows, bytes a row)."""
        return self.source.size(statement.sql, statement.parameters)

    def _condition(self, qual: Qual, parameter: Callable[[str], str]) -> str | None:
        return source_condition(
            qual,
            self.types[qual.column],
            self.expressions[qual.column],
            parameter,
            is_enum=qual.column in self.enums,
            bytewise=self.bytewise,
        )

    def _sort_expression(self, column: str) -> str:
        collate = ' COLLATE pg_catalog."default"' if self.types[column].oid in TEXTS else ""
        return self.expressions[column] + collate


def _types(definition: Definition, source: Source) -> tuple[dict[str, ColumnType], frozenset[str]]:
    """The columns' types with the names that this source knows them by, and which of them are enums."""
    columns = definition.columns
    rows = source.catalog(
        "SELECT pg_catalog.format_type(t.oid, NULLIF(g.typmod, -1)), t.typtype "
        "FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.int4[])) "
        "WITH ORDINALITY AS g (oid, typmod, place) JOIN pg_catalog.pg_type AS t USING (oid) ORDER BY g.place",
        [_array(column.type.oid for column in columns), _array(column.type.typmod for column in columns)],
    )
    types = {
        column.name: ColumnType(column.type.oid, column.type.typmod, str(name))
        for column, (name, _) in zip(columns, rows, strict=True)
    }
    return types, frozenset(column.name for column, (_, kind) in zip(columns, rows, strict=True) if kind == "e")


def _array(numbers: Iterable[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


def enum_labels(source: Source, oid: int) -> tuple[str, ...]:
    """An enum's labels in their order; empty for any other type."""
    rows = source.catalog(
        "SELECT enumlabel FROM pg_catalog.pg_enum WHERE enumtypid = $1::pg_catalog.oid ORDER BY enumsortorder",
        [str(oid)],
    )
    return tuple(str(row[0]) for row in rows)


def quote_name(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'

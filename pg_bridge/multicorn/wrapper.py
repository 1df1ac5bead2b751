"""The Multicorn host: what Multicorn is told to load, and users' foreign tables as Multicorn calls them.

In: a foreign table's options and columns, scans and IMPORT FOREIGN SCHEMA. Out: an object for each table; rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from multicorn import ColumnDefinition, ForeignDataWrapper, TableDefinition

from pg_bridge.backend.postgres import load_module
from pg_bridge.backend.transaction import until_its_end
from pg_bridge.errors import OptionError
from pg_bridge.foreign.importing import find_tables
from pg_bridge.foreign.scan import Scan
from pg_bridge.multicorn.errors import refuse, refusing, warn
from pg_bridge.multicorn.foreign_table import ROWS_ALONE, STARTUP_COST, ForeignTable, source_for
from pg_bridge.multicorn.own import ConnectionRelation, DeskRelation, ResultRelation, RowSetRelation, StateRelation


class ModelRelation(ForeignDataWrapper):  # type: ignore[misc]  # Multicorn has no type information
    """A user's foreign table: rows of a source, with columns that a model answers."""

    rowid_column = None  # so that Multicorn itself refuses to write
    _startup_cost = STARTUP_COST

    def __init__(self, options: Mapping[str, str], columns: Mapping[str, Any]) -> None:
        super().__init__(options, columns)
        self._table = ForeignTable(options, columns)

    @refusing
    def get_rel_size(self, quals: Sequence[Any], columns: Iterable[str]) -> tuple[int, int]:
        """What the planner is told: (rows, bytes a row)."""
        return self._table.size(self._table.scan(quals, columns))

    @refusing
    def can_sort(self, sortkeys: Sequence[Any]) -> list[Any]:
        """The longest beginning of an order that the source can sort by."""
        return self._table.sortable(sortkeys)

    def can_limit(self, limit: int | None, offset: int | None) -> bool:
        """Never: a scan stops when no more rows are wanted, and Multicorn cuts limits to 32 bits."""
        return False

    def get_path_keys(self) -> list[tuple[tuple[str, ...], int]]:
        """Joins may hand over the key, one row a time.

        Multicorn costs such a path by its rows alone. One row is said to be as dear as ten that are asked together.
        """
        return [((self._table.key,), ROWS_ALONE)] if self._table.key else []

    @refusing
    def explain(
        self,
        quals: Sequence[Any],
        columns: Iterable[str],
        sortkeys: Sequence[Any] = (),
        verbose: bool = False,
        **_: Any,
    ) -> list[str]:
        """What EXPLAIN shows; no model is asked."""
        return list(self._table.explain(self._table.scan(quals, columns, sortkeys), verbose=verbose))

    @refusing
    def execute(
        self, quals: Sequence[Any], columns: Iterable[str], sortkeys: Sequence[Any] = (), **_: Any
    ) -> Iterator[Sequence[str | None]]:
        """Run a scan."""
        return self._rows(self._table.scan(quals, columns, sortkeys, to_run=True))

    def _rows(self, scan: Scan) -> Iterator[Sequence[str | None]]:
        try:
            for window in until_its_end(self._table.windows(scan, warn)):
                yield from window
        except Exception as error:  # a cancel too: in its stead native/multicorn_guard.c has PostgreSQL raise its own
            refuse(error)


RELATIONS: Mapping[str, Callable[[Mapping[str, str], Mapping[str, Any]], ForeignDataWrapper]] = {
    "": ModelRelation,
    "rowset": RowSetRelation,
    "result": ResultRelation,
    "connection": ConnectionRelation,
    "state": StateRelation,
    "desk": DeskRelation,
}


class Wrapper:
    """What Multicorn is told to instantiate: picks the class by the option `relation`, which users leave out.

    Attributes:
        has_module: Whether the native module is loaded, which keeps Multicorn's EXPLAIN from crashing the server; None
            before the session's first table.
    """

    has_module: ClassVar[bool | None] = None

    def __new__(cls, options: Mapping[str, str], columns: Mapping[str, Any]) -> ForeignDataWrapper:
        """Make the table's object."""
        if cls.has_module is None:
            cls.has_module = load_module()
        relation = options.get("relation", "")
        if relation not in RELATIONS:
            refuse(OptionError(f'there is no relation "{relation}"'))
        return RELATIONS[relation](options, columns)

    @staticmethod
    @refusing
    def import_schema(
        schema: str,
        server_options: Mapping[str, str],
        options: Mapping[str, str],
        restriction: str | None,
        tables: Sequence[str],
    ) -> list[TableDefinition]:
        """IMPORT FOREIGN SCHEMA."""
        return [
            TableDefinition(
                table.name,
                columns=[
                    ColumnDefinition(column.name, type_name=column.type.name, options=column.options)
                    for column in table.columns
                ],
                options=table.options,
            )
            for table in find_tables(source_for(server_options), schema, options, restriction, tables)
        ]

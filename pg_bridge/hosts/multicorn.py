"""The Multicorn host: what Multicorn calls, for the extension's own foreign tables and for those of users.

In: INSERT into `llm.rowset`, scans of `llm.result` and of users' foreign tables, as Multicorn hands them over. Out:
rows. All of it happens in the Python of one backend, so rows staged through one table are there for the scan of
another. A scan streams: PostgreSQL stops it early by dropping the iterator.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import groupby
from logging import ERROR
from operator import itemgetter
from typing import Any, NoReturn, ParamSpec, TypeVar

from multicorn import ColumnDefinition, ForeignDataWrapper, TableDefinition
from multicorn.utils import log_to_postgres

from pg_bridge import __version__
from pg_bridge.errors import Cancelled, OptionError, PgBridgeError
from pg_bridge.foreign.scan import Scan
from pg_bridge.hosts import backend
from pg_bridge.hosts.foreign_table import STARTUP_COST, ForeignTable, import_tables, refuses_null
from pg_bridge.hosts.interrupts import Interrupts
from pg_bridge.hosts.session import SESSION, fault_of, start_run
from pg_bridge.hosts.staging import RowSet, Staging
from pg_bridge.hosts.transaction import end_with_transaction
from pg_bridge.options import Call
from pg_bridge.pipeline import Fetch
from pg_bridge.prompt import parse_question

P = ParamSpec("P")
T = TypeVar("T")

_STAGING = Staging()

ResultRow = tuple[str | None, str | None, str | None, int | None, str | None, str | None, str | None]
_NO_MATCH: ResultRow = (None,) * 7


class _Relation(ForeignDataWrapper):  # type: ignore[misc]  # Multicorn has no type information
    """What the four foreign tables share."""

    modify_batch_size = 1000
    rowid_column: str | None = "rowset"  # Multicorn asks for one before an INSERT; UPDATE and DELETE are not offered

    def get_rel_size(self, quals: Sequence[Any], columns: Sequence[str]) -> tuple[int, int]:
        """A guess: (rows, bytes a row)."""
        return 1000, 64

    def insert(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """INSERT of one row."""
        return self.bulk_insert([values])[0]

    def bulk_insert(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """INSERT of several rows."""
        _refuse(OptionError("this foreign table cannot be written to"))

    def update(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> NoReturn:
        """Not offered."""
        _refuse(OptionError("this foreign table cannot be updated"))

    def delete(self, old: Mapping[str, Any]) -> NoReturn:
        """Not offered."""
        _refuse(OptionError("rows cannot be deleted from this foreign table", hint="They go with the transaction."))


class RowSetRelation(_Relation):
    """`llm.rowset`: rows go in by INSERT."""

    def bulk_insert(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Stage rows. row_id 0 carries the column names; other rows are numbered as they come."""
        for (name, row_id), group in groupby(rows, itemgetter("rowset", "row_id")):
            if name is None:
                _refuse(OptionError("the name of the row set is NULL", hint="INSERT INTO llm.rowset (rowset, input) …"))
            inputs = [row["input"] for row in group]
            if row_id is None:
                _STAGING.rowset(name).extend(inputs)
            elif int(row_id) == 0:
                _STAGING.rowset(name).columns = json.loads(inputs[-1])
            else:
                _refuse(
                    OptionError(
                        "row_id of llm.rowset cannot be chosen", hint="Leave it out; rows are numbered as they come."
                    )
                )
        return rows

    def execute(self, quals: Sequence[Any], columns: Iterable[str], **_: Any) -> Iterator[tuple[str, int, str | None]]:
        """The rows that this transaction staged."""
        for name, rowset in list(_STAGING.rowsets.items()):
            for position in range(0, len(rowset), self.modify_batch_size):
                for i, row in enumerate(rowset.fetch(position, self.modify_batch_size)):
                    yield name, position + i + 1, row

    def commit(self) -> None:
        """The transaction was committed: its rows go."""
        _STAGING.end_transaction()

    def rollback(self) -> None:
        """The transaction was rolled back: its rows go."""
        _STAGING.end_transaction()

    def sub_begin(self, level: int) -> None:
        """A subtransaction touches the table for the first time."""
        _STAGING.begin_subtransaction(level)

    def sub_commit(self, level: int) -> None:
        """A subtransaction ended well."""
        _STAGING.commit_subtransaction(level)

    def sub_rollback(self, level: int) -> None:
        """A subtransaction was rolled back: the rows that it staged go."""
        _STAGING.abort_subtransaction(level)


class ResultRelation(_Relation):
    """`llm.result`: answers come out by SELECT."""

    def execute(self, quals: Sequence[Any], columns: Iterable[str], **_: Any) -> Iterator[ResultRow]:
        """Ask the prompt about the row set that the quals name."""
        given = _equalities(quals)
        if given.get("rowset") is None or given.get("prompt") is None:
            _refuse(
                OptionError(
                    "a scan of llm.result needs a row set and a prompt",
                    hint="SELECT … FROM llm.result WHERE rowset = '…' AND prompt = '…'",
                )
            )
        return _scan(given["rowset"], given["prompt"], given.get("options"))

    def explain(self, quals: Sequence[Any], columns: Iterable[str], **_: Any) -> list[str]:
        """What EXPLAIN shows; nothing is asked."""
        given = _equalities(quals)
        return [f"LLM {name}: {given[name]}" for name in ("rowset", "prompt", "options") if given.get(name)]


class ConnectionRelation(_Relation):
    """`llm._connection`: the extension's owner puts a role's servers in by INSERT; nobody can read them back."""

    def bulk_insert(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Note servers; a row without a server forgets what the role had."""
        for row in rows:
            role = int(row["role"])
            if row["server"] is None:
                SESSION.forget(role)
            else:
                SESSION.connect(role, row["server"], usable=row["usable"] in (True, "t"), options=row["options"])
        return rows

    def execute(self, quals: Sequence[Any], columns: Iterable[str], **_: Any) -> NoReturn:
        """Refused: the rows hold secrets."""
        _refuse(OptionError("this foreign table cannot be read"))


class StateRelation(_Relation):
    """`llm._state`: one row about this backend."""

    def execute(self, quals: Sequence[Any], columns: Iterable[str], **_: Any) -> list[tuple[str, str | None]]:
        """(package version, latest run as JSON)."""
        return [(__version__, SESSION.last_run_json())]


def _refusing(method: Callable[P, T]) -> Callable[P, T]:
    """Let a method's errors leave in the form that Multicorn passes on."""

    @wraps(method)
    def wrapped(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return method(*arguments, **named)
        except SystemError:  # Multicorn called with an exception pending, of a value that it could not convert
            _refuse(
                OptionError(
                    "Multicorn cannot hand over a value of one of the conditions",
                    hint="Dates and timestamps that it cannot are infinity, -infinity and those outside the years 1 to "
                    "9999.",
                )
            )
        except Exception as error:
            _refuse(error)

    return wrapped


class ModelRelation(_Relation):
    """A user's foreign table: rows of a source, with columns that a model answers."""

    rowid_column: str | None = None  # so that Multicorn itself refuses to write
    _startup_cost = STARTUP_COST

    def __init__(self, options: Mapping[str, str], columns: Mapping[str, Any]) -> None:
        super().__init__(options, columns)
        self._table = ForeignTable(options, columns)

    @_refusing
    def get_rel_size(self, quals: Sequence[Any], columns: Iterable[str]) -> tuple[int, int]:
        """What the planner is told: (rows, bytes a row)."""
        return self._table.size(self._table.scan(quals, columns))

    @_refusing
    def can_sort(self, sortkeys: Sequence[Any]) -> list[Any]:
        """The longest beginning of an order that the source can sort by."""
        return self._table.sortable(sortkeys)

    def can_limit(self, limit: int | None, offset: int | None) -> bool:
        """Never: a scan stops when no more rows are wanted, and Multicorn cuts limits to 32 bits."""
        return False

    def get_path_keys(self) -> list[tuple[tuple[str, ...], int]]:
        """Joins may hand over the key, one row a time."""
        return [((self._table.key,), 1)] if self._table.key else []

    @_refusing
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

    @_refusing
    def execute(
        self, quals: Sequence[Any], columns: Iterable[str], sortkeys: Sequence[Any] = (), **_: Any
    ) -> Iterator[Sequence[str | None]]:
        """Run a scan."""
        return self._rows(self._table.scan(quals, columns, sortkeys), is_strict=any(map(refuses_null, quals)))

    def _rows(self, scan: Scan, *, is_strict: bool) -> Iterator[Sequence[str | None]]:
        try:
            rows = self._table.rows(scan)
            end_with_transaction(rows)
            yield from rows
        except Cancelled as error:
            if is_strict:  # as in _scan: PostgreSQL drops this row, and then raises the cancel in its own words
                yield (None,) * self._table.width
            _refuse(error)
        except Exception as error:
            _refuse(error)


RELATIONS: Mapping[str, Callable[[Mapping[str, str], Mapping[str, Any]], _Relation]] = {
    "": ModelRelation,
    "rowset": RowSetRelation,
    "result": ResultRelation,
    "connection": ConnectionRelation,
    "state": StateRelation,
}


class Wrapper:
    """What Multicorn is told to instantiate: picks the class by the option `relation`, which users leave out."""

    def __new__(cls, options: Mapping[str, str], columns: Mapping[str, Any]) -> _Relation:
        """Make the table's object."""
        relation = options.get("relation", "")
        if relation not in RELATIONS:
            _refuse(OptionError(f'there is no relation "{relation}"'))
        return RELATIONS[relation](options, columns)

    @staticmethod
    @_refusing
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
            for table in import_tables(schema, server_options, options, restriction, tables)
        ]


def _scan(name: str, prompt: str, options: str | None) -> Iterator[ResultRow]:
    """One scan of llm.result.

    A scan from inside llm.map or llm.complete has the option `internal`: it gets errors as a last row without row_id,
    which SQL raises with its SQLSTATE, and its row set goes with it.
    """
    internal = False
    try:
        arguments = _object(options)
        internal = bool(arguments.pop("internal", False))
        call = Call.from_arguments(arguments)
        if name not in _STAGING.rowsets:
            raise OptionError(
                f'row set "{name}" does not exist in this transaction',
                hint="INSERT INTO llm.rowset (rowset, input) SELECT …, row_to_json(alias) FROM … first.",
            )
        rowset = _STAGING.rowsets[name]
        server = SESSION.server(backend.current_role_oid(), call.server)
        columns = rowset.column_names()
        if columns is None:  # a NULL row has whatever columns the prompt names
            columns = list(parse_question(prompt).columns)
        for answer in start_run(_fetch(rowset), columns, prompt, call, server, Interrupts().check):
            yield name, prompt, options, answer.row_id, answer.input, answer.output, answer.error
    except Cancelled as error:
        # PostgreSQL drops this row, for it does not satisfy rowset = …, then looks for interrupts before it fetches
        # the next, and so raises the cancel itself, in its own words.
        yield _NO_MATCH
        _refuse(error)
    except Exception as error:
        if not internal:
            _refuse(error)
        yield name, prompt, options, None, None, None, fault_of(error)
    finally:
        if internal:
            _STAGING.drop(name)


def _fetch(rowset: RowSet) -> Fetch:
    position = 0

    def fetch(count: int) -> list[str | None]:
        nonlocal position
        rows = rowset.fetch(position, count)
        position += len(rows)
        return rows

    return fetch


def _object(options: str | None) -> dict[str, Any]:
    try:
        value = json.loads(options or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise OptionError("options is not a JSON object", hint="""For example: options = '{"server": "vllm"}'""")
    return value


def _equalities(quals: Sequence[Any]) -> dict[str, Any]:
    return {qual.field_name: qual.value for qual in quals if qual.operator == "="}


def _refuse(error: Exception) -> NoReturn:
    """Raise an error in the one form that Multicorn passes on with its hint. It cannot carry a SQLSTATE."""
    if isinstance(error, PgBridgeError):
        log_to_postgres(
            error.message, ERROR, hint=error.hint or None, detail=error.detail or f"SQLSTATE {error.sqlstate}"
        )
    raise RuntimeError(f"pg_bridge failed with {type(error).__name__}") from None

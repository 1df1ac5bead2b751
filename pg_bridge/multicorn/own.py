"""The extension's own foreign tables on Multicorn: row sets going in, answers coming out, and the session's memory.

In: INSERT into `llm.rowset` and scans of `llm.result`, as Multicorn hands them over. Out: rows. All of it happens in
the Python of one backend, so rows staged through one table are there for the scan of another. A scan streams:
PostgreSQL stops it early by dropping the iterator.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from logging import DEBUG
from operator import itemgetter
from typing import Any, NoReturn

from multicorn import ForeignDataWrapper
from multicorn.utils import log_to_postgres

from pg_bridge import __version__
from pg_bridge.asking.prompt import parse_question
from pg_bridge.asking.streamed import Fetch
from pg_bridge.backend import postgres
from pg_bridge.backend.faults import check_installation, describe_error
from pg_bridge.backend.ledger import reply
from pg_bridge.backend.rowsets import RowSet
from pg_bridge.backend.session import SESSION, ServerOf
from pg_bridge.errors import BrokenInstallation, Cancelled, OptionError
from pg_bridge.foreign.answers import array_literal
from pg_bridge.multicorn.errors import refuse
from pg_bridge.multicorn.finding import find
from pg_bridge.multicorn.staging import Staging
from pg_bridge.rows.cutting import as_row

_STAGING = Staging()

ResultRow = tuple[str | None, str | None, str | None, int | None, str | None, str | None, str | None]
_NO_MATCH: ResultRow = (None,) * 7


class OwnRelation(ForeignDataWrapper):  # type: ignore[misc]  # Multicorn has no type information
    """What they share."""

    modify_batch_size = 1000
    rowid_column = "rowset"  # Multicorn asks for one before an INSERT; UPDATE and DELETE are not offered

    def get_rel_size(self, quals: Sequence[Any], columns: Sequence[str]) -> tuple[int, int]:
        """A guess: (rows, bytes a row)."""
        return 1000, 64

    def insert(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """INSERT of one row."""
        return self.bulk_insert([values])[0]

    def bulk_insert(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """INSERT of several rows."""
        refuse(OptionError("this foreign table cannot be written to"))

    def update(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> NoReturn:
        """Not offered."""
        refuse(OptionError("this foreign table cannot be updated"))

    def delete(self, old: Mapping[str, Any]) -> NoReturn:
        """Not offered."""
        refuse(OptionError("rows cannot be deleted from this foreign table", hint="They go with the transaction."))


class RowSetRelation(OwnRelation):
    """`llm.rowset` and `llm._further_rows`: rows go in by INSERT."""

    def bulk_insert(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Stage rows. row_id 0 carries the column names; other rows are numbered as they come."""
        role = postgres.current_role_oid()
        for (name, row_id), group in groupby(rows, itemgetter("rowset", "row_id")):
            if name is None:
                refuse(OptionError("the name of the row set is NULL", hint="INSERT INTO llm.rowset (rowset, input) …"))
            inputs = [row["input"] for row in group]
            if row_id is None:
                _STAGING.rowset((role, name)).extend([as_row(each) for each in inputs])
            elif int(row_id) == 0:
                _STAGING.rowset((role, name)).columns = _parse_names(inputs[-1])
            else:
                refuse(
                    OptionError(
                        "row_id of llm.rowset cannot be chosen", hint="Leave it out; rows are numbered as they come."
                    )
                )
        return rows

    def execute(self, quals: Sequence[Any], columns: Iterable[str], **_: Any) -> Iterator[tuple[str, int, str | None]]:
        """The rows that the current role staged in this transaction."""
        for name, rowset in _STAGING.rowsets_of(postgres.current_role_oid()):
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


class ResultRelation(OwnRelation):
    """`llm.result`: answers come out by SELECT."""

    def execute(self, quals: Sequence[Any], columns: Iterable[str], **_: Any) -> Iterator[ResultRow]:
        """Ask the prompt about the row set that the quals name."""
        given = _equalities(quals)
        if given.get("rowset") is None or given.get("prompt") is None:
            refuse(
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


class ConnectionRelation(OwnRelation):
    """`llm._connection`: the extension's owner puts a role's servers in by INSERT; nobody can read them back."""

    def bulk_insert(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Note servers; a row without a server tells the extension's version, and forgets what the role had."""
        for row in rows:
            role = int(row["role"])
            if row["server"] is None:
                SESSION.forget(role, row["options"])
            else:
                usable, owned = (row[name] in (True, "t") for name in ("usable", "owned"))
                SESSION.connect(role, row["server"], ServerOf(row["options"], usable, owned, int(row["owner"])))
        return rows

    def execute(self, quals: Sequence[Any], columns: Iterable[str], **_: Any) -> NoReturn:
        """Refused: the rows hold secrets."""
        refuse(OptionError("this foreign table cannot be read"))


class StateRelation(OwnRelation):
    """`llm._state`: one row about this backend."""

    def execute(self, quals: Sequence[Any], columns: Iterable[str], **_: Any) -> list[tuple[str, str | None]]:
        """(package version, latest run as JSON); a DEBUG message tells of the installation."""
        try:
            log_to_postgres(check_installation(), DEBUG)
        except BrokenInstallation as error:
            refuse(error)
        return [(__version__, SESSION.last_run_json())]


class DeskRelation(OwnRelation):
    """`llm._desk`: a request to the ledger in a condition, its reply in a row."""

    def execute(self, quals: Sequence[Any], columns: Iterable[str], **_: Any) -> list[tuple[str | None, str]]:
        """The reply to the request that the quals name."""
        request = _equalities(quals).get("request")
        return [(request, reply(request, postgres.current_role_oid()))]


def _scan(name: str, prompt: str, options: str | None) -> Iterator[ResultRow]:
    """One scan of llm.result.

    A scan from inside llm.map or llm.complete has the option `internal`: it gets errors as a last row without row_id,
    which SQL raises with its SQLSTATE, and its row set goes with it.
    """
    internal = False
    role = postgres.current_role_oid()
    try:
        arguments = _parse_options(options)
        internal = bool(arguments.pop("internal", False))
        for row in find(role, prompt, arguments, partial(_staged, role, name, prompt)):
            yield name, prompt, options, *row
    except Cancelled as error:
        # PostgreSQL drops this row, for it does not satisfy rowset = …, then looks for interrupts before it fetches
        # the next, and so raises the cancel itself, in its own words.
        yield _NO_MATCH
        refuse(error)
    except Exception as error:
        if not internal:
            refuse(error)
        yield name, prompt, options, None, None, None, array_literal(describe_error(error))
    finally:
        if internal:
            _STAGING.drop((role, name))


def _staged(role: int, name: str, prompt: str) -> tuple[Fetch, Sequence[str | None]]:
    """What fetches the rows of a row set, and its columns."""
    if (role, name) not in _STAGING.rowsets:
        raise OptionError(
            f'row set "{name}" does not exist in this transaction',
            hint="INSERT INTO llm.rowset (rowset, input) SELECT …, row_to_json(alias) FROM … first.",
        )
    rowset = _STAGING.rowsets[role, name]
    columns = rowset.column_names()
    # A NULL row has whatever columns the prompt names.
    return _fetch(rowset), parse_question(prompt).columns if columns is None else columns


def _fetch(rowset: RowSet) -> Fetch:
    position = 0

    def fetch(count: int) -> list[str | None]:
        nonlocal position
        rows = rowset.fetch(position, count)
        position += len(rows)
        return rows

    return fetch


def _parse_names(columns: str | None) -> list[str]:
    names = json.loads(columns or "null")
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        refuse(OptionError("the column names of a row set are not a JSON array of texts"))
    return names


def _parse_options(options: str | None) -> dict[str, Any]:
    try:
        value = json.loads(options or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise OptionError("options is not a JSON object", hint="""For example: options = '{"server": "vllm"}'""")
    return value


def _equalities(quals: Sequence[Any]) -> dict[str, Any]:
    return {qual.field_name: qual.value for qual in quals if qual.operator == "="}

"""What the calls of a batch node would ask and take: what the native module has EXPLAIN show.

In: a request as `native/batch_explain.c` and `native/call_inputs.c` write it: functions, their constants, the rows that
PostgreSQL expects, how wide their columns are and how many values they have. Out: lines `label: value`. No row is read
and no engine is asked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pg_bridge.asking.distinct import SourceColumn, SourceRows, count_distinct
from pg_bridge.asking.inquiry import Ask, question_of
from pg_bridge.asking.outline import Outline, Rows, chars_of
from pg_bridge.asking.pair_outline import Side, foretell
from pg_bridge.asking.prompt import EMBEDDED, RERANKED, Question
from pg_bridge.asking.seen import Seen
from pg_bridge.backend.estimates import count_kept, lately
from pg_bridge.backend.faults import Fault
from pg_bridge.errors import OptionError, PgBridgeError, TemplateError
from pg_bridge.options import Call, Kind, Server
from pg_bridge.plpython.functions import find_server
from pg_bridge.plpython.spi import describe_failure

_KINDS: Mapping[str, Kind] = {
    "is_true": "boolean",
    "classify": "label",
    "_classify_many": "labels",
    "score": "number",
    "extract": "json",
    "_embed": "embedding",
    "_relevance_of": "relevance",
}
_SURE = "_confidence"
_NOT_OPTIONS = {"prompt", "input"}
_Columns = frozenset[SourceColumn] | None
"""What values are made of; None where that is not known."""


def estimate_calls(plpy: Any, request: str | None) -> tuple[list[str], Fault | None]:
    """Say what calls would take; the body of `llm._estimate_calls`. What cannot be told is left out."""
    try:
        outlines: dict[str, tuple[Server, Seen, Outline]] = {}
        for call in _parse_calls(request):
            with suppress(PgBridgeError):  # a server that is not there, or not for this role: calling it will tell
                _add(plpy, call, outlines)
        lines = []
        for server, seen, outline in outlines.values():
            at = f"Estimated at {server.name} " if len(outlines) > 1 else "Estimated "
            lines += [line.replace("Estimated ", at, 1) for line in outline.lines(server, seen)]
        return lines, None
    except Exception as error:
        return [], describe_failure(plpy, error)


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the rows that a call is about: bytes of a value, and what it is made of."""

    width: float
    made_of: _Columns


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call of the extension's own functions.

    Attributes:
        function: Its name.
        rows: For which it is expected to be made.
        constants: Its arguments that are the same for all of them, as JSON has them.
        varying: The names of the others.
        width: Bytes of a row, where its columns are not known.
        columns: Its columns, by name; None where they are not known.
        besides: What else of the row it depends on.
        tables: Those that its columns come from.
    """

    function: str
    rows: float
    constants: Mapping[str, Any]
    varying: frozenset[str]
    width: float
    columns: Mapping[str, _Column] | None
    besides: _Columns
    tables: Mapping[int, SourceRows]


def _parse_calls(request: str | None) -> list[_Asked]:
    """A request of the native module; a superuser may call the function, too, with anything."""
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return [_parse_call(call) for call in json.loads(request or "")["calls"]]
    raise OptionError(
        "this is no request of the native module", hint="EXPLAIN of a statement that asks calls this function."
    )


def _parse_call(call: Mapping[str, Any]) -> _Asked:
    tables = {int(number): SourceRows(*map(_finite, rows)) for number, rows in call["tables"].items()}
    columns = None
    if "columns" in call:
        columns = {
            str(name): _Column(_finite(column["width"]), _parse_columns(column["made_of"], tables))
            for name, column in call["columns"].items()
        }
    constants = dict(call["arguments"])
    if not isinstance(constants.get("prompt"), str | None):
        raise ValueError
    return _Asked(
        str(call["function"]),
        _finite(call["rows"]),
        constants,
        frozenset(map(str, call["varying"])),
        _finite(call.get("width", 0)),
        columns,
        _parse_columns(call["besides"], tables),
        tables,
    )


def _parse_columns(given: Iterable[Any] | None, tables: Mapping[int, SourceRows]) -> _Columns:
    if given is None:
        return None
    columns = frozenset(
        SourceColumn(int(table), int(number), None if values is None else _finite(values))
        for table, number, values in given
    )
    if not {column.table for column in columns} <= tables.keys():
        raise ValueError
    return columns


def _finite(number: Any) -> float:
    found = float(number)
    if not math.isfinite(found) or found < 0:
        raise ValueError
    return found


def _add(plpy: Any, call: _Asked, outlines: dict[str, tuple[Server, Seen, Outline]]) -> None:
    if (
        "server" in call.varying or "gathered" in call.varying
    ):  # another one for each row; nobody knows of how many rows
        return
    asked = _options_of(call)
    if asked.server not in outlines:
        server = find_server(plpy, asked.server)
        outlines[asked.server] = server, lately(server), Outline()
    server, seen, outline = outlines[asked.server]
    question = _question(call, asked)
    kept = None
    if question is not None and not call.varying - _NOT_OPTIONS:
        kept = count_kept(server, question, asked)
    sent = _sent(question, call)
    rows = Rows(call.rows, _row_chars(sent, call), _distinct(sent, call), kept)
    outline.add(question or Question("", ()), asked, rows, server, seen)
    sides = _sides(sent, call)
    if question is not None and sides is not None:
        for foretold in foretell(sides, question.text, asked, rows.count if rows.distinct is None else rows.distinct):
            outline.add_joint(foretold)


def _options_of(call: _Asked) -> Call:
    """The options, as `llm._batch` gets them; those that differ from row to row have their defaults."""
    given = {name: value for name, value in call.constants.items() if name not in _NOT_OPTIONS}
    function = call.function.removesuffix(_SURE)
    if function in _KINDS:
        given["kind"] = _KINDS[function]
    if function != call.function:
        given["gives"] = "confidence"
    if "labels" in given:
        given["choices"] = given.pop("labels")
    return Call.from_arguments(given)


def _question(call: _Asked, asked: Call) -> Question | None:
    """The question; None where it is not known before the statement runs, or does not parse."""
    if asked.is_pooled:
        return EMBEDDED if asked.embeds else RERANKED
    with suppress(TemplateError):
        return question_of(Ask(call.constants["prompt"], asked)) if "prompt" in call.constants else None
    return None


def _sent(question: Question | None, call: _Asked) -> Mapping[str, _Column] | None:
    """The columns that prompts hold."""
    if call.columns is None or question is None or not question.columns:
        return call.columns
    return {name: column for name, column in call.columns.items() if name in question.columns}


def _row_chars(sent: Mapping[str, _Column] | None, call: _Asked) -> float:
    """Characters of a row: of the columns that are sent, where there are columns, else as wide as all that is there."""
    return call.width if sent is None else chars_of({name: column.width for name, column in sent.items()})


def _sides(sent: Mapping[str, _Column] | None, call: _Asked) -> tuple[Side, Side] | None:
    """Both sides of a join, if all that is sent is of one table or the other."""
    of_tables: dict[int, dict[str, _Column]] = {}
    for name, column in (sent or {}).items():
        tables = {origin.table for origin in column.made_of or ()}
        if len(tables) != 1:
            return None
        of_tables.setdefault(tables.pop(), {})[name] = column
    if len(of_tables) != 2:
        return None
    left, right = (_side(table, columns, call) for table, columns in of_tables.items())
    return left, right


def _side(table: int, columns: Mapping[str, _Column], call: _Asked) -> Side:
    rows = call.tables[table].read
    distinct = _distinct(columns, replace(call, besides=frozenset(), rows=rows))
    return Side(rows if distinct is None else distinct, chars_of({name: each.width for name, each in columns.items()}))


def _distinct(sent: Mapping[str, _Column] | None, call: _Asked) -> float | None:
    """How many different questions there are among the calls, by PostgreSQL's statistics."""
    found: set[SourceColumn] = set()
    for columns in [call.besides, *(column.made_of for column in (sent or {}).values())]:
        if columns is None:
            return None
        found |= columns
    return count_distinct(found, call.tables, call.rows)

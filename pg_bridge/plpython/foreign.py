"""Foreign tables on the PL/Python host: what the native module asks for, from a scan's JSON to its rows.

In: requests as `native/foreign_*.c` writes them, with conditions whose values are exact. Out: rows, estimates, lines of
EXPLAIN and commands of IMPORT FOREIGN SCHEMA, each with an error as data in the last place. Nothing of PostgreSQL's is
held between two rows but names: Python's objects may be freed after PostgreSQL's, and the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any

from pg_bridge.backend import postgres
from pg_bridge.backend.engines import new_engine
from pg_bridge.backend.estimates import count_kept, lately
from pg_bridge.backend.faults import Fault
from pg_bridge.backend.session import SESSION
from pg_bridge.backend.transaction import call_at_end_of_transaction, until_its_end
from pg_bridge.errors import NotPermitted, OptionError, ServerDenied, SourceError, UnknownColumn, UnknownServer
from pg_bridge.foreign import explain as explaining
from pg_bridge.foreign.answers import ColumnType
from pg_bridge.foreign.definition import Column, Definition
from pg_bridge.foreign.importing import TableToCreate, find_tables
from pg_bridge.foreign.learned import Learned
from pg_bridge.foreign.scan import Row, Scan
from pg_bridge.foreign.source import DEEPEST, Relation, enum_labels, quote_name, too_deep
from pg_bridge.plpython.functions import find_server, open_account
from pg_bridge.plpython.request import Shown, is_known, qual_of, sort_of
from pg_bridge.plpython.source import PlpySource
from pg_bridge.plpython.spi import describe_failure

ROWS_AT_ONCE = 512  # handed over together, of those that are ready
CHARS_AT_ONCE = 1 << 24

Size = tuple[float | None, int | None, float | None, list[bool], list[str], Fault | None]

_DEFINITION = """
SELECT s.srvname, json_build_array(
    (SELECT json_object_agg(option_name, option_value) FROM pg_options_to_table(f.ftoptions)),
    (SELECT json_agg(json_build_array(
         a.attname, a.atttypid::bigint, a.atttypmod, format_type(a.atttypid, a.atttypmod),
         (SELECT json_object_agg(option_name, option_value) FROM pg_options_to_table(a.attfdwoptions))
     ) ORDER BY a.attnum) FROM pg_attribute AS a WHERE a.attrelid = f.ftrelid AND a.attnum > 0 AND NOT a.attisdropped)
)::text AS described
FROM pg_foreign_table AS f JOIN pg_foreign_server AS s ON s.oid = f.ftserver WHERE f.ftrelid = $1::oid
"""


@dataclass(slots=True)
class _ForeignTable:
    """A foreign table, as long as its definition stays what it is.

    Attributes:
        described: What the catalog said of it.
        server: The name of its server.
        definition: The same, checked.
        learned: What scans have shown of its predicates, by the role that read.
    """

    described: str
    server: str
    definition: Definition
    learned: dict[int, Learned] = field(default_factory=dict)

    def learned_for(self, asked: Mapping[str, Any]) -> Learned:
        """What the current role may know: nothing, where rows may be hidden from it."""
        if asked.get("discreet", False):
            return Learned()
        return self.learned.setdefault(postgres.current_role_oid(), Learned())


_TABLES: dict[int, _ForeignTable] = {}
_RELATIONS: dict[tuple[int, int, int], Relation] = {}  # of this transaction, by table, statement and role
_KEPT_RELATIONS = 16


def size(plpy: Any, request: str) -> Size:
    """Estimate a scan; the body of `llm._foreign_size`.

    Returns:
        rows; bytes a row; the cost of a row's answers; for each qual whether the source decides it; the columns that
        the source can sort by, texts as the database sorts them; a fault.
    """
    with _Depth() as depth:
        try:
            depth.check()
            asked = _parse_request(request)
            source = PlpySource(plpy)
            table = _find_table(plpy, asked["table"], source)
            given = [(qual_of(each, table.definition), each) for each in asked["quals"]]
            known = tuple(
                qual
                for qual, each in given
                if "join" not in each
                and (is_known(each) or qual.column in table.definition.model)
                and not (asked["discreet"] and qual.column not in table.definition.model)
            )
            relation = _look_at(table, source)
            learned = table.learned_for(asked)
            try:
                rows, width, cost = explaining.size(Scan(relation, frozenset(asked["needed"]), known), learned)
            except SourceError:  # of a source that can be named, and not planned
                relation = Relation.unseen(table.definition, source)
                rows, width, cost = explaining.size(Scan(relation, frozenset(asked["needed"]), known), learned)
            exact = [relation.decides(qual) for qual, _ in given]
            names = [column.name for column in table.definition.source_columns]
            sortable = [name for name in names if relation.sortable(name, default_collation=True)]
            return rows, width, cost, exact, sortable, None
        except Exception as error:
            return None, None, None, [], [], describe_failure(plpy, error)


def explain(plpy: Any, request: str) -> tuple[list[str], Fault | None]:
    """Describe a scan, in lines `label: value`; the body of `llm._foreign_explain`."""
    try:
        asked = _parse_request(request)
        source = PlpySource(plpy)
        table = _find_table(plpy, asked["table"], source)
        model = table.definition.model
        given = [(qual_of(each, table.definition), each) for each in asked["quals"]]
        known = [
            qual if is_known(each) else Shown(qual.column, qual.operator, each["shown"], qual.quantifier)
            for qual, each in given
            if is_known(each) or qual.column in model
        ]
        later = [
            str(Shown(qual.column, qual.operator, each["shown"], qual.quantifier))
            for qual, each in given
            if not is_known(each) and qual.column not in model
        ]
        scan = Scan(_look_at(table, source), frozenset(asked["needed"]), tuple(known), sort_of(asked["sort"]))
        lines = list(
            explaining.lines(
                scan,
                table.learned_for(asked),
                verbose=asked["verbose"],
                sample=not asked["discreet"],
                asked=_who_is_asked(plpy, table.server, asked["readable"]) if asked.get("costs") else None,
            )
        )
        if later:
            lines.insert(1, f"Source Filter, Values Not Known Yet: {' AND '.join(later)}")
        return lines, None
    except Exception as error:
        return [], describe_failure(plpy, error)


def _who_is_asked(plpy: Any, server: str, readable: Sequence[str]) -> explaining.Asked | None:
    """The server, for who may use it."""
    with suppress(ServerDenied, UnknownServer, NotPermitted, OptionError):
        found = find_server(plpy, server)
        return explaining.Asked(found, lately(found), count_kept, frozenset(readable))
    return None


def scan(plpy: Any, request: str) -> Iterator[tuple[int, Row, Fault | None]]:
    """Run a scan; the body of `llm._foreign_scan`.

    Yields:
        (rows, cells, fault): some rows' needed columns one after the other; a fault is the last.
    """
    try:
        asked = _parse_request(request)
        source = PlpySource(plpy)
        table = _find_table(plpy, asked["table"], source)
        names = [column.name for column in table.definition.columns]
        needed = _picker([names.index(name) for name in asked["needed"]])
        for window in until_its_end(_windows(plpy, asked, table, source)):
            for rows in _split(window):
                yield len(rows), needed(rows), None
    except Exception as error:
        yield 0, [], describe_failure(plpy, error)


def import_schema(plpy: Any, request: str) -> tuple[list[str], Fault | None]:
    """Write the commands of IMPORT FOREIGN SCHEMA; the body of `llm._foreign_import`."""
    try:
        asked = _parse_request(request)
        restriction = None if asked["restriction"] == "all" else asked["restriction"]
        tables = find_tables(PlpySource(plpy), asked["schema"], asked["options"], restriction, asked["tables"])
        return [_command(table, asked["server"], plpy.quote_literal) for table in tables], None
    except Exception as error:
        return [], describe_failure(plpy, error)


def _parse_request(request: str | None) -> dict[str, Any]:
    """A request of the native module. It comes from nowhere else, but a superuser may call these functions, too."""
    try:
        asked = json.loads(request or "")
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise OptionError("this is no request of the native module", hint="Scans of foreign tables call this function.")
    return asked


# -- foreign tables


def _look_at(table: _ForeignTable, source: PlpySource) -> Relation:
    """The source as it is, if it can be looked at: neither planning nor EXPLAIN fails for a source that does."""
    try:
        return Relation.open(table.definition, source)
    except (SourceError, UnknownColumn):
        return Relation.unseen(table.definition, source)


def _find_table(plpy: Any, oid: int, source: PlpySource) -> _ForeignTable:
    """The table as the catalog has it now; checked anew only if that is not what it was."""
    found = source.catalog(_DEFINITION, [str(oid)])
    if not found:
        raise SourceError("the foreign table does not exist", sqlstate="42P01")
    server, described = str(found[0][0]), str(found[0][1])
    known = _TABLES.get(oid)
    if known is not None and (known.server, known.described) == (server, described):
        return known
    options, columns = json.loads(described)
    definition = Definition.from_options(
        options or {},
        [
            Column(name, ColumnType(type_oid, typmod, type_name), of_column or {})
            for name, type_oid, typmod, type_name, of_column in columns or []
        ],
        lambda of: enum_labels(source, of),
        server,
    )
    _TABLES[oid] = _ForeignTable(described, server, definition)
    return _TABLES[oid]


def _windows(plpy: Any, asked: Mapping[str, Any], table: _ForeignTable, source: PlpySource) -> Iterator[list[Row]]:
    """Start a scan."""
    server = find_server(plpy, table.server, asked["statement"])  # the role may use it
    key = (asked["table"], asked["statement"], postgres.current_role_oid())
    if not _RELATIONS:
        call_at_end_of_transaction(_RELATIONS.clear)
    opened = _RELATIONS.get(key)
    if opened is None or opened.definition is not table.definition:
        opened = _RELATIONS[key] = Relation.open(table.definition, source)
        while len(_RELATIONS) > _KEPT_RELATIONS:
            del _RELATIONS[next(iter(_RELATIONS))]
    quals = tuple(qual_of(each, table.definition) for each in asked["quals"])
    for qual, each in zip(quals, asked["quals"], strict=True):
        if each["exact"] and not opened.decides(qual):
            raise SourceError(
                f'the source can no longer apply the condition on "{qual.column}" that it was to apply',
                sqlstate="55000",
                hint="The plan was made before the source changed; DISCARD PLANS drops it.",
            )
    relation = opened.over(source)
    scan = Scan(relation, frozenset(asked["needed"]), quals, sort_of(asked["sort"]))
    memory = SESSION.statement(asked["statement"], asked["reader"])
    return scan.windows(
        memory,
        asked["node"],
        partial(new_engine, server),
        table.learned_for(asked),
        every_row=asked.get("every_row", False),
        account=SESSION.find_account(asked["statement"], server, partial(open_account, plpy, reader=asked["reader"])),
        # Through a view of somebody else's he may read a key that the reader may not.
        shows_keys=asked["reader"] == postgres.current_role_oid() and not asked.get("discreet", False),
    )


def _picker(places: Sequence[int]) -> Callable[[Sequence[Row]], Row]:
    """From rows to the cells of some columns, one row's after the other's."""
    if not places:
        return lambda _: []
    if len(places) == 1:
        return lambda rows: [row[places[0]] for row in rows]
    pick = itemgetter(*places)
    return lambda rows: list(chain.from_iterable(map(pick, rows)))


def _split(window: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Some rows at a time; long ones one by one, for PostgreSQL must hold in one array what is handed over together."""
    for start in range(0, len(window), ROWS_AT_ONCE):
        rows = window[start : start + ROWS_AT_ONCE]
        if sum(len(cell) for row in rows for cell in row if cell) < CHARS_AT_ONCE:
            yield rows
        else:
            yield from ([row] for row in rows)


class _Depth:
    """How many foreign tables are being planned inside each other."""

    _reached = 0

    def __enter__(self) -> _Depth:
        _Depth._reached += 1
        return self

    def __exit__(self, *_: object) -> None:
        _Depth._reached -= 1

    def check(self) -> None:
        """Refuse to go on without end."""
        if _Depth._reached > DEEPEST:
            raise too_deep()


def _command(table: TableToCreate, server: str, literal: Callable[[str], str]) -> str:
    """CREATE FOREIGN TABLE."""

    def options(given: Mapping[str, str]) -> str:
        listed = ", ".join(f"{quote_name(name)} {literal(value)}" for name, value in sorted(given.items()))
        return f" OPTIONS ({listed})" if given else ""

    columns: Sequence[str] = [
        f"{quote_name(column.name)} {column.type.name}{options(column.options)}" for column in table.columns
    ]
    return (
        f"CREATE FOREIGN TABLE {quote_name(table.name)} ({', '.join(columns)}) SERVER {quote_name(server)}"
        f"{options(table.options)}"
    )

"""Foreign tables with model columns on Multicorn: from what it hands over to a `Scan` and back.

In: options, columns, quals and sort keys as Multicorn has them. Out: rows, estimates and lines of EXPLAIN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

from pg_bridge.backend import postgres
from pg_bridge.backend.engines import new_engine
from pg_bridge.backend.estimates import count_kept, lately
from pg_bridge.backend.faults import broken_import
from pg_bridge.backend.ledger import Warn, open_account
from pg_bridge.backend.servers import open_server
from pg_bridge.backend.session import SESSION
from pg_bridge.errors import NotPermitted, OptionError, ServerDenied, SourceDenied
from pg_bridge.foreign import explain
from pg_bridge.foreign.answers import (
    INTEGERS,
    TEXTS,
    ColumnType,
    array_literal,
)
from pg_bridge.foreign.definition import Column, Definition
from pg_bridge.foreign.explain import Asked
from pg_bridge.foreign.learned import Learned
from pg_bridge.foreign.scan import Row, Scan
from pg_bridge.foreign.source import Relation, SortKey, enum_labels
from pg_bridge.multicorn.quals import times_of, translate
from pg_bridge.options import OPTIONS, Login, Where

if TYPE_CHECKING:
    from pg_bridge.multicorn.connection import SessionSource

ROWS_ALONE = 10
STARTUP_COST = 100  # of a scan: a query of the source and a round trip to the engine
_JOINABLE = (*INTEGERS, *TEXTS)  # Multicorn's EXPLAIN crashes the server on a parameter of most other types
_FIRST_MADE = 16384  # oids from here on are not PostgreSQL's own: FirstNormalObjectId
_NODES = count()
# Options of a server, but for those that Multicorn does not hand over, or that a user mapping may have instead of it.
_NOT_OWN = ("wrapper", *(option.name for option in OPTIONS if option.places >= {"server", "user mapping"}))


@dataclass(frozen=True, slots=True)
class _Found:
    """What the catalog knows of a table that is defined as this one is.

    Attributes:
        server_owner: The oid of its server's owner.
        server: Its server's name.
        usable: Whether the current role has USAGE on it.
        default: Whether all its columns have default collations.
        owner: Its owner's name.
        owner_may: Whether the owner has the rights of the role that reads the source.
        reader_may: Whether the current role has the rights of the owner.
        owner_may_here: Whether the owner has the rights of the current role.
    """

    server_owner: int
    server: str
    usable: bool
    default: bool
    owner: str
    owner_may: bool
    reader_may: bool
    owner_may_here: bool


class ForeignTable:
    """A foreign table's definition, kept by Multicorn for the session until its options or columns change.

    Args:
        options: Those of the table, its server and the user mapping of the current role, together.
        columns: By name, as Multicorn describes them.
    """

    def __init__(self, options: Mapping[str, str], columns: Mapping[str, Any]) -> None:
        self._of_server = _of("server", options)
        self._of_user = _of("user mapping", options)
        self._of_table = {
            name: text for name, text in options.items() if name not in self._of_server and name not in self._of_user
        }
        self._columns = [
            Column(name, ColumnType(column.type_oid, column.typmod, column.type_name), column.options)
            for name, column in columns.items()
        ]
        self._definition: Definition | None = None
        self._relation: Relation | None = None
        self._relation_of = 0
        self._itself: list[_Found] = []
        self.learned = Learned()

    @property
    def width(self) -> int:
        """The number of columns."""
        return len(self._columns)

    @property
    def key(self) -> str | None:
        """The key, if conditions on it can be handed over by a join."""
        name = self._of_table.get("key")
        joinable = {column.name for column in self._columns if column.type.oid in _JOINABLE}
        return name if name in joinable else None

    def relation(self, *, to_run: bool = False) -> Relation:
        """The source as it is, looked at once a statement.

        What is read is the text of the table's owner, code of his may be in it, and it runs as the role of the user
        mapping, on a connection where PostgreSQL can hold him to no less. So it is read only if he has the rights of
        that role himself, or the table says `security_invoker`; and never for an estimate or for EXPLAIN alone.

        Args:
            to_run: Whether the source is going to be read.

        Raises:
            SourceDenied: It may not be.
        """
        number = postgres.statement_number()
        if self._relation is None or self._relation_of != number:
            source = self._source()
            if self._definition is None:
                self._definition = Definition.from_options(
                    self._of_table,
                    self._columns,
                    lambda oid: enum_labels(source, oid),
                    json.dumps(self._of_server, sort_keys=True),  # Multicorn does not tell the server's name
                )
            self._itself = self._find_in_catalog()
            self._relation = (
                Relation.open(self._definition, source)
                if self._owner_may()
                else Relation.unseen(self._definition, source)
            )
            self._relation_of = number
        if to_run and not self._relation.definition.security_invoker:
            self._check_owner(self._relation)
        if to_run and not self._relation.sql:
            self._relation = Relation.open(self._relation.definition, self._relation.source)
        return self._relation

    def scan(
        self, quals: Sequence[Any], columns: Iterable[str], sort: Sequence[Any] = (), *, to_run: bool = False
    ) -> Scan:
        """What Multicorn asks for."""
        postgres.spoil_freed_memory()
        relation = self.relation(to_run=to_run)
        types = {column.name: column.type for column in self._columns}
        times = times_of(quals)
        translated = tuple(qual for each in quals for qual in translate(each, types[each.field_name], times))
        keys = tuple(SortKey(key.attname, key.is_reversed, key.nulls_first) for key in sort)
        return Scan(relation, frozenset(columns), translated, keys)

    def windows(self, scan: Scan, warn: Warn) -> Iterator[list[Row]]:
        """Run a scan, which tells the user of trouble that does not end it; rows that are ready at one time."""
        self._check_usage()
        name, owner = self._find_server()
        server = open_server(name, self._of_server | self._of_user, owner)
        number = postgres.statement_number()
        return scan.windows(
            SESSION.statement(number),
            next(_NODES),
            partial(new_engine, server),
            self.learned,
            account=SESSION.find_account(number, server, partial(open_account, warn=warn)),
            shows_keys=self._reader_may(),
        )

    def size(self, scan: Scan) -> tuple[int, int]:
        """(rows, bytes a row), where the bytes stand for the cost: Multicorn costs a row by its width."""
        rows, width, cost = explain.size(scan, self.learned)
        return rows, max(1, width + math.ceil(cost))

    def explain(self, scan: Scan, *, verbose: bool) -> Iterator[str]:
        """Lines of EXPLAIN; figures of the source's rows are for those only who may do what the table's owner may."""
        sample = self._reader_may()
        return explain.lines(
            scan, self.learned, verbose=verbose, sample=sample, asked=self._who_is_asked() if verbose else None
        )

    def sortable(self, keys: Sequence[Any]) -> list[Any]:
        """The longest beginning of a sort order that the source can sort by."""
        relation = self.relation()
        default = self._has_default_collations()
        return list(
            takewhile(
                lambda key: (
                    key.collate is None
                    and key.attname not in relation.definition.model
                    and relation.sortable(key.attname, default_collation=default)
                ),
                keys,
            )
        )

    def _login(self) -> Login:
        return Login.from_options(self._of_server | self._of_user)

    def _source(self) -> SessionSource:
        return source_for(self._of_server | self._of_user)

    def _check_owner(self, relation: Relation) -> None:
        """Refuse a table whose owner could have code run with rights that he has not."""
        if not self._owner_may():
            raise _denied(self._itself[0].owner, self._login().user or "")
        # Input of a type that somebody made, a domain say, may call his functions: here, as the current role.
        made = any(column.type.oid >= _FIRST_MADE and column.name not in relation.enums for column in self._columns)
        if made and self._itself and not any(found.owner_may_here for found in self._itself):
            raise _denied(self._itself[0].owner, postgres.current_role())

    def _reader_may(self) -> bool:
        """Whether the current role may do what the table's owner may."""
        return not self._itself or any(found.reader_may for found in self._itself)

    def _owner_may(self) -> bool:
        return not self._itself or any(found.owner_may for found in self._itself)

    def _find_in_catalog(self) -> list[_Found]:
        """What the catalog knows of every table that has the options and columns of this one.

        Multicorn does not tell which table it is. One that this transaction made is not seen; those that are alike
        are read by the same SQL.
        """
        columns = {
            column.name: [column.type.oid, column.type.typmod, column.options or None] for column in self._columns
        }
        rows = self._source().catalog(
            "SELECT s.srvowner::pg_catalog.int8, s.srvname, "
            "pg_catalog.has_server_privilege($1, s.oid, 'USAGE')::pg_catalog.int4, "
            "(SELECT pg_catalog.bool_and(a.attcollation IN (0, 100)) FROM pg_catalog.pg_attribute AS a "
            "WHERE a.attrelid = f.ftrelid AND a.attnum > 0 AND NOT a.attisdropped)::pg_catalog.int4, "
            "pg_catalog.pg_get_userbyid(c.relowner), "
            "pg_catalog.pg_has_role(c.relowner, current_user, 'MEMBER')::pg_catalog.int4, "
            "pg_catalog.pg_has_role($1, c.relowner, 'USAGE')::pg_catalog.int4, "
            "pg_catalog.pg_has_role(c.relowner, $1, 'MEMBER')::pg_catalog.int4 "
            "FROM pg_catalog.pg_foreign_table AS f JOIN pg_catalog.pg_foreign_server AS s ON s.oid = f.ftserver "
            "JOIN pg_catalog.pg_class AS c ON c.oid = f.ftrelid "
            "WHERE (SELECT pg_catalog.jsonb_object_agg(a.attname, pg_catalog.jsonb_build_array("
            "a.atttypid::pg_catalog.int8, a.atttypmod, (SELECT pg_catalog.jsonb_object_agg(option_name, option_value) "
            "FROM pg_catalog.pg_options_to_table(a.attfdwoptions)))) FROM pg_catalog.pg_attribute AS a "
            "WHERE a.attrelid = f.ftrelid AND a.attnum > 0 AND NOT a.attisdropped) = $4::pg_catalog.jsonb "
            "AND (SELECT pg_catalog.jsonb_object_agg(option_name, option_value) "
            "FROM pg_catalog.pg_options_to_table(f.ftoptions)) = $2::pg_catalog.jsonb "
            "AND (SELECT pg_catalog.jsonb_object_agg(option_name, option_value) - $5::pg_catalog.text[] "
            "FROM pg_catalog.pg_options_to_table(s.srvoptions)) = $3::pg_catalog.jsonb",
            [
                postgres.current_role(),
                json.dumps(self._of_table),
                self._own_options(),
                json.dumps(columns),
                array_literal(_NOT_OWN),
            ],
        )
        return [
            _Found(
                int(of_server or 0),
                str(server),
                usable == "1",
                default == "1",
                str(owner),
                *(flag == "1" for flag in may),
            )
            for of_server, server, usable, default, owner, *may in rows
        ]

    def _find_server(self) -> tuple[str, int]:
        """The server's name, and the oid of its owner.

        A table that this transaction made is not seen. Its server is one of the same options that the role may use; if
        that is not seen either, this transaction made it.
        """
        if self._itself:
            return self._itself[0].server, self._itself[0].server_owner
        alike = self._source().catalog(
            "SELECT s.srvname, s.srvowner::pg_catalog.int8 FROM pg_catalog.pg_foreign_server AS s "
            "WHERE pg_catalog.has_server_privilege($1, s.oid, 'USAGE') "
            "AND (SELECT pg_catalog.jsonb_object_agg(option_name, option_value) - $3::pg_catalog.text[] "
            "FROM pg_catalog.pg_options_to_table(s.srvoptions)) = $2::pg_catalog.jsonb ORDER BY s.srvname LIMIT 1",
            [postgres.current_role(), self._own_options(), array_literal(_NOT_OWN)],
        )
        return next(((str(name), int(owner or 0)) for name, owner in alike), ("of the foreign table", 0))

    def _own_options(self) -> str:
        """The server's options, as JSON, but for those that a user mapping may have instead of it."""
        return json.dumps({name: text for name, text in self._of_server.items() if name not in _NOT_OWN})

    def _check_usage(self) -> None:
        if self._itself and not any(found.usable for found in self._itself):
            raise ServerDenied(self._itself[0].server)

    def _who_is_asked(self) -> Asked | None:
        """The server, for who may use it."""
        with suppress(ServerDenied, NotPermitted, OptionError):
            self._check_usage()
            name, owner = self._find_server()
            server = open_server(name, self._of_server | self._of_user, owner)
            return Asked(server, lately(server), count_kept)
        return None

    def _has_default_collations(self) -> bool:
        return bool(self._itself) and all(found.default for found in self._itself)


def _of(place: Where, options: Mapping[str, str]) -> dict[str, str]:
    names = {option.name for option in OPTIONS if place in option.places}
    return {name: text for name, text in options.items() if name in names}


def _denied(owner: str, role: str) -> SourceDenied:
    return SourceDenied(
        f'the foreign table is of "{owner}", who has not the rights of "{role}", as which code of his might run',
        sqlstate="42501",
        hint=f'Its owner chooses what code runs there. Give it an owner who has the rights of "{role}", '
        "or have its owner set the option security_invoker 'true', if you trust him.",
    )


def source_for(options: Mapping[str, str]) -> SessionSource:
    """The source that the options of a server and a user mapping lead to.

    Raises:
        OptionError: An option is unknown or malformed.
        BrokenInstallation: psycopg is missing, which this host alone needs, and only here.
    """
    try:
        from pg_bridge.multicorn.connection import source_of  # noqa: PLC0415
    except ImportError as error:
        raise broken_import(error, "multicorn") from error
    return source_of(Login.from_options(options))

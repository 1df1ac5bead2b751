"""The reading side of a query: its rows in the order of their key, each page a short transaction of its own.

In: a query and its key. Out: `Item`s. Where the key has an index that gives the rows in order, each page begins behind
the last one's end; where it has none, a cursor WITH HOLD has the server keep the result, which takes one transaction as
long as the query itself, and none while anything is asked. In either order two rows of one key are neighbours, and so
are found; a NULL in a key is found before anything is asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from pg_bridge.asking.prompt import columns_hint
from pg_bridge.errors import JobError, KeyFault, OptionError, QueryError, UnknownColumn
from pg_bridge.foreign.answers import ColumnType
from pg_bridge.jobs.database import Connection, Database, first_line, identifiers
from pg_bridge.jobs.operators import Operators
from pg_bridge.jobs.record import WHOLE, Item, Part, digest_of

FIRST_PAGE_ROWS, MOST_PAGE_ROWS = 20, 10_000
PAGE_CHARS = 8_000_000  # what a page is to have, so that rows of a megabyte come a few at a time
_FIRST_WITH_PARTS = 140_000
DEAR = 10  # pages that cost together so many times what the whole query does are not read one by one
_CURSOR = "pg_bridge_map"
_ONE_SELECT = "It must be one SELECT, and may not have a statement behind it."
_TAIL = re.compile(r"[;\s]+\Z")


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    type: ColumnType
    table: int
    number: int


class QueryReading:
    """Reads a query.

    Args:
        database: Where.
        query: One that returns rows.
        key: The columns that tell them apart.
        whole: Whether items are to have all columns of their rows.
        part: Which of the rows.

    Attributes:
        columns: Of the query.
        expected_rows: By PostgreSQL's planner.
        is_paged: Whether the key has an index that gives the rows in order.
    """

    def __init__(
        self, database: Database, query: str, key: Sequence[str], *, whole: bool = False, part: Part = WHOLE
    ) -> None:
        self.columns: tuple[str, ...] = ()
        self.expected_rows: int | None = None
        self.is_paged = False
        self._database = database
        self._query = _TAIL.sub("", query)
        self._key = tuple(key)
        self._whole = whole
        self._part = part
        self._types: dict[str, ColumnType] = {}
        self._operators = Operators((), ())
        self._sent: Sequence[str] = ()
        self._context = b""
        self._last: tuple[str, ...] | None = None
        self._held_by = 0  # the generation of the connection that has the cursor
        self._page_rows = FIRST_PAGE_ROWS
        self._is_over = False

    def open(self) -> None:
        """Look at the query without reading it, and at its keys.

        Raises:
            QueryError: It is not one query that returns rows.
            UnknownColumn: It lacks a column of the key.
            KeyFault: A key is NULL.
            JobError: PostgreSQL refused it.
        """
        described = self._database.read(self._describe)
        self.columns = tuple(column.name for column in described)
        for name in (*self._key, *self._part.by):
            if name not in self.columns:
                raise UnknownColumn(f'the query has no column "{name}"', hint=columns_hint(name, self.columns))
            if self.columns.count(name) > 1:
                raise OptionError(f'the query has more than one column named "{name}"', hint="Rename one, with AS.")
        self._types = {column.name: column.type for column in described}
        if self._key:
            self._operators = self._database.run(lambda connection: Operators.find(connection, self.key_types()))
            self._database.read(lambda connection: self._plan(connection, described))
        if self._part.of > 1:
            self._database.read(self._take_part)

    def key_types(self) -> list[ColumnType]:
        """The types of the key's columns."""
        return [self._types[name] for name in self._key]

    def begin(self, sent: Sequence[str], context: bytes) -> None:
        """As in `Reading`."""
        self._sent, self._context = sent, context
        self._last, self._held_by, self._is_over = None, 0, False

    def go_on_behind(self, key: tuple[str, ...]) -> None:
        """Having begun, leave out the rows up to this key."""
        self._last = key

    def fetch(self) -> list[Item]:
        """As in `Reading`: a page.

        Raises:
            KeyFault: Two rows have one key, or a key is NULL.
            JobError: PostgreSQL failed.
        """
        if self._is_over:
            return []
        page = self._database.read(self._page if self.is_paged else self._held_page)
        self._is_over = len(page) < self._page_rows
        self._adapt(page)
        return list(self._items(page))

    def _items(self, page: Sequence[tuple[Any, ...]]) -> Iterator[Item]:
        keys, context, last = len(self._key), self._context, self._last
        for row in page:
            key, text = row[:keys], row[keys]
            if keys:
                if key == last:
                    raise _repeated_key(self._key)
                if None in key:
                    raise _null_key(self._key)
                last = key
            yield Item(key, text, row[keys + 1] if self._whole else "", digest_of(context, text))
        self._last = last if keys else None

    def _adapt(self, page: Sequence[tuple[Any, ...]]) -> None:
        chars = sum(len(cell) for row in page for cell in row if isinstance(cell, str))
        if page:
            fits = int(PAGE_CHARS / max(1.0, chars / len(page)))
            self._page_rows = max(1, min(fits, 2 * self._page_rows, MOST_PAGE_ROWS))

    # -- statements

    def _from(self) -> sql.Composed:
        return sql.SQL("FROM ({}\n) AS q").format(sql.SQL(self._query))  # the user's own words

    def _select(self, *more: sql.Composable) -> sql.Composed:
        cells: list[sql.Composable] = [
            *(sql.SQL("{}::text").format(sql.Identifier("q", name)) for name in self._key),
            sql.SQL("pg_catalog.row_to_json(sent.*)::text"),
            *([sql.SQL("pg_catalog.row_to_json(q.*)::text")] if self._whole else []),
            *more,
        ]
        sent = sql.SQL("CROSS JOIN LATERAL (SELECT {}) AS sent").format(identifiers(self._sent, "q"))
        return sql.SQL("SELECT {} {} {}").format(sql.SQL(", ").join(cells), self._from(), sent)

    def _behind(self, operator: str, values: Sequence[sql.Composable]) -> sql.Composable:
        """A condition for the rows from a key on; none where there are no values of one."""
        return sql.SQL(" WHERE {}").format(self._compared(operator, values)) if values else sql.SQL("")

    def _compared(self, operator: str, values: Sequence[sql.Composable]) -> sql.Composable:
        """The key compared with values, as PostgreSQL does."""
        return self._operators.compare([sql.Identifier("q", name) for name in self._key], operator, values)

    def _page(self, connection: Connection) -> list[tuple[Any, ...]]:
        """The next page, by the key: from the last row on, so that another of the same key is seen."""
        values = [sql.SQL(f"${i}") for i in range(1, len(self._last or ()) + 1)]
        is_same = [self._compared("=", values)] if values else []  # 1.0 and 1.00 are
        statement = sql.SQL("{}{} ORDER BY {} LIMIT {}").format(
            self._select(*is_same),
            self._behind(">=", values),
            identifiers(self._key, "q"),
            sql.Literal(self._page_rows + len(is_same)),
        )
        rows = connection.execute(statement, list(self._last or ())).fetchall()
        same = sum(row[-1] is True for row in rows) if values else 0
        if same > 1:
            raise _repeated_key(self._key)
        return rows[same:][: self._page_rows]

    def _held_page(self, connection: Connection) -> list[tuple[Any, ...]]:
        """The next page, of a cursor that outlives its transaction."""
        if self._held_by != self._database.generation:
            condition = self._behind(">", [sql.Literal(value) for value in self._last or ()])  # it takes no parameters
            order: sql.Composable = sql.SQL("")
            if self._key:
                missing = sql.SQL(" OR ").join(
                    sql.SQL("{} IS NULL").format(sql.Identifier("q", name)) for name in self._key
                )
                order = sql.SQL(" ORDER BY {} DESC, {}").format(missing, identifiers(self._key, "q"))
            elif self._held_by:
                raise JobError(
                    "the connection was lost while rows without a key were read",
                    sqlstate="08006",
                    hint="Start it again; with --key it goes on where it was.",
                )
            statement = sql.SQL("DECLARE {} NO SCROLL CURSOR WITH HOLD FOR {}{}{}").format(
                sql.Identifier(_CURSOR), self._select(), condition, order
            )
            connection.execute(sql.SQL("CLOSE ALL"))
            connection.execute(statement)
            self._held_by = self._database.generation
        fetch = sql.SQL("FETCH FORWARD {} FROM {}").format(sql.Literal(self._page_rows), sql.Identifier(_CURSOR))
        return connection.execute(fetch).fetchall()

    def _describe(self, connection: Connection) -> list[_Column]:
        try:
            # As binary, since PostgreSQL then takes one statement and no second one that stands behind a parenthesis.
            cursor = connection.execute(sql.SQL("SELECT q.* {} LIMIT 0").format(self._from()), binary=True)
        except psycopg.ProgrammingError as error:
            if isinstance(error, psycopg.errors.InsufficientPrivilege):
                raise
            is_none = isinstance(error, psycopg.errors.SyntaxError | psycopg.errors.UndefinedFunction)
            hint = error.diag.message_hint or (_ONE_SELECT if is_none else "")
            raise QueryError(f"the query cannot be read: {first_line(error)}", hint=hint) from None
        found = cursor.pgresult
        assert found is not None  # noqa: S101 - it has been executed; for the type checker
        described = []
        for i in range(found.nfields):
            oid, typmod = found.ftype(i), found.fmod(i)
            row = connection.execute("SELECT pg_catalog.format_type($1::oid, $2::int)", [oid, typmod]).fetchone()
            type_ = ColumnType(oid, typmod, str(row[0]) if row else "")
            name = (found.fname(i) or b"").decode(connection.info.encoding)
            described.append(_Column(name, type_, found.ftable(i), found.ftablecol(i)))
        return described

    def _plan(self, connection: Connection, described: Sequence[_Column]) -> None:
        """Choose how to read, by what PostgreSQL's planner would do, and look for keys that are NULL."""
        whole = _explain(connection, sql.SQL("SELECT q.* {}").format(self._from()))
        unknown = [sql.SQL("(SELECT NULL)")] * len(self._key)  # a value that is known only when the query runs
        page = _explain(
            connection,
            sql.SQL("SELECT q.* {}{} ORDER BY {} LIMIT {}").format(
                self._from(),
                self._behind(">=", unknown),
                identifiers(self._key, "q"),
                sql.Literal(MOST_PAGE_ROWS),
            ),
        )
        self.expected_rows = int(whole["Plan Rows"])
        self.is_paged = is_cheap_page(page, whole)
        if self.is_paged and not _never_null(connection, [c for c in described if c.name in self._key], whole):
            missing = sql.SQL(" OR ").join(
                sql.SQL("{} IS NULL").format(sql.Identifier("q", name)) for name in self._key
            )
            found = connection.execute(sql.SQL("SELECT {} WHERE {} LIMIT 1").format(self._from(), missing))
            if found.fetchone() is not None:
                raise _null_key(self._key)

    def _check_hash(self, connection: Connection, name: str) -> None:
        """See that values of a column have a hash, which PostgreSQL tells only when it meets the first row."""
        type_ = self._types[name].name
        hashed = sql.SQL("SELECT pg_catalog.hash_record_extended(ROW(NULL::{}), 0)").format(sql.SQL(type_))
        try:
            connection.execute(hashed)
        except psycopg.errors.UndefinedFunction:
            raise OptionError(
                f'rows cannot be parted by column "{name}": type {type_} has no hash',
                hint="Part them by columns of another type (part_by, --part-by), or cast it in the query.",
            ) from None

    def _take_part(self, connection: Connection) -> None:
        """From now on read the rows of the part alone.

        Which one a row is of is told by what PostgreSQL holds for equal, and so by no setting of a session.
        """
        if connection.info.server_version < _FIRST_WITH_PARTS:
            raise OptionError("a query is read in parts from PostgreSQL 14 on")
        for name in self._part.by or self._key:
            self._check_hash(connection, name)
        if self._part.by:  # else two rows of one key are of one part, and neighbours there
            repeated = sql.SQL("SELECT {} GROUP BY {} HAVING pg_catalog.count(*) > 1 LIMIT 1").format(
                self._from(), identifiers(self._key, "q")
            )
            if connection.execute(repeated).fetchone() is not None:
                raise _repeated_key(self._key)
        # By CASE, of which the planner guesses half the rows and not one of two hundred, for which it would sort.
        wrapped = sql.SQL(
            "SELECT q.* {} WHERE CASE WHEN pg_catalog.mod(pg_catalog.hash_record_extended(ROW({}), 0) "
            "OPERATOR(pg_catalog.&) {positive}, {of}) OPERATOR(pg_catalog.=) {number} THEN true ELSE false END"
        ).format(
            self._from(),
            identifiers(self._part.by or self._key, "q"),
            positive=sql.Literal(2**63 - 1),
            of=sql.Literal(self._part.of),
            number=sql.Literal(self._part.number % self._part.of),
        )
        self._query = wrapped.as_string(connection)
        if self.expected_rows is not None:
            self.expected_rows = -(-self.expected_rows // self._part.of)
        connection.execute(sql.SQL("SELECT {} LIMIT 0").format(self._from()))


def _explain(connection: Connection, query: sql.Composable) -> Mapping[str, Any]:
    row = connection.execute(sql.SQL("EXPLAIN (FORMAT JSON) {}").format(query)).fetchone()
    found = row[0] if row else "[]"
    plan: Mapping[str, Any] = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return plan


def is_cheap_page(page: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    """Whether pages may be read one by one: an index leads to where each begins, and all of them do not cost too much.

    Costs alone do not tell: of a page behind the last one the planner expects that it is as soon found as the first.
    """
    pages = int(whole["Plan Rows"]) // MOST_PAGE_ROWS + 1
    return _begins_by_index(page) and pages * float(page["Total Cost"]) <= DEAR * float(whole["Total Cost"])


def _begins_by_index(plan: Mapping[str, Any]) -> bool:
    """Whether a condition of an index has a value that is known only when the query runs: of another plan's row."""
    own = re.search(r"\$\d|InitPlan", plan.get("Index Cond", "")) is not None
    return own or any(map(_begins_by_index, plan.get("Plans", ())))


def _never_null(connection: Connection, key: Sequence[_Column], plan: Mapping[str, Any]) -> bool:
    """Whether a key's columns are those of tables that have no NULL in them, and nothing in the plan adds one."""
    if _adds_nulls(plan) or not all(column.table and column.number for column in key):
        return False
    found = connection.execute(
        "SELECT pg_catalog.bool_and(a.attnotnull) FROM ROWS FROM ("
        "pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::int[])) AS k (relation, number) "
        "JOIN pg_catalog.pg_attribute AS a ON a.attrelid OPERATOR(pg_catalog.=) k.relation "
        "AND a.attnum OPERATOR(pg_catalog.=) k.number",
        [[column.table for column in key], [column.number for column in key]],
    ).fetchone()
    return bool(found and found[0])


def _adds_nulls(plan: Mapping[str, Any]) -> bool:
    """Whether there is an outer join in a plan, or an aggregate over several sets of columns."""
    joins = plan.get("Join Type") in ("Left", "Right", "Full")
    return joins or "Grouping Sets" in plan or any(map(_adds_nulls, plan.get("Plans", ())))


def _repeated_key(key: Sequence[str]) -> KeyFault:
    return KeyFault(
        f"two rows of the query have the same key ({', '.join(key)})",
        hint="Name with --key what tells its rows apart, or write a query that has each once.",
    )


def _null_key(key: Sequence[str]) -> KeyFault:
    return KeyFault(
        f"a row of the query has NULL in its key ({', '.join(key)})",
        sqlstate="23502",
        hint="Leave such rows out, with WHERE … IS NOT NULL, or name another key.",
    )

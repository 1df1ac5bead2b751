"""A scan of a foreign table: from the source's rows to rows with answers, window by window.

    source rows → what the model's predicates leave of them → answers about those → rows of the foreign table

In: a `Relation`, the columns that the query needs, its quals and its sort keys. Out: rows in the source's order, as
soon as their window is answered. Only what is needed is asked: each predicate about the rows that the earlier ones
left, all other model columns about the rows that are left in the end. Windows begin small and double, so that a query
which stops early has asked little; one that takes every row gets the others together. It knows neither PostgreSQL's
embedding nor HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.books import reading
from pg_bridge.asking.inquiry import Ask, NotAsked, Outcome
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.run import Run
from pg_bridge.asking.together import Failed, Round, answer_columns, find_known, group_columns
from pg_bridge.asking.windows import FETCHED_ROWS, Window, read_windows
from pg_bridge.engine import Engine
from pg_bridge.errors import AnswerError
from pg_bridge.foreign.definition import ModelColumn
from pg_bridge.foreign.failing import NOT_OF_THE_TYPE, WORTH_ANOTHER_TRY, Failing, KeyOf, no_key
from pg_bridge.foreign.learned import Learned, cost_tokens
from pg_bridge.foreign.quals import Qual, surely_fails
from pg_bridge.foreign.source import Relation, Select, SortKey, SourceRow
from pg_bridge.ledger.account import Account
from pg_bridge.rows.table import Table

CELL_CHARS = 64  # what a cell takes besides its text

Row = list[str | None]


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """What one scan needs.

    Attributes:
        relation: The foreign table's source.
        needed: Names of the columns that the query reads, those of its quals among them.
        quals: What all rows must satisfy.
        sort: The order that PostgreSQL relies on; empty for any.
    """

    relation: Relation
    needed: frozenset[str]
    quals: tuple[Qual, ...]
    sort: tuple[SortKey, ...] = ()

    @property
    def predicates(self) -> dict[str, tuple[Qual, ...]]:
        """The quals on model columns, by column."""
        grouped: dict[str, list[Qual]] = {}
        for qual in self.quals:
            if qual.column in self.relation.definition.model:
                grouped.setdefault(qual.column, []).append(qual)
        return {name: tuple(quals) for name, quals in grouped.items()}

    @property
    def asked(self) -> list[ModelColumn]:
        """All model columns that are asked about, in the table's order."""
        predicates = self.predicates
        model = self.relation.definition.model.values()
        return [column for column in model if column.name in self.needed or column.name in predicates]

    @property
    def shown(self) -> list[str]:
        """The source columns that are returned, in the table's order."""
        return [column.name for column in self.relation.definition.source_columns if column.name in self.needed]

    @property
    def sent(self) -> list[str]:
        """The source columns that prompts need, in the table's order."""
        named = {name for column in self.asked for name in column.columns}
        return [column.name for column in self.relation.definition.source_columns if column.name in named]

    @property
    def statement(self) -> Select:
        """The query that the source runs."""
        model = self.relation.definition.model
        quals = [qual for qual in self.quals if qual.column not in model]
        return self.relation.select(self.shown, self.sent, quals, self.sort)

    def in_turn(self, learned: Learned, row_chars: float = 0) -> list[ModelColumn]:
        """The predicates' columns in the order in which to ask: least cost for each row that is dropped first."""
        model, predicates = self.relation.definition.model, self.predicates

        def rank(name: str) -> float:
            column, quals = model[name], predicates[name]
            cost = cost_tokens(column, row_chars) * learned.distinct_rate(quals)
            return cost / max(1 - learned.pass_rate(quals, column), 1e-6)

        return [model[name] for name in sorted(predicates, key=rank)]

    def windows(
        self,
        memory: Memory,
        node: int,
        new_engine: Callable[[], Engine],
        learned: Learned,
        *,
        every_row: bool = False,
        account: Account | None = None,
        shows_keys: bool = False,
    ) -> Iterator[list[Row]]:
        """Run it.

        Args:
            memory: What the statement has been answered before.
            node: A number for this scan, for the memory's figures.
            new_engine: Makes an engine for some questions.
            learned: Of this foreign table; read and added to.
            every_row: Whether all rows will be taken.
            account: The statement's with the ledger.
            shows_keys: Whether who reads may be told the keys of rows that failed, where the query reads them.

        Yields:
            Those rows of the foreign table that are ready at one time, every column in its place; columns that are not
            needed are None.

        Raises:
            SourceError: The source failed.
            AnswerError: A row has no answer, and its column's `on_error` is `fail`.
            EngineError: The engine failed as a whole.
        """
        asking = _Asking(self, memory, node, new_engine, learned, account)
        columns = self.relation.definition.columns
        statement = self.statement
        where = {name: place for place, name in enumerate(self.shown)}
        with (
            self.relation.source.rows(statement.sql, statement.parameters) as source,
            reading(account, source.fetch) as fetch,
            closing(asking),
        ):
            for window in self._windows(fetch, memory.run, asking.work, every_row=every_row):
                rows = window.rows
                table = Table.from_json([cells[-1] for cells in rows], self.sent, asking.work)
                if window.ahead_of:
                    asking.ask_ahead(table, window.ahead_of)
                    continue
                places, answers = asking.answered(table, self._keys(rows) if shows_keys else no_key)
                yield [
                    [
                        answers[column.name][i]
                        if column.name in answers
                        else rows[place][where[column.name]]
                        if column.name in where
                        else None
                        for column in columns
                    ]
                    for i, place in enumerate(places)
                ]

    def _keys(self, rows: Sequence[SourceRow]) -> KeyOf:
        """The keys of a window's rows, if the query reads them."""
        key = self.relation.definition.key
        if key not in self.shown:
            return no_key
        column = self.shown.index(key)
        return lambda place: rows[place][column]

    def _windows(
        self, fetch: Callable[[int], list[SourceRow]], run: Run, work: Callable[[], None], *, every_row: bool
    ) -> Iterator[Window[SourceRow]]:
        most = self.relation.definition.window_rows
        is_one = len(self.predicates) <= 1  # of several the first rows tell which is better asked first
        if self.asked:
            return read_windows(
                fetch, _chars_held, run, every_row=every_row and is_one, most_rows=most, work=work, ahead=is_one
            )
        # Nothing is gained by more rows at one time.
        return read_windows(fetch, _chars_held, run, every_row=True, most_rows=FETCHED_ROWS)


def _chars_held(cells: SourceRow) -> int:
    return sum(CELL_CHARS + len(cell or "") for cell in cells)


class _Asking:
    """Asks about the windows of one scan."""

    def __init__(
        self,
        scan: Scan,
        memory: Memory,
        node: int,
        new_engine: Callable[[], Engine],
        learned: Learned,
        account: Account | None,
    ) -> None:
        self._scan = scan
        self._memory = memory
        self._node = node
        self._new_engine = new_engine
        self._learned = learned
        self._account = account
        self._predicates = scan.predicates
        self._others = [column for column in scan.asked if column.name not in self._predicates]
        self._bytewise = scan.relation.bytewise
        self._failing = Failing(memory, scan.asked)
        self._ahead: Round | None = None  # of the questions that are asked first

    def work(self) -> None:
        """Let the engine work; for who reads or cuts rows meanwhile."""
        if self._ahead is not None:
            self._ahead.work()

    def ask_ahead(self, table: Table, read: int) -> None:
        """Ask about a few rows, while more of their window are read.

        Args:
            table: The rows, with all columns that are sent.
            read: How many have been read.
        """
        first = self._scan.in_turn(self._learned) or self._others
        if self._ahead is None:
            self._ahead = self._new_round()
        asks = [column.ask for column in first]
        asking = self._ahead
        try:
            asking.ask_ahead(lambda: group_columns(self._memory, asks, table, asking)[0][1], read)
        except Failed as failed:
            raise self._failing.error_ahead(failed) from None

    def close(self) -> None:
        """Abort what is in flight."""
        if self._ahead is not None:
            self._ahead.close()

    def answered(self, table: Table, key_of: KeyOf) -> tuple[list[int], dict[str, Row]]:
        """Ask about one window.

        Args:
            table: Its rows, with all columns that are sent.
            key_of: The key of the row at a place.

        Returns:
            The places of the rows that are left, and of each model column its values for them.
        """
        self._failing.key_of = key_of
        places = np.arange(table.rows, dtype=np.intp)
        answers: dict[str, Row] = {}
        in_turn = self._scan.in_turn(self._learned, _mean_chars(table))
        if len(in_turn) > 1:
            for column in in_turn:  # what is known already costs nothing, whoever's turn it is
                places = places[self._not_known_to_fail(column, table.take(places))]
        for column in in_turn:
            if not places.size:
                break
            values, kept = self._filtered(column, table, places)
            answers = {name: [row[i] for i in kept] for name, row in answers.items()}
            answers[column.name] = [values[i] for i in kept]
            places = places[kept]
        if self._others and places.size:
            values_of = self._values(self._others, table, places)
            answers |= {column.name: values for column, values in zip(self._others, values_of, strict=True)}
        return places.tolist(), answers

    def _not_known_to_fail(self, column: ModelColumn, table: Table) -> list[int]:
        known = find_known(self._memory, column.ask, table, self._new_engine(), self._account)
        fails = {
            outcome: outcome is not None and outcome[0] is not None and self._fails(column, _value(column, outcome))
            for outcome in set(known)
        }
        return [place for place, outcome in enumerate(known) if not fails[outcome]]

    def _fails(self, column: ModelColumn, outcome: Outcome) -> bool:
        value, error = outcome
        quals = self._predicates[column.name]
        return error is None and any(surely_fails(qual, column.type, value, bytewise=self._bytewise) for qual in quals)

    def _filtered(self, column: ModelColumn, table: Table, places: NDArray[np.intp]) -> tuple[Row, list[int]]:
        quals = self._predicates[column.name]
        questions = self._memory.run.unique_prompts
        (values,) = self._values([column], table, places)
        fails = {value: self._fails(column, (value, None)) for value in set(values)}
        kept = [i for i, value in enumerate(values) if not fails[value]]
        self._learned.add(quals, len(values), len(kept), self._memory.run.unique_prompts - questions)
        return values, kept

    def _values(self, columns: Sequence[ModelColumn], table: Table, places: NDArray[np.intp]) -> list[Row]:
        asked = table.take(places)
        try:
            outcomes = self._ask([column.ask for column in columns], asked)
        except Failed as failed:
            raise self._failing.error(failed, asked, places) from None
        return [
            self._decoded(column, asked, places, of_column) for column, of_column in zip(columns, outcomes, strict=True)
        ]

    def _decoded(self, column: ModelColumn, table: Table, places: NDArray[np.intp], outcomes: Sequence[Outcome]) -> Row:
        """Turn answers into values; ask once more where an answer is no value."""
        known = {outcome: _value(column, outcome) for outcome in set(outcomes)}
        again = [i for i, outcome in enumerate(outcomes) if known[outcome][1] in WORTH_ANOTHER_TRY]
        results = [known[outcome] for outcome in outcomes]
        if again:
            rows = np.array(again, np.intp)
            try:
                (second,) = self._ask([column.again], table.take(rows))
            except Failed as failed:
                raise self._failing.error(failed, table.take(rows), places[rows]) from None
            for i, outcome in zip(again, second, strict=True):
                results[i] = _value(column, outcome)
        failing = [i for i, (_, error) in enumerate(results) if error is not None and not isinstance(error, NotAsked)]
        if failing:
            self._failing.note(column, table, places, {i: results[i][1] or "" for i in failing})
            if not column.on_error_null:
                raise AnswerError(column.name, results[failing[0]][1] or "")
        return [value for value, _ in results]

    def _ask(self, asks: Sequence[Ask], table: Table) -> list[list[Outcome]]:
        asking, self._ahead = self._ahead or self._new_round(), None
        return answer_columns(self._memory, asks, table, asking)

    def _new_round(self) -> Round:
        engine = self._new_engine()
        self._failing.server_name = engine.server_name
        return Round(self._memory, self._node, engine, self._account, fails=self._failing.ends)


def _mean_chars(table: Table) -> float:
    """Characters of a row's cells, on the average."""
    if not table.rows:
        return 0
    return sum(float(lengths[table.codes[:, j]].mean()) for j, lengths in enumerate(table.lengths()))


def _value(column: ModelColumn, outcome: Outcome) -> Outcome:
    """(value, error) of an answer."""
    text, error = outcome
    if text is None:
        return outcome
    try:
        return column.answer.value(text), None
    except (ValueError, KeyError, ArithmeticError):
        return None, error or NOT_OF_THE_TYPE

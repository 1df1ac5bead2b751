"""A scan of a foreign table: from the source's rows to rows with answers, window by window.

    source rows → what the model's predicates leave of them → answers about those → rows of the foreign table

In: a `Relation`, the columns that the query needs, its quals and its sort keys. Out: rows in the source's order, as
soon as their window is answered. Only what is needed is asked: each predicate about the rows that the earlier ones
left, all other model columns about the rows that are left in the end. Windows begin small and double, so that a query
which stops early has asked little. It knows neither PostgreSQL's embedding nor HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from pg_bridge.asking import together
from pg_bridge.asking.streamed import WINDOW_CHARS
from pg_bridge.asking.together import Outcome
from pg_bridge.engine import UNFIT, Engine
from pg_bridge.errors import AnswerError
from pg_bridge.foreign.definition import ModelColumn
from pg_bridge.foreign.learned import Learned, cost_tokens
from pg_bridge.foreign.quals import Qual, surely_fails
from pg_bridge.foreign.source import Cells, Relation, Rows, SortKey, Statement

FIRST_WINDOW_ROWS = 32
WINDOW_GROWTH = 2
FETCHED_ROWS = 1024

_NOT_OF_THE_TYPE = "the answer is no value of the column's type"
_WORTH_ANOTHER_TRY = UNFIT | {_NOT_OF_THE_TYPE}

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
    def statement(self) -> Statement:
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

    def rows(
        self, memory: together.Statement, node: int, new_engine: Callable[[], Engine], learned: Learned
    ) -> Iterator[Row]:
        """Run it.

        Args:
            memory: What the statement has been answered before.
            node: A number for this scan, for the memory's figures.
            new_engine: Makes an engine for some questions.
            learned: Of this foreign table; read and added to.

        Yields:
            Rows of the foreign table, every column in its place; those that are not needed are None.

        Raises:
            SourceError: The source failed.
            AnswerError: A row has no answer, and its column's `on_error` is `fail`.
            EngineError: The engine failed as a whole.
        """
        for window in self.windows(memory, node, new_engine, learned):
            yield from window

    def windows(
        self, memory: together.Statement, node: int, new_engine: Callable[[], Engine], learned: Learned
    ) -> Iterator[list[Row]]:
        """Run it, and yield the rows that are ready at one time together; the rest as for `rows`."""
        asking = _Asking(self, memory, node, new_engine, learned)
        columns = self.relation.definition.columns
        statement = self.statement
        where = {name: place for place, name in enumerate(self.shown)}
        with self.relation.source.rows(statement.sql, statement.parameters) as source:
            for window in self._windows(source, memory):
                places, answers = asking.answered(
                    [cells[-1] for cells in window] if self.sent else [None] * len(window)
                )
                yield [
                    [
                        answers[column.name][i]
                        if column.name in answers
                        else window[place][where[column.name]]
                        if column.name in where
                        else None
                        for column in columns
                    ]
                    for i, place in enumerate(places)
                ]

    def _windows(self, source: Rows, memory: together.Statement) -> Iterator[list[Cells]]:
        most = self.relation.definition.window_rows
        size = min(FIRST_WINDOW_ROWS, most) if self.asked else FETCHED_ROWS
        is_last = False
        while not is_last:
            started = time.perf_counter()
            window: list[Cells] = []
            chars = 0
            while len(window) < size and chars < WINDOW_CHARS and not is_last:
                wanted = min(size - len(window), FETCHED_ROWS)
                fetched = source.fetch(wanted)
                is_last = len(fetched) < wanted
                chars += sum(len(cells[-1] or "") for cells in fetched)
                window += fetched
            memory.run.read_s += time.perf_counter() - started
            if window:
                yield window
            size = min(size * WINDOW_GROWTH, most) if self.asked else size


class _Asking:
    """Asks about the windows of one scan."""

    def __init__(
        self, scan: Scan, memory: together.Statement, node: int, new_engine: Callable[[], Engine], learned: Learned
    ) -> None:
        self._scan = scan
        self._memory = memory
        self._node = node
        self._new_engine = new_engine
        self._learned = learned
        self._sent = scan.sent
        self._predicates = scan.predicates
        self._others = [column for column in scan.asked if column.name not in self._predicates]
        self._bytewise = scan.relation.bytewise

    def answered(self, rows: Sequence[str | None]) -> tuple[list[int], dict[str, Row]]:
        """Ask about one window.

        Returns:
            The places of the rows that are left, and of each model column its values for them.
        """
        places = list(range(len(rows)))
        answers: dict[str, Row] = {}
        row_chars = sum(len(row or "") for row in rows) / max(1, len(rows))
        in_turn = self._scan.in_turn(self._learned, row_chars)
        if len(in_turn) > 1:
            for column in in_turn:  # what is known already costs nothing, whoever's turn it is
                places = self._not_known_to_fail(column, places, rows)
        for column in in_turn:
            if not places:
                break
            values, kept = self._filtered(column, [rows[place] for place in places])
            answers = {name: [row[i] for i in kept] for name, row in answers.items()}
            answers[column.name] = [values[i] for i in kept]
            places = [places[i] for i in kept]
        if self._others and places:
            values_of = self._values(self._others, [rows[place] for place in places])
            answers |= {column.name: values for column, values in zip(self._others, values_of, strict=True)}
        return places, answers

    def _not_known_to_fail(self, column: ModelColumn, places: list[int], rows: Sequence[str | None]) -> list[int]:
        known = self._memory.known(column.ask, [rows[place] for place in places], self._sent)
        fails = {
            outcome: outcome is not None and outcome[0] is not None and self._fails(column, _value(column, outcome))
            for outcome in set(known)
        }
        return [place for place, outcome in zip(places, known, strict=True) if not fails[outcome]]

    def _fails(self, column: ModelColumn, outcome: Outcome) -> bool:
        value, error = outcome
        quals = self._predicates[column.name]
        return error is None and any(surely_fails(qual, column.type, value, bytewise=self._bytewise) for qual in quals)

    def _filtered(self, column: ModelColumn, rows: Sequence[str | None]) -> tuple[Row, list[int]]:
        quals = self._predicates[column.name]
        questions = self._memory.run.unique_prompts
        (values,) = self._values([column], rows)
        fails = {value: self._fails(column, (value, None)) for value in set(values)}
        kept = [i for i, value in enumerate(values) if not fails[value]]
        self._learned.add(quals, len(rows), len(kept), self._memory.run.unique_prompts - questions)
        return values, kept

    def _values(self, columns: Sequence[ModelColumn], rows: Sequence[str | None]) -> list[Row]:
        outcomes = self._ask([column.ask for column in columns], rows)
        return [self._decoded(column, rows, of_column) for column, of_column in zip(columns, outcomes, strict=True)]

    def _decoded(self, column: ModelColumn, rows: Sequence[str | None], outcomes: Sequence[Outcome]) -> Row:
        """Turn answers into values; ask once more where an answer is no value."""
        known = {outcome: _value(column, outcome) for outcome in set(outcomes)}
        again = [i for i, outcome in enumerate(outcomes) if known[outcome][1] in _WORTH_ANOTHER_TRY]
        results = [known[outcome] for outcome in outcomes]
        if again:
            (second,) = self._ask([column.again], [rows[i] for i in again])
            for i, outcome in zip(again, second, strict=True):
                results[i] = _value(column, outcome)
        if not column.on_error_null:
            for _, error in results:
                if error is not None:
                    raise AnswerError(column.name, error)
        return [value for value, _ in results]

    def _ask(self, asks: Collection[together.Ask], rows: Sequence[str | None]) -> list[list[Outcome]]:
        return self._memory.answer_each(self._node, list(asks), rows, self._sent, self._new_engine())


def _value(column: ModelColumn, outcome: Outcome) -> Outcome:
    """(value, error) of an answer."""
    text, error = outcome
    if text is None:
        return outcome
    try:
        return column.answer.value(text), None
    except (ValueError, KeyError, ArithmeticError):
        return None, error or _NOT_OF_THE_TYPE

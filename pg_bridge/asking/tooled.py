"""Questions about rows that may have functions called before they are answered: all rows of a window, round by round.

    rows → unique rows → who is asked → Round → calls → results beside the rows → who is asked → … → answers

In: rows, functions, a call, a statement's memory, what asks and what calls. Out: for each row its answer and what was
called for it. A round is one batch over all rows that have no answer. It knows neither PostgreSQL nor HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pg_bridge.asking.dialogue import Dialogue, names_beside
from pg_bridge.asking.inquiry import Ask, Inquiry, NotAsked, Outcome
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.portions import Group
from pg_bridge.asking.prompt import escape, parse_question, resolve_columns
from pg_bridge.asking.run import ToolsUsed
from pg_bridge.asking.together import Failed, Round, forget
from pg_bridge.asking.tools import NO_TURN, Said, Tool, Wanted, read_turn, schema_of, told
from pg_bridge.errors import RowError
from pg_bridge.options import Call
from pg_bridge.ordering import plan
from pg_bridge.rows.dedup import UniqueRows, dedup
from pg_bridge.rows.table import Table

MakeCalls = Callable[[Sequence[Wanted]], Sequence[str]]
"""Makes calls, and gives for each what stands in the row of its result, JSON."""


class Told(NamedTuple):
    """What became of a row.

    Attributes:
        output: Its answer.
        error: Why there is none.
        calls: What was called for it, a JSON array of objects.
    """

    output: str | None
    error: str | None
    calls: str


@dataclass(frozen=True, slots=True)
class Consultation:
    """One question about rows, and what may be called for it.

    Args:
        prompt: The question, with columns in braces, or without: then all columns of the rows are sent.
        columns: The columns of the rows.
        tools: The functions.
        call: How it is asked.
        memory: Of the statement.
        begin: Begins what asks; once a round.
        make_calls: Makes calls.

    Raises:
        TemplateError: The prompt does not parse or names an unknown column.
    """

    prompt: str | None
    columns: Sequence[str | None]
    tools: Sequence[Tool]
    call: Call
    memory: Memory
    begin: Callable[[], Round]
    make_calls: MakeCalls

    def answers(self, rows: Sequence[str | None], first_row_id: int) -> list[Told]:
        """Ask about the rows of a window.

        Args:
            rows: Each the text of a JSON object.
            first_row_id: Of the first of them, for errors.

        Raises:
            RowError: A row has no answer, and `on_error` is `fail`.
            BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` is `fail`.
            EngineError: The engine failed as a whole.
        """
        question = parse_question(self.prompt)
        with self.memory.run.planning():
            unique = self._arranged(Table.from_json(rows, resolve_columns(question, self.columns)))
        dialogue = Dialogue(unique.table.rows, self.call.max_calls)
        while dialogue.asking:
            tools = [] if dialogue.is_last else self.tools
            inquiry = self.memory.inquiry(Ask(escape(told(self.tools, question.text)), self._call_with(tools)))
            outcomes = self._ask(inquiry, _Asked(dialogue, unique, len(rows), first_row_id))
            turns = [self._turn(outcome, tools) for outcome in outcomes]
            self._fail_with(turns, _Asked(dialogue, unique, len(rows), first_row_id))
            wanted = dialogue.take(turns)
            dialogue.learn(self._results(wanted))
        of_unique = [
            Told(answer, error, _shown(calls))
            for answer, error, calls in zip(dialogue.answers, dialogue.errors, dialogue.calls, strict=True)
        ]
        return [of_unique[u] for u in unique.inverse.tolist()]

    def _arranged(self, table: Table) -> UniqueRows:
        """The unique rows, their columns in the order that most of them would have: it stays for all rounds."""
        unique = dedup(table, enabled=self.call.dedup)
        if self.call.reorder != "rows and columns" or not unique.table.rows or len(table.columns) < 2:
            return unique
        orders, counts = np.unique(plan(unique.table).column_order, axis=0, return_counts=True)
        order = orders[int(np.argmax(counts))].tolist()
        return replace(unique, table=unique.table.select([table.columns[j] for j in order]))

    def _call_with(self, tools: Sequence[Tool]) -> Call:
        """How a question is asked whose answer may be a call of one of these."""
        reorder = "rows" if self.call.reorder == "rows and columns" else self.call.reorder
        schema = schema_of(tools, self.call.choices)
        return replace(self.call, kind="json", schema=schema, choices=(), reorder=reorder, shares_limits=True)

    def _ask(self, inquiry: Inquiry, asked: _Asked) -> list[Outcome]:
        asking = self.begin()
        groups: list[Group] = []

        def make_groups() -> Iterator[Group]:
            groups.append(asking.group([inquiry], asked.table()))
            yield from groups

        self.memory.run.tools.rounds += 1
        try:
            asking.ask(asked.rows_read, make_groups)
        except Failed as failed:
            place = groups[0].failed().index(failed.prompt) if groups else 0
            raise RowError(asked.row_id(place), failed.reason) from None
        outcomes = groups[0].outcomes(0)
        forget(groups)
        return outcomes

    def _turn(self, outcome: Outcome, tools: Sequence[Tool]) -> Wanted | Said | str:
        text, error = outcome
        if text is None:
            return error or NO_TURN
        return read_turn(text, tools, self.call.choices) or NO_TURN

    def _fail_with(self, turns: Sequence[Wanted | Said | str], asked: _Asked) -> None:
        for place, turn in enumerate(turns):
            if isinstance(turn, str) and not isinstance(turn, NotAsked) and self.call.on_error == "fail":
                raise RowError(asked.row_id(place), turn)

    def _results(self, wanted: Sequence[Wanted]) -> dict[Wanted, str]:
        results = dict(zip(wanted, self.make_calls(wanted) if wanted else (), strict=True))
        failed = sum(result.startswith('{"error": ') for result in results.values())
        self.memory.run.tools.add(ToolsUsed(calls=len(results), failed=failed))
        return results


@dataclass(frozen=True, slots=True)
class _Asked:
    """The rows that are asked about in a round."""

    dialogue: Dialogue
    unique: UniqueRows
    rows: int
    first_row_id: int

    @property
    def rows_read(self) -> int:
        """Rows that count as read with this round: all of the window with its first."""
        return 0 if self.dialogue.made else self.rows

    def row_id(self, place: int) -> int:
        """The first row of the query that one of those asked stands for."""
        inverse: list[int] = self.unique.inverse.tolist()
        return self.first_row_id + inverse.index(self.dialogue.asking[place])

    def table(self) -> Table:
        """The rows with what was called for them and what that returned; before the last question that it is."""
        dialogue = self.dialogue
        own = self.unique.table.take(np.array(dialogue.asking, np.intp))
        names, left = names_beside(own.columns, dialogue.made)
        cells = dialogue.cells()
        if dialogue.is_last and cells:
            names, cells = [*names, left], [*cells, ["0"] * own.rows]
        return own.beside(Table.from_cells(names, cells)) if cells else own


def _shown(calls: Sequence[tuple[Wanted, str]]) -> str:
    """The calls of a row, for the user."""
    told_of = (f'{wanted.cell[:-1]}, "result": {result}}}' for wanted, result in calls)
    return f"[{', '.join(told_of)}]"

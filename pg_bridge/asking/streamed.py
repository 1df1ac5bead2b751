"""The whole road, top to bottom, streamed: rows in, one answer per row out.

    rows, window by window → Table → unique rows → Ordering → prompts → completions → answers per input row

In: a function that fetches rows, the prompt, the call's options and an engine. Out: answers in the order in which
the engine gives them. It knows neither PostgreSQL nor HTTP. Source of the idea: Liu et al., arXiv 2403.05821.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pg_bridge.asking.books import Books, reading
from pg_bridge.asking.budget import Budget
from pg_bridge.asking.inquiry import Ask, Inquiry, NotAsked, Outcome, shown
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.portions import Group, Portions
from pg_bridge.asking.prompt import resolve_columns
from pg_bridge.asking.run import Run
from pg_bridge.asking.windows import LAST_SMALL_WINDOW_ROWS, Window, read_windows
from pg_bridge.engine import Engine, Portion
from pg_bridge.errors import RowError
from pg_bridge.ledger.account import Account
from pg_bridge.options import Call
from pg_bridge.rows.table import Table

RECALLED_ROWS = 1 << 13  # looked up in the ledger at a time, and handed over before the next

Fetch = Callable[[int], list[str | None]]
"""At most n more rows, each the text of a JSON object; fewer at the end only."""


class Answer(NamedTuple):
    """The answer to one input row.

    Attributes:
        row_id: The row's place in the query, from 1.
        input: The row as it came, JSON text.
        output: The engine's text; None where `error` is set.
        error: Why this row has no answer; None where it has one.
    """

    row_id: int
    input: str | None
    output: str | None
    error: str | None


def ask(
    fetch: Fetch,
    columns: Sequence[str | None],
    prompt: str | None,
    call: Call,
    engine: Engine,
    run: Run,
    *,
    every_row: bool = False,
    account: Account | None = None,
) -> Iterator[Answer]:
    """Ask one prompt about every row.

    Nothing is sent before the prompt has been checked against the columns, and nothing is fetched before the first
    answer is asked for. A caller that stops early causes no more than a few dozen questions, unless it says that it
    will not.

    Args:
        fetch: Gives the rows.
        columns: The names of the rows' columns, in the rows' order.
        prompt: The question; `{column}` names a column.
        call: The call's options.
        engine: Where the prompts go; closed at the end.
        run: Filled in as the run goes on.
        every_row: Whether all answers will be taken.
        account: The statement's with the ledger.

    Yields:
        One answer for each row, in the order in which they are answered.

    Raises:
        TemplateError: The prompt does not parse or names an unknown column.
        RowError: A row failed and `call.on_error` is `fail`.
        BudgetExceeded: More would have to be asked than a budget allows, and `call.on_budget` is `fail`.
        EngineError: The engine failed as a whole.
    """
    memory = Memory(run)
    inquiry = memory.inquiry(Ask(prompt, call))
    portions = Portions(memory, run, Books(account, engine, run), Budget(account, run), engine.work)
    stream = _Stream(inquiry, call, resolve_columns(inquiry.question, columns), portions, every_row)
    return stream.answers(fetch, engine, account)


@dataclass(slots=True, eq=False)
class _Rows:
    """A window's rows, and which of them each of its unique rows stands for.

    Whole lists of numbers instead of an object a row: at a hundred thousand rows Python's garbage collector would
    otherwise take as long as the planner.
    """

    window: Window[str | None]
    keys: list[bytes]
    offsets: list[int]
    members: list[int]


class _Stream:
    """Asks one question window by window, and knows which rows wait for which answer."""

    def __init__(
        self, inquiry: Inquiry, call: Call, columns: tuple[str, ...], portions: Portions, every_row: bool
    ) -> None:
        self._inquiry = inquiry
        self._call = call
        self._columns = columns
        self._portions = portions
        self._every_row = every_row
        self._server_name = ""
        portions.budget.expect([inquiry.call])
        self._remembers = portions.books.remembers(inquiry.call)
        self._ready: deque[tuple[_Rows, int, Outcome]] = deque()
        self._waiting: dict[bytes, list[tuple[_Rows, int]]] = {}  # by what is being asked: who waits for the answer

    def answers(self, fetch: Fetch, engine: Engine, account: Account | None) -> Iterator[Answer]:
        """Ask, and hand each row its answer."""
        with reading(account, fetch) as counted:
            yield from self._answers(counted, engine)

    def _answers(self, fetch: Fetch, engine: Engine) -> Iterator[Answer]:
        run = self._portions.run
        run.usage = engine.usage
        self._server_name = engine.server_name
        try:
            for completion in engine.complete_portions(
                self._portions.with_repairs(self._made(fetch)),
                self._portions.sampling_of,
                eager=self._every_row,
                landed=self._portions.land,
            ):
                if completion is not None:
                    for key, outcome in self._portions.learn(completion)[1]:
                        self._ready.extend((rows, u, outcome) for rows, u in self._waiting.pop(key))
                yield from self._handed_over()
            yield from self._handed_over()
            self._portions.budget.check()
        finally:
            engine.close()
            self._portions.close()

    def _handed_over(self) -> Iterator[Answer]:
        for key in self._portions.learn_held():
            outcome = self._inquiry.outcomes[key]
            self._ready.extend((rows, u, outcome) for rows, u in self._waiting.pop(key))
        self._inquiry.forget()
        returned = time.perf_counter()
        while self._ready:
            yield from self._of_rows(*self._ready.popleft())
        self._portions.run.return_s += time.perf_counter() - returned

    def _of_rows(self, rows: _Rows, u: int, outcome: Outcome) -> Iterator[Answer]:
        (text,), error = shown(self._call, outcome[:1]), outcome[1]
        for i in rows.members[rows.offsets[u] : rows.offsets[u + 1]]:
            row_id = rows.window.first_row_id + i
            if error is not None and not isinstance(error, NotAsked):
                question = self._inquiry.failed.get(rows.keys[u])
                self._portions.run.failures.add(self._server_name, question, error, row_id=row_id)
                if self._inquiry.call.on_error == "fail":
                    raise RowError(row_id, error)
            yield Answer(row_id, rows.window.rows[i], text, error)

    def _made(self, fetch: Fetch) -> Iterator[Portion]:
        """Read the rows and make portions of prompts."""
        portions, foresees = self._portions, self._portions.budget.foresees(self._inquiry.call)
        for window in read_windows(
            fetch,
            lambda row: len(row or ""),
            portions.run,
            every_row=self._every_row,
            most_rows=self._inquiry.call.window_rows,
            work=portions.work,
            ahead=not (foresees or self._inquiry.call.packs),  # few rows would be few to a prompt
        ):
            if portions.budget.is_over:
                return
            with portions.run.planning():
                table = Table.from_json(window.rows, self._columns, portions.work)
                group = Group([self._inquiry], table, remembered=self._remembers)
            if not window.ahead_of:
                portions.run.rows += len(window.rows)
                fresh: list[int] = []
                rows_of = _Rows(window, group.keys, *group.fan_out())
                for start in range(0, len(group.keys), RECALLED_ROWS):
                    fresh += self._find_fresh(rows_of, group, range(start, min(start + RECALLED_ROWS, len(group.keys))))
                    if self._ready:
                        yield Portion(iter(()), is_ahead=True)  # to hand over what is ready
                    self._inquiry.forget()
                if fresh:
                    rows = np.array(fresh, np.intp)
                    # Who may stop before the end of a window may need less than all of it.
                    is_sure = self._every_row or len(window.rows) > LAST_SMALL_WINDOW_ROWS
                    if is_sure and foresees and not portions.affords([(group, [self._inquiry], rows)]):
                        return
                    yield from portions.of_rows(group, [self._inquiry], rows, quick=window.is_small)
            elif self._remembers:  # an answer can be found again by its row only where equal rows are one
                yield from self._ahead(window, group)

    def _ahead(self, window: Window[str | None], group: Group) -> Iterator[Portion]:
        self._portions.books.recall(self._inquiry, group.keys)
        fresh = [
            u for u, key in enumerate(group.keys) if key not in self._waiting and key not in self._inquiry.outcomes
        ]
        if fresh:
            portion, asked = self._portions.ahead(group, fresh, window.ahead_of)
            for u in asked:
                self._waiting[group.keys[u]] = []
            yield portion

    def _find_fresh(self, rows: _Rows, group: Group, places: range) -> list[int]:
        """Those of some unique rows that nobody has asked about; the others get, or join who waits for, an answer."""
        self._portions.books.recall(self._inquiry, group.keys[places.start : places.stop])
        fresh: list[int] = []
        for u in places:
            key = group.keys[u]
            outcome = self._inquiry.outcomes.get(key)
            if outcome is not None:
                self._ready.append((rows, u, outcome))
            elif key in self._waiting:
                self._waiting[key].append((rows, u))
            else:
                self._waiting[key] = [(rows, u)]
                fresh.append(u)
        return fresh

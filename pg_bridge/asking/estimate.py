"""What a run would ask and what it would take, without asking a model anything.

    rows → Table → unique rows → those that are not answered → Ordering → prompts → tokens → blocks of a prefix cache

In: what `streamed.ask` takes, what the engine tells of itself, and what is answered already. Out: an `Estimate`. Rows
are read and planned as the run would do it, by the same code, and the prompts are cut where the engine's blocks would
end; a model of its cache then tells what of them it would find. An engine that nobody has asked before is meant: what
its cache holds already comes on top.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.books import Books
from pg_bridge.asking.budget import Budget
from pg_bridge.asking.counting import Counting, Engineering, Estimate, Waiting
from pg_bridge.asking.gauge import (
    Planned,
)
from pg_bridge.asking.inquiry import Ask, Inquiry
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.portions import Group, Portions
from pg_bridge.asking.prompt import resolve_columns
from pg_bridge.asking.run import Run
from pg_bridge.asking.streamed import RECALLED_ROWS, Fetch
from pg_bridge.asking.together import groups_of
from pg_bridge.asking.windows import read_windows
from pg_bridge.ledger.prices import cost_of
from pg_bridge.ordering import Ordering
from pg_bridge.rows.table import Table

GAUGED_ROWS = 10_000  # are planned before the first is counted, if there are so many


def estimate(
    fetch: Fetch,
    columns: Sequence[str | None],
    asks: Sequence[Ask],
    engine: Engineering,
    books: Books,
    *,
    every_row: bool,
    work: Callable[[], None],
) -> Estimate:
    """Foresee a run.

    Args:
        fetch: Gives the rows.
        columns: Their columns.
        asks: What is asked about each of them, and how.
        engine: Who would be asked.
        books: Know what is answered already; nothing is written into them.
        every_row: Whether the run would know that all its answers are taken; planning differs a little.
        work: Called often; what it raises ends the estimate.

    Raises:
        TemplateError: A prompt does not parse or names an unknown column.
        EngineError: The engine cannot be reached or refuses the key.
    """
    found, memory = Estimate(), Memory()
    several = [_Several(inquiries, names, set()) for names, inquiries in _together(memory, asks, columns)]
    counting = Counting(engine, books.context_tokens, work)
    waiting: list[Waiting] = []
    for planned in _plan(fetch, several, books, found, every_row=every_row, work=work):
        waiting.append(planned)
        if sum(each.planned.table.rows for each in waiting) >= GAUGED_ROWS:
            counting.add(waiting)
            waiting.clear()
    if waiting:
        counting.add(waiting)
    counting.fill(found)
    found.seconds = engine.seen.seconds_for(found.prompt_tokens - found.cached_tokens)
    found.cost = cost_of(found, engine.server)
    return found


@dataclass(slots=True, eq=False)
class _Several:
    """Questions that are asked together.

    Attributes:
        inquiries: The questions.
        names: The columns that each of them needs.
        seen: The rows, by their digests, with each question that has been counted about them.
    """

    inquiries: list[Inquiry]
    names: tuple[str, ...]
    seen: set[tuple[Inquiry, bytes]]


def _together(
    memory: Memory, asks: Sequence[Ask], columns: Sequence[str | None]
) -> Iterator[tuple[tuple[str, ...], list[Inquiry]]]:
    """The columns that questions need, and those that are asked together."""
    numbers = groups_of(memory, asks, columns)
    for together in numbers:
        inquiries = list(dict.fromkeys(memory.inquiry(asks[number]) for number in together))
        yield resolve_columns(inquiries[0].question, columns), inquiries


class _Planning(Portions):
    """Plans portions, and writes no prompts."""

    def __init__(self, books: Books, work: Callable[[], None]) -> None:
        run = Run()
        super().__init__(Memory(), run, books, Budget(None, run), work)
        self.planned: tuple[Table, Ordering] | None = None

    def _prompts(
        self, group: Group, inquiries: Sequence[Inquiry], rows: NDArray[np.intp], ordering: Ordering
    ) -> Iterator[str]:
        self.planned = group.table.take(rows), ordering
        return iter(())


def _plan(
    fetch: Fetch,
    several: Sequence[_Several],
    books: Books,
    found: Estimate,
    *,
    every_row: bool,
    work: Callable[[], None],
) -> Iterator[Waiting]:
    """Read all rows and plan those that would be asked about, window by window, counting them."""
    planning = _Planning(books, work)
    names = tuple(dict.fromkeys(name for each in several for name in each.names))
    windows = read_windows(
        fetch,
        lambda row: len(row or ""),
        planning.run,
        every_row=every_row,
        most_rows=several[0].inquiries[0].call.window_rows,
        work=work,
        ahead=False,
    )
    for window in windows:
        table = Table.from_json(window.rows, names, work)
        found.rows += len(window.rows)
        for each in several:
            remembered = books.remembers(each.inquiries[0].call)
            group = Group(each.inquiries, table.select(each.names), remembered=remembered)
            for rows, inquiries in _asked(each, group, books, found).items():
                chosen = np.array(rows, np.intp)
                for portion in planning.of_rows(group, inquiries, chosen, quick=window.is_small):
                    assert planning.planned is not None  # noqa: S101 - each portion is planned; for the type checker
                    yield Waiting(inquiries, Planned(*planning.planned, portion.is_ahead))


def _asked(each: _Several, group: Group, books: Books, found: Estimate) -> dict[tuple[int, ...], list[Inquiry]]:
    """Rows, and the questions that would be asked about just them; counts what is known."""
    asked: dict[tuple[int, ...], list[Inquiry]] = {}
    for inquiry in each.inquiries:
        fresh = [u for u, key in enumerate(group.keys) if (inquiry, key) not in each.seen]
        keys = [group.keys[u] for u in fresh]
        each.seen.update((inquiry, key) for key in keys)
        answered = _find_answered(inquiry, keys, books)
        found.unique_prompts += len(fresh)
        found.already_answered += len(answered)
        rows = tuple(u for u, key in zip(fresh, keys, strict=True) if key not in answered)
        if rows:
            asked.setdefault(rows, []).append(inquiry)
    return asked


def _find_answered(inquiry: Inquiry, keys: Sequence[bytes], books: Books) -> set[bytes]:
    """Those of some rows about which the question is answered; the answers themselves are not held."""
    answered: set[bytes] = set()
    for start in range(0, len(keys), RECALLED_ROWS):
        books.recall(inquiry, keys[start : start + RECALLED_ROWS])
        answered.update(inquiry.outcomes)
        inquiry.outcomes.clear()
    return answered

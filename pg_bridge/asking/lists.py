"""One question about many lists of rows, each list as one object of its rows by their numbers.

In: a question, lists of texts, a statement's memory and what asks. Out: an answer a list. All of them are one round,
but where they are too many to be in memory at one time. It knows neither PostgreSQL nor HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pg_bridge.asking.inquiry import Ask
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.portions import Group
from pg_bridge.asking.prompt import escape
from pg_bridge.asking.run import PairsAsked
from pg_bridge.asking.together import Failed, Round, outcomes_at
from pg_bridge.asking.windows import rounds_of
from pg_bridge.errors import ComparisonError
from pg_bridge.options import Call
from pg_bridge.rows.table import Table


def ask_about_lists(
    question: str,
    lists: Sequence[Sequence[str]],
    call: Call,
    memory: Memory,
    begin: Callable[[], Round],
    *,
    are_pairs: bool = False,
) -> list[str | None]:
    """Ask about some lists.

    Args:
        question: As it is sent.
        lists: Of each its rows as JSON texts.
        call: How they are asked about.
        memory: Of the statement.
        begin: Begins what asks.
        are_pairs: Whether they count for pairs that were asked about.

    Returns:
        (n,) the answers; None where there is none, if `on_error` or `on_budget` is `null`.

    Raises:
        ComparisonError: A list has no answer, and `on_error` is `fail`.
        BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` is `fail`.
        EngineError: The engine failed as a whole.
    """
    ask = Ask(escape(question), call)
    answers: list[str | None] = []
    for some in rounds_of(lists, lambda shown: sum(map(len, shown))):
        asking = begin()
        if are_pairs:
            asking.tell_pairs(PairsAsked(alone=len(some)))
        answers += _ask_together(ask, some, memory, asking)
    return answers


def _ask_together(ask: Ask, lists: Sequence[Sequence[str]], memory: Memory, asking: Round) -> list[str | None]:
    places: dict[int, list[int]] = {}  # by how many rows they have
    for place, shown in enumerate(lists):
        places.setdefault(len(shown), []).append(place)
    inquiry = memory.inquiry(ask)

    def make_groups() -> Iterator[Group]:
        for size, of_size in places.items():
            columns = [[lists[place][at] for place in of_size] for at in range(size)]
            yield asking.group([inquiry], Table.from_cells([str(at + 1) for at in range(size)], columns))

    try:
        groups = asking.ask(len(lists), make_groups)
    except Failed as failed:
        raise ComparisonError(failed.reason) from None
    return [text for text, _ in outcomes_at(groups, places.values(), len(lists))]

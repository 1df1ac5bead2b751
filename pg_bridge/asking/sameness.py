"""Rows that mean the same: which pairs of them are asked about, and what the answers say of the rows.

In: rows, a criterion, embeddings of them or none, a statement's memory and what asks. Out: of each row the first that
means the same, the one that stands for both, and how far the answers agree. Equal rows are one. Which pairs a round
asks about, `resolution` says. It knows neither PostgreSQL nor HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from pg_bridge.asking.lists import ask_about_lists
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.nearness import Vectors, letters_of, nearest_pairs
from pg_bridge.asking.ranking import Entrants
from pg_bridge.asking.resolution import Resolution
from pg_bridge.asking.together import Round
from pg_bridge.asking.vectors import text_of
from pg_bridge.errors import ComparisonError, OptionError, Reason
from pg_bridge.options import YES_OR_NO, Call

MOST_ALL = 200
"""Different rows of which all pairs are candidates."""
MOST_ROWS = 100_000
_FEW = 5  # candidates of a row, where embeddings tell the nearest

_TASK = "Do the two rows mean the same by this? Answer yes or no."
_NO_ANSWER = Reason("the answer is neither yes nor no")


class Resolved(NamedTuple):
    """What a row of the query is found to be.

    Attributes:
        place: Its place in the query, from 0.
        entity: The first place of a row that means the same; None for a row of NULLs.
        representative: The place of the row that stands for all of them; None for the same.
        agreement: Of the answers about it the share that agrees with the groups, 0 to 1; None where there was none.
    """

    place: int
    entity: int | None
    representative: int | None
    agreement: float | None


def see_that_few(entrants: Entrants, call: Call) -> None:
    """See, before anything is asked, that the rows are not too many.

    Raises:
        OptionError: They are.
    """
    count = len(entrants.texts)
    if call.embedder is None and call.candidates is None and count > MOST_ALL:
        raise OptionError(
            f"{count} different rows are too many to compare each with each: more than {MOST_ALL}",
            hint="Name a server that makes embeddings, embedder => 'e5', and each row is compared with the nearest; or "
            "candidates => 10, and it is with those of the likest letters.",
        )
    if count > MOST_ROWS:
        raise OptionError(
            f"{count} different rows are more than {MOST_ROWS}",
            hint="Resolve them in parts, by country or by first letter: WHERE … in the query.",
        )


def resolve(
    entrants: Entrants,
    vectors: Vectors | None,
    call: Call,
    memory: Memory,
    begin: Callable[[], Round],
    work: Callable[[], None],
) -> tuple[list[Resolved], int]:
    """Ask until it is known which rows mean the same.

    Args:
        entrants: The rows.
        vectors: (n, d) of each different one; None goes by their letters.
        call: How they are asked about.
        memory: Of the statement.
        begin: Begins what asks; once for each round, or more often where a round is large.
        work: Called now and then.

    Returns:
        (n,) the rows of the query, in its order, and how many questions had no answer.

    Raises:
        ComparisonError: A question has no answer, and `on_error` is `fail`.
        BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` is `fail`.
        EngineError: The engine failed as a whole.
    """
    names = entrants.in_order()
    texts = [entrants.texts[name] for name in names]
    most = call.candidates or (None if vectors is None else _FEW)
    near = letters_of([text_of(text) for text in texts], work) if vectors is None else vectors[names]
    resolution = Resolution(len(texts), nearest_pairs(near, most, call.min_similarity, work))
    asked = replace(call, kind="boolean", choices=YES_OR_NO, reorder="rows")
    unanswered = 0
    while pairs := resolution.pairs():
        work()
        lists = [[texts[one], texts[other]] for one, other in pairs]
        question = f"{entrants.criterion}\n{_TASK}"
        answers = ask_about_lists(question, lists, asked, memory, begin, are_pairs=True)
        told = [_read(answer, call) for answer in answers]
        unanswered += told.count(None)
        resolution.take(told)
    memory.run.pairs.inferred += resolution.inferred
    return _of_rows(entrants, names, resolution), unanswered


def _read(answer: str | None, call: Call) -> bool | None:
    if answer is None or answer in YES_OR_NO:
        return None if answer is None else answer == YES_OR_NO[0]
    if call.on_error == "fail":
        raise ComparisonError(_NO_ANSWER)
    return None


def _of_rows(entrants: Entrants, names: Sequence[int], resolution: Resolution) -> list[Resolved]:
    """What is found of the query's rows; equal ones share it."""
    first: dict[int, int] = {}
    counts = [0] * len(names)
    for place, number in enumerate(entrants.numbers):
        if number >= 0:
            first.setdefault(number, place)
            counts[number] += 1
    members: dict[int, list[int]] = {}
    for name, group in zip(names, resolution.groups(), strict=True):
        members.setdefault(group, []).append(name)
    found: dict[int, tuple[int, int]] = {}
    for alike in members.values():
        entity = min(first[name] for name in alike)
        best = max(alike, key=lambda name: (counts[name], len(entrants.texts[name]), -first[name]))
        found |= dict.fromkeys(alike, (entity, first[best]))
    agreements = dict(zip(names, resolution.agreements(), strict=True))
    return [
        Resolved(place, *found[number], agreements[number]) if number >= 0 else Resolved(place, None, None, None)
        for place, number in enumerate(entrants.numbers)
    ]

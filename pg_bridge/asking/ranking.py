"""The best of some rows by a criterion: what is asked about lists of them, and what the answers say.

In: rows, a criterion, a statement's memory and what asks. Out: the rows that rank highest, each with how sure that is.
Equal rows are one. The questions of a round are asked together: which they are, `contest` says. It knows neither
PostgreSQL nor HTTP.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

from pg_bridge.asking.contest import Contest, Effort, List, Order, Standing, questions_of
from pg_bridge.asking.lists import ask_about_lists
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.prompt import parse_question, resolve_columns
from pg_bridge.asking.reduction import room_for
from pg_bridge.asking.together import Round
from pg_bridge.errors import ComparisonError, OptionError, Reason
from pg_bridge.options import Call
from pg_bridge.rows.cutting import NULL, cut, object_of

SYSTEM_PROMPT = "You compare rows of a table. They are numbered, and given as JSON. Reply with the answer alone."
MOST_QUESTIONS = 1_000_000
MOST_MET = 10_000
"""Rows that are compared each with each: what is held of that takes 200 MB of memory."""

_PAIR_TASK = "Which of the two rows fits this better? Answer with its number, 1 or 2."
_LIST_TASK = (
    "Put all rows in order by how well they fit this, the one that fits best first. "
    "Answer with their numbers, parted by commas."
)
_PAIR = ("1", "2")
_AROUND_ROW = 16  # bytes of a prompt, for its number
_TOKENS_OF_NUMBER, _TOKENS_BESIDES = 5, 16
_NOBODY = -1
_MOST_DIGITS = 3
_NO_ORDER = Reason("the answer does not put the rows in order")


class Ranked(NamedTuple):
    """Where a row of the query ranks.

    Attributes:
        place: Its place in the query, from 0.
        rank: One more than rows are better.
        ties: How many others have the same rank.
        agreement: Of its last comparisons those that agree with the ranks, from 0 to 1; None where there was none.
    """

    place: int
    rank: int
    ties: int
    agreement: float | None


class Entrants:
    """Rows that are to be compared, by what is sent of them.

    Args:
        criterion: The criterion, with columns in braces, or without: then all columns of the rows are sent.
        columns: The columns of the rows.

    Attributes:
        criterion: As it is sent.
        texts: The different rows, as JSON texts.
        numbers: Which of them each row is; negative for one of which nothing but NULLs would be sent.

    Raises:
        TemplateError: The criterion does not parse or names an unknown column.
    """

    def __init__(self, criterion: str | None, columns: Sequence[str | None]) -> None:
        question = parse_question(criterion)
        self.criterion = question.text
        self.texts: list[str] = []
        self.numbers = array("q")
        self._columns = resolve_columns(question, columns)
        self._known: dict[str, int] = {}

    def add(self, rows: Sequence[str | None]) -> None:
        """Add rows, each the text of a JSON object."""
        for columns, cells in cut(rows, lambda _: self._columns):
            if all(cell == NULL for cell in cells):
                self.numbers.append(_NOBODY)
                continue
            text = object_of(zip(columns, cells, strict=True))
            number = self._known.setdefault(text, len(self.texts))
            if number == len(self.texts):
                self.texts.append(text)
            self.numbers.append(number)

    def in_order(self) -> list[int]:
        """The different rows in an order that depends on them alone, and on no query's."""
        return sorted(range(len(self.texts)), key=self.texts.__getitem__)


@dataclass(frozen=True, slots=True)
class Match:
    """How entrants are compared.

    Attributes:
        wanted: How many different rows are to be ranked.
        size: How many a question compares at most.
        effort: What it takes.
    """

    wanted: int
    size: int
    effort: Effort


def arrange(entrants: Entrants, k: int | None, call: Call, context_tokens: int) -> Match:
    """Say how the best k rows are found, before anything is asked.

    Args:
        entrants: The rows.
        k: How many are wanted; None for all.
        call: How they are asked about.
        context_tokens: What a prompt and its answer may have together.

    Raises:
        OptionError: k is negative, no two rows fit into a prompt, or it would take too many questions.
    """
    if k is not None and k < 0:
        raise OptionError("k is negative", hint="0 gives no row, and NULL ranks all of them.")
    count = len(entrants.texts)
    wanted = count if k is None else min(k, count)
    if count < 2 or wanted < 1:
        return Match(wanted, 2, Effort(0, 0))
    size = min(call.list_rows, count, _most_that_fit(entrants, call, context_tokens))
    effort = questions_of(count, wanted, size)
    if effort.questions > MOST_QUESTIONS or effort.met > MOST_MET:
        raise OptionError(
            f"to rank {wanted} of {count} rows takes {effort.questions} questions, and compares {effort.met} rows each "
            "with each",
            hint="Ask for a smaller k, raise list_rows, or write ORDER BY llm.score(…), which asks once for each row.",
        )
    return Match(wanted, size, effort)


def _most_that_fit(entrants: Entrants, call: Call, context_tokens: int) -> int:
    longest = max(len(text.encode()) for text in entrants.texts) + _AROUND_ROW
    asked = _call_about(call, call.list_rows)
    prompt = f"{entrants.criterion}\n{_LIST_TASK}"
    most = room_for(context_tokens, asked.max_tokens, prompt, asked.system_prompt) // longest
    if most < 2:
        raise OptionError(
            f"the longest row has {longest} bytes, so that no two like it fit into the model's context of "
            f"{context_tokens} tokens",
            hint="Name in the criterion the columns that it needs, or shorten them in the query: left(review, 2000).",
        )
    return most


def _call_about(call: Call, size: int) -> Call:
    """How lists of so many rows are asked about."""
    call = replace(call, reorder="rows")  # a row's number is its place
    if size == len(_PAIR):
        return replace(call, kind="label", choices=_PAIR)
    most = max(call.max_tokens, _TOKENS_BESIDES + _TOKENS_OF_NUMBER * size)
    return replace(call, ordered=size, max_tokens=most)


def rank(
    entrants: Entrants, match: Match, k: int | None, call: Call, memory: Memory, begin: Callable[[], Round]
) -> tuple[list[Ranked], int]:
    """Ask until the best k rows are known.

    Args:
        entrants: The rows.
        match: As `arrange` has said.
        k: How many are wanted; None for all.
        call: How they are asked about.
        memory: Of the statement.
        begin: Begins what asks; once for each round, or more often where a round is large.

    Returns:
        The best first, and how many questions had no answer.

    Raises:
        ComparisonError: A question has no answer, and `on_error` is `fail`.
        BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` is `fail`.
        EngineError: The engine failed as a whole.
    """
    if match.wanted < 1:
        standings, unanswered = list[Standing](), 0
    else:
        names = entrants.in_order()
        contest = Contest(len(names), match.wanted, match.size)
        asking = _Asking(entrants, names, _call_about(call, match.size), memory, begin)
        while lists := contest.lists():
            contest.take(asking.ask(lists))
        standings = [replace(each, row=names[each.row]) for each in contest.standings or ()]
        unanswered = contest.unanswered
    ranked = _of_rows(entrants.numbers, standings, len(entrants.numbers) if k is None else k)
    return ranked, unanswered


def _of_rows(numbers: Sequence[int], standings: Sequence[Standing], most: int) -> list[Ranked]:
    """Ranks of the query's rows; equal ones share theirs, and so do those of NULLs alone, which come last."""
    places: dict[int, list[int]] = {standing.row: [] for standing in standings}
    nobody: list[int] = []
    for place, number in enumerate(numbers):
        of = nobody if number == _NOBODY else places.get(number)
        if of is not None:
            of.append(place)
    ranked: list[Ranked] = []
    for _, tied in groupby(standings, key=lambda standing: standing.rank):
        own = [(place, standing.agreement) for standing in tied for place in places[standing.row]]
        better = len(ranked)
        ranked += [Ranked(place, better + 1, len(own) - 1, agreement) for place, agreement in own]
        if len(ranked) >= most:
            return ranked[:most]
    better = len(ranked)
    ranked += [Ranked(place, better + 1, len(nobody) - 1, None) for place in nobody]
    return ranked[:most]


@dataclass(frozen=True, slots=True)
class _Asking:
    """What asks about lists.

    Attributes:
        entrants: The rows.
        names: Which of them a list means.
        call: How they are asked about.
        memory: Of the statement.
        begin: Begins what asks.
    """

    entrants: Entrants
    names: Sequence[int]
    call: Call
    memory: Memory
    begin: Callable[[], Round]

    def ask(self, lists: Sequence[List]) -> list[Order]:
        """The answers about the lists of a round."""
        task = _PAIR_TASK if self.call.choices else _LIST_TASK
        prompt = f"{self.entrants.criterion}\n{task}"
        texts = [[self.entrants.texts[self.names[row]] for row in shown] for shown in lists]
        answers = ask_about_lists(prompt, texts, self.call, self.memory, self.begin)
        return [self._order(shown, answer) for shown, answer in zip(lists, answers, strict=True)]

    def _order(self, shown: List, answer: str | None) -> Order:
        if answer is None:
            return None
        numbers = _read_pair(answer) if self.call.choices else read_numbers(answer, len(shown))
        if numbers is None and self.call.on_error == "fail":
            raise ComparisonError(_NO_ORDER)
        return None if numbers is None else [shown[number] for number in numbers]


def _read_pair(answer: str) -> list[int] | None:
    return [_PAIR.index(answer), 1 - _PAIR.index(answer)] if answer in _PAIR else None


def read_numbers(answer: str, size: int) -> list[int] | None:
    """The rows that an answer names, counted from 0, each once; None for what is no answer.

    >>> [read_numbers(answer, 3) for answer in ("3, 1, 2", "2,2, 4", "4", "one", "")]
    [[2, 0, 1], [1], None, None, None]
    """
    numbers = [number.strip() for number in answer.split(",")]
    if not all(number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS for number in numbers):
        return None
    named = dict.fromkeys(int(number) - 1 for number in numbers if 1 <= int(number) <= size)
    return list(named) or None

"""A batch node's calls, which come in parts as the rows of a window are read: asked once all have come, a few ahead.

In: parts of a window's calls, each call with its prompt, its row and its options; a statement's memory.
Out: all answers, in the calls' order, some at a time. It knows neither PostgreSQL nor HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heapify, heappop, heapreplace
from typing import TypeVar

from pg_bridge.asking.inquiry import Ask, NotAsked, Outcome, shown
from pg_bridge.asking.joining import Joining
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.nearness import Vectors
from pg_bridge.asking.pair_plans import Terms
from pg_bridge.asking.portions import Group
from pg_bridge.asking.prompt import Question, resolve_columns
from pg_bridge.asking.together import Failed, Round, forget
from pg_bridge.asking.vectors import embed_texts
from pg_bridge.asking.windows import Lookout
from pg_bridge.errors import CallError, EmbeddingError, OptionError
from pg_bridge.options import Call
from pg_bridge.rows.cutting import as_row
from pg_bridge.rows.table import Table

T = TypeVar("T")

ANSWER_CHARS = 1 << 23  # handed over at one time; PostgreSQL must hold them in one array
_CHARS_BESIDES = 16  # what an answer takes in it besides its text


@dataclass(slots=True, eq=False)
class _Alike:
    """Calls that have the same options: the place of each in the window, its prompt and its row; how many are asked."""

    call: Call
    places: list[int] = field(default_factory=list)
    prompts: list[str | None] = field(default_factory=list)
    rows: list[str | None] = field(default_factory=list)
    asked: int = 0

    @property
    def next_place(self) -> int:
        """Where its first call stands that was not asked."""
        return self.places[self.asked]

    def __lt__(self, other: _Alike) -> bool:
        """Whether it is its turn before the other's."""
        return self.next_place < other.next_place


class Calls:
    """The calls of one window.

    Args:
        memory: Of the statement.
        begin: From a call's options to what asks with them.
        terms: From a call's options to what the engine takes; called for conditions over pairs that are put together.

    Attributes:
        is_closed: Whether nothing is left of it.
    """

    def __init__(
        self, memory: Memory, begin: Callable[[Call], Round], terms: Callable[[Call], Terms] = lambda _: Terms()
    ) -> None:
        self._memory = memory
        self._begin = begin
        self._terms = terms
        self._count = 0
        self._alike: dict[Call, _Alike] = {}
        self._prompts: dict[str | None, str | None] = {}  # each once: they may be long
        self._lookout = Lookout()
        self._ahead: Round | None = None  # of the first options
        self._left: list[_Alike] | None = None  # a heap of those that were not all asked
        self._answers: list[str | None] = []
        self._taken = 0
        self.is_closed = False

    def add(
        self, prompts: Sequence[str | None], rows: Sequence[str | None], places_of: Mapping[Call, list[int]]
    ) -> None:
        """Add a part.

        Args:
            prompts: (n,) the prompt of each call.
            rows: (n,) the input of each call, JSON text or None: a row, an object or a value. Those that are None are
                not asked about if `on_null` is `null`, nor is a document with a query of which one is.
            places_of: The options, and which calls of the part have them.
        """
        for call, of_call in places_of.items():
            places = of_call if call.on_null == "ask" else [i for i in of_call if not _is_null(rows[i], call)]
            if not places:
                continue
            alike = self._alike.setdefault(call, _Alike(call))
            alike.places += [self._count + i for i in places]
            alike.prompts += [self._prompts.setdefault(prompts[i], prompts[i]) for i in places]
            alike.rows += [as_row(rows[i]) for i in places]
        self._count += len(rows)

    def ask_ahead(self) -> None:
        """Ask about a few calls now and then, and let the engine work; for who reads the rows of more.

        Only calls that have the first one's options go ahead.

        Raises:
            TemplateError: A prompt does not parse or names an unknown column.
            OptionError: An input is not JSON.
            CallError: One of them has no answer, and its `on_error` is `fail`.
            EngineError: The engine failed as a whole.
        """
        if self._ahead is not None:
            self._ahead.work()
        call, alike = next(iter(self._alike.items()), (Call(), _Alike(Call())))
        read = len(alike.rows)
        if call.joins_pairs or call.packs:  # which belong together is known when all have come
            return
        if read > call.window_rows or not call.dedup or not (latest := self._lookout.latest(read)):
            return
        if self._ahead is None:
            self._ahead = self._begin(call)
        asking = self._ahead
        prompts, rows = alike.prompts[-latest:], alike.rows[-latest:]
        try:
            asking.ask_ahead(lambda: self._largest_group(prompts, rows, call, asking), read)
        except Failed as failed:
            raise CallError(failed.reason) from None

    def take(self) -> list[str | None]:
        """Ask what comes next, and take some answers: those of the first calls of which none have been taken.

        Calls that have the same options are asked some at a time, `window_rows`, so that no more answers are held.

        Returns:
            At least one, if any is left; None for a row that failed, if its call's `on_error` is `null`.

        Raises:
            CallError: A row failed, and its call's `on_error` is `fail`; the other errors as for `ask_ahead`.
            BudgetExceeded: More would have to be asked than a budget allows, and its call's `on_budget` is `fail`.
        """
        if self._left is None:
            self._answers = [None] * self._count
            self._left = list(self._alike.values())
            heapify(self._left)
        taken: list[str | None] = []
        chars = 0
        while self._taken < self._count and chars < ANSWER_CHARS:
            while self._left and self._left[0].next_place == self._taken:
                self._ask_part(self._left)
            answer, self._answers[self._taken] = self._answers[self._taken], None
            taken.append(answer)
            chars += _CHARS_BESIDES + len(answer or "")
            self._taken += 1
        return taken

    @property
    def are_taken(self) -> bool:
        """Whether all answers have been taken."""
        return self._left is not None and self._taken == self._count

    def close(self) -> None:
        """Abort what is in flight and forget the calls; may be called at any time, also twice."""
        self.is_closed = True
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()
        self._alike.clear()
        self._prompts.clear()
        self._left, self._answers = [], []

    def _ask_part(self, left: list[_Alike]) -> None:
        """Ask some of the calls of which the first was not asked."""
        alike = left[0]
        call, part = alike.call, slice(alike.asked, alike.asked + alike.call.window_rows)
        asking, self._ahead = self._ahead, None
        if asking is None or alike is not next(iter(self._alike.values())):
            asking, self._ahead = self._begin(call), asking
        answer = self._answer_pairs if call.joins_pairs else self._answer
        try:
            found = answer(alike.prompts[part], alike.rows[part], call, asking)
        finally:
            asking.close()
        for place, text in zip(alike.places[part], shown(call, found), strict=True):
            self._answers[place] = text
        alike.asked += len(found)
        if alike.asked < len(alike.places):
            heapreplace(left, alike)
        else:
            heappop(left)

    def _answer_pairs(
        self, prompts: Sequence[str | None], rows: Sequence[str | None], call: Call, asking: Round
    ) -> list[str | None]:
        """Answer conditions over pairs by questions about several, and by themselves what is left."""
        embed = partial(self._embed, call.embeds_for_nearest)
        joining = Joining(prompts, rows, call, self._terms(call), self._memory, asking.work, embed)
        asking.tell_pruned(joining.pruned)
        counted, waiting = len(rows) - len({*joining.alone, *joining.answers}), [asking]
        while joining.is_asking:
            asking = waiting.pop() if waiting else self._begin(call)
            asks, of_asks, told = joining.ask()
            asking.tell_pairs(told)
            joining.take(self._ask_each(asks, _bundles_of(asks, of_asks), of_asks, asking, counted))
            counted = 0
        answers = [joining.answers.get(place) for place in range(len(rows))]
        if alone := joining.alone:
            asking = waiting.pop() if waiting else self._begin(call)
            asking.tell_pairs(joining.pairs_alone)
            of_alone = [prompts[place] for place in alone], [rows[place] for place in alone]
            for place, text in zip(alone, self._answer(*of_alone, call, asking, joining.uncounted), strict=True):
                answers[place] = text
        joining.judge(answers)
        return answers

    def _embed(self, call: Call, texts: Sequence[str]) -> Vectors:
        try:
            return embed_texts(texts, call, self._memory, lambda: self._begin(call))
        except Failed as failed:
            raise EmbeddingError(failed.reason, call.server) from None

    def _answer(
        self,
        prompts: Sequence[str | None],
        rows: Sequence[str | None],
        call: Call,
        asking: Round,
        counted: int | None = None,
    ) -> list[str | None]:
        of_prompt = {prompt: Ask(prompt, call) for prompt in dict.fromkeys(prompts)}
        asks = [of_prompt[prompt] for prompt in prompts]
        bundles = [[places] for places in _places_of(prompts).values()]
        outcomes = self._ask_each(asks, bundles, rows, asking, len(rows) if counted is None else counted)
        if call.on_error == "fail":
            for _, error in outcomes:
                if error is not None and not isinstance(error, NotAsked):
                    raise CallError(error)
        return [text for text, _ in outcomes]

    def _ask_each(
        self,
        asks: Sequence[Ask],
        bundles: Iterable[Sequence[Sequence[int]]],
        rows: Sequence[str | None],
        asking: Round,
        counted: int,
    ) -> list[Outcome]:
        """Ask about each row what it is asked.

        Args:
            asks: (n,) questions.
            bundles: The places of all of them, those of one question together, and questions about the same rows.
            rows: (n,) rows.
            asking: What asks; ended by it.
            counted: How many calls this counts for.
        """
        places: list[list[Sequence[int]]] = []  # of each group's questions

        def make_groups() -> Iterator[Group]:
            for bundle in bundles:
                inquiries = [self._memory.inquiry(asks[of_question[0]]) for of_question in bundle]
                for members, table in _cut(inquiries[0].question, [rows[i] for i in bundle[0]], asking.work):
                    places.append([[of_question[i] for i in members] for of_question in bundle])
                    yield asking.group(inquiries, table)

        outcomes: list[Outcome] = [(None, None)] * len(rows)
        try:
            groups = asking.ask(counted, make_groups)
        except Failed as failed:
            raise CallError(failed.reason) from None
        for group, of_group in zip(groups, places, strict=True):
            for number, of_question in enumerate(of_group):
                for place, outcome in zip(of_question, group.outcomes(number), strict=True):
                    outcomes[place] = outcome
        forget(groups)
        return outcomes

    def _largest_group(
        self, prompts: Sequence[str | None], rows: Sequence[str | None], call: Call, asking: Round
    ) -> Group:
        """Of some calls those that have the same prompt, and the same columns to send, as most others."""
        prompt, places = max(_places_of(prompts).items(), key=lambda item: len(item[1]))
        inquiry = self._memory.inquiry(Ask(prompt, call))
        _, table = max(_cut(inquiry.question, [rows[i] for i in places], asking.work), key=lambda cut: len(cut[0]))
        return asking.group([inquiry], table)


def _is_null(row: str | None, call: Call) -> bool:
    """Whether an input is NULL, or a query with a document of which one is."""
    if row is None or not call.reranks or "null" not in row:
        return row is None
    try:
        cells = json.loads(row)
    except (ValueError, RecursionError):  # whoever cuts it will tell
        return False
    return isinstance(cells, dict) and None in cells.values()


def _places_of(values: Sequence[T]) -> dict[T, list[int]]:
    places_of: dict[T, list[int]] = {}
    for place, value in enumerate(values):
        places_of.setdefault(value, []).append(place)
    return places_of


def _bundles_of(asks: Sequence[Ask], rows: Sequence[str]) -> list[list[list[int]]]:
    """Questions about the same rows are planned together: the rows may stand in front, if that costs less."""
    bundles: dict[tuple[str, ...], list[list[int]]] = {}
    for places in _places_of(list(map(id, asks))).values():  # hashing a call's options for every row would cost more
        bundles.setdefault(tuple([rows[place] for place in places]), []).append(places)
    return list(bundles.values())


def _cut(question: Question, rows: Sequence[str | None], work: Callable[[], None]) -> list[tuple[list[int], Table]]:
    """The places and the table of the rows that have the same columns to send.

    A NULL row has the columns that the prompt names.
    """
    try:
        return Table.group_json(
            rows, lambda columns: resolve_columns(question, question.columns if columns is None else columns), work
        )
    except ValueError:
        raise OptionError("the input is not JSON") from None

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
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.blocks import LaidOut, block_keys, cut_blocks, lay_out
from pg_bridge.asking.books import Books
from pg_bridge.asking.budget import Budget
from pg_bridge.asking.gauge import (
    CountedBy,
    Gauge,
    Pieces,
    Planned,
    Tokenizer,
    gauge_by_characters,
    gauge_by_tokenizer,
    head_of,
)
from pg_bridge.asking.inquiry import Ask, Inquiry
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.portions import Group, Portions
from pg_bridge.asking.prefix_cache import PrefixCache
from pg_bridge.asking.prompt import First, Question, place_questions, render, resolve_columns
from pg_bridge.asking.run import Run
from pg_bridge.asking.seen import NOTHING_SEEN, AnswersBy, Seen, answer_tokens
from pg_bridge.asking.streamed import RECALLED_ROWS, Fetch
from pg_bridge.asking.together import groups_of
from pg_bridge.asking.windows import read_windows
from pg_bridge.engine import EngineFacts, Sampling
from pg_bridge.engine.further import thought_tokens
from pg_bridge.ledger.prices import cost_of
from pg_bridge.options import Server
from pg_bridge.ordering import Ordering
from pg_bridge.rows.media import media_of
from pg_bridge.rows.table import Table

GAUGED_ROWS = 10_000  # are planned before the first is counted, if there are so many
_CHUNK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Engineering:
    """What an estimate has to know of the engine.

    Attributes:
        server: Its options.
        survey: Asks the engine what it is like; called at the first prompt, and not without one.
        tokenizer: From how prompts are answered to what counts their tokens.
        seen: What it did lately.
    """

    server: Server
    survey: Callable[[], EngineFacts]
    tokenizer: Callable[[Sampling], Tokenizer]
    seen: Seen = NOTHING_SEEN


@dataclass(slots=True)
class Estimate:
    """What a run would ask and take.

    Attributes:
        rows: That it reads.
        unique_prompts: Its distinct questions.
        already_answered: Those of them whose answers are known.
        requests: HTTP requests for the others.
        prompt_tokens: Tokens of the others' prompts.
        cached_tokens: Those of them that the engine finds in its prefix cache.
        completion_tokens: Tokens of their answers.
        answers_by: Whether these are as many as earlier answers took, or no more than these.
        seconds: What the engine takes for them at the speed at which it was last seen; None where it was not.
        cost: At the server's prices; None where it has none.
        counted_by: How tokens were counted.
    """

    rows: int = 0
    unique_prompts: int = 0
    already_answered: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    answers_by: AnswersBy | None = None
    seconds: float | None = None
    cost: float | None = None
    counted_by: CountedBy | None = None


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
    counting = _Counting(engine, work)
    waiting: list[_Waiting] = []
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


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """Rows that are planned, and what is asked about them."""

    inquiries: Sequence[Inquiry]
    planned: Planned


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
) -> Iterator[_Waiting]:
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
                    yield _Waiting(inquiries, Planned(*planning.planned, portion.is_ahead))


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


class _Counting:
    """Counts the tokens of planned rows, and what of them a prefix cache holds."""

    def __init__(self, engine: Engineering, work: Callable[[], None]) -> None:
        self._engine = engine
        self._work = work
        self._facts: EngineFacts | None = None
        self._gauges: dict[tuple[Inquiry, First], Gauge] = {}
        self._cache: PrefixCache | None = None
        self._requests = 0
        self._tokens = 0.0
        self._asked: dict[Inquiry, int] = {}

    def add(self, waiting: Sequence[_Waiting]) -> None:
        """Count rows; the first ones tell how long prompts are."""
        for each in waiting:
            for inquiry in each.inquiries:
                self._asked[inquiry] = self._asked.get(inquiry, 0) + each.planned.table.rows
            questions = [inquiry.question for inquiry in each.inquiries]
            first = place_questions(questions, each.planned.ordering, each.inquiries[0].call.placement).first
            alike = [other.planned for other in waiting if other.inquiries == each.inquiries]
            gauges = [self._gauge(inquiry, first, alike) for inquiry in each.inquiries]
            facts = self._facts
            assert facts is not None  # noqa: S101 - a gauge comes after a look at the engine; for the type checker
            go_alone = bool(media_of(chain.from_iterable(each.planned.table.values)))
            per_request = 1 if go_alone else facts.prompts_per_request
            self._requests += -(-each.planned.table.rows * len(questions) // per_request)
            if first == "row":
                self._count(each.planned, questions, gauges, first)
            else:
                for question, gauge in zip(questions, gauges, strict=True):
                    self._count(each.planned, [question], [gauge], first)

    def fill(self, found: Estimate) -> None:
        """Put what was counted into an estimate."""
        server, seen = self._engine.server, self._engine.seen
        found.requests = self._requests
        found.prompt_tokens = round(self._tokens)
        if self._cache is not None:
            found.cached_tokens = min(self._cache.hit_tokens, found.prompt_tokens)
        counted_by = {gauge.counted_by for gauge in self._gauges.values()}
        found.counted_by = "by_characters" if "by_characters" in counted_by else next(iter(counted_by), None)
        answers_by: set[AnswersBy | None] = set()
        for inquiry, asked in self._asked.items():
            tokens, by = answer_tokens(asked, inquiry.sampling, seen, thought_tokens(server, inquiry.sampling))
            found.completion_tokens += tokens
            answers_by.add(by)
        found.answers_by = "at_most" if "at_most" in answers_by else next(iter(answers_by), None)

    def _gauge(self, inquiry: Inquiry, first: First, planned: Sequence[Planned]) -> Gauge:
        if (inquiry, first) not in self._gauges:
            columns, sampling = planned[0].table.columns, inquiry.sampling
            facts = self._facts or self._engine.survey()
            gauge = gauge_by_tokenizer(
                self._engine.tokenizer(sampling), inquiry.question, planned, first
            ) or gauge_by_characters(inquiry.question, columns, sampling, self._engine.server.api, first)
            if self._facts is None and facts.cache_blocks:
                self._cache = PrefixCache(facts.block_size, self._room(facts, planned[-1], gauge))
            self._facts = facts
            self._gauges[inquiry, first] = gauge
        return self._gauges[inquiry, first]

    def _room(self, facts: EngineFacts, planned: Planned, gauge: Gauge) -> int:
        """Blocks that stay: each prompt in flight holds one for its answer, as long as there is room for it at all."""
        columns = planned.ordering.column_order[:_CHUNK_ROWS]
        rows = (Pieces(planned).chars(0, _CHUNK_ROWS) * gauge.tokens_per_char[columns]).sum(axis=1)
        of_prompt = gauge.head_tokens + float(rows.mean()) + gauge.tail_tokens
        in_flight = int(facts.cache_blocks * facts.block_size / max(of_prompt, 1.0))
        return max(facts.cache_blocks - 1 - min(in_flight, self._engine.server.most_in_flight), 1)

    def _count(self, planned: Planned, questions: Sequence[Question], gauges: Sequence[Gauge], first: First) -> None:
        """Count prompts whose questions follow one another about each row."""
        pieces, table, ordering = Pieces(planned), planned.table, planned.ordering
        prompts = [render(question, table, ordering, first=first) for question in questions]
        for start in range(0, table.rows, _CHUNK_ROWS):
            self._work()
            columns, chars = ordering.column_order[start : start + _CHUNK_ROWS], pieces.chars(start, _CHUNK_ROWS)
            looked_up = []
            for question, gauge, texts in zip(questions, gauges, prompts, strict=True):
                laid_out = lay_out(chars, columns, len(head_of(question, table.columns, first)), gauge)
                totals = laid_out.tokens[:, -1] + gauge.tail_tokens
                self._tokens += float(totals.sum())
                if self._cache is not None:
                    lengths = np.maximum(np.rint(totals).astype(np.int64), 1)
                    looked_up.append(self._cut(list(islice(texts, _CHUNK_ROWS)), laid_out, lengths))
            for of_row in zip(*looked_up, strict=True):
                for keys, length in of_row:
                    assert self._cache is not None  # noqa: S101 - else nothing is looked up; for the type checker
                    self._cache.look_up(keys, length)

    def _cut(
        self, prompts: Sequence[str], laid_out: LaidOut, lengths: NDArray[np.int64]
    ) -> list[tuple[list[int], int]]:
        """The keys of each prompt's blocks, and its tokens."""
        assert self._cache is not None  # noqa: S101 - as above
        size = self._cache.block_size
        cuts = cut_blocks(laid_out, size, int(lengths.max()) // size)
        return [
            (block_keys(text, ends[: length // size]), length)
            for text, length, ends in zip(prompts, lengths.tolist(), cuts.tolist(), strict=True)
        ]

"""How many tokens planned rows take in prompts, and what of them a prefix cache would hold.

In: planned rows with their questions; what the engine is like. Out: an `Estimate`, filled in. Prompts are written and
cut where the engine's blocks would end; nothing is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.blocks import LaidOut, block_keys, cut_blocks, lay_out
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
from pg_bridge.asking.inquiry import Inquiry
from pg_bridge.asking.packing import TOKENS_OF_NUMBER, Packing
from pg_bridge.asking.prefix_cache import PrefixCache
from pg_bridge.asking.prompt import First, Question, pieces_of, place_questions, render
from pg_bridge.asking.seen import NOTHING_SEEN, AnswersBy, Seen, answer_tokens
from pg_bridge.engine import EngineFacts, Sampling
from pg_bridge.engine.further import thought_tokens
from pg_bridge.options import Call, Server
from pg_bridge.rows.media import media_of

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


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """Rows that are planned, and what is asked about them."""

    inquiries: Sequence[Inquiry]
    planned: Planned


class Counting:
    """Counts the tokens of planned rows, and what of them a prefix cache holds."""

    def __init__(self, engine: Engineering, context_tokens: Callable[[Call], int], work: Callable[[], None]) -> None:
        self._engine = engine
        self._context_tokens = context_tokens
        self._work = work
        self._facts: EngineFacts | None = None
        self._gauges: dict[tuple[Inquiry, First], Gauge] = {}
        self._cache: PrefixCache | None = None
        self._requests = 0
        self._tokens = 0.0
        self._asked: dict[Inquiry, int] = {}
        self._packings: dict[Inquiry, Packing] = {}
        self._spared = 0  # prompts, where one is about several rows

    def add(self, waiting: Sequence[Waiting]) -> None:
        """Count rows; the first ones tell how long prompts are."""
        for each in waiting:
            for inquiry in each.inquiries:
                self._asked[inquiry] = self._asked.get(inquiry, 0) + each.planned.table.rows
            has_media = bool(media_of(chain.from_iterable(each.planned.table.values)))
            packed = [inquiry for inquiry in each.inquiries if inquiry.call.packs and not has_media]
            alone = [inquiry for inquiry in each.inquiries if inquiry not in packed]
            if alone:
                self._add_alone(each, alone, waiting, go_alone=has_media)
            for inquiry in packed:
                self._add_packed(each.planned, inquiry, [other.planned for other in waiting])

    def _add_alone(
        self, each: Waiting, inquiries: Sequence[Inquiry], waiting: Sequence[Waiting], *, go_alone: bool
    ) -> None:
        questions = [inquiry.question for inquiry in inquiries]
        first = place_questions(questions, each.planned.ordering, inquiries[0].call.placement).first
        alike = [other.planned for other in waiting if other.inquiries == each.inquiries]
        gauges = [self._gauge(inquiry, first, alike) for inquiry in inquiries]
        self._count_requests(each.planned.table.rows * len(questions), go_alone=go_alone)
        if first == "row":
            self._count(each.planned, questions, gauges, first)
        else:
            for question, gauge in zip(questions, gauges, strict=True):
                self._count(each.planned, [question], [gauge], first)

    def _add_packed(self, planned: Planned, inquiry: Inquiry, waiting: Sequence[Planned]) -> None:
        """Count prompts about several rows, going by what one about a row takes."""
        gauge = self._gauge(
            inquiry, "question", [other for other in waiting if other.table.columns == planned.table.columns]
        )
        if inquiry not in self._packings:
            self._packings[inquiry] = Packing(inquiry, self._context_tokens(inquiry.call))
        packing, table, ordering = self._packings[inquiry], planned.table, planned.ordering
        texts = map(packing.write, packing.pack((b"", pieces) for pieces in pieces_of(table, ordering)))
        head = len(head_of(inquiry.question, table.columns))
        rate = float(gauge.tokens_per_char.mean()) if table.columns else 0.0
        of_all = replace(gauge, tokens_per_char=np.array([rate]))
        prompts = 0
        while chunk := list(islice(texts, _CHUNK_ROWS)):
            self._work()
            chars = np.array([[len(text) - head] for text in chunk], np.int64)
            self._look_up(chunk, lay_out(chars, np.zeros_like(chars, np.int16), head, of_all), of_all)
            prompts += len(chunk)
        self._count_requests(prompts)
        self._spared += table.rows - prompts

    def _count_requests(self, prompts: int, *, go_alone: bool = False) -> None:
        assert self._facts is not None  # noqa: S101 - a gauge comes after a look at the engine; for the type checker
        self._requests += -(-prompts // (1 if go_alone else self._facts.prompts_per_request))

    def _look_up(self, texts: Sequence[str], laid_out: LaidOut, gauge: Gauge) -> None:
        totals = laid_out.tokens[:, -1] + gauge.tail_tokens
        self._tokens += float(totals.sum())
        if self._cache is not None:
            for keys, length in self._cut(texts, laid_out, np.maximum(np.rint(totals).astype(np.int64), 1)):
                self._cache.look_up(keys, length)

    def fill(self, found: Estimate) -> None:
        """Put what was counted into an estimate."""
        server, seen = self._engine.server, self._engine.seen
        found.requests = self._requests
        found.unique_prompts -= self._spared
        found.prompt_tokens = round(self._tokens)
        if self._cache is not None:
            found.cached_tokens = min(self._cache.hit_tokens, found.prompt_tokens)
        counted_by = {gauge.counted_by for gauge in self._gauges.values()}
        found.counted_by = "by_characters" if "by_characters" in counted_by else next(iter(counted_by), None)
        answers_by: set[AnswersBy | None] = set()
        for inquiry, asked in self._asked.items():
            tokens, by = answer_tokens(asked, inquiry.sampling, seen, thought_tokens(server, inquiry.sampling))
            found.completion_tokens += tokens + (asked * TOKENS_OF_NUMBER if inquiry.call.packs else 0)
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

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
from itertools import islice

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
from pg_bridge.asking.prompt import render, resolve_columns
from pg_bridge.asking.run import Run
from pg_bridge.asking.seen import NOTHING_SEEN, AnswersBy, Seen, answer_tokens
from pg_bridge.asking.streamed import RECALLED_ROWS, Fetch
from pg_bridge.asking.windows import read_windows
from pg_bridge.engine import EngineFacts
from pg_bridge.engine.further import thought_tokens
from pg_bridge.ledger.prices import cost_of
from pg_bridge.options import Call, Server
from pg_bridge.ordering import Ordering
from pg_bridge.rows.table import Table

GAUGED_ROWS = 10_000  # are planned before the first is counted, if there are so many
_CHUNK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Engineering:
    """What an estimate has to know of the engine.

    Attributes:
        server: Its options.
        survey: Asks the engine what it is like; called at the first prompt, and not without one.
        tokenizer: Counts tokens.
        seen: What it did lately.
    """

    server: Server
    survey: Callable[[], EngineFacts]
    tokenizer: Tokenizer
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
    prompt: str | None,
    call: Call,
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
        prompt: The question as the user wrote it.
        call: How it would be asked.
        engine: Who would be asked.
        books: Know what is answered already; nothing is written into them.
        every_row: Whether the run would know that all its answers are taken; planning differs a little.
        work: Called often; what it raises ends the estimate.

    Raises:
        TemplateError: The prompt does not parse or names an unknown column.
        EngineError: The engine cannot be reached or refuses the key.
    """
    found = Estimate()
    inquiry = Memory().inquiry(Ask(prompt, call))
    names = resolve_columns(inquiry.question, columns)
    counting = _Counting(inquiry, names, engine, work)
    waiting: list[Planned] = []
    for planned in _plan(fetch, names, inquiry, books, found, every_row=every_row, work=work):
        waiting.append(planned)
        if sum(len(each.ordering.row_order) for each in waiting) >= GAUGED_ROWS:
            counting.add(waiting)
            waiting.clear()
    if waiting:
        counting.add(waiting)
    counting.fill(found)
    asked = found.unique_prompts - found.already_answered
    found.completion_tokens, found.answers_by = answer_tokens(
        asked, inquiry.sampling, engine.seen, thought_tokens(engine.server, inquiry.sampling)
    )
    found.seconds = engine.seen.seconds_for(found.prompt_tokens - found.cached_tokens)
    found.cost = cost_of(found, engine.server)
    return found


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
    names: Sequence[str],
    inquiry: Inquiry,
    books: Books,
    found: Estimate,
    *,
    every_row: bool,
    work: Callable[[], None],
) -> Iterator[Planned]:
    """Read all rows and plan those that would be asked about, window by window, counting them."""
    planning = _Planning(books, work)
    remembered = books.remembers(inquiry.call)
    seen: set[bytes] = set()
    windows = read_windows(
        fetch,
        lambda row: len(row or ""),
        planning.run,
        every_row=every_row,
        most_rows=inquiry.call.window_rows,
        work=work,
        ahead=False,
    )
    for window in windows:
        group = Group([inquiry], Table.from_json(window.rows, names, work), remembered=remembered)
        found.rows += len(window.rows)
        fresh = [u for u, key in enumerate(group.keys) if key not in seen]
        keys = [group.keys[u] for u in fresh]
        seen.update(keys)
        answered = _find_answered(inquiry, keys, books)
        found.unique_prompts += len(fresh)
        found.already_answered += len(answered)
        asked = [u for u, key in zip(fresh, keys, strict=True) if key not in answered]
        if asked:
            rows = np.array(asked, np.intp)
            for portion in planning.of_rows(group, [inquiry], rows, quick=window.is_small):
                assert planning.planned is not None  # noqa: S101 - each portion is planned; for the type checker
                yield Planned(*planning.planned, portion.is_ahead)


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

    def __init__(self, inquiry: Inquiry, columns: Sequence[str], engine: Engineering, work: Callable[[], None]) -> None:
        self._inquiry = inquiry
        self._columns = columns
        self._engine = engine
        self._work = work
        self._facts = EngineFacts()
        self._gauge: Gauge | None = None
        self._cache: PrefixCache | None = None
        self._requests = 0
        self._tokens = 0.0

    def add(self, planned: Sequence[Planned]) -> None:
        """Count rows; the first ones tell how long prompts are."""
        if self._gauge is None:
            self._begin(planned)
        for each in planned:
            self._requests += -(-len(each.ordering.row_order) // self._facts.prompts_per_request)
            self._count(each)

    def fill(self, found: Estimate) -> None:
        """Put what was counted into an estimate."""
        found.requests = self._requests
        found.prompt_tokens = round(self._tokens)
        if self._cache is not None:
            found.cached_tokens = min(self._cache.hit_tokens, found.prompt_tokens)
        found.counted_by = self._gauge.counted_by if self._gauge else None

    def _begin(self, planned: Sequence[Planned]) -> None:
        question, server = self._inquiry.question, self._engine.server
        self._facts = facts = self._engine.survey()
        self._gauge = gauge_by_tokenizer(self._engine.tokenizer, question, planned) or gauge_by_characters(
            question, self._columns, self._inquiry.sampling, server.api
        )
        if facts.cache_blocks:
            self._cache = PrefixCache(facts.block_size, self._room(planned[-1], self._gauge))

    def _room(self, planned: Planned, gauge: Gauge) -> int:
        """Blocks that stay: each prompt in flight holds one for its answer, as long as there is room for it at all."""
        facts, columns = self._facts, planned.ordering.column_order[:_CHUNK_ROWS]
        rows = (Pieces(planned).chars(0, _CHUNK_ROWS) * gauge.tokens_per_char[columns]).sum(axis=1)
        of_prompt = gauge.head_tokens + float(rows.mean()) + gauge.tail_tokens
        in_flight = int(facts.cache_blocks * facts.block_size / max(of_prompt, 1.0))
        return max(facts.cache_blocks - 1 - min(in_flight, self._engine.server.most_in_flight), 1)

    def _count(self, planned: Planned) -> None:
        gauge, question = self._gauge, self._inquiry.question
        assert gauge is not None  # noqa: S101 - _begin() comes first; for the type checker
        pieces, prompts = Pieces(planned), render(question, planned.table, planned.ordering)
        for start in range(0, planned.table.rows, _CHUNK_ROWS):
            self._work()
            columns = planned.ordering.column_order[start : start + _CHUNK_ROWS]
            laid_out = lay_out(pieces.chars(start, _CHUNK_ROWS), columns, len(head_of(question, self._columns)), gauge)
            totals = laid_out.tokens[:, -1] + gauge.tail_tokens
            self._tokens += float(totals.sum())
            if self._cache is not None:
                lengths = np.maximum(np.rint(totals).astype(np.int64), 1)
                self._look_up(list(islice(prompts, _CHUNK_ROWS)), laid_out, lengths)

    def _look_up(self, prompts: Sequence[str], laid_out: LaidOut, lengths: NDArray[np.int64]) -> None:
        assert self._cache is not None  # noqa: S101 - as above
        size = self._cache.block_size
        cuts = cut_blocks(laid_out, size, int(lengths.max()) // size)
        for text, length, ends in zip(prompts, lengths.tolist(), cuts.tolist(), strict=True):
            self._cache.look_up(block_keys(text, ends[: length // size]), length)

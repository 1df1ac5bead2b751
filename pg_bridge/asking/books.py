"""What a run reads of the ledger before it asks, and writes into it as answers land.

In: questions and their rows' digests; completions. Out: outcomes that nobody need ask for, and where the run stands,
for other sessions to see. Where there is no account it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from pg_bridge.asking.confidence import part_of
from pg_bridge.asking.inquiry import Inquiry, Outcome, context_of
from pg_bridge.asking.reduction import least_context
from pg_bridge.asking.run import Run, shares_of
from pg_bridge.asking.seen import speed_shown
from pg_bridge.engine import Engine
from pg_bridge.errors import EngineError, EngineTimeout, EngineUnreachable
from pg_bridge.ledger.account import Account
from pg_bridge.ledger.prices import cost_of
from pg_bridge.ledger.progress import Standing
from pg_bridge.ledger.usage import Figures
from pg_bridge.options import Call
from pg_bridge.rows.media import shown

T = TypeVar("T")


@contextmanager
def telling(account: Account | None) -> Iterator[Callable[[int], None]]:
    """Tell others how far the statement is, until the block ends; gives a function that counts rows as read."""
    if account is None:
        yield lambda _: None
        return
    job = account.job

    def count(rows: int) -> None:
        job.rows_read += rows

    try:
        yield count
    finally:
        job.end()


@contextmanager
def reading(account: Account | None, fetch: Callable[[int], list[T]]) -> Iterator[Callable[[int], list[T]]]:
    """The same, with a function that gives the rows that another gives, and counts them."""
    with telling(account) as count:

        def fetch_and_count(wanted: int) -> list[T]:
            rows = fetch(wanted)
            count(len(rows))
            return rows

        yield fetch_and_count


class Books:
    """The books of one run.

    Args:
        account: Of the statement and its server; None for none.
        engine: Tells which model answers, and what is in flight.
        run: Counts what the ledger answered.
    """

    def __init__(self, account: Account | None, engine: Engine, run: Run) -> None:
        self._account = account
        self._engine = engine
        self._run = run
        self._answered = 0
        self._failures = 0
        self._counted = Figures()
        if account is not None:
            engine.watch = partial(account.job.tick, self._stand)

    @property
    def server_name(self) -> str:
        """The name of the server that is asked."""
        return self._engine.server_name

    def context_tokens(self, call: Call) -> int:
        """What a prompt and its answer may have together: what the engine says, or less if the call says so."""
        told = None
        with suppress(EngineError):
            told = self._engine.find_model().context_tokens
        return least_context(told, call.context_tokens)

    def remembers(self, call: Call) -> bool:
        """Whether an answer to a call is found again in the same statement."""
        return call.dedup and (self._account is None or call.cache_at(self._account.server) != "off")

    def recall(self, inquiry: Inquiry, keys: Iterable[bytes]) -> None:
        """Learn what the ledger knows of some rows, and the inquiry does not.

        Raises:
            EngineError: The engine does not tell which model answers.
        """
        context = self._context(inquiry)
        unknown = [key for key in keys if key not in inquiry.outcomes]
        if unknown and context is not None and self._account is not None:
            known = self._account.recall(context, unknown, inquiry.call.max_age)
            self._run.from_cache += inquiry.recall(known)
        if inquiry.surer is not None:
            for key in unknown:
                answer, error = inquiry.surer.outcomes.get(key, (None, None))
                if answer is not None and error is None:
                    inquiry.outcomes.setdefault(key, (part_of(answer, inquiry.surer.call), None))

    def land(self, landed: Iterable[tuple[Inquiry, bytes, Outcome, str]], prompts: int) -> None:
        """Write what has landed of so many prompts: (question, row, outcome, prompt)."""
        if self._account is None:
            return
        kept = []
        self._answered += prompts
        for inquiry, key, (answer, error), prompt in landed:
            if error is not None or answer is None:
                self._failures += 1
            elif inquiry.context is not None:
                readable = shown(prompt)
                kept.append((inquiry.context, key, answer, readable))
                if inquiry.alone is not None:
                    kept.append((inquiry.alone, key, part_of(answer, inquiry.call) or "", readable))
        self._account.keep(kept)
        self._write()

    def close(self) -> None:
        """Write the rest, at a moment when the user cannot be told of trouble."""
        if self._account is not None and (shown := speed_shown(self._run.usage)) is not None:
            self._account.note_speed(shown)
        self._write(quietly=True)
        if self._account is not None:
            self._account.job.add(self._stand())

    def _write(self, *, quietly: bool = False) -> None:
        if self._account is None:
            return
        run, usage = self._run, self._run.usage
        figures = Figures(
            rows=run.rows,
            questions=run.unique_prompts,
            from_cache=run.from_cache,
            requests=usage.requests,
            retries=usage.retries,
            failures=self._failures,
            prompt_tokens=usage.prompt_tokens or 0,
            cached_tokens=usage.cached_tokens or 0,
            completion_tokens=usage.completion_tokens or 0,
            seconds=usage.wait_s,
            cost=cost_of(usage, self._account.server) or 0.0,
            engines={endpoint: share.known() for endpoint, share in shares_of(usage).items()},
        )
        self._account.count(figures.less(self._counted))
        self._counted = figures
        self._account.flush(quietly=quietly)

    def _stand(self) -> Standing:
        run, usage = self._run, self._run.usage
        return Standing(
            asked=run.unique_prompts,
            answered=self._answered,
            from_cache=run.from_cache,
            in_flight=self._engine.in_flight,
            left=self._engine.left,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            cost=cost_of(usage, self._account.server) if self._account else None,
            engines=shares_of(usage),
        )

    def _context(self, inquiry: Inquiry) -> bytes | None:
        """What the answers to a question depend on, but for the row; None if they are not kept."""
        account, call = self._account, inquiry.call
        if account is None or not account.keeps or call.cache_at(account.server) != "persistent":
            return None
        if inquiry.context is None:
            scope = account.identify(self._engine.find_model, (EngineUnreachable, EngineTimeout))
            inquiry.context = account.context(scope, context_of(inquiry.question, call, account.server))
            if call.confidence:  # whoever wants the answer alone looks for it there
                alone = replace(call, confidence=False, rows_per_prompt=1)
                inquiry.alone = account.context(scope, context_of(inquiry.question, alone, account.server))
        return inquiry.context

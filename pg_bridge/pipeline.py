"""The whole road, top to bottom: rows in, one answer per row out.

    rows, window by window → Table → unique rows → Ordering → prompts → completions → answers per input row

In: a function that fetches rows, the prompt, the call's options and an engine. Out: answers in the order in which
the engine gives them. It knows neither PostgreSQL nor HTTP. Source of the idea: Liu et al., arXiv 2403.05821.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise

import numpy as np

from pg_bridge.dedup import dedup
from pg_bridge.engine import Completion, Engine, Sampling, Usage
from pg_bridge.errors import RowError
from pg_bridge.options import Call
from pg_bridge.ordering import plan
from pg_bridge.prompt import Question, parse_question, render, resolve_columns
from pg_bridge.table import Table

FIRST_WINDOW_ROWS = 1024
WINDOW_GROWTH = 4
WINDOW_CHARS = 8_000_000
REMEMBERED_ANSWERS = 100_000

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")

Fetch = Callable[[int], list[str | None]]
"""At most n more rows, each the text of a JSON object; an empty list at the end."""


@dataclass(frozen=True, slots=True)
class Answer:
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


@dataclass(slots=True)
class Run:
    """What one run did. Seconds are wall-clock; tokens are the engine's own, None where it gives none."""

    rows: int = 0
    unique_prompts: int = 0
    read_s: float = 0.0
    plan_s: float = 0.0
    return_s: float = 0.0
    usage: Usage = field(default_factory=Usage)

    @property
    def prefix_hit_rate(self) -> float | None:
        """Cached prompt tokens over prompt tokens."""
        cached, prompt = self.usage.cached_tokens, self.usage.prompt_tokens
        return cached / prompt if prompt and cached is not None else None

    def as_dict(self) -> dict[str, int | float | None]:
        """The columns of `llm.last_run()`."""
        return {
            "rows": self.rows,
            "unique_prompts": self.unique_prompts,
            "requests": self.usage.requests,
            "retries": self.usage.retries,
            "prompt_tokens": self.usage.prompt_tokens,
            "cached_tokens": self.usage.cached_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "prefix_hit_rate": self.prefix_hit_rate,
            "read_s": self.read_s,
            "plan_s": self.plan_s,
            "wait_s": self.usage.wait_s,
            "return_s": self.return_s,
        }


def ask(
    fetch: Fetch, columns: Sequence[str], prompt: str | None, call: Call, engine: Engine, run: Run
) -> Iterator[Answer]:
    """Ask one prompt about every row.

    Nothing is sent before the prompt has been checked against the columns, and nothing is fetched before the first
    answer is asked for. A caller that stops early causes no more than a few dozen questions.

    Args:
        fetch: Gives the rows.
        columns: The names of the rows' columns, in the rows' order.
        prompt: The question; `{column}` names a column.
        call: The call's options.
        engine: Where the prompts go; closed at the end.
        run: Filled in as the run goes on.

    Yields:
        One answer for each row, in the order in which they are answered.

    Raises:
        TemplateError: The prompt does not parse or names an unknown column.
        RowError: A row failed and `call.on_error` is `fail`.
        EngineError: The engine failed as a whole.
    """
    question = parse_question(prompt)
    sent_columns = resolve_columns(question, columns)
    sampling = Sampling(call.max_tokens, call.temperature, call.system_prompt, call.choices)
    return _answers(_Prompts(fetch, question, sent_columns, call, run), engine, sampling, call, run)


def _answers(prompts: _Prompts, engine: Engine, sampling: Sampling, call: Call, run: Run) -> Iterator[Answer]:
    run.usage = engine.usage
    try:
        for completion in engine.complete(iter(prompts), sampling):
            if completion is not None:
                prompts.complete(_storable(completion))
            while prompts.ready:
                waiting, answered = prompts.ready.popleft()
                for row_id, row in waiting:
                    if answered.error is not None and call.on_error == "fail":
                        raise RowError(row_id, answered.error)
                    returned = time.perf_counter()
                    yield Answer(row_id, row, answered.text, answered.error)
                    run.return_s += time.perf_counter() - returned
    finally:
        engine.close()


def _storable(completion: Completion) -> Completion:
    """The completion, or its row's failure where PostgreSQL could not hold its text."""
    text = completion.text or ""
    if "\0" not in text and (text.isascii() or not _HALF_CHARACTER.search(text)):
        return completion
    return Completion(completion.index, None, "the answer holds a character that PostgreSQL's text type cannot")


@dataclass(slots=True)
class _Asked:
    """One distinct prompt of the run: the rows that wait for its answer, and the answer once it is there."""

    waiting: list[tuple[int, str | None]]
    completion: Completion | None = None


class _Prompts:
    """Turns rows into prompts, window by window, and remembers which rows wait for which answer."""

    def __init__(self, fetch: Fetch, question: Question, columns: Sequence[str], call: Call, run: Run) -> None:
        self.ready: deque[tuple[list[tuple[int, str | None]], Completion]] = deque()
        self._fetch = fetch
        self._question = question
        self._columns = columns
        self._call = call
        self._run = run
        self._in_flight: dict[int, _Asked] = {}
        self._remembered: dict[bytes, _Asked] = {}

    def __iter__(self) -> Iterator[str | None]:
        """Yield prompts in the order in which to send them; None where answers are ready without a question."""
        index = 0
        for first_row_id, rows, is_last in self._windows():
            started = time.perf_counter()
            table = Table.from_json(rows, self._columns)
            unique = dedup(table, enabled=self._call.dedup)
            offsets, members = (part.tolist() for part in unique.fan_out())
            asked = [
                _Asked([(first_row_id + i, rows[i]) for i in members[begin:end]]) for begin, end in pairwise(offsets)
            ]
            table = unique.table
            if self._call.dedup and not (is_last and first_row_id == 1):
                fresh = self._not_asked_before(table, asked)
                if len(fresh) < len(asked):
                    table = table.take(np.array(fresh, dtype=np.intp))
                    asked = [asked[u] for u in fresh]
            ordering = plan(table, reorder=self._call.reorder)
            prompts = list(render(self._question, table, ordering))
            self._run.plan_s += time.perf_counter() - started
            if self.ready:
                yield None
            for row, prompt in zip(ordering.row_order.tolist(), prompts, strict=True):
                self._in_flight[index] = asked[row]
                self._run.unique_prompts = index = index + 1
                yield prompt

    def complete(self, completion: Completion) -> None:
        """Make the rows that waited for a prompt ready."""
        asked = self._in_flight.pop(completion.index)
        asked.completion = completion
        self.ready.append((asked.waiting, completion))
        asked.waiting = []

    def _windows(self) -> Iterator[tuple[int, list[str | None], bool]]:
        """Yield (row_id of the first row, rows, whether they are the last); windows grow, see docs/decisions."""
        window_rows = min(FIRST_WINDOW_ROWS, self._call.window_rows)
        first_row_id = 1
        is_last = False
        while not is_last:
            started = time.perf_counter()
            rows: list[str | None] = []
            chars = 0
            while len(rows) < window_rows and chars < WINDOW_CHARS and not is_last:
                wanted = min(window_rows - len(rows), FIRST_WINDOW_ROWS)
                fetched = self._fetch(wanted)
                is_last = len(fetched) < wanted
                chars += sum(len(row) for row in fetched if row is not None)
                rows += fetched
            self._run.rows += len(rows)
            self._run.read_s += time.perf_counter() - started
            if rows:
                yield first_row_id, rows, is_last
            first_row_id += len(rows)
            window_rows = min(window_rows * WINDOW_GROWTH, self._call.window_rows)

    def _not_asked_before(self, table: Table, asked: list[_Asked]) -> list[int]:
        """The unique rows that no earlier window asked about; the others get, or join those who wait for, an answer."""
        fresh: list[int] = []
        for u, (cells, new) in enumerate(zip(table.cells(), asked, strict=True)):
            key = blake2b("\n".join(cells).encode(errors="surrogatepass"), digest_size=16).digest()
            earlier = self._remembered.get(key)
            if earlier is None:
                self._remembered[key] = new
                fresh.append(u)
            elif earlier.completion is None:
                earlier.waiting += new.waiting
            else:
                self.ready.append((new.waiting, earlier.completion))
        while len(self._remembered) > REMEMBERED_ANSWERS:
            del self._remembered[next(iter(self._remembered))]
        return fresh

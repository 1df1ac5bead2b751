"""The whole road, top to bottom: rows in, one answer per row out.

    rows, window by window → Table → unique rows → Ordering → prompts → completions → answers per input row

In: a function that fetches rows, the prompt, the call's options and an engine. Out: answers in the order in which
the engine gives them. It knows neither PostgreSQL nor HTTP. Source of the idea: Liu et al., arXiv 2403.05821.
"""

from __future__ import annotations

import gc
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from pg_bridge.asking.prompt import First, Question, parse_question, render, resolve_columns
from pg_bridge.engine import Completion, Engine, Sampling, Usage
from pg_bridge.errors import RowError
from pg_bridge.options import Call
from pg_bridge.ordering import Sent, plan
from pg_bridge.rows.dedup import dedup
from pg_bridge.rows.table import Table

FIRST_WINDOW_ROWS = 1024
WINDOW_GROWTH = 16
WINDOW_CHARS = 32_000_000
REMEMBERED_ANSWERS = 100_000

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")

Fetch = Callable[[int], list[str | None]]
"""At most n more rows, each the text of a JSON object; an empty list at the end."""


class Answer(NamedTuple):
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

    def add(self, other: Run) -> None:
        """Count in what another run did."""
        for each in ("rows", "unique_prompts", "read_s", "plan_s", "return_s"):
            setattr(self, each, getattr(self, each) + getattr(other, each))
        self.usage.add(other.usage)

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
    sampling = sampling_of(call)
    prompts = _Prompts(fetch, question, sent_columns, call, run, engine.check_interrupts)
    return _answers(prompts, engine, sampling, call, run)


def sampling_of(call: Call) -> Sampling:
    """How the engine is to answer the prompts of a call."""
    return Sampling(call.max_tokens, call.temperature, call.system_prompt, call.choices, call.pattern, call.schema)


def _answers(prompts: _Prompts, engine: Engine, sampling: Sampling, call: Call, run: Run) -> Iterator[Answer]:
    run.usage = engine.usage
    try:
        for completion in engine.complete(iter(prompts), sampling):
            if completion is not None:
                prompts.complete(completion)
            returned = time.perf_counter()
            while prompts.ready:
                window, u, (text, error) = prompts.ready.popleft()
                for i in window.members[window.offsets[u] : window.offsets[u + 1]]:
                    row_id = window.first_row_id + i
                    if error is not None and call.on_error == "fail":
                        raise RowError(row_id, error)
                    yield Answer(row_id, window.rows[i], text, error)
            run.return_s += time.perf_counter() - returned
    finally:
        engine.close()


def storable(completion: Completion) -> tuple[str | None, str | None]:
    """(text, error); an answer that PostgreSQL could not hold is its row's failure."""
    text = completion.text or ""
    if "\0" not in text and (text.isascii() or not _HALF_CHARACTER.search(text)):
        return completion.text, completion.error
    return None, "the answer holds a character that PostgreSQL's text type cannot"


@dataclass(slots=True)
class _Window:
    """Rows planned together.

    Whole lists of numbers instead of an object a row: at a hundred thousand rows Python's garbage collector would
    otherwise take as long as the planner.

    Attributes:
        first_row_id: The row_id of `rows[0]`.
        rows: The rows as they came.
        is_last: Whether the row set ends here.
        offsets: Of unique row u's input rows in `members`: from `offsets[u]` to `offsets[u + 1]`.
        members: Places in `rows`.
        sent: The unique rows in the order in which their prompts are sent.
        first_index: The number of the first of these prompts in the whole run.
        awaited: Prompts not yet answered.
    """

    first_row_id: int
    rows: list[str | None]
    is_last: bool
    offsets: list[int] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    first_index: int = 0
    awaited: int = 0


class _Prompts:
    """Turns rows into prompts, window by window, and knows which rows wait for which answer."""

    def __init__(
        self,
        fetch: Fetch,
        question: Question,
        columns: Sequence[str],
        call: Call,
        run: Run,
        check_interrupts: Callable[[], None],
    ) -> None:
        self.ready: deque[tuple[_Window, int, tuple[str | None, str | None]]] = deque()
        self._fetch = fetch
        self._question = question
        self._columns = columns
        self._call = call
        self._run = run
        self._check_interrupts = check_interrupts
        self._in_flight: deque[_Window] = deque()
        self._index_of: dict[bytes, int] = {}  # digest of a row's cells → number of its prompt
        self._answers: dict[int, tuple[str | None, str | None]] = {}  # of the prompts in _index_of
        self._joined: dict[int, list[tuple[_Window, int]]] = {}  # rows of later windows that wait for a prompt
        self._sent = Sent()
        self._forgotten = 0  # prompts below this number are no longer in _index_of

    def __iter__(self) -> Iterator[str | None]:
        """Yield prompts in the order in which to send them; None where answers are ready without a question."""
        for window in self._windows():
            started = time.perf_counter()
            with collector_paused():
                prompts = self._planned(window)
            self._run.plan_s += time.perf_counter() - started
            if self.ready:
                yield None
            for prompt in prompts:
                self._run.unique_prompts += 1
                yield prompt

    def _planned(self, window: _Window) -> list[str]:
        """The prompts of a window's rows that no earlier window asked about, in the order in which to send them."""
        unique = dedup(Table.from_json(window.rows, self._columns), enabled=self._call.dedup)
        offsets, members = unique.fan_out()
        window.offsets, window.members = offsets.tolist(), members.tolist()
        table = unique.table
        fresh: Sequence[int] = range(table.rows)
        keys: list[bytes] = []
        if self._call.dedup and not (window.is_last and window.first_row_id == 1):
            keys = row_digests(table)
            fresh = self._not_asked_before(keys, window)
            if len(fresh) < table.rows:
                table = table.take(np.array(fresh, dtype=np.intp))
        only_window = window.is_last and window.first_row_id == 1
        ordering = plan(
            table,
            reorder=self._call.reorder,
            after=None if only_window else self._sent,
            check_interrupts=self._check_interrupts,
        )
        self._sent = ordering.sent or self._sent
        window.sent = [fresh[row] for row in ordering.row_order.tolist()]
        self._expect(window, keys)
        first: First = "row" if self._call.placement == "row first" else "question"
        return list(render(self._question, table, ordering, first=first))

    def complete(self, completion: Completion) -> None:
        """Make the rows that waited for a prompt ready."""
        index, answer = completion.index, storable(completion)
        for window in self._in_flight:  # one or two, the oldest first
            if index < window.first_index + len(window.sent):
                break
        self.ready.append((window, window.sent[index - window.first_index], answer))
        window.awaited -= 1
        if not window.awaited:
            self._in_flight.remove(window)
        if self._index_of and index >= self._forgotten:
            self._answers[index] = answer
        for later, u in self._joined.pop(index, ()):
            self.ready.append((later, u, answer))

    def _windows(self) -> Iterator[_Window]:
        """Read the rows in windows, the first small; see docs/decisions."""
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
                yield _Window(first_row_id, rows, is_last)
            first_row_id += len(rows)
            window_rows = min(window_rows * WINDOW_GROWTH, self._call.window_rows)

    def _not_asked_before(self, keys: list[bytes], window: _Window) -> list[int]:
        """The unique rows that no earlier window asked about; the others get, or join those who wait for, an answer."""
        fresh: list[int] = []
        for u, key in enumerate(keys):
            index = self._index_of.get(key)
            if index is None:
                fresh.append(u)
            elif index in self._answers:
                self.ready.append((window, u, self._answers[index]))
            else:
                self._joined.setdefault(index, []).append((window, u))
        return fresh

    def _expect(self, window: _Window, keys: list[bytes]) -> None:
        """Number the window's prompts, and remember them by their keys, if there are any."""
        before = self._in_flight[-1] if self._in_flight else None
        window.first_index = before.first_index + len(before.sent) if before else self._run.unique_prompts
        window.awaited = len(window.sent)
        if window.sent:
            self._in_flight.append(window)
        if keys:
            self._index_of.update((keys[u], index) for index, u in enumerate(window.sent, window.first_index))
            while len(self._index_of) > REMEMBERED_ANSWERS:
                index = self._index_of.pop(next(iter(self._index_of)))
                self._answers.pop(index, None)
                self._forgotten = index + 1


@contextmanager
def collector_paused() -> Iterator[None]:
    """Planning makes many objects and no cycles; looking for some would cost a quarter of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def row_digests(table: Table) -> list[bytes]:
    """A digest of each row's cells. PostgreSQL's text has no NUL, so joined cells cannot be taken for others."""
    return [
        blake2b("\0".join(cells).encode(errors="surrogatepass"), digest_size=16).digest() for cells in table.cells()
    ]

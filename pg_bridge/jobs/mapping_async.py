"""`map_rows_async`: the same as `map_rows`, for programs that run an asyncio loop.

In: as `map_rows`, and rows may be an asynchronous iterable. Out: answers, asynchronously. The engine has an event loop
of its own, which is driven in one thread of the run, only while an answer is awaited: no slow consumer is overrun.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Unpack

from pg_bridge.errors import Cancelled
from pg_bridge.jobs.mapping import Asked, MapOptions, OnRun, RowAnswer, ask, in_order
from pg_bridge.jobs.texts import Row, Rows, Texts, iterate
from pg_bridge.options import Server

_PULLED_S = 0.02  # answers that come in so short a time are handed to the loop together
_PULLED = 1024  # at most
_FETCHED_ROWS = 1024


async def map_rows_async(
    rows: Rows | AsyncIterable[Row],
    prompt: str,
    server: Server | str,
    *,
    ordered: bool = True,
    ledger: Path | str | None = None,
    on_run: OnRun | None = None,
    **options: Unpack[MapOptions],
) -> AsyncGenerator[RowAnswer, None]:
    """Ask one prompt about each row; arguments, answers and errors as for `map_rows`.

    Cancelling the task, or closing the generator, aborts what is in flight.

    Args:
        rows: As for `map_rows`, or an asynchronous iterable of mappings, which is read in the caller's loop.
        prompt: The question.
        server: The engine.
        ordered: Whether answers come in the rows' order.
        ledger: A folder where answers are kept; in use in one thread of a process at a time.
        on_run: Is given the figures of `llm.last_run()` at the end, in another thread.
        **options: As for `llm.map`.

    Yields:
        One answer for each row.
    """
    asked = Asked.check(prompt, server, options, None if ledger is None else Path(ledger))
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise Cancelled("the run was stopped")

    loop = asyncio.get_running_loop()

    def open_texts() -> Texts:
        return Texts(_read(rows, loop, stop) if isinstance(rows, AsyncIterable) else iterate(rows))

    answers = ask(asked, open_texts, on_run, check=check)
    answers = in_order(answers) if ordered else answers
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="pg_bridge-map") as thread:
        try:
            while pulled := await loop.run_in_executor(thread, _pull, answers):
                for answer in pulled:
                    yield answer
        finally:
            stop.set()
            closing = loop.run_in_executor(thread, _close, answers)
            await asyncio.shield(closing)


def _pull(answers: Generator[RowAnswer, None, None]) -> list[RowAnswer]:
    """The next answers: at least one, if any is left, and those that come soon after."""
    pulled: list[RowAnswer] = []
    until = 0.0
    for answer in answers:
        pulled.append(answer)
        until = until or time.monotonic() + _PULLED_S
        if len(pulled) == _PULLED or time.monotonic() > until:
            break
    return pulled


def _close(answers: Generator[RowAnswer, None, None]) -> None:
    with contextlib.suppress(Cancelled):
        answers.close()


def _read(rows: AsyncIterable[Row], loop: asyncio.AbstractEventLoop, stop: threading.Event) -> Iterator[Row]:
    """Read rows of the caller's loop from the run's thread, some at a time."""
    source = aiter(rows)
    while True:
        reading = asyncio.run_coroutine_threadsafe(_some(source), loop)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                some = reading.result(timeout=_PULLED_S)
                break
        else:
            reading.cancel()
            raise Cancelled("the run was stopped")
        yield from some
        if len(some) < _FETCHED_ROWS:
            return


async def _some(source: AsyncIterator[Row]) -> list[Row]:
    some: list[Row] = []
    async for row in source:
        some.append(row)
        if len(some) == _FETCHED_ROWS:
            break
    return some

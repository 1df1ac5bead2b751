"""An event loop that a PostgreSQL backend's main thread can drive by turns.

In: coroutines. Out: their results. Between turns the owner looks for PostgreSQL's interrupts; inside a turn
no code of PostgreSQL or of the consumer runs. It installs no signal handler, and its only thread, for names
that must be resolved, is born with every signal blocked: PostgreSQL's handlers must run in the main thread
alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import selectors
import signal
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pg_bridge.engine.client import DrivenClock

CLOSE_WITHIN_S = 0.2

_T = TypeVar("_T")


class _Watch(selectors.DefaultSelector):
    """Looks for what has come, and notes when there was nothing.

    A loop has nothing to do where it is ready to wait: then `idle` is called, and all has been read that had come.

    Args:
        idle: Called before the loop waits; it does not wait if that says so.

    Attributes:
        idle_s: Seconds for which the loop has waited.
        idle_at_s: When it last had nothing to do, by `time.monotonic`.
    """

    def __init__(self, idle: Callable[[], bool]) -> None:
        super().__init__()
        self.idle_s = 0.0
        self.idle_at_s = time.monotonic()
        self._idle = idle

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        since_s = self.idle_at_s = time.monotonic()
        if self._idle():
            return []
        ready = super().select(timeout)
        self.idle_at_s = time.monotonic()
        self.idle_s += self.idle_at_s - since_s
        return ready


class TurnLoop:
    """An event loop driven a turn at a time.

    Args:
        first_hops: A resolver thread is started only if any of these URLs' hosts is a name.
        clock: Started and stopped with every turn.
        waiting: Entered for every turn.
    """

    def __init__(self, first_hops: Iterable[str], clock: DrivenClock, waiting: AbstractContextManager[object]) -> None:
        self.clock = clock
        self._waiting = waiting
        self._watch = _Watch(self._end_if_idle)
        self._is_hurried = False
        self._loop = asyncio.SelectorEventLoop(self._watch)
        self._tasks: set[asyncio.Task[Any]] = set()  # the event loop itself holds tasks weakly
        if any(map(_has_name, first_hops)):
            self._loop.set_default_executor(_deaf_executor())

    @property
    def idle_s(self) -> float:
        """Driven seconds in which there was nothing to do but to wait."""
        return self._watch.idle_s

    @property
    def unread_s(self) -> float:
        """Seconds for which what is being read now may have lain here, for all that anybody looked."""
        return time.monotonic() - self._watch.idle_at_s

    def start(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start work; it goes on in the next turn, and its end ends the turn."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def turn(self, longest_s: float) -> None:
        """Drive the loop until some work ends, at most so long; with 0 until there is nothing to do but to wait."""
        self._is_hurried = longest_s <= 0
        stop = None if self._is_hurried else self._loop.call_later(longest_s, self._loop.stop)
        self.clock.start()
        try:
            with self._waiting:
                self._loop.run_forever()
        finally:
            self.clock.stop()
            if stop is not None:
                stop.cancel()

    def close(self, farewell: Coroutine[Any, Any, None]) -> None:
        """Cancel all work, do one last thing, and close; raises nothing and takes at most some 0.4 s."""
        self._is_hurried = False
        work = list(self._tasks)
        for task in work:
            task.remove_done_callback(self._forget)
            task.cancel()
        with contextlib.suppress(Exception):
            if work:
                self._loop.run_until_complete(asyncio.wait(work, timeout=CLOSE_WITHIN_S))
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(asyncio.wait_for(farewell, CLOSE_WITHIN_S))
        for task in work:
            if task.done() and not task.cancelled():
                task.exception()  # marks it as seen: nobody waits for it any more
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(self._hang_up())
        self._loop.close()

    async def _hang_up(self) -> None:
        """Close what is still open: over TLS a connection waits for the other side to say goodbye, for half a minute.

        Until then the engine would go on with what nobody waits for. Nobody else knows of all of these connections.
        """
        for transport in list(getattr(self._loop, "_transports", {}).values()):
            transport.abort()
        await asyncio.sleep(0)  # they close in the loop's next round

    def _end_if_idle(self) -> bool:
        if self._is_hurried:
            self._loop.stop()
        return self._is_hurried

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._loop.stop()


def _has_name(url: str) -> bool:
    try:
        ipaddress.ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return True
    return False


def _deaf_executor() -> ThreadPoolExecutor:
    """One thread that no signal is delivered to."""
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pg_bridge-resolver")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        executor.submit(int).result()  # starts the thread, which inherits the mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return executor

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
import signal
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pg_bridge.engine.client import DrivenClock

CLOSE_WITHIN_S = 0.2

_T = TypeVar("_T")


class TurnLoop:
    """An event loop driven a turn at a time.

    Args:
        endpoint: A resolver thread is started only if this URL's host is a name.
        clock: Started and stopped with every turn.
        waiting: Entered for every turn.
    """

    def __init__(self, endpoint: str, clock: DrivenClock, waiting: AbstractContextManager[object]) -> None:
        self.clock = clock
        self._waiting = waiting
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Any]] = set()  # the event loop itself holds tasks weakly
        if _has_name(endpoint):
            self._loop.set_default_executor(_deaf_executor())

    def start(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start work; it goes on in the next turn, and its end ends the turn."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def turn(self, longest_s: float) -> None:
        """Drive the loop until some work ends, at most so long; 0 drives one round."""
        if longest_s > 0:
            stop: asyncio.Handle = self._loop.call_later(longest_s, self._loop.stop)
        else:
            stop = self._loop.call_soon(self._loop.stop)
        self.clock.start()
        try:
            with self._waiting:
                self._loop.run_forever()
        finally:
            self.clock.stop()
            stop.cancel()

    def close(self, farewell: Coroutine[Any, Any, None]) -> None:
        """Cancel all work, do one last thing, and close; raises nothing and takes at most some 0.4 s."""
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
        self._loop.close()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._loop.stop()


def _has_name(endpoint: str) -> bool:
    try:
        ipaddress.ip_address(urlsplit(endpoint).hostname or "")
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

"""The engine's synchronous face: prompts are pulled from an iterator, completions come out of another.

In: a `Server`, an iterator of prompts, a `Sampling`. Out: completions in the order in which they are
answered, and a `Usage`. It pulls only what it has room for, so that a consumer who stops early has asked
little. It runs in the caller's thread (a PostgreSQL backend has only one that may be interrupted), and it
neither knows PostgreSQL nor reads a row: the caller's `check_interrupts` is called between turns and stops
the run by raising.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from pg_bridge.engine.client import Client, DrivenClock, Oversized
from pg_bridge.engine.failures import malformed, silent
from pg_bridge.engine.flight import Flight, Numbered, SamplingOf
from pg_bridge.engine.loop import TurnLoop
from pg_bridge.engine.metrics import TokenTally
from pg_bridge.engine.pace import Pace
from pg_bridge.engine.records import Completion, Sampling, Usage
from pg_bridge.options import Server

POLL_S = 0.02  # longest turn: an interrupt is seen this soon
SENDING_S = 0.002  # a request is on the wire by then, before the consumer takes its time over the answers at hand

_T = TypeVar("_T")


def _never() -> None:
    """No interrupts."""


class _Source:
    """Numbers the prompts as they are pulled."""

    def __init__(self, prompts: Iterator[str | None]) -> None:
        self._prompts = prompts
        self._index = 0
        self.paused = False  # the latest pull stopped at a None
        self.ended = False

    def pull(self, most: int) -> Numbered:
        """Pull at most so many prompts, fewer where they end or pause."""
        batch: Numbered = []
        self.paused = False
        while len(batch) < most:
            try:
                prompt = next(self._prompts)
            except StopIteration:
                self.ended = True
                break
            if prompt is None:
                self.paused = True
                break
            batch.append((self._index, prompt))
            self._index += 1
        return batch


class Engine:
    """One run's way to an engine. Not for use by several threads.

    Args:
        server: Where the engine is and how to talk to it.
        check_interrupts: Called at least every 20 ms while waiting; raises to stop the run.

    Attributes:
        usage: The engine's own figures of what this object asked it.
        check_interrupts: As given.
    """

    def __init__(self, server: Server, *, check_interrupts: Callable[[], None] = _never) -> None:
        self.usage = Usage()
        self._server = server
        self.check_interrupts = check_interrupts
        self._tally = TokenTally(self.usage)
        self._clock = DrivenClock()
        self._turns: TurnLoop | None = None
        self._client: Client | None = None
        self._has_batch_endpoint = True

    def complete(
        self, prompts: Iterator[str | None], sampling: Sampling | SamplingOf, *, eager: bool = False
    ) -> Iterator[Completion | None]:
        """Ask the engine about each prompt and yield its answers as they come.

        All are answered in one way, or each in the way that a function says of its index.

        Prompts are pulled while there is room: for at most `max_in_flight`, and at first for a few only, two
        more with each answer handed over, unless `eager` says that all answers will be taken. They are sent in the
        order pulled. What the iterator raises comes
        out of here unchanged. Closing the generator aborts what is in flight; after its end nothing is open.

        A None among the prompts is no prompt: it is handed over as None as soon as may be, so that a caller
        who learns an answer while its prompts are pulled can return it without waiting for the engine.

        Raises:
            EngineError: The run failed as a whole; see `pg_bridge.errors` for its kinds.
        """
        source = _Source(prompts)
        try:
            batch: Numbered = []
            while not batch and not source.ended:  # nothing is opened before there is a prompt
                batch = source.pull(Pace(self._server.max_in_flight, eager).batch_size)
                if source.paused:
                    yield None
            if batch:
                sampling_of = (lambda _: sampling) if isinstance(sampling, Sampling) else sampling
                yield from self._complete(batch, source, sampling_of, eager)
        finally:
            self.close()

    def _complete(
        self, first: Numbered, source: _Source, sampling_of: SamplingOf, eager: bool
    ) -> Iterator[Completion | None]:
        turns, client = self._opened()
        flight = Flight(
            self._server,
            client,
            turns,
            self._tally,
            sampling_of,
            has_batch_endpoint=self._has_batch_endpoint,
            eager=eager,
        )
        pace = flight.pace
        self._wait_for(flight.prepare(many=len(first) > 1 or not source.ended))
        flight.send(first)
        while True:
            # A batch is pulled and sent before the next answers are handed over: the engine works meanwhile.
            paused = sent = False
            while not source.ended and not paused and (room := pace.room(flight.in_flight, flight.landed_count)):
                batch = source.pull(room)
                paused = source.paused
                if batch:
                    flight.send(batch)
                    sent = True
            if not flight.in_flight and not flight.landed and not paused:
                break
            if flight.landed or paused:
                self._turn(SENDING_S if sent else 0)
            else:
                self._turn(POLL_S)
            if flight.failure is not None:
                raise flight.failure
            if flight.landed:
                for completion in flight.take():
                    pace.handed += 1
                    yield completion
            if paused:
                yield None
        self._has_batch_endpoint = flight.has_batch_endpoint
        if self._tally.wants_counters:
            self._wait_for(flight.settle())

    def fetch(self, path: str) -> tuple[int, str]:
        """Fetch one of the engine's pages, such as `/v1/models`; returns its status and its text.

        Raises:
            EngineUnreachable: No connection within `connect_timeout_s`.
            EngineTimeout: No answer within `request_timeout_s`.
            EngineError: The page is too large for one.
        """
        _, client = self._opened()
        try:
            status, page = self._wait_for(client.glance(path))
        except Oversized as error:
            raise malformed(self._server, str(error)) from None
        return status, page.decode(errors="replace")

    def close(self) -> None:
        """Abort what is in flight and let go of everything; may be called at any time, also twice."""
        turns, client = self._turns, self._client
        self._turns = self._client = None
        if turns is not None and client is not None:
            turns.close(client.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> tuple[TurnLoop, Client]:
        if self._turns is None or self._client is None:
            self._turns = TurnLoop(self._server.endpoint, self._clock)
            self._client = Client(self._server, self.usage, self._clock)
            self._wait_for(self._client.open())
        return self._turns, self._client

    def _wait_for(self, work: Coroutine[Any, Any, _T]) -> _T:
        assert self._turns is not None  # noqa: S101 - _opened() comes first; for the type checker
        task = self._turns.start(work)
        while not task.done():
            self._turn(POLL_S)
        return task.result()

    def _turn(self, longest_s: float) -> None:
        assert self._turns is not None  # noqa: S101 - as above
        assert self._client is not None  # noqa: S101 - as above
        self.check_interrupts()
        self._turns.turn(longest_s)
        self.usage.wait_s = self._clock.now_s()
        if self._client.silence_s > self._server.request_timeout_s:
            raise silent(self._server)

"""The engine's synchronous face: portions of prompts are pulled from an iterator, completions come out of another.

In: a `Server`, an iterator of portions, a `Sampling`. Out: completions in the order in which they are
answered, and a `Usage`. It pulls only what it has room for, so that a consumer who stops early has asked
little; for one who takes all, the next portion is made while the engine works on the last. It runs in the caller's
thread (a PostgreSQL backend has only one that may be interrupted), and it neither knows PostgreSQL nor reads a row: the
caller's `check_interrupts` is called between turns and stops the run by raising.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet

from pg_bridge.engine.client import LARGEST_PAGE_BYTES, Client, DrivenClock
from pg_bridge.engine.estimate import Estimate
from pg_bridge.engine.failures import Unreadable, malformed, silent
from pg_bridge.engine.flight import Flight, SamplingOf, pace_of
from pg_bridge.engine.gate import Gate, OpenGate
from pg_bridge.engine.loop import TurnLoop
from pg_bridge.engine.metrics import Tally
from pg_bridge.engine.models import find_model
from pg_bridge.engine.queue import PromptQueue
from pg_bridge.engine.records import Completion, Model, Numbered, Portion, Sampling, Usage
from pg_bridge.engine.stages import Traffic
from pg_bridge.engine.waiting import Acquaintance, Notice
from pg_bridge.options import Server

POLL_S = 0.02  # longest turn: an interrupt is seen this soon
SENDING_S = 0.002  # a request is on the wire by then, before the consumer takes its time over the answers at hand
WORK_EVERY_S = 0.002  # while prompts are made
LEAST_S = 0.001  # of a turn that only waits
PAGES_AT_ONCE = 16
AHEAD_PROMPTS = 4096  # an engine of a thousand prompts a second has enough of them for as long as planning takes

_NOTHING: AbstractContextManager[object] = nullcontext()

_T = TypeVar("_T")


def _never() -> None:
    """No interrupts."""


def _to_nobody(_: Notice) -> None:
    """Nobody is told."""


def _nowhere(_: int) -> bool:
    """No failure ends the run."""
    return False


class _OfThisThread(threading.local):
    """The engines whose runs are on; a run that asks may itself be waited for by another that made way for it."""

    def __init__(self) -> None:
        self.engines: WeakSet[Engine] = WeakSet()


_RUNNING = _OfThisThread()


class Engine:
    """One run's way to an engine. Not for use by several threads.

    Args:
        server: Where the engine is and how to talk to it.
        check_interrupts: Called at least every 20 ms while waiting; raises to stop the run.
        gate: Says how much of what could be sent may be, for the sake of others; without it all.
        waiting: Entered whenever the engine is waited for, and left before anything else is done.
        acquaintance: What is known of the engine from one run to the next.
        tell: Called where the user should know that the engine is waited for; must not raise.

    Attributes:
        usage: The engine's own figures of what this object asked it.
        check_interrupts: As given.
        watch: Called about as often, also while prompts are made; may be set at any time, and must not raise.
    """

    def __init__(
        self,
        server: Server,
        *,
        check_interrupts: Callable[[], None] = _never,
        gate: Gate | None = None,
        waiting: AbstractContextManager[object] = _NOTHING,
        acquaintance: Acquaintance | None = None,
        tell: Callable[[Notice], None] = _to_nobody,
    ) -> None:
        self.usage = Usage()
        self.watch: Callable[[], None] = _never
        self._server = server
        self.check_interrupts = check_interrupts
        self._waiting = waiting
        self._tally = Tally(self.usage)
        self._clock = DrivenClock()
        self._idle_s = 0.0  # of turns that are over
        self._turns: TurnLoop | None = None
        self._client: Client | None = None
        self._gate = gate or OpenGate()
        self._estimate = Estimate()
        self._ask_gate_at = 0.0
        self._has_batch_endpoint = True
        self._source: PromptQueue | None = None
        self._flight: Flight | None = None  # of the run that is on
        self._landed: Callable[[list[Completion]], None] | None = None  # as above
        self._model: Model | None = None
        self._acquaintance = acquaintance or Acquaintance()
        self._tell = tell
        self._next_work = 0.0

    def complete(
        self, prompts: Iterator[str], sampling: Sampling | SamplingOf, *, eager: bool = False
    ) -> Iterator[Completion]:
        """Ask the engine about prompts that are there, or soon made; as `complete_portions` does."""
        with closing(self.complete_portions(iter([Portion(prompts)]), sampling, eager=eager)) as answers:
            yield from (answer for answer in answers if answer is not None)

    def complete_portions(
        self,
        portions: Iterator[Portion],
        sampling: Sampling | SamplingOf,
        *,
        eager: bool = False,
        landed: Callable[[list[Completion]], None] | None = None,
        ends_run: Callable[[int], bool] = _nowhere,
    ) -> Generator[Completion | None, None, None]:
        """Ask the engine about each prompt and yield its answers as they come.

        All are answered in one way, or each in the way that a function says of its index.

        Prompts are pulled while there is room: for at most `max_in_flight`, and at first for a few only, two
        more with each answer handed over, unless `eager` says that all answers will be taken: then the next portion is
        made as soon as few prompts wait, and who makes it calls `work` now and then, so that the engine does not starve
        meanwhile. They are sent in the order pulled. What an iterator raises comes
        out of here unchanged. Closing the generator aborts what is in flight; after its end nothing is open.

        After each portion that was made a None is handed over, so that a caller who learns an answer while prompts are
        made can return it without waiting for the engine.

        Before answers are handed over, `landed` is told all that have come since it last was, if any have.

        Whoever says by `ends_run` that a run ends if the prompt of an index fails, ends it when that failure is handed
        over; nothing is sent from the moment when it is likely.

        Raises:
            EngineError: The run failed as a whole; see `pg_bridge.errors` for its kinds.
        """
        self._source = source = PromptQueue(portions, self._server.ranks)
        self._landed = landed
        try:
            size, idle = pace_of(self._server, eager).request_size, [0] * self._server.ranks
            batch: Numbered = []
            while not batch and not (source.ended and source.is_dry):  # nothing is opened before there is a prompt
                if source.is_ready(size, eager):
                    _, batch = source.pull(size, idle)
                else:
                    source.make_more()
                    yield None
            if len(batch) == 1 and not (source.ended or source.is_ahead):  # whether it is all decides what is asked for
                source.make_more()
                yield None
                batch += source.pull(size - 1, idle)[1]
            if batch:
                sampling_of = (lambda _: sampling) if isinstance(sampling, Sampling) else sampling
                yield from self._complete(batch, source, sampling_of, ends_run, eager)
        finally:
            self.close()

    def _complete(
        self,
        first: Numbered,
        source: PromptQueue,
        sampling_of: SamplingOf,
        ends_run: Callable[[int], bool],
        eager: bool,
    ) -> Iterator[Completion | None]:
        turns, client = self._open()
        flight = Flight(
            self._server,
            client,
            turns,
            self._tally,
            Traffic(self.usage),
            sampling_of,
            self._gate,
            self._estimate,
            self._acquaintance,
            has_batch_endpoint=self._has_batch_endpoint,
            ends_run=ends_run,
            eager=eager,
            model=self._model,
        )
        self._wait_for(flight.prepare(many=len(first) > 1))
        self._flight = flight
        self._ask_gate_at = 0.0
        _RUNNING.engines.add(self)
        source.put_back(first)
        while True:
            # Prompts are sent, and then made, before the next answers are handed over: the engine works meanwhile.
            sent = self._send_more()
            made = False
            while self._wants_more():
                self._turn(SENDING_S if sent else 0)
                source.make_more()
                made = True
                sent = self._send_more()
                if not eager or source.is_ahead or source.waiting >= flight.pace.request_size:
                    break
            if not made and not flight.in_flight and not flight.landed and not source.is_stopped:
                break
            if flight.landed or made:
                self._turn(SENDING_S if sent else 0)
            else:
                self._turn(self._until_next_look())
            if not (eager and flight.landed) or source.is_dry:  # else more is asked for at once, which tells it, too
                self._gate.tend()
            if flight.landed:
                self._ask_gate_at = 0.0  # what made room may be ours
            # All that has landed, if more was made meanwhile: rows that wait for an answer are held as long as they do.
            for _ in range(len(flight.landed) if made else min(1, len(flight.landed))):
                for completion in flight.take():
                    flight.pace.handed += 1
                    yield completion
            if made:
                yield None
        self._has_batch_endpoint = flight.has_batch_endpoint
        if self._tally.wants_counters:
            self._wait_for(flight.settle())

    @property
    def server_name(self) -> str:
        """The name of the server."""
        return self._server.name

    @property
    def in_flight(self) -> int:
        """Prompts that the engine has been sent and has not answered."""
        return self._flight.in_flight if self._flight is not None else 0

    @property
    def left(self) -> int | None:
        """Prompts that have no answer yet; None while more of them may be made."""
        if self._source is None:
            return 0
        return self._source.waiting + self.in_flight if self._source.ended else None

    def work(self) -> None:
        """Send what waits and receive what has come; for who makes prompts, or rows, while the engine waits for them.

        Costs next to nothing where it is called often.
        """
        now = time.perf_counter()
        if now < self._next_work:
            return
        if self._flight is None:
            self.check_interrupts()
            self.watch()
        else:
            self._turn(SENDING_S if self._send_more() else 0)
            self._gate.tend()
        self._next_work = time.perf_counter() + WORK_EVERY_S

    def _send_more(self) -> bool:
        """Put prompts that wait in flight while there is room; whether there were any."""
        flight, source = self._flight, self._source
        assert flight is not None  # noqa: S101 - a run is on; for the type checker
        assert source is not None  # noqa: S101 - as above
        sent = False
        while room := flight.room():
            if not source.is_ready(room, flight.pace.eager) or time.perf_counter() < self._ask_gate_at:
                break
            rank, batch = source.pull(room, flight.in_flight_of)
            if batch:
                requests, tokens_each = flight.cost(batch)
                granted, wait_s = self._gate.take(len(batch), requests, tokens_each)
                if granted:
                    flight.send(batch[:granted], tokens_each, rank)
                    sent = True
                if granted < len(batch):
                    source.put_back(batch[granted:], rank)
                    self._ask_gate_at = time.perf_counter() + wait_s
        if source.is_stopped and not flight.in_flight:
            self._let_others_land()
        return sent

    def _until_next_look(self) -> float:
        """Seconds for which there is nothing to do but to wait, at most a turn's."""
        assert self._source is not None  # noqa: S101 - as below
        wait_s = self._ask_gate_at - time.perf_counter() if self._source.is_stopped else POLL_S
        return min(max(wait_s, LEAST_S), POLL_S)

    def _let_others_land(self) -> None:
        """Receive what has come for the other runs of this thread, which hold what this one needs and stand still."""
        for other in list(_RUNNING.engines):
            if other is not self and other._turns is not None and other._flight is not None:
                other._turns.turn(0)
                other._gate.tend()

    def _wants_more(self) -> bool:
        """Whether it is time to make the next portion."""
        flight, source = self._flight, self._source
        assert flight is not None  # noqa: S101 - as above
        assert source is not None  # noqa: S101 - as above
        if source.ended:
            return False
        if flight.pace.eager:
            return source.is_ahead or source.waiting < AHEAD_PROMPTS
        return source.is_dry and flight.room() > 0

    def find_model(self) -> Model:
        """Which model the server's prompts will go to, asked of the engine once.

        Raises:
            EngineError: As `complete` does; an engine that lists no models is not asked which of that name it is.
        """
        if self._model is None:
            _, client = self._open()
            self._model = self._wait_for(find_model(self._server, client, self._acquaintance))
        return self._model

    def fetch(self, path: str) -> tuple[int, str]:
        """Fetch one of the engine's pages, such as `/v1/models`; returns its status and its text.

        Raises:
            EngineUnreachable: No connection within `connect_timeout_s`.
            EngineTimeout: No answer within `request_timeout_s`.
            EngineError: The page is too large for one.
        """
        _, client = self._open()
        try:
            status, page = self._wait_for(client.glance(path))
        except Unreadable as error:
            raise malformed(self._server, error) from None
        return status, page.decode(errors="replace")

    def fetch_each(self, path: str, bodies: Sequence[bytes]) -> list[tuple[int, bytes]]:
        """Fetch a page about each of some bodies, none of which has the model answer anything.

        Returns:
            The status and the bytes of each.

        Raises:
            EngineUnreachable: No connection within `connect_timeout_s`.
            EngineTimeout: No answer within `request_timeout_s`.
            EngineError: A page is too large for one.
        """
        _, client = self._open()

        async def some(part: Sequence[bytes]) -> list[tuple[int, bytes]]:
            return await asyncio.gather(
                *(client.glance(path, body, LARGEST_PAGE_BYTES + 16 * len(body)) for body in part)
            )

        try:
            return [
                page
                for start in range(0, len(bodies), PAGES_AT_ONCE)
                for page in self._wait_for(some(bodies[start : start + PAGES_AT_ONCE]))
            ]
        except Unreadable as error:
            raise malformed(self._server, error) from None

    def close(self) -> None:
        """Abort what is in flight and let go of everything; may be called at any time, also twice."""
        turns, client = self._turns, self._client
        self._turns = self._client = self._flight = self._source = self._landed = None
        _RUNNING.engines.discard(self)
        if turns is not None and client is not None:
            turns.close(client.close())
            self._idle_s = self.usage.idle_s
            self._gate.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> tuple[TurnLoop, Client]:
        if self._turns is None or self._client is None:
            self._turns = TurnLoop(self._server.first_hop, self._clock, self._waiting)
            self._client = Client(self._server, self.usage, self._clock, self._gate, self._acquaintance)
            self._wait_for(self._client.open())
        return self._turns, self._client

    def _wait_for(self, work: Coroutine[Any, Any, _T]) -> _T:
        assert self._turns is not None  # noqa: S101 - _open() comes first; for the type checker
        task = self._turns.start(work)
        while not task.done():
            self._turn(POLL_S)
        return task.result()

    def _turn(self, longest_s: float) -> None:
        assert self._turns is not None  # noqa: S101 - as above
        assert self._client is not None  # noqa: S101 - as above
        self.check_interrupts()
        self.watch()
        self._turns.turn(longest_s)
        self.usage.wait_s = self._clock.now_s()
        self.usage.idle_s = self._idle_s + self._turns.idle_s
        if (notice := self._client.waiting.take_notice()) is not None:
            self._tell(notice)
        if self._client.silence_s > self._server.request_timeout_s:
            raise silent(self._server)
        if self._flight is not None:
            fresh, self._flight.fresh = self._flight.fresh, []
            if fresh and self._landed is not None:
                self._landed(fresh)
            if self._flight.failure is not None:
                raise self._flight.failure

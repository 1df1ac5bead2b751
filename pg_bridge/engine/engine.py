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
from pg_bridge.engine.failures import Notice, Unreadable, malformed, silent
from pg_bridge.engine.fleet import Fleet, Member
from pg_bridge.engine.flight import Flight, Landing, SamplingOf, pace_of
from pg_bridge.engine.gate import Gate, OpenGate
from pg_bridge.engine.loop import TurnLoop
from pg_bridge.engine.models import find_model
from pg_bridge.engine.queue import PromptQueue
from pg_bridge.engine.records import Completion, Model, Numbered, Portion, Sampling, Usage
from pg_bridge.engine.replicas import Replica, ask_any, replicas_of
from pg_bridge.engine.stages import Traffic
from pg_bridge.engine.waiting import Acquaintance
from pg_bridge.options import Server

POLL_S = 0.02  # longest turn: an interrupt is seen this soon
SENDING_S = 0.002  # a request is on the wire by then, before the consumer takes its time over the answers at hand
WORK_EVERY_S = 0.002  # while prompts are made
LEAST_S = 0.001  # of a turn that only waits
PAGES_AT_ONCE = 16
AHEAD_PROMPTS = 4096  # an engine of a thousand prompts a second has enough of them for as long as planning takes
MOST_AHEAD = 4  # engines for each of which so many are made ahead

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
    """One run's way to an engine, or to several that serve the same model. Not for use by several threads.

    Args:
        server: Where they are and how to talk to them.
        check_interrupts: Called at least every 20 ms while waiting; raises to stop the run.
        gate: Says how much of what could be sent may be, for the sake of others; without it all.
        waiting: Entered whenever the engine is waited for, and left before anything else is done.
        acquaintance: What is known of the engines from one run to the next.
        tell: Called where the user should know that the engine is waited for; must not raise.

    Attributes:
        usage: The engine's own figures of what this object asked it; of several, the sums.
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
        self._clock = DrivenClock()
        self._idle_s = 0.0  # of turns that are over
        self._turns: TurnLoop | None = None
        self._gate = gate or OpenGate()
        self._estimate = Estimate()
        self._ask_gate_at = 0.0
        self._source: PromptQueue | None = None
        self._fleet: Fleet | None = None  # of the run that is on
        self._landing = Landing()  # as above
        self._landed: Callable[[list[Completion]], None] | None = None  # as above
        self._model: Model | None = None
        self._tell = tell
        self._replicas = replicas_of(server, self.usage, self._gate, acquaintance or Acquaintance())
        self._crowd = self.usage if len(self._replicas) == 1 else Usage()  # when prompts were with any of several
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
        lanes, lane = range(self._server.ranks * len(self._replicas)), 0
        self._source = source = PromptQueue(portions, len(lanes))
        self._landed = landed
        try:
            size = pace_of(self._server, eager).request_size
            batch: Numbered = []
            while not batch and not (source.ended and source.is_dry):  # nothing is opened before there is a prompt
                if source.is_ready(size, eager):
                    lane, batch = source.pull(size, lanes)
                else:
                    source.make_more()
                    yield None
            if len(batch) == 1 and not (source.ended or source.is_ahead):  # whether it is all decides what is asked for
                source.make_more()
                yield None
                batch += source.pull(size - 1, (lane,))[1]
            if batch:
                sampling_of = (lambda _: sampling) if isinstance(sampling, Sampling) else sampling
                source.put_back(batch, lane)
                yield from self._complete(len(batch) > 1, source, sampling_of, ends_run, eager)
        finally:
            self.close()

    def _complete(
        self,
        many: bool,
        source: PromptQueue,
        sampling_of: SamplingOf,
        ends_run: Callable[[int], bool],
        eager: bool,
    ) -> Iterator[Completion | None]:
        turns = self._open()

        def flight_of(replica: Replica, traffic: Traffic) -> Flight:
            return Flight(
                replica.server,
                replica.client,
                turns,
                replica.tally,
                traffic,
                sampling_of,
                replica.gate,
                self._estimate,
                replica.acquaintance,
                has_batch_endpoint=replica.has_batch_endpoint,
                ends_run=ends_run,
                landing=landing,
                eager=eager,
                model=replica.model,
                has_others=replica.has_others,
            )

        self._landing = landing = Landing()
        traffic = Traffic(self._crowd)
        fleet = Fleet(
            self._server,
            self._replicas,
            flight_of,
            turns,
            source,
            landing,
            traffic,
            self._gate,
            self._tell,
            eager=eager,
        )
        self._fleet = fleet
        self._wait_for(fleet.prepare(many=many))
        self._ask_gate_at = 0.0
        _RUNNING.engines.add(self)
        while True:
            # Prompts are sent, and then made, before the next answers are handed over: the engine works meanwhile.
            sent = self._send_more()
            made = False
            while self._wants_more():
                self._turn(SENDING_S if sent else 0)
                source.make_more()
                made = True
                sent = self._send_more()
                if not eager or source.is_ahead or source.waiting >= fleet.request_size:
                    break
            if not made and not fleet.in_flight and not landing.landed and source.is_dry:
                break
            if landing.landed or (made and not source.awaits_answers):
                self._turn(SENDING_S if sent else 0)
            else:
                self._turn(self._until_next_look())
            if not (eager and landing.landed) or source.is_dry:  # else more is asked for at once, which tells it, too
                self._gate.tend()
            if landing.landed:
                self._ask_gate_at = 0.0  # what made room may be ours
            # All that has landed, if more was made meanwhile: rows that wait for an answer are held as long as they do.
            for _ in range(len(landing.landed) if made else min(1, len(landing.landed))):
                for completion in landing.take():
                    fleet.handed += 1
                    yield completion
            if made:
                yield None
        fleet.keep()
        if any(replica.tally.wants_counters for replica in self._replicas):
            self._wait_for(fleet.settle())

    @property
    def server_name(self) -> str:
        """The name of the server."""
        return self._server.name

    @property
    def in_flight(self) -> int:
        """Prompts that the engine has been sent and has not answered."""
        return self._fleet.in_flight if self._fleet is not None else 0

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
        if self._fleet is None:
            self.check_interrupts()
            self.watch()
        else:
            self._turn(SENDING_S if self._send_more() else 0)
            self._gate.tend()
        self._next_work = time.perf_counter() + WORK_EVERY_S

    def _send_more(self) -> bool:
        """Put prompts that wait in flight while there is room; whether there were any."""
        fleet, source = self._fleet, self._source
        assert fleet is not None  # noqa: S101 - a run is on; for the type checker
        assert source is not None  # noqa: S101 - as above
        sent, more = False, True
        while more:
            more = False
            for member in fleet.members_by_load():
                while self._send_to(member, fleet, source):
                    sent = True
                    if not fleet.eager:  # little is asked for: each has its part of it
                        more = True
                        break
        if source.is_stopped and not fleet.in_flight:
            self._let_others_land()
        return sent

    def _send_to(self, member: Member, fleet: Fleet, source: PromptQueue) -> bool:
        """Put a request in flight to an engine, if it has room; whether it had."""
        room = fleet.room(member)
        if not room or not source.is_ready(room, fleet.eager) or time.perf_counter() < self._ask_gate_at:
            return False
        lane, batch = source.pull(room, member.lanes_by_load())
        if not batch:
            return False
        requests, tokens_each = member.flight.cost(batch)
        granted, wait_s = self._gate.take(len(batch), requests, tokens_each)
        if granted:
            member.send(batch[:granted], tokens_each, lane)
        if granted < len(batch):
            source.put_back(batch[granted:], lane)
            self._ask_gate_at = time.perf_counter() + wait_s
        return granted > 0

    def _until_next_look(self) -> float:
        """Seconds for which there is nothing to do but to wait, at most a turn's."""
        assert self._source is not None  # noqa: S101 - as below
        wait_s = self._ask_gate_at - time.perf_counter() if self._source.is_stopped else POLL_S
        return min(max(wait_s, LEAST_S), POLL_S)

    def _let_others_land(self) -> None:
        """Receive what has come for the other runs of this thread, which hold what this one needs and stand still."""
        for other in list(_RUNNING.engines):
            if other is not self and other._turns is not None and other._fleet is not None:
                other._turns.turn(0)
                other._gate.tend()

    def _wants_more(self) -> bool:
        """Whether it is time to make the next portion."""
        fleet, source = self._fleet, self._source
        assert fleet is not None  # noqa: S101 - as above
        assert source is not None  # noqa: S101 - as above
        if source.ended:
            return False
        if fleet.eager:
            return source.is_ahead or source.waiting < AHEAD_PROMPTS * min(len(self._replicas), MOST_AHEAD)
        return source.is_dry and fleet.has_room

    def find_model(self) -> Model:
        """Which model the server's prompts will go to, asked of the engine once; of several, the first that answers.

        Raises:
            EngineError: As `complete` does; an engine that lists no models is not asked which of that name it is.
        """
        if self._model is None:
            self._model = self._ask_any(self._find_model_of)
        return self._model

    async def _find_model_of(self, replica: Replica) -> Model:
        replica.model = await find_model(replica.server, replica.client, replica.acquaintance)
        return replica.model

    def _ask_any(self, ask: Callable[[Replica], Coroutine[Any, Any, _T]]) -> _T:
        """Ask the first engine that answers."""
        self._open()
        return self._wait_for(ask_any(self._server, self._replicas, ask))

    def fetch(self, path: str) -> tuple[int, str]:
        """Fetch one of the engine's pages, such as `/v1/models`; returns its status and its text.

        Of several engines the first that answers is asked.

        Raises:
            EngineUnreachable: No connection within `connect_timeout_s`.
            EngineTimeout: No answer within `request_timeout_s`.
            EngineError: The page is too large for one.
        """
        try:
            status, page = self._ask_any(lambda replica: replica.client.glance(path))
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

        async def some(client: Client, part: Sequence[bytes]) -> list[tuple[int, bytes]]:
            return await asyncio.gather(
                *(client.glance(path, body, LARGEST_PAGE_BYTES + 16 * len(body)) for body in part)
            )

        async def all_of(replica: Replica) -> list[tuple[int, bytes]]:
            starts = range(0, len(bodies), PAGES_AT_ONCE)
            parts = [await some(replica.client, bodies[start : start + PAGES_AT_ONCE]) for start in starts]
            return [page for part in parts for page in part]

        try:
            return self._ask_any(all_of)
        except Unreadable as error:
            raise malformed(self._server, error) from None

    def close(self) -> None:
        """Abort what is in flight and let go of everything; may be called at any time, also twice."""
        turns = self._turns
        self._turns = self._fleet = self._source = self._landed = None
        _RUNNING.engines.discard(self)
        if turns is not None:
            turns.close(self._disconnect())
            self._idle_s = self.usage.idle_s
            self._gate.leave()

    async def _disconnect(self) -> None:
        await asyncio.gather(*(replica.disconnect() for replica in self._replicas))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> TurnLoop:
        if self._turns is None:
            self._turns = TurnLoop([each.server.first_hop for each in self._replicas], self._clock, self._waiting)
            for replica in self._replicas:
                self._wait_for(replica.connect(self._clock).open())
        return self._turns

    def _wait_for(self, work: Coroutine[Any, Any, _T]) -> _T:
        assert self._turns is not None  # noqa: S101 - _open() comes first; for the type checker
        task = self._turns.start(work)
        while not task.done():
            self._turn(POLL_S)
        return task.result()

    def _turn(self, longest_s: float) -> None:
        assert self._turns is not None  # noqa: S101 - as above
        self.check_interrupts()
        self.watch()
        self._turns.turn(longest_s)
        if self._crowd is not self.usage:
            self.usage.sum_up(self._crowd)
        self.usage.wait_s = self._clock.now_s()
        self.usage.idle_s = self._idle_s + self._turns.idle_s
        for replica in self._replicas:
            if (notice := replica.take_notice()) is not None:
                self._tell(notice)
        if self._fleet is not None:
            fresh, self._landing.fresh = self._landing.fresh, []
            if fresh and self._landed is not None:
                self._landed(fresh)
            self._fleet.mend()
        elif len(self._replicas) == 1 and self._replicas[0].silence_s > self._server.request_timeout_s:
            raise silent(self._server)  # of several, each that is silent is done without

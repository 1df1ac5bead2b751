"""The engines of a server in one run: where there is room, and who goes on where one is gone.

In: a flight for each engine. Out: lanes that prompts may be sent in. An engine that fails in a way that may pass is
left out: what waits for it and what it has not answered goes to the others, and it is tried again after a while. One
that fails otherwise, or refuses what any would, ends the run. Where none is left they are waited for as a single one
is.

With one engine nothing of this happens: its failure is the run's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from pg_bridge.engine.failures import (
    Notice,
    all_gone,
    all_waited_for,
    different_models,
    left_out,
    refused_run,
    silent,
    unknown_model,
)
from pg_bridge.engine.flight import Flight, Landing
from pg_bridge.engine.gate import Gate
from pg_bridge.engine.loop import TurnLoop
from pg_bridge.engine.models import list_models
from pg_bridge.engine.queue import PromptQueue
from pg_bridge.engine.records import Model, Numbered
from pg_bridge.engine.refusal import RETRIED_STATUSES, Refused
from pg_bridge.engine.replicas import WAITED_FOR, Replica, may_pass
from pg_bridge.engine.stages import Traffic
from pg_bridge.engine.waiting import NOTICE_AFTER_S, patience_of
from pg_bridge.errors import EngineError, EngineOverloaded
from pg_bridge.options import Server

JOIN_WITHIN_S = 0.25  # of the first, so that the others have their runs from the beginning
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 30.0
MOST_HANDED_OVER = 4  # times that a question is handed on whose engine has failed before it has answered

FlightOf = Callable[[Replica, Traffic], Flight]


class Member:
    """One engine of a run.

    Args:
        replica: The engine.
        flight: Its requests.
        lanes: Which are its own: one for each of its ranks.

    Attributes:
        is_there: Whether it is sent prompts.
        error: What it has failed by since it last answered; None if it has not.
        failures: How often it has failed since it last answered.
        joining: Finds out whether it is there.
    """

    def __init__(self, replica: Replica, flight: Flight, lanes: range) -> None:
        self.replica = replica
        self.flight = flight
        self.lanes = lanes
        self.is_there = False
        self.error: EngineError | None = None
        self.failures = 0
        self.joining: asyncio.Task[None] | None = None

    @property
    def has_answered(self) -> bool:
        """Whether it has answered anything since it was last sent prompts."""
        return self.flight.pace.per_s is not None

    def lanes_by_load(self) -> Sequence[int]:
        """Its lanes, the one with the fewest prompts in flight first."""
        if len(self.lanes) == 1:
            return self.lanes
        return sorted(self.lanes, key=lambda lane: self.flight.in_flight_of[lane - self.lanes.start])

    def send(self, prompts: Numbered, tokens_each: int, lane: int) -> None:
        """Put prompts in flight."""
        self.flight.send(prompts, tokens_each, lane - self.lanes.start)


class Fleet:
    """The engines of one call of `Engine.complete`.

    Args:
        server: The server.
        replicas: Its engines.
        flight_of: Makes a flight of one.
        turns: The loop that they run in.
        source: Is told which lanes are there.
        landing: Where all of their answers go.
        traffic: Of all of them together; where there is one, its own.
        gate: Is told of prompts that are in flight no longer.
        tell: As for `Engine`.
        eager: As for `Pace`.

    Attributes:
        handed: Answers that the consumer has taken.
    """

    def __init__(
        self,
        server: Server,
        replicas: Sequence[Replica],
        flight_of: FlightOf,
        turns: TurnLoop,
        source: PromptQueue,
        landing: Landing,
        traffic: Traffic,
        gate: Gate,
        tell: Callable[[Notice], None],
        *,
        eager: bool,
    ) -> None:
        self.handed = 0
        self.eager = eager
        self._server = server
        self._flight_of = flight_of
        self._turns = turns
        self._source = source
        self._landing = landing
        self._traffic = traffic
        self._gate = gate
        self._tell = tell
        self._is_many = False
        self._gone_since_s: float | None = None
        self._has_told = False  # that all are waited for
        self._handed_over: Counter[int] = Counter()
        self._model: Model | None = None  # the first that any of several serves
        self._members = [
            Member(replica, self._new_flight(replica), range(number * server.ranks, (number + 1) * server.ranks))
            for number, replica in enumerate(replicas)
        ]

    @property
    def _is_one(self) -> bool:
        return len(self._members) == 1

    @property
    def in_flight(self) -> int:
        """Prompts sent and not landed."""
        return self._traffic.in_flight

    @property
    def request_size(self) -> int:
        """Prompts of the next request."""
        return max(member.flight.pace.request_size for member in self._members)

    async def prepare(self, *, many: bool) -> None:
        """Learn what engines are there; returns soon after the first is.

        Raises:
            EngineError: None is.
        """
        self._is_many = many
        if self._is_one:
            await self._members[0].flight.prepare(many=many)
            self._members[0].is_there = True
            return
        for member in self._members:
            member.joining = self._turns.start(self._join(member))
        joining = {member.joining for member in self._members if member.joining is not None}
        while joining and not any(member.is_there for member in self._members):
            _, joining = await asyncio.wait(joining, return_when=asyncio.FIRST_COMPLETED)
        if joining:
            await asyncio.wait(joining, timeout=JOIN_WITHIN_S)
        for member in self._members:
            if not member.is_there:
                self._close(member, [])

    def members_by_load(self) -> Iterable[Member]:
        """Those that are there, the one with the fewest prompts in flight first."""
        if self._is_one:
            return self._members
        if any(member.flight.is_suspicious for member in self._members):
            return ()
        there = [member for member in self._members if member.is_there and member.replica.gate.shut_s() <= 0]
        return sorted(there, key=lambda member: member.flight.in_flight)

    def room(self, member: Member) -> int:
        """Prompts to send to an engine now."""
        member.flight.pace.handed = self.handed
        if self._is_one:
            return member.flight.room()
        room = member.flight.room(self.in_flight - member.flight.in_flight)
        left = self._server.most_in_flight - self.in_flight
        return room if room <= left or not self.in_flight else 0

    @property
    def has_room(self) -> bool:
        """Whether prompts could be sent now."""
        return any(self.room(member) > 0 for member in self.members_by_load())

    def mend(self) -> None:
        """See to what has failed.

        Raises:
            EngineError: It has failed the run.
        """
        for member in self._members:
            flight = member.flight
            if flight.failure is None and member.replica.silence_s > self._server.request_timeout_s:
                flight.failure = silent(member.replica.server)
            if flight.failure is None:
                if member.error is not None and member.is_there and member.has_answered:
                    member.error, member.failures, self._gone_since_s = None, 0, None
                continue
            failure: BaseException = flight.failure
            if self._is_one or not may_pass(failure):
                raise failure
            self._leave_out(member, failure)
        if not self._is_one and all(member.error is not None for member in self._members):
            self._wait_for_any()

    async def settle(self) -> None:
        """Learn from the engines' counters what answers do not tell."""
        telling = [each for each in self._members if each.is_there and each.replica.tally.wants_counters]
        await asyncio.gather(*(member.flight.settle() for member in telling))

    def keep(self) -> None:
        """Keep for the next call what was noticed in this one."""
        for member in self._members:
            member.replica.has_batch_endpoint = member.flight.has_batch_endpoint

    def _new_flight(self, replica: Replica) -> Flight:
        if not replica.has_others:
            return self._flight_of(replica, self._traffic)
        return self._flight_of(replica, Traffic(replica.usage, beside=self._traffic))

    async def _join(self, member: Member) -> None:
        flight = member.flight
        try:
            if member.error is not None:
                await _see_that_it_is_there(member.replica)
            await _see_that_it_serves_the_model(member.replica)
            await flight.prepare(many=self._is_many)
            self._see_that_models_agree(member)
        except Exception as error:
            flight.failure = error
        else:
            member.is_there = True
            for lane in member.lanes:
                self._source.open(lane)

    async def _join_again(self, member: Member) -> None:
        await asyncio.sleep(min(FIRST_RETRY_S * 2 ** (member.failures - 1), LONGEST_RETRY_S))
        member.replica.client.waiting.hear()  # what it was waited for before is over
        member.flight = self._new_flight(member.replica)
        await self._join(member)

    def _see_that_models_agree(self, member: Member) -> None:
        model = member.flight.model
        self._model = self._model or model
        if model is not None and self._model is not None and model.name != self._model.name:
            raise different_models(self._server, [(each.replica.server, each.flight.model) for each in self._members])

    def _leave_out(self, member: Member, error: EngineError) -> None:
        """Hand what an engine had to the others, and try it again later."""
        member.failures = 1 if member.has_answered else member.failures + 1
        is_news = member.error is None
        member.is_there, member.error = False, error
        unanswered = member.flight.abandon()
        member.replica.has_batch_endpoint = member.flight.has_batch_endpoint
        member.flight.failure = None
        self._gate.give_back(len(unanswered))
        if not isinstance(error, EngineOverloaded):
            self._handed_over.update(index for index, _ in unanswered)
            if any(self._handed_over[index] > MOST_HANDED_OVER for index, _ in unanswered):
                raise error  # some question is more than any of them can stand
        self._close(member, unanswered)
        if is_news and not all(each.error is not None for each in self._members):
            self._tell(left_out(member.replica.server, error))
        if member.joining is not None:
            member.joining.cancel()
        member.joining = self._turns.start(self._join_again(member))

    def _close(self, member: Member, unanswered: Numbered) -> None:
        for lane in member.lanes:
            self._source.close(lane, unanswered)
            unanswered = []

    def _wait_for_any(self) -> None:
        """All are gone: wait as long as for a single engine that is."""
        errors = [(each.replica.server, each.error) for each in self._members if each.error is not None]
        now_s = self._turns.clock.now_s()
        if self._gone_since_s is None:
            self._gone_since_s = now_s
        is_known = self._server.patience_s is not None or any(
            each.replica.acquaintance.has_answered for each in self._members
        )
        is_worth_it = all(isinstance(error, WAITED_FOR) for _, error in errors)
        is_starting = any(isinstance(error, EngineOverloaded) for _, error in errors)
        patience_s = patience_of(self._server) if is_worth_it and (is_known or is_starting) else 0.0
        waited_s = now_s - self._gone_since_s
        if waited_s >= patience_s:
            raise all_gone(self._server, errors)
        if waited_s >= NOTICE_AFTER_S and not self._has_told:
            self._has_told = True
            self._tell(all_waited_for(self._server, len(errors), patience_s))


async def _see_that_it_serves_the_model(replica: Replica) -> None:
    """Before it is asked: where one of several lacks the model that the server names, some rows would be refused."""
    wanted = replica.server.model
    if wanted is None:
        return
    try:
        served = [model.name for model in await list_models(replica.server, replica.client, replica.acquaintance)]
    except WAITED_FOR:
        raise
    except EngineError:
        return  # some do not list them
    if served and wanted not in served:
        raise unknown_model(replica.server, served)


async def _see_that_it_is_there(replica: Replica) -> None:
    status, body = await replica.client.glance("/v1/models")
    if status in RETRIED_STATUSES:
        raise refused_run(replica.server, Refused(status, body))

"""One of a server's engines, as a run knows it from one call to the next.

In: a server, with one base URL or several. Out: a `Replica` for each. It holds what belongs to one engine and to no
other: connections, figures, what it said of itself, and how long it wants to be left alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

from pg_bridge.engine.client import Client, DrivenClock
from pg_bridge.engine.failures import Notice, all_gone, silent
from pg_bridge.engine.gate import Gate, OpenGate
from pg_bridge.engine.metrics import Tally
from pg_bridge.engine.records import Model, Usage
from pg_bridge.engine.waiting import Acquaintance
from pg_bridge.errors import EngineError, EngineOverloaded, EngineTimeout, EngineUnreachable
from pg_bridge.options import Server

SLOW_S = 1.0  # without a sign of life, after which a page is asked of the next engine, too
LOOK_EVERY_S = 0.1

WAITED_FOR = (EngineUnreachable, EngineOverloaded, EngineTimeout)
"""What becomes of engines that will be back."""

_T = TypeVar("_T")


class OwnGate(OpenGate):
    """What one engine of several asks for holds for itself; what is counted is counted of all of them.

    Args:
        common: The server's.
    """

    def __init__(self, common: Gate) -> None:
        super().__init__()
        self._common = common

    def spend(self, requests: int) -> None:
        """See `Gate`."""
        self._common.spend(requests)

    def give_back(self, prompts: int, tokens: int = 0) -> None:
        """See `Gate`."""
        self._common.give_back(prompts, tokens)


@dataclass(slots=True)
class Replica:
    """One of a server's engines.

    Attributes:
        server: The server, as if this were its only engine.
        usage: Its own figures.
        tally: Adds them up.
        gate: Says when it may be sent something.
        acquaintance: What is known of it from earlier runs.
        has_others: Whether there are others.
        has_batch_endpoint: False if it was noticed that there is none.
        model: Which model it serves, if it was asked.
    """

    server: Server
    usage: Usage
    tally: Tally
    gate: Gate
    acquaintance: Acquaintance
    has_others: bool
    has_batch_endpoint: bool = True
    model: Model | None = None
    _client: Client | None = None

    def connect(self, clock: DrivenClock) -> Client:
        """A new pool of connections to it, not yet open."""
        self._client = Client(self.server, self.usage, clock, self.gate, self.acquaintance, has_others=self.has_others)
        return self._client

    @property
    def client(self) -> Client:
        """Its connections."""
        if self._client is None:
            raise RuntimeError("no connections are open")
        return self._client

    @property
    def silence_s(self) -> float:
        """As its client's; 0 without one."""
        return 0.0 if self._client is None else self._client.silence_s

    def take_notice(self) -> Notice | None:
        """What the user is to be told of it now."""
        return None if self._client is None else self._client.waiting.take_notice()

    async def disconnect(self) -> None:
        """Close its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def replicas_of(server: Server, usage: Usage, gate: Gate, acquaintance: Acquaintance) -> Sequence[Replica]:
    """A server's engines: the figures of one are the run's, those of several stand in `usage.engines`."""
    if len(server.engines) == 1:
        return [Replica(server, usage, Tally(usage), gate, acquaintance, has_others=False)]
    replicas = []
    for each in server.engines:
        own = usage.engines[each.endpoint] = Usage()
        known = acquaintance.of(each.endpoint)
        replicas.append(Replica(each, own, Tally(own), OwnGate(gate), known, has_others=True))
    return replicas


def may_pass(error: BaseException) -> TypeGuard[EngineError]:
    """Whether an error is one engine's alone, and for some time: none of its address, its key or the statement."""
    return isinstance(error, WAITED_FOR) or type(error) is EngineError


async def ask_any(server: Server, replicas: Sequence[Replica], ask: Callable[[Replica], Coroutine[Any, Any, _T]]) -> _T:
    """Ask the first engine that answers: the next one, too, as soon as those asked so far have failed or are silent.

    Raises:
        EngineError: None answers, or one says what all would.
    """
    if len(replicas) == 1:
        return await ask(replicas[0])
    left, asked = deque(replicas), dict[asyncio.Task[_T], Replica]()
    errors: list[tuple[Server, EngineError]] = []
    try:
        while left or asked:
            if left and all(replica.silence_s > SLOW_S for replica in asked.values()):
                replica = left.popleft()
                asked[asyncio.create_task(ask(replica))] = replica
            await asyncio.wait(asked, timeout=LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            for task in list(asked):
                error = _error_of(task, asked[task])
                if task.done() and error is None:
                    return task.result()
                if error is not None:
                    task.cancel()
                    errors.append((asked.pop(task).server, error))
    finally:
        for task in asked:
            task.cancel()
    raise all_gone(server, errors)


def _error_of(task: asyncio.Task[_T], replica: Replica) -> EngineError | None:
    """What has become of asking an engine, if it came to nothing, and another may be asked."""
    if not task.done():
        is_gone = replica.silence_s > replica.server.request_timeout_s
        return silent(replica.server) if is_gone else None
    error = task.exception()
    if error is not None and not may_pass(error):
        raise error
    return error

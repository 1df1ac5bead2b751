"""The model of a fast engine by the event loop's clock: requests wait until it says that they are answered.

In: prompts of a request. Out: the request, once it is answered. What is decided is decided in the model's time; who
waits here is woken a little late (`LATE_S`, and what the event loop adds), and the model does not notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pg_bridge.testing.fast_engine import FastEngine, Prompt, Request
from pg_bridge.testing.speeds import EngineSpeed

LATE_S = 0.001
"""The model is not looked at more often, however much happens in it."""


class Served:
    """An engine of a certain speed, from now on.

    Attributes:
        engine: Its model; call `advance` before you read it.
    """

    def __init__(self, speed: EngineSpeed) -> None:
        self.engine = FastEngine(speed)
        self._waiting: dict[Request, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._server_of: dict[asyncio.BaseTransport, int] = {}

    def submit(self, prompts: Sequence[Prompt], connection: asyncio.BaseTransport | None, rank: int | None) -> Request:
        """Let a request come on a connection, now."""
        now_s = asyncio.get_running_loop().time()
        return self.engine.submit(now_s, prompts, server=self._server(connection), rank=rank)

    async def answered(self, request: Request) -> None:
        """Wait until a request is answered; it is aborted if nobody waits any more."""
        self.advance()
        if request.done_s is not None:
            return
        self._waiting[request] = asyncio.get_running_loop().create_future()
        self._set_timer()
        try:
            await self._waiting[request]
        except asyncio.CancelledError:
            self.engine.abort(asyncio.get_running_loop().time(), request)
            raise
        finally:
            del self._waiting[request]

    def advance(self) -> None:
        """Let the model come to this moment; wakes who waits for what is answered."""
        for request in self.engine.advance(asyncio.get_running_loop().time()):
            future = self._waiting.get(request)
            if future is not None and not future.done():
                future.set_result(None)

    def _wake(self) -> None:
        self._timer = None
        self.advance()
        self._set_timer()

    def _set_timer(self) -> None:
        next_s = self.engine.next_event_s()
        if self._timer is None and self._waiting and next_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(next_s, loop.time() + LATE_S), self._wake)

    def _server(self, connection: asyncio.BaseTransport | None) -> int:
        """The API server of a connection: as in vLLM 0.32 the one with the fewest open ones took it."""
        servers = self.engine.speed.api_servers
        if servers == 1 or connection is None:
            return 0
        if connection not in self._server_of:
            self._server_of = {each: at for each, at in self._server_of.items() if not each.is_closing()}
            taken = list(self._server_of.values())
            self._server_of[connection] = min(range(servers), key=taken.count)
        return self._server_of[connection]

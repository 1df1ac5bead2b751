"""A web server whose handlers are cancelled when their client hangs up, as vLLM aborts what nobody waits for.

In: an aiohttp application. Out: its runner, the protocol of a connection, and the end of both. aiohttp has that since
3.9; Debian 12 brings 3.8, where a handler goes on and the connections of a runner without sites stay open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import aiohttp
from aiohttp import web

_HAS_CANCELLATION = [int(part) for part in aiohttp.__version__.split(".")[:2]] >= [3, 9]
_PATIENCE_S = 0.1  # with what is being answered at the end


class _Aborting(web.RequestHandler):
    """What aiohttp 3.9 does with `handler_cancellation`, for 3.8."""

    __slots__ = ()

    def connection_lost(self, exc: BaseException | None) -> None:
        task = self._task_handler
        super().connection_lost(exc)
        if task is not None:
            task.cancel()


def runner(application: web.Application) -> web.AppRunner:
    """What runs an application; it is not set up."""
    settings: dict[str, Any] = {"handler_cancellation": True} if _HAS_CANCELLATION else {}
    return web.AppRunner(application, access_log=None, **settings)


def protocol_of(of: web.AppRunner, loop: asyncio.AbstractEventLoop) -> Callable[[], asyncio.BaseProtocol]:
    """What makes the protocol of each connection, once the runner is set up."""
    server = cast("web.Server", of.server)
    if _HAS_CANCELLATION:
        return cast("Callable[[], asyncio.BaseProtocol]", server)
    settings: dict[str, Any] = {"access_log": None}
    return lambda: _Aborting(server, loop=loop, **settings)


async def end(of: web.AppRunner) -> None:
    """Close its connections, and clean up."""
    if of.server is not None:
        await of.server.shutdown(_PATIENCE_S)
    await of.cleanup()

"""A small HTTP proxy: tunnels by CONNECT, and requests that name a whole URL."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_REASON = {403: "Forbidden", 407: "Proxy Authentication Required", 503: "Service Unavailable"}

_LAST_ROUNDS = 10


class Proxy:
    """Serves while the context is open; each of its connections leads to one place, once.

    Args:
        login: The `Proxy-Authorization` that it wants; None wants none.
        status: It answers everything with this HTTP status; None does what it is there for.
        tls: What it secures its own connections by.

    Attributes:
        heard: The first line of each request, and its headers.
        url: Where it is.
    """

    def __init__(
        self, *, login: str | None = None, status: int | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.heard: list[tuple[str, dict[str, str]]] = []
        self.url = ""
        self._login = login
        self._status = status
        self._tls = tls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._listens = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._listens.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._begin, "127.0.0.1", 0, ssl=self._tls)
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._listens.set()
        await self._stop.wait()
        # As the engine double ends: asyncio loses connections that are accepted just now, open.
        for each in server.sockets:
            self._loop.remove_reader(each)
        await _last_rounds()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        server.close()
        await _last_rounds()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # it may be cancelled before it begins

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._forward(reader, writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *others = head.strip().splitlines()
        headers = dict(other.split(": ", 1) for other in others)
        self.heard.append((line, headers))
        denied = self._login is not None and headers.get("Proxy-Authorization") != self._login
        if status := 407 if denied else self._status:
            writer.write(f"HTTP/1.1 {status} {_REASON[status]}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            return
        method, target, _ = line.split()
        there = urlsplit(f"//{target}" if method == "CONNECT" else target)
        from_there, to_there = await asyncio.open_connection(there.hostname, there.port)
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                handed_on = [each for each in others if not each.startswith(("Proxy-", "Connection"))]
                to_there.write(
                    "\r\n".join([line.replace(target, there.path), *handed_on, "Connection: close"]).encode()
                )
                to_there.write(b"\r\n\r\n")
            done, pending = await asyncio.wait(
                [asyncio.ensure_future(_pump(reader, to_there)), asyncio.ensure_future(_pump(from_there, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in pending:
                task.cancel()
            await asyncio.gather(*done, *pending, return_exceptions=True)
        finally:
            to_there.transport.abort()


async def _last_rounds() -> None:
    """Let what was accepted or aborted come to be so."""
    for _ in range(_LAST_ROUNDS):
        await asyncio.sleep(0)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(1 << 16):
        target.write(piece)
        await target.drain()

"""The page's server: on this machine alone, for who has its token.

In: a `Bench`. Out: the page, and its state; answers as lines of JSON, as they land. It listens on 127.0.0.1, refuses
other names than its own in `Host` (a page elsewhere cannot reach it by a name of its own), and takes nothing without
the token, which stands behind the `#` of the address and so in no log.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from hmac import compare_digest
from importlib.resources import files

from aiohttp import web

from pg_bridge.errors import OptionError, PgBridgeError
from pg_bridge.workbench.bench import Bench, known_options

ADDRESS = "127.0.0.1"
_MOST_BYTES = 1 << 20  # of a request
_SHUTDOWN_S = 0.5  # for what is under way to end by itself
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve(bench: Bench, port: int = 0) -> tuple[web.AppRunner, str]:
    """Begin to serve; gives what `cleanup` ends, and the address with its token.

    Args:
        bench: What is shown.
        port: Where; 0 for any that is free.

    Raises:
        OptionError: The port is taken.
    """
    token = secrets.token_urlsafe(24)
    # Whoever goes away, or ends the server, ends what is asked for them, also where no answer comes to notice it by.
    runner = web.AppRunner(
        _application(bench, token), access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, ADDRESS, port).start()
    except OSError as error:
        await runner.cleanup()
        raise OptionError(f"cannot listen on port {port}: {error.strerror}") from error
    found = runner.addresses[0][1]
    return runner, f"http://{ADDRESS}:{found}/#{token}"


def _application(bench: Bench, token: str) -> web.Application:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        name = request.headers.get("Host", "").rpartition(":")[0]
        if name not in (ADDRESS, "localhost"):
            raise web.HTTPForbidden
        given = request.headers.get("Authorization", "")
        if request.path != "/" and not compare_digest(given.encode(errors="replace"), f"Bearer {token}".encode()):
            raise web.HTTPUnauthorized
        try:
            response = await handler(request)
        except PgBridgeError as error:
            response = web.json_response({"message": error.message, "hint": error.hint}, status=400)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    handlers = _Handlers(bench)
    application = web.Application(middlewares=[guard], client_max_size=_MOST_BYTES)
    application.add_routes(
        [
            web.get("/", handlers.page),
            web.get("/state", handlers.state),
            web.post("/ask", handlers.ask),
            web.post("/drop", handlers.drop),
            web.post("/known", handlers.learn),
        ]
    )
    return application


class _Handlers:
    """What the page asks for.

    Args:
        bench: What is shown.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    async def page(self, _: web.Request) -> web.Response:
        """The page, with nothing of the rows in it: it has no token yet."""
        nonce = secrets.token_urlsafe(12)
        text = (files("pg_bridge.workbench") / "page.html").read_text(encoding="utf-8").replace("NONCE", nonce)
        policy = f"default-src 'none'; connect-src 'self'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
        policy += "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": policy})

    async def state(self, _: web.Request) -> web.Response:
        """Rows, versions and their answers."""
        options = [{"name": option.name, "expects": option.value.expects} for option in known_options()]
        return web.json_response(self._bench.state() | {"options": options})

    async def ask(self, request: web.Request) -> web.StreamResponse:
        """Ask a version, and tell of answers as they land."""
        asked = await _read(request)
        options = asked.get("options", {})
        if not isinstance(options, dict):
            raise OptionError("the options are no object")
        number = self._bench.add(_text(asked, "prompt"), {str(name): str(value) for name, value in options.items()})
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", **_HEADERS})
        await response.prepare(request)

        async def tell(line: dict[str, object]) -> None:
            await response.write(json.dumps(line).encode() + b"\n")

        with contextlib.suppress(ConnectionError):  # nobody reads it any more, which ends what is in flight
            await tell({"version": number})
            try:
                async with aclosing(self._bench.ask(number)) as answers:
                    async for answer in answers:
                        await tell(answer._asdict())
            except PgBridgeError as error:
                await tell({"message": error.message, "hint": error.hint})
            await tell({"done": True})
            await response.write_eof()
        return response

    async def drop(self, request: web.Request) -> web.Response:
        """Take a version away."""
        number = (await _read(request)).get("version")
        if not isinstance(number, int):
            raise OptionError("the version is no number")
        self._bench.drop(number)
        return web.json_response({})

    async def learn(self, request: web.Request) -> web.Response:
        """Note the right answer about a row, or take it back."""
        asked = await _read(request)
        row = asked.get("row")
        if not isinstance(row, int):
            raise OptionError("the row is no number")
        self._bench.learn(row, None if asked.get("value") is None else _text(asked, "value"))
        return web.json_response({})


async def _read(request: web.Request) -> dict[str, object]:
    try:
        found = await request.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise OptionError("the request is no object of JSON")
    return found


def _text(asked: dict[str, object], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str):
        raise OptionError(f"the {name} is no text")
    return value

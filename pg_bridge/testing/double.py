"""An engine double: a small HTTP server that speaks vLLM's interface, for tests, demos and benchmarks.

In: requests to `/v1/models`, `/v1/chat/completions`, `/v1/chat/completions/batch`, `/v1/completions`,
`/v1/embeddings`, `/health` and `/metrics`. Out: answers that depend on the prompt alone, prefix cache figures counted
as vLLM counts them, and any of the faults of `Behaviour`. There is no model in it: an answer is a digest, or what
your function says.

In a test, in a thread of its own:

    with EngineDouble(answer=lambda prompt: "yes", fail_first=2) as engine:
        …                              # CREATE SERVER … OPTIONS (endpoint engine.url)
        engine.behaviour.hang = True   # faults may come and go while it runs
        engine.received.prompts        # what it was asked, in order

As a process of its own, which prints `engine=URL` once it listens and ends with SIGTERM:

    python -m pg_bridge.testing.double --port 0 --set delay_s=0.1

There `POST /double` with a JSON object of `Behaviour` fields changes them (`answer` cannot be changed that
way), `{"reset": true}` among them forgets what was received and what is cached, `{"speed": "h100-8b"}` does that and
makes it so fast; `GET /double` says what was received, and how long it was busy and idle.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from pg_bridge.asking.prefix_cache import PrefixCache
from pg_bridge.testing import aborting, wire
from pg_bridge.testing.behaviour import Behaviour
from pg_bridge.testing.fast_engine import FastEngine, Prompt
from pg_bridge.testing.served import Served
from pg_bridge.testing.speeds import SPEEDS, EngineSpeed, speed_of

_LARGEST_BODY_BYTES = 1 << 30
_PROMPTS = {"messages", "prompt", "input", "documents"}  # where a body has them
_HAD_PORTS: set[int] = set()  # by doubles of this process
_LAST_ROUNDS = 10  # of the event loop, in which what was accepted or closed just now comes to be so


@dataclass(slots=True)
class Received:
    """What the double was asked.

    Attributes:
        requests: (path, number of prompts) of every request that carried prompts, in order.
        prompts: The last user message of every conversation, or the prompt, in order; answered or not. A picture in it
            is told by its type and the beginning of its digest.
        contents: The same as they came, where they had pictures, or parts at all.
        conversations: The whole rendered text of each of them.
        bodies: The parsed JSON of every request but its prompts.
        headers: The headers of every one of them, their names in small letters.
        answered: Prompts answered.
        tokenized: Texts that `/tokenize` has cut.
        listed: How often its models were listed.
        in_flight: Requests taken and neither answered nor aborted.
        prompts_in_flight: Their prompts.
        peak_prompts: The most that these ever were.
        aborted: Requests whose client went away before the answer.
    """

    requests: list[tuple[str, int]] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    contents: list[list[dict[str, Any]]] = field(default_factory=list)
    conversations: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answered: int = 0
    tokenized: int = 0
    listed: int = 0
    in_flight: int = 0
    prompts_in_flight: int = 0
    peak_prompts: int = 0
    aborted: int = 0


class EngineDouble:
    """A double on a free port of this machine, served by a thread while the context is open.

    Args:
        speed: How fast it is, by the model of `pg_bridge.testing.fast_engine`: the name of one of `SPEEDS`, or
            constants. None is one that knows no limit.
        block_size: Tokens of a cache block; None is the speed's.
        cache_blocks: Blocks that the cache holds at most; None is the speed's.
        host: Where to listen.
        port: 0 takes a free one.
        tls: What it secures its connections by; None is plain HTTP.
        **settings: Fields of `Behaviour`.

    Attributes:
        behaviour: What it does; may be changed at any time.
        received: What it was asked.
        url: The base URL, once it listens.
    """

    def __init__(
        self,
        *,
        speed: EngineSpeed | str | None = None,
        block_size: int | None = None,
        cache_blocks: int | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        **settings: Any,  # noqa: ANN401 - the fields of Behaviour, each with its own type
    ) -> None:
        self.behaviour = Behaviour(**settings)
        self.received = Received()
        taken = speed if isinstance(speed, EngineSpeed) else speed_of(speed)
        self._served = Served(
            replace(taken, block_size=block_size or taken.block_size, cache_blocks=cache_blocks or taken.cache_blocks)
        )
        self.url = ""
        self._host = host
        self._port = port
        self._tls = tls
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def __enter__(self) -> Self:
        listening = threading.Event()
        failures: list[BaseException] = []

        def serve() -> None:
            try:
                asyncio.run(self.serve(lambda _: listening.set()))
            except Exception as error:  # whatever it is, who waits for the double must hear of it
                failures.append(error)
                listening.set()

        self._thread = threading.Thread(target=serve, name="engine-double", daemon=True)
        self._thread.start()
        listening.wait()
        if failures:
            raise failures[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    @property
    def engine(self) -> FastEngine:
        """The model that it is served by: what runs and waits, what it computed, how long it was busy and idle."""
        return self._served.engine

    @property
    def cache(self) -> PrefixCache:
        """The prefix cache, of the first rank where there are several."""
        return self.engine.ranks[0].cache

    def reset(self, speed: EngineSpeed | None = None) -> None:
        """Forget what was received, what is cached and how long it worked; the cache's counters go on.

        Args:
            speed: How fast it is from now on; None leaves it so. What has come already is answered as fast as it was.
        """
        before = self.engine.ranks
        self.received = Received()
        self._served = Served(speed or self.engine.speed)
        for rank, old in zip(self.engine.ranks, before, strict=False):
            rank.cache.queried_tokens, rank.cache.hit_tokens = old.cache.queried_tokens, old.cache.hit_tokens

    async def serve(self, on_listening: Callable[[str], None]) -> None:
        """Listen, tell the URL, and answer until told to stop."""
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        runner = aborting.runner(self._application())
        await runner.setup()
        try:
            # Not aiohttp's TCPSite: it closes the listening sockets while connections that are accepted just now
            # wait for their transport, and asyncio (3.11) then loses those, open.
            listener = await self._listen(self._loop, aborting.protocol_of(runner, self._loop))
            with contextlib.closing(listener):
                scheme = "http" if self._tls is None else "https"
                self.url = f"{scheme}://{self._host}:{listener.sockets[0].getsockname()[1]}"
                on_listening(self.url)
                await self._stop.wait()
                for each in listener.sockets:
                    self._loop.remove_reader(each)
                await _last_rounds()
        finally:
            await aborting.end(runner)
            await _last_rounds()

    async def _listen(
        self, loop: asyncio.AbstractEventLoop, protocol: Callable[[], asyncio.BaseProtocol]
    ) -> asyncio.Server:
        """Listen on a port, and where any will do on one that no double of this process has had.

        Answers are kept by the engine's URL: those of an engine that is gone would be found for the next one's.
        """
        with contextlib.ExitStack() as had:
            while True:
                listener = await loop.create_server(protocol, self._host, self._port, ssl=self._tls)
                port = listener.sockets[0].getsockname()[1]
                if self._port or port not in _HAD_PORTS:
                    _HAD_PORTS.add(port)
                    return listener
                had.enter_context(contextlib.closing(listener))  # or it might be had again

    def stop(self) -> None:
        """End `serve`; to be called in its event loop."""
        if self._stop is not None:
            self._stop.set()

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=_LARGEST_BODY_BYTES)
        for path in (wire.CHAT, wire.BATCH, wire.COMPLETIONS, wire.EMBEDDINGS, wire.RERANK):
            application.router.add_post(path, self._complete)
        application.router.add_get(wire.BATCH, self._no_page)
        application.router.add_post("/tokenize", self._tokenize)
        application.router.add_get("/v1/models", self._models)
        application.router.add_get("/health", self._health)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/double", self._tell)
        application.router.add_post("/double", self._change)
        return application

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        behaviour = self.behaviour
        if request.path == wire.BATCH and not behaviour.batch_endpoint:
            return web.json_response({"detail": "Not Found"}, status=404)
        if request.path == wire.EMBEDDINGS and not behaviour.embeddings:
            return web.json_response({"detail": "Not Found"}, status=404)
        if request.path == wire.RERANK and not behaviour.reranking:
            return web.json_response({"detail": "Not Found"}, status=404)
        body = await request.json(loads=json.loads)
        prompts, conversations = wire.read(request.path, body)
        received = self.received
        received.requests.append((request.path, len(prompts)))
        if behaviour.record:
            received.prompts += prompts
            received.contents += wire.contents(request.path, body)
            received.conversations += conversations
            received.bodies.append({k: v for k, v in body.items() if k not in _PROMPTS})
            received.headers.append({name.lower(): value for name, value in request.headers.items()})
        received.in_flight += 1
        received.prompts_in_flight += len(prompts)
        received.peak_prompts = max(received.peak_prompts, received.prompts_in_flight)
        try:
            refusal = await self._refuse(request, body, prompts)
            if refusal is not None:
                return refusal
            wait_s = behaviour.delay_s + behaviour.delay_per_prompt_s * len(prompts)
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            served, size = self._served, self.engine.speed.block_size
            asked = [Prompt.of(wire.tokenize(behaviour, each), size) for each in conversations]
            submitted = served.submit(asked, request.transport, _rank(request))
            drafted = wire.draft(behaviour, request.path, body, prompts)  # while the model works
            await served.answered(submitted)
        except asyncio.CancelledError:
            received.aborted += 1
            raise
        finally:
            received.in_flight -= 1
            received.prompts_in_flight -= len(prompts)
        text = wire.answer(behaviour, request.path, body["model"], drafted, submitted)
        received.answered += len(prompts)
        return web.Response(text=text, content_type="application/json", headers=behaviour.headers)

    async def _refuse(
        self, request: web.Request, body: dict[str, Any], prompts: Sequence[str]
    ) -> web.StreamResponse | None:
        if (trouble := self._trouble(request)) is not None:
            return trouble
        behaviour = self.behaviour
        if behaviour.hang_after == 0:
            behaviour.hang = True
        behaviour.hang_after = max(behaviour.hang_after - 1, -1)
        if behaviour.hang:
            await asyncio.Event().wait()
        rank, ranks = _rank(request), self.engine.speed.ranks
        if rank is not None and rank >= ranks:
            return _error(400, f"data_parallel_rank {rank} is out of range [0, {ranks}).")
        wrong = wire.refusal(behaviour, body, prompts)
        return None if wrong is None else _error(*wrong)

    def _trouble(self, request: web.Request) -> web.Response | None:
        """The refusal that any request may meet."""
        behaviour = self.behaviour
        if (denied := self._denied(request)) is not None:
            return denied
        if behaviour.drop_first > 0:
            behaviour.drop_first -= 1
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if behaviour.fail_first > 0:
            behaviour.fail_first -= 1
            after = behaviour.retry_after_s
            headers = {} if after is None else {"Retry-After": f"{after:g}"}
            return _error(behaviour.fail_status, "told to fail", {**behaviour.headers, **headers})
        return None

    def _denied(self, request: web.Request) -> web.Response | None:
        key = self.behaviour.api_key
        if key is None or request.headers.get("Authorization") == f"Bearer {key}":
            return None
        return _error(401, "Unauthorized")

    async def _models(self, request: web.Request) -> web.Response:
        owner: dict[str, Any] = {"owned_by": self.behaviour.owned_by} if self.behaviour.owned_by else {}
        if self.behaviour.max_model_len:
            owner["max_model_len"] = self.behaviour.max_model_len
        models = [{"id": model, "object": "model", **owner} for model in self.behaviour.models]
        self.received.listed += 1
        if not self.behaviour.listed:
            return web.Response(text="Internal Server Error", status=500)
        # Not `or`: in aiohttp 3.8 a response is a mapping, and false where it is empty.
        if (denied := self._denied(request)) is not None:
            return denied
        return web.json_response({"object": "list", "data": models})

    async def _no_page(self, _: web.Request) -> web.Response:
        status, detail = (405, "Method Not Allowed") if self.behaviour.batch_endpoint else (404, "Not Found")
        return web.json_response({"detail": detail}, status=status)

    async def _tokenize(self, request: web.Request) -> web.Response:
        if (trouble := self._trouble(request)) is not None:
            return trouble
        if not self.behaviour.tokenize:
            return web.json_response({"detail": "Not Found"}, status=404)
        self.received.tokenized += 1
        if self.behaviour.hang:
            await asyncio.Event().wait()
        body = await request.json(loads=json.loads)
        return web.Response(text=wire.tokenized(self.behaviour, body), content_type="application/json")

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, _: web.Request) -> web.Response:
        if not self.behaviour.metrics:
            return web.json_response({"detail": "Not Found"}, status=404)
        self._served.advance()
        return web.Response(text=wire.metrics(self.behaviour, self.engine))

    async def _tell(self, _: web.Request) -> web.Response:
        self._served.advance()
        received, engine = self.received, self.engine
        return web.json_response(
            {
                "requests": len(received.requests),
                "prompts": sum(count for _, count in received.requests),
                "answered": received.answered,
                "aborted": received.aborted,
                "peak_prompts": received.peak_prompts,
                "running": engine.running,
                "waiting": engine.waiting,
                "unrendered": engine.unrendered,
                "queried_tokens": engine.queried_tokens,
                "hit_tokens": engine.hit_tokens,
                "computed_tokens": engine.computed_tokens,
                "began_s": engine.began_s,
                "busy_s": engine.busy_s,
                "idle_s": engine.idle_s,
                "render_busy_s": engine.render_busy_s,
                "steps": engine.steps,
            }
        )

    async def _change(self, request: web.Request) -> web.Response:
        changes = await request.json()
        try:
            speed = speed_of(changes.pop("speed")) if "speed" in changes else None
            if changes.pop("reset", False) or speed is not None:
                self.reset(speed)
            self.behaviour.change(changes)
        except ValueError as error:
            return _error(400, str(error))
        return web.json_response({})


async def _last_rounds() -> None:
    """Some rounds, however late each comes: on a busy machine a pause alone may be a single one."""
    for _ in range(_LAST_ROUNDS):
        await asyncio.sleep(0.0005)


def _rank(request: web.Request) -> int | None:
    """The rank that a request names, as vLLM reads it."""
    named = request.headers.get("X-data-parallel-rank", "")
    return int(named) if named.isdecimal() else None


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    error = {"message": message, "type": "Error", "param": None, "code": status}
    return web.json_response({"error": error}, status=status, headers=headers)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    import signal  # noqa: PLC0415 - only a process of its own takes signals

    parser = argparse.ArgumentParser(
        prog="python -m pg_bridge.testing.double",
        description="Serve an engine double; prints engine=URL once it listens.",
        epilog="Settings are the fields of pg_bridge.testing.behaviour.Behaviour, as JSON: --set fail_first=2",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--speed", choices=SPEEDS, help="how fast it is; without it as fast as it can")
    parser.add_argument("--block-size", type=int, help="tokens of a cache block (default: the speed's)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", dest="settings")
    arguments = parser.parse_args(argv)
    double = EngineDouble(
        host=arguments.host,
        port=arguments.port,
        speed=arguments.speed,
        block_size=arguments.block_size,
        record=False,
    )
    for setting in arguments.settings:
        name, _, value = setting.partition("=")
        double.behaviour.change({name: json.loads(value)})

    async def serve() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, double.stop)
        await double.serve(lambda url: print(f"engine={url}", flush=True))

    asyncio.run(serve())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

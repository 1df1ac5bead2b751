"""The asynchronous HTTP client: one request at a time, sent again while that can help.

In: a path and a body. Out: the answer's bytes, or an exception. An engine that is gone, is starting or asks to come
again later is waited for as `Waiting` says; what else passes is tried again up to `max_retries` times. It watches for
the engine's silence, but only while its event loop is driven: a paused cursor is not a silent engine. It never reads
what is in a body, never more of one than can be an answer, and goes nowhere that a redirect points to: the API key is
in its requests' headers only, and goes to the endpoint only, over the server's proxy and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pg_bridge.engine.connections import redirected, speaks_tls, trouble_of, unreachable, wrong_scheme
from pg_bridge.engine.dialects import credentials
from pg_bridge.engine.failures import Compressed, Oversized
from pg_bridge.engine.gate import LONGEST_WAIT_S, Gate
from pg_bridge.engine.patience import told_to_wait_s, used_up_s
from pg_bridge.engine.proxies import PROXY_WANTS_USER, proxy_denied, with_proxy
from pg_bridge.engine.records import Usage
from pg_bridge.engine.refusal import LATER_STATUSES, RETRIED_STATUSES, Refused, is_used_up
from pg_bridge.engine.tls import tls_of
from pg_bridge.engine.waiting import Acquaintance, Waiting
from pg_bridge.options import Server

if TYPE_CHECKING:
    import aiohttp

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 8.0
LONGEST_TOLD_BACKOFF_S = 1.0  # where the engine says when to come again, and means moments
HERD_SHARE = 0.1  # of a wait that many were told, by which they come at different moments
IDLE_CONNECTION_S = 4.0  # below the 5 s after which vLLM's server closes an idle connection
LARGEST_PAGE_BYTES = 16 << 20  # of /metrics, of an engine with many models
LARGEST_REFUSAL_BYTES = 1 << 16
RANK_HEADER = "X-data-parallel-rank"  # of vLLM

_ABOUT_TLS = re.compile(rb"https|ssl|tls", re.I)  # in what a server says that speaks TLS and was not addressed in it

REDIRECTS = frozenset({301, 302, 303, 307, 308})

_T = TypeVar("_T")


class _Reply(NamedTuple):
    """What came back: `told_s` is after how many seconds to come again, `location` where else to go, if it says so."""

    status: int
    body: bytes
    told_s: float
    location: str


class DrivenClock:
    """Seconds for which the event loop has been driven; stands still while the consumer pauses."""

    def __init__(self) -> None:
        self._total_s = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """The loop begins to run."""
        self._since = time.monotonic()

    def stop(self) -> None:
        """The loop stands still."""
        self._total_s = self.now_s()
        self._since = None

    def now_s(self) -> float:
        """Driven seconds so far."""
        return self._total_s if self._since is None else self._total_s + time.monotonic() - self._since


class Client:
    """A connection pool to one engine.

    Args:
        server: Where the engine is.
        usage: The run's record; its `requests` and `retries` are kept here.
        clock: The driven seconds of the loop that runs this client.
        gate: Is told when the engine asks for patience, and of requests that are sent again.
        acquaintance: What is known of the engine from earlier runs.
        has_others: As for `Waiting`.

    Attributes:
        waiting: For how long it is waited for.
    """

    def __init__(
        self,
        server: Server,
        usage: Usage,
        clock: DrivenClock,
        gate: Gate,
        acquaintance: Acquaintance,
        *,
        has_others: bool = False,
    ) -> None:
        self.waiting = Waiting(server, clock, acquaintance, has_others=has_others)
        self._acquaintance = acquaintance
        self._server = server
        self._usage = usage
        self._clock = clock
        self._gate = gate
        self._session: aiohttp.ClientSession | None = None
        self._awaiting = 0  # requests sent and not yet answered
        self._asked = 0  # those of them that have prompts
        self._sent_with: dict[str, Any] = {}  # each request
        self._may_speak_tls = server.proxy is None and server.endpoint.startswith("http:")  # nobody has looked yet
        self._quiet_since_s = 0.0  # driven time of the last sign of life, or of the first request after none

    async def open(self) -> None:
        """Open the pool; connects to nothing yet.

        Raises:
            FileFault: A file of the server's options cannot be used.
        """
        tls = tls_of(self._server)
        import aiohttp  # noqa: PLC0415 - 0.2 s, paid by the first engine of a process and nobody else

        headers = {"Content-Type": "application/json", "User-Agent": "pg_bridge", **self._server.filled_headers}
        headers["Accept-Encoding"] = "identity"  # what is compressed has no bounds that could be seen from outside
        headers |= credentials(self._server)
        # Not the session's headers: aiohttp shows those to the proxy, too, a key as if it were the proxy's.
        self._sent_with = with_proxy(self._server, headers)
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, connect=self._server.connect_timeout_s),
            connector=aiohttp.TCPConnector(
                limit=0,  # the engine bounds what is in flight
                keepalive_timeout=IDLE_CONNECTION_S,
                resolver=aiohttp.ThreadedResolver(),  # never a C library with threads of its own
                ssl=True if tls is None else tls,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,  # the environment is the postmaster's: its proxies and .netrc say nothing of this server
        )

    async def close(self) -> None:
        """Close every connection; the engine aborts what was asked on them."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()
            await asyncio.sleep(0)  # transports close in the loop's next round; the loop hangs up what is left

    @property
    def silence_s(self) -> float:
        """Driven seconds since the engine last gave a sign of life while requests await it."""
        return self._clock.now_s() - self._quiet_since_s if self._awaiting else 0.0

    async def post(self, path: str, body: bytes, rank: int | None = None) -> bytes:
        """Send prompts, to one of the engine's ranks if it has several, and return the answer's bytes.

        Raises:
            Refused: A status that is not 200 and does not go away.
            EngineUnreachable: No connection.
            EngineError: The engine asked for patience for too long.
            Unreadable: The answer is larger than `max_answer_bytes`, or compressed.
        """
        return await self._retried("POST", path, body, self._server.max_answer_bytes, rank)

    async def get(self, path: str) -> bytes:
        """Fetch a page that the run cannot do without; raises as `post` does."""
        return await self._retried("GET", path, None, LARGEST_PAGE_BYTES)

    async def glance(
        self, path: str, body: bytes | None = None, most_bytes: int = LARGEST_PAGE_BYTES
    ) -> tuple[int, bytes]:
        """Fetch a page once, whatever its status; returns the status and the bytes.

        Args:
            path: The page.
            body: What the page is about, where that is told in a body; no prompt that is to be answered.
            most_bytes: How large it may be.

        Raises:
            EngineUnreachable: No connection.
            Unreadable: The page has more bytes than it may have, or is compressed.
        """
        method = "GET" if body is None else "POST"
        reply = await self._connected(method, path, body, most_bytes, is_counted=False)
        return reply.status, reply.body

    async def _retried(
        self, method: str, path: str, body: bytes | None, most_bytes: int, rank: int | None = None
    ) -> bytes:
        """One exchange, tried again while the engine asks for patience; who was told when to come has not failed."""
        failed = told = 0
        while True:
            self._usage.requests += body is not None
            reply = await self._connected(method, path, body, most_bytes, is_counted=body is not None, rank=rank)
            status, answer, told_s = reply.status, reply.body, reply.told_s
            if status not in LATER_STATUSES:  # a page that is only glanced at says nothing of that
                self.waiting.hear()
            if status == 200:
                if body is not None:
                    self.waiting.answer()
                return answer
            if status in REDIRECTS:
                raise redirected(self._server, status, path, reply.location)
            if status not in RETRIED_STATUSES or is_used_up(status, answer):
                raise Refused(status, answer)
            if told_s > 0 or (status in LATER_STATUSES and self.waiting.is_patient):
                self.waiting.come_later(status, told_s)
                if told_s > 0:
                    self._gate.slow_down(told_s)
                told += 1
            elif failed >= self._server.max_retries:
                raise Refused(status, answer)
            else:
                failed += 1
            await self._pause(_pause_s(failed + told - 1, told_s))
            self._send_again(body)

    async def _pause(self, pause_s: float) -> None:
        """Wait before a request is sent again, and as long as the gate is shut."""
        while pause_s > 0:
            await asyncio.sleep(pause_s)
            pause_s = self._gate.shut_s() * random.uniform(1.0, 1.0 + HERD_SHARE)

    def _send_again(self, body: bytes | None) -> None:
        if body is not None:
            self._usage.retries += 1
            self._gate.spend(1)

    async def _connected(
        self, method: str, path: str, body: bytes | None, most_bytes: int, *, is_counted: bool, rank: int | None = None
    ) -> _Reply:
        """One exchange, tried again while the connection is the trouble; some count as requests."""
        import aiohttp  # noqa: PLC0415 - see open()

        drops = tries = 0
        while True:
            started_s = self._clock.now_s()
            try:
                reply = await self._exchange(method, path, body, most_bytes, has_prompts=is_counted, rank=rank)
                if reply.status == 400 and _ABOUT_TLS.search(reply.body):
                    await self._see_that_it_speaks_http()
            except (aiohttp.ClientError, OSError, ValueError) as error:
                trouble = trouble_of(error, self._server)
                refused = isinstance(error, aiohttp.ClientConnectorError | TimeoutError)
            else:
                return reply
            if not (refused or trouble.is_lasting):
                await self._see_that_it_speaks_http()
            # A connection that was never made was missing since its attempt began, a lost one since now.
            left_s = self.waiting.left_s(started_s if refused else self._clock.now_s(), trouble.reason)
            drops += not refused
            # While others are answered, a request that is dropped each time would go on for ever: count.
            if trouble.is_lasting or left_s <= 0 or drops > self._server.max_retries + 1:
                raise unreachable(self._server, trouble) from None
            tries += 1
            await asyncio.sleep(min(_pause_s(tries), left_s))
            if is_counted:
                self._usage.requests += 1
                self._send_again(body)

    async def _exchange(
        self, method: str, path: str, body: bytes | None, most_bytes: int, *, has_prompts: bool, rank: int | None = None
    ) -> _Reply:
        """Send once."""
        if self._session is None:
            raise RuntimeError("the client is closed")
        if not self._awaiting:
            self._quiet_since_s = self._clock.now_s()
        self._awaiting += 1
        self._asked += has_prompts
        try:
            url = f"{self._server.endpoint}{path}"
            sent_with = self._sent_with
            if rank is not None:
                sent_with = sent_with | {"headers": {**sent_with["headers"], RANK_HEADER: str(rank)}}
            sent = self._session.request(method, url, data=body, allow_redirects=False, **sent_with)
            async with sent as response:
                self._alive(has_prompts)
                if response.status == PROXY_WANTS_USER and self._server.proxy is not None:
                    raise proxy_denied(self._server)
                if response.status == 200:
                    self._may_speak_tls = False
                    self._acquaintance.meet(response.headers)
                answer = await _read(response, most_bytes)
                self._alive(has_prompts)
                if (used_up := used_up_s(response.headers)) > 0:
                    self._gate.slow_down(used_up)
                location = response.headers.get("Location", "")
                return _Reply(response.status, answer, told_to_wait_s(response.headers), location)
        finally:
            self._awaiting -= 1
            self._asked -= has_prompts

    async def _see_that_it_speaks_http(self) -> None:
        """Look, once, whether what was addressed in plain HTTP speaks TLS: most such servers just hang up.

        Raises:
            WrongScheme: It does.
        """
        if not self._may_speak_tls or self.waiting.has_answered:
            return
        self._may_speak_tls = False
        if await speaks_tls(self._server.endpoint):
            raise wrong_scheme(self._server)

    def _alive(self, has_prompts: bool) -> None:
        """Note a sign of life: where prompts await an answer, that of another page is none of the engine behind it."""
        if has_prompts or not self._asked:
            self._quiet_since_s = self._clock.now_s()


async def _read(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """The body; only the beginning of a refusal's. Leaving the rest unread closes the connection.

    Raises:
        Oversized: It is an answer, and larger than that.
        Compressed: It is an answer that nobody can tell the size of before it is unpacked.
    """
    encoding = response.headers.get("Content-Encoding", "identity")
    if response.status == 200 and encoding.strip().lower() not in {"", "identity"}:
        raise Compressed
    most = most_bytes if response.status == 200 else LARGEST_REFUSAL_BYTES
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > most:
            if response.status == 200:
                raise Oversized(most)
            break
    return b"".join(parts)[:most]


async def quietly(awaitable: Awaitable[_T], limit_s: float) -> _T | None:
    """The result, or None if it takes longer than `limit_s`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            return await awaitable
    return None


def _pause_s(attempt: int, told_s: float = 0.0) -> float:
    """Seconds until the next attempt: doubling, with jitter so that many clients do not come back at once."""
    longest_s = LONGEST_TOLD_BACKOFF_S if told_s else LONGEST_BACKOFF_S
    backoff_s = min(FIRST_BACKOFF_S * 2.0 ** min(attempt, 10), longest_s) * random.uniform(0.5, 1.0)
    return max(backoff_s, min(told_s, LONGEST_WAIT_S) * random.uniform(1.0, 1.0 + HERD_SHARE))

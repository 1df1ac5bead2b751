"""An engine that answers with whatever bytes a test wants: no HTTP library keeps it from being wrong."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from pg_bridge.engine.trial import CONTROL_PROMPT

Reply = Iterable[bytes]
Replies = Callable[["Request"], Reply]


class Request:
    """What came in: path, headers, and the body's JSON, {} where there is none."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path = path
        self.headers = headers
        self.json: dict[str, Any] = json.loads(body) if body else {}

    @property
    def is_control(self) -> bool:
        """Whether it asks what has nothing to do with any row, to see whether that is refused, too."""
        return CONTROL_PROMPT in json.dumps(self.json)

    @property
    def prompts(self) -> int:
        """How many conversations it carries."""
        messages = self.json.get("messages", [])
        return len(messages) if messages and isinstance(messages[0], list) else 1


class HostileEngine:
    """Serves while the context is open; each reply is written in pieces, and then the connection is closed.

    Args:
        reply: From a request to the raw bytes of its reply; the list of models is answered well unless it says more.
        everything: Whether `reply` answers for the list of models and the metrics, too.
        tls: What it secures its connections by; None is plain HTTP.
    """

    def __init__(self, reply: Replies, *, everything: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self.answer()

            def do_POST(self) -> None:
                self.answer()

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.path, dict(self.headers), body)
                outer.requests.append(request)
                if self.command == "GET" and not everything:
                    pieces: Reply = [well({"data": [{"id": "hostile"}]})]
                else:
                    pieces = reply(request)
                try:
                    for piece in pieces:
                        self.wfile.write(piece)
                        self.wfile.flush()
                except OSError:
                    pass  # the client had enough
                self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256  # so that many connections at once are not taken for a silence

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def raw(body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None) -> bytes:
    """A whole reply."""
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n{headers}\r\n".encode() + body


def well(value: object, **options: Any) -> bytes:
    """A reply that is JSON."""
    return raw(json.dumps(value).encode(), **options)


def completion(request: Request, text: object = "fine", **more: object) -> bytes:
    """A proper answer, each prompt's the same."""
    choices = [{"index": i, "message": {"content": text}} for i in range(request.prompts)]
    return well({"choices": choices, **more})

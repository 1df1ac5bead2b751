"""A server that this process starts, waits for and ends: vLLM, or a proxy before other engines.

In: a command line, its environment, and a page that tells when it is ready. Out: a running server, or an error with the
end of its log. It is another program here, whatever it is: nothing of it is ever imported.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from pg_bridge.errors import EngineUnreachable
from pg_bridge.serving.children import Guard, end_group, private_directory, tail
from pg_bridge.serving.ports import free_port, port_is_taken

READY_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 15.0

# While it imports and loads, vLLM does not listen to SIGTERM, and there is nothing yet that it could put in order.
STOP_WHILE_STARTING_TIMEOUT_S = 1.0


class Program(ABC):
    """A server that lives as long as this object does.

    Args:
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        log_path: Where the server writes; None is a file in `directory`.
        detached: It outlives this process; end it with `end_group(program.pid, …)` and remove `directory`.
        progress: Called with a short line every few seconds while the server starts.

    Attributes:
        name: What it is called.
        ready_page: What it answers once it is ready.
        pid: The server's process, which leads a process group of its own.
        directory: Its temporary files, sockets among them, which nobody else may read; removed when it stops.
    """

    name = ""
    ready_page = "/health"

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        log_path: Path | None = None,
        detached: bool = False,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.host = host
        self.port = port
        self.pid = 0
        self.directory = Path()
        self.log_path = log_path or Path()
        self._detached = detached
        self._progress = progress
        self._was_ready = False
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    @property
    @abstractmethod
    def command(self) -> list[str]:
        """The command line of the server."""

    @abstractmethod
    def _environment(self) -> dict[str, str]:
        """The environment of the server."""

    @abstractmethod
    def explain(self, log: str) -> tuple[str, str]:
        """What of a failed server's log tells most, and a hint."""

    @property
    def files(self) -> Mapping[str, str]:
        """What the server reads out of `directory`, by the name of the file; nobody else may."""
        return {}

    @property
    def endpoint(self) -> str:
        """The engine's base URL, as a client on this machine uses it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - only compared
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def start(self) -> Self:
        """Start the server without waiting for it.

        Raises:
            EngineUnreachable: It is not installed, or the port is taken.
        """
        self.port = self.port or free_port()
        if port_is_taken(self.host, self.port):
            raise EngineUnreachable(
                f"port {self.port} on {self.host} is taken",
                hint="Choose another port, or --port 0 for a free one.",
            )
        self.directory = private_directory(f"pg_bridge-{self.name.lower()}")
        try:
            for name, text in self.files.items():
                with open(self.directory / name, "w", opener=_privately) as file:
                    file.write(text)
            command = self.command
            if self.log_path == Path():
                self.log_path = self.directory / "log"
            with open(self.log_path, "wb", opener=_privately) as log:
                # A group of its own: Ctrl-C at the terminal reaches vLLM's processes only through us.
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment(),
                    start_new_session=True,
                )
            self.pid = self._process.pid
            if not self._detached:
                self._guard = Guard(-self.pid, signal.SIGTERM, self.directory)
        except BaseException:
            self.stop()
            raise
        return self

    def wait(self, timeout_s: float = READY_TIMEOUT_S) -> Self:
        """Wait until the server answers; stop it and raise if it does not.

        Raises:
            EngineUnreachable: The server ended, or was not ready in time; the detail is the end of its log.
        """
        started = reported = time.monotonic()
        try:
            while not self._is_healthy():
                now = time.monotonic()
                if self.has_ended():
                    raise self.failure(f"{self.name} ended while it was starting")
                if now - started > timeout_s:
                    raise self.failure(f"{self.name} was not ready within {timeout_s:.0f} s")
                if now - reported >= 10:
                    reported = now
                    self._progress(f"{self.name} is starting, {now - started:.0f} s so far")
                time.sleep(0.1)
        except BaseException:
            self.stop()
            raise
        self._was_ready = True
        return self

    def has_ended(self) -> bool:
        """Say whether the server's process is gone."""
        return self._process is None or self._process.poll() is not None

    def stop(self) -> None:
        """End the server and every process that it started; harmless if it never ran."""
        try:
            if self.pid:
                end_group(self.pid, STOP_TIMEOUT_S if self._was_ready else STOP_WHILE_STARTING_TIMEOUT_S)
            if self._process:
                self._process.wait()
        finally:
            self.pid = 0
            if self.directory != Path():
                shutil.rmtree(self.directory, ignore_errors=True)
            if self._guard:
                self._guard.release()
                self._guard = None

    def __enter__(self) -> Self:
        """Start the server and wait for it."""
        return self.start().wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    def _is_healthy(self) -> bool:
        host = self.endpoint.removeprefix("http://").rpartition(":")[0].strip("[]")
        connection = http.client.HTTPConnection(host, self.port, timeout=5)
        try:
            connection.request("GET", self.ready_page)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def failure(self, message: str) -> EngineUnreachable:
        """An error with what its log tells."""
        log = tail(self.log_path, 1000)
        detail, hint = self.explain(log)
        error = EngineUnreachable(message, detail=detail, hint=hint)
        error.add_note(detail)
        return error


def _privately(path: str, flags: int) -> int:
    """Open a file that only its owner may read: a server's log may tell of what it was asked."""
    return os.open(path, flags, 0o600)

"""A throw-away PostgreSQL cluster on a free port, for tests, demos and development.

In: extra settings and environment variables. Out: a running server that finds pg_bridge in its embedded
Python, with a DSN, a socket and a log. It never touches a cluster that exists, and leaves nothing behind: its
directory is removed on every way out, even when this process is killed.

    with Cluster(settings={"work_mem": "64MB"}) as cluster:
        cluster.psql("CREATE EXTENSION plpython3u")
        psycopg.connect(cluster.dsn)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pg_bridge.errors import PgBridgeError
from pg_bridge.serving.children import Guard, private_directory, tail, wait_until_gone
from pg_bridge.serving.ports import free_port
from pg_bridge.testing.binaries import (
    SUPERUSER,
    as_server_user,
    failed,
    find_binaries,
    give_to_server_user,
    has_module,
    make_data_directory,
    server_environment,
)
from pg_bridge.testing.python_path import copy_python

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0

_STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class Cluster:
    """A PostgreSQL cluster that lives as long as this object does.

    Args:
        settings: Lines for postgresql.conf, name to value.
        environment: Environment variables for the server; None as a value removes one.
        pg_config: Which PostgreSQL to use; None finds one.
        detached: The cluster outlives this process; end it with `Cluster.attach(directory).stop()`.
        initdb: Further arguments for initdb.

    Attributes:
        directory: All that the cluster owns: `data`, `python`, the socket and `log`.
        port: TCP port on 127.0.0.1, and the number in the socket's name.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str | None] | None = None,
        pg_config: str | None = None,
        detached: bool = False,
        initdb: Sequence[str] = (),
    ) -> None:
        self.binaries = find_binaries(pg_config)
        self.directory = Path()
        self.port = 0
        self._settings = dict(settings or {})
        self._environment = dict(environment or {})
        self._detached = detached
        self._initdb = initdb
        self._pid = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    @classmethod
    def attach(cls, directory: Path) -> Cluster:
        """Return the detached cluster that lives in `directory`.

        Raises:
            PgBridgeError: No cluster runs there.
        """
        cluster = cls(detached=True)
        cluster.directory = directory
        lines = cluster._pid_file()
        # The server stands in its data directory; a process that merely got its number later does not.
        if not lines or _working_directory(int(lines[0])) != directory / "data":
            raise PgBridgeError("no PostgreSQL cluster runs there any more")
        cluster._pid, cluster.port = int(lines[0]), int(lines[3])
        return cluster

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self.directory / "log"

    @property
    def python_path(self) -> Path:
        """The directory from which the server's embedded Python imports."""
        return self.directory / "python"

    @property
    def has_module(self) -> bool:
        """Whether the server has the native module; if so, sessions load it at their start."""
        return has_module(self.binaries)

    @property
    def dsn(self) -> str:
        """The connection string of the database `postgres`."""
        return self.dsn_of("postgres")

    def dsn_of(self, database: str) -> str:
        """Return the connection string of one database."""
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def client_environment(self, database: str = "postgres") -> dict[str, str]:
        """Return our environment with the libpq variables that lead to this cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return kept | {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": SUPERUSER,
            "PGDATABASE": database,
        }

    def psql(self, sql: str, *, database: str = "postgres", arguments: tuple[str, ...] = ("-qAt",)) -> str:
        """Run statements with psql and return what it printed.

        Args:
            sql: Statements or psql commands; the first error ends the run.
            database: Where.
            arguments: How to print; the default prints bare values.

        Raises:
            PgBridgeError: A statement failed; its detail is what psql said.
        """
        outcome = subprocess.run(
            [self.binaries / "psql", "-X", "-v", "ON_ERROR_STOP=1", *arguments, "-f", "-"],
            input=sql,
            env=self.client_environment(database),
            capture_output=True,
            text=True,
            check=False,
        )
        if outcome.returncode:
            raise failed("psql failed", outcome.stderr.strip())
        return outcome.stdout

    def start(self) -> Self:
        """Create the cluster and start its server; on any failure nothing is left behind.

        Raises:
            PgBridgeError: initdb or the server failed; the detail is what it said.
        """
        self.directory = private_directory("pg_bridge")
        try:
            copy_python(self.python_path)
            give_to_server_user(self.directory)
            make_data_directory(self.binaries, self.directory / "data", self._initdb)
            self.resume()
        except BaseException:
            self.stop("immediate")
            raise
        return self

    def halt(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """End the server and keep its files. Until `resume`, nothing removes them if this process is killed.

        Args:
            mode: As for `stop`.
        """
        self._end_server(_STOP_SIGNALS[mode])
        self._pid = 0
        if self._guard:
            self._guard.release()
            self._guard = None

    def resume(self) -> None:
        """Start the server of a cluster that was halted, on another port.

        Raises:
            PgBridgeError: The server does not start; the detail is what it said.
        """
        for attempt in range(3):
            # Another process may take the port between our choice and the server's bind.
            if self._start_server(last_attempt=attempt == 2):
                break

    def run(self, program: str, *arguments: str) -> str:
        """Run one of the server's programs as the server's user, in the cluster's directory; returns what it printed.

        Raises:
            PgBridgeError: It failed; the detail is what it said.
        """
        outcome: subprocess.CompletedProcess[str] = subprocess.run(
            [self.binaries / program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=self.directory,
            env=server_environment(self.python_path, self._environment),
            **as_server_user(),
        )
        if outcome.returncode:
            raise failed(f"{program} failed", outcome.stdout.strip())
        return outcome.stdout

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """End the server and remove the cluster's directory; harmless if it never started.

        Args:
            mode: `fast` lets sessions roll back, `immediate` does not.
        """
        try:
            if self._pid:
                self._end_server(_STOP_SIGNALS[mode])
        finally:
            self._pid = 0
            if self.directory != Path():
                shutil.rmtree(self.directory, ignore_errors=True)
            if self._guard:
                self._guard.release()
                self._guard = None

    def __enter__(self) -> Self:
        """Start the cluster."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the cluster and remove it."""
        self.stop()

    def _start_server(self, *, last_attempt: bool) -> bool:
        self.port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
            # The cluster is thrown away after a crash, so nothing need survive one.
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": "100",
            **({"session_preload_libraries": "pg_bridge"} if self.has_module else {}),
        } | self._settings
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self.log_path.open("ab") as log:
            # A session of its own: Ctrl-C at the terminal must reach the server only through us.
            self._process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.directory / "data", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=server_environment(self.python_path, self._environment),
                start_new_session=True,
                **as_server_user(),
            )
        self._pid = self._process.pid
        if not self._detached:
            self._guard = Guard(self._pid, signal.SIGQUIT, self.directory)
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._pid_file()[7:8] == ["ready"]:
                return True
            time.sleep(0.02)
        if self._process.poll() is not None and not last_attempt and "could not bind" in tail(self.log_path):
            if self._guard:
                self._guard.release()
            return False
        raise failed("PostgreSQL did not start", tail(self.log_path))

    def _end_server(self, how: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, how)
            # A backend that does not react (a test's bug, say) must not keep the directory alive.
            if not wait_until_gone(self._pid, STOP_TIMEOUT_S):
                os.kill(self._pid, signal.SIGQUIT)
                if not wait_until_gone(self._pid, 5):
                    os.kill(self._pid, signal.SIGKILL)
        if self._process:
            self._process.wait()

    def _pid_file(self) -> list[str]:
        try:
            return [line.strip() for line in (self.directory / "data/postmaster.pid").read_text().splitlines()]
        except OSError:
            return []


def _working_directory(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None

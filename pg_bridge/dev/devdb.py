"""A throw-away database with an engine beside it, for development: `python -m pg_bridge.dev.devdb`.

In: `up`, `down`, `status`, or `run -- COMMAND`. Out: a cluster whose database `llm` has the extension and a
server `vllm` that points at the engine. `up` leaves both running and notes them in `.devdb/`; `run` ends what
it started when the command ends, also after Ctrl-C. It never touches a cluster that it did not start.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pg_bridge.errors import EngineUnreachable, PgBridgeError
from pg_bridge.options import MULTICORN_WRAPPER
from pg_bridge.serving.children import Guard, birth, end_group, interrupt_on_sigterm, tail
from pg_bridge.serving.demo import demo_engine
from pg_bridge.serving.launch import VllmEngine
from pg_bridge.testing.binaries import SUPERUSER
from pg_bridge.testing.cluster import Cluster

DATABASE = "llm"
EXTENSIONS = {"plpython": "pg_bridge", "multicorn": "pg_bridge_multicorn"}

EngineKind = Literal["vllm", "double"]
Host = Literal["plpython", "multicorn"]


@dataclass(slots=True)
class State:
    """What is running: the contents of `.devdb/state.json`.

    Attributes:
        engine_kind: Which engine.
        host: Which of the two extensions the database has.
        endpoint: The engine's base URL.
        model: The name the engine serves its model by.
        engine_pid: Leads the engine's process group.
        engine_birth: When that process started; another process of the same number started at another time.
        engine_directory: Its temporary files; empty for none.
        cluster: The cluster's directory.
        dsn: Of the database.
    """

    engine_kind: EngineKind
    host: Host
    endpoint: str
    model: str
    engine_pid: int
    engine_birth: int
    engine_directory: str
    cluster: str
    dsn: str

    @property
    def engine_runs(self) -> bool:
        """Whether the engine's process is there."""
        return self.engine_birth != 0 and birth(self.engine_pid) == self.engine_birth


class Double:
    """The engine double as a process of its own, with the face of `VllmEngine`."""

    def __init__(self, *, log_path: Path, detached: bool) -> None:
        self.model = ""
        self.endpoint = ""
        self.pid = 0
        self.log_path = log_path
        self._detached = detached
        self._guard: Guard | None = None

    def start(self) -> Double:
        """Start it and wait until it says where it listens."""
        with self.log_path.open("wb") as log:
            command = [sys.executable, "-m", "pg_bridge.testing.double", "--port", "0"]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.pid = process.pid
        if not self._detached:
            self._guard = Guard(-self.pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and process.poll() is None:
            lines = self.log_path.read_text().splitlines(keepends=True)
            for line in lines:
                if line.startswith("engine=") and line.endswith("\n"):
                    self.endpoint = line.removeprefix("engine=").strip()
                    return self
            time.sleep(0.05)
        detail = tail(self.log_path)
        self.stop()
        raise EngineUnreachable("the engine double did not start", detail=detail)

    def wait(self) -> Double:
        """Return at once: `start` has waited."""
        return self

    def stop(self) -> None:
        """End it; harmless if it never ran."""
        if self.pid:
            end_group(self.pid, 5)
            self.pid = 0
        if self._guard:
            self._guard.release()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parse(argv)
    folder: Path = arguments.state
    folder.mkdir(exist_ok=True)
    try:
        with interrupt_on_sigterm():
            if arguments.action == "up":
                return _up(folder, arguments.engine, arguments.host)
            if arguments.action == "run":
                return _run(folder, arguments.engine, arguments.host, arguments.command)
            if arguments.action == "down":
                return _down(folder)
            return _status(folder)
    except PgBridgeError as error:
        for label, text in (("failed", error.message), ("detail", error.detail), ("hint", error.hint)):
            if text:
                _say(f"{label}: {text}")
        return 1
    except KeyboardInterrupt:
        _say("interrupted")
        return 130


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="devdb", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--engine", choices=("vllm", "double"), default="vllm", help="(default: %(default)s)")
    parser.add_argument("--host", choices=tuple(EXTENSIONS), default="plpython", help="(default: %(default)s)")
    parser.add_argument("--state", type=Path, default=Path(".devdb"), help="(default: %(default)s)")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("up", help="start what does not run yet, and leave it running")
    actions.add_parser("down", help="end what `up` started")
    actions.add_parser("status", help="say what runs; exit status 3 if nothing does")
    run = actions.add_parser("run", help="run a command with both, then end what was started for it")
    run.add_argument("command", nargs="+", metavar="-- COMMAND")
    return parser.parse_args(argv)


def _up(folder: Path, kind: EngineKind, host: Host) -> int:
    with _alone(folder):
        state = _running(folder)
        if state and (state.engine_kind, state.host) == (kind, host):
            _say("already running")
        else:
            _end(folder)
            state = _start_detached(folder, kind, host)
    _print(state)
    return 0


def _down(folder: Path) -> int:
    with _alone(folder):
        _say("stopped" if _end(folder) else "nothing was running")
    return 0


def _status(folder: Path) -> int:
    state = _running(folder)
    if state is None:
        _say("not running; start it with `make devdb`")
        return 3
    _print(state)
    return 0


def _run(folder: Path, kind: EngineKind, host: Host, command: Sequence[str]) -> int:
    state = _running(folder)
    if state and (state.engine_kind, state.host) == (kind, host):
        _say("using the devdb that already runs")
        return _call(command, Cluster.attach(Path(state.cluster)), state.endpoint, state.model)
    log_path = folder / f"engine-{os.getpid()}.log"
    engine = _engine(kind, log_path, detached=False)
    cluster = Cluster()
    try:
        _start_both(engine, cluster, host)
        return _call(command, cluster, engine.endpoint, engine.model)
    finally:
        _say("stopping PostgreSQL and the engine")
        cluster.stop()
        engine.stop()
        log_path.unlink(missing_ok=True)


def _engine(kind: EngineKind, log_path: Path, *, detached: bool) -> VllmEngine | Double:
    if kind == "double":
        return Double(log_path=log_path, detached=detached)
    return demo_engine(log_path=log_path, detached=detached, progress=_say)


def _start_both(engine: VllmEngine | Double, cluster: Cluster, host: Host) -> None:
    """Start both and make the database, in parallel: vLLM takes half a minute, everything else seconds."""
    _say("starting the engine" + (" (vLLM takes about half a minute)" if isinstance(engine, VllmEngine) else ""))
    engine.start()
    _say("starting a throw-away PostgreSQL cluster")
    cluster.start()
    create_database(cluster, engine.endpoint, engine.model, host)
    engine.wait()


def create_database(cluster: Cluster, endpoint: str, model: str, host: Host = "plpython") -> None:
    """Make the database `llm` with the extension and a server `vllm` that points at the engine.

    Raises:
        PgBridgeError: The extension is not installed in this PostgreSQL, or its script failed.
    """
    options = [f"endpoint '{endpoint}'", *([f"model '{model}'"] if model else [])]
    mapping = ""
    if host == "multicorn":  # what its foreign tables need
        options.append(f"wrapper '{MULTICORN_WRAPPER}'")
        mapping = f"CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (user '{SUPERUSER}');"
    cluster.psql(f"CREATE DATABASE {DATABASE}")
    cluster.psql(
        "SET client_min_messages = warning;"
        f"CREATE EXTENSION {EXTENSIONS[host]} CASCADE;"
        f"CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS ({', '.join(options)});{mapping}",
        database=DATABASE,
    )


def _start_detached(folder: Path, kind: EngineKind, host: Host) -> State:
    engine = _engine(kind, folder / "engine.log", detached=True)
    cluster = Cluster(detached=True)
    try:
        _start_both(engine, cluster, host)
        state = State(
            engine_kind=kind,
            host=host,
            endpoint=engine.endpoint,
            model=engine.model,
            engine_pid=engine.pid,
            engine_birth=birth(engine.pid),
            engine_directory=str(engine.directory) if isinstance(engine, VllmEngine) else "",
            cluster=str(cluster.directory),
            dsn=cluster.dsn_of(DATABASE),
        )
        _state_file(folder).write_text(json.dumps(asdict(state), indent=2) + "\n")
    except BaseException:
        cluster.stop("immediate")
        engine.stop()
        raise
    return state


def _call(command: Sequence[str], cluster: Cluster, endpoint: str, model: str) -> int:
    environment = cluster.client_environment(DATABASE) | {
        "PATH": f"{cluster.binaries}{os.pathsep}{os.environ.get('PATH', '')}",
        "PG_BRIDGE_DSN": cluster.dsn_of(DATABASE),
        "PG_BRIDGE_ENGINE": endpoint,
        "PG_BRIDGE_MODEL": model,
    }
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        raise PgBridgeError(f"cannot run {command[0]}", detail=str(error)) from error
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        process.kill()
        process.wait()
        raise


def _running(folder: Path) -> State | None:
    """Return what runs, if both halves of it do."""
    state = _read(folder)
    if state is None or not state.engine_runs:
        return None
    try:
        Cluster.attach(Path(state.cluster))
    except PgBridgeError:
        return None
    return state


def _end(folder: Path) -> bool:
    """End what the state file names, whichever half of it still runs; say whether there was any."""
    state = _read(folder)
    if state is None:
        return False
    ended = state.engine_runs
    if ended:
        end_group(state.engine_pid, 15)
    if state.engine_directory:
        shutil.rmtree(state.engine_directory, ignore_errors=True)
    with contextlib.suppress(PgBridgeError):
        Cluster.attach(Path(state.cluster)).stop()
        ended = True
    _state_file(folder).unlink()
    return ended


def _read(folder: Path) -> State | None:
    try:
        return State(**json.loads(_state_file(folder).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _state_file(folder: Path) -> Path:
    return folder / "state.json"


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time start or end things; the kernel frees the lock however we go."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _print(state: State) -> None:
    print(f"dsn={state.dsn}\nengine={state.endpoint}", flush=True)


def _say(line: str) -> None:
    print(f"[devdb] {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())

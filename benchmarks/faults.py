"""What is asked a second time after a fault in the middle: of 5,000 questions, for each fault, host and way in.

A statement is begun on an engine double; when the engine has answered half of it, the fault is done: the backend or the
server killed, the client gone, the disk full. Then the same statement is run again, to its end. What the engine was
sent, had answered and had in flight is its own count; kept is what the second run need not ask. That one's answers are
compared with the engine's, row by row. Goal: what is sent again is what was in flight, `max_in_flight` at
most. Where the fault is one that the statement survives (a full disk, a second session that asks the same), what it
had to ask twice is told for what it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.hosts import Host, make_hosts
from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from pg_bridge.testing.behaviour import default_answer
from pg_bridge.testing.binaries import give_to_server_user
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble

Conn = psycopg.Connection[Any]

WITHIN_S = 60.0  # what hangs would take for ever
TIMEOUT_MS = 700  # of a statement whose engine has fallen silent
EMPTY_LEDGER_BYTES = 160 << 10
ANSWER_TIMES = 100  # is an answer longer where a disk is to be full; then it has some 1.5 kB
WAYS = {
    "llm.map": "SELECT (input ->> 'id')::int, output FROM llm.map('SELECT id, review FROM reviews WHERE id <= ROWS', "
    "'PROMPT', max_tokens => 1000)",
    "SELECT": "SELECT id, llm.complete('PROMPT', r, max_tokens => 1000) "
    "FROM (SELECT id, review FROM reviews WHERE id <= ROWS) AS r",
    "foreign table": "SELECT id, kind FROM FOREIGN_TABLE WHERE id <= ROWS",
}
_ID = re.compile(r'"id": ?"?(\d+)')


class Skipped(Exception):
    """Why a fault cannot be done here."""


@dataclass(slots=True)
class Outcome:
    """What one case came to, in prompts.

    Attributes:
        sent: To the engine, in the first run.
        answered: By it, until the fault.
        kept: What the second run did not ask.
        again: Sent in the second run, though they had been sent in the first; or twice by two sessions.
        in_flight: Sent and not answered when the fault came.
        wrong: Rows that have no answer at the end, or another one than the engine's.
    """

    sent: int = 0
    answered: int = 0
    kept: int = 0
    again: int = 0
    in_flight: int = 0
    wrong: int = 0


@dataclass
class Stage:
    """Where faults are done: a cluster of their own, an engine double, and what is to be asked.

    Attributes:
        cluster: Will be killed and started again.
        engine: The double; another one at the same port, after it was killed.
        rows: How many questions a statement asks.
        in_flight: The server's `max_in_flight`.
        delay_s: What the engine takes for a request.
    """

    cluster: Cluster
    rows: int
    in_flight: int
    delay_s: float
    engine: EngineDouble = field(init=False)
    _cases: int = 0

    def open(self) -> Stage:
        """Start the engine and make the databases' tables."""
        self.start_engine()
        return self

    def start_engine(self, port: int = 0) -> None:
        """Start a double."""
        self.engine = EngineDouble(port=port, delay_s=self.delay_s)
        self.engine.__enter__()

    def stop_engine(self) -> int:
        """Stop it; returns its port."""
        self.engine.__exit__(None, None, None)
        return int(self.engine.url.rpartition(":")[2])

    def hosts(self) -> list[Host]:
        """A database for each host, with rows to ask about."""
        hosts = make_hosts(self.cluster, self.engine.url)
        for host in hosts:
            if not host.skipped:
                with self.connect(host) as connection:
                    connection.execute(
                        "CREATE TABLE reviews AS SELECT i AS id, 'review ' || i AS review "
                        f"FROM generate_series(1, {self.rows}) AS i; ANALYZE reviews;"
                        "ALTER SERVER vllm OPTIONS (DROP cache, ADD max_retries '0', "
                        f"ADD connect_timeout_s '10', ADD max_in_flight '{self.in_flight}')".encode()
                    )
        return hosts

    def connect(self, host: Host) -> Conn:
        """A connection, as soon as the server is there."""
        until = time.monotonic() + WITHIN_S
        dsn = re.sub(r":\d+/", f":{self.cluster.port}/", host.dsn)  # a server that was stopped has another port now
        while True:
            try:
                return psycopg.connect(dsn, autocommit=True)
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def statement(self, host: Host, way: str) -> Callable[[int], str]:
        """A statement that nobody has run, as a function of how many rows it asks about."""
        self._cases += 1
        prompt = f"Is {{review}} of {{id}} kind, in case {self._cases}?"
        if way == "foreign table":
            with self.connect(host) as connection:
                connection.execute(
                    f"CREATE FOREIGN TABLE asked_{self._cases} (id int, review text, kind text OPTIONS (prompt "
                    f"'{prompt}', max_tokens '1000')) SERVER vllm OPTIONS (source 'reviews', key 'id')".encode()
                )
        text = WAYS[way].replace("PROMPT", prompt).replace("FOREIGN_TABLE", f"asked_{self._cases}")
        return lambda rows: text.replace("ROWS", str(rows))

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something is so."""
        until = time.monotonic() + WITHIN_S
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError(f"not within {WITHIN_S:.0f} s: {what}")
            time.sleep(0.002)

    def is_half_done(self) -> bool:
        """Whether the engine has answered half of what is to be asked."""
        return self.engine.received.answered >= self.rows // 2


class Running:
    """A statement that runs in a thread; whatever becomes of it is no error."""

    def __init__(self, stage: Stage, host: Host, statement: str, timeout_ms: int = 0) -> None:
        self.connection = stage.connect(host)
        self.pid = self.connection.info.backend_pid
        self.answers: list[tuple[Any, ...]] | None = None
        self.error = ""
        self._statement = statement
        if timeout_ms:
            self.connection.execute("SELECT llm.complete('Are all modules imported?')")  # which takes long
            self.connection.execute(f"SET statement_timeout = {timeout_ms}".encode())
            stage.engine.reset()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.answers = self.connection.execute(self._statement.encode()).fetchall()
        except psycopg.Error as error:
            self.error = str(error)

    @property
    def has_ended(self) -> bool:
        """Whether it has, one way or the other."""
        return not self._thread.is_alive()

    def end(self) -> None:
        """Wait for its end and let go of the connection."""
        self._thread.join(WITHIN_S)
        self.connection.close()


Fault = Callable[[Stage, Host, Callable[[int], str]], None]
"""Runs a statement to half of it and does the fault; afterwards the statement has ended and the server is there."""


def _in_the_middle(stage: Stage, host: Host, statement: str, act: Callable[[Running], object]) -> Running:
    running = Running(stage, host, statement)
    stage.wait(lambda: stage.is_half_done() or running.has_ended, "half of the answers")
    act(running)
    running.end()
    return running


def kill_backend(stage: Stage, host: Host, statement: Callable[[int], str]) -> None:
    """SIGKILL: the postmaster ends all backends and starts the server anew."""
    other = stage.connect(host)

    def is_ended() -> bool:
        try:
            other.execute("SELECT")
        except psycopg.OperationalError:
            return True
        return False

    _in_the_middle(stage, host, statement(stage.rows), lambda running: os.kill(running.pid, signal.SIGKILL))
    stage.wait(is_ended, "the end of another backend")  # before it the postmaster takes connections, and ends them
    other.close()


def terminate_backend(stage: Stage, host: Host, statement: Callable[[int], str]) -> None:
    """pg_terminate_backend."""
    with stage.connect(host) as other:
        end = lambda running: other.execute("SELECT pg_terminate_backend(%s)", [running.pid])  # noqa: E731
        _in_the_middle(stage, host, statement(stage.rows), end)


def close_client(stage: Stage, host: Host, statement: Callable[[int], str]) -> None:
    """The client's socket is shut, as when its process is killed."""

    def shut(running: Running) -> None:
        with socket.socket(fileno=os.dup(running.connection.fileno())) as its:
            its.shutdown(socket.SHUT_RDWR)

    running = _in_the_middle(stage, host, statement(stage.rows), shut)
    with stage.connect(host) as other:
        active = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
        stage.wait(lambda: other.execute(active, [running.pid]).fetchone() is None, "the backend's end")


def time_out(stage: Stage, host: Host, statement: Callable[[int], str]) -> None:
    """statement_timeout, of an engine that answers half and then falls silent."""
    wanted_ms = 1000 * stage.delay_s * stage.rows / stage.in_flight
    running = Running(stage, host, statement(stage.rows), timeout_ms=TIMEOUT_MS + int(wanted_ms))
    stage.wait(lambda: stage.is_half_done() or running.has_ended, "half of the answers")
    stage.engine.behaviour.hang = True
    running.end()
    stage.engine.behaviour.hang = False


def roll_back(stage: Stage, host: Host, statement: Callable[[int], str]) -> None:
    """ROLLBACK, after half of the rows."""
    with stage.connect(host) as connection:
        connection.execute("BEGIN")
        connection.execute(statement(stage.rows // 2).encode())
        connection.execute("ROLLBACK")


def kill_engine(stage: Stage, host: Host, statement: Callable[[int], str]) -> None:
    """The engine goes away, and is back for the second run."""
    received = stage.engine.received
    ports: list[int] = []
    with stage.connect(host) as connection:
        connection.execute("ALTER SERVER vllm OPTIONS (SET connect_timeout_s '0.2', ADD patience_s '0.2')")

    def kill(_: Running) -> None:
        stage.engine.behaviour.hang = True  # its last answers are not waited for
        ports.append(stage.stop_engine())

    _in_the_middle(stage, host, statement(stage.rows), kill)
    stage.start_engine(ports[0])
    stage.engine.received = received
    with stage.connect(host) as connection:
        connection.execute("ALTER SERVER vllm OPTIONS (SET connect_timeout_s '10', DROP patience_s)")


def stop_server(stage: Stage, host: Host, statement: Callable[[int], str]) -> None:
    """pg_ctl stop -m immediate, and start."""
    _in_the_middle(stage, host, statement(stage.rows), lambda _: stage.cluster.halt("immediate"))
    stage.cluster.resume()


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A disk of so many bytes, until the block ends; a backend that has files on it open keeps them until its own end.

    Raises:
        Skipped: Only root may mount one.
    """
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    if outcome.returncode:
        raise Skipped(f"cannot mount a small tmpfs: {outcome.stderr.strip().rpartition(': ')[2]}")
    try:
        give_to_server_user(folder)
        folder.chmod(0o700)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


FAULTS: dict[str, Fault] = {
    "backend killed (SIGKILL)": kill_backend,
    "pg_terminate_backend": terminate_backend,
    "client closed": close_client,
    "statement_timeout": time_out,
    "ROLLBACK": roll_back,
    "engine killed and back": kill_engine,
    "server stopped (immediate)": stop_server,
}


def run_again(fault: Fault, stage: Stage, host: Host, way: str) -> Outcome:
    """Do a fault in the middle of a statement, and run the statement again."""
    outcome = Outcome()
    statement = stage.statement(host, way)
    stage.engine.reset()
    fault(stage, host, statement)
    stage.wait(lambda: stage.engine.received.in_flight == 0, "the end of what is in flight")
    first = list(stage.engine.received.prompts)
    outcome.sent, outcome.answered = len(first), stage.engine.received.answered
    outcome.in_flight = outcome.sent - outcome.answered
    stage.engine.reset()
    with stage.connect(host) as connection:
        answers = dict(connection.execute(statement(stage.rows).encode()).fetchall())
    second = stage.engine.received.prompts
    outcome.kept = stage.rows - len(second)
    outcome.again = len(set(first) & set(second))
    outcome.wrong = count_wrong(stage, answers, [*first, *second])
    return outcome


def run_on_full_disk(stage: Stage, host: Host, way: str) -> Outcome:
    """Run a statement while the ledger's disk is full, and run it again, on the same disk."""
    if not stage.cluster.has_module:
        raise Skipped("pg_bridge.ledger_directory is a setting of the native module")
    outcome = Outcome()
    statement = stage.statement(host, way)(stage.rows)
    stage.engine.reset()
    stage.engine.behaviour.answer = long_answer
    size_bytes = EMPTY_LEDGER_BYTES + stage.rows * len(long_answer("")) // 2
    with small_disk(stage.cluster.directory / "disk", size_bytes) as folder:
        stage.cluster.psql(f"ALTER SYSTEM SET pg_bridge.ledger_directory = '{folder}'")
        stage.cluster.psql("SELECT pg_reload_conf()")
        try:
            with stage.connect(host) as connection:
                wait_for_setting(stage, connection, str(folder))
                said: list[str] = []
                connection.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
                connection.execute(statement.encode())
                if len(said) != 1 or "cannot be used" not in said[0]:
                    raise AssertionError(f"the disk was not full: {said}")
                first = list(stage.engine.received.prompts)
                stage.engine.reset()
                answers = dict(connection.execute(statement.encode()).fetchall())
        finally:
            stage.engine.behaviour.answer = None
            stage.cluster.psql("ALTER SYSTEM RESET pg_bridge.ledger_directory")
            stage.cluster.psql("SELECT pg_reload_conf()")
    outcome.sent = outcome.answered = len(first)
    outcome.again = len(stage.engine.received.prompts)
    outcome.kept = stage.rows - outcome.again
    outcome.wrong = count_wrong(stage, answers, first, long_answer)
    return outcome


def long_answer(prompt: str) -> str:
    """An answer that takes room."""
    return default_answer(prompt) * ANSWER_TIMES


def wait_for_setting(stage: Stage, connection: Conn, folder: str) -> None:
    """Wait until a session has read the new configuration."""
    show = "SHOW pg_bridge.ledger_directory"
    stage.wait(lambda: connection.execute(show).fetchone() == (folder,), "the new setting")


def run_two_at_once(stage: Stage, host: Host, way: str) -> Outcome:
    """Let two sessions ask the same at once."""
    outcome = Outcome()
    statement = stage.statement(host, way)(stage.rows)
    stage.engine.reset()
    both = [Running(stage, host, statement) for _ in range(2)]
    for running in both:
        running.end()
    prompts = stage.engine.received.prompts
    outcome.sent, outcome.answered = len(prompts), stage.engine.received.answered
    outcome.again = len(prompts) - len(set(prompts))
    outcome.wrong = sum(count_wrong(stage, dict(running.answers or []), prompts) for running in both)
    stage.engine.reset()
    with stage.connect(host) as connection:
        connection.execute(statement.encode())
    outcome.kept = stage.rows - len(stage.engine.received.prompts)
    return outcome


def count_wrong(
    stage: Stage, answers: dict[int, str], prompts: list[str], answer: Callable[[str], str] = default_answer
) -> int:
    """How many rows have no answer, or another one than the engine gave to what was asked about them."""
    right = {int(found[1]): answer(prompt) for prompt in prompts if (found := _ID.search(prompt))}
    return sum(answers.get(i) != right.get(i) or i not in right for i in range(1, stage.rows + 1))


def ways_of(host: Host) -> list[str]:
    """The ways in, in which a statement asks more than one question at a time."""
    return [way for way in WAYS if not (way == "SELECT" and host.name == "multicorn")]


CASES: dict[str, Callable[[Stage, Host, str], Outcome]] = {
    **{name: partial(run_again, fault) for name, fault in FAULTS.items()},
    "disk full": run_on_full_disk,
    "two sessions at once": run_two_at_once,
}


def rows_of(stage: Stage, hosts: list[Host]) -> Iterator[str]:
    """Run all cases; a line for each."""
    yield (
        f"{'fault':<27} {'host':<10} {'way':<14} {'sent':>6} {'answered':>9} {'kept':>6} {'in flight':>10} "
        f"{'sent again':>11} {'wrong':>6}"
    )
    for name, case in CASES.items():
        for host in hosts:
            for way in ways_of(host) if not host.skipped else ["llm.map"]:
                line = f"{name:<27} {host.name:<10} {way:<14}"
                if host.skipped:
                    yield f"{line} {host.skipped}"
                    continue
                try:
                    got = case(stage, host, way)
                except Skipped as why:
                    yield f"{line} skipped: {why}"
                    continue
                yield (
                    f"{line} {got.sent:>6} {got.answered:>9} {got.kept:>6} {got.in_flight:>10} {got.again:>11} "
                    f"{got.wrong:>6}"
                )


def main() -> int:
    """Run the benchmark."""
    parser = parser_of("benchmarks.faults", __doc__)
    parser.add_argument("--rows", type=int, default=5_000, help="questions of a statement (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=256, help="max_in_flight (default: %(default)s)")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds of a request (default: %(default)s)")
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    report.add(f"{arguments.rows} questions, max_in_flight {arguments.in_flight}:")
    with Cluster() as cluster:
        stage = Stage(cluster, arguments.rows, arguments.in_flight, arguments.delay).open()
        try:
            for line in rows_of(stage, stage.hosts()):
                report.add(line)
        finally:
            stage.stop_engine()
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())

"""Does jobs, one after the other, and other work that is due, until it is told to stop.

    table of jobs → taken → as its role: its engine, both sides looked at, asked, written in parts → ended
                      ↑ heartbeats all the while, by which it learns of a cancel, and others that it lives

In: a database, engines. Out: answers in tables, and each job's state. What passes (an engine that is gone, another run
into the same table) has the job wait and tried again; what does not is its error. A signal ends a job at the end of a
part, and puts it back.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import psycopg

from pg_bridge.asking.ceilings import DAILY_KINDS
from pg_bridge.errors import (
    EngineDenied,
    EngineError,
    JobError,
    JobRunning,
    OptionError,
    PgBridgeError,
    UnknownModel,
    WrongWay,
)
from pg_bridge.jobs.asker import folder_of
from pg_bridge.jobs.database import Connection, Database, Session
from pg_bridge.jobs.engines import Engines
from pg_bridge.jobs.heartbeat import Heartbeat
from pg_bridge.jobs.opening import OpenJob
from pg_bridge.jobs.queue import APPLICATION, CHANNEL, MOST_TRIES, SESSION, Queue, Submitter, Taken, backoff_s
from pg_bridge.jobs.running import Stopped
from pg_bridge.jobs.trust import refusal
from pg_bridge.options import Server

PATIENCE_S = 60.0  # for an engine or a database that is gone, within a job; then others have their turn
LOOK_EVERY_S = 30.0  # without a word from anybody
AGAIN_S = 2.0  # until a target that another run writes into is tried again
TRUST_FOR_S = 60.0  # until a role's rights are looked at again
DEAF_AFTER_S = 30.0  # of one job. A session that listens and does not read keeps all notices of the server from passing


_PASSING = {"08", "40", "53", "55", "57"}  # classes of SQLSTATE: gone, in conflict, full, busy, ended by somebody


class Chore(Protocol):
    """Other work that is due now and then.

    Attributes:
        channels: On which NOTIFY tells that some may be.
    """

    @property
    def channels(self) -> Sequence[str]: ...  # noqa: D102

    def work(self) -> bool:
        """Do one step of what is due; whether there was any."""

    def due_in_s(self) -> float | None:
        """Seconds until some is due, if nobody tells before; None for no time."""


class Worker:
    """Does jobs.

    Args:
        dsn: The database, as for psql.
        database: A connection to it, as who logged in.
        engines: Where jobs ask.
        trusted: Roles that may reach all that the login reaches.
        ledger: A folder where answers are kept, too, each role's in one of its own; None for none.
        patience_s: How long a job waits for an engine or a database that is gone, before it is put back.
        chores: Other work.
        say: Is told what goes on, in words.
        check: Called often; raises `Stopped` to stop.
    """

    def __init__(
        self,
        dsn: str,
        database: Database,
        engines: Engines,
        *,
        trusted: Collection[str] = (),
        ledger: Path | None = None,
        patience_s: float = PATIENCE_S,
        chores: Sequence[Chore] = (),
        say: Callable[[str], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._dsn = dsn
        self._database = database
        self._engines = engines
        self._trusted = tuple(trusted)
        self._ledger = ledger
        self._patience_s = patience_s
        self._chores = tuple(chores)
        self._say = say
        self._check = check
        self._queue = Queue(database, engines.schema, self.name)
        self._refusals: dict[Submitter, tuple[float, str | None]] = {}
        self._listens_by = 0  # the generation of the connection that listens
        self._is_told = False
        self._running: OpenJob | None = None

    def run(self, *, until_idle: bool = False) -> None:
        """Do what there is to do, and wait for more.

        Args:
            until_idle: Whether to return when nothing is due.

        Raises:
            Stopped: `check` has raised it.
            PgBridgeError: The table of jobs cannot be used.
        """
        while True:
            self._check()
            self._database.run(self._listen)  # before looking, so that nothing that comes meanwhile is missed
            self._is_told = False
            if self.work():
                continue
            if sum(chore.work() for chore in self._chores):  # each has its turn
                continue
            if until_idle:
                return
            self._wait()

    def work(self) -> bool:
        """Do one job; whether there was one."""
        served = [each for each in self._queue.submitters() if self.refusal(each) is None]
        job = self._queue.take(served) if served else None
        if job is None:
            return False
        self._do(job)
        return True

    def refusal(self, submitter: Submitter) -> str | None:
        """Why a role's jobs are not done here; None where they are."""
        known = self._refusals.get(submitter)
        if known is None or time.monotonic() - known[0] > TRUST_FOR_S:
            why = self._database.run(lambda c: refusal(c, submitter.name, submitter.oid, self._trusted))
            if why is not None:
                self._say(f"jobs of {submitter.name} are left: {why}")
                self._queue.refuse(submitter, f"left by {self.name}: {why}")
            known = self._refusals[submitter] = (time.monotonic(), why)
        return known[1]

    def interrupt(self) -> None:
        """End a query that is being read, so that `check` is called soon; may be called by a signal handler."""
        if self._running is not None:
            self._running.interrupt()

    def _do(self, job: Taken) -> None:
        """Do a job to its end, or until somebody wants it to stop.

        Raises:
            Stopped: `check` has raised it; the job is put back.
        """
        if job.is_cancelled:
            self._queue.end(job, "cancelled")
            return
        if job.tries >= MOST_TRIES:
            self._queue.end(job, "failed", f"{MOST_TRIES} tries were in vain; workers that did it died")
            return
        heartbeat = Heartbeat(self._dsn, SESSION, self._engines.schema, self.name, job, self.interrupt)
        try:
            with closing(heartbeat):
                self._ask(job, heartbeat)
        except Stopped:
            self._queue.beat(job, heartbeat.figures())
            if heartbeat.stopped is None:
                self._queue.put_back(job, tries=job.tries)
                raise
            self._say(f"job {job.id}: {heartbeat.stopped}")
            self._queue.end(job, "cancelled")  # which changes nothing where it is another worker's
        except PgBridgeError as error:
            self._queue.beat(job, heartbeat.figures())
            self._fail(job, heartbeat, error)
        except Exception as error:  # whatever a job may hit, others go on
            self._say(f"job {job.id}: internal error: {error!r}")
            self._queue.end(job, "failed", f"internal error: {type(error).__name__}")
        else:
            self._queue.beat(job, heartbeat.figures())
            self._queue.end(job, "done")
            self._say(f"job {job.id}: done")

    def _ask(self, job: Taken, heartbeat: Heartbeat) -> None:
        record, path = self._queue.read(job)
        self._say(f"job {job.id} of {job.role}: into {record.target}")
        session = Session(APPLICATION, self._role(job), path)

        deaf_at = time.monotonic() + DEAF_AFTER_S

        def check() -> None:
            self._check()
            heartbeat.check()
            if time.monotonic() > deaf_at:
                self._database.close()  # made anew after the job, and then everything is looked at

        with closing(Database(self._dsn, session=session, patience_s=self._patience_s, check=check)) as database:
            database.connect()
            server = database.run(lambda connection: self._engines.find(connection, str(record.options["server"])))
        ledger = self._ledger and folder_of(self._ledger, job.role, job.role_oid)
        _check_budgets(server, ledger)
        with OpenJob(
            record,
            server,
            dsn=self._dsn,
            session=session,
            lock_within_s=0.0,
            ledger=ledger,
            patience_s=self._patience_s,
            say=lambda text: self._say(f"job {job.id}: {text}"),
            check=check,
        ) as opened:
            self._running = opened
            try:
                running = opened.open()
                heartbeat.watch(running.report, server)
                running.run()
            finally:
                self._running = None

    def _role(self, job: Taken) -> str | None:
        """The role to take on; None where it is who logged in."""
        row = self._database.run(lambda connection: connection.execute("SELECT session_user::text").fetchone())
        return None if row and row[0] == job.role else job.role

    def _fail(self, job: Taken, heartbeat: Heartbeat, error: PgBridgeError) -> None:
        """Let it wait, or end it."""
        self._say(f"job {job.id}: {error.message}")
        if isinstance(error, JobRunning):
            self._queue.put_back(job, after_s=AGAIN_S, note=error.message, tries=job.tries)
            return
        tries = 1 if heartbeat.has_progress else job.tries + 1
        if _passes(error) and tries < MOST_TRIES:
            self._queue.put_back(job, after_s=backoff_s(tries), note=error.message, tries=tries)
        else:
            self._queue.end(job, "failed", error.message, error.hint)

    def _listen(self, connection: Connection) -> None:
        if self._listens_by != self._database.generation:
            for channel in {CHANNEL, *(name for chore in self._chores for name in chore.channels)}:
                connection.execute(f"LISTEN {channel}".encode())
            connection.add_notify_handler(self._take_note)
            self._listens_by = self._database.generation

    def _wait(self) -> None:
        """Until somebody tells of work, or some may be due."""
        times = [self._queue.due_in_s(), *(chore.due_in_s() for chore in self._chores)]
        until = time.monotonic() + min([LOOK_EVERY_S, *(seconds for seconds in times if seconds is not None)])
        generation = self._database.generation
        while time.monotonic() < until and self._database.generation == generation:
            self._check()
            self._database.run(_receive)
            if self._is_told:
                return

    def _take_note(self, notify: psycopg.Notify) -> None:
        self._is_told = True


def _receive(connection: Connection) -> None:
    """Take what the server has to say, waiting a moment for it."""
    if select.select([connection.fileno()], [], [], 0.2)[0]:
        connection.execute("SELECT")  # by which psycopg reads what has come, and calls our handler


def _passes(error: PgBridgeError) -> bool:
    """Whether it may be over at another time."""
    if isinstance(error, JobError):
        return error.sqlstate[:2] in _PASSING
    return isinstance(error, EngineError) and not isinstance(error, EngineDenied | UnknownModel | WrongWay)


def _check_budgets(server: Server, ledger: Path | None) -> None:
    """See that limits of a day can be counted."""
    if ledger is None and any(getattr(server, f"daily_{kind}") is not None for kind in DAILY_KINDS):
        raise OptionError(
            f'server "{server.name}" allows so much a day, which a worker counts in a ledger, and this one has none',
            hint="Start it with --ledger FOLDER. It counts what jobs take, beside what statements do.",
        )

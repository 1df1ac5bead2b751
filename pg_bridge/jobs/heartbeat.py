"""Heartbeats of a job that is being done, in a thread of their own, as the job may be at a statement for hours.

In: the job, its figures. Out: a row that is renewed every two seconds, and to the job whether it has been cancelled or
is another worker's by now. It shares no connection with the job.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pg_bridge.errors import PgBridgeError
from pg_bridge.jobs.database import Database, Session
from pg_bridge.jobs.queue import BEAT_EVERY_S, Queue, Taken, figures_of
from pg_bridge.jobs.report import Report
from pg_bridge.jobs.running import Stopped
from pg_bridge.options import Server

FOREVER_S = float("inf")


class Heartbeat:
    """Beats from its making until it is closed.

    Args:
        dsn: The database, as for psql.
        session: What its connection is.
        schema: That of the jobs.
        worker: The worker's name.
        job: The job.
        interrupt: Ends a query that the job is reading.

    Attributes:
        stopped: Why the job is to stop; None where it is not.
    """

    def __init__(
        self, dsn: str, session: Session, schema: str, worker: str, job: Taken, interrupt: Callable[[], None]
    ) -> None:
        self.stopped: Literal["cancelled", "lost"] | None = None
        self._over = threading.Event()
        self._database = Database(dsn, session=session, patience_s=FOREVER_S, check=self._check_over)
        self._queue = Queue(self._database, schema, worker)
        self._job = job
        self._interrupt = interrupt
        self._watched: tuple[Report, Server] | None = None
        self._thread = threading.Thread(target=self._run, name=f"heartbeat of job {job.id}", daemon=True)
        self._thread.start()

    @property
    def has_progress(self) -> bool:
        """Whether anything has been answered."""
        return self._watched is not None and self._watched[0].done > 0

    def watch(self, report: Report, server: Server) -> None:
        """Tell of these figures from now on."""
        self._watched = report, server

    def figures(self) -> Mapping[str, Any]:
        """What there is to tell now."""
        return {} if self._watched is None else figures_of(*self._watched)

    def check(self) -> None:
        """Raise `Stopped` once the job is to stop."""
        if self.stopped is not None:
            raise Stopped

    def close(self) -> None:
        """End; may be called twice."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self.stopped is None and not self._over.wait(BEAT_EVERY_S):
                # An error may pass. If not, the job is another worker's soon: the target's lock keeps the two apart.
                with contextlib.suppress(PgBridgeError):
                    self._beat()
        except Stopped:
            pass
        finally:
            self._database.close()

    def _beat(self) -> None:
        is_cancelled = self._queue.beat(self._job, self.figures())
        if is_cancelled is None or is_cancelled:
            self.stopped = "lost" if is_cancelled is None else "cancelled"
            self._interrupt()

    def _check_over(self) -> None:
        if self._over.is_set():
            raise Stopped

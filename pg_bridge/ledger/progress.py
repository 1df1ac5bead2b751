"""How far the running statements are, for other sessions to see: one row for each statement and server of a process.

In: where a statement stands, as often as anybody likes to tell. Out: rows, written at most once a second, and none for
what is done in a moment. They go with their statement; those of a process that is gone are passed over, and removed
by the next statement that writes.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from itertools import count
from typing import Any

from pg_bridge.ledger import shares
from pg_bridge.ledger.database import Database
from pg_bridge.ledger.process import Process, this_process
from pg_bridge.ledger.shares import Shares

FIRST_AFTER_S = 0.2  # what ends before costs nothing
EVERY_S = 1.0
RATE_OVER = 10  # the latest rows written, and so some seconds, tell how fast questions are answered
_TRIES = 3  # to remove a row while others write

_COLUMNS = (
    "pid INTEGER",
    "began INTEGER",
    "number INTEGER",
    "role INTEGER",
    "role_name TEXT",
    "database TEXT",
    "server TEXT",
    "started REAL",
    "rows_read INTEGER",
    "asked INTEGER",
    "answered INTEGER",
    "from_cache INTEGER",
    "in_flight INTEGER",
    "prompt_tokens INTEGER",
    "cached_tokens INTEGER",
    "completion_tokens INTEGER",
    "cost REAL",
    "expected_end REAL",
    "engines TEXT",
    "updated REAL",
)
SCHEMA = f"CREATE TABLE jobs ({', '.join(_COLUMNS)}, PRIMARY KEY (pid, began, number)) WITHOUT ROWID"

_NAMES = [column.split()[0] for column in _COLUMNS]
_WRITE = f"INSERT OR REPLACE INTO jobs VALUES ({', '.join('?' * len(_NAMES))})"
_SHOWN = [name for name in _NAMES if name not in ("began", "number", "role")]
_NUMBERS = count(1)
_LEFT: list[tuple[int, int, int]] = []  # rows that should have been removed, and could not be


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose statement it is.

    Attributes:
        role: The role's oid.
        role_name: Its name.
        database: The database's name.
        server: The name of the server that is asked.
    """

    role: int
    role_name: str
    database: str
    server: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a statement stands with one server. Tokens are the engine's own, None where it does not tell.

    Attributes:
        asked: Questions that went to the engine.
        answered: Those of them that it has answered.
        from_cache: Questions whose answers were known.
        in_flight: Questions that it is answering.
        left: Questions that have no answer yet; None while nobody knows.
        prompt_tokens: Of all answered questions.
        cached_tokens: Those of them that came from the engine's cache.
        completion_tokens: Of all answers.
        cost: At the server's prices; None if it has none.
        engines: What each engine had of it, where the server has several.
    """

    asked: int = 0
    answered: int = 0
    from_cache: int = 0
    in_flight: int = 0
    left: int | None = 0
    prompt_tokens: int | None = 0
    cached_tokens: int | None = 0
    completion_tokens: int | None = 0
    cost: float | None = 0.0
    engines: Shares = field(default_factory=dict)

    def __add__(self, other: Standing) -> Standing:
        """Where both stand together; what is not known of one is not known of both."""
        sums: dict[str, Any] = {"engines": shares.plus(self.engines, other.engines)}
        for name in _FIGURES:
            mine, its = getattr(self, name), getattr(other, name)
            sums[name] = None if mine is None or its is None else mine + its
        return Standing(**sums)


_FIGURES = [each.name for each in fields(Standing) if each.name != "engines"]


class Job:
    """One statement's questions to one server, told to others while they are asked.

    Args:
        database: The file that tells what runs.
        owner: Whose statement it is.
        clock: Seconds that never go back.

    Attributes:
        rows_read: Rows that have been read for it; whoever reads some counts them in.
    """

    def __init__(self, database: Database, owner: Owner, clock: Callable[[], float] = time.monotonic) -> None:
        self.rows_read = 0
        self._database = database
        self._owner = owner
        self._clock = clock
        self._number = next(_NUMBERS)
        self._started = time.time()
        self._done = Standing()
        self._process: Process | None = None  # of the row, once there is one
        self._next = clock() + FIRST_AFTER_S
        self._answered: deque[tuple[float, int]] = deque([(clock(), 0)], RATE_OVER)

    def tick(self, stand: Callable[[], Standing]) -> None:
        """Write where the run that is on stands, with those that are done, if that is due; to be called often."""
        now = self._clock()
        if now >= self._next:
            self._next = now + EVERY_S
            self._write(self._done + stand(), now)

    def add(self, standing: Standing) -> None:
        """Count in where one of the statement's runs stood at its end."""
        self._done += standing

    def end(self) -> None:
        """Remove the row, if there is one; the statement may ask again, and then has another."""
        if self._process is not None:
            _LEFT.append((*self._process, self._number))
            self._process = None
            for _ in range(_TRIES):
                if self._database.run(_remove_left, default=False):
                    _LEFT.clear()
                    break

    def _write(self, standing: Standing, now: float) -> None:
        expected_end = self._expect_end(standing, now)
        process = this_process()
        row = (
            *process,
            self._number,
            self._owner.role,
            self._owner.role_name,
            self._owner.database,
            self._owner.server,
            self._started,
            self.rows_read,
            standing.asked,
            standing.answered,
            standing.from_cache,
            standing.in_flight,
            standing.prompt_tokens,
            standing.cached_tokens,
            standing.completion_tokens,
            standing.cost,
            expected_end,
            json.dumps(shares.rows(standing.engines)) if standing.engines else None,
            time.time(),
        )
        is_first = self._process is None

        def write(connection: sqlite3.Connection) -> bool:
            if is_first:
                remove_gone(connection)
                _remove_left(connection)
            connection.execute(_WRITE, row)
            return True

        if is_first:
            self._database.look()
        if self._database.run(write, default=False):
            self._process = process
            if is_first:
                _LEFT.clear()

    def _expect_end(self, standing: Standing, now: float) -> float | None:
        """When all will be answered, at the speed of the last seconds; None where that cannot be told."""
        since, answered = self._answered[0]
        self._answered.append((now, standing.answered))
        if standing.left is None or standing.answered <= answered or now <= since:
            return None
        return time.time() + standing.left * (now - since) / (standing.answered - answered)


def listed(connection: sqlite3.Connection, role: int | None, database: str | None) -> list[dict[str, object]]:
    """What runs, of one role or of all, in one database or in all; the longest running first.

    Times are seconds since 1970.
    """
    rows = connection.execute(
        f"SELECT {', '.join(_NAMES)} FROM jobs WHERE (?1 IS NULL OR role = ?1) AND (?2 IS NULL OR database = ?2) "
        "ORDER BY started, pid, number",
        (role, database),
    )
    named = (dict(zip(_NAMES, row, strict=True)) for row in rows.fetchall())
    shown = ({name: row[name] for name in _SHOWN} for row in named if Process(row["pid"], row["began"]).is_alive)
    return [{**row, "engines": json.loads(row["engines"] or "null")} for row in shown]


def remove_gone(connection: sqlite3.Connection) -> None:
    """Remove the rows of processes that are gone."""
    for process in map(Process._make, connection.execute("SELECT DISTINCT pid, began FROM jobs").fetchall()):
        if not process.is_alive:
            connection.execute("DELETE FROM jobs WHERE (pid, began) = (?, ?)", process)


def _remove_left(connection: sqlite3.Connection) -> bool:
    connection.executemany("DELETE FROM jobs WHERE (pid, began, number) = (?, ?, ?)", _LEFT)
    return True

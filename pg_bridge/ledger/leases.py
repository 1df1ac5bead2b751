"""The tables of what is in flight: who holds how many prompts of which server, and what is left of a minute's amounts.

In: a connection to `running.db`, in a transaction of its caller's. Out: rows. What was written by a process that has
ended, or before the machine's clock began anew, is not believed.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import NamedTuple

from pg_bridge.ledger import sharing
from pg_bridge.ledger.process import Process, is_used
from pg_bridge.ledger.sharing import Claim

SCHEMA = """
CREATE TABLE leases (
    server TEXT, pid INTEGER, began INTEGER, number INTEGER, held INTEGER, waits_since REAL, seen REAL,
    PRIMARY KEY (server, pid, began, number)
) WITHOUT ROWID;
CREATE TABLE limits (server TEXT PRIMARY KEY, shut_until REAL, requests REAL, tokens REAL, filled REAL) WITHOUT ROWID
"""

LONGEST_WAIT_S = 60.0  # for which an engine shuts out everybody by one word
QUIET_S = 60.0  # who has not looked at its answers for so long is taken to have them
BEAT_S = 5.0  # who has prompts in flight says so as often
WAITS_S = 2.0  # who waits and does not come by for so long is passed over
AHEAD_S = 1.0  # a moment that is as far ahead was written before the clock began anew
OLD_S = 3 * BEAT_S  # of processes that seem to live only those that said nothing for so long are looked at closely


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be asked of a server.

    Attributes:
        in_flight: Prompts that may await an answer at one time.
        requests_per_minute: None for no limit.
        tokens_per_minute: None for no limit.
    """

    in_flight: int
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class Holder(NamedTuple):
    """Who has a lease of a server: one run of a process."""

    server: str
    process: Process
    number: int


class Lease(NamedTuple):
    """What a run holds.

    Attributes:
        holder: The run.
        held: Its prompts in flight.
        waits_since: Since when it waits for more; None if it does not.
        seen: When it last said so.
    """

    holder: Holder
    held: int
    waits_since: float | None
    seen: float


class Levels(NamedTuple):
    """What is left at this moment.

    Attributes:
        shut_until: Until when the engine asked not to be sent anything.
        requests: What is left in the bucket of requests; less than none if more were sent; meaningless without a limit.
        tokens: The same of tokens.
    """

    shut_until: float
    requests: float
    tokens: float


def others(connection: sqlite3.Connection, holder: Holder, now: float) -> list[Claim]:
    """What others hold of the same server and wait for, as far as it is to be believed.

    A moment to come is one of a clock that has begun anew since.
    """
    return list(
        map(
            Claim._make,
            connection.execute(
                """
                SELECT held, waits FROM (
                    SELECT CASE WHEN abs(?2 - seen) < ?3 THEN held ELSE 0 END AS held,
                           CASE WHEN abs(?2 - seen) < ?4 THEN waits_since END AS waits
                    FROM leases WHERE server = ?1 AND (pid, began, number) <> (?5, ?6, ?7)
                ) WHERE held > 0 OR waits IS NOT NULL
                """,
                (holder.server, now, QUIET_S, WAITS_S, *holder.process, holder.number),
            ),
        )
    )


def put(connection: sqlite3.Connection, lease: Lease) -> None:
    """Write a lease, or remove it if it holds and wants nothing."""
    if lease.held or lease.waits_since is not None:
        server, process, number = lease.holder
        connection.execute(
            "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?, ?)", (server, *process, number, *lease[1:])
        )
    else:
        remove(connection, lease.holder)


def remove(connection: sqlite3.Connection, holder: Holder) -> None:
    """Remove a lease."""
    connection.execute(
        "DELETE FROM leases WHERE (server, pid, began, number) = (?, ?, ?, ?)",
        (holder.server, *holder.process, holder.number),
    )


def bury(connection: sqlite3.Connection, server: str, now: float) -> bool:
    """Remove the leases of a server whose processes have ended; whether there were any."""
    rows = connection.execute("SELECT pid, began, number, seen FROM leases WHERE server = ?", [server])
    dead = [
        Holder(server, Process(pid, began), number)
        for pid, began, number, seen in rows
        if not is_used(pid) or (abs(now - seen) > OLD_S and not Process(pid, began).is_alive)
    ]
    for holder in dead:
        remove(connection, holder)
    return bool(dead)


def levels(connection: sqlite3.Connection, server: str, limits: Limits, now: float) -> Levels:
    """What is left of a server's limits."""
    row = connection.execute(
        "SELECT shut_until, requests, tokens, filled FROM limits WHERE server = ?", [server]
    ).fetchone()
    if row is None or row[3] > now + AHEAD_S:
        row = (0.0, None, None, now)
    shut_until, requests, tokens, filled = row
    return Levels(
        shut_until if shut_until <= now + LONGEST_WAIT_S else 0.0,
        _filled(requests, now - filled, limits.requests_per_minute),
        _filled(tokens, now - filled, limits.tokens_per_minute),
    )


def put_levels(connection: sqlite3.Connection, server: str, left: Levels, limits: Limits, now: float) -> None:
    """Write what is left of a server's limits."""
    requests = None if limits.requests_per_minute is None else _filled(left.requests, 0, limits.requests_per_minute)
    tokens = None if limits.tokens_per_minute is None else _filled(left.tokens, 0, limits.tokens_per_minute)
    connection.execute(
        "INSERT OR REPLACE INTO limits VALUES (?, ?, ?, ?, ?)", (server, left.shut_until, requests, tokens, now)
    )


def _filled(level: float | None, elapsed_s: float, per_minute: int | None) -> float:
    if per_minute is None:
        return 0.0
    return sharing.full(per_minute) if level is None else sharing.fill(level, elapsed_s, per_minute)

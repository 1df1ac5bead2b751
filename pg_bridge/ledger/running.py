"""What holds for all sessions of a cluster that ask one server: places in flight, rates, an engine's wish for patience.

In: what a session would like to send. Out: how much of it may go now. What each session holds stands as a lease in
`running.db`, which is worth nothing once its process has ended: then nobody counts it, and whoever waits removes it.
Nothing here waits for longer than SQLite does for a lock, some milliseconds: whoever gets nothing asks again. Where the
file cannot be had, the same limits hold among what this process asks.

The clock is that of `time.monotonic`: one for all processes of a machine, which nobody sets.
"""

from __future__ import annotations

import math
import random
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple, Protocol, TypeVar

from pg_bridge.ledger import leases, sharing
from pg_bridge.ledger.leases import BEAT_S, LONGEST_WAIT_S, Holder, Lease, Levels, Limits
from pg_bridge.ledger.process import this_process
from pg_bridge.ledger.sharing import Claim

T = TypeVar("T")

MARK_S = 0.5  # who waits says so as often
BURY_EVERY_S = 0.25  # who waits looks as often for leases of the dead
FIRST_LOOK_S, LAST_LOOK_S = 0.005, 0.1  # how soon to ask again, by how many come before
TURNS_AT_ONCE = 4  # of so many places or fewer each is looked for by itself
LONGEST_LOOK_S = 1.0  # at rates, of which others may give something back
LOCKED_OUT_S = 5.0  # then the limits of this process have to do
JITTER = 0.1

_NUMBERS = count()  # of the gates of this process


class Store(Protocol):
    """Where leases are; `pg_bridge.ledger.database` has one that all processes share."""

    @property
    def is_full(self) -> bool:
        """Whether it cannot be written for a while, for want of room or of rights."""

    def run(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        """Do a piece of work in one transaction that may write; the default if that cannot be now."""

    def read(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        """Do a piece of work that only reads; the default if that cannot be now."""


class _OwnStore:
    """A store of this process."""

    is_full = False

    def __init__(self) -> None:
        self._connection = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False
        )  # one after the other, all the same
        self._connection.executescript(leases.SCHEMA)

    def run(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        return work(self._connection)

    read = run


class Running:
    """What runs now, as one process sees it.

    Args:
        store: Shared with other processes; None if there is none.
        warn: Is told (kind, message, hint) of trouble with the store that the store itself does not tell of.
        clock: Seconds, the same for all processes.

    Attributes:
        own_store: Where leases are when none can be shared.
        left: Leases that could not be given back.
    """

    def __init__(
        self,
        store: Store | None = None,
        warn: Callable[[str, str, str], None] = lambda kind, message, hint: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.own_store: Store = _OwnStore()
        self.store = store or self.own_store
        self.warn = warn
        self.clock = clock
        self.left: list[Holder] = []
        self._process = this_process()

    def gate(self, server: str, limits: Limits) -> ServerGate:
        """A way to a server, for one run after another.

        Args:
            server: What tells it from others: its engine, and whose limits these are.
            limits: As all who ask it have them.
        """
        return ServerGate(self, Holder(server, self._process, next(_NUMBERS)), limits)


class _Wish(NamedTuple):
    prompts: int
    requests: int
    tokens_each: int


class _Answer(NamedTuple):
    granted: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class _Own:
    """What a gate holds and knows; the store has it as soon as it can be written.

    Attributes:
        held: Prompts in flight.
        waits_since: Since when it waits for more; None if it does not.
        requests: Sent, and not counted yet.
        tokens: Taken, and not counted yet; negative for those that were counted and not taken.
        shut_until: Until when the engine asked for patience, as this gate has heard.
        is_told: Whether the store says so.
    """

    held: int = 0
    waits_since: float | None = None
    requests: int = 0
    tokens: int = 0
    shut_until: float = 0.0
    is_told: bool = True


class ServerGate:
    """One session's way to a server; see `pg_bridge.engine.gate` for what its methods mean."""

    def __init__(self, running: Running, holder: Holder, limits: Limits) -> None:
        self._running = running
        self._store = running.store
        self._holder = holder
        self._limits = limits
        self._own = _Own()
        self._told_at = 0.0
        self._told_held = 0
        self._bury_at = 0.0
        self._tend_at = 0.0
        self._locked_since: float | None = None

    def take(self, prompts: int, requests: int, tokens_each: int) -> tuple[int, float]:
        """Ask to send prompts now; returns how many may be, and after how many seconds to ask again for the others."""
        wish, now = _Wish(prompts, requests, tokens_each), self._running.clock()
        if self._has_places_for(prompts) and now < self._told_at + BEAT_S:
            found = self._store.read(lambda connection: self._look(connection, wish, now), None)
            if found is not None and found[0].granted == prompts:  # which nobody else waits for
                held = self._own.held + prompts
                self._own = replace(self._own, held=held, is_told=held == self._told_held)
                return found[0]
        if self._own.waits_since is not None and self._own.is_told and now < min(self._told_at + MARK_S, self._bury_at):
            found = self._store.read(lambda connection: self._look(connection, wish, now), None)
            if found is not None and not found[0].granted:
                return found[0]  # which most are that have to wait, and none of them has to lock anything
        return self._write(lambda connection: self._take(connection, wish), now) or _Answer(0, FIRST_LOOK_S)

    def spend(self, requests: int) -> None:
        """Count requests that are sent beyond what was asked for."""
        self._own = replace(self._own, requests=self._own.requests + requests, is_told=False)

    def give_back(self, prompts: int, tokens: int = 0) -> None:
        """Tell that prompts are no longer in flight."""
        own = self._own
        self._own = replace(own, held=max(0, own.held - prompts), tokens=own.tokens + tokens, is_told=False)

    def slow_down(self, seconds: float) -> None:
        """Tell that the engine asks not to be sent anything for so long."""
        until = self._running.clock() + min(seconds, LONGEST_WAIT_S)
        self._own = replace(self._own, shut_until=max(self._own.shut_until, until), is_told=False)
        self.tend()

    def shut_s(self) -> float:
        """Seconds for which nothing may be sent."""
        now, server = self._running.clock(), self._holder.server
        found = self._store.read(lambda connection: leases.levels(connection, server, self._limits, now), None)
        return max(0.0, self._own.shut_until - now, found.shut_until - now if found else 0.0)

    def tend(self) -> None:
        """Tell the others what they do not know yet."""
        if self._own.is_told and not self._own.held:
            return
        now = self._running.clock()
        if now >= self._tend_at and (not self._own.is_told or now - self._told_at > BEAT_S):
            self._tend_at = 0.0 if self._write(self._catch_up, now) else now + FIRST_LOOK_S

    def leave(self) -> None:
        """Give back all that is held."""
        own = self._own
        if own.held or own.waits_since is not None or not own.is_told:
            self._own = replace(own, held=0, waits_since=None, is_told=False)
            self._tend_at = 0.0
            self.tend()
            if not self._own.is_told:
                self._running.left.append(self._holder)

    def _has_places_for(self, prompts: int) -> bool:
        """Whether the store counts more as held than is, so that more may be held without a word to anybody."""
        is_rated = self._limits.requests_per_minute is not None or self._limits.tokens_per_minute is not None
        return not is_rated and self._own.waits_since is None and self._own.held + prompts <= self._told_held

    def _take(self, connection: sqlite3.Connection, wish: _Wish) -> tuple[_Own, _Answer]:
        now = self._running.clock()  # after the wait for the lock: moments in the store go up
        answer, left = self._look(connection, wish, now)
        if answer.granted < wish.prompts and now >= self._bury_at:
            self._bury_at = now + BURY_EVERY_S
            if leases.bury(connection, self._holder.server, now):
                answer, left = self._look(connection, wish, now)
        own, granted = self._own, answer.granted
        own = replace(
            own,
            held=own.held + granted,
            requests=own.requests + math.ceil(granted * wish.requests / wish.prompts),
            tokens=own.tokens + granted * wish.tokens_each,
        )
        if granted == wish.prompts:
            own = replace(own, waits_since=None)
        elif granted or own.waits_since is None:  # behind the others again
            own = replace(own, waits_since=now)
        self._tell(connection, own, left, now)
        return own, answer

    def _catch_up(self, connection: sqlite3.Connection) -> tuple[_Own, _Answer]:
        now = self._running.clock()
        self._tell(connection, self._own, leases.levels(connection, self._holder.server, self._limits, now), now)
        return self._own, _Answer(0, 0.0)

    def _look(self, connection: sqlite3.Connection, wish: _Wish, now: float) -> tuple[_Answer, Levels]:
        """How much is granted now, and by what."""
        own, limits = self._own, self._limits
        left = leases.levels(connection, self._holder.server, limits, now)
        shut_s = max(left.shut_until, own.shut_until) - now
        if shut_s > 0:
            return _Answer(0, shut_s * random.uniform(1.0, 1.0 + JITTER)), left
        others = leases.others(connection, self._holder, now)
        places = sharing.share_places(limits.in_flight, Claim(own.held, own.waits_since), others, wish.prompts)
        turns = places.ahead * min(1.0, TURNS_AT_ONCE / limits.in_flight)
        granted, wait_s = places.granted, min(FIRST_LOOK_S * (1 + turns), LAST_LOOK_S)
        if granted and (limits.requests_per_minute is not None or limits.tokens_per_minute is not None):
            paid, pay_s = (0, 0.0) if places.ahead else self._pay(wish, left)
            if paid < granted:
                granted, wait_s = paid, min(max(pay_s, wait_s), LONGEST_LOOK_S)
        return _Answer(granted, wait_s), left

    def _pay(self, wish: _Wish, left: Levels) -> tuple[int, float]:
        """How many prompts the rates pay for now, and how long until they pay for more."""
        prompts, wait_s = wish.prompts, 0.0
        if (per_minute := self._limits.requests_per_minute) is not None:
            level = left.requests - self._own.requests
            if wish.requests == wish.prompts:
                prompts = sharing.affordable(level, 1, prompts, per_minute)
                wait_s = sharing.seconds_until(level, 1, per_minute)
            elif not sharing.affordable(level, wish.requests, 1, per_minute):
                prompts, wait_s = 0, sharing.seconds_until(level, wish.requests, per_minute)
        if (per_minute := self._limits.tokens_per_minute) is not None:
            level = left.tokens - self._own.tokens
            prompts = sharing.affordable(level, wish.tokens_each, prompts, per_minute)
            wait_s = max(wait_s, sharing.seconds_until(level, wish.tokens_each, per_minute))
        return prompts, wait_s

    def _tell(self, connection: sqlite3.Connection, own: _Own, left: Levels, now: float) -> None:
        """Write what the gate holds, and count what it took."""
        leases.put(connection, Lease(self._holder, own.held, own.waits_since, now))
        for holder in self._running.left:
            leases.remove(connection, holder)
        limits = self._limits
        counts = (limits.requests_per_minute is not None and own.requests) or (
            limits.tokens_per_minute is not None and own.tokens
        )
        if counts or own.shut_until > left.shut_until:
            left = Levels(max(left.shut_until, own.shut_until), left.requests - own.requests, left.tokens - own.tokens)
            leases.put_levels(connection, self._holder.server, left, limits, now)

    def _write(self, work: Callable[[sqlite3.Connection], tuple[_Own, _Answer]], now: float) -> _Answer | None:
        """Write in one transaction; what has been written is believed only then. None if it cannot be done now."""
        done = self._store.run(work, None)
        if done is None and self._is_shut_out(now):
            done = self._store.run(work, None)  # this process's own
        if done is None:
            return None
        own, answer = done
        self._own = replace(own, requests=0, tokens=0, is_told=True)
        self._told_at, self._told_held, self._locked_since = now, own.held, None
        self._running.left.clear()
        return answer

    def _is_shut_out(self, now: float) -> bool:
        """Whether the shared store cannot be had, so that this run goes on with the limits of its process."""
        if not self._store.is_full and self._store.read(lambda _: True, False):  # it is there, and somebody writes
            self._locked_since = now if self._locked_since is None else self._locked_since
            if now - self._locked_since < LOCKED_OUT_S:
                return False
            self._running.warn(
                "locked",
                f"the limits of all sessions have been locked by another process for {LOCKED_OUT_S:g} s",
                "Until they are free again, this session keeps to the limits of its servers by itself.",
            )
        self._store = self._running.own_store
        return True

"""How long an engine is waited for that is not there, is starting, or asks to come again later.

In: what came instead of an answer. Out: seconds that are left, or the error of a run that has waited for long enough; a
notice for the user, once. It waits for nothing itself. An engine that has never answered in the session may be a wrong
endpoint, of which its user wants to hear soon; one that has will be back.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Protocol

from pg_bridge.engine.dialects import UNTOLD, Dialect, dialect_of_headers
from pg_bridge.engine.failures import Notice, impatient
from pg_bridge.options import Server

PATIENCE_S = 300.0
"""For an engine that has answered before, or says when to come again, where the server does not say."""

NOTICE_AFTER_S = 1.0
_ODD_SHARE = 0.125
GONE_S = 1.0
"""Without a connection, after which an engine's prompts are another's, where there is another."""


class Clock(Protocol):
    """Seconds for which a run has waited for its engine."""

    def now_s(self) -> float:
        """So far."""


@dataclass(slots=True)
class Acquaintance:
    """What is known of an engine from one run to the next.

    Attributes:
        has_answered: Whether it ever answered a prompt.
        dialect: What it understands, by what it said of itself; None until it did.
        spoken: The dialect of its latest run, guessed where it has not told.
        untaken: What was refused, and need not be said, or not so.
        kept: How often it kept to the form of answers that it was held to, and how often not, by the form's name.
        begins_in_thoughts: Whether the texts of answers do, by what its template was asked.
    """

    has_answered: bool = False
    dialect: Dialect | None = None
    spoken: Dialect | None = None
    untaken: set[str] = field(default_factory=set)
    begins_in_thoughts: dict[bytes, bool] = field(default_factory=dict)
    kept: dict[str, tuple[int, int]] = field(default_factory=dict)
    _of_each: dict[str, Acquaintance] = field(default_factory=dict)

    def meet(self, headers: Container[str]) -> None:
        """Learn from the headers of an answer what its list of models does not tell."""
        if self.dialect is None or self.dialect is UNTOLD:
            self.dialect = dialect_of_headers(headers) or self.dialect

    def count(self, form: str, kept: int, loose: int) -> bool:
        """Note answers that were of a form, and some that were not; whether it has just turned out to be loose."""
        was_loose = self.is_loose(form)
        had_kept, had_loose = self.kept.get(form, (0, 0))
        self.kept[form] = had_kept + kept, had_loose + loose
        return self.is_loose(form) and not was_loose

    def loose_for(self, constraint: str) -> list[str]:
        """The forms that it does not keep to, of those for answers of a kind."""
        names = [name.removesuffix(f" for {constraint}") for name in self.kept if name.endswith(f" for {constraint}")]
        return [name for name in names if self.is_loose(f"{name} for {constraint}")]

    def is_loose(self, form: str) -> bool:
        """Whether it takes a form without keeping to it; one that does may yet answer oddly once in a while."""
        kept, loose = self.kept.get(form, (0, 0))
        return loose > _ODD_SHARE * (kept + loose) and (kept == 0 or loose > 1)

    def of(self, endpoint: str) -> Acquaintance:
        """What is known of one of several engines, by its base URL."""
        return self._of_each.setdefault(endpoint, Acquaintance())


def patience_of(server: Server) -> float:
    """Seconds for which engines are waited for that will be back."""
    return PATIENCE_S if server.patience_s is None else server.patience_s


class Waiting:
    """One run's patience.

    Args:
        server: The server.
        clock: The run's.
        acquaintance: Is told that the engine has answered.
        has_others: Whether other engines can answer instead of this one: then it is not waited for, for long.
    """

    def __init__(self, server: Server, clock: Clock, acquaintance: Acquaintance, *, has_others: bool = False) -> None:
        self._has_others = has_others
        self._server = server
        self._clock = clock
        self._acquaintance = acquaintance
        self._since_s: float | None = None  # when the first of all that came since the last answer came
        self._notice: Notice | None = None
        self._has_told = False

    @property
    def is_patient(self) -> bool:
        """Whether the engine is worth waiting for, whatever it says."""
        return self._server.patience_s is not None or self._acquaintance.has_answered

    @property
    def has_answered(self) -> bool:
        """Whether the engine ever answered a prompt."""
        return self._acquaintance.has_answered

    def hear(self) -> None:
        """The engine does what it is there for, be it to refuse."""
        self._since_s = None

    def answer(self) -> None:
        """It has answered a prompt."""
        self._since_s = None
        self._acquaintance.has_answered = True

    def left_s(self, since_s: float, reason: str) -> float:
        """How long to go on trying to connect; 0 or less for no longer.

        Args:
            since_s: When the attempt began that led to nothing.
            reason: Why it did.
        """
        limit_s = self._limit_s if self.is_patient else self._server.connect_timeout_s
        if self._has_others:
            limit_s = min(GONE_S, self._server.connect_timeout_s)
        waited_s = self._wait_since(since_s)
        if self.is_patient:
            self._tell(reason, waited_s, limit_s)
        return limit_s - waited_s

    def come_later(self, status: int, told_s: float) -> None:
        """The engine asks to come again, after some seconds or at some time.

        Raises:
            EngineOverloaded: It has said nothing else for too long.
        """
        limit_s = self._server.connect_timeout_s if self._has_others else self._limit_s
        waited_s = self._wait_since(self._clock.now_s())
        if waited_s >= limit_s:
            raise impatient(self._server, status, limit_s, told_s)
        when = f"in {min(told_s, 1e6):g} s" if told_s else "later"
        self._tell(f"it asks to come again {when} (HTTP status {status})", max(waited_s, told_s), limit_s)

    def take_notice(self) -> Notice | None:
        """What the user is to be told now; once a run."""
        notice, self._notice = self._notice, None
        return notice

    @property
    def _limit_s(self) -> float:
        return patience_of(self._server)

    def _wait_since(self, since_s: float) -> float:
        if self._since_s is None:
            self._since_s = since_s
        return self._clock.now_s() - self._since_s

    def _tell(self, why: str, waits_s: float, limit_s: float) -> None:
        if self._has_others or self._has_told or waits_s < NOTICE_AFTER_S or limit_s <= waits_s:
            return
        self._has_told = True
        self._notice = Notice(
            f'waiting for the engine of server "{self._server.name}": {why}',
            f"It is waited for for {limit_s:g} s, the server's patience_s; the statement can be cancelled.",
        )

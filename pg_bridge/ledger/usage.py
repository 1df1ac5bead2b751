"""What was asked and what it took, by day, role, server and model; it counts whatever became of the statement.

In: figures, as they grow. Out: sums. Money is in the currency of the server's prices.
"""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, dataclass, fields

SCHEMA = """
CREATE TABLE usage (
    day TEXT, database TEXT, role INTEGER, server TEXT, model TEXT, statements INTEGER, rows INTEGER,
    questions INTEGER, from_cache INTEGER, requests INTEGER, retries INTEGER, failures INTEGER,
    prompt_tokens INTEGER, cached_tokens INTEGER, completion_tokens INTEGER, seconds REAL, cost REAL,
    PRIMARY KEY (day, database, role, server, model)
) WITHOUT ROWID
"""


@dataclass(slots=True)
class Figures:
    """What was asked, and what it took.

    Attributes:
        statements: That asked at least once.
        rows: That were asked about.
        questions: That were sent to the engine, each once.
        from_cache: Questions whose answers the ledger knew.
        requests: HTTP requests, repeated ones included.
        retries: How many of them were repeats.
        failures: Questions that have no answer.
        prompt_tokens: Of all answered prompts; as the other tokens, what the engine told, 0 where it told nothing.
        cached_tokens: Those of them that came from the prefix cache.
        completion_tokens: Of all answers.
        seconds: Spent on the engine, sending and receiving included.
        cost: At the server's prices.
    """

    statements: int = 0
    rows: int = 0
    questions: int = 0
    from_cache: int = 0
    requests: int = 0
    retries: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    def add(self, more: Figures) -> None:
        """Count in others."""
        for name in _NAMES:
            setattr(self, name, getattr(self, name) + getattr(more, name))

    def less(self, earlier: Figures) -> Figures:
        """What has come since."""
        return Figures(*(getattr(self, name) - getattr(earlier, name) for name in _NAMES))


_NAMES = [each.name for each in fields(Figures)]
_SUMS = ", ".join(f"sum({name})" for name in _NAMES)


def add(
    connection: sqlite3.Connection, day: str, database: str, role: int, server: str, model: str, more: Figures
) -> None:
    """Count something in."""
    connection.execute(
        f"INSERT INTO usage VALUES (?, ?, ?, ?, ?, {', '.join('?' * len(_NAMES))}) ON CONFLICT DO UPDATE SET "
        + ", ".join(f"{name} = {name} + excluded.{name}" for name in _NAMES),
        [day, database, role, server, model, *astuple(more)],
    )


def spent(connection: sqlite3.Connection, day: str, database: str, role: int, server: str) -> Figures:
    """What a role has asked of a server on a day, of whatever model."""
    row = connection.execute(
        f"SELECT {_SUMS} FROM usage WHERE (day, database, role, server) = (?, ?, ?, ?)", [day, database, role, server]
    ).fetchone()
    return Figures(*(value or 0 for value in row))


def latest(connection: sqlite3.Connection, database: str, role: int, server: str, model: str | None = None) -> Figures:
    """What a role asked of a server, of one model or of any, on the last day on which it was answered."""
    asked = "(database, role, server) = (?, ?, ?) AND (? IS NULL OR model = ?)"
    given = [database, role, server, model, model]
    row = connection.execute(
        f"SELECT {_SUMS} FROM usage WHERE {asked} AND day = "
        f"(SELECT max(day) FROM usage WHERE {asked} AND questions > failures)",
        [*given, *given],
    ).fetchone()
    return Figures(*(value or 0 for value in row))


def listed(connection: sqlite3.Connection, database: str, role: int | None) -> list[dict[str, object]]:
    """All figures of one role of a database, or of all its roles; the latest day first."""
    rows = connection.execute(
        f"SELECT day, role, server, model, {', '.join(_NAMES)} FROM usage "
        "WHERE database = ? AND (? IS NULL OR role = ?) ORDER BY day DESC, role, server, model",
        [database, role, role],
    )
    names = ["day", "role", "server", "model", *_NAMES]
    return [dict(zip(names, row, strict=True)) for row in rows]


def reset(connection: sqlite3.Connection, database: str) -> int:
    """Forget all figures of a database; returns how many lines they were."""
    return connection.execute("DELETE FROM usage WHERE database = ?", [database]).rowcount

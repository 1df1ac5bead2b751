"""What was asked and what it took, by day, role, server and model; it counts whatever became of the statement.

In: figures, as they grow. Out: sums. Money is in the currency of the server's prices.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field, fields

from pg_bridge.ledger import shares
from pg_bridge.ledger.shares import Share, Shares

SCHEMA = """
CREATE TABLE usage (
    day TEXT, database TEXT, role INTEGER, server TEXT, model TEXT, statements INTEGER, rows INTEGER,
    questions INTEGER, from_cache INTEGER, requests INTEGER, retries INTEGER, failures INTEGER,
    prompt_tokens INTEGER, cached_tokens INTEGER, completion_tokens INTEGER, seconds REAL, cost REAL,
    PRIMARY KEY (day, database, role, server, model)
) WITHOUT ROWID;
CREATE TABLE engine_usage (
    day TEXT, database TEXT, role INTEGER, server TEXT, model TEXT, endpoint TEXT, requests INTEGER, retries INTEGER,
    answered INTEGER, prompt_tokens INTEGER, cached_tokens INTEGER, completion_tokens INTEGER,
    PRIMARY KEY (day, database, role, server, model, endpoint)
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
        engines: What each engine had of it, where the server has several.
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
    engines: Shares = field(default_factory=dict, kw_only=True)

    def add(self, more: Figures) -> None:
        """Count in others."""
        for name in FIGURES:
            setattr(self, name, getattr(self, name) + getattr(more, name))
        self.engines = shares.plus(self.engines, more.engines)

    def less(self, earlier: Figures) -> Figures:
        """What has come since."""
        figures = (getattr(self, name) - getattr(earlier, name) for name in FIGURES)
        return Figures(*figures, engines=shares.plus(self.engines, earlier.engines, -1))


FIGURES = [each.name for each in fields(Figures) if each.name != "engines"]
"""The names of what is added up."""
_SUMS = ", ".join(f"sum({name})" for name in FIGURES)


def add(
    connection: sqlite3.Connection, day: str, database: str, role: int, server: str, model: str, more: Figures
) -> None:
    """Count something in."""
    connection.execute(
        f"INSERT INTO usage VALUES (?, ?, ?, ?, ?, {', '.join('?' * len(FIGURES))}) ON CONFLICT DO UPDATE SET "
        + ", ".join(f"{name} = {name} + excluded.{name}" for name in FIGURES),
        [day, database, role, server, model, *(getattr(more, name) for name in FIGURES)],
    )
    connection.executemany(
        f"INSERT INTO engine_usage VALUES (?, ?, ?, ?, ?, ?, {', '.join('?' * len(shares.NAMES))}) "
        "ON CONFLICT DO UPDATE SET " + ", ".join(f"{name} = {name} + excluded.{name}" for name in shares.NAMES),
        [
            [day, database, role, server, model, endpoint, *(getattr(share, name) for name in shares.NAMES)]
            for endpoint, share in more.engines.items()
        ],
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
    lines = connection.execute(
        f"SELECT day, role, server, model, {', '.join(FIGURES)} FROM usage "
        "WHERE database = ? AND (? IS NULL OR role = ?) ORDER BY day DESC, role, server, model",
        [database, role, role],
    )
    names = ["day", "role", "server", "model", *FIGURES]
    engines = _engines(connection, database, role)
    return [
        {**dict(zip(names, line, strict=True)), "engines": shares.rows(engines.get(line[:4], {}))} for line in lines
    ]


def _engines(connection: sqlite3.Connection, database: str, role: int | None) -> dict[tuple[object, ...], Shares]:
    """What each engine had, by day, role, server and model."""
    engines: dict[tuple[object, ...], Shares] = {}
    for *line, endpoint, requests, retries, answered, prompt, cached, completion in connection.execute(
        f"SELECT day, role, server, model, endpoint, {', '.join(shares.NAMES)} FROM engine_usage "
        "WHERE database = ? AND (? IS NULL OR role = ?) ORDER BY endpoint",
        [database, role, role],
    ):
        share = Share(requests, retries, answered, prompt, cached, completion)
        engines.setdefault(tuple(line), {})[endpoint] = share
    return engines


def reset(connection: sqlite3.Connection, database: str) -> int:
    """Forget all figures of a database; returns how many lines they were."""
    connection.execute("DELETE FROM engine_usage WHERE database = ?", [database])
    return connection.execute("DELETE FROM usage WHERE database = ?", [database]).rowcount

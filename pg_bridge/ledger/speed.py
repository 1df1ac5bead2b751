"""How fast engines have been for roles, on the last day that tells.

In: tokens that an engine computed in one run, and the seconds that they took. Out: sums. An engine is known by the
server and by where it is: a server that leads elsewhere, or to another model, leads to another engine.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

SCHEMA = """
CREATE TABLE speed (
    database TEXT, role INTEGER, server TEXT, endpoint TEXT, model TEXT, day TEXT,
    computed_tokens INTEGER, seconds REAL,
    PRIMARY KEY (database, role, server, endpoint, model)
) WITHOUT ROWID
"""


class Speed(NamedTuple):
    """How fast an engine was.

    Attributes:
        computed_tokens: Prompt tokens that it computed, those that its cache held left out.
        seconds: What it took for them.
    """

    computed_tokens: int = 0
    seconds: float = 0.0


class Engine(NamedTuple):
    """An engine as one role sees it.

    Attributes:
        database: The database's name.
        role: The role's oid.
        server: The server's name.
        endpoint: Where it leads.
        model: Which model it asks for; empty for the engine's own choice.
    """

    database: str
    role: int
    server: str
    endpoint: str
    model: str


def add(connection: sqlite3.Connection, engine: Engine, day: str, more: Speed) -> None:
    """Count a run in; what earlier days told is forgotten."""
    connection.execute(
        "INSERT INTO speed VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "computed_tokens = excluded.computed_tokens + CASE WHEN day = excluded.day THEN computed_tokens ELSE 0 END, "
        "seconds = excluded.seconds + CASE WHEN day = excluded.day THEN seconds ELSE 0 END, day = excluded.day",
        [*engine, day, *more],
    )


def seen(connection: sqlite3.Connection, engine: Engine) -> Speed:
    """How fast an engine was; zeros where nothing tells."""
    row = connection.execute(
        "SELECT computed_tokens, seconds FROM speed WHERE (database, role, server, endpoint, model) = (?, ?, ?, ?, ?)",
        engine,
    ).fetchone()
    return Speed(*row) if row else Speed()


def forget(connection: sqlite3.Connection, database: str) -> None:
    """Forget all engines of a database."""
    connection.execute("DELETE FROM speed WHERE database = ?", [database])

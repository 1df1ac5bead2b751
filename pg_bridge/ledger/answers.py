"""The answers: by a digest of all that each depends on, in scopes of what many of them have in common.

In: a `Scope`, keys, answers. Out: answers. Questions are kept as digests only, unless the server says otherwise. When
they take more room than they may, those that have not been used for long go first, as Redis does it: in a small part
of the keys, chosen by chance, at a time.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from hashlib import blake2b

KEY_BYTES = 20  # nobody finds two questions of one digest, not even who chooses the questions
SCHEMA = """
CREATE TABLE scopes (
    id INTEGER PRIMARY KEY, database TEXT, server TEXT, owner INTEGER, endpoint TEXT, model TEXT, revision TEXT,
    role INTEGER, UNIQUE (database, server, owner, endpoint, model, revision, role)
);
CREATE TABLE answers (
    key BLOB PRIMARY KEY, scope INTEGER, answer TEXT, mark BLOB, made INTEGER, used INTEGER, prompt TEXT
) WITHOUT ROWID;
CREATE TABLE models (endpoint TEXT, asked TEXT, name TEXT, revision TEXT, PRIMARY KEY (endpoint, asked)) WITHOUT ROWID
"""
_AT_ONCE = 900  # SQLite takes some thousand parameters
_USED_S = 3600  # when an answer was used is known to the hour, so that reading seldom writes
_PART = 64  # of the keys, of which some are forgotten at a time
_MARK_BYTES = 8


@dataclass(frozen=True, slots=True)
class Scope:
    """What many answers have in common.

    Attributes:
        database: The database's name.
        server: The server's name in it.
        owner: The oid of the server's owner: who makes another server of the same name reads none of these answers.
        endpoint: The engine's base URL.
        model: The model as the engine names it.
        revision: Which one it is, where the engine tells.
        role: The oid of the role that asked, where roles are kept apart; else 0.
    """

    database: str
    server: str
    owner: int
    endpoint: str
    model: str
    revision: str
    role: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """What the ledger holds of one server; sizes in bytes, times in seconds since 1970."""

    server: str
    answers: int
    bytes: int
    oldest: int
    latest: int


def find(
    connection: sqlite3.Connection, keys: Sequence[bytes], made_after: float
) -> tuple[dict[bytes, str], list[bytes]]:
    """The answers that are known of some keys, and those keys that have not been used for an hour.

    A row that is damaged is not known.
    """
    found: dict[bytes, str] = {}
    unused: list[bytes] = []
    stale = time.time() - _USED_S
    for start in range(0, len(keys), _AT_ONCE):
        part = keys[start : start + _AT_ONCE]
        rows = connection.execute(
            f"SELECT key, answer, mark, used FROM answers WHERE made >= ? AND key IN ({_places(part)})",
            [int(made_after), *part],
        )
        for key, answer, mark, used in rows:
            if mark == _mark(key, answer):
                found[key] = answer
                if used < stale:
                    unused.append(key)
    return found, unused


def use(connection: sqlite3.Connection, keys: Iterable[bytes]) -> None:
    """Note that some answers have been used."""
    now = int(time.time())
    connection.executemany("UPDATE answers SET used = ? WHERE key = ?", [(now, key) for key in keys])


def keep(connection: sqlite3.Connection, scope: int, answers: Iterable[tuple[bytes, str, str | None]]) -> None:
    """Write (key, answer, prompt) of some questions; the latest answer to a question counts."""
    now = int(time.time())
    connection.executemany(
        "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(key, scope, answer, _mark(key, answer), now, now, prompt) for key, answer, prompt in answers],
    )


def scope_id(connection: sqlite3.Connection, scope: Scope) -> int:
    """The number of a scope, which is made if there is none."""
    values = astuple(scope)
    connection.execute(
        "INSERT OR IGNORE INTO scopes (database, server, owner, endpoint, model, revision, role) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    row = connection.execute(
        "SELECT id FROM scopes "
        "WHERE (database, server, owner, endpoint, model, revision, role) = (?, ?, ?, ?, ?, ?, ?)",
        values,
    ).fetchone()
    return int(row[0])


def make_room(connection: sqlite3.Connection, most_bytes: int) -> None:
    """Forget some of what has not been used for longest, if the answers take more room than they may."""
    if size(connection) <= most_bytes:
        return
    start = random.randrange(256 - 256 // _PART + 1)
    first, last = bytes([start]), bytes([start + 256 // _PART - 1]) + b"\xff" * KEY_BYTES
    (count,) = connection.execute("SELECT count(*) FROM answers WHERE key BETWEEN ? AND ?", [first, last]).fetchone()
    connection.execute(
        "DELETE FROM answers WHERE key IN "
        "(SELECT key FROM answers WHERE key BETWEEN ? AND ? ORDER BY used, made LIMIT ?)",
        [first, last, count // 4 + 1],
    )


def size(connection: sqlite3.Connection) -> int:
    """The bytes that are in use."""
    pages, free, page = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int(pages - free) * int(page)


def stats(connection: sqlite3.Connection, database: str, servers: Sequence[str]) -> list[Stats]:
    """What is kept of some servers of a database."""
    rows = connection.execute(
        "SELECT s.server, count(*), sum(length(a.answer) + length(a.key) + coalesce(length(a.prompt), 0)), "
        "min(a.made), max(a.used) FROM answers AS a JOIN scopes AS s ON s.id = a.scope "
        f"WHERE s.database = ? AND s.server IN ({_places(servers)}) GROUP BY s.server ORDER BY s.server",
        [database, *servers],
    )
    return [Stats(*row) for row in rows]


def clear(
    connection: sqlite3.Connection, database: str, servers: Sequence[str] | None, made_before: float | None
) -> int:
    """Forget answers of some servers of a database, or of all that ever were; returns how many."""
    condition, parameters = "s.database = ?", [database]
    if servers is not None:
        condition += f" AND s.server IN ({_places(servers)})"
        parameters += servers
    if made_before is not None:
        condition += " AND a.made < ?"
    deleted = connection.execute(
        "DELETE FROM answers WHERE key IN "
        f"(SELECT a.key FROM answers AS a JOIN scopes AS s ON s.id = a.scope WHERE {condition})",
        parameters if made_before is None else [*parameters, made_before],
    )
    return deleted.rowcount


def name_model(connection: sqlite3.Connection, endpoint: str, asked: str, model: tuple[str, str]) -> None:
    """Remember which model an engine served to who asked for one of a name, or for any."""
    connection.execute("INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?)", [endpoint, asked, *model])


def last_model(connection: sqlite3.Connection, endpoint: str, asked: str) -> tuple[str, str] | None:
    """(name, revision) of the model that it served last."""
    row = connection.execute(
        "SELECT name, revision FROM models WHERE (endpoint, asked) = (?, ?)", [endpoint, asked]
    ).fetchone()
    return (str(row[0]), str(row[1])) if row else None


def _places(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _mark(key: bytes, answer: str) -> bytes:
    """Tells a row that is what was written from one that damage has mixed."""
    return blake2b(answer.encode(errors="surrogatepass"), digest_size=_MARK_BYTES, key=key).digest()

"""Answers as they land: in packs, as many as come at a time, which is the cheapest to write.

In: answers to one question about some rows. Out: the same, to be found, and to be sorted in among all answers when
somebody asks that question again, or when there are many. Each pack carries a checksum.
"""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

ROW_BYTES = 20  # of a row's digest
MOST_CHARS = 4 << 20  # of a pack; a longer answer is not kept
SCHEMA = """
CREATE TABLE packs (
    context BLOB, id INTEGER, scope INTEGER, made INTEGER, count INTEGER, mark INTEGER, rows BLOB, answers TEXT,
    prompts TEXT, PRIMARY KEY (context, id)
) WITHOUT ROWID
"""


@dataclass(slots=True)
class Pack:
    """Answers to one question, beside each other; `prompts` is empty where they are not kept."""

    rows: list[bytes] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Written:
    """A pack that was written, by number, with its scope and when it was made, in seconds since 1970."""

    id: int
    scope: int
    made: int
    size_bytes: int
    pack: Pack


def add(connection: sqlite3.Connection, context: bytes, scope: int, pack: Pack) -> None:
    """Write a pack."""
    rows, answers = b"".join(pack.rows), json.dumps(pack.answers, ensure_ascii=False)
    prompts = json.dumps(pack.prompts, ensure_ascii=False) if pack.prompts else None
    connection.execute(
        "INSERT INTO packs VALUES (?1, (SELECT coalesce(max(id), 0) + 1 FROM packs WHERE context = ?1), "
        "?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        [context, scope, int(time.time()), len(pack.rows), _mark(rows, answers, prompts), rows, answers, prompts],
    )


def has_any(connection: sqlite3.Connection, context: bytes) -> bool:
    """Whether there are packs of a question."""
    return connection.execute("SELECT 1 FROM packs WHERE context = ? LIMIT 1", [context]).fetchone() is not None


def count(connection: sqlite3.Connection, context: bytes, made_after: float) -> int:
    """How many answers there are in the packs of a question that were made after a moment, in seconds since 1970."""
    counted = "SELECT coalesce(sum(count), 0) FROM packs WHERE context = ? AND made >= ?"
    return int(connection.execute(counted, [context, int(made_after)]).fetchone()[0])


def first_context(connection: sqlite3.Connection) -> bytes | None:
    """A question of which there are packs."""
    row = connection.execute("SELECT context FROM packs LIMIT 1").fetchone()
    return bytes(row[0]) if row else None


def read(connection: sqlite3.Connection, context: bytes) -> Iterator[Written]:
    """The packs of a question, the oldest first; a damaged one is empty."""
    found = connection.execute(
        "SELECT id, scope, made, mark, rows, answers, prompts FROM packs WHERE context = ? ORDER BY id", [context]
    )
    for number, scope, made, mark, rows, answers, prompts in found:
        pack = Pack()
        if mark == _mark(rows, answers, prompts):
            pack.rows = [rows[start : start + ROW_BYTES] for start in range(0, len(rows), ROW_BYTES)]
            pack.answers = json.loads(answers)
            pack.prompts = json.loads(prompts or "[]")
        yield Written(number, scope, made, len(rows) + len(answers), pack)


def remove(connection: sqlite3.Connection, context: bytes, last: int) -> None:
    """Forget the packs of a question up to one of them."""
    connection.execute("DELETE FROM packs WHERE context = ? AND id <= ?", [context, last])


def _mark(rows: bytes, answers: str, prompts: str | None) -> int:
    """Tells a pack that is what was written from one that damage has mixed."""
    return zlib.crc32((prompts or "").encode(), zlib.crc32(answers.encode(), zlib.crc32(rows)))

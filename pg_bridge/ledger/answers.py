"""The answers: by a digest of all that each depends on, in scopes of what many of them have in common.

In: a `Scope`, the digest of a question and those of rows; packs of answers. Out: answers. Questions are kept as digests
only, unless the server says otherwise. Those of one question lie together. When all take more room than they may, those
that have not been used for long go first, as Redis does it: of some that are chosen by chance, again and again.
"""

from __future__ import annotations

import random
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import astuple, dataclass
from hashlib import blake2b
from itertools import repeat

from pg_bridge.ledger import packs
from pg_bridge.ledger.packs import Written

KEY_BYTES = 20  # nobody finds two questions of one digest, not even who chooses the questions
FOLD = 16_384  # answers that are sorted in at a time, if they take no more than
FOLD_BYTES = 8 << 20
SCHEMA = f"""
CREATE TABLE scopes (
    id INTEGER PRIMARY KEY, database TEXT, server TEXT, owner INTEGER, endpoint TEXT, model TEXT, revision TEXT,
    role INTEGER, UNIQUE (database, server, owner, endpoint, model, revision, role)
);
CREATE TABLE answers (
    id INTEGER PRIMARY KEY, scope INTEGER, made INTEGER, used INTEGER, mark INTEGER, key BLOB, answer TEXT, prompt TEXT
);
CREATE TABLE models (endpoint TEXT, asked TEXT, name TEXT, revision TEXT, PRIMARY KEY (endpoint, asked)) WITHOUT ROWID;
{packs.SCHEMA}"""
COUNTED = 4096  # answers to a question that are looked at, to tell how many there are within a few per cent
_SCOPE_COLUMNS = "(database, server, owner, endpoint, model, revision, role)"
_SCOPE = f"{_SCOPE_COLUMNS} = (?, ?, ?, ?, ?, ?, ?)"
_AT_ONCE = 8192  # SQLite takes some ten thousand parameters
_USED_S = 3600  # when an answer was used is known to the hour, so that reading seldom writes
_LAST = (1 << 63) - 1
_ROW_BITS = 47  # of an answer's number; those before say whose question it is
_PLACES = 32  # of the answers, at which some are looked at, to forget some of them
_AT_EACH = 64
_SLICES = 64
_long = struct.Struct(">Q").unpack_from
MAKE_ROOM_S = 0.2


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

    def with_(self, other: Stats | None) -> Stats:
        """Both together."""
        if other is None:
            return self
        return Stats(
            self.server,
            self.answers + other.answers,
            self.bytes + other.bytes,
            min(self.oldest, other.oldest),
            max(self.latest, other.latest),
        )


def find(
    connection: sqlite3.Connection, context: bytes, rows: Sequence[bytes], made_after: float
) -> tuple[dict[bytes, str], list[int]]:
    """The answers that are known, by the row, and the numbers of those that have not been used for an hour.

    What is damaged is not known, nor is an answer that another one of the same number has replaced.
    """
    found: dict[bytes, str] = {}
    unused: list[int] = []
    if packs.has_any(connection, context):
        wanted = set(rows)
        for written in packs.read(connection, context):
            if written.made >= int(made_after):
                found |= {
                    row: answer
                    for row, answer in zip(written.pack.rows, written.pack.answers, strict=True)
                    if row in wanted
                }
    first = _first(context)
    stale = time.time() - _USED_S
    for start in range(0, len(rows), _AT_ONCE):
        of = {}
        for row in rows[start : start + _AT_ONCE]:
            key = blake2b(context + row, digest_size=KEY_BYTES).digest()  # as `_key` and `_number`, which take longer
            of[first | _long(key)[0] >> (64 - _ROW_BITS)] = row, key
        found_here = connection.execute(
            f"SELECT id, used, mark, key, answer FROM answers WHERE made >= ? AND id IN ({_places(of)})",
            [int(made_after), *of],
        )
        for number, used, mark, its_key, answer in found_here:
            row, key = of[number]
            if its_key == key and mark == zlib.crc32(answer.encode()):
                found.setdefault(row, answer)  # packs are newer
                if used < stale:
                    unused.append(number)
    return found, unused


def is_new(connection: sqlite3.Connection, context: bytes) -> bool:
    """Whether a question has no answers at all, as far as that is soon told."""
    first = _first(context)
    any_answer = "SELECT 1 FROM answers WHERE id BETWEEN ? AND ? LIMIT 1"
    last = first | ((1 << _ROW_BITS) - 1)
    return not (packs.has_any(connection, context) or connection.execute(any_answer, [first, last]).fetchone())


def count(connection: sqlite3.Connection, context: bytes, scope: Scope, made_after: float) -> int:
    """How many answers to a question are kept.

    What lies together are those of one question, and of one in 65,536 others. Their numbers are as good as chosen by
    chance, so that the first ones tell how dense all of them are.

    Args:
        connection: The ledger.
        context: Of the question.
        scope: The one that is part of it.
        made_after: In seconds since 1970.
    """
    packed = packs.count(connection, context, made_after)
    row = connection.execute(f"SELECT id FROM scopes WHERE {_SCOPE}", astuple(scope)).fetchone()
    if row is None:
        return packed
    first = _first(context)
    seen, counted, last = connection.execute(
        "SELECT count(*), coalesce(sum(scope = ? AND made >= ?), 0), max(id) FROM "
        "(SELECT id, scope, made FROM answers WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?)",
        [row[0], int(made_after), first, first | ((1 << _ROW_BITS) - 1), COUNTED],
    ).fetchone()
    if seen == COUNTED:
        counted = round(counted * (1 << _ROW_BITS) / (last - first + 1))
    return packed + int(counted)


def use(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Note that some answers have been used."""
    now = int(time.time())
    connection.executemany("UPDATE answers SET used = ? WHERE id = ?", [(now, number) for number in sorted(numbers)])


def fold(connection: sqlite3.Connection, context: bytes) -> bool:
    """Sort the packs of a question in, some of them; whether there are more."""
    taken: list[Written] = []
    count = size_bytes = 0
    for written in packs.read(connection, context):
        taken.append(written)
        count += len(written.pack.rows)
        size_bytes += written.size_bytes
        if count >= FOLD or size_bytes >= FOLD_BYTES:
            break
    if not taken:
        return False
    first = _first(context)
    by_number = {}
    for each in taken:
        pack = each.pack
        prompts = pack.prompts or repeat(None)
        for row, answer, prompt in zip(pack.rows, pack.answers, prompts):  # noqa: B905 - None for each
            key = _key(context, row)
            number = _number(first, key)
            by_number[number] = (
                number, each.scope, each.made, each.made, zlib.crc32(answer.encode()), key, answer, prompt
            )  # fmt: skip
    connection.executemany(
        "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        map(by_number.__getitem__, sorted(by_number)),
    )
    packs.remove(connection, context, taken[-1].id)
    return packs.has_any(connection, context)


def scope_id(connection: sqlite3.Connection, scope: Scope) -> int:
    """The number of a scope, which is made if there is none."""
    values = astuple(scope)
    row = connection.execute(f"SELECT id FROM scopes WHERE {_SCOPE}", values).fetchone()
    if row is None:
        row = connection.execute(
            f"INSERT INTO scopes {_SCOPE_COLUMNS} VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id", values
        ).fetchone()
    return int(row[0])


def make_room(connection: sqlite3.Connection, most_bytes: int) -> None:
    """Forget some of what has not been used for longest, while the answers take more room than they may.

    It ends after a while in any case, and goes on when it is next called.
    """
    until = time.monotonic() + MAKE_ROOM_S
    while size(connection) > most_bytes and time.monotonic() < until:
        context = packs.first_context(connection)
        if context is not None:
            fold(connection, context)
            continue
        chosen = {row[0]: row for _ in range(_PLACES) for row in _some(connection)}
        if not chosen:
            break
        oldest = sorted(chosen.values(), key=lambda row: row[1:])[: len(chosen) // 4 + 1]
        connection.executemany("DELETE FROM answers WHERE id = ?", sorted((row[0],) for row in oldest))
    pages, free, page_bytes = (_pragma(connection, name) for name in ("page_count", "freelist_count", "page_size"))
    surplus = min(free, (pages * page_bytes - most_bytes) // page_bytes)
    give_back(connection, surplus)


def _some(connection: sqlite3.Connection) -> Iterable[tuple[int, int, int]]:
    """(number, used, made) of some answers that lie together, to a question that is chosen by chance."""
    start = random.randrange(_LAST)
    row = connection.execute("SELECT id FROM answers WHERE id >= ? ORDER BY id LIMIT 1", [start]).fetchone()
    row = row or connection.execute("SELECT id FROM answers ORDER BY id LIMIT 1").fetchone()
    if row is None:
        return []
    first = row[0] >> _ROW_BITS << _ROW_BITS
    found: list[tuple[int, int, int]] = []
    for place in (first | random.getrandbits(_ROW_BITS), first):
        found += connection.execute(
            "SELECT id, used, made FROM answers WHERE id >= ? ORDER BY id LIMIT ?", [place, _AT_EACH - len(found)]
        )
        if len(found) >= _AT_EACH:
            break
    return found


def give_back(connection: sqlite3.Connection, pages: int) -> bool:
    """Give free pages back to the disk, at most so many; whether there are more."""
    for _ in range(min(pages, _pragma(connection, "freelist_count"))):
        connection.execute("PRAGMA incremental_vacuum")  # Python takes the first step of it only, which is a page
    return _pragma(connection, "freelist_count") > 0


def size(connection: sqlite3.Connection) -> int:
    """The bytes that are in use."""
    pages, free, page_bytes = (_pragma(connection, name) for name in ("page_count", "freelist_count", "page_size"))
    return (pages - free) * page_bytes


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def slices() -> Iterator[tuple[int, int]]:
    """The answers in parts, for what takes long: (first, last) numbers of each."""
    step = (_LAST + 1) // _SLICES
    for first in range(0, _LAST, step):
        yield first, first + step - 1


def stats(
    connection: sqlite3.Connection, database: str, servers: Sequence[str], part: tuple[int, int] | None
) -> list[Stats]:
    """What is kept of some servers of a database.

    Args:
        connection: The ledger.
        database: The database's name.
        servers: The servers' names.
        part: Of the answers; None for what is in packs.
    """
    if part is None:
        source = "SELECT scope, count, length(rows) + length(answers), made, made FROM packs"
    else:
        source = (
            "SELECT scope, 1, length(answer) + length(key) + coalesce(length(prompt), 0), made, used "
            "FROM answers WHERE id BETWEEN ? AND ?"
        )
    rows = connection.execute(
        f"WITH a (scope, count, bytes, made, used) AS ({source}) "
        "SELECT s.server, sum(count), sum(bytes), min(made), max(used) FROM a JOIN scopes AS s ON s.id = a.scope "
        f"WHERE s.database = ? AND s.server IN ({_places(servers)}) GROUP BY s.server ORDER BY s.server",
        [*(part or ()), database, *servers],
    )
    return [Stats(*row) for row in rows]


def clear(
    connection: sqlite3.Connection,
    database: str,
    servers: Sequence[str] | None,
    made_before: float | None,
    part: tuple[int, int] | None,
) -> int:
    """Forget answers of some servers of a database, or of all that ever were; returns how many.

    Args:
        connection: The ledger.
        database: The database's name.
        servers: The servers' names.
        made_before: In seconds since 1970; None for any age.
        part: As for `stats`.
    """
    parameters: list[object] = [database]
    scopes = "SELECT id FROM scopes WHERE database = ?"
    if servers is not None:
        scopes += f" AND server IN ({_places(servers)})"
        parameters += servers
    condition = f"scope IN ({scopes})"
    if made_before is not None:
        condition += " AND made < ?"
        parameters.append(made_before)
    if part is not None:
        return connection.execute(
            f"DELETE FROM answers WHERE {condition} AND id BETWEEN ? AND ?", [*parameters, *part]
        ).rowcount
    deleted = connection.execute(f"SELECT sum(count) FROM packs WHERE {condition}", parameters).fetchone()
    connection.execute(f"DELETE FROM packs WHERE {condition}", parameters)
    return int(deleted[0] or 0)


def name_model(connection: sqlite3.Connection, endpoint: str, asked: str, model: tuple[str, str]) -> None:
    """Remember which model an engine served to who asked for one of a name, or for any."""
    connection.execute("INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?)", [endpoint, asked, *model])


def last_model(connection: sqlite3.Connection, endpoint: str, asked: str) -> tuple[str, str] | None:
    """(name, revision) of the model that it served last."""
    row = connection.execute(
        "SELECT name, revision FROM models WHERE (endpoint, asked) = (?, ?)", [endpoint, asked]
    ).fetchone()
    return (str(row[0]), str(row[1])) if row else None


def _places(values: Sized) -> str:
    return ",".join("?" * len(values))


def _key(context: bytes, row: bytes) -> bytes:
    return blake2b(context + row, digest_size=KEY_BYTES).digest()


def _first(context: bytes) -> int:
    """The first number that an answer to a question can have."""
    return int.from_bytes(context[:2]) << _ROW_BITS


def _number(first: int, key: bytes) -> int:
    """The number of an answer: 63 bits, of which the last 47 are the row's, as good as never the same for two."""
    return first | _long(key)[0] >> (64 - _ROW_BITS)  # type: ignore[no-any-return]

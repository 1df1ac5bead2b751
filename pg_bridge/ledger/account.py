"""What the questions of one statement to one server have to do with the ledger.

In: who asks, of which server, and what a question depends on. Out: answers that are known; nothing of what lands is
lost once it has been written here, whatever becomes of the statement.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from pg_bridge.ledger import answers, leases, progress, usage
from pg_bridge.ledger.answers import KEY_BYTES, Scope, Stats
from pg_bridge.ledger.database import Database, NoDatabase, Warnings
from pg_bridge.ledger.progress import Job
from pg_bridge.ledger.spending import Spending
from pg_bridge.ledger.usage import Figures
from pg_bridge.options import Server

VERSION = 1
RUNNING_BUSY_S = 0.005  # whoever waits for a place asks again anyway
ROOM_EVERY = 2000  # answers between two looks at how much room they take
MOST_WAITING = 50_000  # answers that wait for a ledger which cannot be written; then they are let go

Model = tuple[str, str]
"""A model as the engine names it, and which revision of it, where it tells."""


class Ledger:
    """The answers and the figures of one PostgreSQL cluster.

    Args:
        folder: Where its files are; None for a ledger that knows nothing and keeps nothing.
        most_bytes: What the answers may take.

    Attributes:
        running: The file that tells what runs now.
        keeps: Whether anything is kept.
    """

    def __init__(self, folder: Path | None, most_bytes: int = 0) -> None:
        self.warnings = Warnings()
        self.most_bytes = most_bytes
        self.keeps = folder is not None
        self._database: Database = NoDatabase()
        self.running: Database = NoDatabase()
        if folder is not None:
            schema = f"{answers.SCHEMA};{usage.SCHEMA}"
            self._database = Database(folder / "ledger.db", schema, VERSION, self.warnings)
            schema = f"{leases.SCHEMA};{progress.SCHEMA}"
            self.running = Database(folder / "running.db", schema, VERSION, self.warnings, "OFF", RUNNING_BUSY_S)
        self._written = 0

    def look(self) -> None:
        """See whether the file is still there, at the beginning of a statement."""
        self._database.look()

    def find(self, keys: Sequence[bytes], made_after: float) -> tuple[dict[bytes, str], list[bytes]]:
        """As `answers.find`; nothing is known where the ledger cannot be read."""
        nothing: tuple[dict[bytes, str], list[bytes]] = ({}, [])
        return self._database.read(lambda connection: answers.find(connection, keys, made_after), nothing)

    def write(self, work: Callable[[sqlite3.Connection], object], count: int = 0) -> bool:
        """Write something, with so many answers; whether it is written now."""

        def all_of_it(connection: sqlite3.Connection) -> bool:
            work(connection)
            if self._written + count >= ROOM_EVERY:
                answers.make_room(connection, self.most_bytes)
            return True

        is_written = self._database.run(all_of_it, default=False)
        if is_written:
            self._written = (self._written + count) % ROOM_EVERY
        return is_written

    def last_model(self, endpoint: str, asked: str) -> Model | None:
        """The model that an engine served last."""
        return self._database.read(lambda connection: answers.last_model(connection, endpoint, asked), None)

    def spent(self, day: str, database: str, role: int, server: str) -> Figures:
        """As `usage.spent`."""
        return self._database.read(lambda connection: usage.spent(connection, day, database, role, server), Figures())

    def latest(self, database: str, role: int, server: str, model: str | None) -> Figures:
        """As `usage.latest`."""
        return self._database.read(
            lambda connection: usage.latest(connection, database, role, server, model), Figures()
        )

    def listed(self, database: str, role: int | None) -> list[dict[str, object]]:
        """As `usage.listed`."""
        return self._database.read(lambda connection: usage.listed(connection, database, role), [])

    def reset_usage(self, database: str) -> int:
        """As `usage.reset`."""
        return self._database.run(lambda connection: usage.reset(connection, database), 0)

    def stats(self, database: str, servers: Sequence[str]) -> list[Stats]:
        """As `answers.stats`."""
        return self._database.read(lambda connection: answers.stats(connection, database, servers), [])

    def clear(self, database: str, servers: Sequence[str] | None, made_before: float | None) -> int | None:
        """As `answers.clear`, and the file shrinks; None if it cannot be written now.

        What is deleted is overwritten.
        """

        def prepare(connection: sqlite3.Connection) -> None:
            connection.execute("PRAGMA secure_delete = ON")

        def shrink(connection: sqlite3.Connection) -> None:
            connection.execute("PRAGMA incremental_vacuum").fetchall()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.execute("PRAGMA secure_delete = OFF")

        self._database.read(prepare, None)
        until = time.monotonic() + 10
        while True:
            count = self._database.run(
                lambda connection: answers.clear(connection, database, servers, made_before), default=None
            )
            if count is not None or time.monotonic() > until:
                break
        self._database.read(shrink, None)
        return count


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks.

    Attributes:
        database: The database's name.
        role: The role's oid.
        owner: The oid of the server's owner.
    """

    database: str
    role: int
    owner: int


class Account:
    """What is known, and what is written, of one statement's questions to one server.

    Args:
        ledger: The ledger.
        asker: Who asks.
        server: The server.
        warn: Tells the user (message, hint), at moments when that can be done.
        job: Tells others how far the statement is.
        spending: What the statement has taken of the server, in all its accounts.

    Attributes:
        server: As given.
        job: As given.
        spending: As given.
    """

    def __init__(
        self,
        ledger: Ledger,
        asker: Asker,
        server: Server,
        warn: Callable[[str, str], None],
        job: Job,
        spending: Spending | None = None,
    ) -> None:
        self.server = server
        self.job = job
        self.spending = spending or Spending()
        self._ledger = ledger
        self._asker = asker
        self._warn = warn
        self._scope: Scope | None = None
        self._landed: list[tuple[bytes, str, str | None]] = []
        self._unused: list[bytes] = []
        self._uncounted = Figures(statements=1)
        ledger.look()
        self.say()

    @property
    def keeps(self) -> bool:
        """Whether there is a ledger that answers are written into."""
        return self._ledger.keeps

    def others_today(self) -> Figures:
        """What the role has taken of the server today besides, read at most once a second."""
        if self.spending.wants_others():
            day, asker = _today(), self._asker
            self.spending.learn_others(day, self._ledger.spent(day, asker.database, asker.role, self.server.name))
        return self.spending.others

    def identify(self, find_model: Callable[[], Model], is_gone: tuple[type[Exception], ...]) -> Scope:
        """Which model answers, and so where its answers are.

        Args:
            find_model: Asks the engine.
            is_gone: What that raises if the engine is not there; then it is the model that it served last.
        """
        if self._scope is None:
            endpoint, asked = self.server.endpoint, self.server.model or ""
            last = self._ledger.last_model(endpoint, asked)
            try:
                model = find_model()
            except is_gone:
                if last is None:
                    raise
                model = last
            if model != last:
                self._ledger.write(lambda connection: answers.name_model(connection, endpoint, asked, model))
            role = self._asker.role if self.server.cache_scope == "role" else 0
            self._scope = Scope(self._asker.database, self.server.name, self._asker.owner, endpoint, *model, role)
        return self._scope

    def context(self, scope: Scope, question: Sequence[object]) -> bytes:
        """A digest of all that an answer depends on, but for its row."""
        parts = [VERSION, *(getattr(scope, name) for name in scope.__slots__), self.server.api, *question]
        return blake2b(json.dumps(parts).encode(), digest_size=KEY_BYTES).digest()

    def recall(self, context: bytes, rows: Sequence[bytes], max_age_s: float | None) -> dict[bytes, str]:
        """The answers that are known.

        Args:
            context: Of the question.
            rows: Digests of rows.
            max_age_s: How old an answer may be; None for any age.

        Returns:
            By the row's digest.
        """
        keys = {_key(context, row): row for row in rows}
        found, unused = self._ledger.find(list(keys), 0 if max_age_s is None else time.time() - max_age_s)
        self._unused += unused
        self.say()
        return {keys[key]: answer for key, answer in found.items()}

    def keep(self, landed: Iterable[tuple[bytes, bytes, str, str | None]]) -> None:
        """Note answers to be written by the next `flush`: (context, row, answer, prompt)."""
        with_prompts = self.server.cache_prompts
        self._landed += [
            (_key(context, row), answer, prompt if with_prompts else None) for context, row, answer, prompt in landed
        ]

    def count(self, more: Figures) -> None:
        """Count in what has been asked of this server, to be written by the next `flush`."""
        self._uncounted.add(more)

    def flush(self, *, quietly: bool = False) -> None:
        """Write what is noted; what cannot be written now is tried again with the next.

        Args:
            quietly: Whether nothing can be told to the user at this moment.
        """
        if not (self._landed or self._unused or self._uncounted != Figures()):
            return
        scope, model = self._scope, self._scope.model if self._scope else self.server.model or ""
        day = _today()

        def write(connection: sqlite3.Connection) -> None:
            if scope is not None and self._landed:
                answers.keep(connection, answers.scope_id(connection, scope), self._landed)
            if self._unused:
                answers.use(connection, self._unused)
            usage.add(connection, day, self._asker.database, self._asker.role, self.server.name, model, self._uncounted)

        if self._ledger.write(write, len(self._landed)):
            self.spending.write(day, self._uncounted)
            self._landed, self._unused, self._uncounted = [], [], Figures()
        elif len(self._landed) > MOST_WAITING:
            self._landed.clear()
        if not quietly:
            self.say()

    def say(self) -> None:
        """Tell the user of trouble."""
        for message, hint in self._ledger.warnings.take():
            self._warn(message, hint)


def _key(context: bytes, row: bytes) -> bytes:
    return blake2b(row, digest_size=KEY_BYTES, key=context).digest()


def _today() -> str:
    return time.strftime("%Y-%m-%d")

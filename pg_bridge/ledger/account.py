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
from functools import partial
from hashlib import blake2b
from pathlib import Path

from pg_bridge.ledger import answers, leases, packs, progress, speed, usage
from pg_bridge.ledger.answers import KEY_BYTES, Scope, Stats
from pg_bridge.ledger.database import Database, NoDatabase, Warnings
from pg_bridge.ledger.packs import MOST_CHARS, ROW_BYTES, Pack
from pg_bridge.ledger.progress import Job
from pg_bridge.ledger.speed import Speed
from pg_bridge.ledger.spending import Spending
from pg_bridge.ledger.usage import Figures
from pg_bridge.options import Server

VERSION = 3
RUNNING_BUSY_S = 0.005  # whoever waits for a place asks again anyway
ROOM_EVERY_BYTES = 4 << 20  # of answers are written between two looks at how much room they take
MOST_WAITING_CHARS = 16 << 20  # of answers that wait for a ledger which cannot be written; then they are let go
USAGE_EVERY_S = 1.0  # figures are written so often where there are no answers to write with them
LAST_WITHIN_S = 0.5  # at a statement's end it is tried so long to write what is left
CLEAR_WITHIN_S = 5.0  # as above, where somebody waits for it
SORT_IN_AFTER = 65_536  # answers to a question; fewer wait for who asks it again
_USED_AT_ONCE = 16_384
_FREED_PAGES = 4096  # given back to the disk at a time

Model = tuple[str, str]
Found = Model | tuple[str, str, int | None]
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
            schema = f"{answers.SCHEMA};{usage.SCHEMA};{speed.SCHEMA}"
            self._database = Database(folder / "ledger.db", schema, VERSION, self.warnings)
            schema = f"{leases.SCHEMA};{progress.SCHEMA}"
            self.running = Database(folder / "running.db", schema, VERSION, self.warnings, "OFF", RUNNING_BUSY_S)
        self._written = 0
        self.flushes = 0  # with answers

    def look(self) -> None:
        """See whether the file is still there, at the beginning of a statement."""
        self._database.look()

    def close(self) -> None:
        """Let go of the files; what is asked afterwards opens them again."""
        self._database.close()
        self.running.close()

    def find(self, context: bytes, rows: Sequence[bytes], made_after: float) -> tuple[dict[bytes, str], list[int]]:
        """As `answers.find`; nothing is known where the ledger cannot be read."""
        nothing: tuple[dict[bytes, str], list[int]] = ({}, [])
        self.fold(context)
        return self._database.read(lambda connection: answers.find(connection, context, rows, made_after), nothing)

    def version(self) -> object:
        """Another one whenever another process has written; None if that cannot be told."""
        return self._database.read(lambda connection: connection.execute("PRAGMA data_version").fetchone(), None)

    def is_new(self, context: bytes) -> bool:
        """As `answers.is_new`; so is every question where the ledger cannot be read."""
        return self._database.read(lambda connection: answers.is_new(connection, context), default=True)

    def fold(self, context: bytes) -> None:
        """Sort in what has landed of a question, if there is time."""
        while self._database.read(lambda connection: packs.has_any(connection, context), default=False):
            if not self._database.run(lambda connection: answers.fold(connection, context), default=False):
                break

    def write(self, work: Callable[[sqlite3.Connection], object], size_bytes: int = 0, within_s: float = 0.0) -> bool:
        """Write something of a size; whether it is written now."""
        written = self._written + size_bytes

        def all_of_it(connection: sqlite3.Connection) -> bool:
            work(connection)
            return True

        if not self._database.run(all_of_it, default=False, within_s=within_s, often=within_s == 0.0):
            return False
        if written >= min(ROOM_EVERY_BYTES, self.most_bytes // 64):
            self._database.run(lambda connection: answers.make_room(connection, self.most_bytes), None)
            written = 0
        self._written = written
        return True

    @property
    def is_locked(self) -> bool:
        """Whether others have been writing for so long that it is not worth waiting."""
        return self._database.is_locked

    def last_model(self, endpoint: str, asked: str) -> Model | None:
        """The model that an engine served last."""
        return self._database.read(lambda connection: answers.last_model(connection, endpoint, asked), None)

    def spent(self, day: str, database: str, role: int, server: str) -> Figures:
        """As `usage.spent`."""
        return self._database.read(lambda connection: usage.spent(connection, day, database, role, server), Figures())

    def count(self, asker: Asker, server: Server, question: Sequence[object], max_age_s: float | None) -> int | None:
        """How many answers to a question are kept which that role may have, as far as that is soon told.

        Args:
            asker: Who would ask.
            server: Of which server; its model is the one that it served last.
            question: What the answers depend on besides.
            max_age_s: How old one may be; None for any age.

        Returns:
            About so many, and seldom some more; None where the ledger cannot be read.
        """
        made_after = 0.0 if max_age_s is None else time.time() - max_age_s

        def look(connection: sqlite3.Connection) -> int:
            model = answers.last_model(connection, server.endpoints[0], server.model or "")
            if model is None:
                return 0
            scope = asker.scope(server, model)
            return answers.count(connection, context(scope, server.api, question), scope, made_after)

        self._database.look()
        return self._database.read(look, None)

    def latest(self, database: str, role: int, server: str, model: str | None) -> Figures:
        """As `usage.latest`."""
        return self._database.read(
            lambda connection: usage.latest(connection, database, role, server, model), Figures()
        )

    def speed(self, asker: Asker, server: Server) -> Speed:
        """As `speed.seen`."""
        return self._database.read(lambda connection: speed.seen(connection, asker.engine(server)), Speed())

    def listed(self, database: str, role: int | None) -> list[dict[str, object]]:
        """As `usage.listed`."""
        return self._database.read(lambda connection: usage.listed(connection, database, role), [])

    def reset_usage(self, database: str) -> int:
        """As `usage.reset`; how fast engines were is forgotten, too."""

        def reset(connection: sqlite3.Connection) -> int:
            speed.forget(connection, database)
            return usage.reset(connection, database)

        return self._database.run(reset, 0)

    def stats(self, database: str, servers: Sequence[str], check: Callable[[], None]) -> list[Stats]:
        """As `answers.stats`, of all.

        Args:
            database: The database's name.
            servers: The servers' names.
            check: Called every now and then; may raise to stop it.
        """
        sums: dict[str, Stats] = {}
        for part in [None, *answers.slices()]:
            check()
            nothing: list[Stats] = []
            work = partial(answers.stats, database=database, servers=servers, part=part)
            for each in self._database.read(work, nothing):
                sums[each.server] = each.with_(sums.get(each.server))
        return [sums[server] for server in sorted(sums)]

    def clear(
        self,
        database: str,
        servers: Sequence[str] | None,
        made_before: float | None,
        check: Callable[[], None],
    ) -> int | None:
        """As `answers.clear`, of all, and the file shrinks; None if it cannot be written now.

        What is deleted is overwritten.

        Args:
            database: The database's name.
            servers: The servers' names, or None.
            made_before: As for `answers.clear`.
            check: Called every now and then; may raise to stop it.
        """
        count = 0
        self._database.read(lambda connection: connection.execute("PRAGMA secure_delete = ON").fetchall(), [])
        for part in [None, *answers.slices()]:
            check()
            work = partial(answers.clear, database=database, servers=servers, made_before=made_before, part=part)
            cleared = self._database.run(work, None, within_s=CLEAR_WITHIN_S)
            if cleared is None:
                return None
            count += cleared
        while self._database.run(
            partial(answers.give_back, pages=_FREED_PAGES), default=False, within_s=CLEAR_WITHIN_S
        ):
            check()
        self._database.read(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(), [])
        self._database.read(lambda connection: connection.execute("PRAGMA secure_delete = OFF").fetchall(), [])
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

    def scope(self, server: Server, model: Model) -> Scope:
        """Where the answers of a server's model are that this role may have."""
        role = self.role if server.cache_scope == "role" else 0
        return Scope(self.database, server.name, self.owner, server.endpoints[0], *model, role)

    def engine(self, server: Server) -> speed.Engine:
        """A server's engine as this role sees it."""
        return speed.Engine(self.database, self.role, server.name, server.endpoints[0], server.model or "")


def context(scope: Scope, api: str, question: Sequence[object]) -> bytes:
    """A digest of all that an answer depends on, but for its row."""
    parts = [VERSION, *(getattr(scope, name) for name in scope.__slots__), api, *question]
    return blake2b(json.dumps(parts).encode(), digest_size=KEY_BYTES).digest()


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
        self._landed: dict[bytes, Pack] = {}  # by the question
        self._landed_chars = 0
        self._flushes = 0
        self._new: dict[bytes, object] = {}  # questions that had no answers, and how often others had written by then
        self._packed: dict[bytes, int] = {}  # answers by the question that were written and are not sorted in
        self._unused: list[int] = []
        self._uncounted = Figures(statements=1)
        self._speeds: list[Speed] = []
        self._count_at = 0.0
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

    def identify(self, find_model: Callable[[], Found], is_gone: tuple[type[Exception], ...]) -> Scope:
        """Which model answers, and so where its answers are.

        Args:
            find_model: Asks the engine.
            is_gone: What that raises if the engine is not there; then it is the model that it served last.
        """
        if self._scope is None:
            endpoint, asked = self.server.endpoints[0], self.server.model or ""
            last = self._ledger.last_model(endpoint, asked)
            try:
                name, revision = find_model()[:2]
                model = _as_text(name), _as_text(revision)
            except is_gone:
                if last is None:
                    raise
                model = last
            if model != last:
                self._ledger.write(lambda connection: answers.name_model(connection, endpoint, asked, model))
            self._scope = self._asker.scope(self.server, model)
        return self._scope

    def context(self, scope: Scope, question: Sequence[object]) -> bytes:
        """As the function `context`."""
        return context(scope, self.server.api, question)

    def recall(self, context: bytes, rows: Sequence[bytes], max_age_s: float | None) -> dict[bytes, str]:
        """The answers that are known.

        Args:
            context: Of the question.
            rows: Digests of rows.
            max_age_s: How old an answer may be; None for any age.

        Returns:
            By the row's digest.
        """
        if self._is_new(context):
            return {}
        found, unused = self._ledger.find(context, rows, 0 if max_age_s is None else time.time() - max_age_s)
        self._unused += unused
        if len(self._unused) >= _USED_AT_ONCE:
            self._note_use()
        self.say()
        return found

    def _is_new(self, context: bytes) -> bool:
        """Whether a question had no answers when the statement first asked it, and nobody else has written since.

        Whoever asks remembers what it was answered; more of it than that is sorted in and looked for.
        """
        version = self._ledger.version()
        others = None if version is None else (version, self._ledger.flushes - self._flushes)
        if others is not None and self._new.get(context) == others:
            return True
        self._new.pop(context, None)
        if self._ledger.is_new(context):
            self._new[context] = others
            return True
        return False

    def keep(self, landed: Iterable[tuple[bytes, bytes, str, str | None]]) -> None:
        """Note answers to be written by the next `flush`: (context, row, answer, prompt)."""
        with_prompts = self.server.cache_prompts
        for context, row, answer, prompt in landed:
            if len(row) != ROW_BYTES or not _is_kept(answer):
                continue
            pack = self._landed.get(context)
            if pack is None:
                pack = self._landed[context] = Pack()
            pack.rows.append(row)
            pack.answers.append(answer)
            if with_prompts:
                pack.prompts.append(prompt or "")
            self._landed_chars += len(answer) + ROW_BYTES + (len(prompt or "") if with_prompts else 0)

    def count(self, more: Figures) -> None:
        """Count in what has been asked of this server, to be written by the next `flush`."""
        self._uncounted.add(more)

    def note_speed(self, shown: Speed) -> None:
        """Note how fast the engine was in a run, to be written by the next `flush`."""
        self._speeds.append(shown)

    def flush(self, *, quietly: bool = False) -> None:
        """Write what is noted; what cannot be written now is tried again with the next.

        Args:
            quietly: Whether nothing can be told to the user at this moment.
        """
        now = time.monotonic()
        if not (self._landed or quietly or (now >= self._count_at and self._uncounted != Figures())):
            return
        scope, model = self._scope, self._scope.model if self._scope else self.server.model or ""
        day = _today()
        is_patient = quietly and not self._ledger.is_locked

        def write(connection: sqlite3.Connection) -> None:
            if scope is not None and self._landed:
                number = answers.scope_id(connection, scope)
                for context, pack in self._landed.items():
                    packs.add(connection, context, number, pack)
            if now >= self._count_at or quietly:
                usage.add(
                    connection, day, self._asker.database, self._asker.role, self.server.name, model, self._uncounted
                )
                for each in self._speeds:
                    speed.add(connection, self._asker.engine(self.server), day, each)

        if self._ledger.write(write, self._landed_chars, LAST_WITHIN_S if is_patient else 0.0):
            if now >= self._count_at or quietly:
                self.spending.write(day, self._uncounted)
                self._uncounted, self._count_at = Figures(), now + USAGE_EVERY_S
                self._speeds = []
            if self._landed:
                self._flushes += 1
                self._ledger.flushes += 1
            self._sort_in()
        elif self._landed_chars > MOST_WAITING_CHARS:
            self._landed, self._landed_chars = {}, 0
        if quietly:
            self._note_use()
        else:
            self.say()

    def _sort_in(self) -> None:
        """Sort in what has been written, now and then: to a question that nobody asks again it is never done."""
        for context, pack in self._landed.items():
            count = self._packed.get(context, 0) + len(pack.rows)
            if count >= SORT_IN_AFTER:
                self._new.pop(context, None)
                self._ledger.fold(context)
                count = 0
            self._packed[context] = count
        self._landed, self._landed_chars = {}, 0

    def _note_use(self) -> None:
        """Write which answers have been used; that is worth no second try."""
        for start in range(0, len(self._unused), _USED_AT_ONCE):
            part = self._unused[start : start + _USED_AT_ONCE]
            self._ledger.write(partial(answers.use, numbers=part))
        self._unused = []

    def say(self) -> None:
        """Tell the user of trouble."""
        if self._ledger.warnings.waiting:
            for message, hint in self._ledger.warnings.take():
                self._warn(message, hint)


def _today() -> str:
    return time.strftime("%Y-%m-%d")


def _is_kept(answer: str) -> bool:
    """Whether an answer can be written: not half a character, nor one out of all proportion."""
    try:
        return len(answer) <= MOST_CHARS and (answer.isascii() or bool(answer.encode()))
    except UnicodeEncodeError:
        return False


def _as_text(name: str) -> str:
    """A name as SQLite can hold it: an engine may name its model by half a character."""
    return name.encode(errors="replace").decode()

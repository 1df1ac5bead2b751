"""Who asks from a process beside the database: an engine under its limits, and an account with a ledger.

In: a server, and the folder of a ledger if answers are to be kept. Out: engines, each for one run, and one account for
all of them, by which limits of the whole job are counted. With a ledger the limits of the server (prompts in flight,
rates) hold for all processes that use the same folder, else for this object.
"""

from __future__ import annotations

import getpass
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from pg_bridge.engine import Acquaintance, Engine, Notice
from pg_bridge.errors import OptionError
from pg_bridge.ledger.account import Account, Asker, Ledger
from pg_bridge.ledger.leases import Limits
from pg_bridge.ledger.progress import Job, Owner
from pg_bridge.ledger.running import Running
from pg_bridge.options import Server

LEDGER_BYTES = 1 << 30  # that answers may take, as in a server


@dataclass(slots=True)
class _Open:
    """A ledger that is open in this process: SQLite wants a file to be open once, and used by one thread."""

    ledger: Ledger
    thread: int
    users: int = 0


_OPEN: dict[Path, _Open] = {}
_OPENING = threading.Lock()


class Desk:
    """Where one job asks; to be closed in the thread that made it.

    Args:
        server: Who is asked.
        folder: Of the ledger; None for none.
        warn: Is told (message, hint) of trouble with the ledger.
        check: Called at least every 20 ms while an engine is waited for; raises to stop the run.
        tell: Called where the user should know that the engine is waited for; must not raise.

    Attributes:
        server: As given, and of the model that was found.
        account: Of all runs of a job together.

    Raises:
        OptionError: The folder cannot be made, or its ledger is in use in another thread of this process.
    """

    def __init__(
        self,
        server: Server,
        folder: Path | None,
        warn: Callable[[str, str], None],
        check: Callable[[], None],
        tell: Callable[[Notice], None] = lambda _: None,
    ) -> None:
        self.server = server
        self._check = check
        self._tell = tell
        self._acquaintance = Acquaintance()
        self._folder = None if folder is None else folder.expanduser().absolute()
        ledger = Ledger(None) if self._folder is None else _open_ledger(self._folder)
        self._running = Running(ledger.running, ledger.warnings.add) if folder is not None else Running()
        self._ledger = ledger
        self._warn = warn
        self.account = self._new_account()

    def engine(self) -> Engine:
        """A way to the engine, for one run."""
        named = "\0".join([self.server.name, self.server.endpoint])
        limits = Limits(self.server.most_in_flight, self.server.requests_per_minute, self.server.tokens_per_minute)
        gate = self._running.gate(blake2b(named.encode(), digest_size=16).hexdigest(), limits)
        return Engine(
            self.server, check_interrupts=self._check, gate=gate, acquaintance=self._acquaintance, tell=self._tell
        )

    def begin_job(self) -> None:
        """Count limits from nothing: what is asked from now on is another job."""
        self.account = self._new_account()

    def find_model(self, patience_s: float) -> str:
        """The model that answers from now on, though the engine may serve others later.

        Args:
            patience_s: How long the engine is waited for from now on.

        Raises:
            EngineError: The engine does not tell, or is not there.
        """
        with self.onlooker() as engine:
            name = engine.find_model().name
        self.server = replace(self.server, model=name, patience_s=patience_s)
        return name

    def close(self) -> None:
        """Let go of the ledger; may be called twice."""
        folder, self._folder = self._folder, None
        if folder is not None:
            _close_ledger(folder)

    def _new_account(self) -> Account:
        owner = Owner(_user_id(), _user_name(), "", self.server.name)
        asker = Asker("", _user_id(), 0)
        return Account(self._ledger, asker, self.server, self._warn, Job(self._ledger.running, owner))

    def onlooker(self) -> Engine:
        """A way to what the engine tells of itself; nothing is asked on it, so it is held to no limit."""
        return Engine(self.server, check_interrupts=self._check, acquaintance=self._acquaintance)


def folder_of(ledger: Path, role: str, oid: int) -> Path:
    """The folder of a role in a worker's ledger: another role of its name, one day, is not to learn of it.

    Args:
        ledger: The worker's.
        role: The role.
        oid: Its oid.
    """
    return ledger / f"{role.encode().hex()}-{oid}"


def _open_ledger(folder: Path) -> Ledger:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"the ledger's folder {folder} cannot be made: {error.strerror}") from error
    with _OPENING:
        found = _OPEN.setdefault(folder, _Open(Ledger(folder, LEDGER_BYTES), threading.get_ident()))
        if found.thread != threading.get_ident():
            raise OptionError(
                f"the ledger in {folder} is in use in another thread of this process",
                hint="Give each thread a folder of its own, or run one after the other.",
            )
        found.users += 1
    return found.ledger


def _close_ledger(folder: Path) -> None:
    with _OPENING:
        found = _OPEN[folder]
        found.users -= 1
        if not found.users:
            del _OPEN[folder]
            found.ledger.close()


def _user_id() -> int:
    return os.getuid()


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has often no name
        return str(_user_id())

"""Runs a case with batching off and on, and says how the two differ.

The rows of every step, the SQLSTATE of errors, sequences, the number of calls, and hidden values that reached a
function are compared. A statement that takes too long without batching is not compared at all.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from tests.generated.schema import SEQUENCES, make_schema
from tests.generated.statements import Case

TIMEOUT_MS = {False: 3000, True: 20000}  # of a statement, without batching and with it
RECOVERY_TIMEOUT_S = 60.0
TIMED_OUT = "57014"
ABORTED = "25P02"  # what every statement raises after one that failed in its transaction
WIDE_WINDOW = 1000  # rows: more than any table has, so that there is one window and no order is tried out


@dataclass
class Outcome:
    """What one side did.

    Attributes:
        answers: For each step its rows, or the SQLSTATE.
        messages: The errors' texts, for people.
        asked: Calls that were made, one by one or in batches.
        batches: Batches among them.
        slowed: Calls of a dear function that is not batched.
        state: Where the other sequences stand.
        revealed: Hidden values that reached a function.
        seconds: How long it took.
    """

    answers: list[Any] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    asked: int = 0
    batches: int = 0
    slowed: int = 0
    state: tuple[int, ...] = ()
    revealed: set[str] = field(default_factory=set)
    seconds: float = 0.0

    @property
    def timed_out(self) -> bool:
        """Whether a statement took too long."""
        return any(message.startswith(TIMED_OUT) for message in self.messages)

    @property
    def failed(self) -> bool:
        """Whether a statement failed."""
        return bool(self.messages)


class Server:
    """A database with the schema of the generated statements, and two sessions in it.

    Args:
        dsn: A superuser's connection string, to an empty database.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connect()
        make_schema(self.conn)
        self._lock_rows()
        self.version = self.conn.info.server_version

    def _connect(self) -> None:
        self.conn: psycopg.Connection[Any] = psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None)
        self.conn.add_notice_handler(self._notice)
        self._revealed: set[str] = set()

    def _lock_rows(self) -> None:
        """The other session keeps some rows of `locked` locked."""
        self._other = psycopg.connect(self._dsn)
        self._other.execute("SELECT FROM locked WHERE id % 4 = 1 FOR UPDATE")

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        message = notice.message_primary or ""
        if message.startswith("revealed "):
            self._revealed.add(message.removeprefix("revealed ").upper())

    def close(self) -> None:
        """End both sessions."""
        self.conn.close()
        self._other.close()

    def recover(self) -> None:
        """Connect again after a crash.

        Raises:
            psycopg.OperationalError: The server does not come back.
        """
        self.close()
        deadline = time.monotonic() + RECOVERY_TIMEOUT_S
        while True:
            try:
                self._connect()
                self._lock_rows()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def vacuum(self) -> None:
        """Take away what rolled back changes left, so that plans stay as they were."""
        self.conn.execute("VACUUM d, p, i, secret, vault, depot")

    # -- one case

    def difference(self, case: Case) -> tuple[str, Outcome, Outcome]:
        """How the two sides differ: empty if they do not, `crash: …` if the server was lost."""
        off, on = Outcome(), Outcome()
        try:
            self._run("RESET ALL")
            if not self._prepared(case, off):
                return "", off, on
            off = self._side(case, batching=False)
            if off.timed_out:
                return "", off, on
            self._prepared(case, on)
            on = self._side(case, batching=True)
        except psycopg.OperationalError as error:
            if not self.conn.broken:
                raise
            return f"crash: {str(error).splitlines()[0]}", off, on
        return self._compare(case, off, on), off, on

    def _prepared(self, case: Case, outcome: Outcome) -> bool:
        """Prepare anew for each side: the sixth run PostgreSQL may plan without the values, and not fold them."""
        self._run("RESET ROLE; DEALLOCATE ALL")
        if not case.prepare:
            return True
        self._set(case, batching=False)
        try:
            self._run(case.prepare)
        except psycopg.Error as error:
            if self.conn.broken:
                raise
            outcome.messages.append(f"{error.sqlstate} {error.diag.message_primary}")
            return False
        return True

    def _set(self, case: Case, *, batching: bool) -> None:
        lines = [f"SELECT {', '.join(f'setval({name!r}, 1)' for name in SEQUENCES)}"]
        lines += [
            sql.SQL("SET {} = {}").format(sql.Identifier(*n.split(".")), sql.Literal(v)).as_string()
            for n, v in self.settings(case)
        ]
        lines += [
            f"SET statement_timeout = {TIMEOUT_MS[batching]}",
            f"SET pg_bridge.batching = {batching}",
            f"SET ROLE {case.role}",
        ]
        self._run("RESET ROLE; " + "; ".join(lines))

    def settings(self, case: Case) -> list[tuple[str, str]]:
        """A case's settings as this server names them."""
        old = {"debug_parallel_query": "force_parallel_mode"} if self.version < 160000 else {}
        return [(old.get(name, name), value) for name, value in case.settings.items()]

    def _run(self, statements: str) -> None:
        self.conn.execute(statements.encode())

    def _side(self, case: Case, *, batching: bool) -> Outcome:
        self._set(case, batching=batching)
        outcome = Outcome()
        self._revealed.clear()
        start = time.monotonic()
        for step in case.steps:
            try:
                outcome.answers.append(self._answer(step, case))
            except psycopg.Error as error:
                if self.conn.broken:
                    raise
                outcome.answers.append(error.sqlstate or "?")
                if error.sqlstate != ABORTED:
                    outcome.messages.append(f"{error.sqlstate} {error.diag.message_primary}")
        outcome.seconds = time.monotonic() - start
        if self.conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            self._run("ROLLBACK")
        self._run("CLOSE ALL")
        if case.together:
            outcome.answers = [_together(outcome.answers, ordered=case.ordered)]
        outcome.revealed = set(self._revealed)
        stands = ", ".join(f"(SELECT last_value FROM {name})" for name in SEQUENCES)
        asked, batches, slowed, *rest = self.conn.execute(f"SELECT {stands}".encode()).fetchall()[0]
        outcome.asked, outcome.batches, outcome.slowed, outcome.state = asked - 1, batches - 1, slowed - 1, tuple(rest)
        return outcome

    def _answer(self, step: str, case: Case) -> object:
        cursor = self.conn.execute(step.encode())
        result = cursor.pgresult
        if result is None or result.nfields == 0:
            return f"{result.command_tuples if result else ''} rows"
        columns = range(result.nfields)
        rows = [tuple(result.get_value(row, column) for column in columns) for row in range(result.ntuples)]
        return rows if case.ordered or case.together else Counter(rows)

    def _compare(self, case: Case, off: Outcome, on: Outcome) -> str:
        if on.timed_out:
            # debug_parallel_query starts a worker for the query inside of each call of a batch function
            fair = off.seconds < 0.1 and case.settings.get("debug_parallel_query", "off") == "off"
            return f"takes too long: {off.seconds:.2f} s became {on.seconds:.2f}" if fair else ""
        for number, (expected, got) in enumerate(zip(off.answers, on.answers, strict=True), 1):
            if expected != got:
                return f"step {number}: {_shown(expected, off)} became {_shown(got, on)}"
        if off.state != on.state and not off.failed:
            return f"sequences {off.state} became {on.state}"
        if on.revealed and not off.revealed:
            return f"hidden values reached a function: {sorted(on.revealed)}"
        return self._compare_calls(case, off, on) if case.counted and not off.failed else ""

    def _compare_calls(self, case: Case, off: Outcome, on: Outcome) -> str:
        if int(case.settings.get("pg_bridge.window_rows", WIDE_WINDOW)) < WIDE_WINDOW:
            return ""
        if on.asked > off.asked:
            return f"{off.asked} calls became {on.asked}"
        if on.slowed > off.slowed:
            return f"{off.slowed} calls of a dear function became {on.slowed}"
        return ""


def _together(answers: list[Any], *, ordered: bool) -> object:
    """All rows of a cursor's fetches as one answer, and how many each fetch gave; errors as they are."""
    rows = [row for answer in answers if isinstance(answer, list) for row in answer]
    counts = [len(answer) if isinstance(answer, list) else answer for answer in answers]
    return counts, rows if ordered else Counter(rows)


def _shown(answer: object, outcome: Outcome) -> str:
    if isinstance(answer, str):
        return next((m for m in outcome.messages if m.startswith(answer)), answer)
    if isinstance(answer, list | Counter):
        rows = sorted(Counter(answer).items(), key=repr)
        return f"{sum(count for _, count in rows)} rows, {len(rows)} of them different, first {rows[:3]}"
    return repr(answer)[:300]

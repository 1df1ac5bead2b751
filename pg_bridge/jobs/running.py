"""Does a job: reads, asks, writes, until no row is left that can be answered.

    reading side → not answered yet? → window by window, planned → engine → parts of answers → writing side

In: the two sides, what is asked, an engine. Out: a report, and figures on the way. Answers are written in parts, each
committed when it is full or a second old, whatever the engine is doing. What goes wrong with the engine ends the pass,
not the job: after a pause the rows are read again, and only those asked about that have no answer. So does whoever
starts a job again that was killed; there is no other state than the target's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

from pg_bridge.asking import streamed
from pg_bridge.asking.books import Books
from pg_bridge.asking.counting import Engineering, Estimate
from pg_bridge.asking.estimate import estimate
from pg_bridge.asking.inquiry import Ask, NotAsked, question_of
from pg_bridge.asking.prompt import parse_question, resolve_columns
from pg_bridge.asking.run import Run
from pg_bridge.engine import EngineTokenizer, survey
from pg_bridge.errors import EngineDenied, EngineError, JobError, UnknownModel, WrongWay
from pg_bridge.jobs.answers import Form
from pg_bridge.jobs.asker import Desk
from pg_bridge.jobs.record import Done, Item, JobRecord, Reading, Writing, context_digest
from pg_bridge.jobs.report import Report
from pg_bridge.options import Call

PART_ROWS, PART_CHARS, PART_S = 5000, 8_000_000, 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 10.0
TELL_EVERY_S = 0.25


class Stopped(Exception):  # no error: somebody has asked for it
    """The job was asked to end; what was answered is written."""


class Running:
    """One job that is done.

    Args:
        job: The job.
        call: Its options.
        reading: Where its rows come from.
        writing: Where answers go.
        form: What they look like there.
        desk: Where it asks.
        limit: Rows to ask about at most; None for all.
        patience_s: How long an engine that is gone is waited for.
        tell: Is given the report now and then.
        say: Is told what goes on, in words.
        check: Raises `Stopped` to stop.

    Attributes:
        report: What has been done so far.
    """

    def __init__(
        self,
        job: JobRecord,
        call: Call,
        reading: Reading,
        writing: Writing,
        form: Form,
        desk: Desk,
        *,
        limit: int | None = None,
        patience_s: float = 600.0,
        tell: Callable[[Report], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.report = Report(expected=reading.expected_rows, limit=limit)
        self._job = job
        self._call = call
        self._reading = reading
        self._writing = writing
        self._form = form
        self._desk = desk
        self._limit = limit
        self._patience_s = patience_s
        self._tell = tell
        self._say = say
        self._check = check
        self._part: list[Done] = []
        self._part_chars = 0
        self._part_rows = PART_ROWS
        self._part_since_s = 0.0
        self._told_s = 0.0
        question = question_of(Ask(job.prompt, call)) if call.is_pooled else parse_question(job.prompt)
        available = tuple(name for name in reading.columns if name not in job.key or name in question.columns)
        sent = resolve_columns(question, available)
        # So that a query which names its columns in another order asks the same, where the planner orders them anyway.
        self._sent = tuple(sorted(sent)) if call.reorder == "rows and columns" else sent
        self._context = context_digest(question, call, desk.server)

    def run(self) -> Report:
        """Do it.

        Raises:
            Stopped: `check` has raised it.
            BudgetExceeded: A budget is used up, and `on_budget` is `fail`.
            EngineError: The engine refuses, or was gone for longer than patience lasts.
            PgBridgeError: Reading or writing failed. In each case what was answered is written.
        """
        until, pause_s = time.monotonic() + self._patience_s, FIRST_PAUSE_S
        while True:
            done_before = self.report.done
            try:
                self._pass()
            except (EngineDenied, UnknownModel, WrongWay):
                raise
            except EngineError as error:
                now = time.monotonic()
                if self.report.done > done_before:
                    until, pause_s = now + self._patience_s, FIRST_PAUSE_S
                if now > until:
                    raise
                self._say(f"{error.message}; trying again for {until - now:.0f} s")
                self._pause(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                self._writing.finish()
                self._tell(self.report)
                return self.report

    def foresee(self) -> Estimate:
        """Tell what it would ask and take; nothing is asked and nothing written."""
        with closing(self._desk.onlooker()) as engine:
            fetch = self._begin()
            server = self._desk.server
            found = estimate(
                lambda count: [item.text for item in fetch(count)],
                self._sent,
                [Ask(self._job.prompt, self._call)],
                Engineering(server, lambda: survey(engine, server), partial(EngineTokenizer, engine, server)),
                Books(self._desk.account, engine, Run()),
                every_row=True,
                work=engine.work,
            )
        self._tell(self.report)
        return found

    def look(self) -> None:
        """Call often: writes a part that is due, and tells how far it is.

        Raises:
            Stopped: Somebody has asked for it.
        """
        self._check()
        now = time.monotonic()
        if self._part and now - self._part_since_s >= PART_S:
            self._write()
        if now - self._told_s >= TELL_EVERY_S:
            self._told_s = now
            self._tell(self.report)

    def _begin(self) -> Callable[[int], list[Item]]:
        """Begin a pass; gives what reads the rows that have no answer yet."""
        report = self.report
        report.read = report.known = report.not_asked = 0
        report.all_read = False
        self._writing.begin()
        self._reading.begin(self._sent, self._context)
        left = None if self._limit is None else self._limit - report.done
        return _Unknown(self._reading, self._writing, report, left, self.look, self._job.into_file).fetch

    def _pass(self) -> None:
        report, run = self.report, Run()
        fetch = self._begin()
        waiting: dict[int, Item] = {}  # by the number of the row
        number = 0

        def read(count: int) -> list[str | None]:
            nonlocal number
            items = fetch(count)
            for item in items:
                number += 1
                waiting[number] = item
            if items and report.asking_since_s is None:
                report.asking_since_s = time.monotonic()
            return [item.text for item in items]

        engine = self._desk.engine()
        report.current = run
        answers = streamed.ask(
            read, self._sent, self._job.prompt, self._call, engine, run, every_row=True, account=self._desk.account
        )
        try:
            with closing(answers):  # type: ignore[type-var]  # it is a generator
                for answer in answers:
                    self._take(waiting.pop(answer.row_id), answer.output, answer.error)
                    report.in_flight = engine.in_flight
        finally:
            report.in_flight = 0
            report.run.add(run)
            report.current = Run()
            self._write()

    def _take(self, item: Item, output: str | None, error: str | None) -> None:
        if isinstance(error, NotAsked):
            self.report.not_asked += 1
            return
        value = None
        if output is not None:
            value, error = self._form.value(output)
        if not self._part:
            self._part_since_s = time.monotonic()
        self._part.append(Done(item.key, item.digest, value, error, item.beside))
        self._part_chars += len(value or "")
        if error is None:
            self.report.answered += 1
        else:
            self.report.failed += 1
        if len(self._part) >= self._part_rows or self._part_chars >= PART_CHARS:
            self._write()

    def _write(self) -> None:
        """Write what there is; a part that takes long is followed by smaller ones."""
        part, self._part, self._part_chars = self._part, [], 0
        if part:
            started = time.monotonic()
            refusal = self._save(part)
            if refusal is not None:
                raise refusal
            if time.monotonic() - started > PART_S:
                self._part_rows = max(self._part_rows // 2, 100)

    def _save(self, part: Sequence[Done]) -> JobError | None:
        """Write a part; where a row of it is refused, all others, and return why a row cannot be written at all."""
        try:
            self._writing.write(part)
        except JobError as error:
            if not error.is_refusal:
                raise
            if len(part) > 1:
                middle = len(part) // 2
                first, second = self._save(part[:middle]), self._save(part[middle:])
                return first or second
            if part[0].error is not None:
                return error
            refused = self._save([part[0]._replace(answer=None, error=f"the target refuses it: {error.message}")])
            self.report.answered -= 1
            self.report.failed += 1
            return refused
        return None

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.look()
            time.sleep(min(left, 0.05))


@dataclass(slots=True)
class _Unknown:
    """Reads rows, and leaves out those that are answered."""

    reading: Reading
    writing: Writing
    report: Report
    limit: int | None
    look: Callable[[], None]
    wants_all: bool
    _ready: list[Item] = field(default_factory=list)
    _found: int = 0

    def fetch(self, count: int) -> list[Item]:
        """At most so many more; fewer at the end only."""
        while len(self._ready) < count and not self.report.all_read:
            self.look()
            items = self.reading.fetch()
            unknown = self.writing.unknown(items)
            self.report.all_read = not items
            if self.limit is not None and len(unknown) >= self.limit - self._found:
                unknown = unknown[: self.limit - self._found]
                items = items[: items.index(unknown[-1]) + 1 if unknown else 0]
                self.report.all_read = True
                self._pass_on()
            self._found += len(unknown)
            self.report.read += len(items)
            self.report.known += len(items) - len(unknown)
            self._ready += unknown
        found, self._ready = self._ready[:count], self._ready[count:]
        return found

    def _pass_on(self) -> None:
        """Give the rest, which is not asked about, to a file of answers: it has every row."""
        while self.wants_all and (items := self.reading.fetch()):
            self.look()
            self.writing.unknown(items)

"""What `pg-bridge map` shows while it works: a bar on a terminal, JSON lines for a log, or nothing.

In: reports and notes. Out: text on standard error, or JSON on standard output. It never shows a row, a prompt or a key.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import Any, Protocol

from pg_bridge.jobs.report import Report
from pg_bridge.ledger.prices import cost_of
from pg_bridge.options import Server

JSON_EVERY_S = 10.0
PLAIN_EVERY_S = 60.0


class Progress(Protocol):
    """Somebody who is told how far a job is."""

    def tell(self, report: Report) -> None:
        """How far it is; called some times a second."""

    def say(self, note: str) -> None:
        """What goes on, in words."""

    def end(self, status: str, report: Report | None, text: str) -> None:
        """It is over: `done`, `stopped`, `failed`; called once."""


def choose(*, quiet: bool, log: str | None, server: Server) -> Progress:
    """The one for this run: JSON if it is asked for, a bar on a terminal, else a line a minute."""
    if log == "json":
        return _JsonLines(server)
    if quiet:
        return _Silent()
    if log is None and sys.stderr is not None and sys.stderr.isatty():
        try:
            return _Bar(server)
        except ImportError:  # rich comes with the extra `jobs`
            pass
    return _Plain(server)


def figures(report: Report, server: Server) -> dict[str, Any]:
    """What a report says, for a log."""
    run = report.figures
    left = report.left_s()
    return {
        "rows_read": report.read,
        "rows_known": report.known,
        "rows_answered": report.answered,
        "rows_failed": report.failed,
        "rows_not_asked": report.not_asked,
        "rows_expected": report.read if report.all_read else report.expected,
        "prompts": run.unique_prompts,
        "prompts_saved": report.saved_prompts,
        "in_flight": report.in_flight,
        "requests": run.usage.requests,
        "retries": run.usage.retries,
        "prompt_tokens": run.usage.prompt_tokens,
        "cached_tokens": run.usage.cached_tokens,
        "completion_tokens": run.usage.completion_tokens,
        "prefix_hit_rate": run.prefix_hit_rate,
        "cost": cost_of(run.usage, server),
        "seconds": round(time.monotonic() - report.began_s, 3),
        "seconds_left": None if left is None else round(left, 1),
    }


class _Silent:
    def tell(self, report: Report) -> None:
        pass

    def say(self, note: str) -> None:
        pass

    def end(self, status: str, report: Report | None, text: str) -> None:
        pass


class _JsonLines:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._next_s = time.monotonic() + JSON_EVERY_S

    def tell(self, report: Report) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + JSON_EVERY_S
            self._print("progress", figures(report, self._server))

    def say(self, note: str) -> None:
        self._print("note", {"text": note})

    def end(self, status: str, report: Report | None, text: str) -> None:
        self._print("end", {"status": status, "text": text, **(figures(report, self._server) if report else {})})

    def _print(self, event: str, more: dict[str, Any]) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        print(json.dumps({"at": at, "event": event, **more}, ensure_ascii=False), flush=True)


class _Plain:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._next_s = time.monotonic() + PLAIN_EVERY_S

    def tell(self, report: Report) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + PLAIN_EVERY_S
            _print(_line(report, self._server))

    def say(self, note: str) -> None:
        _print(note)

    def end(self, status: str, report: Report | None, text: str) -> None:
        if text and status != "failed":  # whose words come from elsewhere
            print(text, flush=True)


class _Bar(_Plain):
    def __init__(self, server: Server) -> None:
        from rich.console import Console  # noqa: PLC0415 - not everywhere installed
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - as above

        super().__init__(server)
        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
            auto_refresh=False,  # no thread beside the one that works
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)
        self._progress.start()

    def tell(self, report: Report) -> None:
        total = report.read if report.all_read else report.expected
        self._progress.update(
            self._task,
            total=max(1, (total or report.read) - report.known),
            completed=report.done,
            description=_line(report, self._server),
            refresh=True,
        )

    def say(self, note: str) -> None:
        self._progress.console.print(note, markup=False, highlight=False)

    def end(self, status: str, report: Report | None, text: str) -> None:
        self._progress.stop()
        super().end(status, report, text)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _line(report: Report, server: Server) -> str:
    """Rows, hit rate, tokens, cost, time left."""
    run = report.figures
    parts = [f"{report.done:,} of {report.read - report.known:,}{'' if report.all_read else '+'} rows"]
    if report.failed:
        parts.append(f"{report.failed:,} failed")
    if run.prefix_hit_rate is not None:
        parts.append(f"hit rate {run.prefix_hit_rate:.0%}")
    if run.usage.prompt_tokens:
        parts.append(f"{run.usage.prompt_tokens + (run.usage.completion_tokens or 0):,} tokens")
    cost = cost_of(run.usage, server)
    if cost is not None:
        parts.append(f"cost {cost:.4g}")
    left = report.left_s()
    if left is not None:
        parts.append(f"{_duration(left)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    """A duration in words.

    >>> [_duration(seconds) for seconds in (3.4, 75, 3725)]
    ['3 s', '1 min 15 s', '1 h 2 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"

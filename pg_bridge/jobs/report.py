"""What a job has done so far: figures, and the line that it ends with.

In: counts, as `running` makes them. Out: sums, the time that is left, and what was saved, in words.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from decimal import Decimal

from pg_bridge.asking.run import Run
from pg_bridge.ledger.prices import cost_of
from pg_bridge.options import Server


@dataclass(slots=True)
class Report:
    """What a job has done so far. Tokens are the engine's own, None where it does not tell.

    Attributes:
        read: Rows that have been read, in this pass.
        known: Those of them that have an answer already.
        expected: Rows that there will be, about; None where nobody knows.
        limit: Rows to ask about at most; None for all.
        all_read: Whether all have been read.
        answered: Rows that got an answer, in all passes.
        failed: Rows that have none, and an error.
        not_asked: Rows that a budget did not allow.
        run: The figures of the passes that are over.
        current: Those of the pass that is on.
        in_flight: Questions that the engine is answering.
        began_s: The moment of the beginning, on the monotonic clock.
        asking_since_s: The same of the first question.
    """

    read: int = 0
    known: int = 0
    expected: int | None = None
    limit: int | None = None
    all_read: bool = False
    answered: int = 0
    failed: int = 0
    not_asked: int = 0
    run: Run = field(default_factory=Run)
    current: Run = field(default_factory=Run)
    in_flight: int = 0
    began_s: float = field(default_factory=time.monotonic)
    asking_since_s: float | None = None

    @property
    def done(self) -> int:
        """Rows that are through."""
        return self.answered + self.failed + self.not_asked

    @property
    def figures(self) -> Run:
        """Those of all passes."""
        both = Run()
        both.add(self.run)
        both.add(self.current)
        return both

    @property
    def saved_prompts(self) -> int:
        """Rows that were answered, or refused, without a prompt of their own."""
        return max(0, self.answered + self.failed - self.figures.unique_prompts)

    def left_s(self) -> float | None:
        """Seconds that it will take at the speed so far; None where that cannot be told."""
        total = self.read if self.all_read else self.expected
        if total is None or self.asking_since_s is None or not self.done:
            return None
        left = max(0, (total - self.known if self.limit is None else min(total - self.known, self.limit)) - self.done)
        return left * (time.monotonic() - self.asking_since_s) / self.done


def summary(report: Report, server: Server, target: str) -> str:
    """One line that says what was done and what was saved."""
    figures = report.figures
    usage = figures.usage
    asked = report.answered + report.failed
    parts = [f"{report.answered:,} rows answered into {target}"]
    if report.known:
        parts.append(f"{report.known:,} had their answers")
    if report.failed:
        parts.append(f"{report.failed:,} have an error")
    if report.not_asked:
        parts.append(f"{report.not_asked:,} were not asked: the budget is used up")
    text = ", ".join(parts)
    if asked:
        text += f". {report.saved_prompts:,} of {asked:,} prompts saved"
        hit_rate = figures.prefix_hit_rate
        if hit_rate is not None:
            remaining = f"{usage.prompt_tokens:,} prompt tokens"
            text += f"; {hit_rate:.0%} of the remaining {remaining} came from the prefix cache"
        cost = cost_of(usage, server)
        if cost is not None:
            text += f"; cost {Decimal(f'{cost:.4g}'):f}"
    return f"{text}; {time.monotonic() - report.began_s:.1f} s."

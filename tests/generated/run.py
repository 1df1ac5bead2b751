"""Runs many cases, counts what came of them, and describes differences so that one can be run again alone."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.generated.choices import Choices
from tests.generated.server import Server
from tests.generated.shrinking import shrink
from tests.generated.statements import Case, make_case

VACUUM_EVERY = 200
PROGRESS_S = 10.0


@dataclass(frozen=True)
class Difference:
    """A case in which the two sides differ.

    Attributes:
        seed: Its seed: `RUN.NUMBER`.
        what: How they differ.
        script: Statements for psql that show it.
    """

    seed: str
    what: str
    script: str

    def __str__(self) -> str:
        return f"-- {self.seed}: {self.what}\n{self.script}"


@dataclass
class Summary:
    """What came of a run.

    Attributes:
        compared: Cases that were compared.
        batched: Cases in which batches were asked.
        failed: Cases in which both sides raised the same error.
        slow: Cases that took too long without batching, and were not compared.
        differences: The others.
        seconds: How long the run took.
    """

    compared: int = 0
    batched: int = 0
    failed: int = 0
    slow: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.compared} compared ({self.batched} with batches, {self.failed} with the same error), "
            f"{self.slow} too slow, {len(self.differences)} differences, {self.seconds:.0f} s"
        )


def run_cases(
    server: Server,
    seeds: Sequence[str],
    *,
    keep_going: bool = False,
    shrink_s: float = 20.0,
    progress: bool = False,
) -> Summary:
    """Run the cases of these seeds; ends at the first difference unless it is to keep going."""
    summary = Summary()
    start = last = time.monotonic()
    for number, seed in enumerate(seeds):
        difference = run_one(server, seed, summary, shrink_s)
        if difference:
            summary.differences.append(difference)
            if progress:
                print(f"{difference}\n", flush=True)
            if not keep_going:
                break
        if number % VACUUM_EVERY == VACUUM_EVERY - 1:
            server.vacuum()
        summary.seconds = time.monotonic() - start
        if progress and time.monotonic() - last > PROGRESS_S:
            last = time.monotonic()
            print(f"… {summary}", file=sys.stderr, flush=True)
    summary.seconds = time.monotonic() - start
    return summary


def run_one(server: Server, seed: str, summary: Summary, shrink_s: float) -> Difference | None:
    """Run one case and count it; describe the difference, made small, if there is one."""
    choices = Choices(seed)
    case = make_case(choices)
    what, off, on = server.difference(case)
    if what.startswith("crash"):
        server.recover()
    summary.compared += not off.timed_out
    summary.slow += off.timed_out
    summary.batched += on.batches > 0
    summary.failed += off.failed and not off.timed_out
    summary.errors.update(off.messages)
    if not what:
        return None
    if shrink_s > 0:
        case, what = _smaller(server, choices.made, what, shrink_s)
    return Difference(seed, what, script_of(server, case))


def _smaller(server: Server, made: Sequence[int], what: str, budget_s: float) -> tuple[Case, str]:
    """The smallest case found that differs in the same way."""
    kind = _kind(what)
    described = {"": what}

    def still(candidate: Sequence[int]) -> list[int] | None:
        choices = Choices(replay=candidate)
        found, _, _ = server.difference(make_case(choices))
        if found.startswith("crash"):
            server.recover()
        if _kind(found) != kind:
            return None
        described[""] = found
        return choices.made

    best = shrink(made, still, budget_s)
    return make_case(Choices(replay=best)), described[""]


def _kind(what: str) -> str:
    """A crash must stay a crash, a leak a leak."""
    return what.split(maxsplit=1)[0] if what else ""


def script_of(server: Server, case: Case) -> str:
    """A case as statements for psql."""
    lines = [f"SET {name} = '{value}'" for name, value in server.settings(case)]
    lines += [f"SET ROLE {case.role}"] if case.role != "postgres" else []
    lines += [f"SET pg_bridge.batching = off; {case.prepare}"] if case.prepare else []
    return "".join(f"{line};\n" for line in [*lines, "SET pg_bridge.batching = on", *case.steps])

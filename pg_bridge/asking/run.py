"""What a run did: figures for `llm.last_run()` and for EXPLAIN ANALYZE."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Self

from pg_bridge.asking.failures import Failures
from pg_bridge.asking.pruned import Pruned, Told
from pg_bridge.engine import Usage
from pg_bridge.ledger import shares
from pg_bridge.ledger.shares import Share, Shares


@dataclass(frozen=True, slots=True)
class Averages:
    """How many of a run's prompts were in flight, and where each of them was, on average; None where nobody knows.

    Attributes:
        in_flight: Prompts sent and not answered, while there were any.
        flight_ms: Milliseconds from when a prompt was sent until its answer was read.
        unread_ms: Those of them in which the answer lay here unread, at most.
        front_ms: Those that are left: on the way, and with the server in front of the engine.
        queue_ms: Those in which it waited in the engine's queue.
        prefill_ms: Those until its first token.
        decode_ms: Those until its last.
    """

    in_flight: float | None = None
    flight_ms: float | None = None
    unread_ms: float | None = None
    front_ms: float | None = None
    queue_ms: float | None = None
    prefill_ms: float | None = None
    decode_ms: float | None = None

    @classmethod
    def of(cls, usage: Usage) -> Averages:
        """The averages of a run."""
        if not usage.answered or not usage.busy_s:
            return cls()
        each, in_flight = 1000 / usage.answered, usage.prompt_s / usage.busy_s
        if usage.stages is None:
            return cls(in_flight, usage.flight_s * each, usage.unread_s * each)
        outside_s = max(0.0, usage.flight_s - sum(usage.stages))
        unread_s = min(usage.unread_s, outside_s)  # what may have lain here was with the engine still
        front_s = outside_s - unread_s
        return cls(in_flight, *(each * s for s in (usage.flight_s, unread_s, front_s, *usage.stages)))

    def lines(self) -> Iterator[tuple[str, str]]:
        """The same for EXPLAIN ANALYZE, as far as it is known."""
        if self.in_flight is None:
            return
        yield "Prompts in Flight", f"{self.in_flight:.1f}"
        parts = {
            "unread": self.unread_ms,
            "front end": self.front_ms,
            "queue": self.queue_ms,
            "prefill": self.prefill_ms,
            "decode": self.decode_ms,
        }
        told = ", ".join(f"{name} {ms:.3f}" for name, ms in parts.items() if ms is not None)
        yield "Time in Flight", f"{self.flight_ms:.3f} ms ({told})"


def shares_of(usage: Usage) -> Shares:
    """What each engine had of a run, where there are several."""
    return {
        endpoint: Share(*(getattr(each, name) for name in shares.NAMES)) for endpoint, each in usage.engines.items()
    }


@dataclass(slots=True)
class _Counts:
    """Figures that are added up, of whatever kind."""

    def add(self, other: Self) -> None:
        """Count in others."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(slots=True)
class PairsAsked(_Counts):
    """How pairs were asked about, where a condition over them is not asked pair by pair anyhow.

    Attributes:
        blocks: Questions about several rows of both sides.
        lists: Questions about one row and a list.
        alone: Pairs that were asked about by themselves.
        repairs: Those of them that a block or a list was asked about before, which gave no answer.
        inferred: Pairs that nothing was asked about, because it follows from what others were answered.
    """

    blocks: int = 0
    lists: int = 0
    alone: int = 0
    repairs: int = 0
    inferred: int = 0

    def __str__(self) -> str:
        """As EXPLAIN ANALYZE shows it; empty where there are none."""
        repairs = f", {self.repairs} of them as repairs" if self.repairs else ""
        told = (
            f"{count} {word if count == 1 else word + 's'}"
            for count, word in ((self.blocks, "block"), (self.lists, "list"))
            if count
        )
        alone = f"{self.alone} pair{'' if self.alone == 1 else 's'} alone{repairs}"
        return ", ".join([*told, *([alone] if self.alone else [])])


@dataclass(slots=True)
class ToolsUsed(_Counts):
    """What functions did that a model had called.

    Attributes:
        rounds: How often all rows that had no answer were asked.
        calls: How many calls were made, equal ones of a round once.
        failed: Those of them that gave an error.
    """

    rounds: int = 0
    calls: int = 0
    failed: int = 0


@dataclass(slots=True)
class RowsTogether(_Counts):
    """How rows were asked about where a prompt may have several of them.

    Attributes:
        rows: Different rows that were asked about.
        prompts: Prompts about several of them.
        alone: Rows that were asked about by themselves at once.
        repairs: Prompts in the place of others that gave no answer, about some of the same rows.
    """

    rows: int = 0
    prompts: int = 0
    alone: int = 0
    repairs: int = 0

    def count(self, rows: int, *, is_repair: bool) -> None:
        """Count a prompt in."""
        if is_repair:
            self.repairs += 1
        else:
            self.rows += rows
            self.prompts += rows > 1
            self.alone += rows == 1

    def __str__(self) -> str:
        """As EXPLAIN ANALYZE shows it; empty where there are none."""
        if not self.prompts:
            return ""
        several = f"{self.rows - self.alone} rows in {self.prompts} prompt{'' if self.prompts == 1 else 's'}"
        alone = [f"{self.alone} alone"] if self.alone else []
        return ", ".join([several, *alone, *([f"{self.repairs} more prompts as repairs"] if self.repairs else [])])


@dataclass(slots=True)
class Run:
    """What one run did. Seconds are wall-clock; tokens are the engine's own, None where it gives none.

    Attributes:
        failures: Where it notes which questions have no answer, with those of other runs.
        cascade: What a cascade has found, for `llm.last_cascade()`.
    """

    rows: int = 0
    unique_prompts: int = 0
    from_cache: int = 0
    read_s: float = 0.0
    plan_s: float = 0.0
    return_s: float = 0.0
    usage: Usage = field(default_factory=Usage)
    pairs: PairsAsked = field(default_factory=PairsAsked)
    pruned: list[Pruned] = field(default_factory=list)
    tools: ToolsUsed = field(default_factory=ToolsUsed)
    together: RowsTogether = field(default_factory=RowsTogether)
    failures: Failures = field(default_factory=Failures)
    cascade: dict[str, object] | None = None

    @property
    def prefix_hit_rate(self) -> float | None:
        """Cached prompt tokens over prompt tokens."""
        cached, prompt = self.usage.cached_tokens, self.usage.prompt_tokens
        return cached / prompt if prompt and cached is not None else None

    @property
    def http_s(self) -> float:
        """Seconds spent on writing requests and reading answers."""
        return self.usage.wait_s - self.usage.idle_s

    def add(self, other: Run) -> None:
        """Count in what another run did."""
        for each in ("rows", "unique_prompts", "from_cache", "read_s", "plan_s", "return_s"):
            setattr(self, each, getattr(self, each) + getattr(other, each))
        self.usage.add(other.usage)
        self.pairs.add(other.pairs)
        self.pruned += other.pruned
        self.tools.add(other.tools)
        self.together.add(other.together)

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Count the time as planned, less what of it was spent on the engine; without Python's garbage collector.

        Planning makes many objects and no cycles; looking for some would cost a quarter of its time.
        """
        started, waited_s = time.perf_counter(), self.usage.wait_s
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_enabled:
                gc.enable()
            self.plan_s += time.perf_counter() - started - (self.usage.wait_s - waited_s)

    def as_dict(self) -> dict[str, object]:
        """The columns of `llm.last_run()`."""
        pruned = Told.of(self.pruned)
        return {
            "rows": self.rows,
            "unique_prompts": self.unique_prompts,
            "from_cache": self.from_cache,
            "requests": self.usage.requests,
            "retries": self.usage.retries,
            "prompt_tokens": self.usage.prompt_tokens,
            "cached_tokens": self.usage.cached_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "reasoning_tokens": self.usage.reasoning_tokens,
            "prefix_hit_rate": self.prefix_hit_rate,
            "read_s": self.read_s,
            "plan_s": self.plan_s,
            "http_s": self.http_s,
            "wait_s": self.usage.idle_s,
            "return_s": self.return_s,
            **asdict(Averages.of(self.usage)),
            "engines": shares.rows(shares_of(self.usage)),
            "pairs": asdict(self.pairs) | (asdict(pruned) if pruned else {}) if pruned or str(self.pairs) else None,
            "tools": asdict(self.tools) if self.tools.rounds else None,
            "together": asdict(self.together) if str(self.together) else None,
            **({"cascade": self.cascade} if self.cascade else {}),
        }

    def as_report(self) -> list[str]:
        """What a plan node's calls did, as labels and values in turn, for EXPLAIN ANALYZE."""
        usage = self.usage
        tokens = [
            (label, value)
            for label, value in (
                ("Prompt Tokens", usage.prompt_tokens),
                ("Cached Tokens", usage.cached_tokens),
                ("Completion Tokens", usage.completion_tokens),
                ("Reasoning Tokens", usage.reasoning_tokens or None),
            )
            if value is not None
        ]
        figures = [
            ("Rows Asked", self.rows),
            ("Unique Prompts", self.unique_prompts),
            *([("From Ledger", self.from_cache)] if self.from_cache else []),
            *([("Pairs Asked In", told)] if (told := str(self.pairs)) else []),
            *([("Pairs Pruned", pruned)] if (pruned := Told.of(self.pruned)) else []),
            *([("Rows Asked Together", told)] if (told := str(self.together)) else []),
            ("Requests", usage.requests),
            *([("Retries", usage.retries)] if usage.retries else []),
            *tokens,
            ("Time Planned", f"{1000 * self.plan_s:.3f} ms"),
            ("Time in HTTP", f"{1000 * self.http_s:.3f} ms"),
            ("Time Waited", f"{1000 * usage.idle_s:.3f} ms"),
            *Averages.of(usage).lines(),
        ]
        return [str(part) for figure in figures for part in figure]

"""What a run did: figures for `llm.last_run()` and for EXPLAIN ANALYZE."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pg_bridge.asking.failures import Failures
from pg_bridge.engine import Usage


@dataclass(slots=True)
class Run:
    """What one run did. Seconds are wall-clock; tokens are the engine's own, None where it gives none.

    Attributes:
        failures: Where it notes which questions have no answer, with those of other runs.
    """

    rows: int = 0
    unique_prompts: int = 0
    from_cache: int = 0
    read_s: float = 0.0
    plan_s: float = 0.0
    return_s: float = 0.0
    usage: Usage = field(default_factory=Usage)
    failures: Failures = field(default_factory=Failures)

    @property
    def prefix_hit_rate(self) -> float | None:
        """Cached prompt tokens over prompt tokens."""
        cached, prompt = self.usage.cached_tokens, self.usage.prompt_tokens
        return cached / prompt if prompt and cached is not None else None

    def add(self, other: Run) -> None:
        """Count in what another run did."""
        for each in ("rows", "unique_prompts", "from_cache", "read_s", "plan_s", "return_s"):
            setattr(self, each, getattr(self, each) + getattr(other, each))
        self.usage.add(other.usage)

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

    def as_dict(self) -> dict[str, int | float | None]:
        """The columns of `llm.last_run()`."""
        return {
            "rows": self.rows,
            "unique_prompts": self.unique_prompts,
            "from_cache": self.from_cache,
            "requests": self.usage.requests,
            "retries": self.usage.retries,
            "prompt_tokens": self.usage.prompt_tokens,
            "cached_tokens": self.usage.cached_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "prefix_hit_rate": self.prefix_hit_rate,
            "read_s": self.read_s,
            "plan_s": self.plan_s,
            "wait_s": self.usage.wait_s,
            "return_s": self.return_s,
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
            )
            if value is not None
        ]
        figures = [
            ("Rows Asked", self.rows),
            ("Unique Prompts", self.unique_prompts),
            *([("From Ledger", self.from_cache)] if self.from_cache else []),
            ("Requests", usage.requests),
            *([("Retries", usage.retries)] if usage.retries else []),
            *tokens,
            ("Time Planned", f"{1000 * self.plan_s:.3f} ms"),
            ("Time Waited", f"{1000 * usage.wait_s:.3f} ms"),
        ]
        return [str(part) for figure in figures for part in figure]

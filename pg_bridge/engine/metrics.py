"""What the engine tells of a run besides its answers: tokens, those from its prefix cache, and seconds.

vLLM tells in two ways, and neither covers all requests. A request of one prompt reports its cached tokens in
`usage.prompt_tokens_details`. A request of many prompts reports none of them, or those of its last prompt
only; then two counters on `/metrics` are read before and after the run. They count everybody's requests:
their difference is believed only if the tokens queried in between are exactly this run's own. How the seconds of
its stages are told stands in `pg_bridge.engine.stages`.

In: usage records and the text of `/metrics`. Out: a number, or None. Never a guess, and never any I/O.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pg_bridge.engine.pace import Load
from pg_bridge.engine.payload import Tokens
from pg_bridge.engine.records import Stages, Usage
from pg_bridge.engine.stages import StageCounters, StageTally

_SAMPLE = re.compile(
    r"^vllm:(prefix_cache_(?:queries|hits)_total|request_(?:queue|prefill|decode)_time_seconds_(?:sum|count))"
    r"(?:\{[^\n]*\})?[ \t]+([0-9.eE+-]+)(?:[ \t]+[0-9]+)?[ \t]*$",
    re.M,
)
_STAGES = ("queue", "prefill", "decode")

_LOAD = re.compile(r"^vllm:num_requests_(running|waiting)(?:\{[^\n]*\})?[ \t]+([0-9]{1,9})(?:\.0)?[ \t]*$", re.M)


@dataclass(frozen=True, slots=True)
class CacheCounters:
    """The engine's prefix cache counters at one moment.

    Attributes:
        queried_tokens: Prompt tokens looked up so far.
        hit_tokens: Those of them that were found.
    """

    queried_tokens: int
    hit_tokens: int


@dataclass(frozen=True, slots=True)
class Counters:
    """What the engine has counted at one moment, everybody's requests together; None for what it does not tell.

    Attributes:
        cache: Of its prefix cache.
        stages: Of where prompts were.
    """

    cache: CacheCounters | None = None
    stages: StageCounters | None = None


def read_counters(text: str) -> Counters:
    r"""Read the counters from a `/metrics` page; an engine with several cores lists one sample each.

    >>> read_counters('vllm:prefix_cache_queries_total{engine="0"} 8.0\nvllm:prefix_cache_hits_total 5.0')
    Counters(cache=CacheCounters(queried_tokens=8, hit_tokens=5), stages=None)
    >>> read_counters("")
    Counters(cache=None, stages=None)
    """
    sums: dict[str, float] = {}
    for name, number in _SAMPLE.findall(text):
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        sums[name] = sums.get(name, 0.0) + (value if value >= 0 else math.nan)
    sane = {name: value for name, value in sums.items() if math.isfinite(value)}
    queried, hit = (sane.get(f"prefix_cache_{name}_total") for name in ("queries", "hits"))
    cache = None if queried is None or hit is None else CacheCounters(round(queried), round(hit))
    return Counters(cache, _read_stages(sane))


def _read_stages(sums: Mapping[str, float]) -> StageCounters | None:
    counts = {sums.get(f"request_{stage}_time_seconds_count") for stage in _STAGES}
    seconds = [sums.get(f"request_{stage}_time_seconds_sum") for stage in _STAGES]
    count = counts.pop()
    if counts or count is None or None in seconds:
        return None
    return StageCounters(round(count), Stages(*seconds))  # type: ignore[arg-type]  # none is None


class Tally:
    """Adds up what answered requests took.

    Args:
        usage: The run's record, kept current.
    """

    def __init__(self, usage: Usage) -> None:
        self._tokens = TokenTally(usage)
        self._stages = StageTally(usage)

    def begin(self, baseline: Counters | None) -> None:
        """Begin a stretch of requests.

        Args:
            baseline: The counters at this moment, with nothing in flight; None if not read.
        """
        baseline = baseline or Counters()
        self._tokens.begin(baseline.cache)
        self._stages.begin(baseline.stages)

    def add(self, prompts: int, tokens: Tokens, took_s: float, unread_s: float) -> None:
        """Add one answered request; arguments as for `StageTally.add`."""
        self._tokens.add(tokens)
        self._stages.add(prompts, took_s, unread_s, tokens.stages)

    @property
    def wants_counters(self) -> bool:
        """Whether the counters, and only they, can tell something of this stretch."""
        return self._tokens.wants_counters or self._stages.wants_counters

    def settle(self, now: Counters) -> bool:
        """Take the counters after the last answer; True if there is nothing more that they could tell."""
        tokens = not self._tokens.wants_counters or self._tokens.settle(now.cache)
        stages = not self._stages.wants_counters or self._stages.settle(now.stages)
        return tokens and stages


def read_load(text: str) -> Load | None:
    r"""Read how full the engine is; of an engine with several cores all of them together.

    >>> read_load('vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_waiting{engine="0"} 5.0')
    Load(running=3, waiting=5)
    >>> read_load("") is None
    True
    """
    sums: dict[str, int] = {}
    for name, value in _LOAD.findall(text):
        sums[name] = sums.get(name, 0) + int(value)
    return Load(**sums) if sums.keys() == {"running", "waiting"} else None


@dataclass(slots=True)
class TokenTally:
    """Adds up the tokens of answered requests.

    Attributes:
        usage: The run's record, kept current.
    """

    usage: Usage
    _baseline: CacheCounters | None = field(default=None, init=False)
    _earlier: int | None = field(default=0, init=False)  # cached tokens before begin()
    _prompt: int | None = field(default=0, init=False)  # prompt tokens since begin()
    _told: int | None = field(default=0, init=False)  # cached tokens since begin(), while each request tells

    def begin(self, baseline: CacheCounters | None) -> None:
        """Begin a stretch of requests; arguments as for `Tally.begin`."""
        self._baseline = baseline
        self._earlier = self.usage.cached_tokens
        self._prompt = self._told = 0

    def add(self, tokens: Tokens) -> None:
        """Add one answered request."""
        usage = self.usage
        usage.prompt_tokens = _plus(usage.prompt_tokens, tokens.prompt)
        usage.completion_tokens = _plus(usage.completion_tokens, tokens.completion)
        usage.reasoning_tokens = _plus(usage.reasoning_tokens, tokens.thoughts)
        self._prompt = _plus(self._prompt, tokens.prompt)
        self._told = _plus(self._told, tokens.cached)
        usage.cached_tokens = _plus(self._earlier, self._told)

    @property
    def wants_counters(self) -> bool:
        """Whether the counters, and only they, can tell this stretch's cached tokens."""
        return self._told is None and self._baseline is not None and self._prompt is not None

    def settle(self, now: CacheCounters | None) -> bool:
        """Take the counters after the last answer; True if they account for this stretch and nothing else."""
        if now is None or self._baseline is None:
            return False
        hits = now.hit_tokens - self._baseline.hit_tokens
        queried = now.queried_tokens - self._baseline.queried_tokens
        if queried != self._prompt or not 0 <= hits <= queried:
            return False
        self.usage.cached_tokens = _plus(self._earlier, hits)
        return True


def _plus(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more

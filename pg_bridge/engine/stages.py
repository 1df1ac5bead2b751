"""Where the prompts of a run were: on their way, in the engine's queue, computed; for how long, and how many at a time.

How long prompts are in flight is measured here. Where they are meanwhile only the engine knows, and tells in two ways:
in the answer to a request of one prompt, if it was started with `--enable-per-request-metrics`; and in histograms on
`/metrics`, which count everybody's prompts. Of these the differences are believed only if the prompts that the engine
has finished in between are exactly this run's own.

In: prompts as they are sent and answered, and figures of `/metrics`. Out: sums in a `Usage`. Never any I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pg_bridge.engine.records import Stages, Usage


@dataclass(frozen=True, slots=True)
class StageCounters:
    """What the engine's histograms have counted at one moment.

    Attributes:
        prompts: That were finished so far.
        seconds: That they have spent, summed.
    """

    prompts: int
    seconds: Stages


@dataclass(slots=True)
class StageTally:
    """Adds up where prompts were.

    Attributes:
        usage: The run's record, kept current.
    """

    usage: Usage
    _baseline: StageCounters | None = field(default=None, init=False)
    _earlier: Stages | None = field(default=Stages(0.0, 0.0, 0.0), init=False)  # before begin()
    _told: Stages | None = field(default=Stages(0.0, 0.0, 0.0), init=False)  # since then, while each request tells
    _prompts: int = field(default=0, init=False)  # since begin()
    _flight_s: float = field(default=0.0, init=False)  # as above

    def begin(self, baseline: StageCounters | None) -> None:
        """Begin a stretch of requests; arguments as for `TokenTally.begin`."""
        self._baseline, self._earlier = baseline, self.usage.stages
        self._told, self._prompts, self._flight_s = Stages(0.0, 0.0, 0.0), 0, 0.0

    def add(self, prompts: int, took_s: float, unread_s: float, told: Stages | None) -> None:
        """Add one answered request.

        Args:
            prompts: How many it had.
            took_s: Seconds from when it was sent until its answer was read.
            unread_s: Those of them for which the answer may have lain here.
            told: Where its one prompt was, if the engine says.
        """
        usage = self.usage
        usage.answered += prompts
        usage.flight_s += prompts * took_s
        usage.unread_s += prompts * min(unread_s, took_s)
        self._prompts += prompts
        self._flight_s += prompts * took_s
        self._told = _plus(self._told, told) if told is None or sum(told) <= took_s else None
        usage.stages = _plus(self._earlier, self._told)

    @property
    def wants_counters(self) -> bool:
        """Whether the histograms, and only they, can tell where this stretch's prompts were."""
        return self._told is None and self._baseline is not None

    def settle(self, now: StageCounters | None) -> bool:
        """Take the histograms after the last answer; True if they account for this stretch and nothing else."""
        if now is None or self._baseline is None or now.prompts - self._baseline.prompts != self._prompts:
            return False
        spent = Stages(*(after - before for after, before in zip(now.seconds, self._baseline.seconds, strict=True)))
        if min(spent) < 0 or sum(spent) > self._flight_s:
            return False
        self.usage.stages = _plus(self._earlier, spent)
        return True


@dataclass(slots=True)
class Traffic:
    """Counts the prompts in flight, and for how long any are.

    Attributes:
        usage: The run's record, kept current.
        in_flight: Prompts sent and not answered.
        beside: Is told of the same: the traffic of all engines together, where this is one's.
    """

    usage: Usage
    in_flight: int = 0
    beside: Traffic | None = None
    _since_s: float = 0.0

    def change(self, more: int, now_s: float) -> None:
        """So many more prompts are in flight from now on, or fewer, if that is negative."""
        if self.in_flight:
            self.usage.busy_s += now_s - self._since_s
            self.usage.prompt_s += self.in_flight * (now_s - self._since_s)
        self.in_flight += more
        self._since_s = now_s
        if self.beside is not None:
            self.beside.change(more, now_s)


def _plus(sums: Stages | None, more: Stages | None) -> Stages | None:
    return None if sums is None or more is None else Stages(*(a + b for a, b in zip(sums, more, strict=True)))

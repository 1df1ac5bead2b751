"""The lines of the paper's table, from the repeats of every workload and way.

In: runs. Out: lines of text: medians of the repeats, ratios to the original order and to GGR, the distance to the
floor. It measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from benchmarks.paper.runs import Run
from benchmarks.paper.ways import GGR, ORIGINAL, OURS, WAYS

Runs = Mapping[str, Mapping[str, Sequence[Run]]]
"""By workload and way, the repeats."""

HEAD = (
    f"{'way':<28} {'seconds':>8} {'spread':>7} {'prompts':>8} {'prompt tokens':>14} {'cached':>9} {'hit rate':>9} "
    f"{'solver s':>9} {'original / it':>14} {'GGR / it':>9} {'outside':>8} {'above floor':>12}"
)


def seconds_of(repeats: Sequence[Run]) -> float:
    """Seconds for all rows: the median of the repeats; those of a sample are extrapolated by the caller."""
    return median(run.seconds for run in repeats)


def hit_rate_of(repeats: Sequence[Run]) -> float:
    """The median hit rate."""
    return median(run.hit_rate for run in repeats)


def computed_of(repeats: Sequence[Run]) -> float:
    """The median of the prompt tokens that the engine did compute."""
    return median(run.prompt_tokens - run.cached_tokens for run in repeats)


def lines(workload: str, ways: Mapping[str, Sequence[Run]], rate: float, scale_alone: float) -> Iterator[str]:
    """One workload's lines.

    Args:
        workload: Its name.
        ways: The repeats of each way.
        rate: Prompt tokens a second that share nothing.
        scale_alone: Rows over those of the sample that was asked one by one.
    """
    yield ""
    yield workload
    yield HEAD
    base = {name: seconds_of(ways[name]) for name in (ORIGINAL, GGR)}
    for way in WAYS:
        repeats = ways[way.name]
        scale = scale_alone if way.one_by_one else 1.0
        seconds = scale * seconds_of(repeats)
        one = sorted(repeats, key=lambda run: run.seconds)[len(repeats) // 2]
        spread = (max(run.seconds for run in repeats) - min(run.seconds for run in repeats)) / seconds_of(repeats)
        floor = scale * (one.prompt_tokens - one.cached_tokens) / rate
        outside = "" if one.outside_share is None else f"{one.outside_share:.1%}"
        yield (
            f"{way.name:<28} {seconds:>8.2f} {spread:>7.0%} {round(scale * one.asked):>8} "
            f"{round(scale * one.prompt_tokens):>14} {round(scale * one.cached_tokens):>9} {one.hit_rate:>9.1%} "
            f"{one.solver_seconds:>9.3f} {base[ORIGINAL] / seconds:>14.2f} {base[GGR] / seconds:>9.2f} {outside:>8} "
            f"{seconds / floor - 1 if floor else 0:>12.0%}"
        )


def verdicts(runs: Runs) -> Iterator[str]:
    """Where ours is ahead of every other way, in seconds beyond the repeats' spread and in hit rate."""
    yield ""
    yield "Is pg_bridge ahead of every other way that has the cache? seconds: its slowest repeat beats their fastest."
    for workload, ways in runs.items():
        ours = ways[OURS]
        others = {way.name: ways[way.name] for way in WAYS if way.cached and way.name != OURS and not way.one_by_one}
        faster = all(
            max(run.seconds for run in ours) < min(run.seconds for run in repeats) for repeats in others.values()
        )
        computed = {name: computed_of(repeats) for name, repeats in others.items()}
        least = min(computed, key=computed.__getitem__)
        mine = computed_of(ours)
        outside = median(run.outside_share or 0.0 for run in ours)
        yield (
            f"{workload:<34} seconds: {'yes' if faster else 'no':<4} tokens computed: {round(mine)}, best other "
            f"{round(computed[least])} ({least}): {'yes' if mine < computed[least] else 'no':<4} "
            f"outside the engine {outside:.1%}"
        )

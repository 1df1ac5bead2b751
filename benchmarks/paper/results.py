"""The lines of the paper's table, from the repeats of every workload and way.

In: runs. Out: lines of text: medians of the repeats, ratios to the original order and to GGR, the distance to the
floor. It measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from benchmarks.paper.runs import Run, sampled_share
from benchmarks.paper.ways import GGR, ORIGINAL, OURS, WAYS, room
from benchmarks.paper.workloads import Workload

Runs = Mapping[str, Mapping[str, Sequence[Run]]]
"""By workload and way, the repeats."""

PUBLISHED = {
    "movies, filter": 2.5,
    "movies, projection": 2.4,
    "products, filter": 3.0,
    "products, projection": 2.4,
    "bird, filter": 2.6,
    "bird, projection": 3.4,
    "pdmx, filter": 1.8,
    "pdmx, projection": 1.9,
    "beer, filter": 2.0,
    "beer, projection": 1.5,
    "fever, retrieval": 1.8,
    "squad, retrieval": 1.7,
}
"""Seconds of the original order, cache on, over those of GGR in arXiv 2403.05821: Llama-3-8B on an L4."""

PUBLISHED_RATES = {
    "movies": (34.6, 85.7),
    "products": (26.7, 83.3),
    "bird": (10.4, 84.8),
    "pdmx": (11.8, 56.6),
    "beer": (49.9, 80.1),
    "fever": (11.2, 67.4),
    "squad": (11.0, 69.7),
}
"""Hit rates there, in percent: of the original order, and of GGR."""

_MOST_OUTSIDE = 0.03  # of a job's seconds, without the engine

HEAD = (
    f"{'way':<28} {'seconds':>8} {'spread':>7} {'prompts':>8} {'prompt tokens':>14} {'cached':>9} {'hit rate':>9} "
    f"{'saved':>7} "
    f"{'solver s':>9} {'original / it':>14} {'GGR / it':>9} {'outside':>8} {'above floor':>12}"
)


def seconds_of(repeats: Sequence[Run]) -> float:
    """Seconds for all rows: the median of the repeats; those of a sample are extrapolated by the caller."""
    return median(run.seconds for run in repeats)


def computed_of(repeats: Sequence[Run]) -> float:
    """The median of the prompt tokens that the engine did compute."""
    return median(run.prompt_tokens - run.cached_tokens for run in repeats)


def saved_of(repeats: Sequence[Run], scale: float, ways: Mapping[str, Sequence[Run]]) -> float:
    """The share of all rows' prompt tokens that need not be computed: the hit rate, if every row is asked about."""
    return 1 - scale * computed_of(repeats) / median(run.prompt_tokens for run in ways[ORIGINAL])


def lines(workload: Workload, ways: Mapping[str, Sequence[Run]], rate: float) -> Iterator[str]:
    """One workload's lines.

    Args:
        workload: What was asked.
        ways: The repeats of each way.
        rate: Prompt tokens a second that share nothing.
    """
    yield ""
    yield f"{workload.name}: {workload.rows} rows; {room(workload.table.table())}"
    yield HEAD
    base = {name: seconds_of(ways[name]) for name in (ORIGINAL, GGR)}
    for way in (way for way in WAYS if way.name in ways):
        repeats = ways[way.name]
        scale = 1 / sampled_share(workload) if way.one_by_one else 1.0
        seconds = scale * seconds_of(repeats)
        one = sorted(repeats, key=lambda run: run.seconds)[len(repeats) // 2]
        floor = scale * (one.prompt_tokens - one.cached_tokens) / rate
        outside = "" if one.outside_share is None else f"{one.outside_share:.1%}"
        yield (
            f"{way.name:<28} {seconds:>8.2f} {_spread(repeats):>7.0%} {round(scale * one.asked):>8} "
            f"{round(scale * one.prompt_tokens):>14} {round(scale * one.cached_tokens):>9} {one.hit_rate:>9.1%} "
            f"{saved_of(repeats, scale, ways):>7.1%} "
            f"{one.solver_seconds:>9.3f} {base[ORIGINAL] / seconds:>14.2f} {base[GGR] / seconds:>9.2f} {outside:>8} "
            f"{seconds / floor - 1 if floor else 0:>12.0%}"
        )


def verdicts(runs: Runs) -> Iterator[str]:
    """Where ours is ahead of every other way, in seconds beyond the repeats' spread and in tokens; and of the paper."""
    yield ""
    yield "Is pg_bridge ahead of every other way that has the cache? seconds: its slowest repeat beats their fastest."
    yield "ratio: seconds of the original order over its own, beside what the paper has for GGR on its tables."
    kept = dict.fromkeys(("seconds", "tokens", "outside", "ratio"), 0)
    for workload, ways in runs.items():
        ours = ways[OURS]
        others = {
            way.name: ways[way.name]
            for way in WAYS
            if way.name in ways and way.name != OURS and way.cached and not way.one_by_one
        }
        faster = all(
            max(run.seconds for run in ours) < min(run.seconds for run in repeats) for repeats in others.values()
        )
        quickest = min(others, key=lambda name: seconds_of(others[name]))
        computed = {name: computed_of(repeats) for name, repeats in others.items()}
        least = min(computed, key=computed.__getitem__)
        mine = computed_of(ours)
        outside = median(run.outside_share or 0.0 for run in ours)
        ratio, published = seconds_of(ways[ORIGINAL]) / seconds_of(ours), PUBLISHED.get(workload)
        kept["seconds"] += faster
        kept["tokens"] += mine < computed[least]
        kept["ratio"] += published is not None and ratio >= published
        kept["outside"] += outside <= _MOST_OUTSIDE
        yield (
            f"{workload:<32} seconds {seconds_of(ours):.2f}, next {seconds_of(others[quickest]):.2f} ({quickest}): "
            f"{_said(faster)}  tokens computed {round(mine)}, next {round(computed[least])} ({least}): "
            f"{_said(mine < computed[least])}  ratio {ratio:.2f}"
            + (f", the paper {published}: {_said(ratio >= published)}" if published else "")
            + f"  outside {outside:.1%}: {_said(outside <= _MOST_OUTSIDE)}"
        )
        if published and ratio < published:
            yield _beside_the_papers(workload, ways)
        if not faster:
            yield (
                f"    {OURS} computes {1 - mine / computed[quickest]:.1%} fewer tokens than the quickest other way, "
                f"whose repeats lie {_spread(others[quickest]):.0%} apart"
            )
    counts = ", ".join(f"{name} {count}" for name, count in kept.items())
    yield f"kept in {len(runs)} workloads, of which the paper has {len(PUBLISHED.keys() & runs.keys())}: {counts}"


def _beside_the_papers(workload: str, ways: Mapping[str, Sequence[Run]]) -> str:
    """What there is to save here and there: seconds cannot shrink more than that."""
    here = (f"{saved_of(ways[name], 1.0, ways):.0%}" for name in (ORIGINAL, OURS))
    there = (f"{rate:.0f}%" for rate in PUBLISHED_RATES[workload.partition(",")[0]])
    return f"    tokens saved here {' -> '.join(here)}, in the paper {' -> '.join(there)}"


def _spread(repeats: Sequence[Run]) -> float:
    """The largest of the seconds less the smallest, over their median."""
    return (max(run.seconds for run in repeats) - min(run.seconds for run in repeats)) / seconds_of(repeats)


def _said(kept: bool) -> str:
    return "yes" if kept else "NO"

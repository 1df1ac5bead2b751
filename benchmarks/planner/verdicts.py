"""Which promise is kept: computed from the figures, whatever they are.

In: `Results`. Out: one `Verdict` a promise. The promises' numbers stand here and nowhere else in the benchmark.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.planner.fresh import GGR, OURS
from benchmarks.planner.kept import COLUMNS, PEAK_ROWS, ROWS, TOKENS_PER_S
from benchmarks.planner.results import MEASURES, Contest, Kept, Peak, Quality, Results, Size

POINTS_ABOVE_GGR = 3.0
POINTS_LOST_ON_THE_WAY = 0.3  # of what the whole table's plan shares
SECONDS = {("beer", 30_000): 0.5, ("pdmx", 10_000): 2.0, ("beer+1", 1_000_000): 20.0}
MEMORY_OF, MOST_MEMORY = ("beer+1", 1_000_000), 4.0  # times the table's text
TENFOLD = 12.0  # times the seconds, for ten times the rows
ENGINE_SHARE = 0.02  # of the engine's seconds
ENGINES = {"an L4, the paper's GPU": 7_500, "an H100": 62_000}
"""Tokens/s that an engine computes at most: 121 and 990 TFLOP/s in 16 bits, at the 16 GFLOP that a token costs with 8
billion weights."""

IDLE_SHARE = 0.02  # of a job, with a fast engine
FIRST_S = 0.05  # until the first prompt
PEAK_BYTES = 1_000_000_000  # of a backend that asks about a million rows of 1 kB

_ROUNDING = 1e-12  # of shares, far below one character


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise.

    Attributes:
        promise: What was promised.
        kept: Whether it is so.
        found: The figures that say so.
    """

    promise: str
    kept: bool
    found: str

    def __str__(self) -> str:
        text = f"{'met' if self.kept else 'MISSED':<8}{self.promise}: {self.found}"
        return "\n".join(textwrap.wrap(text, 120, subsequent_indent=" " * 8, break_on_hyphens=False))


def verdicts(results: Results) -> list[Verdict]:
    """Judge whatever was measured."""
    judged: list[Verdict] = []
    if results.contests:
        qualities = [contest.quality for contest in results.contests]
        judged += [
            _never_below(qualities),
            _neighbours(qualities),
            _above_ggr_on_average(qualities),
            _above_ggr_where_there_is_room(qualities),
            _bound(qualities),
            *(_on_the_wire(qualities, way) for way in qualities[0].sent),
            _ahead_of_what_is_sent(qualities),
            *(_of_the_engine(results.contests, engine) for engine in ENGINES),
        ]
    sizes = [size for size in results.sizes if size.rows == size.promised_rows]  # none of a scaled run
    kept = [each for each in results.kept if each.rows == ROWS]  # nor of the control
    peaks = [peak for peak in results.peaks if peak.rows == PEAK_ROWS]
    return [*judged, *_seconds(sizes), *_tenfold(sizes), *_memory(sizes), *_kept(kept), *_peaks(peaks)]


def best_other(quality: Quality, measure: str) -> tuple[float, str]:
    """The best rate of all strategies but ours, and whose it is."""
    return max((quality.rate(name, measure), name) for name in quality.rates if name != OURS)


def points_above(quality: Quality, measure: str, other: float) -> float:
    """Ours minus another rate, in points."""
    return 100 * (quality.rate(OURS, measure) - other)


def has_room(quality: Quality) -> bool:
    """Whether the bound leaves the promised points above GGR."""
    return 100 * (quality.bound - quality.rate(GGR, "chars")) >= POINTS_ABOVE_GGR


def _never_below(qualities: Sequence[Quality]) -> Verdict:
    below = []
    for quality, measure in _each(qualities):
        rate, name = best_other(quality, measure)
        points = points_above(quality, measure, rate)
        if points < -100 * _ROUNDING:
            below.append((points, f"{quality.table} {MEASURES[measure]} {points:+.3f} ({name})"))
    return Verdict(
        "on every table never below the best of the others, by any rate",
        not below,
        _listed([text for _, text in sorted(below)], f"below in {len(below)} of {len(qualities) * len(MEASURES)}"),
    )


def _neighbours(qualities: Sequence[Quality]) -> Verdict:
    apart = [
        f"{quality.table} {points_above(quality, 'neighbours', quality.rate(OURS, 'chars')):+.3f}"
        for quality in qualities
        if abs(quality.rate(OURS, "neighbours") - quality.rate(OURS, "chars")) > _ROUNDING
    ]
    return Verdict(
        "the hit rate between neighbours equals the tree's",
        not apart,
        _listed(apart, f"another in {len(apart)} of {len(qualities)}"),
    )


def _above_ggr_on_average(qualities: Sequence[Quality]) -> Verdict:
    points = {measure: _mean(qualities, measure, _above_ggr) for measure in MEASURES}
    return Verdict(
        f"at least {POINTS_ABOVE_GGR:g} points above GGR on the average of the tables, by every rate",
        min(points.values()) >= POINTS_ABOVE_GGR,
        ", ".join(f"{MEASURES[measure]} {value:+.2f}" for measure, value in points.items()),
    )


def _above_ggr_where_there_is_room(qualities: Sequence[Quality]) -> Verdict:
    roomy = [quality for quality in qualities if has_room(quality)]
    less = []
    for quality in roomy:
        points = {measure: _above_ggr(quality, measure) for measure in MEASURES}
        few = [f"{MEASURES[each]} {value:+.2f}" for each, value in points.items() if value < POINTS_ABOVE_GGR]
        if few:
            room = 100 * (quality.bound - quality.rate(GGR, "chars"))
            less.append(f"{quality.table} {' '.join(few)} (room for {room:.1f})")
    return Verdict(
        f"at least {POINTS_ABOVE_GGR:g} points above GGR wherever the bound leaves them, by every rate",
        not less,
        _listed(less, f"less on {len(less)} of {len(roomy)} tables with room"),
    )


def _bound(qualities: Sequence[Quality]) -> Verdict:
    above = [
        f"{quality.table} {name}"
        for quality in qualities
        for name in quality.rates
        if quality.rate(name, "chars") > quality.bound + _ROUNDING
    ]
    return Verdict("no strategy above the bound", not above, _listed(above, f"above it {len(above)}"))


def _on_the_wire(qualities: Sequence[Quality], way: str) -> Verdict:
    lost = {quality.table: 100 * (quality.rate(OURS, "chars") - quality.sent[way].chars) for quality in qualities}
    more = [f"{table} -{points:.2f}" for table, points in lost.items() if points > POINTS_LOST_ON_THE_WAY]
    return Verdict(
        f"through {way} at least the whole plan's characters less {POINTS_LOST_ON_THE_WAY:g} points, on every table",
        not more,
        _listed(more, f"less on {len(more)} of {len(lost)}, {-max(lost.values()):+.2f} at worst"),
    )


def _ahead_of_what_is_sent(qualities: Sequence[Quality]) -> Verdict:
    ahead = []
    for quality in qualities:
        for way, sent in quality.sent.items():
            margins = {measure: best_other(quality, measure) for measure in MEASURES}
            points, measure = max((100 * (most - getattr(sent, each)), each) for each, (most, _) in margins.items())
            if points > 100 * _ROUNDING:
                name = margins[measure][1]
                ahead.append((points, f"{quality.table} {way} {MEASURES[measure]} {name} {points:+.2f}"))
    ways = sum(len(quality.sent) for quality in qualities)
    return Verdict(
        "no other strategy ahead of what is sent, on any table, by any way and any rate",
        not ahead,
        _listed([text for _, text in sorted(ahead, reverse=True)], f"one is ahead in {len(ahead)} of {ways}"),
    )


def _of_the_engine(contests: Sequence[Contest], engine: str) -> Verdict:
    tokens_per_s = ENGINES[engine]
    shares = {
        contest.quality.table: contest.costs[OURS].seconds * tokens_per_s / _computed_tokens(contest.quality)
        for contest in contests
    }
    more = [f"{table} {share:.1%}" for table, share in shares.items() if share >= ENGINE_SHARE]
    return Verdict(
        f"planning takes less than {ENGINE_SHARE:.0%} of what {engine} at {tokens_per_s:,} tokens/s needs",
        not more,
        _listed(more, f"more on {len(more)} of {len(shares)} tables, {max(shares.values()):.1%} at most"),
    )


def _computed_tokens(quality: Quality) -> float:
    return max(quality.tokens * (1 - quality.rate(OURS, "blocks_16")), 1.0)


def _seconds(sizes: Sequence[Size]) -> Iterator[Verdict]:
    for size in sizes:
        most_s = SECONDS.get((size.table, size.rows))
        if most_s is not None:
            from_rows, from_columns = size.costs["rows"].seconds, size.costs["columns"].seconds
            yield Verdict(
                f"{size.rows:,} x {size.columns} in {most_s:g} s, rows as JSON",
                from_rows <= most_s,
                f"{from_rows:.2f} s ({from_columns:.2f} s from whole columns)",
            )


def _tenfold(sizes: Sequence[Size]) -> Iterator[Verdict]:
    for size, larger in pairwise(sizes):
        if size.table == larger.table:
            times = {form: larger.costs[form].seconds / size.costs[form].seconds for form in size.costs}
            yield Verdict(
                f"{larger.rows:,} rows of {larger.table} take at most {TENFOLD:g} times the seconds of {size.rows:,}",
                max(times.values()) <= TENFOLD,
                _by_form(times),
            )


def _memory(sizes: Sequence[Size]) -> Iterator[Verdict]:
    for size in sizes:
        if (size.table, size.rows) == MEMORY_OF:
            times = {form: cost.peak_bytes / size.text_bytes[form] for form, cost in size.costs.items()}
            yield Verdict(
                f"{size.rows:,} x {size.columns} within {MOST_MEMORY:g} times the memory of its text",
                max(times.values()) <= MOST_MEMORY,
                _by_form(times),
            )


def _kept(kept: Sequence[Kept]) -> Iterator[Verdict]:
    if not kept:
        return
    yield Verdict(
        f"an engine of {TOKENS_PER_S:,} tokens/s idles for at most {IDLE_SHARE:.0%} of {ROWS:,} x {COLUMNS}",
        all(each.idle_share <= IDLE_SHARE for each in kept),
        ", ".join(f"{each.way} {each.idle_share:.2%}" for each in kept),
    )
    yield Verdict(
        f"the first prompt comes within {1000 * FIRST_S:g} ms",
        all(each.first_s <= FIRST_S for each in kept),
        ", ".join(f"{each.way} {1000 * each.first_s:.0f} ms" for each in kept),
    )


def _peaks(peaks: Sequence[Peak]) -> Iterator[Verdict]:
    if peaks:
        yield Verdict(
            f"{PEAK_ROWS:,} rows of 1 kB take less than {PEAK_BYTES / 1e9:g} GB",
            all(peak.peak_bytes < PEAK_BYTES for peak in peaks),
            ", ".join(f"{peak.way} {peak.peak_bytes / 1e9:.2f} GB" for peak in peaks),
        )


def _by_form(times: dict[str, float]) -> str:
    return f"{times['rows']:.1f} times from rows as JSON, {times['columns']:.1f} times from whole columns"


def _above_ggr(quality: Quality, measure: str) -> float:
    return points_above(quality, measure, quality.rate(GGR, measure))


def _mean(qualities: Sequence[Quality], measure: str, of: Callable[[Quality, str], float]) -> float:
    return sum(of(quality, measure) for quality in qualities) / len(qualities)


def _each(qualities: Sequence[Quality]) -> Iterator[tuple[Quality, str]]:
    return ((quality, measure) for quality in qualities for measure in MEASURES)


def _listed(cases: list[str], summary: str) -> str:
    return f"{summary}: {', '.join(cases)}" if cases else summary

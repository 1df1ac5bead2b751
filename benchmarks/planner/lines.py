"""The figures as lines of text. In: `Results`. Out: tables of at most 120 characters a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from benchmarks.planner.fresh import GGR, OURS
from benchmarks.planner.results import MEASURES, Contest, Kept, Peak, Quality, Size
from benchmarks.planner.verdicts import best_other, points_above

_MIB = 2**20
_RATES = "".join(f"{name:>9}" for name in MEASURES.values())


def quality_lines(contests: Sequence[Contest]) -> Iterator[str]:
    """Table by strategy, then ours against the others."""
    yield f"{'table':<14} {'strategy':<18}{_RATES}{'bound':>8}{'s':>8}{'encode':>7}{'MiB':>7}"
    for contest in contests:
        quality = contest.quality
        for name in quality.rates:
            cost = contest.costs[name]
            shown = name if cost.chosen == name else f"{name} ({cost.chosen})"
            rates = "".join(f"{100 * quality.rate(name, measure):>9.2f}" for measure in MEASURES)
            yield (
                f"{quality.table:<14} {shown:<18}{rates}{100 * quality.bound:>8.2f}{cost.seconds:>8.3f}"
                f"{cost.encode_s:>7.3f}{cost.peak_bytes / _MIB:>7.1f}"
            )
    yield ""
    yield f"{'average':<14} {'strategy':<18}{_RATES}{'bound':>8}{'s':>8}{'encode':>7}{'MiB':>7}"
    for name in contests[0].quality.rates:
        rates = "".join(
            f"{100 * _mean([contest.quality.rate(name, measure) for contest in contests]):>9.2f}"
            for measure in MEASURES
        )
        costs = [contest.costs[name] for contest in contests]
        bound = 100 * _mean([contest.quality.bound for contest in contests])
        yield (
            f"{'':<14} {name:<18}{rates}{bound:>8.2f}{_mean([cost.seconds for cost in costs]):>8.3f}"
            f"{_mean([cost.encode_s for cost in costs]):>7.3f}{_mean([cost.peak_bytes for cost in costs]) / _MIB:>7.1f}"
        )
    qualities = [contest.quality for contest in contests]
    yield ""
    yield f"{'points':<14} {'ours minus':<18}{_RATES}"
    for quality in qualities:
        yield from _difference(quality.table, "the best other", [quality], lambda q, m: best_other(q, m)[0])
        yield from _difference(quality.table, GGR, [quality], lambda q, m: q.rate(GGR, m))
        yield from _to_the_bound(quality.table, [quality])
    yield from _difference("average", "the best other", qualities, lambda q, m: best_other(q, m)[0])
    yield from _difference("average", GGR, qualities, lambda q, m: q.rate(GGR, m))
    yield from _to_the_bound("average", qualities)


def _difference(
    label: str, shown: str, qualities: Sequence[Quality], other: Callable[[Quality, str], float]
) -> Iterator[str]:
    points = "".join(
        f"{_mean([points_above(quality, measure, other(quality, measure)) for quality in qualities]):>+9.2f}"
        for measure in MEASURES
    )
    yield f"{label:<14} {shown:<18}{points}"


def _to_the_bound(label: str, qualities: Sequence[Quality]) -> Iterator[str]:
    points = _mean([points_above(quality, "chars", quality.bound) for quality in qualities])
    yield f"{label:<14} {'the bound':<18}{points:>+9.2f}"


def table_lines(contests: Sequence[Contest]) -> Iterator[str]:
    """What the tables are."""
    yield f"{'table':<14}{'rows':>9}{'unique':>9}{'columns':>9}{'tokens':>13}{'a prompt':>10}{'instruction':>13}"
    for quality in (contest.quality for contest in contests):
        yield (
            f"{quality.table:<14}{quality.rows:>9,}{quality.unique_rows:>9,}{quality.columns:>9}{quality.tokens:>13,}"
            f"{quality.tokens / quality.unique_rows:>10.0f}{quality.instruction:>13.1%}"
        )


def stand_in_lines(contests: Sequence[Contest]) -> Iterator[str]:
    """Characters beside tokens."""
    shown = ("original", GGR, OURS)
    yield f"{'':<14}{'':>12}{'':>11}" + "".join(f"{name:>16}" for name in shown) + f"{'planned by':>17}"
    heads = f"{'chars':>9}{'tokens':>7}" * len(shown)
    yield f"{'table':<14}{'chars/token':>12}{'likeness':>11}{heads}{'chars':>10}{'tokens':>7}{'gain':>8}"
    gains, apart = [], []
    for quality in (contest.quality for contest in contests):
        pairs = [(100 * quality.rates[name].chars, 100 * quality.rates[name].tokens) for name in shown]
        known = quality.stand_in
        gains.append(100 * (known.by_tokens - known.by_chars))
        apart.append(abs(pairs[-1][0] - pairs[-1][1]))
        yield (
            f"{quality.table:<14}{known.chars_per_token:>12.2f}{known.likeness:>11.3f}"
            + "".join(f"{chars:>9.2f}{tokens:>7.2f}" for chars, tokens in pairs)
            + f"{100 * known.by_chars:>10.2f}{100 * known.by_tokens:>7.2f}{gains[-1]:>+8.2f}"
        )
    yield f"Of {OURS}'s orderings the rates are {_mean(apart):.2f} points apart on average, {max(apart):.2f} at most."
    yield f"To know the tokens would gain {_mean(gains):+.2f} points on average, {max(gains):+.2f} at most."


def sent_lines(contests: Sequence[Contest]) -> Iterator[str]:
    """What statements send, beside the whole table's plan and the best other strategy for the whole table."""
    yield f"{'table':<14} {'way':<18}{_RATES}{'- plan':>8}  another strategy ahead"
    qualities = [contest.quality for contest in contests]
    for quality in qualities:
        ways = {"the whole plan": quality.rates[OURS], **quality.sent}
        for way, rates in ways.items():
            shown = "".join(f"{100 * getattr(rates, measure):>9.2f}" for measure in MEASURES)
            most, name = best_other(quality, "chars")
            ahead = f"{name} {100 * (most - rates.chars):+.2f}" if most > rates.chars else ""
            points = 100 * (rates.chars - quality.rate(OURS, "chars"))
            yield f"{quality.table:<14} {way:<18}{shown}{points:>+8.2f}  {ahead}".rstrip()
    for way in qualities[0].sent:
        shown = "".join(
            f"{100 * _mean([getattr(quality.sent[way], measure) for quality in qualities]):>9.2f}"
            for measure in MEASURES
        )
        points = 100 * _mean([quality.sent[way].chars - quality.rate(OURS, "chars") for quality in qualities])
        yield f"{'average':<14} {way:<18}{shown}{points:>+8.2f}"


def size_lines(sizes: Sequence[Size]) -> Iterator[str]:
    """Seconds and memory as rows grow."""
    yield (
        f"{'table':<8}{'rows':>10}{'columns':>8}  {'from':<8}{'text MiB':>9}{'s':>9}{'encode':>9}{'order':>9}"
        f"{'rows/s':>10}{'peak MiB':>10}{'/ text':>8}  {'strategy':<10}{'rows hit':>8}"
    )
    for size in sizes:
        for form, cost in size.costs.items():
            text_bytes = size.text_bytes[form]
            yield (
                f"{size.table:<8}{size.rows:>10,}{size.columns:>8}  {form:<8}{text_bytes / _MIB:>9.1f}"
                f"{cost.seconds:>9.3f}{cost.encode_s:>9.3f}{cost.order_s:>9.3f}{size.rows / cost.seconds:>10,.0f}"
                f"{cost.peak_bytes / _MIB:>10.1f}{cost.peak_bytes / text_bytes:>8.2f}  {cost.chosen:<10}"
                f"{100 * (cost.shared_chars or 0) / max(cost.total_chars or 0, 1):>8.2f}"
            )


def kept_lines(kept: Sequence[Kept], peaks: Sequence[Peak]) -> Iterator[str]:
    """How busy an engine is kept, and what the backend holds."""
    yield f"{'way':<16}{'prompts':>9}{'first ms':>10}{'busy s':>9}{'idle s':>9}{'idle':>9}{'MiB':>9}"
    by_way = {peak.way: f"{peak.peak_bytes / _MIB:.0f}" for peak in peaks}
    for each in kept:
        yield (
            f"{each.way:<16}{each.prompts:>9,}{1000 * each.first_s:>10.1f}{each.busy_s:>9.2f}{each.idle_s:>9.3f}"
            f"{each.idle_share:>9.2%}{by_way.get(each.way, ''):>9}".rstrip()
        )


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)

"""The lines of the feed's benchmark: every way in front of every engine, and what was promised.

In: what was measured. Out: lines of text. It measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.feed.engines import MAIN, ONE_B, WHOLE, FedEngine
from benchmarks.feed.runs import Fed
from benchmarks.paper.results import PUBLISHED
from benchmarks.paper.ways import GGR, ORIGINAL, OURS

MOST_ABOVE_FLOOR, LEAST_BUSY = 1.25, 0.9
LEAST_ROWS_PER_S = 2000
"""What is promised: of pg_bridge in front of `MAIN` about `WHOLE`, and in front of the 1B model."""

_HEAD = (
    f"  {'way':<28}{'seconds':>9}{'floor':>8}{'x floor':>9}{'front':>8}{'busy':>7}{'render':>8}{'rows/s':>9}"
    f"{'computed':>11}{'orig./it':>10}{'paper':>7}{'cpu':>7}"
)
EXPLAINED = (
    "floor:    s that the computed tokens take in full steps, one prompt's rendering and one answer's steps included",
    "front:    s that the API servers need to render and answer all of it, if all of them have work all the time",
    "busy:     share of the seconds in which the engine has a step on;  render: the same of an API server",
    "orig./it: seconds of the original order over the way's;  paper: the same of GGR in the paper, on one L4",
    "cpu:      CPU seconds of the process that asked, a backend or a direct client; what other work does not disturb",
)


def published(table: str) -> float | None:
    """The paper's ratio of a table's filter, or of its only kind of question."""
    return PUBLISHED.get(f"{table}, filter", PUBLISHED.get(f"{table}, retrieval"))


def engine_head(engine: FedEngine) -> Iterator[str]:
    """An engine's constants."""
    speed = engine.speed
    yield ""
    yield (
        f"{engine.name}: {speed.full_tokens_per_s:,.0f} prompt tokens/s in full steps"
        + (f" and each of {speed.ranks} ranks" if speed.ranks > 1 else "")
        + f", cache of {speed.cache_blocks * speed.block_size:,} tokens, {1000 * speed.step_s:.0f} ms a step, "
        f"{1000 * speed.front_s(0, 1, 0) * speed.api_servers:.2f} ms a prompt in front of it"
    )


def table_lines(fed: Sequence[Fed]) -> Iterator[str]:
    """One table's ways."""
    yield f"{fed[0].table}, {fed[0].rows} rows"
    yield _HEAD
    original = next(each.seconds for each in fed if each.way == ORIGINAL)
    for each in fed:
        paper = published(each.table) if each.way in {GGR, OURS} else None
        yield (
            f"  {each.way:<28}{each.seconds:>9.2f}{each.floor_s:>8.2f}{each.above_floor:>9.2f}{each.front_s:>8.2f}"
            f"{each.busy:>7.0%}{each.rendering_s / each.seconds:>8.0%}{each.rows / each.seconds:>9.0f}"
            f"{each.computed_tokens:>11,}{original / each.seconds:>10.2f}{paper or '':>7}"
            + (f"{each.cpu_s:>7.2f}" if each.cpu_s is not None else "")
        )


def verdicts(fed: Sequence[Fed], clock: str) -> Iterator[str]:
    """What was promised of pg_bridge, and whether it is kept."""
    yield ""
    yield f"Promised of pg_bridge, {clock}:"
    by_way = {(each.engine, each.table, each.way): each for each in fed}
    for (engine, table, way), ours in by_way.items():
        if way != OURS:
            continue
        others = [each for each in fed if (each.engine, each.table) == (engine, table) and each.way != OURS]
        quickest = min(others, key=lambda each: each.seconds)
        parts = [
            f"quickest {_said(ours.seconds < quickest.seconds)} ({quickest.way} {quickest.seconds:.2f} s, "
            f"it {ours.seconds:.2f})"
        ]
        if engine == MAIN.name and table in WHOLE:
            parts.append(
                f"at most {MOST_ABOVE_FLOOR} floors {_said(ours.above_floor <= MOST_ABOVE_FLOOR)} "
                f"({ours.above_floor:.2f})"
            )
            parts.append(f"busy for {LEAST_BUSY:.0%} {_said(ours.busy >= LEAST_BUSY)} ({ours.busy:.0%})")
        paper, ratio = published(table), by_way[engine, table, ORIGINAL].seconds / ours.seconds
        if engine == MAIN.name and paper is not None:
            parts.append(f"the paper's ratio {_said(ratio >= paper)} ({ratio:.2f}, there {paper})")
        if engine == ONE_B.name:
            rate, most = (ours.rows / seconds for seconds in (ours.seconds, ours.floor_s))
            kept = _said(rate >= LEAST_ROWS_PER_S)
            parts.append(f"{LEAST_ROWS_PER_S:,} rows/s {kept} ({rate:,.0f}; its tokens alone allow {most:,.0f})")
        yield f"  {engine}, {table}: {'; '.join(parts)}"


def _said(kept: bool) -> str:
    return "yes" if kept else "NO"

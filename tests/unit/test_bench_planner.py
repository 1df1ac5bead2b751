"""The planner's benchmark counts what a prefix cache would, and judges the figures that it is given."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper_tables import make
from benchmarks.planner import tables
from benchmarks.planner.fresh import GGR, OURS, STRATEGIES, Measured
from benchmarks.planner.kept import CONTROL, CONTROL_ROWS, PEAK_ROWS, ROWS
from benchmarks.planner.lines import (
    kept_lines,
    quality_lines,
    sent_lines,
    size_lines,
    stand_in_lines,
    table_lines,
)
from benchmarks.planner.prefixes import Rates, bounded, rates
from benchmarks.planner.results import MEASURES, Contest, Kept, Peak, Quality, Results, Size, StandIn
from benchmarks.planner.scaling import FORMS, SIZES
from benchmarks.planner.sent import WAYS
from benchmarks.planner.verdicts import Verdict, has_room, verdicts
from pg_bridge.analysis.dependencies import functional_dependencies
from pg_bridge.asking.prefix_cache import PrefixCache

COST = Measured(0.1, 0.05, 0.05, 1000, "tree", 5, 10)


def same(rate: float) -> Rates:
    return Rates(rate, rate, rate, rate, rate, rate, rate)


def contest_of(table: str, ours: float, ggr: float, other: float = 0.1, bound: float = 0.95) -> Contest:
    by_strategy = {name: same(other) for name in STRATEGIES} | {GGR: same(ggr), OURS: same(ours)}
    quality = Quality(
        table, 10, 9, 3, 10**9, 0.2, bound, by_strategy, StandIn(4.0, 0.9, 0.5, 0.6), dict.fromkeys(WAYS, same(ours))
    )
    return Contest(quality, dict.fromkeys(STRATEGIES, COST))


def sizes_of(factor: float = 10.0, text_bytes: int = 10_000) -> list[Size]:
    made = []
    seconds = 0.02
    for table, rows in SIZES:
        seconds = seconds * factor if table == "beer+1" else 0.02
        cost = replace(COST, seconds=seconds)
        made.append(Size(table, rows, rows, 9, dict.fromkeys(FORMS, text_bytes), dict.fromkeys(FORMS, cost)))
    return made


def kept_of(idle_s: float = 1.0, first_s: float = 0.01, rows: int = ROWS) -> list[Kept]:
    every = [Kept(way, rows, 90_000, 99.0, idle_s, first_s) for way in WAYS]
    return [*every, Kept(CONTROL, CONTROL_ROWS, CONTROL_ROWS, 20.0, 10.0, 1.0)]


def peaks_of(peak_bytes: int = 10**9 - 1, rows: int = PEAK_ROWS) -> list[Peak]:
    return [Peak(way, rows, peak_bytes) for way in WAYS]


def judge(
    contests: list[Contest],
    sizes: list[Size] | None = None,
    kept: list[Kept] | None = None,
    peaks: list[Peak] | None = None,
) -> dict[str, Verdict]:
    judged = verdicts(Results(contests, sizes or [], kept or [], peaks or []))
    return {verdict.promise: verdict for verdict in judged}


def about(judged: dict[str, Verdict], words: str) -> Verdict:
    (found,) = (verdict for promise, verdict in judged.items() if words in promise)
    return found


def random_prompts(count: int) -> list[str]:
    chance = random.Random(3)
    return [
        "instruction " + "".join(chance.choice(("ab" * 9, "xyz" * 5, "q")) for _ in range(chance.randint(3, 9)))
        for _ in range(count)
    ]


# -- rates


@pytest.mark.parametrize("block_size", [1, 16, 32])
def test_without_a_bound_the_rates_are_the_caches(block_size: int) -> None:
    prompts = list(dict.fromkeys(random_prompts(200)))
    tokens = [np.array([ord(letter) for letter in prompt], np.int32) for prompt in prompts]
    cache = PrefixCache(block_size)
    for each in tokens:
        cache.query(each)
    found = rates(prompts, tokens, 10**6)
    counted = {1: found.tokens, 16: found.blocks_16, 32: found.blocks_32}[block_size]
    # Of two prompts one of which continues the other, the cache computes the last block of the shorter one anew only
    # when it comes second.
    assert counted == pytest.approx(cache.hit_rate, abs=0.01)
    if block_size > 1:
        assert bounded(tokens, block_size, 10**6) == cache.hit_rate


def test_characters_are_counted_between_neighbours_and_in_the_tree() -> None:
    prompts = ["abc1", "x", "abc2", "abd"]
    tokens = [np.array([ord(letter) for letter in prompt]) for prompt in prompts]
    found = rates(prompts, tokens, 100)
    assert found.neighbours == pytest.approx(2 / 12)
    assert found.chars == pytest.approx((3 + 2) / 12)


def test_a_bound_on_the_cache_costs_what_is_sent_far_apart() -> None:
    near = [np.full(64, n // 2) for n in range(40)]
    far = near[::2] + near[1::2]
    assert bounded(near, 16, 256) > 0.3
    assert bounded(far, 16, 256) == 0


# -- tables


def test_the_beers_get_a_column_that_they_determine() -> None:
    made = tables.widened(make("beer", 500))
    table = made.table()
    assert made.columns[-1] == "beer/ABV"
    assert len(made.columns) == 10
    assert table.columns.index("beer/ABV") in functional_dependencies(table)[0]


@pytest.mark.skipif(tables.missing(tables.JOINED) is not None, reason="there is no ../shared/data")
def test_shared_data_joined_has_every_review_with_its_film() -> None:
    joined, reviews, films = (tables.load(name).table() for name in (tables.JOINED, tables.REVIEWS, tables.FILMS))
    assert len(joined.columns) == len(reviews.columns) + len(films.columns) - 1
    title = films.columns.index("title")
    title_of = {cells[0]: cells[title] for cells in films.cells()}
    place = joined.columns.index("title")
    assert all(title_of[cells[0]] == cells[place] for cells in joined.cells())


def test_shared_data_are_skipped_where_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "SHARED_DATA", tmp_path)
    assert "skipped" in (tables.missing(tables.FILMS) or "")
    assert tables.missing("beer") is None
    for file in ("movies.csv", "movie_reviews.csv"):
        with (tmp_path / file).open("w", newline="") as lines:
            csv.writer(lines).writerows([["id", file], ["a", "1,5"], ["b", '"']])
    assert tables.missing(tables.FILMS) is None
    assert tables.load(tables.JOINED).cells == (['"a"', '"b"'], ['"1,5"', r'"\""'], ['"1,5"', r'"\""'])


# -- verdicts


def test_what_is_kept_is_said_to_be() -> None:
    judged = judge([contest_of("a", 0.9, 0.8), contest_of("b", 0.7, 0.5)], sizes_of(), kept_of(), peaks_of())
    assert [verdict.promise for verdict in judged.values() if not verdict.kept] == []
    assert len(judged) == 7 + 4 + 3 + 2 + 1 + 3


@pytest.mark.parametrize("measure", MEASURES)
def test_one_rate_below_the_best_other_is_missed(measure: str) -> None:
    contest = contest_of("low", 0.9, 0.8, 0.1)
    by_strategy = contest.quality.rates
    by_strategy["greedy"] = replace(by_strategy["greedy"], **{measure: 0.9001})
    verdict = about(judge([contest, contest_of("high", 0.9, 0.1)]), "never below")
    assert not verdict.kept
    assert f"low {MEASURES[measure]} -0.010 (greedy)" in verdict.found
    assert "1 of 12" in verdict.found


@pytest.mark.parametrize("way", WAYS)
def test_what_is_lost_on_the_way_to_the_engine_is_missed(way: str) -> None:
    contest = contest_of("low", 0.9, 0.8)
    contest.quality.sent[way] = same(0.8971)
    assert about(judge([contest]), f"through {way} ").kept
    contest.quality.sent[way] = same(0.8969)
    judged = judge([contest, contest_of("high", 0.9, 0.1)])
    assert [promise for promise, verdict in judged.items() if not verdict.kept and "through" in promise] == [
        f"through {way} at least the whole plan's characters less 0.3 points, on every table"
    ]
    assert "1 of 2" in about(judged, f"through {way} ").found
    assert "low -0.31" in about(judged, f"through {way} ").found


def test_another_strategy_ahead_of_what_is_sent_is_named() -> None:
    contest = contest_of("behind", 0.9, 0.8, 0.85)
    contest.quality.sent["foreign scan"] = replace(same(0.86), blocks_16=0.84)
    verdict = about(judge([contest, contest_of("level", 0.9, 0.9)]), "ahead of what is sent")
    assert not verdict.kept
    assert "1 of 6" in verdict.found
    assert "behind foreign scan b16 v1 +1.00" in verdict.found
    contest.quality.sent["foreign scan"] = replace(same(0.86), chars=0.84)
    (line,) = (line for line in sent_lines([contest]) if line.endswith("v1 +1.00"))
    assert line.split()[:3] == ["behind", "foreign", "scan"]


def test_an_engine_that_idles_or_waits_and_a_backend_that_swells_are_missed() -> None:
    every = judge([], [], kept_of(idle_s=2.03), peaks_of())
    assert [verdict.kept for verdict in every.values()] == [False, True, True]
    assert "llm.map 2.01%" in about(every, "idles").found
    assert CONTROL not in about(every, "idles").found
    late = judge([], [], kept_of(first_s=0.051), peaks_of(10**9))
    assert [verdict.kept for verdict in late.values()] == [True, False, False]


def test_three_points_above_ggr_are_asked_for_on_average_and_where_there_is_room() -> None:
    judged = judge([contest_of("narrow", 0.90, 0.88, bound=0.9), contest_of("wide", 0.90, 0.88, bound=0.95)])
    assert not about(judged, "on the average").kept
    found = about(judged, "wherever")
    assert not found.kept
    assert "wide" in found.found
    assert "narrow" not in found.found
    assert about(judge([contest_of("a", 0.90, 0.89, bound=0.91), contest_of("b", 0.9, 0.8)]), "wherever").kept


def test_room_is_what_the_bound_leaves_above_ggr() -> None:
    assert has_room(contest_of("a", 0.9, 0.8, bound=0.84).quality)
    assert not has_room(contest_of("a", 0.9, 0.8, bound=0.82).quality)


def test_a_rate_above_the_bound_is_an_error_that_is_seen() -> None:
    assert not about(judge([contest_of("a", 0.9, 0.8, bound=0.89)]), "above the bound").kept


def test_neighbours_apart_from_the_tree_are_missed() -> None:
    contest = contest_of("a", 0.9, 0.8)
    contest.quality.rates[OURS] = replace(same(0.9), neighbours=0.8999)
    assert not about(judge([contest]), "neighbours").kept


def test_a_slow_planner_is_missed() -> None:
    contest = contest_of("a", 0.9, 0.8)
    contest.costs[OURS] = replace(COST, seconds=3600.0)
    assert not about(judge([contest]), "an L4").kept
    slow = [replace(size, costs=dict.fromkeys(FORMS, replace(COST, seconds=21.0))) for size in sizes_of()]
    judged = judge([], slow)
    assert [verdict.kept for promise, verdict in judged.items() if "rows as JSON" in promise] == [False] * 3


def test_faster_than_linear_growth_of_time_is_missed() -> None:
    judged = judge([], sizes_of(factor=12.1))
    assert [verdict.kept for promise, verdict in judged.items() if "times the seconds" in promise] == [False] * 2


def test_more_memory_than_promised_is_missed() -> None:
    assert about(judge([], sizes_of(text_bytes=250)), "the memory").kept
    assert not about(judge([], sizes_of(text_bytes=249)), "the memory").kept


def test_the_cost_of_a_scaled_run_is_not_judged() -> None:
    scaled = [replace(size, rows=10) for size in sizes_of()]
    assert judge([], scaled, kept_of(rows=10), peaks_of(rows=10)) == {}


# -- lines


def test_lines_are_no_longer_than_the_page() -> None:
    contests = [contest_of("reviews+films", 0.9, 0.8), contest_of("movies", 0.9, 0.8)]
    judged = judge(contests, sizes_of(), kept_of(), peaks_of())
    lines = [
        *table_lines(contests),
        *quality_lines(contests),
        *stand_in_lines(contests),
        *sent_lines(contests),
        *kept_lines(kept_of(), peaks_of()),
        *size_lines(sizes_of()),
        *(line for verdict in judged.values() for line in str(verdict).splitlines()),
    ]
    assert max(map(len, lines)) <= 120

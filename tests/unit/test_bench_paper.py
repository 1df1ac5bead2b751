"""The paper's table, re-run: what is asked, and what is said of the seconds and tokens. No engine."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import get_args

import pytest

from benchmarks.paper.engines import options
from benchmarks.paper.results import lines, verdicts
from benchmarks.paper.runs import Run
from benchmarks.paper.ways import GGR, ORIGINAL, OURS, UNSHUFFLED, WAYS
from benchmarks.paper.workloads import Kind, Workload, workloads
from benchmarks.paper_tables import PAPER_TABLES

KINDS: tuple[Kind, ...] = get_args(Kind)
RUN = Run(2.0, 50, 50, 10_000, 4_000, 100, 0.01, 0.01)


def movies() -> list[Workload]:
    return list(workloads(8_000, 0, ("movies",), KINDS))


def runs_of(ours: Run, other: Run = RUN) -> dict[str, list[Run]]:
    return {way.name: [ours if way.name == OURS else other] for way in WAYS}


def test_tables_have_about_equally_many_tokens() -> None:
    found = {each.table.name: each.rows for each in workloads(8_000, 0, tuple(PAPER_TABLES), KINDS)}
    assert found == {name: 8_000 // spec.tokens for name, spec in PAPER_TABLES.items()}
    assert max(each.rows for each in workloads(10**9, 0, ("movies",), ("filter",))) == PAPER_TABLES["movies"].rows


def test_every_type_is_asked_and_one_of_them_about_unshuffled_rows() -> None:
    assert [each.name for each in movies()] == [
        "movies, filter",
        "movies, filter, unshuffled",
        "movies, projection",
        "movies, filter and projection",
        "movies, aggregation",
    ]
    assert [each.name for each in workloads(8_000, 0, ("squad",), KINDS)] == [
        "squad, retrieval",
        "squad, retrieval, unshuffled",
    ]
    assert sum(each.shuffled for each in workloads(8_000, 0, tuple(PAPER_TABLES), KINDS)) == 16


def test_unshuffled_rows_are_the_same_rows_those_about_one_film_together() -> None:
    shuffled, listed = movies()[:2]
    assert sorted(shuffled.table.rows()) == sorted(listed.table.rows())
    films = [film for film, _ in groupby(listed.table.cells[0])]
    assert len(films) == len(set(films)) < len([film for film, _ in groupby(shuffled.table.cells[0])])


def test_a_sample_is_extrapolated_and_equal_rows_asked_once_count_as_saved() -> None:
    workload = movies()[0]  # 28 rows, of which ten are asked one by one
    ways = runs_of(replace(RUN, seconds=0.5, prompt_tokens=6_000, cached_tokens=5_000))
    ways["one by one"] = [replace(RUN, seconds=10.0, asked=10)]
    said = {line[:28].strip(): line[28:].split() for line in lines(workload, ways, 1e4) if line}
    assert said["one by one"][:3] == ["28.00", "0%", "28"]
    assert said[ORIGINAL][5:7] == ["40.0%", "40.0%"]
    assert said[OURS][5:7] == ["83.3%", "90.0%"]
    assert said[OURS][8:10] == ["4.00", "4.00"]


@pytest.mark.parametrize(
    ("ours", "kept"),
    [
        (replace(RUN, seconds=0.5, cached_tokens=5_000), "seconds 1, tokens 1, outside 1, ratio 1"),
        (replace(RUN, seconds=1.5, cached_tokens=5_000), "seconds 1, tokens 1, outside 1, ratio 0"),
        (replace(RUN, seconds=2.5, cached_tokens=4_000), "seconds 0, tokens 0, outside 1, ratio 0"),
        (replace(RUN, seconds=0.5, cached_tokens=3_000, outside_share=0.2), "seconds 1, tokens 0, outside 0, ratio 1"),
    ],
)
def test_verdicts(ours: Run, kept: str) -> None:
    said = list(verdicts({"movies, filter": runs_of(ours)}))
    assert any("in the paper 35% -> 86%" in line for line in said) == ("ratio 0" in kept)
    assert any("fewer tokens than the quickest other" in line for line in said) == ("seconds 0" in kept)
    last = said[-1]
    assert last == f"kept in 1 workloads, of which the paper has 1: {kept}"


def test_seconds_within_the_spread_of_the_repeats_are_not_ahead() -> None:
    ways = runs_of(RUN)
    ways[OURS] = [replace(RUN, seconds=seconds) for seconds in (1.0, 1.1, 1.6)]
    ways[GGR] = [replace(RUN, seconds=seconds) for seconds in (1.5, 1.7, 1.8)]
    assert "seconds 0," in list(verdicts({"movies, filter": ways}))[-1]


def test_unshuffled_workloads_need_fewer_ways() -> None:
    ways = {name: [RUN] for name in UNSHUFFLED}
    ways[OURS] = [replace(RUN, seconds=1.0)]
    assert "seconds 1," in list(verdicts({"movies, filter, unshuffled": ways}))[-1]


def model_of(folder: Path, config: dict[str, object]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("config", "cache_tokens", "longest"),
    [
        ({"max_position_embeddings": 8192}, 40_000, 8192),
        ({"max_position_embeddings": 8192}, 4096, 4096 - 16),
        ({"text_config": {"max_position_embeddings": 1024}}, 4096, 1024),
        ({}, 4096, 4096 - 16),
    ],
)
def test_no_longer_prompt_than_the_model_has_positions(
    tmp_path: Path, config: dict[str, object], cache_tokens: int, longest: int
) -> None:
    chosen = options(model_of(tmp_path, config), "cuda", cache_tokens)
    assert chosen["max_model_len"] == longest
    assert chosen["extra"][:2] == ["--num-gpu-blocks-override", str(cache_tokens // 16)]


def test_two_engines_share_a_card_and_the_user_s_words_come_last() -> None:
    share = ["--gpu-memory-utilization", "0.45"]
    assert options("some/model", "cuda", 0) == {"device": "cuda", "extra": share}
    assert options("some/model", "cpu", 0, ["--seed", "1"]) == {"device": "cpu", "extra": ["--seed", "1"]}
    chosen = options("some/model", "cuda", 4096, ["--gpu-memory-utilization", "0.2"])
    assert chosen["max_model_len"] == 4096 - 16
    assert chosen["extra"][2:] == [*share, "--gpu-memory-utilization", "0.2"]

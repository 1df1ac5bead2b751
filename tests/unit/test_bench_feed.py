"""The feed's benchmark: the model says what was measured on a GPU, and figures are judged as promised."""

from __future__ import annotations

import math
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.feed import paced
from benchmarks.feed.charts import draw
from benchmarks.feed.engines import ENGINES, MAIN, ONE_B, WHOLE
from benchmarks.feed.fit import WITHIN, asked, lines, modelled, search
from benchmarks.feed.fixed_client import ask
from benchmarks.feed.lines import engine_head, published, table_lines, verdicts
from benchmarks.feed.measured import MEASURED
from benchmarks.feed.real import group_seconds
from benchmarks.feed.runs import FED_WAYS, Fed
from benchmarks.paper.ways import GGR, ORIGINAL, OURS
from pg_bridge.testing.fast_engine import FastEngine, Prompt
from pg_bridge.testing.speeds import H200_1B, H200_8B, EngineSpeed


@pytest.mark.slow
def test_the_model_says_what_was_measured() -> None:
    pytest.importorskip("mistral_common")
    found = list(modelled(asked(), H200_8B, H200_1B))
    assert len(found) == len(MEASURED) == 24
    assert [each.measured.name for each in found if abs(each.error) > WITHIN] == []
    printed = "\n".join(lines(found))
    assert "beyond" not in printed
    assert "worst" in printed


def test_a_client_with_a_fixed_number_in_flight_asks_about_all() -> None:
    prompts = [Prompt.of([i] * 20, 16) for i in range(700)]
    for in_flight in (1, 7, 256, 1024):
        engine = FastEngine(H200_8B)
        seconds = ask(engine, prompts, in_flight)
        assert engine.times.prompts == len(prompts)
        assert seconds >= engine.computed_tokens / H200_8B.tokens_per_s


def test_lockstep_leaves_a_fast_engine_idle_and_more_in_flight_helps() -> None:
    speed = EngineSpeed(tokens_per_s=40_000, step_s=0.01, render_s=2e-3)
    prompts = [Prompt.of([i] * 60, 16) for i in range(2000)]
    seconds = {in_flight: ask(FastEngine(speed), prompts, in_flight) for in_flight in (256, 1024)}
    assert seconds[256] > 1.2 * seconds[1024] > 1.2 * 2000 * 2e-3


@pytest.mark.parametrize("in_flight", [64, 256, 1024])
def test_more_api_servers_are_not_slower(in_flight: int) -> None:
    prompts = [Prompt.of([i // 4] * 40 + [i] * 40, 16) for i in range(1500)]
    seconds = [ask(FastEngine(replace(H200_8B, api_servers=count)), prompts, in_flight) for count in (1, 2, 4, 8)]
    assert all(more <= 1.05 * fewer for fewer, more in pairwise(seconds))
    assert seconds[-1] < seconds[0]


def test_a_search_finds_nothing_worse() -> None:
    sent = {(line.table, line.way): [Prompt.of([i] * 40, 16) for i in range(80)] for line in MEASURED}
    began, found = (H200_8B, H200_1B), search(sent, 6, 1)

    def cost(speeds: tuple[EngineSpeed, EngineSpeed]) -> float:
        errors = [math.log1p(each.error) ** 2 for each in modelled(sent, *speeds)]
        return sum(errors) + 2 * max(errors)

    assert cost(found) <= cost(began)


def test_todays_pacing_answers_all_and_beats_the_fixed_client() -> None:
    prompts = [Prompt.of([i // 8] * 60 + [i] * 40, 16) for i in range(3000)]
    speed = replace(H200_8B, api_servers=4)
    engine = FastEngine(speed)
    seconds, requests = paced.ask(engine, prompts)
    assert engine.times.prompts == len(prompts)
    assert len(prompts) / 8 <= requests <= len(prompts)
    assert seconds < ask(FastEngine(speed), prompts, 256)
    assert all(server.busy_s > 0 for server in engine.servers)


def test_in_virtual_time_engines_come_one_after_another() -> None:
    pytest.importorskip("mistral_common")
    few = [engine.only(["movies"]).fewer(30) for engine in ENGINES.values()]
    every = [list(tables) for tables in paced.measure(few, 0)]
    assert [[each.way for each in of_table] for tables in every for of_table in tables] == [
        [way.name for way in FED_WAYS]
    ] * len(few)
    assert all(each.above_floor >= 1 for tables in every for of_table in tables for each in of_table)
    again = [list(tables) for tables in paced.measure(few, 0)]
    assert again == every


def fed(engine: str, table: str, seconds: dict[str, float], busy_s: float = 4.0) -> list[Fed]:
    return [
        Fed(engine, table, way.name, 4000, 4000, seconds[way.name], 1_000_000, 150_000, busy_s, 3.0, 4.0, 2.0, 0.7)
        for way in FED_WAYS
    ]


def in_seconds(original: float, others: float, ours: float) -> dict[str, float]:
    return {way.name: others for way in FED_WAYS} | {ORIGINAL: original, OURS: ours}


def test_what_was_promised_is_judged() -> None:
    kept = list(verdicts(fed(MAIN.name, "movies", in_seconds(12.0, 6.0, 4.4)), "here"))
    assert "NO" not in kept[-1]
    for part in ("quickest yes", "floors yes (1.10)", "busy for 90% yes (91%)", "ratio yes (2.73, there 2.5)"):
        assert part in kept[-1]
    broken = list(verdicts(fed(MAIN.name, "movies", in_seconds(12.0, 6.0, 6.1), busy_s=4.0), "here"))[-1]
    assert broken.count("NO") == 4
    quick = list(verdicts(fed(ONE_B.name, "movies", in_seconds(3.0, 2.5, 1.9)), "here"))[-1]
    assert "2,000 rows/s yes (2,105; its tokens alone allow 1,000)" in quick
    assert "floors" not in quick
    slow = list(verdicts(fed(ONE_B.name, "movies", in_seconds(3.0, 2.5, 2.1)), "here"))[-1]
    assert "2,000 rows/s NO" in slow


def test_every_way_has_its_line() -> None:
    printed = list(table_lines(fed(MAIN.name, "movies", in_seconds(12.0, 6.0, 5.0))))
    assert printed[0] == "movies, 4000 rows"
    by_way = {line[2:30].strip(): line.split() for line in printed[2:]}
    assert list(by_way) == [way.name for way in FED_WAYS]
    assert by_way[OURS][1:] == ["5.00", "4.00", "1.25", "2.00", "80%", "60%", "800", "150,000", "2.40", "2.5", "0.70"]
    assert by_way[GGR][-2] == "2.5"
    assert by_way[ORIGINAL][-2] == "1.00"
    assert [published(table) for table in ("squad", "beer")] == [1.7, 2.0]


def test_engines_are_told_of() -> None:
    assert set(WHOLE) <= set(MAIN.rows)
    for engine in ENGINES.values():
        assert engine.name in "\n".join(engine_head(engine))
        assert max(engine.fewer(50).rows.values()) <= 50
        assert list(engine.only(["movies"]).rows) == ["movies"]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    every = fed(MAIN.name, "movies", in_seconds(12.0, 6.0, 5.0)) + fed(MAIN.name, "bird", in_seconds(9.0, 8.0, 7.0))
    assert draw(every, tmp_path, "note").read_bytes().startswith(b"\x89PNG")


_BUSY = """
import sys, time
open("/proc/self/comm", "w").write(sys.argv[1])
while time.process_time() < 0.3:
    pass
print(flush=True)
sys.stdin.read()
"""


def test_the_seconds_of_a_vllm_s_processes_are_counted() -> None:
    with ExitStack() as stack:
        group = 0
        for name in ("VLLM::EngineCor", "vllm"):
            command = [sys.executable, "-c", _BUSY, name]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=group, text=True
            )
            stack.enter_context(process)
            group = group or process.pid
            assert process.stdout is not None
            process.stdout.readline()
        front_s, core_s = group_seconds(group)
    assert front_s == pytest.approx(0.3, abs=0.2)
    assert core_s == pytest.approx(0.3, abs=0.2)


def test_a_speed_tells_what_full_steps_and_the_front_take() -> None:
    speed = EngineSpeed(
        tokens_per_s=1000,
        step_s=1.0,
        max_num_batched_tokens=1000,
        render_s=0.5,
        admit_s=0.1,
        answer_s=0.2,
        api_servers=2,
    )
    assert speed.full_tokens_per_s == pytest.approx(500)
    assert speed.front_s(1, 10, 1000) == pytest.approx(4.0)
    assert replace(speed, render_token_s=0.001, request_s=3).front_s(1, 10, 1000) == pytest.approx(6.0)

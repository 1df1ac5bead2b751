"""The feed's benchmark: the model says what was measured on a GPU."""

from __future__ import annotations

import math

import pytest

from benchmarks.feed.fit import WITHIN, asked, lines, modelled, search
from benchmarks.feed.fixed_client import ask
from benchmarks.feed.measured import MEASURED
from pg_bridge.testing.fast_engine import FastEngine, Prompt
from pg_bridge.testing.speeds import H200_1B, H200_8B, EngineSpeed


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
    speed = EngineSpeed(tokens_per_s=40_000, step_s=0.01, sequence_s=0.0, render_s=2e-3)
    prompts = [Prompt.of([i] * 60, 16) for i in range(2000)]
    seconds = {in_flight: ask(FastEngine(speed), prompts, in_flight) for in_flight in (256, 1024)}
    assert seconds[256] > 1.2 * seconds[1024] > 1.2 * 2000 * 2e-3


def test_a_search_finds_nothing_worse() -> None:
    sent = {(line.table, line.way): [Prompt.of([i] * 40, 16) for i in range(80)] for line in MEASURED}
    began, found = (H200_8B, H200_1B), search(sent, 6, 1)

    def cost(speeds: tuple[EngineSpeed, EngineSpeed]) -> float:
        errors = [math.log1p(each.error) ** 2 for each in modelled(sent, *speeds)]
        return sum(errors) + 2 * max(errors)

    assert cost(found) <= cost(began)

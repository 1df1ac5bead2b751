"""An engine of several ranks: each is sent a run of the planned order, and computes what only it is asked about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pg_bridge.engine import Engine
from pg_bridge.engine.records import Portion
from pg_bridge.errors import EngineError
from pg_bridge.testing.double import EngineDouble
from pg_bridge.testing.speeds import EngineSpeed, speed_of
from tests.component.test_engine_answers import SAMPLING, server, shout

PROMPTS = [f"{f'film {i // 40}, ' * 40}its review {i}" for i in range(1600)]


def last_word(prompt: str) -> str:
    return prompt.rsplit(maxsplit=1)[-1]


def speed(ranks: int) -> EngineSpeed:
    return replace(speed_of(None), ranks=ranks)


def computed(ranks: int, told: int) -> tuple[int, list[int]]:
    """Tokens that an engine computes for the prompts, and how many prompts each rank had."""
    with EngineDouble(speed=speed(ranks), answer=last_word, record=False) as double:
        with Engine(server(double, ranks=told)) as engine:
            portions = iter([Portion(iter(PROMPTS[:200]), 200, is_ahead=True), Portion(iter(PROMPTS[200:]), 1400)])
            answers = [each for each in engine.complete_portions(portions, SAMPLING, eager=True) if each is not None]
        caches = [rank.cache for rank in double.engine.ranks]
        assert sorted((each.index, each.text) for each in answers) == [(i, last_word(p)) for i, p in enumerate(PROMPTS)]
        tokens = sum(cache.queried_tokens - cache.hit_tokens for cache in caches)
        return tokens, [rank.times.prompts for rank in double.engine.ranks]


@pytest.mark.some(1)
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_ranks_compute_hardly_more_than_one(ranks: int) -> None:
    alone, _ = computed(1, 1)
    scattered, _ = computed(ranks, 1)
    placed, prompts = computed(ranks, ranks)
    assert scattered - alone > 2 * (placed - alone)  # each cut in a film's 40 rows costs its beginning
    assert min(prompts) >= 0.3 * len(PROMPTS) / ranks


def test_fewer_prompts_than_ranks() -> None:
    with EngineDouble(speed=speed(8), answer=shout) as double, Engine(server(double, ranks=8)) as engine:
        answers = [each for each in engine.complete(iter(["a", "b", "c"]), SAMPLING) if each is not None]
    assert sorted((each.index, each.text) for each in answers) == [(0, "A"), (1, "B"), (2, "C")]


@pytest.mark.parametrize("batch_endpoint", [True, False])
def test_more_ranks_than_there_are_end_the_run_at_once(batch_endpoint: bool) -> None:
    with EngineDouble(speed=speed(2), batch_endpoint=batch_endpoint) as double:
        with Engine(server(double, ranks=3)) as engine, pytest.raises(EngineError, match="3 ranks") as failed:
            list(engine.complete(iter(PROMPTS), SAMPLING, eager=True))
        assert "--data-parallel-size" in (failed.value.hint or "")
        assert len(double.received.requests) < 400


def test_an_engine_without_ranks_is_sent_no_header() -> None:
    with EngineDouble(speed=speed(2)) as double, Engine(server(double)) as engine:
        list(engine.complete(iter(PROMPTS[:400]), SAMPLING))
        assert min(rank.times.prompts for rank in double.engine.ranks) > 0  # the engine itself spreads them

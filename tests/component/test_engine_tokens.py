"""Usage holds the engine's own figures, or None."""

from collections.abc import Iterator

import pytest

from pg_bridge.asking.prefix_cache import characters
from pg_bridge.engine import Engine, Sampling, Usage
from pg_bridge.engine.metrics import CacheCounters, read_counters
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble

SAMPLING = Sampling(max_tokens=64, temperature=0.0, system_prompt="")
SHARED = "the same beginning " * 20


def run(engine: EngineDouble, count: int, **options: object) -> Usage:
    values: dict[str, object] = {"name": "vllm", "endpoint": engine.url, "model": "double", **options}
    caller = Engine(Server(**values))  # type: ignore[arg-type]
    assert len(list(caller.complete((f"{SHARED}{i}" for i in range(count)), SAMPLING))) == count
    return caller.usage


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("count", [1, 2, 100])
def test_tokens_are_the_engines(api: str, count: int) -> None:
    with EngineDouble() as engine:
        engine.cache.query(characters("somebody else, earlier"))
        queried, hit = engine.cache.queried_tokens, engine.cache.hit_tokens
        usage = run(engine, count, api=api)
        assert usage.prompt_tokens == engine.cache.queried_tokens - queried > 0
        assert usage.cached_tokens == engine.cache.hit_tokens - hit
        assert (usage.cached_tokens > 0) == (count > 1)
        assert usage.completion_tokens is not None
        assert usage.completion_tokens >= count
        assert usage.wait_s > 0


def test_single_requests_add_up_without_metrics() -> None:
    with EngineDouble(metrics=False) as engine:
        assert run(engine, 30, max_in_flight=1).cached_tokens == engine.cache.hit_tokens > 0


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_many_prompts_a_request_without_metrics_are_not_guessed(api: str) -> None:
    with EngineDouble(metrics=False) as engine:
        usage = run(engine, 30, api=api)
        assert usage.cached_tokens is None
        assert usage.prompt_tokens == engine.cache.queried_tokens


def test_single_requests_without_details_are_not_guessed() -> None:
    with EngineDouble(prompt_tokens_details=False, metrics=False) as engine:
        assert run(engine, 3, max_in_flight=1).cached_tokens is None


def test_fall_back_to_single_requests_still_counts() -> None:
    with EngineDouble(batch_endpoint=False) as engine:
        assert run(engine, 30).cached_tokens == engine.cache.hit_tokens > 0


def test_foreign_traffic_makes_the_counters_nobodys() -> None:
    with EngineDouble() as engine:

        def prompts() -> Iterator[str]:
            for i in range(30):
                if i == 20:
                    engine.cache.query(characters("somebody else, meanwhile"))
                yield f"{SHARED}{i}"

        caller = Engine(Server("vllm", engine.url, "double"))
        assert len(list(caller.complete(prompts(), SAMPLING))) == 30
        assert caller.usage.cached_tokens is None
        assert caller.usage.prompt_tokens is not None


def test_two_calls_add_up() -> None:
    with EngineDouble() as engine:
        caller = Engine(Server("vllm", engine.url, "double"))
        list(caller.complete((f"{SHARED}{i}" for i in range(20)), SAMPLING))
        engine.cache.query(characters("somebody else, in between"))
        list(caller.complete(iter([SHARED]), SAMPLING))
        list(caller.complete((f"{SHARED}{i}" for i in range(20)), SAMPLING))
        assert caller.usage.cached_tokens == engine.cache.hit_tokens > 0


def test_nothing_asked_is_nothing_counted() -> None:
    usage = Engine(Server("vllm", "http://127.0.0.1:9")).usage
    assert (usage.requests, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (0, 0, 0, 0)


def test_an_aborted_run_claims_no_cached_tokens() -> None:
    with EngineDouble() as engine:
        caller = Engine(Server("vllm", engine.url, "double"))
        completions = caller.complete((f"{SHARED}{i}" for i in range(100)), SAMPLING)
        next(completions)
        completions.close()  # type: ignore[attr-defined]  # a generator, as documented
        assert caller.usage.cached_tokens is None


def test_counters_of_several_cores_are_summed() -> None:
    page = """
# HELP vllm:prefix_cache_queries_total Prefix cache queries, in terms of number of queried tokens.
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="a b{}"} 1.5e+03
vllm:prefix_cache_queries_total{engine="1",model_name="m"} 500.0
vllm:prefix_cache_queries_created{engine="0",model_name="m"} 1.7e+09
vllm:external_prefix_cache_queries_total{engine="0"} 77.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 64.0
vllm:prefix_cache_hits_total{engine="1",model_name="m"} 0.0
"""
    assert read_counters(page).cache == CacheCounters(2000, 64)
    assert read_counters(page.replace("hits", "misses")).cache is None

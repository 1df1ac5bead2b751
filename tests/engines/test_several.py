"""Two vLLMs in one server's endpoint, on two cores: the answers of one, at hardly more than its price."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from urllib.request import urlopen

from pg_bridge.serving.launch import VllmEngine
from tests.engines.features import Conn
from tests.engines.served import Served
from tests.engines.test_ranks import FILMS
from tests.engines.test_same_answers import QUESTIONS

Open = Callable[[Served], AbstractContextManager[Conn]]


def _counted(engine: VllmEngine, what: str) -> float:
    with urlopen(f"{engine.endpoint}/metrics") as page:  # noqa: S310 - our own engine
        return sum(map(float, re.findall(rf"^vllm:{what}_total\{{.*\}} (\S+)$", page.read().decode(), re.M)))


def _figures(engines: tuple[VllmEngine, ...]) -> list[tuple[float, float]]:
    """Prompt tokens that each has had so far, and those of them that it computed."""
    queried = [_counted(engine, "prefix_cache_queries") for engine in engines]
    hits = [_counted(engine, "prefix_cache_hits") for engine in engines]
    return [(all_, all_ - hit) for all_, hit in zip(queried, hits, strict=True)]


def test_two_vllms_change_no_answer(vllm: VllmEngine, other_vllm: VllmEngine, opened: Open) -> None:
    one = Served("", vllm.endpoint, options={"cache": "off"})
    with opened(one) as db:
        expected = db.execute(QUESTIONS.encode()).fetchall()
    with opened(replace(one, url=f"{vllm.endpoint}, {other_vllm.endpoint}")) as db:
        assert db.execute(QUESTIONS.encode()).fetchall() == expected


def test_each_of_two_vllms_has_a_run_of_its_own(vllm: VllmEngine, other_vllm: VllmEngine, opened: Open) -> None:
    computed = []
    for first, engines in ((20_000, (vllm,)), (24_000, (vllm, other_vllm))):
        before = _figures(engines)
        with opened(Served("", " ".join(each.endpoint for each in engines), options={"cache": "off"})) as db:
            query = (
                f"SELECT count(output) FROM llm.map($${FILMS.format(first)}$$, '{{film}} {{review}}', max_tokens => 2)"
            )
            assert db.execute(query.encode()).fetchall() == [(400,)]
            told = db.execute("SELECT engines, prompt_tokens, cached_tokens FROM llm.last_run()").fetchall()
        had = [
            (queried - then, price - earlier)
            for (queried, price), (then, earlier) in zip(_figures(engines), before, strict=True)
        ]
        computed.append(sum(price for _, price in had))
    assert computed[1] < 1.1 * computed[0]
    assert min(queried for queried, _ in had) > 0.2 * sum(queried for queried, _ in had)
    ((of_each, prompt_tokens, cached_tokens),) = told
    assert [each["endpoint"] for each in of_each] == [vllm.endpoint, other_vllm.endpoint]
    assert [each["prompt_tokens"] for each in of_each] == [queried for queried, _ in had]
    assert sum(each["prompt_tokens"] for each in of_each) == prompt_tokens
    assert prompt_tokens - cached_tokens == computed[1]

"""One statement, several roads: the same answers at temperature 0."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest

from pg_bridge.serving.launch import VllmEngine
from tests.engines import served
from tests.engines.features import Conn
from tests.engines.served import Served

Open = Callable[[Served], AbstractContextManager[Conn]]

QUESTIONS = """
    SELECT 'label', f.number, llm.classify('What is the sentiment of {review}: positive, negative or mixed?', r,
                                           '{positive,negative,mixed}') FROM film AS f JOIN review AS r USING (number)
    UNION ALL SELECT 'truth', number, llm.is_true('Does {review} mention the acting?', r)::text FROM review AS r
    UNION ALL SELECT 'number', number, llm.score('What is the value of {year}?', f)::text FROM film AS f
    UNION ALL SELECT 'text', number, llm.complete('What is the value of {film}?', f, max_tokens => 12) FROM film AS f
    ORDER BY 1, 2
"""


@pytest.fixture(scope="module")
def by_vllm(vllm: VllmEngine, opened: Open) -> list[tuple[object, ...]]:
    return _asked(opened, Served("", vllm.endpoint))


def _asked(opened: Open, engine: Served) -> list[tuple[object, ...]]:
    with opened(engine) as db:
        return db.execute(QUESTIONS.encode()).fetchall()


@pytest.fixture
def two_behind_a_router(vllm: VllmEngine, other_vllm: VllmEngine) -> Iterator[Served]:
    with served.vllm_router(vllm, other_vllm, policy="round_robin") as running:
        yield running


def test_vllm_answers_in_form(by_vllm: list[tuple[object, ...]]) -> None:
    told = {kind: [answer for each, _, answer in by_vllm if each == kind] for kind in ("label", "truth", "number")}
    assert set(told["label"]) == {"positive", "negative", "mixed"}
    assert told["truth"] == ["true", *["false"] * 5]
    assert told["number"] == ["1994", "2003", "2011", "1987", "2019", "2008"]


def test_litellm_changes_no_answer(
    by_vllm: list[tuple[object, ...]], vllm: VllmEngine, opened: Open, tmp_path: Path
) -> None:
    with served.litellm(vllm, tmp_path) as engine:
        assert _asked(opened, engine) == by_vllm


def test_llama_cpp_with_the_converted_model_answers_as_vllm_does(
    by_vllm: list[tuple[object, ...]], opened: Open, tmp_path: Path
) -> None:
    with served.llama_cpp(tmp_path) as engine:
        assert _asked(opened, engine) == by_vllm


def test_two_vllms_behind_a_router_change_no_answer(
    by_vllm: list[tuple[object, ...]],
    vllm: VllmEngine,
    other_vllm: VllmEngine,
    two_behind_a_router: Served,
    opened: Open,
) -> None:
    # A prompt a request: of the few requests of a batch, with pages read in between, one vLLM may get all.
    one_by_one = replace(two_behind_a_router, options={"max_in_flight": "1"})
    before = [_queried(engine) for engine in (vllm, other_vllm)]
    assert _asked(opened, one_by_one) == by_vllm
    after = [_queried(engine) for engine in (vllm, other_vllm)]
    assert all(now > then for now, then in zip(after, before, strict=True)), "one of the two was asked nothing"


def _queried(engine: VllmEngine) -> float:
    with urlopen(f"{engine.endpoint}/metrics") as page:  # noqa: S310 - our own engine
        found = re.search(r"^vllm:prefix_cache_queries_total\{.*\} (\S+)$", page.read().decode(), re.M)
    assert found is not None
    return float(found[1])

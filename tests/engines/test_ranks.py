"""vLLM's own data parallelism, on two cores: each rank is asked by its header, and by SQL has a run of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from pg_bridge.serving.launch import VllmEngine
from tests.engines import served
from tests.engines.features import Conn
from tests.engines.served import Served

RANKS = 2
FILMS = """
    SELECT repeat('The film is number ' || i / 20 || '. ', 12) AS film, i AS review
    FROM generate_series({0}, {0} + 399) AS i
"""
Open = Callable[[Served], AbstractContextManager[Conn]]


@pytest.fixture(scope="module")
def ranked() -> Iterator[VllmEngine]:
    with served.ranked_vllm() as running:
        yield running


def _ask(engine: VllmEngine, rank: int, path: str, messages: object) -> dict[str, Any]:
    body = {"model": engine.model, "max_tokens": 2, "temperature": 0, "messages": messages}
    headers = {"Content-Type": "application/json", "X-data-parallel-rank": str(rank)}
    request = Request(f"{engine.endpoint}{path}", json.dumps(body).encode(), headers)  # noqa: S310 - our own engine
    with urlopen(request) as answer:  # noqa: S310
        told: dict[str, Any] = json.load(answer)
        return told


def _counted(engine: VllmEngine, what: str) -> list[float]:
    """What each rank has counted so far."""
    with urlopen(f"{engine.endpoint}/metrics") as page:  # noqa: S310 - our own engine
        found = re.findall(rf'^vllm:{what}_total\{{engine="(\d)".*\}} (\S+)$', page.read().decode(), re.M)
    return [float(value) for _, value in sorted(found)]


def _queried(engine: VllmEngine) -> list[float]:
    """Prompt tokens that each rank has had so far."""
    return _counted(engine, "prefix_cache_queries")


def _computed_by_sql(engine: VllmEngine, opened: Open, first: int, **options: str) -> tuple[float, list[float]]:
    """Ask about 20 films of 20 reviews each; prompt tokens that were computed, and those that each rank was sent."""
    before = _queried(engine), _counted(engine, "prefix_cache_hits")
    with opened(Served("", engine.endpoint, options={"cache": "off", **options})) as db:
        query = f"SELECT count(output) FROM llm.map($${FILMS.format(first)}$$, '{{film}} {{review}}', max_tokens => 2)"
        assert db.execute(query.encode()).fetchall() == [(400,)]
    queried, hits = (
        [now - then for now, then in zip(after, earlier, strict=True)]
        for after, earlier in zip((_queried(engine), _counted(engine, "prefix_cache_hits")), before, strict=True)
    )
    return sum(queried) - sum(hits), queried


MESSAGE = [{"role": "user", "content": "Is tea good?"}]


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize(
    ("path", "messages"),
    [("/v1/chat/completions", MESSAGE), ("/v1/chat/completions/batch", [MESSAGE, MESSAGE])],
)
def test_a_rank_is_asked_by_its_header(ranked: VllmEngine, rank: int, path: str, messages: object) -> None:
    before = _queried(ranked)
    _ask(ranked, rank, path, messages)
    asked = [now > then for now, then in zip(_queried(ranked), before, strict=True)]
    assert asked == [each == rank for each in range(RANKS)]


def test_a_rank_that_does_not_exist_is_refused(ranked: VllmEngine) -> None:
    with pytest.raises(HTTPError) as refused:
        _ask(ranked, RANKS, "/v1/chat/completions", MESSAGE)
    assert refused.value.code == 400
    assert b"out of range" in refused.value.read()
    refused.value.close()


def test_by_sql_each_rank_has_a_run_of_its_own(ranked: VllmEngine, opened: Open) -> None:
    scattered, _ = _computed_by_sql(ranked, opened, 10_000)
    placed, queried = _computed_by_sql(ranked, opened, 14_000, ranks=str(RANKS))
    assert placed < scattered
    assert min(queried) > 0.2 * sum(queried)

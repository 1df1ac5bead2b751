"""vLLM's own data parallelism, on two cores: each rank is asked by its header, by the batch endpoint as well."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from pg_bridge.serving.launch import VllmEngine
from tests.engines import served

RANKS = 2


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


def _queried(engine: VllmEngine) -> list[float]:
    """Prompt tokens that each rank has had so far."""
    with urlopen(f"{engine.endpoint}/metrics") as page:  # noqa: S310 - our own engine
        found = re.findall(r'^vllm:prefix_cache_queries_total\{engine="(\d)".*\} (\S+)$', page.read().decode(), re.M)
    return [float(value) for _, value in sorted(found)]


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

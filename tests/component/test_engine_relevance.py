"""Relevances over the wire: documents of one query in a request, whatever comes between, and read from any form."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pg_bridge.engine import Completion, Engine, Sampling
from pg_bridge.errors import EngineError, OptionError
from pg_bridge.options import Server
from pg_bridge.rows.joined import joined
from pg_bridge.testing.behaviour import default_relevance
from pg_bridge.testing.double import EngineDouble
from tests.hostile import HostileEngine, raw

RERANK = Sampling(0, 0.0, "", reranks=True)
PAIRS = [(f'query "{i // 20}"', f"query {{{i}}}\n\u00e4 of {i % 7}") for i in range(200)]


def ask(server: Server, sampling: Sampling = RERANK) -> list[Completion]:
    with Engine(server) as engine:
        prompts = (joined(*pair) for pair in PAIRS)
        return sorted(engine.complete(prompts, sampling, eager=True), key=lambda each: each.index)


EXPECTED = [repr(default_relevance(*pair)) for pair in PAIRS]


def test_several_engines_rerank_past_one_that_is_gone_and_one_that_is_busy() -> None:
    with (
        EngineDouble(fail_first=3, retry_after_s=0.01) as busy,
        EngineDouble(drop_first=1) as other,
        EngineDouble() as gone,
    ):
        gone.behaviour.change({"hang": True})
        server = Server(
            "vllm", ",".join(each.url for each in (busy, other, gone)), model="double", request_timeout_s=0.5
        )
        assert [each.text for each in ask(server)] == EXPECTED
        assert {path for each in (busy, other) for path, _ in each.received.requests} == {"/v1/rerank"}


def test_a_request_has_the_documents_of_one_query() -> None:
    with EngineDouble() as double:
        assert [each.text for each in ask(Server("vllm", double.url))] == EXPECTED
        received = double.received
        assert len(received.requests) <= 3 * 10  # a query's documents may stand at the border of two batches
        assert len(received.prompts) == len(PAIRS)
        documents = iter(received.prompts)
        for body, (_, count) in zip(received.bodies, received.requests, strict=True):
            assert {(body["query"], next(documents)) for _ in range(count)} <= set(PAIRS)


def test_what_is_counted_is_counted_by_query() -> None:
    with EngineDouble() as double:
        server = Server("vllm", double.url, requests_per_minute=600, tokens_per_minute=1_000_000)
        assert [each.text for each in ask(server)] == EXPECTED


def test_what_is_said_besides_is_the_servers_and_the_calls() -> None:
    options = {"cache_salt": "role", "salt": "s", "request_options": '{"truncate_prompt_tokens": -1, "user": "a"}'}
    sampling = replace(RERANK, priority=7, request_options='{"user": "b"}')
    with EngineDouble() as double:
        ask(Server("vllm", double.url, **options), sampling)  # type: ignore[arg-type]
        assert double.received.bodies[0] == {
            "model": "double",
            "priority": 7,
            "cache_salt": "s",
            "truncate_prompt_tokens": -1,
            "user": "b",
            "query": 'query "0"',
        }
    for key in ("query", "documents", "top_n"):
        with pytest.raises(OptionError, match=key):
            Server.from_options("vllm", {"endpoint": "http://e", "request_options": f'{{"{key}": "a"}}'})


def test_who_speaks_otherwise_is_not_asked() -> None:
    with EngineDouble() as double, pytest.raises(EngineError, match="makes no relevance scores") as caught:
        ask(Server("vllm", double.url, dialect="anthropic", model="m"))
    assert caught.value.sqlstate == "0A000"
    assert double.received.requests == []


def test_voyages_form_is_read_as_well() -> None:
    body = b'{"object": "list", "data": [{"relevance_score": 1, "index": 0}], "usage": {"total_tokens": 26}}'
    with HostileEngine(lambda _: [raw(body)]) as hostile, Engine(Server("vllm", hostile.url, model="m")) as engine:
        (only,) = engine.complete(iter([joined("q", "d")]), RERANK)
        assert (only.text, only.error) == ("1.0", None)
        assert engine.usage.prompt_tokens == 26


@pytest.mark.parametrize(
    "body",
    [
        b'{"results": [' + b'{"index": 0, "relevance_score": ' + b"1" * 40_000,
        b'{"results": ' + b"[" * 100_000,
        b"[]",
        b'[{"index": 0, "score": 0.5}]',
        b"null",
        b'{"object": "list"}',
        b"\xff\xfe",
    ],
)
def test_an_answer_without_an_end_or_a_form_ends_the_run(body: bytes) -> None:
    with HostileEngine(lambda _: [raw(body)]) as engine, pytest.raises(EngineError, match="cannot be read") as caught:
        ask(Server("vllm", engine.url, max_answer_bytes=50_000, request_timeout_s=5))
    assert caught.value.sqlstate == "58000"
    assert len(caught.value.message) < 300

"""Embeddings over the wire: from several engines, past those that are busy or gone, within limits, bare."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest

from pg_bridge.engine import Completion, Engine, Sampling
from pg_bridge.errors import EngineError, OptionError
from pg_bridge.options import Server
from pg_bridge.testing.behaviour import default_embedding
from pg_bridge.testing.double import EngineDouble
from tests.hostile import HostileEngine, raw

EMBED = Sampling(0, 0.0, "", embeds=True)
TEXTS = [f'text "{i}"\n\u00e4' for i in range(200)]


def ask(server: Server, sampling: Sampling = EMBED) -> list[Completion]:
    with Engine(server) as engine:
        return sorted(engine.complete(iter(TEXTS), sampling, eager=True), key=lambda each: each.index)


def expected(dimensions: int = 8) -> list[str]:
    return [base64.b64encode(np.array(default_embedding(text, dimensions), "<f4").tobytes()).decode() for text in TEXTS]


def test_several_engines_embed_past_one_that_is_gone_and_one_that_is_busy() -> None:
    with (
        EngineDouble(fail_first=3, retry_after_s=0.01) as busy,
        EngineDouble(drop_first=1) as other,
        EngineDouble() as gone,
    ):
        gone.behaviour.change({"hang": True})
        server = Server(
            "vllm", ",".join(each.url for each in (busy, other, gone)), model="double", request_timeout_s=0.5
        )
        assert [each.text for each in ask(server)] == expected()
        assert {path for each in (busy, other) for path, _ in each.received.requests} == {"/v1/embeddings"}
        assert busy.received.answered
        assert other.received.answered


def test_requests_that_are_counted_hold_many_texts() -> None:
    with EngineDouble() as double:
        server = Server("vllm", double.url, requests_per_minute=60, tokens_per_minute=1_000_000, max_reasoning_tokens=9)
        assert [each.text for each in ask(server)] == expected()
        assert len(double.received.requests) < len(TEXTS) // 8


def test_what_is_said_besides_is_the_servers_and_the_calls() -> None:
    options = {"cache_salt": "role", "salt": "s", "request_options": '{"truncate_prompt_tokens": -1, "user": "a"}'}
    sampling = replace(EMBED, dimensions=4, priority=7, request_options='{"user": "b"}')
    with EngineDouble() as double:
        assert [each.text for each in ask(Server("vllm", double.url, **options), sampling)] == expected(4)  # type: ignore[arg-type]
        assert double.received.bodies[0] == {
            "model": "double",
            "priority": 7,
            "dimensions": 4,
            "encoding_format": "base64",
            "cache_salt": "s",
            "truncate_prompt_tokens": -1,
            "user": "b",
        }
    for key in ("encoding_format", "dimensions", "embed_dtype", "input"):
        with pytest.raises(OptionError, match=key):
            Server.from_options("vllm", {"endpoint": "http://e", "request_options": f'{{"{key}": "a"}}'})


def test_who_speaks_otherwise_is_not_asked() -> None:
    with EngineDouble() as double, pytest.raises(EngineError, match="makes no embeddings") as caught:
        ask(Server("vllm", double.url, dialect="anthropic", model="m"))
    assert caught.value.sqlstate == "0A000"
    assert double.received.requests == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [' + b'{"index": 0, "embedding": [' + b"1," * 40_000,
        b'{"data": ' + b"[" * 100_000,
        b'{"data": [{"index": 0, "embedding": "' + b"A" * 100_000,
        b"[]",
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

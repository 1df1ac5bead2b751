"""Refusals told apart, in the words of engines that there are: too long, filtered, used up, expired, overloaded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pg_bridge.engine import Completion, Engine, Sampling
from pg_bridge.engine.refusal import FILTERED, TOO_LONG
from pg_bridge.errors import (
    CallError,
    EngineDenied,
    EngineError,
    EngineOverloaded,
    KeyExpired,
    QuotaUsedUp,
    Reason,
    RowError,
)
from pg_bridge.options import Server
from tests.component.test_engine_faults import everything_said
from tests.hostile import HostileEngine, Reply, Request, completion, well

pytestmark = pytest.mark.usefixtures("short_pauses")

SAMPLING = Sampling(max_tokens=64, temperature=0.0, system_prompt="")
TOO_LONG_BODIES: dict[str, Any] = {
    "vLLM": {
        "error": {
            "message": "This model's maximum context length is 4096 tokens. However, you requested 5120 tokens (4096 in"
            " the messages, 1024 in the completion). Please reduce the length of the messages or completion.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        }
    },
    "OpenAI": {"error": {"message": "Too much.", "type": "invalid_request_error", "code": "context_length_exceeded"}},
    "llama.cpp": {
        "error": {
            "code": 400,
            "message": "the request exceeds the available context size. try increasing it",
            "type": "exceed_context_size_error",
        }
    },
    "Anthropic": {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"},
    },
    "SGLang": {"message": "Requested token count exceeds the model's maximum context length of 4096 tokens."},
}
FILTERED_BODIES: dict[str, Any] = {
    "Azure": {"error": {"message": "The response was filtered.", "code": "content_filter", "status": 400}},
    "OpenAI": {"error": {"message": "Your request was rejected.", "code": "content_policy_violation"}},
    "words": {"error": {"message": "It triggered our content management policy."}},
}
USED_UP: dict[str, tuple[str, Any]] = {
    "OpenAI": (
        "429 Too Many Requests",
        {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "param": None}},
    ),
    "DeepSeek": ("402 Payment Required", {"error": {"message": "Insufficient Balance"}}),
    "Anthropic": (
        "400 Bad Request",
        {"error": {"message": "Your credit balance is too low to access the API.", "type": "invalid_request_error"}},
    ),
    "a proxy": ("403 Forbidden", {"detail": "insufficient credits"}),
}


def known(engine: HostileEngine, **options: Any) -> Server:
    return Server("vllm", engine.url, "hostile", **{"max_retries": 2, "api_key": "sk-very-secret", **options})


def ask(server: Server, prompts: list[str]) -> list[Completion]:
    return sorted(Engine(server).complete(iter(prompts), SAMPLING), key=lambda each: each.index)


def refusing_bad(body: Any, request: Request) -> Reply:
    is_bad = "bad" in json.dumps(request.json)
    return [well(body, status="400 Bad Request") if is_bad else completion(request)]


@pytest.mark.parametrize(
    ("body", "hint", "sqlstate"),
    [(body, TOO_LONG, "54000") for body in TOO_LONG_BODIES.values()]
    + [(body, FILTERED, "22000") for body in FILTERED_BODIES.values()],
    ids=[*TOO_LONG_BODIES, *(f"{name}, filtered" for name in FILTERED_BODIES)],
)
def test_a_row_s_refusal_says_what_to_do(body: Any, hint: str, sqlstate: str) -> None:
    with HostileEngine(lambda request: refusing_bad(body, request)) as engine:
        good, bad = ask(known(engine), ["good", "bad"])
    assert good.error is None
    assert isinstance(bad.error, Reason)
    assert (bad.error.hint, bad.error.sqlstate) == (hint, sqlstate)
    for error in (RowError(2, bad.error), CallError(bad.error)):
        assert (error.sqlstate, error.detail) == (sqlstate, bad.error)
        assert error.hint.startswith(hint)
        assert "on_error" in error.hint


def test_words_that_stand_in_the_prompt_tell_nothing() -> None:
    said = {"error": {"message": "No: bad, the context length is 7, the content policy and insufficient funds"}}
    with HostileEngine(lambda request: refusing_bad(said, request)) as engine:
        prompt = "bad, the context length is 7, the content policy and insufficient funds"
        (found,) = ask(known(engine), [prompt])
    assert found.error
    assert not isinstance(found.error, Reason)


@pytest.mark.parametrize("engine_of", USED_UP)
@pytest.mark.parametrize("count", [1, 40])
def test_a_quota_that_is_used_up_is_not_waited_for(engine_of: str, count: int) -> None:
    status, body = USED_UP[engine_of]
    reply = well(body, status=status, headers="Retry-After: 1\r\n")
    with HostileEngine(lambda _: [reply]) as engine, pytest.raises(QuotaUsedUp, match="nothing left") as caught:
        ask(known(engine, patience_s=300), [f"row {i}" for i in range(count)])
    assert len([each for each in engine.requests if each.json]) <= 4
    assert caught.value.sqlstate == "53000"
    assert status[:3] in caught.value.detail
    assert "billing" in caught.value.hint


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"message": "Your API key has expired."}}, KeyExpired),
        ({"error": {"message": "no", "code": "expired_api_key"}}, KeyExpired),
        ({"error": {"message": "Incorrect API key provided"}}, EngineDenied),
    ],
)
def test_an_expired_key_is_no_wrong_one(body: Any, error: type[EngineDenied]) -> None:
    with HostileEngine(lambda _: [well(body, status="401 Unauthorized")]) as engine, pytest.raises(error) as caught:
        ask(known(engine), ["row 1", "row 2"])
    assert type(caught.value) is error
    assert "sk-very" not in everything_said(caught.value)
    assert ("expired" in caught.value.message) == (error is KeyExpired)
    assert caught.value.sqlstate == ("28P01" if error is KeyExpired else "28000")
    assert "USER MAPPING" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "error", "sqlstate"),
    [
        ("429 Slow", EngineOverloaded, "57P03"),
        ("503 Loading", EngineOverloaded, "57P03"),
        ("500 Oops", EngineError, "58000"),
    ],
)
def test_an_overloaded_engine_is_no_broken_one(status: str, error: type[EngineError], sqlstate: str) -> None:
    reply = well({"error": {"message": "Loading model"}}, status=status)
    with HostileEngine(lambda _: [reply]) as engine, pytest.raises(error) as caught:
        ask(known(engine), ["row 1", "row 2"])
    assert type(caught.value) is error
    assert caught.value.sqlstate == sqlstate
    assert ("patience_s" in caught.value.hint) == (error is EngineOverloaded)

"""How fast prompts are pulled and how large requests get."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.engine.failures import safe_reason
from pg_bridge.engine.pace import Pace
from pg_bridge.engine.payload import MalformedAnswer, Payload
from pg_bridge.engine.records import Sampling
from pg_bridge.options import Server

SERVER = Server("vllm", "http://127.0.0.1:9")


def test_a_fast_engine_gets_larger_requests_and_a_slow_one_smaller() -> None:
    pace = Pace(max_in_flight=256)
    sizes = [pace.batch_size]
    for took_s in (0.01, 0.01, 0.01, 0.01, 1.0, 3.0, 3.0):
        pace.adapt(pace.batch_size, took_s)
        sizes.append(pace.batch_size)
    assert sizes == [8, 16, 32, 64, 64, 64, 32, 16]


@given(st.integers(1, 2000), st.lists(st.tuples(st.integers(1, 128), st.floats(0, 10)), max_size=40))
def test_a_request_is_never_empty_nor_too_large(max_in_flight: int, answered: list[tuple[int, float]]) -> None:
    pace = Pace(max_in_flight)
    for prompt_count, took_s in answered:
        pace.adapt(min(prompt_count, pace.batch_size), took_s)
        assert 1 <= pace.batch_size <= min(128, max_in_flight)


@given(st.integers(1, 600), st.integers(0, 10_000), st.integers(0, 700), st.integers(0, 700))
def test_room_keeps_every_bound(max_in_flight: int, handed: int, in_flight: int, landed: int) -> None:
    pace = Pace(max_in_flight, handed=handed)
    room = pace.room(in_flight, landed)
    if room:
        assert in_flight + room <= max_in_flight
        assert in_flight + landed + room <= 16 + 2 * handed
    if not in_flight and not landed:
        assert room > 0  # the run goes on


def test_one_prompt_is_one_plain_request() -> None:
    payload = Payload("chat", "m", Sampling(1, 0.0, ""))
    assert payload.path(1) == "/v1/chat/completions"
    assert payload.path(2) == "/v1/chat/completions/batch"
    assert Payload("completions", "m", Sampling(1, 0.0, "")).path(2) == "/v1/completions"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'{"choices": null}',
        b'{"choices": [{"index": 0}]}',
        b'{"choices": [{"index": 1, "message": {"content": "x"}}]}',
        b'{"choices": []}',
        b'{"choices": [{"index": "z", "message": {"content": "x"}}]}',
        b"\xff",
    ],
)
def test_what_is_no_answer_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        Payload("chat", "m", Sampling(1, 0.0, "")).parse(body, 1)


def test_answers_are_sorted_by_their_index() -> None:
    body = b'{"choices": [{"index": 1, "text": "b"}, {"index": 0, "text": "a"}]}'
    answers, tokens = Payload("completions", "m", Sampling(1, 0.0, "")).parse(body, 2)
    assert answers == [("a", None), ("b", None)]
    assert (tokens.prompt, tokens.completion, tokens.cached) == (None, None, None)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("This model's maximum context length is 64 tokens.", "This model's maximum context length is 64 tokens."),
        ("bad 'secret'", "bad '…'"),
        ('bad "sec\'ret" and `x`', "bad '…' and '…'"),
        ("unclosed 'secret", "unclosed '…'"),
        ("one\ntwo secret", "one"),
        ("echo: the secret is here", "the engine refused the prompt (HTTP status 400)"),
        ("secret", "the engine refused the prompt (HTTP status 400)"),
        ("", "the engine refused the prompt (HTTP status 400)"),
        ("long " * 100, ("long " * 60).strip()),
    ],
)
def test_a_reason_is_made_safe(message: str, reason: str) -> None:
    import json  # noqa: PLC0415

    prompt = "this: the secret is here, in the row"
    assert safe_reason(400, json.dumps({"error": {"message": message}}).encode(), prompt, SERVER) == reason
    assert safe_reason(400, json.dumps({"detail": message}).encode(), prompt, SERVER) == reason


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"error": 5}', b"\xff"])
def test_a_reason_that_cannot_be_read_is_the_status(body: bytes) -> None:
    assert safe_reason(413, body, "x", SERVER) == "the engine refused the prompt (HTTP status 413)"


def test_an_eager_run_fills_the_engine_at_once() -> None:
    pace = Pace(256, eager=True)
    assert pace.batch_size == pace.largest_batch
    assert pace.room(0, 0) == pace.batch_size
    assert pace.room(192, 0) == 64
    assert pace.room(256, 0) == 0

"""How fast prompts are pulled and how large requests get."""

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.engine.failures import safe_reason
from pg_bridge.engine.pace import Load, Pace
from pg_bridge.engine.payload import MalformedAnswer, Payload
from pg_bridge.engine.records import Sampling
from pg_bridge.options import Server

SERVER = Server("vllm", "http://127.0.0.1:9")


@given(
    st.integers(1, 2000),
    st.booleans(),
    st.booleans(),
    st.lists(st.tuples(st.integers(1, 128), st.floats(0, 10), st.floats(0, 100)), max_size=40),
)
def test_a_request_is_never_empty_nor_too_large(
    max_in_flight: int, eager: bool, counted: bool, answered: list[tuple[int, float, float]]
) -> None:
    pace, now_s = Pace(max_in_flight, eager, counted), 0.0
    for prompts, took_s, pause_s in answered:
        now_s += pause_s
        pace.land(prompts, took_s, now_s)
        assert 1 <= pace.request_size <= min(128 if counted else 8, max_in_flight)
        assert 1 <= pace.limit(now_s) <= max_in_flight


@given(
    st.integers(1, 2000),
    st.integers(0, 10_000),
    st.integers(0, 2500),
    st.integers(0, 700),
    st.lists(st.tuples(st.integers(1, 16), st.floats(0, 10)), max_size=5),
)
def test_room_keeps_every_bound(
    max_in_flight: int, handed: int, in_flight: int, landed: int, answered: list[tuple[int, float]]
) -> None:
    pace = Pace(max_in_flight, handed=handed)
    for number, (prompts, took_s) in enumerate(answered):
        pace.land(prompts, took_s, number + took_s)
    room = pace.room(in_flight, landed, 20.0)
    if room:
        assert in_flight + room <= max_in_flight
        assert in_flight + landed + room <= 16 + 2 * handed
    if not in_flight and not landed:
        assert room > 0  # the run goes on


@dataclass
class _Line:
    """An engine that answers request after request, each prompt in so many seconds; as many more s go by besides."""

    each_s: float
    besides_s: float
    free_s: float = 0.0
    due: deque[tuple[float, float, int]] = field(default_factory=deque)  # (when, sent when, prompts)

    def send(self, prompts: int, now_s: float) -> None:
        self.free_s = max(self.free_s, now_s) + prompts * self.each_s
        self.due.append((self.free_s + self.besides_s, now_s, prompts))

    def run(self, pace: Pace, until_s: float) -> list[tuple[float, int]]:
        """Answer whatever the pace sends; returns how many prompts were in flight at which moments."""
        now_s, in_flight, seen = 0.0, 0, []
        while now_s < until_s:
            while room := pace.room(in_flight, 0, now_s):
                self.send(room, now_s)
                in_flight += room
            seen.append((now_s, in_flight))
            now_s, sent_s, prompts = self.due.popleft()
            in_flight -= prompts
            pace.land(prompts, now_s - sent_s, now_s)
        return seen


@pytest.mark.parametrize("besides_s", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("per_s", [50, 500, 5000])
def test_an_engine_of_any_speed_has_enough_and_not_much_more(per_s: float, besides_s: float) -> None:
    seen = _Line(1 / per_s, besides_s).run(Pace(100_000, eager=True), 30)
    least = per_s * besides_s  # with fewer in flight it has nothing to do at times
    later = [in_flight for now_s, in_flight in seen if now_s > 5 + 10 * besides_s]
    assert min(later) > least
    assert max(later) < per_s * (2 * besides_s + 1.2) + 64


def test_a_slow_engine_is_not_flooded() -> None:
    seen = _Line(0.5, 0.0).run(Pace(1024, eager=True), 120)
    assert max(in_flight for now_s, in_flight in seen if now_s > 30) <= 32


def test_before_any_answer_the_engine_may_say_that_it_has_enough() -> None:
    pace = Pace(1024, eager=True)
    assert pace.room(0, 0, 0.0) == 8
    assert [pace.limit(now_s) for now_s in (0.0, 0.25, 0.5, 60.0)] == [64, 128, 192, 256]
    pace.hear(Load(running=40, waiting=24), 64)
    assert pace.limit(60.0) == 40
    pace.hear(Load(running=8, waiting=56), 64)
    assert pace.limit(60.0) == 16  # any engine has use for some


def test_long_answers_take_what_the_engine_says_that_it_has_room_for() -> None:
    pace = Pace(1024, eager=True)
    pace.room(0, 0, 0.0)
    for in_flight in (64, 128, 256, 512):
        assert pace.wants_to_hear(in_flight, 0.0)
        pace.hear(Load(running=in_flight, waiting=0), in_flight)
        assert pace.limit(0.0) == 2 * in_flight
    assert not pace.wants_to_hear(1024, 0.0)


def test_prompts_that_stand_before_the_scheduler_do_not_make_room_for_more() -> None:
    pace = Pace(1024, eager=True)
    pace.room(0, 0, 0.0)
    pace.hear(Load(running=10, waiting=0), 64)
    assert pace.limit(0.0) == 64


def test_a_pause_is_not_the_engines() -> None:
    line, pace = _Line(0.001, 0.05), Pace(1024, eager=True)
    line.run(pace, 5)
    before = pace.per_s
    pace.room(0, 0, 60.0)
    pace.land(16, 0.066, 60.066)
    assert before is not None
    assert pace.per_s is not None
    assert pace.per_s > 16 / 0.07
    assert pace.limit(60.066) >= 64


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


def test_requests_are_large_where_they_are_counted() -> None:
    pace = Pace(1024, counted=True)
    assert pace.room(0, 0, 0.0) == 16  # a slow start all the same
    assert Pace(1024, eager=True, counted=True).room(0, 0, 0.0) == 32


def test_two_counted_requests_are_in_flight_at_a_slow_engine() -> None:
    pace = Pace(1024, eager=True, counted=True)
    pace.room(0, 0, 0.0)
    pace.land(64, 60.0, 60.0)
    assert pace.limit(60.0) < 2 * pace.request_size
    sent = 0
    while room := pace.room(sent, 0, 60.0):
        sent += room
    assert sent > 0.9 * pace.limit(60.0)

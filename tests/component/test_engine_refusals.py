"""Whose fault a refusal is: the request's, found at the price of a dozen requests, or the rows', each found."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest

from pg_bridge.engine import Completion, Engine, Portion, Sampling, trial
from pg_bridge.engine.trial import CONTROL_PROMPT
from pg_bridge.errors import EngineDenied, EngineError, QuotaUsedUp
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble
from tests.component.test_engine_faults import everything_said, server
from tests.hostile import HostileEngine, Reply, Request, completion, raw

pytestmark = pytest.mark.usefixtures("short_pauses")

SAMPLING = Sampling(max_tokens=64, temperature=0.0, system_prompt="")
ROWS = 1000
A_DOZEN = 12


@pytest.fixture(autouse=True)
def a_refusal_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a busy machine does not look like an engine that works on its answers."""
    monkeypatch.setattr(trial, "UNPROVEN_S", 60.0)


def ask(known: Server, prompts: Sequence[str], watch: Callable[[], None] = lambda: None) -> list[Completion]:
    caller = Engine(known, check_interrupts=watch)
    return sorted(caller.complete(iter(prompts), SAMPLING, eager=True), key=lambda each: each.index)


def good_and_bad(bad: set[int], rows: int = ROWS) -> list[str]:
    return [f"{'BAD' if i in bad else 'good'} row {i}" for i in range(rows)]


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("batch_endpoint", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 200, ROWS])
def test_what_is_refused_whatever_the_prompt_costs_a_dozen_requests(api: str, batch_endpoint: bool, rows: int) -> None:
    said = "'max_tokens' is too large: 9999. The maximum is 4096"
    with EngineDouble(refuse_every=said, batch_endpoint=batch_endpoint) as engine:
        with pytest.raises(EngineError, match=r"refuses every prompt \(HTTP status 400\)") as caught:
            ask(server(engine, api=api), [f"secret row {i}" for i in range(rows)])
        assert len(engine.received.requests) <= A_DOZEN
        assert "is too large: 9999. The maximum is 4096" in caught.value.detail
        assert "max_tokens" in caught.value.hint
        assert "secret" not in everything_said(caught.value)


def test_an_argument_that_the_engine_does_not_know_ends_the_run() -> None:
    with EngineDouble(refuse_fields=("temperature",)) as engine:
        with pytest.raises(EngineError, match="refuses every prompt") as caught:
            ask(server(engine), good_and_bad(set()))
        assert len(engine.received.requests) <= A_DOZEN
    assert "Unrecognized request argument supplied: temperature" in caught.value.detail


def test_one_that_refuses_slowly_is_not_sent_more_meanwhile() -> None:
    with EngineDouble(refuse_every="no", delay_s=0.3) as engine:
        with pytest.raises(EngineError, match="refuses every prompt"):
            ask(server(engine), good_and_bad(set()))
        assert len(engine.received.requests) <= A_DOZEN


@pytest.mark.some(1)
@pytest.mark.parametrize(
    ("bad", "most_requests"),
    [
        (set(range(0, ROWS, 100)), ROWS // 8 + 10 * 2 * 12),  # one in a hundred is too long
        ({0}, ROWS // 8 + 2 * 12),
        ({ROWS - 1}, ROWS // 8 + 2 * 12),
        (set(range(0, ROWS, 3)), ROWS + ROWS // 2),  # a third
        (set(random.Random(7).sample(range(ROWS), ROWS // 3)), ROWS + ROWS // 2),
        (set(range(200)), ROWS + ROWS // 2),  # those that share a text that is too long stand together
        (set(range(ROWS)) - {700}, ROWS + ROWS // 2),
        (set(range(ROWS)), ROWS + ROWS // 2),
    ],
    ids=["1 %", "the first", "the last", "every third", "a third", "200 together", "all but one", "all"],
)
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_each_row_that_is_to_blame_is_found_and_no_other(api: str, bad: set[int], most_requests: int) -> None:
    prompts = good_and_bad(bad)
    with EngineDouble(reject_marker="BAD") as engine:
        completions = ask(server(engine, api=api), prompts)
        received = engine.received
    assert [each.index for each in completions] == list(range(ROWS))
    assert {each.index for each in completions if each.error} == bad
    assert {each.error for each in completions if each.error} == {"bad prompt"}
    assert len(received.requests) <= most_requests
    sent = Counter(prompt.strip() for prompt in received.prompts)
    # Asked where nothing was answered yet, and when a dozen requests, two dozen, … were refused one after another.
    assert sent.pop(CONTROL_PROMPT, 0) <= 2 + 2 * (ROWS // A_DOZEN).bit_length()
    assert max(sent.values()) <= 3


def test_an_engine_that_begins_to_refuse_every_prompt_ends_the_run_soon() -> None:
    with EngineDouble() as engine:
        refused_from: list[int] = []

        def begin_to_refuse() -> None:
            if not refused_from and engine.received.answered > 500:
                engine.behaviour.refuse_every = "no more today"
                refused_from.append(len(engine.received.requests))

        with pytest.raises(EngineError, match="refuses every prompt") as caught:
            ask(server(engine), good_and_bad(set(), 20_000), begin_to_refuse)
        assert len(engine.received.requests) - refused_from[0] < 100 + 1024 // 8  # those were in flight
    assert "no more today" in caught.value.detail


def test_a_control_that_is_refused_for_another_reason_blames_no_request() -> None:
    with EngineDouble(reject_marker="BAD") as engine:
        engine.behaviour.refuse_marked = {CONTROL_PROMPT: "say the word JSON"}
        completions = ask(server(engine), good_and_bad({5}, 100))
        assert [each.index for each in completions if each.error] == [5]


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        ("401 Unauthorized", EngineDenied, "wants an API key"),
        ("402 Payment Required", QuotaUsedUp, "nothing left"),
        ("404 Not Found", EngineError, "HTTP status 404"),
        ("500 Internal Server Error", EngineError, "HTTP status 500"),
    ],
)
def test_what_becomes_of_the_one_asked_besides_is_said_as_of_any_other(
    status: str, error: type[EngineError], words: str
) -> None:
    def reply(request: Request) -> Reply:
        return [raw(b"{}", status=status if request.is_control else "400 Bad Request")]

    with HostileEngine(reply) as engine, pytest.raises(error, match=words):
        ask(Server("vllm", engine.url, model="hostile", max_retries=0), good_and_bad(set(), 20))


def test_a_batch_endpoint_that_goes_while_the_rows_to_blame_are_looked_for() -> None:
    """Its pieces are what all others wait for: they may not wait with them."""
    answered, is_gone = threading.Semaphore(0), threading.Event()

    def reply(request: Request) -> Iterator[bytes]:
        if is_gone.is_set() and request.path.endswith("/batch"):
            yield raw(b"{}", status="404 Not Found")
        elif 'row 4"' in json.dumps(request.json) and not is_gone.is_set():
            answered.acquire(timeout=5)
            answered.acquire(timeout=5)  # the two other requests
            is_gone.set()
            yield raw(b"{}", status="400 Bad Request")
        else:
            yield completion(request)
            answered.release()

    with HostileEngine(reply) as engine:
        caller = Engine(
            Server("s", engine.url, model="hostile", dialect="vllm", request_timeout_s=20), check_interrupts=_within(20)
        )
        asked = caller.complete_portions(
            iter([Portion(iter(good_and_bad(set(), 20)))]), SAMPLING, eager=True, ends_run=lambda _: True
        )
        assert len([each for each in asked if each is not None and not each.error]) == 20


def _within(seconds: float) -> Callable[[], None]:
    """Ends a run that goes on for so long."""
    until_s = time.monotonic() + seconds

    def check() -> None:
        assert time.monotonic() < until_s

    return check

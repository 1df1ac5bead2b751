"""What a run says of where its prompts were, and of its own time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pg_bridge.engine import Engine, Sampling, Usage
from pg_bridge.engine.records import Stages
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble
from pg_bridge.testing.speeds import EngineSpeed
from tests.hostile import HostileEngine, Reply, Request, completion, raw, well

SAMPLING = Sampling(max_tokens=8, temperature=0.0, system_prompt="")
DELAY_S = 0.5
LITTLE_S = 0.05  # a busy machine may take so much of it


def server(engine: EngineDouble, **options: object) -> Server:
    values: dict[str, object] = {"name": "vllm", "endpoint": engine.url, "model": "double", **options}
    return Server(**values)  # type: ignore[arg-type]


def run(engine: EngineDouble, count: int, **options: object) -> Usage:
    caller = Engine(server(engine, **options))
    assert len(list(caller.complete((f"{i}" for i in range(count)), SAMPLING))) == count
    return caller.usage


def test_waiting_for_the_engine_is_no_work() -> None:
    with EngineDouble(delay_s=DELAY_S) as engine:
        usage = run(engine, 1)
    assert LITTLE_S < usage.idle_s < usage.wait_s
    assert usage.unread_s < usage.flight_s / 2


def test_a_second_run_adds_to_the_first() -> None:
    with EngineDouble(delay_s=DELAY_S) as engine:
        caller = Engine(server(engine))
        for _ in range(2):
            list(caller.complete(iter(["?"]), SAMPLING))
    assert DELAY_S + LITTLE_S < caller.usage.idle_s < caller.usage.wait_s
    assert caller.usage.answered == 2
    assert caller.usage.prompt_s == pytest.approx(caller.usage.busy_s)


def test_answers_that_lay_here_are_told_from_those_that_were_waited_for() -> None:
    with EngineDouble(delay_s=LITTLE_S) as engine:
        caller = Engine(server(engine, max_in_flight=4))
        answers = caller.complete((f"{i}" for i in range(80)), SAMPLING)
        # What has not reached the engine by now does not before the next turn.
        next(answer for answer in answers if caller.usage.answered >= 20 and engine.received.in_flight)
        before_s = caller.usage.unread_s
        while engine.received.in_flight:
            time.sleep(0.001)
        time.sleep(DELAY_S)
        next(answer for answer in answers if caller.usage.unread_s > before_s)
        assert caller.usage.unread_s >= before_s + DELAY_S
        list(answers)
    assert caller.usage.unread_s <= caller.usage.flight_s


@pytest.mark.parametrize("most", [1, 4])
def test_no_more_than_may_be_are_in_flight(most: int) -> None:
    with EngineDouble(delay_s=0.02) as engine:
        usage = run(engine, 40, max_in_flight=most)
    assert 1 <= usage.prompt_s / usage.busy_s <= most + 1e-9
    assert usage.flight_s == pytest.approx(usage.prompt_s, rel=0.5)  # sending and landing take a little besides


def test_a_prompt_that_is_refused_is_not_answered() -> None:
    with EngineDouble(reject_marker="3") as engine:
        caller = Engine(server(engine))
        assert sum(each.error is not None for each in caller.complete((f"{i}" for i in range(8)), SAMPLING)) == 1
        assert 7 <= caller.usage.answered == engine.received.answered  # one may be asked besides, to see why


# -- what the engine tells


def test_stages_are_those_of_the_engine() -> None:
    speed = EngineSpeed(tokens_per_s=20_000, step_s=0.005, render_s=0.001, max_num_seqs=4, ranks=2)
    with EngineDouble(speed=speed) as engine:
        usage = run(engine, 60)
        times = [rank.times for rank in engine.engine.ranks]
    assert all(each.prompts for each in times)  # two samples of each histogram
    spent = [sum(getattr(each, name) for each in times) for name in ("queue_s", "prefill_s", "decode_s")]
    assert usage.stages == pytest.approx(tuple(spent))
    assert min(spent) > 0
    assert sum(spent) < usage.flight_s


@contextmanager
def histograms(*, lag: int = 0, others: int = 0, tells: bool = False) -> Iterator[HostileEngine]:
    """An engine whose histograms count each prompt with 1 us of each stage.

    Args:
        lag: For how many looks they stay behind at the end.
        others: Prompts that somebody else asks with each request.
        tells: Whether each answer tells the same; then a request has one prompt.
    """
    metrics = dict.fromkeys(("queue_time_ms", "time_to_first_token_ms", "generation_time_ms"), 1e-3)
    prompts, looks = 7, 0

    def reply(request: Request) -> Reply:
        nonlocal prompts, looks
        if request.path == "/v1/models":
            return [well({"data": [{"id": "m"}]})]
        if request.path == "/metrics":
            looks += 1
            told = prompts if looks > 1 + lag or looks == 1 else 7
            lines = [
                f"vllm:request_{stage}_time_seconds_{what} {value}"
                for stage in ("queue", "prefill", "decode")
                for what, value in (("sum", told / 1e6), ("count", told))
            ]
            return [raw("\n".join(lines).encode())]
        if tells and request.prompts > 1:
            return [raw(b"", status="404 Not Found")]
        prompts += request.prompts + others
        return [completion(request, metrics=metrics if tells else None)]

    with HostileEngine(reply, everything=True) as engine:
        yield engine


def told(engine: HostileEngine, count: int, **options: object) -> Stages | None:
    caller = Engine(Server("vllm", engine.url, **options))  # type: ignore[arg-type]
    assert len(list(caller.complete((f"{i}" for i in range(count)), SAMPLING))) == count
    return caller.usage.stages


@pytest.mark.parametrize("lag", [0, 3])
@pytest.mark.parametrize("in_flight", [8, 64])
def test_histograms_tell_once_they_have_counted_all_prompts(lag: int, in_flight: int) -> None:
    with histograms(lag=lag) as engine:
        assert told(engine, 40, max_in_flight=in_flight) == pytest.approx((4e-5, 4e-5, 4e-5))


def test_histograms_of_an_engine_that_others_ask_tell_nothing() -> None:
    with histograms(others=1) as engine:
        assert told(engine, 40) is None


def test_a_single_prompt_is_worth_no_look_at_them() -> None:
    with histograms() as engine:
        assert told(engine, 1) is None
        assert "/metrics" not in {request.path for request in engine.requests}


@pytest.mark.parametrize("others", [0, 1])
def test_answers_that_all_tell_are_believed_without_them(others: int) -> None:
    with histograms(tells=True, others=others) as engine:
        assert told(engine, 40) == pytest.approx((4e-5, 4e-5, 4e-5))
        assert [request.path for request in engine.requests].count("/metrics") == 1  # none at the end


def test_a_run_that_stops_early_is_not_told() -> None:
    with histograms() as engine:
        caller = Engine(Server("vllm", engine.url))
        answers = caller.complete((f"{i}" for i in range(100)), SAMPLING)
        next(answers)
        answers.close()  # type: ignore[attr-defined]  # a generator, as documented
        assert caller.usage.stages is None
        assert caller.usage.flight_s > 0

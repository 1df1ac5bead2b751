"""What an engine sends when others have a say in it, and when the engine asks for patience."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from pg_bridge.engine import Completion, Engine, Portion, Sampling
from pg_bridge.errors import EngineError
from pg_bridge.ledger.leases import Limits
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble
from tests.takers import open_running

SAMPLING = Sampling(max_tokens=64, temperature=0.0, system_prompt="Be brief.")


class Stop(Exception):  # stands for a cancelled statement
    pass


class ScriptedGate:
    """Grants at most so many at a time, and keeps books."""

    def __init__(self, grants: Callable[[int], int] = lambda wanted: wanted) -> None:
        self.grants = grants
        self.shut_until_s = 0.0
        self.told_s: list[float] = []
        self.held = self.asked = self.taken = self.requests = self.spent = self.tokens = self.left = 0

    def take(self, prompts: int, requests: int, tokens_each: int) -> tuple[int, float]:
        self.asked += 1
        granted = 0 if self.shut_s() > 0 else self.grants(prompts)
        self.held += granted
        self.taken += granted
        self.requests += -(-requests * granted // prompts)
        self.tokens += tokens_each * granted
        return granted, 0.001

    def spend(self, requests: int) -> None:
        self.spent += requests

    def give_back(self, prompts: int, tokens: int = 0) -> None:
        self.held -= prompts
        self.tokens += tokens
        assert self.held >= 0

    def slow_down(self, seconds: float) -> None:
        self.told_s.append(seconds)
        self.shut_until_s = time.monotonic() + seconds

    def shut_s(self) -> float:
        return max(0.0, self.shut_until_s - time.monotonic())

    def tend(self) -> None:
        pass

    def leave(self) -> None:
        self.left += 1
        self.held = 0


def server(engine: EngineDouble, **options: object) -> Server:
    values: dict[str, object] = {"name": "vllm", "endpoint": engine.url, "model": "double", **options}
    return Server(**values)  # type: ignore[arg-type]


def ask(engine: Engine, count: int = 20, sampling: Sampling = SAMPLING, *, eager: bool = False) -> list[Completion]:
    prompts = (f"row {i}" for i in range(count))
    return sorted(engine.complete(prompts, sampling, eager=eager), key=lambda completion: completion.index)


# -- what is granted is sent, and no more


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("most", [1, 5, 1000])
def test_no_more_is_in_flight_than_the_gate_grants(most: int, eager: bool) -> None:
    gate = ScriptedGate(lambda wanted: min(wanted, most - gate.held))
    with EngineDouble(delay_s=0.002) as engine:
        completions = ask(Engine(server(engine), gate=gate), 100, eager=eager)
        assert [completion.index for completion in completions] == list(range(100))
        assert all(completion.text for completion in completions)
        assert engine.received.peak_prompts <= most
        assert sorted(engine.received.prompts) == sorted(f"row {i}" for i in range(100))
        if most == 1:
            assert engine.received.prompts == [f"row {i}" for i in range(100)]
    assert (gate.taken, gate.held, gate.left) == (100, 0, 1)


@pytest.mark.parametrize("eager", [False, True])
def test_a_run_waits_until_it_may_send(eager: bool) -> None:
    gate = ScriptedGate(lambda wanted: wanted if gate.asked > 9 else 0)
    with EngineDouble() as engine:
        assert len(ask(Engine(server(engine), gate=gate), eager=eager)) == 20
    assert gate.taken == 20


def test_a_run_that_waits_can_be_stopped() -> None:
    gate = ScriptedGate(lambda wanted: 0)

    def check() -> None:
        if gate.asked > 3:
            raise Stop

    with EngineDouble() as engine:
        with pytest.raises(Stop):
            ask(Engine(server(engine), check_interrupts=check, gate=gate))
        assert engine.received.requests == []
    assert gate.left == 1


def test_what_is_in_flight_is_given_back_when_a_run_ends_before_its_end() -> None:
    gate = ScriptedGate()

    def check() -> None:
        if engine.received.requests:
            raise Stop

    with EngineDouble(hang=True) as engine, pytest.raises(Stop):
        ask(Engine(server(engine), check_interrupts=check, gate=gate))
    assert gate.taken > 0
    assert (gate.held, gate.left) == (0, 1)


# -- what the gate is told


@pytest.mark.parametrize("batch_endpoint", [True, False])
def test_requests_are_counted_as_they_are_sent(batch_endpoint: bool) -> None:
    gate = ScriptedGate()
    with EngineDouble(reject_marker="row 7", fail_first=2, batch_endpoint=batch_endpoint) as engine:
        caller = Engine(server(engine, requests_per_minute=10**6), gate=gate)
        ask(caller, 40)
    assert gate.requests + gate.spent == caller.usage.requests


def test_tokens_are_counted_as_they_were_used() -> None:
    gate = ScriptedGate()
    with EngineDouble() as engine:
        caller = Engine(server(engine, tokens_per_minute=10**8), gate=gate)
        ask(caller, 100)
        assert gate.tokens == (caller.usage.prompt_tokens or 0) + (caller.usage.completion_tokens or 0) > 0


# -- many runs at once


def test_runs_of_one_server_share_its_places(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def run(engine: EngineDouble) -> None:
        try:
            gate = open_running(tmp_path / "running.db").gate("vllm", Limits(12))
            assert len(ask(Engine(server(engine, max_in_flight=12), gate=gate), 60, eager=True)) == 60
        except BaseException as error:
            failures.append(error)

    with EngineDouble(delay_s=0.01) as engine:
        threads = [threading.Thread(target=run, args=[engine]) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert engine.received.answered == 360
        assert 6 <= engine.received.peak_prompts <= 12


def test_a_run_inside_another_waits_for_what_that_holds(tmp_path: Path) -> None:
    running = open_running(tmp_path / "running.db")
    limits = Limits(4)
    deadline_s = time.monotonic() + 40  # after a minute nobody counts what the outer run does not look at

    def check() -> None:
        if time.monotonic() > deadline_s:
            raise Stop

    with EngineDouble(delay_s=0.05) as engine:
        here = server(engine, max_in_flight=4)

        def portions() -> Iterator[Portion]:
            for _ in range(6):
                inner = Engine(here, check_interrupts=check, gate=running.gate("vllm", limits))
                yield Portion(iter([completion.text or "" for completion in ask(inner, 4)]), 4)

        outer = Engine(here, gate=running.gate("vllm", limits))
        answers = outer.complete_portions(portions(), SAMPLING, eager=True)
        assert sum(answer is not None for answer in answers) == 24
        assert engine.received.peak_prompts <= 4


# -- patience


@pytest.mark.some(1)
@pytest.mark.parametrize("status", [429, 503])
def test_being_told_when_to_come_again_is_no_failed_try(status: int) -> None:
    gate = ScriptedGate()
    with EngineDouble(fail_first=7, fail_status=status, retry_after_s=0.01) as engine:
        caller = Engine(server(engine, max_retries=0), gate=gate)
        assert len(ask(caller)) == 20
        assert caller.usage.retries == 7
    assert gate.told_s == [0.01] * 7


def test_a_date_tells_when_to_come_again() -> None:
    there = datetime.now(UTC) + timedelta(hours=5)  # an engine whose clock is wrong
    headers = {
        name: format_datetime(there + timedelta(seconds=s), usegmt=True)
        for name, s in (("Date", 0), ("Retry-After", 1))
    }
    gate = ScriptedGate()
    with EngineDouble(fail_first=1, fail_status=429, headers=headers) as engine:
        started_s = time.monotonic()
        assert len(ask(Engine(server(engine, max_retries=0), gate=gate), 1)) == 1
        assert time.monotonic() - started_s >= 1
    assert gate.told_s == [1.0]


@pytest.mark.parametrize("told", ["0", "-1", "soon", "", "Wed, 21 Oct 2015 07:28:00 GMT", "1e3"])
def test_what_tells_nothing_is_a_failed_try(told: str) -> None:
    failed = pytest.raises(EngineError, match="status 429 after 1 retries")
    with EngineDouble(fail_first=9, fail_status=429, headers={"Retry-After": told}) as engine, failed:
        ask(Engine(server(engine, max_retries=1)), 1)


def test_patience_has_an_end() -> None:
    with EngineDouble(fail_first=10**9, fail_status=429, retry_after_s=0.02) as engine:
        with pytest.raises(EngineError, match=r"has answered for 0\.3 s that it must be asked later") as caught:
            ask(Engine(server(engine, patience_s=0.3, max_retries=0)), 1)
        assert len(engine.received.requests) > 2
    assert "requests_per_minute" in caught.value.hint
    assert "patience_s" in caught.value.hint


def test_a_limit_that_is_used_up_slows_down_the_others() -> None:
    gate = ScriptedGate()
    with EngineDouble() as engine:
        engine.behaviour.headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "300ms"}
        ask(Engine(server(engine), gate=gate), 1)
        engine.behaviour.headers = {"x-ratelimit-remaining-tokens": "17", "x-ratelimit-reset-tokens": "6m0s"}
        told_s = time.monotonic()
        ask(Engine(server(engine), gate=gate), 1)
        assert time.monotonic() - told_s > 0.2
    assert gate.told_s == [0.3]


def test_a_run_alone_heeds_an_engine_that_asks_for_patience() -> None:
    with EngineDouble(fail_first=1, fail_status=503, retry_after_s=0.5) as engine:
        came: list[float] = []
        engine.behaviour.answer = lambda prompt: came.append(time.monotonic()) or "yes"  # type: ignore[func-returns-value]
        started_s = time.monotonic()
        ask(Engine(server(engine, max_in_flight=4)), 40, eager=True)  # one prompt a request
        late = [moment for moment in came if moment - started_s >= 0.5]
        assert len(late) >= 20  # all but those that were in flight already; else all but one are early


# -- priority


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("priority", [None, 0, -3, 10])
def test_a_priority_is_sent_where_one_is_set(api: str, priority: int | None) -> None:
    with EngineDouble() as engine:
        ask(Engine(server(engine, api=api)), 3, Sampling(64, 0.0, "", priority=priority))
        sent = [body.get("priority", "none") for body in engine.received.bodies]
    assert set(sent) == {"none" if priority is None else priority}


def test_prompts_of_one_request_have_one_priority() -> None:
    samplings = [Sampling(64, 0.0, "", priority=priority) for priority in (1, 2)]
    with EngineDouble() as engine:
        list(Engine(server(engine)).complete((f"row {i}" for i in range(8)), lambda i: samplings[i % 2], eager=True))
        assert [body["priority"] for body in engine.received.bodies] == [1, 2]
        assert [count for _, count in engine.received.requests] == [4, 4]


def test_an_engine_that_takes_no_priority_is_a_clear_error() -> None:
    with EngineDouble(refuse_fields=["priority"]) as engine:
        with pytest.raises(EngineError, match="takes no priority") as caught:
            ask(Engine(server(engine)), 40, Sampling(64, 0.0, "", priority=5))
        assert "leave the option priority out" in caught.value.hint.lower()
        assert len(engine.received.requests) <= 2  # and not one for each prompt
        assert len(ask(Engine(server(engine)), 40)) == 40


def test_a_prompt_about_priorities_that_is_refused_is_a_prompt_that_is_refused() -> None:
    with EngineDouble(reject_marker="high priority", reject_echo=True) as engine:
        caller = Engine(server(engine))
        completions = list(caller.complete(iter(["a ticket of high priority"]), Sampling(64, 0.0, "", priority=5)))
    assert completions[0].error is not None

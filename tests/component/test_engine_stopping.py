"""How a run ends before its end: nothing keeps running, nothing is left open, nobody is called any more."""

import gc
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest

from pg_bridge.engine import Engine, Portion, Sampling
from pg_bridge.engine.client import DrivenClock
from pg_bridge.engine.loop import TurnLoop
from pg_bridge.errors import PgBridgeError
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble

SAMPLING = Sampling(max_tokens=64, temperature=0.0, system_prompt="")


class Stop(Exception):  # stands for a cancelled statement
    pass


class Waiting:
    """Counts how often it is entered, and knows whether it is left."""

    entered = 0
    is_on = False

    def __enter__(self) -> None:
        assert not self.is_on
        self.entered += 1
        self.is_on = True

    def __exit__(self, *_: object) -> None:
        self.is_on = False


def server(engine: EngineDouble, **options: object) -> Server:
    values: dict[str, object] = {"name": "vllm", "endpoint": engine.url, "model": "double", **options}
    return Server(**values)  # type: ignore[arg-type]


def wait_until(done: Callable[[], bool], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def endless() -> Iterator[str]:
    i = 0
    while True:
        i += 1
        yield f"prompt {i}"


def test_an_interrupt_stops_the_run_at_once_and_aborts_what_is_in_flight() -> None:
    deadline = time.monotonic() + 0.3
    calls_after_stop = 0
    stopped = False

    def check() -> None:
        nonlocal calls_after_stop, stopped
        calls_after_stop += stopped
        if time.monotonic() > deadline:
            stopped = True
            raise Stop

    with EngineDouble(hang=True) as engine:
        with pytest.raises(Stop):
            list(Engine(server(engine), check_interrupts=check).complete(endless(), SAMPLING))
        assert time.monotonic() < deadline + 20  # without it, for ever
        assert calls_after_stop == 0
        wait_until(lambda: engine.received.aborted == len(engine.received.requests) > 0)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://localhost:9"])
def test_an_interrupt_stops_a_run_that_seeks_a_connection(endpoint: str) -> None:
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks == 5:
            raise Stop

    started = time.monotonic()
    with pytest.raises(Stop):
        list(
            Engine(Server("vllm", endpoint, "m", connect_timeout_s=60), check_interrupts=check).complete(
                endless(), SAMPLING
            )
        )
    assert time.monotonic() - started < 20


def test_interrupts_are_looked_for_while_waiting() -> None:
    looks = 0

    def check() -> None:
        nonlocal looks
        looks += len(engine.received.requests)
        if looks == 4:
            raise Stop

    with EngineDouble(hang=True) as engine, pytest.raises(Stop):  # EngineTimeout, if nobody looks
        list(Engine(server(engine, request_timeout_s=60), check_interrupts=check).complete(iter(["x"]), SAMPLING))


@pytest.mark.parametrize("answers_taken", [0, 1, 20])
def test_closing_midway_leaves_nothing(answers_taken: int) -> None:
    threads = threading.active_count()
    with EngineDouble() as engine:
        caller = Engine(server(engine))
        completions = caller.complete(endless(), SAMPLING)
        for _ in range(answers_taken):
            next(completions)
        engine.behaviour.hang = True
        started = time.monotonic()
        completions.close()  # type: ignore[attr-defined]  # a generator, as documented
        assert time.monotonic() - started < 20
        caller.close()
        caller.close()
    del completions, caller
    gc.collect()  # an open socket or a lost task would warn here, and a warning is an error
    assert threading.active_count() <= threads


def test_dropping_the_generator_is_closing_it() -> None:
    with EngineDouble(hang=True) as engine:
        checks = 0

        def check() -> None:
            nonlocal checks
            checks += 1
            if checks == 10:
                raise Stop

        completions = Engine(server(engine), check_interrupts=check).complete(endless(), SAMPLING)
        with pytest.raises(Stop):
            next(completions)
        del completions
        gc.collect()
        wait_until(lambda: engine.received.aborted == len(engine.received.requests) > 0)


def test_a_failure_leaves_nothing() -> None:
    with EngineDouble(malformed=True) as engine:
        for _ in range(3):
            with pytest.raises(Exception, match="cannot be read"):
                list(Engine(server(engine)).complete(endless(), SAMPLING))
    gc.collect()


def test_an_engine_that_takes_connections_and_reads_nothing_is_closed_quickly() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        endpoint = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        polls = 0

        def check() -> None:
            nonlocal polls
            polls += 1
            if polls == 20:
                raise Stop

        big = (f"{i}" * 2_000_000 for i in range(8))  # more than the kernel buffers
        with pytest.raises(Stop):
            list(Engine(Server("vllm", endpoint, "m"), check_interrupts=check).complete(big, SAMPLING))
    gc.collect()


def test_an_engine_may_be_used_again() -> None:
    with EngineDouble() as engine, Engine(server(engine)) as caller:
        assert len(list(caller.complete(iter("abc"), SAMPLING))) == 3
        waited_s = caller.usage.wait_s
        assert len(list(caller.complete(iter("de"), SAMPLING))) == 2
        assert caller.usage.wait_s > waited_s > 0
        assert caller.fetch("/health") == (200, "")
        assert caller.usage.requests == 2


def test_a_portion_without_a_prompt_is_told_without_waiting_for_the_engine() -> None:
    def portions() -> Iterator[Portion]:
        return iter([Portion(iter("")), Portion(iter("a")), Portion(iter("")), Portion(iter("b"))])

    with EngineDouble(hang=True) as engine:  # who waits for it meets EngineTimeout
        completions = Engine(server(engine, request_timeout_s=60)).complete_portions(portions(), SAMPLING)
        assert next(completions) is None
        assert next(completions) is None
        completions.close()
    with EngineDouble() as engine:
        completions = Engine(server(engine)).complete_portions(portions(), SAMPLING)
        assert {each.index for each in completions if each is not None} == {0, 1}


def test_an_engine_works_while_a_portion_is_made() -> None:
    """Answers of the first portion come, and its later prompts go, while the second is being made."""
    many = 100
    seen = 0

    with EngineDouble() as engine:
        caller = Engine(server(engine, max_in_flight=8))

        def portions() -> Iterator[Portion]:
            nonlocal seen
            yield Portion((f"a{i}" for i in range(many)), many)
            until = time.monotonic() + 60
            while len(engine.received.prompts) < many and time.monotonic() < until:
                caller.work()
                time.sleep(0.0005)  # the double is in this process
            seen = len(engine.received.prompts)
            yield Portion(iter("b"), 1)

        answers = [each for each in caller.complete_portions(portions(), SAMPLING, eager=True) if each is not None]
    assert seen == many
    assert sorted(each.index for each in answers) == list(range(many + 1))


def test_what_fails_while_a_portion_is_made_ends_the_making() -> None:
    with EngineDouble(api_key="secret") as engine:
        caller = Engine(server(engine))

        def portions() -> Iterator[Portion]:
            yield Portion(iter("ab"), 2, is_ahead=True)
            until = time.monotonic() + 60
            while time.monotonic() < until:
                caller.work()
            raise AssertionError("it went on")

        with pytest.raises(PgBridgeError):
            list(caller.complete_portions(portions(), SAMPLING, eager=True))


def test_the_resolver_thread_takes_no_signal() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])

    async def mask_of_the_thread() -> set[object]:
        import asyncio  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        return set(await loop.run_in_executor(None, signal.pthread_sigmask, signal.SIG_BLOCK, []))

    async def nothing() -> None:
        pass

    turns = TurnLoop(["http://localhost:1"], DrivenClock(), nullcontext())
    try:
        task = turns.start(mask_of_the_thread())
        while not task.done():
            turns.turn(0.02)
        assert {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM} <= task.result()
    finally:
        turns.close(nothing())
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_the_http_client_is_imported_by_the_first_engine_and_no_sooner() -> None:
    program = (
        "import sys, pg_bridge.engine as e, pg_bridge.options as o; assert 'aiohttp' not in sys.modules;"
        "e.Engine(o.Server('s', 'http://127.0.0.1:9')); assert 'aiohttp' not in sys.modules; print('light')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "light\n"


def test_no_thread_is_started_for_a_numeric_address() -> None:
    with EngineDouble() as engine:
        threads = threading.active_count()
        completions = Engine(server(engine)).complete(endless(), SAMPLING)
        next(completions)
        assert threading.active_count() <= threads
        completions.close()  # type: ignore[attr-defined]


def test_no_signal_handler_is_touched() -> None:
    def handlers() -> list[object]:
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]

    before = handlers()
    with EngineDouble() as engine:
        for completion in Engine(server(engine)).complete(iter("abc"), SAMPLING):
            assert completion is not None
            assert handlers() == before
    assert handlers() == before
    assert signal.set_wakeup_fd(-1) == -1


def test_only_the_wait_for_the_engine_is_told_as_one(engine: EngineDouble) -> None:
    waiting = Waiting()
    told: list[tuple[bool, int, int | None]] = []
    with Engine(Server("double", engine.url), waiting=waiting) as asking:
        asking.watch = lambda: told.append((waiting.is_on, asking.in_flight, asking.left))
        answers = asking.complete((f"prompt {i}" for i in range(300)), SAMPLING, eager=True)
        for _ in answers:
            assert not waiting.is_on  # while the consumer works
    assert waiting.entered >= 3
    assert not any(is_on for is_on, _, _ in told)
    assert max(in_flight for _, in_flight, _ in told) > 100
    assert told[-1][1:] == (0, 0)
    assert (asking.in_flight, asking.left) == (0, 0)


def test_a_wait_that_fails_is_over(engine: EngineDouble) -> None:
    waiting = Waiting()

    def stop() -> None:
        if waiting.entered > 2:
            raise Stop

    engine.behaviour.hang = True
    with (
        Engine(Server("double", engine.url), waiting=waiting, check_interrupts=stop) as asking,
        pytest.raises(Stop),
    ):
        list(asking.complete(iter(["x"]), SAMPLING))
    assert waiting.entered == 3
    assert not waiting.is_on

"""Several engines of one server: each has a run of the planned order, and goes on for another that is gone."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from pg_bridge.engine import Acquaintance, Completion, Engine, Notice, fleet, replicas, trial
from pg_bridge.engine.records import Portion
from pg_bridge.errors import (
    EngineDenied,
    EngineError,
    EngineOverloaded,
    EngineTimeout,
    EngineUnreachable,
    UnknownModel,
)
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble
from pg_bridge.testing.speeds import speed_of
from tests.component.test_engine_answers import SAMPLING, shout
from tests.hostile import HostileEngine, Reply, Request, raw

PROMPTS = [f"{f'film {i // 40}, ' * 40}its review {i}" for i in range(1600)]
NOBODY = "http://127.0.0.1:9"


def last_word(prompt: str) -> str:
    return prompt.rsplit(maxsplit=1)[-1]


def server(*urls: str, **options: object) -> Server:
    return Server("vllm", ",".join(urls), **{"model": "double", **options})  # type: ignore[arg-type]


def ask(engine: Engine, prompts: list[str] = PROMPTS, *, eager: bool = True) -> list[Completion]:
    portions = iter([Portion(iter(prompts[:200]), len(prompts[:200]), is_ahead=True), Portion(iter(prompts[200:]))])
    answers = engine.complete_portions(portions, SAMPLING, eager=eager)
    return sorted((each for each in answers if each is not None), key=lambda each: each.index)


def computed(double: EngineDouble) -> int:
    return sum(rank.cache.queried_tokens - rank.cache.hit_tokens for rank in double.engine.ranks)


def ask_doubles(stack: ExitStack, count: int, **settings: object) -> tuple[list[EngineDouble], Engine]:
    doubles = [stack.enter_context(EngineDouble(answer=last_word, **settings)) for _ in range(count)]  # type: ignore[arg-type]
    engine = stack.enter_context(Engine(server(*(double.url for double in doubles))))
    assert [each.text for each in ask(engine)] == [last_word(prompt) for prompt in PROMPTS]
    return doubles, engine


@pytest.mark.parametrize("count", [2, 4, 8])
def test_several_compute_hardly_more_than_one_and_have_about_the_same(count: int) -> None:
    with ExitStack() as stack:
        one = computed(ask_doubles(stack, 1)[0][0])
        doubles, engine = ask_doubles(stack, count)
        tokens = [computed(double) for double in doubles]
        assert sum(tokens) < 1.15 * one  # round robin: each film is computed by each engine
        assert min(tokens) > 0  # who has how much of instant answers is a race; tests/unit/test_several_in_time.py
        usage = engine.usage
        assert list(usage.engines) == [double.url for double in doubles]
        assert [each.answered for each in usage.engines.values()] == [d.received.answered for d in doubles]
        for figure in ("requests", "answered", "prompt_tokens", "cached_tokens", "completion_tokens"):
            assert getattr(usage, figure) == sum(getattr(each, figure) for each in usage.engines.values())
        assert usage.prompt_tokens is not None
        assert usage.cached_tokens is not None
        assert usage.prompt_tokens - usage.cached_tokens == sum(tokens)


def test_ranks_of_several_engines_have_runs_of_their_own() -> None:
    with ExitStack() as stack:
        speed = replace(speed_of(None), ranks=2)
        doubles = [stack.enter_context(EngineDouble(answer=last_word, speed=speed, delay_s=0.02)) for _ in range(2)]
        with Engine(server(*(double.url for double in doubles), ranks=2)) as engine:
            assert len(ask(engine)) == len(PROMPTS)
        assert min(rank.times.prompts for double in doubles for rank in double.engine.ranks) >= 10


@pytest.mark.some(1)
@pytest.mark.parametrize("eager", [True, False])
def test_one_that_is_gone_in_the_middle_hands_on_what_it_had_in_flight_and_no_more(eager: bool) -> None:
    told: list[Notice] = []
    with ExitStack() as stack:
        doubles = [EngineDouble(answer=last_word, delay_s=0.01) for _ in range(3)]
        gone = doubles[1]
        gone.behaviour.change({"hang_after": 20})  # so that it surely has something in flight
        gone.__enter__()
        for double in (doubles[0], doubles[2]):
            stack.enter_context(double)
        engine = Engine(server(*(double.url for double in doubles)), tell=told.append)
        stack.enter_context(engine)
        portions = iter([Portion(iter(PROMPTS), len(PROMPTS))])
        answers = []
        for answer in engine.complete_portions(portions, SAMPLING, eager=eager):
            if answer is not None:
                answers.append((answer.index, answer.text))
                if len(answers) == 300:
                    gone.__exit__(None, None, None)
    assert sorted(answers) == [(i, last_word(prompt)) for i, prompt in enumerate(PROMPTS)]
    asked = sum(len(double.received.prompts) for double in doubles)
    lost = len(gone.received.prompts) - engine.usage.engines[gone.url].answered
    assert 0 < lost < len(gone.received.prompts)
    assert asked == len(PROMPTS) + lost
    assert lost <= gone.received.peak_prompts
    assert all(double.received.answered for double in doubles)
    assert [notice.message for notice in told] == [
        f'server "vllm" goes on without {gone.url}: '
        'could not connect to the engine of server "vllm": connection refused'
    ]


def test_one_that_comes_back_is_asked_again() -> None:
    with ExitStack() as stack:
        stays = stack.enter_context(EngineDouble(delay_s=0.1, record=False))
        leaves = EngineDouble(record=False)
        leaves.__enter__()
        engine = stack.enter_context(Engine(server(stays.url, leaves.url, max_in_flight=8)))
        portions = iter([Portion(iter(PROMPTS * 100), 100 * len(PROMPTS))])
        returned = None
        for count, _ in enumerate(engine.complete_portions(portions, SAMPLING, eager=True)):
            if count == 50:
                leaves.__exit__(None, None, None)
                port = int(leaves.url.rpartition(":")[2])
                returned = stack.enter_context(EngineDouble(port=port, record=False))
            if returned is not None and returned.received.answered:
                break
            assert count < 100 * len(PROMPTS) - 1


def test_one_that_is_not_there_from_the_beginning_is_done_without() -> None:
    with EngineDouble(answer=shout) as double, Engine(server(NOBODY, double.url, model=None)) as engine:
        assert [each.text for each in ask(engine, ["a", "b"])] == ["A", "B"]
        assert engine.find_model().name == "double"


@pytest.mark.parametrize("status", ["500 Broken", "503 Starting", "hangs"])
def test_whose_name_the_first_does_not_tell_the_next_is_asked_for_it(
    status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "SLOW_S", 0.05)
    go_on = threading.Event()

    def reply(_: Request) -> Reply:
        if status == "hangs":
            go_on.wait(60.0)
        yield raw(b"{}", status=status)

    with HostileEngine(reply, everything=True) as first, EngineDouble() as double:
        with Engine(server(first.url, double.url, model=None, max_retries=0)) as engine:
            assert engine.find_model().name == "double"
        go_on.set()


@pytest.mark.slow
def test_who_hangs_is_waited_for_no_longer_than_where_it_is_the_only_one() -> None:
    go_on = threading.Event()

    def hang(_: Request) -> Reply:
        go_on.wait(60.0)
        yield b""

    with HostileEngine(hang, everything=True) as first:
        with Engine(server(first.url, NOBODY, model=None, request_timeout_s=0.3)) as engine:
            with pytest.raises(EngineError, match="none of the 2 engines") as failed:
                engine.find_model()
            assert f'{first.url}: the engine of server "vllm" was silent for 0.3 s' in failed.value.detail
        go_on.set()


@pytest.mark.slow
def test_where_none_is_there_the_error_names_each() -> None:
    with Engine(server(NOBODY, "http://127.0.0.1:1")) as engine:
        with pytest.raises(EngineUnreachable, match='none of the 2 engines of server "vllm"') as failed:
            ask(engine)
        assert f"{NOBODY}: could not connect" in failed.value.detail
        assert "http://127.0.0.1:1: could not connect" in failed.value.detail
    with Engine(server(NOBODY, "http://127.0.0.1:1")) as engine, pytest.raises(EngineUnreachable, match="none of"):
        engine.find_model()


def test_engines_that_have_answered_before_are_waited_for() -> None:
    known = Acquaintance()
    with ExitStack() as stack:
        doubles = [stack.enter_context(EngineDouble(answer=shout)) for _ in range(2)]
        with Engine(server(*(double.url for double in doubles)), acquaintance=known) as engine:
            ask(engine, ["a"] * 100)
        for double in doubles:
            double.behaviour.change({"fail_first": 1, "fail_status": 503, "drop_first": 8})
        with Engine(server(*(double.url for double in doubles)), acquaintance=known) as engine:
            assert len(ask(engine, ["a"] * 100)) == 100


def test_engines_that_serve_different_models_are_an_error_that_names_both() -> None:
    with EngineDouble(models=["one"]) as one, EngineDouble(models=["other"]) as other:
        with Engine(server(one.url, other.url, model=None)) as engine, pytest.raises(UnknownModel) as failed:
            ask(engine)
        assert failed.value.message == 'the engines of server "vllm" serve different models'
        assert f"{one.url} serves one" in failed.value.detail
        assert f"{other.url} serves other" in failed.value.detail
        assert not one.received.prompts + other.received.prompts


def test_one_that_hangs_is_left_out() -> None:
    with ExitStack() as stack:
        doubles = [stack.enter_context(EngineDouble(answer=last_word, hang_after=n)) for n in (5, -1)]
        urls = [double.url for double in doubles]
        engine = stack.enter_context(Engine(server(*urls, request_timeout_s=1.0)))
        assert len(ask(engine)) == len(PROMPTS)
        assert doubles[1].received.answered == len(PROMPTS) - doubles[0].received.answered


@pytest.mark.parametrize("status", [500, 503])
def test_one_that_fails_is_left_out(status: int) -> None:
    with ExitStack() as stack:
        doubles = [stack.enter_context(EngineDouble(answer=last_word)) for _ in range(3)]
        doubles[2].behaviour.change({"fail_first": 1 << 30, "fail_status": status})
        urls = [double.url for double in doubles]
        engine = stack.enter_context(Engine(server(*urls, max_retries=1, connect_timeout_s=0.5)))
        assert len(ask(engine)) == len(PROMPTS)


@pytest.mark.parametrize(("status", "kind"), [(500, EngineError), (503, EngineOverloaded)])
def test_where_all_fail_the_run_does(status: int, kind: type[EngineError]) -> None:
    with ExitStack() as stack:
        failing = [stack.enter_context(EngineDouble(fail_first=1 << 30, fail_status=status)) for _ in range(2)]
        urls = [double.url for double in failing]
        options = {"max_retries": 1, "connect_timeout_s": 0.5, "patience_s": 1.0}
        with Engine(server(*urls, **options)) as engine, pytest.raises(kind) as failed:
            ask(engine)
        assert all(url in failed.value.detail for url in urls)


def test_one_that_is_gone_while_the_row_to_blame_is_looked_for_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The row is asked of the others, who do not refuse it."""
    monkeypatch.setattr(fleet, "FIRST_RETRY_S", 1000.0)
    monkeypatch.setattr(fleet, "LONGEST_RETRY_S", 1000.0)
    refusals = iter([raw(b'{"error": {"message": "no"}}', status="400 Bad Request")])
    until_s = time.monotonic() + 60.0

    def check() -> None:
        assert time.monotonic() < until_s

    with (
        HostileEngine(lambda _: [next(refusals, b"")]) as gone,
        EngineDouble(answer=shout, models=["hostile"]) as stays,
    ):
        urls = server(gone.url, stays.url, model="hostile", connect_timeout_s=0.2)
        with Engine(urls, check_interrupts=check) as engine:
            portions = iter([Portion(iter(["a"] * 100), 100)])
            answers = engine.complete_portions(portions, SAMPLING, eager=True, ends_run=lambda _: True)
            assert [each.text for each in answers if each is not None] == ["A"] * 100
        assert len(gone.requests) > 2


def test_where_all_are_waited_for_the_user_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "NOTICE_AFTER_S", 0.1)
    told: list[Notice] = []
    urls = (NOBODY, "http://127.0.0.1:1")
    options = {"connect_timeout_s": 0.1, "patience_s": 0.8}
    with Engine(server(*urls, **options), tell=told.append) as engine, pytest.raises(EngineUnreachable):
        ask(engine)
    assert [each.message for each in told if each.message.startswith("waiting")] == [
        'waiting for the engines of server "vllm": none of the 2 answers'
    ]


def test_a_question_that_every_engine_fails_on_ends_the_run() -> None:
    def answer(prompt: str) -> str:
        if prompt == "poison":
            raise RuntimeError
        return prompt

    with ExitStack() as stack:
        urls = [stack.enter_context(EngineDouble(answer=answer)).url for _ in range(2)]
        engine = stack.enter_context(Engine(server(*urls, max_retries=0)))
        with pytest.raises(EngineError):
            ask(engine, ["poison", *PROMPTS])


def test_a_key_that_one_refuses_ends_the_run() -> None:
    with EngineDouble(answer=shout) as one, EngineDouble(api_key="secret") as other:
        with Engine(server(one.url, other.url)) as engine, pytest.raises(EngineDenied) as failed:
            ask(engine)
        assert other.url in failed.value.detail


@pytest.mark.parametrize("count", [2, 3, 6])
def test_what_every_engine_refuses_costs_a_dozen_requests(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "UNPROVEN_S", 60.0)
    with ExitStack() as stack:
        doubles = [stack.enter_context(EngineDouble(refuse_every="no such argument")) for _ in range(count)]
        engine = stack.enter_context(Engine(server(*(double.url for double in doubles))))
        with pytest.raises(EngineError, match="refuses every prompt"):
            ask(engine)
        assert sum(len(double.received.requests) for double in doubles) <= 12


@pytest.mark.some(1)
@pytest.mark.parametrize("most", [1, 7, 100])
def test_max_in_flight_is_of_all_together(most: int) -> None:
    with ExitStack() as stack:
        doubles = [stack.enter_context(EngineDouble(answer=last_word, delay_s=0.005)) for _ in range(3)]
        engine = stack.enter_context(Engine(server(*(double.url for double in doubles), max_in_flight=most)))
        assert len(ask(engine, PROMPTS[:400])) == 400
        assert sum(double.received.peak_prompts for double in doubles) >= min(most, 3)
        assert max(double.received.peak_prompts for double in doubles) <= most


def test_silence_of_all_is_a_timeout() -> None:
    with ExitStack() as stack:
        urls = [stack.enter_context(EngineDouble(hang=True)).url for _ in range(2)]
        engine = stack.enter_context(Engine(server(*urls, request_timeout_s=0.5)))
        with pytest.raises(EngineTimeout):
            ask(engine)


def test_the_key_goes_to_each_engine_and_is_in_no_error() -> None:
    with ExitStack() as stack:
        doubles = [
            stack.enter_context(EngineDouble(answer=last_word, api_key="sesame", delay_s=0.01)) for _ in range(3)
        ]
        urls = [double.url for double in doubles]
        with Engine(server(*urls, api_key="sesame")) as engine:
            assert len(ask(engine)) == len(PROMPTS)
        sent = [{each["authorization"] for each in double.received.headers} for double in doubles]
        assert sent == [{"Bearer sesame"}] * 3
    with Engine(server(*urls, api_key="sesame")) as engine, pytest.raises(EngineUnreachable) as failed:
        ask(engine)
    assert "sesame" not in f"{failed.value.message}{failed.value.detail}{failed.value.hint}"

"""What Engine.complete does when the engine fails: what it retries, whom it blames, and what it says."""

import socket
import time
from collections.abc import Iterator

import pytest

from pg_bridge.engine import Completion, Engine, Sampling
from pg_bridge.errors import (
    EngineDenied,
    EngineError,
    EngineTimeout,
    EngineUnreachable,
    PgBridgeError,
    UnknownModel,
)
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble

pytestmark = pytest.mark.usefixtures("short_pauses")

SAMPLING = Sampling(max_tokens=64, temperature=0.0, system_prompt="")
KEY = "sk-very-secret"


def server(engine: EngineDouble, **options: object) -> Server:
    values: dict[str, object] = {"name": "vllm", "endpoint": engine.url, "model": "double", **options}
    return Server(**values)  # type: ignore[arg-type]


def ask(engine: Engine, count: int = 20) -> list[Completion]:
    return ask_all(engine, [f"secret row {i}" for i in range(count)])


def ask_all(engine: Engine, prompts: list[str]) -> list[Completion]:
    completions = [each for each in engine.complete(iter(prompts), SAMPLING) if each is not None]
    return sorted(completions, key=lambda completion: completion.index)


def everything_said(error: PgBridgeError) -> str:
    return f"{error!r} {error.message} {error.detail} {error.hint} {error.__cause__!r} {error.__context__!r}"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_passing_trouble_is_retried(status: int) -> None:
    with EngineDouble(fail_first=3, fail_status=status) as engine:
        caller = Engine(server(engine))
        assert all(completion.error is None for completion in ask(caller))
        assert caller.usage.retries == 3
        assert caller.usage.requests == len(engine.received.requests)


def test_the_list_of_models_is_retried_too() -> None:
    with EngineDouble(fail_first=2) as engine:
        assert len(ask(Engine(server(engine, model=None)))) == 20
        engine.behaviour.fail_first = 100
        with pytest.raises(EngineError, match="status 503"):
            ask(Engine(server(engine, model=None, max_retries=1)))


@pytest.mark.parametrize("status", [429, 503])
def test_lasting_trouble_ends_the_run(status: int) -> None:
    with EngineDouble(fail_first=1000, fail_status=status) as engine:
        with pytest.raises(EngineError, match=rf"status {status} after 1 retries") as caught:
            ask(Engine(server(engine, max_retries=1)))
        assert "secret" not in everything_said(caught.value)
        assert len(engine.received.requests) <= 2 * 3


def test_no_retries_where_none_are_allowed() -> None:
    with EngineDouble(fail_first=1) as engine, pytest.raises(EngineError, match=r"status 503$"):
        ask(Engine(server(engine, max_retries=0)), count=1)


def test_retry_after_is_honoured() -> None:
    with EngineDouble(fail_first=1, fail_status=429, retry_after_s=1.5) as engine:
        started = time.monotonic()
        ask(Engine(server(engine, request_timeout_s=1.2)), count=1)  # a pause that was asked for is no silence
        assert time.monotonic() - started >= 1.5


def test_dropped_connections_are_made_again() -> None:
    with EngineDouble(drop_first=3) as engine:
        caller = Engine(server(engine))
        assert len(ask(caller)) == 20
        assert caller.usage.retries == 3


def test_a_request_that_is_always_dropped_ends_the_run() -> None:
    with EngineDouble(drop_first=1000) as engine, pytest.raises(EngineUnreachable, match="closed the connection"):
        ask(Engine(server(engine, max_retries=1)))


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(EngineUnreachable, match="connection refused") as caught:
            ask(Engine(Server("vllm", endpoint, connect_timeout_s=0.4, api_key=KEY)))
        assert 0.3 < time.monotonic() - started < 20
        assert endpoint in caught.value.detail
        assert "doctor" in caught.value.hint
        assert KEY not in everything_said(caught.value)


def test_an_engine_that_starts_late_is_awaited() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    late = EngineDouble(port=port)
    polls = 0

    def start_late() -> None:
        nonlocal polls
        polls += 1
        if polls == 15:
            late.__enter__()

    try:
        endpoint = f"http://127.0.0.1:{port}"
        caller = Engine(Server("vllm", endpoint, "double", connect_timeout_s=30), check_interrupts=start_late)
        assert len(ask(caller)) == 20
    finally:
        late.__exit__(None, None, None)


def test_a_host_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:  # as a machine's resolver says it; some take half a minute
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(EngineUnreachable, match=r"the host name is not known"):
        ask(Engine(Server("vllm", "http://no-such-host.invalid:80", connect_timeout_s=0.3)))


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:99999", "http://[", "http://"])
def test_an_endpoint_that_is_no_url(endpoint: str) -> None:
    with pytest.raises(EngineUnreachable):
        ask(Engine(Server("vllm", endpoint, connect_timeout_s=0.3)))


def test_silence_ends_the_run() -> None:
    with EngineDouble(hang=True) as engine:
        started = time.monotonic()
        with pytest.raises(EngineTimeout, match=r"silent for 0\.3 s"):
            ask(Engine(server(engine, request_timeout_s=0.3)))
        assert time.monotonic() - started < 20


def test_an_engine_that_answers_about_itself_alone_is_silent() -> None:
    with EngineDouble(hang=True) as engine:  # its figures are looked at every half second
        started = time.monotonic()
        with pytest.raises(EngineTimeout):
            caller = Engine(server(engine, request_timeout_s=1.0))
            list(caller.complete((f"{i}" for i in range(1000)), SAMPLING, eager=True))
        assert time.monotonic() - started < 10


def test_slow_answers_are_not_silence() -> None:
    with EngineDouble(delay_s=0.3) as engine:  # the run takes 1.5 s
        assert len(ask(Engine(server(engine, request_timeout_s=1.4, max_in_flight=4)))) == 20


@pytest.mark.parametrize("key", [None, "sk-wrong-key"])
def test_the_wrong_key_is_denied_and_never_shown(key: str | None) -> None:
    with EngineDouble(api_key=KEY) as engine:
        with pytest.raises(EngineDenied) as caught:
            ask(Engine(server(engine, api_key=key)))
        assert "USER MAPPING" in caught.value.hint
        assert "sk-wrong-key" not in everything_said(caught.value)
        assert len(ask(Engine(server(engine, api_key=KEY)))) == 20


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("count", [1, 20])
def test_an_unknown_model_is_named_and_so_are_the_known(api: str, count: int) -> None:
    with EngineDouble(models=("llama", "qwen")) as engine, pytest.raises(UnknownModel, match="gpt") as caught:
        ask(Engine(server(engine, model="gpt", api=api)), count)
    assert "llama, qwen" in caught.value.hint


def test_an_engine_without_models() -> None:
    with EngineDouble(models=()) as engine, pytest.raises(UnknownModel, match="serves no model"):
        ask(Engine(server(engine, model=None)))


def test_answers_that_are_not_json() -> None:
    with EngineDouble(malformed=True) as engine, pytest.raises(EngineError, match="cannot be read") as caught:
        ask(Engine(server(engine)))
    assert "html" not in everything_said(caught.value)


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_failing_prompts_fail_alone(api: str) -> None:
    bad = {0, 7, 8, 55}
    prompts = [f"{'BAD' if i in bad else 'good'} {i}" for i in range(64)]
    with EngineDouble(reject_marker="BAD", answer=lambda prompt: prompt) as engine:
        completions = ask_all(Engine(server(engine, api=api)), prompts)
    failed = {completion.index for completion in completions if completion.error is not None}
    assert failed == bad
    for completion in completions:
        if completion.index in bad:
            assert (completion.text, completion.error) == (None, "bad prompt")
        else:
            assert completion.text is not None
            assert completion.text.strip() == prompts[completion.index]
    assert len(completions) == 64


def test_a_reason_does_not_repeat_the_prompt() -> None:
    with EngineDouble(reject_marker="secret", reject_echo=True) as engine:
        completions = ask(Engine(server(engine)), count=2)
    assert [completion.error for completion in completions] == ["bad prompt: '…'"] * 2


def test_a_prompt_that_is_too_long_says_so() -> None:
    with EngineDouble(max_prompt_chars=400) as engine:
        completions = ask_all(Engine(server(engine)), ["short", "x" * 500])
    assert completions[0].error is None
    assert "maximum context length is 100 tokens" in (completions[1].error or "")


def test_trouble_in_the_prompts_own_iterator_comes_out_unchanged() -> None:
    class OwnError(Exception):
        pass

    def prompts() -> Iterator[str]:
        yield from (f"{i}" for i in range(12))
        raise OwnError("the query failed")

    with EngineDouble(hang=True) as engine:
        with pytest.raises(OwnError, match="the query failed"):
            list(Engine(server(engine)).complete(prompts(), SAMPLING))
        wait_until(lambda: engine.received.aborted == len(engine.received.requests))


def wait_until(done: object, limit_s: float = 60.0) -> None:
    assert callable(done)
    deadline = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)

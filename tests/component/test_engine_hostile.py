"""An engine that means harm: no answer of its costs more than its own run, and none shows the key."""

from __future__ import annotations

import base64
import gc
import itertools
import json
import re
import resource
import time
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pg_bridge.asking.inquiry import outcome_of
from pg_bridge.engine import Completion, Engine, Sampling
from pg_bridge.engine.checking import NOT_OF_THE_SCHEMA
from pg_bridge.engine.metrics import Counters, read_counters
from pg_bridge.engine.payload import Payload
from pg_bridge.engine.untrusted import MOST_TOKENS, hide_key, parse_jsonb, token_count
from pg_bridge.errors import EngineError, EngineTimeout, EngineUnreachable, PgBridgeError, UnknownModel
from pg_bridge.options import Call, Server
from tests.component.test_engine_faults import everything_said
from tests.hostile import HostileEngine, Reply, Request, completion, raw, well

pytestmark = pytest.mark.usefixtures("short_pauses")

KEY = "sk-Very/Secret+key=42 ü"
SAMPLING = Sampling(max_tokens=64, temperature=0.0, system_prompt="")


def server(engine: HostileEngine, **options: object) -> Server:
    values: dict[str, object] = {"max_retries": 1, "api_key": KEY, "connect_timeout_s": 2.0, **options}
    return Server("vllm", engine.url, **values)  # type: ignore[arg-type]


def ask(engine: Engine, count: int = 3, sampling: Sampling = SAMPLING) -> list[Completion]:
    prompts = [f"row {i}" for i in range(count)]
    completions = [each for each in engine.complete(iter(prompts), sampling) if each is not None]
    return sorted(completions, key=lambda each: each.index)


# -- the key

SPELT = (
    KEY,
    KEY.lower(),
    f"Bearer {KEY}",
    repr(KEY),
    json.dumps({"Authorization": f"Bearer {KEY}"}),
    json.dumps(KEY).replace("/", "\\/"),
    quote(KEY),
    quote(KEY, safe=""),
    f"http://user:{quote(KEY, safe='')}@host/",
    base64.b64encode(KEY.encode()).decode(),
    base64.urlsafe_b64encode(f"Bearer {KEY}".encode()).decode(),
    base64.b64encode(f"user:{KEY}".encode()).decode(),
    base64.b64encode(f"x{KEY}y".encode()).decode(),
)


def shows_key(said: str) -> bool:
    """Whether a text holds the key or half of it, plain or in base64."""
    found = [said]
    for coded in re.findall(r"[A-Za-z0-9+/_-]{8,}", said):
        for skipped in range(4):
            letters = coded[skipped:].replace("-", "+").replace("_", "/")
            found.append(base64.b64decode(letters[: len(letters) // 4 * 4]).decode("latin-1"))
    pieces = {KEY[i : i + 8].lower() for i in range(len(KEY) - 7)}
    return any(piece in each.lower() for each in found for piece in pieces)


@pytest.mark.parametrize("spelt", SPELT)
def test_a_refusal_that_repeats_the_key_is_shown_without_it(spelt: str) -> None:
    assert shows_key(spelt) or "%" in spelt

    refusal = well({"error": {"message": f"cannot serve {spelt} today"}}, status="400 Bad Request")

    with HostileEngine(lambda request: [completion(request) if request.is_control else refusal]) as engine:
        reasons = [each.error for each in ask(Engine(server(engine)))]
    with HostileEngine(lambda _: [refusal]) as engine, pytest.raises(EngineError, match="every prompt") as caught:
        ask(Engine(server(engine)))
    assert len(reasons) == 3
    for reason in [*reasons, caught.value.detail]:
        assert reason
        assert "today" in reason or "refused" in reason
        assert not shows_key(reason)


@pytest.mark.parametrize(
    "status",
    ["302 Found", "401 Unauthorized", "403 Forbidden", "404 Not Found", "418 Teapot", "429 Too Many", "500 Oops"],
)
@pytest.mark.parametrize("everything", [True, False])
def test_no_status_makes_a_run_show_the_key(status: str, everything: bool) -> None:
    def refuses(request: Request) -> Reply:
        yield well({"error": str(request.headers)}, status=status, headers=f"X-Echo: {quote(KEY)}\r\n")

    with HostileEngine(refuses, everything=everything) as engine, pytest.raises(PgBridgeError) as caught:
        ask(Engine(server(engine)))
    assert not shows_key(everything_said(caught.value))


def test_models_named_like_the_key_are_listed_without_it() -> None:
    def lists(_: Request) -> Reply:
        yield well({"data": [{"id": f"llama {KEY}\n\x1b[2J"}, {"id": 5}, {"id": "x" * 100_000}]}, status="200 OK")

    def refuses(request: Request) -> Reply:
        return lists(request) if "models" in request.path else iter([well({}, status="404 Not Found")])

    with HostileEngine(refuses, everything=True) as engine, pytest.raises(UnknownModel) as caught:
        ask(Engine(server(engine, model="gpt")))
    said = caught.value.hint
    assert "llama …��[2J" in said
    assert len(said) < 500
    assert not shows_key(everything_said(caught.value))


@settings(deadline=None)
@given(key=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=4, max_size=40), before=st.text(max_size=5))
def test_any_key_is_cut_out(key: str, before: str) -> None:
    known = Server("vllm", "http://engine", api_key=key)
    for spelt in (key, json.dumps(key), repr(key), quote(key), quote(key, safe="")):
        assert spelt.strip("'\"") not in hide_key(f"x {spelt} y", known)


def test_a_redirect_is_not_followed() -> None:
    def answers(request: Request) -> Reply:
        yield completion(request)

    with HostileEngine(answers) as elsewhere:

        def redirects(_: Request) -> Reply:
            yield raw(
                b"", status="307 Temporary Redirect", headers=f"Location: {elsewhere.url}/v1/chat/completions\r\n"
            )

        with HostileEngine(redirects) as engine, pytest.raises(EngineError, match="status 307"):
            ask(Engine(server(engine)))
        assert elsewhere.requests == []


def test_cookies_are_not_kept() -> None:
    def answers(request: Request) -> Reply:
        body = {"choices": [{"index": i, "message": {"content": "x"}} for i in range(request.prompts)]}
        yield well(body, headers="Set-Cookie: spy=1; Path=/\r\n")

    with HostileEngine(answers) as engine:
        with Engine(server(engine)) as caller:
            for _ in range(2):
                ask(caller)
        assert len(engine.requests) > 2
        assert not any("Cookie" in request.headers for request in engine.requests)


# -- sizes and times


@pytest.mark.parametrize("most_bytes", [1 << 16, 1 << 20, 1 << 24])
def test_an_answer_without_end_is_not_read_to_the_end(most_bytes: int) -> None:
    sent = 0

    def floods(_: Request) -> Reply:
        nonlocal sent
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
        for _piece in range(2000):
            sent += 1 << 20
            yield b" " * (1 << 20)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with HostileEngine(floods) as engine, pytest.raises(EngineError, match=f"more than {most_bytes} bytes") as caught:
        ask(Engine(server(engine, max_answer_bytes=most_bytes)), count=1)
    assert "max_answer_bytes" in caught.value.hint
    assert sent < most_bytes + (48 << 20)  # what sockets hold
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 << 10  # KiB


def test_an_answer_of_as_many_bytes_as_are_allowed_is_read() -> None:
    answer = json.dumps({"choices": [{"index": 0, "message": {"content": "x"}}]}).encode()
    with HostileEngine(lambda _: [raw(answer)]) as engine:
        assert [each.text for each in ask(Engine(server(engine, max_answer_bytes=len(answer))), count=1)] == ["x"]
        with pytest.raises(EngineError, match=f"more than {len(answer) - 1} bytes"):
            ask(Engine(server(engine, max_answer_bytes=len(answer) - 1)), count=1)


def test_a_refusal_without_end_is_a_refusal() -> None:
    def floods(request: Request) -> Reply:
        if request.is_control:
            yield completion(request)
            return
        yield b"HTTP/1.1 400 Bad Request\r\n\r\n"
        yield from itertools.repeat(b"x" * 65536, 2000)

    with HostileEngine(floods) as engine:
        assert {each.error for each in ask(Engine(server(engine)))} == {
            "the engine refused the prompt (HTTP status 400)"
        }


@pytest.mark.parametrize("path", ["/v1/models", "/metrics"])
def test_a_page_without_end_is_not_read_to_the_end(path: str) -> None:
    def floods(request: Request) -> Reply:
        if request.path == path:
            yield b"HTTP/1.1 200 OK\r\n\r\n"
            yield from itertools.repeat(b" " * (1 << 20), 200)
        elif request.path == "/v1/models":
            yield well({"data": [{"id": "m"}]})
        else:
            yield completion(request)

    with HostileEngine(floods, everything=True) as engine:
        if path == "/metrics":
            assert len(ask(Engine(server(engine)))) == 3
        else:
            with pytest.raises(EngineError, match="not a list of models"):
                ask(Engine(server(engine)))
        with pytest.raises(EngineError, match="more than"), Engine(server(engine)) as caller:
            caller.fetch(path)


def test_what_is_compressed_is_not_unpacked() -> None:
    import gzip  # noqa: PLC0415

    bomb = gzip.compress(b" " * (16 << 20))

    def packs(request: Request) -> Reply:
        assert request.headers["Accept-Encoding"] == "identity"
        yield raw(bomb, headers="Content-Encoding: gzip\r\n")

    with HostileEngine(packs) as engine, pytest.raises(EngineError, match="it is compressed") as caught:
        ask(Engine(server(engine)))
    assert "stands between" in caught.value.hint


def test_an_answer_that_drips_is_silence() -> None:
    def drips(request: Request) -> Reply:
        answer = completion(request)
        yield answer[:60]
        for byte in answer[60:]:
            time.sleep(0.05)
            yield bytes([byte])

    with HostileEngine(drips) as engine:
        started = time.monotonic()
        with pytest.raises(EngineTimeout, match="silent"):
            ask(Engine(server(engine, request_timeout_s=0.4)))
        assert time.monotonic() - started < 20


def test_an_answer_shorter_than_it_says_is_a_lost_connection() -> None:
    def lies(request: Request) -> Reply:
        yield raw(b'{"choices"', length=5000)

    with HostileEngine(lies) as engine, pytest.raises(EngineUnreachable):
        ask(Engine(server(engine)))


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\x00" * 100,
        b"HTTP/9.9 nope\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 99999,
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"x" * 100_000,
    ],
)
def test_what_is_not_http_is_a_lost_connection(reply: bytes) -> None:
    with HostileEngine(lambda _: [reply]) as engine, pytest.raises(EngineUnreachable) as caught:
        ask(Engine(server(engine)))
    assert not shows_key(everything_said(caught.value))


# -- answers

DEEP = b"[" * 200_000


@pytest.mark.parametrize(
    "body",
    [
        DEEP,
        b'{"choices": ' + DEEP,
        b'{"choices": [{"index": 0, "message": {"content": ' + b'{"a":' * 100_000,
        b"\xff\xfe\x00",
        b"\xc3\x28",
        b"null",
        b"{}",
        b'{"choices": null}',
        b'{"choices": {}}',
        b'{"choices": []}',
        b'{"choices": [null]}',
        b'{"choices": [{"index": 0}]}',
        b'{"choices": [{"index": 1, "message": {"content": "x"}}]}',
        b'{"choices": [{"index": -1, "message": {"content": "x"}}]}',
        b'{"choices": [{"index": "0", "message": {"content": "x"}}]}',
        b'{"choices": [{"index": NaN, "message": {"content": "x"}}]}',
        b'{"choices": [{"index": Infinity, "message": {"content": "x"}}]}',
        b'{"choices": [{"index": 1e400, "message": {"content": "x"}}]}',
        b'{"choices": [{"index": 0, "message": {"content": "x"}}, {"index": 0, "message": {"content": "y"}}]}',
        b'{"choices": [{"index": 0, "message": {"content": "x"}}, {"index": 9, "message": {"content": "y"}}]}',
        b'{"choices": [{"index": 0, "message": "x"}]}',
        b'{"choices": [{"index": ' + b"9" * 5000 + b', "message": {"content": "x"}}]}',
    ],
)
def test_an_answer_that_is_none_ends_the_run_in_plain_words(body: bytes) -> None:
    with HostileEngine(lambda _: [raw(body)]) as engine, pytest.raises(EngineError, match="cannot be read") as caught:
        ask(Engine(server(engine)), count=1)
    assert type(caught.value) is EngineError
    assert "content" not in everything_said(caught.value)


@pytest.mark.parametrize("text", [None, 5, ["x"], {"a": "x"}, True, "a\0b", "half \ud83d"])
def test_an_answer_that_is_no_text_fails_its_own_row(text: object) -> None:
    with HostileEngine(lambda request: [completion(request, text)]) as engine:
        found = [outcome_of(each, Call()) for each in ask(Engine(server(engine)))]
    assert len(found) == 3
    assert all(answer is None and error for answer, error in found)


@pytest.mark.parametrize(
    "tokens", [10**30, -1, 1.5, "7", None, [7], {"a": 7}, True, MOST_TOKENS + 1, float("nan"), float("inf"), -(10**30)]
)
def test_insane_numbers_of_tokens_are_not_known(tokens: object) -> None:
    usage = {"prompt_tokens": tokens, "completion_tokens": tokens, "prompt_tokens_details": {"cached_tokens": tokens}}
    with HostileEngine(lambda request: [completion(request, usage=usage)]) as engine:
        caller = Engine(server(engine))
        assert len(ask(caller)) == 3
    assert (caller.usage.prompt_tokens, caller.usage.cached_tokens, caller.usage.completion_tokens) == (None,) * 3
    assert token_count(tokens) is None


@pytest.mark.parametrize("usage", [None, 5, [], "x", {}, {"prompt_tokens_details": 5}, {"prompt_tokens": {}}])
def test_a_usage_of_another_shape_is_not_known(usage: object) -> None:
    with HostileEngine(lambda request: [completion(request, usage=usage)]) as engine:
        caller = Engine(server(engine))
        assert len(ask(caller)) == 3
    assert caller.usage.prompt_tokens is None


def test_more_cached_tokens_than_there_are_is_not_known() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 11}}
    with HostileEngine(lambda request: [completion(request, usage=usage)]) as engine:
        caller = Engine(server(engine))
        ask(caller, count=1)
    assert (caller.usage.prompt_tokens, caller.usage.cached_tokens) == (10, None)


@pytest.mark.parametrize("value", ["1e999", "1.2.3", "+", "1e", "9" * 400])
def test_metrics_that_are_no_numbers_are_none(value: str) -> None:
    page = f"vllm:prefix_cache_queries_total {value}\nvllm:prefix_cache_hits_total {value}\n"
    assert read_counters(page) == Counters()
    with HostileEngine(
        lambda request: (
            [raw(page.encode())] if "metrics" in request.path else [completion(request, data=[{"id": "m"}])]
        ),
        everything=True,
    ) as engine:
        caller = Engine(server(engine))
        assert len(ask(caller)) == 3
    assert caller.usage.cached_tokens is None


# -- JSON for jsonb


UNFIT = [
    *("NaN", "[Infinity]", '{"a": -Infinity}', r'"\u0000"', r'{"\u0000": 1}', r'"\ud800"', r'"\udc00x"', "1e99999"),
    *("-1e999999999999999999999", "1e-99999", "9" * 5000, "1." + "1" * 20000, "", "{", "'a'", "[1,]"),
    *("[" * 100_000, "[" * 5000 + "]" * 5000, '{"a":' * 5000 + "1" + "}" * 5000, "1e" + "9" * 5000),
]


@pytest.mark.parametrize("text", UNFIT, ids=lambda text: text[:12])
def test_json_that_jsonb_cannot_hold_fails_its_own_row(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the payload says in what words
        parse_jsonb(text)
    body = json.dumps({"choices": [{"index": 0, "message": {"content": text}}]}).encode()
    answers, _ = Payload("chat", "m", Sampling(9, 0.0, "", schema='{"type": "array"}')).parse(body, 1)
    assert answers == [(None, NOT_OF_THE_SCHEMA)]


@pytest.mark.parametrize(
    "text",
    ['"\\\\u0000"', "[[[]]]", '{"a": 1e308, "b": "\\ud83d\\ude00"}', '"' + "[" * 5000 + '"', "12345678901234567890"],
)
def test_json_that_jsonb_can_hold_is_left_alone(text: str) -> None:
    assert parse_jsonb(text) == json.loads(text)


# -- the page of figures


@pytest.mark.parametrize("good", [0, 1, 2])
def test_no_run_fails_because_the_connection_to_the_figures_is_lost(
    good: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Be it lost before the first prompt, while prompts wait, or when all of them are answered."""
    page = b"vllm:num_requests_running 1\nvllm:num_requests_waiting 0\n"
    page += b"vllm:prefix_cache_queries_total 1\nvllm:prefix_cache_hits_total 0\n"
    looks = itertools.count()

    def reply(request: Request) -> Reply:
        if request.path == "/metrics":
            return [raw(page) if next(looks) < good else b""]
        if not request.json:
            return [well({"data": [{"id": "hostile"}]})]
        time.sleep(0.15)
        return [completion(request, usage={"prompt_tokens": 10, "completion_tokens": 1})]

    with HostileEngine(reply, everything=True) as engine:
        caller = Engine(server(engine, max_retries=0, patience_s=0.0))
        assert len(ask(caller, 40)) == 40
        del caller
    gc.collect()
    assert not caplog.records  # "Task exception was never retrieved"


def test_figures_that_come_slowly_are_not_waited_for_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pg_bridge.engine.flight.SETTLE_WITHIN_S", 0.05)
    page = b"vllm:prefix_cache_queries_total 1\nvllm:prefix_cache_hits_total 0\n"

    def reply(request: Request) -> Reply:
        if request.path == "/metrics":
            time.sleep(0.06)
            return [raw(page)]
        if not request.json:
            return [well({"data": [{"id": "hostile"}]})]
        return [completion(request, usage={"prompt_tokens": 10, "completion_tokens": 1})]

    with HostileEngine(reply, everything=True) as engine:
        ask(Engine(server(engine)))
        assert sum(request.path == "/metrics" for request in engine.requests) == 2

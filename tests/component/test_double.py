"""The engine double is trusted by every other test: its figures and its faults are checked by hand here."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import pytest

from pg_bridge.asking.prefix_cache import characters
from pg_bridge.testing.behaviour import answer_as_demanded, default_answer
from pg_bridge.testing.double import EngineDouble
from pg_bridge.testing.speeds import SPEEDS, EngineSpeed


def call(url: str, body: object = None, timeout_s: float = 10, **headers: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 - a double of this test
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310 - as above
            text = response.read().decode()
            status = response.status
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode()
            status = error.code
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def chat(*prompts: str) -> dict[str, Any]:
    conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return {"model": "double", "messages": conversations if len(prompts) > 1 else conversations[0]}


def test_answers_depend_on_the_question_and_the_cells_alone() -> None:
    one = default_answer('Good?\n{"a": 1, "b": "x"}')
    assert one == default_answer('Good?\n{"b": "x", "a": 1}')
    others = ['Bad?\n{"a": 1, "b": "x"}', 'Good?\n{"a": "x", "b": 1}', 'Good?\n{"a": 1}', "Good?", "Good?\n{oops"]
    assert len({one, *map(default_answer, others)}) == 6


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({}, {}),
        ({"required": ["a"]}, {"a": "x"}),
        ({"type": "array"}, ["x"]),
        ({"type": ["string", "null"]}, "x"),
        (
            {
                "type": "object",
                "required": ["items", "kind", "sure"],
                "properties": {
                    "items": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["part", "count"],
                            "properties": {"part": {"type": "string"}, "count": {"type": "integer"}},
                        },
                    },
                    "kind": {"type": "string", "enum": ["only"]},
                    "sure": {"type": "boolean"},
                    "more": {"type": "string"},
                },
            },
            {"items": [{"part": "x", "count": 1}], "kind": "only", "sure": True},
        ),
    ],
)
def test_a_schema_is_answered_by_its_types(schema: dict[str, Any], answer: object) -> None:
    given = json.loads(answer_as_demanded("1 or 2?", {"json": schema}, lambda _: "x"))
    if "items" in given:
        assert given["items"][0].pop("count") in range(1, 6)
        assert isinstance(given.pop("sure"), bool)
        answer = {"items": [{"part": "x"}], "kind": "only"}
    assert given == answer


def test_a_row_that_goes_deep_has_an_answer() -> None:
    deep = "[" * 50_000 + "]" * 50_000
    assert default_answer(f'Good?\n{{"a": {deep}}}').startswith("answer ")


def test_usage_is_told_where_the_real_engine_tells_it() -> None:
    text = "x" * 100
    with EngineDouble(block_size=2) as engine:
        _, single = call(f"{engine.url}/v1/chat/completions", chat(text))
        _, again = call(f"{engine.url}/v1/chat/completions", chat(text))
        _, batch = call(f"{engine.url}/v1/chat/completions/batch", chat(text, text, text))
        prompts = {"model": "double", "prompt": [f"{text}{end}" for end in ("aaaabbbb", "ccccdddd", "")]}
        _, listed = call(f"{engine.url}/v1/completions", prompts)
    tokens = (len(f"<user>{text}\n<assistant>") + 3) // 4  # 118 characters are 30 tokens
    assert single["usage"]["prompt_tokens"] == tokens == 30
    assert single["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert again["usage"]["prompt_tokens_details"] == {"cached_tokens": 28}  # 15 blocks, the last one anew
    assert batch["usage"]["prompt_tokens"] == 90
    assert batch["usage"]["prompt_tokens_details"] is None
    assert listed["usage"]["prompt_tokens_details"] == {"cached_tokens": 24}  # those of the last prompt alone
    assert [choice["index"] for choice in batch["choices"]] == [0, 1, 2]


def test_metrics_count_everybody() -> None:
    with EngineDouble() as engine:
        engine.cache.query(characters("x" * 400))
        engine.cache.query(characters("x" * 400))
        _, page = call(f"{engine.url}/metrics")
    assert 'vllm:prefix_cache_queries_total{engine="0",model_name="double"} 200.0' in page
    assert 'vllm:prefix_cache_hits_total{engine="0",model_name="double"} 96.0' in page


def test_faults_come_and_go_while_it_runs() -> None:
    with EngineDouble() as engine:
        url = f"{engine.url}/v1/chat/completions"
        engine.behaviour.fail_first = 1
        engine.behaviour.fail_status = 429
        assert [call(url, chat("x"))[0] for _ in range(2)] == [429, 200]
        engine.behaviour.malformed = True
        assert call(url, chat("x")) == (200, "<html>not the JSON you want</html>")
        engine.behaviour.malformed = False
        engine.behaviour.drop_first = 1
        with pytest.raises(OSError, match=r"Remote end closed|reset"):
            call(url, chat("x"))
        engine.behaviour.api_key = "k"
        assert call(url, chat("x"))[0] == 401
        assert call(url, chat("x"), Authorization="Bearer k")[0] == 200
        assert call(f"{engine.url}/v1/models")[0] == 401
        engine.behaviour.api_key = None
        engine.behaviour.models = ("other",)
        assert call(url, chat("x"))[0] == 404
        assert call(f"{engine.url}/v1/models")[1]["data"] == [{"id": "other", "object": "model", "owned_by": "vllm"}]
        engine.behaviour.batch_endpoint = engine.behaviour.metrics = False
        assert call(f"{url}/batch", chat("x", "y")) == (404, {"detail": "Not Found"})
        assert call(f"{engine.url}/metrics")[0] == 404
        assert call(f"{engine.url}/health")[0] == 200


def test_it_remembers_what_it_was_asked_until_told_to_forget() -> None:
    with EngineDouble() as engine:
        call(f"{engine.url}/v1/chat/completions/batch", chat("a", "b"))
        call(f"{engine.url}/v1/chat/completions", chat("c"))
        assert engine.received.prompts == ["a", "b", "c"]
        assert engine.received.requests == [("/v1/chat/completions/batch", 2), ("/v1/chat/completions", 1)]
        assert engine.received.answered == 3
        engine.reset()
        assert engine.received.prompts == []


def test_it_can_fall_silent_after_some_answers() -> None:
    with EngineDouble(hang_after=2) as engine:
        url = f"{engine.url}/v1/chat/completions"
        assert [call(url, chat("x"))[0] for _ in range(2)] == [200, 200]
        with pytest.raises(TimeoutError):
            call(url, chat("x"), timeout_s=0.2)
        assert engine.received.answered == 2


def test_with_a_speed_one_request_waits_for_the_other() -> None:
    text = "x" * (400 - len("<user>\n<assistant>"))  # 100 tokens with what stands around it
    plain = EngineSpeed(tokens_per_s=1000, prefix_caching=False, answer_tokens=1)
    with EngineDouble(speed=plain) as engine, ThreadPoolExecutor() as pool:
        began_s = time.monotonic()
        answers = [pool.submit(call, f"{engine.url}/v1/chat/completions", chat(text)) for _ in range(3)]
        assert [answer.result()[0] for answer in answers] == [200] * 3
        ended_s = time.monotonic()
        time.sleep(0.05)
        call(f"{engine.url}/v1/chat/completions/batch", chat(text, text))
        _, told = call(f"{engine.url}/double")
    assert ended_s - began_s >= 0.3
    assert began_s <= told["began_s"] <= ended_s
    assert told["busy_s"] == pytest.approx(0.5)
    assert 0.05 <= told["idle_s"] < time.monotonic() - began_s - 0.5
    assert told["computed_tokens"] == 500


def metric(page: str, name: str) -> float:
    (value,) = [line.rpartition(" ")[2] for line in page.splitlines() if line.startswith(f"vllm:{name}{{")]
    return float(value)


def test_metrics_tell_what_runs_and_waits_and_how_long_it_did() -> None:
    slow = EngineSpeed(step_s=0.2, max_num_seqs=2, answer_tokens=2)
    with EngineDouble(speed=slow) as engine, ThreadPoolExecutor() as pool:
        answer = pool.submit(call, f"{engine.url}/v1/chat/completions/batch", chat("a", "b", "c"))
        while metric(page := call(f"{engine.url}/metrics")[1], "num_requests_running") < 2:
            assert metric(page, "num_requests_running") + metric(page, "num_requests_waiting") in {0, 3}
        assert metric(page, "num_requests_waiting") == 1
        assert answer.result()[0] == 200
        _, page = call(f"{engine.url}/metrics")
    assert metric(page, "num_requests_running") == metric(page, "num_requests_waiting") == 0
    for name in ("queue", "prefill", "decode"):
        assert metric(page, f"request_{name}_time_seconds_count") == 3
    # The first begins at once and the second with the next step; the third when the first has left.
    assert metric(page, "request_queue_time_seconds_sum") == pytest.approx(0.2 + 0.4)
    assert metric(page, "request_prefill_time_seconds_sum") == pytest.approx(3 * 0.2)
    assert metric(page, "request_decode_time_seconds_sum") == pytest.approx(3 * 0.2)


def test_what_is_aborted_leaves_the_model() -> None:
    with EngineDouble(speed=EngineSpeed(step_s=0.05, answer_tokens=1000)) as engine:
        with pytest.raises(TimeoutError):
            call(f"{engine.url}/v1/chat/completions", chat("x"), timeout_s=0.2)
        until(lambda: engine.received.aborted == 1)
        until(lambda: call(f"{engine.url}/double")[1]["running"] == 0)
        assert engine.engine.times.prompts == 0


def test_a_speed_may_be_had_while_it_runs() -> None:
    with EngineDouble() as engine:
        url = f"{engine.url}/v1/chat/completions"
        call(url, chat("x" * 400))
        queried = engine.cache.queried_tokens
        assert call(f"{engine.url}/double", {"speed": {"step_s": 0.2, "answer_tokens": 1}}) == (200, {})
        assert engine.received.prompts == []
        assert call(url, chat("x" * 400))[1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
        assert engine.cache.queried_tokens == 2 * queried  # the counters went on
        assert engine.engine.busy_s == pytest.approx(0.2)
        assert call(f"{engine.url}/double", {"speed": "l4-8b"}) == (200, {})
        assert engine.engine.speed == SPEEDS["l4-8b"]
        for wrong in ("abacus", {"step_s": -1}, {"step_s": "x"}, {"steps": 1}, 7):
            assert call(f"{engine.url}/double", {"speed": wrong})[0] == 400
        assert engine.engine.speed == SPEEDS["l4-8b"]
        assert call(f"{engine.url}/double", {"speed": None}) == (200, {})
        assert engine.engine.speed == EngineSpeed()


def test_a_connection_belongs_to_the_api_server_with_the_fewest() -> None:
    async def ask(url: str) -> None:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(session.post(url, json=chat("x")) for _ in range(6)))

    with EngineDouble(speed=EngineSpeed(step_s=0.2, render_s=0.01, answer_tokens=1, api_servers=3)) as engine:
        asyncio.run(ask(f"{engine.url}/v1/chat/completions"))
        assert [server.busy_s for server in engine.engine.servers] == pytest.approx([0.02] * 3)


def test_a_rank_may_be_named() -> None:
    with EngineDouble(speed=EngineSpeed(ranks=4)) as engine:
        url = f"{engine.url}/v1/chat/completions"
        assert call(url, chat("x" * 400), 10, **{"X-data-parallel-rank": "2"})[0] == 200
        assert [rank.cache.queried_tokens > 0 for rank in engine.engine.ranks] == [False, False, True, False]
        assert call(url, chat("x"), 10, **{"X-data-parallel-rank": "4"})[0] == 400


def test_the_double_answers_when_the_model_says() -> None:
    """Side by side: the same requests in the model's time and in real time, which is a little later."""
    speed = EngineSpeed(tokens_per_s=2000, step_s=0.02, render_s=0.01)
    texts = [f"{i} " * 30 for i in range(8)]
    with EngineDouble(speed=speed) as engine, ThreadPoolExecutor() as pool:
        url = f"{engine.url}/v1/chat/completions/batch"
        for answer in [pool.submit(call, url, chat(*texts[at : at + 4])) for at in (0, 4)]:
            assert answer.result()[0] == 200
        told = call(f"{engine.url}/double")[1]
    rendered = [f"<user>{text}\n<assistant>" for text in texts]
    assert told["render_busy_s"] == pytest.approx(8 * 0.01)
    assert told["computed_tokens"] == sum(len(characters(text)) for text in rendered) - told["hit_tokens"]
    assert told["busy_s"] == pytest.approx(told["computed_tokens"] / 2000 + told["steps"] * 0.02)


def test_what_is_refused_is_no_work() -> None:
    with EngineDouble(speed=EngineSpeed(tokens_per_s=1000), reject_marker="bad") as engine:
        assert call(f"{engine.url}/v1/chat/completions", chat("bad"))[0] == 400
        assert call(f"{engine.url}/double")[1]["began_s"] is None


def test_a_taken_port_is_an_error() -> None:
    with EngineDouble() as engine:
        port = int(engine.url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"), EngineDouble(port=port):
            pass


def test_as_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "pg_bridge.testing.double", "--port", "0", "--set", 'models=["m"]']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            name, _, url = process.stdout.readline().strip().partition("=")
            assert name == "engine"
            body = {**chat("x"), "model": "m"}
            assert call(f"{url}/v1/chat/completions", body)[0] == 200
            assert call(f"{url}/double", {"fail_first": 1, "fail_status": 500})[0] == 200
            assert call(f"{url}/v1/chat/completions", body)[0] == 500
            status, told = call(f"{url}/double", {"no_such": 1})
            assert status == 400
            assert "fail_first" in told["error"]["message"]
            assert call(f"{url}/double")[1]["requests"] == 2
            assert call(f"{url}/double", {"reset": True})[0] == 200
            assert call(f"{url}/double")[1]["requests"] == 0
        finally:
            process.terminate()
        assert process.wait(timeout=60) == 0


def test_no_double_has_the_port_of_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with EngineDouble() as gone:
        pass
    had = int(gone.url.rpartition(":")[2])
    real, ports = asyncio.base_events.BaseEventLoop.create_server, [had]

    async def once_more(loop: asyncio.BaseEventLoop, made: Any, host: str, port: int, **more: Any) -> asyncio.Server:
        return await real(loop, made, host, ports.pop() if ports else port, **more)

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "create_server", once_more)
    with EngineDouble() as engine:
        assert not ports
        assert engine.url != gone.url

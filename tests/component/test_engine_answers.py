"""What Engine.complete hands over: every answer to its prompt, in few requests, pulled no faster than wanted."""

import json
from collections.abc import Iterator

import pytest

from pg_bridge.engine import Completion, Engine, Sampling
from pg_bridge.engine.payload import Payload
from pg_bridge.options import Call, Server
from pg_bridge.testing.double import EngineDouble

SAMPLING = Sampling(max_tokens=64, temperature=0.0, system_prompt="Be brief.")


def server(engine: EngineDouble, **options: object) -> Server:
    values: dict[str, object] = {"name": "vllm", "endpoint": engine.url, "model": "double", **options}
    return Server(**values)  # type: ignore[arg-type]


def ask(server: Server, prompts: list[str], sampling: Sampling = SAMPLING) -> list[Completion]:
    with Engine(server) as engine:
        completions = [each for each in engine.complete(iter(prompts), sampling) if each is not None]
    return sorted(completions, key=lambda completion: completion.index)


def shout(prompt: str) -> str:
    return prompt.upper()


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("count", [0, 1, 2, 9, 300])
def test_each_prompt_gets_its_own_answer(api: str, count: int) -> None:
    prompts = [f"prompt {i}" for i in range(count)]
    with EngineDouble(answer=shout) as engine:
        completions = ask(server(engine, api=api), prompts)
        received = engine.received
    # The completions interface has no roles: its text is the system prompt, an empty line, the prompt, a line break.
    expected = [f"PROMPT {i}" if api == "chat" else f"BE BRIEF.\n\nPROMPT {i}\n" for i in range(count)]
    assert completions == [Completion(i, text, None) for i, text in enumerate(expected)]
    assert len(received.requests) < max(2, count / 4)


def test_no_prompts_means_no_request_at_all() -> None:
    # Port 9 of this machine has no engine: any attempt to connect would fail.
    with Engine(Server("vllm", "http://127.0.0.1:9")) as engine:
        assert list(engine.complete(iter([]), SAMPLING)) == []
        assert engine.usage.requests == 0


def test_prompts_are_sent_in_the_order_they_are_pulled() -> None:
    prompts = [f"{i:04d}" for i in range(200)]
    with EngineDouble() as engine:
        ask(server(engine, max_in_flight=4), prompts)  # one prompt a request, and few of them at a time
        assert len(engine.received.prompts) == 200
        assert all(abs(int(text) - place) < 4 for place, text in enumerate(engine.received.prompts))


def test_the_whole_text_arrives_whatever_it_holds() -> None:
    prompts = ['say "hi"\\n', "ünïcödé 🐘 ", "\t\n\r\x01\x7f", "", " ", "{}[]", "\u2028'; DROP"]
    for api in ("chat", "completions"):
        with EngineDouble(answer=lambda prompt: prompt) as engine:
            sampling = Sampling(max_tokens=1000, temperature=0.0, system_prompt="")
            completions = ask(server(engine, api=api), prompts, sampling)
        after = "" if api == "chat" else "\n"
        assert [completion.text for completion in completions] == [prompt + after for prompt in prompts]


def test_half_a_surrogate_pair_fails_its_row_alone() -> None:
    with EngineDouble(answer=shout) as engine:
        completions = ask(server(engine), ["a", "b\ud800", "c", "d"])
    assert [completion.text for completion in completions] == ["A", None, "C", "D"]
    assert "surrogate" in (completions[1].error or "")


def test_the_system_prompt_precedes_the_prompt_only_if_there_is_one() -> None:
    with EngineDouble() as engine:
        ask(server(engine), ["x"], Sampling(max_tokens=4, temperature=0.0, system_prompt="S"))
        ask(server(engine), ["x"], Sampling(max_tokens=4, temperature=0.0, system_prompt=""))
        assert engine.received.conversations == ["<system>S\n<user>x\n<assistant>", "<user>x\n<assistant>"]


def test_sampling_reaches_the_engine() -> None:
    with EngineDouble() as engine:
        ask(server(engine), ["x", "y"], Sampling(7, 0.5, "", ("no", "yes")))
        assert engine.received.bodies == [
            {
                "model": "double",
                "max_tokens": 7,
                "temperature": 0.5,
                "structured_outputs": {"choice": ["no", "yes"]},
                "chat_template_kwargs": {"enable_thinking": False, "thinking": False},
            }
        ]


def test_the_first_served_model_is_taken_where_none_is_named() -> None:
    with EngineDouble(models=("first", "second")) as engine:
        ask(server(engine, model=None), ["x"])
        assert engine.received.bodies[0]["model"] == "first"


def test_an_empty_answer_is_an_answer() -> None:
    with EngineDouble(answer=lambda _: "") as engine:
        assert ask(server(engine), ["x"]) == [Completion(0, "", None)]


def test_an_answer_cut_at_max_tokens_is_an_answer() -> None:
    with EngineDouble(answer=lambda _: "y" * 99) as engine:
        assert ask(server(engine), ["x"], Sampling(2, 0.0, "")) == [Completion(0, "y" * 8, None)]


def test_an_answer_without_text_fails_its_row() -> None:
    with EngineDouble(no_text=True) as engine:
        assert ask(server(engine), ["x"]) == [Completion(0, None, "the engine's answer holds no text")]


def test_answers_are_choices_or_errors() -> None:
    sampling = Sampling(64, 0.0, "", ("yes", "no"))
    with EngineDouble() as engine:
        texts = {completion.text for completion in ask(server(engine), [f"{i}" for i in range(40)], sampling)}
        assert texts == {"yes", "no"}
        engine.behaviour.ignore_choices = True
        completions = ask(server(engine), ["a", "b"], sampling)
        assert [completion.text for completion in completions] == [None, None]
        assert all("choices" in (completion.error or "") for completion in completions)
        engine.behaviour.answer = lambda _: " yes\n"
        assert [completion.text for completion in ask(server(engine), ["a"], sampling)] == ["yes"]


def test_without_a_batch_endpoint_each_prompt_is_a_request() -> None:
    prompts = [f"{i}" for i in range(60)]
    with EngineDouble(batch_endpoint=False, answer=shout) as engine:
        with Engine(server(engine)) as caller:
            assert len(list(caller.complete(iter(prompts), SAMPLING))) == 60
            list(caller.complete(iter(prompts), SAMPLING))
        assert sorted(engine.received.prompts, key=int) == sorted(prompts * 2, key=int)
        assert {path for path, _ in engine.received.requests} == {"/v1/chat/completions"}


def test_a_consumer_who_stops_early_has_asked_little() -> None:
    pulled = 0

    def endless() -> Iterator[str]:
        nonlocal pulled
        while True:
            pulled += 1
            yield f"prompt {pulled}"

    with EngineDouble() as engine:
        completions = Engine(server(engine)).complete(endless(), SAMPLING)
        assert pulled == 0
        for _ in range(10):
            next(completions)
        completions.close()  # type: ignore[attr-defined]  # a generator, as documented
        assert 10 <= pulled <= 16 + 3 * 10


def test_no_more_than_max_in_flight_prompts_await_an_answer() -> None:
    pulled = handed = 0
    most = 0

    def prompts() -> Iterator[str]:
        nonlocal pulled, most
        for i in range(200):
            pulled += 1
            most = max(most, pulled - handed)
            yield f"{i}"

    with EngineDouble(delay_s=0.005) as engine:
        for _ in Engine(server(engine, max_in_flight=20)).complete(prompts(), SAMPLING):
            handed += 1
    assert handed == 200
    assert most <= 2 * 20  # answers that have landed and not been taken are not in flight


def test_a_consumer_may_pause_longer_than_any_timeout() -> None:
    import time  # noqa: PLC0415

    with EngineDouble() as engine, Engine(server(engine, request_timeout_s=1, connect_timeout_s=1)) as caller:
        completions = caller.complete((f"{i}" for i in range(100)), SAMPLING)
        next(completions)
        time.sleep(1.2)
        assert len(list(completions)) == 99


NUMBER = Call(kind="number").pattern


@pytest.mark.parametrize(
    ("sampling", "demanded", "answer", "text"),
    [
        (Sampling(1, 0.0, "", pattern=NUMBER), {"regex": NUMBER}, " 4.5\n", "4.5"),
        (Sampling(1, 0.0, "", pattern=NUMBER), {"regex": NUMBER}, "-17", "-17"),
        (Sampling(1, 0.0, "", pattern=NUMBER), {"regex": NUMBER}, "four", None),
        (Sampling(1, 0.0, "", pattern=NUMBER), {"regex": NUMBER}, "4.", None),
        (Sampling(1, 0.0, "", schema='{"type": "object"}'), {"json": {"type": "object"}}, '{"a": 1}', '{"a": 1}'),
        (Sampling(1, 0.0, "", schema='{"type": "object"}'), {"json": {"type": "object"}}, "[1]", None),
        (Sampling(1, 0.0, "", schema='{"type": "object"}'), {"json": {"type": "object"}}, '{"a": ', None),
        (Sampling(1, 0.0, "", schema='{"type": "array"}'), {"json": {"type": "array"}}, "[1]", "[1]"),
        (
            Sampling(1, 0.0, "", schema='{"type": "object", "required": ["a"]}'),
            {"json": {"type": "object", "required": ["a"]}},
            '{"b": 1}',
            None,
        ),
    ],
)
def test_an_answer_has_the_form_that_was_demanded(
    sampling: Sampling, demanded: dict[str, object], answer: str, text: str | None
) -> None:
    payload = Payload("chat", "m", sampling)
    assert json.loads(payload.body(["x"]))["structured_outputs"] == demanded
    body = json.dumps({"choices": [{"index": 0, "message": {"content": answer}}]}).encode()
    ((found, error),), _ = payload.parse(body, 1)
    assert found == text
    assert (error is None) == (text is not None)

"""Anthropic's own interface, against a double that answers as its documents say. No real one was tried."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pg_bridge.engine import Acquaintance, Completion, Engine, Sampling, Usage
from pg_bridge.engine.dialects import DIALECTS, dialect_of_server
from pg_bridge.engine.further import further
from pg_bridge.engine.health import examine
from pg_bridge.engine.messages import LEAST_CHARS, payload_of
from pg_bridge.engine.payload import CUT_OFF, DECLINED, NOT_RUN, PAUSED
from pg_bridge.errors import EngineDenied, EngineError, EngineOverloaded, UnknownModel
from pg_bridge.options import Server
from pg_bridge.options.further import read_request_options
from pg_bridge.options.values import PATTERNS
from pg_bridge.testing.messages import MessagesDouble

KEY = "sk-ant-of-a-test"
FREE = Sampling(16, 0.5, "Be brief.")
LABEL = Sampling(16, 0.0, "", choices=("yes", "no"))
NUMBER = Sampling(16, 0.0, "", pattern=PATTERNS["integer"])
OBJECT = Sampling(64, 0.0, "", schema='{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}')
PROMPTS = [f"row {i}" for i in range(20)]


def server(engine: MessagesDouble, **options: Any) -> Server:
    return Server("s", engine.url, **{"dialect": "anthropic", "model": "double", **options})


def ask(
    known: Server, sampling: Sampling, prompts: list[str] = PROMPTS, of: Acquaintance | None = None
) -> tuple[list[Completion], Usage]:
    engine = Engine(known, acquaintance=of)
    found = sorted(engine.complete(iter(prompts), sampling, eager=True), key=lambda each: each.index)
    return found, engine.usage


def test_it_is_asked_as_its_documents_say() -> None:
    with MessagesDouble(api_key=KEY, answer=lambda prompt: f"about {prompt}") as engine:
        found, usage = ask(server(engine, api_key=KEY), FREE)
        assert [each.text for each in found] == [f"about {prompt}" for prompt in PROMPTS]
        assert engine.received.bodies[0] == {
            "model": "double",
            "max_tokens": 16,
            "temperature": 0.5,
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "row 0"}]}],
        }
        for headers in engine.received.headers:
            assert (headers["x-api-key"], headers["anthropic-version"]) == (KEY, "2023-06-01")
            assert "authorization" not in headers
    assert usage.requests == len(PROMPTS)
    assert usage.cached_tokens == 0
    assert usage.completion_tokens


def test_its_host_is_known() -> None:
    assert dialect_of_server(Server("s", "https://api.anthropic.com")) is DIALECTS["anthropic"]


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("takes_formats", [True, False])
@pytest.mark.parametrize(("sampling", "right"), [(LABEL, "no"), (NUMBER, "7"), (OBJECT, '{"a": "x"}')])
def test_a_form_is_a_schema_or_a_tool(sampling: Sampling, right: str, takes_formats: bool, api: str) -> None:
    with MessagesDouble(takes_formats=takes_formats, answer=lambda _: right) as engine:
        found, _ = ask(server(engine, api=api), sampling)
        assert {each.text for each in found} == {right}
        assert ("tools" in engine.received.bodies[-1]) == (not takes_formats)


def test_who_takes_neither_is_asked_in_words() -> None:
    refused = ("output_config", "tools", "tool_choice")
    with MessagesDouble(refuse_fields=refused, answer=lambda _: "No.") as engine:
        found, _ = ask(server(engine), LABEL)
        assert {each.text for each in found} == {"no"}
        assert '"yes", "no"' in engine.received.conversations[-1]


def test_an_answer_that_is_no_use_of_the_tool_is_asked_for_once_more() -> None:
    with MessagesDouble(takes_formats=False, ignore_choices=True, answer=lambda _: "perhaps") as engine:
        found, _ = ask(server(engine), LABEL)
        assert {each.text for each in found} == {None}
        assert engine.received.answered == 2 * len(PROMPTS)


@pytest.mark.parametrize("takes_adaptive", [True, False])
@pytest.mark.parametrize("takes_formats", [True, False])
@pytest.mark.parametrize("most", [None, 100, 5000])
def test_thoughts_have_their_budget_and_no_temperature(
    takes_adaptive: bool, takes_formats: bool, most: int | None
) -> None:
    """A tool cannot be forced on a model that thinks: it is asked in words, then."""
    sampling = Sampling(16, 0.0, "", choices=("yes", "no"), reasoning="high", max_reasoning_tokens=most)
    with MessagesDouble(takes_adaptive=takes_adaptive, takes_formats=takes_formats, answer=lambda _: "no") as engine:
        found, _ = ask(server(engine), sampling)
        assert {each.text for each in found} == {"no"}
        body = engine.received.bodies[-1]
        assert "temperature" not in body
        if takes_adaptive and takes_formats:
            assert body["output_config"].keys() == {"effort", "format"}
            assert body["thinking"] == {"type": "adaptive"}
        else:
            assert 1024 <= body["thinking"]["budget_tokens"] < body["max_tokens"]


def test_a_model_that_knows_no_temperature_is_sent_none() -> None:
    known = Acquaintance()
    with MessagesDouble(wants_max_completion_tokens=True, answer=lambda _: "no") as engine:
        assert {each.text for each in ask(server(engine), LABEL, of=known)[0]} == {"no"}
        assert engine.received.bodies[-1]["max_tokens"] == 16
        assert len(engine.received.requests) - engine.received.answered <= 4


def test_what_prompts_share_is_marked_and_found_again() -> None:
    group = ["A" * 6000, "B" * 6000]
    prompts = [f"Question? {group[i // 20]} row {i} of some" for i in range(40)]
    with MessagesDouble() as engine:
        _, usage = ask(server(engine, max_in_flight=1), FREE, prompts)
        marks = [body["messages"][0]["content"] for body in engine.received.bodies]
    assert ["".join(block["text"] for block in blocks) for blocks in marks] == prompts
    marked = [blocks[0]["text"] for blocks in marks if len(blocks) == 2]
    assert len(marked) == 38
    assert len(set(marked)) == 2
    assert usage.prompt_tokens is not None
    assert usage.cached_tokens is not None
    assert usage.cached_tokens > 0.85 * usage.prompt_tokens


def test_a_long_system_prompt_is_marked_and_a_short_beginning_is_not() -> None:
    with MessagesDouble() as engine:
        ask(server(engine), Sampling(4, 0.0, "Be long. " * (LEAST_CHARS // 8)))
        ask(server(engine), Sampling(4, 0.0, "Be brief."))
        bodies = engine.received.bodies
    assert all("cache_control" in body["system"][0] for body in bodies[:20])
    assert "cache_control" not in json.dumps(bodies[20:])


@pytest.mark.parametrize(
    ("given", "takes_formats"),
    [
        ('{"output_config": {"format": null}}', True),
        ('{"output_config": 7}', True),
        ('{"tools": [], "tool_choice": {"type": "none"}}', False),
    ],
)
def test_further_options_are_no_way_around_the_form(given: str, takes_formats: bool) -> None:
    with MessagesDouble(answer=lambda _: "no", takes_formats=takes_formats) as engine:
        found, _ = ask(server(engine, request_options=read_request_options(given)), LABEL)
        assert {(each.text, each.error) for each in found} == {("no", None)}
        form = engine.received.bodies[-1]["output_config" if takes_formats else "tool_choice"]
        assert form["format" if takes_formats else "name"]


SEARCH = '{"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]}'
OWN = '{"tools": [{"name": "stock_of", "input_schema": {"type": "object"}}]}'


@pytest.mark.parametrize(("sampling", "right"), [(FREE, "Heat, of 1995"), (LABEL, "yes"), (OBJECT, '{"a": "b"}')])
def test_the_provider_s_own_tools_are_asked_for_and_their_blocks_are_left_out(sampling: Sampling, right: str) -> None:
    said = '{"answer": "yes"}' if sampling is LABEL else right
    with MessagesDouble(answer=lambda _: said) as engine:
        found, _ = ask(server(engine, request_options=read_request_options(SEARCH)), sampling)
        assert {(each.text, each.error) for each in found} == {(right, None)}
        assert engine.received.bodies[-1]["tools"][0]["type"] == "web_search_20250305"


def test_what_nobody_runs_and_what_is_paused_is_no_answer() -> None:
    with MessagesDouble(answer=lambda _: '{"film": "Heat"}') as engine:
        found, _ = ask(server(engine, request_options=read_request_options(OWN)), FREE)
        assert {(each.text, each.error) for each in found} == {(None, NOT_RUN)}
        engine.behaviour.finish_reason = "pause_turn"
        found, _ = ask(server(engine, request_options=read_request_options(SEARCH)), FREE)
        assert {(each.text, each.error) for each in found} == {(None, PAUSED)}


def test_an_empty_rest_is_never_sent() -> None:
    """A block without text is refused there."""
    shared = "s" * (2 * LEAST_CHARS)
    for prompts in ([shared, shared], [shared + "a", shared], [shared + "a", shared + "b", shared, shared + "c"]):
        payload = payload_of(
            "chat", "m", FREE, DIALECTS["anthropic"], further(Server("s", "http://e"), FREE, DIALECTS["anthropic"])
        )
        for prompt in prompts:
            blocks = json.loads(payload.body([prompt]))["messages"][0]["content"]
            assert "".join(block["text"] for block in blocks) == prompt
            assert all(block["text"] for block in blocks)


@pytest.mark.parametrize(
    ("system", "shared", "rests"),
    [("", "s" * 2 * LEAST_CHARS, [" a", " \n", " b", "\t", " c"]), ("s" * LEAST_CHARS, "\n\n", ["a", "b", "c"])],
)
def test_a_block_of_white_space_is_never_sent(system: str, shared: str, rests: list[str]) -> None:
    """It is refused there, too, and with it the row."""
    payload = payload_of("chat", "m", Sampling(4, 0.0, system), DIALECTS["anthropic"])
    for prompt in [shared + rest for rest in rests]:
        blocks = json.loads(payload.body([prompt]))["messages"][0]["content"]
        assert "".join(block["text"] for block in blocks) == prompt
        assert all(block["text"].strip() for block in blocks)


def test_ends_are_told_as_elsewhere() -> None:
    with MessagesDouble(answer=lambda _: '{"a": "' + "x" * 400 + '"}') as engine:
        assert {each.error for each in ask(server(engine), OBJECT)[0]} == {CUT_OFF}
        engine.behaviour.refusal = "I would rather not."
        assert {each.error for each in ask(server(engine), FREE)[0]} == {DECLINED}


def test_errors_are_told_as_elsewhere() -> None:
    with MessagesDouble(api_key=KEY) as engine:
        with pytest.raises(EngineDenied) as caught:
            ask(server(engine, api_key="sk-wrong"), FREE)
        assert "sk-wrong" not in str(caught.value)
        with pytest.raises(UnknownModel):
            ask(server(engine, api_key=KEY, model="nope"), FREE)
        engine.behaviour.change({"fail_first": 99, "fail_status": 529})
        with pytest.raises(EngineOverloaded):
            ask(server(engine, api_key=KEY, patience_s=0.1, max_retries=0), FREE)
        engine.behaviour.change({"fail_first": 0, "refuse_every": "prompt is too long"})
        with pytest.raises(EngineError, match="refuses every prompt"):
            ask(server(engine, api_key=KEY), FREE)


def test_health_tells_how_it_is_held() -> None:
    with MessagesDouble(api_key=KEY) as engine:
        known = server(engine, api_key=KEY)
        found = {each.item: each for each in examine(known, lambda met: Engine(known, acquaintance=met))}
    assert found["choices"] == ("choices", "held", "by output_config")
    assert found["dialect"].state == "anthropic"
    assert found["batches"].state == "no"
    assert found["confidence"].state == "none"
    assert found["cached tokens"].state == "told"

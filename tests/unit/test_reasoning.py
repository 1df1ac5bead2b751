"""Whether a model reasons, how engines are told, and that its thoughts are never an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pg_bridge.engine.dialects import DIALECTS, UNHEARD, UNTOLD, VLLM
from pg_bridge.engine.further import THOUGHT_TOKENS, Further, further
from pg_bridge.engine.payload import CUT_IN_THOUGHTS, CUT_OFF, ONLY_THOUGHTS, Payload
from pg_bridge.engine.records import Sampling
from pg_bridge.engine.refusal import Refused
from pg_bridge.engine.thoughts import without_thoughts
from pg_bridge.errors import OptionError
from pg_bridge.options import Reasoning, Server

SERVER = Server("s", "http://engine")
OFF = {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}


def sampling(reasoning: Reasoning | None = None, **more: Any) -> Sampling:
    return Sampling(8, 0.0, "", reasoning=reasoning, **more)


@pytest.mark.parametrize(
    ("dialect", "model", "unsaid", "off", "low"),
    [
        ("vllm", "qwen", OFF, OFF, {"reasoning_effort": "low"}),
        ("sglang", "qwen", OFF, OFF, {"reasoning_effort": "low"}),
        ("llama.cpp", "qwen", OFF, OFF, {"reasoning_effort": "low"}),
        (
            "vllm",
            "openai/gpt-oss-20b",
            {"reasoning_effort": "low"},
            {"reasoning_effort": "low"},
            {"reasoning_effort": "low"},
        ),
        ("openai", "gpt-4o-mini", {}, {"reasoning_effort": "none"}, {"reasoning_effort": "low"}),
        (
            "openai",
            "gpt-5-mini",
            {"reasoning_effort": "none"},
            {"reasoning_effort": "none"},
            {"reasoning_effort": "low"},
        ),
        ("openai-compatible", "gpt-5", {}, {"reasoning_effort": "none"}, {"reasoning_effort": "low"}),
    ],
)
def test_each_engine_is_told_in_its_own_words(
    dialect: str, model: str, unsaid: dict[str, Any], off: dict[str, Any], low: dict[str, Any]
) -> None:
    def said(reasoning: Reasoning | None) -> dict[str, Any]:
        return dict(further(SERVER, sampling(reasoning), DIALECTS[dialect], model).arguments)

    assert said(None) == unsaid
    assert said("off") == off
    assert said("low").items() >= low.items()
    assert not said("model").keys() & {"reasoning_effort", "chat_template_kwargs"}


def test_who_says_nothing_of_itself_is_told_nothing_unasked() -> None:
    assert further(SERVER, sampling(), UNTOLD, "m").arguments == {}
    assert further(SERVER, sampling("off"), UNTOLD, "m").arguments == {"reasoning_effort": "none"}
    assert further(SERVER, sampling(), UNHEARD, "m").arguments == {}
    assert further(SERVER, sampling("off"), UNHEARD, "m").arguments == OFF


def test_the_server_says_it_for_calls_that_do_not() -> None:
    server = Server("s", "http://engine", reasoning="high", max_reasoning_tokens=7)
    assert further(server, sampling(), VLLM, "m").arguments["reasoning_effort"] == "high"
    assert further(server, sampling(), VLLM, "m").arguments["thinking_token_budget"] == 7
    assert further(server, sampling("off"), VLLM, "m").arguments == {**OFF, "thinking_token_budget": 7}
    assert further(server, sampling(max_reasoning_tokens=9), VLLM, "m").thought_tokens == 9


@pytest.mark.parametrize(
    ("reasoning", "most", "tokens"),
    [(None, None, 8), ("off", None, 8), ("off", 5, 13), ("model", None, 8 + THOUGHT_TOKENS), ("low", 100, 108)],
)
@pytest.mark.parametrize(("dialect", "name"), [("vllm", "max_tokens"), ("openai", "max_completion_tokens")])
def test_thoughts_have_a_limit_of_their_own(
    reasoning: Reasoning | None, most: int | None, tokens: int, dialect: str, name: str
) -> None:
    asked = sampling(reasoning, max_reasoning_tokens=most)
    body = body_of(asked, DIALECTS[dialect])
    assert body[name] == tokens
    assert body.get("thinking_token_budget") == (tokens - 8 or None if dialect == "vllm" else None)


def body_of(asked: Sampling, dialect: Any = VLLM, server: Server = SERVER) -> dict[str, Any]:
    besides = further(server, asked, dialect, "m")
    found: dict[str, Any] = json.loads(Payload("chat", "m", asked, dialect, besides).body(["?"]))
    return found


def test_further_keys_go_over_what_is_said() -> None:
    server = Server("s", "http://engine", request_options='{"seed": 1, "top_k": 3}')
    given = {"seed": 2, "chat_template_kwargs": {"thinking": True, "x": 1}}
    body = body_of(sampling(request_options=json.dumps(given)), server=server)
    assert (body["seed"], body["top_k"]) == (2, 3)
    assert body["chat_template_kwargs"] == {"enable_thinking": False, "thinking": True, "x": 1}
    given = {"reasoning_effort": "minimal"}
    assert body_of(sampling("low", request_options=json.dumps(given)))["reasoning_effort"] == "minimal"


def test_what_is_refused_gives_way_to_the_next_and_at_last_to_nothing() -> None:
    untaken: set[str] = set()
    efforts = []
    for _ in range(5):
        besides = further(SERVER, sampling("off"), DIALECTS["openai"], "gpt-4o", untaken)
        efforts.append(besides.arguments.get("reasoning_effort"))
        untaken |= besides.refused_by(refused("Unsupported value: reasoning_effort"), ["?"])
    assert efforts == ["none", "minimal", "low", None, None]
    with pytest.raises(OptionError, match="does not take reasoning 'high'") as caught:
        besides = further(SERVER, sampling("high"), DIALECTS["openai"], "gpt-4o", untaken)
        untaken |= besides.refused_by(refused("reasoning_effort"), ["?"])
        further(SERVER, sampling("high"), DIALECTS["openai"], "gpt-4o", untaken)
    assert "'model'" in caught.value.hint
    assert further(SERVER, sampling("off"), DIALECTS["openai"], "gpt-5", untaken).arguments  # of another model


def refused(said: str) -> Refused:
    return Refused(400, json.dumps({"error": {"message": said}}).encode())


def test_a_refusal_of_something_else_changes_nothing() -> None:
    besides = further(SERVER, sampling(), VLLM, "m")
    assert besides.refused_by(refused("maximum context length"), ["?"]) == set()
    assert besides.refused_by(refused("chat_template is not supported"), ["?"])
    assert besides.refused_by(refused("bad: chat_template_kwargs"), ["what are chat_template_kwargs?"]) == set()
    assert Further().refused_by(refused("chat_template_kwargs"), ["?"]) == set()


def test_completions_have_no_template_to_say_it_by() -> None:
    server = Server("s", "http://engine", api="completions")
    for reasoning in (None, "off", "model"):
        assert "chat_template_kwargs" not in further(server, sampling(reasoning), VLLM, "m").arguments
    with pytest.raises(OptionError, match="no chat template"):
        further(server, sampling("low"), VLLM, "m")


@pytest.mark.parametrize("name", DIALECTS)
def test_roles_are_kept_apart_or_nothing_is_asked(name: str) -> None:
    server = Server("s", "http://engine", cache_salt="role", salt="of this role")
    if name in {"vllm", "sglang"}:
        assert further(server, sampling(), DIALECTS[name]).arguments["cache_salt"] == "of this role"
        nobodys = Server("s", "http://engine", cache_salt="role")
        assert len(further(nobodys, sampling(), DIALECTS[name]).arguments["cache_salt"]) == 32
    else:
        with pytest.raises(OptionError, match="cache_salt, which its engine does not take"):
            further(server, sampling(), DIALECTS[name])


# -- what is read


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("yes", "yes"),
        ("<think>I wonder.</think>yes", "yes"),
        ("\n <think>\nI wonder.\n</think>\n\nyes\n", "yes\n"),
        ("<think>\n\n</think>\n\nyes", "yes"),
        ("I wonder.\n</think>\n\nyes", "yes"),
        ("</think>yes", "yes"),
        ("I wonder.</think><think>Again.</think>yes", "yes"),
        ("<think>a</think><think>b</think>yes", "yes"),
        ("[THINK]I wonder.[/THINK]yes", "yes"),
        ("<seed:think>a</seed:think>yes", "yes"),
        ("<think>I wonder", None),
        ("<think>", None),
        ("<think>a</think><think>b", None),
        ("<think>I wonder.</think>", ""),
        ("He said <think> and </think>.", "He said <think> and </think>."),
        ("I think so", "I think so"),
        ("", ""),
    ],
)
def test_what_is_left_without_thoughts(text: str, answer: str | None) -> None:
    assert without_thoughts(text)[0] == answer


def read(message: dict[str, Any], asked: Sampling, end: str = "stop", **more: Any) -> tuple[str | None, str | None]:
    return payload_of(asked, **more).parse(reply(message, end), 1)[0][0]


def payload_of(asked: Sampling, dialect: Any = VLLM) -> Payload:
    return Payload("chat", "m", asked, dialect, further(SERVER, asked, dialect, "m"))


def reply(message: dict[str, Any], end: str, thoughts: int | None = None) -> bytes:
    details = None if thoughts is None else {"reasoning_tokens": thoughts}
    usage = {"prompt_tokens": 9, "completion_tokens": 8, "completion_tokens_details": details}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": end}], "usage": usage}).encode()


TYPED = {
    "choices": (sampling(choices=("yes", "no")), "yes"),
    "pattern": (sampling(pattern="[0-9]+"), "42"),
    "schema": (sampling(schema='{"type": "object", "required": ["a"]}'), '{"a": 1}'),
    "free": (sampling(), "It is so."),
}


@pytest.mark.parametrize("form", TYPED)
@pytest.mark.parametrize("name", DIALECTS)
def test_thoughts_are_no_part_of_an_answer_of_any_form(form: str, name: str) -> None:
    asked, answer = TYPED[form]
    for thoughts in ('<think>yes 42 {"a": 2}</think>\n', "no yes 41</think>", "<think></think>\n\n"):
        assert read({"content": thoughts + answer}, asked, dialect=DIALECTS[name]) == (answer, None)
    for beside in ("reasoning", "reasoning_content"):
        assert read({"content": answer, beside: "no"}, asked, dialect=DIALECTS[name]) == (answer, None)


@pytest.mark.parametrize("form", TYPED)
@pytest.mark.parametrize("message", [{"content": None, "reasoning": "no"}, {"content": "", "reasoning_content": "no"}])
def test_nothing_but_thoughts_is_an_error(form: str, message: dict[str, Any]) -> None:
    asked, _ = TYPED[form]
    assert read(message, asked) == (None, ONLY_THOUGHTS)
    assert read(message, asked, "length") == (None, CUT_IN_THOUGHTS)
    for aloud in ("<think>Well", "<think>yes</think>"):
        assert read({"content": aloud}, asked) == (None, ONLY_THOUGHTS)
        assert read({"content": aloud}, asked, "length") == (None, CUT_IN_THOUGHTS)
    assert "max_reasoning_tokens" in CUT_IN_THOUGHTS.hint
    assert "reasoning" in ONLY_THOUGHTS.hint


def test_thoughts_that_are_not_shown_eat_an_answer_too() -> None:
    payload = payload_of(sampling(), DIALECTS["openai"])
    assert payload.parse(reply({"content": ""}, "length", 8), 1)[0] == [(None, CUT_IN_THOUGHTS)]
    assert payload.parse(reply({"content": ""}, "length", 0), 1)[0] == [(None, CUT_OFF)]
    assert payload.parse(reply({"content": "It is"}, "length", 5), 1)[0] == [("It is", None)]
    assert not payload.is_in_doubt


@pytest.mark.parametrize(("told", "outcome"), [(True, (None, CUT_IN_THOUGHTS)), (False, ("Well, it", None))])
def test_a_text_without_its_end_may_be_thoughts_alone(told: bool, outcome: tuple[str | None, str | None]) -> None:
    payload = payload_of(sampling())
    answer = reply({"content": "Well, it"}, "length")
    payload.parse(answer, 1)
    assert payload.is_in_doubt
    payload.begins_in_thoughts, payload.is_in_doubt = told, False
    assert payload.parse(answer, 1)[0] == [outcome]
    assert payload.parse(reply({"content": "hm</think>Well, it"}, "length"), 1)[0] == [("Well, it", None)]
    assert not payload.is_in_doubt


def test_thought_tokens_are_told_where_they_make_sense() -> None:
    payload = payload_of(sampling())
    for told, known in ((None, None), (0, 0), (8, 8), (9, None)):
        assert payload.parse(reply({"content": "a"}, "stop", told), 1)[1].thoughts == known

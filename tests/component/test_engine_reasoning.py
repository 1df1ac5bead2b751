"""Models that reason, and engines that do not take what would keep them from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from pg_bridge.engine import Acquaintance, Completion, Engine, Sampling
from pg_bridge.engine.payload import CUT_IN_THOUGHTS, CUT_OFF, ONLY_THOUGHTS
from pg_bridge.errors import EngineError, OptionError
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble

PROMPTS = [f"row {i}" for i in range(300)]
YES_OR_NO = Sampling(16, 0.0, "", choices=("yes", "no"))
FREE = Sampling(16, 0.0, "")
OFF = {"enable_thinking": False, "thinking": False}


def server(engine: EngineDouble, **options: Any) -> Server:
    return Server("s", engine.url, model="double", **options)


def ask(
    known: Server, sampling: Sampling = YES_OR_NO, prompts: list[str] = PROMPTS, *, of: Acquaintance | None = None
) -> tuple[list[Completion], Engine]:
    with Engine(known, acquaintance=of) as engine:
        found = sorted(engine.complete(iter(prompts), sampling, eager=True), key=lambda each: each.index)
    return found, engine


def fields(engine: EngineDouble, name: str) -> list[Any]:
    return [body.get(name) for body in engine.received.bodies]


@pytest.mark.parametrize("batch_endpoint", [True, False])
def test_vllm_is_told_not_to_reason_unasked(batch_endpoint: bool) -> None:
    with EngineDouble(owned_by="vllm", answer=lambda _: "yes", batch_endpoint=batch_endpoint) as engine:
        found, _ = ask(server(engine))
        assert {each.text for each in found} == {"yes"}
        assert fields(engine, "chat_template_kwargs") == [OFF] * len(engine.received.bodies)
        assert set(fields(engine, "max_tokens")) == {16}


@pytest.mark.parametrize("owner", ["", "openai", "litellm"])
def test_who_is_not_known_is_sent_what_it_always_was(owner: str) -> None:
    with EngineDouble(owned_by=owner, answer=lambda _: "yes") as engine:
        ask(server(engine))
        assert all(
            body.keys() == {"model", "max_tokens", "temperature", "response_format"} for body in engine.received.bodies
        )


@pytest.mark.some(2)
@pytest.mark.parametrize("batch_endpoint", [True, False])
@pytest.mark.parametrize("owner", ["vllm", "sglang"])
def test_a_strict_engine_answers_as_ever_and_is_remembered_for_it(owner: str, batch_endpoint: bool) -> None:
    known = Acquaintance()
    behaviour: dict[str, Any] = {"owned_by": owner, "batch_endpoint": batch_endpoint, "answer": lambda _: "yes"}
    with EngineDouble(refuse_fields=("chat_template_kwargs",), **behaviour) as engine:
        found, _ = ask(server(engine), of=known)
        assert [each.text for each in found] == ["yes"] * len(PROMPTS)
        refused = sum(each is not None for each in fields(engine, "chat_template_kwargs"))
        assert 1 <= refused <= 4  # as many as may be under way before one has been answered
        for sampling in (YES_OR_NO, FREE):
            before = len(engine.received.bodies)
            found, _ = ask(server(engine), sampling, of=known)
            assert {each.text for each in found} == {"yes"}
            assert not any(fields(engine, "chat_template_kwargs")[before:])


def test_one_that_refuses_rows_besides_fails_those_alone() -> None:
    prompts = [f"{'BAD' if i % 50 == 7 else 'good'} chat_template_kwargs {i}" for i in range(200)]
    with EngineDouble(owned_by="vllm", answer=lambda _: "yes", reject_marker="BAD") as engine:
        found, _ = ask(server(engine), prompts=prompts)
        assert [each.index for each in found if each.error] == [7, 57, 107, 157]
        assert None not in fields(engine, "chat_template_kwargs")


@pytest.mark.parametrize("reasoning", ["low", "medium", "high"])
def test_what_cannot_be_told_ends_the_run_and_says_so(reasoning: Any) -> None:
    sampling = Sampling(16, 0.0, "", reasoning=reasoning)
    refuse = ("chat_template_kwargs", "reasoning_effort")
    with EngineDouble(owned_by="vllm", refuse_fields=refuse) as engine:
        with pytest.raises(OptionError, match=f"does not take reasoning '{reasoning}'"):
            ask(server(engine), sampling)
        assert len(engine.received.requests) <= 12
    with EngineDouble(owned_by="vllm", refuse_fields=("chat_template_kwargs",)) as engine:
        found, _ = ask(server(engine), sampling)
        assert all(each.text for each in found)
        assert fields(engine, "reasoning_effort")[-1] == reasoning


def test_a_budget_that_is_not_taken_is_added_all_the_same() -> None:
    sampling = Sampling(16, 0.0, "", reasoning="low", max_reasoning_tokens=100)
    for refuse, budget in (((), 100), (("thinking_token_budget",), None)):
        with EngineDouble(owned_by="vllm", refuse_fields=refuse) as engine:
            found, _ = ask(server(engine), sampling)
            assert all(each.text for each in found)
            assert fields(engine, "thinking_token_budget")[-1] == budget
            assert set(fields(engine, "max_tokens")) == {116}


def test_a_refused_key_of_the_user_s_is_told_in_the_engine_s_words() -> None:
    sampling = Sampling(16, 0.0, "", request_options='{"top_k": 3, "chat_template_kwargs": {"a": 1}}')
    with EngineDouble(owned_by="vllm", refuse_fields=("top_k",)) as engine:
        with pytest.raises(EngineError, match="refuses every prompt") as caught:
            ask(server(engine), sampling)
        assert "Unrecognized request argument supplied: top_k" in caught.value.detail
    with EngineDouble(owned_by="vllm", refuse_fields=("chat_template_kwargs",)) as engine:
        with pytest.raises(EngineError, match="refuses every prompt"):
            ask(server(engine), sampling)
        assert len(engine.received.requests) <= 12


# -- what comes back


@pytest.mark.parametrize("batch_endpoint", [True, False])
@pytest.mark.parametrize(
    ("tokens", "outcome"), [(40, ("yes", None)), (12, (None, CUT_IN_THOUGHTS)), (3, (None, CUT_IN_THOUGHTS))]
)
def test_thoughts_beside_the_answer(batch_endpoint: bool, tokens: int, outcome: tuple[str | None, str | None]) -> None:
    sampling = Sampling(tokens, 0.0, "", choices=("yes", "no"))
    thoughts = "no, or rather yes".ljust(48, ".")  # 12 tokens
    with EngineDouble(
        owned_by="vllm", answer=lambda _: "yes", reasoning=thoughts, batch_endpoint=batch_endpoint
    ) as engine:
        found, asked = ask(server(engine), sampling, PROMPTS[:10])
        assert {(each.text, each.error) for each in found} == {outcome}
        told = None if batch_endpoint else 10 * min(12, tokens)  # of batches vLLM tells none
        assert asked.usage.reasoning_tokens == told


def test_a_model_that_does_not_reason_thinks_nothing() -> None:
    with EngineDouble(owned_by="vllm", answer=lambda _: "yes") as engine:
        _, asked = ask(server(engine))
        assert asked.usage.reasoning_tokens is None  # the engine tells nothing of it


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("<think>no?</think>\n\nyes", ("yes", None)),
        ("no?\n</think>\n\nyes", ("yes", None)),
        ("<think>yes or no", (None, ONLY_THOUGHTS)),
        ("<think>yes</think>", (None, ONLY_THOUGHTS)),
    ],
)
@pytest.mark.parametrize("sampling", [YES_OR_NO, FREE])
def test_thoughts_in_the_text(text: str, outcome: tuple[str | None, str | None], sampling: Sampling) -> None:
    with EngineDouble(owned_by="vllm", answer=lambda _: text, ignore_choices=True) as engine:
        found, _ = ask(server(engine), sampling, PROMPTS[:10])
        assert {(each.text, each.error) for each in found} == {outcome}


TEMPLATES: Mapping[str, Mapping[str, Any]] = {
    "opens": {"template_end": "<|im_start|>assistant\n<think>\n"},
    "closes": {"template_end": "<|im_start|>assistant\n<think>\n\n</think>\n\n"},
    "has none": {"template_end": "<|im_start|>assistant\n"},
    "is not told": {},
    "has no page": {"tokenize": False},
}


@pytest.mark.parametrize("reasoning", [None, "off", "low", "model"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_text_that_was_cut_off_is_an_answer_only_if_it_is_no_thought(template: str, reasoning: Any) -> None:
    """A template that puts the first tag into the prompt leaves none in a text that does not come to the second."""
    sampling = Sampling(5, 0.0, "", reasoning=reasoning, max_reasoning_tokens=5)
    text = "Well, let me see what this row says of itself"
    told = {"opens": True, "closes": False, "has none": False}.get(template, reasoning in {"low", "model"})
    with EngineDouble(owned_by="vllm", answer=lambda _: text, **TEMPLATES[template]) as engine:
        known = Acquaintance()
        for _ in range(2):
            found, _ = ask(server(engine), sampling, PROMPTS[:40], of=known)
            assert {(each.text, each.error) for each in found} == {
                (None, CUT_IN_THOUGHTS) if told else (text[:40], None)
            }
        assert engine.received.tokenized <= 1


def test_who_gives_whole_answers_is_not_asked_for_its_template() -> None:
    with EngineDouble(owned_by="vllm", answer=lambda _: "yes", template_end="<think>") as engine:
        ask(server(engine), FREE)
        ask(server(engine))
        assert engine.received.tokenized == 0


def test_a_label_that_was_cut_off_needs_more_tokens() -> None:
    with EngineDouble(owned_by="vllm", answer=lambda _: "perhaps it is", ignore_choices=True) as engine:
        found, _ = ask(server(engine), Sampling(2, 0.0, "", choices=("perhaps it is", "no")))
        assert {each.error for each in found} == {CUT_OFF}
        assert engine.received.tokenized == 0


# -- headers, further keys, salts


def test_headers_and_keys_go_along_with_every_request() -> None:
    values = {"headers": (("X-Team", "a"), ("X-Key", None)), "secret_headers": (("x-key", "hush-123"),)}
    sampling = Sampling(16, 0.0, "", request_options='{"seed": 7, "logit_bias": {"5": -1}}')
    with EngineDouble(owned_by="vllm") as engine:
        known = server(engine, **values, request_options='{"seed": 1, "top_p": 0.5}', api_key="sk-1")
        ask(known, sampling)
        for headers in engine.received.headers:
            assert (headers["x-team"], headers["x-key"], headers["authorization"]) == ("a", "hush-123", "Bearer sk-1")
        for body in engine.received.bodies:
            assert (body["seed"], body["top_p"], body["logit_bias"]) == (7, 0.5, {"5": -1})


def test_a_refusal_that_repeats_a_secret_header_shows_it_nowhere() -> None:
    values = {"headers": (("X-Key", None),), "secret_headers": (("X-Key", "hush-123"),)}
    with EngineDouble(refuse_marked={"row 3": "wrong key: hush-123, aHVzaC0xMjM= or HUSH-123"}) as engine:
        found, _ = ask(server(engine, **values), FREE, PROMPTS[:8])
    errors = [each.error for each in found if each.error]
    assert len(errors) == 1
    assert "hush" not in errors[0].lower()
    assert "wrong key" in errors[0]


def test_what_a_salt_keeps_apart() -> None:
    with EngineDouble(owned_by="vllm") as engine:
        ask(server(engine, cache_salt="role", salt="mine"))
        assert set(fields(engine, "cache_salt")) == {"mine"}
    with EngineDouble(owned_by="llamacpp") as engine:
        with pytest.raises(OptionError, match="cache_salt, which its engine does not take"):
            ask(server(engine, cache_salt="role", salt="mine"))
        assert not engine.received.requests


def test_a_body_that_repeats_a_key_is_never_sent() -> None:
    sampling = Sampling(16, 0.0, "", reasoning="low", request_options='{"reasoning_effort": "minimal", "seed": 1}')
    seen: list[list[str]] = []
    with EngineDouble(owned_by="vllm") as engine:
        ask(server(engine, request_options='{"seed": 2}'), sampling, PROMPTS[:1])
        seen += [list(body) for body in engine.received.bodies]
    assert all(len(names) == len(set(names)) for names in seen)
    assert json.dumps(seen).count("reasoning_effort") == len(seen)

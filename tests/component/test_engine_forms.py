"""The form of an answer: what an engine refuses gives way to what it takes, what it ignores to words, checked and asked
once more."""

from __future__ import annotations

from typing import Any

import pytest

from pg_bridge.engine import Acquaintance, Completion, Engine, Sampling
from pg_bridge.engine.checking import NOT_A_CHOICE, NOT_OF_THE_PATTERN, NOT_OF_THE_SCHEMA
from pg_bridge.errors import EngineError
from pg_bridge.options import Server
from pg_bridge.options.values import PATTERNS
from pg_bridge.testing.double import EngineDouble

PROMPTS = [f"row {i}" for i in range(200)]
A_FEW = 12
LABEL = Sampling(16, 0.0, "Be brief.", choices=("yes", "no"))
NUMBER = Sampling(16, 0.0, "", pattern=PATTERNS["integer"])
OBJECT = Sampling(64, 0.0, "", schema='{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}')
EACH_FORM = pytest.mark.parametrize(
    ("sampling", "right", "wrong", "error"),
    [
        (LABEL, "no", "perhaps", NOT_A_CHOICE),
        (NUMBER, "7", "seven", NOT_OF_THE_PATTERN),
        (OBJECT, '{"a": "b"}', "a is b", NOT_OF_THE_SCHEMA),
    ],
)
KNOWN = ("max_tokens", "temperature")


def server(engine: EngineDouble, **options: Any) -> Server:
    return Server("s", engine.url, model="double", **options)


def ask(
    known: Server, sampling: Sampling, prompts: list[str] = PROMPTS, of: Acquaintance | None = None
) -> list[Completion]:
    with Engine(known, acquaintance=of) as engine:
        return sorted(engine.complete(iter(prompts), sampling, eager=True), key=lambda each: each.index)


def texts(found: list[Completion]) -> set[str | None]:
    return {each.text for each in found}


@pytest.mark.some(3)
@EACH_FORM
@pytest.mark.parametrize("refuse_as", ["openai", "transformers"])
@pytest.mark.parametrize("owner", ["", "vllm", "sglang", "llamacpp", "library", "double", "openai"])
def test_who_takes_no_form_is_asked_in_words(
    owner: str, refuse_as: str, sampling: Sampling, right: str, wrong: str, error: str
) -> None:
    """And that is known to the next run of the session."""
    known = Acquaintance()
    with EngineDouble(owned_by=owner, takes=KNOWN, refuse_as=refuse_as, answer=lambda _: right) as engine:
        assert texts(ask(server(engine), sampling, of=known)) == {right}
        refused = len(engine.received.requests) - engine.received.answered
        assert refused <= A_FEW
        sent = len(engine.received.prompts)
        assert texts(ask(server(engine), sampling, of=known)) == {right}
        assert all("Answer with nothing but" in said for said in engine.received.conversations[sent:])
        assert all(body.keys() <= {"model", *KNOWN} for body in engine.received.bodies[sent:])


@pytest.mark.some(3)
@pytest.mark.parametrize("owner", ["vllm", "sglang", "llamacpp"])
@EACH_FORM
def test_the_next_form_is_asked_for_before_words(
    owner: str, sampling: Sampling, right: str, wrong: str, error: str
) -> None:
    with EngineDouble(owned_by=owner, takes=(*KNOWN, "response_format"), answer=lambda _: right) as engine:
        assert texts(ask(server(engine), sampling)) == {right}
        assert "response_format" in engine.received.bodies[-1]
        assert not any("Answer with nothing but" in said for said in engine.received.conversations)


def test_json_of_any_schema_is_better_than_none() -> None:
    """As DeepSeek answers."""
    with EngineDouble(owned_by="", takes_schemas=False, answer=lambda _: '{"a": "b"}') as engine:
        assert texts(ask(server(engine), OBJECT)) == {'{"a": "b"}'}
        assert engine.received.bodies[-1]["response_format"] == {"type": "json_object"}
        assert OBJECT.schema in engine.received.conversations[-1]


@pytest.mark.some(3)
@EACH_FORM
@pytest.mark.parametrize("owner", ["", "vllm"])
def test_who_ignores_a_form_is_asked_once_more_in_words(
    owner: str, sampling: Sampling, right: str, wrong: str, error: str
) -> None:
    """Its model does as it is told where it is told behind the prompt."""

    def answer(prompt: str) -> str:
        return f"**{right}**" if "Answer with nothing but" in prompt else wrong

    with EngineDouble(owned_by=owner, ignore_choices=True, answer=answer) as engine:
        assert texts(ask(server(engine), sampling)) == {right}
        assert engine.received.answered == 2 * len(PROMPTS)


@EACH_FORM
@pytest.mark.parametrize("batch_endpoint", [True, False])
def test_an_answer_that_is_never_of_the_form_is_an_error_of_its_row(
    batch_endpoint: bool, sampling: Sampling, right: str, wrong: str, error: str
) -> None:
    def answer(prompt: str) -> str:
        return wrong if prompt.startswith("row 7") else right

    with EngineDouble(ignore_choices=True, batch_endpoint=batch_endpoint, answer=answer) as engine:
        found = ask(server(engine), sampling)
        assert {each.index for each in found if each.error} == {7, *range(70, 80)}
        assert {each.error for each in found if each.error} == {error}
        assert texts(found) == {right, None}
        asked = [prompt for prompt in engine.received.prompts if prompt.startswith("row 7")]
        assert len(asked) == 2 * 11


def test_words_are_said_from_the_first_on_where_a_form_was_ignored() -> None:
    known = Acquaintance()
    with EngineDouble(owned_by="", ignore_choices=True, answer=lambda _: "perhaps") as engine:
        ask(server(engine), LABEL, of=known)
        engine.behaviour.answer = lambda _: "Yes."
        sent = len(engine.received.conversations)
        assert texts(ask(server(engine), LABEL, of=known)) == {"yes"}
        said = engine.received.conversations[sent:]
        assert len(said) == len(PROMPTS)  # none of them once more
        assert all(
            'Answer with nothing but exactly one of these, as it stands here: "yes", "no"' in each for each in said
        )


def test_one_odd_answer_changes_nothing_for_the_rest() -> None:
    def answer(prompt: str) -> str:
        return "perhaps" if prompt == "row 100" else "no"

    with EngineDouble(ignore_choices=True, batch_endpoint=False, answer=answer) as engine:
        assert texts(ask(server(engine), LABEL)) == {"no"}
        assert sum("Answer with nothing but" in said for said in engine.received.conversations) == 1


@pytest.mark.parametrize("owner", ["", "vllm"])
def test_a_schema_that_is_none_is_told_to_its_user(owner: str) -> None:
    said = "Invalid schema for response_format 'answer': 'strong' is not a type"
    with EngineDouble(owned_by=owner, refuse_every=said) as engine:
        with pytest.raises(EngineError, match="refuses every prompt") as caught:
            ask(server(engine), OBJECT)
        assert len(engine.received.requests) <= A_FEW
        assert "Invalid schema" in caught.value.detail


@EACH_FORM
def test_who_refuses_everything_is_asked_a_bounded_number_of_times(
    sampling: Sampling, right: str, wrong: str, error: str
) -> None:
    for said in ("structured_outputs, response_format: unsupported", "json_schema", "no"):
        with EngineDouble(refuse_every=said) as engine:
            with pytest.raises(EngineError, match="refuses every prompt"):
                ask(server(engine), sampling)
            assert len(engine.received.requests) <= 3 * 4 + A_FEW


def test_a_word_in_a_prompt_is_no_refusal_of_a_form() -> None:
    prompts = [f"{'BAD' if i == 7 else 'good'} response_format structured_outputs json_schema {i}" for i in range(50)]
    with EngineDouble(answer=lambda _: "no", reject_marker="BAD", reject_echo=True) as engine:
        found = ask(server(engine), LABEL, prompts)
        assert [each.index for each in found if each.error] == [7]
        assert all("structured_outputs" in body for body in engine.received.bodies)


@pytest.mark.parametrize(
    ("labels", "said", "label"),
    [
        (("U.S.", "U.K."), '"U.S."', "U.S."),
        (("U.S.", "U.K."), "**u.s.**", "U.S."),
        (("U.S.", "U.K."), "`U.S`", "U.S."),
        (("a", "a."), '"a."', "a."),
        (("a", "a."), '"A."', None),
        (("yes", "no"), "**Yes.**", "yes"),
        (("yes", "no"), '"yes".', "yes"),
    ],
)
def test_a_full_stop_may_be_a_labels_own(labels: tuple[str, ...], said: str, label: str | None) -> None:
    with EngineDouble(answer=lambda _: said, ignore_choices=True) as engine:
        sampling = Sampling(16, 0.0, "", choices=labels)
        assert texts(ask(server(engine, dialect="transformers"), sampling, ["row"])) == {label}


@pytest.mark.parametrize("dialect", ["auto", "litellm"])
@pytest.mark.parametrize(("sampling", "right"), [(LABEL, "no"), (OBJECT, '{"a": "b"}')])
def test_a_form_gives_way_though_every_prompt_speaks_of_it(sampling: Sampling, right: str, dialect: str) -> None:
    prompts = [f"response_format and structured_outputs take a json schema: {i}" for i in range(100)]
    with EngineDouble(owned_by="", takes=KNOWN, answer=lambda _: right) as engine:
        found = ask(server(engine, dialect=dialect), sampling, prompts)
        assert [(each.text, each.error) for each in found] == [(right, None)] * 100
        assert len(engine.received.requests) - engine.received.answered <= A_FEW


@pytest.mark.some(1)
@pytest.mark.parametrize("dialect", ["auto", "litellm", "openai-compatible", "openai"])
def test_a_model_that_wants_another_limit_and_no_temperature_says_so(dialect: str) -> None:
    known = Acquaintance()
    with EngineDouble(owned_by="", wants_max_completion_tokens=True, answer=lambda _: "no") as engine:
        assert texts(ask(server(engine, dialect=dialect), LABEL, of=known)) == {"no"}
        assert len(engine.received.requests) - engine.received.answered <= A_FEW
        before = len(engine.received.bodies)
        ask(server(engine, dialect=dialect), LABEL, of=known)
        for body in engine.received.bodies[before:]:
            assert body["max_completion_tokens"] == 16
            assert not body.keys() & {"max_tokens", "temperature"}


def test_a_limit_that_is_too_large_is_no_other_argument() -> None:
    with EngineDouble(owned_by="", refuse_every="'max_tokens' is too large: 9999") as engine:
        with pytest.raises(EngineError, match="refuses every prompt"):
            ask(server(engine), LABEL)
        assert all("max_tokens" in body for body in engine.received.bodies)


def test_litellm_is_known_by_a_header_of_its_answers() -> None:
    known = Acquaintance()
    with EngineDouble(owned_by="openai", headers={"x-litellm-version": "1"}, answer=lambda _: "no") as engine:
        ask(server(engine), LABEL, ["one"], of=known)
    assert known.dialect is not None
    assert known.dialect.name == "litellm"


@pytest.mark.parametrize("dialect", ["transformers", "ollama", "llama.cpp"])
def test_who_takes_one_text_a_request_gets_one(dialect: str) -> None:
    with EngineDouble(answer=lambda _: "no") as engine:
        ask(server(engine, dialect=dialect, api="completions"), LABEL, PROMPTS[:20])
        assert {size for _, size in engine.received.requests} == {1}

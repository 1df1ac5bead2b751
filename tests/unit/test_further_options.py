"""Further keys of a body and headers: what may be said, who says it, and what differs from one answer to another."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pg_bridge.asking.inquiry import context_of
from pg_bridge.asking.prompt import parse_question
from pg_bridge.engine.untrusted import hide_key
from pg_bridge.errors import OptionError
from pg_bridge.options import Call, Server
from pg_bridge.options.further import DEEPEST, MOST_CHARS, merge

ENDPOINT = {"endpoint": "http://127.0.0.1:8000"}
OWNED = [
    "model",
    "messages",
    "system",
    "prompt",
    "stream",
    "n",
    "best_of",
    "echo",
    "request_id",
    "input_ids",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "priority",
    "cache_salt",
    "structured_outputs",
    "response_format",
    "regex",
    "json_schema",
    "grammar",
    "guided_json",
]


def secret(headers: str) -> dict[str, str]:
    return {"secret_headers": headers}


def server(**options: str) -> Server:
    return Server.from_options("s", ENDPOINT | options)


@pytest.mark.parametrize("name", OWNED)
def test_what_pg_bridge_says_is_refused_and_its_option_named(name: str) -> None:
    for make in (
        lambda: Call.from_arguments({"request_options": {"seed": 7, name: 1}}),
        lambda: server(request_options=json.dumps({name: None})),
        lambda: server(request_options=f'{{"seed": 7, "{name}": 1, "{name}": 2}}'),
    ):
        with pytest.raises(OptionError, match=f'request_options has the key "{name}"') as caught:
            make()
        assert caught.value.hint.endswith(".")
        assert caught.value.hint[0].isupper()


@pytest.mark.parametrize("name", ["max_tokens", "temperature", "priority"])
def test_the_hint_names_the_option(name: str) -> None:
    with pytest.raises(OptionError) as caught:
        Call.from_arguments({"request_options": {name: 1}})
    assert name in caught.value.hint


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        [],
        [{"seed": 1}],
        "seed",
        7,
        True,
        {"a": "\0"},
        {"\0": 1},
        {"a": "\ud800"},
        {"a": float("nan")},
        {"a": [float("inf")]},
        {"a": "x" * MOST_CHARS},
        nested(DEEPEST + 1),
        nested(5000),
    ],
)
def test_what_is_no_object_that_can_be_sent_is_refused(value: object) -> None:
    with pytest.raises(OptionError, match='invalid value for option "request_options"') as caught:
        Call.from_arguments({"request_options": value})
    assert caught.value.hint == "It must be a JSON object of at most 65536 characters."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "[]",
        "null",
        "{",
        '{"a": NaN}',
        '{"a": "\\u0000"}',
        '{"a":' * 5000 + "1" + "}" * 5000,
        "{'a': 1}",
        '{"a": "\\ud800"}',
    ],
)
def test_a_server_says_an_object_too(text: str) -> None:
    with pytest.raises(OptionError, match='invalid value for option "request_options"'):
        server(request_options=text)


def test_null_says_nothing() -> None:
    assert Call.from_arguments({"request_options": None}) == Call()
    assert Call.from_arguments({"request_options": {}}).further_at(server()) == {}


def test_a_call_goes_over_its_server_key_by_key() -> None:
    known = server(request_options='{"seed": 7, "top_p": 0.5, "stop": ["a", "b"]}')
    call = Call.from_arguments({"request_options": {"seed": 8, "stop": ["c"]}})
    assert merge(known.request_options, call.request_options) == {"seed": 8, "top_p": 0.5, "stop": ["c"]}


def context(call: dict[str, object], **options: str) -> list[object]:
    return context_of(parse_question("Is {a} so?"), Call.from_arguments(call), server(**options))


def test_an_answer_is_known_by_all_that_it_depends_on() -> None:
    plain = context({})
    seed = json.dumps({"seed": 7})
    different = [
        plain,
        context({"request_options": {"seed": 7}}),
        context({"request_options": {"seed": 8}}),
        context({"reasoning": "low"}),
        context({"reasoning": "model"}),
        context({}, reasoning="high"),
        context({"max_reasoning_tokens": 7}),
    ]
    assert len({json.dumps(each) for each in different}) == len(different)
    assert context({}, request_options=seed) == context({"request_options": {"seed": 7}})
    assert context({"request_options": {"b": 1, "a": 2}}) == context({"request_options": {"a": 2, "b": 1}})
    assert context({"reasoning": "low"}, reasoning="high") == context({"reasoning": "low"})


def test_what_changes_no_answer_asks_nothing_again() -> None:
    """Nor do answers that were kept before there were such options."""
    for call, options in (
        ({"reasoning": "off"}, {}),
        ({"request_options": {}}, {}),
        ({}, {"cache_salt": "role"}),
        ({}, {"headers": '{"X-Team": "a"}'}),
    ):
        assert context(call, **options) == context({})  # type: ignore[arg-type]
    assert len(context({})) == 8


# -- headers


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"X: y"',
        '{"X": 1}',
        '{"X": {}}',
        '{"": "a"}',
        '{"X Y": "a"}',
        '{"X:": "a"}',
        '{"X\\n": "a"}',
        '{"X": "a\\r\\nY: b"}',
        '{"X": "a\nb"}',
        '{"X": "\\u000a"}',
        '{"X": "\x7f"}',
        '{"X": "ä"}',
        '{"Ä": "a"}',
        '{"X": "a",}',
        '{"X": "a", "x": "b"}',
        '{"X": "a", "X": "a"}',
    ],
)
def test_headers_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match='invalid value for option "headers"'):
        server(headers=text)


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "content-length",
        "HOST",
        "connection",
        "Transfer-Encoding",
        "TE",
        "trailer",
        "Upgrade",
        "Keep-Alive",
        "Proxy-Authorization",
        "Content-Type",
        "Accept-Encoding",
        "Cookie",
        "User-Agent",
        "X-data-parallel-rank",
        "Expect",
    ],
)
@pytest.mark.parametrize("place", ["headers", "secret_headers"])
def test_headers_of_pg_bridge_are_left_alone(name: str, place: str) -> None:
    with pytest.raises(OptionError, match=f'the header "{name}" is pg_bridge\'s own') as caught:
        server(**{place: json.dumps({name: "a-value"})})
    assert "a-value" not in f"{caught.value.message}{caught.value.hint}"


def test_headers_as_they_are_sent() -> None:
    text = json.dumps({"X-Team": 'say "a\\b"', "Empty": "", "OpenAI-Organization": None}, indent=1)
    known = server(headers=text, **secret('{"openai-organization": "org/1"}'))
    assert known.filled_headers == {"X-Team": 'say "a\\b"', "Empty": "", "OpenAI-Organization": "org/1"}
    assert server(headers="{ }").filled_headers == server().filled_headers == {}


def test_names_come_from_the_server_alone() -> None:
    for headers in ({}, {"headers": '{"X-Admin": "no"}'}, {"headers": '{"X-Other": null}'}):
        with pytest.raises(
            OptionError, match='secret_headers has "X-Admin", which server "s" does not ask for'
        ) as caught:
            server(**headers, **secret('{"X-Admin": "yes-please"}'))
        assert "yes-please" not in f"{caught.value.message}{caught.value.detail}{caught.value.hint}"


def test_a_value_that_the_mapping_lacks_is_told() -> None:
    with pytest.raises(OptionError, match='asks for the header "X-Key", and nobody has said its value') as caught:
        server(headers='{"X-Key": null}')
    assert "secret_headers" in caught.value.hint


def test_no_secret_header_is_shown() -> None:
    known = server(headers='{"X-Key": null}', **secret('{"X-Key": "hush-123"}'))
    assert "hush-123" not in repr(known)
    for spelt in ("bad key hush-123", "HUSH-123", "aHVzaC0xMjM"):
        assert not re.search("hush-123|aHVzaC0x", hide_key(spelt, known), re.IGNORECASE)

"""What engines understand, and how that is learnt."""

import json
from dataclasses import replace

import pytest

from pg_bridge.engine.dialects import DIALECTS, UNTOLD, VLLM, dialect_of_models, dialect_of_server
from pg_bridge.engine.payload import UNFIT, Payload
from pg_bridge.engine.records import Sampling
from pg_bridge.errors import OptionError
from pg_bridge.options import Server
from pg_bridge.options.values import PATTERNS

ENDPOINT = {"endpoint": "http://127.0.0.1:8000"}


def test_an_unknown_dialect_is_told_those_there_are() -> None:
    with pytest.raises(OptionError) as refused:
        Server.from_options("s", {**ENDPOINT, "dialect": "klingon"})
    assert all(name in f"{refused.value} {refused.value.hint}" for name in ("auto", *DIALECTS))


@pytest.mark.parametrize("name", DIALECTS)
def test_a_server_that_says_its_dialect_is_believed(name: str) -> None:
    assert dialect_of_server(Server.from_options("s", {**ENDPOINT, "dialect": name})) is DIALECTS[name]


def test_a_server_that_says_none_tells_none() -> None:
    assert dialect_of_server(Server.from_options("s", ENDPOINT)) is None


@pytest.mark.parametrize("listed", [None, [], {}, [7], [{}], [{"owned_by": None}], [{"owned_by": ["vllm"]}]])
def test_a_list_of_models_that_tells_nothing(listed: object) -> None:
    assert dialect_of_models(listed) is UNTOLD


def test_vllm_is_sent_what_it_always_was() -> None:
    sampling = Sampling(3, 0.5, "Be brief.", choices=("yes", "no"), priority=2)
    assert Payload("chat", "m", sampling, VLLM).body(["one?"]) == (
        b'{"model": "m", "max_tokens": 3, "temperature": 0.5, "structured_outputs": {"choice": ["yes", "no"]}, '
        b'"priority": 2, "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one?"}]}'
    )


@pytest.mark.parametrize(
    ("sampling", "value", "answer"),
    [
        (Sampling(3, 0.0, "", choices=("yes", "no")), {"type": "string", "enum": ["yes", "no"]}, "no"),
        (Sampling(3, 0.0, "", pattern="[0-9]+"), {"type": "string", "pattern": "^([0-9]+)$"}, "42"),
    ],
)
@pytest.mark.parametrize("name", ["openai", "openai-compatible"])
def test_what_is_no_object_travels_in_one(name: str, sampling: Sampling, value: object, answer: str) -> None:
    payload = Payload("chat", "m", sampling, DIALECTS[name])
    body = json.loads(payload.body(["?"]))
    assert "structured_outputs" not in body
    told = body["response_format"]["json_schema"]
    assert told["strict"] is True
    assert told["schema"]["properties"] == {"answer": value}
    assert (told["schema"]["required"], told["schema"]["additionalProperties"]) == (["answer"], False)
    assert _answered(payload, json.dumps({"answer": answer})) == (answer, None)
    assert _answered(payload, answer) == (answer, None)
    for wrong in ('{"answer": "perhaps"}', '{"answer": 7}', '{"other": "no"}', "[]", '{"answer"', "perhaps"):
        text, error = _answered(payload, wrong)
        assert text is None
        assert error in UNFIT


@pytest.mark.parametrize(("required", "strict"), [(["a"], True), ([], None), ("a", None)])
def test_a_schema_is_strict_where_it_keeps_the_rules(required: object, strict: bool | None) -> None:
    schema = {"type": "object", "properties": {"a": {}}, "required": required, "additionalProperties": False}
    payload = Payload("chat", "m", Sampling(3, 0.0, "", schema=json.dumps(schema)), DIALECTS["openai"])
    told = json.loads(payload.body(["?"]))["response_format"]["json_schema"]
    assert told["schema"] == schema
    assert told.get("strict") is strict
    assert _answered(payload, '{"a": 1}') == ('{"a": 1}', None)


def test_sglang_is_held_by_a_regular_expression() -> None:
    payload = Payload("chat", "m", Sampling(3, 0.0, "", choices=("a.b", "c")), DIALECTS["sglang"])
    assert json.loads(payload.body(["?"]))["regex"] == r"(a\.b)|(c)"
    assert _answered(payload, "c") == ("c", None)


def test_openai_has_its_own_name_for_the_limit() -> None:
    body = json.loads(Payload("chat", "m", Sampling(3, 0.0, ""), DIALECTS["openai"]).body(["?"]))
    assert body == {
        "model": "m",
        "max_completion_tokens": 3,
        "temperature": 0.0,
        "messages": [{"role": "user", "content": "?"}],
    }


def test_a_host_that_is_known() -> None:
    told = dialect_of_server(Server.from_options("s", {"endpoint": "https://api.openai.com/v1"}))
    assert told is DIALECTS["openai"]


def _answered(payload: Payload, text: str) -> tuple[str | None, str | None]:
    answer = {"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]}
    return payload.parse(json.dumps(answer).encode(), 1)[0][0]


def test_a_dialect_names_the_limit_of_an_answer() -> None:
    body = Payload("chat", "m", Sampling(3, 0.0, ""), replace(VLLM, max_tokens="most")).body(["?"])
    assert json.loads(body)["most"] == 3
    assert b"max_tokens" not in body


@pytest.mark.parametrize(
    ("sampling", "grammar"),
    [
        (Sampling(3, 0.0, "", choices=("yes", 'a "b"\n\\')), r'root ::= "yes" | "a \"b\"\n\\"'),
        (Sampling(3, 0.0, "", pattern=PATTERNS["integer"]), 'root ::= "-" ? [0-9] {1,18}'),
        (Sampling(3, 0.0, "", pattern=r"(Z|[+-]\.)"), 'root ::= ( "Z" | [+-] "." )'),
    ],
)
def test_llama_cpp_is_asked_by_a_grammar(sampling: Sampling, grammar: str) -> None:
    body = json.loads(Payload("chat", "m", sampling, DIALECTS["llama.cpp"]).body(["?"]))
    assert body["grammar"] == grammar
    assert "response_format" not in body


def test_llama_cpp_is_asked_for_json_by_its_schema() -> None:
    sampling = Sampling(3, 0.0, "", schema='{"type": "object"}')
    body = json.loads(Payload("chat", "m", sampling, DIALECTS["llama.cpp"]).body(["?"]))
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert "grammar" not in body

"""What engines understand, and how that is learnt."""

import json
from dataclasses import replace

import pytest

from pg_bridge.engine.dialects import DIALECTS, UNTOLD, VLLM, dialect_of_models, dialect_of_server
from pg_bridge.engine.payload import Payload
from pg_bridge.engine.records import Sampling
from pg_bridge.errors import OptionError
from pg_bridge.options import Server

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


def test_a_dialect_names_the_limit_of_an_answer() -> None:
    body = Payload("chat", "m", Sampling(3, 0.0, ""), replace(VLLM, max_tokens="most")).body(["?"])
    assert json.loads(body)["most"] == 3
    assert b"max_tokens" not in body

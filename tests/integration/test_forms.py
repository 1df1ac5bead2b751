"""Forms that engines refuse or ignore, through SQL: answers come in form, or are errors of their rows."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.integration.test_faults import once

MULTICORN_IS_SLOW = True
KEEP_DATABASE = True

Conn = psycopg.Connection[Any]
KNOWN = ("max_tokens", "temperature")
ROWS = "generate_series(1, 60) AS i"
LABELS = f"SELECT llm.classify('Is {{}} good?', i, '{{yes,no}}', on_error => 'null') FROM {ROWS}"


def column(conn: Conn, statement: str) -> list[Any]:
    return [value for (value,) in conn.execute(statement.encode())]


@pytest.mark.some(2)
@pytest.mark.parametrize("refuse_as", ["openai", "transformers"])
@pytest.mark.parametrize("owner", ["", "vllm", "llamacpp"])
def test_a_strict_engine_is_asked_in_words(conn: Conn, engine: EngineDouble, owner: str, refuse_as: str) -> None:
    engine.behaviour.change({"owned_by": owner, "takes": KNOWN, "refuse_as": refuse_as})
    engine.behaviour.answer = lambda prompt: "Yes." if "good" in prompt else "42"
    assert column(conn, LABELS) == ["yes"] * 60
    assert column(conn, f"SELECT llm.score('How many {{}}?', i) FROM {ROWS}") == [42] * 60
    assert len(engine.received.requests) - engine.received.answered <= 30


def test_what_is_never_in_form_is_no_value(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.ignore_choices = True
    engine.behaviour.answer = lambda prompt: "yes" if '"input": 7}' in prompt else "Probably no."
    assert [label for label in column(conn, LABELS) if label is not None] == ["yes"]
    reasons = column(conn, "SELECT DISTINCT reason FROM llm.last_errors()")
    assert reasons == ["the engine did not keep to the choices"]
    with pytest.raises(psycopg.errors.DataException, match="did not keep to the choices"):
        column(conn, LABELS.replace(", on_error => 'null'", ""))


def test_a_cancel_while_it_is_asked_once_more(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.ignore_choices = True
    engine.behaviour.answer = lambda _: "perhaps"

    def is_asked_again() -> bool:
        return any("Answer with nothing but" in said for said in engine.received.prompts)

    engine.behaviour.delay_s = 0.05
    with once(is_asked_again, conn.cancel), pytest.raises(psycopg.errors.QueryCanceled):
        column(conn, LABELS.replace("60", "6000"))
    engine.behaviour.delay_s = 0.0
    engine.behaviour.answer = lambda _: "no"
    assert column(conn, LABELS) == ["no"] * 60


def test_a_role_learns_for_itself_and_anew_in_each_session(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.takes = (*KNOWN, "response_format")
    column(conn, LABELS)
    sent = len(engine.received.bodies)
    column(conn, LABELS.replace("Is", "Was"))
    assert all("response_format" in body for body in engine.received.bodies[sent:])

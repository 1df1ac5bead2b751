"""llm.health: what it finds, for whom, that it gives way to a cancel and tells no key."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.integration.test_faults import once

MULTICORN_IS_SLOW = True
KEEP_DATABASE = True

Conn = psycopg.Connection[Any]
KEY = "sk-of-nobody-else"


def health(conn: Conn) -> dict[str, tuple[str, str]]:
    found = conn.execute("SELECT item, state, detail FROM llm.health()").fetchall()
    assert KEY not in str(found)
    return {item: (state, detail) for item, state, detail in found}


def test_who_ignores_forms_is_told_from_who_refuses_them(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.ignore_choices = True
    ignoring = health(conn)
    assert ignoring["choices"][0] == ignoring["patterns"][0] == ignoring["schemas"][0] == "checked"
    assert "it does not keep to structured_outputs" in ignoring["choices"][1]
    engine.behaviour.ignore_choices = False
    engine.behaviour.takes = ("max_tokens", "temperature", "response_format")
    assert health(conn)["choices"] == ("held", "by response_format")  # nothing is remembered of the time before
    engine.behaviour.takes = ("max_tokens", "temperature")
    refusing = health(conn)
    assert refusing["schemas"] == ("checked", "asked in words; the engine's answer is not JSON of the schema")


def test_what_an_engine_lacks(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.change({"metrics": False, "batch_endpoint": False, "prompt_tokens_details": False, "owned_by": ""})
    found = health(conn)
    assert found["prefix cache counters"][0] == found["batches"][0] == "no"
    assert found["cached tokens"][0] == "untold"
    assert found["dialect"][0] == "openai-compatible"
    assert "set the server's option dialect" in found["dialect"][1]


def test_thoughts_that_are_told_apart(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.reasoning = "Hm. "
    assert health(conn)["reasoning"] == ("yes", "thoughts are parted from answers and counted")


def test_it_asks_few_questions(conn: Conn, engine: EngineDouble) -> None:
    health(conn)
    assert len(engine.received.prompts) <= 6
    engine.behaviour.ignore_choices = True
    engine.received.prompts.clear()
    health(conn)
    assert len(engine.received.prompts) <= 24


@pytest.mark.parametrize("behaviour", [{"api_key": KEY}, {"malformed": True}, {"refuse_every": "no"}, {"models": ()}])
def test_what_keeps_it_from_answering_is_a_finding(conn: Conn, engine: EngineDouble, behaviour: dict[str, Any]) -> None:
    engine.behaviour.change(behaviour)
    found = health(conn)
    assert found.get("answers", ("failed",))[0] == "failed"
    assert found["reachable"][0] == ("no" if behaviour.keys() & {"api_key", "models"} else "yes")


def test_it_can_be_cancelled(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.hang = True
    with once(lambda: engine.received.in_flight > 0, conn.cancel), pytest.raises(psycopg.errors.QueryCanceled):
        conn.execute("SELECT * FROM llm.health()")
    engine.behaviour.hang = False
    assert health(conn)["answers"][0] == "yes"


def test_nothing_is_kept_of_it(conn: Conn, engine: EngineDouble) -> None:
    conn.execute("SELECT * FROM llm.map('SELECT 1 AS a', '{a}?')").fetchall()
    before = conn.execute("SELECT * FROM llm.last_run()").fetchall()
    health(conn)
    assert conn.execute("SELECT * FROM llm.last_run()").fetchall() == before

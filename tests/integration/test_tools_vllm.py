"""llm.map_with_tools with the model in the box, which a schema holds to calls and answers, understood or not."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pg_bridge.serving.launch import VllmEngine
from tests.conftest import create_server
from tests.integration.test_tools import TABLES

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("host", ["plpython"], indirect=True)
def test_what_the_model_in_the_box_says_is_a_call_or_an_answer(db: psycopg.Connection[Any], vllm: VllmEngine) -> None:
    create_server(db, vllm.endpoint, model=vllm.model)
    db.execute(TABLES)
    rows = db.execute(
        "SELECT input ->> 'film', output, error, calls FROM llm.map_with_tools('SELECT film FROM films', "
        "'Is {film} in stock?', '{stock_of(text), \"shops(text, int)\"}', choices => '{yes,no}', max_calls => 2, "
        "on_error => 'null', max_tokens => 200)"
    ).fetchall()
    print(rows)
    print(db.execute("SELECT tools, unique_prompts, prefix_hit_rate FROM llm.last_run()").fetchall())
    assert len(rows) == 4
    for _, output, error, calls in rows:
        assert (output in {"yes", "no"}) != (error is not None)
        assert len(calls) <= 2
        assert {call["call"] for call in calls} <= {"stock_of", "shops"}

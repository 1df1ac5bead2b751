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
    db.execute(
        "CREATE TYPE place AS ENUM ('north', 'south');"
        "CREATE FUNCTION copies_at(place place) RETURNS bigint STABLE LANGUAGE sql"
        " AS $$ SELECT sum(copies) FROM stock AS s WHERE s.shop = $1::text $$;"
        "CREATE FUNCTION films_there_are() RETURNS SETOF text STABLE LANGUAGE sql AS 'SELECT DISTINCT film FROM stock'"
    )
    rows = db.execute(
        "SELECT input ->> 'film', output, error, calls FROM llm.map_with_tools('SELECT film FROM films', "
        "'Is {film} in stock?', '{copies_at(place), films_there_are()}', choices => '{yes,no}', max_calls => 2, "
        "on_error => 'null', max_tokens => 400, temperature => 1.0)"
    ).fetchall()
    assert len(rows) == 4
    for _, output, error, calls in rows:  # how it goes is chance: a model that small may write nothing but spaces
        assert (output in {"yes", "no"}) != (error is not None)
        assert len(calls) <= 2
        for call in calls:
            if call["call"] == "copies_at":
                assert call["result"] == {"north": 3, "south": 4}[call["arguments"]["place"]]
            else:
                assert (call["call"], sorted(call["result"])) == ("films_there_are", ["Alien", "Heat"])

"""What may be asked about: rows, objects and single values of every type, batched or not, on both hosts."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, create_server

Conn = psycopg.Connection[Any]


@pytest.fixture(params=["on", "off"])
def conn(request: pytest.FixtureRequest, used_conn: Conn, cluster: Cluster, host: str) -> Conn:
    """Calls are batched, or not."""
    if request.param == "on" and not (cluster.has_module and host == "plpython"):
        pytest.skip("nothing is batched here")
    if cluster.has_module:
        used_conn.execute("LOAD 'pg_bridge'")
        used_conn.execute(f"SET pg_bridge.batching = {request.param}".encode())
    return used_conn


def sent(engine: EngineDouble, conn: Conn, query: str) -> list[str]:
    """The prompts of a query's calls, without what the ledger knows."""
    engine.reset()
    conn.execute(query.encode())
    return engine.received.prompts


FUNCTIONS = (
    "complete({}, {}, cache => 'off')",
    "is_true({}, {}, cache => 'off')",
    "classify({}, {}, '{{a,b}}', cache => 'off')",
    "score({}, {}, cache => 'off')",
    "extract({}, {}, '{{\"type\": \"object\"}}', cache => 'off')",
)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("value", "cell"),
    [("'Heat'", '"Heat"'), ("f", '"film 1"'), ("n", "12.50"), ("ARRAY[f]", '["film 1"]'), ("NULL", "null")],
)
def test_every_function_takes_a_value(
    conn: Conn, used_engine: EngineDouble, function: str, value: str, cell: str
) -> None:
    call = function.format("'What is {}?'", value)
    query = f"SELECT llm.{call} FROM (VALUES ('film 1', 12.50)) AS films (f, n)"
    assert sent(used_engine, conn, query) == [f'What is input?\n{{"input": {cell}}}']


def test_a_value_of_every_type_is_an_input(conn: Conn) -> None:
    """But for PostgreSQL's internal types, "char" among them."""
    types = conn.execute(
        "SELECT format_type(oid, NULL) FROM pg_type WHERE typtype IN ('b', 'd', 'e', 'r', 'm')"
        " AND typcategory <> 'Z' AND typnamespace = 'pg_catalog'::regnamespace ORDER BY 1"
    ).fetchall()
    assert len(types) > 100
    for (name,) in types:
        conn.execute(f"EXPLAIN SELECT llm.complete('What is {{}}?', NULL::{name})".encode())


def test_parameters_of_no_type_are_values(conn: Conn, used_engine: EngineDouble) -> None:
    used_engine.reset()
    conn.execute("SELECT llm.complete(%s, %s, cache => 'off')", ["What is {}?", "Heat"])
    assert used_engine.received.prompts == ['What is input?\n{"input": "Heat"}']


def test_a_value_comes_as_postgresql_spells_it(conn: Conn, used_engine: EngineDouble) -> None:
    query = """SELECT llm.complete('{}?', v, cache => 'off', reorder => 'none')
               FROM (VALUES ('1.50'::json), ('{"input": 1.50}'), (' [1,  2]'), ('"{"'), ('null'), (' {"input": 2}'))
                    AS t (v)"""
    cells = {line.partition("\n")[2] for line in sent(used_engine, conn, query)}
    assert cells == {f'{{"input": {cell}}}' for cell in ("1.50", "[1,  2]", '"{"', "null", "2")}


def test_without_a_name_in_the_prompt_all_is_sent(conn: Conn, used_engine: EngineDouble) -> None:
    query = "SELECT llm.complete('Sum up.', v, cache => 'off') FROM (VALUES ('long'), (NULL)) AS t (v)"
    assert sorted(sent(used_engine, conn, query)) == ["Sum up.", 'Sum up.\n{"input": "long"}']


def test_the_server_is_named(conn: Conn) -> None:
    for call in ("'{}?', 'other'", "'Well?', server => 'vllm'", "'{}?', 'other', 'vllm'", "'{}?', input => 'other'"):
        conn.execute(f"SELECT llm.complete({call})".encode())
    for call in ("'Well?', server => 'other'", "'{}?', 'vllm', 'other'"):
        with pytest.raises(psycopg.errors.UndefinedObject, match='server "other" does not exist'):
            conn.execute(f"SELECT llm.complete({call})".encode())


@pytest.mark.parametrize(
    ("call", "error", "hint"),
    [
        ("'{f}?', f", psycopg.errors.UndefinedColumn, "Write {} to name it."),
        ("'{a}?', '{\"a\": 1}'", psycopg.errors.UndefinedColumn, "::jsonb"),
        ("'{}?', films", psycopg.errors.InvalidParameterValue, "The columns are: f."),
        ("'{} or {f}?', films", psycopg.errors.InvalidParameterValue, "The columns are: f."),
        ("'{} or {f}?', f", psycopg.errors.UndefinedColumn, "Write {} to name it."),
        ("'{}?'", psycopg.errors.InvalidParameterValue, "Pass it behind the prompt."),
    ],
)
def test_a_prompt_that_names_what_is_not_there(
    conn: Conn, used_engine: EngineDouble, call: str, error: type[psycopg.Error], hint: str
) -> None:
    used_engine.reset()
    with pytest.raises(error) as caught:
        conn.execute(f"SELECT llm.complete({call}) FROM (VALUES ('film 1'), ('film 2')) AS films (f)".encode())
    assert hint in (caught.value.diag.message_hint or "")
    assert used_engine.received.prompts == []


@pytest.mark.parametrize("host", ["multicorn"], indirect=True)
def test_values_are_staged(conn: Conn, used_engine: EngineDouble) -> None:
    used_engine.reset()
    with conn.transaction():
        conn.execute(
            "INSERT INTO llm.rowset (rowset, input) SELECT 'v', to_json(v) FROM (VALUES ('x'), ('y')) AS t (v)"
        )
        options = """'{"cache": "off"}'"""
        scan = f"SELECT output FROM llm.result WHERE rowset = 'v' AND prompt = '{{}}?' AND options = {options}"
        assert len(conn.execute(scan.encode()).fetchall()) == 2
    assert sorted(used_engine.received.prompts) == [f'input?\n{{"input": "{v}"}}' for v in ("x", "y")]


@pytest.mark.parametrize("host", ["plpython"], indirect=True)
@pytest.mark.usefixtures("batching")
def test_values_are_asked_in_one_batch(connect: Connect, engine: EngineDouble) -> None:
    conn = connect()
    create_server(conn, engine.url)
    conn.execute("LOAD 'pg_bridge'")
    texts = [f"film {i % 7}" for i in range(100)]
    rows = conn.execute(
        "SELECT llm.complete('What is {}?', f) FROM unnest(%s::text[]) AS f"
        " WHERE llm.is_true('Is {} good?', f) IS NOT NULL",
        [texts],
    ).fetchall()
    assert len(rows) == 100
    assert len(engine.received.prompts) == 14
    assert len(engine.received.requests) <= 4

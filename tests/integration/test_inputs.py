"""What may be asked about: rows, objects and single values of every type, batched or not, on both hosts."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, create_server

Conn = psycopg.Connection[Any]


@pytest.fixture
def conn(switched_conn: Conn) -> Conn:
    return switched_conn


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


@pytest.mark.some(30)
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


# -- several rows

TABLES = """
CREATE TABLE reviews (id int, film_id int, review text, stars numeric(3, 2));
CREATE TABLE films (id int, title text, year int);
INSERT INTO reviews SELECT i, i % 3, 'review ' || i % 5, 1.50 FROM generate_series(1, 30) AS i;
INSERT INTO films VALUES (0, 'Heat', 1995), (1, 'Alien', 1979);
"""
JOIN = "FROM reviews AS r JOIN films AS f ON f.id = r.film_id"


@pytest.fixture
def tables(conn: Conn) -> Conn:
    conn.execute("DROP TABLE IF EXISTS reviews, films")
    conn.execute(TABLES)
    return conn


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_takes_several_rows(tables: Conn, used_engine: EngineDouble, function: str) -> None:
    call = function.format("'Does {review} fit {title}, {now}?'", """llm.row(r, f, '{"now": [1, {"a": 2}]}'::jsonb)""")
    prompts = sent(used_engine, tables, f"SELECT llm.{call} {JOIN} WHERE r.id = 3")
    assert len(prompts) == 1
    question, _, row = prompts[0].partition("\n")
    assert question == "Does review fit title, now?"
    assert json.loads(row) == {"review": "review 3", "title": "Heat", "now": [1, {"a": 2}]}


def test_columns_follow_the_arguments(tables: Conn, used_engine: EngineDouble) -> None:
    for given, columns in (("r, f", ["id", "stars", "title"]), ("f, r", ["title", "id", "stars"])):
        call = f"llm.complete('{{stars}} {{id}} {{title}}?', llm.row({given}), cache => 'off', reorder => 'none')"
        query = f"""SELECT {call}
                    FROM (SELECT id, stars FROM reviews WHERE id = 3) AS r, (SELECT title FROM films LIMIT 1) AS f"""
        (prompt,) = sent(used_engine, tables, query)
        assert list(json.loads(prompt.partition("\n")[2])) == columns
        assert '"stars": 1.50' in prompt


def test_several_rows_say_what_one_row_says(tables: Conn, used_engine: EngineDouble) -> None:
    """The cells are spelled as they are in a row, so that deduplication and the ledger meet."""
    call = "llm.complete('{stars}?', %s, cache => 'off')"
    query = f"SELECT {call % 'r'}, {call % 'llm.row(r)'}, {call % 'llm.row(s)'}"
    query += " FROM reviews AS r, (SELECT 1.50 AS stars) AS s WHERE id = 1"
    assert set(sent(used_engine, tables, query)) == {'stars?\n{"stars": 1.50}'}


def test_what_llm_row_has_made_stands_in_another(tables: Conn, used_engine: EngineDouble) -> None:
    """A view's column, say."""
    with tables.transaction(force_rollback=True):
        tables.execute(f"CREATE VIEW pairs AS SELECT r.id, llm.row(r, f) AS pair {JOIN}")
        for pair in ("pair", "pair::json", "llm.row(pair)"):
            inputs = f"""llm.row({pair}, '{{"now": 1}}'::jsonb)"""
            call = f"llm.complete('{{review}} {{title}} {{now}}?', {inputs}, cache => 'off')"
            (prompt,) = sent(used_engine, tables, f"SELECT {call} FROM pairs WHERE id = 3")
            assert json.loads(prompt.partition("\n")[2]) == {"review": "review 3", "title": "Heat", "now": 1}


def test_a_null_row_has_the_columns_that_the_prompt_names(tables: Conn, used_engine: EngineDouble) -> None:
    """Of tables and of subqueries, of which nobody knows the columns where they are NULL."""
    for films in ("films", "(SELECT id, title FROM films OFFSET 0)", "(SELECT id, title FROM films)"):
        query = f"""SELECT llm.complete('Does {{review}} fit {{title}}?', llm.row(r, f), cache => 'off')
                    FROM reviews AS r LEFT JOIN {films} AS f ON f.id = r.film_id WHERE r.id IN (2, 3)"""
        rows = [json.loads(prompt.partition("\n")[2]) for prompt in sent(used_engine, tables, query)]
        assert sorted(rows, key=str) == [
            {"review": "review 2", "title": None},
            {"review": "review 3", "title": "Heat"},
        ]


def test_null_rows_only(tables: Conn, used_engine: EngineDouble) -> None:
    query = "SELECT llm.complete('{a}?', llm.row(NULL, NULL::films, NULL::jsonb), cache => 'off')"
    assert sent(used_engine, tables, query) == ['a?\n{"a": null}']
    assert sent(used_engine, tables, "SELECT llm.complete('Well?', llm.row(NULL), cache => 'off')") == ["Well?"]
    query = "SELECT llm.complete('{a}?', llm.row(VARIADIC NULL::jsonb[]), cache => 'off')"
    assert sent(used_engine, tables, query) == ['a?\n{"a": null}']


def test_a_null_row_leaves_the_others_columns_to_a_prompt_without_names(
    tables: Conn, used_engine: EngineDouble
) -> None:
    query = "SELECT llm.complete('Well?', llm.row(f, NULL::reviews), cache => 'off') FROM films AS f WHERE id = 0"
    (prompt,) = sent(used_engine, tables, query)
    assert json.loads(prompt.partition("\n")[2]) == {"id": 0, "title": "Heat", "year": 1995}


@pytest.mark.some(12)
@pytest.mark.parametrize(
    ("call", "error", "message", "hint"),
    [
        ("'{id}?', llm.row(r, f)", psycopg.errors.DuplicateColumn, 'named "id"', "(SELECT id AS other_id, …"),
        ("'Well?', llm.row(r, f)", psycopg.errors.DuplicateColumn, 'named "id"', "name in the prompt"),
        ("'{a}?', llm.row('{\"a\": 1}'::json, '{\"\\u0061\": 1}'::json)", psycopg.errors.DuplicateColumn, '"a"', "AS"),
        ("'{nope}?', llm.row(r, f)", psycopg.errors.UndefinedColumn, "does not exist in the rows", "title, year"),
        (
            "'{title}?', llm.row(r, f.title)",
            psycopg.errors.InvalidParameterValue,
            "argument 2 of llm.row",
            "jsonb_build",
        ),
        ("'{title}?', llm.row('x')", psycopg.errors.InvalidParameterValue, "argument 1 of llm.row", "jsonb_build"),
        (
            "'{title}?', llm.row(r, ARRAY[f])",
            psycopg.errors.InvalidParameterValue,
            "argument 2 of llm.row",
            "jsonb_build",
        ),
        ("'{}?', llm.row(r, f)", psycopg.errors.InvalidParameterValue, "this one is a row", "The columns are: id,"),
    ],
)
def test_what_does_not_fit_together(
    tables: Conn, used_engine: EngineDouble, call: str, error: type[psycopg.Error], message: str, hint: str
) -> None:
    used_engine.reset()
    with pytest.raises(error, match=message) as caught:
        tables.execute(f"SELECT llm.complete({call}) {JOIN}".encode())
    assert hint in (caught.value.diag.message_hint or "")
    assert used_engine.received.prompts == []


def test_a_column_that_two_rows_have_may_be_left_out(tables: Conn, used_engine: EngineDouble) -> None:
    query = (
        f"SELECT llm.complete('Does {{review}} fit {{title}}?', llm.row(r, f), cache => 'off') {JOIN} WHERE r.id = 3"
    )
    assert len(sent(used_engine, tables, query)) == 1


@pytest.mark.parametrize(
    ("parts", "row"),
    [
        ('{"b": 1.50}, {}, { }, { "a" : "é}, {" }', {"b": 1.5, "a": "é}, {"}),
        ('{"b": 1.50}, null, {"a": [{"c": []}, {}]}, null', {"b": 1.5, "a": [{"c": []}, {}]}),
        ("null", {"b": None, "a": None}),
        (' {"b": 1.50, "c": [2], "a": {}} ', {"b": 1.5, "a": {}}),
    ],
)
def test_parts_of_any_spelling(conn: Conn, used_engine: EngineDouble, parts: str, row: dict[str, object]) -> None:
    for given in (f"'[{parts}]'::llm.parts", f"'{{\"\": [{parts}]}}'::jsonb", f"to_json('[{parts}]'::llm.parts)"):
        (prompt,) = sent(used_engine, conn, f"SELECT llm.complete('{{a}} {{b}}?', {given}, cache => 'off')")
        assert json.loads(prompt.partition("\n")[2]) == row


@pytest.mark.parametrize("forged", ["x", '{"a": 1}', "[1]", '["{"]', "[[]]", "7", "null"])
def test_forged_parts(conn: Conn, used_engine: EngineDouble, forged: str) -> None:
    used_engine.reset()
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("SELECT llm.complete('{b}?', %s::llm.parts, cache => 'off')", [forged])
    assert caught.value.sqlstate == ("22P02" if forged == "x" else "42703" if forged[0] != "[" else "22023")
    assert used_engine.received.prompts == []
    assert sent(used_engine, conn, "SELECT llm.complete('Well?', '[]'::llm.parts, cache => 'off')") == ["Well?"]


def test_parts_travel_in_binary(conn: Conn) -> None:
    """Drivers ask for it, and so does COPY."""
    cursor = conn.cursor(binary=True)
    rows = cursor.execute("""SELECT llm.row('{"a": 1.50}'::json, NULL)""").fetchall()
    assert rows == [(b'[{"a": 1.50}, null]',)]
    with conn.transaction(force_rollback=True):
        conn.execute("CREATE TABLE kept (parts llm.parts)")
        with conn.cursor().copy("COPY (SELECT llm.row('{\"a\": 1}'::json)) TO STDOUT (FORMAT binary)") as out:
            data = b"".join(out)
        with conn.cursor().copy("COPY kept FROM STDIN (FORMAT binary)") as into:
            into.write(data)
        assert conn.execute("SELECT parts::text FROM kept").fetchall() == [('[{"a": 1}]',)]
        with (
            pytest.raises(psycopg.errors.InvalidTextRepresentation),
            conn.cursor().copy("COPY kept FROM STDIN (FORMAT binary)") as into,
        ):
            into.write(data.replace(b"}", b"]"))


@pytest.mark.parametrize("host", ["plpython"], indirect=True)
@pytest.mark.usefixtures("batching")
def test_several_rows_are_asked_in_one_batch(connect: Connect, engine: EngineDouble) -> None:
    conn = connect()
    create_server(conn, engine.url)
    conn.execute("LOAD 'pg_bridge'")
    conn.execute(TABLES)
    for joined, questions in (
        (JOIN, 10),
        (JOIN.replace("JOIN", "LEFT JOIN"), 15),
        (f"{JOIN} WHERE llm.is_true('Is {{review}} by {{year}}?', llm.row(r, f)) IS NOT NULL", 20),
    ):
        engine.reset()
        conn.execute("SELECT llm.cache_clear()")
        rows = conn.execute(
            f"SELECT llm.complete('Does {{review}} fit {{title}}?', llm.row(r, f)) {joined}".encode()
        ).fetchall()
        assert len(rows) == (30 if "LEFT" in joined else 20)
        assert len(set(engine.received.prompts)) == len(engine.received.prompts) == questions
        assert len(engine.received.requests) <= 6
    engine.reset()
    conn.execute(
        f"SELECT llm.complete('Does {{text}} fit {{title}}?', llm.row(t, f)) {JOIN},"
        " LATERAL (SELECT review || ' ' || r.id AS text) AS t"
    )
    begin = {prompt[:40] for prompt in engine.received.prompts}
    assert begin == {f'Does text fit title?\n{{"title": "{t}", "text"'[:40] for t in ("Heat", "Alien")}
    plan = "".join(
        line
        for (line,) in conn.execute(
            f"EXPLAIN (COSTS OFF) SELECT llm.complete('{{review}} {{title}}?', llm.row(r, f)) {JOIN}".encode()
        )
    )
    assert plan.startswith("Custom Scan (LLM Batch)")


@pytest.mark.parametrize("host", ["multicorn"], indirect=True)
def test_several_rows_are_staged(tables: Conn, used_engine: EngineDouble) -> None:
    used_engine.reset()
    with tables.transaction():
        tables.execute(
            "INSERT INTO llm.rowset (rowset, input) SELECT 'v', llm.row(r, f)"
            " FROM reviews AS r LEFT JOIN films AS f ON f.id = r.film_id WHERE r.id IN (2, 3) ORDER BY r.id"
        )
        options = """'{"cache": "off"}'"""
        scan = f"SELECT 1 FROM llm.result WHERE rowset = 'v' AND prompt = '{{title}}?' AND options = {options}"
        assert len(tables.execute(scan.encode()).fetchall()) == 2
    assert sorted(used_engine.received.prompts) == ['title?\n{"title": "Heat"}', 'title?\n{"title": null}']

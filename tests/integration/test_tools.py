"""llm.map_with_tools: SQL functions that a model may call before it answers; on the PL/Python host."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, create_server

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

TABLES = """
CREATE TABLE films (id int PRIMARY KEY, film text);
INSERT INTO films VALUES (1, 'Heat'), (2, 'Alien'), (3, 'Heat'), (4, NULL);
CREATE TABLE stock (film text, shop text, copies int);
INSERT INTO stock VALUES ('Heat', 'north', 3), ('Heat', 'south', 4), ('Alien', 'north', 0);
CREATE FUNCTION stock_of(film text) RETURNS bigint STABLE LANGUAGE sql
    AS $$ SELECT sum(copies) FROM stock AS s WHERE s.film = $1 $$;
COMMENT ON FUNCTION stock_of IS 'copies on the shelves of all shops';
CREATE FUNCTION shops(film text, at_least int DEFAULT 1) RETURNS TABLE (shop text, copies int) STABLE LANGUAGE sql
    AS $$ SELECT shop, copies FROM stock AS s WHERE s.film = $1 AND s.copies >= $2 ORDER BY 1 $$;
"""


def row_of(prompt: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads("{" + prompt.rpartition("\n{")[2])
    return row


def calls(name: str, **arguments: object) -> str:
    return json.dumps({"next": {"call": name, "arguments": arguments}})


def says(answer: str) -> str:
    return json.dumps({"next": {"answer": answer}})


def look_up(prompt: str) -> str:
    """Looks at the stock of a film, and where there is some at the shops that have it."""
    row = row_of(prompt)
    if row["film"] is None:
        return says("no film")
    if "call 1" not in row:
        return calls("stock_of", film=row["film"])
    if not row["result 1"]:
        return says("sold out")
    if "call 2" not in row:
        return calls("shops", film=row["film"])
    return says(", ".join(shop["shop"] for shop in row["result 2"]))


@pytest.fixture
def host() -> str:
    """Functions are called on this host only."""
    return "plpython"


@pytest.fixture
def conn(db: Conn, engine: EngineDouble) -> Conn:
    create_server(db, engine.url)
    db.execute(TABLES)
    engine.behaviour.answer = look_up
    return db


def test_functions_are_called_before_the_answer(conn: Conn, engine: EngineDouble) -> None:
    got = conn.execute(
        "SELECT row_id, output, error, calls FROM llm.map_with_tools('SELECT film FROM films ORDER BY id', "
        "'Where can {film} be had?', '{stock_of(text), \"shops(text, int)\"}') ORDER BY row_id"
    ).fetchall()
    heat = [
        {"call": "stock_of", "arguments": {"film": "Heat"}, "result": 7},
        {
            "call": "shops",
            "arguments": {"film": "Heat"},
            "result": [{"shop": "north", "copies": 3}, {"shop": "south", "copies": 4}],
        },
    ]
    alien = [{"call": "stock_of", "arguments": {"film": "Alien"}, "result": 0}]
    assert got == [
        (1, "north, south", None, heat),
        (2, "sold out", None, alien),
        (3, "north, south", None, heat),
        (4, "no film", None, []),
    ]
    # Equal rows are asked once, and the calls of a round are one batch.
    assert len(engine.received.prompts) == 3 + 2 + 1
    run = conn.execute("SELECT rows, unique_prompts, tools FROM llm.last_run()").fetchone()
    assert run == (4, 6, {"rounds": 3, "calls": 3, "failed": 0})


ASK = "SELECT output, error, calls FROM llm.map_with_tools(%s, 'Well?', %s::text::regprocedure[]) ORDER BY row_id"


def one(conn: Conn, engine: EngineDouble, tool: str, **arguments: object) -> Any:
    """What one call by a model of a function returns to it."""
    name = tool.partition("(")[0].rpartition(".")[2]

    shown: list[Any] = []

    def call_once(prompt: str) -> str:
        row = row_of(prompt)
        shown.append(row.get("result 1"))
        return says("fine") if "call 1" in row else calls(name, **arguments)

    engine.behaviour.answer = call_once
    (row,) = conn.execute(ASK, ("SELECT 1 AS a", f'{{"{tool}"}}')).fetchall()
    assert row[:2] == ("fine", None)
    assert row[2][0]["result"] == shown[-1]
    return shown[-1]


def test_what_is_sent(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = lambda prompt: (
        says("here") if "call 1" in row_of(prompt) else calls("stock_of", **row_of(prompt))
    )
    conn.execute(
        "SELECT * FROM llm.map_with_tools('SELECT film, id FROM films WHERE id < 3', 'Where is {film}?', "
        "'{stock_of(text), \"shops(text, int)\"}', choices => '{here,there}', max_calls => 1)"
    )
    head = (
        "Before you answer you may call these functions, one at a time. What they return is added to the row.\n"
        "- stock_of(film text) returns bigint: copies on the shelves of all shops\n"
        "- shops(film text, at_least integer or null) returns TABLE(shop text, copies integer)\n"
        'Reply {"next": {"call": …, "arguments": {…}}} to call one, '
        'and {"next": {"answer": …}} to answer this question:\n'
        "Where is film?\n"
    )
    called = '"call 1": {"call": "stock_of", "arguments": {"film": "Heat"}}, "result 1": 7'
    assert head + '{"film": "Heat"}' in engine.received.prompts
    assert head + f'{{"film": "Heat", {called}, "calls left": 0}}' in engine.received.prompts
    first, last = (engine.received.bodies[place]["structured_outputs"]["json"] for place in (0, -1))
    turns = first["properties"]["next"]["anyOf"]
    assert [each["properties"].get("call", {}).get("enum") for each in turns] == [["stock_of"], ["shops"], None]
    assert last["properties"]["next"]["properties"] == {"answer": {"type": "string", "enum": ["here", "there"]}}


def test_after_so_many_calls_there_is_an_answer(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = lambda prompt: (
        says("enough") if "calls left" in row_of(prompt) else calls("stock_of", film="Heat")
    )
    query = (
        "SELECT output, jsonb_array_length(calls) "
        "FROM llm.map_with_tools('SELECT 1 AS a', 'Well?', '{stock_of(text)}'%s)"
    )
    assert conn.execute(query % "").fetchall() == [("enough", 5)]
    assert conn.execute(query % ", max_calls => 2").fetchall() == [("enough", 2)]
    # Who wants more even so has no answer.
    engine.behaviour.answer = lambda _: calls("stock_of", film="Heat")
    engine.behaviour.ignore_choices = True
    with pytest.raises(psycopg.DataError, match="could not answer row 1") as caught:
        conn.execute(query % ", cache => 'off'")
    assert caught.value.diag.message_detail in {
        "the answer is neither an answer to the question nor a call of a function",
        "the engine's answer is not JSON of the schema",
    }


TYPES = """
CREATE TYPE mood AS ENUM ('good', 'it''s bad');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN small AS int CHECK (VALUE < 10);
CREATE FUNCTION shown(day date, n numeric, yes boolean, m mood, j jsonb, p pair, l text[], s small, c char(3))
    RETURNS text STABLE LANGUAGE sql AS $$ SELECT concat_ws('|', $1, $2, $3, $4, $5, $6, $7, $8, $9) $$;
CREATE FUNCTION several(text, VARIADIC more int[]) RETURNS pair STABLE LANGUAGE sql
    AS $$ SELECT (cardinality($2), $1)::pair $$;
CREATE SCHEMA "my ""S";
CREATE FUNCTION "my ""S"."it's {a} $1"("the ""x" text) RETURNS text STABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION twice(a text) RETURNS text STABLE LANGUAGE sql AS $$ SELECT 'the other one' $$;
CREATE FUNCTION twice(a text, b int DEFAULT 1 + 1) RETURNS text STABLE LANGUAGE sql AS $$ SELECT a || b $$;
CREATE FUNCTION long(n int) RETURNS text STABLE LANGUAGE sql AS $$ SELECT repeat('é', n) $$;
CREATE FUNCTION endless() RETURNS SETOF bigint STABLE LANGUAGE sql AS $$ SELECT generate_series(1, 100000000000) $$;
CREATE FUNCTION nothing() RETURNS SETOF pair STABLE LANGUAGE sql AS $$ SELECT 1, 'a' WHERE false $$;
CREATE FUNCTION strict_one(a text) RETURNS text STABLE STRICT LANGUAGE sql AS $$ SELECT 'never' $$;
CREATE FUNCTION raw() RETURNS json STABLE LANGUAGE sql AS $$ SELECT '"\\u0000"'::json $$;
"""


def test_arguments_are_values_of_the_function_s_types(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(TYPES.replace("\\\\", "\\"))
    shown = "shown(date,numeric,boolean,mood,jsonb,pair,text[],small,character)"
    given = {"day": "2026-02-28", "n": 1.5, "yes": False, "m": "it's bad", "j": '{"a": [1]}', "p": '{"a": 1, "b": "x"}'}
    given |= {"l": ["a", 'b"'], "s": 9, "c": "abc"}
    assert one(conn, engine, shown, **given) == '2026-02-28|1.5|f|it\'s bad|{"a": [1]}|(1,x)|{a,"b\\""}|9|abc'
    for name, value, problem in (
        ("day", "2026-02-30", "date/time field value out of range"),
        ("n", "1; DROP TABLE films", "invalid input syntax for type numeric"),
        ("s", 10, 'violates check constraint "small_check"'),
        ("m", "worse", "invalid input value for enum"),
        ("j", "{", "an argument is no JSON"),
    ):
        assert problem in one(conn, engine, shown, **given | {name: value})["error"]
    assert one(conn, engine, "several(text,int[])", **{"argument 1": "x", "more": [1, 2]}) == {"a": 2, "b": "x"}
    assert one(conn, engine, "twice(text,int)", a="x'); DROP TABLE films; --") == "x'); DROP TABLE films; --2"
    assert one(conn, engine, "twice(text,int)", a="x", b=None) == "x2"
    assert one(conn, engine, "twice(text,int)", a="x", b=7) == "x7"
    assert one(conn, engine, "strict_one(text)", a=None) is None
    assert one(conn, engine, "strict_one(text)") == {"error": 'strict_one needs the argument "a"'}
    assert one(conn, engine, "strict_one(text)", b=1) == {"error": 'strict_one has no argument "b"'}
    with pytest.raises(psycopg.errors.AmbiguousFunction):  # as in any SQL: the other one would do, too
        one(conn, engine, "twice(text)", a="x")
    assert one(conn, engine, "nothing()") == []
    assert one(conn, engine, "raw()") == {"error": "the result is no JSON that jsonb can hold"}
    engine.behaviour.answer = None
    made = conn.execute(ASK, ("SELECT 1 AS a", '{"\\"my \\"\\"S\\".\\"it\'s {a} $1\\"(text)"}')).fetchone()
    assert made is not None
    assert made[2][0]["arguments"] == {'the "x': made[2][0]["result"]}


def test_a_result_is_cut(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(TYPES.replace("\\\\", "\\"))
    assert one(conn, engine, "long(int)", n=2047) == "é" * 2047
    assert one(conn, engine, "long(int)", n=2048) == {"beginning of a longer result": '"' + "é" * 2047}
    endless = one(conn, engine, "endless()")["beginning of a longer result"]
    assert endless.startswith("[1, 2, 3, ")
    assert len(endless) == 4096


def test_what_cannot_be_called_is_told_before_anything_is_asked(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(
        "CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'SELECT 1';"
        "CREATE FUNCTION any_of(anyelement) RETURNS text STABLE LANGUAGE sql AS 'SELECT 1::text';"
        "CREATE SCHEMA other; CREATE FUNCTION other.stock_of(text) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';"
        "CREATE PROCEDURE does() LANGUAGE sql AS ''"
    )
    for tools, said in (
        ("{writes()}", 'function "writes" cannot be called by a model: it is VOLATILE'),
        ("{any_of(anyelement)}", "one of its arguments is of no single type"),
        ("{sum(int)}", "is no plain function"),
        ("{does()}", "is no plain function"),
        ("{pg_catalog.json_in(cstring)}", "one of its arguments is of no single type"),
        ('{"stock_of(text)","other.stock_of(text)"}', 'two of the functions are called "stock_of"'),
        ("{llm.last_errors()}", "it asks a model itself, or serves one that does"),
        ("{99999999}", "there is no such function"),
        ("{}", "tools are 1 to 64 functions"),
        ("{NULL}", "tools are 1 to 64 functions"),
        (None, "tools are 1 to 64 functions"),
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=re.escape(said)):
            conn.execute(ASK, ("SELECT 1 AS a", tools))
    assert engine.received.prompts == []


HOSTILE = """
CREATE TABLE notes (note text);
CREATE SEQUENCE numbers;
CREATE FUNCTION note(what text) RETURNS text LANGUAGE sql AS $$ INSERT INTO notes VALUES (what) RETURNING note $$;
CREATE FUNCTION sly(what text) RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN note(what); END $$;
CREATE FUNCTION slier(what text) RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN
    PERFORM set_config('transaction_read_only', 'off', false); RETURN note(what); END $$;
CREATE FUNCTION counts() RETURNS bigint STABLE LANGUAGE sql AS $$ SELECT nextval('numbers') $$;
CREATE FUNCTION fails() RETURNS int STABLE LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'no such film' USING DETAIL = 'secret', HINT = 'secret'; END $$;
CREATE FUNCTION sleeps() RETURNS text STABLE LANGUAGE sql AS $$ SELECT pg_sleep(60)::text $$;
"""


def test_a_function_writes_nothing_and_its_errors_are_told_to_the_model(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(HOSTILE)
    with conn.transaction():
        read_only = "in a read-only transaction"
        assert read_only in one(conn, engine, "sly(text)", what="x")["error"]
        assert "read-write mode" in one(conn, engine, "slier(text)", what="x")["error"]
        assert read_only in one(conn, engine, "counts()")["error"]
        assert one(conn, engine, "fails()") == {"error": "ERROR: no such film"}
        run = conn.execute("SELECT tools FROM llm.last_run()").fetchone()
        assert run == ({"rounds": 2, "calls": 1, "failed": 1},)
        assert conn.execute("SHOW transaction_read_only").fetchone() == ("off",)
        conn.execute("INSERT INTO notes VALUES ('mine')")
    assert conn.execute("SELECT note FROM notes").fetchall() == [("mine",)]


WILD = """
CREATE FUNCTION sets() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN
    PERFORM set_config('work_mem', '77MB', false), set_config('search_path', 'evil', false),
        set_config('role', 'pg_monitor', false), pg_notify('heard', 'x'), pg_advisory_xact_lock(7);
    RETURN 'set'; END $$;
CREATE FUNCTION asserts() RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN ASSERT false, 'not so'; RETURN 1; END $$;
CREATE FUNCTION raises(code text) RETURNS int STABLE LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'it is %', code USING ERRCODE = code; END $$;
"""


def test_what_a_function_does_to_the_session_is_rolled_back(conn: Conn, engine: EngineDouble) -> None:
    """Its STABLE is a promise; settings, a role, notifications and locks are no writing to PostgreSQL."""
    conn.execute(WILD)
    with conn.transaction():
        assert one(conn, engine, "sets()") == "set"
        got = conn.execute("SELECT current_user = session_user, current_setting('work_mem') = '77MB'").fetchone()
        assert got == (True, False)
        assert "evil" not in str(conn.execute("SHOW search_path").fetchone())
        assert conn.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


def test_errors_of_a_function_end_the_statement_only_if_they_are_not_its_own(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(WILD)
    assert one(conn, engine, "asserts()") == {"error": "ERROR: not so"}
    # XX000 is what an extension raises that names no code, as http does; 58P01 is a file that is not there.
    for told in ("XX000", "58P01", "54001", "P0001"):
        assert one(conn, engine, "raises(text)", code=told) == {"error": f"ERROR: it is {told}"}
    for ends in ("XX001", "58030", "53100", "40001", "57P01"):
        with pytest.raises(psycopg.Error, match=f"it is {ends}"):
            one(conn, engine, "raises(text)", code=ends)


def test_numbers_that_python_cannot_hold_are_no_trouble_to_the_statement(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(
        "CREATE FUNCTION told(n float, j jsonb) RETURNS text STABLE LANGUAGE sql AS $$ SELECT concat_ws('|', $1, $2) $$"
    )
    exact = "[1.00000000000000000000001]"
    assert one(conn, engine, "told(float,jsonb)", n=1, j=exact) == f"1|{exact}"
    engine.behaviour.answer = lambda prompt: (
        says("fine")
        if "call 1" in row_of(prompt)
        else '{"next": {"call": "told", "arguments": {"n": 1e400, "j": "1"}}}'
    )
    got = conn.execute(ASK, ("SELECT 1 AS a", '{"told(float,jsonb)"}')).fetchall()
    assert got[0][2][0]["result"] == {"error": "a number in the arguments is too large"}


def test_a_function_that_takes_too_long_ends_the_statement(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(HOSTILE)
    conn.execute("SET statement_timeout = 700")
    with pytest.raises(psycopg.errors.QueryCanceled):
        one(conn, engine, "sleeps()")
    conn.execute("RESET statement_timeout")
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_functions_are_called_as_the_caller(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(
        "DROP ROLE IF EXISTS teller; CREATE ROLE teller; GRANT USAGE ON FOREIGN SERVER vllm TO teller;"
        "GRANT SELECT ON stock TO teller; ALTER TABLE stock ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY north ON stock USING (shop = 'north');"
        "CREATE FUNCTION who() RETURNS text STABLE LANGUAGE sql AS 'SELECT current_user::text';"
        "CREATE FUNCTION hidden() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM films';"
        "CREATE FUNCTION kept() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';"
        "REVOKE EXECUTE ON FUNCTION kept() FROM PUBLIC; CREATE SCHEMA private;"
        "CREATE FUNCTION private.f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';"
        "CREATE VIEW seen AS SELECT calls FROM llm.map_with_tools('SELECT 2 AS a', 'Well?', '{who()}');"
        "GRANT SELECT ON seen TO teller"
    )
    (inner,) = conn.execute("SELECT 'private.f()'::regprocedure::oid").fetchall()
    conn.execute("SET ROLE teller")
    try:
        assert one(conn, engine, "who()") == "teller"
        (seen,) = conn.execute("SELECT calls -> 0 ->> 'result' FROM seen").fetchall()
        assert seen == ("teller",)
        assert one(conn, engine, "stock_of(text)", film="Heat") == 3
        assert one(conn, engine, "hidden()") == {"error": "ERROR: permission denied for table films"}
        for tool in ("{kept()}", f"{{{inner[0]}}}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(ASK, ("SELECT 1 AS a", tool))
    finally:
        conn.execute("RESET ROLE; DROP OWNED BY teller; DROP ROLE teller")


def test_an_answer_is_found_again_unless_what_was_returned_has_changed(
    conn: Conn, engine: EngineDouble, asked: Callable[[], int]
) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent')")
    query = (
        "SELECT output FROM llm.map_with_tools('SELECT film FROM films WHERE id < 3', '{film}?', '{stock_of(text)}', "
        "max_requests => %s) ORDER BY row_id"
    )
    engine.behaviour.answer = lambda prompt: (
        says(str(row_of(prompt)["result 1"])) if "call 1" in row_of(prompt) else calls("stock_of", **row_of(prompt))
    )
    assert conn.execute(query, [10]).fetchall() == [("7",), ("0",)]
    assert asked() == 4
    assert conn.execute(query, [0]).fetchall() == [("7",), ("0",)]
    conn.execute("UPDATE stock SET copies = 1 WHERE film = 'Alien'")
    assert conn.execute(query, [1]).fetchall() == [("7",), ("1",)]
    assert asked() == 1  # the question that follows the changed result
    conn.execute("UPDATE stock SET copies = copies + 1")
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match="max_requests"):
        conn.execute(query, [1])


def test_rows_without_an_answer(conn: Conn, engine: EngineDouble) -> None:
    query = (
        "SELECT film, output, error FROM llm.map_with_tools('SELECT film, id FROM films', 'Well?', '{stock_of(text)}', "
        "on_error => %s) AS m, jsonb_to_record(input) AS r (film text) ORDER BY row_id"
    )
    engine.behaviour.answer = lambda prompt: "[]" if '"Alien"' in prompt else says("fine")
    got = conn.execute(query, ["null"]).fetchall()
    assert [(film, output) for film, output, _ in got] == [
        ("Heat", "fine"),
        ("Alien", None),
        ("Heat", "fine"),
        (None, "fine"),
    ]
    assert "JSON of the schema" in got[1][2]
    with pytest.raises(psycopg.DataError, match="could not answer row 2"):
        conn.execute(query, ["fail"])
    assert conn.execute(ASK, ("SELECT 1 AS a WHERE false", "{stock_of(text)}")).fetchall() == []
    with pytest.raises(psycopg.errors.UndefinedColumn, match='column "nope" does not exist'):
        conn.execute("SELECT * FROM llm.map_with_tools('SELECT 1 AS a', '{nope}', '{stock_of(text)}')")


def test_a_cursor_is_read_by_the_role_that_opened_it(conn: Conn, engine: EngineDouble) -> None:
    """Else a function that one role has named would run as another."""
    engine.behaviour.answer = lambda _: says("fine")
    conn.execute("DROP ROLE IF EXISTS teller; CREATE ROLE teller")
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(
                "DECLARE c CURSOR FOR SELECT (llm._map_with_tools(rows, columns, 'Well?', "
                "'{stock_of(text)}'::regprocedure[]::oid[], '{}', false)).* "
                "FROM llm._open('SELECT generate_series(1, 100) AS a')"
            )
            assert len(conn.execute("FETCH 32 FROM c").fetchall()) == 32
            conn.execute("SET ROLE teller")
            (row,) = conn.execute("FETCH 1 FROM c").fetchall()
            assert row[-1][:2] == ["42501", "llm.map_with_tools was begun by another role"]
    finally:
        conn.execute("RESET ROLE; DROP ROLE teller")


def test_odd_row_sets(conn: Conn, engine: EngineDouble) -> None:
    """No column, NULLs alone, each row for itself, a column that is called as a call is, more than a window."""
    engine.behaviour.answer = None
    for query, options, rows, prompts in (
        ("SELECT FROM films", "", 4, 2),
        ("SELECT NULL::text AS a FROM films", "", 4, 2),
        ("SELECT 1 AS a FROM films", ", dedup => false", 4, 8),
        ('SELECT film AS "call 1", \'é\' AS "result" FROM films', ", reorder => 'none'", 4, 6),
        ("SELECT n FROM generate_series(1, 7) AS n", ", window_rows => 2", 7, 14),
    ):
        engine.received.prompts.clear()
        got = conn.execute(
            f"SELECT row_id, calls -> 0 ->> 'call' FROM llm.map_with_tools(%s, 'Well?', '{{stock_of(text)}}'{options}) "
            "ORDER BY row_id",
            [query],
        ).fetchall()
        assert got == [(row, "stock_of") for row in range(1, rows + 1)]
        assert len(engine.received.prompts) == prompts


@pytest.mark.slow
def test_a_statement_that_waits_for_a_later_round_is_cancelled(
    conn: Conn, connect: Connect, engine: EngineDouble
) -> None:
    engine.behaviour.answer = lambda prompt: says("x") if "call 1" in prompt else calls("stock_of", film="Heat")
    query = "SELECT * FROM llm.map_with_tools('SELECT 1 AS a', 'Well?', '{stock_of(text)}')"
    conn.execute(query)  # so that all is known of the engine
    conn.execute("SELECT llm.cache_clear()")
    engine.behaviour.hang_after = 1
    asking = connect()
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            asking.execute(query)
        except psycopg.Error as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while len(engine.received.prompts) < 4:
        time.sleep(0.01)
    asking.cancel()
    thread.join(60)
    assert isinstance(failed[0], psycopg.errors.QueryCanceled)
    engine.behaviour.hang, engine.behaviour.hang_after = False, -1
    assert len(asking.execute(query).fetchall()) == 1


def test_an_engine_that_is_not_there_is_told_as_ever(conn: Conn) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (SET endpoint 'http://127.0.0.1:9/v1', ADD patience_s '0')")
    with pytest.raises(psycopg.OperationalError, match="could not connect to the engine"):
        conn.execute("SELECT * FROM llm.map_with_tools('TABLE films', 'Well?', '{stock_of(text)}')")
    conn.execute("ALTER SERVER vllm OPTIONS (DROP patience_s)")


def test_a_function_may_ask_something_itself(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(
        "CREATE FUNCTION mood_of(film text) RETURNS text STABLE LANGUAGE plpgsql"
        " AS $$ BEGIN RETURN llm.complete('The mood of {}?', film); END $$"
    )
    engine.behaviour.answer = lambda prompt: (
        "grim"
        if "mood" in prompt.partition("\n")[0]
        else says(row_of(prompt)["result 1"])
        if "call 1" in prompt
        else calls("mood_of", film="Heat")
    )
    assert conn.execute(ASK, ("SELECT 1 AS a", "{mood_of(text)}")).fetchall()[0][:2] == ("grim", None)
    assert conn.execute("SELECT rows, tools ->> 'rounds' FROM llm.last_run()").fetchone() == (1, "2")


def test_rows_are_read_on_after_a_call_that_failed(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(HOSTILE)
    engine.behaviour.answer = lambda prompt: says("fine") if "call 1" in prompt else calls("fails")
    got = conn.execute(
        "SELECT row_id, calls -> 0 -> 'result' ->> 'error' FROM llm.map_with_tools("
        "'SELECT n FROM generate_series(1, 5) AS n', 'Well?', '{fails()}', window_rows => 2) ORDER BY 1"
    ).fetchall()
    assert got == [(row, "ERROR: no such film") for row in range(1, 6)]
    assert conn.execute("SELECT tools FROM llm.last_run()").fetchone() == ({"rounds": 6, "calls": 3, "failed": 3},)

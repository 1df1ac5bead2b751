"""Calls of llm.complete and its kin in any query: how many questions reach the engine, and what is right about them.

The counts are those that are necessary: one question for each distinct text among the rows that the query cannot do
without. The plans behind them stand in tests/regress/expected/batching.out.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database, create_server
from tests.integration.batch_functions import calls, make_functions, make_tables

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

ROWS, TEXTS, PRODUCTS = 600, 90, 20

TABLES = f"""
CREATE TABLE products (product_id int PRIMARY KEY, name text, sold boolean);
CREATE TABLE reviews (id int PRIMARY KEY, product_id int, stars int, review text, created date);
INSERT INTO products SELECT i, 'product ' || i, i <= 2 FROM generate_series(1, {PRODUCTS}) AS i;
INSERT INTO reviews SELECT i, 1 + i % {PRODUCTS}, 1 + i % 5, 'text ' || i % {TEXTS}, date '2026-01-01' + i
FROM generate_series(1, {ROWS}) AS i;
CREATE VIEW insight AS SELECT r.*, llm.classify('What is {{review}}?', r, '{{good,bad}}') AS sentiment,
                              llm.complete('Sum up {{review}}', r) AS summary FROM reviews AS r;
CREATE FUNCTION summed(r reviews) RETURNS text LANGUAGE sql STABLE AS
    $$ SELECT llm.complete('Sum up {{review}}', r) $$;
CREATE FUNCTION loop() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint := 0;
    x text;
BEGIN
    FOR x IN SELECT llm.complete('Sum up {{review}}', r) FROM reviews AS r WHERE stars = 1 LOOP n := n + 1; END LOOP;
    RETURN n;
END $$;
CREATE TABLE kept (id int, answer text);
ANALYZE;
"""


@pytest.fixture
def host() -> str:
    """The functions that are batched are those of the PL/Python host."""
    return "plpython"


@pytest.fixture
def conn(batching: Database, db: Conn, engine: EngineDouble) -> Conn:
    create_server(db, engine.url)
    db.execute(TABLES)
    return db


@pytest.fixture(scope="module")
def shared(shared_conn: Conn) -> Conn:
    shared_conn.execute(TABLES)
    return shared_conn


@dataclass(frozen=True)
class Kind:
    """A kind of query.

    Attributes:
        query: One of them.
        questions: How many it cannot do without.
    """

    query: str
    questions: int


def distinct(condition: str) -> str:
    """A subquery that counts the distinct texts among some rows."""
    return f"SELECT count(DISTINCT review) FROM reviews AS r WHERE {condition}"


KINDS = {
    "target list": Kind("SELECT llm.complete('Sum up {review}', r) FROM reviews AS r", TEXTS),
    "a value": Kind("SELECT llm.complete('Sum up {}', review) FROM reviews", TEXTS),
    "several rows": Kind(
        "SELECT llm.complete('Does {review} fit {sold}?', llm.row(r, p))"
        " FROM reviews AS r JOIN products AS p USING (product_id)",
        TEXTS + 18,  # of each kind of product
    ),
    "whole statement": Kind("SELECT llm.complete('Sum up {review}', r), summed(r) FROM reviews AS r", TEXTS),
    "where": Kind("SELECT id FROM reviews AS r WHERE llm.is_true('Is {review} kind?', r) AND stars = 1", 18),
    "or": Kind("SELECT id FROM reviews AS r WHERE stars > 1 OR llm.is_true('Is {review} kind?', r)", 18),
    "not": Kind("SELECT id FROM reviews AS r WHERE NOT (stars > 1 AND llm.is_true('Is {review} kind?', r))", 72),
    "aggregate": Kind("SELECT avg(llm.score('How good is {review}?', r)) FROM reviews AS r", TEXTS),
    "filter": Kind("SELECT count(*) FILTER (WHERE llm.is_true('Is {review} kind?', r)) FROM reviews AS r", TEXTS),
    "filtered argument": Kind(
        "SELECT sum(llm.score('How good is {review}?', r)) FILTER (WHERE stars = 2) FROM reviews AS r", 18
    ),
    "group by": Kind(
        "SELECT llm.classify('What is {review}?', r, '{good,bad}') AS s, count(*) FROM reviews AS r GROUP BY s", TEXTS
    ),
    "having": Kind(
        "SELECT product_id FROM reviews GROUP BY product_id"
        " HAVING llm.is_true('Is {what} kind?', jsonb_build_object('what', product_id / 2))",
        PRODUCTS // 2 + 1,
    ),
    "order by": Kind("SELECT id FROM reviews AS r ORDER BY llm.score('How good is {review}?', r), id", TEXTS),
    "case": Kind(
        "SELECT CASE WHEN stars = 1 THEN llm.complete('Sum up {review}', r) WHEN stars = 2 THEN 'none' END"
        " FROM reviews AS r",
        18,
    ),
    "else": Kind(
        "SELECT CASE stars WHEN 1 THEN 'one' WHEN 2 THEN 'two' ELSE llm.complete('Sum up {review}', r) END"
        " FROM reviews AS r",
        54,
    ),
    "coalesce": Kind(
        "SELECT coalesce(nullif(stars, 1)::text, llm.complete('Sum up {review}', r)) FROM reviews AS r", 18
    ),
    "window": Kind(
        "SELECT sum(llm.score('How good is {review}?', r)) OVER (PARTITION BY stars) FROM reviews AS r", TEXTS
    ),
    "limit": Kind("SELECT llm.complete('Sum up {review}', r) FROM reviews AS r LIMIT 10", 10),
    "limit and offset": Kind("SELECT llm.complete('Sum up {review}', r) FROM reviews AS r LIMIT 5 OFFSET 10", 15),
    "top n": Kind("SELECT llm.complete('Sum up {review}', r) FROM reviews AS r ORDER BY created DESC LIMIT 20", 20),
    "limit and where": Kind(  # windows of 16, 32, …
        "SELECT id FROM reviews AS r WHERE llm.is_true('Is {review} kind?', r) LIMIT 3", 16
    ),
    "exists": Kind("SELECT EXISTS (SELECT FROM reviews AS r WHERE llm.is_true('Is {review} kind?', r))", 16),
    "view": Kind("SELECT sentiment, count(*) FROM insight WHERE stars <= 2 GROUP BY 1", 36),
    "view's other columns": Kind("SELECT count(*), max(review) FROM insight", 0),
    "two calls": Kind("SELECT sentiment, summary FROM insight WHERE stars = 1", 36),
    "the same call twice": Kind("SELECT sentiment, upper(sentiment) FROM insight WHERE sentiment = 'good'", TEXTS),
    "nested calls": Kind(
        "SELECT llm.complete('Turn {x}', jsonb_build_object('x', llm.classify('What is {review}?', r, '{good,bad}')))"
        " FROM reviews AS r WHERE stars = 1",
        20,
    ),
    "subquery": Kind(
        "SELECT max(x) FROM (SELECT llm.complete('Sum up {review}', r) AS x FROM reviews AS r) AS s", TEXTS
    ),
    "select without from": Kind(
        "SELECT id, (SELECT llm.complete('Sum up {review}', r)) FROM reviews AS r WHERE stars = 1", 18
    ),
    "select without from, condition": Kind(
        "SELECT id FROM reviews AS r WHERE stars = 1 AND (SELECT llm.is_true('Is {review} kind?', r))", 18
    ),
    "in subquery": Kind(
        "SELECT name FROM products WHERE product_id IN"
        " (SELECT product_id FROM reviews AS r WHERE stars = 1 AND llm.is_true('Is {review} kind?', r))",
        18,
    ),
    "not in subquery": Kind(
        "SELECT id FROM reviews AS r"
        " WHERE stars = 1 AND llm.complete('Sum up {review}', r) NOT IN (SELECT name FROM products)",
        18,
    ),
    "cte": Kind(
        "WITH c AS MATERIALIZED (SELECT id, llm.complete('Sum up {review}', r) AS x FROM reviews AS r WHERE stars = 1)"
        " SELECT * FROM c AS one JOIN c AS two USING (id)",
        18,
    ),
    "union": Kind(
        "SELECT llm.complete('Sum up {review}', r) FROM reviews AS r WHERE stars = 1"
        " UNION SELECT llm.complete('Sum up {review}', r) FROM reviews AS r WHERE stars = 2",
        36,
    ),
    "lateral": Kind(
        "SELECT p.name, x.answer FROM products AS p CROSS JOIN LATERAL"
        " (SELECT llm.complete('Does {a} fit {b}?', jsonb_build_object('a', r.review, 'b', p.sold)) AS answer"
        "  FROM reviews AS r WHERE r.product_id = p.product_id) AS x WHERE p.sold",
        18,
    ),
    "function in from": Kind(
        "SELECT r.id, e.* FROM reviews AS r, jsonb_each(llm.extract('What is in {review}?', r,"
        """ '{"type": "object", "properties": {"items": {"type": "string"}}, "required": ["items"]}')) AS e""",
        TEXTS,
    ),
    "function in from, left join": Kind(
        "SELECT r.id, w FROM reviews AS r LEFT JOIN LATERAL"
        " unnest(string_to_array(llm.complete('Sum up {review}', r), ' ')) AS w ON true WHERE stars = 1",
        18,
    ),
    "function in a subquery": Kind(
        "SELECT r.id, (SELECT string_agg(w, '+') FROM unnest(string_to_array(llm.complete('Sum up {review}', r), ' '))"
        " AS w) FROM reviews AS r WHERE stars = 1",
        18,
    ),
    "exists, function": Kind(
        "SELECT r.id FROM reviews AS r WHERE EXISTS"
        " (SELECT FROM unnest(string_to_array(llm.complete('Sum up {review}', r), ' ')) AS w WHERE w LIKE '%7%')",
        TEXTS,
    ),
    "lateral values": Kind(
        "SELECT r.id, v.* FROM reviews AS r, LATERAL"
        " (VALUES ('sum', llm.complete('Sum up {review}', r)), ('turn', llm.complete('Turn {review}', r)))"
        " AS v (kind, answer) WHERE stars = 1",
        36,
    ),
    "lateral select": Kind(
        "SELECT r.id, s.x FROM reviews AS r, LATERAL (SELECT llm.complete('Sum up {review}', r) AS x OFFSET 0) AS s",
        TEXTS,
    ),
    "join, target list": Kind(
        "SELECT p.name, llm.complete('Sum up {review}', r)"
        " FROM reviews AS r JOIN products AS p USING (product_id) WHERE p.sold",
        18,
    ),
    "join, lifted qual": Kind(
        "SELECT p.name FROM reviews AS r JOIN products AS p USING (product_id)"
        " WHERE p.sold AND llm.is_true('Is {review} kind?', r)",
        18,
    ),
    "join, qual of both": Kind(
        "SELECT p.name FROM reviews AS r JOIN products AS p USING (product_id)"
        " WHERE llm.is_true('Is {t} of {n} kind?', jsonb_build_object('t', r.stars, 'n', p.sold))",
        5 + 2,
    ),
    "join on an answer": Kind(
        "SELECT count(*) FROM reviews AS r JOIN (VALUES ('good'), ('bad')) AS l (label)"
        " ON l.label = llm.classify('What is {review}?', r, '{good,bad}')",
        TEXTS,
    ),
    "left join": Kind(
        "SELECT p.name, llm.complete('Sum up {review}', r) FROM products AS p"
        " LEFT JOIN reviews AS r ON r.product_id = p.product_id AND r.stars = 1",
        18 + 1,  # the products without such a review have a row of nulls
    ),
    "constant": Kind("SELECT llm.complete('Say hello.'), id FROM reviews", 1),
    "constant qual": Kind("SELECT id FROM reviews WHERE review = llm.complete('Which text?')", 1),
    "a prompt for each row": Kind("SELECT llm.complete('What is ' || review || '?') FROM reviews", TEXTS),
    "function in sql": Kind("SELECT summed(r) FROM reviews AS r WHERE stars = 3", 18),
    "plpgsql": Kind("SELECT loop()", 18),
    "insert": Kind("INSERT INTO kept SELECT id, llm.complete('Sum up {review}', r) FROM reviews AS r", TEXTS),
    "create table as": Kind(
        "CREATE TABLE made AS SELECT llm.complete('Sum up {review}', r) AS x FROM reviews AS r", TEXTS
    ),
    "update": Kind("UPDATE reviews AS r SET review = llm.complete('Sum up {review}', r) WHERE stars = 1", 18),
    "update of several columns": Kind(
        "UPDATE reviews AS r SET (review, stars) = (SELECT llm.complete('Sum up {review}', r),"
        " llm.score('How good is {review}?', r)::int) WHERE stars = 1",
        36,
    ),
    "delete": Kind("DELETE FROM reviews AS r WHERE stars = 1 AND llm.is_true('Is {review} kind?', r)", 18),
    "explain": Kind("EXPLAIN (VERBOSE) SELECT llm.complete('Sum up {review}', r) FROM reviews AS r", 0),
    "explain of a constant": Kind("EXPLAIN SELECT id FROM reviews WHERE review = llm.complete('Which text?')", 0),
}


@pytest.mark.some(10)
@pytest.mark.parametrize("name", KINDS)
def test_no_more_questions_than_necessary(shared: Conn, shared_engine: EngineDouble, name: str) -> None:
    shared_engine.reset()
    with shared.transaction(force_rollback=True):
        shared.execute(KINDS[name].query.encode())
    received = shared_engine.received
    assert len(received.prompts) == KINDS[name].questions
    assert len(received.requests) <= 3 + KINDS[name].questions // 8
    assert len(set(received.prompts)) == len(received.prompts)


def test_several_quals_ask_only_about_what_is_left(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(
        "SELECT id"
        " FROM reviews AS r WHERE llm.score('How long is {review}?', r) > 3 AND llm.is_true('Is {review} kind?', r)"
    )
    asked = [prompt.split("?")[0] for prompt in engine.received.prompts]
    kind = conn.execute(
        "SELECT count(DISTINCT review) FROM reviews AS r WHERE llm.is_true('Is {review} kind?', r)"
    ).fetchone()
    assert asked.count("Is review kind") == TEXTS
    assert kind == (asked.count("How long is review"),)


def test_the_qual_that_throws_out_more_goes_first_once_it_is_known(conn: Conn, engine: EngineDouble) -> None:
    conn.execute("SET pg_bridge.window_rows = 30")
    conn.execute(
        "SELECT id"
        " FROM reviews AS r WHERE llm.score('How good is {id}?', r) > 0 AND llm.score('How long is {id}?', r) > 9"
    )
    asked = [prompt.split("?")[0] for prompt in engine.received.prompts]
    assert asked.count("How good is id") == 30  # in the first window; then none is left to ask about
    assert asked.count("How long is id") == ROWS


def test_answers_land_on_their_rows(conn: Conn, engine: EngineDouble) -> None:
    query = (
        "SELECT r.id, p.name, llm.complete('Sum up {review} of {stars}', r), llm.classify('Is {review}?', r, '{a,b,c}')"
        " FROM reviews AS r JOIN products AS p USING (product_id)"
        " WHERE id <= 100 AND llm.is_true('Is {review} kind?', r) ORDER BY id"
    )
    batched = conn.execute(query.encode()).fetchall()
    conn.execute("SET pg_bridge.batching = off")
    engine.reset()
    assert conn.execute(query.encode()).fetchall() == batched
    assert len(engine.received.requests) > 100  # one by one, indeed


@pytest.mark.parametrize(
    ("value", "row"),
    [("NULL::reviews", "null"), ("""'{"review": null}'::jsonb""", "null"), ("""'{"review": ""}'::json""", '""')],
)
def test_null_and_empty(conn: Conn, engine: EngineDouble, value: str, row: str) -> None:
    query = (
        f"SELECT llm.complete('Sum up {{review}}', CASE WHEN i > 0 THEN {value} END) FROM generate_series(1, 3) AS i"
    )
    answers = conn.execute(query.encode()).fetchall()
    assert engine.received.prompts == [f'Sum up review\n{{"review": {row}}}']
    assert len(set(answers)) == 1


def test_rows_of_several_layouts_in_one_window(conn: Conn, engine: EngineDouble) -> None:
    query = """SELECT i, llm.complete('Look', CASE i % 3 WHEN 0 THEN '{"a": 1}'::jsonb
               WHEN 1 THEN '{"b": [1, {"c": "ü"}]}' ELSE '{"a": 1, "b": 2}' END)
               FROM generate_series(1, 60) AS i ORDER BY i"""
    batched = conn.execute(query.encode()).fetchall()
    assert len(engine.received.prompts) == 3
    conn.execute("SET pg_bridge.batching = off")
    assert conn.execute(query.encode()).fetchall() == batched


ERRORS = {
    "unknown column": ("llm.complete('Sum up {nope}', r)", "42703"),
    "null prompt": ("llm.complete(CASE WHEN id > 5 THEN 'x' END, r)", "22004"),
    "bad braces": ("llm.complete('Sum up {review', r)", "22023"),
    "bad option": ("llm.complete('Sum up {review}', r, max_tokens => id - 5)", "22023"),
    "no row": ("llm.complete('Sum up {}', r)", "22023"),
    "no labels": ("llm.classify('Sum up {review}', r, NULL)", "22023"),
    "no schema": ("llm.extract('Sum up {review}', r, '[]')", "22023"),
    "unknown server": ("llm.complete('Sum up {review}', r, server => 'nope')", "42704"),
    "refused row": ("llm.complete('Sum up {review} please', r)", "22000"),
    "an argument": ("llm.complete('Sum up {x}', jsonb_build_object('x', 1 / (id - 7)))", "22012"),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("batching", ["on", "off"])
def test_errors_are_the_same_and_leave_nothing(
    shared: Conn, shared_engine: EngineDouble, monkeypatch: pytest.MonkeyPatch, name: str, batching: str
) -> None:
    monkeypatch.setattr(shared_engine.behaviour, "reject_marker", "please")
    shared.execute(f"SET pg_bridge.batching = {batching}".encode())
    call, sqlstate = ERRORS[name]
    for _ in range(2):
        with pytest.raises(psycopg.Error) as raised:
            shared.execute(f"SELECT {call} FROM reviews AS r".encode())
        assert raised.value.sqlstate == sqlstate
        assert raised.value.diag.message_hint or name == "an argument"
    assert shared.execute("SELECT llm.complete('Sum up {review}', r) FROM reviews AS r LIMIT 1").fetchone()
    assert shared_engine.received.in_flight == 0
    shared.execute("RESET pg_bridge.batching")


def test_rows_that_fail_are_null_if_wanted(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.reject_marker = "text 7"
    rows = conn.execute(
        "SELECT review, llm.complete('Sum up {review}', r, on_error => 'null') FROM reviews AS r"
    ).fetchall()
    assert {review for review, answer in rows if answer is None} == {"text 7", *(f"text 7{i}" for i in range(10))}


def test_an_engine_that_ignores_the_form_is_noticed(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.ignore_choices = True
    for call in ("is_true('{review}', r)", "score('{review}', r)", """extract('{review}', r, '{"type": "object"}')"""):
        with pytest.raises(psycopg.errors.DataException):
            conn.execute(f"SELECT llm.{call} FROM reviews AS r".encode())


def test_the_options_of_map(conn: Conn, engine: EngineDouble) -> None:
    query = "SELECT count(llm.complete('Sum up {{review}}', r, {})) FROM reviews AS r WHERE id <= 180"
    conn.execute(query.format("dedup => false").encode())
    assert len(engine.received.prompts) == 180
    engine.reset()
    conn.execute(query.format("window_rows => 60").encode())
    assert len(engine.received.prompts) == TEXTS
    assert [prompts for _, prompts in engine.received.requests if prompts < 8] == [4, 6]  # 60 are new, 30, and none
    engine.reset()
    conn.execute(query.format("reorder => 'none'").encode())
    assert engine.received.prompts[:2] == ['Sum up review\n{"review": "text 1"}', 'Sum up review\n{"review": "text 2"}']
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        conn.execute(query.format("reorder => 'some'").encode())


def test_types(conn: Conn) -> None:
    row = conn.execute(
        "SELECT llm.is_true('{review}', r), llm.score('{review}', r), llm.extract('{review}', r, %s)"
        " FROM reviews AS r LIMIT 1",
        ['{"type": "object", "required": ["a"]}'],
    ).fetchone()
    assert row is not None
    assert [type(value) for value in row] == [bool, float, dict]


def test_cancel_stops_a_batch_at_once(conn: Conn, connect: Connect, engine: EngineDouble) -> None:
    engine.behaviour.hang = True
    pid = conn.info.backend_pid
    other = connect()

    def cancel() -> None:
        while engine.received.in_flight == 0:
            time.sleep(0.01)
        other.execute("SELECT pg_cancel_backend(%s)", [pid])

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        conn.execute("SELECT llm.complete('Sum up {review}', r) FROM reviews AS r")
    thread.join()
    engine.behaviour.hang = False
    assert conn.execute("SELECT count(llm.complete('Sum up {review}', r)) FROM reviews AS r").fetchone() == (ROWS,)


@pytest.mark.parametrize("cancels", [15, pytest.param(60, marks=pytest.mark.slow)])
def test_cancels_at_any_moment_leave_nothing(conn: Conn, connect: Connect, engine: EngineDouble, cancels: int) -> None:
    engine.behaviour.delay_s = 0.005
    rng = random.Random(7)
    conn.execute("SET pg_bridge.window_rows = 50")
    query = (
        "SELECT sentiment, max(summary), avg(llm.score('How good is {review}?', i)) FROM insight AS i"
        " JOIN products USING (product_id) WHERE llm.is_true('Is {review} kind?', i) GROUP BY 1 ORDER BY 1"
    )
    expected = conn.execute(query.encode()).fetchall()
    started = time.monotonic()
    conn.execute(query.encode())
    takes_s = time.monotonic() - started
    pid, other = conn.info.backend_pid, connect()
    outcomes = {"answered": 0, "cancelled": 0}
    for _ in range(cancels):
        timer = threading.Timer(rng.uniform(0, takes_s), other.execute, ["SELECT pg_cancel_backend(%s)", [pid]])
        timer.start()
        started = time.monotonic()
        try:
            assert conn.execute(query.encode()).fetchall() == expected
            outcomes["answered"] += 1
            takes_s = time.monotonic() - started  # the machine may have more or less to do by now
        except psycopg.errors.QueryCanceled:
            outcomes["cancelled"] += 1
        timer.join()
        with contextlib.suppress(psycopg.errors.QueryCanceled):  # one that came after the end
            conn.execute("SELECT 1")
    assert outcomes["cancelled"] > cancels / 10
    assert conn.execute(query.encode()).fetchall() == expected
    deadline = time.monotonic() + 60
    while engine.received.in_flight and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.received.in_flight == 0


def test_a_rolled_back_subtransaction_and_the_next_statement(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.reject_marker = "text 7"
    with conn.transaction():
        for _ in range(3):
            with pytest.raises(psycopg.errors.DataException), conn.transaction():
                conn.execute("SELECT llm.complete('Sum up {review}', r) FROM reviews AS r")
        rows = conn.execute(
            "SELECT llm.complete('Sum up {review}', r) FROM reviews AS r WHERE stars = 1 LIMIT 3"
        ).fetchall()
    assert len(rows) == 3


@pytest.mark.parametrize("scroll", ["", "SCROLL"])
def test_cursors(conn: Conn, engine: EngineDouble, scroll: str) -> None:
    with conn.transaction():
        conn.execute(
            f"DECLARE c {scroll} CURSOR FOR SELECT id, llm.complete('Sum up {{id}}', r) FROM reviews AS r".encode()
        )
        first = conn.execute("FETCH 5 FROM c").fetchall()
        assert len(engine.received.prompts) == 16
        if scroll:
            conn.execute("MOVE BACKWARD ALL FROM c")
            assert conn.execute("FETCH 5 FROM c").fetchall() == first
        conn.execute("FETCH ALL FROM c")
        assert len(engine.received.prompts) == ROWS


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_prepared_statements(conn: Conn, engine: EngineDouble, mode: str) -> None:
    conn.execute(f"SET plan_cache_mode = {mode}".encode())
    conn.execute(
        "PREPARE s (int, text, bigint) AS SELECT llm.complete($2, r) FROM reviews AS r WHERE stars = $1 LIMIT $3"
    )
    for stars, most in ((1, 5), (2, 7), (3, 100)):
        engine.reset()
        conn.execute(f"EXECUTE s ({stars}, 'Sum up {{review}}', {most})".encode())
        assert len(engine.received.prompts) == min(most, 18)
    conn.execute("SET pg_bridge.batching = off")  # takes effect on a plan that was kept
    engine.reset()
    conn.execute("EXECUTE s (1, 'Sum up {review}', 5)")
    assert len(engine.received.requests) == 5


def test_wide_rows_are_asked_in_parts(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.record = False
    answers = conn.execute(
        "SELECT count(llm.complete('Sum up', jsonb_build_object('x', repeat('x', 400000), 'i', i)))"
        " FROM generate_series(1, 100) AS i"
    )
    assert answers.fetchone() == (100,)
    assert 2 <= len(engine.received.requests) < 100


def test_a_window_spills_to_disk(conn: Conn) -> None:
    conn.execute("SET work_mem = '64kB'")
    conn.execute(
        "CREATE TABLE wide AS SELECT i AS id, repeat(i::text, 400) AS padding, i % 10 AS x"
        " FROM generate_series(1, 2000) AS i"
    )
    rows = conn.execute("SELECT id, padding, llm.complete('{x}?', w), x FROM wide AS w").fetchall()
    assert all(padding == str(id) * 400 for id, padding, _, _ in rows)
    assert len({(answer, x) for _, _, answer, x in rows}) == 10


@pytest.mark.new_database
def test_execute_on_the_function_is_what_a_role_needs(conn: Conn, connect: Connect) -> None:
    conn.execute("CREATE ROLE ana LOGIN")
    try:
        conn.execute("GRANT SELECT ON reviews TO ana; GRANT USAGE ON FOREIGN SERVER vllm TO ana")
        query = "SELECT llm.complete('Sum up {review}', r) FROM reviews AS r"
        ana = connect(user="ana")
        assert len(ana.execute(query.encode()).fetchall()) == ROWS
        conn.execute(
            "DO $$ BEGIN EXECUTE (SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', oid::regprocedure)"
            " FROM pg_proc WHERE pronamespace = 'llm'::regnamespace AND proname = 'complete'"
            " AND 'anyelement'::regtype = ANY (proargtypes)); END $$"
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="complete"):
            ana.execute(query.encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ana.execute(
                "DO $$ BEGIN EXECUTE (SELECT format('ALTER FUNCTION %s RESET pg_bridge.batch', function)"
                " FROM llm.batch_function LIMIT 1); END $$"
            )
    finally:
        conn.execute("DROP OWNED BY ana; DROP ROLE ana")


def test_row_level_security_stands_before_model_quals(conn: Conn, connect: Connect, engine: EngineDouble) -> None:
    conn.execute("CREATE ROLE ana LOGIN")
    try:
        conn.execute("GRANT SELECT ON reviews, products TO ana; GRANT USAGE ON FOREIGN SERVER vllm TO ana")
        conn.execute("ALTER TABLE reviews ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON reviews USING (stars = 1)")
        ana = connect(user="ana")
        ana.execute(
            "SELECT id"
            " FROM reviews AS r JOIN products USING (product_id) WHERE llm.is_true('Is {review} of {stars}?', r)"
        )
        assert engine.received.prompts
        assert all('"stars": 1' in prompt for prompt in engine.received.prompts)
    finally:
        conn.execute("DROP OWNED BY ana; DROP ROLE ana")


@pytest.mark.parametrize(("path", "requests"), [("$libdir", [3, 1]), ("", [3, 3])])
def test_without_preloading(
    conn: Conn,
    connect: Connect,
    database: Database,
    engine: EngineDouble,
    without_module: Path,
    path: str,
    requests: list[int],
) -> None:
    path = path or str(without_module)
    for name, value in (("session_preload_libraries", "$libdir/plpgsql"), ("dynamic_library_path", path)):
        conn.execute(
            sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                sql.Identifier(database.name), sql.Identifier(name), sql.Literal(value)
            )
        )
    session = connect()
    notices: list[str] = []
    session.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    for expected in requests:
        engine.reset()
        session.execute("SELECT llm.complete('Sum up {review}', r) FROM reviews AS r WHERE id <= 3")
        assert len(engine.received.requests) == expected
    assert len(notices) == 1  # once a session
    assert "a request of its own" in notices[0]


# -- the mechanism, with functions that need no engine


@pytest.fixture
def own(batching: Database, db: Conn) -> Conn:
    make_functions(db)
    make_tables(db)
    return db


def test_a_function_of_the_users_own(own: Conn) -> None:
    assert own.execute("SELECT word(t, g) FROM a ORDER BY id LIMIT 2").fetchall() == [("word 1-1",), ("word 2-2",)]
    assert calls(own) == {"word": (1, 2)}
    assert own.execute("SELECT llm.unregister_batch('word(text, int)')").fetchone() == (True,)
    own.execute("SELECT word(t, g) FROM a LIMIT 2")
    assert calls(own) == {}
    assert own.execute("SELECT llm.unregister_batch('word(text, int)')").fetchone() == (False,)


def test_a_registration_is_rolled_back(own: Conn) -> None:
    with own.transaction(force_rollback=True):
        own.execute("SELECT llm.unregister_batch('word(text, int)')")
        own.execute("SELECT word(t, g) FROM a")
        assert own.execute("SELECT count(*) FROM called").fetchone() == (0,)
    own.execute("SELECT word(t, g) FROM a")
    assert calls(own) == {"word": (1, 60)}


@pytest.mark.parametrize(
    ("function", "batch"),
    [
        ("word(text, int)", "passes_batch(bigint, int, json[], json[])"),
        ("word(text, int)", "word(text, int)"),
        ("generate_series(int, int)", "word_batch(bigint, int, json[], json[])"),
    ],
)
def test_what_does_not_fit_is_refused(own: Conn, function: str, batch: str) -> None:
    with pytest.raises(psycopg.errors.InvalidFunctionDefinition) as raised:
        own.execute("SELECT llm.register_batch(%s, %s)", [function, batch])
    assert raised.value.diag.message_hint


def test_a_scan_that_is_repeated_keeps_its_answers(own: Conn) -> None:
    for name in ("hashjoin", "mergejoin", "material"):
        own.execute(sql.SQL("SET {} = off").format(sql.Identifier(f"enable_{name}")))
    own.execute("SELECT a.id, (SELECT count(*) FROM b WHERE word(b.t, 1) LIKE '%3%' AND a.id > 0) FROM a WHERE id < 4")
    assert calls(own) == {"word": (1, 90)}


def test_a_deep_plan_is_planned_in_no_time(own: Conn) -> None:
    query = "SELECT word(t, 1) AS t FROM a"
    for _ in range(30):
        query = f"SELECT t FROM ({query}) AS s LIMIT 1000"
    start = time.monotonic()
    own.execute(f"EXPLAIN {query}".encode())
    assert time.monotonic() - start < 60  # it took 2^30 steps


def test_a_batch_function_that_loses_a_result(own: Conn) -> None:
    own.execute(
        "CREATE OR REPLACE FUNCTION word_batch(statement bigint, node int, t json[], n json[]) RETURNS text[]"
        " LANGUAGE sql AS $$ SELECT '{one}'::text[] $$"
    )
    with pytest.raises(psycopg.errors.ExternalRoutineInvocationException, match="1 results for 60 calls"):
        own.execute("SELECT word(t, g) FROM a")


def test_workers_do_the_cheap_part(own: Conn) -> None:
    own.execute("CREATE OR REPLACE FUNCTION note(function text, calls int) RETURNS void LANGUAGE sql AS ''")
    own.execute("ALTER FUNCTION word(text, int) PARALLEL RESTRICTED")
    own.execute("ALTER FUNCTION word_batch(bigint, int, json[], json[]) PARALLEL RESTRICTED")
    own.execute("CREATE TABLE big AS SELECT a.* FROM a, generate_series(1, 2000)")
    for name in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
        own.execute(sql.SQL("SET {} = 0").format(sql.Identifier(name)))
    own.execute("ANALYZE big")
    query = "SELECT word(t, g) FROM big WHERE id = 3"
    plan = "\n".join(line for (line,) in own.execute(f"EXPLAIN (COSTS OFF) {query}".encode()).fetchall())
    assert plan.index("LLM Batch") < plan.index("Gather") < plan.index("Parallel Seq Scan")
    assert own.execute(query.encode()).fetchall() == [("word 3-3",)] * 2000


def test_a_concurrent_update_is_evaluated_again(own: Conn, connect: Connect) -> None:
    other = connect(autocommit=False)
    other.execute("UPDATE a SET t = 'changed' WHERE id = 1")
    done: list[Any] = []

    def update() -> None:
        done.append(
            own.execute(
                "UPDATE a SET t = word(t, 1) WHERE id <= 2 AND word(t, 2) IS NOT NULL RETURNING id, t"
            ).fetchall()
        )

    thread = threading.Thread(target=update)
    thread.start()
    watcher, blocked = connect(), "SELECT pg_blocking_pids(%s) <> '{}'"
    while watcher.execute(blocked, [own.info.backend_pid]).fetchone() != (True,):
        assert thread.is_alive(), "the statement did not wait"
        time.sleep(0.01)
    other.commit()
    thread.join()
    assert sorted(done[0]) == [(1, "changed-1"), (2, "word 2-1")]

"""Batch functions that take the calls of a window in parts: what they are given, and what they may answer."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.integration.batch_functions import calls, make_functions

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

# `held` keeps what came; as many answers as `at_once` says are given at one time.
FUNCTIONS = """
CREATE TABLE held (o serial, call json);
CREATE TABLE at_once (n int);
INSERT INTO at_once VALUES (100000);
CREATE FUNCTION say(t text) RETURNS text LANGUAGE plpgsql STABLE STRICT COST 10000 AS 'BEGIN RETURN lower(t); END';
CREATE FUNCTION say_batch(statement bigint, node int, more boolean, t json[]) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE answers text[];
BEGIN
    PERFORM note(CASE WHEN more THEN 'part' ELSE 'last' END, cardinality(t));
    INSERT INTO held (call) SELECT a FROM unnest(t) AS a;
    IF more THEN RETURN NULL; END IF;
    WITH gone AS (DELETE FROM held WHERE o IN (SELECT o FROM held ORDER BY o LIMIT (SELECT n FROM at_once)) RETURNING *)
    SELECT array_agg(lower(call #>> '{}') ORDER BY o) INTO answers FROM gone;
    RETURN answers;
END $$;
CREATE FUNCTION length_of(t text) RETURNS int LANGUAGE plpgsql STABLE COST 10000 AS 'BEGIN RETURN length(t); END';
CREATE FUNCTION length_of_batch(statement bigint, node int, more boolean, t json[]) RETURNS int[] LANGUAGE plpgsql AS $$
DECLARE answers int[];
BEGIN
    PERFORM note('length', cardinality(t));
    INSERT INTO held (call) SELECT a FROM unnest(t) AS a;
    IF more THEN RETURN ARRAY[1, 2, 3]; END IF;  -- is not looked at
    WITH gone AS (DELETE FROM held RETURNING *)
    SELECT array_agg(length(call #>> '{}') ORDER BY o) INTO answers FROM gone;
    RETURN answers;
END $$;
SELECT llm.register_batch('say(text)', 'say_batch(bigint, int, boolean, json[])');
SELECT llm.register_batch('length_of(text)', 'length_of_batch(bigint, int, boolean, json[])');
"""
SAID = "SELECT i, say('W' || i) FROM generate_series(1, {}) AS i"


@pytest.fixture
def host() -> str:
    """The functions that are batched are those of the PL/Python host."""
    return "plpython"


@pytest.fixture
def own(batching: Database, db: Conn) -> Conn:
    make_functions(db)
    db.execute(FUNCTIONS)
    return db


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (1024, {"last": (1, 1024)}),
        (1025, {"part": (1, 1024), "last": (1, 1)}),
        (3000, {"part": (2, 2048), "last": (1, 952)}),
    ],
)
def test_a_window_comes_in_parts(own: Conn, rows: int, parts: dict[str, tuple[int, int]]) -> None:
    assert own.execute(SAID.format(rows).encode()).fetchall() == [(i, f"w{i}") for i in range(1, rows + 1)]
    assert calls(own) == parts


def test_long_arguments_make_more_parts(own: Conn) -> None:
    row = own.execute(
        "SELECT count(DISTINCT say(i || repeat('X', 10000))), count(*) FROM generate_series(1, 2000) AS i"
    ).fetchone()
    assert row == (2000, 2000)
    batches, total = calls(own)["part"]
    assert total < 2000
    assert 100 < total / batches < 110  # a megabyte each


def test_answers_may_come_some_at_a_time(own: Conn) -> None:
    own.execute("UPDATE at_once SET n = 700")
    assert own.execute(SAID.format(3000).encode()).fetchall() == [(i, f"w{i}") for i in range(1, 3001)]
    assert calls(own) == {"part": (2, 2048), "last": (5, 952)}


def test_a_window_is_of_as_many_rows_as_the_setting_says(own: Conn) -> None:
    own.execute("SET pg_bridge.window_rows = 1500")
    assert own.execute(SAID.format(3000).encode()).fetchall() == [(i, f"w{i}") for i in range(1, 3001)]
    assert calls(own) == {"part": (2, 2048), "last": (2, 952)}


def test_conditions_guards_and_nulls(own: Conn) -> None:
    """A call of the first condition is gathered while rows are read, those of the others when they are left."""
    rows = own.execute(
        "SELECT i, CASE WHEN i % 3 = 0 THEN say('B' || i) END, length_of('C' || i)"
        " FROM generate_series(1, 5000) AS i WHERE say(nullif('A' || i, 'A7')) <> 'a9'"
    ).fetchall()
    assert rows == [(i, f"b{i}" if i % 3 == 0 else None, len(f"C{i}")) for i in range(1, 5001) if i not in (7, 9)]
    assert own.execute("SELECT count(*) FROM held").fetchone() == (0,)


def test_rows_that_are_wide_go_through_a_file(own: Conn) -> None:
    own.execute("SET work_mem = '64kB'")
    rows = own.execute(
        "SELECT r.i, length(r.body), say('W' || r.i), length_of(r.body)"
        " FROM (SELECT i, repeat(md5(i::text), 40) AS body FROM generate_series(1, 3000) AS i OFFSET 0) AS r"
    ).fetchall()
    assert rows == [(i, 1280, f"w{i}", 1280) for i in range(1, 3001)]


def test_who_may_stop_early_gets_one_part_a_window(own: Conn) -> None:
    own.execute("SELECT i FROM generate_series(1, 5000) AS i WHERE say('W' || i) >= 'w5' LIMIT 3")
    assert set(calls(own)) == {"last"}


@pytest.mark.parametrize(
    ("answer", "found"), [("NULL", 0), ("ARRAY['a']", 1), ("'{}'", 0), ("array_fill('a'::text, ARRAY[2000])", 2000)]
)
def test_an_answer_that_does_not_fit(own: Conn, answer: str, found: int) -> None:
    own.execute(
        "CREATE OR REPLACE FUNCTION say_batch(statement bigint, node int, more boolean, t json[]) RETURNS text[]"
        " LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN more OR cardinality(t) > 0 THEN"
        f" {answer} END; END $$".encode()
    )
    left = 1500 - found if found < 1500 else 1500
    with pytest.raises(psycopg.errors.ExternalRoutineInvocationException) as raised:
        own.execute(SAID.format(1500).encode())
    told = 0 if found <= 1 else found
    assert f"returned {told} results for {left} calls" in str(raised.value)


def test_one_that_takes_parts_goes_before_one_that_does_not(own: Conn) -> None:
    own.execute(
        "CREATE FUNCTION say_batch(statement bigint, node int, t json[]) RETURNS text[] LANGUAGE plpgsql AS $$"
        " BEGIN PERFORM note('whole', cardinality(t)); RETURN array_fill('whole'::text, ARRAY[cardinality(t)]); END $$"
    )
    registered = "SELECT batch::text FROM llm.batch_function WHERE function = 'say(text)'::regprocedure"
    assert own.execute(registered).fetchone() == ("say_batch(bigint,integer,boolean,json[])",)
    own.execute(SAID.format(10).encode())
    assert set(calls(own)) == {"last"}
    own.execute("DROP FUNCTION say_batch(bigint, int, boolean, json[])")
    assert own.execute(registered).fetchone() == ("say_batch(bigint,integer,json[])",)
    assert own.execute(SAID.format(1).encode()).fetchall() == [(1, "whole")]
    assert calls(own) == {"whole": (1, 1)}

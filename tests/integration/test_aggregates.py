"""llm.aggregate and llm.summarize: SQL's own rules, a batch a level for all groups, the same without the module."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database, create_server

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

TABLES = """
CREATE TABLE reviews (id int PRIMARY KEY, film int, review text);
INSERT INTO reviews SELECT i, i % 1000, CASE WHEN i % 11 = 0 THEN NULL ELSE 'text ' || i END
FROM generate_series(1, 10000) AS i;
ANALYZE;
"""


def said(prompt: str) -> str:
    """What a prompt holds: the rows' numbers, or how many rows stand behind it."""
    question, _, row = prompt.partition("\n{")
    if not row:
        return "nothing"  # what the engine is tried with, where it has refused something
    held = json.loads("{" + row)
    if "parts" in held:
        return f"{sum(part['rows'] for part in held['parts'])} rows"
    return f"{question.splitlines()[0][:9]} {len(held['rows'])}"


@pytest.fixture
def host() -> str:
    """Aggregates are of the PL/Python host."""
    return "plpython"


@pytest.fixture
def conn(batching: Database, db: Conn, engine: EngineDouble) -> Conn:
    create_server(db, engine.url)
    db.execute(TABLES)
    engine.behaviour.answer = said
    return db


@pytest.mark.parametrize("batching_is", ["on", "off"])
def test_groups_as_sql_s_own_aggregates(conn: Conn, batching_is: str) -> None:
    conn.execute(f"SET pg_bridge.batching = {batching_is}")
    got = conn.execute(
        "SELECT film, llm.aggregate('How good?', review), count(review), llm.summarize(review) FILTER (WHERE id < 3), "
        "llm.aggregate('How good?', r), count(r) "
        "FROM reviews AS r WHERE id BETWEEN 1 AND 22 AND film < 6 OR id IN (11, 22) GROUP BY film ORDER BY film"
    ).fetchall()
    want = conn.execute(
        "SELECT film, CASE WHEN count(review) > 0 THEN 'How good? ' || count(review) END, count(review), "
        "'Sum up th ' || nullif(count(review) FILTER (WHERE id < 3), 0), "
        "'How good? ' || count(r), count(r) "
        "FROM reviews AS r WHERE id BETWEEN 1 AND 22 AND film < 6 OR id IN (11, 22) GROUP BY film ORDER BY film"
    ).fetchall()
    assert got == want
    assert any(row[1] is None for row in got)
    empty = conn.execute("SELECT llm.summarize(review), llm.aggregate('x', review) FROM reviews WHERE false").fetchone()
    assert empty == (None, None)
    assert conn.execute("SELECT llm.summarize(review) FROM reviews WHERE false GROUP BY film").fetchall() == []


@pytest.mark.parametrize("batching_is", ["on", "off"])
def test_distinct_and_order_are_those_of_sql(conn: Conn, engine: EngineDouble, batching_is: str) -> None:
    conn.execute(f"SET pg_bridge.batching = {batching_is}")
    conn.execute(
        "SELECT llm.aggregate(DISTINCT 'Which?', t ORDER BY t DESC) FROM unnest(ARRAY['a', 'c', 'b', 'a', NULL]) AS t"
    )
    (prompt,) = engine.received.prompts
    assert prompt == 'Which?\n{"rows": ["c", "b", "a"]}'


def test_columns_named_are_the_columns_sent(conn: Conn, engine: EngineDouble) -> None:
    conn.execute("SELECT llm.aggregate('Is {review} {{kind}}?', r ORDER BY id) FROM reviews AS r WHERE id < 3")
    conn.execute("SELECT llm.aggregate('Is {} kind?', review ORDER BY id) FROM reviews AS r WHERE id < 2")
    assert engine.received.prompts == [
        'Is review {kind}?\n{"rows": [{"review": "text 1"}, {"review": "text 2"}]}',
        'Is input kind?\n{"rows": ["text 1"]}',
    ]


def test_a_thousand_groups_are_a_handful_of_batches(conn: Conn, engine: EngineDouble) -> None:
    got = conn.execute("SELECT film, llm.aggregate('How good?', r) FROM reviews AS r GROUP BY film").fetchall()
    assert len(got) == 1000
    assert {answer for _, answer in got} == {"How good? 10"}
    assert len(engine.received.prompts) == 1000
    assert len(engine.received.requests) == 1000 / 8  # as many as are in flight, all of them full
    run = conn.execute("SELECT rows, unique_prompts, requests FROM llm.last_run()").fetchone()
    assert run == (1000, 1000, len(engine.received.requests))


def test_the_levels_of_all_groups_are_asked_together(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.max_model_len = 300
    engine.behaviour.answer = lambda prompt: f"{said(prompt)} {prompt[-20:]}" if "only" in prompt else said(prompt)
    got = conn.execute(
        "SELECT film % 50, llm.aggregate('How good?', r, '{\"max_tokens\": 20}') "
        "FROM reviews AS r WHERE id <= 2500 GROUP BY 1"
    ).fetchall()
    assert {answer for _, answer in got} == {"50 rows"}
    prompts = engine.received.prompts
    parts = [prompt for prompt in prompts if '\n{"rows": [' in prompt]
    assert len(parts) > 100  # several of each group
    # The levels come one after the other, all groups' first questions before any last one.
    last = [place for place, prompt in enumerate(prompts) if "Answer for all of them" in prompt]
    assert len(last) == 50
    assert min(last) >= len(parts)
    assert len(engine.received.requests) <= len(prompts) / 8 + len(["rows", "parts", "more"])


def test_what_is_too_long_for_the_engine_is_asked_in_halves(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.max_prompt_chars = 900
    got = conn.execute("SELECT llm.aggregate('How good?', r) FROM reviews AS r WHERE id <= 60").fetchone()
    assert got == ("60 rows",)
    got = conn.execute("SELECT llm.aggregate('How long?', repeat('x', 5000))").fetchone()
    assert got is not None
    assert got[0].endswith("rows")


def test_window_functions(conn: Conn, engine: EngineDouble) -> None:
    query = (
        "SELECT id, llm.aggregate('How good?', r) OVER (ORDER BY id), "
        "llm.aggregate('How good?', r) OVER (ORDER BY id ROWS 1 PRECEDING), "
        "llm.summarize(review) OVER (PARTITION BY film) FROM reviews AS r WHERE id < 6 ORDER BY id"
    )
    got = conn.execute(query).fetchall()
    assert [row[1] for row in got] == [f"How good? {n}" for n in range(1, 6)]
    assert [row[2] for row in got] == ["How good? 1", *["How good? 2"] * 4]
    assert {row[3] for row in got} == {"Sum up th 1"}
    asked = len(engine.received.prompts)
    conn.execute("SET pg_bridge.batching = off")
    assert conn.execute(query).fetchall() == got
    assert asked <= len(engine.received.prompts) - asked


def test_having_rollup_views_and_explain(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(
        "CREATE VIEW opinions AS SELECT film, llm.aggregate('How good?', r) AS said FROM reviews AS r GROUP BY film"
    )
    assert conn.execute("SELECT count(*) FROM opinions WHERE said LIKE '%10' AND film < 5").fetchone() == (5,)
    assert len(engine.received.requests) <= 2
    rolled = conn.execute(
        "SELECT film, llm.summarize(review) FROM reviews WHERE id < 5 GROUP BY ROLLUP (film) "
        "HAVING llm.summarize(review) LIKE '%4' "
    ).fetchall()
    assert rolled == [(None, "Sum up th 4")]
    plan = "\n".join(row[0] for row in conn.execute("EXPLAIN (COSTS OFF) SELECT * FROM opinions"))
    assert "Calls: llm.aggregate" in plan
    assert "Custom Scan (LLM Batch)" in plan


def test_errors_are_clear(conn: Conn, engine: EngineDouble) -> None:
    for query, message in (
        ("SELECT llm.aggregate(NULL, review) FROM reviews", "the prompt is NULL"),
        ("SELECT llm.aggregate('Is ' || id, review) FROM reviews", "differ from row to row"),
        ("SELECT llm.aggregate('x', review, '{\"wat\": 1}') FROM reviews", 'invalid option "wat"'),
        ("SELECT llm.aggregate('x', review, '[1]') FROM reviews", "not a JSON object"),
        ("SELECT llm.aggregate('x', review, '{\"max_tokens\": 0}') FROM reviews", "max_tokens"),
        ("SELECT llm.aggregate('x', review, '{\"context_tokens\": 99}') FROM reviews", "has no room"),
        ("SELECT llm.aggregate('{wat}', r) FROM reviews AS r", 'column "wat" does not exist'),
        ("SELECT llm.aggregate('x', review, '{\"server\": \"none\"}') FROM reviews", 'server "none" does not exist'),
        ("SELECT llm.aggregate('4711')", "has not made"),
        ("SELECT llm.summarize('-1'::llm.gathered)", "has not made"),
        ("SELECT llm._reduced(1, 1, ARRAY['\"x\"'::json])", "do not fit"),
    ):
        for batching_is in ("on", "off"):
            conn.execute(f"SET pg_bridge.batching = {batching_is}")
            with pytest.raises(psycopg.Error) as raised:
                conn.execute(query)
            assert message in str(raised.value), query
    assert engine.received.prompts == []
    assert conn.execute("SELECT llm.aggregate(NULL::llm.gathered)").fetchone() == (None,)
    # NULL options are none; a NULL instruction without a value is never asked.
    assert conn.execute("SELECT llm.aggregate('How good?', 'x', NULL)").fetchone() == ("How good? 1",)
    assert conn.execute("SELECT llm.aggregate(NULL, NULL::text)").fetchone() == (None,)


def test_a_group_without_an_answer(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.reject_marker = "text 3"
    query = "SELECT id, llm.aggregate('x', review, %s) FROM reviews WHERE id < 5 GROUP BY id ORDER BY id"
    with pytest.raises(psycopg.Error, match="could not answer"):
        conn.execute(query, ["{}"])
    got = conn.execute(query, ['{"on_error": "null"}']).fetchall()
    assert [answer is None for _, answer in got] == [False, False, True, False]


def test_a_budget_counts_all_questions_of_the_tree(conn: Conn, engine: EngineDouble) -> None:
    query = "SELECT film, llm.aggregate('x', r, %s) FROM reviews AS r WHERE film < 9 GROUP BY film"
    with pytest.raises(psycopg.Error, match="max_requests"):
        conn.execute(query, ['{"max_requests": 5}'])
    got = conn.execute(query, ['{"max_requests": 5, "on_budget": "null", "cache": "off"}']).fetchall()
    assert sum(answer is not None for _, answer in got) <= 5


def test_a_statement_that_waits_is_cancelled(conn: Conn, connect: Connect, engine: EngineDouble) -> None:
    engine.behaviour.hang = True
    asking = connect()
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            asking.execute("SELECT llm.summarize(review) FROM reviews WHERE id < 100 GROUP BY film")
        except psycopg.Error as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not engine.received.prompts:
        time.sleep(0.01)
    asking.cancel()
    thread.join(60)
    assert isinstance(failed[0], psycopg.errors.QueryCanceled)
    engine.behaviour.hang = False
    assert asking.execute("SELECT llm.summarize('x'::text)").fetchone() == ("Sum up th 1",)


def test_what_a_role_gathered_is_nobody_else_s(conn: Conn) -> None:
    conn.execute("DROP ROLE IF EXISTS stranger; CREATE ROLE stranger; GRANT USAGE ON FOREIGN SERVER vllm TO stranger")
    with conn.transaction(force_rollback=True):
        state = conn.execute("SELECT llm._aggregate('x', 'a secret')::text").fetchone()
        assert state is not None
        assert conn.execute("SELECT llm.aggregate(%s::llm.gathered)", state).fetchone() == ("x 1",)
        conn.execute("SET LOCAL ROLE stranger")
        with pytest.raises(psycopg.Error, match="has not made"):
            conn.execute("SELECT llm.aggregate(%s::llm.gathered)", state)
    conn.execute("DROP OWNED BY stranger; DROP ROLE stranger")
    with pytest.raises(psycopg.Error, match="has not made"):  # nor of any other transaction
        conn.execute("SELECT llm.aggregate(%s::llm.gathered)", state)


def test_groups_that_a_view_hides_are_not_to_be_guessed(conn: Conn) -> None:
    """A role may write a state by hand, and the groups of one transaction are its own, those of a view among them."""
    conn.execute("CREATE VIEW large AS SELECT llm.summarize(review) FROM reviews GROUP BY id HAVING count(*) > 1000")
    for _ in range(3):
        with conn.transaction(force_rollback=True):
            assert conn.execute("TABLE large").fetchall() == []
            (own,) = conn.execute("SELECT llm._summarize('x')::text").fetchone() or ("",)
            with pytest.raises(psycopg.Error, match="has not made"), conn.transaction():
                conn.execute("SELECT llm.summarize(%s::llm.gathered)", [str((int(own) >> 31) - 1 << 31 | 1)])
            with pytest.raises(psycopg.Error, match="has not made"):  # after a wrong one there is nothing more to guess
                conn.execute("SELECT llm._gather_text(%s::llm.gathered, 'x')", [own])


@pytest.mark.new_database
def test_who_may_not_call_an_aggregate_may_not(conn: Conn) -> None:
    """What stands in its place in a plan is not what was taken from a role, and a kept plan is that of its role."""
    conn.execute(
        "DROP ROLE IF EXISTS stranger, friends; CREATE ROLE stranger; CREATE ROLE friends; GRANT friends TO stranger; "
        "GRANT USAGE ON FOREIGN SERVER vllm TO stranger; GRANT SELECT ON reviews TO stranger; "
        "REVOKE EXECUTE ON FUNCTION llm.summarize(text) FROM PUBLIC; SET plan_cache_mode = force_generic_plan"
    )
    queries = (
        "SELECT llm.summarize(review) FROM reviews WHERE id = 1",
        "SELECT llm.summarize(review) OVER () FROM reviews WHERE id = 1",
    )
    for name, query in zip(("grouped", "framed"), queries, strict=True):
        conn.execute(f"PREPARE {name} AS {query}".encode())
        execute = f"EXECUTE {name}".encode()
        assert conn.execute(execute).fetchall() == [("Sum up th 1",)]
        conn.execute("SET ROLE stranger")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(execute)
        conn.execute("RESET ROLE; GRANT EXECUTE ON FUNCTION llm.summarize(text) TO friends; SET ROLE stranger")
        assert conn.execute(execute).fetchall() == [("Sum up th 1",)]
        conn.execute("RESET ROLE; REVOKE friends FROM stranger; SET ROLE stranger")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(execute)
        conn.execute("RESET ROLE; GRANT friends TO stranger; SET ROLE stranger")
        assert conn.execute(execute).fetchall() == [("Sum up th 1",)]
        conn.execute("RESET ROLE; REVOKE EXECUTE ON FUNCTION llm.summarize(text) FROM friends; SET ROLE stranger")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(execute)
        conn.execute("RESET ROLE")
    conn.execute("DROP OWNED BY stranger, friends; DROP ROLE stranger, friends")


def test_an_aggregate_with_a_state_of_any_type(conn: Conn) -> None:
    """What type its state is of, only the executor finds out: it stays as it is."""
    conn.execute(
        """
        CREATE FUNCTION first_of(s anyelement, v anyelement) RETURNS anyelement LANGUAGE sql AS 'SELECT coalesce(s, v)';
        CREATE FUNCTION told(s anyelement) RETURNS text LANGUAGE plpgsql STABLE COST 10000 AS
            'BEGIN RETURN s::text; END';
        CREATE FUNCTION told_batch(statement bigint, node int, s json[]) RETURNS text[] LANGUAGE sql AS
            'SELECT array_agg(x #>> ''{}'') FROM unnest(s) AS x';
        SELECT llm.register_batch('told(anyelement)', 'told_batch(bigint, int, json[])');
        CREATE AGGREGATE first(anyelement) (SFUNC = first_of, STYPE = anyelement, FINALFUNC = told);
        CREATE AGGREGATE _first(anyelement) (SFUNC = first_of, STYPE = anyelement);
        """
    )
    query = "SELECT film, first(review ORDER BY id) FROM reviews WHERE id < 3 GROUP BY film ORDER BY film"
    assert conn.execute(query).fetchall() == [(1, "text 1"), (2, "text 2")]


def test_cursors_and_subqueries(conn: Conn, engine: EngineDouble) -> None:
    query = "SELECT llm.aggregate('x', 'text ' || i) FROM generate_series(1, 500) AS i GROUP BY i % 5"
    with conn.transaction():
        conn.execute(f"DECLARE kept CURSOR WITH HOLD FOR {query}")
        conn.execute(f"DECLARE c CURSOR FOR {query}")
        assert conn.execute("FETCH 2 FROM c").fetchall() == [("x 100",)] * 2
        conn.execute("SELECT llm.summarize('x'::text)")
        assert conn.execute("FETCH ALL FROM c").fetchall() == [("x 100",)] * 3
    assert conn.execute("FETCH ALL FROM kept").fetchall() == [("x 100",)] * 5
    outer = "SELECT (SELECT llm.aggregate('x', t.i::text)) FROM generate_series(1, 3) AS t (i)"
    assert conn.execute(outer).fetchall() == [("x 3",)]
    inner = "(SELECT llm.aggregate('x', u::text) FROM generate_series(1, t.i) AS u)"
    got = conn.execute(f"SELECT {inner} FROM generate_series(1, 3) AS t (i)").fetchall()
    assert got == [("x 1",), ("x 2",), ("x 3",)]
    rows = "SELECT llm.aggregate('x', r) FROM (VALUES (1, NULL), (NULL, NULL)) AS r (a, b)"
    assert conn.execute(rows).fetchone() == ("x 2",)  # a row of NULLs is one
    missing = "SELECT llm.aggregate('x', l) FROM (VALUES (1)) AS r LEFT JOIN (SELECT 1 AS b WHERE false) AS l ON true"
    assert conn.execute(missing).fetchone() == (None,)


@pytest.mark.slow
def test_many_rows_are_gathered_in_a_file(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.record = False
    query = "SELECT llm.aggregate('x', repeat(i::text, 2000)) FROM generate_series(10000, 14000) AS i"
    assert conn.execute(query).fetchone() == ("4001 rows",)

"""llm.estimate: what it foretells, for whom, and that it asks and leaves nothing."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database
from tests.integration.test_faults import eventually, once
from tests.integration.test_map import Role

MULTICORN_IS_SLOW = True
KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

ROWS = """
SELECT i AS id, md5((i % 40)::text) || repeat(' which is rather long', 2 + i % 7) AS film,
       repeat(md5(i::text), 1 + i % 3) AS review
FROM generate_series(1, 900) AS i
"""
PROMPT = "Is {review} kind to {film}, as far as one can tell from what is said of it and from nothing else?"


def estimate(conn: Conn, query: str = ROWS, prompt: str = PROMPT, **options: Any) -> dict[str, Any]:
    named = "".join(f", {name} => %s" for name in options)
    cursor = conn.execute(f"SELECT * FROM llm.estimate(%s, %s{named})", [query, prompt, *options.values()])
    (row,) = cursor.fetchall()
    return {column.name: value for column, value in zip(cursor.description or (), row, strict=True)}


def test_what_is_foretold_is_what_the_run_counts(conn: Conn, engine: EngineDouble) -> None:
    foretold = estimate(conn)
    assert engine.received.requests == []
    assert engine.received.tokenized > 0
    conn.execute("SELECT count(*) FROM llm.map(%s, %s)", [ROWS, PROMPT])
    counted = conn.execute(
        "SELECT rows, unique_prompts, requests, prompt_tokens, cached_tokens FROM llm.last_run()"
    ).fetchone()
    assert counted is not None
    rows, unique, requests, prompt_tokens, cached_tokens = counted
    assert (foretold["rows"], foretold["unique_prompts"]) == (rows, unique) == (900, 900)
    assert foretold["prompt_tokens"] == pytest.approx(prompt_tokens, rel=0.01)
    assert foretold["cached_tokens"] == pytest.approx(cached_tokens, rel=0.05)
    assert cached_tokens > prompt_tokens / 3
    assert requests / 3 <= foretold["requests"] <= requests
    assert foretold["counted_by"] == "by_tokenizer"


@pytest.mark.new_database
def test_it_leaves_nothing_behind(fresh: Conn, engine: EngineDouble) -> None:
    estimate(fresh)
    assert engine.received.requests == []
    assert fresh.execute("SELECT rows FROM llm.last_run()").fetchone() == (None,)
    assert eventually(lambda: engine.received.in_flight == 0)


def test_what_the_ledger_knows_is_not_counted(fresh: Conn, engine: EngineDouble) -> None:
    fresh.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent')")
    fresh.execute("SELECT count(*) FROM llm.map(%s, %s)", [ROWS, PROMPT])
    used = fresh.execute("SELECT * FROM llm.usage()").fetchall()
    known = estimate(fresh)
    assert (known["unique_prompts"], known["already_answered"], known["requests"]) == (900, 900, 0)
    assert (known["prompt_tokens"], known["cached_tokens"], known["seconds"]) == (0, 0, 0)
    more = ROWS.replace("generate_series(1, 900)", "generate_series(1, 910)")
    assert estimate(fresh, more)["already_answered"] == 900
    assert 0 < estimate(fresh, more)["prompt_tokens"] < 10_000
    assert estimate(fresh, temperature=0.7)["already_answered"] == 0
    assert estimate(fresh, max_tokens=7)["already_answered"] == 0
    assert fresh.execute("SELECT * FROM llm.usage()").fetchall() == used
    fresh.execute("ALTER SERVER vllm OPTIONS (SET cache 'off')")
    assert estimate(fresh)["already_answered"] == 0


def test_an_engine_without_a_tokenizer(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.tokenize = engine.behaviour.metrics = engine.behaviour.batch_endpoint = False
    foretold = estimate(conn)
    assert (foretold["counted_by"], foretold["requests"]) == ("by_characters", 900)


def test_a_role_needs_usage_and_sees_its_own_rows(connect: Connect, fresh: Conn) -> None:
    with Role(fresh, "reader"):
        fresh.execute(
            "CREATE TABLE mine (a int, owner text); INSERT INTO mine SELECT i, 'other' FROM generate_series(1, 9) AS i;"
            "INSERT INTO mine VALUES (1, 'reader'); ALTER TABLE mine ENABLE ROW LEVEL SECURITY;"
            "CREATE POLICY p ON mine USING (owner = current_user); GRANT SELECT ON mine TO reader;"
            "CREATE TABLE hidden (a int)"
        )
        reader = connect(user="reader")
        with pytest.raises(psycopg.Error, match="permission denied for foreign server"):
            estimate(reader, "TABLE mine", "{a}")
        fresh.execute("GRANT USAGE ON FOREIGN SERVER vllm TO reader")
        assert estimate(reader, "TABLE mine", "{a}")["rows"] == 1
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table hidden"):
            estimate(reader, "TABLE hidden", "{a}")
        reader.close()


def test_a_cancel_ends_it(fresh: Conn, engine: EngineDouble) -> None:
    engine.behaviour.hang = True
    with once(lambda: engine.received.tokenized, fresh.cancel), pytest.raises(psycopg.errors.QueryCanceled):
        estimate(fresh)
    engine.behaviour.hang = False
    assert estimate(fresh)["rows"] == 900


def test_it_runs_where_nothing_may_be_written(fresh: Conn, database: Database) -> None:
    if database.host == "multicorn":
        pytest.skip("Multicorn's own tables are filled by INSERT")
    fresh.execute("SET default_transaction_read_only = on")
    assert estimate(fresh)["rows"] == 900


def test_an_engine_that_is_gone_is_an_error_as_for_a_run(fresh: Conn) -> None:
    fresh.execute("ALTER SERVER vllm OPTIONS (SET endpoint 'http://127.0.0.1:9', ADD connect_timeout_s '0.2')")
    with pytest.raises(psycopg.Error, match="could not connect to the engine"):
        estimate(fresh)
    assert estimate(fresh, f"SELECT * FROM ({ROWS}) AS r WHERE id < 0")["requests"] == 0  # nothing to ask it about


@pytest.mark.new_database
def test_time_and_answers_are_as_this_role_last_saw_them(connect: Connect, fresh: Conn) -> None:
    unseen = estimate(fresh, max_tokens=50)
    assert (unseen["seconds"], unseen["completion_tokens"], unseen["answers_by"]) == (None, 45_000, "at_most")
    fresh.execute("SELECT count(*) FROM llm.map(%s, 'Sum up {review}.')", [ROWS])
    took = "SELECT http_s + wait_s, prompt_tokens - cached_tokens, completion_tokens FROM llm.last_run()"
    seconds, computed, completion = fresh.execute(took).fetchone() or (0, 0, 0)
    seen = estimate(fresh, max_tokens=50)
    per_token = seconds / computed
    assert seen["seconds"] == pytest.approx(per_token * (seen["prompt_tokens"] - seen["cached_tokens"]), rel=0.01)
    assert (seen["completion_tokens"], seen["answers_by"]) == (completion, "as_seen")
    later = connect()  # the ledger tells
    assert estimate(later, max_tokens=50)["seconds"] == pytest.approx(seen["seconds"], rel=0.2)
    with Role(fresh, "reader"):
        fresh.execute("GRANT USAGE ON FOREIGN SERVER vllm TO reader")
        fresh.execute("SET ROLE reader")
        assert estimate(fresh)["seconds"] is None
        fresh.execute("RESET ROLE")


@pytest.mark.new_database
@pytest.mark.slow
def test_calls_of_a_row_each_say_nothing_of_how_long_many_take(
    connect: Connect, fresh: Conn, engine: EngineDouble
) -> None:
    one_each = f"SELECT count(llm.complete('Say ' || id)) FROM ({ROWS}) AS r WHERE id < 150"
    fresh.execute("SELECT llm.complete('Hello')")
    assert estimate(fresh)["seconds"] is None
    fresh.execute("SELECT count(*) FROM llm.map(%s, 'Sum up {review}.')", [ROWS])
    seen, later = estimate(fresh)["seconds"], estimate(connect())["seconds"]
    assert seen
    assert later
    engine.behaviour.delay_s = 0.02
    fresh.execute("SET pg_bridge.batching = off")
    fresh.execute(one_each)
    assert len(engine.received.requests) > 150
    assert (estimate(fresh)["seconds"], estimate(connect())["seconds"]) == (seen, later)


@pytest.mark.new_database
def test_a_server_that_is_made_anew_for_another_engine_has_not_been_seen(connect: Connect, fresh: Conn) -> None:
    fresh.execute("SELECT count(*) FROM llm.map(%s, 'Sum up {review}.')", [ROWS])
    assert estimate(fresh)["seconds"] > 0
    with EngineDouble() as other:
        fresh.execute("DROP SERVER vllm")
        fresh.execute(
            f"CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint '{other.url}', model 'double')"
        )
        for session in (fresh, connect()):
            assert estimate(session)["seconds"] is None


# -- EXPLAIN

REVIEWS = """
CREATE TABLE review (id int, film text, review text);
INSERT INTO review SELECT i, 'film ' || i % 9, repeat('so long ', 1 + i % 30) FROM generate_series(1, 300) AS i;
ANALYZE review;
CREATE FOREIGN TABLE review_insight (id int, review text, kind boolean OPTIONS (prompt 'Is {review} kind?'))
    SERVER vllm OPTIONS (source 'public.review')
"""
CALLS = "SELECT llm.complete('Sum up {review}', r) FROM review AS r"
SCAN = "SELECT kind FROM review_insight"


def estimated(conn: Conn, query: str, options: str = "VERBOSE") -> dict[str, str]:
    lines = [line.strip() for (line,) in conn.execute(f"EXPLAIN ({options}) {query}".encode()).fetchall()]
    lines = [line.removeprefix("Multicorn: ") for line in lines]
    return dict(line.removeprefix("Estimated ").split(": ", 1) for line in lines if line.startswith("Estimated"))


@pytest.fixture
def ways(fresh: Conn, database: Database) -> list[str]:
    """Statements whose plans ask."""
    if database.host == "multicorn":
        fresh.execute("ALTER SERVER vllm OPTIONS (ADD wrapper 'pg_bridge.multicorn.wrapper.Wrapper')")
        fresh.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (user 'postgres')")
        fresh.execute(REVIEWS)
        return [SCAN]
    if not database.cluster.has_module:
        pytest.skip("this PostgreSQL has not the module pg_bridge")
    fresh.execute("LOAD 'pg_bridge'")
    fresh.execute("SELECT llm.enable_foreign_tables()")
    fresh.execute(REVIEWS)
    return [CALLS, SCAN]


def test_explain_tells_what_is_expected_and_asks_nobody(fresh: Conn, engine: EngineDouble, ways: list[str]) -> None:
    for query in ways:
        told = estimated(fresh, query)
        assert told["Questions"] == "300 at most"
        assert told["Requests"] == "38"
        sent = int(told["Prompt Tokens"].removesuffix(" by characters"))
        fresh.execute(query)
        answered = fresh.execute("SELECT prompt_tokens, unique_prompts FROM llm.last_run()").fetchone()
        assert answered is not None
        assert sent / 300 == pytest.approx(answered[0] / answered[1], rel=0.25)
    assert engine.received.tokenized == 0


def test_explain_without_costs_or_with_what_happened_estimates_nothing(
    fresh: Conn, database: Database, ways: list[str]
) -> None:
    for query in ways if database.host == "plpython" else ():  # Multicorn hands over VERBOSE and no more
        assert estimated(fresh, query, "VERBOSE, COSTS OFF") == {}
        assert estimated(fresh, query, "ANALYZE") == {}


def test_explain_by_who_may_not_use_the_server(fresh: Conn, connect: Connect, ways: list[str]) -> None:
    with Role(fresh, "reader"):
        fresh.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        reader = connect(user="reader")
        assert [estimated(reader, query) for query in ways if query == CALLS] == [{}] * (len(ways) - 1)
        reader.close()


def test_what_explain_cannot_know_is_left_out(fresh: Conn, database: Database, ways: list[str]) -> None:
    if database.host == "multicorn":
        pytest.skip("of calls in batches")
    assert estimated(fresh, "SELECT llm.complete('Sum up {review}', r, server => 'nowhere') FROM review AS r") == {}
    assert estimated(fresh, "SELECT llm.complete('Sum up {review}', r, server => film) FROM review AS r") == {}
    assert estimated(fresh, "SELECT llm.complete('{', r) FROM review AS r")["Questions"] == "300 at most"
    of_row = "SELECT llm.complete('Sum up {review}', r, max_tokens => r.id) FROM review AS r"
    assert "Already Answered" not in estimated(fresh, of_row)


def test_inputs_of_every_kind(fresh: Conn, database: Database, ways: list[str]) -> None:
    if database.host == "multicorn":
        pytest.skip("of calls in batches")
    told = {
        call: estimated(fresh, f"SELECT llm.complete({call}) FROM review AS r")
        for call in (
            "'Sum up {film}', r",
            "'Sum up {film}', llm.row(r, '{}'::json)",
            "'Sum up {}', film",
            "'Sum up ' || film, '{}'::jsonb",
            "'Sum up ' || film",
        )
    }
    assert [lines["Unique Questions"] for lines in told.values()] == ["about 9"] * 5
    row, rows, value, empty, none = (int(lines["Prompt Tokens"].split()[0]) for lines in told.values())
    assert row == rows == pytest.approx(value, rel=0.05)
    assert none == empty < value


FORGED = (
    None,
    "",
    "{",
    "7",
    '{"calls": 7}',
    '{"calls": [7]}',
    "[" * 20_000,
)
CALL = {"function": "is_true", "rows": 1, "arguments": {}, "varying": [], "width": 7, "besides": [], "tables": {}}
FORGED_CALLS = (
    {"rows": "many"},
    {"rows": float("inf")},
    {"rows": -1},
    {"rows": None},
    {"arguments": [7]},
    {"arguments": {"prompt": 7}},
    {"columns": [1]},
    {"columns": {"a": {"width": 1, "made_of": [[1, 1, 1.0]]}}},
    {"besides": [[1, 1]]},
    {"besides": 7},
    {"tables": {"1": [1]}},
    {"tables": {"1": [1, float("nan")]}},
    {"varying": None},
)


def test_forged_requests_by_a_superuser(fresh: Conn, database: Database) -> None:
    if database.host == "multicorn":
        pytest.skip("of calls in batches")
    for request in (*FORGED, *(json.dumps({"calls": [CALL | forged]}) for forged in FORGED_CALLS)):
        found = fresh.execute("SELECT fault FROM llm._estimate_calls(%s)", [request]).fetchall()
        assert found[0][0][:2] == ["22023", "this is no request of the native module"], request
    for options in ({}, {"max_tokens": "x"}, {"labels": 7}, {"server": "nowhere"}):
        request = json.dumps({"calls": [CALL | {"arguments": options}]})
        assert fresh.execute("SELECT fault FROM llm._estimate_calls(%s)", [request]).fetchall() == [(None,)], options


@pytest.mark.new_database
def test_auto_explain_shows_it_of_what_was_run(fresh: Conn, database: Database, ways: list[str]) -> None:
    """It shows a plan when the statement has ended, at COMMIT if a cursor was left open; no snapshot is active then."""
    if database.host == "multicorn":
        pytest.skip("Multicorn shows no estimates without VERBOSE")
    said: list[str] = []
    fresh.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    fresh.execute("LOAD 'auto_explain'")
    fresh.execute("SET auto_explain.log_min_duration = 0; SET auto_explain.log_level = notice")
    for query in ways:
        said.clear()
        fresh.execute(query)
        assert any("Estimated Questions: 300 at most" in each for each in said)
        said.clear()
        with fresh.transaction():
            fresh.execute(f"DECLARE left_open CURSOR FOR {query}".encode())
            fresh.execute("FETCH 3 FROM left_open")
        assert any("Estimated Questions: 300 at most" in each for each in said)


# -- different questions, and those that are answered

TABLES = """
CREATE TABLE film (id int PRIMARY KEY, title text, year int);
INSERT INTO film SELECT i, 'film ' || i, 1990 + i % 20 FROM generate_series(1, 50) AS i;
CREATE TABLE take (film int, mood text, words text, extra json);
INSERT INTO take SELECT i % 50 + 1, 'mood ' || i % 4, 'words ' || i, '{}' FROM generate_series(1, 1000) AS i;
ANALYZE film; ANALYZE take
"""


@pytest.mark.parametrize(
    ("query", "unique"),
    [
        ("SELECT llm.complete('Sum up {words}', t) FROM take AS t", "about 1000"),
        ("SELECT llm.complete('Sum up {mood}', t) FROM take AS t", "about 4"),
        (
            "SELECT llm.complete('Why {mood}?', jsonb_build_object('mood', t.mood, 'b', t.words)) FROM take AS t",
            "about 4",
        ),
        ("SELECT llm.complete('Sum up', jsonb_build_object('mood', upper(t.mood))) FROM take AS t", "about 4"),
        ("SELECT llm.complete('Sum up {mood}', t) FROM take AS t WHERE words = 'words 7'", "about 1"),
        ("SELECT llm.complete('Sum up {mood} {film}', t) FROM take AS t", "about 100"),  # a tenth, as PostgreSQL has it
        (
            "SELECT llm.complete('Sum up {mood} of ' || film, jsonb_build_object('mood', mood)) FROM take AS t",
            "about 100",
        ),
        ("SELECT llm.complete('Sum up {mood} of ' || film, t) FROM take AS t", "1000 at most"),  # which columns?
        (
            "SELECT llm.complete('{mood} of {title}?', r) FROM "
            "(SELECT t.mood, f.title FROM take AS t JOIN film AS f ON f.id = t.film) AS r",
            "about 200",
        ),
        ("SELECT llm.complete('Sum up {mood}', r) FROM (SELECT mood FROM take GROUP BY mood OFFSET 0) AS r", "about 4"),
        (
            "SELECT llm.complete('Sum up {mood}', r) FROM (SELECT mood, words FROM take UNION ALL TABLE x) AS r",
            "at most",
        ),
        (
            "SELECT llm.complete('Sum up {n}', r) FROM (SELECT film, count(*) AS n FROM take GROUP BY film) AS r",
            "50 at most",
        ),
        ("SELECT llm.complete('Sum up {extra}', t) FROM take AS t", "1000 at most"),
        ("SELECT llm.complete('Sum up {words}', x) FROM x", "at most"),  # it has not been analyzed
        ("SELECT llm.complete('Sum up {mood}', t, dedup => false) FROM take AS t", "1000 at most"),
        ("SELECT llm.classify('Which {mood}?', t, '{a,b}') FROM take AS t", "about 4"),
    ],
)
def test_different_questions_by_the_statistics(fresh: Conn, database: Database, query: str, unique: str) -> None:
    if database.host == "multicorn" or not database.cluster.has_module:
        pytest.skip("of calls in batches")
    fresh.execute("LOAD 'pg_bridge'")
    fresh.execute(TABLES)
    fresh.execute("CREATE TABLE x (mood text, words text) WITH (autovacuum_enabled = off)")
    fresh.execute("INSERT INTO x SELECT mood, words FROM take")
    fresh.execute("SET enable_nestloop = off; SET max_parallel_workers_per_gather = 0")
    told = estimated(fresh, query)
    assert told["Unique Questions"] == (told["Questions"] if unique == "at most" else unique)


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ("mood", "take"),
        ("film", "take"),
        ("film, mood", "take"),
        ("words", "take WHERE film < 10"),
        ("film", "take WHERE words < 'words 2'"),
        ("title", "take JOIN film ON film.id = take.film"),
        ("year, mood", "take JOIN film ON film.id = take.film WHERE film.id < 20"),
    ],
)
def test_postgresql_itself_expects_as_many(fresh: Conn, database: Database, columns: str, rows: str) -> None:
    if database.host == "multicorn" or not database.cluster.has_module:
        pytest.skip("of calls in batches")
    fresh.execute("LOAD 'pg_bridge'")
    fresh.execute(TABLES)
    fresh.execute("SET enable_nestloop = off; SET max_parallel_workers_per_gather = 0")
    pairs = ", ".join(f"'{name}', {name}" for name in columns.split(", "))
    told = estimated(fresh, f"SELECT llm.complete('Why?', jsonb_build_object({pairs})) FROM {rows}")
    planned = fresh.execute(f"EXPLAIN (FORMAT JSON) SELECT DISTINCT {columns} FROM {rows}".encode()).fetchone()
    assert planned is not None
    assert told["Unique Questions"].startswith("about ")
    found = int(told["Unique Questions"].removeprefix("about "))
    assert found == pytest.approx(planned[0][0]["Plan"]["Plan Rows"], rel=0.05)


def test_a_partitioned_table(fresh: Conn, database: Database) -> None:
    if database.host == "multicorn" or not database.cluster.has_module:
        pytest.skip("of calls in batches")
    fresh.execute("LOAD 'pg_bridge'")
    fresh.execute(
        "CREATE TABLE parts (a int, b text) PARTITION BY LIST (a);"
        "CREATE TABLE one PARTITION OF parts FOR VALUES IN (1);"
        "CREATE TABLE two PARTITION OF parts FOR VALUES IN (2);"
        "INSERT INTO parts SELECT 1 + i % 2, 'b' || i % 30 FROM generate_series(1, 500) AS i; ANALYZE parts"
    )
    of_all = "SELECT llm.complete('Sum up {b}', jsonb_build_object('b', b)) FROM (SELECT b FROM parts OFFSET 0) AS p"
    told = estimated(fresh, of_all)
    assert (told["Questions"], told["Unique Questions"]) == ("500 at most", "about 30")
    told = estimated(fresh, of_all.replace("parts", "one"))
    assert (told["Questions"], told["Unique Questions"]) == ("250 at most", "about 15")


def test_foreign_tables_tell_different_questions(fresh: Conn, ways: list[str]) -> None:
    assert estimated(fresh, SCAN)["Unique Questions"] == "about 30"
    fresh.execute(
        "CREATE TABLE plain (id int, review json, film text) WITH (autovacuum_enabled = off);"
        "INSERT INTO plain SELECT i, '{}', 'film' FROM generate_series(1, 5000) AS i;"
        "CREATE FOREIGN TABLE unknown (id int, review json, film text,"
        "  kind boolean OPTIONS (prompt 'Is {review} kind?'),"
        "  same boolean OPTIONS (prompt 'Is {film} one?')) SERVER vllm OPTIONS (source 'public.plain')"
    )
    for column in ("kind", "same"):
        told = estimated(fresh, f"SELECT {column} FROM unknown")
        assert told["Unique Questions"] == told["Questions"]  # nothing is known of a table that was not analyzed
    fresh.execute("ANALYZE plain")
    assert estimated(fresh, "SELECT kind FROM unknown")["Unique Questions"] == "5000 at most"  # json has no equality
    assert estimated(fresh, "SELECT same FROM unknown")["Unique Questions"] == "about 1"


def test_what_the_ledger_keeps_of_exactly_this_question(fresh: Conn, engine: EngineDouble, ways: list[str]) -> None:
    fresh.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent')")
    for query in ways:
        assert estimated(fresh, query)["Already Answered"] == "0"
        fresh.execute(query)
        assert estimated(fresh, query)["Already Answered"] == "30 at most"
    asked = len(engine.received.requests)
    if CALLS in ways:
        for option in (
            "max_tokens => 7",
            "temperature => 0.5",
            "system_prompt => ''",
            "cache => 'off'",
            "dedup => false",
            "choices => '{a,b}'",
        ):
            other = estimated(fresh, CALLS.replace(", r)", f", r, {option})"))
            assert other["Already Answered"] == "0", option
        assert estimated(fresh, CALLS + " WHERE id < 4")["Already Answered"] in ("2 at most", "3 at most")
        assert estimated(fresh, CALLS.replace("Sum", "Add"))["Already Answered"] == "0"
    fresh.execute("ALTER SERVER vllm OPTIONS (ADD model 'another')")
    for query in ways:
        assert estimated(fresh, query)["Already Answered"] == "0"
    assert len(engine.received.requests) == asked
    assert engine.received.tokenized == 0


OPTIONS = (
    "llm.classify('Which {review}?', r, '{short,long}')",
    "llm.classify('Which {review}?', r, labels => ARRAY['a \"quoted\", one', 'NULL', '{}'], max_tokens => 9)",
    "llm.is_true('Is {review} kind?', r, temperature => 0)",
    "llm.score('How kind is {review}?', r, system_prompt => 'Be \"brief\".')",
    """llm.extract('Take {review} apart.', r, '{"type": "object", "required": ["a"], "properties": {"a": {}}}')""",
    "llm.complete('Which {review}?', r, choices => '{short,long}', priority => 3, max_age => 1e6)",
)


@pytest.mark.parametrize("call", OPTIONS)
def test_a_call_s_options_arrive_whole(fresh: Conn, database: Database, ways: list[str], call: str) -> None:
    """Its answers are found: the question that EXPLAIN looks for is the one that the run has asked."""
    if database.host == "multicorn":
        pytest.skip("of calls in batches")
    fresh.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent')")
    query = f"SELECT {call} FROM review AS r"
    assert estimated(fresh, query)["Already Answered"] == "0"
    fresh.execute(query)
    assert estimated(fresh, query)["Already Answered"] == "30 at most"


def test_statistics_are_for_whom_pg_stats_shows_them(fresh: Conn, connect: Connect, ways: list[str]) -> None:
    if CALLS not in ways:
        pytest.skip("of calls in batches")
    fresh.execute("CREATE VIEW through AS SELECT id, review FROM review; GRANT USAGE ON FOREIGN SERVER vllm TO PUBLIC")
    of_review = "SELECT llm.complete('Sum up {review}', jsonb_build_object('review', review)) FROM "
    of_id = "SELECT llm.complete('Sum up {id}', jsonb_build_object('id', id)) FROM "
    with Role(fresh, "reader"):
        fresh.execute("GRANT SELECT (id) ON review TO reader; GRANT SELECT ON through, review_insight TO reader")
        reader = connect(user="reader")
        assert estimated(reader, of_id + "review")["Unique Questions"] == "about 300"
        for hidden in (of_review + "through", of_id + "through WHERE id > 0 OFFSET 0"):
            told = estimated(reader, hidden)
            may_see = "id" in hidden.split("(")[1]
            assert (told["Unique Questions"] == "about 300") is may_see
        fresh.execute("GRANT SELECT ON review TO reader")
        assert estimated(reader, of_review + "through")["Unique Questions"] == "about 30"
        fresh.execute("ALTER TABLE review ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON review USING (true)")
        told = estimated(reader, of_review + "review")
        assert told["Unique Questions"] == told["Questions"]
        assert estimated(fresh, of_review + "review")["Unique Questions"] == "about 30"
        # Of a foreign table as of any: who may not read what is sent is not told how many there are of it.
        assert estimated(reader, SCAN)["Unique Questions"] == "about 30"
        fresh.execute("REVOKE SELECT ON review_insight FROM reader; GRANT SELECT (kind) ON review_insight TO reader")
        told = estimated(reader, SCAN)
        assert told["Unique Questions"] == told["Questions"]
        reader.close()


def test_answers_of_another_role_are_counted_where_they_are_shared(
    fresh: Conn, connect: Connect, ways: list[str]
) -> None:
    if CALLS not in ways:
        pytest.skip("of calls in batches")
    fresh.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent'); GRANT USAGE ON FOREIGN SERVER vllm TO PUBLIC")
    fresh.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC")
    with Role(fresh, "reader"):
        reader = connect(user="reader")
        for scope, others in (("server", "30 at most"), ("role", "0")):
            fresh.execute(f"ALTER SERVER vllm OPTIONS ({'ADD' if scope == 'server' else 'SET'} cache_scope '{scope}')")
            for query in ways:
                fresh.execute(query)
                assert estimated(fresh, query)["Already Answered"] == "30 at most"
                assert estimated(reader, query)["Already Answered"] == others
        reader.close()


def test_a_ledger_out_of_reach_fails_no_explain(fresh: Conn, connect: Connect, ways: list[str]) -> None:
    fresh.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent')")
    for query in ways:
        fresh.execute(query)
    (data,) = fresh.execute("SHOW data_directory").fetchone() or ("",)
    file = Path(data, "pg_bridge", "ledger.db")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # somebody writes
        for query in ways:
            assert estimated(fresh, query)["Already Answered"] == "30 at most"
    for part in file.parent.glob("ledger.db*"):
        part.write_bytes(b"nonsense" * 4096)
    later = connect()
    for query in ways:
        told = estimated(later, query)
        assert told["Questions"] == "300 at most"
        assert told["Already Answered"] == "0"  # it is begun anew
    for part in file.parent.glob("ledger.db*"):
        part.unlink()
    file.mkdir()
    try:
        last = connect()
        for query in ways:
            told = estimated(last, query)
            assert told["Questions"] == "300 at most"
            assert "Already Answered" not in told
    finally:
        file.rmdir()


def test_calls_that_are_not_batched_are_short_as_well(fresh: Conn, database: Database) -> None:
    """Of all functions of both extensions."""
    if not database.cluster.has_module:
        pytest.skip("the module shortens them")
    fresh.execute("LOAD 'pg_bridge'; SET pg_bridge.batching = off")
    for query in (
        "SELECT llm.is_true('Kind?', v) FROM (VALUES ('x'), ('y')) AS v (t)",
        "SELECT * FROM llm.map('SELECT 1 AS a', 'What is {a}?', max_tokens => 7)",
        "SELECT * FROM llm.estimate('SELECT 1 AS a', 'What is {a}?')",
    ):
        plan = "\n".join(line for (line,) in fresh.execute(f"EXPLAIN (VERBOSE, COSTS OFF) {query}".encode()).fetchall())
        assert "NULL::" not in plan

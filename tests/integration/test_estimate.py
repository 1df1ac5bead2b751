"""llm.estimate: what it foretells, for whom, and that it asks and leaves nothing."""

from __future__ import annotations

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
    waited = fresh.execute("SELECT wait_s, prompt_tokens - cached_tokens, completion_tokens FROM llm.last_run()")
    seconds, computed, completion = waited.fetchone() or (0, 0, 0)
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
        assert told["Requests"] == "5"
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


FORGED = (
    None,
    "",
    "{",
    "7",
    '{"calls": 7}',
    '{"calls": [7]}',
    '{"calls": [{"function": "is_true", "rows": "many", "arguments": {}}]}',
    '{"calls": [{"function": "is_true", "rows": 1e999, "arguments": {"server": "vllm"}}]}',
    '{"calls": [{"function": "is_true", "rows": 1, "arguments": {"server": "vllm"}, "widths": [1]}]}',
    '{"calls": [{"function": "is_true", "rows": 1, "arguments": {"server": "vllm", "max_tokens": "x"}}]}',
    "[" * 20_000,
)


def test_forged_requests_by_a_superuser(fresh: Conn, database: Database) -> None:
    if database.host == "multicorn":
        pytest.skip("of calls in batches")
    for request in FORGED:
        found = fresh.execute("SELECT fault FROM llm._estimate_calls(%s)", [request]).fetchall()
        assert found[0][0][:2] == ["22023", "this is no request of the native module"], request


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

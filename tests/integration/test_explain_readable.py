"""EXPLAIN prints calls as one would write them: no argument that stands at its default, and SQL that means the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database
from tests.integration.test_map import Role

Conn = psycopg.Connection[Any]

README = Path(__file__).parents[2] / "README.md"
TABLES = """
CREATE TABLE products (product_id int PRIMARY KEY, name text);
INSERT INTO products SELECT i, 'product ' || i FROM generate_series(1, 20) AS i;
CREATE TABLE reviews (id int, product_id int, review text, stars int, created date);
INSERT INTO reviews
    SELECT i, 1 + i % 20, 'review ' || i, i % 5, date '2024-01-01' + i FROM generate_series(1, 200) AS i;
ANALYZE
"""


KEEP_DATABASE = True


@pytest.fixture
def host() -> str:
    """The functions that are batched are those of the PL/Python host."""
    return "plpython"


@pytest.fixture
def conn(fresh: Conn, database: Database) -> Conn:
    if not database.cluster.has_module:
        pytest.skip("of calls in batches")
    fresh.execute("LOAD 'pg_bridge'")
    fresh.execute(TABLES)
    return fresh


def explained(conn: Conn, query: str, options: str = "COSTS OFF") -> list[str]:
    return [line for (line,) in conn.execute(f"EXPLAIN ({options}) {query}".encode()).fetchall()]


def test_the_first_plan_of_the_readme_is_read_at_a_glance(conn: Conn) -> None:
    (query,) = re.findall(r"```sql\n(SELECT .*?)```", README.read_text(), re.DOTALL)[:1]
    for options in ("COSTS OFF", "COSTS ON"):
        plan = explained(conn, query, options)
        assert max(map(len, plan)) <= 100
    assert "Filter: (llm.is_true('Does {review} mention the battery?'::text, r.*))" in map(str.strip, plan)


CALLS = {
    "llm.is_true('Kind?', r)": "llm.is_true('Kind?'::text, r.*)",
    "llm.is_true('Kind?', r, temperature => 0, server => 'vllm')": "llm.is_true('Kind?'::text, r.*)",
    "llm.is_true('Kind?', r, 'other', 7)": "llm.is_true('Kind?'::text, r.*, 'other'::text, 7)",
    "llm.complete('Sum up', r, max_tokens => 7)": "llm.complete('Sum up'::text, r.*, max_tokens => 7)",
    "llm.complete('Sum up', r, choices => '{a,b}', on_error => 'null')": (
        "llm.complete('Sum up'::text, r.*, choices => '{a,b}'::text[], on_error => 'null'::text)"
    ),
    "llm.complete('Sum up', r, temperature => 0.5)": (
        "llm.complete('Sum up'::text, r.*, temperature => '0.5'::double precision)"
    ),
    "llm.classify('Which?', r, '{a,b}')": "llm.classify('Which?'::text, r.*, '{a,b}'::text[])",
    "llm.extract('What?', r, '{}', max_tokens => 1024)": "llm.extract('What?'::text, r.*, '{}'::jsonb)",
    "llm.complete('Sum up', r, max_tokens => r.stars)": "llm.complete('Sum up'::text, r.*, max_tokens => r.stars)",
    "llm.complete(r.review)": "llm.complete(r.review)",
    "llm.complete('Sum up {}', input => r.review)": "llm.complete('Sum up {}'::text, r.review)",
    "llm.complete('Sum up {}', r.stars)": "llm.complete('Sum up {}'::text, r.stars)",
    # in the place of the input, this would be the input
    "llm.complete('Well?', server => r.review)": "llm.complete('Well?'::text, server => r.review)",
}


def as_printed(call: str) -> str:
    """PostgreSQL quotes what is a key word, and names the table where there are several."""
    return call.replace("extract", '"extract"').replace("r.review", "review").replace("r.stars", "stars")


@pytest.mark.some(10)
@pytest.mark.parametrize("batching", ["on", "off"])
@pytest.mark.parametrize(("call", "shown"), CALLS.items())
def test_what_is_printed_is_short_and_means_the_same(conn: Conn, call: str, shown: str, batching: str) -> None:
    conn.execute(f"SET pg_bridge.batching = {batching}")
    query = f"SELECT {call} AS x FROM reviews AS r"
    told = "\n".join(explained(conn, query, "COSTS OFF, VERBOSE"))
    assert as_printed(shown) in told.replace("r.review", "review").replace("r.stars", "stars")
    conn.execute(f"CREATE VIEW written AS {query}; CREATE VIEW printed AS SELECT {shown} AS x FROM reviews AS r")
    functions = [
        conn.execute(
            "SELECT DISTINCT d.refobjid::regprocedure::text FROM pg_depend AS d "
            "JOIN pg_rewrite AS r ON r.oid = d.objid "
            "WHERE d.refclassid = 'pg_proc'::regclass AND r.ev_class = %s::regclass ORDER BY 1",
            [view],
        ).fetchall()
        for view in ("written", "printed")
    ]
    assert functions[0]
    assert functions[0] == functions[1]
    plans = [explained(conn, f"TABLE {view}", "COSTS OFF, VERBOSE") for view in ("written", "printed")]
    assert plans[0] == plans[1]


SHAPES = [
    "SELECT id FROM reviews AS r WHERE llm.is_true('Kind?', r) ORDER BY llm.complete('Sum up', r)",
    "SELECT llm.complete('Sum up', r) AS x, count(*) FROM reviews AS r GROUP BY 1 "
    "HAVING llm.is_true(llm.complete('Sum up', r), '{}'::jsonb)",
    "SELECT (SELECT llm.complete('Sum up', r) FROM products AS p WHERE p.product_id = r.product_id) FROM reviews AS r",
    "WITH c AS MATERIALIZED (SELECT llm.complete('Sum up', r) AS x FROM reviews AS r) SELECT * FROM c WHERE x > ''",
    "SELECT id FROM reviews WHERE review = llm.complete('Which text?')",
    "SELECT * FROM llm.complete('Which text?') AS x",
    "SELECT * FROM reviews AS r JOIN products AS p ON llm.is_true('?', jsonb_build_object('r', r.review, 'p', p.name))",
    "SELECT llm.complete('Sum up', r) FROM reviews AS r UNION ALL SELECT llm.complete('Sum up', r) FROM reviews AS r",
    "SELECT CASE WHEN stars > 2 THEN llm.complete('Sum up', r) END FROM reviews AS r",
    "UPDATE reviews AS r SET review = llm.complete('Sum up', r) WHERE llm.is_true('Kind?', r)",
    "INSERT INTO reviews (review) SELECT llm.complete('Sum up', r) FROM reviews AS r",
    "SELECT sum(llm.score('How kind?', r)) OVER (ORDER BY id) FROM reviews AS r",
]


@pytest.mark.some(4)
@pytest.mark.parametrize("query", SHAPES)
def test_no_default_is_printed_whatever_makes_the_calls(conn: Conn, query: str) -> None:
    for batching in ("on", "off"):
        conn.execute(f"SET pg_bridge.batching = {batching}")
        for options in ("COSTS OFF, VERBOSE", "COSTS OFF, VERBOSE, FORMAT JSON"):
            told = str(explained(conn, query, options))
            assert "llm." in told
            assert "'vllm'" not in told
            assert "NULL::double precision" not in told


def test_a_run_that_was_explained_is_the_same_run(conn: Conn, engine: EngineDouble) -> None:
    """A plan that is kept is executed after it was shown, and shown after it was executed."""
    conn.execute("SET plan_cache_mode = force_generic_plan")
    conn.execute(
        "PREPARE p (int) AS SELECT id, llm.complete('Sum up {review}', r, max_tokens => 9) FROM reviews AS r "
        "WHERE stars < $1 AND llm.is_true('Is {review} kind?', r) ORDER BY id"
    )
    first = conn.execute("EXECUTE p (3)").fetchall()
    assert first
    for options in ("COSTS OFF", "ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF", "VERBOSE", "ANALYZE, VERBOSE"):
        told = str(explained(conn, "EXECUTE p (3)", options))
        assert "llm.is_true('Is {review} kind?'::text, r.*)" in told
        assert conn.execute("EXECUTE p (3)").fetchall() == first


def test_what_a_run_did_stands_beside_short_calls(conn: Conn) -> None:
    told = explained(conn, "SELECT id FROM reviews AS r WHERE llm.is_true('Kind?', r)", "ANALYZE, COSTS OFF")
    assert any("Filter: llm.is_true('Kind?'::text, r.*)" in line.replace("(llm", "llm") for line in told)
    assert any("Rows Asked: 200" in line for line in told)


def test_auto_explain_with_what_a_run_did(conn: Conn) -> None:
    said: list[str] = []
    conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    conn.execute("LOAD 'auto_explain'")
    conn.execute(
        "SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on; SET auto_explain.log_level = notice"
    )
    conn.execute("SELECT id FROM reviews AS r WHERE llm.is_true('Kind?', r)")
    assert any("llm.is_true('Kind?'::text, r.*)" in each for each in said)


REGISTERED = """
CREATE FUNCTION word(text, int DEFAULT 3, flag boolean DEFAULT true) RETURNS text LANGUAGE sql STABLE AS
    'SELECT repeat($1, $2)';
CREATE FUNCTION word_batch(bigint, integer, json[], json[], json[]) RETURNS text[] LANGUAGE sql AS
    'SELECT array_agg(t #>> ''{}'') FROM unnest($3) AS t';
SELECT llm.register_batch('word(text, int, boolean)', 'word_batch(bigint, integer, json[], json[], json[])')
"""


def test_a_function_whose_parameters_have_no_names(conn: Conn) -> None:
    conn.execute(REGISTERED)

    def shown(call: str) -> str:
        told = explained(conn, f"SELECT {call} FROM reviews AS r", "COSTS OFF, VERBOSE")
        return next(line.strip().removeprefix("Calls: ") for line in told if "Calls" in line)

    assert shown("word(review)") == "word(r.review)"
    assert shown("word(review, 4)") == "word(r.review, 4)"
    assert shown("word(review, flag => false)") == "word(r.review, 3, false)"
    conn.execute("CREATE FUNCTION word(text) RETURNS text LANGUAGE sql AS 'SELECT $1'")
    assert shown("word(review, 3, true)") == "word(r.review, 3, true)"  # what is shorter is another function


def test_a_default_that_cannot_be_computed_is_not(conn: Conn) -> None:
    """A call with the argument runs, so it can be explained."""
    conn.execute(
        "CREATE FUNCTION far(text, a int DEFAULT 99999999999, b float8 DEFAULT 1e400, c regclass DEFAULT 'gone'::text,"
        " d float8 DEFAULT 0.5, e bigint DEFAULT 7) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1';"
        "CREATE FUNCTION far_batch(bigint, integer, json[], json[], json[], json[], json[], json[]) RETURNS text[]"
        " LANGUAGE sql AS 'SELECT array_agg(t #>> ''{}'') FROM unnest($3) AS t';"
        "SELECT llm.register_batch('far(text, int, float8, regclass, float8, bigint)',"
        " 'far_batch(bigint, integer, json[], json[], json[], json[], json[], json[])')"
    )
    query = "SELECT far(review, 1, 2, 'reviews'::regclass) FROM reviews"
    assert len(conn.execute(query.encode()).fetchall()) == 200
    told = explained(conn, query, "COSTS OFF, VERBOSE")
    assert any("far(reviews.review, 1, '2'::double precision, 'reviews'::regclass)" in line for line in told)


@pytest.mark.new_database
def test_who_may_not_use_the_schema(conn: Conn, connect: Connect) -> None:
    """He reads plans of a view of somebody else's as PostgreSQL prints them."""
    conn.execute("CREATE VIEW v AS SELECT id, llm.complete('Sum up', r) AS x FROM reviews AS r")
    with Role(conn, "reader"):
        conn.execute("GRANT SELECT ON v TO reader; REVOKE USAGE ON SCHEMA llm FROM PUBLIC")
        reader = connect(user="reader")
        assert "'vllm'::text" in str(explained(reader, "SELECT x FROM v", "COSTS OFF, VERBOSE"))
        reader.close()

"""Foreign tables by the native module: what PostgreSQL promises of a scan, and Multicorn's tables cannot keep."""

from __future__ import annotations

import random
import re
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database, create_server
from tests.integration.test_foreign_tables import REVIEWS, asked, failure, sentiment, spoiler, summary
from tests.own_memory import OwnMemory

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]


@pytest.fixture
def host() -> str:
    return "plpython"


@pytest.fixture
def reviews(foreign: Conn) -> Conn:
    foreign.execute(REVIEWS)
    return foreign


@pytest.fixture(scope="module")
def shared(shared_conn: Conn) -> Conn:
    shared_conn.execute(REVIEWS)
    return shared_conn


def plan(conn: Conn, statement: str) -> str:
    return "\n".join(line for (line,) in conn.execute(f"EXPLAIN (COSTS OFF) {statement}").fetchall())


# -- whose rows


def test_the_transactions_own_rows_are_seen(reviews: Conn) -> None:
    with reviews.transaction(force_rollback=True):
        reviews.execute("DELETE FROM reviews WHERE review_id > 1")
        reviews.execute("INSERT INTO reviews VALUES (-7, 'film 7', 3, 'text 7')")
        assert reviews.execute("SELECT review_id, summary FROM review_insight ORDER BY 1").fetchall() == [
            (-7, summary(7)),
            (1, summary(1)),
        ]
        reviews.execute("CREATE TEMP TABLE mine AS SELECT 7 AS n")
        reviews.execute("CREATE FOREIGN TABLE of_mine (n int) SERVER vllm OPTIONS (source 'pg_temp.mine')")
        assert reviews.execute("SELECT n FROM of_mine").fetchall() == [(7,)]


def test_a_scan_sees_what_its_own_statement_sees(reviews: Conn, connect: Connect) -> None:
    """Rows that others commit, or that the statement itself writes, while it runs are none of it."""
    reviews.execute("CREATE TABLE copied (LIKE reviews)")
    with reviews.transaction():
        reviews.execute("DECLARE c CURSOR FOR SELECT review_id FROM review_insight")
        reviews.execute("FETCH 1 FROM c")
        connect().execute("INSERT INTO reviews VALUES (0, 'film 0', 1, 'late')")
        assert len(reviews.execute("FETCH ALL FROM c").fetchall()) == 1999
    reviews.execute("INSERT INTO reviews SELECT review_id + 10000, title, stars, summary FROM review_insight")
    assert reviews.execute("SELECT count(*) FROM reviews").fetchone() == (4002,)
    both = "WITH more AS (INSERT INTO reviews VALUES (-1, 'x', 1, 'x') RETURNING 1) SELECT count(*) FROM review_insight"
    assert reviews.execute(f"{both}, more").fetchone() == (4002,)


@pytest.fixture
def analyst(reviews: Conn, connect: Connect, database: Database) -> Conn:
    """A role that may use the foreign table and the server, but not the source."""
    role = f"native_{database.name}"
    reviews.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON FOREIGN SERVER vllm TO {role}")
    reviews.execute(f"GRANT SELECT ON review_insight TO {role}")
    return connect(user=role)


def test_with_security_invoker_the_callers_rights_and_policies_count(analyst: Conn, reviews: Conn) -> None:
    role = analyst.info.user
    reviews.execute("ALTER FOREIGN TABLE review_insight OPTIONS (ADD security_invoker 'true')")
    said = failure(analyst, "SELECT title FROM review_insight")
    assert (said.sqlstate, said.message_primary) == ("42501", "reading the source: permission denied for table reviews")
    reviews.execute(f"GRANT SELECT ON reviews TO {role}; ALTER TABLE reviews ENABLE ROW LEVEL SECURITY")
    reviews.execute(f"CREATE POLICY p ON reviews TO {role} USING (stars = 1)")
    assert analyst.execute("SELECT count(*), max(stars) FROM review_insight").fetchone() == (400, 1)
    assert reviews.execute("SELECT count(*) FROM review_insight").fetchone() == (2000,)
    reviews.execute(f"REVOKE SELECT ON review_insight FROM {role}")
    assert failure(analyst, "SELECT title FROM review_insight").sqlstate == "42501"


def test_inside_a_view_its_owners_rights_count(analyst: Conn, reviews: Conn, engine: EngineDouble) -> None:
    role = analyst.info.user
    reviews.execute(f"REVOKE ALL ON review_insight FROM {role}; REVOKE USAGE ON FOREIGN SERVER vllm FROM {role}")
    reviews.execute("CREATE VIEW v AS SELECT review_id, spoiler FROM review_insight WHERE stars = 1")
    reviews.execute(f"GRANT SELECT ON v TO {role}")
    rows = analyst.execute("SELECT * FROM v WHERE review_id < 11 ORDER BY 1").fetchall()
    assert rows == [(5, spoiler(5)), (10, spoiler(10))]
    assert "Model Columns" in plan(analyst, "SELECT * FROM v WHERE review_id < 11")
    assert analyst.execute("SELECT current_user::text").fetchone() == (role,)
    if reviews.info.server_version >= 150000:
        reviews.execute("ALTER VIEW v SET (security_invoker = true)")
        assert failure(analyst, "SELECT * FROM v").sqlstate == "42501"


def test_the_readers_names_are_not_those_of_the_caller(analyst: Conn, reviews: Conn) -> None:
    """Whoever asks cannot make the owner of a view call his operators or read his tables."""
    role = analyst.info.user
    reviews.execute("ALTER FOREIGN TABLE review_insight OPTIONS (SET source 'reviews')")
    reviews.execute("CREATE VIEW v AS SELECT review_id, title FROM review_insight WHERE review_id <= 3")
    reviews.execute(f"GRANT SELECT ON v TO {role}; GRANT CREATE ON DATABASE {reviews.info.dbname} TO {role}")
    analyst.execute(
        "CREATE SCHEMA evil; CREATE TABLE evil.reviews AS SELECT 1::bigint AS review_id, 'evil' AS title, 1 AS stars, "
        "'' AS review; CREATE FUNCTION evil.le(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'called as %', current_user; END $$;"
        "CREATE OPERATOR evil.<= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.le);"
        "SET search_path = evil, pg_catalog, public; CREATE TEMP TABLE reviews AS TABLE evil.reviews"
    )
    assert analyst.execute("SELECT review_id, title FROM v ORDER BY 1 USING OPERATOR(pg_catalog.<)").fetchall() == [
        (i, f"film {i}") for i in (1, 2, 3)
    ]


def test_settings_of_the_session_change_no_value(reviews: Conn) -> None:
    reviews.execute(
        "CREATE TABLE odd AS SELECT '2024-03-04 05:06:07.000089+00'::timestamptz AS t, 0.1::float8 + 0.2 AS f, "
        "'-1 day 02:00'::interval AS i, '\\x00ff'::bytea AS b;"
        "CREATE FOREIGN TABLE odd_too (t timestamptz, f float8, i interval, b bytea) SERVER vllm OPTIONS (source 'odd')"
    )
    reviews.execute("SET DateStyle = 'SQL, DMY'; SET IntervalStyle = sql_standard; SET extra_float_digits = 0")
    reviews.execute("SET bytea_output = escape; SET TimeZone = 'Asia/Kolkata'")
    assert reviews.execute("SELECT count(*) FROM odd NATURAL JOIN odd_too").fetchone() == (1,)
    same = "SELECT count(*) FROM odd_too WHERE t = (SELECT t FROM odd) AND f = (SELECT f FROM odd)"
    assert reviews.execute(same).fetchone() == (1,)
    assert reviews.execute("SHOW DateStyle").fetchone() == ("SQL, DMY",)


# -- what a condition is compared with


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("stars = (SELECT 1 + 1)", {2}),
        ("stars = ANY (ARRAY(SELECT g FROM generate_series(1, 2) AS g))", {1, 2}),
        ("stars < length(current_database()) - length(current_database()) + 2", {1}),
        ("3 >= stars AND NOT (stars = 1)", {2, 3}),
        ("stars = NULLIF(1, 1)", set()),
        ("stars = (SELECT NULL::int)", set()),
        ("stars = ANY ((SELECT ARRAY[1, NULL])::int[])", {1}),
        ("stars <> ALL ((SELECT ARRAY[1, NULL])::int[])", set()),
        ("stars <> ALL ((SELECT '{}'::int[])::int[])", {1, 2, 3, 4, 5}),
        ("stars > 4.5", {5}),
        ("title COLLATE \"C\" < 'film 1'", {1}),
        ("stars <> 1 AND random() < 2", {2, 3, 4, 5}),
    ],
)
def test_values_at_execution(shared: Conn, where: str, expected: set[int]) -> None:
    assert {stars for (stars,) in shared.execute(f"SELECT stars FROM review_insight WHERE {where}")} == expected


def test_explain_evaluates_nothing(reviews: Conn, engine: EngineDouble) -> None:
    reviews.execute(
        "CREATE FUNCTION loud() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RAISE 'called'; END $$;"
        "CREATE FUNCTION loud_text() RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN RAISE 'called'; END $$"
    )
    shown = plan(reviews, "SELECT 1 FROM review_insight WHERE stars = loud() AND sentiment = loud_text()")
    assert "Source Filter, Values Not Known Yet: stars = loud()" in shown
    assert "Model Filter: sentiment = loud_text()" in shown
    shown = plan(reviews, "SELECT 1 FROM review_insight WHERE title = (SELECT loud_text())")
    assert re.search(r"= (\$0|\(InitPlan 1\)\.col1)", shown)  # before PostgreSQL 17, and from it on
    verbose = "EXPLAIN (VERBOSE, FORMAT JSON) SELECT summary FROM review_insight WHERE title = (SELECT loud_text())"
    (((node,),),) = reviews.execute(verbose).fetchall()
    assert node["Plan"]["Source SQL"].startswith("SELECT ")
    assert not asked(engine)


def test_conditions_that_the_source_decides_are_not_applied_again(reviews: Conn, engine: EngineDouble) -> None:
    where = "stars <= 2 AND title LIKE 'film%' AND title < 'g' AND review_id = ANY ('{1,2}') AND review IS NOT NULL"
    assert "Filter:" not in plan(reviews, f"SELECT count(*) FROM review_insight WHERE {where}")
    assert "Filter: spoiler\n" in plan(reviews, f"SELECT count(*) FROM review_insight WHERE {where} AND spoiler")
    assert "Filter: (length(title) > 3)" in plan(reviews, "SELECT 1 FROM review_insight WHERE length(title) > 3")
    assert not asked(engine)


def test_generic_plans(reviews: Conn, engine: EngineDouble) -> None:
    reviews.execute("SET plan_cache_mode = force_generic_plan")
    reviews.execute("PREPARE q (int, text) AS SELECT review_id FROM review_insight WHERE stars = $1 AND sentiment = $2")
    for stars, label in ((1, "mixed"), (2, "negative"), (1, "mixed")):
        rows = reviews.execute(f"EXECUTE q ({stars}, '{label}')").fetchall()
        assert {i for (i,) in rows} == {i for i in range(1, 2001) if i % 5 + 1 == stars and sentiment(i) == label}
    assert reviews.execute("EXECUTE q (NULL, 'mixed')").fetchall() == []
    reviews.execute("ALTER FOREIGN TABLE review_insight ALTER sentiment OPTIONS (SET labels 'mixed,positive')")
    assert reviews.execute("EXECUTE q (1, 'negative')").fetchall() == []
    reviews.execute(
        "CREATE FUNCTION of_stars(n int) RETURNS bigint LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN (SELECT count(*) FROM review_insight WHERE stars = n); END $$"
    )
    assert [reviews.execute("SELECT of_stars(%s)", [n]).fetchone() for n in (1, 5, 9)] == [(400,), (400,), (0,)]


# -- scans inside other plans


def test_a_nested_loop_hands_over_the_key(reviews: Conn, engine: EngineDouble) -> None:
    join = (
        "SELECT r.review_id, i.summary FROM reviews AS r JOIN review_insight AS i USING (review_id) "
        "WHERE r.review_id IN (3, 203, 9)"
    )
    assert "review_id = $" in plan(reviews, join)
    assert sorted(reviews.execute(join).fetchall()) == [(3, summary(3)), (9, summary(9)), (203, summary(203))]
    assert asked(engine) == {"Summarise": 2}  # equal questions once, also in two runs of the scan
    assert len(engine.received.requests) == 1


def test_many_keys_in_one_batch(reviews: Conn, engine: EngineDouble) -> None:
    rows = reviews.execute(
        "SELECT review_id, summary FROM review_insight "
        "WHERE review_id = ANY (ARRAY(SELECT review_id FROM reviews WHERE review_id <= 20))"
    ).fetchall()
    assert sorted(rows) == [(i, summary(i)) for i in range(1, 21)]
    assert sorted(prompts for _, prompts in engine.received.requests) == [4, 8, 8]


def test_a_nested_loop_asks_for_many_keys_at_once(reviews: Conn, engine: EngineDouble) -> None:
    join = (
        "SELECT r.review_id, i.summary FROM reviews AS r JOIN review_insight AS i USING (review_id) "
        "WHERE r.review_id <= 100"
    )
    assert "Custom Scan (LLM Keys)" in plan(reviews, join)
    assert sorted(reviews.execute(join).fetchall()) == [(i, summary(i)) for i in range(1, 101)]
    assert sorted(prompts for _, prompts in engine.received.requests) == [4] + 12 * [8]  # of 16, 32 and 52 rows
    engine.received.requests.clear()
    assert len(reviews.execute(f"{join} LIMIT 3").fetchall()) == 3
    assert [prompts for _, prompts in engine.received.requests] == [8, 8]


KEYS = (
    "CREATE TABLE keys (k bigint, small int, t text, n int); "
    + "INSERT INTO keys VALUES "
    + ", ".join(
        f"({k}, {k}, {t}, {n})"
        for n, (k, t) in enumerate(
            [(5, "'5'"), (5, "'5'"), ("NULL", "NULL"), (-1, "'-1'"), (7, "'7'"), (2000, "'2000'"), (2001, "'2001'")] * 7
        )
    )
)


@pytest.mark.some(18)
@pytest.mark.parametrize("kind", ["JOIN", "LEFT JOIN", "semijoin", "antijoin", "lateral", "nested"])
@pytest.mark.parametrize("key", ["k", "small", "t"])
@pytest.mark.parametrize("window", [1, 5, 16384])
def test_keys_ahead_change_no_row(shared: Conn, kind: str, key: str, window: int) -> None:
    with shared.transaction(force_rollback=True):
        assert_keys_ahead_change_no_row(shared, kind, key, window)


def assert_keys_ahead_change_no_row(reviews: Conn, kind: str, key: str, window: int) -> None:
    reviews.execute(f"{KEYS}; ANALYZE keys; SET enable_hashjoin = off; SET enable_mergejoin = off")
    reviews.execute(f"SET enable_material = off; SET pg_bridge.window_rows = {window}")
    if key == "t":
        reviews.execute("ALTER FOREIGN TABLE review_insight ALTER review_id TYPE text")
    match = f"i.review_id = keys.{key}"
    inner = f"review_insight AS i WHERE {match}"
    query = {
        "semijoin": f"SELECT n FROM keys WHERE EXISTS (SELECT FROM {inner} AND i.stars > 1)",
        "antijoin": f"SELECT n FROM keys WHERE NOT EXISTS (SELECT FROM {inner} AND i.stars > 1)",
        "lateral": f"SELECT n, x.* FROM keys, LATERAL (SELECT stars, spoiler FROM {inner}) AS x",
        "nested": "SELECT g, (SELECT string_agg(concat(n, i.spoiler), ',' ORDER BY n, i.spoiler) "
        f"FROM keys JOIN review_insight AS i ON {match} WHERE keys.n % 3 = g AND i.stars <> g) "
        "FROM generate_series(0, 3) AS g",
    }.get(kind, f"SELECT n, i.stars, i.spoiler FROM keys {kind} review_insight AS i ON {match} AND n <> 3")
    found = {}
    for batching in ("off", "on"):
        reviews.execute(f"SET pg_bridge.batching = {batching}")
        shown = plan(reviews, query)
        assert ("LLM Keys" in shown) == (batching == "on" and "Nested Loop" in shown and "review_id = $" in shown)
        found[batching] = sorted(map(str, reviews.execute(query).fetchall()))
    assert found["on"] == found["off"]


def test_rescans_ask_nothing_twice(reviews: Conn, engine: EngineDouble) -> None:
    reviews.execute("SET enable_material = off; SET enable_hashjoin = off; SET enable_mergejoin = off")
    again = (
        "SELECT count(*) FROM generate_series(1, 3) AS g "
        "LEFT JOIN (SELECT * FROM review_insight WHERE spoiler) AS i ON g > 0 AND i.stars < 6 + g"
    )
    assert reviews.execute(again).fetchone() == (3 * sum(spoiler(i) for i in range(1, 2001)),)
    assert asked(engine) == {"Does": 200}


def test_sorted_by_the_source(reviews: Conn, engine: EngineDouble) -> None:
    query = "SELECT review_id, sentiment FROM review_insight ORDER BY stars DESC NULLS LAST, title, review_id LIMIT 3"
    assert "Sort" not in plan(reviews, query)
    expected = sorted(range(1, 2001), key=lambda i: (-(i % 5 + 1), f"film {i % 10}", i))[:3]
    assert reviews.execute(query).fetchall() == [(i, sentiment(i)) for i in expected]
    assert "Presorted Key: title" in plan(reviews, "SELECT 1 FROM review_insight ORDER BY title, spoiler LIMIT 1")
    assert "Sort" in plan(reviews, 'SELECT 1 FROM review_insight ORDER BY title COLLATE "C"')
    assert "Sort" in plan(reviews, "SELECT 1 FROM review_insight ORDER BY title USING ~<~")


def test_update_from_and_row_locks_ask_only_what_they_read(reviews: Conn, engine: EngineDouble) -> None:
    reviews.execute(
        "UPDATE reviews SET title = i.sentiment FROM review_insight AS i "
        "WHERE i.review_id = reviews.review_id AND reviews.review_id = 5"
    )
    assert reviews.execute("SELECT title FROM reviews WHERE review_id = 5").fetchone() == (sentiment(5),)
    assert asked(engine) == {"What": 1}
    locked = (
        "SELECT i.spoiler FROM reviews AS r JOIN review_insight AS i USING (review_id) "
        "WHERE r.review_id = 6 FOR UPDATE OF r"
    )
    assert reviews.execute(locked).fetchone() == (spoiler(6),)
    assert asked(engine) == {"Does": 1}
    whole = locked.replace("i.spoiler", "i")
    assert str(reviews.execute(whole).fetchone()).count(summary(6)) == 1


def test_a_row_that_changed_while_it_was_locked(reviews: Conn, connect: Connect) -> None:
    """EvalPlanQual: the join is done again, with the foreign row as it was."""
    other = connect(autocommit=False)
    other.execute("UPDATE reviews SET stars = 9 WHERE review_id = 6")
    found: list[Any] = []
    locked = (
        "SELECT r.stars, i.spoiler, i.stars FROM reviews AS r JOIN review_insight AS i USING (review_id) "
        "WHERE r.review_id = 6 AND i.stars = 2 AND i.title LIKE 'film%' FOR UPDATE OF r"
    )
    waiting = threading.Thread(target=lambda: found.extend(reviews.execute(locked).fetchall()))
    waiting.start()
    waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
    watching = connect()
    while watching.execute(waits, [reviews.info.backend_pid]).fetchone() != (True,):
        time.sleep(0.05)
    other.commit()
    waiting.join()
    assert found == [(9, spoiler(6), 2)]


def test_beside_a_parallel_plan(reviews: Conn) -> None:
    reviews.execute("CREATE TABLE big AS SELECT g % 5 + 1 AS k FROM generate_series(1, 50000) AS g; ANALYZE big")
    reviews.execute("SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0")
    beside = (
        "SELECT count(*) FROM (SELECT k FROM big GROUP BY k) AS b JOIN review_insight AS i ON i.stars = b.k "
        "WHERE spoiler"
    )
    assert "Gather" in plan(reviews, beside)
    assert reviews.execute(beside).fetchone() == (sum(spoiler(i) for i in range(1, 2001)),)
    reviews.execute(
        "CREATE FUNCTION wrong() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE "
        "AS 'SELECT count(*) FROM review_insight'"
    )
    assert failure(reviews, "SELECT count(*) FROM big WHERE k = wrong()").sqlstate == "25000"
    assert reviews.execute("SELECT wrong()").fetchone() == (2000,)


# -- cursors and savepoints


def test_a_savepoint_takes_its_scans_along_and_no_others(reviews: Conn) -> None:
    with reviews.transaction(force_rollback=True):
        reviews.execute("DECLARE early CURSOR FOR SELECT review_id FROM review_insight ORDER BY 1")
        reviews.execute("DECLARE late CURSOR FOR SELECT review_id, sentiment FROM review_insight ORDER BY 1")
        reviews.execute("FETCH 1 FROM early")
        reviews.execute("SAVEPOINT s")
        reviews.execute("FETCH 1 FROM late")
        reviews.execute("ROLLBACK TO s")
        assert reviews.execute("FETCH 2 FROM early").fetchall() == [(2,), (3,)]
        with pytest.raises(psycopg.Error, match="ended with the savepoint"):
            reviews.execute("FETCH 2000 FROM late")


def test_open_cursors_at_every_kind_of_end(reviews: Conn) -> None:
    def begin() -> None:
        reviews.execute("BEGIN; DECLARE c CURSOR FOR SELECT spoiler FROM review_insight; FETCH 2 FROM c")

    for end in ("COMMIT", "ROLLBACK", "CLOSE c; COMMIT", "CLOSE ALL; COMMIT"):
        begin()
        reviews.execute(end)
    begin()
    assert failure(reviews, "SELECT 1 / 0").sqlstate == "22012"
    reviews.execute("ROLLBACK")
    reviews.execute("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT review_id FROM review_insight ORDER BY 1; COMMIT")
    assert reviews.execute("FETCH 2 FROM c").fetchall() == [(1,), (2,)]
    reviews.execute("CLOSE c")
    reviews.execute(
        "BEGIN; DECLARE c SCROLL CURSOR FOR SELECT review_id FROM review_insight ORDER BY 1; FETCH 3 FROM c"
    )
    assert reviews.execute("FETCH BACKWARD 1 FROM c").fetchall() == [(2,)]
    reviews.execute("COMMIT")
    assert reviews.execute("SELECT count(*) FROM pg_cursors").fetchone() == (0,)


def test_nobody_finds_the_cursor_of_the_source(reviews: Conn) -> None:
    with reviews.transaction():
        reviews.execute("DECLARE c CURSOR FOR SELECT review_id FROM review_insight")
        reviews.execute("FETCH 1 FROM c")
        assert reviews.execute("SELECT name FROM pg_cursors").fetchall() == [("c",)]
        reviews.execute("CLOSE ALL")


# -- errors


def test_errors_keep_their_codes(reviews: Conn, engine: EngineDouble) -> None:
    engine.behaviour.reject_marker = '"text 7"'
    said = failure(reviews, "SELECT summary FROM review_insight")
    assert (said.sqlstate, bool(said.message_detail), bool(said.message_hint)) == ("22000", True, True)
    nobody = "SET endpoint 'http://127.0.0.1:9', ADD max_retries '0', ADD connect_timeout_s '0.5'"
    reviews.execute(f"ALTER SERVER vllm OPTIONS ({nobody})")
    assert failure(reviews, "SELECT summary FROM review_insight").sqlstate == "08001"
    reviews.execute("ALTER FOREIGN TABLE review_insight OPTIONS (SET source 'nowhere')")
    assert failure(reviews, "SELECT summary FROM review_insight").sqlstate == "42P01"
    reviews.execute("CREATE VIEW wrong AS SELECT review_id / 0 AS review_id FROM reviews")
    reviews.execute("CREATE FOREIGN TABLE w (review_id bigint) SERVER vllm OPTIONS (source 'wrong')")
    said = failure(reviews, "SELECT * FROM w")
    assert (said.sqlstate, said.message_primary) == ("22012", "reading the source: division by zero")
    with reviews.transaction(), pytest.raises(psycopg.errors.DivisionByZero), reviews.transaction():
        reviews.execute("SELECT * FROM w")
    assert reviews.execute("SELECT count(*) FROM w").fetchone() == (2000,)


def test_a_value_that_the_declared_type_cannot_hold(reviews: Conn) -> None:
    reviews.execute("CREATE FOREIGN TABLE n (title int) SERVER vllm OPTIONS (source 'reviews')")
    assert failure(reviews, "SELECT * FROM n").sqlstate == "22P02"
    assert reviews.execute("SELECT count(*) FROM n").fetchone() == (2000,)


def test_a_table_that_is_its_own_source(reviews: Conn) -> None:
    reviews.execute("ALTER FOREIGN TABLE review_insight OPTIONS (SET source 'review_insight')")
    said = failure(reviews, "SELECT title FROM review_insight")
    assert said.sqlstate == "54001"
    reviews.execute("CREATE FOREIGN TABLE upon (title text) SERVER vllm OPTIONS (source 'review_insight')")
    reviews.execute("ALTER FOREIGN TABLE review_insight OPTIONS (SET source 'reviews')")
    assert reviews.execute("SELECT count(DISTINCT title) FROM upon").fetchone() == (10,)


def test_questions_to_two_servers_are_two_questions(reviews: Conn, engine: EngineDouble) -> None:
    with EngineDouble(answer=lambda _: "other") as other:
        create_server(reviews, other.url, "second")
        reviews.execute(
            "CREATE FOREIGN TABLE again (review_id bigint, review text, "
            "summary text OPTIONS (prompt 'Summarise {review} in one sentence.', max_tokens '60')) "
            "SERVER second OPTIONS (source 'reviews')"
        )
        both = (
            "SELECT a.summary, b.summary FROM review_insight AS a, again AS b WHERE a.review_id = 1 AND b.review_id = 1"
        )
        assert reviews.execute(both).fetchall() == [(summary(1), "other")]


@pytest.mark.new_database
def test_without_the_module_tables_are_refused_and_functions_work(
    database: Database, db: Conn, engine: EngineDouble, without_module: Path
) -> None:
    create_server(db, engine.url)
    db.execute("ALTER FOREIGN DATA WRAPPER pg_bridge NO HANDLER")
    said = failure(db, "CREATE FOREIGN TABLE f (a int) SERVER vllm OPTIONS (source 'x')")
    assert said.sqlstate == "0A000"
    assert "pg-bridge install" in (said.message_hint or "")
    assert db.execute("SELECT llm.complete('Is it?')").fetchone()
    db.execute(f"SET dynamic_library_path = '{without_module}'")
    assert db.execute("SELECT llm.enable_foreign_tables()").fetchone() == (False,)
    db.execute("RESET dynamic_library_path")
    assert db.execute("SELECT llm.enable_foreign_tables()").fetchone() == (True,)
    db.execute("CREATE FOREIGN TABLE f (a int) SERVER vllm OPTIONS (source 'x')")
    db.execute("DROP EXTENSION pg_bridge CASCADE")
    db.execute(f"SET dynamic_library_path = '{without_module}'")
    db.execute("CREATE EXTENSION pg_bridge")
    create_server(db, engine.url)
    assert failure(db, "CREATE FOREIGN TABLE f (a int) SERVER vllm OPTIONS (source 'x')").sqlstate == "0A000"
    db.execute("RESET dynamic_library_path")
    assert db.execute("SELECT llm.enable_foreign_tables()").fetchone() == (True,)
    members = "SELECT count(*) FROM pg_depend WHERE deptype = 'e' AND objid::regproc::text LIKE 'llm.\\_source%'"
    assert db.execute(members).fetchone() == (4,)


# -- stopping


@pytest.fixture
def big(reviews: Conn) -> Conn:
    reviews.execute(
        "CREATE TABLE numbers AS SELECT i AS n, 'text ' || i % 1000 AS t FROM generate_series(1, 20000) AS i;"
        "CREATE FOREIGN TABLE many (n int, t text, "
        "kind text OPTIONS (prompt 'What is {t}?'), is_kind boolean OPTIONS (prompt 'Is {t} kind?')) "
        "SERVER vllm OPTIONS (source 'numbers', key 'n', window_rows '64')"
    )
    return reviews


@pytest.mark.parametrize("cancels", [30, pytest.param(250, marks=pytest.mark.slow)])
def test_cancel_at_random_moments(big: Conn, engine: EngineDouble, database: Database, cancels: int) -> None:
    """The session goes on, the server logs nothing but the cancels, and nothing is left behind."""
    rng = random.Random(7)
    statements = (
        "SELECT count(kind) FROM many WHERE is_kind",
        "SELECT count(*) FROM many WHERE t LIKE '%7'",
        "SELECT a.kind FROM many AS a JOIN many AS b USING (n) ORDER BY a.kind",
        "SELECT count(x.kind) FROM generate_series(1, 200) AS g, "
        "LATERAL (SELECT kind FROM many WHERE n = g OFFSET 0) AS x",
        "EXPLAIN (VERBOSE) SELECT kind FROM many WHERE is_kind",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT kind FROM many LOOP BEGIN PERFORM 1 / (length(r.kind) - 5); "
        "EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$",
    )
    pid = big.info.backend_pid
    logged = len(database.cluster.log_path.read_text())
    cancelled = finished = 0
    for number in range(cancels):
        statement = statements[number % len(statements)]
        timer = threading.Timer(rng.random() ** 2 * 0.4, big.cancel)
        timer.start()
        try:
            big.execute(statement)
            finished += 1
        except psycopg.errors.QueryCanceled:
            cancelled += 1
        timer.cancel()
        timer.join()
        try:  # a cancel that came late hits this one
            assert big.execute("SELECT count(*) FROM many WHERE n <= 3").fetchone() == (3,)
        except psycopg.errors.QueryCanceled:
            assert big.execute("SELECT count(*) FROM many WHERE n <= 3").fetchone() == (3,)
        assert big.execute("SELECT name FROM pg_cursors WHERE name <> ''").fetchall() == []
    assert cancelled > cancels / 10
    assert finished > 0
    assert big.info.backend_pid == pid
    assert engine.received.in_flight == 0
    log = database.cluster.log_path.read_text()[logged:]
    for bad in ("PANIC", "was terminated by signal", "TRAP", "leak", "SystemError", "XX000"):
        assert bad not in log


def test_a_timeout_has_its_own_words(big: Conn, engine: EngineDouble) -> None:
    big.execute("SELECT count(kind) FROM many WHERE n = 1")  # the session's first scan imports Python's modules
    engine.behaviour.hang = True
    big.execute("SET statement_timeout = '300ms'")
    started = time.monotonic()
    said = failure(big, "SELECT kind FROM many")
    assert (said.sqlstate, said.message_primary) == ("57014", "canceling statement due to statement timeout")
    assert time.monotonic() - started < 20  # it hangs for ever


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rows", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_rows(big: Conn, engine: EngineDouble, rows: int) -> None:
    """Many rows; then many runs of one scan."""
    engine.behaviour.record = False
    big.execute(f"INSERT INTO numbers SELECT i, repeat('x', 20) || i % 1000 FROM generate_series(20001, {rows}) AS i")
    big.execute("ALTER FOREIGN TABLE many OPTIONS (DROP window_rows)")
    big.execute("SELECT count(kind), count(t), count(n) FROM many WHERE n <= 60000")
    with OwnMemory(big) as scan:
        assert big.execute("SELECT count(kind), count(t), count(n) FROM many").fetchone() == (rows, rows, rows)
    print(f"a scan: {scan.grown_bytes >> 10} kB")
    assert scan.grown_bytes < 600_000 * 1024  # one window, of half a million short rows
    loop = (
        "SELECT count(x.t) FROM generate_series(1, 3000) AS g, LATERAL (SELECT t FROM many WHERE n = g OFFSET 0) AS x"
    )
    big.execute("CREATE INDEX ON numbers (n); ANALYZE numbers")
    big.execute(loop.replace("3000", "300"))
    with OwnMemory(big) as scans:
        assert big.execute(loop).fetchone() == (3000,)
    assert scans.grown_bytes < 8_000 * 1024

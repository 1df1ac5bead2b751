"""The source of a native foreign table belongs to the scan: cursors, savepoints, errors and COMMIT find it whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conftest import Connect, Database
from tests.integration.test_foreign_tables import REVIEWS, failure, summary

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]


@pytest.fixture
def host() -> str:
    return "plpython"


@pytest.fixture
def reviews(foreign: Conn) -> Conn:
    foreign.execute(REVIEWS)
    return foreign


@pytest.mark.some(1)
@pytest.mark.parametrize("sessions", [10, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fetched", [0, 2])
def test_a_holdable_cursor_in_fresh_sessions(reviews: Conn, connect: Connect, fetched: int, sessions: int) -> None:
    """PostgreSQL persists a holdable cursor and drops all others in an order that changes with every session."""
    for _ in range(sessions):
        fresh = connect()
        fresh.execute("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT review_id FROM review_insight ORDER BY review_id")
        if fetched:
            fresh.execute(f"FETCH {fetched} FROM c")
        fresh.execute("COMMIT")
        assert len(fresh.execute("FETCH ALL FROM c").fetchall()) == 2000 - fetched
        fresh.close()


def test_a_holdable_cursor_still_asks(reviews: Conn) -> None:
    reviews.execute("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT review_id, summary FROM review_insight ORDER BY 1")
    assert reviews.execute("FETCH 1 FROM c").fetchall() == [(1, summary(1))]
    reviews.execute("DELETE FROM reviews WHERE review_id > 10; COMMIT")
    left = reviews.execute("FETCH ALL FROM c").fetchall()  # the rows of the cursor's snapshot
    assert left == [(i, summary(i)) for i in range(2, 2001)]


def test_a_procedure_that_commits_in_its_loop(reviews: Conn) -> None:
    reviews.execute(
        "CREATE TABLE seen (review_id bigint); "
        "CREATE PROCEDURE walk() LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN "
        "FOR r IN SELECT review_id FROM review_insight WHERE stars = 1 LOOP "
        "INSERT INTO seen VALUES (r.review_id); COMMIT; END LOOP; END $$"
    )
    reviews.execute("CALL walk()")
    assert reviews.execute("SELECT count(*) FROM seen").fetchone() == (400,)


def test_many_cursors_at_once(reviews: Conn) -> None:
    with reviews.transaction():
        for name in "abc":
            reviews.execute(f"DECLARE {name} CURSOR FOR SELECT review_id FROM review_insight ORDER BY review_id")
        for turn in range(3):
            for name in "abc":
                assert reviews.execute(f"FETCH 1 FROM {name}").fetchall() == [(turn + 1,)]
        reviews.execute("CLOSE b")
        assert reviews.execute("FETCH 1 FROM a").fetchall() == [(4,)]
    reviews.execute("BEGIN; DECLARE d CURSOR FOR SELECT review_id FROM review_insight; FETCH 1 FROM d")
    reviews.execute("ROLLBACK; SELECT count(*) FROM review_insight")


def test_an_error_in_a_row_of_the_source_leaves_the_session_sound(reviews: Conn) -> None:
    """Caught or not: in the source, in a function of it, in what is done with its rows."""
    reviews.execute(
        "CREATE FUNCTION careful(n bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN 10 / (n % 7); "
        "EXCEPTION WHEN division_by_zero THEN RETURN -1; END $$;"
        "CREATE VIEW fragile AS SELECT review_id, 1 / (1990 - review_id) AS one FROM reviews ORDER BY review_id;"
        "CREATE VIEW careful AS SELECT review_id, careful(review_id) AS one FROM reviews;"
        "CREATE FOREIGN TABLE f (review_id bigint, one bigint) SERVER vllm OPTIONS (source 'public.fragile');"
        "CREATE FOREIGN TABLE c (review_id bigint, one bigint) SERVER vllm OPTIONS (source 'public.careful');"
        "CREATE FUNCTION tried(t text) RETURNS text LANGUAGE plpgsql AS $$ DECLARE n bigint; r record; BEGIN "
        "FOR r IN EXECUTE format('SELECT * FROM %I', t) LOOP n := r.one; END LOOP; RETURN 'all'; "
        "EXCEPTION WHEN division_by_zero THEN RETURN 'failed'; END $$"
    )
    for _ in range(5):
        assert reviews.execute("SELECT tried('f'), tried('c')").fetchone() == ("failed", "all")
    assert failure(reviews, "SELECT sum(one) FROM f").message_primary == "reading the source: division by zero"
    assert reviews.execute("SELECT count(one), min(one) FROM c").fetchone() == (2000, -1)
    with reviews.transaction(force_rollback=True):
        reviews.execute("DECLARE d CURSOR FOR SELECT one FROM f")
        reviews.execute("FETCH 10 FROM d; SAVEPOINT s")
        with pytest.raises(psycopg.errors.DivisionByZero):
            reviews.execute("FETCH ALL FROM d")
        reviews.execute("ROLLBACK TO s")
        with pytest.raises(psycopg.Error):
            reviews.execute("FETCH 1 FROM d")
        reviews.execute("ROLLBACK TO s")
        assert reviews.execute("SELECT count(*) FROM c").fetchone() == (2000,)


def test_a_failing_scan_inside_nested_savepoints(reviews: Conn) -> None:
    with reviews.transaction(force_rollback=True):
        reviews.execute("DECLARE d CURSOR FOR SELECT 1 / (review_id - 1500) FROM review_insight ORDER BY review_id")
        reviews.execute("SAVEPOINT a; FETCH 3 FROM d; SAVEPOINT b")
        with pytest.raises(psycopg.errors.DivisionByZero):
            reviews.execute("FETCH ALL FROM d")
        reviews.execute("ROLLBACK TO b; ROLLBACK TO a")
        assert reviews.execute("SELECT count(*) FROM review_insight").fetchone() == (2000,)
        reviews.execute("CLOSE d")


def test_a_savepoint_that_is_released_keeps_its_scan(reviews: Conn) -> None:
    with reviews.transaction(force_rollback=True):
        reviews.execute("DECLARE d CURSOR FOR SELECT review_id FROM review_insight ORDER BY review_id")
        reviews.execute("SAVEPOINT a; FETCH 3 FROM d; RELEASE a")
        assert reviews.execute("FETCH 1 FROM d").fetchall() == [(4,)]


def test_nothing_is_left_of_a_scan_but_what_it_read(reviews: Conn, database: Database) -> None:
    logged = len(database.cluster.log_path.read_text())
    for _ in range(3):
        reviews.execute("SELECT * FROM review_insight LIMIT 1")
        reviews.execute("SELECT EXISTS (SELECT FROM review_insight), (SELECT max(review_id) FROM review_insight)")
        reviews.execute("BEGIN; DECLARE c CURSOR FOR SELECT 1 FROM review_insight; FETCH 1 FROM c; COMMIT")
    assert reviews.execute("SELECT name FROM pg_cursors WHERE name <> ''").fetchall() == []
    locks = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'reviews'::regclass"
    with reviews.transaction():
        reviews.execute("SELECT count(*) FROM review_insight")
        assert reviews.execute(locks).fetchone() == (1,)  # to the end of the transaction, like any table's
    assert reviews.execute(locks).fetchone() == (0,)
    assert "leak" not in database.cluster.log_path.read_text()[logged:]


def test_close_all_and_discard_all(reviews: Conn) -> None:
    reviews.execute(
        "CREATE FUNCTION close_all(bigint) RETURNS bigint LANGUAGE plpgsql AS "
        "$$ BEGIN EXECUTE 'CLOSE ALL'; RETURN $1; END $$"
    )
    total = sum(range(1, 2001))
    assert reviews.execute("SELECT sum(close_all(review_id)) FROM review_insight").fetchone() == (total,)
    reviews.execute("PREPARE q AS SELECT sum(review_id) FROM review_insight; EXECUTE q")
    reviews.execute("DISCARD ALL")
    assert reviews.execute("SELECT sum(review_id) FROM review_insight").fetchone() == (total,)


def test_a_kept_plan_is_not_written_to(reviews: Conn) -> None:
    """A generic plan with a Gather beside a foreign scan: it asks for workers however often it has been run."""
    reviews.execute("CREATE TABLE big AS SELECT g % 5 + 1 AS k FROM generate_series(1, 50000) AS g; ANALYZE big")
    reviews.execute("SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0")
    reviews.execute("SET plan_cache_mode = force_generic_plan")
    reviews.execute(
        "PREPARE q (int) AS SELECT count(*) FROM (SELECT k FROM big GROUP BY k) AS b "
        "WHERE k = $1 OR k IN (SELECT stars FROM review_insight WHERE review_id < 0)"
    )
    explained = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE q (1)"
    for _ in range(3):
        shown = "\n".join(line for (line,) in reviews.execute(explained).fetchall())
        assert "Workers Planned" in shown
        assert "Workers Launched: 0" in shown
        assert reviews.execute("EXECUTE q (3)").fetchone() == (1,)


def test_no_code_writes_to_a_plan_at_execution() -> None:
    """Nothing shows it in SQL until a plan is shared, so the sources are read."""
    for path in (Path(__file__).parents[2] / "native").glob("*.c"):
        assert not re.search(r"es_plannedstmt->\w+\s*=[^=]", path.read_text()), path


def test_what_a_foreign_table_cannot_do(reviews: Conn) -> None:
    assert failure(reviews, "INSERT INTO review_insight (review_id) VALUES (1)").sqlstate == "0A000"
    assert failure(reviews, "DELETE FROM review_insight").sqlstate == "0A000"
    assert failure(reviews, "TRUNCATE review_insight").sqlstate == "0A000"
    reviews.execute("ANALYZE review_insight")  # a warning, as PostgreSQL has for any such table
    assert reviews.execute("SELECT count(*) FROM review_insight").fetchone() == (2000,)

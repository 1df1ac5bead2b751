"""Where rows are asked about is the planner's choice, by its costs: below a join, above it, or above several."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.integration.batch_functions import calls, make_functions, make_tables
from tests.integration.test_batching_proofs import nodes_of, plan_of, same_rows, switch

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

TABLES = """
CREATE TABLE big AS SELECT i AS id, i % 10 AS kind, 'text ' || i % 300 AS t FROM generate_series(1, 3000) AS i;
CREATE TABLE kinds AS SELECT i AS kind, 'kind ' || i AS name FROM generate_series(0, 9) AS i;
CREATE TABLE orders AS SELECT i AS id, i * 7 AS big_id FROM generate_series(1, 40) AS i;
CREATE TABLE lists AS SELECT i AS id, 'a-b-' || i AS t FROM generate_series(1, 50) AS i;
CREATE UNIQUE INDEX ON big (id);
ANALYZE;
"""


@pytest.fixture
def host() -> str:
    """The functions that are batched are those of the PL/Python host."""
    return "plpython"


@pytest.fixture
def conn(batching: Database, db: Conn) -> Conn:
    make_functions(db)
    make_tables(db)
    db.execute(TABLES)
    return db


def asked(conn: Conn, query: str) -> dict[str, tuple[int, int]]:
    """Batches and calls of a query, whose rows are those without batching."""
    assert same_rows(conn, query)
    conn.execute("SET pg_bridge.batching = on")
    calls(conn)
    conn.execute(query.encode())
    return calls(conn)


def test_a_condition_waits_for_the_join_that_leaves_fewer_rows(conn: Conn) -> None:
    """And for two joins, if only the second does."""
    query = "SELECT big.id FROM big JOIN kinds USING (kind){join} WHERE passes(big, 4)"
    assert asked(conn, query.format(join=""))["passes"][1] == 3000
    assert asked(conn, query.format(join=" JOIN orders ON big_id = big.id"))["passes"] == (1, 40)


def test_it_stays_below_a_join_that_makes_more_of_them(conn: Conn) -> None:
    query = "SELECT o.id FROM orders AS o JOIN big ON big.kind = o.id % 10 WHERE passes(o, 3)"
    assert asked(conn, query)["passes"] == (1, 40)


def test_of_two_sides_each_waits_or_not(conn: Conn) -> None:
    query = "SELECT o.id FROM orders AS o JOIN big ON big.id = o.big_id WHERE passes(o, 3) AND passes(big, 4)"
    batches, rows = asked(conn, query)["passes"]
    assert batches == 2
    assert rows <= 80


def test_an_outer_join_asks_about_the_side_that_it_keeps_only(conn: Conn) -> None:
    query = (
        "SELECT l.id, big.id FROM lists AS l LEFT JOIN big ON big.id = l.id AND passes(big, 3)"
        " WHERE word(l.t, 1) LIKE '%1%'"
    )
    plan = plan_of(conn, query)
    assert plan.count("LLM Batch") == 2
    assert asked(conn, query)["word"] == (1, 50)


def test_elements_are_asked_about_in_one_batch(conn: Conn) -> None:
    """Also by a condition, which stands above the loop that finds them."""
    query = (
        "SELECT l.id, e FROM lists AS l, unnest(string_to_array(word(l.t, l.id), '-')) AS e"
        " WHERE word(e, 1) LIKE '%1-1'"
    )
    assert asked(conn, query) == {"word": (2, 50 + 200)}


def test_a_call_about_both_sides_is_made_above_the_join(conn: Conn) -> None:
    """With the join's other conditions left to it: a hash, an index."""
    query = "SELECT o.id FROM orders AS o JOIN big ON big.id = o.big_id AND word(big.t, o.id) LIKE '%1%'"
    assert asked(conn, query) == {"word": (1, 40)}
    (node, *_) = nodes_of(conn, query)
    assert node["Custom Plan Provider"] == "LLM Batch"
    assert node["Plans"][0]["Node Type"] in ("Hash Join", "Nested Loop", "Merge Join")
    switch(conn, "off", "enable_hashjoin", "enable_mergejoin")
    assert asked(conn, query) == {"word": (1, 40)}
    assert any(node["Node Type"] == "Index Scan" for node in nodes_of(conn, query))


def test_a_semijoin_keeps_its_own_condition(conn: Conn) -> None:
    """A call about two tables, compared with the rows of a subquery: above the semijoin it would come too late."""
    for some in ("> ANY", "<> ALL"):
        query = (
            "SELECT o.id FROM orders AS o JOIN big ON big.id = o.big_id"
            f" WHERE word(big.t, o.id) {some} (SELECT t FROM big AS b WHERE b.id % 500 = 3)"
        )
        assert 0 < len(same_rows(conn, query)) <= 40


def test_an_index_that_a_waiting_condition_tells_of_is_used(conn: Conn) -> None:
    query = "SELECT id FROM big WHERE ROW(id, word(t, 1)) < ROW(20, 'x')"
    assert any("Index" in node["Node Type"] for node in nodes_of(conn, query + " AND word(t, 2) LIKE 'text%'"))
    query = "SELECT id FROM big WHERE (id = 5 AND word(t, 1) LIKE '%') OR (id = 9 AND word(t, 2) LIKE '%')"
    assert any("Bitmap" in node["Node Type"] for node in nodes_of(conn, query))
    assert asked(conn, query) == {"word": (2, 2)}


def test_an_index_is_looked_up_where_it_finds_next_to_nothing(conn: Conn) -> None:
    """A scan that finds less than a row evaluates its quals for one, which is what its twin does not evaluate."""
    conn.execute("CREATE TABLE few AS SELECT i AS id, 'text ' || i AS t FROM generate_series(8, 10) AS i")
    conn.execute("CREATE UNIQUE INDEX ON few (id); ANALYZE few")
    condition = "passes(few, 3) AND word(t, 1) <> 'x' AND word(t, 2) <> 'x' AND ROW(id, t) < ROW(2, word(t, 3))"
    query = f"SELECT id FROM few WHERE {condition}"
    assert any("Index" in node["Node Type"] for node in nodes_of(conn, query))
    calls(conn)
    assert conn.execute(query.encode()).fetchall() == []
    assert calls(conn) == {}


def test_an_update_of_parts_asks_in_batches(conn: Conn) -> None:
    """Joins there hand on columns that are no table's, which no custom scan can have in its tuple."""
    conn.execute("BEGIN")
    calls(conn)
    conn.execute(
        "UPDATE p SET t = word(p.t, s.id) FROM a AS s"
        " WHERE s.id = p.id AND passes(s, 2) AND word(p.t, s.g) LIKE 'part%'"
    )
    made = calls(conn)
    conn.execute("ROLLBACK")
    assert made["passes"][1] <= 60
    assert made["passes"][0] + made["word"][0] <= 5
    assert made["word"][1] <= 80


def test_many_tables_are_joined_by_geqo(conn: Conn) -> None:
    """Its memory is gone when the next order is tried."""
    conn.execute("SET geqo_threshold = 2")
    query = (
        "SELECT o.id FROM orders AS o JOIN big ON big.id = o.big_id JOIN kinds USING (kind)"
        " JOIN lists AS l ON l.id = o.id WHERE passes(o, 3) AND word(big.t, l.id) LIKE '%1%' AND passes(l, 2)"
    )
    assert asked(conn, query)["word"][0] == 1

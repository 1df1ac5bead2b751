"""What becomes of calls inside expressions: the same values, and no call that PostgreSQL would not make.

Every evaluation is counted, batched or not: a sequence a function. What batching may add is said where it is.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.conftest import Database
from tests.integration.batch_functions import calls, make_functions, make_tables

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

COUNTED = """
CREATE SEQUENCE words; CREATE SEQUENCE passed; CREATE SEQUENCE slept; CREATE SEQUENCE given;
CREATE OR REPLACE FUNCTION word(t text, n int) RETURNS text LANGUAGE plpgsql STABLE COST 10000 AS $$
BEGIN
    PERFORM nextval('words');
    RETURN lower(t) || '-' || n;
END $$;
CREATE OR REPLACE FUNCTION passes(r anyelement, n int) RETURNS boolean LANGUAGE plpgsql STABLE COST 20000 AS $$
BEGIN
    PERFORM nextval('passed');
    RETURN ((to_json(r) ->> 'id')::int % n) <> 0;
END $$;
CREATE OR REPLACE FUNCTION passes_batch(statement bigint, node int, r json[], n json[]) RETURNS boolean[]
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM note('passes', cardinality(r));
    RETURN ARRAY(SELECT passes(a, (b #>> '{}')::int) FROM unnest(r, n) WITH ORDINALITY AS u (a, b, o) ORDER BY o);
END $$;
SELECT llm.register_batch('word(text, int)', 'word_batch(bigint, int, json[], json[])');
SELECT llm.register_batch('passes(anyelement, int)', 'passes_batch(bigint, int, json[], json[])');
-- Not registered, and dear.
CREATE FUNCTION slow(n int) RETURNS boolean LANGUAGE plpgsql STABLE COST 1000000 AS $$
BEGIN
    PERFORM nextval('slept');
    RETURN n > 10;
END $$;
ALTER TABLE a ADD arr text[];
UPDATE a SET arr = ARRAY[t, 'Wordy', NULL] WHERE id % 3 > 0;
CREATE DOMAIN short AS varchar(3) CHECK (value <> 'no');
CREATE DOMAIN shorts AS text[] CHECK (cardinality(value) < 9);
ANALYZE a;
"""

COUNTERS = {"words": "word", "passed": "passes", "slept": "slow"}


@pytest.fixture
def host() -> str:
    """The functions that are batched are those of the PL/Python host."""
    return "plpython"


@pytest.fixture
def own(batching: Database, db: Conn) -> Conn:
    make_functions(db)
    make_tables(db)
    db.execute(COUNTED)
    return db


def evaluations(conn: Conn) -> dict[str, int]:
    """How often each function was evaluated since the last look, in batches or not."""
    counted = {}
    for sequence, function in COUNTERS.items():
        name = sql.Identifier(sequence)
        row = conn.execute(sql.SQL("SELECT last_value - (NOT is_called)::int FROM {}").format(name)).fetchone()
        assert row is not None
        counted[function] = int(row[0])
        conn.execute(sql.SQL("ALTER SEQUENCE {} RESTART").format(name))
    return {function: count for function, count in counted.items() if count}


def outcome(conn: Conn, query: str, batching: str) -> tuple[list[Any], dict[str, int], dict[str, tuple[int, int]]]:
    """A query's rows, what was evaluated, and what of it came in batches."""
    conn.execute(f"SET pg_bridge.batching = {batching}".encode())
    conn.execute("ALTER SEQUENCE given RESTART")
    evaluations(conn)
    calls(conn)
    rows = conn.execute(query.encode()).fetchall()
    return sorted(rows, key=repr), evaluations(conn), calls(conn)


# What batches must not change: the rows, and that a function is evaluated no more often than without. Each query is
# batched, unless it stands in UNBATCHED.
SAME = {
    # CaseTestExpr: it stands for a CASE's operand in the WHENs of that CASE alone, for an element in an array's cast
    "a cast of an array in a WHEN": (
        "SELECT CASE a.g WHEN cardinality(a.arr::varchar(2)[]) THEN word(a.t, 1) ELSE 'no' END FROM a"
    ),
    "a cast of the tested array": (
        "SELECT CASE a.arr WHEN a.arr::varchar(2)[]::text[] THEN 'no' ELSE word(a.t, 1) END FROM a"
    ),
    "a cast of what is tested": (
        "SELECT CASE a.arr WHEN a.arr::varchar(20)[]::text[] THEN word(a.t, 1) ELSE 'no' END FROM a"
    ),
    "a CASE in a cast array in a CASE": (
        "SELECT CASE a.g WHEN cardinality(ARRAY[CASE a.id WHEN a.g THEN 'abc' ELSE a.t END]::varchar(2)[])"
        " THEN word(a.t, 1) ELSE word(a.t, 2) END FROM a"
    ),
    "an array of arrays": (
        "SELECT CASE a.arr WHEN (ARRAY[a.arr, a.arr]::varchar(3)[])[1:1]::text[] THEN word(a.t, 1)"
        " WHEN a.arr THEN word(a.t, 2) END FROM a"
    ),
    "an array of a domain": (
        "SELECT CASE a.id WHEN cardinality(a.arr::short[]) THEN word(a.t, 1)"
        " WHEN cardinality(a.arr::shorts) + 1 THEN word(a.t, 2) ELSE 'no' END FROM a"
    ),
    "a call in a cast array": "SELECT ARRAY[word(a.t, 1), 'Long']::varchar(2)[], word(a.t, 2) FROM a",
    "a CASE as a WHEN": (
        "SELECT CASE a.g WHEN CASE a.id WHEN 1 THEN 1 WHEN a.g + 1 THEN 2 ELSE 3 END THEN word(a.t, 1)"
        " ELSE word(a.t, 2) END FROM a"
    ),
    "a CASE without an operand as a WHEN": (
        "SELECT CASE a.g WHEN CASE WHEN a.id > 9 THEN 1 ELSE 3 END THEN word(a.t, 1) ELSE word(a.t, 2) END FROM a"
    ),
    "a CASE as a result": (
        "SELECT CASE a.g WHEN 1 THEN CASE a.id % 3 WHEN 1 THEN word(a.t, 1) WHEN 2 THEN word(a.t, 2) END"
        " WHEN 2 THEN word(a.t, 3) ELSE CASE a.t WHEN word(a.t, 4) THEN word(a.t, 5) ELSE word(a.t, 6) END END FROM a"
    ),
    "a CASE as an operand": (
        "SELECT CASE CASE a.g WHEN 1 THEN word(a.t, 1) ELSE a.t END WHEN 'word 1-1' THEN word(a.t, 2)"
        " WHEN word(a.t, 3) THEN word(a.t, 4) ELSE word(a.t, 5) END FROM a"
    ),
    "a CASE of rows": (
        "SELECT CASE ROW(a.g, a.id % 2) WHEN ROW(1, 1) THEN word(a.t, 1) WHEN ROW(2, 0) THEN word(a.t, 2) END FROM a"
    ),
    # subscripts: not evaluated for a container that is NULL
    "subscripts of NULL": "SELECT (NULL::text[])[length(word(a.t, a.g))] FROM a",
    "subscripts of an array": "SELECT a.arr[length(word(a.t, 1)) - 8] FROM a",
    "a slice": "SELECT a.arr[length(word(a.t, 1)) - 8 : length(word(a.t, 2)) - 7] FROM a",
    "an open slice": "SELECT a.arr[length(word(a.t, 1)) - 8 :] FROM a",
    "subscripts of an array of a call": "SELECT (string_to_array(word(a.t, 1), ' '))[length(word(a.t, 2)) - 7] FROM a",
    "subscripts of jsonb": (
        "SELECT (CASE WHEN a.id % 2 = 0 THEN jsonb_build_object('word 2-1', a.id) END)[word(a.t, 1)] FROM a"
    ),
    "subscripts of a subquery": (
        "SELECT (SELECT array_agg(b.id) FROM b WHERE b.a_id = a.id AND passes(b, 2))[length(word(a.t, 1)) - 7] FROM a"
    ),
    # conditions that are dear are evaluated once
    "CASE WHEN EXISTS": (
        "SELECT CASE WHEN EXISTS (SELECT FROM b WHERE b.a_id = a.id AND passes(b, 2) ORDER BY n OFFSET 0)"
        " THEN word(a.t, 1) END FROM a"
    ),
    "an ELSE behind a subquery": (
        "SELECT CASE WHEN (SELECT count(*) > 9 FROM b WHERE b.a_id < a.id AND passes(b, 2)) THEN word(a.t, 1)"
        " WHEN (SELECT max(b.id) FROM b WHERE b.a_id = a.id AND passes(b, 3)) > 4 THEN word(a.t, 2)"
        " ELSE word(a.t, 3) || word(a.t, 4) END FROM a"
    ),
    "a subquery as an operand": (
        "SELECT CASE (SELECT count(*) FROM b WHERE b.a_id = a.id AND passes(b, 2))"
        " WHEN 0 THEN word(a.t, 1) WHEN 1 THEN word(a.t, 2) END FROM a"
    ),
    "a subquery in a WHEN": (
        "SELECT CASE a.g WHEN (SELECT count(*) FROM b WHERE b.a_id = a.id AND passes(b, 2))"
        " THEN word(a.t, 1) ELSE word(a.t, 2) END FROM a"
    ),
    "COALESCE of a subquery": (
        "SELECT coalesce((SELECT max(b.t) FROM b WHERE b.a_id = a.id AND passes(b, 2)), word(a.t, 1), 'x') FROM a"
    ),
    "AND behind a subquery": (
        "SELECT (SELECT count(*) > 0 FROM b WHERE b.a_id = a.id AND passes(b, 2)) AND word(a.t, 1) LIKE '%3%' FROM a"
    ),
    "OR behind a subquery": (
        "SELECT a.id FROM a WHERE a.id = -1"
        " OR (SELECT count(*) > 0 FROM b WHERE b.a_id = a.id AND passes(b, 2)) OR word(a.t, 1) LIKE '%3%'"
    ),
    "a subquery with a call as argument": (
        "SELECT CASE WHEN (SELECT count(*) > 9 FROM b WHERE b.a_id > a.id AND lower(b.t) > word(a.t, 1))"
        " THEN word(a.t, 2) END FROM a"
    ),
    "a dear condition": "SELECT CASE WHEN slow(a.id) THEN word(a.t, 1) ELSE word(a.t, 2) END FROM a",
    "a dear condition of several": (
        "SELECT slow(a.id) AND a.g > 1 AND slow(a.id + 1) AND word(a.t, 1) > 'x' AND word(a.t, 2) > 'x' FROM a"
    ),
    "a condition with a call that stays": (
        "SELECT CASE WHEN ROW(word(a.t, 1), 1) < ROW('word 4-1', 2) THEN word(a.t, 2) ELSE word(a.t, 3) END FROM a"
    ),
    "a filter with a subquery": (
        "SELECT count(word(a.t, 1)) FILTER (WHERE (SELECT count(*) > 0 FROM b WHERE b.a_id = a.id AND passes(b, 2)))"
        " FROM a"
    ),
    "a window's filter with a subquery": (
        "SELECT count(word(a.t, 1)) FILTER (WHERE (SELECT count(*) > 9 FROM b WHERE b.a_id < a.id AND passes(b, 2)))"
        " OVER () FROM a"
    ),
    # the order of conditions
    "a dear condition behind a call": "SELECT a.id FROM a WHERE passes(a, 2) AND slow(a.id)",
    "a subquery behind a call": (
        "SELECT a.id FROM a WHERE passes(a, 2)"
        " AND (a.id < 0 OR (SELECT count(*) > 9 FROM b WHERE b.a_id < a.id AND passes(b, 3)))"
    ),
    "a dear argument": "SELECT a.id FROM a WHERE passes(a, 2) AND word(slow(a.id)::text, 1) = 'true-1'",
    # volatile arguments and conditions
    "a volatile argument": "SELECT nextval('given'), word('x', currval('given')::int) FROM a",
    "a volatile argument of an inner call": (
        "SELECT nextval('given'), word(word('x', currval('given')::int), 1) FROM a"
    ),
    "a subquery with a volatile function": (
        "SELECT nextval('given'), word('x', (SELECT currval('given')::int + a.g)) FROM a"
    ),
    "a condition with a volatile subquery": (
        "SELECT nextval('given'), CASE WHEN (SELECT currval('given') + a.g) > 1 THEN word(a.t, 1) END FROM a"
    ),
    # constants and groups
    "ROLLUP over a constant call": "SELECT upper(word('k', 1)), count(*) FROM a GROUP BY ROLLUP (word('k', 1))",
    "CUBE over constant calls": (
        "SELECT word('k', 1), upper(word('l', 1)), g, count(*) FROM a WHERE t > word('a', 1)"
        " GROUP BY CUBE (word('k', 1), upper(word('l', 1)), g) HAVING word('k', 1) IS NULL OR g > 1"
        " ORDER BY word('k', 1) || 'x'"
    ),
    "sets below sets": (
        "SELECT x, count(*) FROM (SELECT upper(word('k', 1)) AS x FROM a GROUP BY GROUPING SETS ((word('k', 1)), ()))"
        " AS s GROUP BY ROLLUP (x)"
    ),
    "an aggregate of an outer query": ("SELECT (SELECT max(length(word('k', 1)) + a.id) FROM b LIMIT 1) FROM a"),
}

UNBATCHED = {
    "CUBE over constant calls",  # those of the target list stay; the one in WHERE is made once, without a batch
    "subscripts of NULL",
    "a volatile argument",
    "a volatile argument of an inner call",
    "a subquery with a volatile function",
    "a condition with a volatile subquery",
}


@pytest.mark.some(6)
@pytest.mark.parametrize("name", SAME)
def test_the_same_values_and_no_call_more(own: Conn, name: str) -> None:
    rows, most, _ = outcome(own, SAME[name], "off")
    for window_rows in (7, 16384):
        own.execute(sql.SQL("SET pg_bridge.window_rows = {}").format(sql.Literal(window_rows)))
        batched_rows, evaluated, batched = outcome(own, SAME[name], "on")
        assert batched_rows == rows
        assert bool(batched) == (name not in UNBATCHED)
        more = {function: (count, most.get(function, 0)) for function, count in evaluated.items()}
        assert not {function: pair for function, pair in more.items() if pair[0] > pair[1]}


def test_the_queries_that_crashed_the_server(own: Conn) -> None:
    query = "SELECT CASE a.id WHEN cardinality(a.arr::varchar(2)[]) THEN word(a.t, 1) ELSE 'no' END FROM a"
    assert own.execute(query.encode()).fetchall() == [("no",)] * 60
    query = "SELECT CASE a.arr WHEN a.arr::varchar(2)[]::text[] THEN word(a.t, 1) ELSE 'no' END FROM a"
    assert own.execute(query.encode()).fetchall() == [("no",)] * 60


def test_a_condition_that_exists_is_looked_at_once(own: Conn) -> None:
    exists = "EXISTS (SELECT FROM b WHERE b.a_id < a.id AND passes(b, 2))"
    _, most, _ = outcome(own, f"SELECT {exists} FROM a", "on")
    for guarded in (
        f"SELECT CASE WHEN {exists} THEN word(a.t, 1) ELSE word(a.t, 2) || word(a.t, 3) END FROM a",
        f"SELECT {exists} AND word(a.t, 1) > 'x' AND word(a.t, 2) > 'x' FROM a",
        f"SELECT {exists} OR word(a.t, 1) > 'x' OR word(a.t, 2) > 'x' FROM a",
        f"SELECT count(word(a.t, 1)) FILTER (WHERE {exists}) FROM a",
    ):
        _, evaluated, batched = outcome(own, guarded, "on")
        assert evaluated["passes"] == most["passes"]
        assert batched["word"]


def test_the_order_of_conditions_counts_all_that_they_cost(own: Conn) -> None:
    _, evaluated, _ = outcome(own, "SELECT id FROM a WHERE passes(a, 2) AND slow(id)", "on")
    assert evaluated == {"passes": 60, "slow": 30}
    exists = "EXISTS (SELECT FROM b WHERE b.a_id % 7 = a.id % 7 AND passes(b, 3))"
    query = f"SELECT id FROM a WHERE passes(a, 2) AND (id < 0 OR {exists})"
    _, evaluated, _ = outcome(own, f"SELECT {exists} FROM a WHERE id % 2 > 0", "on")
    of_subqueries = evaluated["passes"]
    _, evaluated, _ = outcome(own, query, "on")
    assert evaluated == {"passes": 60 + of_subqueries}


def test_a_strict_function_is_not_asked_about_nulls(own: Conn) -> None:
    own.execute("ALTER FUNCTION word(text, int) STRICT; CREATE TABLE n AS SELECT NULL::int AS n, id, t FROM a")
    answers = own.execute("SELECT word(t, id), word(t, n), word(word(t, 1), id) FROM n ORDER BY id").fetchall()
    assert calls(own)["word"] == (3, 3 * (60 - 8))
    own.execute("SET pg_bridge.batching = off")
    assert own.execute("SELECT word(t, id), word(t, n), word(word(t, 1), id) FROM n ORDER BY id").fetchall() == answers
    assert [first is None for first, _, _ in answers].count(True) == 8


def test_a_function_that_is_not_strict_is_asked_about_nulls(own: Conn) -> None:
    own.execute("SELECT word(NULLIF(t, ''), g) FROM a")
    assert calls(own)["word"] == (1, 60)


def test_volatile_arguments_are_evaluated_in_their_turn(own: Conn) -> None:
    query = "SELECT nextval('given'), word('x', currval('given')::int), word(t, 1) FROM a ORDER BY a.id"
    own.execute("ALTER SEQUENCE given RESTART")
    rows = own.execute(query.encode()).fetchall()
    assert [(number, answer) for number, answer, _ in rows] == [(i, f"x-{i}") for i in range(1, 61)]
    assert calls(own) == {"word": (1, 60)}  # the other call is batched all the same
    own.execute("SELECT word(t, x) FROM (SELECT t, (random() * 3)::int AS x FROM a) AS s")
    assert calls(own) == {"word": (1, 60)}  # what the documentation advises


def test_a_volatile_condition_is_not_lifted_above_a_join(own: Conn) -> None:
    # Each row of a that joins has two partners: both or none are in the result, as the row's one number decides.
    own.execute("CREATE TABLE twice AS SELECT b.a_id FROM b, generate_series(1, 2) WHERE b.id < 5; ANALYZE twice")
    own.execute("SET enable_mergejoin = off; SET enable_nestloop = off")  # they might not read all of a
    query = "SELECT a.id FROM a JOIN twice ON twice.a_id = a.id WHERE passes(a, nextval('given')::int % 2 + 2)"
    plan = own.execute(f"EXPLAIN {query}".encode()).fetchall()
    assert "Batch" not in str(plan)
    for batching in ("off", "on"):
        outcome(own, query, batching)
        assert own.execute("SELECT last_value FROM given").fetchone() == (60,)


@pytest.mark.some(4)
@pytest.mark.parametrize(
    ("query", "made"),
    [
        # each is made once, and what finds an expression by its like still does
        ("SELECT DISTINCT ON (word('k', 1)) id, word('k', 1) FROM a ORDER BY word('k', 1), id", 1),
        ("SELECT word('k', 1) AS k, count(*) FROM a GROUP BY k HAVING word('k', 1) > 'a' ORDER BY word('k', 1)", 2),
        ("SELECT upper(word('k', 1)), count(*) FROM a GROUP BY word('k', 1)", 2),
        ("SELECT count(*) OVER (PARTITION BY word('k', 1) ORDER BY word('l', 1)) FROM a", 2),
        ("SELECT word('k', 1) FROM a UNION SELECT word('k', 1) FROM b ORDER BY 1", 2),
        ("SELECT id FROM a WHERE t > word('k', 1) ORDER BY id LIMIT length(word('k', 1))", 2),
        ("SELECT * FROM a, word('k', 1) AS w WHERE a.t > w", 1),
        ("SELECT * FROM a, generate_series(1, length(word('k', 1))) AS s", 1),
        ("SELECT * FROM a, LATERAL (SELECT word('k', 1) AS w, b.* FROM b WHERE b.a_id = a.id) AS l", 1),
        ("SELECT (SELECT word('k', 1) FROM b LIMIT 1) FROM a", 1),
        ("SELECT max(word('k', 1)) FILTER (WHERE t < word('l', 1)) FROM a", 2),
    ],
)
def test_calls_of_constants(own: Conn, query: str, made: int) -> None:
    rows, _, _ = outcome(own, query, "off")
    batched_rows, evaluated, _ = outcome(own, query, "on")
    assert batched_rows == rows
    assert evaluated["word"] <= made


@pytest.mark.some(5)
@pytest.mark.parametrize(
    ("query", "made", "batches"),
    [
        ("SELECT id, (SELECT word(t, g)) FROM a", 60, 1),
        ("SELECT id FROM a WHERE (SELECT word(t, g) > 'word 3')", 60, 1),
        ("SELECT id, (SELECT word(t, 1) || word(t, 2)) FROM a WHERE g = 3", 30, 2),
        ("SELECT id, (SELECT word((SELECT word(a.t, 1)), 2)) FROM a WHERE g = 3", 30, 2),
        ("SELECT g, (SELECT word(max(t), g)) FROM a GROUP BY g", 4, 1),
        ("SELECT CASE WHEN g = 3 THEN (SELECT word(t, g)) END FROM a", 15, 1),
        ("SELECT g, (SELECT word(t, 1)) FROM a GROUP BY ROLLUP (t, word(t, 1), g)", None, None),
        ("SELECT id, (SELECT word('k', 1)) FROM a", 1, 0),  # runs once already
        ("SELECT id, (SELECT word(t, (random() * 0)::int)) FROM a", 60, 0),
        ("SELECT id, (SELECT word(t, 1) LIMIT 1) FROM a", 60, 1),  # not what it computes, but asked ahead
        ("UPDATE a SET (t, g) = (SELECT word(t, 1), length(word(t, 2))) WHERE g = 3 RETURNING *", 30, 2),
        ("UPDATE a SET (arr[1], t) = (SELECT word(t, g), upper(t)), g = 9 WHERE g = 3 RETURNING *", 15, 1),
        ("UPDATE a SET (t, g) = (SELECT word(t, 1), 2), (arr, d) = (SELECT ARRAY[word(t, 3)], d) RETURNING *", 120, 2),
        ("UPDATE a SET (t, g) = (SELECT word(t, 1), (random() * 0)::int) WHERE g = 3 RETURNING *", 15, 0),
        ("UPDATE a SET (t, g) = (SELECT word('k', 1), 2) WHERE g = 3 RETURNING *", 1, 0),
    ],
)
def test_a_select_without_from_is_what_it_computes(
    own: Conn, query: str, made: int | None, batches: int | None
) -> None:
    with own.transaction(force_rollback=True):
        rows, _, _ = outcome(own, query, "off")
    batched_rows, evaluated, batched = outcome(own, query, "on")
    assert batched_rows == rows
    if made is not None:
        assert evaluated["word"] == made
        assert batched.get("word", (0, 0))[0] == batches


@pytest.mark.some(3)
@pytest.mark.parametrize(
    ("query", "made"),
    [
        ("SELECT id FROM a WHERE word(t, g) NOT IN (SELECT t FROM b)", 60),  # hashed
        ("SELECT id, word(t, g) IN (SELECT b.t FROM b WHERE b.a_id = a.id) FROM a", 60),
        ("SELECT id, word(t, g) > ALL (SELECT b.t FROM b WHERE b.a_id > 30) FROM a", 60),
        ("SELECT id FROM a WHERE (g, word(t, g)) NOT IN (SELECT id, t FROM b)", 60),
        ("SELECT id FROM a WHERE (word(t, 1), word(t, g)) NOT IN (SELECT t, t FROM b)", 120),
        ("SELECT id, (word(t, 1), word(t, g)) = (SELECT t, t FROM b WHERE b.id = a.id) FROM a", 120),
        ("SELECT id FROM a WHERE g < 3 OR word(t, g) NOT IN (SELECT t FROM b)", 15),
        ("SELECT CASE WHEN g = 3 THEN word(t, g) NOT IN (SELECT t FROM b) END FROM a", 15),
        ("SELECT id, word(t, g) NOT IN (SELECT word(t, 2) FROM b) FROM a", 60 + 90),
    ],
)
def test_what_is_compared_with_a_subquery_is_asked_once_a_row(own: Conn, query: str, made: int) -> None:
    rows, _, _ = outcome(own, query, "off")
    batched_rows, evaluated, batched = outcome(own, query, "on")
    assert batched_rows == rows
    assert evaluated["word"] == made
    assert batched["word"] == (max(1, made // 60), made)


def test_what_is_compared_with_each_row_of_a_subquery_stays(own: Conn) -> None:
    """A call that a comparison makes of the subquery's row has no value before."""
    own.execute("""CREATE FUNCTION alike(x text, y text) RETURNS boolean LANGUAGE sql STABLE
                   AS 'SELECT x < word(y, 1)'""")
    own.execute("CREATE OPERATOR <~ (FUNCTION = alike, LEFTARG = text, RIGHTARG = text)")
    query = "SELECT id, word(t, 2) <~ ANY (SELECT t FROM b WHERE b.id < 4) FROM a WHERE g = 3"
    rows, _, _ = outcome(own, query, "off")
    batched_rows, _, batched = outcome(own, query, "on")
    assert batched_rows == rows
    assert batched["word"] == (1, 15)


OPERATORS = """
CREATE OPERATOR <~> (FUNCTION = word, LEFTARG = text, RIGHTARG = int);
CREATE FUNCTION same(x text, y text) RETURNS boolean LANGUAGE plpgsql STABLE COST 500 AS 'BEGIN RETURN x = y; END';
CREATE FUNCTION same_batch(statement bigint, node int, x json[], y json[]) RETURNS boolean[]
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM note('same', cardinality(x));
    RETURN ARRAY(SELECT a #>> '{}' = b #>> '{}' FROM unnest(x, y) WITH ORDINALITY AS u (a, b, o) ORDER BY o);
END $$;
SELECT llm.register_batch('same(text, text)', 'same_batch(bigint, int, json[], json[])');
CREATE OPERATOR === (FUNCTION = same, LEFTARG = text, RIGHTARG = text, COMMUTATOR = ===, RESTRICT = eqsel,
                     JOIN = eqjoinsel, HASHES);
CREATE OPERATOR CLASS same_ops FOR TYPE text USING hash AS OPERATOR 1 ===, FUNCTION 1 hashtext(text);
CREATE INDEX same ON b USING hash (t same_ops);
"""


def test_an_operator_over_a_function_is_its_call(own: Conn) -> None:
    own.execute(OPERATORS)
    for query, made, batches in (
        ("SELECT id, t <~> g FROM a", 60, 1),
        ("SELECT id FROM a WHERE (t <~> g) LIKE '%3' AND upper(word(t, g)) > 'A'", 60, 1),
        ("SELECT id, (t <~> g) <~> 2 FROM a WHERE g = 3", 30, 2),
        ("SELECT CASE WHEN g = 3 THEN t <~> 1 END FROM a", 15, 1),
        ("SELECT id, 'k' <~> 1 FROM a", 1, 0),
    ):
        rows, _, _ = outcome(own, query, "off")
        batched_rows, evaluated, batched = outcome(own, query, "on")
        assert batched_rows == rows
        assert evaluated["word"] == made, query
        assert batched.get("word", (0, 0))[0] == batches, query


def test_the_planner_knows_an_operator_as_before(own: Conn) -> None:
    """One that can be hashed, or looked up in an index, is; as a condition it is batched."""
    own.execute(OPERATORS)
    for query, without, node in (
        ("SELECT a.id, b.id FROM a JOIN b ON a.t === b.t", ("indexscan", "bitmapscan"), "Hash Cond: (a.t === b.t)"),
        ("SELECT id FROM b WHERE t === 'no'", ("seqscan", "bitmapscan"), "Index Cond: (t === 'no'::text)"),
    ):
        own.execute("RESET ALL; SET enable_material = off")
        own.execute("; ".join(f"SET enable_{name} = off" for name in without).encode())
        assert node in "".join(line for (line,) in own.execute(f"EXPLAIN {query}".encode()))
        rows, _, _ = outcome(own, query, "off")
        assert outcome(own, query, "on") == (rows, {}, {})
    rows, _, _ = outcome(own, "SELECT id FROM a WHERE t === lower(t)", "off")
    assert outcome(own, "SELECT id FROM a WHERE t === lower(t)", "on") == (rows, {}, {"same": (1, 60)})

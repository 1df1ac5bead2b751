"""Rows are asked about while more of their window are read; what ends a statement meanwhile leaves nothing behind."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pg_bridge.asking.windows import AHEAD_AFTER_S
from pg_bridge.testing.double import EngineDouble
from tests.integration.test_faults import eventually, once

Conn = psycopg.Connection[Any]

GATE = 42
READING_S = AHEAD_AFTER_S + 0.05  # rows that are soon read are asked about together
TABLES = f"""
CREATE FUNCTION pass_gate() RETURNS integer LANGUAGE sql VOLATILE AS 'SELECT pg_advisory_xact_lock({GATE}); SELECT 1';
CREATE FUNCTION sleep() RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT pg_sleep({READING_S}); SELECT true';
CREATE VIEW gated AS SELECT i, CASE WHEN i = 4000 THEN pass_gate() END AS passed FROM generate_series(1, 4100) AS i
    WHERE i <> 1500 OR sleep();
CREATE VIEW broken AS SELECT i FROM generate_series(1, 4100) AS i
    WHERE 1 / (4000 - i) IS NOT NULL AND (i <> 1500 OR sleep());
CREATE FOREIGN TABLE asked_gated (i integer, answer text OPTIONS (prompt 'Good {{i}}?'))
    SERVER vllm OPTIONS (source 'gated');
CREATE FOREIGN TABLE asked_broken (i integer, answer text OPTIONS (prompt 'Good {{i}}?'))
    SERVER vllm OPTIONS (source 'broken');
CREATE FUNCTION half_read() RETURNS bigint LANGUAGE plpython3u AS $$
from pg_bridge.backend.session import SESSION
return len(SESSION._calls)
$$;
"""
WAYS = {
    "map": "SELECT count(output) FROM llm.map('TABLE {}', 'Good {{i}}?')",
    "calls": "SELECT count(llm.complete('Good {{i}}?', r)) FROM {} AS r",
    "scan": "SELECT count(answer) FROM asked_{}",
    "scan with a condition": "SELECT count(answer) FROM asked_{} WHERE answer <> 'none'",
}
pytestmark = pytest.mark.timeout(120)
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.fixture
def host() -> str:
    """The host on which calls are gathered."""
    return "plpython"


@pytest.fixture
def conn(used_conn: Conn) -> Conn:
    if not used_conn.execute("SELECT to_regclass('gated')").fetchone()[0]:  # type: ignore[index]
        used_conn.execute("SELECT llm.enable_foreign_tables()")
        used_conn.execute(TABLES.encode())
    return used_conn


@pytest.fixture
def engine(used_engine: EngineDouble) -> EngineDouble:
    return used_engine


def one(conn: Conn, query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    assert row
    return row[0]


def assert_sound(conn: Conn, engine: EngineDouble) -> None:
    assert eventually(lambda: engine.received.in_flight == 0)
    engine.behaviour.hang = False
    rows = "(SELECT i FROM generate_series(1, 3000) AS i)"
    assert one(conn, f"SELECT count(llm.complete('Good {{i}}?', r)) FROM {rows} AS r") == 3000
    assert one(conn, "SELECT half_read()") == 0


@pytest.mark.some(1)
@ways
def test_a_first_portion_is_asked_before_all_rows_are_read(conn: Conn, engine: EngineDouble, way: str) -> None:
    with psycopg.connect(conn.info.dsn, autocommit=True) as keeper:
        keeper.execute("SELECT pg_advisory_lock(%s)", [GATE])
        asked: list[int] = []

        def open_gate() -> None:
            asked.append(len(engine.received.prompts))
            keeper.execute("SELECT pg_advisory_unlock(%s)", [GATE])

        with once(lambda: engine.received.prompts, open_gate):
            assert one(conn, way.format("gated")) == 4100
    assert 0 < asked[0] < 100
    assert len(engine.received.prompts) == len(set(engine.received.prompts)) == 4100


@pytest.mark.some(1)
@ways
def test_an_error_while_rows_are_read_leaves_nothing_in_flight(conn: Conn, engine: EngineDouble, way: str) -> None:
    engine.behaviour.hang = True
    with pytest.raises(psycopg.errors.DivisionByZero):
        conn.execute(way.format("broken").encode())
    assert_sound(conn, engine)


@pytest.mark.some(2)
@ways
def test_a_cancel_while_rows_are_read_leaves_nothing_in_flight(conn: Conn, engine: EngineDouble, way: str) -> None:
    engine.behaviour.hang = True
    with psycopg.connect(conn.info.dsn, autocommit=True) as keeper:
        keeper.execute("SELECT pg_advisory_lock(%s)", [GATE])
        with once(lambda: engine.received.prompts, conn.cancel), pytest.raises(psycopg.errors.QueryCanceled):
            conn.execute(way.format("gated").encode())
    assert_sound(conn, engine)


@pytest.mark.parametrize(
    "way", [pytest.param(way, id=name, marks=() if name == "map" else pytest.mark.slow) for name, way in WAYS.items()]
)
def test_a_caught_error_leaves_nothing_in_flight_and_the_transaction_goes_on(
    conn: Conn, engine: EngineDouble, way: str
) -> None:
    statement = way.format("broken")
    with conn.transaction():
        conn.execute(
            f"DO $$ BEGIN FOR k IN 1..5 LOOP BEGIN PERFORM ({statement});"
            " EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$".encode()
        )
        assert engine.received.prompts
        assert eventually(lambda: engine.received.in_flight == 0)
        assert one(conn, "SELECT half_read()") <= 1  # what the last one left is empty, and goes with the next one
        engine.behaviour.answer = str.upper
        assert one(conn, way.format("gated")) == 4100
    assert_sound(conn, engine)


def test_an_error_inside_the_rows_that_is_caught_there_changes_nothing(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(
        "CREATE OR REPLACE FUNCTION mended(i integer) RETURNS integer LANGUAGE plpgsql AS"
        " 'BEGIN RETURN 1 / (i % 1000); EXCEPTION WHEN division_by_zero THEN RETURN -1; END'"
    )
    engine.behaviour.answer = str
    rows = conn.execute(
        "SELECT r.i, llm.complete('{i}', r) FROM (SELECT i, mended(i) AS m FROM generate_series(1, 4100) AS i) AS r"
    ).fetchall()
    assert all(answer.endswith(f'{{"i": {i}}}') for i, answer in rows)
    assert len(engine.received.prompts) == len(set(engine.received.prompts)) == 4100


def test_windows_that_are_read_anew_get_their_own_answers(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = str
    rows = conn.execute(
        "SELECT o, (SELECT string_agg(right(llm.complete('{i}', r), 12), ',' ORDER BY r.i)"
        "           FROM (SELECT i FROM generate_series(o * 10000, o * 10000 + 1500 + o) AS i) AS r)"
        " FROM generate_series(1, 4) AS o"
    ).fetchall()
    for o, answers in rows:
        assert [int(a.partition(": ")[2].rstrip("}")) for a in answers.split(",")] == list(
            range(o * 10000, o * 10000 + 1501 + o)
        )


@pytest.mark.slow
def test_a_window_inside_a_window(conn: Conn, engine: EngineDouble) -> None:
    """The rows of one node are read from another one, and a function among them asks by itself."""
    conn.execute(
        "CREATE OR REPLACE FUNCTION inner_count(n integer) RETURNS bigint LANGUAGE sql VOLATILE AS"
        " $$ SELECT count(llm.complete('In {i}', s)) FROM (SELECT i FROM generate_series(n, n + 1200) AS i) AS s $$"
    )
    engine.behaviour.answer = str
    row = conn.execute(
        "SELECT count(*), sum(r.c), count(DISTINCT llm.complete('Out {i}', r)) FROM ("
        " SELECT i, CASE WHEN i % 1300 = 0 THEN inner_count(i) END AS c, llm.is_true('Below {i}', q) AS b"
        " FROM (SELECT i FROM generate_series(1, 4000) AS i) AS q) AS r"
    ).fetchone()
    assert row == (4000, 3 * 1201, 4000)
    assert len(engine.received.prompts) == len(set(engine.received.prompts))
    assert one(conn, "SELECT half_read()") == 0


def test_calls_of_many_prompts_and_options(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = str
    rows = conn.execute(
        "SELECT r.i, llm.complete('Say ' || r.i % 3 || ' {i}', r, max_tokens => 5 + r.i % 2, dedup => r.i % 5 > 0)"
        " FROM (SELECT i FROM generate_series(1, 4100) AS i) AS r"
    ).fetchall()
    assert all(answer.endswith(f'Say {i % 3} i\n{{"i": {i}}}') for i, answer in rows)
    assert len(engine.received.prompts) == 4100


@pytest.mark.some(2)
@pytest.mark.parametrize("last", [1023, 1024, 1025, 2048, 2049, 4000])
def test_calls_that_end_before_the_rows_do(conn: Conn, engine: EngineDouble, last: int) -> None:
    engine.behaviour.answer = str
    rows = conn.execute(
        f"SELECT r.i, CASE WHEN r.i BETWEEN 2 AND {last} THEN llm.complete('Good {{i}}', r) END"
        " FROM (SELECT i FROM generate_series(1, 4100) AS i) AS r".encode()
    ).fetchall()
    assert [i for i, answer in rows if answer is not None] == list(range(2, last + 1))
    assert all(answer is None or answer.endswith(f'{{"i": {i}}}') for i, answer in rows)
    assert len(engine.received.prompts) == last - 1


def test_long_answers_come_some_at_a_time(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = lambda prompt: prompt.rpartition("\n")[2] * 1000
    rows = conn.execute(
        "SELECT r.i, length(a), left(a, 12) FROM (SELECT r.i, llm.complete('Good {i}', r, max_tokens => 4000) AS a"
        " FROM (SELECT i FROM generate_series(10001, 12500) AS i) AS r OFFSET 0) AS r"
    ).fetchall()
    assert rows == [(i, 12_000, f'{{"i": {i}}}') for i in range(10_001, 12_501)]
    assert one(conn, "SELECT half_read()") == 0


def test_a_part_that_is_forged(conn: Conn, engine: EngineDouble) -> None:
    """Anybody may call the batch function by hand: what was begun ends with the transaction."""
    engine.behaviour.hang = True
    rows = "ARRAY(SELECT '{\"a\": ' || i || '}' FROM generate_series(1, 2000) AS i)::json[]"
    part = (
        "SELECT llm._answers(7, 1, {more}, array_fill('\"Well\"'::json, ARRAY[{n}]), {rows}, '{{}}', '{{server}}',"
        " array_fill('\"vllm\"'::json, ARRAY[1, {n}]))"
    )
    with conn.transaction():
        assert one(conn, part.format(more="true", n=2000, rows=rows)) is None
        assert one(conn, "SELECT half_read()") == 1
        conn.execute("SELECT pg_sleep(%s)", [READING_S])
        assert one(conn, part.format(more="true", n=2000, rows=rows)) is None
        assert eventually(lambda: engine.received.prompts)
    assert_sound(conn, engine)
    with pytest.raises(psycopg.Error, match="do not fit"):
        conn.execute(part.format(more="true", n=3, rows="'{}'").encode())
    assert one(conn, part.format(more="false", n=0, rows="'{}'")) == []
    assert one(conn, part.format(more="NULL", n=0, rows="'{}'")) is None
    assert one(conn, "SELECT half_read()") == 0

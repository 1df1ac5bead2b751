"""llm.map: the right answer on the right row, whatever the row holds."""

from __future__ import annotations

import json
import time
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pg_bridge.testing.behaviour import default_answer
from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database
from tests.hostile import HostileEngine, Reply, Request, completion, raw, well

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]


def ask(conn: Conn, query: str, prompt: str, **options: Any) -> list[Any]:
    named = "".join(f", {name} => %s" for name in options)
    statement = f"SELECT row_id, input, output, error FROM llm.map(%s, %s{named}) ORDER BY row_id"
    return conn.execute(statement, [query, prompt, *options.values()]).fetchall()


def expected(question: str, row: dict[str, Any]) -> str:
    """What the double answers: it depends on the question and the cells, not on their order."""
    return default_answer(f"{question}\n{json.dumps(row, ensure_ascii=False)}")


def test_each_row_gets_its_own_answer(conn: Conn) -> None:
    rows = ask(conn, "SELECT i, i % 7 AS j, 'é' || i AS t FROM generate_series(1, 500) AS i", "What is {j} of {t}?")
    assert [row[0] for row in rows] == list(range(1, 501))
    for row_id, row, output, error in rows:
        assert row == {"i": row_id, "j": row_id % 7, "t": f"é{row_id}"}
        assert output == expected("What is j of t?", {"j": row["j"], "t": row["t"]})
        assert error is None


text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)
cell = st.one_of(st.none(), st.sampled_from(["", "a", "b", "null", '"', "\\", "{x}", "ü😀", "\x01\n\u2028"]), text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.lists(st.tuples(cell, cell, cell), max_size=12), dedup=st.booleans(), window=st.sampled_from([1, 3, 100])
)
def test_answers_land_on_their_rows_for_any_table(
    fresh: Conn, table: list[tuple[str | None, ...]], dedup: bool, window: int
) -> None:
    fresh.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (n serial, a text, b text, c text)")
    with fresh.cursor() as cursor:
        cursor.executemany("INSERT INTO t (a, b, c) VALUES (%s, %s, %s)", table)
    rows = ask(fresh, "SELECT a, b, c FROM t ORDER BY n", "Q {a} {b} {c}", dedup=dedup, window_rows=window)
    assert [row[0] for row in rows] == list(range(1, len(table) + 1))
    for (_, row, output, _), cells in zip(rows, table, strict=True):
        assert (row["a"], row["b"], row["c"]) == cells
        assert output == expected("Q a b c", row)


def test_only_the_named_columns_are_sent(conn: Conn, engine: EngineDouble) -> None:
    rows = ask(conn, "SELECT 1 AS keep, 'hush' AS secret", "What about {keep}? {{braces}} stay.")
    assert engine.received.prompts == ['What about keep? {braces} stay.\n{"keep": 1}']
    assert rows[0][1] == {"keep": 1, "secret": "hush"}


def test_without_a_named_column_all_are_sent(conn: Conn, engine: EngineDouble) -> None:
    ask(conn, "SELECT 1 AS a, NULL::text AS b", "Describe it.")
    assert engine.received.prompts == ['Describe it.\n{"a": 1, "b": null}']


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("12.50::numeric", "12.50"),
        ("1e400::numeric", "1" + "0" * 400),
        ("'NaN'::float8", '"NaN"'),
        ("'2026-02-03 04:05:06'::timestamp", '"2026-02-03T04:05:06"'),
        ("ARRAY[1, NULL]", "[1,null]"),
        ("""'{"k": [1.0]}'::jsonb""", '{"k": [1.0]}'),
        ("true", "true"),
        ("ROW(1, 'x')", '{"f1":1,"f2":"x"}'),
    ],
)
def test_values_reach_the_engine_as_postgresql_prints_them(
    conn: Conn, engine: EngineDouble, value: str, sent: str
) -> None:
    ask(conn, f"SELECT {value} AS v", "{v}")
    assert engine.received.prompts == [f'v\n{{"v": {sent}}}']


def test_equal_prompts_are_asked_once_also_across_windows(conn: Conn, engine: EngineDouble) -> None:
    query = "SELECT i AS id, i % 10 AS k FROM generate_series(1, 5000) AS i"
    rows = ask(conn, query, "What is {k}?", window_rows=100)
    assert len(engine.received.prompts) == 10
    assert all(output == expected("What is k?", {"k": row["k"]}) for _, row, output, _ in rows)
    ask(conn, "SELECT 1 AS k UNION ALL SELECT 1", "What is {k}?", dedup=False)
    assert len(engine.received.prompts) == 12


def test_the_planner_orders_rows_and_columns(conn: Conn, engine: EngineDouble) -> None:
    query = "SELECT md5(i::text) AS id, repeat(chr(65 + i % 4), 200) AS body FROM generate_series(1, 80) AS i"
    hits = {}
    for reorder in ("none", "rows", "rows and columns"):
        engine.reset()
        before = engine.cache.hit_tokens
        ask(conn, query, "Read {id} and {body}.", reorder=reorder)
        (hits[reorder],) = conn.execute("SELECT cached_tokens FROM llm.last_run()").fetchone() or (0,)
        assert hits[reorder] == engine.cache.hit_tokens - before
    assert hits["rows and columns"] > 2 * hits["none"]
    assert hits["rows and columns"] > 2 * hits["rows"]


def test_zero_rows_ask_nothing(conn: Conn, engine: EngineDouble) -> None:
    assert ask(conn, "SELECT 1 AS a WHERE false", "{a}") == []
    assert engine.received.requests == []
    assert conn.execute("SELECT rows, requests, prompt_tokens FROM llm.last_run()").fetchone() == (0, 0, 0)


def test_last_run_gives_the_engine_s_own_figures(conn: Conn, engine: EngineDouble) -> None:
    ask(conn, "SELECT i % 30 AS k, repeat('x', 300) AS t FROM generate_series(1, 90) AS i", "{k} {t}")
    run = conn.execute(
        "SELECT rows, unique_prompts, requests, prompt_tokens, cached_tokens, completion_tokens, prefix_hit_rate "
        "FROM llm.last_run()"
    ).fetchone()
    assert run is not None
    assert run[:5] == (90, 30, len(engine.received.requests), engine.cache.queried_tokens, engine.cache.hit_tokens)
    assert run[6] == pytest.approx(engine.cache.hit_tokens / engine.cache.queried_tokens)


def test_last_run_tells_waiting_from_work_and_where_prompts_were(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.delay_s = 0.2
    ask(conn, "SELECT i FROM generate_series(1, 20) AS i", "{i}")
    run = conn.execute(
        "SELECT wait_s > 0.02, http_s > 0, in_flight BETWEEN 1 AND 20, flight_ms >= 200, "
        "unread_ms BETWEEN 0 AND flight_ms FROM llm.last_run()"
    ).fetchone()
    assert run == (True,) * 5


def test_last_run_says_where_the_engine_had_them_only_if_it_tells(conn: Conn) -> None:
    seconds = {"queue": 0.001, "prefill": 0.002, "decode": 0.0}
    asked = 0

    def reply(request: Request) -> Reply:
        nonlocal asked
        if request.path == "/v1/models":
            return [well({"data": [{"id": "m"}]})]
        if request.path == "/metrics":
            lines = [
                f"vllm:request_{stage}_time_seconds_{what} {value}"
                for stage, each in seconds.items()
                for what, value in (("sum", asked * each), ("count", asked))
            ]
            return [raw("\n".join(lines).encode())]
        asked += request.prompts
        time.sleep(0.01)
        return [completion(request)]

    show = "SELECT queue_ms, prefill_ms, decode_ms, unread_ms + front_ms FROM llm.last_run()"
    with HostileEngine(reply, everything=True) as other:
        conn.execute(
            f"CREATE SERVER telling FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint '{other.url}', cache 'off')"
        )
        ask(conn, "SELECT i FROM generate_series(1, 20) AS i", "{i}", server="telling")
        run = conn.execute(show).fetchone()
        assert run is not None
        assert run[:3] == pytest.approx((1.0, 2.0, 0.0))
        assert run[3] > 0
        ask(conn, "SELECT i FROM generate_series(1, 20) AS i LIMIT 1", "{i}", server="telling")
    assert conn.execute(show).fetchone() == (None,) * 4  # a single prompt, and its answer tells nothing


@pytest.mark.new_database
def test_last_run_is_null_before_the_first_run_and_where_the_engine_is_silent(
    fresh: Conn, engine: EngineDouble
) -> None:
    assert fresh.execute("SELECT rows FROM llm.last_run()").fetchone() == (None,)
    engine.behaviour.metrics = False
    ask(fresh, "SELECT i FROM generate_series(1, 20) AS i", "{i}")
    assert fresh.execute("SELECT cached_tokens, prefix_hit_rate FROM llm.last_run()").fetchone() == (None, None)


def test_choices_bind_the_answer(conn: Conn, engine: EngineDouble) -> None:
    rows = ask(conn, "SELECT i FROM generate_series(1, 30) AS i", "{i}?", choices=["yes", "no"])
    assert {row[2] for row in rows} == {"yes", "no"}
    engine.behaviour.ignore_choices = True
    rows = ask(conn, "SELECT 1 AS i", "{i}?", choices=["yes", "no"], on_error="null")
    assert rows[0][2] is None
    assert "choices" in rows[0][3]


@pytest.mark.parametrize("answer", ["a\0b", "half \ud83d"])
def test_an_answer_that_postgresql_cannot_hold(conn: Conn, engine: EngineDouble, answer: str) -> None:
    engine.behaviour.answer = lambda prompt: answer if "2" in prompt else "fine"
    rows = ask(conn, "VALUES (1), (2), (3)", "{column1}", on_error="null")
    assert [row[2] for row in rows] == ["fine", None, "fine"]
    assert "cannot" in rows[1][3]


def test_the_query_sees_its_own_transaction(connect: Connect, fresh: Conn) -> None:
    other = connect(autocommit=False)
    other.execute("CREATE TABLE fresh (a int); INSERT INTO fresh VALUES (1), (2)")
    assert len(ask(other, "SELECT a FROM fresh", "{a}")) == 2
    other.rollback()


def test_the_query_has_the_caller_s_rights(connect: Connect, fresh: Conn, database: Database) -> None:
    with Role(fresh, "reader"):
        fresh.execute("CREATE TABLE hidden (a int); GRANT USAGE ON FOREIGN SERVER vllm TO reader")
        reader = connect(user="reader")
        assert len(ask(reader, "SELECT 1 AS a", "{a}")) == 1
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table hidden"):
            ask(reader, "SELECT a FROM hidden", "{a}")
        reader.close()


def test_row_level_security_binds_the_query(connect: Connect, fresh: Conn) -> None:
    with Role(fresh, "reader"):
        fresh.execute(
            "CREATE TABLE mine (a int, owner text); INSERT INTO mine VALUES (1, 'reader'), (2, 'other');"
            "ALTER TABLE mine ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON mine USING (owner = current_user);"
            "GRANT SELECT ON mine TO reader; GRANT USAGE ON FOREIGN SERVER vllm TO reader"
        )
        reader = connect(user="reader")
        assert [row[1]["a"] for row in ask(reader, "SELECT a FROM mine", "{a}")] == [1]
        reader.close()


class Role:
    """A login role for the length of a with block; roles are the cluster's, not the database's."""

    def __init__(self, conn: Conn, name: str) -> None:
        self._conn = conn
        self._name = name

    def __enter__(self) -> None:
        self._conn.execute(f"CREATE ROLE {self._name} LOGIN")

    def __exit__(self, *_: object) -> None:
        self._conn.execute(f"DROP OWNED BY {self._name}; DROP ROLE {self._name}")


def test_ways_of_writing_the_query(conn: Conn) -> None:
    for query in (
        "VALUES (1), (2)",
        "TABLE pg_am",
        "WITH w AS (SELECT 1 AS a) SELECT * FROM w",
        "SELECT 1 AS a -- and a comment",
        "SELECT 1 AS a ; ",
        "(SELECT 1 AS a) UNION (SELECT 2) ORDER BY 1",
        'SELECT 1 AS "odd name", 2 AS "Quote""d"',
    ):
        assert ask(conn, query, "Describe it."), query


def test_a_set_returning_call_in_the_select_list_stops_early(conn: Conn, engine: EngineDouble) -> None:
    rows = conn.execute(
        "SELECT (llm.map('SELECT i FROM generate_series(1, 100000) AS i', '{i}')).* LIMIT 10"
    ).fetchall()
    assert len(rows) == 10
    assert len(engine.received.prompts) <= 64


def test_llm_map_works_inside_functions_cursors_and_views(fresh: Conn) -> None:
    fresh.execute("CREATE VIEW v AS SELECT * FROM llm.map('SELECT i FROM generate_series(1, 40) AS i', '{i}')")
    assert fresh.execute("SELECT count(DISTINCT output) FROM v").fetchone() == (40,)
    fresh.execute(
        "CREATE FUNCTION f() RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE n bigint := 0; r record; BEGIN "
        "FOR r IN SELECT * FROM v LOOP n := n + 1; END LOOP; RETURN n; END $$"
    )
    assert fresh.execute("SELECT f()").fetchone() == (40,)
    with fresh.transaction():
        fresh.execute("DECLARE c CURSOR FOR SELECT (llm.map('SELECT i FROM generate_series(1, 4000) AS i', '{i}')).*")
        assert len(fresh.execute("FETCH 25 FROM c").fetchall()) == 25
        assert fresh.execute("SELECT count(*) FROM v").fetchone() == (40,)  # a second run beside the open one
        assert len(fresh.execute("FETCH 5000 FROM c").fetchall()) == 3975


def test_two_runs_in_one_statement(conn: Conn) -> None:
    rows = conn.execute(
        "SELECT a.output = b.output FROM llm.map('SELECT i FROM generate_series(1, 50) AS i', '{i}') AS a "
        "JOIN llm.map('SELECT i FROM generate_series(1, 50) AS i', '{i}') AS b USING (row_id)"
    ).fetchall()
    assert rows == [(True,)] * 50

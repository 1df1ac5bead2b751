"""llm.rank: the best rows of any query, a batch a round, in no more questions than were told; on both hosts."""

from __future__ import annotations

import json
import threading
import time
from functools import partial
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database, create_server

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

TABLES = """
CREATE TABLE films (id int PRIMARY KEY, title text, worth int);
INSERT INTO films SELECT i, 'film ' || i, (i * 7919) % 1009 FROM generate_series(1, 1000) AS i;
"""
FEW = "SELECT title, worth FROM films WHERE id <= 8"


def in_order(prompt: str) -> str:
    """Answers by the rows' worth, the highest first."""
    question, _, shown = prompt.partition("\n{")
    rows = json.loads("{" + shown) if shown else {}
    numbers = sorted(map(int, rows), key=lambda number: -(rows[str(number)]["worth"] or 0))
    return str(numbers[0]) if "Which of the two" in question else ", ".join(map(str, numbers))


def hear(said: list[str], notice: psycopg.errors.Diagnostic) -> None:
    said.append(notice.message_primary or "")


@pytest.fixture
def conn(db: Conn, engine: EngineDouble) -> Conn:
    create_server(db, engine.url)
    db.execute(TABLES)
    engine.behaviour.answer = in_order
    return db


@pytest.mark.some(1)
@pytest.mark.parametrize(("size", "k"), [(10, 10), (20, 25), (2, 3)])
def test_the_best_in_no_more_questions_than_were_told(conn: Conn, engine: EngineDouble, size: int, k: int) -> None:
    where = "SELECT * FROM films WHERE id <= 300;"
    estimate = conn.execute(
        "SELECT rows, unique_rows, list_size, questions, rounds, prompt_tokens "
        "FROM llm.rank_estimate(%s, 'worth', %s, list_rows => %s)",
        (where, k, size),
    ).fetchone()
    assert estimate is not None
    assert engine.received.prompts == []
    got = conn.execute(
        "SELECT input ->> 'title', rank, ties, agreement, row_id FROM llm.rank(%s, 'worth', %s, list_rows => %s)",
        (where, k, size),
    ).fetchall()
    want = conn.execute("SELECT title, id FROM films WHERE id <= 300 ORDER BY worth DESC LIMIT %s", (k,)).fetchall()
    assert got == [(title, place, 0, 1.0, row) for place, (title, row) in enumerate(want, 1)]
    assert estimate[:3] == (300, 300, size)
    run = conn.execute("SELECT rows, unique_prompts FROM llm.last_run()").fetchone()
    # A pair that has met before in this order has been answered.
    assert run == (estimate[3], len(engine.received.prompts))
    assert 0.8 * estimate[3] <= len(engine.received.prompts) <= estimate[3]
    tokens = sum(map(len, engine.received.prompts)) / 4
    assert 0.5 * tokens < estimate[5] < 2 * tokens


def test_a_thousand_rows_are_a_handful_of_batches(conn: Conn, engine: EngineDouble) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (ADD max_in_flight '1000')")
    questions, rounds = conn.execute(
        "SELECT questions, rounds FROM llm.rank_estimate('TABLE films', '{worth}', 10, list_rows => 20)"
    ).fetchall()[0]
    got = conn.execute(
        "SELECT input -> 'worth' FROM llm.rank('TABLE films', '{worth}', 10, list_rows => 20)"
    ).fetchall()
    want = conn.execute("SELECT worth FROM films ORDER BY worth DESC LIMIT 10").fetchall()
    assert got == want
    assert questions <= 100
    assert rounds <= 8
    # Each round is sent in portions of which a request takes some: few, and not one for each question.
    assert len(engine.received.requests) < questions / 2
    first = engine.received.prompts[0]
    assert first.startswith("worth\nPut all rows in order")
    assert '{"1": {"worth": ' in first
    assert "title" not in first


def test_what_is_sent(conn: Conn, engine: EngineDouble) -> None:
    conn.execute("SELECT * FROM llm.rank('SELECT 7 AS worth UNION SELECT 9', 'Which {worth} is {{more}}?', 1)")
    task = "Which of the two rows fits this better? Answer with its number, 1 or 2."
    seven, nine = '{"worth": 7}', '{"worth": 9}'
    assert sorted(engine.received.prompts) == sorted(
        f'Which worth is {{more}}?\n{task}\n{{"1": {one}, "2": {other}}}'
        for one, other in ((seven, nine), (nine, seven))
    )
    engine.received.prompts.clear()
    conn.execute("SELECT * FROM llm.rank('SELECT worth FROM films WHERE id < 4', 'worth', 1)")
    task = "Put all rows in order by how well they fit this, the one that fits best first. "
    assert all(
        prompt.startswith(f'worth\n{task}Answer with their numbers, parted by commas.\n{{"1": ')
        for prompt in engine.received.prompts
    )
    rows = [prompt.partition("\n{")[2] for prompt in engine.received.prompts]
    shown = [tuple(row["worth"] for row in json.loads("{" + each).values()) for each in rows]
    assert len(set(shown)) == 4
    assert {each[::-1] for each in shown} == set(shown)  # each in both orders


def test_equal_rows_share_a_rank_and_nulls_come_last(conn: Conn, engine: EngineDouble) -> None:
    query = "SELECT * FROM (VALUES (NULL), (5), (9), (5), (NULL), (7), (5)) AS t (worth)"
    got = conn.execute(
        "SELECT rank, row_id, input ->> 'worth', ties, agreement FROM llm.rank(%s, 'worth', NULL)", [query]
    )
    assert got.fetchall() == [
        (1, 3, "9", 0, 1), (2, 6, "7", 0, 1), (3, 2, "5", 2, 1), (3, 4, "5", 2, 1), (3, 7, "5", 2, 1),
        (6, 1, None, 1, None), (6, 5, None, 1, None),
    ]  # fmt: skip
    assert len(engine.received.prompts) == 4  # three rows in two orders, twice
    for k, rows in ((0, []), (1, [3]), (4, [3, 6, 2, 4]), (6, [3, 6, 2, 4, 7, 1]), (99, [3, 6, 2, 4, 7, 1, 5])):
        cut = conn.execute("SELECT row_id FROM llm.rank(%s, 'worth', %s)", [query, k]).fetchall()
        assert [row for (row,) in cut] == rows


def test_what_takes_no_question(conn: Conn, engine: EngineDouble) -> None:
    for query, k, want in (
        ("SELECT 1 AS worth WHERE false", 3, []),
        ("SELECT 1 AS worth", 3, [(1, 0, None)]),
        ("SELECT 1 AS worth FROM generate_series(1, 3)", None, [(1, 2, None)] * 3),
        ("SELECT NULL AS worth FROM generate_series(1, 2)", 3, [(1, 1, None)] * 2),
        (FEW, 0, []),
    ):
        got = conn.execute("SELECT rank, ties, agreement FROM llm.rank(%s, 'worth', %s)", [query, k])
        assert got.fetchall() == want
        told = conn.execute("SELECT questions, rounds FROM llm.rank_estimate(%s, 'worth', %s)", [query, k]).fetchone()
        assert told == (0, 0)
    assert engine.received.prompts == []


def test_comparisons_that_contradict_one_another_are_ties(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = lambda prompt: "1"  # whoever stands first
    got = conn.execute("SELECT rank, ties, agreement FROM llm.rank(%s, 'worth', 3, list_rows => 2)", [FEW]).fetchall()
    assert got == [(1, 7, None)] * 3

    def in_a_circle(prompt: str) -> str:
        one, other = (row["a"] for row in json.loads("{" + prompt.partition("\n{")[2]).values())
        return "1" if (one - other) % 3 == 1 else "2"

    engine.behaviour.answer = in_a_circle
    query = "SELECT i AS a FROM generate_series(0, 2) AS i"
    got = conn.execute("SELECT rank, ties, agreement FROM llm.rank(%s, 'a', NULL, list_rows => 2)", [query]).fetchall()
    assert got == [(1, 2, None)] * 3


def test_long_rows_make_short_lists(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.max_model_len = 1000
    query = "SELECT worth, repeat('x', 400) AS text FROM films WHERE id <= 40"
    told = conn.execute("SELECT list_size, questions FROM llm.rank_estimate(%s, 'worth', 2)", [query]).fetchone()
    assert told is not None
    assert 2 < told[0] < 6
    got = conn.execute("SELECT input -> 'worth' FROM llm.rank(%s, 'worth', 2)", [query]).fetchall()
    assert got == conn.execute("SELECT worth FROM films WHERE id <= 40 ORDER BY worth DESC LIMIT 2").fetchall()
    assert max(map(len, engine.received.prompts)) < 3 * (1000 - 128)
    # Pairs need room for two, and what fails in a savepoint leaves the rest of the transaction as it was.
    with conn.transaction():
        for context, fits in ((500, False), (700, True), (500, False)):
            arguments = (query, context)
            call = "SELECT count(*) FROM llm.rank(%s, 'worth', 1, context_tokens => %s)"
            if fits:
                assert conn.execute(call, arguments).fetchone() == (1,)
                continue
            with pytest.raises(psycopg.errors.InvalidParameterValue, match="no two like it fit"), conn.transaction():
                conn.execute(call, arguments)


def test_errors_are_clear(conn: Conn, engine: EngineDouble) -> None:
    for arguments, message in (
        ("'TABLE films', NULL, 3", "the prompt is NULL"),
        ("NULL, 'worth', 3", "query"),
        ("'TABLE films', 'worth', -1", "k is negative"),
        ("'TABLE films', '{wat}', 3", 'column "wat" does not exist'),
        ("'TABLE films', 'worth', 3, list_rows => 1", "list_rows"),
        ("'TABLE films', 'worth', 3, list_rows => 101", "list_rows"),
        ("'TABLE films', 'worth', 3, server => 'none'", 'server "none" does not exist'),
        ("'DELETE FROM films', 'worth', 3", "query"),
        ("'TABLE films', 'worth', 3, context_tokens => 150", "has no room"),
        ("'SELECT repeat(i::text, 9999) AS a FROM generate_series(1, 3) AS i', 'a', 1", "no two like it fit"),
        ("'SELECT i FROM generate_series(1, 9999) AS i', 'i', NULL, list_rows => 2", "takes 99970002 questions"),
    ):
        for function in ("rank", "rank_estimate"):
            with pytest.raises(psycopg.Error) as raised:
                conn.execute(f"SELECT * FROM llm.{function}({arguments})".encode())
            assert message in str(raised.value), arguments
            assert not (raised.value.sqlstate or "XX").startswith("XX")
    assert engine.received.prompts == []


def test_no_form_of_an_answer_is_forged(conn: Conn, engine: EngineDouble) -> None:
    """Anybody may call what the functions call: a list of a billion numbers would be the engine's end, or Python's."""
    with pytest.raises(psycopg.Error, match="ordered"):
        conn.execute("""SELECT llm._ask('x', '1', '{"ordered": 999999999}')""")
    assert engine.received.prompts == []


def test_a_comparison_without_an_answer(conn: Conn, engine: EngineDouble) -> None:
    query = "SELECT * FROM llm.rank('SELECT worth FROM films', 'worth', 5%s)"
    for answer in ("so what", "0", "11", "1, 2 and 3"):
        engine.behaviour.ignore_choices = True
        engine.behaviour.answer = partial(str.format, answer)
        with pytest.raises(psycopg.Error, match="could not answer one of the comparisons"):
            conn.execute((query % "").encode())
        said: list[str] = []
        conn.add_notice_handler(partial(hear, said))
        got = conn.execute((query % ", on_error => 'null'").encode()).fetchall()
        assert [(row[0], row[4]) for row in got] == [(1, None)] * 5
        assert any("comparisons have no answer" in message for message in said)
    engine.behaviour.ignore_choices = False
    engine.behaviour.answer = in_order
    engine.behaviour.reject_marker = '"worth": 1000}'
    got = conn.execute((query % ", on_error => 'null'").encode()).fetchall()
    assert len(got) == 5


def test_a_budget_counts_all_rounds(conn: Conn, engine: EngineDouble) -> None:
    query = "SELECT * FROM llm.rank('SELECT worth FROM films', 'worth', 5, max_requests => 110%s)"
    told = conn.execute("SELECT questions FROM llm.rank_estimate('TABLE films', 'worth', 5)").fetchone()
    assert told is not None
    assert told[0] > 110
    with pytest.raises(psycopg.Error, match="max_requests"):
        conn.execute((query % "").encode())
    assert 100 <= len(engine.received.prompts) <= 110
    engine.received.prompts.clear()
    assert len(conn.execute((query % ", on_budget => 'null'").encode()).fetchall()) == 5
    assert len(engine.received.prompts) == 110


def test_the_same_rows_are_answered_by_the_ledger(conn: Conn, engine: EngineDouble) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent')")
    rows = "'SELECT worth FROM films ORDER BY %s'"
    query = f"SELECT array_agg(input ->> 'worth' ORDER BY rank) FROM llm.rank({rows}, 'worth', 5)"
    got = conn.execute((query % "id").encode()).fetchone()
    asked = len(engine.received.prompts)
    assert conn.execute((query % "md5(title)").encode()).fetchone() == got
    assert len(engine.received.prompts) == asked
    conn.execute("DELETE FROM films WHERE worth < 500")
    assert conn.execute((query % "id").encode()).fetchone() == got


def test_in_views_and_for_each_row_of_another_table(conn: Conn) -> None:
    conn.execute(
        "CREATE VIEW best AS SELECT rank, input ->> 'title' AS title FROM llm.rank('TABLE films', '{worth}', 3)"
    )
    want = conn.execute("SELECT title FROM films ORDER BY worth DESC LIMIT 3").fetchall()
    assert conn.execute("SELECT title FROM best ORDER BY rank").fetchall() == want
    got = conn.execute(
        "SELECT g, r.input -> 'worth' FROM generate_series(0, 2) AS g, LATERAL "
        "llm.rank(format('SELECT worth FROM films WHERE id %% 100 = %s', g), 'worth', 2) AS r ORDER BY g, r.rank"
    ).fetchall()
    each = "SELECT worth FROM films WHERE id %% 100 = %s ORDER BY worth DESC LIMIT 2"
    assert got == [(g, worth) for g in range(3) for (worth,) in conn.execute(each, [g])]


def test_a_statement_that_waits_is_cancelled(conn: Conn, connect: Connect, engine: EngineDouble) -> None:
    engine.behaviour.hang = True
    asking = connect()
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            asking.execute("SELECT * FROM llm.rank('TABLE films', 'worth', 5)")
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
    assert len(asking.execute("SELECT * FROM llm.rank(%s, 'worth', 2)", [FEW]).fetchall()) == 2


def test_a_role_ranks_what_it_may_read(conn: Conn, connect: Connect, database: Database) -> None:
    conn.execute(
        "DROP ROLE IF EXISTS stranger; CREATE ROLE stranger LOGIN; ALTER TABLE films ENABLE ROW LEVEL SECURITY"
    )
    try:
        with connect(user="stranger") as other:
            for query, message in (("TABLE films", "permission denied"), ("SELECT 1 AS worth", "server")):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match=message):
                    other.execute("SELECT * FROM llm.rank(%s, 'worth', 2)", [query])
            conn.execute(
                "GRANT USAGE ON FOREIGN SERVER vllm TO stranger; GRANT SELECT ON films TO stranger; "
                "CREATE POLICY few ON films TO stranger USING (worth < 100)"
            )
            got = other.execute("SELECT input -> 'worth' FROM llm.rank('TABLE films', '{worth}', 2)").fetchall()
            assert got == [(99,), (98,)]
            rows = other.execute("SELECT rows FROM llm.rank_estimate('TABLE films', 'worth', 2)").fetchone()
            assert rows == other.execute("SELECT count(*) FROM films").fetchone()
    finally:
        conn.execute("DROP OWNED BY stranger; DROP ROLE stranger")

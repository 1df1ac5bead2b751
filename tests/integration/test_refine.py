"""llm.refine: an answer, its judgement, and another answer only where the first was found wanting; in whole batches."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import create_server

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

ROWS = 30
CALL = "llm.refine('Sum up {review}.', r, 'it is true to {review}, {{and short}}', on_error => 'null'%s)"


def answer(prompt: str) -> str:
    """Every third answer is found wanting; the review's number stands in all that is asked about it."""
    number = prompt.partition("text ")[2].partition('"')[0]
    if prompt.startswith("Does answer meet this"):
        return "no" if int(number) % 3 == 0 else "yes"
    return f"better text {number}" if "does not meet this" in prompt else f"about text {number}"


@pytest.fixture
def conn(db: Conn, engine: EngineDouble) -> Conn:
    create_server(db, engine.url)
    db.execute(f"CREATE TABLE reviews AS SELECT i AS id, 'text ' || i AS review FROM generate_series(1, {ROWS}) AS i")
    engine.behaviour.answer = answer
    return db


def test_what_does_not_meet_the_criterion_is_answered_once_more(conn: Conn, engine: EngineDouble, host: str) -> None:
    if host == "plpython":
        conn.execute("LOAD 'pg_bridge'")
    got = conn.execute(f"SELECT id, t.* FROM reviews AS r, {CALL % ''} AS t ORDER BY id").fetchall()
    assert got == [
        (i, f"better text {i}" if i % 3 == 0 else f"about text {i}", f"about text {i}", i % 3 != 0)
        for i in range(1, ROWS + 1)
    ]
    asked = engine.received.prompts
    assert len(asked) == 2 * ROWS + ROWS // 3
    judged = 'Does answer meet this: it is true to review, {and short}\n{"review": "text 3", "answer": "about text 3"}'
    again = (
        "Sum up review.\nThe answer answer does not meet this: it is true to review, {and short}\nGive a better one.\n"
        '{"review": "text 3", "answer": "about text 3"}'
    )
    as_sorted = [_sorted(prompt) for prompt in asked]
    assert {_sorted(judged), _sorted(again)} <= set(as_sorted)
    if host == "plpython":
        assert len(engine.received.requests) < ROWS
        plan = conn.execute(f"EXPLAIN (COSTS OFF) SELECT t.answer FROM reviews AS r, {CALL % ''} AS t").fetchall()
        assert [line.strip() for (line,) in plan if "Calls" in line] == [
            f"Calls: llm.{name}" for name in ("complete", "is_true", "complete")
        ]


def _sorted(prompt: str) -> str:
    question, _, row = prompt.rpartition("\n{")
    return f"{question}\n{sorted(row.rstrip('}').split(', '))}"


def test_another_may_judge(conn: Conn) -> None:
    with EngineDouble(answer=lambda prompt: "no") as other:
        create_server(conn, other.url, "judge")
        call = CALL % ", judge => 'judge', system_prompt => 'Rhyme.', max_tokens => 7"
        got = conn.execute(
            f"SELECT t.answer, t.fits FROM reviews AS r, {call} AS t WHERE id < 3 ORDER BY id"
        ).fetchall()
        assert got == [("better text 1", False), ("better text 2", False)]
        assert len(other.received.prompts) == 2
        assert not any("Rhyme" in each for each in other.received.conversations)


def test_what_has_no_answer_is_not_judged(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.refuse_marked = {'Sum up review.\n{"review": "text 1"}': "bad", '"about text 2"': "bad"}
    got = conn.execute(f"SELECT id, t.* FROM reviews AS r, {CALL % ''} AS t WHERE id < 4 ORDER BY id").fetchall()
    assert got == [
        (1, None, None, None),
        (2, "about text 2", "about text 2", None),
        (3, "better text 3", "about text 3", False),
    ]
    engine.behaviour.refuse_marked = {}
    assert len([each for each in engine.received.prompts if each.startswith("Does")]) >= 2
    for arguments, message in (
        ("NULL, r, 'short'", "the prompt is NULL"),
        ("'Sum {review}', r, NULL", "the prompt is NULL"),
        ("'Sum {review}', r, '{x}'", 'column "x" does not exist'),
        ("'Sum {review}', r, 'b {'", "unbalanced"),
        ("'Sum {}', review, 'short'", "neither a row nor a JSON object"),
        ("'Sum {review}', r, 'short', judge => 'none'", 'server "none" does not exist'),
    ):
        with pytest.raises(psycopg.Error) as raised:
            conn.execute(f"SELECT t.answer FROM reviews AS r, llm.refine({arguments}) AS t WHERE id < 4".encode())
        assert message in str(raised.value), arguments


def test_a_prompt_without_a_column_sends_the_whole_row_again(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = lambda prompt: "no" if prompt.startswith("Does") else "an answer"
    conn.execute(
        "SELECT t.* FROM reviews AS r, llm.refine('Sum {{it}} up.', r, 'is true to {review}, {{short}}') AS t "
        "WHERE id = 1"
    )
    assert [_sorted(prompt) for prompt in engine.received.prompts] == [
        _sorted('Sum {it} up.\n{"id": 1, "review": "text 1"}'),
        _sorted('Does answer meet this: is true to review, {short}\n{"review": "text 1", "answer": "an answer"}'),
        _sorted(
            "Sum {it} up.\nThe answer answer does not meet this: is true to review, {short}\nGive a better one.\n"
            '{"id": 1, "review": "text 1", "answer": "an answer"}'
        ),
    ]

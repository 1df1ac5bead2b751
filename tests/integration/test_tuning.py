"""llm.evaluate and llm.tune: candidates compared where answers are known, which are never sent; on both hosts.

The engine's answers depend on the words of the prompt, so that there is someticket to be found: `tests/tickets.py`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, create_server
from tests.tickets import MONEY, OUTAGES, TABLE, TASK, answer, parts, student

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

ROWS = "SELECT ticket, urgent FROM tickets"
FIRST = "Is {ticket} urgent?"


def lessons(engine: EngineDouble) -> list[dict[str, Any]]:
    return [parts(prompt)[1] for prompt in engine.received.prompts if prompt.startswith(TASK)]


def questions(engine: EngineDouble) -> list[str]:
    return [prompt for prompt in engine.received.prompts if not prompt.startswith(TASK)]


@pytest.fixture
def conn(db: Conn, engine: EngineDouble) -> Conn:
    create_server(db, engine.url)
    db.execute(TABLE)
    engine.behaviour.answer = answer
    return db


@pytest.fixture
def dear(conn: Conn) -> Iterator[EngineDouble]:
    """Another engine, which says yes to everything and has prices."""
    with EngineDouble(answer=lambda prompt: "yes") as other:
        create_server(conn, other.url, "dear", price_prompt="2", price_completion="10")
        yield other


def test_candidates_are_compared(conn: Conn, engine: EngineDouble, dear: EngineDouble) -> None:
    candidates = {
        "plain": FIRST,
        "outages": {"prompt": f"{FIRST} {OUTAGES}", "max_tokens": 5},
        "both": {"prompt": f"{FIRST} {OUTAGES} {MONEY}"},
        "dear": {"prompt": FIRST, "server": "dear"},
    }
    got = conn.execute(
        'SELECT name, rows, agree, errors, accuracy, low, high, "precision", recall '
        "FROM llm.evaluate(%s, %s, truth => 'urgent')",
        (ROWS, json.dumps(candidates)),
    )
    about = partial(pytest.approx, abs=0.001)
    assert sorted(got.fetchall()) == [
        ("both", 120, 120, 0, 1.0, about(0.970), 1.0, 1.0, 1.0),
        ("dear", 120, 60, 0, 0.5, about(0.407), about(0.593), 0.5, 1.0),
        ("outages", 120, 90, 0, 0.75, about(0.663), about(0.824), 1.0, 0.5),
        ("plain", 120, 60, 0, 0.5, about(0.407), about(0.593), None, 0.0),
    ]
    assert len(engine.received.prompts) == 360
    assert len(dear.received.prompts) == 120
    # Which of them is the cheapest that is good enough is a query.
    cheapest = conn.execute(
        "SELECT name, cost, prompt_tokens * 2 / 1e6 + completion_tokens * 10 / 1e6, seconds > 0 "
        "FROM llm.evaluate(%s, %s, 'urgent', sample => 50) WHERE low >= 0.3 AND cost IS NOT NULL ORDER BY cost",
        (ROWS, json.dumps(candidates)),
    ).fetchall()
    assert cheapest == [("dear", pytest.approx(cheapest[0][2]), pytest.approx(cheapest[0][1]), True)]
    assert cheapest[0][1] > 0


def test_what_is_known_is_never_sent(conn: Conn, engine: EngineDouble) -> None:
    rows = "SELECT ticket, urgent, 'secret ' || urgent AS secret FROM tickets WHERE id <= 20"
    for prompt in ("What is it?", "Is {ticket} {urgent}?"):
        said = conn.execute("SELECT agree FROM llm.evaluate(%s, %s, 'secret')", (rows, json.dumps({"a": prompt})))
        assert said.fetchall() == [(0,)]
    assert len(engine.received.prompts) == 40
    assert not any("secret" in each for each in engine.received.conversations)
    conn.execute("SELECT * FROM llm.tune(%s, 'What is {ticket}?', 'secret', rounds => 2, examples => 0)", [rows])
    # It is told of mistakes to learn from, and of them alone.
    shown = {each["row"]["ticket"] for lesson in lessons(engine) for each in lesson["wrong"]}
    assert 1 <= len(shown) <= 10
    assert not any("secret" in each for each in questions(engine))
    asked = len(engine.received.prompts)
    for call in (
        f"llm.evaluate($q${rows}$q$, '{{\"a\": \"Is {{secret}} kind?\"}}', 'secret')",
        f"llm.tune($q${rows}$q$, 'Is {{secret}} kind?', 'secret')",
    ):
        with pytest.raises(psycopg.errors.UndefinedColumn, match='"secret" holds the known answers, which are not'):
            conn.execute(f"SELECT * FROM {call}".encode())
    assert len(engine.received.prompts) == asked


TUNE = (
    "SELECT candidate, round, parent, prompt, learning_rows, learning_accuracy, held_out_rows, accuracy, low, chance, "
    "chosen, error FROM llm.tune(%s, %s, truth => 'urgent', examples => 0)"
)


def test_a_better_prompt_is_found(conn: Conn, engine: EngineDouble) -> None:
    told = conn.execute("SELECT * FROM llm.tune_estimate(%s, %s, 'urgent', examples => 0)", (ROWS, FIRST)).fetchone()
    assert told is not None
    assert told[:5] == (120, 60, 60, 60 + 3 * 120 + 2 * 60, 12)
    assert engine.received.prompts == []
    got = conn.execute(TUNE, (ROWS, FIRST)).fetchall()
    first, chosen = got[0], next(row for row in got if row[10])
    assert first[:5] == (0, 0, None, FIRST, 60)
    assert first[6] == 60
    assert OUTAGES in chosen[3]
    assert MONEY in chosen[3]
    assert chosen[7] == 1.0 > first[7]
    assert chosen[8] > 0.9
    assert chosen[9] < 0.001
    # All others have not been asked about the rows that are held out.
    assert {row[6] for row in got} == {0, 60}
    assert [row[6] for row in got].count(60) == 2
    reasons = {row[11] for row in got}
    assert any("it must name the columns" in reason for reason in reasons if reason)
    assert any("unbalanced" in reason for reason in reasons if reason)
    assert any("it is the same as candidate" in reason for reason in reasons if reason)
    assert len(questions(engine)) <= told[3]
    assert len(lessons(engine)) <= told[4]
    ran = conn.execute("SELECT unique_prompts FROM llm.last_run()").fetchone()
    assert ran == (len(engine.received.prompts),)
    tokens = sum(map(len, engine.received.conversations)) / 4
    assert 0.3 * tokens < told[5] < 3 * tokens
    # It can be used straight.
    straight = conn.execute(
        "SELECT bool_and(urgent = llm.is_true((SELECT prompt FROM llm.tune(%s, %s, 'urgent', examples => 0) "
        "WHERE chosen), t)) FROM tickets AS t",
        (ROWS, FIRST),
    )
    assert straight.fetchone() == (True,)


def test_no_prompt_is_taken_that_is_not_shown_to_be_better(conn: Conn, engine: EngineDouble) -> None:
    said: list[str] = []

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        said.append(notice.message_primary or "")

    conn.add_notice_handler(hear)
    few = "SELECT ticket, urgent FROM tickets WHERE id <= 12"
    got = conn.execute(TUNE, (few, FIRST)).fetchall()
    assert [row[10] for row in got] == [True, *[False] * (len(got) - 1)]
    assert any("no prompt is shown to be better" in each for each in said)
    engine.behaviour.answer = lambda prompt: json.dumps({"prompt": 7, "mistake": "\0"})
    assert conn.execute(f"SELECT count(*) FROM ({TUNE}) AS t WHERE chosen", (ROWS, FIRST)).fetchone() == (1,)
    engine.behaviour.answer = answer
    engine.received.prompts.clear()
    query = "SELECT 'Thanks ' || i AS ticket, false AS urgent FROM generate_series(1, 12) AS i"
    (only,) = conn.execute(TUNE, (query, FIRST)).fetchall()  # nothing to learn from
    assert only[7:11] == (1.0, only[8], None, True)
    assert len(engine.received.prompts) == 12


def test_examples_are_a_candidate(conn: Conn, engine: EngineDouble) -> None:
    """An engine that knows only what it is shown: a ticket of a name that stands among the examples."""

    engine.behaviour.answer = student
    conn.execute("SELECT * FROM llm.tune(%s, %s, 'urgent', rounds => 1, proposals => 0)", (ROWS, FIRST))
    shown = {each.partition("Examples:")[2] for each in engine.received.conversations if "Examples:" in each}
    assert len(shown) > 50
    example = next(iter(shown)).split("\n")
    assert [line for line in example[1:] if line in ("yes", "no")].count("yes") == 2
    got = conn.execute(
        "SELECT system_prompt, prompt, learning_rows FROM llm.tune(%s, %s, 'urgent', rounds => 1, proposals => 0, "
        "examples => 2, system_prompt => 'Be brief.')",
        (ROWS, FIRST),
    ).fetchall()
    assert [row[1:] for row in got] == [(FIRST, 58)] * 2
    assert got[0][0] == "Be brief."
    assert got[1][0].startswith("Be brief.\n\nExamples:\n{")
    rows = [line for line in got[1][0].splitlines() if line.startswith("{")]
    assert len(rows) == 2
    # No row that is shown is asked about.
    assert not any(parts(prompt)[1] == json.loads(row) for row in rows for prompt in engine.received.prompts[-100:])
    default = conn.execute(
        "SELECT DISTINCT system_prompt IS NULL FROM llm.tune(%s, %s, 'urgent', examples => 0, proposals => 0)",
        (ROWS, FIRST),
    )
    assert default.fetchall() == [(True,)]


def test_rows_without_an_answer_are_wrong(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.reject_marker = '"How do I change my name? (2)"'
    call = "SELECT rows, agree, errors FROM llm.evaluate(%s, %s, 'urgent'%s)"
    arguments = (ROWS, json.dumps({"a": FIRST}))
    got = conn.execute(call.replace("%s)", ")"), arguments).fetchall()
    assert got == [(120, 59, 1)]
    assert conn.execute("SELECT count(*) > 0 FROM llm.last_errors()").fetchone() == (True,)
    with pytest.raises(psycopg.Error, match="could not answer one of the calls"):
        conn.execute(call.replace("%s)", ", on_error => 'fail')"), arguments)
    unknown = "SELECT ticket, CASE WHEN id <= 10 THEN urgent END AS urgent FROM tickets WHERE id < 20"
    known = conn.execute("SELECT rows FROM llm.evaluate(%s, %s, 'urgent')", (unknown, arguments[1]))
    assert known.fetchone() == (10,)


@pytest.mark.parametrize(
    ("truth", "said", "options", "agree"),
    [
        ("4.50::numeric", "4.5", "", True),
        ("4", "3", "", False),
        ("4", "3.2", ", within => 0.8", True),
        ("'Not  Sure'", " not sure", "", True),
        ("'no'", "No.", "", False),
        ("'Ja'", "ja", ", choices => '{ja,nein}'", True),
        ("ARRAY['b','a']", '["A", "b"]', "", True),
        ("'{\"a\": 1.0}'::jsonb", '{"a":1}', "", True),
        ("'{\"a\": 1.0}'::jsonb", "{", "", False),
        ("true", "yes", "", True),
        ("'NaN'::float8", "nan", "", True),
        ("date '2026-01-02'", "2026-01-02", "", True),
    ],
)
@pytest.mark.some(4)
@pytest.mark.parametrize("host", ["plpython"], indirect=True)
def test_when_an_answer_agrees(
    conn: Conn, engine: EngineDouble, truth: str, said: str, options: str, agree: bool
) -> None:
    engine.behaviour.answer = lambda prompt: said
    engine.behaviour.ignore_choices = "choices" not in options
    candidate = {"a": {"prompt": "{x}?", "type": "text"} if "{" in said or "[" in said else "{x}?"}
    got = conn.execute(
        f"SELECT agree FROM llm.evaluate(%s, %s, 'truth'{options})".encode(),
        (f"SELECT 1 AS x, {truth} AS truth", json.dumps(candidate)),
    )
    assert got.fetchone() == (int(agree),)


@pytest.mark.slow
def test_a_sample_is_the_same_rows(conn: Conn, engine: EngineDouble) -> None:
    call = "SELECT rows FROM llm.evaluate(%s, '{\"a\": \"{x}?\"}', 'y', sample => %s, seed => %s)"
    query = "SELECT i %% 40 AS x, 'b' AS y FROM generate_series(1, 400) AS i ORDER BY %s"
    sent = []
    for order, count, seed in (("i", 20, 1), ("-i", 20, 1), ("i", 10, 1), ("i", 20, 2)):
        engine.received.prompts.clear()
        assert conn.execute(call, (query % order, count, seed)).fetchone() == (count,)
        sent.append(set(engine.received.prompts))
    assert sent[0] == sent[1] >= sent[2]
    assert sent[3] != sent[0]
    assert len(sent[0]) > 10  # of equal rows there are several


def test_the_ledger_answers_the_second_time(conn: Conn, engine: EngineDouble) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent')")
    tune = "SELECT candidate, prompt, accuracy, chosen FROM llm.tune(%s, %s, 'urgent', sample => 40)"
    before = conn.execute(tune, (ROWS, FIRST)).fetchall()
    asked = len(engine.received.prompts)
    assert conn.execute(tune, (f"{ROWS} ORDER BY md5(ticket)", FIRST)).fetchall() == before
    assert len(engine.received.prompts) == asked
    evaluate = "SELECT agree, prompt_tokens, cost, seconds FROM llm.evaluate(%s, %s, 'urgent')"
    first, second = (conn.execute(evaluate, (ROWS, json.dumps({"a": FIRST}))).fetchone() for _ in range(2))
    assert first is not None
    assert first[1] > 0
    assert second == (first[0], None, None, None)


def test_a_budget_counts_all_of_it(conn: Conn, engine: EngineDouble) -> None:
    two = f'{{"a": "{FIRST}", "b": "{FIRST} Say."}}'
    for call in (
        f"llm.tune('{ROWS}', '{FIRST}', 'urgent', max_requests => 100%s)",
        f"llm.evaluate('{ROWS}', '{two}', 'urgent', max_requests => 150%s)",
    ):
        engine.received.prompts.clear()
        with pytest.raises(psycopg.Error, match="max_requests"):
            conn.execute(f"SELECT * FROM {call % ''}".encode())
        assert len(engine.received.prompts) <= 150
        conn.execute(f"SELECT * FROM {call % ', on_budget => $$null$$'}".encode())
    rows = conn.execute(f"SELECT rows, errors FROM {call % ', on_budget => $$null$$'}".encode()).fetchall()
    assert rows == [(120, 0), (30, 0)]


def test_errors_are_clear(conn: Conn, engine: EngineDouble) -> None:
    for arguments, message in (
        ("evaluate(NULL, '{\"a\": \"{ticket}\"}', 'urgent')", "query"),
        (f"evaluate('{ROWS}', NULL, 'urgent')", "NULL"),
        (f"evaluate('{ROWS}', '{{}}', 'urgent')", "candidates is no JSON object of candidates"),
        (f"evaluate('{ROWS}', '[1]', 'urgent')", "candidates is no JSON object of candidates"),
        (f"evaluate('{ROWS}', '{{\"a\": 1}}', 'urgent')", 'candidate "a": it has no prompt'),
        (f"evaluate('{ROWS}', '{{\"a\": \"{{\"}}', 'urgent')", 'candidate "a": unbalanced'),
        (f"evaluate('{ROWS}', '{{\"a\": \"{{x}}\"}}', 'urgent')", 'candidate "a": column "x" does not exist'),
        (f'evaluate(\'{ROWS}\', \'{{"a": {{"prompt": "b", "server": "none"}}}}\', \'urgent\')', 'server "none"'),
        (f'evaluate(\'{ROWS}\', \'{{"a": {{"prompt": "b", "lo": 1}}}}\', \'urgent\')', 'invalid option "lo"'),
        (f"evaluate('{ROWS}', '{{\"a\": \"b\"}}', NULL)", "truth is NULL"),
        (f"evaluate('{ROWS}', '{{\"a\": \"b\"}}', 'none')", 'column "none" does not exist'),
        ("evaluate('SELECT 1 AS a', '{\"a\": \"b\"}', 'a')", "no column but the one"),
        (f"evaluate('{ROWS}', '{{\"a\": \"b\"}}', 'urgent', within => -1)", "within"),
        (f"evaluate('{ROWS}', '{{\"a\": \"b\"}}', 'urgent', within => 'NaN')", "within"),
        (f"evaluate('{ROWS}', '{{\"a\": \"b\"}}', 'urgent', sample => 0)", "sample"),
        (f"tune('{ROWS}', NULL, 'urgent')", "the prompt is NULL"),
        (f"tune('{ROWS}', 'b {{', 'urgent')", "unbalanced"),
        (f"tune('{ROWS}', '{{x}}', 'urgent')", 'column "x" does not exist'),
        (f"tune('{ROWS}', '{{ticket}}', 'urgent', teacher => 'none')", 'server "none" does not exist'),
        (f"tune('{ROWS}', '{{ticket}}', 'urgent', rounds => 101)", "rounds"),
        (f"tune('{ROWS} LIMIT 9', '{{ticket}}', 'urgent')", "9 different rows"),
        ("tune('SELECT 1 AS a, 2 AS b FROM generate_series(1, 99)', '{a}', 'b')", "1 different rows"),
        ("tune_estimate('SELECT 1 AS a, 2 AS b WHERE false', '{a}', 'b')", "0 different rows"),
    ):
        with pytest.raises(psycopg.Error) as raised:
            conn.execute(f"SELECT * FROM llm.{arguments}".encode())
        assert message in str(raised.value), arguments
        assert not (raised.value.sqlstate or "XX").startswith("XX"), arguments
    assert engine.received.prompts == []
    nothing = conn.execute(
        "SELECT rows, accuracy, low FROM llm.evaluate('SELECT 1 AS a, NULL AS b', '{\"a\": \"{a}\"}', 'b')"
    )
    assert nothing.fetchall() == [(0, None, None)]


@pytest.mark.parametrize("host", ["plpython"], indirect=True)
def test_forged_calls_are_refused(conn: Conn, engine: EngineDouble) -> None:
    """Anybody may call what the functions call."""
    for columns, asked, options, message in (
        ("{{a},{b}}", "{a}", {"truth": "b"}, "do not fit"),
        ("{a,NULL}", "{a}", {"truth": "b"}, "do not fit"),
        ("{a,b}", "{a}", [], "not a JSON object"),
        ("{a,b}", "{a}", {"truth": 7}, "truth is no text"),
        ("{a,b}", "{a}", {"truth": ["a"]}, "truth is no text"),
        ("{a,b}", "{a}", {"truth": "b", "ordered": 999_999_999}, "ordered"),
        ("{a,b}", "{a}", {"truth": "b", "teacher": 7}, "teacher"),
        ("{a,b}", "{a}", {"truth": "b", "internal": True}, "internal"),
        ("{a,b}", None, {"truth": "b", "candidates": {"a": {"prompt": "{a}", "kind": "embedding"}}}, "kind"),
        ("{a,b}", None, {"truth": "b", "candidates": {"a": {"prompt": "{a}", "server": 7}}}, "server"),
        ("{a,b}", None, {"truth": "b", "candidates": {"a": "{b}"}}, "not sent"),
        ("{a,b}", "{a}", {"truth": "b", "seed": 1e300}, "seed"),
    ):
        with conn.transaction(force_rollback=True):
            conn.execute("DECLARE c CURSOR FOR SELECT row_to_json(t) FROM (SELECT 1 AS a, 'x' AS b) AS t")
            query = "SELECT fault FROM llm._try('c', %s, %s, %s)"
            (fault,) = conn.execute(query, (columns, asked, json.dumps(options))).fetchone() or ([],)
        assert message in fault[1], (options, fault)
        assert not fault[0].startswith("XX")
    assert engine.received.prompts == []


def test_hostile_names_and_values(conn: Conn, engine: EngineDouble) -> None:
    hostile = "'; DROP TABLE tickets; --"
    engine.behaviour.answer = lambda prompt: hostile
    query = """
        SELECT ticket, '";{}' AS "a{b", $$'; DROP TABLE tickets; --$$ AS "tr""u{t}h" FROM tickets WHERE id <= 12
    """
    candidates = {f'a"}}{hostile}': f"{{{{}}}} {{ticket}} {hostile}", "": "what?", "é": "{ticket}"}
    got = conn.execute("SELECT rows, agree FROM llm.evaluate(%s, %s, %s)", (query, json.dumps(candidates), 'tr"u{t}h'))
    assert got.fetchall() == [(12, 12)] * 3
    tuned = conn.execute("SELECT prompt FROM llm.tune(%s, 'Is {ticket} {{it}}?', %s) WHERE chosen", (query, 'tr"u{t}h'))
    assert tuned.fetchall() == [("Is {ticket} {{it}}?",)]
    assert conn.execute("SELECT count(*) FROM tickets").fetchone() == (120,)


def test_a_statement_that_waits_is_cancelled(conn: Conn, connect: Connect, engine: EngineDouble) -> None:
    engine.behaviour.hang_after = 2
    asking = connect()
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            asking.execute("SELECT * FROM llm.tune(%s, %s, 'urgent')", (ROWS, FIRST))
        except psycopg.Error as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not engine.behaviour.hang:
        time.sleep(0.01)
    asking.cancel()
    thread.join(60)
    assert isinstance(failed[0], psycopg.errors.QueryCanceled)
    engine.behaviour.hang = False
    assert asking.execute("SELECT count(*) FROM llm.tune(%s, %s, 'urgent') WHERE chosen", (ROWS, FIRST)).fetchone() == (
        1,
    )


def test_a_role_tunes_on_what_it_may_read(conn: Conn, connect: Connect, engine: EngineDouble) -> None:
    conn.execute(
        "DROP ROLE IF EXISTS stranger; CREATE ROLE stranger LOGIN; ALTER TABLE tickets ENABLE ROW LEVEL SECURITY"
    )
    evaluate = "SELECT rows FROM llm.evaluate(%s, '{\"a\": \"{ticket}?\"}', 'urgent')"
    tune = "SELECT rows FROM llm.tune_estimate(%s, '{ticket}?', 'urgent')"
    try:
        with connect(user="stranger") as other:
            for call in (evaluate, tune):
                for query, message in ((ROWS, "permission denied"), ("SELECT 1 AS ticket, true AS urgent", "server")):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=message):
                        other.execute(call, [query])
            conn.execute(
                "GRANT USAGE ON FOREIGN SERVER vllm TO stranger; GRANT SELECT ON tickets TO stranger; "
                "CREATE POLICY few ON tickets TO stranger USING (id <= 40)"
            )
            assert [other.execute(call, [ROWS]).fetchone() for call in (evaluate, tune)] == [(40,)] * 2
            assert not any("41" in prompt for prompt in engine.received.prompts)
    finally:
        conn.execute("DROP OWNED BY stranger; DROP ROLE stranger")

"""llm.map with several questions: one pass, each answer on its row and of its type, each token computed once."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble

Conn = psycopg.Connection[Any]
MULTICORN_IS_SLOW = True

ROWS, TEXTS = 60, 20
LONG = "It goes on and on, scene after scene, and never gets anywhere. " * 12


@pytest.fixture
def conn(used_conn: Conn, used_engine: EngineDouble) -> Conn:
    used_conn.execute("CREATE TEMP TABLE reviews (id int, film text, review text)")
    used_conn.execute(
        f"INSERT INTO reviews SELECT i, 'film ' || i %% 3, 'Review ' || i %% {TEXTS} || %s"
        f" FROM generate_series(1, {ROWS}) AS i",
        [LONG],
    )
    used_engine.reset()
    return used_conn


def rows_of(conn: Conn, query: str, *parameters: object) -> list[Any]:
    return conn.execute(query.encode(), parameters or None).fetchall()


def ask(conn: Conn, prompts: object, options: str = "", query: str = "SELECT * FROM reviews") -> dict[int, Any]:
    """What each row is answered, and why not, by its id."""
    call = f"SELECT input ->> 'id', outputs, errors FROM llm.map(%s, prompts => %s{options})"
    given = prompts if isinstance(prompts, str) else json.dumps(prompts)
    return {int(number): (outputs, errors) for number, outputs, errors in rows_of(conn, call, query, given)}


def fails(conn: Conn, prompts: object, options: str = "") -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        ask(conn, prompts, options)
    return caught.value


KINDS: dict[str, Any] = {
    "text": ("What is {review}?", "a\n\"b\" 'c' \\"),
    "yes": ({"prompt": "Is {review} kind?", "type": "boolean"}, True),
    "no": ({"prompt": "Is {review} short?", "type": "boolean"}, False),
    "label": ({"prompt": "Kind of {review}?", "choices": ["good", 'b,a"d']}, 'b,a"d'),
    "described": ({"prompt": "Mood of {review}?", "descriptions": {"up": "it is", "down": None}}, "down"),
    "labels": ({"prompt": "Topics of {review}?", "type": "text[]", "choices": ["z", "a", "c"]}, ["a", "z"]),
    "none": ({"prompt": "Themes of {review}?", "type": "text[]", "choices": ["z", "a"]}, []),
    "stars": ({"prompt": "Stars of {review}?", "low": 1, "high": 5}, 4),
    "number": ({"prompt": "Size of {review}?", "type": "number"}, -1.5),
    "zeros": ({"prompt": "Zeros of {review}?", "type": "integer"}, 7),
    "day": ({"prompt": "Day of {review}?", "type": "date"}, "2024-02-29"),
    "moment": ({"prompt": "Moment of {review}?", "type": "timestamptz"}, "2024-02-29T10:00:00Z"),
    "object": ({"prompt": "Parts of {review}?", "schema": {"type": "object", "required": ["a"]}}, {"a": [None, 1e3]}),
    "any": ({"prompt": "More of {review}?", "type": "json", "max_tokens": 512}, {}),
    'Größe "{x}"': ({"prompt": "Last of {{}} {review}?", "temperature": 0.5, "system_prompt": "Be brief."}, "ä"),
}
SAID = {"yes": "yes", "no": "no", "labels": '["z", "a", "z"]', "zeros": "007", "object": '{"a": [null, 1e3]}'}


def test_each_answer_is_of_its_type_on_its_row(conn: Conn, used_engine: EngineDouble) -> None:
    words = {
        (said if isinstance(said, str) else said["prompt"]).split()[0]: SAID.get(name, value)
        for name, (said, value) in KINDS.items()
    }
    used_engine.behaviour.answer = lambda prompt: next(
        value if isinstance(value, str) else json.dumps(value)
        for word, value in words.items()
        if f"\n{word} " in f"\n{prompt}"
    )
    words["Is"] = "no"
    prompts = {name: said for name, (said, _) in KINDS.items() if name != "yes"}
    expected = {name: value for name, (_, value) in KINDS.items() if name != "yes"}
    found = ask(conn, prompts)
    assert found == dict.fromkeys(range(1, ROWS + 1), (expected, None))
    words["Is"] = "yes"
    assert ask(conn, {"yes": KINDS["yes"][0]})[1] == ({"yes": True}, None)
    assert {body["max_tokens"] for body in used_engine.received.bodies} == {128, 512}
    record = "SELECT t.* FROM llm.map('SELECT * FROM reviews LIMIT 1', prompts => %s), jsonb_to_record(outputs) AS t"
    assert rows_of(conn, f'{record} (stars int, labels text[], day date, "object" jsonb)', json.dumps(prompts)) == [
        (4, ["a", "z"], date(2024, 2, 29), {"a": [None, 1000.0]})
    ]


def computed(engine: EngineDouble) -> int:
    return engine.engine.computed_tokens


@pytest.mark.parametrize("long_rows", [True, False])
def test_one_pass_computes_no_more_than_either_place(conn: Conn, used_engine: EngineDouble, long_rows: bool) -> None:
    """Long rows stand before short questions, and long questions before short rows: each is computed once."""
    of = "{review}" if long_rows else "{film} {id}"
    more = "" if long_rows else " Think of this, too: " + "whatever it may be, say it. " * 40
    prompts = {f"q{i}": f"Question {i} about {of}: what is it?{more}" for i in range(4)}
    for prompt in prompts.values():
        rows_of(conn, "SELECT count(output) FROM llm.map('SELECT * FROM reviews', %s)", prompt)
    separate = computed(used_engine)
    alone = used_engine.received.prompts
    used_engine.reset()
    foretold = "SELECT rows, unique_prompts, prompt_tokens - cached_tokens FROM llm.estimate(%s, prompts => %s)"
    ((rows, questions, tokens),) = rows_of(conn, foretold, "SELECT * FROM reviews", json.dumps(prompts))
    assert used_engine.received.prompts == []
    found = ask(conn, prompts)
    together = computed(used_engine)
    print(f"computed tokens: separate {separate}, in one pass {together}")  # for who measures
    assert (rows, questions, tokens) == (ROWS, len(alone), pytest.approx(together, rel=0.1))
    assert len(used_engine.received.prompts) == len(set(used_engine.received.prompts)) == len(alone)
    assert {tuple(outputs) for outputs, _ in found.values()} == {tuple(sorted(prompts))}
    assert together <= (separate * 0.4 if long_rows else separate)
    begins = used_engine.received.prompts[0]
    assert begins.startswith("{") if long_rows else begins.startswith("Question")


def test_what_fails_is_told_by_row_and_question(conn: Conn, used_engine: EngineDouble) -> None:
    prompts = {"kind": "What is {review}?", "stars": {"prompt": "How good is {review}?", "low": 1, "high": 5}}
    used_engine.behaviour.answer = lambda prompt: "3" if "How" in prompt else "fine"
    used_engine.behaviour.refuse_marked = {"Review 7It": "too odd"}
    odd = [number for number in range(1, ROWS + 1) if number % TEXTS == 7]
    used_engine.behaviour.ignore_choices = True
    found = ask(conn, prompts, ", on_error => 'null'")
    reasons = {"kind": "too odd", "stars": "too odd"}
    nothing = {"kind": None, "stars": None}
    assert {n: told for n, told in found.items() if n in odd} == dict.fromkeys(odd, (nothing, reasons))
    assert {n for n, told in found.items() if told == ({"kind": "fine", "stars": 3}, None)} == set(found) - set(odd)
    error = fails(conn, prompts)
    assert error.sqlstate == "22000"
    assert str(error.diag.message_primary) in {
        f'the engine could not answer "{name}" about row {odd[0]}' for name in prompts
    }
    assert fails(conn, prompts, ", dedup => false").sqlstate == "22000"
    used_engine.behaviour.refuse_marked = {}
    used_engine.behaviour.answer = lambda prompt: "6" if "How" in prompt else "fine"
    one_of_two = {**prompts, "stars": {**prompts["stars"], "on_error": "null"}}  # type: ignore[dict-item]
    found = ask(conn, one_of_two)
    assert {str(told) for told in found.values()} == {
        str(({"kind": "fine", "stars": None}, {"stars": "the engine's answer is not of the form that was asked for"}))
    }
    told = rows_of(conn, "SELECT count(*), count(row_id) FROM llm.last_errors()")
    assert told[0][0] - 1 == told[0][1] > 0  # without deduplication nobody knows which row it was


def test_equal_questions_and_rows_are_asked_once_and_rows_may_be_few(conn: Conn, used_engine: EngineDouble) -> None:
    prompts = {"a": "What is {film}?", "b": "What is {film}?", "c": "Which is {film}?"}
    found = ask(conn, prompts)
    assert all(outputs["a"] == outputs["b"] != outputs["c"] for outputs, _ in found.values())
    assert len(used_engine.received.prompts) == 6
    assert rows_of(conn, "SELECT rows, unique_prompts FROM llm.last_run()") == [(ROWS, 6)]
    assert ask(conn, prompts, query="SELECT * FROM reviews WHERE false") == {}
    used_engine.reset()
    few = "SELECT (llm.map('SELECT i FROM generate_series(1, 5000) AS i', prompts => %s)).outputs LIMIT 3"
    assert len(rows_of(conn, few, '{"a": "{i}?", "b": "{i}!"}')) == 3
    assert len(used_engine.received.prompts) <= 200


@pytest.mark.parametrize(
    ("prompts", "state", "words"),
    [
        ("[]", "22023", "prompts"),
        ("{}", "22023", "prompts"),
        ('"a"', "22023", "prompts"),
        ("null", "22023", "prompts"),
        ('{"a": 1}', "22023", 'question "a"'),
        ('{"a": {"type": "text"}}', "22023", 'question "a"'),
        ('{"a": {"prompt": "?", "server": "other"}}', "22023", 'option "server"'),
        ('{"a": {"prompt": "?", "kind": "embedding"}}', "22023", 'option "kind"'),
        ('{"a": {"prompt": "?", "type": "bool"}}', "22023", 'option "type"'),
        ('{"a": {"prompt": "?", "type": ["text"]}}', "22023", 'option "type"'),
        ('{"a": {"prompt": "?", "type": "boolean", "choices": ["x"]}}', "22023", 'option "choices"'),
        ('{"a": {"prompt": "?", "low": 5, "high": 1}}', "22023", "from 5 to 1"),
        ('{"a": {"prompt": "?", "choices": ["x", "X"]}}', "22023", 'question "a"'),
        ('{"a": {"prompt": "?", "max_tokens": 0}}', "22023", "max_tokens"),
        ('{"a": "fine?", "b": "{nope}?"}', "42703", 'question "b"'),
        ('{"a": "{?"}', "22023", 'question "a"'),
    ],
)
def test_what_is_no_question_is_named(
    conn: Conn, used_engine: EngineDouble, prompts: str, state: str, words: str
) -> None:
    error = fails(conn, prompts)
    assert (error.sqlstate, words in str(error)) == (state, True)
    assert used_engine.received.requests == []


def test_a_literal_is_one_prompt_and_null_is_none(conn: Conn) -> None:
    (row,) = rows_of(conn, "SELECT * FROM llm.map('SELECT 1 AS a', '{a}?')")
    assert row[2].startswith("answer")
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        rows_of(conn, "SELECT * FROM llm.map('SELECT 1 AS a', prompts => NULL)")
    assert caught.value.sqlstate == "22004"


def test_a_budget_counts_all_questions(conn: Conn, used_engine: EngineDouble) -> None:
    prompts = {"a": "What is {review}?", "b": {"prompt": "Which is {review}?", "max_tokens": 9, "type": "boolean"}}
    found = ask(conn, prompts, ", max_requests => 10, on_budget => 'null'")
    assert len(used_engine.received.prompts) <= 10
    assert all(
        (errors or {}).keys() == {name for name in outputs if outputs[name] is None}
        for outputs, errors in found.values()
    )
    used_engine.reset()
    error = fails(conn, prompts, ", max_requests => 39")
    assert (error.sqlstate, used_engine.received.prompts) == ("53400", [])
    assert len(ask(conn, prompts, ", max_requests => 40")) == ROWS
    conn.execute("ALTER SERVER vllm OPTIONS (ADD max_requests '10')")
    try:
        used_engine.reset()
        assert fails(conn, prompts).sqlstate == "53400"
        assert len(used_engine.received.prompts) <= 10
    finally:
        conn.execute("ALTER SERVER vllm OPTIONS (DROP max_requests)")

"""A real vLLM whose template thinks: the model in the box, with two of its tokens made the tags of thoughts.

It was not trained to reason, and never ends a thought: vLLM ends it, at the budget. What it answers then is not judged.
Told not to reason it is sent what it was trained on, and is right.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psycopg
import pytest

from pg_bridge.engine.template import read_end
from pg_bridge.engine.thoughts import ends_within_thoughts
from pg_bridge.serving.demo import EXACT, find_model
from pg_bridge.serving.launch import VllmEngine
from tests.conftest import Connect, create_server
from tests.integration.test_demo_model import FELT, LEAST, ROWS, SEED, film_review

MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

# An engine of its own: what the doubles say of such engines is quicker, and stands in test_engine_reasoning.py.
pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1200)]

THINKS = "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
ON_AND_ON = '{"logit_bias": {"1": -100}}'  # no end of its own, which it would come to at once
TAGS = ("<think>", "</think>")


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    folder = tmp_path_factory.mktemp("thinking")
    make_it_think(find_model(), folder)
    extra = [*EXACT, "--reasoning-parser", "qwen3"]
    with VllmEngine(folder, served_name="thinking", extra=extra) as engine:
        yield engine


def make_it_think(model: Path, folder: Path) -> None:
    """A copy of a model whose template thinks: its two latest words become the tags, and are no words any more."""
    for path in model.iterdir():
        (folder / path.name).symlink_to(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    for tag, word in zip(TAGS, sorted(vocabulary, key=vocabulary.__getitem__)[-2:], strict=True):
        number = vocabulary.pop(word)
        tokenizer["model"]["merges"] = [each for each in tokenizer["model"]["merges"] if "".join(each) != word]
        vocabulary[tag] = number
        tokenizer["added_tokens"].append({**tokenizer["added_tokens"][-1], "id": number, "content": tag})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((model / "tokenizer_config.json").read_text())
    plain = config["chat_template"]
    config["chat_template"] = plain.removesuffix("{% endif %}") + THINKS + "{% endif %}"
    assert config["chat_template"].count("<|assistant|>") == 1
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture
def conn(db: Conn, thinking: VllmEngine) -> Conn:
    create_server(db, thinking.endpoint, model=thinking.model)
    db.execute("CREATE TABLE films (id int, film text, critic text, year int, review text, felt text)")
    rng = random.Random(SEED)
    with db.cursor() as cursor:
        for i in range(ROWS):
            row, felt = film_review(rng)
            cursor.execute("INSERT INTO films VALUES (%s, %s, %s, %s, %s, %s)", [i, *row.values(), felt])
    return db


def test_it_answers_yes_or_no_unasked(conn: Conn) -> None:
    rows = conn.execute("SELECT llm.is_true('Is {review} good?', f) FROM films AS f").fetchall()
    assert {row[0] for row in rows} <= {True, False}
    assert len(rows) == ROWS


def test_it_is_as_right_as_one_that_does_not_think(conn: Conn) -> None:
    question = "What is the sentiment of review?"
    row = "(SELECT r FROM (SELECT film, critic, year, review) AS r)"
    call = f"llm.classify('{question}', {row}, '{{{','.join(FELT)}}}')"
    rows = conn.execute(f"SELECT felt, {call} FROM films".encode()).fetchall()
    assert sum(felt == said for felt, said in rows) / ROWS >= LEAST


def test_left_to_itself_it_thinks_and_says_so(conn: Conn) -> None:
    rows = conn.execute(
        "SELECT output, error FROM llm.map('SELECT review FROM films WHERE id < 5', 'Tell of {review}.',"
        " reasoning => 'model', max_reasoning_tokens => 20, max_tokens => 10, on_error => 'null',"
        " request_options => jsonb_build_object('thinking_token_budget', NULL) || %s)",
        [ON_AND_ON],
    ).fetchall()
    assert {(output, "still reasoned" in error) for output, error in rows} == {(None, True)}


def test_thoughts_end_at_their_budget_and_an_answer_follows(conn: Conn) -> None:
    more = "max_reasoning_tokens => 12, request_options => %s"
    for call, values in (
        (f"llm.is_true('Is it good?', f, reasoning => 'low', {more})", {True, False}),
        (f"llm.classify('Is it?', f, '{{{','.join(FELT)}}}', reasoning => 'high', {more})", set(FELT)),
    ):
        rows = conn.execute(f"SELECT {call} FROM films AS f WHERE id < 5".encode(), [ON_AND_ON]).fetchall()
        assert len(rows) == 5
        assert {row[0] for row in rows} <= values
    alone = f"SELECT llm.is_true('Is it bad?', f, reasoning => 'low', {more}) FROM films AS f LIMIT 1"
    conn.execute(alone.encode(), [ON_AND_ON])
    told = conn.execute("SELECT reasoning_tokens, completion_tokens FROM llm.last_run()").fetchone()
    assert told is not None
    assert 0 < told[0] < told[1]


def test_the_template_tells_whether_it_opens_thoughts(thinking: VllmEngine) -> None:
    for kwargs, opens in ({}, True), ({"enable_thinking": False}, False):
        body = {
            "model": thinking.model,
            "messages": [{"role": "user", "content": "?"}],
            "add_generation_prompt": True,
            "return_token_strs": True,
            "chat_template_kwargs": kwargs,
        }
        request = Request(  # noqa: S310 - our own engine
            f"{thinking.endpoint}/tokenize", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urlopen(request) as page:  # noqa: S310 - as above
            end = read_end(page.read())
        assert end is not None
        assert ends_within_thoughts(end) is opens


def test_each_role_has_its_own_part_of_the_prefix_cache(conn: Conn, connect: Connect) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (ADD cache_salt 'role')")
    conn.execute("CREATE ROLE other LOGIN; GRANT USAGE ON FOREIGN SERVER vllm TO other")
    question = "SELECT llm.complete('Of roles and caches: ' || repeat('tea ', 200), max_tokens => 2, cache => 'off')"
    cached = []
    try:
        with connect(user="other") as other:
            for session in (conn, conn, other, other):
                session.execute(question.encode())
                cached += [bool(session.execute("SELECT cached_tokens FROM llm.last_run()").fetchone()[0])]  # type: ignore[index]
    finally:
        conn.execute("DROP OWNED BY other; DROP ROLE other")
    assert cached == [False, True, False, True]


def test_a_seed_makes_chance_repeat_itself(conn: Conn) -> None:
    def ask(seed: int) -> str:
        row = conn.execute(
            "SELECT llm.complete('Say something.', temperature => 2, max_tokens => 20, cache => 'off',"
            " request_options => jsonb_build_object('seed', %s::int))",
            [seed],
        ).fetchone()
        assert row is not None
        return str(row[0])

    assert ask(1) == ask(1)
    assert len({ask(seed) for seed in range(5)}) > 1

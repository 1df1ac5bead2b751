"""Conditions over two rows, asked about in lists: the join is the same, and the engine is asked a fraction as often."""

from __future__ import annotations

import json
import re
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.behaviour import choose
from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database, create_server
from tests.integration.test_faults import once
from tests.integration.test_map import Role

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

JOIN = (
    "SELECT r.id, p.id FROM reviews AS r JOIN products AS p "
    "ON llm.is_true('Does {review} concern {name}?', llm.row(r, p), pairs => '%s'%s) ORDER BY 1, 2"
)
TRUTH = "SELECT r.id, p.id FROM reviews AS r JOIN products AS p ON strpos(r.review, p.name) > 0 ORDER BY 1, 2"
UNSURE = '{"yes": [99]}'
CANDIDATE = re.compile(r"^([0-9]+)\. (\{.*\})$", re.M)


@pytest.fixture
def host() -> str:
    """What is batched is of the PL/Python host."""
    return "plpython"


@pytest.fixture
def shop(batching: Database, db: Conn, engine: EngineDouble) -> Conn:
    db.execute(
        """
        CREATE TABLE reviews (id int, review text);
        INSERT INTO reviews SELECT i, 'A review of thing ' || i % 7 || CASE WHEN i % 2 = 0 THEN '' ELSE ', {braces}' END
        FROM generate_series(1, 30) AS i;
        INSERT INTO reviews VALUES (31, NULL), (32, 'A review of thing 3');
        CREATE TABLE products (id int, review int, name text);
        INSERT INTO products SELECT i, 0, 'thing ' || i FROM generate_series(0, 9) AS i;
        INSERT INTO products VALUES (10, 0, NULL), (11, 0, '"th{ing"'), (12, 0, 'thing 3');
        ALTER TABLE products RENAME review TO seen;
        """
    )
    create_server(db, engine.url)
    engine.behaviour.answer = answer
    return db


def concerns(row: dict[str, Any]) -> bool:
    return bool(row["review"] and row["name"] and row["name"] in row["review"])


def answer(prompt: str) -> str:
    """What is asked of one pair, or of a list, as a model would that makes no mistake."""
    question, _, row = prompt.partition("\n\n")[0].rpartition("\n")  # without what is said when it is asked once more
    if not row.startswith("{"):
        return "free"
    candidates = [(int(number), json.loads(found)) for number, found in CANDIDATE.findall(question)]
    of_row = json.loads(row)
    if not candidates:
        return "yes" if concerns(of_row) else "no"
    if "rows" not in of_row:
        return json.dumps({"yes": [n for n, each in candidates if concerns(of_row | each)]})
    asked = [(int(number), n, one | each) for number, one in of_row["rows"].items() for n, each in candidates]
    return json.dumps({"yes": [[number, n] for number, n, pair in asked if concerns(pair)]})


def test_the_join_is_the_same_and_few_questions(shop: Conn, engine: EngineDouble) -> None:
    one_by_one = shop.execute((JOIN % ("each", "")).encode()).fetchall()
    assert one_by_one == shop.execute(TRUTH.encode()).fetchall()
    reviews, names = 15, 12  # different ones
    assert len(engine.received.prompts) == reviews * names
    engine.reset()
    engine.behaviour.answer = answer
    assert shop.execute((JOIN % ("listed", "")).encode()).fetchall() == one_by_one
    assert len(engine.received.prompts) == reviews
    heads = {prompt.rsplit("\n", 1)[0] for prompt in engine.received.prompts}
    assert len(heads) == 1  # the list is in front, once


@pytest.mark.parametrize("way", ["blocks", "auto"])
def test_blocks_are_a_fraction_of_lists(shop: Conn, engine: EngineDouble, way: str) -> None:
    assert shop.execute((JOIN % (way, "")).encode()).fetchall() == shop.execute(TRUTH.encode()).fetchall()
    assert len(engine.received.prompts) == 1


def explained(shop: Conn, query: str, options: str = "ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF") -> str:
    return "\n".join(row[0] for row in shop.execute(f"EXPLAIN ({options}) {query}".encode()))


def test_explain_analyze_and_the_last_run_say_how_pairs_were_asked(shop: Conn) -> None:
    shown = explained(shop, JOIN % ("listed", ""))
    assert "Rows Asked: 416\n" in shown
    assert "Unique Prompts: 15\n" in shown
    assert "Pairs Asked In: 15 lists\n" in shown
    assert "Pairs Asked In: 1 block\n" in explained(shop, JOIN % ("auto", ""))
    pairs = shop.execute("SELECT pairs FROM llm.last_run()").fetchone()
    assert pairs == ({"blocks": 1, "lists": 0, "alone": 0, "repairs": 0, "inferred": 0},)
    assert "Pairs Asked In" not in explained(shop, JOIN % ("each", ""))
    assert shop.execute("SELECT pairs FROM llm.last_run()").fetchone() == (None,)


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("each", []),
        ("listed", ["Lists: about 31, of"]),
        ("blocks", ["Blocks: about 2, of"]),
        ("auto", ["Lists: about 31, of", "Blocks: about 2, of"]),
    ],
)
def test_explain_foretells_each_way_that_there_is_and_asks_nobody(
    shop: Conn, engine: EngineDouble, way: str, told: list[str]
) -> None:
    shop.execute("UPDATE reviews SET review = review || id; ANALYZE reviews; ANALYZE products")
    shown = explained(shop, JOIN % (way, ""), "COSTS")
    assert f"pairs => '{way}'::text" in shown or way == "each"
    assert re.findall(r"Estimated Questions in (\w+: about [0-9]+, of)", shown) == told
    assert "Estimated Questions: 416 at most" in shown
    assert engine.received.prompts == []


def test_what_a_block_does_not_answer_is_asked_in_lists_and_then_pair_by_pair(shop: Conn, engine: EngineDouble) -> None:
    def unsure(prompt: str) -> str:
        if '"rows"' in prompt:
            return '{"yes": [[1, 2]]}'
        return UNSURE if CANDIDATE.search(prompt) and '"A review of thing 4' in prompt else answer(prompt)

    engine.behaviour.answer = unsure
    shown = explained(shop, JOIN % ("blocks", ""))
    assert "Rows Asked: 416\n" in shown
    assert "Pairs Asked In: 1 block, 15 lists, 24 pairs alone, 24 of them as repairs\n" in shown
    assert shop.execute((JOIN % ("blocks", "")).encode()).fetchall() == shop.execute(TRUTH.encode()).fetchall()


def test_an_answer_that_is_cut_off_is_asked_for_in_halves(shop: Conn, engine: EngineDouble) -> None:
    def all_of_them(prompt: str) -> str:
        rows = re.findall(r'"([0-9]+)": \{"review', prompt)
        return json.dumps({"yes": [[int(row), int(n)] for row in rows for n, _ in CANDIDATE.findall(prompt)]})

    engine.behaviour.answer = all_of_them
    query = JOIN % ("blocks", ", context_tokens => 1000")
    assert "Pairs Asked In: 3 blocks\n" in explained(shop, query)  # of which the first was cut off
    assert len(shop.execute(query.encode()).fetchall()) == 416


def test_what_overflows_the_context_is_asked_in_halves(shop: Conn, engine: EngineDouble) -> None:
    engine.behaviour.max_prompt_chars = 1000
    shown = explained(shop, JOIN % ("blocks", ""))
    assert re.search(r"Pairs Asked In: [0-9]+ blocks\n", shown)
    assert shop.execute((JOIN % ("blocks", "")).encode()).fetchall() == shop.execute(TRUTH.encode()).fetchall()


def test_what_a_list_does_not_answer_is_asked_pair_by_pair(shop: Conn, engine: EngineDouble) -> None:
    def unsure(prompt: str) -> str:
        return UNSURE if CANDIDATE.search(prompt) and '"A review of thing 4' in prompt else answer(prompt)

    engine.behaviour.answer = unsure
    assert shop.execute((JOIN % ("listed", "")).encode()).fetchall() == shop.execute(TRUTH.encode()).fetchall()
    assert len(engine.received.prompts) == 15 + 2 + 2 * 12  # the two are asked once more first, in words


def test_an_engine_that_refuses_lists_is_asked_pair_by_pair(shop: Conn, engine: EngineDouble) -> None:
    engine.behaviour.refuse_marked = {"Answer for each candidate": "this is too long"}
    assert shop.execute((JOIN % ("listed", "")).encode()).fetchall() == shop.execute(TRUTH.encode()).fetchall()


def test_pairs_that_are_to_be_asked_each_are(shop: Conn, engine: EngineDouble) -> None:
    found = shop.execute((JOIN % ("listed", ", dedup => false")).encode()).fetchall()
    assert found == shop.execute(TRUTH.encode()).fetchall()
    assert len(engine.received.prompts) == 416


def test_few_pairs_of_many_are_no_list(shop: Conn, engine: EngineDouble) -> None:
    """Other conditions go first: what is left is asked about, and no more."""
    query = (
        "SELECT count(*) FROM reviews AS r JOIN products AS p ON r.id = p.id "
        "AND llm.is_true('Does {review} concern {name}?', llm.row(r, p), pairs => 'listed')"
    )
    assert shop.execute(query.encode()).fetchone() is not None
    assert all(not CANDIDATE.search(prompt) for prompt in engine.received.prompts)
    assert len(engine.received.prompts) == 12


def test_a_limit_holds_for_lists_and_pairs_together(shop: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = lambda prompt: UNSURE if CANDIDATE.search(prompt) else choose(prompt, ["yes", "no"])
    with pytest.raises(psycopg.Error, match="max_requests = 20"):
        shop.execute((JOIN % ("listed", ", max_requests => 20")).encode())
    assert len([prompt for prompt in engine.received.prompts if "nothing but" not in prompt]) <= 20


def test_an_unknown_way_is_refused(shop: Conn) -> None:
    with pytest.raises(psycopg.Error, match='invalid value for option "pairs"'):
        shop.execute((JOIN % ("hashed", "")).encode())


@pytest.mark.parametrize(("way", "names", "most"), [("each", 6, 1.2), ("listed", 80, 1.7), ("blocks", 80, 1.7)])
def test_the_beginning_of_an_outer_row_is_computed_once(
    shop: Conn, engine: EngineDouble, way: str, names: int, most: float
) -> None:
    """Of each pair, and beside each of two lists, which rows that are longer than them stand in front of."""
    shop.execute(
        "TRUNCATE reviews, products;"
        "INSERT INTO reviews SELECT i, i || repeat(' said of thing ' || i, 220) FROM generate_series(1, 20) AS i;"
        f"INSERT INTO products SELECT i, 0, 'thing ' || i FROM generate_series(1, {names}) AS i"
    )
    engine.behaviour.answer = lambda prompt: "no" if "candidate" not in prompt else '{"yes": []}'
    shop.execute((JOIN % (way, "")).encode())
    rows = sum(len(review) for (review,) in shop.execute("SELECT review FROM reviews")) / 4
    (computed,) = shop.execute("SELECT prompt_tokens - cached_tokens FROM llm.last_run()").fetchone() or (0,)
    assert rows < computed < most * rows
    assert len(engine.received.prompts) == (20 * names if way == "each" else 40)


def test_rows_that_a_role_may_not_see_are_in_no_question(shop: Conn, engine: EngineDouble, connect: Connect) -> None:
    seen: list[str] = []
    with Role(shop, "shopper"):
        shop.execute(
            "CREATE FUNCTION leak(text) RETURNS bool LANGUAGE plpgsql STABLE COST 0.0001 AS"
            " $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$;"
            "ALTER TABLE products ENABLE ROW LEVEL SECURITY;"
            "CREATE POLICY own ON products TO shopper USING (name LIKE '%ing 4');"
            "GRANT SELECT ON reviews, products TO shopper; GRANT USAGE ON FOREIGN SERVER vllm TO shopper"
        )
        shopper = connect(user="shopper")
        shopper.add_notice_handler(lambda told: seen.append(told.message_primary or ""))
        query = (JOIN % ("blocks", "")).replace(" ORDER", " AND leak(p.name) WHERE leak(p.name) ORDER")
        assert {pair[1] for pair in shopper.execute(query.encode())} == {4}
        shopper.close()
    assert set(seen) == {"thing 4"}
    asked = {name for prompt in engine.received.prompts for name in re.findall('"name": "(.*?)"', prompt)}
    assert asked == {"thing 4"}


def test_a_join_that_is_cancelled_while_it_repairs_leaves_a_session_that_works(
    shop: Conn, engine: EngineDouble, connect: Connect
) -> None:
    def unsure(prompt: str) -> str:
        if CANDIDATE.search(prompt):
            return UNSURE
        engine.behaviour.hang = True
        return answer(prompt)

    engine.behaviour.answer = unsure
    session = connect()
    with once(lambda: engine.behaviour.hang, session.cancel), pytest.raises(psycopg.errors.QueryCanceled):
        session.execute((JOIN % ("blocks", "")).encode())
    engine.behaviour.hang = False
    engine.behaviour.answer = answer
    assert session.execute((JOIN % ("blocks", "")).encode()).fetchall() == shop.execute(TRUTH.encode()).fetchall()

"""Conditions over the nearest pairs only: what is pruned is no, and a sample tells how many true pairs that loses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database, create_server
from tests.integration.test_faults import once
from tests.integration.test_joins import TRUTH, answer, explained
from tests.integration.test_map import Role

KEEP_DATABASE = True

Conn = psycopg.Connection[Any]

NAMES = 30
JOIN = (
    "SELECT r.id, p.id FROM reviews AS r JOIN products AS p "
    "ON llm.is_true('Does {review} concern {name}?', llm.row(r, p), nearest => %s%s) ORDER BY 1, 2"
)


@pytest.fixture
def host() -> str:
    """What is batched is of the PL/Python host."""
    return "plpython"


@pytest.fixture
def shop(batching: Database, db: Conn, engine: EngineDouble) -> Conn:
    """Twenty reviews of thirty things, each of one; two more are of none."""
    db.execute(
        f"""
        CREATE TABLE reviews (id int, review text);
        INSERT INTO reviews SELECT i, i || '. review of thing ' || chr(64 + i) FROM generate_series(1, 20) AS i;
        INSERT INTO reviews VALUES (21, 'Nothing.'), (22, 'Nothing.');
        CREATE TABLE products (id int, name text);
        INSERT INTO products SELECT i, 'thing ' || chr(64 + i) FROM generate_series(1, {NAMES}) AS i;
        """
    )
    create_server(db, engine.url)
    engine.behaviour.answer = answer
    engine.behaviour.embedding = embedding
    return db


def embedding(text: str) -> list[float]:
    """What is of the same thing has the same direction; what is of none is nearest to the first."""
    found = [0.01] * NAMES
    found[ord(text[-1]) - 65 if "thing " in text else 0] = 1.0
    return found


def told_of(conn: Conn) -> dict[str, Any]:
    (told,) = conn.execute("SELECT coalesce(pairs, '{}') FROM llm.last_run()").fetchone() or ({},)
    return dict(told)


def questions(engine: EngineDouble) -> list[str]:
    return [prompt for prompt in engine.received.prompts if "concern" in prompt]


@pytest.mark.some(3)
@pytest.mark.parametrize(
    ("way", "checked", "asked"),
    [("each", 0, 21 * 3), ("each", 50, 21 * 3 + 50), ("listed", 0, 21), ("blocks", 10, None), ("auto", 0, None)],
)
def test_the_join_is_the_same_where_the_nearest_are_the_right_ones(
    shop: Conn, engine: EngineDouble, way: str, checked: int, asked: int | None
) -> None:
    query = JOIN % (3, f", pairs => '{way}', checked => {checked}")
    assert shop.execute(query.encode()).fetchall() == shop.execute(TRUTH.encode()).fetchall()
    assert asked is None or len(questions(engine)) == asked
    assert len(questions(engine)) <= 21 * 3 + checked
    told = told_of(shop)
    assert (told["pruned"], told["sampled"], told["sampled_yes"]) == (21 * (NAMES - 3), checked, 0)
    if not checked:
        assert told["lost_at_most"] is None
    elif checked == 50:
        assert 20 < told["lost_at_most"] < 40


def test_what_is_lost_is_told_and_what_the_sample_finds_is_answered_so(shop: Conn, engine: EngineDouble) -> None:
    engine.behaviour.embedding = lambda text: [1.0, len(text)]  # of no use
    truth = shop.execute(TRUTH.encode()).fetchall()
    found = shop.execute((JOIN % (2, ", checked => 400")).encode()).fetchall()
    told = told_of(shop)
    assert set(found) < set(truth)
    assert told["sampled_yes"] > 0
    assert (
        len(truth) - len(found) <= told["lost_at_most"]
    )  # but for the one in twenty that the sample might not have told
    assert told["recall_at_least"] <= len(found) / len(truth)
    assert shop.execute((JOIN % (2, ", checked => 10000")).encode()).fetchall() == truth
    told = told_of(shop)
    assert (told["lost_at_most"], told["recall_at_least"], told["sampled"]) == (0, 1, told["pruned"])


def test_explain_tells_what_would_be_asked_and_what_was_lost(shop: Conn, engine: EngineDouble) -> None:
    shop.execute("ANALYZE reviews, products")
    shown = explained(shop, JOIN % (3, ", checked => 40, pairs => 'auto'"), "COSTS")
    assert re.search(r"Estimated Questions about the Nearest: about 103, of [0-9]+ prompt tokens\n", shown)
    assert re.search(r"Estimated Questions in Lists: about 61, of [0-9]+ prompt tokens\n", shown)
    assert re.search(r"Estimated Questions in Blocks: about [0-9]+, of [0-9]+ prompt tokens\n", shown)
    assert re.search(r"Estimated Embeddings: about 51, of [0-9]+ prompt tokens\n", shown)
    assert engine.received.prompts == []
    shown = explained(shop, JOIN % (3, ", checked => 40"))
    pruned = (
        r"567, of a sample of 40 0 were yes; 95 % sure: at most (\d+) are lost \(\d+\.\d %\), recall at least 0\.\d\d"
    )
    assert re.search(rf"Pairs Pruned: {pruned}\n", shown)
    assert "Pairs Asked In: 63 pairs alone\n" in shown
    assert "567, none of them checked" in explained(shop, JOIN % (3, ", checked => 0"))
    assert "Pairs Pruned" not in explained(shop, JOIN % (NAMES, ""))


def test_embeddings_are_those_of_llm_embed_each_once_and_kept(shop: Conn, engine: EngineDouble) -> None:
    shop.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent')")
    shop.execute("SELECT llm.embed(review) FROM reviews; SELECT llm.embed(name) FROM products")
    embedded = len(engine.received.prompts)
    assert embedded == 21 + NAMES
    shop.execute((JOIN % (3, ", checked => 7")).encode())
    assert len(engine.received.prompts) == embedded + 21 * 3 + 7
    shop.execute((JOIN % (3, ", checked => 7")).encode())  # the same sample
    assert len(engine.received.prompts) == embedded + 21 * 3 + 7


@pytest.fixture
def embedder() -> Iterator[EngineDouble]:
    with EngineDouble() as double:
        double.behaviour.embedding = embedding
        yield double


def test_the_embedder_is_a_server_of_its_own_with_its_own_rights(
    shop: Conn, engine: EngineDouble, embedder: EngineDouble, connect: Connect
) -> None:
    create_server(shop, embedder.url, name="e5")
    engine.behaviour.embeddings = False
    query = JOIN % (3, ", embedder => 'e5', checked => 0")
    shop.execute("SELECT llm.usage_reset()")
    assert shop.execute(query.encode()).fetchall() == shop.execute(TRUTH.encode()).fetchall()
    assert (len(engine.received.prompts), len(embedder.received.prompts)) == (21 * 3, 21 + NAMES)
    shown = shop.execute("SELECT server, questions FROM llm.usage() ORDER BY 1").fetchall()
    assert shown == [("e5", 21 + NAMES), ("vllm", 21 * 3)]
    with pytest.raises(psycopg.Error, match='the engine of server "vllm" makes no embeddings'):
        shop.execute((JOIN % (3, "")).encode())
    with pytest.raises(psycopg.errors.UndefinedObject, match='server "e6" does not exist'):
        shop.execute((JOIN % (3, ", embedder => 'e6'")).encode())
    with Role(shop, "shopper"):
        shop.execute("GRANT SELECT ON reviews, products TO shopper; GRANT USAGE ON FOREIGN SERVER vllm TO shopper")
        shopper = connect(user="shopper")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="e5"):
            shopper.execute(query.encode())
        shop.execute("GRANT USAGE ON FOREIGN SERVER e5 TO shopper")
        shop.execute(
            "ALTER TABLE products ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON products TO shopper USING (id < 9)"
        )
        embedder.reset()
        embedder.behaviour.embedding = embedding
        assert {pair[1] for pair in shopper.execute(query.encode())} == set(range(1, 9))
        assert {text for text in embedder.received.prompts if text.startswith("thing")} == {
            f"thing {chr(64 + i)}" for i in range(1, 9)
        }
        shopper.close()


def test_what_cannot_be_embedded_fails_or_is_asked_about_with_all(
    shop: Conn, engine: EngineDouble, embedder: EngineDouble
) -> None:
    create_server(shop, embedder.url, name="e5")
    embedder.behaviour.embedding = lambda text: [1.0, 2.0] if text == "Nothing." else embedding(text)
    query = JOIN % (3, ", embedder => 'e5', checked => 0%s")
    with pytest.raises(psycopg.errors.DataException, match='server "e5" could not embed') as raised:
        shop.execute((query % "").encode())
    assert raised.value.diag.message_detail in (
        f"the engine's embedding has 2 dimensions and not {NAMES}",
        f"the engine's embedding has {NAMES} dimensions and not 2",
    )
    assert "asked about with all others" in (raised.value.diag.message_hint or "")
    assert engine.received.prompts == []
    embedder.behaviour.embedding = lambda text: "nonsense" if text == "Nothing." else embedding(text)
    found = shop.execute((query % ", on_error => 'null'").encode()).fetchall()
    assert found == shop.execute(TRUTH.encode()).fetchall()
    assert len(engine.received.prompts) == 20 * 3 + NAMES
    assert told_of(shop)["pruned"] == 20 * (NAMES - 3)
    shop.execute("UPDATE reviews SET review = nullif(review, 'Nothing.')")
    embedder.behaviour.embedding = embedding
    assert shop.execute((query % "").encode()).fetchall() == found
    assert len(engine.received.prompts) == 2 * (20 * 3 + NAMES)  # what is NULL is near to nothing


@pytest.mark.some(1)
@pytest.mark.parametrize("options", ["dedup => false", "confidence => true"])
def test_where_pairs_are_asked_each_by_itself_none_is_pruned(shop: Conn, engine: EngineDouble, options: str) -> None:
    query = JOIN % (1, f", {options}")
    assert shop.execute(query.encode()).fetchall() == shop.execute(TRUTH.encode()).fetchall()
    assert len(engine.received.prompts) == (22 if "dedup" in options else 21) * NAMES
    assert told_of(shop) == {}


def test_without_batches_and_of_no_pairs_each_is_asked(shop: Conn, engine: EngineDouble) -> None:
    shop.execute("SET pg_bridge.batching = off")
    one = JOIN.replace(" ORDER", " WHERE r.id = 7 AND p.id IN (7, 8) ORDER") % (1, "")
    assert shop.execute(one.encode()).fetchall() == [(7, 7)]
    shop.execute("RESET pg_bridge.batching")
    engine.behaviour.answer = lambda _: "no"
    plain = "SELECT count(*) FROM reviews WHERE llm.is_true('Does {review} concern x?', reviews, nearest => 1)"
    shop.execute(plain.encode())
    assert len(engine.received.prompts) == 2 + 21


def test_limits_hold_for_embeddings_and_for_questions(shop: Conn, engine: EngineDouble) -> None:
    with pytest.raises(psycopg.Error, match="max_requests = 50"):
        shop.execute((JOIN % (1, ", max_requests => 50, checked => 0")).encode())
    assert engine.received.prompts == []  # 51 were to be embedded
    shop.execute((JOIN % (1, ", max_requests => 51, checked => 0")).encode())
    with pytest.raises(psycopg.Error, match="max_requests = 51"):
        shop.execute((JOIN % (3, ", max_requests => 51, checked => 0")).encode())


@pytest.mark.parametrize(
    ("option", "said"),
    [("nearest => 0", "nearest"), ("nearest => -1", "nearest"), ("nearest => 1, checked => 10001", "checked")],
)
def test_what_is_no_number_is_refused(shop: Conn, option: str, said: str) -> None:
    with pytest.raises(psycopg.Error, match=f'invalid value for option "{said}"'):
        shop.execute((JOIN % (1, "")).replace("nearest => 1", option).encode())


def test_a_join_that_is_cancelled_while_it_embeds_leaves_a_session_that_works(
    shop: Conn, engine: EngineDouble, connect: Connect
) -> None:
    engine.behaviour.hang = True
    session = connect()
    with once(lambda: bool(engine.received.prompts), session.cancel), pytest.raises(psycopg.errors.QueryCanceled):
        session.execute((JOIN % (3, "")).encode())
    engine.behaviour.hang = False
    assert session.execute((JOIN % (3, "")).encode()).fetchall() == shop.execute(TRUTH.encode()).fetchall()

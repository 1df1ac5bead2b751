"""Embeddings that are kept in step with a table: of a text, of several columns, and of chunks of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from pg_bridge.cli import main
from pg_bridge.jobs import noted
from pg_bridge.jobs.record import Done
from pg_bridge.jobs.table import TableWriting
from pg_bridge.testing.behaviour import default_embedding
from tests.keeping import Shop, joe, keeping, on_rented, schema, shop

EXTENSION_IS_SLOW = True

__all__ = ["joe", "schema", "shop"]  # fixtures

AT_ONCE = {"type": "'embedding'", "at_most_every": "'0'"}
CHUNKS = {**AT_ONCE, "chunks_of": "'review'", "chunk_chars": "20", "chunk_overlap": "0"}
LONG = "One sentence here. Another one there. And the third."


def embedded(text: str) -> list[float]:
    return [float(str(np.float32(number))) for number in default_embedding(text)]


def vectors(shop: Shop, condition: str = "true", column: str = "vector") -> dict[Any, Any]:
    return dict(shop.rows(f"SELECT id, {column} FROM reviews_with_{column} WHERE {condition}"))


def chunks(shop: Shop) -> list[tuple[Any, ...]]:
    return shop.rows("SELECT id, chunk_no, chunk_start, chunk, vector FROM reviews_vector ORDER BY 1, 2")


def assert_in_step(shop: Shop, text: str = "c.chunk") -> None:
    """The table of answers is what the table says now, chunk by chunk."""
    expected = shop.rows(
        f"SELECT r.id, c.*, {text} FROM reviews AS r, {shop.schema}.chunks(r.review, 20, 0) AS c ORDER BY 1, 2"
    )
    assert chunks(shop) == [(*row, embedded(said)) for *row, said in expected]
    assert shop.noted() == []
    assert shop.state("waiting", "answered", "failed", "trouble") == (0, len(expected), 0, None)


@on_rented
def test_an_embedding_follows_its_text(shop: Shop) -> None:
    shop.keep("reviews", "id", "vector", "{review}", **AT_ONCE)
    assert shop.work() == 60
    assert vectors(shop) == {i: embedded(f"review {i}") for i in range(1, 61)}
    assert {path for path, _ in shop.engine.received.requests} == {"/v1/embeddings"}
    shop.conn.execute("UPDATE reviews SET review = 'changed {} ' || id WHERE id < 3")
    shop.conn.execute("UPDATE reviews SET review = NULL WHERE id = 4")
    shop.conn.execute("UPDATE reviews SET stars = 7")
    shop.conn.execute("DELETE FROM reviews WHERE id = 5")
    assert shop.work() == 2
    assert vectors(shop, "id < 6") == {
        1: embedded("changed {} 1"),
        2: embedded("changed {} 2"),
        3: embedded("review 3"),
        4: None,
    }
    assert shop.state("waiting", "answered", "failed", "trouble") == (0, 58, 0, None)
    assert shop.rows("SELECT pg_typeof(vector)::text FROM reviews_vector LIMIT 1") == [("real[]",)]


@on_rented
def test_several_columns_are_one_text(shop: Shop) -> None:
    shop.conn.execute("DELETE FROM reviews WHERE id > 3")
    shop.conn.execute("UPDATE reviews SET stars = NULL, review = '{stars}' WHERE id = 2")
    shop.conn.execute("UPDATE reviews SET stars = NULL, review = NULL WHERE id = 3")
    shop.keep("reviews", "id", "vector", "{{{stars}}} of 5: {review}", dimensions="4", **AT_ONCE)
    shop.work()
    assert vectors(shop) == {1: embedded("{1} of 5: review 1")[:4], 2: embedded("{} of 5: {stars}")[:4], 3: None}
    assert shop.keep("reviews", "id", "vector", "{{{stars}}} of 6: {review}", **AT_ONCE) == shop.number
    assert shop.work() == 2
    assert vectors(shop, "id = 1") == {1: embedded("{1} of 6: review 1")}


def test_chunks_follow_their_text(shop: Shop) -> None:
    shop.conn.execute("UPDATE reviews SET review = %s WHERE id = 1", [LONG])
    shop.conn.execute("UPDATE reviews SET review = '' WHERE id = 2")
    shop.conn.execute("UPDATE reviews SET review = NULL WHERE id = 3")
    shop.keep("reviews", "id", "vector", "{review}", **CHUNKS)
    assert shop.work() == 60
    assert_in_step(shop)
    assert [row[3] for row in chunks(shop) if row[0] == 1] == [
        "One sentence here. ",
        "Another one there. ",
        "And the third.",
    ]
    assert vectors(shop, "id IN (2, 3)") == {2: None, 3: None}
    shop.conn.execute("UPDATE reviews SET review = replace(review, 'Another', 'A nicer')")
    assert shop.work() == 1
    assert_in_step(shop)
    shop.conn.execute("UPDATE reviews SET review = 'One sentence here. ' WHERE id = 1")
    assert shop.work() == 0
    assert_in_step(shop)
    shop.conn.execute("DELETE FROM reviews WHERE id = 4")
    shop.conn.execute("UPDATE reviews SET id = 400 WHERE id = 5")
    shop.conn.execute("UPDATE reviews SET review = NULL WHERE id = 6")
    assert shop.work() == 1
    assert_in_step(shop)
    shop.conn.execute("TRUNCATE reviews")
    assert shop.work() == 0
    assert chunks(shop) == []
    assert_in_step(shop)


@pytest.mark.slow
@on_rented
def test_what_is_declared_again_looks_at_all_rows(shop: Shop) -> None:
    shop.conn.execute("UPDATE reviews SET review = %s WHERE id < 3", [LONG])
    number = shop.keep("reviews", "id", "vector", "{review}", **CHUNKS)
    shop.work()
    assert shop.keep("reviews", "id", "vector", "{review}", **CHUNKS) == number
    assert shop.work() == 0
    shop.conn.execute("ALTER TABLE reviews DISABLE TRIGGER USER")
    shop.conn.execute("DELETE FROM reviews WHERE id = 1")
    shop.conn.execute("UPDATE reviews SET review = 'unseen' WHERE id = 2")
    shop.conn.execute("ALTER TABLE reviews ENABLE TRIGGER USER")
    shop.keep("reviews", "id", "vector", "{stars}: {review}", **CHUNKS)
    assert shop.work() == 59
    assert_in_step(shop, "r.stars || ': ' || c.chunk")
    shop.keep("reviews", "id", "vector", "{stars}: {review}", **{**CHUNKS, "chunk_chars": "9"})
    shop.work()
    assert {len(row[3]) for row in chunks(shop)} <= set(range(1, 10))
    with pytest.raises(psycopg.errors.DuplicateObject):
        shop.keep("reviews", "id", "vector", "{review}", **AT_ONCE)


@pytest.mark.slow
@on_rented
def test_a_renamed_column_and_one_of_several_keys(shop: Shop) -> None:
    shop.conn.execute("ALTER TABLE reviews DROP CONSTRAINT reviews_pkey, ALTER stars SET NOT NULL")
    shop.conn.execute("ALTER TABLE reviews ADD PRIMARY KEY (stars, id)")
    shop.keep("reviews", "stars, id", "vector", "{review}", **CHUNKS)
    shop.work()
    shop.conn.execute("ALTER TABLE reviews RENAME review TO said")
    shop.conn.execute("UPDATE reviews SET said = %s WHERE id = 1", [LONG])
    assert shop.work() == 3
    assert [row[1:4] for row in chunks(shop) if row[0] == 1][1] == (2, 20, "Another one there. ")
    assert shop.state("trouble") == (None,)


@on_rented
def test_rows_are_dealt_with_whole_or_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an engine, or a table, refuses in the middle of a row leaves its note, or its error, and no half."""
    monkeypatch.setattr("pg_bridge.jobs.running.PART_ROWS", 2)
    monkeypatch.setattr(noted, "FIRST_PAGE_ROWS", 2)
    shop.conn.execute("UPDATE reviews SET review = %s WHERE id < 5", [LONG])
    shop.keep("reviews", "id", "vector", "{review}", **CHUNKS)
    shop.engine.behaviour.refuse_marked = {"Another": "not this one"}
    shop.work()
    assert [row[:2] for row in chunks(shop) if row[4] is None] == [(i, 2) for i in range(1, 5)]
    assert shop.state("waiting", "failed", "trouble") == (0, 4, None)
    shop.engine.behaviour.refuse_marked = {}
    shop.conn.execute("UPDATE reviews SET review = review || ' Again.' WHERE id < 5")
    shop.engine.behaviour.change({"fail_status": 500, "fail_first": 1000})
    shop.step()
    assert shop.state("waiting")[0] == 4
    assert shop.state("trouble") != (None,)
    shop.engine.behaviour.change({"fail_first": 0})
    shop.work()
    assert_in_step(shop)


@on_rented
def test_what_cannot_be_kept_is_said_at_once(shop: Shop) -> None:
    wrong = [
        ({"type": "'embedding'"}, "no question: {{review}}", psycopg.errors.UndefinedColumn),
        ({"type": "'embedding'"}, "", psycopg.errors.UndefinedColumn),
        ({"type": "'vector'"}, "{review}", psycopg.errors.InvalidParameterValue),
        ({"dimensions": "3"}, "{review}", psycopg.errors.InvalidParameterValue),
        ({"chunks_of": "'stars'", "type": "'embedding'"}, "{review}", psycopg.errors.UndefinedColumn),
        ({"chunks_of": "'id'", "type": "'embedding'"}, "{review} {id}", psycopg.errors.UndefinedColumn),
        ({"chunks_of": "'stars'", "type": "'embedding'"}, "{stars}", psycopg.errors.DatatypeMismatch),
        ({"chunks_of": "'review'", "chunk_chars": "0"}, "{review}", psycopg.errors.InvalidParameterValue),
        ({"chunks_of": "'review'", "chunk_chars": "NULL"}, "{review}", psycopg.errors.NullValueNotAllowed),
        ({"chunks_of": "'review'", "chunk_chars": "9", "chunk_overlap": "9"}, "{review}", psycopg.errors.DataError),
    ]
    for named, prompt, error in wrong:
        with pytest.raises(error):
            shop.keep("reviews", "id", "vector", prompt, **named)
    with pytest.raises(psycopg.errors.DuplicateColumn):
        shop.keep("reviews", "id", "chunk", "{review}", **CHUNKS)
    assert shop.rows(f"SELECT FROM {shop.schema}.kept") == []
    number = shop.keep("reviews", "id", "vector", "{review}", **CHUNKS)
    with pytest.raises(psycopg.errors.CheckViolation):  # by hand
        shop.conn.execute(f"UPDATE {shop.schema}._kept SET chunks_of = 'nothing'".encode())
    shop.conn.execute(f"SELECT {shop.schema}.unkeep({number})".encode())
    assert (
        shop.rows("SELECT relname FROM pg_class WHERE relname ~ '^(reviews_|llm_keep)' AND relname <> 'reviews_pkey'")
        == []
    )


@on_rented
def test_a_table_has_columns_that_are_called_as_those_of_chunks(shop: Shop) -> None:
    shop.conn.execute("ALTER TABLE reviews ADD chunk text; ALTER TABLE reviews ADD llm_chunk text")
    with pytest.raises(psycopg.errors.DuplicateColumn, match='reviews has a column "chunk" already') as raised:
        shop.keep("reviews", "id", "vector", "{review}", **CHUNKS)
    assert "view => ''" in (raised.value.diag.message_hint or "")
    with pytest.raises(psycopg.errors.DuplicateColumn, match='"llm_chunk" stands beside'):
        shop.keep("reviews", "id", "vector", "{llm_chunk} {review}", **CHUNKS)
    shop.keep("reviews", "id", "vector", "{review}", **CHUNKS, view="''")
    shop.work()
    assert_in_step(shop)


@pytest.mark.slow
@on_rented
def test_questions_are_asked_about_chunks_as_well(shop: Shop) -> None:
    shop.conn.execute("UPDATE reviews SET review = %s WHERE id = 1", [LONG])
    named = {**CHUNKS, "type": "'boolean'"}
    shop.keep("reviews", "id", "vector", "Is {review} kind?", **named)
    shop.work()
    assert [type(row[4]) for row in chunks(shop) if row[0] == 1] == [bool] * 3


@pytest.mark.slow
@on_rented
def test_chunks_that_moved_are_found_in_the_workers_ledger(shop: Shop, tmp_path: Path) -> None:
    shop.conn.execute("DELETE FROM reviews WHERE id > 1")
    shop.conn.execute("UPDATE reviews SET review = %s", [LONG])
    with keeping(shop.dsn, shop.schema, shop.engine, shop.said, ledger=tmp_path / "ledger") as shop.keeper:
        shop.keep("reviews", "id", "vector", "{review}", **CHUNKS)
        assert shop.work() == 3
        shop.conn.execute("UPDATE reviews SET review = 'A new beginning is. ' || review")
        assert shop.work() == 1
        assert_in_step(shop)


@on_rented
def test_who_may_not_see_a_row_sees_no_chunk_of_it(shop: Shop, joe: psycopg.Connection[Any]) -> None:
    if shop.conn.info.server_version < 150000:
        pytest.skip("a view reads with its owner's rights there")
    shop.keep("reviews", "id", "vector", "{review}", **CHUNKS)
    shop.work()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        joe.execute("SELECT FROM reviews_vector")
    shop.conn.execute("GRANT SELECT ON reviews, reviews_vector, reviews_with_vector TO joe")
    shop.conn.execute("ALTER TABLE reviews ENABLE ROW LEVEL SECURITY")
    shop.conn.execute("CREATE POLICY few ON reviews TO joe USING (id < 3)")
    for relation in ("reviews_vector", "reviews_with_vector"):
        assert joe.execute(f"SELECT id, chunk FROM {relation} ORDER BY id".encode()).fetchall() == [
            (1, "review 1"),
            (2, "review 2"),
        ]


@on_rented
def test_who_is_killed_within_a_row_goes_on_there(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pg_bridge.jobs.running.PART_ROWS", 10)
    shop.conn.execute("UPDATE reviews SET review = %s WHERE id < 9", [" ".join(f"Sentence {i}." for i in range(40))])
    shop.keep("reviews", "id", "vector", "{review}", **CHUNKS)
    write = TableWriting.write
    written: list[int] = []

    def killed(self: TableWriting, done: Sequence[Done]) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(len(done))
        write(self, done)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TableWriting, "write", killed)
        shop.step()
    there = len(chunks(shop))
    assert there == sum(written) > 0
    waiting = shop.state("waiting")[0]
    assert waiting >= 60 - there
    shop.conn.execute("UPDATE reviews SET review = 'short' WHERE id = 2")
    shop.work()
    assert_in_step(shop)


@on_rented
def test_map_embeds_what_its_prompt_writes(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dsn", psycopg.conninfo.make_conninfo(shop.dsn, user="ana"), "--endpoint", shop.engine.url]
    words += ["--query", "SELECT id, review FROM reviews WHERE id < 4", "--key", "id", "--into", "e"]
    words += ["--type", "embedding", "--prompt", "said: {review}"]
    assert main(["map", *words]) == 0, capsys.readouterr().err
    assert dict(shop.rows("SELECT id, answer FROM e")) == {i: embedded(f"said: review {i}") for i in range(1, 4)}
    photo = "jsonb_build_object('', 'data:image/png;base64,iVBORw0KGgo=') AS photo"  # as llm.media makes it
    seen = [
        "--query",
        f"SELECT id, review, {photo} FROM reviews WHERE id = 1",
        "--into",
        "seen",
        "--prompt",
        "{review}: {photo}",
    ]
    assert main(["map", *words, *seen]) == 0, capsys.readouterr().err
    assert shop.rows("SELECT cardinality(answer) FROM seen") == [(8,)]
    (parts,) = shop.engine.received.contents
    assert [part["type"] for part in parts] == ["text", "image_url"]
    assert main(["map", *words[:-1], "said"]) != 0
    assert "names no column" in capsys.readouterr().err

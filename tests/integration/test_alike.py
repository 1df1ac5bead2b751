"""llm.resolve and llm.clusters: rows that mean the same, and rows that belong together; on both hosts."""

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
CREATE TABLE firms (id int PRIMARY KEY, name text, city text);
INSERT INTO firms VALUES (1, 'Acme Corp.', 'Ulm'), (2, 'Bolt AG', 'Bonn'), (3, 'ACME', 'Ulm'),
                         (4, 'Acme Corporation', 'Ulm'), (5, NULL, NULL), (6, 'bolt', 'Bonn'),
                         (7, 'Cask', 'Kiel'), (8, 'ACME', 'Ulm');
CREATE TABLE many (id int PRIMARY KEY, name text);
INSERT INTO many SELECT i, 'firm ' || i / 3 || ' ' || chr(97 + i % 3) FROM generate_series(0, 299) AS i;
"""
SAME = "the same company by its {name}"


def first_word(prompt: str) -> str:
    """Yes where the first words are the same, whatever their letters' case."""
    rows = json.loads(prompt.rpartition("\n")[2])
    if "inside" in rows:
        return f" {rows['inside'][0]['name'][0]} names "
    one, other = (rows[number]["name"].lower().split() for number in "12")
    words = 2 if one[0] == "firm" else 1
    return "yes" if one[:words] == other[:words] else "no"


def direction(text: str) -> list[float]:
    """Numbers by the first letter."""
    letter = ord(text.lower()[:1] or " ")
    return [float(letter == ord(known)) + len(text) / 1000 for known in "abcdefgh"]


def hear(said: list[str], notice: psycopg.errors.Diagnostic) -> None:
    said.append(notice.message_primary or "")


@pytest.fixture
def conn(db: Conn, engine: EngineDouble) -> Conn:
    create_server(db, engine.url)
    create_server(db, engine.url, name="e5")
    db.execute(TABLES.encode())
    engine.behaviour.answer = first_word
    engine.behaviour.embedding = direction
    return db


def test_rows_that_mean_the_same(conn: Conn, engine: EngineDouble) -> None:
    for embedder in (None, "e5"):
        got = conn.execute(
            "SELECT row_id, input ->> 'id', entity, representative ->> 'id', agreement "
            "FROM llm.resolve('TABLE firms;', %s, embedder => %s)",
            (SAME, embedder),
        ).fetchall()
        # ACME is there twice, so it stands for all of its like; of the others the longest does.
        assert got == [
            (1, "1", 1, "3", 1), (2, "2", 2, "2", 1), (3, "3", 1, "3", 1), (4, "4", 1, "3", 1),
            (5, "5", None, None, None), (6, "6", 2, "2", 1), (7, "7", 7, "7", 1), (8, "8", 1, "3", 1),
        ]  # fmt: skip
        pairs = conn.execute("SELECT pairs FROM llm.last_run()").fetchone()
        assert pairs is not None
        assert pairs[0]["alone"] + pairs[0]["inferred"] == 15
        assert pairs[0]["inferred"] >= 5
    task = "Do the two rows mean the same by this? Answer yes or no."
    asked = {prompt for prompt in engine.received.prompts if task in prompt}
    assert f'the same company by its name\n{task}\n{{"1": {{"name": "ACME"}}, "2": {{"name": "Acme Corp."}}}}' in asked
    assert not [prompt for prompt in asked if "Ulm" in prompt]
    texts = {prompt for prompt in engine.received.prompts if task not in prompt}
    assert texts == {"ACME", "Acme Corp.", "Acme Corporation", "Bolt AG", "bolt", "Cask"}


def test_much_of_it_is_inferred(conn: Conn, engine: EngineDouble) -> None:
    same = "SELECT count(*), count(DISTINCT entity), bool_and(input -> 'id' >= '0') FROM llm.resolve(%s, '{name}'%s)"
    few = "'SELECT * FROM many WHERE id < 90'"
    assert conn.execute((same % (few, "")).encode()).fetchone() == (90, 30, True)
    assert len(engine.received.prompts) < 90 * 89 / 2 / 4
    engine.received.prompts.clear()
    engine.received.requests.clear()
    conn.execute("ALTER SERVER vllm OPTIONS (ADD max_in_flight '1000')")
    # With those of the likest letters alone.
    assert conn.execute((same % ("'TABLE many'", ", candidates => 3")).encode()).fetchone() == (300, 100, True)
    assert len(engine.received.prompts) < 2.5 * 300
    assert len(engine.received.requests) < len(engine.received.prompts) / 4


def test_the_same_rows_are_asked_the_same_in_any_order(conn: Conn, engine: EngineDouble) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (SET cache 'persistent')")
    conn.execute("ALTER SERVER e5 OPTIONS (SET cache 'persistent')")
    query = (
        "SELECT input ->> 'name', representative ->> 'name', agreement FROM llm.resolve(%s, '{name}', embedder => 'e5')"
    )
    got = conn.execute(query.encode(), ["SELECT name FROM firms"]).fetchall()
    asked = len(engine.received.prompts)
    again = conn.execute(query.encode(), ["SELECT name FROM firms ORDER BY name DESC"]).fetchall()
    assert sorted(map(str, again)) == sorted(map(str, got))
    assert len(engine.received.prompts) == asked
    conn.execute("SELECT llm.embed('Cask', server => 'e5')")  # it is kept for whoever embeds the text
    assert len(engine.received.prompts) == asked


def test_what_is_answered_wrongly_shows(conn: Conn, engine: EngineDouble) -> None:
    def once_wrong(prompt: str) -> str:
        return "yes" if '"firm 0 a"' in prompt and '"firm 1 c"' in prompt else first_word(prompt)

    engine.behaviour.answer = once_wrong
    few = "SELECT * FROM many WHERE id < 6"
    got = conn.execute("SELECT entity, agreement FROM llm.resolve(%s, '{name}') ORDER BY row_id", [few]).fetchall()
    assert [entity for entity, _ in got] == [1, 1, 1, 4, 4, 4]
    assert [agreement < 1 for _, agreement in got] == [True, False, False, False, False, True]


def test_what_takes_no_question(conn: Conn, engine: EngineDouble) -> None:
    for query, resolved, clustered in (
        ("SELECT 'a' AS name WHERE false", [], []),
        ("SELECT NULL AS name FROM generate_series(1, 2)", [(None, None)] * 2, [(None, None, None)] * 2),
        ("SELECT 'a' AS name FROM generate_series(1, 2)", [(1, None)] * 2, None),
    ):
        got = conn.execute("SELECT entity, agreement FROM llm.resolve(%s, '{name}', embedder => 'e5')", [query])
        assert got.fetchall() == resolved
        if clustered is not None:
            got = conn.execute(
                "SELECT cluster, name, distance FROM llm.clusters(%s, '{name}', 2, embedder => 'e5')", [query]
            )
            assert got.fetchall() == clustered
    assert engine.received.prompts == ["a"]
    distant = conn.execute(
        "SELECT count(DISTINCT entity) FROM llm.resolve('TABLE firms', '{name}', embedder => 'e5', min_similarity => 1)"
    ).fetchone()
    assert distant == (6,)
    assert not [prompt for prompt in engine.received.prompts if "mean the same" in prompt]


def test_clusters_and_their_names(conn: Conn, engine: EngineDouble) -> None:
    columns = "cluster, name, input ->> 'id', round(distance::numeric, 2)"
    query = f"SELECT {columns} FROM llm.clusters('TABLE firms', %s, %s, embedder => 'e5')"
    of = ((1, 1), (2, 2), (3, 1), (4, 1), (5, None), (6, 2), (7, 3), (8, 1))  # by id, the largest cluster first
    got = conn.execute(query.encode(), ["what kind of {name}", 3]).fetchall()
    names = {None: None, 1: "A names", 2: "B names", 3: "C names"}
    assert got == [(cluster, names[cluster], str(row), None if cluster is None else 0) for row, cluster in of]
    asked = [prompt for prompt in engine.received.prompts if prompt.startswith("what kind of name\nThe rows inside")]
    assert len(asked) == 3
    shown = [json.loads(prompt.rpartition("\n")[2]) for prompt in asked]
    assert sorted(len(each["inside"]) for each in shown) == [1, 2, 3]
    assert all(len(each["outside"]) == 2 for each in shown)
    # One has none outside; and there are no more than different rows.
    engine.received.prompts.clear()
    assert {row[:2] for row in conn.execute(query.encode(), ["{name}", 1])} == {(1, "A names"), (None, None)}
    assert any("These rows belong together" in prompt and "outside" not in prompt for prompt in engine.received.prompts)
    assert {row[0] for row in conn.execute(query.encode(), ["{name}", 99])} == {None, 1, 2, 3, 4, 5, 6}


def test_rows_that_are_long_for_a_prompt(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.max_model_len = 600
    query = "SELECT chr(97 + i % 3) || i || repeat('x', 300) AS name FROM generate_series(1, 12) AS i"
    got = conn.execute("SELECT DISTINCT cluster FROM llm.clusters(%s, '{name}', 3, embedder => 'e5')", [query])
    assert len(got.fetchall()) == 3
    assert max(map(len, engine.received.prompts)) < 3 * (600 - 128)


def test_errors_are_clear(conn: Conn, engine: EngineDouble) -> None:
    for call, message in (
        ("resolve('TABLE firms', NULL)", "the prompt is NULL"),
        ("resolve(NULL, 'x')", "query"),
        ("resolve('TABLE firms', '{wat}')", 'column "wat" does not exist'),
        ("resolve('TABLE firms', 'x', embedder => 'none')", 'server "none" does not exist'),
        ("resolve('TABLE firms', 'x', server => 'none')", 'server "none" does not exist'),
        ("resolve('TABLE firms', 'x', candidates => 0)", "candidates"),
        ("resolve('TABLE firms', 'x', min_similarity => 'NaN')", "min_similarity"),
        ("resolve('TABLE firms', 'x', min_similarity => 1.1)", "min_similarity"),
        ("resolve('DELETE FROM firms', 'x')", "query"),
        ("resolve('SELECT i FROM generate_series(1, 201) AS i', 'x')", "too many to compare each with each"),
        ("clusters('TABLE firms', 'x', 3)", "without an embedder"),
        ("clusters('TABLE firms', 'x', 0, embedder => 'e5')", "k is not from 1 to 1000"),
        ("clusters('TABLE firms', 'x', NULL, embedder => 'e5')", "k is not from 1 to 1000"),
        ("clusters('TABLE firms', '{', 3, embedder => 'e5')", "unbalanced"),
        ("clusters('TABLE firms', NULL, 3, embedder => 'e5')", "the prompt is NULL"),
    ):
        with pytest.raises(psycopg.Error) as raised:
            conn.execute(f"SELECT * FROM llm.{call}".encode())
        assert message in str(raised.value), call
        assert not (raised.value.sqlstate or "XX").startswith("XX"), (call, raised.value)
    assert engine.received.prompts == []


def test_what_is_forged_is_refused(conn: Conn, engine: EngineDouble) -> None:
    """Anybody may call what the functions call, with anything; what is wrong it says in a row, or raises."""
    for arguments in (
        "NULL, '{name}', 'x', 3, '{}', 'resolve'",
        "'nothing', '{name}', 'x', 3, '{}', 'resolve'",
        "'c', NULL, 'x', 3, '{}', 'resolve'",
        "'c', '{{a},{b}}', 'x', 3, '{}', 'clusters'",
        "'c', '{name}', NULL, 3, '{}', 'resolve'",
        "'c', '{name}', 'x', 3, NULL, 'resolve'",
        "'c', '{name}', 'x', 3, '[]', 'resolve'",
        "'c', '{name}', 'x', 3, '{\"server\": 1}', 'resolve'",
        "'c', '{name}', 'x', 3, '{\"embedder\": {}}', 'clusters'",
        "'c', '{name}', 'x', 3, '{}', 'rank'",
        "'c', '{name}', 'x', 3, '{}', NULL",
    ):
        with conn.transaction(force_rollback=True):
            conn.execute("DECLARE c CURSOR FOR TABLE firms")
            try:
                found = conn.execute(f"SELECT fault FROM llm._alike({arguments})".encode()).fetchall()
            except psycopg.Error:
                continue
            assert [fault is not None for (fault,) in found] in ([True], []), arguments
    assert engine.received.prompts == []
    assert len(conn.execute("SELECT * FROM llm.resolve('TABLE firms', '{name}')").fetchall()) == 8


def test_a_question_without_an_answer(conn: Conn, engine: EngineDouble) -> None:
    query = "SELECT entity, agreement FROM llm.resolve('SELECT name FROM firms', '{name}'%s)"
    engine.behaviour.ignore_choices = True
    engine.behaviour.answer = partial(str.format, "perhaps")
    with pytest.raises(psycopg.Error, match="could not answer one of the comparisons"):
        conn.execute((query % "").encode())
    said: list[str] = []
    conn.add_notice_handler(partial(hear, said))
    got = conn.execute((query % ", on_error => 'null'").encode()).fetchall()
    assert got == [(row if row != 8 else 3, None) if row != 5 else (None, None) for row in range(1, 9)]
    assert any("15 of 15 comparisons have no answer" in message for message in said)
    with pytest.raises(psycopg.Error, match="max_requests"):
        conn.execute((query % ", max_requests => 3").encode())
    engine.behaviour.embedding = lambda text: "none" if text == "Cask" else direction(text)
    for function in ("resolve('SELECT name FROM firms', '{name}'", "clusters('SELECT name FROM firms', '{name}', 2"):
        with pytest.raises(psycopg.Error, match="could not answer row 7"):
            conn.execute(f"SELECT * FROM llm.{function}, embedder => 'e5')".encode())
    engine.behaviour.answer = first_word
    clusters = conn.execute(
        "SELECT row_id, cluster FROM llm.clusters('TABLE firms', '{name}', 2, embedder => 'e5', on_error => 'null')"
    ).fetchall()
    assert [row for row, cluster in clusters if cluster is None] == [5, 7]
    # What points nowhere is near to nothing, and in no cluster.
    engine.behaviour.embedding = lambda text: [0.0, 0.0] if text == "Cask" else [3e38, float(len(text))]
    engine.behaviour.answer = lambda prompt: "yes"
    assert [entity for entity, _ in conn.execute((query % ", embedder => 'e5'").encode())] == [
        1,
        1,
        1,
        1,
        None,
        1,
        7,
        1,
    ]
    none = "SELECT row_id FROM llm.clusters('TABLE firms', '{name}', 2, embedder => 'e5') WHERE cluster IS NULL"
    assert conn.execute(none.encode()).fetchall() == [(5,), (7,)]
    engine.behaviour.embeddings = False
    with pytest.raises(psycopg.Error, match="makes no embeddings"):
        conn.execute((query % ", embedder => 'e5', on_error => 'null'").encode())


def test_values_are_data(conn: Conn, engine: EngineDouble) -> None:
    hostile = ["{name}", '"}', "a'; DROP TABLE firms; --", "{{", "\\", "Ωmega \u2028 x", ""]
    conn.execute("CREATE TABLE hostile (name text)")
    for name in hostile:
        conn.execute("INSERT INTO hostile VALUES (%s)", [name])
    engine.behaviour.answer = lambda prompt: "no"
    engine.behaviour.embedding = None
    got = conn.execute(
        "SELECT input ->> 'name' FROM llm.resolve('TABLE hostile', 'the {{same}} {name}', embedder => 'e5')"
    )
    assert [name for (name,) in got] == hostile
    assert conn.execute("SELECT count(*) FROM firms").fetchone() == (8,)
    assert any("the {same} name" in prompt for prompt in engine.received.prompts)


def test_in_views_and_for_each_row_of_another_table(conn: Conn) -> None:
    conn.execute(
        "CREATE VIEW same AS SELECT entity, count(*) AS rows FROM llm.resolve('TABLE firms', '{name}') GROUP BY 1"
    )
    assert conn.execute("SELECT * FROM same ORDER BY 1").fetchall() == [(1, 4), (2, 2), (7, 1), (None, 1)]
    got = conn.execute(
        "SELECT g, count(DISTINCT entity) FROM generate_series(1, 2) AS g, LATERAL "
        "llm.resolve(format('SELECT * FROM firms WHERE id %% 2 = %s', g - 1), '{name}') GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert got == [(1, 2), (2, 2)]


def test_a_statement_that_waits_is_cancelled(conn: Conn, connect: Connect, engine: EngineDouble) -> None:
    engine.behaviour.hang = True
    asking = connect()
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            asking.execute("SELECT * FROM llm.resolve('TABLE firms', '{name}')")
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
    assert len(asking.execute("SELECT * FROM llm.resolve('TABLE firms', '{name}')").fetchall()) == 8


def test_a_role_sees_what_it_may_read(conn: Conn, connect: Connect, database: Database) -> None:
    conn.execute(
        "DROP ROLE IF EXISTS resolver; CREATE ROLE resolver LOGIN; ALTER TABLE firms ENABLE ROW LEVEL SECURITY"
    )
    try:
        with connect(user="resolver") as other:
            query = "SELECT row_id, entity FROM llm.resolve('TABLE firms', '{name}', embedder => 'e5')"
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="firms"):
                other.execute(query)
            conn.execute(
                "GRANT USAGE ON FOREIGN SERVER vllm TO resolver; GRANT SELECT ON firms TO resolver; "
                "CREATE POLICY few ON firms TO resolver USING (id < 4)"
            )
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="e5"):
                other.execute(query)
            conn.execute("GRANT USAGE ON FOREIGN SERVER e5 TO resolver")
            assert other.execute(query).fetchall() == [(1, 1), (2, 2), (3, 1)]
    finally:
        conn.execute("DROP OWNED BY resolver; DROP ROLE resolver")


def test_pictures_are_seen_and_what_is_near_is_told_by_the_text_beside_them(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = lambda _: "no"
    engine.behaviour.embedding = direction
    photos = (
        "SELECT id, name, llm.media(decode('89504e470d0a1a0a0' || id % 2, 'hex')) AS photo FROM firms WHERE id <> 5"
    )
    for options in ("", ", embedder => 'e5'", ", candidates => 2"):
        query = (
            f"SELECT count(DISTINCT entity) FROM llm.resolve($${photos}$$, 'the same: {{photo}}, {{name}}'{options})"
        )
        assert conn.execute(query.encode()).fetchone() == (7,)
    assert conn.execute(f"SELECT count(*) FROM llm.resolve($${photos}$$, '{{photo}}')".encode()).fetchone() == (7,)
    engine.reset()
    engine.behaviour.embedding = direction
    clusters = f"SELECT count(*) FROM llm.clusters($${photos}$$, '{{photo}}, {{name}}', 2, embedder => 'e5')"
    assert conn.execute(clusters.encode()).fetchone() == (7,)
    assert "image_url" in str(engine.received.contents)
    assert set(engine.received.requests) == {("/v1/embeddings", 6), ("/v1/chat/completions", 1)}
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="nothing but pictures"):
        conn.execute(clusters.replace(", {name}", "").encode())

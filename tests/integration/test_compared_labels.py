"""llm.classify without labels takes them from what its answer is compared with; it may always be none of them."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, create_server
from tests.integration.test_map import Role

Conn = psycopg.Connection[Any]

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True
TABLES = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE reviews (id int, review text, label varchar(20));
INSERT INTO reviews VALUES (1, 'About films.', 'films'), (2, 'About books.', 'films'), (3, 'About nothing.', NULL),
                           (4, 'About films.', 'games');
CREATE TABLE categories (name text, lang text);
INSERT INTO categories VALUES ('films', 'en'), ('books', 'en'), ('books', 'fr'), ('games', 'en'), (NULL, 'en');
"""
ABOUT = "llm.classify('What is {review} about?', r)"
LISTED = re.compile(r"^- (.*)$", re.MULTILINE)


def of_those_listed(prompt: str) -> str:
    """The label that the review says, if it is one that the question lists."""
    labels = [label.split(":")[0] for label in LISTED.findall(prompt)]
    return next((label for label in labels if label in prompt[prompt.rindex("{") :]), "none of these")


@pytest.fixture(params=["on", pytest.param("off", marks=pytest.mark.slow)])
def conn(request: pytest.FixtureRequest, db: Conn, engine: EngineDouble, cluster: Cluster) -> Conn:
    if not cluster.has_module:
        pytest.skip("this PostgreSQL has not the module pg_bridge")
    db.execute("LOAD 'pg_bridge'")
    db.execute(f"SET pg_bridge.batching = {request.param}".encode())
    db.execute(TABLES)
    create_server(db, engine.url)
    engine.behaviour.answer = of_those_listed
    return db


def listed(engine: EngineDouble) -> set[tuple[str, ...]]:
    """The labels of each question, without the last, which is for none of them."""
    found = {tuple(LISTED.findall(prompt)) for prompt in engine.received.prompts}
    assert all("none of these: none of the other labels fits" in labels for labels in found)
    return {tuple(label for label in labels if not label.startswith("none of these")) for labels in found}


@pytest.mark.some(7)
@pytest.mark.parametrize(
    ("query", "rows", "labels"),
    [
        (
            f"SELECT r.id, c.lang FROM reviews AS r JOIN categories AS c ON {ABOUT} = c.name",
            [(1, "en"), (2, "en"), (2, "fr"), (4, "en")],
            "books films games",
        ),
        (f"SELECT r.id, c.lang FROM categories AS c, reviews AS r WHERE c.name = {ABOUT} AND lang = 'fr'", [(2, "fr")],
         "books films games"),
        (f"SELECT r.id, c.name FROM reviews AS r LEFT JOIN categories AS c ON {ABOUT} = c.name AND c.lang = 'en'",
         [(1, "films"), (2, "books"), (3, None), (4, "films")], "books films games"),
        (f"SELECT id FROM reviews AS r WHERE {ABOUT} IN ('books', 'games')", [(2,)], "books games"),
        (f"SELECT id FROM reviews AS r WHERE {ABOUT} NOT IN ('books', 'games')", [(1,), (3,), (4,)], "books games"),
        (f"SELECT id FROM reviews AS r WHERE {ABOUT} = ANY ('{{books,games,books,NULL}}')", [(2,)], "books games"),
        (f"SELECT id FROM reviews AS r WHERE {ABOUT} IN (SELECT name FROM categories WHERE lang = 'fr')",
         [(2,)], "books"),
        (f"SELECT id FROM reviews AS r WHERE {ABOUT} NOT IN (SELECT name FROM categories WHERE lang = 'fr')",
         [(1,), (3,), (4,)], "books"),
        (f"SELECT id FROM reviews AS r WHERE {ABOUT} = r.label", [(1,)], "films games"),
        (f"SELECT count(*) FILTER (WHERE {ABOUT} = label) FROM reviews AS r", [(1,)], "films games"),
        (
            "WITH r AS MATERIALIZED (SELECT * FROM reviews WHERE id < 3) SELECT r.id, c.name FROM r, "
            f"(SELECT lang, name FROM categories WHERE lang <> 'fr' AND name <> 'games') AS c WHERE {ABOUT} = c.name",
            [(1, "films"), (2, "books")],
            "books films",
        ),
        (f"SELECT r.id FROM reviews AS r, (VALUES ('films'), ('games')) AS v (name) WHERE {ABOUT} = v.name",
         [(1,), (4,)], "films games"),
        (f"SELECT r.id FROM reviews AS r WHERE EXISTS (SELECT FROM categories AS c WHERE {ABOUT} = c.name)",
         [(1,), (2,), (4,)], "books films games"),
    ],
)  # fmt: skip
def test_labels_are_what_the_answer_is_compared_with(
    conn: Conn, engine: EngineDouble, query: str, rows: list[Any], labels: str
) -> None:
    assert sorted(conn.execute(query.encode()).fetchall(), key=str) == rows
    assert listed(engine) == {tuple(labels.split())}


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT FROM reviews AS r WHERE {ABOUT} = 'books'",
        f"SELECT FROM reviews AS r WHERE {ABOUT} IN ('books')",
        f"SELECT FROM reviews AS r WHERE {ABOUT} <> 'books'",
        f"SELECT FROM reviews AS r WHERE {ABOUT} = ANY (ARRAY['a', random()::text])",
        f"SELECT FROM reviews AS r, categories AS c WHERE {ABOUT} = c.name || ''",
        f"SELECT FROM reviews AS r, categories AS c WHERE {ABOUT} || '' = c.name",
        f"SELECT FROM reviews AS r, categories AS c WHERE {ABOUT} LIKE c.name",
        f"SELECT FROM reviews AS r, unnest('{{a,b}}'::text[]) AS c (name) WHERE {ABOUT} = c.name",
        f"SELECT FROM reviews AS r, LATERAL (SELECT r.label AS name) AS c WHERE {ABOUT} = c.name",
        f"SELECT FROM reviews AS r, (SELECT name FROM categories ORDER BY random()) AS c WHERE {ABOUT} = c.name",
        f"WITH c AS (SELECT name FROM categories) SELECT FROM reviews AS r, c WHERE {ABOUT} = c.name",
        f"WITH c AS (SELECT name FROM categories) SELECT FROM reviews AS r WHERE {ABOUT} IN (SELECT name FROM c)",
        f"SELECT FROM categories AS c WHERE EXISTS (SELECT FROM reviews AS r WHERE {ABOUT} = c.name)",
        f"SELECT {ABOUT} FROM reviews AS r",
    ],
)
@pytest.mark.some(4)
def test_where_they_are_not_seen_it_says_so(conn: Conn, engine: EngineDouble, query: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='invalid value for option "labels"') as raised:
        conn.execute(query.encode())
    assert "by = with a column" in (raised.value.diag.message_hint or "")
    assert engine.received.prompts == []


def test_labels_that_are_given_are_kept(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = lambda _: "books"
    for given in ("'{books,x}'", "labels => '{books,x}'", 'descriptions => \'{"books": "", "x": ""}\''):
        query = f"SELECT count(*) FROM reviews AS r, categories AS c WHERE {ABOUT[:-1]}, {given}) = c.name"
        assert conn.execute(query.encode()).fetchone() == (8,)
    assert not any("none of these" in prompt for prompt in engine.received.prompts)


def test_labels_are_values_whatever_stands_in_them(conn: Conn, engine: EngineDouble) -> None:
    hostile = ['{"a": 1}', "{review}", "'; DROP TABLE reviews; --", "none of these", "Ünï «x»", "a\nb"]
    conn.execute("TRUNCATE categories")
    for name in hostile:
        conn.execute("INSERT INTO categories VALUES (%s)", (name,))
    query = f"SELECT DISTINCT c.name FROM reviews AS r JOIN categories AS c ON {ABOUT} = c.name"
    for name in hostile:
        engine.behaviour.answer = lambda _, name=name: name
        conn.execute("SELECT llm.cache_clear()")
        assert conn.execute(query.encode()).fetchall() == [(name,)]
    conn.execute("TRUNCATE categories")
    assert conn.execute(query.encode()).fetchall() == []
    conn.execute("INSERT INTO categories VALUES ('Films'), ('films')")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="the same but for capitals"):
        conn.execute(query.encode())


def test_too_many_are_refused_before_anybody_is_asked(conn: Conn, engine: EngineDouble) -> None:
    query = f"SELECT count(*) FROM reviews AS r JOIN many AS c ON {ABOUT} = c.name"
    conn.execute("CREATE TABLE many AS SELECT i::text AS name FROM generate_series(1, 199) AS i UNION ALL SELECT NULL")
    conn.execute("INSERT INTO many SELECT name FROM many; INSERT INTO many VALUES ('About films.')")
    assert conn.execute(query.encode()).fetchone() == (2,)
    engine.reset()
    conn.execute("INSERT INTO many VALUES ('one more')")
    for each in (
        query,
        query.replace(" JOIN many AS c", "").replace(f"ON {ABOUT} =", f"WHERE {ABOUT} IN (TABLE many)--"),
    ):
        with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="more than 200 labels"):
            conn.execute(each.encode())
    assert engine.received.prompts == []


def test_they_are_those_that_the_role_may_see(conn: Conn, engine: EngineDouble, connect: Connect) -> None:
    """By row security, by rights on columns, through a view with its owner's rights, and for a target of DELETE."""
    with Role(conn, "reader"):
        conn.execute(
            """
            ALTER ROLE reader SET session_preload_libraries = pg_bridge;
            GRANT SELECT ON reviews TO reader;
            GRANT SELECT (name), DELETE ON categories TO reader;
            GRANT USAGE ON FOREIGN SERVER vllm TO reader;
            ALTER TABLE categories ENABLE ROW LEVEL SECURITY;
            CREATE POLICY own ON categories TO reader USING (name IN (SELECT 'books' UNION SELECT 'games'));
            CREATE VIEW all_of_them WITH (security_barrier) AS SELECT name FROM categories WHERE lang = 'en';
            GRANT SELECT ON all_of_them TO reader;
            CREATE TABLE hidden AS TABLE categories;
            """
        )
        reader = connect(user="reader")
        query = f"SELECT r.id, c.name FROM reviews AS r JOIN categories AS c ON {ABOUT} = c.name ORDER BY 1, 2"
        for _ in range(2):
            assert reader.execute(query.encode()).fetchall() == [(2, "books"), (2, "books")]
        assert listed(engine) == {("books", "games")}
        engine.reset()
        engine.behaviour.answer = of_those_listed
        assert len(reader.execute(query.replace("categories", "all_of_them").encode()).fetchall()) == 3
        assert listed(engine) == {("books", "films", "games")}
        for wrong in (query.replace("categories", "hidden"), query.replace("c.name =", "").replace("c.name", "c.lang")):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(wrong.encode())
        engine.reset()
        engine.behaviour.answer = of_those_listed
        gone = f"DELETE FROM categories AS c USING reviews AS r WHERE {ABOUT} = c.name RETURNING c.name"
        assert reader.execute(gone.encode()).fetchall() == [("books",), ("books",)]
        assert listed(engine) == {("books", "games")}
        reader.close()
        conn.execute("DROP VIEW all_of_them; DROP TABLE hidden")


def test_what_hides_rows_of_a_target_is_not_gone_round(conn: Conn, engine: EngineDouble, connect: Connect) -> None:
    """A view's condition stands beside its table, not in it, where it is written into; so do policies of INSERT."""
    with Role(conn, "writer"):
        conn.execute(
            """
            ALTER ROLE writer SET session_preload_libraries = pg_bridge;
            GRANT SELECT ON reviews TO writer;
            GRANT USAGE ON FOREIGN SERVER vllm TO writer;
            CREATE TABLE kinds (name text UNIQUE, lang text);
            INSERT INTO kinds VALUES ('films', 'en'), ('books', 'fr'), ('livres', 'fr');
            CREATE VIEW french AS SELECT * FROM kinds WHERE lang = 'fr';
            CREATE VIEW barred WITH (security_barrier) AS TABLE french;
            ALTER TABLE kinds ENABLE ROW LEVEL SECURITY;
            CREATE POLICY reads ON kinds TO writer USING (lang = 'fr') WITH CHECK (true);
            GRANT SELECT, INSERT, UPDATE, DELETE ON kinds, french, barred TO writer;
            """
        )
        writer = connect(user="writer")
        of_a_text = "llm.classify('What is {} about?', 'films')"
        for table in ("kinds", "french", "barred"):
            insert = f"INSERT INTO {table} AS c VALUES ('livres', 'fr')"
            wrong = [
                f"{insert.replace('livres', 'new')} RETURNING {of_a_text} = c.name",
                f"{insert} ON CONFLICT (name) DO UPDATE SET lang = 'fr' WHERE {of_a_text} = c.name",
            ]
            if table != "kinds":
                wrong.append(f"DELETE FROM {table} AS c USING reviews AS r WHERE {ABOUT} = c.name")
                wrong.append(f"UPDATE {table} AS c SET lang = 'fr' FROM reviews AS r WHERE c.name = {ABOUT}")
            for query in wrong:
                with pytest.raises(psycopg.errors.InvalidParameterValue, match='option "labels"'):
                    writer.execute(query.encode())
        assert engine.received.prompts == []
        read = f"DELETE FROM french AS c USING reviews AS r, french AS f WHERE {ABOUT} = f.name RETURNING f.name"
        assert {name for (name,) in writer.execute(read.encode())} == {"books"}
        assert listed(engine) == {("books", "livres")}
        writer.close()
        conn.execute("DROP TABLE kinds CASCADE")


def test_views_and_prepared_statements_see_the_values_of_the_day(conn: Conn, engine: EngineDouble) -> None:
    conn.execute(
        f"CREATE VIEW found AS SELECT r.id, c.name FROM reviews AS r JOIN categories AS c ON {ABOUT} = c.name;"
        "SET plan_cache_mode = force_generic_plan;"
        f"PREPARE those AS SELECT r.id FROM reviews AS r WHERE {ABOUT} IN ($1, $2)"
    )
    assert len(conn.execute("TABLE found").fetchall()) == 4
    assert conn.execute("EXECUTE those ('books', 'x')").fetchall() == [(2,)]
    conn.execute("DELETE FROM categories WHERE name = 'films'")
    assert [name for _, name in conn.execute("TABLE found").fetchall()] == ["books", "books"]
    assert sorted(conn.execute("EXECUTE those ('films', 'x')").fetchall()) == [(1,), (4,)]
    assert "labels" not in str(conn.execute("SELECT pg_get_viewdef('found')").fetchone())
    shown = "\n".join(row[0] for row in conn.execute("EXPLAIN VERBOSE TABLE found"))
    assert "llm._labels(" in shown
    conn.execute("DROP VIEW found; DEALLOCATE those; RESET plan_cache_mode")

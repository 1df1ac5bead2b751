"""`pg-bridge map` on a PostgreSQL with nothing installed in it, as an ordinary role, with an engine double."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pg_bridge.cli import main
from pg_bridge.jobs import query, running
from pg_bridge.jobs.database import Database
from pg_bridge.testing.behaviour import choose, default_answer
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.cut_connections import Proxy
from pg_bridge.testing.double import EngineDouble

PROMPT = "Is {review} kind?"
WITHIN_S = 60.0  # what hangs would take for ever
_numbers = count(1)


def kind_of(review: str | None) -> str:
    row = json.dumps({"review": review}, ensure_ascii=False)
    return choose(f"Is review kind?\n{row}", ["yes", "no"])


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, "this takes too long"
        time.sleep(0.01)


@dataclass
class Shop:
    """A database of the role `ana`, who is nobody special.

    Attributes:
        conn: Her connection.
        engine: The engine double.
        environment: That leads `pg-bridge map` to both.
    """

    conn: psycopg.Connection[Any]
    admin: psycopg.Connection[Any]
    engine: EngineDouble
    environment: dict[str, str]
    said: list[str] = field(default_factory=list)

    def map(self, *arguments: str, into: str = "review_kind", source: str = "SELECT id, review FROM reviews") -> int:
        """Run the command in this process, with what most tests ask."""
        try:
            return main(["map", *self.words(*arguments, into=into, source=source)])
        except SystemExit as ended:
            return int(ended.code or 0)

    def words(self, *arguments: str, into: str = "review_kind", source: str | None = None) -> list[str]:
        given = " ".join(arguments)
        query_ = source or "SELECT id, review FROM reviews"
        defaults = {"--query": query_, "--key": "id", "--prompt": PROMPT, "--choices": "yes,no", "--into": into}
        left_out = {"--choices"} if "--type" in given or "--schema" in given else set()
        if "--from" in given or "--query-file" in given:
            left_out.add("--query")
        words = list(arguments)
        for name, value in defaults.items():
            if name not in arguments and name not in left_out:
                words += [name, value]
        return [word for word in words if word != "--no-key"]

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Run it in a process of its own."""
        program = "from pg_bridge.cli import main; raise SystemExit(main())"
        return subprocess.Popen(
            [sys.executable, "-c", program, "map", *self.words(*arguments)],
            env={**os.environ, **self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return self.conn.execute(statement.encode()).fetchall()

    def one(self, statement: str) -> Any:
        return self.rows(statement)[0][0]

    def asked(self) -> int:
        """Prompts since this was last called."""
        asked = len(self.engine.received.prompts)
        self.engine.reset()
        return asked

    def assert_all_right(self) -> None:
        wrong = [
            (id_, review, answer, error)
            for id_, review, answer, error in self.rows(
                "SELECT r.id, r.review, k.answer, k.error FROM reviews AS r FULL JOIN review_kind AS k USING (id)"
            )
            if answer != kind_of(review) or error is not None
        ]
        assert wrong == []


@pytest.fixture
def shop(
    cluster: Cluster, administer: Callable[[str], None], engine: EngineDouble, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    name = f"shop_{next(_numbers)}"
    administer("DO $$ BEGIN CREATE ROLE ana LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    administer(f"CREATE DATABASE {name}")
    environment = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(cluster.port),
        "PGUSER": "ana",
        "PGDATABASE": name,
        "PG_BRIDGE_ENDPOINT": engine.url,
    }
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    for variable in ("PG_BRIDGE_API_KEY", "PG_BRIDGE_DSN", "PGSERVICE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(running, "FIRST_PAUSE_S", 0.05)
    dsn = cluster.dsn_of(name)
    with (
        psycopg.connect(dsn, autocommit=True) as admin,
        psycopg.connect(dsn, user="ana", autocommit=True) as conn,
    ):
        admin.execute("GRANT CREATE ON SCHEMA public TO ana")
        conn.execute("CREATE TABLE reviews (id int PRIMARY KEY, review text)")
        conn.execute("INSERT INTO reviews SELECT i, 'review ' || i FROM generate_series(1, 300) AS i")
        yield Shop(conn, admin, engine, environment)
    administer(f"DROP DATABASE {name} WITH (FORCE)")


def test_pictures_without_the_extension(shop: Shop) -> None:
    coded = "replace(encode(review::bytea, 'base64'), chr(10), '')"
    source = (
        f"SELECT id, jsonb_build_object('', 'data:image/png;base64,' || {coded}) AS review FROM reviews WHERE id < 4"
    )
    assert shop.map(source=source) == 0
    sent = {content[1]["image_url"]["url"] for content in shop.engine.received.contents}
    assert sent == {f"data:image/png;base64,{base64.b64encode(f'review {i}'.encode()).decode()}" for i in range(1, 4)}
    assert shop.one("SELECT count(answer) FROM review_kind") == 3


def test_a_table_of_answers_after_one_command(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.conn.execute("INSERT INTO reviews SELECT i, 'review 1' FROM generate_series(301, 400) AS i")
    assert shop.map() == 0
    assert shop.asked() == 300
    shop.assert_all_right()
    assert shop.rows(
        "SELECT DISTINCT model, length(digest), answered_at > now() - interval '1 hour' FROM review_kind"
    ) == [("double", 32, True)]
    assert shop.rows(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute "
        "WHERE attrelid = 'review_kind'::regclass AND attnum > 0 ORDER BY attnum"
    ) == [
        ("id", "integer", True),
        ("answer", "text", False),
        ("model", "text", False),
        ("digest", "text", False),
        ("answered_at", "timestamp with time zone", False),
        ("error", "text", False),
    ]
    said = capsys.readouterr().out
    assert said.startswith("400 rows answered into review_kind. 100 of 400 prompts saved; ")
    assert re.search(r"; \d+% of the remaining [\d,]+ prompt tokens came from the prefix cache; \d", said)


def test_started_again_it_asks_what_is_missing_or_has_changed(shop: Shop) -> None:
    assert shop.map() == 0
    assert shop.asked() == 300
    assert shop.map() == 0
    assert shop.asked() == 0
    at = shop.one("SELECT max(answered_at) FROM review_kind")
    shop.conn.execute("UPDATE reviews SET review = 'changed ' || id WHERE id <= 7")
    shop.conn.execute("INSERT INTO reviews VALUES (1001, 'new')")
    shop.conn.execute("DELETE FROM review_kind WHERE id = 20")
    shop.conn.execute("UPDATE review_kind SET answer = NULL WHERE id = 21")
    shop.conn.execute("ALTER TABLE reviews ADD stars int DEFAULT 5")
    assert shop.map(source="SELECT stars, review, id FROM reviews") == 0  # columns that are not sent do not count
    assert shop.asked() == 10
    shop.assert_all_right()
    assert shop.one(f"SELECT count(*) FROM review_kind WHERE answered_at > '{at}'") == 10
    assert shop.map("--prompt", "Is {review} really kind?") == 0
    assert shop.asked() == 301
    assert shop.map("--prompt", "Is {review} really kind?", "--max-tokens", "5") == 0
    assert shop.asked() == 301


def test_the_order_of_columns_in_the_query_does_not_count(shop: Shop) -> None:
    shop.conn.execute("ALTER TABLE reviews ADD stars int DEFAULT 5")
    assert shop.map("--prompt", "Well?", source="SELECT id, review, stars FROM reviews") == 0
    assert shop.asked() == 300
    assert shop.map("--prompt", "Well?", source="SELECT stars, review, id FROM reviews") == 0
    assert shop.asked() == 0


def test_another_model_counts_where_one_is_named(shop: Shop) -> None:
    shop.engine.behaviour.models = ("double", "other")
    assert shop.map("--model", "double") == 0
    assert shop.map() == 0
    assert shop.asked() == 300
    assert shop.map("--model", "other") == 0
    assert shop.asked() == 300
    assert shop.rows("SELECT DISTINCT model FROM review_kind") == [("other",)]


def test_rows_that_fail_have_an_error_and_are_asked_again(shop: Shop) -> None:
    shop.engine.behaviour.reject_marker = "review 17"
    assert shop.map() == 3
    failed = shop.rows("SELECT id, answer, error IS NOT NULL FROM review_kind WHERE error IS NOT NULL ORDER BY id")
    assert failed == [(id_, None, True) for id_ in (17, *range(170, 180))]
    shop.engine.behaviour.reject_marker = ""
    shop.asked()
    assert shop.map() == 0
    assert shop.asked() == 11
    shop.assert_all_right()
    shop.engine.behaviour.reject_marker = "review 17"
    shop.conn.execute("TRUNCATE review_kind")
    assert shop.map("--on-error", "fail") == 1


def test_limit_goes_on_where_the_last_one_ended(shop: Shop) -> None:
    for _ in range(3):
        assert shop.map("--limit", "10") == 0
    assert shop.asked() == 30
    assert shop.rows("SELECT min(id), max(id), count(*) FROM review_kind") == [(1, 30, 30)]
    assert shop.map("--limit", "0") == 0
    assert shop.asked() == 0


def test_a_rehearsal_asks_and_makes_nothing(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--dry-run", "--log", "json", "--price-prompt", "10", "--price-completion", "10")
    assert shop.map(*arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["rows_known"], told["unique_prompts"]) == (300, 0, 300)
    assert told["cost"] > 0
    assert told["prompt_tokens"] > told["cached_tokens"] > 0
    assert shop.asked() == 0
    assert shop.one("SELECT to_regclass('review_kind')") is None
    assert shop.map("--limit", "30") == 0
    shop.asked()
    capsys.readouterr()
    assert shop.map(*arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["rows_known"], told["unique_prompts"]) == (300, 30, 270)
    assert shop.map("--dry-run") == 0
    assert "unique_prompts:    270" in capsys.readouterr().out
    assert shop.asked() == 0


# -- answers


@pytest.mark.parametrize(
    ("arguments", "type_", "values"),
    [
        (["--type", "text"], "text", None),
        (["--type", "boolean"], "boolean", {True, False}),
        (["--type", "number"], "double precision", {1.0, 2.0, 3.0, 4.0, 5.0}),
        (["--type", "integer"], "bigint", {1, 2, 3, 4, 5}),
        (["--choices", "good, bad"], "text", {"good", "bad"}),
        (["--schema", '{"required": ["city"], "properties": {"city": {"type": "boolean"}}}'], "jsonb", None),
    ],
)
def test_a_new_column_has_the_answers_type(
    shop: Shop, arguments: list[str], type_: str, values: set[Any] | None
) -> None:
    assert shop.map(*arguments, "--answer-column", "is kind") == 0
    assert (
        shop.one(
            "SELECT format_type(atttypid, -1) FROM pg_attribute WHERE attrelid = 'review_kind'::regclass "
            "AND attname = 'is kind'"
        )
        == type_
    )
    found = {json.dumps(answer) for (answer,) in shop.rows('SELECT "is kind" FROM review_kind')}
    if values is not None:
        assert found == {json.dumps(value) for value in values}
    assert "null" not in found
    if type_ == "jsonb":
        assert {json.loads(answer)["city"] for answer in found} == {True, False}
    assert shop.map(*arguments, "--answer-column", "is kind") == 0
    assert shop.asked() == 300


def test_answers_take_the_type_of_a_column_that_is_there(shop: Shop) -> None:
    shop.conn.execute("CREATE TYPE mood AS ENUM ('happy', 'sad')")
    shop.conn.execute(f"CREATE TABLE moods (note text, id bigint UNIQUE, answer mood, {BESIDES})".encode())
    shop.conn.execute("INSERT INTO moods VALUES ('mine', 7)")
    words = ["--query", "SELECT id, review FROM reviews", "--key", "id", "--prompt", PROMPT, "--into", "moods"]
    assert main(["map", *words]) == 0
    assert shop.rows("SELECT answer::text, count(*) > 0 FROM moods GROUP BY 1 ORDER BY 1") == [
        ("happy", True),
        ("sad", True),
    ]
    assert shop.rows("SELECT note, answer IS NULL FROM moods WHERE id = 7") == [("mine", False)]


def test_an_answer_that_is_none_of_its_type_is_its_rows_error(shop: Shop) -> None:
    shop.engine.behaviour.answer = lambda prompt: "2024-02-31" if "review 7" in prompt else "2024-02-29"
    assert shop.map("--type", "date") == 3
    assert shop.rows("SELECT answer::text, error, count(*) FROM review_kind GROUP BY 1, 2 ORDER BY 1") == [
        ("2024-02-29", None, 289),
        (None, "the answer is no value of type date", 11),
    ]


# -- what does not fit is told before a question is asked

BESIDES = "model text, digest text, answered_at timestamptz, error text"


@pytest.mark.some(7)
@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("CREATE TABLE review_kind (id int PRIMARY KEY, answer text)", 'has no column "model"'),
        (f"CREATE TABLE review_kind (id int PRIMARY KEY, {BESIDES})", 'has no column "answer"'),
        (f"CREATE TABLE review_kind (key int PRIMARY KEY, answer text, {BESIDES})", 'has no column "id"'),
        (f"CREATE TABLE review_kind (id int, answer text, {BESIDES})", "has no unique key of (id)"),
        (
            f"CREATE TABLE review_kind (id int, a int, answer text, {BESIDES}, UNIQUE (id, a))",
            "has no unique key of (id)",
        ),
        (
            f"CREATE TABLE review_kind (id int, answer text, {BESIDES}); "
            "CREATE UNIQUE INDEX ON review_kind (id) WHERE id > 5",
            "has no unique key of (id)",
        ),
        (
            f"CREATE TABLE review_kind (id int UNIQUE DEFERRABLE, answer text, {BESIDES})",
            "has no unique key of (id)",
        ),
        (f"CREATE TABLE review_kind (id text PRIMARY KEY, answer text, {BESIDES})", 'column "id" is of type integer'),
        (
            f"CREATE TABLE review_kind (id int PRIMARY KEY, answer bytea, {BESIDES})",
            "do not go with a column of type bytea",
        ),
        (
            "CREATE TABLE review_kind (id int PRIMARY KEY, answer text, model int, digest text, "
            "answered_at timestamptz, error text)",
            'column "model" of table review_kind is not of type text',
        ),
        ("CREATE VIEW review_kind AS SELECT 1 AS id", "review_kind is no table"),
        (
            f"CREATE TABLE review_kind (id int PRIMARY KEY, answer text, {BESIDES}, shop int NOT NULL)",
            'column "shop" of table review_kind has no default, and may not be NULL',
        ),
        (
            f"CREATE TABLE review_kind (id int PRIMARY KEY, answer text NOT NULL, {BESIDES})",
            'column "answer" of table review_kind may not be NULL, as one of answer',
        ),
        (
            f"CREATE TABLE review_kind (id int PRIMARY KEY, answer text GENERATED ALWAYS AS ('x') STORED, {BESIDES})",
            'column "answer" of table review_kind is generated',
        ),
    ],
)
def test_a_target_that_cannot_take_answers(
    shop: Shop, made: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for statement in made.split("; "):
        shop.conn.execute(statement.encode())
    assert shop.map() == 1
    told = capsys.readouterr().err
    assert says in told
    assert shop.asked() == 0
    hint = re.search(r"^hint: (ALTER TABLE .*;)$", told, re.M)
    if hint and "PRIMARY KEY" not in made.replace("id int PRIMARY KEY", "") and "answer bytea" not in made:
        shop.conn.execute(hint[1].encode())
        if "has no column" in says and "key int" not in made:
            assert shop.map() == 0


def test_a_role_without_rights_is_told_before_a_question(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.admin.execute(
        f"CREATE TABLE theirs (id int PRIMARY KEY, answer text, {BESIDES}); GRANT SELECT, INSERT ON theirs TO ana; "
        "CREATE SCHEMA locked"
    )
    assert shop.map(into="theirs") == 1
    assert "GRANT SELECT, INSERT, UPDATE ON theirs" in capsys.readouterr().err
    assert shop.map(into="locked.kind") == 1
    assert "permission denied for schema locked" in capsys.readouterr().err
    assert shop.map(source="SELECT 1 AS id, rolpassword AS review FROM pg_authid") == 1
    assert "permission denied for table pg_authid" in capsys.readouterr().err
    assert shop.asked() == 0
    answered = "answer, model, digest, answered_at, error"
    shop.admin.execute(f"GRANT UPDATE ({answered}) ON theirs TO ana")
    assert shop.map(into="theirs") == 0


@pytest.mark.parametrize("unseen", ["answer", "model", "digest", "answered_at", "error"])
def test_rights_on_columns_are_enough_if_all_are_there(shop: Shop, unseen: str) -> None:
    columns = {"answer", "model", "digest", "answered_at", "error"}
    answered, seen = ", ".join(columns), ", ".join(columns - {unseen})
    shop.admin.execute(
        f"CREATE TABLE theirs (id int PRIMARY KEY, answer text, {BESIDES}, other text); "
        f"GRANT SELECT (id, {seen}), INSERT (id, {answered}), UPDATE ({answered}) ON theirs TO ana"
    )
    assert shop.map(into="theirs") == 1
    assert shop.asked() == 0
    shop.admin.execute(f"GRANT SELECT ({unseen}) ON theirs TO ana")
    assert shop.map(into="theirs") == 0


def test_a_server_for_reading_only_is_told_before_a_question(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    assert shop.map("--limit", "1") == 0
    shop.asked()
    monkeypatch.setenv("PGOPTIONS", "-c default_transaction_read_only=on")
    assert shop.map() == 1
    assert "for reading only" in capsys.readouterr().err
    assert shop.asked() == 0
    assert shop.map(into=str(tmp_path / "answers.csv")) == 0


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_client_encoding_that_somebody_has_set_does_not_count(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", encoding)
    shop.conn.execute("UPDATE reviews SET review = '日本語' WHERE id = 1")
    assert shop.map() == 0
    shop.assert_all_right()


@pytest.mark.some(1)
@pytest.mark.parametrize(
    "refuses",
    [
        "ALTER TABLE review_kind ADD CHECK (answer <> 'no')",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.answer = 'no' THEN RAISE 'not this one'; END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER refuse BEFORE INSERT ON review_kind FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
)
def test_an_answer_that_the_table_refuses_is_its_rows_error_alone(shop: Shop, refuses: str) -> None:
    assert shop.map("--limit", "0") == 0
    shop.conn.execute(refuses.encode())
    assert shop.map() == 3
    found = shop.rows(
        "SELECT review, answer, error LIKE 'the target refuses it: %' FROM review_kind JOIN reviews USING (id)"
    )
    expected = [(review, "yes", None) if kind_of(review) == "yes" else (review, None, True) for review, *_ in found]
    assert len(found) == 300
    assert found == expected


def test_a_key_of_a_file_that_the_table_cannot_hold_loses_no_other(
    shop: Shop, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.conn.execute(f"CREATE TABLE review_kind (id int PRIMARY KEY, answer text, {BESIDES})".encode())
    (tmp_path / "in.csv").write_text("id,review\n1,a\nfive,b\n3,c\n")
    assert shop.map("--from", str(tmp_path / "in.csv")) == 1
    assert 'invalid input syntax for type integer: "five"' in capsys.readouterr().err
    assert shop.rows("SELECT id FROM review_kind ORDER BY id") == [(1,), (3,)]


@pytest.mark.parametrize("name", ["model", "digest", "answered_at", "error"])
def test_a_column_is_not_named_as_one_beside_the_answers(
    shop: Shop, name: str, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    for into in ("review_kind", str(tmp_path / "answers.csv")):
        assert shop.map("--answer-column", name, into=into) == 2
        assert f'a column named "{name}" stands beside the answers already' in capsys.readouterr().err
    assert shop.map("--key", name, source=f"SELECT id AS {name}, review FROM reviews") == 2
    assert shop.asked() == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"source": "SELECT 1 AS id; DROP TABLE reviews"}, "the query cannot be read"),
        (
            {"source": "SELECT 1 AS id) AS q; DELETE FROM reviews; SELECT * FROM (SELECT 1 AS id"},
            "cannot insert multiple commands",
        ),
        ({"source": "DELETE FROM reviews"}, "the query cannot be read"),
        ({"source": "SELECT review FROM reviews"}, 'the query has no column "id"'),
        ({"source": "SELECT id, id, review FROM reviews"}, 'more than one column named "id"'),
        ({"source": "SELECT id FROM reviews"}, 'column "review" does not exist in the rows'),
        ({"source": "SELECT nothing FROM reviews"}, 'column "nothing" does not exist'),
        ({"into": "a.b.c.d"}, "this is no name of a table"),
        ({"into": 'unbalanced"'}, "this is no name of a table"),
    ],
)
def test_a_query_or_a_name_that_is_none(
    shop: Shop, arguments: dict[str, str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shop.map(**arguments) == 2
    assert says in capsys.readouterr().err
    assert shop.asked() == 0
    assert shop.one("SELECT count(*) FROM reviews") == 300


@pytest.mark.parametrize(
    "source",
    [
        "SELECT nullif(id, 5) AS id, review FROM reviews",
        "SELECT b.id, a.review FROM reviews AS a LEFT JOIN reviews AS b ON b.id = a.id AND b.id <> 5",
        "SELECT id, max(review) AS review FROM reviews GROUP BY ROLLUP (id)",
    ],
)
def test_a_null_in_a_key_is_told_before_a_question(shop: Shop, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shop.map(source=source) == 1
    assert "has NULL in its key (id)" in capsys.readouterr().err
    assert shop.asked() == 0


@pytest.fixture(params=["paged", "held"])
def small_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Pages of a few rows, read by the key, or from a cursor that outlives its transaction."""
    monkeypatch.setattr(query, "FIRST_PAGE_ROWS", 7)
    monkeypatch.setattr(query, "MOST_PAGE_ROWS", 7)
    monkeypatch.setattr(query, "is_cheap_page", lambda *_: request.param == "paged")
    return str(request.param)


def test_an_index_on_the_key_decides_how_rows_are_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "MOST_PAGE_ROWS", 100)
    shop.conn.execute("CREATE TABLE many AS SELECT i AS id, i AS other FROM generate_series(1, 20000) AS i")
    shop.conn.execute("ALTER TABLE many ADD PRIMARY KEY (id)")
    shop.conn.execute("CREATE UNIQUE INDEX ON many ((id % 7), other)")
    shop.conn.execute("CREATE TABLE pairs (b text, a int, PRIMARY KEY (a, b))")
    shop.conn.execute("INSERT INTO pairs SELECT 'b' || i, i % 20 FROM generate_series(1, 20000) AS i")
    shop.conn.execute("ANALYZE many; ANALYZE pairs")
    with contextlib.closing(Database("")) as database:
        found = []
        for text, key in (
            ("SELECT * FROM many", ["id"]),
            ("SELECT id FROM many WHERE other % 2 = 0", ["id"]),
            ("SELECT a.id FROM many AS a JOIN many AS b USING (id)", ["id"]),
            ("SELECT * FROM pairs", ["a", "b"]),
            ("SELECT * FROM pairs", ["b", "a"]),
            ("SELECT other AS id FROM many", ["id"]),
            ("SELECT id FROM many GROUP BY 1 LIMIT 20000", ["id"]),
        ):
            reading = query.QueryReading(database, text, key)
            reading.open()
            found.append(reading.is_paged)
    assert found == [True, True, True, True, False, False, False]


def test_all_rows_are_read_once_page_by_page(shop: Shop, small_pages: str) -> None:
    shop.conn.execute(
        "CREATE TABLE parts AS SELECT i % 3 AS a, 'b' || i AS b, 'review ' || i AS review "
        "FROM generate_series(1, 200) AS i"
    )
    words = ("--key", 'a,"b"')
    assert shop.map(*words, source="SELECT a, b, review FROM parts") == 0
    found = dict(shop.rows("SELECT (a, b)::text, answer FROM review_kind"))
    assert found == {f"({i % 3},b{i})": kind_of(f"review {i}") for i in range(1, 201)}
    assert shop.asked() == 200
    assert shop.map(*words, source="SELECT a, b, review FROM parts") == 0
    assert shop.asked() == 0


def test_two_rows_of_one_key_are_an_error(shop: Shop, small_pages: str, capsys: pytest.CaptureFixture[str]) -> None:
    for at in (1, 14, 15, 300):  # at the end of a page, in the middle, at the end of all
        assert shop.map(source=f"SELECT id, review FROM reviews UNION ALL SELECT {at}, 'again'") == 1
        assert "two rows of the query have the same key (id)" in capsys.readouterr().err
    shop.conn.execute("DROP TABLE IF EXISTS review_kind")
    assert shop.map(source="SELECT id, review FROM reviews") == 0
    shop.assert_all_right()


# -- hostile names and values

VALUES = [
    "",
    "plain",
    "'; DROP TABLE reviews; --",
    'quote " and \\ backslash \\N \\.',
    "tab\tline\nbreak\r\x01",
    "%s %(a)s $1 {review} {{}}",
    "日本語 🎬 é e\u0301 \u202e right to left",
    "x" * 10_000,
]


def test_names_and_values_are_only_that(shop: Shop, small_pages: str) -> None:
    table, target, key, column, answer = 're"views; --', "Ta%s'rget", "q", "sent", "answer' {}"
    names = {name: sql.Identifier(name) for name in (table, target, key, column, answer)}
    shop.conn.execute(
        sql.SQL("CREATE TABLE {} ({} text PRIMARY KEY, {} text)").format(names[table], names[key], names[column])
    )
    for value in VALUES:
        shop.conn.execute(sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(names[table]), [value[:500], value])
    words = [
        *("--query", sql.SQL("SELECT * FROM {} -- a comment").format(names[table]).as_string(shop.conn)),
        *("--key", key, "--prompt", "Is {sent} kind, %s?", "--answer-column", answer),
        *("--into", names[target].as_string(shop.conn)),
    ]
    assert main(["map", *words]) == 0
    found = dict(
        shop.conn.execute(sql.SQL("SELECT {}, {} FROM {}").format(names[key], names[answer], names[target])).fetchall()
    )
    expected = {
        value[:500]: default_answer(f"Is sent kind, %s?\n{json.dumps({'sent': value}, ensure_ascii=False)}")
        for value in VALUES
    }
    assert found == expected
    shop.asked()
    assert main(["map", *words]) == 0
    assert shop.asked() == 0


def test_a_key_may_be_all_that_is_sent_or_nothing(shop: Shop) -> None:
    assert shop.map("--prompt", "Is {id} kind?", source="SELECT id FROM reviews") == 0
    assert shop.asked() == 300
    assert shop.map("--prompt", "Well?", source="SELECT id FROM reviews") == 0
    assert shop.asked() == 1  # what is not the key is sent, which is nothing


# -- ends in the middle


def slowly(shop: Shop) -> None:
    shop.engine.behaviour.delay_s = 0.05


@pytest.mark.slow
def test_killed_in_the_middle_and_started_again(shop: Shop) -> None:
    shop.conn.execute("INSERT INTO reviews SELECT i, 'review ' || i FROM generate_series(301, 2000) AS i")
    slowly(shop)
    sent = 0
    for part in (1, 2):
        child = shop.start("--max-in-flight", "32")
        until(lambda: shop.engine.received.answered > 500 and _count(shop) > (part - 1) * 500)  # noqa: B023
        child.send_signal(signal.SIGKILL)
        child.communicate()
        until(lambda: shop.engine.received.in_flight == 0)
        sent += len(shop.engine.received.prompts)
        shop.asked()
    shop.engine.behaviour.delay_s = 0.0
    written = _count(shop)
    assert 0 < written < 2000
    assert shop.map() == 0
    assert shop.asked() == 2000 - written
    shop.assert_all_right()


def _count(shop: Shop) -> int:
    with contextlib.suppress(psycopg.errors.UndefinedTable):
        return int(shop.one("SELECT count(*) FROM review_kind"))
    return 0


@pytest.mark.some(1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_keeps_what_was_answered(shop: Shop, number: signal.Signals) -> None:
    shop.engine.behaviour.hang_after = 3
    child = shop.start("--max-in-flight", "32")
    until(lambda: shop.engine.received.prompts_in_flight > 0 and _count(shop) > 0)
    child.send_signal(number)
    said, _ = child.communicate(timeout=WITHIN_S)
    assert child.returncode == 130, said
    answered = _count(shop)
    assert 0 < answered <= shop.engine.received.answered
    assert f"{answered} rows answered" in said
    assert "Interrupted: the same command goes on." in said
    shop.engine.behaviour.hang = False
    shop.asked()
    assert shop.map() == 0
    assert shop.asked() == 300 - answered
    shop.assert_all_right()


def test_parts_are_committed_and_no_transaction_is_open_while_the_engine_is_silent(shop: Shop) -> None:
    shop.engine.behaviour.hang_after = 3
    child = shop.start("--max-in-flight", "32")
    until(lambda: shop.engine.received.answered > 0 and _count(shop) == shop.engine.received.answered)
    state = "SELECT state, xact_start FROM pg_stat_activity WHERE application_name = 'pg-bridge map'"
    until(lambda: shop.rows(state) == [("idle", None)])
    child.kill()
    child.communicate()


def test_two_at_once_are_one(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("pg_bridge.jobs.table.LOCK_WITHIN_S", 0.1)
    shop.engine.behaviour.hang = True
    child = shop.start()
    until(lambda: shop.engine.received.prompts_in_flight > 0)
    assert shop.map() == 5
    assert "another run is writing into table review_kind" in capsys.readouterr().err
    assert shop.map(into="another_table", source="SELECT 1 AS id, '' AS review LIMIT 0") == 0
    child.kill()
    child.communicate()
    shop.engine.behaviour.hang = False
    monkeypatch.setattr("pg_bridge.jobs.table.LOCK_WITHIN_S", WITHIN_S)
    assert shop.map() == 0
    shop.assert_all_right()


@pytest.mark.some(2)
@pytest.mark.parametrize("tells_server", [True, False])
def test_a_connection_that_is_cut_is_made_again(
    shop: Shop, cluster: Cluster, small_pages: str, tells_server: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly(shop)
    monkeypatch.setattr(running, "PART_ROWS", 40)
    proxy = Proxy(cluster.port, tells_server=tells_server)
    monkeypatch.setenv("PGPORT", str(proxy.port))

    def cut_twice() -> None:
        for rows in (40, 160):
            until(lambda: _count(shop) >= rows)  # noqa: B023
            accepted = proxy.accepted
            proxy.cut()
            until(lambda: proxy.accepted > accepted)  # noqa: B023
            proxy.is_cut = False

    cutting = threading.Thread(target=cut_twice)
    cutting.start()
    try:
        assert shop.map("--max-in-flight", "16", "--window-rows", "50") == 0
    finally:
        cutting.join()
        proxy.close()
    assert shop.asked() == 300
    shop.assert_all_right()


@pytest.mark.slow
def test_a_database_that_is_restarted_is_waited_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slowly(shop)
    with Cluster(settings={"synchronous_commit": "on"}) as own:
        own.psql("CREATE TABLE reviews AS SELECT i AS id, 'review ' || i AS review FROM generate_series(1, 300) AS i")
        proxy = Proxy(own.port)
        monkeypatch.setenv("PG_BRIDGE_DSN", f"host=127.0.0.1 port={proxy.port} user=postgres dbname=postgres")
        monkeypatch.setattr(running, "PART_ROWS", 40)
        count = "SELECT CASE WHEN to_regclass('review_kind') IS NULL THEN 0 ELSE (xpath('//c/text()', query_to_xml("
        count += "'SELECT count(*) AS c FROM review_kind', false, true, '')))[1]::text::int END"

        def restart() -> None:
            until(lambda: int(own.psql(count).strip() or 0) >= 40)
            own.halt("immediate")
            own.resume()
            proxy.target = own.port

        restarting = threading.Thread(target=restart)
        restarting.start()
        try:
            assert shop.map("--max-in-flight", "16") == 0
        finally:
            restarting.join()
            proxy.close()
        assert "connected again" in capsys.readouterr().err
        assert own.psql("SELECT count(answer) FROM review_kind").strip() == "300"


def test_a_backend_that_is_ended_is_replaced_and_patience_ends(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slowly(shop)
    monkeypatch.setattr(running, "PART_ROWS", 40)
    ended: list[int] = []

    def end_it() -> None:
        until(lambda: _count(shop) > 0)
        ended.extend(
            row[0]
            for row in shop.rows(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'pg-bridge map'"
            )
        )
        shop.conn.execute("SELECT 1")

    ending = threading.Thread(target=end_it)
    ending.start()
    assert shop.map("--max-in-flight", "16") == 0
    ending.join()
    assert ended == [1]
    assert "the connection to PostgreSQL is lost" in capsys.readouterr().err
    shop.assert_all_right()


def test_an_engine_that_fails_for_a_while_is_waited_for(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    behaviour = shop.engine.behaviour

    def fail(requests: int) -> None:
        """Let the engine fail so often, when it has answered a few."""
        left = [50]

        def answer(prompt: str) -> str:
            left[0] -= 1
            if left[0] == 0:
                behaviour.fail_first = requests
            return default_answer(prompt)

        behaviour.answer = answer

    fail(6)  # by 503, which says that it is starting: it is waited for
    assert shop.map("--max-in-flight", "16", "--type", "text") == 0
    assert _count(shop) == 300
    shop.conn.execute("TRUNCATE review_kind")
    behaviour.fail_status = 500
    fail(6)
    arguments = ("--max-retries", "0", "--max-in-flight", "16", "--type", "text")
    assert shop.map(*arguments) == 0
    assert "HTTP status 500; trying again" in capsys.readouterr().err
    assert _count(shop) == 300
    shop.conn.execute("TRUNCATE review_kind")
    fail(1_000_000)
    assert shop.map(*arguments, "--patience", "0.2") == 1
    assert "HTTP status 500" in capsys.readouterr().err
    assert _count(shop) > 0  # what had come by then
    behaviour.fail_first = 0
    shop.asked()
    left = 300 - _count(shop)
    assert shop.map(*arguments) == 0
    assert left <= shop.asked() <= left + 16  # what was in flight may arrive at the engine only now


def test_a_wrong_key_or_model_is_not_waited_for(shop: Shop, capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    shop.engine.behaviour.api_key = "the-right-key"
    assert shop.map() == 1
    told = capsys.readouterr().err
    assert "wants an API key" in told
    assert "PG_BRIDGE_API_KEY" in told
    file = tmp_path / "key"
    file.write_text("the-right-key\n")
    assert shop.map("--api-key-file", str(file)) == 0
    file.write_text("the-wrong-key\n")
    assert shop.map("--api-key-file", str(file)) == 1
    assert "the-wrong-key" not in "".join(capsys.readouterr())


def test_no_connection_shows_no_password(
    shop: Shop, capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PG_BRIDGE_DSN", "port=1 password=secret-word host=127.0.0.1 connect_timeout=2")
    assert shop.map() == 1
    monkeypatch.setenv("PG_BRIDGE_DSN", "postgresql://ana:secret-word@127.0.0.1:1/x y?bad=1")
    assert shop.map() == 2
    monkeypatch.delenv("PG_BRIDGE_DSN")
    file = tmp_path / "dsn"
    file.write_text("password=secret-word dbname=no_such_database\n")
    assert shop.map("--dsn-file", str(file)) == 1
    told = capsys.readouterr().err
    assert told.count("no connection to PostgreSQL") == 2
    assert "the DSN cannot be read" in told
    assert "secret-word" not in told


# -- budgets and logs


def test_a_budget_that_is_used_up_keeps_what_was_answered(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert shop.map("--max-requests", "100") == 4
    assert "It would take at least 300 prompts" in capsys.readouterr().err
    assert shop.asked() == 0
    assert shop.map("--max-requests", "100", "--on-budget", "null") == 4
    assert shop.asked() == 100 == _count(shop)
    assert "200 were not asked" in capsys.readouterr().out
    assert shop.map("--max-requests", "200") == 0
    shop.assert_all_right()
    assert shop.map("--max-cost", "1") == 2
    assert "--price-prompt" in capsys.readouterr().err
    shop.conn.execute("TRUNCATE review_kind")
    shop.asked()
    assert shop.map("--max-cost", "0.01", "--price-prompt", "10") == 4
    assert "--on-budget null" in capsys.readouterr().err
    assert shop.asked() == 0


def test_json_lines_for_logs(shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pg_bridge.cli.map_progress.JSON_EVERY_S", 0.0)
    assert shop.map("--log", "json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["event"] for line in lines} == {"progress", "end"}
    assert lines[-1]["event"] == "end"
    assert (lines[-1]["status"], lines[-1]["rows_answered"], lines[-1]["prompts"]) == ("done", 300, 300)
    assert shop.map("--quiet") == 0
    assert "".join(capsys.readouterr()) == ""
    assert shop.map("--log", "json", into="a.b.c") == 2
    assert json.loads(capsys.readouterr().out)["status"] == "failed"


def test_a_ledger_keeps_what_was_not_written(shop: Shop, tmp_path: Any) -> None:
    assert shop.map("--ledger", str(tmp_path / "ledger")) == 0
    shop.conn.execute("DROP TABLE review_kind")
    shop.asked()
    assert shop.map("--ledger", str(tmp_path / "ledger")) == 0
    assert shop.asked() == 0
    shop.assert_all_right()


# -- between files and tables


def test_from_a_file_into_a_table(shop: Shop, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "reviews.csv"
    file.write_text('id,review\n1,good\n2,"bad, ""really"""\n')
    shop.conn.execute(f"CREATE TABLE review_kind (id bigint PRIMARY KEY, answer text, {BESIDES})")
    assert shop.map("--from", str(file)) == 0
    assert shop.rows("SELECT id, answer FROM review_kind ORDER BY id") == [
        (1, kind_of("good")),
        (2, kind_of('bad, "really"')),
    ]
    assert shop.map("--from", str(file)) == 0
    assert shop.asked() == 2
    assert shop.map("--from", str(file), into="new_kind") == 0
    assert shop.rows("SELECT id FROM new_kind ORDER BY id") == [("1",), ("2",)]
    file.write_text("id,review\n1,good\n1,bad\n")
    assert shop.map("--from", str(file)) == 1
    assert "have the same key (id)" in capsys.readouterr().err


def test_from_a_query_into_a_file(shop: Shop, tmp_path: Any) -> None:
    file = tmp_path / "kind.jsonl"
    assert shop.map(into=str(file)) == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["id"], row["review"], row["answer"]) for row in rows] == [
        (i, f"review {i}", kind_of(f"review {i}")) for i in range(1, 301)
    ]
    shop.asked()
    shop.conn.execute("UPDATE reviews SET review = 'changed' WHERE id = 5")
    assert shop.map(into=str(file)) == 0
    assert shop.asked() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["kind.jsonl"]


def test_without_a_key_a_table_of_answers_is_refused(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "--query", "SELECT 1 AS a", "--prompt", "Well?", "--into", "answers"]) == 2
    assert "--key is missing" in capsys.readouterr().err


@pytest.mark.some(1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("key", ["id", "number"])  # found by its index, and by a cursor
def test_interrupted_while_the_query_runs_it_ends(shop: Shop, number: signal.Signals, key: str) -> None:
    query_ = "SELECT id, id + 0 AS number, review FROM reviews, pg_sleep(1000)"
    process = shop.start("--query", query_, "--key", key)
    try:
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        until(lambda: shop.admin.execute(sleeping).fetchone() == (1,))
        process.send_signal(number)
        assert "Interrupted: the same command goes on." in process.communicate(timeout=WITHIN_S)[0]
        assert process.returncode == 130
        until(lambda: shop.admin.execute(sleeping).fetchone() == (0,))
    finally:
        process.kill()


# -- keys that are spelled in several ways, and policies


def _with_key_of(shop: Shop, type_: str) -> None:
    shop.conn.execute(f"CREATE TABLE review_kind (id {type_} PRIMARY KEY, answer text, {BESIDES})".encode())


@pytest.mark.some(3)
@pytest.mark.parametrize("is_empty", [True, False])
@pytest.mark.parametrize(
    ("type_", "keys"),
    [
        ("numeric", "('1.0'), ('1.00')"),
        ("interval", "('1 day'), ('24:00')"),
        ("text COLLATE anycase", "('Heat'), ('heat')"),
        ("char(5)", "('a'), ('a ')"),
    ],
)
def test_keys_that_are_equal_for_the_table_alone_are_told_before_a_question(
    shop: Shop, type_: str, keys: str, is_empty: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if "anycase" in type_:
        try:
            shop.conn.execute(
                "CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
            )
        except psycopg.Error as error:
            pytest.skip(f"a server without ICU: {error}")
    _with_key_of(shop, type_)
    if not is_empty:
        shop.conn.execute(f"INSERT INTO review_kind VALUES ('{'9' if type_ != 'interval' else '9 days'}')".encode())
    of = "text" if type_ in ("char(5)", "text COLLATE anycase") else type_
    shop.conn.execute("INSERT INTO reviews SELECT 1000 + i, 'x' FROM generate_series(1, 9) AS i")
    assert shop.map(source=f"SELECT id::{of}, 'x' || id AS review FROM (VALUES {keys}) AS v (id)") == 1
    assert "two rows have keys that are equal for table review_kind (id)" in capsys.readouterr().err
    assert shop.asked() == 0
    one = keys.partition(", ")[0]
    assert shop.map(source=f"SELECT id::{of}, 'x' || id AS review FROM (VALUES {one}) AS v (id)") == 0


def test_numbers_of_a_file_are_compared_as_numbers(
    shop: Shop, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _with_key_of(shop, "int")
    (tmp_path / "in.csv").write_text("id,review\n1,a\n2,b\n01,c\n")
    assert shop.map("--from", str(tmp_path / "in.csv")) == 1
    assert "two rows have keys that are equal for table review_kind (id)" in capsys.readouterr().err
    assert shop.asked() == 0
    (tmp_path / "in.csv").write_text("id,review\n1,a\n02,b\n")
    assert shop.map("--from", str(tmp_path / "in.csv")) == 0
    (tmp_path / "in.csv").write_text("id,review\n01,a\n2,b\n3,c\n")
    assert shop.map("--from", str(tmp_path / "in.csv")) == 0
    assert shop.asked() == 3  # what has another spelling now is the same row, with the same question
    assert _count(shop) == 3


def test_a_key_longer_than_the_column_is_none_of_another_row(
    shop: Shop, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _with_key_of(shop, "char(3)")
    (tmp_path / "in.csv").write_text("id,review\nabc,a\nabcd,b\nabd,c\n")
    assert shop.map("--from", str(tmp_path / "in.csv")) == 1
    assert "value too long for type character(3)" in capsys.readouterr().err
    assert shop.rows("SELECT id FROM review_kind ORDER BY 1") == [("abc",), ("abd",)]


def test_pages_begin_behind_all_spellings_of_a_key(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(query, "FIRST_PAGE_ROWS", 2)
    monkeypatch.setattr(query, "MOST_PAGE_ROWS", 2)
    monkeypatch.setattr(query, "is_cheap_page", lambda *_: True)
    shop.conn.execute("CREATE TABLE priced (price numeric, review text)")
    shop.conn.execute("INSERT INTO priced SELECT i, 'review ' || i FROM generate_series(1, 9) AS i")
    shop.conn.execute("CREATE INDEX ON priced (price)")
    arguments = ("--key", "price", "--limit", "100")
    source = "SELECT price, review FROM priced"
    assert shop.map(*arguments, source=source, into=str(tmp_path / "out.csv")) == 0
    assert shop.asked() == 9
    shop.conn.execute("INSERT INTO priced VALUES (2.00, 'again')")
    assert shop.map(*arguments, source=source, into=str(tmp_path / "out.csv")) == 1
    assert "two rows of the query have the same key (price)" in capsys.readouterr().err


def test_a_key_is_watched_again_after_a_lost_connection(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    _with_key_of(shop, "numeric")
    shop.engine.behaviour.delay_s = 0.01

    def end() -> None:
        until(lambda: len(shop.engine.received.prompts) > 20)
        shop.admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pg-bridge map'"
        )

    ending = threading.Thread(target=end)
    ending.start()
    source = "SELECT id::numeric AS id, review FROM reviews"
    assert shop.map("--max-in-flight", "8", "--window-rows", "50", source=source) == 0
    ending.join()
    assert "the connection to PostgreSQL is lost" in capsys.readouterr().err
    assert _count(shop) == 300


@pytest.mark.parametrize("is_empty", [True, False])
def test_policies_that_refuse_a_row_are_told_before_a_question(
    shop: Shop, is_empty: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.admin.execute(f"CREATE TABLE review_kind (id int PRIMARY KEY, answer text, {BESIDES})".encode())
    shop.admin.execute("GRANT SELECT, INSERT, UPDATE ON review_kind TO ana")
    if not is_empty:  # a row that she does not see, and so cannot know to be there
        shop.admin.execute("INSERT INTO review_kind VALUES (200, 'theirs')")
    shop.admin.execute("ALTER TABLE review_kind ENABLE ROW LEVEL SECURITY")
    shop.admin.execute("CREATE POLICY hers ON review_kind TO ana USING (id < 200) WITH CHECK (id < 200)")
    assert shop.map() == 1
    told = capsys.readouterr().err
    assert 'violates row-level security policy for table "review_kind"' in told
    assert "hint: Leave out the rows that its policies refuse" in told
    assert shop.asked() == 0
    assert shop.admin.execute("SELECT count(*) FROM review_kind").fetchone() == (0 if is_empty else 1,)
    assert shop.map(source="SELECT id, review FROM reviews WHERE id < 200") == 0
    assert (_count(shop), shop.asked()) == (199, 199)


def test_what_is_tried_under_policies_is_no_answer(shop: Shop) -> None:
    shop.admin.execute(
        f"CREATE TABLE review_kind (id int PRIMARY KEY, answer text CHECK (answer IS NOT NULL), {BESIDES})".encode()
    )
    shop.admin.execute("GRANT SELECT, INSERT, UPDATE ON review_kind TO ana")
    shop.admin.execute("ALTER TABLE review_kind ENABLE ROW LEVEL SECURITY")
    shop.admin.execute("CREATE POLICY hers ON review_kind TO ana USING (true)")
    assert shop.map() == 0  # though what is tried has none, which the CHECK refuses
    shop.assert_all_right()

"""Foreign tables with model columns: right rows, right answers, and no question that nobody needs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import Diagnostic

from pg_bridge.testing.behaviour import choose, default_answer
from pg_bridge.testing.double import EngineDouble
from tests.conftest import WRAPPER, Connect, Database, create_server

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

LABELS = ("positive", "negative", "mixed")
REVIEWS = """
CREATE TABLE reviews AS
SELECT i::bigint AS review_id, 'film ' || i % 10 AS title, i % 5 + 1 AS stars, 'text ' || i % 200 AS review
FROM generate_series(1, 2000) AS i;
ALTER TABLE reviews ADD PRIMARY KEY (review_id);
ANALYZE reviews;
CREATE FOREIGN TABLE review_insight (
    review_id  bigint,
    title      text,
    stars      int,
    review     text,
    sentiment  text     OPTIONS (prompt 'What is the sentiment of {review}?', labels 'positive,negative,mixed'),
    spoiler    boolean  OPTIONS (prompt 'Does {review} give away the plot of {title}?'),
    summary    text     OPTIONS (prompt 'Summarise {review} in one sentence.', max_tokens '60')
) SERVER vllm OPTIONS (source 'public.reviews', key 'review_id');
"""


@pytest.fixture
def reviews(foreign: Conn) -> Conn:
    foreign.execute(REVIEWS)
    return foreign


@pytest.fixture
def shown(host: str, share_foreign: Callable[[str, str], None], used_conn: Conn) -> Conn:
    """The same, to be read only: other tests have read it and will."""
    share_foreign(host, REVIEWS)
    return used_conn


def prompt_of(question: str, row: dict[str, Any]) -> str:
    return f"{question}\n{json.dumps(row)}"


def sentiment(i: int) -> str:
    return choose(prompt_of("What is the sentiment of review?", {"review": f"text {i % 200}"}), LABELS)


def spoiler(i: int) -> bool:
    row = {"title": f"film {i % 10}", "review": f"text {i % 200}"}
    return choose(prompt_of("Does review give away the plot of title?", row), ("yes", "no")) == "yes"


def summary(i: int) -> str:
    return default_answer(prompt_of("Summarise review in one sentence.", {"review": f"text {i % 200}"}))


def asked(engine: EngineDouble) -> dict[str, int]:
    """The prompts received since the last call, by their first word."""
    counts: dict[str, int] = {}
    for prompt in engine.received.prompts:
        words = [word for word in ("What", "Does", "Summarise") if word in prompt]
        counts[words[0]] = counts.get(words[0], 0) + 1
    engine.received.prompts.clear()
    return counts


# -- what is asked


def test_every_answer_lands_on_its_row(shown: Conn) -> None:
    rows = shown.execute("SELECT * FROM review_insight").fetchall()
    assert sorted(rows) == [
        (i, f"film {i % 10}", i % 5 + 1, f"text {i % 200}", sentiment(i), spoiler(i), summary(i))
        for i in range(1, 2001)
    ]


def test_a_column_that_nobody_reads_costs_nothing(shown: Conn, used_engine: EngineDouble) -> None:
    assert shown.execute("SELECT count(*) FROM review_insight").fetchone() == (2000,)
    assert shown.execute("SELECT max(stars) FROM review_insight WHERE title = 'film 3'").fetchone() == (4,)
    assert asked(used_engine) == {}
    shown.execute("SELECT review_id, summary FROM review_insight")
    assert asked(used_engine) == {"Summarise": 200}


def test_quals_on_the_source_cut_the_questions(shown: Conn, used_engine: EngineDouble) -> None:
    rows = shown.execute("SELECT review_id, sentiment FROM review_insight WHERE stars <= 2").fetchall()
    assert sorted(rows) == [(i, sentiment(i)) for i in range(1, 2001) if i % 5 + 1 <= 2]
    assert asked(used_engine) == {"What": 80}


def test_limit_asks_a_small_multiple(shown: Conn, used_engine: EngineDouble) -> None:
    assert len(shown.execute("SELECT summary FROM review_insight LIMIT 20").fetchall()) == 20
    assert asked(used_engine)["Summarise"] <= 32
    query = "SELECT review_id, summary FROM review_insight WHERE stars <> 3 ORDER BY review_id LIMIT 20"
    rows = shown.execute(query).fetchall()
    assert rows == [(i, summary(i)) for i in range(1, 100) if i % 5 + 1 != 3][:20]
    assert asked(used_engine)["Summarise"] <= 32


def test_predicates_come_before_the_other_columns(reviews: Conn, engine: EngineDouble) -> None:
    query = "SELECT review_id, summary FROM review_insight WHERE spoiler AND sentiment = 'negative' ORDER BY review_id"
    expected = [(i, summary(i)) for i in range(1, 2001) if spoiler(i) and sentiment(i) == "negative"]
    assert reviews.execute(query).fetchall() == expected
    counts = asked(engine)
    assert counts["Summarise"] == len({summary for _, summary in expected})
    assert min(counts["What"], counts["Does"]) < 200  # the second filter was asked about the rest of the first only


def test_the_query_of_the_readme(shown: Conn, used_engine: EngineDouble) -> None:
    rows = shown.execute(
        "SELECT title, summary FROM review_insight "
        "WHERE stars <= 2 AND spoiler AND sentiment = 'negative' ORDER BY review_id LIMIT 20"
    ).fetchall()
    kept = [i for i in range(1, 2001) if i % 5 + 1 <= 2 and spoiler(i) and sentiment(i) == "negative"]
    assert rows == [(f"film {i % 10}", summary(i)) for i in kept[:20]]


def test_the_more_selective_predicate_is_learnt(foreign: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = lambda prompt: "0" if "size" in prompt else "5" if '"n": 7' in prompt else "1"
    foreign.execute(
        "CREATE TABLE t AS SELECT i AS n, 'row ' || i AS x FROM generate_series(1, 3000) AS i;"
        "CREATE FOREIGN TABLE f (n int, x text, size int OPTIONS (prompt 'What size is {x}?'),"
        " grade int OPTIONS (prompt 'What grade has {n}?')) SERVER vllm OPTIONS (source 't')"
    )
    query = "SELECT n FROM f WHERE size < 3 AND grade > 4"
    expected = [(n,) for n in range(1, 3001) if str(n).startswith("7")]
    assert sorted(foreign.execute(query).fetchall()) == expected
    of_size = sum("size" in prompt for prompt in engine.received.prompts)
    assert of_size < 700  # it drops nothing: asked first only until that was seen
    engine.received.prompts.clear()
    assert sorted(foreign.execute(query).fetchall()) == expected
    assert sum("size" in prompt for prompt in engine.received.prompts) <= len(expected)


def test_columns_of_the_same_rows_are_asked_together(foreign: Conn, engine: EngineDouble) -> None:
    """Long rows that share nothing stand before several short questions."""
    foreign.execute(
        "CREATE TABLE t AS SELECT i AS n, i || repeat(' lorem ipsum', 50) AS x FROM generate_series(1, 40) AS i;"
        "CREATE FOREIGN TABLE f (n int, x text, a text OPTIONS (prompt 'What is {x}?'), "
        "b boolean OPTIONS (prompt 'Does {x}?'), c text OPTIONS (prompt 'Summarise {x}', labels 'u,v')) "
        "SERVER vllm OPTIONS (source 't')"
    )
    rows = foreign.execute("SELECT n, x, a, b, c FROM f ORDER BY n").fetchall()
    assert all(prompt.startswith("{") for prompt in engine.received.prompts)
    for _, x, a, b, c in rows:
        row = {"x": x}
        assert a == default_answer(prompt_of("What is x?", row))
        assert b == (choose(prompt_of("Does x?", row), ("yes", "no")) == "yes")
        assert c == choose(prompt_of("Summarise x", row), ("u", "v"))
    assert asked(engine) == {"What": 40, "Does": 40, "Summarise": 40}


def test_a_statement_never_asks_the_same_twice(shown: Conn, used_engine: EngineDouble) -> None:
    query = "SELECT count(*) FROM review_insight AS a JOIN review_insight AS b USING (review_id, sentiment)"
    assert shown.execute(query).fetchone() == (2000,)
    assert asked(used_engine) == {"What": 200}


def test_a_join_on_the_key_asks_about_the_joined_rows_only(reviews: Conn, engine: EngineDouble) -> None:
    reviews.execute("CREATE TABLE wanted AS SELECT unnest('{5,7,5,1999,-1}'::bigint[]) AS id; ANALYZE wanted")
    query = "SELECT id, sentiment FROM wanted LEFT JOIN review_insight ON review_id = id ORDER BY id"
    assert reviews.execute(query).fetchall() == [
        (-1, None),
        (5, sentiment(5)),
        (5, sentiment(5)),
        (7, sentiment(7)),
        (1999, sentiment(1999)),
    ]
    assert asked(engine) == {"What": 3}


def test_window_rows_reorder_and_dedup_are_options_of_the_table(reviews: Conn, engine: EngineDouble) -> None:
    reviews.execute(
        "ALTER FOREIGN TABLE review_insight OPTIONS (ADD window_rows '100', ADD reorder 'none', ADD dedup 'false')"
    )
    # One at a time, for of two requests that are under way at once either may arrive first.
    reviews.execute("ALTER SERVER vllm OPTIONS (ADD max_in_flight '1')")
    rows = reviews.execute("SELECT review_id, summary FROM review_insight WHERE review_id <= 300").fetchall()
    assert rows == [(i, summary(i)) for i in range(1, 301)]
    assert [json.loads(prompt.partition("\n")[2])["review"] for prompt in engine.received.prompts] == [
        f"text {i % 200}" for i in range(1, 301)
    ]


# -- types


def answer_of_type(prompt: str) -> str:
    row = json.loads(prompt.partition("\n")[2].partition("}")[0] + "}")
    return str(row["say"])


TYPED = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE said (say text);
CREATE FOREIGN TABLE typed (
    say text,
    b boolean          OPTIONS (prompt 'b {say}', on_error 'null'),
    i2 smallint        OPTIONS (prompt 'i2 {say}', on_error 'null'),
    i4 int             OPTIONS (prompt 'i4 {say}', on_error 'null'),
    i8 bigint          OPTIONS (prompt 'i8 {say}', on_error 'null'),
    n numeric(4,1)     OPTIONS (prompt 'n {say}', on_error 'null'),
    f float8           OPTIONS (prompt 'f {say}', on_error 'null'),
    m mood             OPTIONS (prompt 'm {say}', on_error 'null'),
    few mood           OPTIONS (prompt 'few {say}', on_error 'null', labels 'sad,happy'),
    l varchar(5)       OPTIONS (prompt 'l {say}', on_error 'null', labels '["a, b","{c}"]'),
    v varchar(3)       OPTIONS (prompt 'v {say}', on_error 'null'),
    d date             OPTIONS (prompt 'd {say}', on_error 'null'),
    t timestamp        OPTIONS (prompt 't {say}', on_error 'null'),
    tz timestamptz     OPTIONS (prompt 'tz {say}', on_error 'null'),
    j jsonb            OPTIONS (prompt 'j {say}', on_error 'null', schema '{"type": "object", "required": ["k"]}'),
    ta text[]          OPTIONS (prompt 'ta {say}', on_error 'null')
) SERVER vllm OPTIONS (source 'said');
"""


CASES: list[tuple[str, str, str | None]] = [
    ("b", "yes", "true"),
    ("b", "maybe", None),
    ("i2", "-32768", "-32768"),
    ("i2", "40000", None),
    ("i4", "2147483647", "2147483647"),
    ("i4", "2147483648", None),
    ("i4", "many", None),
    ("i8", "123456789012345678", "123456789012345678"),
    ("n", "999.94", "999.9"),
    ("n", "999.95", None),
    ("f", "-1.5", "-1.5"),
    ("m", "happy", "happy"),
    ("m", "glad", None),
    ("few", "ok", None),
    ("l", "a, b", "a, b"),
    ("l", "{c}", "{c}"),
    ("v", "äöü", "äöü"),
    ("v", "long", None),
    ("d", "2024-02-29", "2024-02-29"),
    ("d", "2023-02-29", None),
    ("t", "2024-02-29T23:59:59", "2024-02-29 23:59:59"),
    ("t", "2024-02-29T24:00:00", None),
    ("tz", "2024-02-29T23:59:59+02:00", "2024-02-29 21:59:59+00"),
    ("j", '{"k": "\u00fc"}', '{"k": "ü"}'),
    ("j", '{"k": "\\u0000"}', None),
    ("j", '{"other": 1}', None),
    ("j", '{"k": ', None),
    ("ta", '["a", "b\\"c,{}", "", "null"]', '{a,"b\\"c,{}","","null"}'),
    ("ta", '["a", 1]', None),
    ("ta", "{}", None),
]


def test_types_decide_what_an_answer_is(foreign: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = lambda prompt: json.JSONDecoder().raw_decode("{" + prompt.partition("\n{")[2])[0]["say"]
    engine.behaviour.ignore_choices = True
    foreign.execute("SET TimeZone = 'UTC'")
    foreign.execute(TYPED)
    for column, said, value in CASES:
        engine.reset()
        foreign.execute("TRUNCATE said")
        foreign.execute("INSERT INTO said VALUES (%s)", [said])
        statement = sql.SQL("SELECT {}::text FROM typed").format(sql.Identifier(column))
        assert foreign.execute(statement).fetchone() == (value,), (column, said)
        if value is not None:
            assert len(engine.received.prompts) == 1


def test_a_second_attempt_may_do_better(foreign: Conn, engine: EngineDouble) -> None:
    engine.behaviour.ignore_choices = True
    engine.behaviour.answer = lambda prompt: "2024-02-29" if "such as" in prompt else "2024-02-30"
    foreign.execute(TYPED)
    foreign.execute("INSERT INTO said VALUES ('x')")
    assert foreign.execute("SELECT d::text FROM typed").fetchone() == ("2024-02-29",)
    assert len(engine.received.prompts) == 2


# -- the source


def test_source_query_and_other_types_than_the_sources(foreign: Conn, engine: EngineDouble) -> None:
    foreign.execute(
        "CREATE TABLE t (id int, price text); INSERT INTO t VALUES (1, '10.50'), (2, '9'), (3, NULL);"
        "CREATE FOREIGN TABLE f (id bigint, price numeric(5,1), cheap boolean OPTIONS (prompt 'Is {price} cheap?')) "
        "SERVER vllm OPTIONS (source_query 'SELECT id, price FROM t WHERE id < 100; ')"
    )
    assert foreign.execute("SELECT id, price::text FROM f WHERE price > 9.5 ORDER BY id").fetchall() == [(1, "10.5")]
    assert foreign.execute("SELECT id FROM f WHERE price < 10 ORDER BY price").fetchall() == [(2,)]
    assert len(foreign.execute("SELECT id, cheap FROM f WHERE price IS NULL").fetchall()) == 1
    assert engine.received.prompts == ['Is price cheap?\n{"price": null}']


def test_awkward_names_and_values(foreign: Conn, engine: EngineDouble) -> None:
    foreign.execute(
        """CREATE SCHEMA "My ""Schema";
        CREATE TABLE "My ""Schema"."T'x" ("a ""b" text, "select" text, "Ü%s$1" text);
        INSERT INTO "My ""Schema"."T'x" VALUES ('it''s', 'a"b', '$1'), ('', NULL, E'\\\\ {x}');
        CREATE FOREIGN TABLE f ("a ""b" text, "select" text, "Ü%s$1" text,
            "m'x" text OPTIONS (prompt 'Why {a "b}, {select} and {{this}}?')) SERVER vllm
            OPTIONS (source '"My ""Schema"."T''x"')"""
    )
    rows = foreign.execute('SELECT * FROM f ORDER BY "Ü%s$1"'.replace("%", "%%"), []).fetchall()
    by_name = {row[0]: row for row in rows}
    for a, select, u in (("it's", 'a"b', "$1"), ("", None, "\\ {x}")):
        answer = default_answer(prompt_of('Why a "b, select and {this}?', {'a "b': a, "select": select}))
        assert by_name[a] == (a, select, u, answer)
    for value in ("it's", "", "\\", "$1", "'; DROP TABLE x; --", "a,b", '{"'):
        rows = foreign.execute('SELECT count(*) FROM f WHERE "a ""b" = %s', [value]).fetchall()
        assert rows == [(1 if value in ("it's", "") else 0,)]
        foreign.execute('SELECT count(*) FROM f WHERE "a ""b" = ANY (%s)', [[value, "it's"]])


def test_nothing_of_a_foreign_table_can_be_written(shown: Conn) -> None:
    with pytest.raises(psycopg.Error):
        shown.execute("INSERT INTO review_insight (review_id) VALUES (1)")


def test_committed_changes_are_seen_and_own_ones_are_not(reviews: Conn, database: Database) -> None:
    if database.host != "multicorn":
        pytest.skip("the source is read in the transaction itself")
    with reviews.transaction():
        reviews.execute("DELETE FROM reviews WHERE review_id <= 10")
        assert reviews.execute("SELECT count(*) FROM review_insight").fetchone() == (2000,)
    assert reviews.execute("SELECT count(*) FROM review_insight").fetchone() == (1990,)


# -- failures


def failure(conn: Conn, statement: str) -> Diagnostic:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(statement)
    return caught.value.diag


def test_a_failing_row_fails_the_statement_or_is_null(reviews: Conn, engine: EngineDouble) -> None:
    engine.behaviour.reject_marker = '"text 7"'
    said = failure(reviews, "SELECT summary FROM review_insight")
    assert said.message_primary == 'the engine could not answer column "summary" for one of the rows'
    assert "on_error 'null'" in (said.message_hint or "")
    assert "text 7" not in f"{said.message_primary}{said.message_detail}{said.message_hint}"
    reviews.execute("ALTER FOREIGN TABLE review_insight ALTER summary OPTIONS (ADD on_error 'null')")
    rows = reviews.execute("SELECT review_id, summary FROM review_insight").fetchall()
    assert sorted(rows) == [(i, None if i % 200 == 7 else summary(i)) for i in range(1, 2001)]
    assert len(reviews.execute("SELECT review_id FROM review_insight WHERE summary IS NULL").fetchall()) == 10


def test_a_dead_engine_and_life_after_it(reviews: Conn, engine: EngineDouble, database: Database) -> None:
    reviews.execute("ALTER SERVER vllm OPTIONS (SET endpoint 'http://127.0.0.1:9', ADD connect_timeout_s '0.5')")
    said = failure(reviews, "SELECT summary FROM review_insight")
    assert "127.0.0.1:9" in (said.message_primary or "") + (said.message_detail or "")
    assert set(sources(database)) <= {"idle"}
    reviews.execute(f"ALTER SERVER vllm OPTIONS (SET endpoint '{engine.url}', DROP connect_timeout_s)")
    assert len(reviews.execute("SELECT summary FROM review_insight").fetchall()) == 2000


def sources(database: Database) -> list[str]:
    """The states of the connections to the source."""
    query = (
        "SELECT state FROM pg_stat_activity "
        "WHERE application_name LIKE 'pg_bridge source%' AND datname = current_database() ORDER BY 1"
    )
    return database.psql(query).splitlines()


def sleeps(database: Database) -> bool:
    """Whether the source's query is on its way."""
    return database.psql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").strip() != "0"


@pytest.mark.new_database
def test_a_connection_serves_the_session_and_ends_with_it(reviews: Conn, connect: Connect, database: Database) -> None:
    if database.host != "multicorn":
        pytest.skip("the source is read in the transaction itself")
    other = connect()
    for conn in (reviews, other, other):
        conn.execute("SELECT count(*) FROM review_insight")
        conn.execute("SELECT a.title FROM review_insight AS a JOIN review_insight AS b USING (review_id)")
    assert sources(database) == ["idle", "idle"]
    with reviews.transaction():  # a cursor left open, and an error elsewhere in the statement
        reviews.execute("DECLARE c CURSOR FOR SELECT title FROM review_insight")
        reviews.execute("FETCH 1 FROM c")
        assert sources(database) == ["idle", "idle in transaction"]
    assert sources(database) == ["idle", "idle"]
    failure(reviews, "SELECT 1 / (review_id - 3) FROM review_insight ORDER BY review_id")
    assert "idle in transaction" not in sources(database)
    other.close()
    deadline = time.monotonic() + 60
    while len(sources(database)) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(sources(database)) <= 1


def test_a_dropped_source_and_a_lost_column(reviews: Conn) -> None:
    reviews.execute("ALTER TABLE reviews RENAME COLUMN review TO body")
    said = failure(reviews, "SELECT title FROM review_insight")
    assert said.message_primary == 'column "review" of the foreign table does not exist in the source'
    reviews.execute("DROP TABLE reviews")
    said = failure(reviews, "SELECT title FROM review_insight")
    assert said.message_primary == 'the source "public.reviews" does not exist'
    assert said.message_hint


def test_the_source_is_only_read(foreign: Conn) -> None:
    foreign.execute(
        "CREATE SEQUENCE s; "
        "CREATE FOREIGN TABLE f (a bigint) SERVER vllm OPTIONS (source_query 'SELECT nextval(''s'') AS a')"
    )
    assert "read-only" in str(failure(foreign, "SELECT * FROM f").message_primary)


def test_a_lock_of_its_own_transaction_is_no_deadlock(reviews: Conn, database: Database) -> None:
    if database.host != "multicorn":
        pytest.skip("the source is read in the transaction itself")
    started = time.monotonic()
    with pytest.raises(psycopg.Error, match="lock timeout") as caught, reviews.transaction():
        reviews.execute("LOCK TABLE reviews")
        reviews.execute("SELECT count(*) FROM review_insight")
    assert time.monotonic() - started < 60  # it would wait for ever
    assert "this transaction may hold it" in (caught.value.diag.message_hint or "")


@pytest.mark.parametrize("what", ["engine", "source"])
@pytest.mark.parametrize("qual", ["", "WHERE stars > 0"])
def test_cancel(reviews: Conn, engine: EngineDouble, database: Database, what: str, qual: str) -> None:
    engine.behaviour.hang = what == "engine"
    if what == "source":
        reviews.execute(
            "CREATE VIEW slow AS SELECT * FROM reviews WHERE pg_sleep(0.05 + 0 * stars) IS NOT NULL;"
            "ALTER FOREIGN TABLE review_insight OPTIONS (SET source 'slow')"
        )

    def cancel() -> None:
        while not (engine.received.in_flight if what == "engine" else sleeps(database)):
            time.sleep(0.01)
        reviews.cancel()

    canceller = threading.Thread(target=cancel, daemon=True)
    canceller.start()
    started = time.monotonic()
    with pytest.raises(psycopg.Error, match="cancel") as caught:
        reviews.execute(f"SELECT summary FROM review_insight {qual}")
    assert time.monotonic() - started < 60  # without it, for ever or for a hundred seconds
    canceller.join()
    if database.host == "plpython" or database.cluster.has_module:
        assert caught.value.sqlstate == "57014"
    engine.behaviour.hang = False
    assert reviews.execute("SELECT count(*) FROM review_insight WHERE review_id < 5").fetchone() == (4,)
    deadline = time.monotonic() + 60
    while "active" in sources(database) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "active" not in sources(database)
    assert engine.received.in_flight == 0


# -- rights


@pytest.fixture
def analyst(reviews: Conn, connect: Connect, database: Database) -> Conn:
    """An analyst who may use the foreign table, and a role `reader` that may read its source."""
    role = f"analyst_{database.name}"
    reviews.execute(
        f"CREATE ROLE {role} LOGIN; CREATE ROLE reader_{database.name} LOGIN PASSWORD 'unspoken';"
        f"GRANT SELECT ON review_insight TO {role}; GRANT USAGE ON FOREIGN SERVER vllm TO {role};"
        f"GRANT SELECT ON reviews TO reader_{database.name};"
        f"CREATE USER MAPPING FOR {role} SERVER vllm OPTIONS (user 'reader_{database.name}', password 'unspoken', "
        "password_required 'false')"
    )
    return connect(user=role)


def test_rows_are_read_as_the_user_mapping_says(analyst: Conn, reviews: Conn, database: Database) -> None:
    if database.host != "multicorn":
        pytest.skip("the source is read with its owner's rights")
    assert analyst.execute("SELECT count(*) FROM review_insight").fetchone() == (2000,)
    reviews.execute(
        f"ALTER TABLE reviews ENABLE ROW LEVEL SECURITY; "
        f"CREATE POLICY p ON reviews TO reader_{database.name} USING (stars = 1)"
    )
    assert analyst.execute("SELECT count(*) FROM review_insight").fetchone() == (400,)
    assert reviews.execute("SELECT count(*) FROM review_insight").fetchone() == (2000,)
    reviews.execute(f"REVOKE SELECT ON reviews FROM reader_{database.name}")
    assert failure(analyst, "SELECT title FROM review_insight").message_primary == (
        "reading the source: permission denied for table reviews"
    )


def test_usage_on_the_server_is_needed(analyst: Conn, reviews: Conn, database: Database) -> None:
    reviews.execute(
        f"REVOKE USAGE ON FOREIGN SERVER vllm FROM analyst_{database.name}; GRANT SELECT ON reviews TO PUBLIC"
    )
    said = failure(analyst, "SELECT summary FROM review_insight")
    assert said.message_primary == 'permission denied for foreign server "vllm"'


def test_nobody_becomes_a_superuser_or_reads_without_a_password(
    analyst: Conn, reviews: Conn, database: Database
) -> None:
    if database.host != "multicorn":
        pytest.skip("there is no second connection")
    role = f"analyst_{database.name}"
    mapping = f"ALTER USER MAPPING FOR {role} SERVER vllm OPTIONS"
    assert "superuser" in str(failure(analyst, f"{mapping} (SET password_required 'false')").message_hint)
    analyst.execute(f"{mapping} (DROP password_required)")  # as an owner of the mapping may
    assert failure(analyst, "SELECT title FROM review_insight").message_primary == (
        "the connection to the source did not need a password"  # this cluster trusts everybody
    )
    reviews.execute(f"{mapping} (ADD password_required 'false', SET user 'postgres')")
    said = failure(analyst, "SELECT title FROM review_insight")
    assert said.message_primary == f'the user mapping of "{role}" leads to a superuser'
    reviews.execute(f"{mapping} (DROP user)")
    said = failure(analyst, "SELECT title FROM review_insight")
    assert said.message_primary == f'the user mapping of "{role}" names no user that reads the source'
    assert "unspoken" not in database.cluster.log_path.read_text()


@pytest.fixture
def authenticated(database: Database) -> Iterator[str]:
    """The role `reader_…` must give its password; the cluster trusts all others."""
    role = f"reader_{database.name}"
    rules = database.cluster.directory / "data" / "pg_hba.conf"
    trusting = rules.read_text()
    rules.write_text(f"local all {role} scram-sha-256\nhost all {role} all scram-sha-256\n{trusting}")
    database.psql("SELECT pg_reload_conf()")
    yield role
    rules.write_text(trusting)
    database.psql("SELECT pg_reload_conf()")


@pytest.mark.parametrize("way", [{}, {"host": "127.0.0.1"}])
def test_the_password_of_the_user_mapping(
    analyst: Conn, reviews: Conn, database: Database, authenticated: str, way: dict[str, str]
) -> None:
    if database.host != "multicorn":
        pytest.skip("there is no second connection")
    for name, value in way.items():
        reviews.execute(f"ALTER SERVER vllm OPTIONS (ADD {name} '{value}')")
    mapping = f"ALTER USER MAPPING FOR analyst_{database.name} SERVER vllm OPTIONS"
    reviews.execute(f"{mapping} (DROP password_required)")
    assert analyst.execute("SELECT count(*) FROM review_insight").fetchone() == (2000,)
    reviews.execute(f"{mapping} (SET password 'mistaken')")
    said = failure(analyst, "SELECT count(*) FROM review_insight")
    assert "password authentication failed" in (said.message_primary or "")
    assert "user mapping" in (said.message_hint or "")
    reviews.execute(f"{mapping} (DROP password)")
    assert "password" in str(failure(analyst, "SELECT count(*) FROM review_insight").message_primary)
    log = database.cluster.log_path.read_text()
    assert "unspoken" not in log.replace("PASSWORD 'unspoken'", "").replace("password 'unspoken'", "")
    assert "mistaken" not in log.replace("password 'mistaken'", "")


def test_a_foreign_table_that_is_its_own_source(foreign: Conn) -> None:
    foreign.execute("CREATE FOREIGN TABLE f (a int) SERVER vllm OPTIONS (source 'f')")
    assert "too deeply" in str(failure(foreign, "SELECT * FROM f").message_primary)


def test_tables_of_different_servers_share_no_answers(foreign: Conn, database: Database) -> None:
    with EngineDouble(answer=lambda _: "other") as other:
        create_server(foreign, other.url, "other", **WRAPPER[database.host])
        foreign.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER other OPTIONS (user 'postgres')")
        foreign.execute("CREATE TABLE words AS SELECT 1 AS id, 'word' AS t")
        for name, server in (("here", "vllm"), ("there", "other")):
            foreign.execute(
                sql.SQL(
                    "CREATE FOREIGN TABLE {} (id int, t text, said text OPTIONS (prompt 'Say {{t}}'))"
                    " SERVER {} OPTIONS (source 'public.words')"
                ).format(sql.Identifier(name), sql.Identifier(server))
            )
        said = foreign.execute("SELECT here.said, there.said FROM here JOIN there USING (id)").fetchall()
    assert said == [(default_answer(prompt_of("Say t", {"t": "word"})), "other")]
